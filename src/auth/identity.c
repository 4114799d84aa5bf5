// What a provider has found out is rendered once, in a scratch arena, and then copied into one block: the
// struct, its arrays, the text. The block knows nothing of the snapshot it was made under.
#include "auth/identity.h"

#include "auth/provider.h"

#include <stdlib.h>

// ---- claims ----

// A claim that is one text: a string, or a number or a boolean as written.
static bool is_plain(const struct json_value *value)
{
    switch (value->kind) {
    case JSON_STRING:
    case JSON_NUMBER:
    case JSON_TRUE:
    case JSON_FALSE: return true;
    default: return false;
    }
}

// The texts of a claim; one, but for an array. False: not there, or something without a text.
static bool claim_texts(const struct json_value *claims, struct str path, struct arena *arena,
                        struct str_list *texts)
{
    const struct json_value *claim = json_get_path(claims, path);
    *texts = (struct str_list){0};
    if (!claim || (claim->kind != JSON_ARRAY && !is_plain(claim)))
        return false;
    bool is_array = claim->kind == JSON_ARRAY;
    const struct json_value *value = is_array ? claim->first : claim;
    texts->v = arena_array(arena, struct str, is_array ? claim->count : 1);
    for (; value; value = is_array ? value->next : NULL) {
        if (!is_plain(value))
            return false;
        texts->v[texts->count++] = value->text;
    }
    return true;
}

static struct str join(const struct str_list *list, struct arena *arena)
{
    size_t n = 0;
    for (uint32_t i = 0; i < list->count; i++)
        n += list->v[i].n + 1;
    if (list->count == 1 || !n)
        return n ? list->v[0] : STR_NULL;
    char *text = arena_alloc(arena, n), *at = text;
    for (uint32_t i = 0; i < list->count; i++) {
        if (i)
            *at++ = ',';
        if (list->v[i].n)
            at = mempcpy(at, list->v[i].p, list->v[i].n);
    }
    return str_range(text, at);
}

bool identity_claim_text(const struct json_value *claims, struct str path, struct arena *arena,
                         struct str *text)
{
    struct str_list texts;
    if (!claim_texts(claims, path, arena, &texts))
        return false;
    *text = join(&texts, arena);
    return true;
}

static void split_words(struct str text, struct arena *arena, struct str_list *list)
{
    *list = (struct str_list){.v = arena_array(arena, struct str, text.n / 2 + 1)};
    while (text.n) {
        size_t n = str_find(text, ' ');
        if (n)
            list->v[list->count++] = (struct str){text.p, n};
        text = str_skip(text, n < text.n ? n + 1 : n);
    }
}

bool identity_claim_list(const struct json_value *claims, struct str path, struct arena *arena,
                         struct str_list *list)
{
    const struct json_value *claim = json_get_path(claims, path);
    if (json_is_string(claim)) {
        split_words(claim->text, arena, list);
        return true;
    }
    if (!claim || claim->kind != JSON_ARRAY)
        return false;
    for (const struct json_value *value = claim->first; value; value = value->next)
        if (!json_is_string(value))
            return false;
    return claim_texts(claims, path, arena, list);
}

// ---- values of headers ----

// Percent-encodes what is not printable ASCII, spaces at the ends, and what is in `reserved`.
static struct str encode(struct str value, struct str reserved, struct arena *arena)
{
    static const char digits[] = "0123456789ABCDEF";
    char *text = arena_alloc(arena, value.n * 3), *at = text;
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        bool is_end = i == 0 || i == value.n - 1;
        if (c > '~' || c < ' ' || (c == ' ' && is_end) || str_find(reserved, (char)c) < reserved.n) {
            *at++ = '%';
            *at++ = digits[c >> 4];
            *at++ = digits[c & 15];
        } else {
            *at++ = (char)c;
        }
    }
    return str_range(text, at);
}

struct str identity_encode(struct str value, struct arena *arena)
{
    return encode(value, STR("%"), arena);
}

// A comma inside an element must not make two of it.
static struct str encode_list(const struct str_list *list, struct arena *arena)
{
    struct str_list encoded = {.v = arena_array(arena, struct str, list->count), .count = list->count};
    for (uint32_t i = 0; i < list->count; i++)
        encoded.v[i] = encode(list->v[i], STR("%,"), arena);
    return join(&encoded, arena);
}

