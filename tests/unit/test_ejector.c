// Ejection's decisions by themselves: rows of failures, how long, how many, success rates.
#include "unit.h"

#include "base/check.h"
#include "upstream/ejector.h"

enum { SECOND = 1000000, NOW = 1000 * SECOND };

static const struct outlier_settings usual = {
    .consecutive_failures = 5,
    .connect_failures = 3,
    .ejection_us = 10 * SECOND,
    .max_ejection_us = 300 * (uint64_t)SECOND,
    .max_ejected = 0.5,
    .check_readmits = true,
    .success_rate = {10 * SECOND, 100, 5, 1.9, 0.05},
};

static bool note(struct ejector *ejector, char result, enum ejection_reason *reason)
{
    enum ejector_result results[] = {
        ['+'] = EJECTOR_GOOD, ['-'] = EJECTOR_BAD, ['c'] = EJECTOR_CONNECT_FAILED, ['='] = EJECTOR_BAD_TOO};
    return ejector_note(ejector, &usual, results[(unsigned)result], true, NOW, NOW, reason);
}

static void test_rows(void **state)
{
    (void)state;
    // results: + good, - bad, c connect failed, = of the same; said: what each one makes of it: F failures, C
    // connect failures.
    static const struct {
        const char *results, *said;
    } cases[] = {
        {"+++++", "....."},
        {"-----", "....F"},
        {"----+-----", ".........F"},
        {"-+-+-+-+-+-+", "............"},
        {"ccc", "..C"},
        {"cc-cc-", "....FF"}, // a connect that works ends their row, and not that of all failures
        {"cc+cc+ccc", "........C"},
        {"c-c-c", "....F"},
        {"------", "....FF"}, // whoever asks decides; the row goes on
        {"--ccc", "....C"},
        {"-=========", ".........."},
        {"c==c==c", "......C"},
        {"-=c=-=-=-=", "........F."},
        {"c=+=cc=c", ".......C"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct ejector ejector = {0};
        for (size_t n = 0; cases[i].results[n]; n++) {
            enum ejection_reason reason;
            bool enough = note(&ejector, cases[i].results[n], &reason);
            char letter = !enough ? '.' : reason == EJECTED_CONNECT_FAILURES ? 'C' : 'F';
            if (letter != cases[i].said[n])
                fail_msg("case %zu, result %zu: %c", i, n, letter);
        }
    }
}

static void test_zero_is_never(void **state)
{
    (void)state;
    struct outlier_settings settings = usual;
    struct ejector ejector = {0};
    enum ejection_reason reason;
    settings.connect_failures = 0;
    for (int i = 1; i < 10; i++)
        assert_int_equal(ejector_note(&ejector, &settings, EJECTOR_CONNECT_FAILED, false, NOW, NOW, &reason),
                         i >= 5);
    assert_int_equal(reason, EJECTED_CONSECUTIVE_FAILURES);
    settings.consecutive_failures = 0;
    for (int i = 0; i < 100; i++)
        assert_false(ejector_note(&ejector, &settings, EJECTOR_BAD, false, NOW, NOW, &reason));
}

static uint64_t left_after(struct ejector *ejector, uint64_t bad_since_us, uint64_t now_us, double draw)
{
    ejector_eject(ejector, &usual, EJECTED_CONSECUTIVE_FAILURES, bad_since_us, now_us, draw);
    return ejector->until_us - now_us;
}

static void test_time_grows_and_shrinks(void **state)
{
    (void)state;
    struct ejector ejector = {0};
    uint64_t now = NOW;
    for (unsigned i = 1; i <= 40; i++) { // straight after its return it fails again
        uint64_t left = left_after(&ejector, now, now, 0);
        assert_int_equal(left, (i < 30 ? i : 30) * usual.ejection_us);
        assert_true(ejector_is_out(&ejector, now + left - 1));
        assert_false(ejector_is_out(&ejector, now + left));
        now += left;
    }
    now += 26 * usual.ejection_us; // good service: 30 - 26 + 1
    assert_int_equal(left_after(&ejector, now, now, 0), 5 * usual.ejection_us);
    now = ejector.until_us + 2 * usual.ejection_us - 1; // not quite two
    assert_int_equal(left_after(&ejector, now, now, 0), 5 * usual.ejection_us);
    now = ejector.until_us + 9 * usual.ejection_us; // what counts is when the failures began
    assert_int_equal(left_after(&ejector, ejector.until_us + 1, now, 0), 6 * usual.ejection_us);
    now = ejector.until_us + 1000 * usual.ejection_us;
    assert_int_equal(left_after(&ejector, now, now, 0), usual.ejection_us);
}

static void test_jitter_only_shortens(void **state)
{
    (void)state;
    struct ejector ejector = {0};
    assert_int_equal(left_after(&ejector, NOW, NOW, 0.5), 9500000);
    ejector = (struct ejector){.times = 100};
    assert_int_equal(left_after(&ejector, 0, NOW, 0), usual.max_ejection_us);
    ejector = (struct ejector){.times = 100};
    assert_true(left_after(&ejector, 0, NOW, 0.999999999) - usual.max_ejection_us * 9 / 10 < 2);
}

static void test_what_began_before_its_return_says_nothing(void **state)
{
    (void)state;
    struct ejector ejector = {0};
    enum ejection_reason reason;
    left_after(&ejector, NOW, NOW, 0);
    uint64_t back = ejector.until_us;
    for (int i = 0; i < 100; i++) {
        assert_false(ejector_note(&ejector, &usual, EJECTOR_BAD, true, NOW - 5, NOW + 5, &reason));
        assert_false(ejector_note(&ejector, &usual, EJECTOR_BAD, true, back - 1, back + SECOND, &reason));
    }
    assert_int_equal(ejector.failures, 0);
    assert_int_equal(ejector.window, 0);
    for (int i = 1; i <= 5; i++)
        assert_int_equal(ejector_note(&ejector, &usual, EJECTOR_BAD, true, back, back, &reason), i == 5);
}

static void test_readmitted(void **state)
{
    (void)state;
    struct ejector ejector = {0};
    left_after(&ejector, NOW, NOW, 0);
    ejector_readmit(&ejector, NOW + SECOND);
    assert_false(ejector_is_out(&ejector, NOW + SECOND));
    ejector_readmit(&ejector, NOW + 2 * SECOND); // it is back already
    assert_int_equal(ejector.until_us, NOW + SECOND);
    assert_int_equal(left_after(&ejector, NOW + SECOND, NOW + SECOND, 0), 2 * usual.ejection_us);
    ejector_forget(&ejector);
    assert_false(ejector_is_out(&ejector, NOW + SECOND));
    assert_int_equal(left_after(&ejector, NOW, NOW, 0), usual.ejection_us);
}

static void test_how_many(void **state)
{
    (void)state;
    static const struct {
        double max_ejected, panic;
        struct ejector_share share; // endpoints, available, ejected
        bool may;
    } cases[] = {
        {0.5, 0.5, {1, 1, 0}, false}, // the only one
        {1.0, 0, {1, 1, 0}, false},     {0.5, 0.5, {2, 2, 0}, true},
        {0.1, 0.5, {2, 2, 0}, true},                                // one always may
        {0, 0, {2, 2, 0}, false},                                   // but for 0
        {0.5, 0.5, {2, 1, 1}, false},   {1.0, 0, {2, 1, 1}, false}, // the last one
        {1.0, 0, {3, 2, 1}, true},      {0.5, 0.5, {3, 3, 0}, true},
        {0.5, 0, {3, 2, 1}, false},   // max_ejected: 1 of 3
        {1.0, 0.5, {3, 2, 1}, false}, // panic_threshold: 1 of 3 would be left
        {1.0, 0.5, {4, 3, 1}, true},    {1.0, 0.5, {4, 2, 2}, false},
        {0.5, 0.5, {4, 3, 0}, true},                                      // one is down
        {0.5, 0.5, {4, 2, 0}, false},   {0.5, 1.0, {100, 100, 0}, false}, // any less would be panic
        {0.29, 0, {100, 72, 28}, true}, {0.29, 0, {100, 71, 29}, false},
        {1.0, 0.56, {25, 15, 0}, true}, {1.0, 0.56, {25, 14, 0}, false},
        {0.3, 0, {10, 8, 2}, true},     {0.3, 0, {10, 7, 3}, false},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct outlier_settings settings = usual;
        settings.max_ejected = cases[i].max_ejected;
        if (ejector_may_eject(&settings, cases[i].panic, &cases[i].share) != cases[i].may)
            fail_msg("case %zu", i);
    }
}

// ---- success rates ----

static void test_tallies(void **state)
{
    (void)state;
    struct ejector ejector = {0};
    enum ejection_reason reason;
    for (int i = 0; i < 70; i++)
        note(&ejector, i % 7 ? '+' : i % 2 ? '-' : 'c', &reason);
    struct ejector_tally tally = ejector_take_tally(&ejector);
    assert_int_equal(tally.requests, 70);
    assert_int_equal(tally.good, 60);
    tally = ejector_take_tally(&ejector);
    assert_int_equal(tally.requests, 0);
    assert_false(ejector_note(&ejector, &usual, EJECTOR_GOOD, false, NOW, NOW, &reason)); // nobody compares
    assert_int_equal(ejector.window, 0);
}

static void test_success_rates(void **state)
{
    (void)state;
    // Of 1000 requests each (or `of`), how many were good; which are outliers.
    static const struct {
        unsigned good[7], of[7];
        const char *outliers;
    } cases[] = {
        {{1000, 1000, 1000, 1000, 0}, {0}, "....x"},
        {{1000, 1000, 1000, 1000, 700}, {0}, "....x"},
        {{1000, 1000, 1000, 1000, 990}, {0}, "....."}, // not min_gap below
        {{990, 985, 992, 988, 900, 991}, {0}, "....x."},
        {{0, 0, 0, 0, 0}, {0}, "....."},                          // all are as bad
        {{500, 1000, 500, 1000, 500}, {0}, "....."},              // no one stands apart
        {{1000, 1000, 1000, 0}, {0}, "...."},                     // too few
        {{1000, 1000, 1000, 1000, 0}, {0, 0, 0, 0, 99}, "....."}, // too few requests, so too few endpoints
        {{1000, 1000, 1000, 1000, 1000, 0}, {0, 0, 0, 0, 0, 99}, "......"},
        {{1000, 1000, 1000, 1000, 1000, 0}, {0, 0, 0, 0, 0, 100}, ".....x"},
        {{1000, 1000, 1000, 1000, 1000, 0, 0}, {0}, "......."}, // two: 1.58 deviations each
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct ejector_tally tallies[7];
        uint32_t count = (uint32_t)strlen(cases[i].outliers);
        for (uint32_t k = 0; k < count; k++)
            tallies[k] = (struct ejector_tally){cases[i].of[k] ? cases[i].of[k] : 1000, cases[i].good[k]};
        double bound = ejector_rate_bound(tallies, count, &usual.success_rate);
        for (uint32_t k = 0; k < count; k++)
            if (ejector_is_below(&tallies[k], bound, &usual.success_rate) != (cases[i].outliers[k] == 'x'))
                fail_msg("case %zu, endpoint %u: bound %f", i, k, bound);
    }
    assert_true(ejector_rate_bound(NULL, 0, &usual.success_rate) <= 0);
    // A bound that four could be below: but there must be five of them.
    struct success_rate_settings eager = usual.success_rate;
    struct ejector_tally four[] = {{1000, 1000}, {1000, 1000}, {1000, 1000}, {1000, 0}};
    eager.deviations = 1;
    assert_false(ejector_is_below(&four[3], ejector_rate_bound(four, 4, &eager), &eager));
    eager.min_endpoints = 4;
    assert_true(ejector_is_below(&four[3], ejector_rate_bound(four, 4, &eager), &eager));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_zero_is_never),
        cmocka_unit_test(test_time_grows_and_shrinks),
        cmocka_unit_test(test_jitter_only_shortens),
        cmocka_unit_test(test_what_began_before_its_return_says_nothing),
        cmocka_unit_test(test_readmitted),
        cmocka_unit_test(test_how_many),
        cmocka_unit_test(test_tallies),
        cmocka_unit_test(test_success_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
