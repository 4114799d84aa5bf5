// Dense arrays of consumers, keys and certificates, and over each array of the latter two an open-addressed
// index of eight bytes a place. Names and roles are in one arena; lists of roles that are the same are there
// once.
//
//   SHA-256 ─▶ first bytes ─▶ place {tag, item} ─▶ struct key {whole hash, consumer} ─▶ struct consumer
#include "auth/consumers_build.h"

#include "base/siphash.h"
#include "net/addr.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdlib.h>

// ---- an index ----

struct place {
    uint32_t tag;  // of the item's hash
    uint32_t item; // its number plus one; 0: the place is empty
};

struct index {
    struct place *places;
    uint32_t capacity, count; // capacity: a power of two, at most half full
};

// The number plus one of the next item with this tag, from the place *at on; 0: no more.
static uint32_t index_next(const struct index *index, uint32_t tag, uint32_t *at)
{
    while (index->capacity) {
        const struct place *place = &index->places[(*at)++ & (index->capacity - 1)];
        if (!place->item || place->tag == tag)
            return place->item;
    }
    return 0;
}

static void index_put(struct index *index, struct place item)
{
    uint32_t at = item.tag;
    while (index->places[at & (index->capacity - 1)].item)
        at++;
    index->places[at & (index->capacity - 1)] = item;
    index->count++;
}

static void index_grow(struct index *index)
{
    struct index bigger = {.capacity = index->capacity ? index->capacity * 2 : 64};
    bigger.places = calloc(bigger.capacity, sizeof *bigger.places);
    check(bigger.places);
    for (uint32_t i = 0; i < index->capacity; i++)
        if (index->places[i].item)
            index_put(&bigger, index->places[i]);
    free(index->places);
    *index = bigger;
}

static void index_add(struct index *index, uint32_t tag, uint32_t number)
{
    if (index->count * 2 >= index->capacity)
        index_grow(index);
    index_put(index, (struct place){tag, number + 1});
}

// Room for one more behind count items; doubles.
static void *grow_array(void *array, uint32_t count, size_t size)
{
    if (count & (count - 1)) // not a power of two: there is room
        return array;
    array = realloc(array, (count ? (size_t)count * 2 : 1) * size);
    check(array);
    return array;
}

static void *shrink_array(void *array, uint32_t count, size_t size)
{
    void *smaller = count ? realloc(array, count * size) : array;
    return smaller ? smaller : array;
}

// ---- consumers ----

struct key {
    uint8_t hash[CONSUMERS_HASH_BYTES];
    uint32_t consumer;
};

// A certificate's property is kept as a hash (base/siphash.h), and so are names while we build.
struct hashed {
    struct hash128 hash;
    uint32_t consumer;
};

struct hashed_set {
    struct hashed *items;
    struct index index;
};

struct consumers {
    atomic_uint references;
    struct arena arena;
    EVP_MD *sha256;
    struct consumer *list;
    uint32_t count;
    struct key *keys;
    struct index key_index;
    struct hashed_set certificates;
};

struct consumers_builder {
    struct consumers *consumers;
    struct hashed_set names;
    struct hashed_set lists; // of roles or scopes: `consumer` is the number in seen
    struct str_list *seen;
};

static const struct hashed *set_find(const struct hashed_set *set, struct hash128 hash)
{
    uint32_t tag = (uint32_t)hash.lo, at = tag;
    for (uint32_t item; (item = index_next(&set->index, tag, &at));) {
        const struct hashed *hashed = &set->items[item - 1];
        if (hashed->hash.lo == hash.lo && hashed->hash.hi == hash.hi)
            return hashed;
    }
    return NULL;
}

static void set_add(struct hashed_set *set, struct hash128 hash, uint32_t consumer)
{
    set->items = grow_array(set->items, set->index.count, sizeof *set->items);
    set->items[set->index.count] = (struct hashed){hash, consumer};
    index_add(&set->index, (uint32_t)hash.lo, set->index.count);
}

static void set_fini(struct hashed_set *set)
{
    free(set->items);
    free(set->index.places);
}

// ---- API keys ----

