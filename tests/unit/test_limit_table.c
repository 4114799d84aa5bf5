#include "unit.h"

#include "base/rand.h"
#include "limit/table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS = 8, SECOND = 1000000 };
#define NOW UINT64_C(86400000000)

static const struct siphash_key key = {1, 2};

static struct hash128 key_of(uint64_t n)
{
    return siphash128(&key, n, STR("x"));
}

static struct limit_rule made(uint64_t tokens, uint64_t burst)
{
    struct limit_rule rule = {0};
    assert_true(bucket_compile(&rule.bucket, tokens, SECOND, burst, false));
    return rule;
}

static void test_each_key_has_a_bucket(void **unused)
{
    (void)unused;
    struct limit_table *table = limit_table_new(1 << 20);
    struct limit_rule rule = made(1, 2);
    uint64_t state;
    assert_false(limit_table_find(table, key_of(1), &state));
    assert_false(limit_table_reset(table, key_of(1)));
    for (uint64_t i = 1; i <= 2; i++) {
        assert_int_equal(limit_table_take(table, key_of(i), &rule, NOW, 1, &state), 0);
        assert_int_equal(limit_table_take(table, key_of(i), &rule, NOW, 1, &state), 0);
        assert_int_equal(limit_table_take(table, key_of(i), &rule, NOW, 1, &state), SECOND);
        assert_int_equal(rule_remaining(&rule, state, NOW), 0);
    }
    limit_table_give(table, key_of(1), &rule, 1);
    assert_true(limit_table_find(table, key_of(1), &state));
    assert_int_equal(rule_remaining(&rule, state, NOW), 1);
    assert_true(limit_table_reset(table, key_of(1)));
    assert_true(limit_table_find(table, key_of(1), &state));
    assert_int_equal(rule_remaining(&rule, state, NOW), 2);
    limit_table_give(table, key_of(3), &rule, 1); // not known: nothing happens
    assert_false(limit_table_find(table, key_of(3), &state));
    state = limit_table_charge(table, key_of(3), &rule, NOW, 1);
    assert_int_equal(rule_remaining(&rule, state, NOW), 1);
    uint64_t emptier = rule_charge(&rule, state, NOW, 1);
    limit_table_drain(table, key_of(3), NOW, emptier);
    limit_table_drain(table, key_of(3), NOW, state); // fuller: nothing happens
    assert_true(limit_table_find(table, key_of(3), &state));
    assert_int_equal(state, emptier);
    limit_table_drain(table, key_of(4), NOW, 0); // full, as a new one is
    assert_int_equal(limit_table_take(table, key_of(4), &rule, NOW, 2, &state), 0);
    limit_table_free(table);
}

static void test_full_buckets_make_room_first(void **unused)
{
    (void)unused;
    struct limit_table *table = limit_table_new(1); // one set, 31 places
    struct limit_rule rule = made(1, 10);
    struct limit_table_stats stats;
    uint64_t state;
    for (uint64_t i = 0; i < 30; i++)
        limit_table_take(table, key_of(i), &rule, NOW + i, 5, &state);
    limit_table_take(table, key_of(30), &rule, NOW, 1, &state); // full again a second later
    limit_table_take(table, key_of(31), &rule, NOW + 2 * SECOND, 1, &state);
    assert_false(limit_table_find(table, key_of(30), &state));
    limit_table_stats(table, &stats);
    assert_int_equal(stats.used, 31);
    assert_int_equal(stats.forgotten, 0);
    // None is full now: the one that misses the least goes, and that is told.
    limit_table_take(table, key_of(32), &rule, NOW + 2 * SECOND, 5, &state);
    assert_false(limit_table_find(table, key_of(31), &state));
    for (uint64_t i = 0; i < 30; i++)
        assert_true(limit_table_find(table, key_of(i), &state));
    limit_table_stats(table, &stats);
    assert_int_equal(stats.forgotten, 1);
    limit_table_free(table);
}

// Of this thread: others may want the machine as well.
static uint64_t cpu_us(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * SECOND + (uint64_t)spent.tv_nsec / 1000;
}

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
    fclose(file);
    return pages * 4096;
}

static void test_a_few_keys_take_a_few_pages(void **unused)
{
    (void)unused;
    uint64_t state, before = resident_bytes();
    struct limit_table *table = limit_table_new(LIMIT_TABLE_BYTES);
    struct limit_rule rule = made(1, 1000);
    for (uint64_t i = 0; i < 100; i++)
        limit_table_take(table, key_of(i), &rule, NOW, 1, &state);
    assert_true(resident_bytes() - before < 4 << 20);
    limit_table_free(table);
}

static void test_a_million_live_keys_in_64_mib(void **unused)
{
    (void)unused;
    struct limit_table *table = limit_table_new(LIMIT_TABLE_BYTES);
    struct limit_rule rule = made(1, 1000);
    struct limit_table_stats stats;
    uint64_t state, before = resident_bytes(), wrong = 0, began = cpu_us();
    for (uint64_t i = 0; i < LIMIT_KEYS; i++)
        limit_table_take(table, key_of(i), &rule, NOW, 1 + i % 7, &state);
    uint64_t us = cpu_us() - began, bytes = resident_bytes() - before;
    for (uint64_t i = 0; i < LIMIT_KEYS; i++)
        wrong += !limit_table_find(table, key_of(i), &state) ||
                 rule_remaining(&rule, state, NOW) != 1000 - 1 - i % 7;
    limit_table_stats(table, &stats);
    print_message("%d keys: %.1f MiB resident, %.0f ns each to add\n", LIMIT_KEYS, (double)bytes / (1 << 20),
                  (double)us * 1000 / LIMIT_KEYS);
    assert_int_equal(wrong, 0);
    assert_int_equal(stats.used, LIMIT_KEYS);
    assert_int_equal(stats.forgotten, 0);
    assert_true(stats.bytes <= 64 << 20);
    limit_table_free(table);
}

