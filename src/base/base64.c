#include "base/base64.h"

// The two alphabets (RFC 4648 4 and 5) differ in the last two letters.
static const char url_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char plain_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// What a letter stands for, plus one; 0: it is no letter of the alphabet.
// clang-format off
#define COMMON_VALUES                                                                                        \
    ['A'] = 1, ['B'] = 2, ['C'] = 3, ['D'] = 4, ['E'] = 5, ['F'] = 6, ['G'] = 7, ['H'] = 8, ['I'] = 9,       \
    ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16, ['Q'] = 17,          \
    ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25,          \
    ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33,          \
    ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41,          \
    ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,          \
    ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56, ['4'] = 57,          \
    ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62
// clang-format on
static const uint8_t url_values[256] = {COMMON_VALUES, ['-'] = 63, ['_'] = 64};
static const uint8_t plain_values[256] = {COMMON_VALUES, ['+'] = 63, ['/'] = 64};

static bool decode(struct str text, const uint8_t *values, uint8_t *out, size_t *n)
{
    const uint8_t *p = (const uint8_t *)text.p, *end = p + text.n;
    uint8_t *at = out;
    uint32_t bad = 0; // its sign: some letter was none
    for (; end - p >= 4; p += 4, at += 3) {
        uint32_t a = values[p[0]] - 1U, b = values[p[1]] - 1U, c = values[p[2]] - 1U, d = values[p[3]] - 1U;
        uint32_t bits = a << 18 | b << 12 | c << 6 | d;
        bad |= a | b | c | d;
        at[0] = (uint8_t)(bits >> 16);
        at[1] = (uint8_t)(bits >> 8);
        at[2] = (uint8_t)bits;
    }
    size_t rest = (size_t)(end - p);
    if (rest == 1)
        return false;
    if (rest) {
        uint32_t a = values[p[0]] - 1U, b = values[p[1]] - 1U, c = rest == 3 ? values[p[2]] - 1U : 0;
        uint32_t bits = a << 18 | b << 12 | c << 6;
        bad |= a | b | c;
        if (bits & (rest == 3 ? 0xff : 0xffff))
            return false; // not canonical: two texts would mean the same bytes
        *at++ = (uint8_t)(bits >> 16);
        if (rest == 3)
            *at++ = (uint8_t)(bits >> 8);
    }
    *n = (size_t)(at - out);
    return !(bad & 0x80000000);
}

static size_t encode(const uint8_t *data, size_t n, const char *letters, char *out)
{
    char *at = out;
    for (; n >= 3; n -= 3, data += 3) {
        uint32_t bits = (uint32_t)data[0] << 16 | (uint32_t)data[1] << 8 | data[2];
        *at++ = letters[bits >> 18];
        *at++ = letters[bits >> 12 & 63];
        *at++ = letters[bits >> 6 & 63];
        *at++ = letters[bits & 63];
    }
    if (n) {
        uint32_t bits = (uint32_t)data[0] << 16 | (n == 2 ? (uint32_t)data[1] << 8 : 0);
        *at++ = letters[bits >> 18];
        *at++ = letters[bits >> 12 & 63];
        if (n == 2)
            *at++ = letters[bits >> 6 & 63];
    }
    return (size_t)(at - out);
}

bool base64url_decode(struct str text, uint8_t *out, size_t *n)
{
    return decode(text, url_values, out, n);
}

size_t base64url_encode(const uint8_t *data, size_t n, char *out)
{
    return encode(data, n, url_letters, out);
}

bool base64_decode(struct str text, uint8_t *out, size_t *n)
{
    if (text.n % 4)
        return false;
    if (text.n && text.p[text.n - 1] == '=')
        text.n -= text.p[text.n - 2] == '=' ? 2 : 1;
    return decode(text, plain_values, out, n);
}

size_t base64_encode(const uint8_t *data, size_t n, char *out)
{
    size_t written = encode(data, n, plain_letters, out);
    while (written % 4)
        out[written++] = '=';
    return written;
}
