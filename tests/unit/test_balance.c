// Who is picked: exact sequences where there is no chance in it, shares within a tolerance where there is.
// The generator's seed is fixed, so every run draws the same.
#include "upstream/balance.h"

#include "base/arena.h"
#include "base/check.h"
#include "upstream/hash_ring.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { MOST = 100, NOW_US = 1000000000 };

struct view {
    struct balance balance;
    struct balance_endpoint endpoints[MOST];
    struct endpoint known[MOST];
    struct str names[MOST];
    char texts[MOST][24];
    uint32_t weights[MOST];
    struct arena arena;
    struct rand rand;
};

// weights: of count endpoints; NULL: 1 each.
static struct view *view_new(enum balance_policy policy, uint32_t count, const uint32_t *weights)
{
    static struct view view;
    arena_reset(&view.arena);
    view = (struct view){.balance = {.policy = policy, .count = count, .panic_threshold = 0.5}};
    view.balance.endpoints = view.endpoints;
    rand_init_seed(&view.rand, 42);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(view.texts[i], sizeof view.texts[i], "10.0.0.%u:80", i);
        view.names[i] = str_of(view.texts[i]);
        view.weights[i] = weights ? weights[i] : 1;
        atomic_init(&view.known[i].up, true);
        view.endpoints[i] = (struct balance_endpoint){.endpoint = &view.known[i], .weight = view.weights[i]};
    }
    view.balance.ring = hash_ring_new(view.names, view.weights, count, &view.arena);
    return &view;
}

static int pick_at(struct view *view, uint64_t hash, uint64_t tried, uint64_t now_us)
{
    return balance_pick(&view->balance, hash, tried, now_us, &view->rand);
}

static int pick(struct view *view)
{
    return pick_at(view, rand_u64(&view->rand), 0, NOW_US);
}

static void set_up(struct view *view, uint32_t i, bool up)
{
    atomic_store(&view->known[i].up, up);
}

// How often each is picked, with nothing in flight.
static void count_picks(struct view *view, unsigned picks, unsigned *counts)
{
    memset(counts, 0, MOST * sizeof *counts);
    for (unsigned n = 0; n < picks; n++) {
        int i = pick(view);
        assert_in_range(i, 0, view->balance.count - 1);
        counts[i]++;
    }
}

static void assert_share(unsigned count, unsigned picks, double share, double tolerance)
{
    double got = (double)count / picks;
    if (fabs(got - share) > tolerance)
        fail_msg("share %.3f, expected %.3f ± %.3f", got, share, tolerance);
}

// ---- round robin ----

static void assert_sequence(struct view *view, const char *letters)
{
    for (const char *at = letters; *at; at++)
        if (pick(view) != *at - 'a')
            fail_msg("pick %d of %s", (int)(at - letters), letters);
}

static void test_round_robin_is_smooth(void **state)
{
    (void)state;
    // nginx's own example, then others worked out by hand.
    assert_sequence(view_new(BALANCE_ROUND_ROBIN, 3, (uint32_t[]){5, 1, 1}), "aabacaaaabacaa");
    assert_sequence(view_new(BALANCE_ROUND_ROBIN, 3, NULL), "abcabcabc");
    assert_sequence(view_new(BALANCE_ROUND_ROBIN, 2, (uint32_t[]){1, 2}), "babbab");
    assert_sequence(view_new(BALANCE_ROUND_ROBIN, 1, (uint32_t[]){7}), "aaa");
    assert_sequence(view_new(BALANCE_ROUND_ROBIN, 3, (uint32_t[]){2, 0, 1}), "acaaca");
}

static void test_round_robin_never_bunches(void **state)
{
    (void)state;
    static const uint32_t weights[] = {7, 3, 2, 1, 1};
    struct view *view = view_new(BALANCE_ROUND_ROBIN, 5, weights);
    unsigned counts[5] = {0};
    for (unsigned n = 1; n <= 1400; n++) {
        counts[pick(view)]++;
        for (unsigned i = 0; i < 5; i++) // never further than one and a bit from its due
            assert_true(fabs(counts[i] - n * weights[i] / 14.0) < 1.5);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(counts[i], 100 * weights[i]);
}

static void test_round_robin_without_one_that_is_down(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_ROUND_ROBIN, 3, NULL);
    assert_sequence(view, "abc");
    set_up(view, 1, false);
    assert_sequence(view, "acac");
    set_up(view, 1, true);
    unsigned counts[MOST];
    count_picks(view, 300, counts);
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(counts[i], 98, 102);
}

