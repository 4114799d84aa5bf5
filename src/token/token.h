// JSON Web Tokens without I/O: split, decode, verify against a set of keys handed in, judge the claims with
// the clock handed in. JWS compact serialisation only (RFC 7515 3.1), keys as JWK (RFC 7517), algorithms of
// RFC 7518 and RFC 8037, judged by RFC 8725.
//
//   token_keys_parse ─▶ struct token_keys       what a JWKS says; read-only, shared by all threads
//   token_verifier_new ─▶ struct token_verifier  the same keys made ready for one thread (its OpenSSL library
//   context) token_parse ─▶ token_verify ─▶ token_judge   a token's way; each may refuse
//
// The algorithm is bound to the key, never to the token: a key verifies exactly what its kty, crv, use,
// key_ops and alg allow, and of that what the caller allows.
#pragma once

#include "base/err.h"
#include "base/json_parse.h"

enum {
    TOKEN_BYTES = 16 * 1024, // of a token: longer ones are refused before anything is decoded
    TOKEN_KEYS = 100,        // of a set
    TOKEN_KEYS_BYTES = 256 * 1024,
    TOKEN_KID_BYTES = 256,
    TOKEN_RSA_BITS = 2048, // at least (RFC 7518 3.3), and at most:
    TOKEN_RSA_BITS_MAX = 8192,
};

// X(id, name): bits of a set are 1 << id.
#define TOKEN_ALGORITHMS(X)     \
    X(ALGORITHM_RS256, "RS256") \
    X(ALGORITHM_RS384, "RS384") \
    X(ALGORITHM_RS512, "RS512") \
    X(ALGORITHM_PS256, "PS256") \
    X(ALGORITHM_PS384, "PS384") \
    X(ALGORITHM_PS512, "PS512") \
    X(ALGORITHM_ES256, "ES256") \
    X(ALGORITHM_ES384, "ES384") \
    X(ALGORITHM_ES512, "ES512") \
    X(ALGORITHM_EDDSA, "EdDSA") \
    X(ALGORITHM_HS256, "HS256") \
    X(ALGORITHM_HS384, "HS384") \
    X(ALGORITHM_HS512, "HS512")

enum token_algorithm {
#define X(id, name) id,
    TOKEN_ALGORITHMS(X)
#undef X
        ALGORITHM_COUNT,
};
#define ALGORITHMS_HS  (1U << ALGORITHM_HS256 | 1U << ALGORITHM_HS384 | 1U << ALGORITHM_HS512)
#define ALGORITHMS_ALL ((1U << ALGORITHM_COUNT) - 1)

struct str token_algorithm_name(enum token_algorithm algorithm);

// Why a token is refused. X(id, words for the client: nothing of the token, nothing of the keys)
#define TOKEN_FAULTS(X)                                                                \
    X(TOKEN_GOOD, "")                                                                  \
    X(TOKEN_TOO_LONG, "the token is too long")                                         \
    X(TOKEN_MALFORMED, "the token is malformed")                                       \
    X(TOKEN_BAD_ALGORITHM, "the token's algorithm is not accepted")                    \
    X(TOKEN_BAD_HEADER, "the token's header asks for something that is not supported") \
    X(TOKEN_UNKNOWN_KEY, "the token is signed with an unknown key")                    \
    X(TOKEN_BAD_SIGNATURE, "the token's signature is not valid")                       \
    X(TOKEN_BAD_CLAIM, "a claim of the token has the wrong type")                      \
    X(TOKEN_MISSING_CLAIM, "a required claim is missing")                              \
    X(TOKEN_EXPIRED, "the token has expired")                                          \
    X(TOKEN_NOT_YET, "the token is not valid yet")                                     \
    X(TOKEN_BAD_ISSUER, "the token is of another issuer")                              \
    X(TOKEN_BAD_AUDIENCE, "the token is for another audience")

enum token_fault {
#define X(id, words) id,
    TOKEN_FAULTS(X)
#undef X
        TOKEN_FAULT_COUNT,
};
struct str token_fault_words(enum token_fault fault);

