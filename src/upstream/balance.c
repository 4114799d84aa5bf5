#include "upstream/balance.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/share.h"
#include "upstream/hash_ring.h"

#include <xxhash.h>

enum {
    WEIGHT_SCALE = 1024, // weights are counted in 1/1024, so that slow_start can take small steps
    EWMA_DECAY_US = 10000000,
};

#define BOUNDED_LOAD 1.25
// A pick by latency leaves the first, weight-drawn candidate only for one that is faster by more than this:
// noise must not undo the weights.
#define EWMA_MARGIN  1.25

// One pick.
struct choice {
    const struct balance *balance;
    uint64_t now_us;
    uint64_t excluded; // bitmap
    bool panic;        // all count as available
    bool uniform; // any may be taken, and all weigh the same: the usual case, where drawing costs no search
    uint64_t weight_sum;
};

// Health checks pass, and it is not ejected.
static bool is_available(const struct balance_endpoint *at, uint64_t now_us)
{
    return atomic_load_explicit(&at->endpoint->up, memory_order_relaxed) &&
           !ejector_is_out(&at->endpoint->ejector, now_us);
}

// Since when it is available: after a check brought it back, or after it was ejected.
static uint64_t available_since_us(const struct endpoint *endpoint, uint64_t now_us)
{
    uint64_t up_us = atomic_load_explicit(&endpoint->up_since_us, memory_order_relaxed);
    uint64_t back_us = atomic_load_explicit(&endpoint->ejector.until_us, memory_order_relaxed);
    return back_us <= now_us && back_us > up_us ? back_us : up_us;
}

// Linear from a tenth to the whole over slow_start.
static uint64_t slow_start_scale(const struct balance *balance, const struct balance_endpoint *at,
                                 uint64_t now_us)
{
    uint64_t since = available_since_us(at->endpoint, now_us);
    uint64_t elapsed_us = clock_elapsed_us(since, now_us);
    if (!since || elapsed_us >= balance->slow_start_us)
        return WEIGHT_SCALE;
    uint64_t scale = elapsed_us * WEIGHT_SCALE / balance->slow_start_us;
    return scale < WEIGHT_SCALE / 10 ? WEIGHT_SCALE / 10 : scale;
}

static inline uint64_t scale_weight(const struct choice *choice, const struct balance_endpoint *at)
{
    const struct balance *balance = choice->balance;
    return at->weight *
           (balance->slow_start_us ? slow_start_scale(balance, at, choice->now_us) : WEIGHT_SCALE);
}

static inline bool is_excluded(const struct choice *choice, uint32_t i)
{
    return choice->balance->endpoints[i].barred || (choice->excluded & balance_bit(i));
}

// The effective weight, 0 when this pick may not take it.
static inline uint64_t weight_of(const struct choice *choice, uint32_t i)
{
    const struct balance_endpoint *at = &choice->balance->endpoints[i];
    return choice->panic || at->is_available ? at->scaled_weight : 0;
}

// Looks at every endpoint once, and notes what is found: is it panic, and how much weight may be chosen from?
static void survey(struct choice *choice)
{
    const struct balance *balance = choice->balance;
    uint32_t all = 0, available = 0, usable = 0;
    uint64_t sum_all = 0, sum_available = 0, one_weight = 0;
    bool same = true;
    for (uint32_t i = 0; i < balance->count; i++) {
        struct balance_endpoint *at = &balance->endpoints[i];
        at->scaled_weight = 0;
        if (!at->weight)
            continue;
        at->is_available = is_available(at, choice->now_us);
        all++;
        available += at->is_available;
        if (is_excluded(choice, i))
            continue;
        at->scaled_weight = scale_weight(choice, at);
        same = same && (!one_weight || at->scaled_weight == one_weight);
        one_weight = at->scaled_weight;
        usable++;
        sum_all += at->scaled_weight;
        sum_available += at->is_available ? at->scaled_weight : 0;
    }
    choice->panic = available < all && !share_is_reached(available, balance->panic_threshold, all);
    choice->weight_sum = choice->panic ? sum_all : sum_available;
    choice->uniform = same && usable == balance->count && (choice->panic || available == all);
}

// ---- policies; weight_sum is not 0 ----

static uint32_t pick_round_robin(const struct choice *choice)
{
    struct balance_endpoint *best = NULL;
    for (uint32_t i = 0; i < choice->balance->count; i++) {
        struct balance_endpoint *at = &choice->balance->endpoints[i];
        uint64_t weight = weight_of(choice, i);
        if (!weight)
            continue;
        at->current += (int64_t)weight;
        if (!best || at->current > best->current)
            best = at;
    }
    best->current -= (int64_t)choice->weight_sum;
    return (uint32_t)(best - choice->balance->endpoints);
}

// By weight, but never `without` (UINT32_MAX: any). sum: of the weights left, not 0.
static uint32_t draw(const struct choice *choice, uint64_t sum, uint32_t without, struct rand *rand)
{
    if (choice->uniform) {
        uint32_t at = rand_below(rand, choice->balance->count - (without != UINT32_MAX));
        return at + (at >= without);
    }
    uint64_t left = (uint64_t)(((unsigned __int128)rand_u64(rand) * sum) >> 64);
    for (uint32_t i = 0;; i++) {
        uint64_t weight = i == without ? 0 : weight_of(choice, i);
        if (left < weight || i + 1 == choice->balance->count)
            return i;
        left -= weight;
    }
}