// The hash's first bytes.
static uint32_t tag_of(const uint8_t *hash)
{
    uint32_t tag;
    memcpy(&tag, hash, sizeof tag);
    return le32toh(tag);
}

// Whose hash it is. How long it takes tells of its first bytes at most, and a caller can choose those of a
// hash only by trying keys.
static const struct key *find_key(const struct consumers *consumers, const uint8_t *hash)
{
    uint32_t tag = tag_of(hash), at = tag;
    for (uint32_t item; (item = index_next(&consumers->key_index, tag, &at));) {
        const struct key *key = &consumers->keys[item - 1];
        if (CRYPTO_memcmp(key->hash, hash, sizeof key->hash) == 0)
            return key;
    }
    return NULL;
}

const struct consumer *consumers_by_key(const struct consumers *consumers, struct str api_key)
{
    uint8_t hash[CONSUMERS_HASH_BYTES];
    if (!consumers->count || api_key.n > API_KEY_BYTES ||
        EVP_Digest(api_key.p, api_key.n, hash, NULL, consumers->sha256, NULL) != 1)
        return NULL;
    const struct key *key = find_key(consumers, hash);
    return key ? &consumers->list[key->consumer] : NULL;
}

void consumers_hash_key(struct str api_key, char hex[64])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hash[CONSUMERS_HASH_BYTES];
    check(EVP_Q_digest(NULL, "SHA256", NULL, api_key.p, api_key.n, hash, NULL) == 1);
    for (size_t i = 0; i < sizeof hash; i++) {
        hex[2 * i] = digits[hash[i] >> 4];
        hex[2 * i + 1] = digits[hash[i] & 15];
    }
}

// 16: none. Without a branch that the digits of a hash would have to be guessed for.
static unsigned digit_of(char c)
{
    unsigned digit = (unsigned)c - '0', letter = ((unsigned)c | 0x20) - 'a';
    digit = digit < 10 ? digit : 16;
    return letter < 6 ? letter + 10 : digit;
}

bool consumers_read_hash(struct str text, bool with_colons, uint8_t hash[CONSUMERS_HASH_BYTES])
{
    unsigned seen = 0;
    for (size_t i = 0; i < CONSUMERS_HASH_BYTES; i++) {
        if (with_colons && i && text.n && text.p[0] == ':')
            text = str_skip(text, 1);
        if (text.n < 2)
            return false;
        unsigned high = digit_of(text.p[0]), low = digit_of(text.p[1]);
        seen |= high | low;
        hash[i] = (uint8_t)(high << 4 | low);
        text = str_skip(text, 2);
    }
    return seen < 16 && !text.n;
}

// ---- certificates ----

enum property { OF_SAN, OF_SUBJECT, OF_FINGERPRINT };

// Host names know no case (RFC 4343), and addresses have many spellings. room has CONSUMER_SAN_BYTES.
static struct str normal_san(struct str san, char *room)
{
    static const struct str dns = STR("DNS="), address = STR("IP=");
    struct ip ip;
    if (str_starts(san, address) && ip_parse(str_skip(san, address.n), &ip)) {
        memcpy(room, address.p, address.n);
        return (struct str){room, address.n + ip_print(&ip, room + address.n)};
    }
    if (!str_starts(san, dns))
        return san;
    memcpy(room, dns.p, dns.n);
    for (size_t i = dns.n; i < san.n; i++)
        room[i] = ascii_lower(san.p[i]);
    return (struct str){room, san.n};
}

// False: no certificate has such a property.
static bool hash_property(enum property property, struct str text, struct hash128 *hash)
{
    char room[CONSUMER_SAN_BYTES];
    uint8_t digest[CONSUMERS_HASH_BYTES];
    if (!text.n || text.n > sizeof room)
        return false;
    if (property == OF_SAN)
        text = normal_san(text, room);
    if (property == OF_FINGERPRINT) {
        if (!consumers_read_hash(text, true, digest))
            return false;
        text = (struct str){(const char *)digest, sizeof digest};
    }
    *hash = siphash128(siphash_process_key(), property, text);
    return true;
}

