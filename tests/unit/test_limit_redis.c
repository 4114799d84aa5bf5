// Limits in a real Redis, as the workers of several gateways see them.
#include "test_limit_redis_fixture.h"

// ---- tests ----

static void test_one_bucket_for_all_gateways(void **state)
{
    (void)state;
    if (!begin_with("{a: {default: {rate: 1/h, burst: 20}}}"))
        skip();
    warm_up("a");
    unsigned admitted = 0;
    for (int i = 0; i < 60; i++)
        admitted += take(&members[i % GATEWAYS], "acme", "a") == LIMIT_PASSED;
    assert_int_equal(admitted, 20);
    assert_int_equal(take(&members[0], "other", "a"), LIMIT_PASSED);
}

static void test_a_refusal_is_remembered(void **state)
{
    (void)state;
    if (!begin_with("{b: {default: {rate: 10/s, burst: 2}}}"))
        skip();
    warm_up("b");
    const char *const names[] = {"b", NULL};
    struct request request;
    bool has_waited;
    while (take_of(&members[0], STR("flood"), names, &request, &has_waited) == LIMIT_PASSED)
        ;
    uint64_t wait_us = request.asking.refuser->wait_us;
    assert_in_range(wait_us, 1, 100000);
    // Nothing of what follows is asked of Redis, until a token has come back.
    uint64_t began_us = bench.loop.now_us;
    unsigned asked = 0, admitted = 0;
    while (bench.loop.now_us < began_us + SECOND) {
        admitted += take_of(&members[0], STR("flood"), names, &request, &has_waited) == LIMIT_PASSED;
        asked += has_waited;
        loop_turn(&bench.loop, 1);
    }
    uint64_t most = 2 + (bench.loop.now_us - began_us) * 10 / SECOND;
    assert_in_range(admitted, 1, most);
    assert_in_range(asked, admitted, admitted + most);
}

// Who has used up a slow limit is let through soon after it has become a fast one.
static void test_a_refusal_ends_when_the_limit_changes(void **state)
{
    (void)state;
    if (!begin_with("{z: {default: {rate: 1/h, burst: 3}}}"))
        skip();
    warm_up("z");
    while (take(&members[0], "slow", "z") == LIMIT_PASSED)
        ;
    assert_true(begin_with("{z: {default: {rate: 4/s, burst: 3}}}"));
    assert_int_equal(take(&members[0], "slow", "z"), LIMIT_REFUSED);
    turn_for(300); // what that one was told, and a little
    assert_int_equal(take(&members[0], "slow", "z"), LIMIT_PASSED);
}

static void test_what_is_said_of_it(void **state)
{
    (void)state;
    if (!begin_with("{c: {default: {rate: 5/h, burst: 5, quotas: [3/h]}}}"))
        skip();
    warm_up("c");
    const char *const names[] = {"c", NULL};
    struct request request;
    bool has_waited;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(take_of(&members[i], STR("x"), names, &request, &has_waited), LIMIT_PASSED);
        assert_int_equal(rule_remaining(&request.uses[0].rule, request.uses[0].state, bench.loop.now_us),
                         4 - i);
        assert_int_equal(rule_remaining(&request.uses[1].rule, request.uses[1].state, bench.loop.now_us),
                         2 - i);
    }
    assert_int_equal(take_of(&members[0], STR("x"), names, &request, &has_waited), LIMIT_REFUSED);
    assert_ptr_equal(request.asking.refuser, &request.uses[1]);
    uint64_t rest_us = 3600 * UINT64_C(1000000) - clock_wall_us() % (3600 * UINT64_C(1000000));
    assert_in_range(request.asking.refuser->wait_us, rest_us - SECOND, rest_us + SECOND);
    assert_int_equal(take_of(&members[0], STR("x"), names, &request, &has_waited), LIMIT_REFUSED);
    assert_false(has_waited);
    assert_in_range(request.asking.refuser->wait_us, rest_us - SECOND, rest_us + SECOND);
}

