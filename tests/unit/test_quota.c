#include "unit.h"

#include "base/quota.h"

#include <pthread.h>

static void test_small_limits_are_exact_over_workers(void **state)
{
    (void)state;
    struct quota quota = {0};
    struct quota_share a = {0}, b = {0};
    quota_set(&a, &quota, 3, 0, 2);
    quota_set(&b, &quota, 3, 1, 2);
    assert_true(quota_take(&a) && quota_take(&a) && quota_take(&b));
    assert_false(quota_take(&a));
    assert_false(quota_take(&b));
    quota_give(&b);
    assert_true(quota_take(&a));
}

static void test_large_limits_are_cut_into_shares(void **state)
{
    (void)state;
    struct quota quota = {0};
    struct quota_share a = {0};
    quota_set(&a, &quota, 1001, 0, 2);
    for (int i = 0; i < 501; i++)
        assert_true(quota_take(&a));
    assert_false(quota_take(&a));
    assert_int_equal(atomic_load(&quota.used), 0);
    assert_int_equal(quota_part(1001, 1, 2), 500);
    assert_int_equal(quota_part(1, 1, 2), 1);
    assert_int_equal(quota_part(0, 0, 2), 0);
}

static void test_a_changed_limit_keeps_what_is_in_use(void **state)
{
    (void)state;
    struct quota quota = {0};
    struct quota_share a = {0};
    quota_set(&a, &quota, 1000, 0, 1);
    assert_true(quota_take(&a) && quota_take(&a));
    quota_set(&a, &quota, 2, 0, 1);
    assert_int_equal(atomic_load(&quota.used), 2);
    assert_false(quota_take(&a));
    quota_set(&a, &quota, 1000, 0, 1);
    assert_int_equal(atomic_load(&quota.used), 0);
    quota_give(&a);
    quota_give(&a);
    assert_int_equal(a.used, 0);
}

enum { THREADS = 4, ROUNDS = 50000, LIMIT = 3 };

static struct quota contended;
static atomic_uint inside, most;

static void *contend(void *arg)
{
    struct quota_share share = {0};
    (void)arg;
    quota_set(&share, &contended, LIMIT, 0, THREADS);
    for (int i = 0; i < ROUNDS; i++) {
        if (!quota_take(&share))
            continue;
        unsigned now = atomic_fetch_add(&inside, 1) + 1, before = atomic_load(&most);
        while (now > before && !atomic_compare_exchange_weak(&most, &before, now))
            ;
        atomic_fetch_sub(&inside, 1);
        quota_give(&share);
    }
    return NULL;
}

static void test_threads_never_exceed_an_exact_limit(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contend, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&most) >= 1 && atomic_load(&most) <= LIMIT);
    assert_int_equal(atomic_load(&contended.used), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_limits_are_exact_over_workers),
        cmocka_unit_test(test_large_limits_are_cut_into_shares),
        cmocka_unit_test(test_a_changed_limit_keeps_what_is_in_use),
        cmocka_unit_test(test_threads_never_exceed_an_exact_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
