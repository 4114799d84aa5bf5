// Hashes of passwords and client secrets: scrypt (RFC 7914), "scrypt:N:r:p:SALT:HASH" with salt and hash in
// base64url. What is in a file may be anybody's, so its cost is bounded.
#pragma once

#include "base/str.h"

enum {
    SCRYPT_N = 32768, // of new hashes: about 60 ms and 32 MiB
    SCRYPT_R = 8,
    SCRYPT_P = 1,
    SCRYPT_N_MIN = 1024,
    SCRYPT_N_MAX = 1048576,
    SCRYPT_R_MAX = 32,
    SCRYPT_P_MAX = 16,
    SCRYPT_MEMORY = 256 << 20,
    SCRYPT_SALT = 16, // of new ones, and at least 8
    SCRYPT_HASH = 32, // of new ones, and at least 16
    SCRYPT_BYTES = 64,
    SCRYPT_TEXT = 256, // of the whole, with a NUL
    SCRYPT_SECRET_BYTES = 1024,
};

struct scrypt_hash {
    uint64_t n, r, p;
    uint8_t salt[SCRYPT_BYTES], hash[SCRYPT_BYTES];
    size_t salt_bytes, hash_bytes;
};

// False and *why (static): not such a hash, or it costs too much.
bool scrypt_parse(struct str text, struct scrypt_hash *out, const char **why);
// A new hash of secret; NUL-terminated. False: OpenSSL failed.
bool scrypt_make(struct str secret, char out[SCRYPT_TEXT]);
// Takes as long as the hash wants (SCRYPT_N: 60 ms) whatever the answer is. Any thread.
bool scrypt_matches(const struct scrypt_hash *expected, struct str secret);
// A hash that costs what new ones do and that no secret has: for names that nobody has.
const struct scrypt_hash *scrypt_nobody(void);
