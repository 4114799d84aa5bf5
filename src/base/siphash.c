#include "base/siphash.h"

#include "base/rand.h"

#include <endian.h>
#include <pthread.h>

static struct siphash_key process_key;
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void draw_process_key(void)
{
    rand_secret(&process_key, sizeof process_key);
}

const struct siphash_key *siphash_process_key(void)
{
    pthread_once(&process_key_once, draw_process_key);
    return &process_key;
}

struct state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotate(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

static inline void turn(struct state *s)
{
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

static inline void compress(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    turn(s);
    turn(s);
    s->v0 ^= word;
}

static inline uint64_t finish(struct state *s)
{
    for (unsigned i = 0; i < 4; i++)
        turn(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

struct hash128 siphash128(const struct siphash_key *key, uint64_t head, struct str text)
{
    struct state s = {
        .v0 = key->k0 ^ 0x736f6d6570736575,
        .v1 = key->k1 ^ 0x646f72616e646f6d ^ 0xee, // 0xee: 128 bits of output
        .v2 = key->k0 ^ 0x6c7967656e657261,
        .v3 = key->k1 ^ 0x7465646279746573,
    };
    compress(&s, head);
    uint64_t last = (text.n + sizeof head) << 56, word;
    for (; text.n >= sizeof word; text = str_skip(text, sizeof word)) {
        memcpy(&word, text.p, sizeof word);
        compress(&s, le64toh(word));
    }
    for (size_t i = 0; i < text.n; i++)
        last |= (uint64_t)(unsigned char)text.p[i] << 8 * i;
    compress(&s, last);

    struct hash128 hash;
    s.v2 ^= 0xee;
    hash.lo = finish(&s);
    s.v1 ^= 0xdd;
    hash.hi = finish(&s);
    return hash;
}
