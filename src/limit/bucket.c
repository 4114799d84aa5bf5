#include "limit/bucket.h"

enum { DAY_S = 86400 };

static uint64_t common_factor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

bool bucket_compile(struct bucket *bucket, uint64_t tokens, uint64_t period_us, uint64_t burst, bool owes)
{
    if (!tokens || !period_us || !burst || tokens > period_us || period_us > DAY_S * UINT64_C(1000000))
        return false;
    uint64_t factor = common_factor(period_us, tokens);
    bucket->step = period_us / factor;
    bucket->parts = tokens / factor;
    if (bucket->parts > BUCKET_PARTS) {
        bucket->step = (period_us * BUCKET_PARTS + tokens - 1) / tokens;
        bucket->parts = BUCKET_PARTS;
    }
    if (burst > BUCKET_SPAN_MAX_US * bucket->parts / bucket->step)
        return false;
    bucket->burst = burst;
    bucket->span = burst * bucket->step;
    bucket->most = owes ? 2 * bucket->span : bucket->span;
    return true;
}

// ---- states as points on one line, counted in parts ----

static uint64_t point_of(const struct bucket *bucket, uint64_t state)
{
    uint64_t us = state >> BUCKET_PART_BITS, over = state & (BUCKET_PARTS - 1);
    if (unlikely(over >= bucket->parts)) // of a rate with finer parts
        over = bucket->parts - 1;
    return us * bucket->parts + over;
}

static uint64_t state_of(const struct bucket *bucket, uint64_t point)
{
    if (bucket->parts == 1)
        return point << BUCKET_PART_BITS;
    return (point / bucket->parts) << BUCKET_PART_BITS | point % bucket->parts;
}

static uint64_t missing(const struct bucket *bucket, uint64_t state, uint64_t now_us)
{
    uint64_t full = point_of(bucket, state), now = now_us * bucket->parts;
    return full > now ? full - now : 0;
}

static uint64_t to_us(const struct bucket *bucket, uint64_t parts) // rounded up
{
    return (parts + bucket->parts - 1) / bucket->parts;
}

// ---- what can be asked ----

uint64_t bucket_price(const struct bucket *bucket, uint64_t cost)
{
    return cost > 2 * bucket->burst ? 2 * bucket->span : cost * bucket->step; // more is never missing
}

struct bucket bucket_share(const struct bucket *bucket, uint32_t of, uint64_t least)
{
    struct bucket share = *bucket;
    bool owes = bucket->most > bucket->span;
    share.burst = bucket->burst / of > least ? bucket->burst / of : least;
    uint64_t slowest = BUCKET_SPAN_MAX_US * bucket->parts / share.burst;
    share.step = bucket->step * of < slowest ? bucket->step * of : slowest;
    share.span = share.burst * share.step;
    share.most = owes ? 2 * share.span : share.span;
    return share;
}

uint64_t bucket_wait_us(const struct bucket *bucket, uint64_t state, uint64_t now_us, uint64_t cost)
{
    if (cost > bucket->burst)
        return BUCKET_NEVER;
    uint64_t after = missing(bucket, state, now_us) + cost * bucket->step;
    return likely(after <= bucket->span) ? 0 : to_us(bucket, after - bucket->span);
}

uint64_t bucket_charge(const struct bucket *bucket, uint64_t state, uint64_t now_us, uint64_t cost)
{
    uint64_t before = missing(bucket, state, now_us), after = before + bucket_price(bucket, cost);
    if (after > bucket->most)
        after = before > bucket->most ? before : bucket->most;
    return state_of(bucket, now_us * bucket->parts + after);
}

uint64_t bucket_give(const struct bucket *bucket, uint64_t state, uint64_t cost)
{
    uint64_t full = point_of(bucket, state), price = bucket_price(bucket, cost);
    return full > price ? state_of(bucket, full - price) : 0;
}

uint64_t bucket_settle(const struct bucket *bucket, uint64_t state, uint64_t now_us)
{
    uint64_t most = bucket->most + BUCKET_SLACK_US * bucket->parts;
    if (likely(missing(bucket, state, now_us) <= most))
        return state;
    return state_of(bucket, now_us * bucket->parts + bucket->most);
}

uint64_t bucket_remaining(const struct bucket *bucket, uint64_t state, uint64_t now_us)
{
    uint64_t gone = missing(bucket, state, now_us);
    return gone < bucket->span ? (bucket->span - gone) / bucket->step : 0;
}

uint64_t bucket_full_us(const struct bucket *bucket, uint64_t state, uint64_t now_us)
{
    return to_us(bucket, missing(bucket, state, now_us));
}