static struct str encode_claim(const struct identity_facts *facts, struct str path, struct arena *arena)
{
    struct str_list texts;
    if (!claim_texts(facts->claims, path, arena, &texts) || !texts.count)
        return STR_NULL;
    if (json_get_path(facts->claims, path)->kind == JSON_ARRAY)
        return encode_list(&texts, arena);
    return identity_encode(texts.v[0], arena);
}

static struct str value_of(const struct identity_header *header, const struct identity_facts *facts,
                           struct arena *arena)
{
    switch (header->source) {
    case IDENTITY_SUBJECT: return identity_encode(facts->subject, arena);
    case IDENTITY_CONSUMER: return identity_encode(facts->consumer, arena);
    case IDENTITY_ROLES: return encode_list(&facts->roles, arena);
    case IDENTITY_SCOPES: return encode_list(&facts->scopes, arena);
    case IDENTITY_PROVIDER: return identity_encode(facts->provider->name, arena);
    case IDENTITY_CLAIM: break;
    }
    return encode_claim(facts, header->claim, arena);
}

// ---- an identity ----

struct draft {
    struct arena arena;
    struct headers headers;
    struct str_map claims;
};

static void render_headers(struct draft *draft, const struct auth *auth, const struct identity_facts *facts)
{
    for (uint32_t i = 0; i < auth->header_count; i++) {
        const struct identity_header *header = &auth->headers[i];
        struct str value = value_of(header, facts, &draft->arena);
        if (value.n)
            headers_add_as(&draft->headers, &draft->arena, header->id, header->name, value);
    }
}

// Of a name that identity_headers has said already, what it says counts. The rest goes on as the Auth Service
// has encoded it; only what may not stand in a field is encoded here.
static void copy_headers(struct draft *draft, const struct headers *copied)
{
    struct headers said = draft->headers;
    for (uint32_t i = 0; copied && i < copied->count; i++) {
        const struct header *header = &copied->v[i];
        if (header->id != HEADER_GONE && header->value.n && !headers_find_name(&said, header->name))
            headers_add_as(&draft->headers, &draft->arena, header->id, header->name,
                           encode(header->value, STR_NULL, &draft->arena));
    }
}

static void render_claims(struct draft *draft, const struct auth *auth, const struct json_value *claims)
{
    draft->claims.v = arena_array(&draft->arena, struct str_pair, auth->claim_count);
    for (uint32_t i = 0; claims && i < auth->claim_count; i++) {
        struct str_pair *pair = &draft->claims.v[draft->claims.count];
        pair->name = auth->claims[i];
        if (identity_claim_text(claims, pair->name, &draft->arena, &pair->value))
            draft->claims.count++;
    }
}

static size_t list_bytes(const struct str_list *list)
{
    size_t bytes = list->count * sizeof *list->v;
    for (uint32_t i = 0; i < list->count; i++)
        bytes += list->v[i].n;
    return bytes;
}

static size_t bytes_of(const struct draft *draft, const struct identity_facts *facts)
{
    size_t bytes = sizeof(struct identity) + list_bytes(&facts->roles) + list_bytes(&facts->scopes) +
                   facts->subject.n + facts->consumer.n + facts->issuer.n + facts->jti.n;
    for (uint32_t i = 0; i < draft->headers.count; i++)
        bytes += sizeof(struct header) + draft->headers.v[i].name.n + draft->headers.v[i].value.n;
    for (uint32_t i = 0; i < draft->claims.count; i++)
        bytes += sizeof(struct str_pair) + draft->claims.v[i].name.n + draft->claims.v[i].value.n;
    return bytes;
}

// The block behind the struct: arrays first, since they are aligned, text after them.
struct block {
    char *arrays, *text;
};

static void *take_array(struct block *block, size_t size)
{
    void *array = block->arrays;
    block->arrays += size;
    return array;
}

static struct str keep(struct block *block, struct str s)
{
    if (!s.n)
        return STR_NULL;
    struct str kept = {memcpy(block->text, s.p, s.n), s.n};
    block->text += s.n;
    return kept;
}

static struct str_list keep_list(struct block *block, const struct str_list *list)
{
    struct str_list kept = {take_array(block, list->count * sizeof *list->v), list->count};
    for (uint32_t i = 0; i < list->count; i++)
        kept.v[i] = keep(block, list->v[i]);
    return kept;
}

static const struct header *keep_headers(struct block *block, const struct headers *headers)
{
    struct header *kept = take_array(block, headers->count * sizeof *kept);
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        kept[i] = (struct header){
            .name = keep(block, header->name), .value = keep(block, header->value), header->id};
    }
    return kept;
}

