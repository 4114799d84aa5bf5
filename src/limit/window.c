#include "limit/window.h"

enum { MINUTE_S = 60, HOUR_S = 3600, DAY_S = 86400 };

#define SECOND_US UINT64_C(1000000)

// ---- the calendar (proleptic Gregorian, years from March; Hinnant 2013) ----

static int64_t floor_to(int64_t value, int64_t step)
{
    int64_t rest = value % step;
    return value - (rest < 0 ? rest + step : rest);
}

static int64_t days_of(int64_t year, int64_t month) // since 1970, of the first of a month, 1 to 12
{
    year -= month <= 2;
    int64_t era = floor_to(year, 400) / 400, year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void month_of(int64_t days, int64_t *year, int64_t *month)
{
    days += 719468;
    int64_t era = floor_to(days, 146097) / 146097, day = days - era * 146097;
    int64_t year_of_era = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = year_of_era + era * 400 + (*month <= 2);
}

static void month_bounds(int64_t now_s, int64_t *begin_s, int64_t *end_s)
{
    int64_t year, month;
    month_of(floor_to(now_s, DAY_S) / DAY_S, &year, &month);
    *begin_s = days_of(year, month) * DAY_S;
    *end_s = days_of(year + month / 12, month % 12 + 1) * DAY_S;
}

void window_at(struct window *window, enum window_unit unit, uint64_t tokens, int64_t now_s, uint64_t now_us)
{
    static const int64_t lengths[] = {
        [WINDOW_MINUTE] = MINUTE_S, [WINDOW_HOUR] = HOUR_S, [WINDOW_DAY] = DAY_S};
    int64_t begin_s, end_s;
    if (unit == WINDOW_MONTH) {
        month_bounds(now_s, &begin_s, &end_s);
    } else {
        begin_s = floor_to(now_s, lengths[unit]);
        end_s = begin_s + lengths[unit];
    }
    window->tokens = tokens;
    window->end_us = now_us + (uint64_t)(end_s - now_s) * SECOND_US;
    window->length_us = (uint64_t)(end_s - begin_s) * SECOND_US;
}

// ---- states ----

static uint64_t gone(const struct window *window, uint64_t state)
{
    uint64_t end_us = (state & ~WINDOW_COUNT_MASK) >> BUCKET_PART_BITS;
    return end_us + window->length_us / 2 > window->end_us ? state & WINDOW_COUNT_MASK : 0;
}

static uint64_t state_of(const struct window *window, uint64_t count)
{
    return (window->end_us << BUCKET_PART_BITS & ~WINDOW_COUNT_MASK) |
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

uint64_t window_charge(const struct window *window, uint64_t state, uint64_t cost)
{
    uint64_t before = gone(window, state);
    return state_of(window, cost < WINDOW_COUNT_MASK ? before + cost : WINDOW_COUNT_MASK);
}

uint64_t window_give(const struct window *window, uint64_t state, uint64_t cost)
{
    uint64_t before = gone(window, state);
    return state_of(window, before > cost ? before - cost : 0);
}

uint64_t window_remaining(const struct window *window, uint64_t state)
{
    uint64_t before = gone(window, state);
    return before < window->tokens ? window->tokens - before : 0;
}
