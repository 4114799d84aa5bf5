#include "unit.h"

#include "base/rand.h"
#include "limit/rule.h"

#include <time.h>

#define NOW    UINT64_C(86400000000)
#define SECOND UINT64_C(1000000)

static int64_t unix_s(const char *text) // "2024-02-29 23:59:59"
{
    struct tm utc = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &utc));
    return timegm(&utc);
}

static void test_the_calendar(void **state)
{
    (void)state;
    static const struct {
        enum window_unit unit;
        const char *now, *begin, *end;
    } rows[] = {
        {WINDOW_MINUTE, "2026-11-28 13:50:00", "2026-11-28 13:50:00", "2026-11-28 13:51:00"},
        {WINDOW_MINUTE, "2026-11-28 13:50:59", "2026-11-28 13:50:00", "2026-11-28 13:51:00"},
        {WINDOW_HOUR, "2026-12-31 23:59:59", "2026-12-31 23:00:00", "2027-01-01 00:00:00"},
        {WINDOW_DAY, "2024-02-28 12:00:00", "2024-02-28 00:00:00", "2024-02-29 00:00:00"},
        {WINDOW_MONTH, "2024-02-29 23:59:59", "2024-02-01 00:00:00", "2024-03-01 00:00:00"},
        {WINDOW_MONTH, "2023-02-01 00:00:00", "2023-02-01 00:00:00", "2023-03-01 00:00:00"},
        {WINDOW_MONTH, "2026-12-31 00:00:00", "2026-12-01 00:00:00", "2027-01-01 00:00:00"},
        {WINDOW_MONTH, "2100-02-28 23:59:59", "2100-02-01 00:00:00", "2100-03-01 00:00:00"},
        {WINDOW_MONTH, "2000-01-01 00:00:00", "2000-01-01 00:00:00", "2000-02-01 00:00:00"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct window window;
        int64_t now = unix_s(rows[i].now);
        window_at(&window, rows[i].unit, NULL, 1, now, NOW);
        assert_int_equal((window.end_us - NOW) / SECOND, unix_s(rows[i].end) - now);
        assert_int_equal(window.length_us / SECOND, unix_s(rows[i].end) - unix_s(rows[i].begin));
    }
    for (int64_t day = -800; day < 80000; day++) { // against the libc's calendar
        struct window window;
        time_t now = day * 86400 + 43200;
        struct tm utc;
        gmtime_r(&now, &utc);
        struct tm first = {.tm_year = utc.tm_year, .tm_mon = utc.tm_mon, .tm_mday = 1};
        struct tm next = {.tm_year = utc.tm_year, .tm_mon = utc.tm_mon + 1, .tm_mday = 1};
        time_t end = timegm(&next);
        window_at(&window, WINDOW_MONTH, NULL, 1, now, NOW);
        assert_int_equal((window.end_us - NOW) / SECOND, end - now);
        assert_int_equal(window.length_us / SECOND, end - timegm(&first));
    }
}

// ---- time zones: the libc's calendar of them is compared in test_time_zone.c ----

static struct time_zone zone_of(const char *name, struct arena *arena)
{
    struct time_zone zone;
    const char *why;
    assert_true(time_zone_load(str_of(name), arena, &zone, &why));
    return zone;
}

static void test_days_and_months_of_a_zone(void **unused)
{
    (void)unused;
    static const struct {
        const char *zone;
        enum window_unit unit;
        const char *now, *begin, *end; // UTC
    } rows[] = {
        {"Europe/Berlin", WINDOW_DAY, "2026-11-28 23:00:00", "2026-11-28 23:00:00", "2026-11-29 23:00:00"},
        {"Europe/Berlin", WINDOW_DAY, "2026-11-28 22:59:59", "2026-11-27 23:00:00", "2026-11-28 23:00:00"},
        {"Europe/Berlin", WINDOW_DAY, "2026-03-29 12:00:00", "2026-03-28 23:00:00",
         "2026-03-29 22:00:00"}, // 23 h
        {"Europe/Berlin", WINDOW_DAY, "2026-10-25 00:30:00", "2026-10-24 22:00:00",
         "2026-10-25 23:00:00"}, // 25 h
        {"Europe/Berlin", WINDOW_DAY, "2026-10-25 22:59:59", "2026-10-24 22:00:00", "2026-10-25 23:00:00"},
        {"Europe/Berlin", WINDOW_MONTH, "2026-03-31 22:00:00", "2026-03-31 22:00:00", "2026-04-30 22:00:00"},
        {"Europe/Berlin", WINDOW_MONTH, "2026-03-31 21:59:59", "2026-02-28 23:00:00", "2026-03-31 22:00:00"},
        {"Europe/Berlin", WINDOW_HOUR, "2026-10-25 00:30:00", "2026-10-25 00:00:00", "2026-10-25 01:00:00"},
        {"Asia/Kolkata", WINDOW_HOUR, "2026-11-28 00:30:00", "2026-11-28 00:00:00", "2026-11-28 01:00:00"},
        {"Asia/Kolkata", WINDOW_DAY, "2026-11-28 18:30:00", "2026-11-28 18:30:00", "2026-11-29 18:30:00"},
        {"Australia/Sydney", WINDOW_DAY, "2026-04-04 20:00:00", "2026-04-04 13:00:00",
         "2026-04-05 14:00:00"}, // 25 h
        {"Australia/Sydney", WINDOW_DAY, "2026-10-04 00:00:00", "2026-10-03 14:00:00",
         "2026-10-04 13:00:00"}, // 23 h
        {"Australia/Sydney", WINDOW_MONTH, "2026-10-10 00:00:00", "2026-09-30 14:00:00",
         "2026-10-31 13:00:00"},
        {"Australia/Lord_Howe", WINDOW_DAY, "2026-04-05 00:00:00", "2026-04-04 13:00:00",
         "2026-04-05 13:30:00"}, // 24.5 h
        {"America/Sao_Paulo", WINDOW_DAY, "2018-11-04 02:59:59", "2018-11-03 03:00:00",
         "2018-11-04 03:00:00"},
        {"America/Sao_Paulo", WINDOW_DAY, "2018-11-04 03:00:00", "2018-11-04 03:00:00",
         "2018-11-05 02:00:00"}, // from 1:00
        {"America/Sao_Paulo", WINDOW_DAY, "2018-02-18 02:30:00", "2018-02-17 02:00:00",
         "2018-02-18 03:00:00"},
        {"America/St_Johns", WINDOW_DAY, "2010-11-07 02:40:00", "2010-11-07 02:30:00",
         "2010-11-08 03:30:00"}, // 23:10 again
        {"Pacific/Apia", WINDOW_DAY, "2011-12-30 09:59:59", "2011-12-29 10:00:00", "2011-12-30 10:00:00"},
        {"Pacific/Apia", WINDOW_DAY, "2011-12-30 10:00:00", "2011-12-30 10:00:00",
         "2011-12-31 10:00:00"}, // no 30th
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        struct time_zone zone = zone_of(rows[i].zone, &arena);
        struct window window;
        int64_t now = unix_s(rows[i].now), begin_s, end_s;
        window_bounds(rows[i].unit, &zone, now, &begin_s, &end_s);
        if (begin_s != unix_s(rows[i].begin) || end_s != unix_s(rows[i].end))
            fail_msg("row %zu: %lld to %lld of now", i, (long long)(begin_s - now), (long long)(end_s - now));
        window_at(&window, rows[i].unit, &zone, 1, now, NOW);
        assert_int_equal((window.end_us - NOW) / SECOND, end_s - now);
        assert_int_equal(window.length_us / SECOND, end_s - begin_s);
    }
    arena_reset(&arena);
}

// One window ends where the next one begins, whatever the clocks do; every moment is in the one it asks for.
static void test_windows_of_a_zone_touch(void **unused)
{
    (void)unused;
    static const char *const zones[] = {"Europe/Berlin",     "Australia/Sydney", "America/Sao_Paulo",
                                        "Pacific/Apia",      "America/St_Johns", "Asia/Gaza",
                                        "Africa/Casablanca", "Pacific/Kwajalein"};
    struct arena arena;
    struct rand rand;
    arena_init(&arena, NULL);
    rand_init_seed(&rand, 5);
    for (size_t i = 0; i < countof(zones); i++) {
        struct time_zone zone = zone_of(zones[i], &arena);
        for (int j = 0; j < 3000; j++) {
            enum window_unit unit = rand_below(&rand, 2) ? WINDOW_DAY : WINDOW_MONTH;
            int64_t now_s =
                zone.v[rand_below(&rand, zone.count)].at_s + (int64_t)rand_below(&rand, 259200) - 129600;
            int64_t begin_s, end_s, same_begin_s, same_end_s;
            window_bounds(unit, &zone, now_s, &begin_s, &end_s);
            assert_true(begin_s <= now_s && now_s < end_s);
            int64_t others[] = {begin_s, end_s - 1,
                                begin_s + (int64_t)rand_below(&rand, (uint32_t)(end_s - begin_s))};
            for (size_t k = 0; k < countof(others); k++) {
                window_bounds(unit, &zone, others[k], &same_begin_s, &same_end_s);
                assert_true(same_begin_s == begin_s && same_end_s == end_s);
            }
            window_bounds(unit, &zone, end_s, &same_begin_s, &same_end_s);
            assert_int_equal(same_begin_s, end_s);
        }
    }
    arena_reset(&arena);
}

static uint64_t cpu_us(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000 + (uint64_t)spent.tv_nsec / 1000;
}

static void test_what_a_zone_costs(void **unused)
{
    (void)unused;
    enum { ROUNDS = 300000 };
    struct arena arena;
    struct window window;
    arena_init(&arena, NULL);
    struct time_zone zone = zone_of("Europe/Berlin", &arena);
    int64_t now_s = unix_s("2026-11-28 12:00:00");
    uint64_t sum = 0, began = cpu_us(), spent[2];
    for (int64_t i = 0; i < ROUNDS; i++) {
        window_at(&window, WINDOW_DAY, &zone, 1, now_s + i, NOW);
        sum += window.end_us;
    }
    spent[0] = cpu_us() - began;
    for (int64_t i = 0; i < ROUNDS; i++) {
        window_at(&window, WINDOW_DAY, NULL, 1, now_s + i, NOW);
        sum += window.end_us;
    }
    spent[1] = cpu_us() - began - spent[0];
    assert_true(sum);
    print_message("a quota's window: %.0f ns in a zone, %.0f ns in UTC\n", (double)spent[0] * 1000 / ROUNDS,
                  (double)spent[1] * 1000 / ROUNDS);
    arena_reset(&arena);
}

static struct limit_rule at(enum window_unit unit, uint64_t tokens, int64_t now_s, uint64_t now_us)
{
    struct limit_rule rule = {.is_window = true};
    window_at(&rule.window, unit, NULL, tokens, now_s, now_us);
    return rule;
}

static void test_so_many_in_each_window(void **unused)
{
    (void)unused;
    int64_t noon = unix_s("2026-11-28 12:00:30");
    struct limit_rule rule = at(WINDOW_MINUTE, 3, noon, NOW);
    uint64_t state = rule_new_state(NOW);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rule_remaining(&rule, state, NOW), 3 - i);
        assert_int_equal(rule_wait_us(&rule, state, NOW, 1), 0);
        state = rule_charge(&rule, state, NOW, 1);
    }
    assert_int_equal(rule_wait_us(&rule, state, NOW, 1), 30 * SECOND);
    assert_int_equal(rule_wait_us(&rule, state, NOW, 4), BUCKET_NEVER);
    assert_int_equal(rule_full_us(&rule, state, NOW), 30 * SECOND);
    assert_false(bucket_is_full(state, NOW + 29 * SECOND)); // not to be forgotten
    assert_true(bucket_is_full(state, NOW + 30 * SECOND));
    rule = at(WINDOW_MINUTE, 3, noon + 29, NOW + 29 * SECOND);
    assert_int_equal(rule_remaining(&rule, state, NOW + 29 * SECOND), 0);
    rule = at(WINDOW_MINUTE, 3, noon + 30, NOW + 30 * SECOND);
    assert_int_equal(rule_remaining(&rule, state, NOW + 30 * SECOND), 3);
    rule = at(WINDOW_MINUTE, 5, noon + 1, NOW + SECOND); // a reload in between
    assert_int_equal(rule_remaining(&rule, state, NOW + SECOND), 2);
}

