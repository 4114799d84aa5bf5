#include "auth_service/vault.h"

#include "auth_service/disk.h"
#include "base/base64.h"
#include "base/json.h"
#include "base/json_parse.h"
#include "base/log.h"
#include "base/rand.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

// ---- the table ----

static struct vault_entry **bucket_of(struct vault *vault, const uint8_t *key)
{
    uint32_t hash;
    memcpy(&hash, key, sizeof hash); // random, or of SHA-256
    return &vault->buckets[hash % VAULT_BUCKETS];
}

static struct vault_entry *find(struct vault *vault, enum vault_kind kind, const uint8_t key[VAULT_SECRET])
{
    struct vault_entry *entry = *bucket_of(vault, key);
    while (entry && (entry->kind != kind || memcmp(entry->key, key, VAULT_SECRET) != 0))
        entry = entry->chain;
    return entry;
}

static struct vault_entry *add(struct vault *vault, enum vault_kind kind, const uint8_t key[VAULT_SECRET],
                               size_t text_bytes)
{
    if (vault->counts[VAULT_FAMILY] + vault->counts[VAULT_OPAQUE] + vault->counts[VAULT_DENIED] >=
        VAULT_ENTRIES)
        return NULL;
    struct vault_entry *entry = calloc(1, sizeof *entry + text_bytes);
    if (!entry)
        return NULL;
    struct vault_entry **bucket = bucket_of(vault, key);
    entry->kind = kind;
    memcpy(entry->key, key, VAULT_SECRET);
    list_init(&entry->node);
    entry->chain = *bucket;
    *bucket = entry;
    vault->counts[kind]++;
    vault->changed = true;
    return entry;
}

static struct vault_account *account_of(struct vault *vault, struct str client)
{
    for (size_t i = 0; i < vault->account_count; i++)
        if (str_eq(vault->accounts[i]->client, client))
            return vault->accounts[i];
    struct vault_account *account = calloc(1, sizeof *account);
    vault->accounts = realloc(vault->accounts, (vault->account_count + 1) * sizeof(void *));
    check(account && vault->accounts);
    account->client = (struct str){str_dup(client), client.n};
    list_init(&account->families);
    vault->accounts[vault->account_count++] = account;
    return account;
}

static void drop(struct vault *vault, struct vault_entry *entry)
{
    struct vault_entry **at = bucket_of(vault, entry->key);
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    if (entry->kind == VAULT_FAMILY) {
        list_remove(&entry->node);
        account_of(vault, entry->client)->count--;
    }
    vault->counts[entry->kind]--;
    vault->changed = true;
    free(entry);
}

static struct str put(char **at, struct str text)
{
    struct str copy = {*at, text.n};
    if (text.n)
        memcpy(*at, text.p, text.n);
    *at += text.n;
    return copy;
}

void vault_sweep(struct vault *vault, int64_t now_s)
{
    for (unsigned i = 0; i < VAULT_BUCKETS / 64; i++) {
        vault->sweep_at = (vault->sweep_at + 1) % VAULT_BUCKETS;
        for (struct vault_entry *entry = vault->buckets[vault->sweep_at], *next; entry; entry = next) {
            next = entry->chain;
            if (entry->expires <= now_s)
                drop(vault, entry);
        }
    }
}

// ---- tokens ----

static void hash_of(struct str text, uint8_t out[VAULT_SECRET])
{
    SHA256((const unsigned char *)text.p, text.n, out);
}

void vault_new_jti(char jti[VAULT_JTI])
{
    uint8_t bytes[VAULT_ID];
    rand_secret(bytes, sizeof bytes);
    jti[base64url_encode(bytes, sizeof bytes, jti)] = '\0';
}

static void new_token(struct vault_entry *family, char token[VAULT_TOKEN_TEXT])
{
    uint8_t bytes[VAULT_ID + VAULT_SECRET];
    memcpy(bytes, family->key, VAULT_ID);
    rand_secret(bytes + VAULT_ID, VAULT_SECRET);
    hash_of((struct str){(char *)bytes + VAULT_ID, VAULT_SECRET}, family->secret);
    token[base64url_encode(bytes, sizeof bytes, token)] = '\0';
    OPENSSL_cleanse(bytes, sizeof bytes);
}

