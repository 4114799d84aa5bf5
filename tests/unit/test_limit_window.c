#include "unit.h"

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
        window_at(&window, rows[i].unit, 1, now, NOW);
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
        window_at(&window, WINDOW_MONTH, 1, now, NOW);
        assert_int_equal((window.end_us - NOW) / SECOND, end - now);
        assert_int_equal(window.length_us / SECOND, end - timegm(&first));
    }
}

static struct limit_rule at(enum window_unit unit, uint64_t tokens, int64_t now_s, uint64_t now_us)
{
    struct limit_rule rule = {.is_window = true};
    window_at(&rule.window, unit, tokens, now_s, now_us);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_calendar),
        cmocka_unit_test(test_so_many_in_each_window),
        cmocka_unit_test(test_giving_back_and_overdraft),
        cmocka_unit_test(test_a_clock_that_is_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
