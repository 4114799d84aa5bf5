#include "auth_service/keyring.h"

#include "auth_service/disk.h"
#include "base/clock.h"
#include "base/log.h"

#include <dirent.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

struct key {
    struct list node;
    uint64_t from_ms; // wall clock: signs from then on
    struct token_signer *signer;
};

static struct key *key_of(struct list *node)
{
    return container_of(node, struct key, node);
}

static void wipe(struct buf *pem)
{
    if (pem->base)
        OPENSSL_cleanse(pem->base, pem->cap);
    buf_free(pem);
}

// ---- lines ----

static void path_of(const struct keyring *ring, const struct key_line *line, uint64_t from_ms, char *out,
                    size_t size)
{
    snprintf(out, size, "%s/%.*s-%llu.pem", ring->directory, STR_ARG(token_algorithm_name(line->algorithm)),
             (unsigned long long)from_ms);
}

static void insert(struct key_line *line, struct key *key)
{
    struct list *at = line->keys.prev;
    while (at != &line->keys && key_of(at)->from_ms > key->from_ms)
        at = at->prev;
    list_insert_after(at, &key->node);
    line->count++;
}

static struct key *current_of(struct key_line *line, uint64_t now_ms)
{
    struct key *current = NULL;
    list_each (&line->keys, node)
        if (key_of(node)->from_ms <= now_ms)
            current = key_of(node);
    return current;
}

static struct key *next_of(struct key_line *line, uint64_t now_ms)
{
    struct key *last = list_empty(&line->keys) ? NULL : key_of(line->keys.prev);
    return last && last->from_ms > now_ms ? last : NULL;
}

static bool add(struct keyring *ring, struct key_line *line, struct str pem, uint64_t from_ms, bool is_new,
                struct err *err)
{
    char path[4096];
    path_of(ring, line, from_ms, path, sizeof path);
    struct token_signer *signer = token_signer_new(pem, NULL, err);
    if (!signer || token_signer_algorithm(signer) != line->algorithm) {
        err_set(err, ERR_INVALID, path, "not a private key for %.*s",
                STR_ARG(token_algorithm_name(line->algorithm)));
        token_signer_free(signer);
        return false;
    }
    if (is_new && !disk_write(path, pem, err)) {
        token_signer_free(signer);
        return false;
    }
    struct key *key = calloc(1, sizeof *key);
    check(key);
    *key = (struct key){.from_ms = from_ms, .signer = signer};
    insert(line, key);
    return true;
}

static void drop(struct key_line *line, struct key *key)
{
    list_remove(&key->node);
    line->count--;
    token_signer_free(key->signer);
    free(key);
}

// ---- what is published ----

static void print_line(struct key_line *line, uint64_t now_ms, struct json *json)
{
    struct key *current = current_of(line, now_ms);
    if (current)
        token_signer_jwk(current->signer, json);
    list_each (&line->keys, node)
        if (key_of(node) != current)
            token_signer_jwk(key_of(node)->signer, json);
}

static void publish(struct keyring *ring, uint64_t now_ms)
{
    struct json json;
    struct err err;
    buf_free(&ring->jwks);
    json_init(&json, &ring->jwks, false);
    json_object(&json);
    json_key(&json, STR("keys"));
    json_array(&json);
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++)
        print_line(&ring->lines[i], now_ms, &json);
    json_array_end(&json);
    json_object_end(&json);
    struct token_keys *keys = token_keys_parse(buf_str(&ring->jwks), &err);
    struct token_verifier *verifier = keys ? token_verifier_new(keys, NULL) : NULL;
    token_keys_unref(keys);
    if (!verifier) {
        log_error("keys", "cannot verify with the keys as they are: %s", keys ? "memory" : err.what);
        return;
    }
    token_verifier_free(ring->verifier);
    ring->verifier = verifier;
}

// ---- making keys ----

struct making {
    struct pool_job job;
    struct keyring *ring;
    struct key_line *line;
    struct buf pem;
    bool good;
};

static void make(struct pool_job *job)
{
    struct making *making = container_of(job, struct making, job);
    making->good = token_key_generate(making->line->algorithm, NULL, &making->pem);
}

