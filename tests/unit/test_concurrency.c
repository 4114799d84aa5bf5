#include "unit.h"

#include "base/check.h"
#include "upstream/concurrency.h"

#include <pthread.h>

enum { MOST = 500, SERVERS = 10, SERVICE_US = 1000, SECOND_US = 1000000 };

static const struct upstream_outcome answer = {.verdict = OUTCOME_ANSWER, .status = 200};

// So many requests that wait for so few servers, in rounds.
static void round_of(struct concurrency_share *share, uint64_t *now_us)
{
    unsigned taken = 0;
    while (concurrency_take(share))
        taken++;
    uint64_t took_us = taken <= SERVERS ? SERVICE_US : (uint64_t)SERVICE_US * taken / SERVERS;
    *now_us += took_us;
    for (; taken; taken--) {
        concurrency_give(share);
        concurrency_note(share, &answer, took_us, *now_us);
    }
}

static void on_place(struct loop_task *task)
{
    (void)task; // nobody waits in line here
}

static void set(struct concurrency_share *share, struct concurrency *concurrency, bool adaptive,
                unsigned slot, unsigned workers)
{
    concurrency_init(share, NULL, on_place);
    concurrency_set(share, concurrency, MOST, adaptive, slot, workers);
}

static void quiet(struct concurrency_share *share, uint64_t *now_us)
{
    for (unsigned i = 0; i < 500; i++) {
        *now_us += 1000;
        assert_true(concurrency_take(share));
        concurrency_give(share);
        concurrency_note(share, &answer, SERVICE_US, *now_us);
    }
}

static uint32_t take_all(struct concurrency_share *share)
{
    uint32_t taken = 0;
    while (concurrency_take(share))
        taken++;
    return taken;
}

static void give_all(struct concurrency_share *share)
{
    while (fair_share_used(&share->places))
        concurrency_give(share);
}

static void test_the_limit_is_one_for_all_workers(void **state)
{
    (void)state;
    struct concurrency *concurrency = concurrency_at(3);
    struct concurrency_share a = {0}, b = {0};
    uint64_t now_us = SECOND_US;
    assert_ptr_equal(concurrency_at(3), concurrency);
    set(&a, concurrency, true, 0, 2);
    set(&b, concurrency, true, 1, 2);
    assert_int_equal(concurrency_limit(concurrency, MOST), MOST);
    quiet(&a, &now_us);
    for (unsigned i = 0; i < 300; i++)
        round_of(&a, &now_us);
    uint32_t limit = concurrency_limit(concurrency, MOST);
    assert_true(limit >= SERVERS && limit <= 4 * SERVERS);
    assert_int_equal(take_all(&b), limit);
    assert_false(concurrency_take(&a));
    give_all(&b);
    // Not adaptive any more: as many as are configured.
    concurrency_set(&a, concurrency, MOST, false, 0, 8);
    assert_int_equal(take_all(&a), MOST);
    give_all(&a);
    concurrency_leave(&a);
    concurrency_leave(&b);
}

static void test_a_large_limit_is_cut_into_parts(void **state)
{
    (void)state;
    struct concurrency *concurrency = concurrency_at(4);
    struct concurrency_share a = {0}, b = {0};
    set(&a, concurrency, false, 0, 2);
    set(&b, concurrency, false, 1, 2);
    assert_int_equal(take_all(&a), MOST / 2);
    assert_int_equal(concurrency_left(&a), 0);
    assert_int_equal(concurrency_left(&b), MOST / 2);
    assert_false(concurrency_want(&a, 1, 1, 1));
    assert_true(concurrency_want(&b, 1, 1, 1));
    // A smaller one is one for all, with what is in use.
    concurrency_set(&a, concurrency, 100, false, 0, 2);
    concurrency_set(&b, concurrency, 100, false, 1, 2);
    assert_false(concurrency_take(&b));
    while (fair_share_used(&a.places) > 60)
        concurrency_give(&a);
    assert_int_equal(concurrency_left(&b), 40);
    assert_int_equal(take_all(&b), 40);
    // And a large one again.
    concurrency_set(&a, concurrency, MOST, false, 0, 2);
    concurrency_set(&b, concurrency, MOST, false, 1, 2);
    assert_int_equal(concurrency_left(&a), MOST / 2 - 60);
    assert_int_equal(take_all(&b), MOST / 2 - 40);
    give_all(&a);
    give_all(&b);
}

static void test_quick_refusals_are_no_measure(void **state)
{
    (void)state;
    struct concurrency_share share = {0};
    uint64_t now_us = SECOND_US;
    set(&share, concurrency_at(5), true, 0, 1);
    quiet(&share, &now_us);
    static const struct upstream_outcome others[] = {
        {.verdict = OUTCOME_ANSWER, .status = 503},
        {.verdict = OUTCOME_ANSWER, .status = 429},
        {.verdict = OUTCOME_FAILURE, .cause = END_UPSTREAM_RESET},
        {.verdict = OUTCOME_NONE},
    };
    uint32_t before = share.batch.samples;
    for (size_t i = 0; i < countof(others); i++)
        concurrency_note(&share, &others[i], 10, now_us);
    concurrency_note(&share, &answer, 0, now_us); // the request was not complete
    assert_int_equal(share.batch.samples, before);
    static const struct upstream_outcome timeout = {.verdict = OUTCOME_FAILURE,
                                                    .cause = END_UPSTREAM_TIMEOUT};
    concurrency_note(&share, &timeout, 15 * SECOND_US, now_us);
    assert_int_equal(share.batch.samples, before + 1);
}

enum { THREADS = 4, ROUNDS = 20000 };

static atomic_uint inside;

static void *contend(void *arg)
{
    struct concurrency_share share = {0};
    uint64_t now_us = SECOND_US;
    set(&share, arg, true, 0, THREADS);
    for (unsigned i = 0; i < ROUNDS; i++) {
        now_us += 100;
        if (!concurrency_take(&share))
            continue;
        assert_true(atomic_fetch_add(&inside, 1) < MOST);
        atomic_fetch_sub(&inside, 1);
        concurrency_give(&share);
        concurrency_note(&share, &answer, 500 + i % 1000, now_us);
    }
    assert_int_equal(fair_share_used(&share.places), 0);
    concurrency_leave(&share);
    return NULL;
}

static void test_workers_tell_what_they_measure_at_the_same_time(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contend, concurrency_at(7)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct concurrency_share share = {0};
    set(&share, concurrency_at(7), false, 0, 8);
    assert_int_equal(concurrency_left(&share), MOST);
    concurrency_leave(&share);
    assert_true(concurrency_limit(concurrency_at(7), MOST) >= ADAPTIVE_LEAST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_limit_is_one_for_all_workers),
        cmocka_unit_test(test_a_large_limit_is_cut_into_parts),
        cmocka_unit_test(test_quick_refusals_are_no_measure),
        cmocka_unit_test(test_workers_tell_what_they_measure_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