static struct vault_entry *add_family(struct vault *vault, const uint8_t key[VAULT_SECRET],
                                      const struct vault_grant *grant)
{
    struct vault_account *account = account_of(vault, grant->client);
    if (account->count >= VAULT_FAMILIES_OF_CLIENT)
        drop(vault, container_of(account->families.next, struct vault_entry, node));
    size_t bytes = grant->client.n + grant->subject.n + grant->scope.n + grant->audience.n;
    struct vault_entry *family = add(vault, VAULT_FAMILY, key, bytes);
    if (!family)
        return NULL;
    char *at = family->text;
    family->client = put(&at, grant->client);
    family->subject = put(&at, grant->subject);
    family->scope = put(&at, grant->scope);
    family->audience = put(&at, grant->audience);
    family->is_user = grant->is_user;
    family->expires = grant->expires;
    list_push_back(&account->families, &family->node);
    account->count++;
    return family;
}

struct vault_entry *vault_begin_family(struct vault *vault, const struct vault_grant *grant,
                                       char token[VAULT_TOKEN_TEXT])
{
    uint8_t key[VAULT_SECRET] = {0};
    rand_secret(key, VAULT_ID);
    struct vault_entry *family = add_family(vault, key, grant);
    if (family)
        new_token(family, token);
    return family;
}

struct vault_entry *vault_find_family(struct vault *vault, struct str token, int64_t now_s, bool *is_current)
{
    uint8_t bytes[VAULT_TOKEN_TEXT], key[VAULT_SECRET] = {0}, secret[VAULT_SECRET];
    size_t n;
    *is_current = false;
    if (token.n >= VAULT_TOKEN_TEXT || !base64url_decode(token, bytes, &n) || n != VAULT_ID + VAULT_SECRET)
        return NULL;
    memcpy(key, bytes, VAULT_ID);
    struct vault_entry *family = find(vault, VAULT_FAMILY, key);
    if (!family || family->expires <= now_s)
        return NULL;
    hash_of((struct str){(char *)bytes + VAULT_ID, VAULT_SECRET}, secret);
    *is_current = CRYPTO_memcmp(secret, family->secret, VAULT_SECRET) == 0;
    return family;
}

void vault_renew(struct vault *vault, struct vault_entry *family, int64_t expires,
                 char token[VAULT_TOKEN_TEXT])
{
    family->expires = expires;
    new_token(family, token);
    vault->changed = true;
}

void vault_note_access(struct vault *vault, struct vault_entry *family, struct str jti, int64_t expires)
{
    struct vault_recent *recent = &family->recent[family->recent_at++ % VAULT_RECENT];
    if (jti.n >= VAULT_JTI)
        return;
    memcpy(recent->jti, jti.p, jti.n);
    recent->jti[jti.n] = '\0';
    recent->expires = expires;
    vault->changed = true;
}

void vault_end_family(struct vault *vault, struct vault_entry *family, int64_t now_s)
{
    for (unsigned i = 0; i < VAULT_RECENT; i++) {
        const struct vault_recent *recent = &family->recent[i];
        if (recent->expires > now_s && !vault_deny(vault, str_of(recent->jti), recent->expires))
            log_error("state", "too many entries: a token of an ended family stays valid until it expires");
    }
    drop(vault, family);
}

bool vault_add_opaque(struct vault *vault, struct str claims, int64_t expires, char token[VAULT_TOKEN_TEXT])
{
    uint8_t bytes[VAULT_SECRET], key[VAULT_SECRET];
    rand_secret(bytes, sizeof bytes);
    token[base64url_encode(bytes, sizeof bytes, token)] = '\0';
    hash_of(str_of(token), key);
    struct vault_entry *entry = add(vault, VAULT_OPAQUE, key, claims.n);
    if (!entry)
        return false;
    char *at = entry->text;
    entry->claims = put(&at, claims);
    entry->expires = expires;
    return true;
}

struct str vault_find_opaque(struct vault *vault, struct str token, int64_t now_s)
{
    uint8_t key[VAULT_SECRET];
    hash_of(token, key);
    const struct vault_entry *entry = find(vault, VAULT_OPAQUE, key);
    return entry && entry->expires > now_s ? entry->claims : STR_NULL;
}

bool vault_revoke_opaque(struct vault *vault, struct str token)
{
    uint8_t key[VAULT_SECRET];
    hash_of(token, key);
    struct vault_entry *entry = find(vault, VAULT_OPAQUE, key);
    if (entry)
        drop(vault, entry);
    return entry != NULL;
}

