// SIMD within a register: eight bytes looked at in one word, on any processor; and sixteen in a vector, which
// the compiler makes of whatever the processor has.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// A word that holds c eight times.
#define SWAR_EACH(c) (UINT64_C(0x0101010101010101) * (uint64_t)(c))

static inline uint64_t swar_load8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t swar_load4(const char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

enum { SWAR_VECTOR = 16 };
typedef signed char swar_vector __attribute__((vector_size(SWAR_VECTOR)));

static inline swar_vector swar_load_vector(const char *p)
{
    swar_vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline bool swar_is_zero(swar_vector v)
{
    uint64_t words[2];
    memcpy(words, &v, sizeof words);
    return !(words[0] | words[1]);
}
