// Leased limits in a real Redis, as several gateways spend them: held to a model of one bucket.
#include "test_limit_redis_fixture.h"

#include <time.h>

static const char *const only_a[] = {"a", NULL};

// Tokens that are in Redis.
static uint64_t left_of(const struct limit_use *use)
{
    struct limit_query query = {
        .key = limit_redis_key(bench.settings.key_prefix, use->tag, use->face->label, &fixture->arena),
        .rule = use->rule,
        .cost = 1,
    };
    struct limit_told told;
    struct str *argv;
    bool passes;
    unsigned argc = limit_script_command(LIMIT_LOOK, &query, 1, (int64_t)(clock_wall_us() / SECOND),
                                         &fixture->arena, &argv);
    limit_script_spell_out(argv);
    uint64_t now_us = clock_monotonic_us();
    assert_true(limit_script_read(redis_do(&bench, argv, argc), &query, 1, now_us, &passes, &told));
    return rule_remaining(&told.rule, told.state, now_us);
}

static uint32_t held_by(const struct member *member, const struct limit_use *use)
{
    struct purse_view view = {0};
    purse_look(member->purses, limit_purse_key(use->key, &use->rule), bench.loop.now_us, &view);
    return view.tokens;
}

static uint32_t held_of(const struct limit_use *use)
{
    uint32_t held = 0;
    for (unsigned i = 0; i < GATEWAYS; i++)
        held += held_by(&members[i], use);
    return held;
}

// When all is idle nobody holds any, and so many are in Redis.
static void wait_left(const struct limit_use *use, uint64_t left)
{
    uint64_t end_us = clock_monotonic_us() + REDIS_TEST_MS * UINT64_C(1000);
    while (held_of(use) || left_of(use) != left) {
        if (clock_monotonic_us() > end_us)
            fail_msg("%u held, %llu left", held_of(use), (unsigned long long)left_of(use));
        turn_for(20);
    }
}

// ---- one gateway ----

static void test_nobody_waits_once_it_is_hot(void **state)
{
    (void)state;
    if (!begin_with("{a: {sync: leased, default: {rate: 1/m, burst: 4000}}}"))
        skip();
    warm_up("a");
    struct request request;
    bool has_waited;
    unsigned waited = 0;
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(take_of(&members[0], STR("hot"), only_a, &request, &has_waited), LIMIT_PASSED);
        assert_int_equal(request.uses[0].taken, LIMIT_TAKEN_OF_LEASE);
        waited += has_waited;
        uint64_t told = rule_remaining(&request.uses[0].rule, request.uses[0].state, bench.loop.now_us);
        assert_int_equal(told, 4000 - 1 - i); // there is no other gateway: exact
        if (i % 10 == 0)
            loop_turn(&bench.loop, 1);
    }
    print_message("%u of 1000 waited\n", waited);
    assert_in_range(waited, 1, 50);
    assert_true(held_by(&members[0], &request.uses[0]) > 0);
    wait_left(&request.uses[0], 3000);
}

static void test_now_and_then_is_exact(void **state)
{
    (void)state;
    if (!begin_with("{a: {sync: leased, default: {rate: 1/m, burst: 100}}}"))
        skip();
    warm_up("a");
    struct request request;
    bool has_waited;
    for (unsigned i = 1; i <= 4; i++) {
        take_of(&members[i % GATEWAYS], STR("cold"), only_a, &request, &has_waited);
        assert_true(has_waited);
        assert_int_equal(held_of(&request.uses[0]), 0);
        assert_int_equal(left_of(&request.uses[0]), 100 - i);
        turn_for(120);
    }
}

// Each tier's tokens cost another time.
static void test_tiers_have_purses_of_their_own(void **state)
{
    (void)state;
    if (!begin_with("{a: {sync: leased, tier_by: identity.roles, tiers: {gold: {rate: 100/h, burst: 100}},"
                    " default: {rate: 10/h, burst: 20}}}"))
        skip();
    warm_up("a");
    struct str roles[] = {STR("gold")};
    struct identity gold = {.consumer = STR("both"), .roles = {roles, 1}}, plain = {.consumer = STR("both")};
    struct request request, other;
    bool has_waited;
    for (unsigned i = 0; i < 10; i++) {
        ask_as(&members[0], &request, &gold, only_a);
        assert_int_equal(decide(&members[0], &request, &has_waited), LIMIT_PASSED);
    }
    assert_true(held_by(&members[0], &request.uses[0]) > 0);
    ask_as(&members[0], &other, &plain, only_a);
    assert_int_equal(decide(&members[0], &other, &has_waited), LIMIT_PASSED);
    assert_true(has_waited);
    wait_left(&request.uses[0], 100 - 10 - 10); // one of ten times the price
}