bool vault_deny(struct vault *vault, struct str jti, int64_t expires)
{
    uint8_t key[VAULT_SECRET];
    hash_of(jti, key);
    struct vault_entry *entry = find(vault, VAULT_DENIED, key);
    if (!entry && !(entry = add(vault, VAULT_DENIED, key, jti.n)))
        return false;
    char *at = entry->text;
    entry->claims = put(&at, jti);
    if (expires > entry->expires)
        entry->expires = expires;
    if (vault->on_deny)
        vault->on_deny(vault, jti, expires);
    return true;
}

void vault_tell(struct vault *vault, int64_t now_s)
{
    for (size_t i = 0; i < VAULT_BUCKETS; i++)
        for (const struct vault_entry *entry = vault->buckets[i]; entry; entry = entry->chain)
            if (entry->kind == VAULT_DENIED && entry->expires > now_s)
                vault->on_deny(vault, entry->claims, entry->expires);
}

bool vault_is_denied(struct vault *vault, struct str jti, int64_t now_s)
{
    uint8_t key[VAULT_SECRET];
    hash_of(jti, key);
    const struct vault_entry *entry = find(vault, VAULT_DENIED, key);
    return entry && entry->expires > now_s;
}

// ---- the file: one JSON object a line ----

static const char *const kind_names[VAULT_KINDS] = {"family", "opaque", "denied"};
static const char first_line[] = "{\"sallyport_auth_state\":1}\n";

static void print_bytes(struct json *json, const char *name, const uint8_t *bytes, size_t n)
{
    char text[VAULT_SECRET * 2];
    json_key(json, str_of(name));
    json_string(json, (struct str){text, base64url_encode(bytes, n, text)});
}

static void print_expires(struct json *json, int64_t expires)
{
    json_key(json, STR("expires"));
    json_i64(json, expires);
}

static void print_family(struct json *json, const struct vault_entry *family, int64_t now_s)
{
    print_bytes(json, "secret", family->secret, VAULT_SECRET);
    json_field_string(json, "client", family->client);
    json_field_string(json, "subject", family->subject);
    json_field_string(json, "scope", family->scope);
    json_field_string(json, "audience", family->audience);
    json_field_bool(json, "user", family->is_user);
    json_key(json, STR("access"));
    json_array(json);
    for (unsigned i = 0; i < VAULT_RECENT; i++) {
        if (family->recent[i].expires <= now_s)
            continue;
        json_object(json);
        json_field_string(json, "jti", str_of(family->recent[i].jti));
        print_expires(json, family->recent[i].expires);
        json_object_end(json);
    }
    json_array_end(json);
}

static void print_entry(struct buf *out, const struct vault_entry *entry, int64_t now_s)
{
    struct json json;
    json_init(&json, out, false);
    json_object(&json);
    json_field_string(&json, "kind", str_of(kind_names[entry->kind]));
    print_bytes(&json, "key", entry->key, VAULT_SECRET);
    print_expires(&json, entry->expires);
    if (entry->kind == VAULT_FAMILY)
        print_family(&json, entry, now_s);
    if (entry->kind != VAULT_FAMILY)
        json_field_string(&json, "claims", entry->claims);
    json_object_end(&json);
    buf_append(out, STR("\n"));
}

bool vault_save(struct vault *vault, int64_t now_s, struct err *err)
{
    struct buf out = {0};
    if (!vault->changed)
        return true;
    buf_append(&out, STR(first_line));
    for (size_t i = 0; i < VAULT_BUCKETS; i++)
        for (const struct vault_entry *entry = vault->buckets[i]; entry; entry = entry->chain)
            if (entry->kind != VAULT_FAMILY && entry->expires > now_s)
                print_entry(&out, entry, now_s);
    for (size_t i = 0; i < vault->account_count; i++) // in their order
        list_each (&vault->accounts[i]->families, node) {
            const struct vault_entry *family = container_of(node, struct vault_entry, node);
            if (family->expires > now_s)
                print_entry(&out, family, now_s);
        }
    bool good = disk_write(vault->path, buf_str(&out), err);
    buf_free(&out);
    vault->changed = !good;
    return good;
}

static struct str text_of(const struct json_value *object, const char *name)
{
    const struct json_value *value = json_get(object, str_of(name));
    return json_is_string(value) ? value->text : STR_NULL;
}

