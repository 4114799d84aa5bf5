// The ring of consistent_hash; for balance.c.
#pragma once

#include "upstream/balance.h"

enum {
    RING_POINTS = 160,         // for each unit of weight (Karger et al. 1997; ketama's number)
    RING_POINTS_MAX = 1 << 18, // in all, 3 MiB: beyond it every endpoint's share is halved until they fit
};

struct hash_ring {
    const uint64_t *hashes; // ascending
    const uint32_t *owners; // of hashes[i]: index into the endpoints
    uint32_t count;
};

// The first point at or after hash, going round; the ring is not empty.
uint32_t hash_ring_find(const struct hash_ring *ring, uint64_t hash);
