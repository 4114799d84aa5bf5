// A source of key sets that does what the test says, in place of auth/jwks.c.
#pragma once

#include "unit.h"

#include "auth/jwks.h"

struct jwks {
    struct token_keys *keys; // a reference
    uint64_t version;
    enum jwks_want answer;
    unsigned wants;
    struct token_keys *news; // comes with the next jwks_want
};

static struct jwks fake_jwks;
static struct jwks_listener *fake_listener;

static inline void fake_jwks_set(struct token_keys *keys)
{
    token_keys_unref(fake_jwks.keys);
    fake_jwks.keys = keys;
    fake_jwks.version++;
}

struct token_keys *jwks_keys(struct jwks *jwks, uint64_t *version)
{
    *version = jwks->version;
    return jwks->keys ? token_keys_ref(jwks->keys) : NULL;
}

uint64_t jwks_version(const struct jwks *jwks)
{
    return jwks->version;
}

enum jwks_want jwks_want(struct jwks *jwks)
{
    jwks->wants++;
    if (jwks->news) {
        fake_jwks_set(jwks->news);
        jwks->news = NULL;
    }
    return jwks->answer;
}

void jwks_listen(struct jwks_listener *listener)
{
    fake_listener = listener;
}

void jwks_unlisten(struct jwks_listener *listener)
{
    assert_ptr_equal(listener, fake_listener);
    fake_listener = NULL;
}

struct jwks *jwks_open(struct str provider, const struct jwt_settings *settings)
{
    (void)provider, (void)settings;
    return &fake_jwks;
}

void jwks_close(struct jwks *jwks)
{
    token_keys_unref(jwks->keys);
    *jwks = (struct jwks){0};
}