static const struct consumer *find_property(const struct consumers *consumers, enum property property,
                                            struct str text)
{
    struct hash128 hash;
    const struct hashed *found = NULL;
    if (hash_property(property, text, &hash))
        found = set_find(&consumers->certificates, hash);
    return found ? &consumers->list[found->consumer] : NULL;
}

const struct consumer *consumers_by_certificate(const struct consumers *consumers, struct str sans,
                                                struct str subject, struct str fingerprint)
{
    const struct consumer *consumer = NULL;
    if (!consumers->certificates.index.count)
        return NULL;
    for (struct str san; !consumer && str_next_token(&sans, &san);)
        consumer = find_property(consumers, OF_SAN, san);
    if (!consumer)
        consumer = find_property(consumers, OF_SUBJECT, subject);
    return consumer ? consumer : find_property(consumers, OF_FINGERPRINT, fingerprint);
}

// ---- building ----

// Says why and returns false. name is shown, cut when it is long.
static bool refuse(struct err *err, enum err_code code, const char *why, struct str name)
{
    if (name.n)
        err_set(err, code, "", "%s \"%.*s\"", why, name.n > 64 ? 64 : (int)name.n, name.p);
    else
        err_set(err, code, "", "%s", why);
    return false;
}

static struct str copy_text(struct arena *arena, struct str text)
{
    return (struct str){text.n ? memcpy(arena_alloc(arena, text.n), text.p, text.n) : NULL, text.n};
}

static struct hash128 hash_text(struct str text)
{
    return siphash128(siphash_process_key(), 0, text);
}

// Each element with its length, so that no two lists make one.
static struct hash128 hash_list(const struct str_list *list)
{
    struct hash128 hash = {0};
    for (uint32_t i = 0; i < list->count; i++) {
        struct hash128 parts[2] = {hash, siphash128(siphash_process_key(), i, list->v[i])};
        hash = hash_text((struct str){(const char *)parts, sizeof parts});
    }
    return hash;
}

static struct str_list intern(struct consumers_builder *builder, const struct str_list *list)
{
    if (!list->count)
        return (struct str_list){0};
    struct arena *arena = &builder->consumers->arena;
    struct hash128 hash = hash_list(list);
    const struct hashed *before = set_find(&builder->lists, hash);
    if (before)
        return builder->seen[before->consumer];
    uint32_t number = builder->lists.index.count;
    struct str_list copy = {arena_array(arena, struct str, list->count), list->count};
    for (uint32_t i = 0; i < list->count; i++)
        copy.v[i] = copy_text(arena, list->v[i]);
    builder->seen = grow_array(builder->seen, number, sizeof *builder->seen);
    builder->seen[number] = copy;
    set_add(&builder->lists, hash, number);
    return copy;
}

static bool add_keys(struct consumers *consumers, const struct config_list *list, struct err *err)
{
    const struct consumer_key *keys = list->v;
    for (uint32_t i = 0; i < list->count; i++) {
        struct key key = {.consumer = consumers->count - 1};
        if (!consumers_read_hash(keys[i].sha256, false, key.hash))
            return refuse(err, ERR_INVALID, "an API key's sha256 is not 64 hex digits", STR_NULL);
        const struct key *held = find_key(consumers, key.hash);
        if (held)
            return refuse(err, ERR_INVALID, "an API key is held already by",
                          consumers->list[held->consumer].name);
        uint32_t number = consumers->key_index.count;
        consumers->keys = grow_array(consumers->keys, number, sizeof key);
        consumers->keys[number] = key;
        index_add(&consumers->key_index, tag_of(key.hash), number);
    }
    return true;
}

static bool add_property(struct consumers *consumers, enum property property, struct str text,
                         struct err *err)
{
    struct hash128 hash;
    if (!text.n)
        return true;
    if (!hash_property(property, text, &hash))
        return refuse(err, ERR_INVALID, "no certificate is named by", text);
    const struct hashed *held = set_find(&consumers->certificates, hash);
    if (held)
        return refuse(err, ERR_INVALID, "a certificate is held already by",
                      consumers->list[held->consumer].name);
    set_add(&consumers->certificates, hash, consumers->count - 1);
    return true;
}

