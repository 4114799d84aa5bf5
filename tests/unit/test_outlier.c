// Ejection over all endpoints of an upstream: every order of events to some depth, and long random runs, each
// step beside a plain reference that keeps the whole history and counts anew; then threads, and the sweep on
// a real loop.
#include "unit.h"

#include "base/check.h"
#include "base/log.h"
#include "upstream/outlier.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { DEPTH_OF_TWO = 4, DEPTH_OF_THREE = 3, RUNS = 60 }; // a tenth of the work, at ten times its price
#else
enum { DEPTH_OF_TWO = 5, DEPTH_OF_THREE = 4, RUNS = 300 };
#endif

enum { MOST = 6, HISTORY = 4096, SECOND = 1000000 };

// ---- the reference ----

struct plain_attempt {
    uint64_t at_us;
    enum ejector_result result;
};

struct plain_endpoint {
    bool up, was_out;
    uint64_t out_until_us, ejected_us;
    uint32_t times;
    uint32_t row_at, count;  // of the history: where the present row may begin at the earliest, and its end
    uint32_t requests, good; // of this interval
    struct plain_attempt *history;
};

struct world {
    struct upstream upstream;
    struct upstream_settings settings;
    struct upstream_target targets[MOST];
    struct endpoint endpoints[MOST];
    struct plain_endpoint plain[MOST];
    struct rand rand;
    struct metrics *metrics;
    uint64_t now_us;
    uint32_t ejections;
};

static bool plain_is_out(const struct world *w, uint32_t i)
{
    return w->now_us < w->plain[i].out_until_us;
}

static uint32_t plain_row(const struct plain_endpoint *p, bool connects_only)
{
    uint32_t row = 0;
    for (uint32_t at = p->count; at > p->row_at; at--, row++) {
        enum ejector_result result = p->history[at - 1].result;
        if (result == EJECTOR_GOOD || (connects_only && result != EJECTOR_CONNECT_FAILED))
            break;
    }
    return row;
}

static bool plain_may(const struct world *w)
{
    uint32_t n = w->upstream.target_count, out = 0, left = 0;
    const struct outlier_settings *s = &w->settings.outlier;
    for (uint32_t i = 0; i < n; i++) {
        out += plain_is_out(w, i);
        left += w->plain[i].up && !plain_is_out(w, i);
    }
    left--;
    bool within = out == 0 || (out + 1) * 100 <= (uint32_t)(s->max_ejected * 100 + 0.5) * n;
    return left >= 1 && within && left * 100 >= (uint32_t)(w->settings.panic_threshold * 100 + 0.5) * n;
}

// draw: what the code under test will draw.
static void plain_find(struct world *w, uint32_t i, uint64_t bad_since_us, double draw)
{
    struct plain_endpoint *p = &w->plain[i];
    const struct outlier_settings *s = &w->settings.outlier;
    if (plain_is_out(w, i) || !p->up)
        return;
    if (plain_may(w)) {
        for (uint64_t t = p->out_until_us + s->ejection_us; t <= bad_since_us && p->times;
             t += s->ejection_us)
            p->times--;
        if (p->times * s->ejection_us < s->max_ejection_us)
            p->times++;
        uint64_t out_us = p->times * s->ejection_us;
        out_us = out_us < s->max_ejection_us ? out_us : s->max_ejection_us;
        p->out_until_us = w->now_us + out_us - (uint64_t)((double)out_us * 0.1 * draw);
        p->ejected_us = w->now_us;
        p->requests = p->good = 0;
        w->ejections++;
    }
    p->row_at = p->count;
}

static void plain_note(struct world *w, uint32_t i, enum ejector_result result, uint64_t began_us,
                       double draw)
{
    struct plain_endpoint *p = &w->plain[i];
    const struct outlier_settings *s = &w->settings.outlier;
    if (began_us < p->out_until_us)
        return;
    p->requests++;
    p->good += result == EJECTOR_GOOD;
    if (result == EJECTOR_BAD_TOO)
        return;
    assert_true(p->count < HISTORY);
    p->history[p->count++] = (struct plain_attempt){w->now_us, result};
    uint32_t row = plain_row(p, false);
    if (row && (row >= s->consecutive_failures || plain_row(p, true) >= s->connect_failures))
        plain_find(w, i, p->history[p->count - row].at_us, draw);
}