// ---- keys ----

struct token_keys; // immutable, reference-counted, any thread

// A JWK Set, or one JWK. Keys that no algorithm here can use (enc, unknown kty or crv, RSA below 2048 bits,
// an alg that does not fit, a point not on its curve) are passed over (RFC 7517 5); a set without any usable
// key, duplicate kids of one kind, private or symmetric keys in a set from the network are ERR_INVALID with
// words.
struct token_keys *token_keys_parse(struct str json, struct err *err);
// The same, with symmetric keys allowed (`sallyport verify --lines`: the vectors of RFC 7515 have some).
struct token_keys *token_keys_parse_private(struct str json, struct err *err);
// One HS* key from a secret; copied. ERR_INVALID: shorter than the hash (RFC 7518 3.2: at least 32 bytes).
struct token_keys *token_keys_secret(struct str secret, struct err *err);
struct token_keys *token_keys_ref(struct token_keys *keys);
void token_keys_unref(struct token_keys *keys); // NULL is harmless; secrets are wiped
// Whether both hold the same keys.
bool token_keys_same(const struct token_keys *a, const struct token_keys *b);
uint32_t token_keys_count(const struct token_keys *keys);

struct token_verifier; // one thread's

// library: an OSSL_LIB_CTX of this thread alone (net/tls.h, tls_library), NULL: the default one. Takes a
// reference to keys. NULL: memory is out.
struct token_verifier *token_verifier_new(struct token_keys *keys, void *library);
void token_verifier_free(struct token_verifier *verifier);

// ---- a token ----

struct token {
    enum token_algorithm algorithm;
    struct str kid; // n == 0: none
    struct str signing_input;
    struct str signature; // decoded
    const struct json_value *header;
    const struct json_value *claims; // an object; NULL: the payload is not one (token_judge refuses)
    struct str payload;              // decoded
};

// Splits and decodes; no key is touched. What it points to is in arena and in text. TOKEN_TOO_LONG,
// TOKEN_MALFORMED (not exactly three parts, not canonical base64url, not JSON, duplicate members),
// TOKEN_BAD_ALGORITHM (none, unknown), TOKEN_BAD_HEADER (crit and b64, which ask for more; jwk, jku, x5u and
// x5c, which choose the key: RFC 8725 3.10; a kid that is no string of 1 to TOKEN_KID_BYTES bytes).
enum token_fault token_parse(struct str text, struct arena *arena, struct token *token);
// The signature. algorithms: those that the caller allows. TOKEN_BAD_ALGORITHM, TOKEN_UNKNOWN_KEY (the kid is
// not in the set, and no key that bears no kid verifies it; or no kid, and no key fits the algorithm),
// TOKEN_BAD_SIGNATURE. Where the kid does not say which key, every fitting one is tried, at most four.
enum token_fault token_verify(struct token_verifier *verifier, const struct token *token,
                              unsigned algorithms);

struct token_rules {
    struct str issuer; // exact; n == 0: any
    const struct str *audiences;
    uint32_t audience_count; // any one of them; 0: not looked at
    const struct str *required;
    uint32_t required_count; // dotted paths of claims that must be there
    uint64_t leeway_s;
};

struct token_facts { // of a token that was judged good; spans of its claims
    struct str subject, jti, issuer;
    int64_t expires;   // Unix seconds, without leeway; INT64_MAX: never
    int64_t issued_at; // INT64_MIN: not said
};

// The claims, all typed (RFC 7519 4.1): exp, nbf, iat numbers, iss, sub, jti strings, aud a string or an
// array of strings. now_s: Unix time. *missing names the first required claim that is not there (or null).
// The header's typ, which says what a token is for (RFC 8725 3.11), must be JWT or at+jwt, with or without
// "application/", when there is one; else TOKEN_BAD_HEADER: a logout token or a proof of possession is no
// access token, though the same key signs it.
enum token_fault token_judge(const struct token *token, const struct token_rules *rules, int64_t now_s,
                             struct token_facts *facts, struct str *missing);
