#include "unit.h"

#include "exchange/overload.h"

#include <limits.h>

#define assert_near(a, b) assert_true((a) > (b)-0.01 && (a) < (b) + 0.01)

enum { SECOND_US = 1000000 };

static void test_pressure_is_linear_between_its_bounds(void **state)
{
    (void)state;
    static const struct {
        double use, pressure;
    } cases[] = {{0, 0}, {0.8, 0}, {0.85, 1}, {0.9, 2}, {0.95, 3}, {1, 3}, {7, 3}};
    for (size_t i = 0; i < countof(cases); i++)
        assert_near(overload_pressure_of(cases[i].use, 0.8, 0.95), cases[i].pressure);
}

static void test_pressure_rises_at_once_and_falls_slowly(void **state)
{
    (void)state;
    struct overload_gauge gauge = {0};
    uint64_t now_us = 10 * SECOND_US;
    assert_false(overload_follow(&gauge, 0, now_us));
    assert_true(overload_follow(&gauge, 2.5, now_us));
    assert_int_equal(gauge.level, 3);
    assert_false(overload_follow(&gauge, 0, now_us + SECOND_US / 4));
    assert_near(gauge.pressure, 2.25);
    assert_true(overload_follow(&gauge, 0, now_us + SECOND_US));
    assert_near(gauge.pressure, 1.5);
    assert_int_equal(gauge.level, 2);
    assert_true(overload_follow(&gauge, 3, now_us + SECOND_US + 1));
    assert_int_equal(gauge.level, 3);
    assert_true(overload_follow(&gauge, 0, now_us + 100 * SECOND_US)); // long not looked at
    assert_int_equal(gauge.level, 0);
}

static void test_a_level_is_not_left_for_a_moment(void **state)
{
    (void)state;
    struct overload_gauge gauge = {0};
    uint64_t now_us = SECOND_US;
    unsigned changes = 0;
    for (unsigned i = 0; i < 100; i++) { // to and fro around the bound of level 2
        now_us += OVERLOAD_SAMPLE_US;
        changes += overload_follow(&gauge, i % 2 ? 1.1 : 0.9, now_us);
    }
    assert_int_equal(changes, 2); // to 1, then to 2
    for (unsigned i = 0; i < 5; i++) {
        now_us += OVERLOAD_SAMPLE_US;
        overload_follow(&gauge, 0.5, now_us);
    }
    assert_int_equal(gauge.level, 1);
}

static unsigned shed_of_thousand(double pressure, enum priority priority)
{
    struct overload_meter meter = {0};
    unsigned shed = 0;
    for (unsigned i = 0; i < 1000; i++)
        shed += overload_sheds(&meter, pressure, priority);
    return shed;
}

static void test_low_priorities_go_first_and_by_shares(void **state)
{
    (void)state;
    static const struct {
        double pressure;
        unsigned low, normal, high, critical;
    } cases[] = {
        {0, 0, 0, 0, 0},        {0.25, 250, 0, 0, 0},       {1, 1000, 0, 0, 0},
        {1.5, 1000, 500, 0, 0}, {2.75, 1000, 1000, 750, 0}, {3, 1000, 1000, 1000, 0},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        assert_int_equal(shed_of_thousand(cases[i].pressure, PRIORITY_LOW), cases[i].low);
        assert_int_equal(shed_of_thousand(cases[i].pressure, PRIORITY_NORMAL), cases[i].normal);
        assert_int_equal(shed_of_thousand(cases[i].pressure, PRIORITY_HIGH), cases[i].high);
        assert_int_equal(shed_of_thousand(cases[i].pressure, PRIORITY_CRITICAL), cases[i].critical);
    }
}

static void test_shares_are_spread_evenly(void **state)
{
    (void)state;
    struct overload_meter meter = {0};
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(overload_sheds(&meter, 0.25, PRIORITY_LOW), i % 4 == 3);
}