// Which window it is, Redis says.
static void test_clocks_that_differ(void **state)
{
    (void)state;
    if (!begin_with("{m: {default: {rate: 1000000/s, burst: 1000000, quotas: [30/h, 25/month]}}}"))
        skip();
    warm_up("m");
    unsigned admitted = 0;
    for (int i = 0; i < 90; i++) {
        struct member *member = &members[i % GATEWAYS];
        member->ahead_s = (i % GATEWAYS - 1) * 5 * 3600;
        admitted += take(member, "late", "m") == LIMIT_PASSED;
        member->ahead_s = 0;
    }
    assert_int_equal(admitted, 25);
}

// One bucket by whoever of the gateways, against bucket.c. When exactly Redis looks at its clock is not
// known, only between which two moments: so there are two models, one always early, one always late, and the
// truth is between their states. What is remembered is held to the same.
static void flood(struct rand *rand, const char *name, const struct bucket *bucket, uint64_t cost)
{
    enum { APART_US = 2000 /* that Redis's clock may run otherwise than ours, in this time */ };
    uint64_t early = 0, late = 0, end_us = clock_monotonic_us() + SECOND / 4, asked_us;
    do {
        loop_turn(&bench.loop, 0);
        asked_us = bench.loop.now_us - APART_US;
        bool passed = take(&members[rand_below(rand, GATEWAYS)], "all", name) == LIMIT_PASSED;
        uint64_t told_us = clock_monotonic_us() + APART_US;
        if (passed) {
            assert_int_equal(bucket_wait_us(bucket, early, told_us, cost), 0);
            early = bucket_charge(bucket, early, asked_us, cost);
            late = bucket_charge(bucket, late, told_us, cost);
        } else {
            assert_int_not_equal(bucket_wait_us(bucket, late, asked_us, cost), 0);
        }
    } while (asked_us < end_us);
}

static void test_random_limits_under_a_flood(void **state)
{
    (void)state;
    struct rand rand;
    rand_init_seed(&rand, 11);
    for (unsigned round = 0; round < 12; round++) {
        unsigned rate = 1 + rand_below(&rand, 300), cost = 1 + rand_below(&rand, 4);
        unsigned burst = cost + rand_below(&rand, 50);
        struct bucket bucket;
        struct str yaml = arena_printf(&fixture->arena, "{n%u: {cost: %u, default: {rate: %u/s, burst: %u}}}",
                                       round, cost, rate, burst);
        if (!begin_with(yaml.p))
            skip();
        const char *name = arena_printf(&fixture->arena, "n%u", round).p;
        warm_up(name);
        assert_true(bucket_compile(&bucket, rate, SECOND, burst, false));
        flood(&rand, name, &bucket, cost);
    }
}

static void test_all_or_nothing(void **state)
{
    (void)state;
    if (!begin_with("{d: {default: {rate: 1/h, burst: 10}}, e: {key: global, default: {rate: 1/h, burst: 3}},"
                    " here: {store: local, default: {rate: 1/h, burst: 10}},"
                    " shadow: {shadow: true, default: {rate: 1/h, burst: 1}}}"))
        skip();
    warm_up("d");
    const char *const names[] = {"shadow", "here", "d", "e", NULL};
    struct request request;
    bool has_waited;
    for (int i = 0; i < 3; i++)
        assert_int_equal(take_of(&members[0], STR("y"), names, &request, &has_waited), LIMIT_PASSED);
    assert_true(request.uses[0].wait_us > 0);
    assert_int_equal(take_of(&members[0], STR("y"), names, &request, &has_waited), LIMIT_REFUSED);
    assert_ptr_equal(request.asking.refuser, &request.uses[3]);
    assert_int_equal(take_of(&members[1], STR("y"), names, &request, &has_waited), LIMIT_REFUSED);
    assert_true(has_waited);
    // Of the ten three are gone: here, and in Redis.
    struct member *member = &members[0];
    for (int i = 0; i < 8; i++) {
        assert_int_equal(take(member, "y", "d"), i < 7 ? LIMIT_PASSED : LIMIT_REFUSED);
        assert_int_equal(take(member, "y", "here"), i < 7 ? LIMIT_PASSED : LIMIT_REFUSED);
    }
    assert_int_equal(take(&members[1], "y", "here"), LIMIT_PASSED); // a table of its own, and given back
}

