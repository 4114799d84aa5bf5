// The secret of session tickets (net/tls.h) as text, for the datagram and the memory file it travels in.
#pragma once

#include "net/tls.h"

enum { SECRET_HEX_SIZE = 2 * TLS_SECRET_BYTES + 1 };

static inline void secret_to_hex(const uint8_t secret[TLS_SECRET_BYTES], char hex[SECRET_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < TLS_SECRET_BYTES; i++) {
        hex[2 * i] = digits[secret[i] >> 4];
        hex[2 * i + 1] = digits[secret[i] & 15];
    }
    hex[SECRET_HEX_SIZE - 1] = '\0';
}

// False, and nothing has changed: not a secret.
static inline bool secret_of_hex(const char *hex, uint8_t secret[TLS_SECRET_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[TLS_SECRET_BYTES];
    for (unsigned i = 0; i < TLS_SECRET_BYTES; i++) {
        const char *high = hex[2 * i] ? strchr(digits, hex[2 * i]) : NULL;
        const char *low = high && hex[2 * i + 1] ? strchr(digits, hex[2 * i + 1]) : NULL;
        if (!low)
            return false;
        bytes[i] = (uint8_t)((high - digits) << 4 | (low - digits));
    }
    memcpy(secret, bytes, sizeof bytes);
    return true;
}