static bool read_bytes(const struct json_value *object, const char *name, uint8_t out[VAULT_SECRET])
{
    uint8_t bytes[VAULT_SECRET + 4];
    size_t n;
    struct str text = text_of(object, name);
    if (text.n != base64url_encoded_bytes(VAULT_SECRET) || !base64url_decode(text, bytes, &n) ||
        n != VAULT_SECRET)
        return false;
    memcpy(out, bytes, VAULT_SECRET);
    return true;
}

static bool read_family(struct vault *vault, const struct json_value *line, const uint8_t key[VAULT_SECRET],
                        int64_t expires)
{
    struct vault_grant grant = {.client = text_of(line, "client"),
                                .subject = text_of(line, "subject"),
                                .scope = text_of(line, "scope"),
                                .audience = text_of(line, "audience"),
                                .expires = expires};
    const struct json_value *user = json_get(line, STR("user")), *access = json_get(line, STR("access"));
    uint8_t secret[VAULT_SECRET];
    grant.is_user = user && user->kind == JSON_TRUE;
    if (!grant.client.n || !grant.subject.n || !read_bytes(line, "secret", secret))
        return false;
    struct vault_entry *family = add_family(vault, key, &grant);
    if (!family)
        return false;
    memcpy(family->secret, secret, VAULT_SECRET);
    for (const struct json_value *each = access ? access->first : NULL; each; each = each->next) {
        int64_t until;
        if (json_integer(json_get(each, STR("expires")), &until))
            vault_note_access(vault, family, text_of(each, "jti"), until);
    }
    return true;
}

static bool read_entry(struct vault *vault, const struct json_value *line, int64_t now_s)
{
    struct str kind = text_of(line, "kind"), claims = text_of(line, "claims");
    uint8_t key[VAULT_SECRET];
    int64_t expires;
    if (!read_bytes(line, "key", key) || !json_integer(json_get(line, STR("expires")), &expires))
        return false;
    if (expires <= now_s)
        return true;
    if (str_eq(kind, STR("family")))
        return read_family(vault, line, key, expires);
    bool is_opaque = str_eq(kind, STR("opaque"));
    if (!claims.n || (!is_opaque && !str_eq(kind, STR("denied"))))
        return false;
    struct vault_entry *entry = add(vault, is_opaque ? VAULT_OPAQUE : VAULT_DENIED, key, claims.n);
    if (!entry)
        return false;
    char *at = entry->text;
    entry->claims = put(&at, claims);
    entry->expires = expires;
    return true;
}

static bool read_file(struct vault *vault, struct str text, int64_t now_s, struct err *err)
{
    if (!str_starts(text, STR(first_line))) {
        err_set(err, ERR_INVALID, vault->path, "not a state file of sallyport-auth");
        return false;
    }
    text = str_skip(text, sizeof first_line - 1);
    struct arena arena;
    arena_init(&arena, NULL);
    unsigned number = 2;
    bool good = true;
    for (; text.n && good; number++) {
        struct str line = {text.p, str_find(text, '\n')};
        const char *why;
        text = str_skip(text, line.n < text.n ? line.n + 1 : line.n);
        const struct json_value *value = json_parse(line, &arena, &why);
        good = value && read_entry(vault, value, now_s);
        arena_reset(&arena);
    }
    if (!good)
        err_set(err, ERR_INVALID, vault->path, "line %u is not an entry", number - 1);
    return good;
}

bool vault_open(struct vault *vault, struct str directory, int64_t now_s, struct err *err)
{
    char path[4096];
    struct buf text;
    snprintf(path, sizeof path, "%.*s/state.jsonl", STR_ARG(directory));
    *vault = (struct vault){.path = str_dup(str_of(path)),
                            .buckets = calloc(VAULT_BUCKETS, sizeof(struct vault_entry *))};
    check(vault->buckets);
    if (!disk_read(vault->path, &text, err))
        return err->code == ERR_NOT_FOUND;
    bool good = read_file(vault, buf_str(&text), now_s, err);
    buf_free(&text);
    vault->changed = false;
    return good;
}

void vault_close(struct vault *vault)
{
    for (size_t i = 0; i < VAULT_BUCKETS && vault->buckets; i++)
        for (struct vault_entry *entry = vault->buckets[i], *next; entry; entry = next) {
            next = entry->chain;
            free(entry);
        }
    for (size_t i = 0; i < vault->account_count; i++) {
        free((char *)(uintptr_t)vault->accounts[i]->client.p);
        free(vault->accounts[i]);
    }
    free(vault->accounts);
    free(vault->buckets);
    free(vault->path);
}