static void made(struct pool_job *job)
{
    struct making *making = container_of(job, struct making, job);
    struct keyring *ring = making->ring;
    struct key_line *line = making->line;
    uint64_t now_ms = clock_wall_us() / 1000;
    struct err err = {.what = "OpenSSL failed"};
    line->is_making = false;
    if (making->good)
        ring->made++;
    if (job->pool->stopping) {
        // what was made is made again at the next start
    } else if (making->good && add(ring, line, buf_str(&making->pem), now_ms + ring->rotate_ms, true, &err)) {
        publish(ring, now_ms);
    } else {
        log_error("keys", "no next key for %.*s: %s: %s", STR_ARG(token_algorithm_name(line->algorithm)),
                  err.where, err.what);
        line->retry_at_ms = now_ms + KEYRING_RETRY_MS;
    }
    wipe(&making->pem);
    free(making);
}

static void make_next(struct keyring *ring, struct key_line *line, uint64_t now_ms)
{
    if (line->is_making || line->count >= KEYRING_KEYS || now_ms < line->retry_at_ms)
        return;
    struct making *making = calloc(1, sizeof *making);
    check(making);
    *making = (struct making){.job = {.work = make, .done = made}, .ring = ring, .line = line};
    line->is_making = pool_submit(ring->pool, &making->job);
    if (!line->is_making)
        free(making); // the next tick tries again
}

// On the first start, when nothing else is to be done meanwhile.
static bool make_now(struct keyring *ring, struct key_line *line, uint64_t from_ms, struct err *err)
{
    struct buf pem = {0};
    err_set(err, ERR_SYSTEM, ring->directory, "OpenSSL cannot make a key");
    bool good =
        token_key_generate(line->algorithm, NULL, &pem) && add(ring, line, buf_str(&pem), from_ms, true, err);
    wipe(&pem);
    return good;
}

// ---- time passes ----

// Until when it is published: an overlap behind the beginning of its successor.
static uint64_t end_of(const struct keyring *ring, struct key_line *line, struct key *key, uint64_t now_ms)
{
    struct list *after = key->node.next;
    if (after != &line->keys)
        return key_of(after)->from_ms <= now_ms ? key_of(after)->from_ms + ring->overlap_ms : UINT64_MAX;
    return line->listed ? UINT64_MAX : key->from_ms + ring->rotate_ms + ring->overlap_ms;
}

static bool retire(struct keyring *ring, struct key_line *line, uint64_t now_ms)
{
    bool changed = false;
    char path[4096];
    list_each (&line->keys, node) {
        if (end_of(ring, line, key_of(node), now_ms) > now_ms)
            break;
        path_of(ring, line, key_of(node)->from_ms, path, sizeof path);
        disk_remove(path);
        drop(line, key_of(node));
        changed = true;
    }
    return changed;
}

void keyring_tick(struct keyring *ring, uint64_t now_ms)
{
    bool changed = false;
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++) {
        struct key_line *line = &ring->lines[i];
        changed |= retire(ring, line, now_ms);
        if (!line->listed || next_of(line, now_ms))
            continue;
        make_next(ring, line, now_ms);
    }
    if (changed)
        publish(ring, now_ms);
}

static void rotate_line(struct keyring *ring, struct key_line *line, uint64_t now_ms)
{
    struct key *next = next_of(line, now_ms), *current = current_of(line, now_ms);
    char from[4096], to[4096];
    if (!next)
        return; // it is being made
    uint64_t from_ms = current && current->from_ms >= now_ms ? current->from_ms + 1 : now_ms;
    path_of(ring, line, next->from_ms, from, sizeof from);
    path_of(ring, line, from_ms, to, sizeof to);
    if (rename(from, to) == 0)
        next->from_ms = from_ms;
    else
        log_error("keys", "%s: cannot rename it", from);
}

void keyring_rotate(struct keyring *ring, uint64_t now_ms)
{
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++)
        rotate_line(ring, &ring->lines[i], now_ms);
    publish(ring, now_ms);
    keyring_tick(ring, now_ms);
}

// ---- the beginning and the end ----