static bool add_certificates(struct consumers *consumers, const struct config_list *list, struct err *err)
{
    const struct consumer_certificate *certificates = list->v;
    for (uint32_t i = 0; i < list->count; i++)
        if (!add_property(consumers, OF_SAN, certificates[i].san, err) ||
            !add_property(consumers, OF_SUBJECT, certificates[i].subject, err) ||
            !add_property(consumers, OF_FINGERPRINT, certificates[i].fingerprint, err))
            return false;
    return true;
}

bool consumers_add(struct consumers_builder *builder, const struct consumer_settings *settings,
                   struct err *err)
{
    struct consumers *consumers = builder->consumers;
    struct str name = settings->name;
    struct hash128 hash = hash_text(name);
    if (consumers->count == CONSUMERS_MAX)
        return refuse(err, ERR_LIMIT, "there are too many consumers", STR_NULL);
    if (set_find(&builder->names, hash))
        return refuse(err, ERR_INVALID, "a second consumer named", name);
    set_add(&builder->names, hash, consumers->count);
    consumers->list = grow_array(consumers->list, consumers->count, sizeof *consumers->list);
    consumers->list[consumers->count++] = (struct consumer){
        .name = copy_text(&consumers->arena, name),
        .roles = intern(builder, &settings->roles),
        .scopes = intern(builder, &settings->scopes),
    };
    return add_keys(consumers, &settings->api_keys, err) &&
           add_certificates(consumers, &settings->certificates, err);
}

static bool add_settings(struct consumers_builder *builder, const struct config_list *list, struct err *err)
{
    struct err why;
    const struct consumer_settings *settings = list ? list->v : NULL;
    for (uint32_t i = 0; list && i < list->count; i++) {
        if (consumers_add(builder, &settings[i], &why))
            continue;
        err_set(err, why.code, "consumers", "line %u: %s", settings[i].line, why.what);
        return false;
    }
    return true;
}

static void builder_fini(struct consumers_builder *builder)
{
    set_fini(&builder->names);
    set_fini(&builder->lists);
    free(builder->seen);
}

static struct consumers *consumers_alloc(void)
{
    struct consumers *consumers = calloc(1, sizeof *consumers);
    check(consumers);
    atomic_init(&consumers->references, 1);
    arena_init(&consumers->arena, NULL);
    consumers->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    check(consumers->sha256);
    return consumers;
}

static void shrink(struct consumers *consumers)
{
    struct hashed_set *certificates = &consumers->certificates;
    consumers->list = shrink_array(consumers->list, consumers->count, sizeof *consumers->list);
    consumers->keys = shrink_array(consumers->keys, consumers->key_index.count, sizeof *consumers->keys);
    certificates->items =
        shrink_array(certificates->items, certificates->index.count, sizeof *certificates->items);
}

struct consumers *consumers_new(const struct consumers_source *source, struct err *err)
{
    struct consumers *consumers = consumers_alloc();
    struct consumers_builder builder = {.consumers = consumers};
    bool good = add_settings(&builder, source->settings, err) &&
                (!source->file.n || consumers_read_file(&builder, source, err));
    builder_fini(&builder);
    if (good) {
        shrink(consumers);
        return consumers;
    }
    consumers_unref(consumers);
    return NULL;
}

struct consumers *consumers_ref(struct consumers *consumers)
{
    atomic_fetch_add_explicit(&consumers->references, 1, memory_order_relaxed);
    return consumers;
}

void consumers_unref(struct consumers *consumers)
{
    if (!consumers || atomic_fetch_sub_explicit(&consumers->references, 1, memory_order_acq_rel) != 1)
        return;
    arena_reset(&consumers->arena);
    EVP_MD_free(consumers->sha256);
    free(consumers->list);
    free(consumers->keys);
    free(consumers->key_index.places);
    set_fini(&consumers->certificates);
    free(consumers);
}

uint32_t consumers_count(const struct consumers *consumers)
{
    return consumers->count;
}