// ---- what holds for every policy ----

static const enum balance_policy policies[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_REQUEST, BALANCE_RANDOM,
                                               BALANCE_CONSISTENT_HASH, BALANCE_EWMA};

static void test_weights_are_honoured(void **state)
{
    (void)state;
    static const uint32_t weights[] = {5, 3, 2, 0};
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 4, weights);
        // Points of a ring lie by chance: 160 for each unit of weight are good for some percent.
        double tolerance = policies[p] == BALANCE_CONSISTENT_HASH ? 0.06 : 0.01;
        unsigned counts[MOST];
        count_picks(view, 50000, counts);
        for (unsigned i = 0; i < 4; i++)
            assert_share(counts[i], 50000, weights[i] / 10.0, tolerance);
        assert_int_equal(counts[3], 0);
    }
}

static void test_equal_weights_share_alike(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 8, NULL);
        unsigned counts[MOST];
        count_picks(view, 40000, counts);
        for (unsigned i = 0; i < 8; i++)
            assert_share(counts[i], 40000, 1 / 8.0, policies[p] == BALANCE_CONSISTENT_HASH ? 0.04 : 0.01);
    }
}

static void test_those_that_are_down_get_nothing(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 4, NULL);
        set_up(view, 0, false);
        set_up(view, 2, false);
        unsigned counts[MOST];
        count_picks(view, 1000, counts);
        assert_int_equal(counts[0] + counts[2], 0);
        assert_true(counts[1] > 300 && counts[3] > 300);
    }
}

static void eject(struct view *view, uint32_t i, uint64_t until_us)
{
    atomic_store(&view->known[i].ejector.until_us, until_us);
}

static void test_the_ejected_get_nothing_until_their_time_is_over(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 4, NULL);
        unsigned counts[MOST];
        eject(view, 0, NOW_US + 1);
        eject(view, 2, NOW_US);
        count_picks(view, 1000, counts);
        assert_int_equal(counts[0], 0);
        assert_true(counts[1] > 200 && counts[2] > 200 && counts[3] > 200);
        eject(view, 1, NOW_US + 1);
        set_up(view, 3, false); // down or ejected: one of four is left, and that is panic
        count_picks(view, 4000, counts);
        for (uint32_t i = 0; i < 4; i++)
            assert_true(counts[i] > 500);
    }
}

static void test_panic_counts_all_as_up(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 4, NULL);
        unsigned counts[MOST];
        for (uint32_t i = 0; i < 3; i++)
            set_up(view, i, false);
        count_picks(view, 4000, counts); // one of four is below a half
        for (uint32_t i = 0; i < 4; i++)
            assert_true(counts[i] > 500);
        view->balance.panic_threshold = 0.25; // and exactly a quarter
        count_picks(view, 100, counts);
        assert_int_equal(counts[3], 100);
        set_up(view, 3, false);
        assert_true(pick(view) >= 0);
        view->balance.panic_threshold = 0; // never
        assert_int_equal(pick(view), BALANCE_NONE);
    }
}

// 0.56 of 25 is 14, and a little more in binary.
static void test_exactly_the_threshold_is_no_panic(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_ROUND_ROBIN, 25, NULL);
    view->balance.panic_threshold = 0.56;
    for (uint32_t i = 0; i < 11; i++)
        set_up(view, i, false);
    for (unsigned n = 0; n < 50; n++)
        assert_true(pick(view) >= 11);
}

// What takes no requests says nothing about the health of those that do.
static void test_weight_0_does_not_count_for_panic(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_ROUND_ROBIN, 4, (uint32_t[]){1, 1, 0, 0});
    set_up(view, 2, false);
    set_up(view, 3, false);
    set_up(view, 0, false);
    assert_sequence(view, "bbb"); // one of two is up: no panic
}

