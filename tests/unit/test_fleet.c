// A fleet of one server: what goes in comes out there.
#include "unit.h"

#include "redis/keeper.h"
#include "test_fleet_fixture.h"

static void test_commands_go_to_the_server(void **state)
{
    (void)state;
    struct bench *bench = bench_new(1);
    start(bench, 0); // the url is an address
    assert_false(redis_fleet_is_up(bench->fleet));
    ask(bench, "GET", "early", 0);
    assert_int_equal(bench->ear.replies, 0); // never from inside
    assert_heard(bench, 0, REDIS_DOWN, "");
    until(bench, bench->ear.ups == 1);
    assert_true(redis_fleet_is_up(bench->fleet));
    ask(bench, "GET", "k", 0);
    assert_heard(bench, 1, REDIS_OK, "OK");
    assert_string_equal(bench->servers[0].last, "GET k");
    bench_free(bench);
}

static void test_down_is_told_once(void **state)
{
    (void)state;
    struct bench *bench = bench_new(1);
    start(bench, 1);
    until(bench, bench->ear.ups == 1);
    server_stop(&bench->servers[0]);
    until(bench, bench->ear.downs == 1);
    assert_false(redis_fleet_is_up(bench->fleet));
    turn_for(bench, 300); // tries in vain
    assert_int_equal(bench->ear.downs, 1);
    server_start(&bench->servers[0]);
    until(bench, bench->ear.ups == 2);
    ask(bench, "GET", "k", 0);
    assert_heard(bench, 0, REDIS_OK, "OK");
    bench_free(bench);
}

static void test_subscribing_beside_the_commands(void **state)
{
    (void)state;
    struct bench *bench = bench_new(1);
    start(bench, 1);
    redis_fleet_subscribe(bench->fleet, STR("deny"));
    until(bench, bench->ear.subscribed == 1 && bench->ear.ups == 1);
    assert_true(redis_fleet_is_subscribed(bench->fleet));
    server_say(&bench->servers[0], (unsigned)bench->servers[0].subscribed,
               ">3\r\n+message\r\n+deny\r\n+x\r\n");
    until(bench, bench->ear.messages == 1);
    assert_string_equal(bench->ear.message, "deny=x");
    assert_int_equal(bench->servers[0].accepted, 2);
    bench_free(bench);
}

static void test_what_is_under_way_fails_with_the_fleet(void **state)
{
    (void)state;
    struct bench *bench = bench_new(1);
    start(bench, 1);
    until(bench, bench->ear.ups == 1);
    ask(bench, "GET", "k", 0);
    redis_fleet_free(bench->fleet);
    bench->fleet = NULL;
    assert_int_equal(bench->ear.replies, 1);
    assert_heard(bench, 0, REDIS_DOWN, "");
    bench_free(bench);
}

static void test_sameness(void **state)
{
    (void)state;
    struct bench *bench = bench_new(2);
    start(bench, 1);
    struct redis_fleet *first = bench->fleet;
    start(bench, 1);
    assert_true(redis_fleet_is_same(first, bench->fleet));
    redis_fleet_free(bench->fleet);
    start(bench, 2);
    assert_false(redis_fleet_is_same(first, bench->fleet));
    redis_fleet_free(bench->fleet);
    bench->settings.password = STR("other");
    start(bench, 1);
    assert_false(redis_fleet_is_same(first, bench->fleet));
    redis_fleet_free(first);
    bench_free(bench);
}

// ---- across reloads ----

static bool reload(struct redis_keeper *keeper, struct bench *bench, unsigned seeds)
{
    static const struct redis_fleet_events events = {.on_up = on_up, .on_down = on_down};
    struct redis_fleet_options options = {.access = {.loop = &bench->loop,
                                                     .settings = seeds ? &bench->settings : NULL,
                                                     .addrs = bench->addrs,
                                                     .addr_count = seeds,
                                                     .metrics = bench->metrics},
                                          .purpose = "tests",
                                          .events = &events,
                                          .context = &bench->ear};
    return redis_keeper_update(keeper, &options);
}

static void ask_kept(struct redis_keeper *keeper, struct bench *bench, const char *key)
{
    bench->fleet = keeper->fleet;
    ask(bench, "GET", key, 0);
    bench->fleet = NULL;
}

static void test_a_fleet_is_kept_for_as_long_as_it_is_the_same(void **state)
{
    (void)state;
    struct bench *bench = bench_new(1);
    struct redis_keeper keeper;
    redis_keeper_init(&keeper, &bench->loop);
    assert_false(reload(&keeper, bench, 0)); // there was none
    assert_true(reload(&keeper, bench, 1));
    until(bench, bench->ear.ups == 1);
    struct redis_fleet *first = keeper.fleet;
    assert_false(reload(&keeper, bench, 1));
    assert_ptr_equal(keeper.fleet, first);
    ask_kept(&keeper, bench, "k");
    assert_heard(bench, 0, REDIS_OK, "OK");
    assert_true(reload(&keeper, bench, 0));
    assert_null(keeper.fleet);
    redis_keeper_fini(&keeper);
    bench_free(bench);
}

static void test_one_that_is_replaced_may_answer(void **state)
{
    (void)state;
    struct bench *bench = bench_new(2);
    struct redis_keeper keeper;
    redis_keeper_init(&keeper, &bench->loop);
    bench->settings.deadline_us = 1000000; // twice that it is kept
    assert_true(reload(&keeper, bench, 1));
    until(bench, bench->ear.ups == 1);
    ask_kept(&keeper, bench, "before");
    assert_true(reload(&keeper, bench, 2));
    assert_int_equal(bench->ear.replies, 0);
    assert_heard(bench, 0, REDIS_OK, "OK");
    until(bench, bench->ear.ups == 2);
    assert_non_null(keeper.retired);
    until(bench, !keeper.retired);
    ask_kept(&keeper, bench, "after");
    redis_keeper_fini(&keeper);
    assert_heard(bench, 1, REDIS_DOWN, "");
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_go_to_the_server),
        cmocka_unit_test(test_down_is_told_once),
        cmocka_unit_test(test_subscribing_beside_the_commands),
        cmocka_unit_test(test_what_is_under_way_fails_with_the_fleet),
        cmocka_unit_test(test_sameness),
        cmocka_unit_test(test_a_fleet_is_kept_for_as_long_as_it_is_the_same),
        cmocka_unit_test(test_one_that_is_replaced_may_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
