// Choosing an endpoint: pure functions of (view, policy state, now, random) → index. One view a worker and
// upstream.
//
//   round_robin      smooth weighted (nginx): a pick adds every weight, takes the largest, subtracts the sum
//   least_request    power of two choices on active / weight (Mitzenmacher 2001)
//   random           by weight
//   consistent_hash  ring, 160 points for each unit of weight, bounded load 1.25 (Mirrokni et al. 2016)
//   ewma             power of two choices on peak EWMA latency × (active + 1) (Finagle), decay 10 s
//
// The two choices are drawn by weight, and the second is taken only when it is clearly better: so weights
// hold when nothing is loaded, too. slow_start scales an endpoint's weight from a tenth to the whole while it
// is young; on the ring it lowers the bound, no key moves. A pick looks at every endpoint once or twice.
#pragma once

#include "base/rand.h"
#include "upstream/endpoint.h"

struct balance_endpoint {
    struct endpoint *endpoint;
    uint32_t weight; // configured
    uint32_t active; // this worker's requests in flight
    int64_t current; // round_robin's
    double ewma_us;  // 0: nothing measured yet
    uint64_t ewma_at_us;
    // What this pick has found; others change both meanwhile.
    uint64_t scaled_weight; // 0: it may not be taken
    bool is_available;
    bool barred; // by its circuit breaker: not to be taken in this pick
};

// The ring is built once a snapshot and read-only.
struct hash_ring;
struct hash_ring *hash_ring_new(const struct str *names, const uint32_t *weights, uint32_t count,
                                struct arena *arena);

struct balance {
    enum balance_policy policy;
    struct balance_endpoint *endpoints;
    uint32_t count;
    const struct hash_ring *ring; // consistent_hash
    double panic_threshold;
    uint64_t slow_start_us;
    uint32_t active; // sum
};

enum { BALANCE_NONE = -1 };

// An endpoint's bit in a bitmap of those tried. Past 64 endpoints some share one, and are left out together.
static inline uint64_t balance_bit(uint32_t index)
{
    return UINT64_C(1) << (index % 64);
}
// The index of the chosen endpoint, or BALANCE_NONE when none may take a request. tried: balance_bit of
// endpoints not to take when another will do. hash: consistent_hash's key. Endpoints with weight 0 take none.
// When fewer than panic_threshold of all are up and not ejected, all are used; but none that is barred.
int balance_pick(struct balance *balance, uint64_t hash, uint64_t tried, uint64_t now_us, struct rand *rand);
// Whether a pick would choose one now.
bool balance_has_choice(struct balance *balance, uint64_t now_us);
// A request was sent / has ended (latency 0: no measure).
void balance_began(struct balance *balance, uint32_t index);
void balance_ended(struct balance *balance, uint32_t index, uint64_t latency_us, uint64_t now_us);

// The key of a request for consistent_hash (XXH3 of the text, seeded alike in every gateway).
uint64_t balance_hash(struct str key);