static void test_none(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        assert_int_equal(pick(view_new(policies[p], 0, NULL)), BALANCE_NONE);
        assert_int_equal(pick(view_new(policies[p], 2, (uint32_t[]){0, 0})), BALANCE_NONE);
        assert_int_equal(pick(view_new(policies[p], 1, NULL)), 0);
    }
}

static void test_tried_are_not_taken_while_another_will_do(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 4, NULL);
        for (int n = 0; n < 200; n++) {
            uint64_t hash = rand_u64(&view->rand);
            assert_int_equal(pick_at(view, hash, 0xb, NOW_US), 2);
            int second = pick_at(view, hash, 0x5, NOW_US);
            assert_true(second == 1 || second == 3);
            assert_in_range(pick_at(view, hash, 0xf, NOW_US), 0, 3);
        }
        set_up(view, 2, false); // the only one not tried is down: better a tried one
        assert_int_not_equal(pick_at(view, 7, 0xb, NOW_US), 2);
    }
}

static void test_tried_beyond_64_endpoints(void **state)
{
    (void)state;
    for (size_t p = 0; p < countof(policies); p++) {
        struct view *view = view_new(policies[p], 70, NULL);
        for (int n = 0; n < 500; n++) {
            uint64_t hash = rand_u64(&view->rand);
            int first = pick_at(view, hash, 0, NOW_US);
            assert_int_not_equal(pick_at(view, hash, balance_bit((uint32_t)first), NOW_US), first);
            assert_in_range(pick_at(view, hash, ~(uint64_t)0, NOW_US), 0, 69);
        }
    }
}

static void test_slow_start(void **state)
{
    (void)state;
    static const struct {
        uint64_t age_us;
        double weight;
    } ages[] = {{1, 0.1}, {500000, 0.1}, {5000000, 0.5}, {9000000, 0.9}, {10000000, 1}, {90000000, 1}};
    for (size_t p = 0; p < countof(policies); p++) {
        if (policies[p] == BALANCE_CONSISTENT_HASH)
            continue; // keys stay where they belong; only the bound is lower
        for (size_t i = 0; i < countof(ages); i++) {
            struct view *view = view_new(policies[p], 2, NULL);
            unsigned counts[MOST];
            view->balance.slow_start_us = 10000000;
            atomic_store(&view->known[1].up_since_us, NOW_US - ages[i].age_us);
            count_picks(view, 20000, counts);
            assert_share(counts[1], 20000, ages[i].weight / (1 + ages[i].weight), 0.012);
        }
    }
}

static void test_slow_start_after_an_ejection(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_ROUND_ROBIN, 2, NULL);
    unsigned counts[MOST];
    view->balance.slow_start_us = 10000000;
    atomic_store(&view->known[1].up_since_us, 1); // it has long been up
    eject(view, 1, NOW_US - 5000000);
    count_picks(view, 3000, counts);
    assert_share(counts[1], 3000, 1 / 3.0, 0.01);
    eject(view, 1, NOW_US + 1); // still out: nothing of it but in panic, and then by its weight
    count_picks(view, 100, counts);
    assert_int_equal(counts[1], 0);
    view->balance.panic_threshold = 1;
    count_picks(view, 1000, counts);
    assert_int_equal(counts[1], 500);
}

static void test_slow_start_with_a_clock_that_is_behind(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_ROUND_ROBIN, 2, NULL);
    view->balance.slow_start_us = 10000000;
    atomic_store(&view->known[1].up_since_us, NOW_US + 50); // the control thread's turn began later
    unsigned counts[MOST];
    count_picks(view, 1100, counts);
    assert_share(counts[1], 1100, 1 / 11.0, 0.01);
}

// ---- load ----

static void begin(struct view *view, uint32_t i, unsigned times)
{
    while (times--)
        balance_began(&view->balance, i);
}

