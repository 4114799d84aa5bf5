// One breaker for several threads: nothing is lost of what they count, and no more probes go out than may.
#include "upstream/shared_breaker.h"

#include "base/check.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

enum { WORKERS = 4, CALLS = 40000 };

static const struct breaker_rules rules = {
    .window_us = 10 * SECOND,
    .min_requests = 20,
    .failure_ratio = 0.5,
    .slow_ratio = 1,
    .open_us = 5 * SECOND,
    .max_open_us = 5 * SECOND,
    .ramp_us = 0,
    .half_open_requests = 3,
    .probe_us = 1000 * SECOND,
};

static struct breaker_tally tally;
static struct shared_breaker *made[16]; // they live as long as the process: not lost when a test ends

struct scene {
    struct shared_breaker *breaker;
    uint64_t now_us;
    struct rand rand;
};

static struct scene begin(void)
{
    struct scene scene = {.breaker = shared_breaker_new(STR("u"), STR_NULL, WORKERS, &tally),
                          .now_us = 1000 * SECOND};
    static unsigned count;
    made[count++ % countof(made)] = scene.breaker;
    shared_breaker_configure(scene.breaker, &rules);
    rand_init_seed(&scene.rand, 1);
    return scene;
}

static bool admit(struct scene *scene, struct breaker_pass *pass)
{
    uint64_t wait_us;
    return shared_breaker_admit(scene->breaker, &rules, scene->now_us, &scene->rand, pass, &wait_us);
}

static void note(struct scene *scene, unsigned worker, struct breaker_pass pass, enum breaker_result result)
{
    shared_breaker_note(scene->breaker, &rules, worker, pass, result, scene->now_us, &scene->rand);
}

static unsigned calls(struct scene *scene, unsigned worker, unsigned n, enum breaker_result result)
{
    unsigned admitted = 0;
    for (unsigned i = 0; i < n; i++) {
        struct breaker_pass pass;
        if (!admit(scene, &pass))
            continue;
        admitted++;
        note(scene, worker, pass, result);
    }
    return admitted;
}

static struct breaker look(struct scene *scene)
{
    return shared_breaker_look(scene->breaker, &rules, scene->now_us);
}

static uint32_t counted(struct scene *scene)
{
    struct breaker now = look(scene);
    return breaker_sum(&now, scene->now_us).calls;
}

// ---- one thread ----

static void test_workers_open_it_together(void **state)
{
    (void)state;
    struct scene scene = begin();
    for (unsigned worker = 0; worker < WORKERS; worker++)
        calls(&scene, worker, 5, BREAKER_GOOD);
    calls(&scene, 0, 10, BREAKER_FAILED);
    calls(&scene, 1, 9, BREAKER_FAILED);
    assert_int_equal(look(&scene).state, BREAKER_CLOSED);
    calls(&scene, 2, 1, BREAKER_FAILED); // 20 of 40
    assert_int_equal(look(&scene).state, BREAKER_OPEN);
    uint64_t wait_us;
    assert_true(shared_breaker_is_open(scene.breaker, scene.now_us, &wait_us));
    assert_in_range(wait_us, 4 * SECOND, 5 * SECOND);
    scene.now_us += wait_us;
    assert_int_equal(calls(&scene, 3, 3, BREAKER_GOOD), 3);
    assert_int_equal(look(&scene).state, BREAKER_CLOSED);
}

// A worker that goes quiet leaves its count in the slice it belongs to.
static void test_counts_stay_in_their_slices(void **state)
{
    (void)state;
    struct scene scene = begin();
    calls(&scene, 0, 100, BREAKER_GOOD);
    scene.now_us += 5 * SECOND;
    calls(&scene, 1, 10, BREAKER_GOOD);
    assert_int_equal(counted(&scene), 110);
    scene.now_us += 5 * SECOND; // those of the quiet one are past
    calls(&scene, 1, 1, BREAKER_GOOD);
    assert_int_equal(counted(&scene), 11);
    calls(&scene, 1, 20, BREAKER_FAILED);
    assert_int_equal(look(&scene).state, BREAKER_OPEN);
}

static void test_another_window(void **state)
{
    (void)state;
    struct scene scene = begin();
    struct breaker_rules narrow = rules;
    narrow.window_us = SECOND;
    calls(&scene, 0, 100, BREAKER_GOOD);
    shared_breaker_configure(scene.breaker, &narrow); // slices with larger numbers
    calls(&scene, 0, 7, BREAKER_GOOD);
    shared_breaker_configure(scene.breaker, &rules); // and smaller ones again
    calls(&scene, 0, 5, BREAKER_GOOD);
    assert_in_range(counted(&scene), 5, 112);
    scene.now_us += 20 * SECOND;
    assert_int_equal(counted(&scene), 0);
    calls(&scene, 0, 20, BREAKER_FAILED);
    assert_int_equal(look(&scene).state, BREAKER_OPEN);
}

