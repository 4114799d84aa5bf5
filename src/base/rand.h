// A fast, seeded generator (xoshiro256**, Blackman and Vigna 2018) for jitter, balancing and ids. Not for
// secrets.
#pragma once

#include <stdint.h>

struct rand {
    uint64_t s[4];
};

// Seeds from the kernel; one for each worker.
void rand_init(struct rand *rand);
// Repeatable: for tests.
void rand_init_seed(struct rand *rand, uint64_t seed);
uint64_t rand_u64(struct rand *rand);
// Uniform in [0, n), n > 0 (Lemire's multiply; the bias is below 2^-32).
uint32_t rand_below(struct rand *rand, uint32_t n);
// Uniform in [0, 1).
double rand_unit(struct rand *rand);
// n bytes from the kernel, for secrets and seeds. Aborts when the kernel has none.
void rand_secret(void *out, unsigned n);
