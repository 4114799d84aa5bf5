// The circuit breaker: its rules one by one, every order of events to some depth, and long random runs beside
// a plain reference.
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

// ---- every order of events ----

enum event {
    ADMIT,     // draws 0: the ramp admits
    ADMIT_NOT, // draws 1: the ramp does not
    GOOD,      // of the oldest that is under way
    SLOW,
    FAILED,
    NEUTRAL,
    LAST_FAILED, // of the newest
    LOSE,        // the oldest is never heard of again
    WAIT_A_SLICE,
    WAIT_OPEN,
    WAIT_PROBE,
    WAIT_RAMP,
    FORCE_OPEN,
    FORCE_CLOSED,
    LET_GO,
    EVENTS,
};

enum { DEPTH = 6, UNDER_WAY = 16 };

// Short times and few requests, so that every state is a few events away.
static const struct breaker_rules small = {
    .window_us = 10 * SECOND,
    .min_requests = 2,
    .failure_ratio = 0.5,
    .judges_slow = true,
    .slow_ratio = 1,
    .open_us = 2 * SECOND,
    .max_open_us = 4 * SECOND,
    .ramp_us = 3 * SECOND,
    .half_open_requests = 2,
    .probe_us = 5 * SECOND,
};

struct world {
    struct breaker breaker;
    uint64_t now_us;
    struct {
        struct breaker_pass pass;
        uint64_t since_us;
    } calls[UNDER_WAY]; // the oldest first
    unsigned count;
};

static uint64_t worlds;

// From → to, without a hand on it.
static const bool may_become[BREAKER_STATES][BREAKER_STATES] = {
    [BREAKER_CLOSED] = {[BREAKER_CLOSED] = true, [BREAKER_OPEN] = true},
    [BREAKER_OPEN] = {[BREAKER_OPEN] = true, [BREAKER_HALF_OPEN] = true},
    [BREAKER_HALF_OPEN] = {[BREAKER_HALF_OPEN] = true, [BREAKER_OPEN] = true, [BREAKER_RAMPING] = true},
    [BREAKER_RAMPING] = {[BREAKER_RAMPING] = true, [BREAKER_OPEN] = true, [BREAKER_CLOSED] = true},
};

static struct breaker_pass take_call(struct world *w, unsigned at)
{
    struct breaker_pass pass = w->calls[at].pass;
    memmove(&w->calls[at], &w->calls[at + 1], (w->count - at - 1) * sizeof w->calls[0]);
    w->count--;
    return pass;
}

static unsigned probes_under_way(const struct world *w)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->count; i++)
        n += w->calls[i].pass.probe && w->now_us < w->calls[i].since_us + small.probe_us;
    return n;
}

static void try_to_admit(struct world *w, double draw)
{
    struct breaker before = w->breaker;
    breaker_tick(&before, &small, w->now_us);
    struct breaker_pass pass;
    bool admitted = breaker_admit(&w->breaker, &small, w->now_us, draw, &pass);
    if (before.state == BREAKER_CLOSED)
        assert_true(admitted);
    if (before.state == BREAKER_OPEN)
        assert_false(admitted);
    assert_int_equal(admitted && before.state == BREAKER_HALF_OPEN, pass.probe);
    if (!admitted || w->count == UNDER_WAY)
        return;
    w->calls[w->count].pass = pass;
    w->calls[w->count++].since_us = w->now_us;
}

// False: it cannot happen here.
static bool happen(struct world *w, enum event event)
{
    static const enum breaker_result results[EVENTS] = {
        [GOOD] = BREAKER_GOOD,       [SLOW] = BREAKER_SLOW,          [FAILED] = BREAKER_FAILED,
        [NEUTRAL] = BREAKER_NEUTRAL, [LAST_FAILED] = BREAKER_FAILED,
    };
    static const uint64_t waits_us[EVENTS] = {[WAIT_A_SLICE] = 1 * SECOND,
                                              [WAIT_OPEN] = 2 * SECOND,
                                              [WAIT_PROBE] = 5 * SECOND,
                                              [WAIT_RAMP] = 3 * SECOND};
    switch (event) {
    case ADMIT: try_to_admit(w, 0); return true;
    case ADMIT_NOT: try_to_admit(w, 0.9999); return true;
    case GOOD:
    case SLOW:
    case FAILED:
    case NEUTRAL:
    case LAST_FAILED:
        if (!w->count || (event == LAST_FAILED && w->count == 1))
            return false;
        breaker_note(&w->breaker, &small, take_call(w, event == LAST_FAILED ? w->count - 1 : 0),
                     results[event], w->now_us, 0);
        return true;
    case LOSE:
        if (!w->count)
            return false;
        take_call(w, 0);
        return true;
    case WAIT_A_SLICE:
    case WAIT_OPEN:
    case WAIT_PROBE:
    case WAIT_RAMP: w->now_us += waits_us[event]; return true;
    case FORCE_OPEN: breaker_set_force(&w->breaker, BREAKER_FORCED_OPEN, w->now_us); return true;
    case FORCE_CLOSED: breaker_set_force(&w->breaker, BREAKER_FORCED_CLOSED, w->now_us); return true;
    case LET_GO: breaker_set_force(&w->breaker, BREAKER_AUTOMATIC, w->now_us); return true;
    case EVENTS: break;
    }
    return false;
}

