#include "auth/identity_token.h"

#include "auth/provider.h"
#include "token/sign.h"

#include <stdlib.h>

struct identity_signer {
    struct hash128 key;          // of its PEM
    struct token_signer *signer; // NULL: it is no key to sign with; not tried again
};

void identity_signer_free(struct identity_signer *signer)
{
    if (signer)
        token_signer_free(signer->signer);
    free(signer);
}

static struct token_signer *signer_of(struct auth_worker *worker, const struct auth *auth)
{
    struct hash128 key = siphash128(siphash_process_key(), 0, auth->identity_key);
    struct identity_signer *own = worker->signer;
    if (own && own->key.lo == key.lo && own->key.hi == key.hi)
        return own->signer;
    identity_signer_free(own);
    worker->signer = own = calloc(1, sizeof *own);
    check(own);
    struct err err;
    own->key = key;
    own->signer = token_signer_new(auth->identity_key, tls_library(worker->needs.tls_slot), &err);
    if (!own->signer)
        log_error("auth", "identity_token.key: %s", err.what);
    return own->signer;
}

// ---- claims ----

static void put_text(struct json *json, const char *name, struct str text)
{
    if (!text.n)
        return;
    json_key(json, str_of(name));
    json_string(json, text);
}

static void put_roles(struct json *json, const struct str_list *roles)
{
    if (!roles->count)
        return;
    json_key(json, STR("roles"));
    json_array(json);
    for (uint32_t i = 0; i < roles->count; i++)
        json_string(json, roles->v[i]);
    json_array_end(json);
}

static void put_scopes(struct json *json, const struct str_list *scopes)
{
    struct buf text = {0};
    for (uint32_t i = 0; i < scopes->count; i++) {
        buf_append(&text, i ? STR(" ") : STR_NULL);
        buf_append(&text, scopes->v[i]);
    }
    put_text(json, "scope", buf_str(&text));
    buf_free(&text);
}

static void put_claims(struct buf *out, struct str issuer, const struct identity *identity, int64_t now_s,
                       int64_t expires)
{
    struct json json;
    json_init(&json, out, false);
    json_object(&json);
    put_text(&json, "iss", issuer);
    put_text(&json, "sub", identity->subject);
    json_key(&json, STR("iat"));
    json_i64(&json, now_s);
    json_key(&json, STR("exp"));
    json_i64(&json, expires);
    put_text(&json, "consumer", identity->consumer);
    put_roles(&json, &identity->roles);
    put_scopes(&json, &identity->scopes);
    put_text(&json, "provider", metric_name(NAME_PROVIDER, identity->provider));
    json_object_end(&json);
}

// ---- a token ----

static struct str sign(struct token_signer *signer, struct str issuer, const struct identity *identity,
                       int64_t now_s, int64_t expires, struct arena *arena)
{
    struct buf claims = {0};
    put_claims(&claims, issuer, identity, now_s, expires);
    struct str token = token_sign(signer, STR("JWT"), buf_str(&claims), arena);
    buf_free(&claims);
    return token;
}

static void keep(struct identity *identity, struct str token, int64_t until)
{
    free((char *)(uintptr_t)identity->signed_token.p);
    identity->bytes = identity->bytes - identity->signed_token.n + token.n;
    identity->signed_token = token.n ? (struct str){str_dup(token), token.n} : STR_NULL;
    identity->signed_until = until;
}

static int64_t at_least_one(uint64_t seconds)
{
    return seconds ? (int64_t)seconds : 1;
}

struct str auth_identity_token(struct auth_worker *worker, const struct auth *auth, struct identity *identity,
                               int64_t now_s, struct arena *arena)
{
    const struct identity_token_settings *settings = auth->identity_token;
    int64_t end = now_s < identity->expires ? identity->expires : identity->expires + identity->leeway_s;
    if (!settings || now_s >= end)
        return STR_NULL;
    if (now_s < identity->signed_until)
        return identity->signed_token.n ? arena_copy(arena, identity->signed_token) : STR_NULL;
    int64_t ttl_s = at_least_one(settings->ttl_us / 1000000),
            until = now_s + at_least_one((uint64_t)ttl_s / 2);
    bool is_last = now_s + ttl_s >= end; // another one would not be good for longer
    int64_t expires = is_last ? end : now_s + ttl_s;
    struct token_signer *signer = signer_of(worker, auth);
    struct str token = signer ? sign(signer, settings->issuer, identity, now_s, expires, arena) : STR_NULL;
    keep(identity, token, is_last && token.n ? expires : until); // also that it failed, for a while
    return token;
}