static void test_least_request_prefers_the_less_loaded(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_LEAST_REQUEST, 2, NULL);
    begin(view, 0, 3);
    begin(view, 1, 2);
    for (int n = 0; n < 100; n++)
        assert_int_equal(pick(view), 1);
    balance_ended(&view->balance, 0, 0, NOW_US);
    balance_ended(&view->balance, 0, 0, NOW_US);
    for (int n = 0; n < 100; n++)
        assert_int_equal(pick(view), 0);
    assert_int_equal(view->balance.active, 3);
    // The most loaded of many is never the better of two.
    view = view_new(BALANCE_LEAST_REQUEST, 10, NULL);
    for (uint32_t i = 0; i < 10; i++)
        begin(view, i, i == 4 ? 2 : 1);
    unsigned counts[MOST];
    count_picks(view, 2000, counts);
    assert_int_equal(counts[4], 0);
}

// Requests that stay: the load ends up by weight, and close to even.
static void test_least_request_levels_by_weight(void **state)
{
    (void)state;
    static const uint32_t weights[] = {4, 2, 1, 1};
    struct view *view = view_new(BALANCE_LEAST_REQUEST, 4, weights);
    for (int n = 0; n < 800; n++)
        begin(view, (uint32_t)pick(view), 1);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(fabs(view->endpoints[i].active - 100.0 * weights[i]) < 12);
    // Random by weight, for comparison, would be further off: two choices keep the maximum near the mean.
    view = view_new(BALANCE_LEAST_REQUEST, 50, NULL);
    uint32_t most = 0;
    for (int n = 0; n < 5000; n++)
        begin(view, (uint32_t)pick(view), 1);
    for (uint32_t i = 0; i < 50; i++)
        most = view->endpoints[i].active > most ? view->endpoints[i].active : most;
    assert_in_range(most, 100, 104);
}

static void test_ewma_prefers_the_fast(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_EWMA, 3, NULL);
    static const uint64_t latencies[] = {1000, 1000, 9000};
    unsigned counts[3] = {0};
    uint64_t now_us = NOW_US;
    for (int n = 0; n < 3000; n++, now_us += 1000) {
        int i = pick_at(view, 0, 0, now_us);
        counts[i]++;
        begin(view, (uint32_t)i, 1);
        balance_ended(&view->balance, (uint32_t)i, latencies[i], now_us);
    }
    assert_true(counts[2] >= 1); // tried once
    assert_true(counts[2] < 60);
    assert_share(counts[0], 3000, 0.5, 0.05);
}

static void test_ewma_by_cases(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_EWMA, 2, NULL);
    struct balance_endpoint *a = &view->endpoints[0], *b = &view->endpoints[1];
    begin(view, 0, 1);
    balance_ended(&view->balance, 0, 8000, NOW_US);
    assert_true(fabs(a->ewma_us - 8000) < 1e-6);
    for (int n = 0; n < 50; n++) // what was never measured is
        assert_int_equal(pick(view), 1);
    begin(view, 1, 1);
    for (int n = 0; n < 50; n++) // but by one request at a time
        assert_int_equal(pick(view), 0);
    balance_ended(&view->balance, 1, 2000, NOW_US);
    begin(view, 1, 2); // 2 ms × 3 against 8 ms × 1
    for (int n = 0; n < 50; n++)
        assert_int_equal(pick(view), 1);
    begin(view, 1, 4); // 2 ms × 7
    for (int n = 0; n < 50; n++)
        assert_int_equal(pick(view), 0);
    for (int n = 0; n < 6; n++)
        balance_ended(&view->balance, 1, 0, NOW_US);
    assert_true(fabs(b->ewma_us - 2000) < 1e-6); // no measure, no change
    begin(view, 1, 1);
    balance_ended(&view->balance, 1, 50000, NOW_US); // a peak counts at once
    assert_true(fabs(b->ewma_us - 50000) < 1e-6);
    begin(view, 1, 1);
    balance_ended(&view->balance, 1, 2000, NOW_US + 1000000); // calm by and by
    assert_in_range(b->ewma_us, 45000, 46000);
    // An old peak fades by itself, so that the endpoint is tried again.
    assert_int_equal(pick_at(view, 0, 0, NOW_US + 1000000), 0);
    a->ewma_at_us = NOW_US + 60000000;
    assert_int_equal(pick_at(view, 0, 0, NOW_US + 60000000), 1);
}

// ---- the ring ----

enum { KEYS = 20000 };