// Whatever has happened, whoever is lost: with a service that answers it is closed in bounded time.
static void closes_in_time(struct world w)
{
    breaker_set_force(&w.breaker, BREAKER_AUTOMATIC, w.now_us);
    uint64_t most_us = small.max_open_us + small.probe_us + small.ramp_us,
             until_us = w.now_us + most_us + SECOND;
    for (; w.now_us <= until_us; w.now_us += SECOND / 4) {
        struct breaker_pass pass;
        if (breaker_admit(&w.breaker, &small, w.now_us, 0, &pass))
            breaker_note(&w.breaker, &small, pass, BREAKER_GOOD, w.now_us, 0);
    }
    assert_int_equal(w.breaker.state, BREAKER_CLOSED);
}

static void check_world(const struct world *before, const struct world *now, enum event event)
{
    const struct breaker *breaker = &now->breaker;
    bool by_hand = event == FORCE_OPEN || event == FORCE_CLOSED || event == LET_GO;
    if (!by_hand) {
        struct breaker ticked = before->breaker; // time alone may move it first
        breaker_tick(&ticked, &small, now->now_us);
        assert_true(may_become[before->breaker.state][ticked.state]);
        assert_true(breaker->state == before->breaker.state || may_become[ticked.state][breaker->state]);
    }
    if (breaker->force == BREAKER_FORCED_OPEN)
        assert_int_equal(breaker->state, BREAKER_OPEN);
    if (breaker->force == BREAKER_FORCED_CLOSED)
        assert_int_equal(breaker->state, BREAKER_CLOSED);

    assert_in_range(probes_under_way(now), 0, 2);
    bool opened = breaker->entered[BREAKER_OPEN] > before->breaker.entered[BREAKER_OPEN];
    if (opened && !by_hand)
        assert_in_range(breaker_wait_us(breaker, now->now_us), 2 * SECOND, 4 * SECOND);
    if (event == GOOD || event == NEUTRAL || event == LOSE)
        assert_false(opened);
}

static void explore(const struct world *w, unsigned depth)
{
    worlds++;
    if (!depth) {
        closes_in_time(*w);
        return;
    }
    for (enum event event = 0; event < EVENTS; event++) {
        struct world next = *w;
        if (!happen(&next, event))
            continue;
        check_world(w, &next, event);
        explore(&next, depth - 1);
    }
}

// From each of the states: so the depth is that of what happens there.
static void test_every_order_of_events(void **state)
{
    (void)state;
    struct world closed = {.now_us = 100 * SECOND};
    breaker_set_window(&closed.breaker, small.window_us);
    struct world open = closed;
    for (unsigned i = 0; i < 2; i++) {
        happen(&open, ADMIT);
        happen(&open, FAILED);
    }
    struct world half_open = open;
    happen(&half_open, WAIT_OPEN);
    struct world ramping = half_open;
    for (unsigned i = 0; i < 2; i++) {
        happen(&ramping, ADMIT);
        happen(&ramping, GOOD);
    }
    assert_int_equal(ramping.breaker.state, BREAKER_RAMPING);
    const struct world *starts[] = {&closed, &open, &half_open, &ramping};
    for (size_t i = 0; i < countof(starts); i++)
        explore(starts[i], DEPTH - 1);
    print_message("%llu worlds\n", (unsigned long long)worlds);
    assert_true(worlds > 400000);
}

// ---- beside a reference: every result is kept, and the window is counted anew each time ----