static void test_a_question_that_is_answered_too_late(void **state)
{
    (void)state;
    if (!begin_in_haste("{a: {sync: leased, default: {rate: 1/m, burst: 1000}}}"))
        skip();
    warm_up("a");
    struct request request;
    bool has_waited;
    do
        take_of(&members[0], STR("late"), only_a, &request, &has_waited);
    while (held_by(&members[0], &request.uses[0]) < 20);
    uint32_t held = held_by(&members[0], &request.uses[0]);
    kill(bench.server, SIGSTOP);
    unsigned admitted = 0;
    for (unsigned i = 0; i < held; i++) { // they are paid
        take_of(&members[0], STR("late"), only_a, &request, &has_waited);
        admitted += request.uses[0].taken == LIMIT_TAKEN_OF_LEASE;
        assert_false(has_waited);
    }
    assert_int_equal(admitted, held);
    take_of(&members[0], STR("late"), only_a, &request, &has_waited);
    assert_true(request.uses[0].is_degraded);
    kill(bench.server, SIGCONT);
    turn_for(4 * LIMIT_PROBE_MS);
}

// Of this thread: others may want the machine as well.
static uint64_t cpu_us(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * SECOND + (uint64_t)spent.tv_nsec / 1000;
}

// Of one limit in this process, and of one that is leased, its questions to Redis included.
static void test_what_a_decision_costs(void **state)
{
    (void)state;
    enum { DECISIONS = 200000, TURN = 100 };
    static const char *const here[] = {"here", NULL};
    if (!begin_with("{here: {store: local, default: {rate: 1000000/s}},"
                    " a: {sync: leased, default: {rate: 1000000/s, burst: 1000000}}}"))
        skip();
    warm_up("a");
    unsigned passed = 0, waited = 0;
    uint64_t began = cpu_us();
    for (unsigned i = 0; i < DECISIONS; i++) {
        struct request request;
        ask(&members[0], &request, STR("quick"), here);
        passed += !limits_take(members[0].table, request.uses, request.asking.count, bench.loop.now_us);
        if (i % TURN == 0)
            loop_turn(&bench.loop, 0);
    }
    uint64_t local_us = cpu_us() - began;
    began = cpu_us();
    for (unsigned i = 0; i < DECISIONS; i++) {
        struct request request;
        bool has_waited;
        ask(&members[0], &request, STR("quick"), only_a);
        passed += decide(&members[0], &request, &has_waited) == LIMIT_PASSED;
        waited += has_waited;
        if (i % TURN == 0)
            loop_turn(&bench.loop, 0);
    }
    uint64_t leased_us = cpu_us() - began;
    assert_int_equal(passed, 2 * DECISIONS);
    print_message("a decision: %.0f ns local, %.0f ns leased; %u of %d waited\n",
                  (double)local_us * 1000 / DECISIONS, (double)leased_us * 1000 / DECISIONS, waited,
                  DECISIONS);
}

// ---- every token is accounted for ----

struct books {
    uint64_t spent;
    struct limit_use use;
};

// A request of one of the gateways, and what becomes of it.
static void trade(struct rand *rand, struct books *books)
{
    static const char *const alone[] = {"a", NULL}, *const before[] = {"few", "a", NULL},
                             *const after[] = {"a", "few", NULL};
    const char *const *const names[] = {alone, alone, alone, before, after};
    struct member *member = &members[rand_below(rand, rand_below(rand, 3) ? 1 : GATEWAYS)];
    unsigned which = rand_below(rand, countof(names));
    struct request request;
    bool has_waited;
    enum limit_result result = take_of(member, STR("acme"), names[which], &request, &has_waited);
    books->use = request.uses[which == 3];
    if (result != LIMIT_PASSED)
        return;
    struct limit_use *use = &request.uses[which == 3];
    books->spent += use->cost;
    if (rand_below(rand, 3))
        return;
    uint64_t cost = rand_below(rand, 4);
    limit_settle(member->worker, member->table, use, cost, request.asking.now_s, bench.loop.now_us);
    books->spent += cost;
    books->spent--;
}

