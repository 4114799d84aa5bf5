#include "echo/sha1.h"

void sha1_init(struct sha1 *sha1)
{
    *sha1 = (struct sha1){.state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
}

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static uint32_t load_big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

// RFC 3174 5: the round's function with its constant.
static uint32_t mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
    if (round < 20)
        return ((b & c) | (~b & d)) + 0x5a827999;
    if (round < 40)
        return (b ^ c ^ d) + 0x6ed9eba1;
    if (round < 60)
        return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
    return (b ^ c ^ d) + 0xca62c1d6;
}

static void add_block(uint32_t state[5], const unsigned char block[64])
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (unsigned i = 0; i < 16; i++)
        w[i] = load_big_endian(block + 4 * i);
    for (unsigned i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (unsigned i = 0; i < 80; i++) {
        uint32_t next = rotate(a, 5) + mix(i, b, c, d) + e + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void sha1_update(struct sha1 *sha1, struct str data)
{
    const unsigned char *p = (const unsigned char *)data.p;
    size_t held = sha1->bytes % 64, n = data.n;
    sha1->bytes += n;
    if (held) {
        size_t take = n < 64 - held ? n : 64 - held;
        memcpy(sha1->block + held, p, take);
        if (held + take < 64)
            return;
        add_block(sha1->state, sha1->block);
        p += take;
        n -= take;
    }
    for (; n >= 64; p += 64, n -= 64)
        add_block(sha1->state, p);
    if (n)
        memcpy(sha1->block, p, n);
}

void sha1_final(struct sha1 *sha1, unsigned char out[SHA1_BYTES])
{
    static const char padding[64] = {(char)0x80};
    uint64_t bits = sha1->bytes * 8;
    char length[8];
    for (unsigned i = 0; i < 8; i++)
        length[i] = (char)(bits >> (56 - 8 * i));
    size_t held = sha1->bytes % 64;
    sha1_update(sha1, (struct str){padding, held < 56 ? 56 - held : 120 - held});
    sha1_update(sha1, (struct str){length, sizeof length});
    for (unsigned i = 0; i < SHA1_BYTES; i++)
        out[i] = (unsigned char)(sha1->state[i / 4] >> (24 - 8 * (i % 4)));
}

size_t base64_encode(const unsigned char *data, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *at = out;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (left > 2 ? data[i + 2] : 0);
        at[0] = digits[bits >> 18];
        at[1] = digits[bits >> 12 & 63];
        at[2] = left > 1 ? digits[bits >> 6 & 63] : '=';
        at[3] = left > 2 ? digits[bits & 63] : '=';
        at += 4;
    }
    return (size_t)(at - out);
}
