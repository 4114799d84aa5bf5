// Numbers as text where it is written for every request: no printf, and no digit by itself.
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { HEX_U64 = 16 }; // digits of hex_print

// value: below 100, as two digits.
static inline void decimal_pair(char *out, uint64_t value)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    memcpy(out, pairs + value * 2, 2);
}

// All sixteen digits of it in lower-case hexadecimal, by one vector on any processor that has some.
static inline void hex_print(uint64_t value, char *out)
{
    typedef signed char digits __attribute__((vector_size(HEX_U64)));
    typedef uint64_t words __attribute__((vector_size(HEX_U64)));
    uint64_t bytes = htobe64(value);
    uint64_t low = bytes & 0x0f0f0f0f0f0f0f0f, high = bytes >> 4 & 0x0f0f0f0f0f0f0f0f;
    digits lows = (digits)(words){low}, highs = (digits)(words){high};
    digits nibbles =
        __builtin_shufflevector(highs, lows, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    digits text = nibbles + '0' + ((nibbles > 9) & ('a' - '0' - 10));
    memcpy(out, &text, sizeof text);
}
