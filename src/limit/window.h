// A quota: so many tokens in each minute, hour, day or month of the calendar. Pure, like bucket.h.
//
// Minutes and hours are those of UTC, days and months those of a time zone: such a day may have 23 or 25
// hours. It begins when the clocks there first show it.
//
// The state is a 64-bit number, too, and has its place in the same table: the upper bits say when the window
// ends, as a bucket's say when it is full, in steps of 65 ms; the lower 31 count the tokens that are gone. So
// a state whose window is past can be forgotten (bucket_is_full). Windows belong to the wall clock, states to
// the monotonic one: which window a state counts in is told by its end, give or take half a window, so that
// a clock that is set right by a few seconds does not begin another one. A state never goes back to an
// earlier window: what a request of that one takes afterwards is taken in the later, what it gives back is
// void.
#pragma once

#include "base/time_zone.h"
#include "limit/bucket.h"

enum window_unit { WINDOW_MINUTE, WINDOW_HOUR, WINDOW_DAY, WINDOW_MONTH, WINDOW_UNITS };

enum {
    WINDOW_COUNT_BITS = 31,
    WINDOW_TOKENS_MAX = 1000000000,
};

struct window {
    enum window_unit unit;
    const struct time_zone *zone; // NULL: UTC
    uint64_t tokens;
    uint64_t end_us, length_us; // monotonic: of the window that is now
};

#define WINDOW_COUNT_MASK ((UINT64_C(1) << WINDOW_COUNT_BITS) - 1)

// Of the unit's window at this time, in Unix seconds: its begin and that of the next one.
void window_bounds(enum window_unit unit, const struct time_zone *zone, int64_t now_s, int64_t *begin_s,
                   int64_t *end_s);
// The window at this time: Unix seconds, and the monotonic clock. zone: NULL: UTC; else it must outlive the
// window.
void window_at(struct window *window, enum window_unit unit, const struct time_zone *zone, uint64_t tokens,
               int64_t now_s, uint64_t now_us);
// As those of a bucket.
uint64_t window_wait_us(const struct window *window, uint64_t state, uint64_t now_us, uint64_t cost);
uint64_t window_charge(const struct window *window, uint64_t state, uint64_t now_us, uint64_t cost);
uint64_t window_give(const struct window *window, uint64_t state, uint64_t cost);
uint64_t window_remaining(const struct window *window, uint64_t state);