// ---- threads ----

struct race {
    struct limit_table *table;
    struct limit_rule rule;
    uint64_t keys, tries;
    atomic_uint_fast64_t admitted, clock_us;
};

static void *flood(void *context)
{
    struct race *race = context;
    uint64_t admitted = 0, state;
    for (uint64_t i = 0; i < race->tries; i++) {
        uint64_t now = atomic_load_explicit(&race->clock_us, memory_order_relaxed);
        admitted += !limit_table_take(race->table, key_of(i % race->keys), &race->rule, now, 1, &state);
        if (i % 16 == 0)
            atomic_fetch_add_explicit(&race->clock_us, 1, memory_order_relaxed);
    }
    atomic_fetch_add(&race->admitted, admitted);
    return NULL;
}

static void run(struct race *race, void *(*body)(void *))
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, body, race), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_threads_on_one_key_admit_exactly_the_limit(void **unused)
{
    (void)unused;
    struct race race = {.table = limit_table_new(1 << 20),
                        .rule = made(1000, 5000),
                        .keys = 1,
                        .tries = 200000,
                        .clock_us = NOW};
    run(&race, flood);
    uint64_t passed_us = atomic_load(&race.clock_us) - NOW, state;
    // What had come back by the last request that was let in, and the burst.
    assert_true(limit_table_find(race.table, key_of(0), &state));
    uint64_t most = 5000 + passed_us * 1000 / SECOND;
    uint64_t left = rule_remaining(&race.rule, state, atomic_load(&race.clock_us));
    print_message("admitted %llu and %llu left of %llu\n", (unsigned long long)atomic_load(&race.admitted),
                  (unsigned long long)left, (unsigned long long)most);
    assert_int_equal(atomic_load(&race.admitted) + left, most);
    limit_table_free(race.table);
}

// Each key is new to several threads at once: they must agree on one place.
static void test_threads_that_add_the_same_keys(void **unused)
{
    (void)unused;
    struct race race = {.table = limit_table_new(4 << 20),
                        .rule = made(1, 3),
                        .keys = 20000,
                        .tries = 20000 * 4,
                        .clock_us = NOW};
    run(&race, flood);
    struct limit_table_stats stats;
    limit_table_stats(race.table, &stats);
    assert_int_equal(stats.used, 20000);
    assert_int_equal(atomic_load(&race.admitted), 3 * 20000);
    limit_table_free(race.table);
}

static void *churn(void *context)
{
    struct race *race = context;
    uint64_t admitted = 0, state;
    struct rand rand;
    rand_init(&rand);
    for (uint64_t i = 0; i < race->tries; i++) {
        uint64_t n = 1 + rand_below(&rand, 100); // they push each other out of one set
        limit_table_take(race->table, key_of(n), &race->rule, NOW + i * SECOND, 1, &state);
        if (i % 4 == 0) // the one that never fills up must stay
            admitted += !limit_table_take(race->table, key_of(0), &race->rule, NOW, 1, &state);
    }
    atomic_fetch_add(&race->admitted, admitted);
    return NULL;
}

static void test_keys_that_come_and_go_leave_the_hot_one_alone(void **unused)
{
    (void)unused;
    struct race race = {.table = limit_table_new(1), .rule = made(1, 30000), .tries = 50000};
    struct limit_rule slow = {0};
    assert_true(bucket_compile(&slow.bucket, 1, 86400 * UINT64_C(1000000), 300, false));
    uint64_t state;
    race.rule = slow;
    limit_table_take(race.table, key_of(0), &race.rule, NOW, 300, &state); // ten months until it is full
    run(&race, churn);
    assert_int_equal(atomic_load(&race.admitted), 0);
    assert_true(limit_table_find(race.table, key_of(0), &state));
    limit_table_free(race.table);
}

static void test_what_a_decision_costs(void **unused)
{
    (void)unused;
    enum { DECISIONS = 2000000, KEYS = 1000 };
    struct limit_table *table = limit_table_new(LIMIT_TABLE_BYTES);
    struct limit_rule rule = made(999, 1000);
    uint64_t state, began = cpu_us();
    for (uint64_t i = 0; i < DECISIONS; i++)
        limit_table_take(table, key_of(i % KEYS), &rule, NOW + i, 1, &state);
    uint64_t us = cpu_us() - began;
    print_message("a decision: %.0f ns, the key's hash included\n", (double)us * 1000 / DECISIONS);
    limit_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_key_has_a_bucket),
        cmocka_unit_test(test_full_buckets_make_room_first),
        cmocka_unit_test(test_a_few_keys_take_a_few_pages),
        cmocka_unit_test(test_a_million_live_keys_in_64_mib),
        cmocka_unit_test(test_threads_on_one_key_admit_exactly_the_limit),
        cmocka_unit_test(test_threads_that_add_the_same_keys),
        cmocka_unit_test(test_keys_that_come_and_go_leave_the_hot_one_alone),
        cmocka_unit_test(test_what_a_decision_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
