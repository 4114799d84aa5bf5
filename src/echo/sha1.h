// SHA-1 (RFC 3174) and base64 (RFC 4648 4), for Sec-WebSocket-Accept and to compare bodies. Not for secrets.
#pragma once

#include "base/str.h"

enum { SHA1_BYTES = 20 };

struct sha1 {
    uint32_t state[5];
    uint64_t bytes;
    unsigned char block[64];
};

void sha1_init(struct sha1 *sha1);
void sha1_update(struct sha1 *sha1, struct str data);
void sha1_final(struct sha1 *sha1, unsigned char out[SHA1_BYTES]);

// Padded; out has room for (n + 2) / 3 * 4 bytes; returns the length, no NUL.
size_t base64_encode(const unsigned char *data, size_t n, char *out);