static void plain_rate(struct world *w)
{
    const struct success_rate_settings *s = &w->settings.outlier.success_rate;
    struct rand rand = w->rand;
    double rates[MOST], sum = 0, off = 0;
    uint32_t n = w->upstream.target_count, rated = 0;
    if (n < s->min_endpoints)
        return;
    for (uint32_t i = 0; i < n; i++) {
        struct plain_endpoint *p = &w->plain[i];
        rates[i] = p->requests >= s->min_requests ? (double)p->good / p->requests : -1;
        p->requests = p->good = 0;
        rated += rates[i] >= 0;
        sum += rates[i] >= 0 ? rates[i] : 0;
    }
    for (uint32_t i = 0; i < n; i++)
        off += rates[i] >= 0 ? (rates[i] - sum / rated) * (rates[i] - sum / rated) : 0;
    if (!rated || rated < s->min_endpoints)
        return;
    double bound = sum / rated - s->deviations * __builtin_sqrt(off / rated);
    for (uint32_t i = 0; i < n; i++)
        if (rates[i] >= 0 && rates[i] < bound && rates[i] < sum / rated - s->min_gap) {
            uint32_t before = w->ejections;
            struct rand peek = rand;
            plain_find(w, i, w->now_us - s->interval_us, rand_unit(&peek));
            if (w->ejections > before)
                rand = peek;
        }
}

static void plain_settle(struct world *w)
{
    bool any = false;
    for (uint32_t i = 0; i < w->upstream.target_count; i++)
        any = any || (w->plain[i].up && !plain_is_out(w, i));
    for (uint32_t i = 0; !any && i < w->upstream.target_count; i++)
        if (plain_is_out(w, i))
            w->plain[i].out_until_us = w->now_us;
}

// ---- both, side by side ----

static const struct outlier_settings brisk = {
    .consecutive_failures = 3,
    .connect_failures = 2,
    .ejection_us = 10 * SECOND,
    .max_ejection_us = 25 * SECOND,
    .max_ejected = 0.5,
    .check_readmits = true,
    .success_rate = {10 * SECOND, 2, 3, 1.2, 0.05},
};

static void world_init(struct world *w, uint32_t count, double panic_threshold)
{
    *w = (struct world){.now_us = 1000 * (uint64_t)SECOND};
    w->settings.outlier = brisk;
    w->settings.panic_threshold = panic_threshold;
    w->upstream.settings = &w->settings;
    w->upstream.targets = w->targets;
    w->upstream.target_count = count;
    w->metrics = metrics_new();
    rand_init_seed(&w->rand, 7);
    for (uint32_t i = 0; i < count; i++) {
        w->endpoints[i].upstream_name = STR("u");
        w->endpoints[i].name = STR("e");
        atomic_init(&w->endpoints[i].up, true);
        w->targets[i] = (struct upstream_target){.endpoint = &w->endpoints[i], .weight = 1};
        w->plain[i].up = true;
        w->plain[i].history = calloc(HISTORY, sizeof(struct plain_attempt));
        check(w->plain[i].history);
    }
}

static void world_fini(struct world *w)
{
    for (uint32_t i = 0; i < w->upstream.target_count; i++)
        free(w->plain[i].history);
    metrics_free(w->metrics);
}

enum event {
    GOOD,
    BAD,
    CONNECT_FAILED,
    BAD_TOO,    // with the connection that another one has told of
    BAD_OF_OLD, // an attempt from before
    CHECK_GOOD,
    CHECK_OF_OLD,
    DOWN,
    UP,
    PER_ENDPOINT, // from here on of all
    WAIT = PER_ENDPOINT,
    WAIT_LONG,
    RATE,
    SETTLE,
    EVENTS
};

static struct upstream_outcome outcome_of_result(enum ejector_result result, struct endpoint *endpoint)
{
    switch (result) {
    case EJECTOR_GOOD:
        return (struct upstream_outcome){.verdict = OUTCOME_ANSWER, .status = 404, .endpoint = endpoint};
    case EJECTOR_BAD:
        return (struct upstream_outcome){.verdict = OUTCOME_ANSWER, .status = 500, .endpoint = endpoint};
    case EJECTOR_BAD_TOO:
    case EJECTOR_CONNECT_FAILED: break;
    }
    return (struct upstream_outcome){.verdict = OUTCOME_FAILURE,
                                     .cause = END_UPSTREAM_CONNECT_FAILED,
                                     .connect_failed = true,
                                     .is_shared = result == EJECTOR_BAD_TOO,
                                     .endpoint = endpoint};
}