// Neither in the breaker nor in the worker's own count.
static void test_a_late_one_counts_once(void **state)
{
    (void)state;
    struct scene scene = begin();
    struct breaker_rules judging = rules;
    judging.judges_slow = true;
    struct breaker_pass pass;
    for (enum breaker_result end = BREAKER_NEUTRAL; end <= BREAKER_FAILED; end++) {
        calls(&scene, 0, 1, BREAKER_GOOD);
        assert_true(admit(&scene, &pass));
        shared_breaker_note_slow(scene.breaker, &judging, &pass, scene.now_us, &scene.rand);
        assert_int_equal(counted(&scene), 2 * end + 2);
        shared_breaker_note(scene.breaker, &judging, 0, pass, end, scene.now_us, &scene.rand);
        assert_int_equal(counted(&scene), 2 * end + 2);
    }
    struct breaker now = look(&scene);
    assert_int_equal(breaker_sum(&now, scene.now_us).slow, 3);
    assert_int_equal(breaker_sum(&now, scene.now_us).failed, 1);
    assert_true(admit(&scene, &pass));
    calls(&scene, 1, 30, BREAKER_FAILED);
    shared_breaker_note_slow(scene.breaker, &judging, &pass, scene.now_us,
                             &scene.rand); // it has opened since
    assert_false(pass.late);
}

static void test_a_reset_forgets_probes_under_way(void **state)
{
    (void)state;
    struct scene scene = begin();
    struct breaker_pass probe;
    calls(&scene, 0, 20, BREAKER_FAILED);
    scene.now_us += 5 * SECOND;
    assert_true(admit(&scene, &probe) && probe.probe);
    shared_breaker_reset(scene.breaker);
    note(&scene, 0, probe, BREAKER_FAILED);
    assert_int_equal(look(&scene).state, BREAKER_CLOSED);
    assert_int_equal(look(&scene).probes, 0);
    assert_int_equal(calls(&scene, 0, 10, BREAKER_GOOD), 10);
}

// A hand's word is no knowledge.
static void test_a_reset_leaves_what_is_forced(void **state)
{
    (void)state;
    struct scene scene = begin();
    uint64_t wait_us;
    shared_breaker_set_force(scene.breaker, BREAKER_FORCED_OPEN, scene.now_us);
    shared_breaker_reset(scene.breaker);
    assert_int_equal(calls(&scene, 0, 10, BREAKER_GOOD), 0);
    assert_true(shared_breaker_is_open(scene.breaker, scene.now_us, &wait_us));
    struct breaker now = look(&scene);
    assert_int_equal(now.force, BREAKER_FORCED_OPEN);
    assert_int_equal(now.reason, BREAKER_BY_HAND);
    assert_int_equal(now.since_us, scene.now_us);
    shared_breaker_set_force(scene.breaker, BREAKER_AUTOMATIC, scene.now_us);
    assert_int_equal(look(&scene).state, BREAKER_HALF_OPEN);
}

static void test_force(void **state)
{
    (void)state;
    struct scene scene = begin();
    uint64_t wait_us;
    struct breaker_pass early;
    assert_true(admit(&scene, &early));
    shared_breaker_set_force(scene.breaker, BREAKER_FORCED_OPEN, scene.now_us);
    assert_true(shared_breaker_is_stale(scene.breaker, early));
    assert_int_equal(calls(&scene, 0, 10, BREAKER_GOOD), 0);
    assert_true(shared_breaker_is_open(scene.breaker, scene.now_us + 1000 * SECOND, &wait_us));
    assert_int_equal(wait_us, 0);
    shared_breaker_set_force(scene.breaker, BREAKER_AUTOMATIC, scene.now_us);
    assert_int_equal(calls(&scene, 0, 10, BREAKER_GOOD), 10);
}

static void test_tally(void **state)
{
    (void)state;
    uint64_t before = atomic_load(&tally.entered[BREAKER_OPEN]);
    struct scene scene = begin();
    calls(&scene, 0, 20, BREAKER_FAILED);
    assert_int_equal(atomic_load(&tally.entered[BREAKER_OPEN]), before + 1);
}

