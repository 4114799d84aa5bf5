// The circuit breaker: its rules one by one. test_breaker_model.c has them all at once.
#include "upstream/breaker.h"

#include "base/check.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static const struct breaker_rules usual = {
    .window_us = 10 * SECOND,
    .min_requests = 20,
    .failure_ratio = 0.5,
    .judges_slow = true,
    .slow_ratio = 0.8,
    .open_us = 5 * SECOND,
    .max_open_us = 60 * SECOND,
    .ramp_us = 10 * SECOND,
    .half_open_requests = 3,
    .probe_us = 17 * SECOND,
};

struct bench {
    struct breaker breaker;
    struct breaker_rules rules;
    uint64_t now_us;
    double draw;
};

static struct bench begin(void)
{
    struct bench b = {.rules = usual, .now_us = 100 * SECOND, .draw = 0};
    breaker_set_window(&b.breaker, b.rules.window_us);
    return b;
}

static bool admit(struct bench *b, struct breaker_pass *pass)
{
    return breaker_admit(&b->breaker, &b->rules, b->now_us, b->draw, pass);
}

static void note(struct bench *b, struct breaker_pass pass, enum breaker_result result)
{
    breaker_note(&b->breaker, &b->rules, pass, result, b->now_us, b->draw);
}

// So many, one at a time. How many were admitted.
static unsigned calls(struct bench *b, unsigned n, enum breaker_result result)
{
    unsigned admitted = 0;
    for (unsigned i = 0; i < n; i++) {
        struct breaker_pass pass;
        if (!admit(b, &pass))
            continue;
        admitted++;
        note(b, pass, result);
    }
    return admitted;
}

static void open_it(struct bench *b)
{
    calls(b, (unsigned)b->rules.min_requests, BREAKER_FAILED);
    assert_int_equal(b->breaker.state, BREAKER_OPEN);
}

static void half_open_it(struct bench *b)
{
    open_it(b);
    b->now_us = b->breaker.until_us;
    breaker_tick(&b->breaker, &b->rules, b->now_us);
    assert_int_equal(b->breaker.state, BREAKER_HALF_OPEN);
}

static void ramp_it(struct bench *b)
{
    half_open_it(b);
    calls(b, 3, BREAKER_GOOD);
    assert_int_equal(b->breaker.state, BREAKER_RAMPING);
}

// ---- closed ----

static void test_opens_at_the_ratio(void **state)
{
    (void)state;
    struct bench b = begin();
    calls(&b, 30, BREAKER_GOOD);
    calls(&b, 29, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    calls(&b, 1, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_FAILURES);
}

// 0.56 is a little more in binary.
static void test_exactly_the_ratio_is_enough(void **state)
{
    (void)state;
    struct bench b = begin();
    b.rules.failure_ratio = b.rules.slow_ratio = 0.56;
    calls(&b, 11, BREAKER_GOOD);
    calls(&b, 14, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    b.breaker = begin().breaker;
    calls(&b, 11, BREAKER_GOOD);
    calls(&b, 14, BREAKER_SLOW);
    assert_int_equal(b.breaker.reason, BREAKER_SLOWNESS);
    b.rules.half_open_requests = 25;
    b.now_us = b.breaker.until_us;
    calls(&b, 13, BREAKER_SLOW);
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    calls(&b, 1, BREAKER_SLOW);
    assert_int_equal(b.breaker.reason, BREAKER_PROBES_SLOW);
}

static void test_few_requests_say_nothing(void **state)
{
    (void)state;
    struct bench b = begin();
    calls(&b, 19, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    b.now_us += 10 * SECOND; // and they are forgotten
    calls(&b, 19, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    calls(&b, 1, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
}

static void test_the_window_slides(void **state)
{
    (void)state;
    struct bench b = begin();
    calls(&b, 15, BREAKER_FAILED);
    for (unsigned i = 0; i < 9; i++) { // after nine slices all of them are still in it
        b.now_us += SECOND;
        calls(&b, 1, BREAKER_GOOD);
    }
    assert_int_equal(breaker_sum(&b.breaker, b.now_us).failed, 15);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us).calls, 24);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us + SECOND).failed, 0);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us + SECOND).calls, 9);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us + 100 * SECOND).calls, 0);
}