static void test_every_token_is_accounted_for(void **state)
{
    (void)state;
    enum { BURST = 3000, ROUNDS = 1500 };
    if (!begin_with("{a: {sync: leased, cost: header.X-Cost, default: {rate: 1/h, burst: 3000}},"
                    " few: {default: {rate: 1/h, burst: 50}}}"))
        skip();
    warm_up("few");
    struct rand rand;
    struct books books = {0};
    rand_init_seed(&rand, 5);
    for (unsigned i = 0; i < ROUNDS; i++) {
        trade(&rand, &books);
        if (!rand_below(&rand, 20))
            loop_turn(&bench.loop, 1);
        if (!rand_below(&rand, 400)) // a reload
            limit_worker_update(members[0].worker, &members[0].limits);
    }
    wait_left(&books.use, BURST - books.spent);
}

// ---- against a model ----

// What gateways hold, and what may be on its way to them.
static uint64_t held_at_most(const struct limit_use *use, uint64_t most)
{
    uint64_t held = 0;
    for (unsigned i = 0; i < GATEWAYS; i++) {
        struct purse_view view = {0};
        purse_look(members[i].purses, limit_purse_key(use->key, &use->rule), bench.loop.now_us, &view);
        assert_true(view.tokens <= most);
        held += view.is_busy ? most : view.tokens;
    }
    return held;
}

// From the first request on no more than the burst and what has come back; and who is refused would not have
// found it in a bucket that lacks what gateways hold.
static void flood(struct rand *rand, const char *const *names, const struct bucket *bucket, uint64_t cost)
{
    enum { APART_US = 2000 /* that Redis's clock may run otherwise than ours, in this time */ };
    uint64_t late = 0, admitted = 0, began_us = clock_monotonic_us() - APART_US, asked_us;
    uint64_t end_us = began_us + SECOND / 3, most = purse_most(bucket->burst, 1, cost);
    unsigned favourite = rand_below(rand, GATEWAYS), refused = 0, waited = 0;
    do {
        if (!rand_below(rand, 4))
            loop_turn(&bench.loop, rand_below(rand, 2));
        asked_us = bench.loop.now_us - APART_US; // by which a refusal is remembered
        struct member *member = &members[rand_below(rand, 2) ? favourite : rand_below(rand, GATEWAYS)];
        struct request request;
        bool has_waited, passed = take_of(member, STR("all"), names, &request, &has_waited) == LIMIT_PASSED;
        uint64_t told_us = clock_monotonic_us() + APART_US;
        waited += has_waited;
        if (passed) {
            admitted += cost;
            assert_true(admitted * bucket->step <= bucket->span + (told_us - began_us) * bucket->parts);
            late = bucket_charge(bucket, late, told_us, cost);
        } else if (told_us < end_us) { // later, a sweep may have sent back what nobody holds then
            uint64_t wanted = cost + held_at_most(&request.uses[0], most);
            refused += wanted <= bucket->burst;
            assert_int_not_equal(bucket_wait_us(bucket, late, asked_us, wanted), 0);
        }
    } while (asked_us < end_us);
    print_message("%llu tokens admitted, %u requests refused, %u waited\n", (unsigned long long)admitted,
                  refused, waited);
}

static void test_random_limits_under_a_flood(void **state)
{
    (void)state;
    struct rand rand;
    rand_init_seed(&rand, 13);
    for (unsigned round = 0; round < 12; round++) {
        unsigned rate = 1 + rand_below(&rand, 2000), cost = 1 + rand_below(&rand, 4);
        unsigned burst = cost + rand_below(&rand, 500);
        struct bucket bucket;
        struct str yaml =
            arena_printf(&fixture->arena, "{n%u: {sync: leased, cost: %u, default: {rate: %u/s, burst: %u}}}",
                         round, cost, rate, burst);
        if (!begin_with(yaml.p))
            skip();
        const char *name = arena_printf(&fixture->arena, "n%u", round).p;
        warm_up(name);
        assert_true(bucket_compile(&bucket, rate, SECOND, burst, false));
        flood(&rand, (const char *const[]){name, NULL}, &bucket, cost);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_waits_once_it_is_hot),
        cmocka_unit_test(test_now_and_then_is_exact),
        cmocka_unit_test(test_tiers_have_purses_of_their_own),
        cmocka_unit_test(test_what_a_decision_costs),
        cmocka_unit_test(test_every_token_is_accounted_for),
        cmocka_unit_test(test_random_limits_under_a_flood),
        cmocka_unit_test(test_a_question_that_is_answered_too_late),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