static void both_note(struct world *w, uint32_t i, enum ejector_result result, uint64_t began_us)
{
    struct rand peek = w->rand;
    plain_note(w, i, result, began_us, rand_unit(&peek));
    struct upstream_outcome outcome = outcome_of_result(result, &w->endpoints[i]);
    outlier_note(&w->upstream, &outcome, began_us, w->now_us, &w->rand, w->metrics);
}

static void both_check(struct world *w, uint32_t i, uint64_t began_us)
{
    outlier_check_passed(&w->endpoints[i], began_us, w->now_us);
    if (plain_is_out(w, i) && began_us >= w->plain[i].ejected_us)
        w->plain[i].out_until_us = w->now_us;
}

static void both(struct world *w, enum event event, uint32_t i)
{
    switch (event) {
    case GOOD: both_note(w, i, EJECTOR_GOOD, w->now_us); break;
    case BAD: both_note(w, i, EJECTOR_BAD, w->now_us); break;
    case CONNECT_FAILED: both_note(w, i, EJECTOR_CONNECT_FAILED, w->now_us); break;
    case BAD_TOO: both_note(w, i, EJECTOR_BAD_TOO, w->now_us); break;
    case BAD_OF_OLD: both_note(w, i, EJECTOR_BAD, w->now_us - 6 * SECOND); break;
    case CHECK_GOOD: both_check(w, i, w->now_us); break;
    case CHECK_OF_OLD: both_check(w, i, w->now_us - 6 * SECOND); break;
    case DOWN:
    case UP:
        w->plain[i].up = event == UP;
        atomic_store(&w->endpoints[i].up, event == UP);
        break;
    case WAIT: w->now_us += 5 * SECOND; break;
    case WAIT_LONG: w->now_us += 13 * SECOND; break;
    case RATE:
        plain_rate(w);
        outlier_rate(&w->upstream, w->now_us - brisk.success_rate.interval_us, w->now_us, &w->rand,
                     w->metrics);
        break;
    case SETTLE:
        plain_settle(w);
        outlier_settle(&w->upstream, w->now_us);
        break;
    case EVENTS: break;
    }
}

// What must hold whatever came before.
static const char *what_is_wrong(const struct world *w)
{
    uint32_t out = 0, n = w->upstream.target_count;
    for (uint32_t i = 0; i < n; i++) {
        const struct ejector *ejector = &w->endpoints[i].ejector;
        if (ejector->until_us != w->plain[i].out_until_us)
            return "until differs";
        if (ejector->times != w->plain[i].times)
            return "times differ";
        if (ejector->failures != plain_row(&w->plain[i], false))
            return "rows differ";
        if (ejector->connect_failures != plain_row(&w->plain[i], true))
            return "rows of connects differ";
        if (ejector->until_us > w->now_us + w->settings.outlier.max_ejection_us)
            return "out for too long";
        out += ejector_is_out(ejector, w->now_us);
    }
    uint32_t most = (uint32_t)(w->settings.outlier.max_ejected * n + 1e-9);
    if (out > (most ? most : 1))
        return "too many are out";
    return NULL;
}

// Nothing holds the counter up: after peace, a row of failures ejects, whatever happened before, where one
// may be ejected at all.
static const char *is_frozen(struct world *w)
{
    w->now_us += 60 * (uint64_t)SECOND;
    for (uint32_t i = 0; i < w->upstream.target_count; i++)
        both(w, UP, i);
    if (!plain_may(w))
        return NULL;
    for (int i = 0; i < w->settings.outlier.consecutive_failures; i++)
        both(w, BAD, 0);
    return ejector_is_out(&w->endpoints[0].ejector, w->now_us) ? NULL : "frozen";
}

// ---- every order of events ----

struct step {
    enum event event;
    uint32_t endpoint;
};

enum { DEEPEST = 8 };

struct explorer {
    struct step steps[EVENTS * MOST];
    uint32_t step_count;
    struct step path[DEEPEST];
    uint64_t worlds, ejected;
};