static void test_costs_afterwards(void **state)
{
    (void)state;
    if (!begin_with("{f: {cost: header.X-Cost, default: {rate: 1/h, burst: 10}}}"))
        skip();
    warm_up("f");
    const char *const names[] = {"f", NULL};
    struct request request;
    bool has_waited;
    take_of(&members[0], STR("z"), names, &request, &has_waited);
    limit_settle(members[0].worker, members[0].table, &request.uses[0], 6, request.asking.now_s,
                 bench.loop.now_us);
    assert_int_equal(rule_remaining(&request.uses[0].rule, request.uses[0].state, bench.loop.now_us), 4);
    take_of(&members[1], STR("z"), names, &request, &has_waited);
    assert_int_equal(rule_remaining(&request.uses[0].rule, request.uses[0].state, bench.loop.now_us), 3);
    limit_settle(members[1].worker, members[1].table, &request.uses[0], 0, request.asking.now_s,
                 bench.loop.now_us);
    take_of(&members[2], STR("z"), names, &request, &has_waited);
    assert_int_equal(rule_remaining(&request.uses[0].rule, request.uses[0].state, bench.loop.now_us), 3);
}

// What a response gives back must not arrive in the quota's next window.
static void test_a_quota_that_ends_meanwhile(void **state)
{
    (void)state;
    if (!begin_with("{q: {cost: header.X-Cost, default: {rate: 1/h, burst: 20, quotas: [10/month]}}}"))
        skip();
    warm_up("q");
    static const uint64_t left[] = {9, 8, 8}; // the first goes when it is too late, the second in time
    for (unsigned i = 0; i < countof(left); i++) {
        struct request request;
        struct limit_use *quota = &request.uses[1];
        bool has_waited;
        take_of(&members[0], STR("r"), (const char *const[]){"q", NULL}, &request, &has_waited);
        assert_int_equal(rule_remaining(&quota->rule, quota->state, bench.loop.now_us), left[i]);
        if (i == 0)
            quota->rule.window.end_us = bench.loop.now_us + SECOND / 2;
        limit_settle(members[0].worker, members[0].table, quota, 0, request.asking.now_s, bench.loop.now_us);
    }
}

static void test_a_script_that_redis_has_forgotten(void **state)
{
    (void)state;
    if (!begin_with("{g: {default: {rate: 1/h, burst: 2}}}"))
        skip();
    warm_up("g");
    redis_say(&bench, STR("SCRIPT"), STR("FLUSH"));
    assert_int_equal(take(&members[0], "w", "g"), LIMIT_PASSED);
    redis_say(&bench, STR("FLUSHALL")); // the seed, too: whoever knows it puts it back
    struct limit_seed seed = {0};
    assert_true(limit_seed_get(&seed));
    uint64_t version = seed.version;
    uint64_t end_us = clock_monotonic_us() + REDIS_TEST_MS * UINT64_C(1000);
    while (!redis_say(&bench, STR("EXISTS"), STR("test:seed"))->integer) {
        assert_true(clock_monotonic_us() < end_us);
        turn_for(20);
    }
    assert_true(limit_seed_get(&seed));
    assert_int_equal(seed.version, version);
}

static void test_a_request_that_goes_meanwhile(void **state)
{
    (void)state;
    if (!begin_with("{h: {default: {rate: 1/h, burst: 5}}}"))
        skip();
    warm_up("h");
    struct request request;
    ask(&members[0], &request, STR("v"), (const char *const[]){"h", NULL});
    assert_int_equal(limit_decide(members[0].worker, &request.asking, bench.loop.now_us), LIMIT_WAIT);
    limit_forget(&request.asking);
    members[0].woken = false;
    memset(&request, 0xa5, sizeof request);
    turn_for(100);
    assert_false(members[0].woken);
}

