// What the table is to do with a state: that of a bucket (bucket.h), or of a quota's window (window.h).
#pragma once

#include "limit/window.h"

struct limit_rule {
    bool is_window;
    union {
        struct bucket bucket;
        struct window window;
    };
};

// Of a key that is new: full, as either.
static inline uint64_t rule_new_state(uint64_t now_us)
{
    return now_us << BUCKET_PART_BITS & ~WINDOW_COUNT_MASK;
}

static inline uint64_t rule_settle(const struct limit_rule *rule, uint64_t state, uint64_t now_us)
{
    return unlikely(rule->is_window) ? state : bucket_settle(&rule->bucket, state, now_us);
}

static inline uint64_t rule_wait_us(const struct limit_rule *rule, uint64_t state, uint64_t now_us,
                                    uint64_t cost)
{
    return unlikely(rule->is_window) ? window_wait_us(&rule->window, state, now_us, cost)
                                     : bucket_wait_us(&rule->bucket, state, now_us, cost);
}

static inline uint64_t rule_charge(const struct limit_rule *rule, uint64_t state, uint64_t now_us,
                                   uint64_t cost)
{
    return unlikely(rule->is_window) ? window_charge(&rule->window, state, now_us, cost)
                                     : bucket_charge(&rule->bucket, state, now_us, cost);
}

static inline uint64_t rule_give(const struct limit_rule *rule, uint64_t state, uint64_t cost)
{
    return unlikely(rule->is_window) ? window_give(&rule->window, state, cost)
                                     : bucket_give(&rule->bucket, state, cost);
}

// Tokens that are there.
static inline uint64_t rule_remaining(const struct limit_rule *rule, uint64_t state, uint64_t now_us)
{
    return unlikely(rule->is_window) ? window_remaining(&rule->window, state)
                                     : bucket_remaining(&rule->bucket, state, now_us);
}

// Until all of them are.
static inline uint64_t rule_full_us(const struct limit_rule *rule, uint64_t state, uint64_t now_us)
{
    if (likely(!rule->is_window))
        return bucket_full_us(&rule->bucket, state, now_us);
    return rule->window.end_us > now_us ? rule->window.end_us - now_us : 0;
}

static inline uint64_t rule_tokens(const struct limit_rule *rule)
{
    return rule->is_window ? rule->window.tokens : rule->bucket.burst;
}