static void test_one_long_turn_is_no_standing_lag(void **state)
{
    (void)state;
    struct overload_lag lag = {0};
    uint64_t now_us = SECOND_US, standing_us = 0, worst_us = 0;
    for (unsigned i = 0; i < 100; i++) {
        now_us += OVERLOAD_SAMPLE_US / 4;
        if (overload_note_lag(&lag, i == 50 ? 2 * SECOND_US : 100, now_us, &standing_us) &&
            standing_us > worst_us)
            worst_us = standing_us;
    }
    assert_int_equal(worst_us, 100);
}

static void test_a_lag_that_stays_counts_after_half_a_second(void **state)
{
    (void)state;
    struct overload_lag lag = {0};
    uint64_t now_us = SECOND_US, standing_us = 0, began_us = now_us;
    while (standing_us < 400000) {
        now_us += 30000;
        // Short turns are between the long ones.
        if (!overload_note_lag(&lag, now_us / 30000 % 3 ? 1000 : 400000, now_us, &standing_us))
            continue;
        assert_true(now_us < began_us + 2 * SECOND_US);
    }
    assert_int_equal(standing_us, 400000);
    assert_true(now_us >= began_us + (OVERLOAD_LAG_WINDOWS - 1) * OVERLOAD_SAMPLE_US);
}

static struct overload_settings settings = {
    .enabled = true,
    .descriptors = {0.8, 0.9},
    .memory = {0.8, 0.9},
    .loop_lag = {100000, 400000},
};

static void test_workers_follow_the_worst_of_what_is_short(void **state)
{
    (void)state;
    struct overload overload = {.settings = &settings};
    struct loop loop = {.now_us = 100 * SECOND_US};
    double pressure[OVERLOAD_RESOURCES];
    struct overload_use use = {.descriptors = 85, .max_descriptors = 100, .memory = 10, .max_memory = 100};
    overload_sample(&settings, &use, loop.now_us);
    overload_turn(&overload, &loop);
    overload_read(pressure);
    assert_near(pressure[OVERLOAD_DESCRIPTORS], 1.5);
    assert_near(pressure[OVERLOAD_MEMORY], 0);
    assert_near(overload.pressure, 1.5);
    assert_true(overload.is_pressed[OVERLOAD_DESCRIPTORS] && !overload.is_pressed[OVERLOAD_MEMORY]);
    for (unsigned i = 0; i < OVERLOAD_LAG_WINDOWS; i++) {
        loop.now_us += OVERLOAD_SAMPLE_US;
        loop.lag_us = 350000;
        overload_turn(&overload, &loop);
    }
    assert_near(overload.pressure, 2.5);
    overload_read(pressure);
    assert_near(pressure[OVERLOAD_LOOP], 2.5);
    // A new configuration without it: nobody is turned away, as soon as the pressure has fallen.
    static struct overload_settings off = {.enabled = false};
    overload.settings = &off;
    loop.now_us += 10 * SECOND_US;
    overload_sample(&off, &use, loop.now_us);
    overload_turn(&overload, &loop);
    assert_near(overload.pressure, 0);
}

static void test_clients_leave_descriptors_for_others(void **state)
{
    (void)state;
    static const struct {
        uint64_t most;
        int clients;
    } cases[] = {{10000, 9000}, {100, 84}, {32, INT_MAX}, {0, INT_MAX}};
    for (size_t i = 0; i < countof(cases); i++) {
        struct overload_use use = {.max_descriptors = cases[i].most};
        overload_sample(&settings, &use, 1000 * SECOND_US);
        assert_int_equal(overload_client_descriptors(), cases[i].clients);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pressure_is_linear_between_its_bounds),
        cmocka_unit_test(test_pressure_rises_at_once_and_falls_slowly),
        cmocka_unit_test(test_a_level_is_not_left_for_a_moment),
        cmocka_unit_test(test_low_priorities_go_first_and_by_shares),
        cmocka_unit_test(test_shares_are_spread_evenly),
        cmocka_unit_test(test_one_long_turn_is_no_standing_lag),
        cmocka_unit_test(test_a_lag_that_stays_counts_after_half_a_second),
        cmocka_unit_test(test_workers_follow_the_worst_of_what_is_short),
        cmocka_unit_test(test_clients_leave_descriptors_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
