// Base64url without padding, canonical only (RFC 4648 5, RFC 7515 2): unused bits must be zero, nothing else
// is skipped. And plain base64 with padding, for Basic credentials (RFC 7617).
#pragma once

#include "base/str.h"

static inline size_t base64url_decoded_max(size_t n)
{
    return n / 4 * 3 + 2;
}

static inline size_t base64url_encoded_bytes(size_t n)
{
    return (n * 4 + 2) / 3;
}

// out has room for base64url_decoded_max(text.n). False: not canonical base64url.
bool base64url_decode(struct str text, uint8_t *out, size_t *n);
// out has room for base64url_encoded_bytes(n). Returns the length.
size_t base64url_encode(const uint8_t *data, size_t n, char *out);
// With padding; out as above. False: not canonical.
bool base64_decode(struct str text, uint8_t *out, size_t *n);
// out has room for (n + 2) / 3 * 4. Returns the length.
size_t base64_encode(const uint8_t *data, size_t n, char *out);
