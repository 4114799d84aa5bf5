#include "base/rand.h"

#include "base/check.h"

#include <sys/random.h>

void rand_secret(void *out, unsigned n)
{
    check(n <= 256); // getrandom is not interrupted up to 256 bytes
    check(getrandom(out, n, 0) == (long)n);
}

void rand_init(struct rand *rand)
{
    rand_secret(rand->s, sizeof rand->s);
    rand->s[0] |= 1;
}

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

void rand_init_seed(struct rand *rand, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++)
        rand->s[i] = splitmix(&seed);
}

static uint64_t rotate(uint64_t x, unsigned k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rand_u64(struct rand *rand)
{
    uint64_t *s = rand->s;
    uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint32_t rand_below(struct rand *rand, uint32_t n)
{
    return (uint32_t)(((rand_u64(rand) >> 32) * n) >> 32);
}

double rand_unit(struct rand *rand)
{
    return (double)(rand_u64(rand) >> 11) * 0x1p-53;
}
