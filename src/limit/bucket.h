// A token bucket as one 64-bit number: the generic cell rate algorithm (ITU-T I.371, annex A). Pure: the
// state lives elsewhere, the clock is passed in.
//
// The state is the time at which the bucket will be full again, so an old one needs no attention: a bucket
// whose time is past is full, and a new one is the state 0. With rate r and burst b, at time t the bucket
// holds b - (state - t) × r tokens, at most b.
//
// Arithmetic. A token takes period/tokens microseconds to come back, which is seldom a whole number: that
// fraction in lowest terms is step/parts. A state holds whole microseconds (the upper 49 bits, 17 years) and
// how many parts are over (the lower 15). Sums are made in parts, so nothing is rounded and nothing drifts:
// decisions are exactly those of a bucket with rational numbers. Only when parts would be more than
// BUCKET_PARTS (a rate above 32768 in a period, with no common factor to speak of) is step rounded up: then a
// token takes up to 2^-15 µs too long, so that at a million a second 31 of a million are too few, and never
// one too many.
//
// Another rate may judge the state of an earlier one: what stays is the time at which the bucket is full. A
// bucket that was half empty with a span of two seconds then misses one second's worth of the new rate.
// bucket_settle sees that it is not emptier than empty.
#pragma once

#include "base/check.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    BUCKET_PART_BITS = 15,
    BUCKET_PARTS = 1 << BUCKET_PART_BITS,
    BUCKET_SHARES = 1000,
    BUCKET_SLACK_US = 1000000, // clocks of threads, read once a turn, may be so far apart
};
#define BUCKET_SPAN_MAX_US (366 * 86400 * UINT64_C(1000000)) // from empty to full, at the most
#define BUCKET_NEVER       UINT64_MAX

struct bucket {
    uint64_t step;  // parts of a microsecond in which one token comes back
    uint64_t parts; // of a microsecond, 1 to BUCKET_PARTS
    uint64_t burst; // tokens
    uint64_t span;  // burst × step: from empty to full
    uint64_t most;  // that may be missing: span, or twice as much when it may owe one burst
};

// tokens each period_us, burst at once. owes: bucket_charge may take what is not there, up to one burst.
// False: one of them is 0, tokens come faster than one a microsecond, a token takes longer than a day, or the
// burst takes longer than BUCKET_SPAN_MAX_US to come back.
must_check bool bucket_compile(struct bucket *bucket, uint64_t tokens, uint64_t period_us, uint64_t burst,
                               bool owes);
// Microseconds until so many tokens can be had: 0 now, BUCKET_NEVER when they are more than a burst.
uint64_t bucket_wait_us(const struct bucket *bucket, uint64_t state, uint64_t now_us, uint64_t cost);
// The state after so many are taken, whether they are there or not.
uint64_t bucket_charge(const struct bucket *bucket, uint64_t state, uint64_t now_us, uint64_t cost);
// Gives back what bucket_charge took.
uint64_t bucket_give(const struct bucket *bucket, uint64_t state, uint64_t cost);
// The state itself, unless more is missing than can be (after a change of the limit): then the emptiest one.
uint64_t bucket_settle(const struct bucket *bucket, uint64_t state, uint64_t now_us);
// Whole tokens that are there.
uint64_t bucket_remaining(const struct bucket *bucket, uint64_t state, uint64_t now_us);
// Microseconds until it is full.
uint64_t bucket_full_us(const struct bucket *bucket, uint64_t state, uint64_t now_us);

// What so many tokens take, in parts; no more than twice the span.
uint64_t bucket_price(const struct bucket *bucket, uint64_t cost);
// One of `of` (1 to BUCKET_SHARES) equal shares of its rate and its burst, which is at least `least` (1 to
// burst), unless that would take longer than BUCKET_SPAN_MAX_US to come back: then it comes faster. The
// states of the whole are states of the share: who is half empty has half a share.
struct bucket bucket_share(const struct bucket *bucket, uint32_t of, uint64_t least);

// Whether the state is that of a full bucket, which can be forgotten, whatever its rate.
static inline bool bucket_is_full(uint64_t state, uint64_t now_us)
{
    return state <= now_us << BUCKET_PART_BITS;
}