static void test_slow_answers_open(void **state)
{
    (void)state;
    struct bench b = begin();
    calls(&b, 10, BREAKER_GOOD);
    calls(&b, 39, BREAKER_SLOW);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    calls(&b, 1, BREAKER_SLOW);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_SLOWNESS);
    b = begin();
    b.rules.judges_slow = false;
    calls(&b, 100, BREAKER_SLOW);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
}

// A service that was good for a whole window and then is down: opens within a slice, not after half a window.
static void test_nothing_good_opens_within_a_slice(void **state)
{
    (void)state;
    struct bench b = begin();
    for (unsigned i = 0; i < 1000; i++, b.now_us += SECOND / 100)
        calls(&b, 10, BREAKER_GOOD);
    uint64_t down_us = b.now_us;
    while (b.breaker.state == BREAKER_CLOSED) {
        calls(&b, 10, BREAKER_FAILED);
        b.now_us += SECOND / 100;
    }
    assert_int_equal(b.breaker.reason, BREAKER_NOTHING_GOOD);
    assert_in_range(b.now_us - down_us, SECOND, SECOND * 11 / 10);
    // One good answer in a slice is something.
    b = begin();
    for (unsigned i = 0; i < 1000; i++, b.now_us += SECOND / 100)
        calls(&b, 10, BREAKER_GOOD);
    for (unsigned i = 0; i < 300; i++, b.now_us += SECOND / 100) {
        calls(&b, 10, BREAKER_FAILED);
        if (i % 90 == 0)
            calls(&b, 1, BREAKER_GOOD);
    }
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
}

static void test_neutral_results_are_none(void **state)
{
    (void)state;
    struct bench b = begin();
    calls(&b, 1000, BREAKER_NEUTRAL);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us).calls, 0);
    half_open_it(&b);
    calls(&b, 1000, BREAKER_NEUTRAL);
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    calls(&b, 3, BREAKER_GOOD);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
}

// ---- open ----

static void test_open_admits_nobody_until_its_time(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass pass;
    open_it(&b);
    assert_int_equal(breaker_wait_us(&b.breaker, b.now_us), 5 * SECOND);
    b.now_us += 5 * SECOND - 1;
    assert_false(admit(&b, &pass));
    assert_int_equal(breaker_wait_us(&b.breaker, b.now_us), 1);
    b.now_us++;
    assert_true(admit(&b, &pass));
    assert_true(pass.probe);
}

static void test_open_doubles_with_jitter_up_to_its_most(void **state)
{
    (void)state;
    static const unsigned expected[] = {5, 10, 20, 40, 60, 60, 60};
    for (unsigned jitter = 0; jitter <= 1; jitter++) {
        struct bench b = begin();
        b.draw = jitter ? 0.999999 : 0;
        calls(&b, 20, BREAKER_FAILED);
        for (unsigned i = 0; i < countof(expected); i++) {
            uint64_t wait_us = breaker_wait_us(&b.breaker, b.now_us);
            if (jitter)
                assert_in_range(wait_us, expected[i] * SECOND * 8 / 10, expected[i] * SECOND * 8 / 10 + 100);
            else
                assert_int_equal(wait_us, expected[i] * SECOND);
            b.now_us += wait_us;
            assert_int_equal(calls(&b, 1, BREAKER_FAILED), 1);
            assert_int_equal(b.breaker.reason, BREAKER_PROBE_FAILED);
        }
    }
}