// A reload without Redis, while a request waits for the second of two groups (as a Cluster has them).
static void test_redis_is_taken_away_meanwhile(void **state)
{
    (void)state;
    if (!begin_with("{one: {default: {rate: 1/h, burst: 9}}, two: {default: {rate: 1/h, burst: 1}}}"))
        skip();
    warm_up("one");
    struct request request;
    bool has_waited;
    assert_int_equal(
        take_of(&members[0], STR("acme"), (const char *const[]){"one", "two", NULL}, &request, &has_waited),
        LIMIT_PASSED);
    request.uses[1].group = request.asking.group = request.asking.groups = 2;
    request.uses[1].taken = LIMIT_NOT_TAKEN;
    request.asking.has_failed = true;
    const struct limits none = {0};
    limit_worker_update(members[0].worker, &none);
    assert_int_equal(decide(&members[0], &request, &has_waited), LIMIT_REFUSED);
    assert_false(has_waited);
}

// By the deadline: no turn of the loop that is later leaves it waiting.
static enum limit_result take_in_haste(struct member *member, const char *who, const char *name,
                                       bool *has_waited)
{
    struct request request;
    ask(member, &request, str_of(who), (const char *const[]){name, NULL});
    uint64_t late_us = bench.loop.now_us + HASTE_US + 50000;
    member->woken = false;
    enum limit_result result = limit_decide(member->worker, &request.asking, bench.loop.now_us);
    *has_waited = result == LIMIT_WAIT;
    while (result == LIMIT_WAIT) {
        assert_true(bench.loop.now_us < late_us);
        loop_turn(&bench.loop, 5);
        if (member->woken)
            result = limit_decide(member->worker, &request.asking, bench.loop.now_us);
    }
    return result;
}

// Frozen: nobody waits longer than the deadline, and soon nobody waits at all; with what this gateway knew
// its share goes on.
static void test_a_frozen_redis(void **state)
{
    (void)state;
    if (!begin_in_haste("{i: {default: {rate: 1/h, burst: 10}},"
                        " j: {on_redis_down: allow, default: {rate: 1/h, burst: 1}},"
                        " k: {on_redis_down: deny, default: {rate: 1/h, burst: 9}}}"))
        skip();
    warm_up("i");
    for (int i = 0; i < 4; i++)
        assert_int_equal(take(&members[0], "u", "i"), LIMIT_PASSED);
    kill(bench.server, SIGSTOP);
    unsigned waited = 0, admitted = 0;
    for (int i = 0; i < 40; i++) {
        bool has_waited;
        admitted += take_in_haste(&members[0], "u", "i", &has_waited) == LIMIT_PASSED;
        waited += has_waited;
    }
    assert_int_equal(waited, LIMIT_TROUBLE_IN_A_ROW);
    assert_int_equal(admitted, 6); // one gateway beats: its share is what was left
    for (int i = 0; i < 3; i++)
        assert_int_equal(take(&members[0], "u", "j"), LIMIT_PASSED);
    assert_int_equal(take(&members[0], "u", "k"), LIMIT_UNAVAILABLE);
    kill(bench.server, SIGCONT);
    uint64_t began_us = clock_monotonic_us();
    while (take(&members[0], "u", "k") == LIMIT_UNAVAILABLE) {
        loop_turn(&bench.loop, 5);
        assert_true(clock_monotonic_us() - began_us < 5 * (uint64_t)SECOND);
    }
    print_message("Redis decides again after %llu ms\n",
                  (unsigned long long)(clock_monotonic_us() - began_us) / 1000);
}