static void owners_of_keys(struct view *view, int *owners)
{
    for (unsigned key = 0; key < KEYS; key++) {
        char text[24];
        int n = snprintf(text, sizeof text, "client-%u", key);
        owners[key] = pick_at(view, balance_hash((struct str){text, (size_t)n}), 0, NOW_US);
        assert_true(owners[key] >= 0);
    }
}

static void test_ring_is_in_order(void **state)
{
    (void)state;
    const struct hash_ring *ring = view_new(BALANCE_CONSISTENT_HASH, 3, (uint32_t[]){1, 2, 0})->balance.ring;
    assert_int_equal(ring->count, 3 * RING_POINTS);
    unsigned points[3] = {0};
    for (uint32_t i = 0; i < ring->count; i++) {
        points[ring->owners[i]]++;
        if (i)
            assert_true(ring->hashes[i - 1] <= ring->hashes[i]);
    }
    assert_int_equal(points[0], RING_POINTS);
    assert_int_equal(points[1], 2 * RING_POINTS);
    for (uint32_t i = 0; i < ring->count; i++) {
        assert_int_equal(hash_ring_find(ring, ring->hashes[i]), i);
        assert_int_equal(hash_ring_find(ring, ring->hashes[i] + 1), (i + 1) % ring->count);
    }
    assert_int_equal(hash_ring_find(ring, 0), 0);
    assert_int_equal(hash_ring_find(ring, UINT64_MAX), 0);
}

static void test_huge_weights_make_no_huge_ring(void **state)
{
    (void)state;
    const struct hash_ring *ring =
        view_new(BALANCE_CONSISTENT_HASH, 3, (uint32_t[]){UINT32_MAX, UINT32_MAX, 1})->balance.ring;
    assert_in_range(ring->count, RING_POINTS_MAX / 2, RING_POINTS_MAX);
    unsigned last = 0;
    for (uint32_t i = 0; i < ring->count; i++)
        last += ring->owners[i] == 2;
    assert_int_equal(last, 1);
}

static void test_keys_stay_put(void **state)
{
    (void)state;
    static int first[KEYS], second[KEYS];
    owners_of_keys(view_new(BALANCE_CONSISTENT_HASH, 9, NULL), first);
    owners_of_keys(view_new(BALANCE_CONSISTENT_HASH, 9, NULL), second); // another gateway
    assert_memory_equal(first, second, sizeof first);
}

// Adding a tenth endpoint moves about a tenth of the keys, all of them to it; so does taking it away.
static void test_adding_one_moves_only_its_keys(void **state)
{
    (void)state;
    static int nine[KEYS], ten[KEYS];
    unsigned moved = 0;
    owners_of_keys(view_new(BALANCE_CONSISTENT_HASH, 9, NULL), nine);
    owners_of_keys(view_new(BALANCE_CONSISTENT_HASH, 10, NULL), ten);
    for (unsigned key = 0; key < KEYS; key++) {
        moved += nine[key] != ten[key];
        assert_true(nine[key] == ten[key] || ten[key] == 9);
    }
    assert_share(moved, KEYS, 0.1, 0.03);
}

static void test_one_going_down_moves_only_its_keys(void **state)
{
    (void)state;
    static int before[KEYS], after[KEYS];
    struct view *view = view_new(BALANCE_CONSISTENT_HASH, 10, NULL);
    owners_of_keys(view, before);
    set_up(view, 4, false);
    owners_of_keys(view, after);
    unsigned counts[10] = {0};
    for (unsigned key = 0; key < KEYS; key++) {
        assert_true(before[key] == 4 ? after[key] != 4 : after[key] == before[key]);
        counts[after[key]] += before[key] == 4;
    }
    for (int i = 0; i < 10; i++) // and they spread over the others
        assert_true(i == 4 || counts[i] > 0);
    set_up(view, 4, true);
    owners_of_keys(view, after);
    assert_memory_equal(before, after, sizeof before);
}

static void test_changing_a_weight_moves_little(void **state)
{
    (void)state;
    static int before[KEYS], after[KEYS];
    unsigned moved = 0;
    owners_of_keys(view_new(BALANCE_CONSISTENT_HASH, 4, (uint32_t[]){2, 2, 2, 2}), before);
    owners_of_keys(view_new(BALANCE_CONSISTENT_HASH, 4, (uint32_t[]){2, 2, 2, 3}), after);
    for (unsigned key = 0; key < KEYS; key++) {
        moved += before[key] != after[key];
        assert_true(before[key] == after[key] || after[key] == 3);
    }
    assert_share(moved, KEYS, 3 / 9.0 - 2 / 8.0, 0.03);
}