static void test_long_closed_it_begins_with_open_again(void **state)
{
    (void)state;
    for (unsigned stays = 0; stays <= 1; stays++) {
        struct bench b = begin();
        ramp_it(&b);
        b.now_us += 10 * SECOND; // closed
        b.now_us += 60 * SECOND - 1 + stays;
        calls(&b, 20, BREAKER_FAILED);
        assert_int_equal(breaker_wait_us(&b.breaker, b.now_us), stays ? 5 * SECOND : 10 * SECOND);
    }
}

static void test_late_results_say_nothing(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass early, probe;
    assert_true(admit(&b, &early));
    open_it(&b);
    note(&b, early, BREAKER_GOOD);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    b.now_us += 5 * SECOND;
    assert_true(admit(&b, &probe));
    note(&b, early, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    assert_int_equal(b.breaker.probes, 1);
    note(&b, probe, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
}

// ---- half-open ----

static void test_probes_are_few(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass passes[3], one_more;
    half_open_it(&b);
    for (unsigned i = 0; i < 3; i++)
        assert_true(admit(&b, &passes[i]));
    assert_false(admit(&b, &one_more));
    note(&b, passes[0], BREAKER_GOOD);
    assert_false(admit(&b, &one_more)); // as many as are needed are under way or good
    note(&b, passes[1], BREAKER_NEUTRAL);
    assert_true(admit(&b, &passes[1]));
    assert_false(admit(&b, &one_more));
    note(&b, passes[1], BREAKER_GOOD);
    note(&b, passes[2], BREAKER_GOOD);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
    assert_int_equal(b.breaker.reason, BREAKER_PROBES_GOOD);
}

static void test_lost_probes_are_forgotten(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass lost[3], pass;
    half_open_it(&b);
    for (unsigned i = 0; i < 3; i++)
        assert_true(admit(&b, &lost[i]));
    b.now_us += 17 * SECOND - 1;
    assert_false(admit(&b, &pass));
    b.now_us++;
    assert_true(admit(&b, &pass));
    note(&b, lost[0], BREAKER_GOOD); // after all: it counts, and gives no place back twice
    note(&b, pass, BREAKER_GOOD);
    assert_int_equal(b.breaker.probes, 0);
    calls(&b, 1, BREAKER_GOOD);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
}

// What hangs since the last time it was half-open still loads the service.
static void test_probes_that_hang_count_until_they_end(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass hanging[2], pass;
    half_open_it(&b);
    assert_true(admit(&b, &hanging[0]) && admit(&b, &hanging[1]));
    assert_int_equal(calls(&b, 1, BREAKER_FAILED), 1);
    b.now_us = b.breaker.until_us;
    assert_true(admit(&b, &pass));
    assert_false(admit(&b, &pass));
    note(&b, hanging[0], BREAKER_FAILED); // of the last time
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    assert_true(admit(&b, &pass));
    assert_false(admit(&b, &pass));
}

// It says nothing, and it is no fault of the service.
static void test_a_probe_is_passed_over(void **state)
{
    (void)state;
    struct bench b = begin();
    b.rules.half_open_requests = 1;
    half_open_it(&b);
    struct breaker_pass first, second, third;
    assert_true(admit(&b, &first));
    assert_false(admit(&b, &third));
    breaker_pass_over(&b.breaker, &b.rules, &first, b.now_us);
    breaker_pass_over(&b.breaker, &b.rules, &first, b.now_us); // twice is once
    assert_true(admit(&b, &second));
    assert_false(admit(&b, &third));
    assert_int_equal(b.breaker.probes, 1);
    note(&b, first, BREAKER_GOOD);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
    note(&b, second, BREAKER_FAILED);
    assert_int_equal(b.breaker.probes, 0);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
}

static void test_slow_probes(void **state)
{
    (void)state;
    struct bench b = begin();
    half_open_it(&b);
    calls(&b, 2, BREAKER_SLOW);
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    calls(&b, 1, BREAKER_SLOW); // 3 of 3 are more than 0.8
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_PROBES_SLOW);
    b = begin();
    half_open_it(&b);
    calls(&b, 2, BREAKER_SLOW);
    calls(&b, 1, BREAKER_GOOD); // 2 of 3 are less
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
}

// ---- under way for longer than a slow call ----

static void note_slow(struct bench *b, struct breaker_pass *pass)
{
    breaker_note_slow(&b->breaker, &b->rules, pass, b->now_us, b->draw);
}

static struct breaker_pass late_call(struct bench *b)
{
    struct breaker_pass pass;
    assert_true(admit(b, &pass));
    note_slow(b, &pass);
    return pass;
}

static void assert_window(const struct bench *b, unsigned all, unsigned failed, unsigned slow)
{
    struct breaker_slice sum = breaker_sum(&b->breaker, b->now_us);
    assert_int_equal(sum.calls, all);
    assert_int_equal(sum.failed, failed);
    assert_int_equal(sum.slow, slow);
}

// It counts once, whatever becomes of it.
static void test_how_late_ones_end(void **state)
{
    (void)state;
    static const struct {
        enum breaker_result end;
        unsigned after_s;
        unsigned all, failed, slow; // in the window, with ten good ones that came meanwhile
    } rows[] = {
        {BREAKER_GOOD, 3, 11, 0, 1},    {BREAKER_SLOW, 3, 11, 0, 1},  {BREAKER_NEUTRAL, 3, 11, 0, 1},
        {BREAKER_FAILED, 3, 11, 1, 0},  {BREAKER_GOOD, 12, 10, 0, 0}, {BREAKER_SLOW, 12, 10, 0, 0},
        {BREAKER_FAILED, 12, 11, 1, 0}, // it was slow when the window was another one, and fails now
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct bench b = begin();
        struct breaker_pass pass = late_call(&b);
        assert_window(&b, 1, 0, 1);
        b.now_us += rows[i].after_s * SECOND;
        calls(&b, 10, BREAKER_GOOD);
        note(&b, pass, rows[i].end);
        assert_window(&b, rows[i].all, rows[i].failed, rows[i].slow);
        assert_int_equal(b.breaker.bad_in_a_row, 0);
    }
}

static void test_late_ones_open(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass first = late_call(&b);
    for (unsigned i = 1; i < 19; i++)
        late_call(&b);
    note(&b, first, BREAKER_NEUTRAL); // its client goes away: it was slow all the same
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    late_call(&b);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_SLOWNESS);
    b = begin();
    b.rules.judges_slow = false;
    assert_false(late_call(&b).late);
    assert_window(&b, 0, 0, 0);
}