static void complain(const struct explorer *explorer, unsigned depth, const char *wrong)
{
    char text[256] = "";
    size_t n = 0;
    for (unsigned i = 0; i < depth; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, " %d:%u", explorer->path[i].event,
                              explorer->path[i].endpoint);
    fail_msg("%s after%s", wrong, text);
}

// Histories are shared by all worlds of a path: each appends at its own end.
static void explore(struct explorer *explorer, const struct world *from, unsigned depth, unsigned deepest)
{
    struct world w;
    for (uint32_t i = 0; i < explorer->step_count; i++) {
        explorer->path[depth] = explorer->steps[i];
        w = *from;
        for (uint32_t k = 0; k < w.upstream.target_count; k++)
            w.targets[k].endpoint = &w.endpoints[k];
        w.upstream.targets = w.targets;
        w.upstream.settings = &w.settings;
        both(&w, explorer->steps[i].event, explorer->steps[i].endpoint);
        explorer->worlds++;
        explorer->ejected += w.ejections > from->ejections;
        const char *wrong = what_is_wrong(&w);
        if (wrong)
            complain(explorer, depth + 1, wrong);
        if (depth + 1 < deepest)
            explore(explorer, &w, depth + 1, deepest);
        else if ((wrong = is_frozen(&w)))
            complain(explorer, depth + 1, wrong);
    }
}

static void explore_all(uint32_t count, double panic_threshold, unsigned deepest)
{
    static struct world w;
    struct explorer explorer = {0};
    world_init(&w, count, panic_threshold);
    for (unsigned event = 0; event < EVENTS; event++)
        for (uint32_t i = 0; i < (event < PER_ENDPOINT ? count : 1); i++)
            explorer.steps[explorer.step_count++] = (struct step){(enum event)event, i};
    explore(&explorer, &w, 0, deepest);
    printf("%llu worlds, %llu ejections\n", (unsigned long long)explorer.worlds,
           (unsigned long long)explorer.ejected);
    assert_true(explorer.ejected > 0);
    world_fini(&w);
}

static void test_every_order_of_two(void **state)
{
    (void)state;
    explore_all(2, 0.5, DEPTH_OF_TWO);
}

static void test_every_order_of_three(void **state)
{
    (void)state;
    explore_all(3, 0, DEPTH_OF_THREE);
}

// ---- long random runs ----

static void run_at_random(uint64_t seed, uint32_t *ejections)
{
    static const double panics[] = {0, 0.25, 0.5, 0.75}, shares[] = {0.1, 0.34, 0.5, 1};
    static struct world w;
    struct rand dice;
    rand_init_seed(&dice, seed);
    world_init(&w, 2 + rand_below(&dice, MOST - 1), panics[rand_below(&dice, 4)]);
    w.settings.outlier.max_ejected = shares[rand_below(&dice, 4)];
    uint32_t bad_in_100 = rand_below(&dice, 100), n = w.upstream.target_count;
    for (unsigned i = 0; i < HISTORY / 2; i++) {
        enum event event = rand_below(&dice, 100) < bad_in_100 ? BAD : GOOD;
        if (rand_below(&dice, 4) == 0)
            event = (enum event)rand_below(&dice, EVENTS);
        uint32_t endpoint = rand_below(&dice, n);
        both(&w, event, endpoint);
        const char *wrong = what_is_wrong(&w);
        if (wrong)
            fail_msg("seed %llu, step %u, event %d of %u: %s", (unsigned long long)seed, i, event, endpoint,
                     wrong);
    }
    const char *wrong = is_frozen(&w);
    if (wrong)
        fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
    *ejections += w.ejections;
    world_fini(&w);
}

static void test_random_runs(void **state)
{
    (void)state;
    uint32_t ejections = 0;
    for (uint64_t seed = 1; seed <= RUNS; seed++)
        run_at_random(seed, &ejections);
    printf("%u ejections\n", ejections);
    assert_true(ejections > 10 * RUNS);
}

// ---- threads: one view, and never one too many ----

enum { THREADS = 4, ROUNDS = 20000 };

struct crew_of_threads {
    struct world *w;
    atomic_bool over;
    atomic_uint too_many;
};

struct hand {
    struct crew_of_threads *crew;
    struct metrics *metrics;
    uint64_t seed;
};