enum { KEPT = 1 << 16 };

struct reference {
    enum breaker_state state;
    uint64_t since_us, until_us;
    unsigned openings, generation, forgotten;
    uint64_t probed_us; // last
    struct {
        uint64_t at_us;
        enum breaker_result result;
    } results[KEPT];
    unsigned count;
    struct {
        unsigned generation, forgotten;
        bool used, probe;
    } calls[UNDER_WAY];
    unsigned good, slow; // probes
};

static struct reference ref;

static void ref_become(enum breaker_state state, uint64_t now_us)
{
    ref.state = state;
    ref.since_us = now_us;
    if (state == BREAKER_CLOSED)
        return;
    ref.generation++;
    ref.good = ref.slow = 0;
    ref.count = state == BREAKER_OPEN ? ref.count : 0;
}

static void ref_open(const struct breaker_rules *rules, uint64_t now_us, double draw)
{
    double open_us = (double)rules->open_us;
    for (unsigned i = 0; i < ref.openings; i++)
        open_us = open_us * 2 > (double)rules->max_open_us ? (double)rules->max_open_us : open_us * 2;
    ref.until_us = now_us + (uint64_t)(open_us * (1 - 0.2 * draw));
    ref.openings++;
    ref_become(BREAKER_OPEN, now_us);
}

static unsigned ref_probes(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < UNDER_WAY; i++)
        n += ref.calls[i].used && ref.calls[i].probe && ref.calls[i].forgotten == ref.forgotten;
    return n;
}

static void ref_time(const struct breaker_rules *rules, uint64_t now_us)
{
    if (ref_probes() && now_us >= ref.probed_us + rules->probe_us)
        ref.forgotten++;

    if (ref.state == BREAKER_OPEN && now_us >= ref.until_us)
        ref_become(BREAKER_HALF_OPEN, ref.until_us);

    else if (ref.state == BREAKER_RAMPING && now_us - ref.since_us >= rules->ramp_us)
        ref_become(BREAKER_CLOSED, ref.since_us + rules->ramp_us);
    if (ref.state == BREAKER_CLOSED && now_us - ref.since_us >= rules->max_open_us)
        ref.openings = 0;
}

static bool ref_admits(const struct breaker_rules *rules, uint64_t now_us, double draw)
{
    ref_time(rules, now_us);
    double ramp = (double)(now_us - ref.since_us) / (double)rules->ramp_us;
    switch (ref.state) {
    case BREAKER_CLOSED: return true;
    case BREAKER_HALF_OPEN: return ref_probes() + ref.good + ref.slow < rules->half_open_requests;
    case BREAKER_RAMPING: return draw < (ramp > 0.05 ? ramp : 0.05);
    default: return false;
    }
}

static bool ref_is_too_bad(const struct breaker_rules *rules, uint64_t now_us)
{
    uint64_t slice_us = rules->window_us / 10, slice = now_us / slice_us;
    unsigned all = 0, failed = 0, slow = 0, row = 0;
    uint64_t row_since_us = 0;
    for (unsigned i = 0; i < ref.count; i++) {
        if (ref.results[i].result == BREAKER_GOOD)
            row = 0;
        else if (!row++)
            row_since_us = ref.results[i].at_us;
        if (ref.results[i].at_us / slice_us + 10 <= slice)
            continue;
        all++;
        failed += ref.results[i].result == BREAKER_FAILED;
        slow += ref.results[i].result == BREAKER_SLOW;
    }
    unsigned enough = (unsigned)rules->min_requests;
    if (ref.state == BREAKER_RAMPING && enough > 5)
        enough = 5;
    if (all < enough)
        return false;
    return (failed && failed >= rules->failure_ratio * all) || (slow && slow >= rules->slow_ratio * all) ||
           (row >= enough && now_us - row_since_us >= slice_us);
}

