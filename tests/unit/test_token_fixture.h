// A signer for each algorithm that has one, and tokens built by hand.
#pragma once

#include "unit.h"

#include "base/base64.h"
#include "token/sign.h"

static inline struct token_signer *signer_of(enum token_algorithm algorithm)
{
    struct buf pem = {0};
    struct err err;
    assert_true(token_key_generate(algorithm, NULL, &pem));
    struct token_signer *signer = token_signer_new(buf_str(&pem), NULL, &err);
    assert_non_null(signer);
    assert_int_equal(token_signer_algorithm(signer), algorithm);
    buf_free(&pem);
    return signer;
}

// {"keys":[…]} of the signers.
static inline struct buf set_of(struct token_signer *const *signers, size_t count)
{
    struct buf text = {0};
    struct json json;
    json_init(&json, &text, false);
    json_object(&json);
    json_key(&json, STR("keys"));
    json_array(&json);
    for (size_t i = 0; i < count; i++)
        token_signer_jwk(signers[i], &json);
    json_array_end(&json);
    json_object_end(&json);
    return text;
}

static inline struct str encoded(struct arena *arena, struct str bytes)
{
    char *out = arena_alloc(arena, base64url_encoded_bytes(bytes.n));
    return (struct str){out, base64url_encode((const uint8_t *)bytes.p, bytes.n, out)};
}

// A token of these parts.
static inline struct str joined(struct arena *arena, struct str header, struct str payload,
                                struct str signature)
{
    struct str h = encoded(arena, header), p = encoded(arena, payload), s = encoded(arena, signature);
    return arena_printf(arena, "%.*s.%.*s.%.*s", STR_ARG(h), STR_ARG(p), STR_ARG(s));
}

// The answer of a server that publishes them.
static inline struct buf reply_of(struct token_signer *const *signers, size_t count)
{
    struct buf set = set_of(signers, count), reply = {0};
    buf_printf(&reply, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%.*s", buf_str(&set).n,
               STR_ARG(buf_str(&set)));
    buf_append(&reply, (struct str){"", 1}); // the server wants a C string
    buf_free(&set);
    return reply;
}