// All requests have one key, all stay: no endpoint ever holds more than 1.25 times its share, rounded up.
static void test_load_is_bounded(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1, 2, 1, 3};
    struct view *view = view_new(BALANCE_CONSISTENT_HASH, 5, weights);
    uint64_t hash = balance_hash(STR("everybody's favourite"));
    for (unsigned n = 1; n <= 4000; n++) {
        int i = pick_at(view, hash, 0, NOW_US);
        assert_true(i >= 0);
        begin(view, (uint32_t)i, 1);
        assert_true(view->endpoints[i].active <= ceil(1.25 * n * weights[i] / 8));
    }
    for (uint32_t i = 0; i < 5; i++)
        while (view->endpoints[i].active)
            balance_ended(&view->balance, i, 0, NOW_US);
    assert_int_equal(view->balance.active, 0);
    int home = pick_at(view, hash, 0, NOW_US); // an idle one takes its own again
    assert_int_equal(pick_at(view, hash, 0, NOW_US), home);
}

// Nobody below the bound: the load is with those that may not be taken. Then the bound gives way.
static void test_bound_gives_way(void **state)
{
    (void)state;
    struct view *view = view_new(BALANCE_CONSISTENT_HASH, 3, NULL);
    for (uint32_t i = 0; i < 3; i++)
        begin(view, i, 1);
    begin(view, 0, 5);
    begin(view, 2, 40);
    for (uint64_t hash = 0; hash < 100; hash++)
        assert_int_equal(pick_at(view, hash * 0x9e3779b97f4a7c15, 3, NOW_US), 2);
}

static void test_balance_hash_is_the_same_everywhere(void **state)
{
    (void)state;
    // XXH3-64 of these, as any other implementation computes them: a gateway of another build must agree.
    assert_true(balance_hash(STR("")) == 0x2d06800538d394c2);
    assert_true(balance_hash(STR("a")) == 0xe6c632b61e964e1f);
    assert_true(balance_hash(STR("abc")) == 0x78af5f94892f3950);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin_is_smooth),
        cmocka_unit_test(test_round_robin_never_bunches),
        cmocka_unit_test(test_round_robin_without_one_that_is_down),
        cmocka_unit_test(test_weights_are_honoured),
        cmocka_unit_test(test_equal_weights_share_alike),
        cmocka_unit_test(test_those_that_are_down_get_nothing),
        cmocka_unit_test(test_the_ejected_get_nothing_until_their_time_is_over),
        cmocka_unit_test(test_panic_counts_all_as_up),
        cmocka_unit_test(test_exactly_the_threshold_is_no_panic),
        cmocka_unit_test(test_weight_0_does_not_count_for_panic),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_tried_are_not_taken_while_another_will_do),
        cmocka_unit_test(test_tried_beyond_64_endpoints),
        cmocka_unit_test(test_slow_start),
        cmocka_unit_test(test_slow_start_after_an_ejection),
        cmocka_unit_test(test_slow_start_with_a_clock_that_is_behind),
        cmocka_unit_test(test_least_request_prefers_the_less_loaded),
        cmocka_unit_test(test_least_request_levels_by_weight),
        cmocka_unit_test(test_ewma_prefers_the_fast),
        cmocka_unit_test(test_ewma_by_cases),
        cmocka_unit_test(test_ring_is_in_order),
        cmocka_unit_test(test_huge_weights_make_no_huge_ring),
        cmocka_unit_test(test_keys_stay_put),
        cmocka_unit_test(test_adding_one_moves_only_its_keys),
        cmocka_unit_test(test_one_going_down_moves_only_its_keys),
        cmocka_unit_test(test_changing_a_weight_moves_little),
        cmocka_unit_test(test_load_is_bounded),
        cmocka_unit_test(test_bound_gives_way),
        cmocka_unit_test(test_balance_hash_is_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
