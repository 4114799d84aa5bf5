#include "limit/window.h"

#include "base/calendar.h"

enum { MINUTE_S = 60, HOUR_S = 3600 };

#define SECOND_US UINT64_C(1000000)

// ---- the calendar ----

// Where the day, or the month, begins in which the clocks show this; and where the next one does. All by
// these clocks, as Unix seconds of UTC would be.
static void local_bounds(enum window_unit unit, int64_t local_s, int64_t *begin_s, int64_t *end_s)
{
    int64_t year, month, day = calendar_floor(local_s, CALENDAR_DAY_S) / CALENDAR_DAY_S, next = day + 1;
    if (unit == WINDOW_MONTH) {
        calendar_month(day, &year, &month);
        day = calendar_days(year, month);
        next = calendar_days(year + month / 12, month % 12 + 1);
    }
    *begin_s = day * CALENDAR_DAY_S;
    *end_s = next * CALENDAR_DAY_S;
}

// Clocks that are set back over midnight show yesterday again: that is today still.
static void zone_bounds(enum window_unit unit, const struct time_zone *zone, int64_t now_s, int64_t *begin_s,
                        int64_t *end_s)
{
    int64_t local_begin_s, local_end_s, local_s = now_s + time_zone_offset(zone, now_s);
    do {
        local_bounds(unit, local_s, &local_begin_s, &local_end_s);
        *begin_s = time_zone_reach(zone, local_begin_s);
        *end_s = time_zone_reach(zone, local_end_s);
        local_s = local_end_s;
    } while (*end_s <= now_s);
}

void window_bounds(enum window_unit unit, const struct time_zone *zone, int64_t now_s, int64_t *begin_s,
                   int64_t *end_s)
{
    if (unit == WINDOW_MINUTE || unit == WINDOW_HOUR) {
        int64_t length_s = unit == WINDOW_MINUTE ? MINUTE_S : HOUR_S;
        *begin_s = calendar_floor(now_s, length_s);
        *end_s = *begin_s + length_s;
    } else if (zone) {
        zone_bounds(unit, zone, now_s, begin_s, end_s);
    } else {
        local_bounds(unit, now_s, begin_s, end_s);
    }
}

void window_at(struct window *window, enum window_unit unit, const struct time_zone *zone, uint64_t tokens,
               int64_t now_s, uint64_t now_us)
{
    int64_t begin_s, end_s;
    window_bounds(unit, zone, now_s, &begin_s, &end_s);
    *window = (struct window){.unit = unit,
                              .zone = zone,
                              .tokens = tokens,
                              .end_us = now_us + (uint64_t)(end_s - now_s) * SECOND_US,
                              .length_us = (uint64_t)(end_s - begin_s) * SECOND_US};
}

// ---- states ----

// Of a state, which counts in the window that ends then.
static uint64_t end_of(uint64_t state)
{
    return (state & ~WINDOW_COUNT_MASK) >> BUCKET_PART_BITS;
}

static uint64_t gone(const struct window *window, uint64_t state)
{
    return end_of(state) + window->length_us / 2 > window->end_us ? state & WINDOW_COUNT_MASK : 0;
}

// The request came in a window before, or in another time zone, which is so far ahead.
static bool is_later(const struct window *window, uint64_t state)
{
    return end_of(state) > window->end_us + window->length_us / 2;
}

static uint64_t state_of(uint64_t end_us, uint64_t count)
{
    return (end_us << BUCKET_PART_BITS & ~WINDOW_COUNT_MASK) |
           (count < WINDOW_COUNT_MASK ? count : WINDOW_COUNT_MASK);
}

uint64_t window_wait_us(const struct window *window, uint64_t state, uint64_t now_us, uint64_t cost)
{
    if (cost > window->tokens)
        return BUCKET_NEVER;
    if (gone(window, state) + cost <= window->tokens)
        return 0;
    return window->end_us > now_us ? window->end_us - now_us : 1;
}

uint64_t window_charge(const struct window *window, uint64_t state, uint64_t now_us, uint64_t cost)
{
    bool is_over = now_us + BUCKET_SLACK_US >= window->end_us; // for whom the time was read last
    uint64_t before = gone(window, state),
             end_us = is_over && is_later(window, state) ? end_of(state) : window->end_us;
    return state_of(end_us, cost < WINDOW_COUNT_MASK ? before + cost : WINDOW_COUNT_MASK);
}

uint64_t window_give(const struct window *window, uint64_t state, uint64_t cost)
{
    uint64_t before = gone(window, state);
    if (is_later(window, state))
        return state;
    return state_of(window->end_us, before > cost ? before - cost : 0);
}

uint64_t window_remaining(const struct window *window, uint64_t state)
{
    uint64_t before = gone(window, state);
    return before < window->tokens ? window->tokens - before : 0;
}