// What the metric counts is what the breaker itself shows, by hand too.
static void test_the_tally_is_what_the_breaker_says(void **state)
{
    (void)state;
    static const enum breaker_force hands[] = {BREAKER_FORCED_OPEN,   BREAKER_AUTOMATIC,
                                               BREAKER_FORCED_CLOSED, BREAKER_FORCED_OPEN,
                                               BREAKER_FORCED_CLOSED, BREAKER_AUTOMATIC};
    uint64_t before[BREAKER_STATES];
    for (unsigned i = 0; i < BREAKER_STATES; i++)
        before[i] = atomic_load(&tally.entered[i]);
    struct scene scene = begin();
    for (unsigned i = 0; i < countof(hands); i++) {
        calls(&scene, 0, 30, i % 2 ? BREAKER_GOOD : BREAKER_FAILED);
        shared_breaker_set_force(scene.breaker, hands[i], scene.now_us);
        scene.now_us += 100 * SECOND;
        struct breaker now = look(&scene);
        for (unsigned to = 0; to < BREAKER_STATES; to++)
            assert_int_equal(atomic_load(&tally.entered[to]) - before[to], now.entered[to]);
        assert_int_equal(now.entered[BREAKER_OPEN] >= 1, true);
    }
    calls(&scene, 0, 30, BREAKER_FAILED);
    shared_breaker_reset(scene.breaker);
    for (unsigned to = 0; to < BREAKER_STATES; to++)
        assert_int_equal(atomic_load(&tally.entered[to]) - before[to], look(&scene).entered[to]);
}

// ---- threads ----

struct runner {
    struct scene scene; // its own clock and draws
    unsigned worker;
    atomic_uint *flying, *most;
};

static void *count_goods(void *arg)
{
    struct runner *runner = arg;
    for (unsigned i = 0; i < CALLS; i++) {
        runner->scene.now_us = 1000 * SECOND + i * (8 * SECOND / CALLS);
        calls(&runner->scene, runner->worker, 1, BREAKER_GOOD);
        if (i % 64 == 0) // now and then somebody takes them over
            calls(&runner->scene, runner->worker, 1, BREAKER_FAILED);
    }
    return NULL;
}

static void *probe(void *arg)
{
    struct runner *runner = arg;
    for (unsigned i = 0; i < CALLS / 4; i++) {
        struct breaker_pass pass;
        if (!admit(&runner->scene, &pass))
            continue;
        unsigned now = atomic_fetch_add(runner->flying, 1) + 1, most = atomic_load(runner->most);
        while (now > most && !atomic_compare_exchange_weak(runner->most, &most, now))
            continue;
        if (i % 16 == 0)
            sched_yield();
        atomic_fetch_sub(runner->flying, 1);
        note(&runner->scene, runner->worker, pass, BREAKER_NEUTRAL);
    }
    return NULL;
}

static void run(struct runner *runners, void *(*what)(void *), const struct scene *scene)
{
    pthread_t threads[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        runners[i].scene = *scene;
        runners[i].worker = i;
        assert_int_equal(pthread_create(&threads[i], NULL, what, &runners[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
}

static void test_nothing_is_lost_between_threads(void **state)
{
    (void)state;
    struct scene scene = begin();
    struct runner runners[WORKERS];
    run(runners, count_goods, &scene);
    scene.now_us += 8 * SECOND;
    assert_int_equal(counted(&scene), WORKERS * (CALLS + (CALLS + 63) / 64));
}

static void test_probes_of_all_threads_are_few(void **state)
{
    (void)state;
    struct scene scene = begin();
    struct runner runners[WORKERS];
    atomic_uint flying = 0, most = 0;
    for (unsigned i = 0; i < WORKERS; i++)
        runners[i] = (struct runner){.flying = &flying, .most = &most};
    calls(&scene, 0, 20, BREAKER_FAILED);
    scene.now_us += 5 * SECOND;
    run(runners, probe, &scene);
    assert_in_range(most, 1, 3);
    assert_int_equal(look(&scene).probes, 0);
    assert_int_equal(look(&scene).state, BREAKER_HALF_OPEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_open_it_together),
        cmocka_unit_test(test_counts_stay_in_their_slices),
        cmocka_unit_test(test_another_window),
        cmocka_unit_test(test_a_late_one_counts_once),
        cmocka_unit_test(test_a_reset_forgets_probes_under_way),
        cmocka_unit_test(test_a_reset_leaves_what_is_forced),
        cmocka_unit_test(test_force),
        cmocka_unit_test(test_tally),
        cmocka_unit_test(test_the_tally_is_what_the_breaker_says),
        cmocka_unit_test(test_nothing_is_lost_between_threads),
        cmocka_unit_test(test_probes_of_all_threads_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
