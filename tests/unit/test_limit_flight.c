#include "unit.h"

#include "base/rand.h"
#include "base/str.h"
#include "limit/flight.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS = 8 };

static const struct siphash_key seed = {1, 2};

static struct hash128 key_of(uint64_t n)
{
    return siphash128(&seed, n, STR("x"));
}

// In one slot with all others of these: a chain.
static struct hash128 neighbour(uint64_t n)
{
    return (struct hash128){.lo = n, .hi = 7};
}

static void test_so_many_at_once(void **unused)
{
    (void)unused;
    struct flight_place places[4];
    assert_int_equal(flight_count(key_of(1)), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(flight_enter(&places[i], key_of(1), 3));
        assert_int_equal(flight_count(key_of(1)), i + 1);
    }
    assert_false(flight_enter(&places[3], key_of(1), 3));
    assert_true(flight_enter(&places[3], key_of(2), 1)); // somebody else
    flight_leave(&places[1]);
    assert_true(flight_enter(&places[1], key_of(1), 3));
    assert_false(
        flight_enter(&(struct flight_place){0}, key_of(1), 2)); // another tier's bound, the same count
    for (int i = 0; i < 4; i++)
        flight_leave(&places[i]);
    assert_int_equal(flight_count(key_of(1)) + flight_count(key_of(2)), 0);
}

// Whichever place leaves first, the count stays right, and so do the neighbours'.
static void test_any_order(void **unused)
{
    (void)unused;
    enum { KEYS = 5, EACH = 6, ROUNDS = 2000 };
    struct flight_place *places = calloc(KEYS * EACH, sizeof *places);
    uint32_t counts[KEYS] = {0};
    bool held[KEYS * EACH] = {0};
    struct rand rand;
    rand_init_seed(&rand, 3);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t i = rand_below(&rand, KEYS * EACH), owner = i % KEYS;
        if (held[i])
            flight_leave(&places[i]);
        else
            assert_true(flight_enter(&places[i], neighbour(owner), EACH));
        counts[owner] += held[i] ? UINT32_MAX : 1; // one less, one more
        held[i] = !held[i];
        for (uint32_t k = 0; k < KEYS; k++)
            assert_int_equal(flight_count(neighbour(k)), counts[k]);
    }
    for (uint32_t i = 0; i < KEYS * EACH; i++)
        if (held[i])
            flight_leave(&places[i]);
    for (uint32_t k = 0; k < KEYS; k++)
        assert_int_equal(flight_count(neighbour(k)), 0);
    free(places);
}

// ---- threads ----

enum { HOT = 3, MOST = 5, TURNS = 20000 };
static atomic_int under_way[HOT], entered;

static void *contend(void *context)
{
    struct rand rand;
    rand_init_seed(&rand, (uint64_t)(uintptr_t)context);
    for (int i = 0; i < TURNS; i++) {
        uint32_t k = rand_below(&rand, HOT);
        struct flight_place *place = malloc(sizeof *place); // gone at once: nobody may look at it afterwards
        if (flight_enter(place, neighbour(k), MOST)) {
            assert_true(atomic_fetch_add(&under_way[k], 1) < MOST);
            atomic_fetch_add(&entered, 1);
            atomic_fetch_sub(&under_way[k], 1);
            flight_leave(place);
        }
        free(place);
    }
    return NULL;
}

static void run(void *(*work)(void *context))
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_never_one_too_many(void **unused)
{
    (void)unused;
    run(contend);
    assert_true(entered > TURNS);
    for (uint64_t k = 0; k < HOT; k++)
        assert_int_equal(flight_count(neighbour(k)), 0);
}

enum { TRIES = 500, ROOM = 1234 };
static struct flight_place crowd[THREADS][TRIES];
static atomic_int admitted;

static void *fill(void *context)
{
    size_t thread = (uintptr_t)context - 1;
    for (int i = 0; i < TRIES; i++)
        admitted += flight_enter(&crowd[thread][i], key_of(9), ROOM);
    return NULL;
}

static void test_exactly_the_bound(void **unused)
{
    (void)unused;
    run(fill);
    assert_int_equal(admitted, ROOM);
    assert_int_equal(flight_count(key_of(9)), ROOM);
}

static void test_what_it_costs(void **unused)
{
    (void)unused;
    enum { ROUNDS = 1000000 };
    struct timespec from, to;
    struct flight_place place;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        assert_true(flight_enter(&place, key_of(100 + i % 64), 1));
        flight_leave(&place);
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    print_message("%.0f ns to take a place and give it back, the key's hash included\n", ns / ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_so_many_at_once),    cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_never_one_too_many), cmocka_unit_test(test_exactly_the_bound),
        cmocka_unit_test(test_what_it_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