static void test_giving_back_and_overdraft(void **unused)
{
    (void)unused;
    struct limit_rule rule = at(WINDOW_DAY, 10, unix_s("2026-11-28 12:00:00"), NOW);
    uint64_t state = rule_charge(&rule, 0, NOW, 4);
    assert_int_equal(rule_remaining(&rule, rule_give(&rule, state, 3), NOW), 9);
    assert_int_equal(rule_remaining(&rule, rule_give(&rule, state, 5), NOW), 10);
    state = rule_charge(&rule, state, NOW, UINT64_MAX);
    assert_int_equal(rule_remaining(&rule, state, NOW), 0);
    state = rule_charge(&rule, state, NOW, UINT64_MAX);
    assert_int_equal(rule_remaining(&rule, state, NOW), 0);
    assert_int_equal(rule_wait_us(&rule, state, NOW, 1), 12 * 3600 * SECOND);
}

// The wall clock is set by a few seconds: the same window, unless it is really another one.
static void test_a_clock_that_is_set(void **unused)
{
    (void)unused;
    int64_t noon = unix_s("2026-11-28 12:00:30");
    struct limit_rule rule = at(WINDOW_MINUTE, 3, noon, NOW);
    uint64_t state = rule_charge(&rule, 0, NOW, 2);
    for (int off = -20; off <= 20; off += 5) {
        rule = at(WINDOW_MINUTE, 3, noon + off, NOW);
        assert_int_equal(rule_remaining(&rule, state, NOW), 1);
    }
    rule = at(WINDOW_MINUTE, 3, noon + 60, NOW);
    assert_int_equal(rule_remaining(&rule, state, NOW),
                     1); // a minute further on at once: still not a new one
    rule = at(WINDOW_MINUTE, 3, noon + 60, NOW + 60 * SECOND);
    assert_int_equal(rule_remaining(&rule, state, NOW + 60 * SECOND), 3);
}