// All places are taken by what hangs, so that nobody comes who could be counted: what hangs says so again.
static void test_what_still_hangs_opens_after_a_slice(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass late[20];
    calls(&b, 1000, BREAKER_GOOD);
    for (unsigned i = 0; i < countof(late); i++)
        late[i] = late_call(&b);
    b.now_us += SECOND - 1;
    note_slow(&b, &late[0]);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    assert_window(&b, 1020, 0, 20);
    b.now_us++;
    note_slow(&b, &late[0]);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_NOTHING_GOOD);
}

static void test_late_failures_open(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass late[10];
    calls(&b, 10, BREAKER_GOOD);
    for (unsigned i = 0; i < countof(late); i++)
        late[i] = late_call(&b);
    for (unsigned i = 0; i < countof(late); i++) {
        assert_int_equal(b.breaker.state, BREAKER_CLOSED);
        note(&b, late[i], BREAKER_FAILED);
    }
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_FAILURES);
    assert_window(&b, 20, 10, 0);
}

static void test_late_probes(void **state)
{
    (void)state;
    struct bench b = begin();
    half_open_it(&b);
    struct breaker_pass late[3], pass;
    for (unsigned i = 0; i < countof(late); i++) {
        assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
        late[i] = late_call(&b);
    }
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(b.breaker.reason, BREAKER_PROBES_SLOW);
    b.now_us = b.breaker.until_us;
    assert_false(admit(&b, &pass)); // they load the service yet
    for (unsigned i = 0; i < countof(late); i++)
        note(&b, late[i], BREAKER_FAILED); // of the last time
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    // One of three does not decide, nor does it hold up the others; unless it fails.
    for (unsigned fails = 0; fails <= 1; fails++) {
        b = begin();
        half_open_it(&b);
        late[0] = late_call(&b);
        assert_true(admit(&b, &late[1]) && admit(&b, &late[2]));
        assert_false(admit(&b, &pass));
        note(&b, late[1], BREAKER_GOOD);
        assert_false(admit(&b, &pass));
        note(&b, fails ? late[0] : late[2], fails ? BREAKER_FAILED : BREAKER_GOOD);
        assert_int_equal(b.breaker.state, fails ? BREAKER_OPEN : BREAKER_RAMPING);
        note(&b, fails ? late[2] : late[0], BREAKER_NEUTRAL);
        assert_int_equal(b.breaker.probes, 0);
    }
}