static void ref_note(const struct breaker_rules *rules, unsigned call, enum breaker_result result,
                     uint64_t now_us, double draw)
{
    ref_time(rules, now_us);
    bool says = ref.calls[call].used && ref.calls[call].generation == ref.generation;
    ref.calls[call].used = false;
    if (!says || result == BREAKER_NEUTRAL)
        return;
    if (ref.state == BREAKER_HALF_OPEN) {
        ref.good += result == BREAKER_GOOD;
        ref.slow += result == BREAKER_SLOW;
        if (result == BREAKER_FAILED ||
            (ref.slow && ref.slow >= rules->slow_ratio * (double)rules->half_open_requests))
            ref_open(rules, now_us, draw);
        else if (ref.good + ref.slow >= rules->half_open_requests)
            ref_become(BREAKER_RAMPING, now_us);
        return;
    }
    if (ref.count == KEPT) { // far longer than any window here
        memmove(ref.results, ref.results + KEPT / 2, KEPT / 2 * sizeof ref.results[0]);
        ref.count = KEPT / 2;
    }
    ref.results[ref.count].at_us = now_us;
    ref.results[ref.count++].result = result;
    if (result != BREAKER_GOOD && ref_is_too_bad(rules, now_us))
        ref_open(rules, now_us, draw);
}

// How the service is at the moment, so that every state is come to.
static enum breaker_result draw_result(struct rand *rand, unsigned mood)
{
    static const double bad[] = {0.0, 0.05, 0.4, 0.55, 1.0}, slow[] = {0.0, 0.1, 0.3, 0.9, 0.2};
    double draw = rand_unit(rand);
    if (rand_below(rand, 20) == 0)
        return BREAKER_NEUTRAL;
    if (draw < bad[mood % 5])
        return BREAKER_FAILED;
    return rand_unit(rand) < slow[mood / 5] ? BREAKER_SLOW : BREAKER_GOOD;
}

static void random_run(uint64_t seed, unsigned steps)
{
    struct rand rand;
    rand_init_seed(&rand, seed);
    struct breaker_rules rules = usual;
    rules.min_requests = 1 + rand_below(&rand, 30);
    rules.half_open_requests = 1 + rand_below(&rand, 5);
    rules.slow_ratio = 0.3 + 0.7 * rand_unit(&rand);
    rules.failure_ratio = 0.1 + 0.9 * rand_unit(&rand);
    struct breaker breaker = {0};
    struct breaker_pass passes[UNDER_WAY] = {{0}};
    uint64_t now_us = 1000 * SECOND;
    unsigned mood = 0;
    memset(&ref, 0, sizeof ref);
    breaker_set_window(&breaker, rules.window_us);
    ref.since_us = breaker.since_us = now_us;
    for (unsigned step = 0; step < steps; step++) {
        unsigned call = rand_below(&rand, UNDER_WAY);
        double draw = rand_unit(&rand);
        now_us += rand_below(&rand, rand_below(&rand, 200) == 0 ? 20 * SECOND : SECOND / 20);
        if (rand_below(&rand, 500) == 0)
            mood = rand_below(&rand, 25);
        if (ref.calls[call].used && rand_below(&rand, 50) == 0) {
            continue; // it takes longer, a probe perhaps until it is forgotten
        } else if (ref.calls[call].used) {
            enum breaker_result result = draw_result(&rand, mood);
            ref_note(&rules, call, result, now_us, draw);
            breaker_note(&breaker, &rules, passes[call], result, now_us, draw);
        } else {
            bool admitted = ref_admits(&rules, now_us, draw);
            assert_int_equal(breaker_admit(&breaker, &rules, now_us, draw, &passes[call]), admitted);
            ref.calls[call].used = admitted;
            ref.calls[call].generation = ref.generation;
            ref.calls[call].forgotten = ref.forgotten;
            ref.calls[call].probe = passes[call].probe;
            if (admitted && passes[call].probe)
                ref.probed_us = now_us;
        }
        assert_int_equal(breaker.state, ref.state);
        if (ref.state == BREAKER_OPEN)
            assert_int_equal(breaker.until_us, ref.until_us);
    }
    for (unsigned i = 0; i < BREAKER_STATES; i++)
        assert_true(breaker.entered[i] > (i == BREAKER_CLOSED ? 0 : 1));
}

static void test_random_runs_beside_the_reference(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        random_run(seed, 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_at_the_ratio),
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
        cmocka_unit_test(test_slow_probes),
        cmocka_unit_test(test_the_ramp_is_linear),
        cmocka_unit_test(test_failing_again_opens_from_the_ramp),
        cmocka_unit_test(test_no_ramp),
        cmocka_unit_test(test_forced_open),
        cmocka_unit_test(test_forced_closed),
        cmocka_unit_test(test_another_window_keeps_the_state),
        cmocka_unit_test(test_fewer_probes_are_enough_now),
        cmocka_unit_test(test_every_order_of_events),
        cmocka_unit_test(test_random_runs_beside_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