static void *work(void *argument)
{
    struct hand *hand = argument;
    struct world *w = hand->crew->w;
    struct rand rand;
    rand_init_seed(&rand, hand->seed);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t now_us = w->now_us + i * 1000;
        struct endpoint *endpoint = &w->endpoints[rand_below(&rand, w->upstream.target_count)];
        struct upstream_outcome outcome =
            outcome_of_result(rand_below(&rand, 3) ? EJECTOR_BAD : EJECTOR_GOOD, endpoint);
        outlier_note(&w->upstream, &outcome, now_us, now_us, &rand, hand->metrics);
        if (i % 64 == 0)
            outlier_check_passed(endpoint, now_us, now_us);
        if (i % 64 == 32)
            outlier_rate(&w->upstream, now_us, now_us, &rand, hand->metrics);
        if (i % 64 == 48)
            outlier_settle(&w->upstream, now_us);
    }
    return NULL;
}

static uint32_t look(const struct world *w, uint64_t untils[MOST])
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < w->upstream.target_count; i++) {
        untils[i] = atomic_load(&w->endpoints[i].ejector.until_us);
        out += untils[i] > w->now_us + ROUNDS * UINT64_C(1000); // the last moment of any hand
    }
    return out;
}

// No moment may see more out than the cap allows. What two looks agree on was so between them.
static void *watch(void *argument)
{
    struct crew_of_threads *crew = argument;
    uint64_t first[MOST] = {0}, second[MOST] = {0};
    while (!atomic_load(&crew->over)) {
        uint32_t out = look(crew->w, first);
        look(crew->w, second);
        if (out > 3 && memcmp(first, second, sizeof first) == 0)
            atomic_fetch_add(&crew->too_many, 1);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, MOST, 0);
    w.settings.outlier.ejection_us = w.settings.outlier.max_ejection_us = 3600 * (uint64_t)SECOND;
    struct crew_of_threads crew = {.w = &w};
    struct hand hands[THREADS];
    pthread_t threads[THREADS], watcher;
    assert_int_equal(pthread_create(&watcher, NULL, watch, &crew), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        hands[i] = (struct hand){&crew, metrics_new(), i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &hands[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        metrics_free(hands[i].metrics);
    }
    atomic_store(&crew.over, true);
    pthread_join(watcher, NULL);
    assert_int_equal(atomic_load(&crew.too_many), 0);
    world_fini(&w);
}

// All hands find an endpoint bad at the same moment, again and again: each one of its own, or two the same
// one.

enum { RACES = 3000 };

struct racer {
    struct world *w;
    struct metrics *metrics;
    pthread_barrier_t *barrier;
    uint32_t endpoint, too_many, twice;
};

static void *race(void *argument)
{
    struct racer *racer = argument;
    struct world *w = racer->w;
    struct endpoint *endpoint = &w->endpoints[racer->endpoint];
    struct upstream_outcome outcome = outcome_of_result(EJECTOR_BAD, endpoint);
    struct rand rand;
    rand_init_seed(&rand, racer->endpoint);
    for (unsigned i = 0; i < RACES; i++) {
        pthread_barrier_wait(racer->barrier);
        for (int k = 0; k < brisk.consecutive_failures; k++)
            outlier_note(&w->upstream, &outcome, w->now_us, w->now_us, &rand, racer->metrics);
        pthread_barrier_wait(racer->barrier);
        uint64_t untils[MOST];
        racer->too_many += look(w, untils) != 3;
        racer->twice += atomic_load(&endpoint->ejector.times) > 1;
        pthread_barrier_wait(racer->barrier);
        ejector_forget(&endpoint->ejector);
    }
    return NULL;
}

static void race_for(uint32_t endpoints)
{
    static struct world w;
    pthread_barrier_t barrier;
    struct racer racers[MOST];
    pthread_t threads[MOST];
    world_init(&w, MOST, 0);
    w.settings.outlier.ejection_us = 3600 * (uint64_t)SECOND;
    w.settings.outlier.max_ejection_us = 2 * w.settings.outlier.ejection_us;
    pthread_barrier_init(&barrier, NULL, MOST);
    for (uint32_t i = 0; i < MOST; i++) {
        racers[i] =
            (struct racer){.w = &w, .metrics = metrics_new(), .barrier = &barrier, .endpoint = i % endpoints};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (uint32_t i = 0; i < MOST; i++) {
        pthread_join(threads[i], NULL);
        metrics_free(racers[i].metrics);
        assert_int_equal(racers[i].too_many, 0);
        assert_int_equal(racers[i].twice, 0);
    }
    pthread_barrier_destroy(&barrier);
    world_fini(&w);
}

static void test_races(void **state)
{
    (void)state;
    race_for(MOST);
    race_for(MOST / 2);
}

// A finding that was on its way while another worker ejected.
static void test_who_is_out_is_not_ejected_again(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, MOST, 0);
    both(&w, BAD, 0);
    both(&w, BAD, 0);
    both(&w, BAD, 0);
    assert_string_equal(what_is_wrong(&w) ? what_is_wrong(&w) : "", "");
    uint64_t until_us = w.endpoints[0].ejector.until_us;
    for (uint32_t i = 0; i < MOST; i++) // of 100 answers none was good, and of the others' all
        w.endpoints[i].ejector.window = UINT64_C(100) << 32 | (i ? 100 : 0);
    outlier_rate(&w.upstream, w.now_us, w.now_us, &w.rand, w.metrics);
    assert_int_equal(w.endpoints[0].ejector.until_us, until_us);
    assert_int_equal(w.endpoints[0].ejector.times, 1);
    world_fini(&w);
}

// The sweep finds an endpoint's time over at the moment at which a worker ejects it again: that stands.
static void *settle(void *argument)
{
    struct racer *racer = argument;
    for (unsigned i = 0; i < RACES; i++) {
        pthread_barrier_wait(racer->barrier);
        outlier_settle(&racer->w->upstream, racer->w->now_us);
        pthread_barrier_wait(racer->barrier);
    }
    return NULL;
}

static void test_a_return_and_an_ejection(void **state)
{
    (void)state;
    static struct world w;
    pthread_barrier_t barrier;
    pthread_t thread;
    unsigned undone = 0;
    world_init(&w, 2, 0);
    struct ejector *ejector = &w.endpoints[0].ejector;
    struct upstream_outcome outcome = outcome_of_result(EJECTOR_BAD, &w.endpoints[0]);
    struct racer racer = {.w = &w, .barrier = &barrier};
    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, settle, &racer), 0);
    for (unsigned i = 0; i < RACES; i++) {
        ejector_forget(ejector);
        ejector_eject(ejector, &brisk, EJECTED_CONSECUTIVE_FAILURES, 0, w.now_us - 20 * SECOND, 0);
        for (int k = 1; k < brisk.consecutive_failures; k++)
            outlier_note(&w.upstream, &outcome, w.now_us, w.now_us, &w.rand, w.metrics);
        pthread_barrier_wait(&barrier);
        outlier_note(&w.upstream, &outcome, w.now_us, w.now_us, &w.rand, w.metrics);
        undone += !ejector_is_out(ejector, w.now_us);
        pthread_barrier_wait(&barrier);
        undone += !ejector_is_out(ejector, w.now_us);
    }
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(undone, 0);
    world_fini(&w);
}

