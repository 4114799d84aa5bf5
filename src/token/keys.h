// A key set from the inside, for the files of this room.
#pragma once

#include "base/arena.h"
#include "token/token.h"

#include <openssl/evp.h>

enum key_kind { KEY_RSA, KEY_EC, KEY_ED25519, KEY_SECRET };

enum { CURVE_BYTES_MAX = 66 };

// A curve of RFC 7518 6.2.1.1.
struct key_curve {
    struct str name;     // as JWK says it
    const char *openssl; // as OpenSSL does
    enum token_algorithm algorithm;
    size_t bytes;                   // of a coordinate, of r and of s
    uint8_t order[CURVE_BYTES_MAX]; // n, big-endian
};

struct token_key {
    struct str kid; // n == 0: none
    enum key_kind kind;
    unsigned algorithms;           // what it may verify: never 0
    const struct key_curve *curve; // EC
    struct str first, second; // RSA: n, e without leading zeros; EC: x, y; ED25519: x; SECRET: the secret
};

struct token_keys {
    _Atomic unsigned references;
    struct arena arena; // what the keys point to
    uint32_t count;
    struct token_key keys[];
};

const struct key_curve *key_curve_of(struct str name);
// OpenSSL's form of a public key, in the library context; not of a SECRET. NULL: OpenSSL refuses it (a point
// that is not on its curve), or memory is out.
EVP_PKEY *key_open(const struct token_key *key, OSSL_LIB_CTX *library);