static bool read_key(struct keyring *ring, const char *name, struct err *err)
{
    struct str text = str_of(name);
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++) {
        struct key_line *line = &ring->lines[i];
        struct str algorithm = token_algorithm_name(line->algorithm), digits;
        uint64_t from_ms;
        if (!str_starts(text, algorithm) || !str_ends(text, STR(".pem")))
            continue;
        digits = str_skip(text, algorithm.n);
        digits.n -= 4;
        if (digits.n < 2 || digits.p[0] != '-' || !str_to_u64(str_skip(digits, 1), INT64_MAX, &from_ms))
            continue;
        char path[4096];
        struct buf pem = {0};
        path_of(ring, line, from_ms, path, sizeof path);
        bool good = disk_read(path, &pem, err) && add(ring, line, buf_str(&pem), from_ms, false, err);
        wipe(&pem);
        return good;
    }
    return true; // somebody else's file
}

static bool read_keys(struct keyring *ring, struct err *err)
{
    DIR *directory = opendir(ring->directory);
    bool good = directory != NULL;
    if (!directory)
        err_system(err, ring->directory, "cannot open it");
    for (struct dirent *entry; good && (entry = readdir(directory));)
        good = read_key(ring, entry->d_name, err);
    if (directory)
        closedir(directory);
    return good;
}

static void take_settings(struct keyring *ring, const struct auth_service_settings *settings)
{
    ring->rotate_ms = settings->keys.rotate_us / 1000;
    ring->overlap_ms = settings->keys.overlap_us / 1000;
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++)
        ring->lines[i].listed = settings->keys.algorithms & (unsigned)ring->lines[i].bit;
}

bool keyring_open(struct keyring *ring, const struct auth_service_settings *settings, struct pool *pool,
                  uint64_t now_ms, struct err *err)
{
    char directory[4096];
    *ring = (struct keyring){.pool = pool};
    snprintf(directory, sizeof directory, "%.*s/keys", STR_ARG(settings->state));
    ring->directory = str_dup(str_of(directory));
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++) {
        ring->lines[i] = (struct key_line){.bit = auth_algorithm_rows[i].bit,
                                           .algorithm = auth_algorithm_rows[i].algorithm};
        list_init(&ring->lines[i].keys);
    }
    take_settings(ring, settings);
    if (!disk_directory(ring->directory, err) || !read_keys(ring, err))
        return false;
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++) {
        struct key_line *line = &ring->lines[i];
        if (line->listed && !current_of(line, now_ms) && !make_now(ring, line, now_ms, err))
            return false;
        if (line->listed && !next_of(line, now_ms) && !make_now(ring, line, now_ms + ring->rotate_ms, err))
            return false;
    }
    keyring_tick(ring, now_ms);
    publish(ring, now_ms);
    return true;
}

void keyring_configure(struct keyring *ring, const struct auth_service_settings *settings, uint64_t now_ms)
{
    take_settings(ring, settings);
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++) {
        struct key_line *line = &ring->lines[i];
        struct err err;
        if (line->listed && !current_of(line, now_ms) && !make_now(ring, line, now_ms, &err))
            log_error("keys", "%s: %s", err.where, err.what);
    }
    keyring_tick(ring, now_ms);
    publish(ring, now_ms);
}

void keyring_close(struct keyring *ring)
{
    for (size_t i = 0; i < AUTH_ALGORITHMS && ring->directory; i++)
        list_each (&ring->lines[i].keys, node)
            drop(&ring->lines[i], key_of(node));
    token_verifier_free(ring->verifier);
    buf_free(&ring->jwks);
    free(ring->directory);
}

// ---- use ----

struct token_signer *keyring_signer(struct keyring *ring, enum token_algorithm algorithm, uint64_t now_ms)
{
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++) {
        struct key *current = current_of(&ring->lines[i], now_ms);
        if (ring->lines[i].algorithm == algorithm && current)
            return current->signer;
    }
    return NULL;
}

enum token_fault keyring_verify(struct keyring *ring, const struct token *token)
{
    return ring->verifier
               ? token_verify(ring->verifier, token,
                              1U << ALGORITHM_RS256 | 1U << ALGORITHM_ES256 | 1U << ALGORITHM_EDDSA)
               : TOKEN_UNKNOWN_KEY;
}