// What another window has counted is not taken out of this one.
static void test_late_ones_of_another_window(void **state)
{
    (void)state;
    struct bench b = begin();
    struct breaker_pass pass = late_call(&b);
    breaker_set_window(&b.breaker, 20 * SECOND);
    breaker_set_window(&b.breaker, 10 * SECOND);
    late_call(&b);
    note(&b, pass, BREAKER_FAILED);
    assert_window(&b, 2, 1, 1);
}

// ---- ramping ----

static void test_the_ramp_is_linear(void **state)
{
    (void)state;
    static const double shares[] = {0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
    struct bench b = begin();
    ramp_it(&b);
    uint64_t began_us = b.now_us;
    for (unsigned i = 0; i < countof(shares); i++) {
        struct breaker_pass pass;
        b.now_us = began_us + i * SECOND;
        b.draw = shares[i] - 0.001;
        assert_true(admit(&b, &pass));
        b.draw = shares[i] + 0.001;
        assert_false(admit(&b, &pass));
    }
    b.now_us = began_us + 10 * SECOND;
    b.draw = 0.9999;
    assert_int_equal(calls(&b, 10, BREAKER_GOOD), 10);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
}

static void test_failing_again_opens_from_the_ramp(void **state)
{
    (void)state;
    struct bench b = begin();
    ramp_it(&b);
    calls(&b, BREAKER_RAMP_REQUESTS - 1, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
    calls(&b, 1, BREAKER_FAILED);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker_wait_us(&b.breaker, b.now_us), 10 * SECOND);
}

static void test_no_ramp(void **state)
{
    (void)state;
    struct bench b = begin();
    b.rules.ramp_us = 0;
    ramp_it(&b);
    b.draw = 0.9999;
    assert_int_equal(calls(&b, 10, BREAKER_GOOD), 10);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
}

// ---- by hand, and settings that change ----

static void test_forced_open(void **state)
{
    (void)state;
    struct bench b = begin();
    breaker_set_force(&b.breaker, BREAKER_FORCED_OPEN, b.now_us);
    b.now_us += 1000 * SECOND;
    assert_int_equal(calls(&b, 10, BREAKER_GOOD), 0);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker_wait_us(&b.breaker, b.now_us), 0);
    breaker_set_force(&b.breaker, BREAKER_AUTOMATIC, b.now_us);
    assert_int_equal(b.breaker.state, BREAKER_HALF_OPEN);
    calls(&b, 3, BREAKER_GOOD);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
}

// It does not open once more.
static void test_an_open_one_forced_open(void **state)
{
    (void)state;
    struct bench b = begin();
    open_it(&b);
    b.now_us += SECOND;
    breaker_set_force(&b.breaker, BREAKER_FORCED_OPEN, b.now_us);
    assert_int_equal(b.breaker.entered[BREAKER_OPEN], 1);
    assert_int_equal(b.breaker.reason, BREAKER_BY_HAND);
    assert_int_equal(b.breaker.since_us, b.now_us);
    b.now_us += 1000 * SECOND;
    assert_int_equal(calls(&b, 10, BREAKER_GOOD), 0);
    breaker_set_force(&b.breaker, BREAKER_FORCED_CLOSED, b.now_us);
    assert_int_equal(b.breaker.entered[BREAKER_CLOSED], 1);
    breaker_set_force(&b.breaker, BREAKER_AUTOMATIC, b.now_us);
    breaker_set_force(&b.breaker, BREAKER_FORCED_CLOSED, b.now_us);
    assert_int_equal(b.breaker.entered[BREAKER_CLOSED], 1);
}