static void test_a_redis_that_refuses_to_write(void **state)
{
    (void)state;
    if (!begin_with("{l: {default: {rate: 1/h, burst: 10}}}"))
        skip();
    warm_up("l");
    assert_int_equal(take(&members[0], "t", "l"), LIMIT_PASSED);
    redis_say(&bench, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    unsigned admitted = 1;
    for (int i = 0; i < 40; i++)
        admitted += take(&members[0], "t", "l") == LIMIT_PASSED;
    assert_int_equal(admitted, 10);
    redis_say(&bench, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    warm_up("l");
    struct request request;
    bool has_waited;
    take_of(&members[0], STR("s"), (const char *const[]){"l", NULL}, &request, &has_waited);
    assert_true(has_waited && request.uses[0].taken == LIMIT_TAKEN_IN_REDIS);
}

static unsigned take_without_redis(const char *who)
{
    unsigned admitted = 0;
    redis_say(&bench, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    for (int i = 0; i < 40; i++)
        admitted += take(&members[0], who, "c") == LIMIT_PASSED;
    redis_say(&bench, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    warm_up("c");
    return admitted;
}

// What is taken without it is one share, whatever it says in between.
static void test_a_redis_that_comes_and_goes(void **state)
{
    (void)state;
    if (!begin_with("{c: {default: {rate: 1/h, burst: 10}}}"))
        skip();
    warm_up("c");
    assert_int_equal(take(&members[0], "x", "c"), LIMIT_PASSED);
    assert_int_equal(take_without_redis("x"), 9); // one gateway beats: its share is what was left
    struct request request;
    bool has_waited;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            take_of(&members[0], STR("x"), (const char *const[]){"c", NULL}, &request, &has_waited),
            LIMIT_PASSED);
        assert_int_equal(request.uses[0].taken, LIMIT_TAKEN_IN_REDIS);
        assert_int_equal(take_without_redis("x"), 0);
    }
}

static void test_shares(void **state)
{
    (void)state;
    struct bucket bucket, half;
    assert_true(bucket_compile(&bucket, 10, SECOND, 21, true));
    half = bucket_share(&bucket, 2, 1);
    assert_int_equal(half.burst, 10);
    assert_int_equal(bucket_wait_us(&half, bucket_charge(&half, 0, SECOND, 10), SECOND, 1), SECOND / 5);
    assert_int_equal(bucket_share(&bucket, 1000, 1).burst, 1);
    assert_int_equal(bucket_share(&bucket, 1000, 5).burst, 5);
    // Half empty is half a share.
    uint64_t state_of_all = bucket_charge(&bucket, 0, 100 * SECOND, 10);
    assert_in_range(bucket_remaining(&half, state_of_all, 100 * SECOND), 5, 6);
    // The slowest there can be.
    assert_true(bucket_compile(&bucket, 1, 86400 * (uint64_t)SECOND, 366, true));
    half = bucket_share(&bucket, BUCKET_SHARES, 366);
    assert_int_equal(bucket_wait_us(&half, bucket_charge(&half, 0, SECOND, 366), SECOND, 1),
                     86400 * (uint64_t)SECOND);
}

static void test_how_many_gateways_to_believe(void **state)
{
    (void)state;
    static const struct {
        uint32_t known;
        int64_t told;
        uint64_t heard_ms;
        uint32_t believed;
    } cases[] = {
        {1, 1, 0, 1},
        {1, 5, 0, 5}, // more is believed at once
        {5, 5, 0, 5},
        {5, 1, 0, 5}, // of a Redis that is back, fewer only when all had the time to be heard
        {5, 4, LIMIT_GATEWAY_GONE_S * 1000 - 1, 5},
        {5, 4, LIMIT_GATEWAY_GONE_S * 1000, 4},
        {5, 0, LIMIT_GATEWAY_GONE_S * 1000, 1},
        {1, -1, 0, 1},
        {1, INT64_MAX, 0, BUCKET_SHARES},
    };
    for (size_t i = 0; i < countof(cases); i++)
        assert_int_equal(limit_gateways_believe(cases[i].known, cases[i].told, cases[i].heard_ms),
                         cases[i].believed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_bucket_for_all_gateways),
        cmocka_unit_test(test_a_refusal_is_remembered),
        cmocka_unit_test(test_a_refusal_ends_when_the_limit_changes),
        cmocka_unit_test(test_what_is_said_of_it),
        cmocka_unit_test(test_clocks_that_differ),
        cmocka_unit_test(test_random_limits_under_a_flood),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_costs_afterwards),
        cmocka_unit_test(test_a_quota_that_ends_meanwhile),
        cmocka_unit_test(test_a_script_that_redis_has_forgotten),
        cmocka_unit_test(test_a_request_that_goes_meanwhile),
        cmocka_unit_test(test_redis_is_taken_away_meanwhile),
        cmocka_unit_test(test_a_frozen_redis),
        cmocka_unit_test(test_a_redis_that_refuses_to_write),
        cmocka_unit_test(test_a_redis_that_comes_and_goes),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_how_many_gateways_to_believe),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
