// The circuit breaker: every order of events to some depth, and long random runs beside a plain reference.
#include "upstream/breaker.h"

#include "base/check.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

// ---- every order of events ----

enum event {
    ADMIT,     // draws 0: the ramp admits
    ADMIT_NOT, // draws 1: the ramp does not
    GOOD,      // of the oldest that is under way
    SLOW,
    FAILED,
    NEUTRAL,
    LAST_FAILED, // of the newest
    LATE,        // the oldest that was not takes longer than a slow one
    STILL_LATE,  // it is told again of the oldest that was
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

// The oldest one that is, or is not, late already. count: there is none.
static unsigned find_call(const struct world *w, bool late)
{
    unsigned at = 0;
    while (at < w->count && w->calls[at].pass.late != late)
        at++;
    return at;
}

static bool tell_late(struct world *w, bool again)
{
    unsigned at = find_call(w, again);
    if (at == w->count)
        return false;
    breaker_note_slow(&w->breaker, &small, &w->calls[at].pass, w->now_us, 0);
    return true;
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
    case LATE:
    case STILL_LATE: return tell_late(w, event == STILL_LATE);
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

static void check_counts(const struct breaker *breaker)
{
    for (unsigned i = 0; i < BREAKER_SLICES; i++) {
        const struct breaker_slice *slice = &breaker->slices[i];
        assert_in_range(slice->failed + slice->slow, 0, slice->calls);
    }
    assert_in_range(breaker->probes_late, 0, breaker->probes);
    assert_in_range(breaker->probes_late, 0, breaker->probes_slow);
}

// A call counts once: neither the end of a late one, but a failure, nor that it is late still changes a
// count.
static void counts_once(const struct world *before, const struct world *now, enum event event)
{
    bool ends = event == GOOD || event == SLOW || event == NEUTRAL;
    if (event != STILL_LATE && !(ends && before->calls[0].pass.late))
        return;
    struct breaker_slice was = breaker_sum(&before->breaker, now->now_us),
                         is = breaker_sum(&now->breaker, now->now_us);
    if (now->breaker.windows != before->breaker.windows) // time has ended the state
        return;
    assert_int_equal(is.calls, was.calls);
    assert_int_equal(is.slow, was.slow);
    assert_int_equal(is.failed, was.failed);
    assert_int_equal(now->breaker.bad_in_a_row, before->breaker.bad_in_a_row);
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

    check_counts(breaker);
    counts_once(before, now, event);
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
    assert_true(worlds > 500000);
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
        bool replaced; // it was late then, and has failed since
        bool in_row;
    } results[KEPT];
    unsigned count;
    struct {
        unsigned generation, forgotten;
        bool used, probe, late;
        unsigned result; // late: of results, unless it is a probe's
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

static bool ref_is_probe(unsigned call)
{
    return ref.calls[call].used && ref.calls[call].probe && ref.calls[call].forgotten == ref.forgotten;
}

static unsigned ref_probes(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < UNDER_WAY; i++)
        n += ref_is_probe(i);
    return n;
}

// Each probe takes one place, until it is over and after that by its result.
static unsigned ref_places(void)
{
    unsigned n = ref_probes() + ref.good + ref.slow;
    for (unsigned i = 0; i < UNDER_WAY; i++)
        n -= ref_is_probe(i) && ref.calls[i].late && ref.calls[i].generation == ref.generation;
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
    case BREAKER_HALF_OPEN: return ref_places() < rules->half_open_requests;
    case BREAKER_RAMPING: return draw < (ramp > 0.05 ? ramp : 0.05);
    default: return false;
    }
}

struct ref_sum {
    unsigned all, failed, slow, row;
    uint64_t row_since_us;
};

static struct ref_sum ref_count(const struct breaker_rules *rules, uint64_t now_us)
{
    uint64_t slice_us = rules->window_us / 10, slice = now_us / slice_us;
    struct ref_sum sum = {0};
    for (unsigned i = 0; i < ref.count; i++) {
        if (ref.results[i].result == BREAKER_GOOD)
            sum.row = 0;
        else if (ref.results[i].in_row && !sum.row++)
            sum.row_since_us = ref.results[i].at_us;
        if (ref.results[i].at_us / slice_us + 10 <= slice || ref.results[i].replaced)
            continue;
        sum.all++;
        sum.failed += ref.results[i].result == BREAKER_FAILED;
        sum.slow += ref.results[i].result == BREAKER_SLOW;
    }
    return sum;
}

static bool ref_is_too_bad(const struct breaker_rules *rules, uint64_t now_us)
{
    struct ref_sum sum = ref_count(rules, now_us);
    unsigned enough = (unsigned)rules->min_requests;
    if (ref.state == BREAKER_RAMPING && enough > 5)
        enough = 5;
    if (sum.all < enough)
        return false;
    return (sum.failed && sum.failed >= rules->failure_ratio * sum.all) ||
           (sum.slow && sum.slow >= rules->slow_ratio * sum.all) ||
           (sum.row >= enough && now_us - sum.row_since_us >= rules->window_us / 10);
}

// In HALF_OPEN.
static void ref_take_probe(const struct breaker_rules *rules, enum breaker_result result, uint64_t now_us,
                           double draw)
{
    ref.good += result == BREAKER_GOOD;
    ref.slow += result == BREAKER_SLOW;
    if (result == BREAKER_FAILED ||
        (ref.slow && ref.slow >= rules->slow_ratio * (double)rules->half_open_requests))
        ref_open(rules, now_us, draw);
    else if (ref.good + ref.slow >= rules->half_open_requests)
        ref_become(BREAKER_RAMPING, now_us);
}

static void ref_take(const struct breaker_rules *rules, unsigned call, enum breaker_result result,
                     uint64_t now_us, double draw)
{
    if (ref.state == BREAKER_HALF_OPEN) {
        ref_take_probe(rules, result, now_us, draw);
        return;
    }
    assert_true(ref.count < KEPT);
    ref.results[ref.count].at_us = now_us;
    ref.results[ref.count].result = result;
    ref.results[ref.count].replaced = false;
    ref.results[ref.count].in_row = !ref.calls[call].late;
    if (ref.calls[call].late)
        ref.results[ref.calls[call].result].replaced = true;
    ref.calls[call].result = ref.count++;
    if (result != BREAKER_GOOD && ref_is_too_bad(rules, now_us))
        ref_open(rules, now_us, draw);
}

static void ref_note(const struct breaker_rules *rules, unsigned call, enum breaker_result result,
                     uint64_t now_us, double draw)
{
    ref_time(rules, now_us);
    bool says = ref.calls[call].generation == ref.generation;
    ref.calls[call].used = false;
    if (says && result != BREAKER_NEUTRAL && (result == BREAKER_FAILED || !ref.calls[call].late))
        ref_take(rules, call, result, now_us, draw);
}

static void ref_note_slow(const struct breaker_rules *rules, unsigned call, uint64_t now_us, double draw)
{
    ref_time(rules, now_us);
    if (ref.calls[call].generation != ref.generation || ref.state == BREAKER_OPEN)
        return;
    if (!ref.calls[call].late)
        ref_take(rules, call, BREAKER_SLOW, now_us, draw);
    else if (ref.state != BREAKER_HALF_OPEN && ref_is_too_bad(rules, now_us))
        ref_open(rules, now_us, draw);
    ref.calls[call].late = true;
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

static void ref_compare(const struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us)
{
    struct breaker_slice sum = breaker_sum(breaker, now_us);
    struct ref_sum ref_is = ref_count(rules, now_us);
    assert_int_equal(sum.calls, ref_is.all);
    assert_int_equal(sum.failed, ref_is.failed);
    assert_int_equal(sum.slow, ref_is.slow);
}

static void random_run(uint64_t seed, unsigned steps)
{
    struct rand rand;
    rand_init_seed(&rand, seed);
    struct breaker_rules rules = {
        .window_us = 10 * SECOND,
        .min_requests = 1 + rand_below(&rand, 30),
        .half_open_requests = 1 + rand_below(&rand, 5),
        .judges_slow = true,
        .slow_ratio = 0.3 + 0.7 * rand_unit(&rand),
        .failure_ratio = 0.1 + 0.9 * rand_unit(&rand),
        .open_us = 5 * SECOND,
        .max_open_us = 60 * SECOND,
        .ramp_us = 10 * SECOND,
        .probe_us = 17 * SECOND,
    };
    struct breaker breaker = {0};
    struct breaker_pass passes[UNDER_WAY] = {{0}};
    uint64_t now_us = 1000 * SECOND;
    static const unsigned late[] = {0, 10, 30, 50, 20}; // percent
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
        } else if (ref.calls[call].used && rand_below(&rand, 100) < late[mood % 5]) {
            ref_note_slow(&rules, call, now_us, draw);
            breaker_note_slow(&breaker, &rules, &passes[call], now_us, draw);
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
            ref.calls[call].late = false;
            if (admitted && passes[call].probe)
                ref.probed_us = now_us;
        }
        assert_int_equal(breaker.state, ref.state);
        check_counts(&breaker);
        if (step % 16 == 0)
            ref_compare(&breaker, &rules, now_us);
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
        cmocka_unit_test(test_every_order_of_events),
        cmocka_unit_test(test_random_runs_beside_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
