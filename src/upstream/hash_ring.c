#include "upstream/hash_ring.h"

#include "base/arena.h"
#include "base/check.h"

#include <stdlib.h>
#include <xxhash.h>

struct point {
    uint64_t hash;
    uint32_t owner;
};

static int by_hash(const void *a, const void *b)
{
    const struct point *left = a, *right = b;
    if (left->hash != right->hash)
        return left->hash < right->hash ? -1 : 1;
    return left->owner < right->owner ? -1 : left->owner > right->owner;
}

// An endpoint's points depend on its own name and weight alone, so another one's coming or going moves only
// the keys that it takes or leaves. Halving keeps the first half of each one's points.
static uint32_t points_of(uint32_t weight, unsigned halvings)
{
    uint64_t points = (uint64_t)weight * RING_POINTS >> halvings;
    return weight == 0 ? 0 : points == 0 ? 1 : points > UINT32_MAX ? UINT32_MAX : (uint32_t)points;
}

static uint64_t all_points(const uint32_t *weights, uint32_t count, unsigned halvings)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += points_of(weights[i], halvings);
    return sum;
}

static void fill(struct point *points, const struct str *names, const uint32_t *weights, uint32_t count,
                 unsigned halvings)
{
    for (uint32_t owner = 0; owner < count; owner++)
        for (uint32_t i = 0; i < points_of(weights[owner], halvings); i++)
            *points++ = (struct point){XXH3_64bits_withSeed(names[owner].p, names[owner].n, i), owner};
}

struct hash_ring *hash_ring_new(const struct str *names, const uint32_t *weights, uint32_t count,
                                struct arena *arena)
{
    unsigned halvings = 0;
    while (halvings < 40 && all_points(weights, count, halvings) > RING_POINTS_MAX)
        halvings++;
    size_t total = all_points(weights, count, halvings);
    struct hash_ring *ring = arena_new(arena, struct hash_ring);
    if (!total)
        return ring;
    struct point *points = malloc(total * sizeof *points);
    check(points);
    fill(points, names, weights, count, halvings);
    qsort(points, total, sizeof *points, by_hash);
    uint64_t *hashes = arena_array(arena, uint64_t, total);
    uint32_t *owners = arena_array(arena, uint32_t, total);
    for (size_t i = 0; i < total; i++) {
        hashes[i] = points[i].hash;
        owners[i] = points[i].owner;
    }
    free(points);
    *ring = (struct hash_ring){hashes, owners, (uint32_t)total};
    return ring;
}

uint32_t hash_ring_find(const struct hash_ring *ring, uint64_t hash)
{
    const uint64_t *base = ring->hashes;
    uint32_t n = ring->count;
    while (n > 1) { // no branch on the comparison: it is a coin toss
        uint32_t half = n / 2;
        base = base[half - 1] < hash ? base + half : base;
        n -= half;
    }
    uint32_t at = (uint32_t)(base - ring->hashes) + (*base < hash);
    return at < ring->count ? at : 0;
}