static const struct str_pair *keep_claims(struct block *block, const struct str_map *claims)
{
    struct str_pair *kept = take_array(block, claims->count * sizeof *kept);
    for (uint32_t i = 0; i < claims->count; i++)
        kept[i] = (struct str_pair){keep(block, claims->v[i].name), keep(block, claims->v[i].value)};
    return kept;
}

static struct identity *fill(const struct draft *draft, const struct identity_facts *facts)
{
    size_t bytes = bytes_of(draft, facts);
    struct identity *identity = bytes <= IDENTITY_BYTES ? malloc(bytes) : NULL;
    if (!identity)
        return NULL;
    size_t arrays = (facts->roles.count + facts->scopes.count) * sizeof(struct str) +
                    draft->headers.count * sizeof(struct header) +
                    draft->claims.count * sizeof(struct str_pair);
    struct block block = {.arrays = (char *)(identity + 1), .text = (char *)(identity + 1) + arrays};
    *identity = (struct identity){
        .references = 1,
        .bytes = bytes,
        .provider = facts->provider->id,
        .revocable = facts->revocable,
        .subject = keep(&block, facts->subject),
        .consumer = keep(&block, facts->consumer),
        .roles = keep_list(&block, &facts->roles),
        .scopes = keep_list(&block, &facts->scopes),
        .issuer = keep(&block, facts->issuer),
        .jti = keep(&block, facts->jti),
        .issued_at = facts->issued_at,
        .expires = facts->expires,
        .leeway_s = facts->leeway_s,
        .headers = keep_headers(&block, &draft->headers),
        .header_count = draft->headers.count,
        .claims = keep_claims(&block, &draft->claims),
        .claim_count = draft->claims.count,
    };
    return identity;
}

struct identity *identity_new(const struct auth *auth, const struct identity_facts *facts)
{
    struct draft draft = {0};
    arena_init(&draft.arena, NULL);
    render_headers(&draft, auth, facts);
    copy_headers(&draft, facts->copied);
    render_claims(&draft, auth, facts->claims);
    struct identity *identity = fill(&draft, facts);
    arena_reset(&draft.arena);
    return identity;
}

// ---- a copy: the same block at another place ----

static struct str moved(struct str text, ptrdiff_t by)
{
    return text.n ? (struct str){text.p + by, text.n} : STR_NULL;
}

static void move_list(struct str_list *list, ptrdiff_t by)
{
    list->v = (struct str *)((char *)list->v + by);
    for (uint32_t i = 0; i < list->count; i++)
        list->v[i] = moved(list->v[i], by);
}

static void move_headers(struct identity *identity, ptrdiff_t by)
{
    struct header *headers = (struct header *)((uintptr_t)identity->headers + (uintptr_t)by);
    for (uint32_t i = 0; i < identity->header_count; i++) {
        headers[i].name = moved(headers[i].name, by);
        headers[i].value = moved(headers[i].value, by);
    }
    identity->headers = headers;
}

static void move_claims(struct identity *identity, ptrdiff_t by)
{
    struct str_pair *claims = (struct str_pair *)((uintptr_t)identity->claims + (uintptr_t)by);
    for (uint32_t i = 0; i < identity->claim_count; i++)
        claims[i] = (struct str_pair){moved(claims[i].name, by), moved(claims[i].value, by)};
    identity->claims = claims;
}

struct identity *identity_copy(const struct identity *identity)
{
    size_t bytes = identity->bytes - identity->signed_token.n;
    struct identity *copy = malloc(bytes);
    if (!copy)
        return NULL;
    memcpy(copy, identity, bytes);
    ptrdiff_t by = (char *)copy - (const char *)identity;
    copy->references = 1;
    copy->bytes = bytes;
    copy->signed_token = STR_NULL;
    copy->signed_until = 0;
    copy->subject = moved(identity->subject, by);
    copy->consumer = moved(identity->consumer, by);
    copy->issuer = moved(identity->issuer, by);
    copy->jti = moved(identity->jti, by);
    move_list(&copy->roles, by);
    move_list(&copy->scopes, by);
    move_headers(copy, by);
    move_claims(copy, by);
    return copy;
}

struct identity *identity_ref(struct identity *identity)
{
    identity->references++;
    return identity;
}

void identity_unref(struct identity *identity)
{
    if (!identity || --identity->references)
        return;
    free((char *)(uintptr_t)identity->signed_token.p);
    free(identity);
}
