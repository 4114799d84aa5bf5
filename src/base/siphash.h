// SipHash-2-4 with 128 bits of output (Aumasson, Bernstein 2012): for tables whose keys attackers choose.
// With a secret key, and results that nobody outside sees, two inputs with one result cannot be found; so a
// table may hold the 16 bytes instead of the input.
#pragma once

#include "base/str.h"

struct siphash_key {
    uint64_t k0, k1;
};

struct hash128 {
    uint64_t lo, hi;
};

// A key that lives as long as the process, drawn from the kernel at first use. Any thread.
const struct siphash_key *siphash_process_key(void);
// head: a first part of eight bytes, so that one text in two contexts gives two results.
struct hash128 siphash128(const struct siphash_key *key, uint64_t head, struct str text);