static void test_forced_closed(void **state)
{
    (void)state;
    struct bench b = begin();
    open_it(&b);
    breaker_set_force(&b.breaker, BREAKER_FORCED_CLOSED, b.now_us);
    assert_int_equal(calls(&b, 100, BREAKER_FAILED), 100);
    assert_int_equal(b.breaker.state, BREAKER_CLOSED);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us).failed, 100);
    breaker_set_force(&b.breaker, BREAKER_AUTOMATIC, b.now_us);
    assert_int_equal(calls(&b, 2, BREAKER_FAILED), 1);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
}

static void test_another_window_keeps_the_state(void **state)
{
    (void)state;
    struct bench b = begin();
    open_it(&b);
    breaker_set_window(&b.breaker, 20 * SECOND);
    assert_int_equal(b.breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker_sum(&b.breaker, b.now_us).calls, 0);
    breaker_set_window(&b.breaker, 0); // hostile, and still no division by zero
    b = begin();
    calls(&b, 10, BREAKER_FAILED);
    breaker_set_window(&b.breaker, 10 * SECOND); // the same
    assert_int_equal(breaker_sum(&b.breaker, b.now_us).calls, 10);
}

static void test_fewer_probes_are_enough_now(void **state)
{
    (void)state;
    struct bench b = begin();
    half_open_it(&b);
    calls(&b, 2, BREAKER_GOOD);
    b.rules.half_open_requests = 1;
    breaker_tick(&b.breaker, &b.rules, b.now_us);
    assert_int_equal(b.breaker.state, BREAKER_RAMPING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_at_the_ratio),
        cmocka_unit_test(test_exactly_the_ratio_is_enough),
        cmocka_unit_test(test_few_requests_say_nothing),
        cmocka_unit_test(test_the_window_slides),
        cmocka_unit_test(test_slow_answers_open),
        cmocka_unit_test(test_nothing_good_opens_within_a_slice),
        cmocka_unit_test(test_neutral_results_are_none),
        cmocka_unit_test(test_open_admits_nobody_until_its_time),
        cmocka_unit_test(test_open_doubles_with_jitter_up_to_its_most),
        cmocka_unit_test(test_long_closed_it_begins_with_open_again),
        cmocka_unit_test(test_late_results_say_nothing),
        cmocka_unit_test(test_probes_are_few),
        cmocka_unit_test(test_lost_probes_are_forgotten),
        cmocka_unit_test(test_probes_that_hang_count_until_they_end),
        cmocka_unit_test(test_a_probe_is_passed_over),
        cmocka_unit_test(test_slow_probes),
        cmocka_unit_test(test_how_late_ones_end),
        cmocka_unit_test(test_late_ones_open),
        cmocka_unit_test(test_what_still_hangs_opens_after_a_slice),
        cmocka_unit_test(test_late_failures_open),
        cmocka_unit_test(test_late_probes),
        cmocka_unit_test(test_late_ones_of_another_window),
        cmocka_unit_test(test_the_ramp_is_linear),
        cmocka_unit_test(test_failing_again_opens_from_the_ramp),
        cmocka_unit_test(test_no_ramp),
        cmocka_unit_test(test_forced_open),
        cmocka_unit_test(test_an_open_one_forced_open),
        cmocka_unit_test(test_forced_closed),
        cmocka_unit_test(test_another_window_keeps_the_state),
        cmocka_unit_test(test_fewer_probes_are_enough_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