// A worker's clock is ahead of that of the thread that lets the endpoint back in.
static void test_the_log_of_a_clock_that_is_behind(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 2, 0);
    ejector_eject(&w.endpoints[0].ejector, &brisk, EJECTED_CONSECUTIVE_FAILURES, 0, w.now_us + 1000, 0);
    w.settings.outlier.max_ejected = 0;
    FILE *log = tmpfile();
    int before = dup(STDERR_FILENO);
    assert_true(log && before >= 0 && dup2(fileno(log), STDERR_FILENO) >= 0);
    log_set_level(LOG_INFO);
    outlier_settle(&w.upstream, w.now_us);
    log_set_level(LOG_ERROR);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    char line[256] = "";
    rewind(log);
    assert_non_null(fgets(line, sizeof line, log));
    assert_non_null(strstr(line, "u: e is no longer ejected after 0 ms: outliers are no longer ejected"));
    close(before);
    fclose(log);
    world_fini(&w);
}

// ---- what is bad ----

static void test_what_is_bad(void **state)
{
    (void)state;
    static const struct {
        struct attempt_end end;
        const char *reason; // NULL: it is good; "": it says nothing
    } cases[] = {
        {{.cause = END_OK, .status = 200}, NULL},
        {{.cause = END_OK, .status = 301}, NULL},
        {{.cause = END_OK, .status = 400}, NULL},
        {{.cause = END_OK, .status = 429}, NULL},
        {{.cause = END_OK, .status = 499}, NULL},
        {{.cause = END_OK, .status = 501}, NULL},
        {{.cause = END_OK, .status = 500}, "consecutive_failures"},
        {{.cause = END_OK, .status = 599}, "consecutive_failures"},
        {{.cause = END_UPSTREAM_STATUS, .status = 503}, "consecutive_failures"},
        {{.cause = END_UPSTREAM_TIMEOUT}, "consecutive_failures"},
        {{.cause = END_UPSTREAM_RESET}, "consecutive_failures"},
        {{.cause = END_UPSTREAM_TRUNCATED, .status = 200}, "consecutive_failures"},
        {{.cause = END_UPSTREAM_BAD_RESPONSE}, "consecutive_failures"},
        {{.cause = END_UPSTREAM_CONNECT_FAILED}, "connect_failures"},
        {{.cause = END_UPSTREAM_RESET, .stale = true}, ""},
        {{.cause = END_OK, .outrun = true}, "consecutive_failures"},
        {{.cause = END_CLIENT_GONE}, ""},
        {{.cause = END_OVERLOADED}, ""},
        {{.cause = END_DEADLINE_EXCEEDED, .excused = true}, ""},
        {{.cause = END_OK, .status = 200, .grpc_ended = true, .grpc_status = GRPC_UNAVAILABLE},
         "consecutive_failures"},
        {{.cause = END_OK, .status = 200, .grpc_ended = true, .grpc_status = GRPC_UNIMPLEMENTED}, NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        static struct world w;
        world_init(&w, 2, 0.5);
        w.settings.outlier.connect_failures = w.settings.outlier.consecutive_failures = 1;
        w.endpoints[0].ejector.failures = 7; // of a row that a good one ends
        struct upstream_outcome outcome = outcome_of(&cases[i].end);
        outcome.endpoint = &w.endpoints[0];
        outlier_note(&w.upstream, &outcome, w.now_us, w.now_us, &w.rand, w.metrics);
        const struct ejector *ejector = &w.endpoints[0].ejector;
        bool out = ejector_is_out(ejector, w.now_us), neutral = cases[i].reason && !*cases[i].reason;
        if (out != (cases[i].reason && !neutral) || ejector->failures != (neutral ? 7 : 0) ||
            (out && !str_eq(ejection_reason_name(ejector->reason), str_of(cases[i].reason))))
            fail_msg("case %zu", i);
        world_fini(&w);
    }
}

// ---- the sweep ----

static void turn_for(struct loop *loop, uint64_t ms)
{
    for (uint64_t until_ms = loop_now_ms(loop) + ms; loop_now_ms(loop) < until_ms;)
        loop_turn(loop, until_ms - loop_now_ms(loop));
}

static void test_sweep(void **state)
{
    (void)state;
    static struct world w;
    struct loop loop;
    struct err err;
    assert_int_equal(loop_init(&loop, &err), ERR_OK);
    world_init(&w, 2, 0.5);
    struct upstream *upstreams[] = {&w.upstream};
    struct outliers *outliers = outliers_start(&loop, upstreams, 1, w.metrics, NULL);
    ejector_eject(&w.endpoints[0].ejector, &brisk, EJECTED_SUCCESS_RATE, 0, loop.now_us, 0);
    turn_for(&loop, OUTLIER_SWEEP_MS + 200);
    assert_true(ejector_is_out(&w.endpoints[0].ejector, loop.now_us));
    w.settings.outlier.max_ejected = 0; // a reload; however many follow, the sweep comes when it was due
    for (unsigned i = 0; i < 12; i++) {
        outliers = outliers_start(&loop, upstreams, 1, w.metrics, outliers);
        turn_for(&loop, 100);
    }
    assert_false(ejector_is_out(&w.endpoints[0].ejector, loop.now_us));
    assert_false(atomic_load(&w.endpoints[0].ejector.announced));
    outliers_stop(outliers);
    world_fini(&w);
    loop_fini(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order_of_two),
        cmocka_unit_test(test_every_order_of_three),
        cmocka_unit_test(test_random_runs),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_who_is_out_is_not_ejected_again),
        cmocka_unit_test(test_a_return_and_an_ejection),
        cmocka_unit_test(test_the_log_of_a_clock_that_is_behind),
        cmocka_unit_test(test_what_is_bad),
        cmocka_unit_test(test_sweep),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