// Less loaded both as they are and with the request added: without the second, one request on a heavy
// endpoint would send the next to a light one; without the first, an idle light endpoint would never be
// taken.
static bool is_less_loaded(const struct choice *choice, uint32_t first, uint32_t second)
{
    const struct balance_endpoint *all = choice->balance->endpoints;
    uint64_t first_active = all[first].active, second_active = all[second].active;
    uint64_t first_weight = weight_of(choice, first), second_weight = weight_of(choice, second);
    return second_active * first_weight < first_active * second_weight &&
           (second_active + 1) * first_weight < (first_active + 1) * second_weight;
}

// e^-x within 5 % up to x = 1; beyond, it falls as 2/x², so that a slow endpoint is tried again in the end.
static double decay(uint64_t elapsed_us)
{
    double x = (double)elapsed_us / EWMA_DECAY_US;
    return 1 / (1 + x + x * x / 2);
}

static double latency_of(const struct balance_endpoint *at, uint64_t now_us)
{
    return at->ewma_us * decay(clock_elapsed_us(at->ewma_at_us, now_us));
}

// Peak EWMA: latency × (active + 1), active in units of a middle weight. What has not been measured yet gets
// one request to measure it, and counts as fast as the other until that is back.
static bool is_faster(const struct choice *choice, uint32_t first, uint32_t second)
{
    const struct balance_endpoint *a = &choice->balance->endpoints[first];
    const struct balance_endpoint *b = &choice->balance->endpoints[second];
    double a_us = latency_of(a, choice->now_us), b_us = latency_of(b, choice->now_us);
    bool a_new = a->ewma_us <= 0, b_new = b->ewma_us <= 0;
    if (a_new && b_new)
        return is_less_loaded(choice, first, second);
    if (a_new || b_new) {
        const struct balance_endpoint *fresh = a_new ? a : b;
        if (!fresh->active)
            return b_new;
        a_us = b_us = 1;
    }
    double a_weight = (double)weight_of(choice, first), b_weight = (double)weight_of(choice, second);
    double middle = (a_weight + b_weight) / 2;
    double a_cost = a_us * (1 + a->active * middle / a_weight);
    double b_cost = b_us * (1 + b->active * middle / b_weight);
    return b_cost * EWMA_MARGIN < a_cost;
}

static uint32_t pick_of_two(const struct choice *choice, struct rand *rand)
{
    uint32_t first = draw(choice, choice->weight_sum, UINT32_MAX, rand);
    uint64_t left = choice->weight_sum - weight_of(choice, first);
    if (!left)
        return first;
    uint32_t second = draw(choice, left, first, rand);
    bool better = choice->balance->policy == BALANCE_EWMA ? is_faster(choice, first, second)
                                                          : is_less_loaded(choice, first, second);
    return better ? second : first;
}

// Clockwise from the key to the first endpoint that may take it and is below 1.25 × its share of the load.
// When all of those that may are at their bound (others hold the rest of the load), the first one.
static uint32_t pick_hashed(const struct choice *choice, uint64_t hash)
{
    const struct hash_ring *ring = choice->balance->ring;
    double load = BOUNDED_LOAD * ((double)choice->balance->active + 1) / (double)choice->weight_sum;
    uint32_t fallback = UINT32_MAX;
    for (uint32_t i = 0, at = hash_ring_find(ring, hash); i < ring->count; i++, at++) {
        at = at == ring->count ? 0 : at;
        uint32_t owner = ring->owners[at];
        uint64_t weight = weight_of(choice, owner);
        if (!weight)
            continue;
        if ((double)choice->balance->endpoints[owner].active < load * (double)weight)
            return owner;
        if (fallback == UINT32_MAX)
            fallback = owner;
    }
    check(fallback != UINT32_MAX); // weight_sum is not 0, so some owner has weight
    return fallback;
}

// ---- the room's verbs ----

int balance_pick(struct balance *balance, uint64_t hash, uint64_t tried, uint64_t now_us, struct rand *rand)
{
    struct choice choice = {.balance = balance, .now_us = now_us, .excluded = tried};
    survey(&choice);
    if (!choice.weight_sum && tried) { // no other will do
        choice.excluded = 0;
        survey(&choice);
    }
    if (!choice.weight_sum)
        return BALANCE_NONE;
    switch (balance->policy) {
    case BALANCE_ROUND_ROBIN: return (int)pick_round_robin(&choice);
    case BALANCE_RANDOM: return (int)draw(&choice, choice.weight_sum, UINT32_MAX, rand);
    case BALANCE_CONSISTENT_HASH: return (int)pick_hashed(&choice, hash);
    case BALANCE_LEAST_REQUEST:
    case BALANCE_EWMA: return (int)pick_of_two(&choice, rand);
    }
    return BALANCE_NONE;
}

bool balance_has_choice(struct balance *balance, uint64_t now_us)
{
    struct choice choice = {.balance = balance, .now_us = now_us};
    survey(&choice);
    return choice.weight_sum > 0;
}

void balance_began(struct balance *balance, uint32_t index)
{
    balance->endpoints[index].active++;
    balance->active++;
}

void balance_ended(struct balance *balance, uint32_t index, uint64_t latency_us, uint64_t now_us)
{
    struct balance_endpoint *at = &balance->endpoints[index];
    check(at->active > 0 && balance->active > 0);
    at->active--;
    balance->active--;
    if (!latency_us || balance->policy != BALANCE_EWMA)
        return;
    double latency = (double)latency_us;
    double keep = decay(clock_elapsed_us(at->ewma_at_us, now_us));
    // A peak counts at once, calm only by and by.
    at->ewma_us = latency > at->ewma_us ? latency : at->ewma_us * keep + latency * (1 - keep);
    at->ewma_at_us = now_us;
}

uint64_t balance_hash(struct str key)
{
    return XXH3_64bits(key.p, key.n);
}