// A response that comes after the end of its request's window, or a worker whose clock was read before it.
static void test_a_request_of_the_window_before(void **unused)
{
    (void)unused;
    int64_t last = unix_s("2026-11-28 12:00:59");
    struct limit_rule before = at(WINDOW_MINUTE, 10, last, NOW),
                      rule = at(WINDOW_MINUTE, 10, last + 1, NOW + SECOND);
    uint64_t state = rule_charge(&before, 0, NOW, 4);
    state = rule_charge(&rule, state, NOW + SECOND, 3);
    assert_int_equal(rule_remaining(&rule, state, NOW + SECOND), 7);
    assert_int_equal(rule_remaining(&rule, rule_give(&before, state, 2), NOW + SECOND), 7);
    assert_int_equal(rule_remaining(&rule, rule_charge(&before, state, NOW + SECOND, 2), NOW + SECOND), 5);
    state = rule_charge(&before, state, NOW + SECOND, UINT64_MAX);
    assert_int_equal(rule_remaining(&rule, state, NOW + SECOND), 0);
    assert_int_equal(rule_wait_us(&rule, state, NOW + SECOND, 1), 60 * SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_calendar),
        cmocka_unit_test(test_days_and_months_of_a_zone),
        cmocka_unit_test(test_windows_of_a_zone_touch),
        cmocka_unit_test(test_what_a_zone_costs),
        cmocka_unit_test(test_so_many_in_each_window),
        cmocka_unit_test(test_giving_back_and_overdraft),
        cmocka_unit_test(test_a_clock_that_is_set),
        cmocka_unit_test(test_a_request_of_the_window_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
