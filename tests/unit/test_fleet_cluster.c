// A Cluster of servers that say what the test tells them to.
#include "unit.h"

#include "test_fleet_fixture.h"

#include "redis/slots.h"

static char map_text[4096];                // what all answer to CLUSTER SLOTS
static char moved[SERVERS][96];            // what a server answers to other commands; "" its number
static unsigned maps_read, asked[SERVERS]; // asked: but for maps

static const char *answer(struct server *server, const struct resp_value *argv, uint32_t argc)
{
    unsigned at = (unsigned)(server - server->bench->servers);
    (void)argc;
    if (str_eq(argv[0].text, STR("CLUSTER"))) {
        maps_read++;
        return map_text;
    }
    asked[at]++;
    if (str_eq(argv[0].text, STR("ASKING")))
        return "+OK\r\n";
    return moved[at][0] ? moved[at] : said(server, "+server %u\r\n", at);
}

// The slots in equal parts among the first so many servers.
static void share_slots(struct bench *bench, unsigned masters)
{
    size_t n = (size_t)snprintf(map_text, sizeof map_text, "*%u\r\n", masters);
    for (unsigned i = 0; i < masters; i++)
        n += (size_t)snprintf(
            map_text + n, sizeof map_text - n, "*3\r\n:%u\r\n:%u\r\n*3\r\n+127.0.0.1\r\n:%u\r\n+id\r\n",
            REDIS_SLOTS * i / masters, REDIS_SLOTS * (i + 1) / masters - 1, bench->servers[i].port);
}

static struct bench *cluster_new(unsigned servers, unsigned masters)
{
    struct bench *bench = bench_new(servers);
    memset(moved, 0, sizeof moved);
    memset(asked, 0, sizeof asked);
    maps_read = 0;
    bench->settings.mode = REDIS_CLUSTER;
    for (unsigned i = 0; i < servers; i++)
        bench->servers[i].answer = answer;
    share_slots(bench, masters);
    return bench;
}

static struct bench *cluster_up(unsigned servers, unsigned masters)
{
    struct bench *bench = cluster_new(servers, masters);
    start(bench, 1);
    until(bench, bench->ear.ups == 1);
    return bench;
}

// So many maps have been read when it is no more read for want of a connection.
static unsigned maps_at_rest(struct bench *bench)
{
    turn_for(bench, 1000);
    return maps_read;
}

// "foo" is in slot 12182, "bar" in 5061, "{user1000}" in 3443: of three masters, 2, 0 and 0.

static void test_commands_go_to_their_slot(void **state)
{
    (void)state;
    struct bench *bench = cluster_new(3, 3);
    start(bench, 1); // one of them is enough
    ask(bench, "GET", "early", 0);
    assert_int_equal(bench->ear.replies, 0); // never from inside
    assert_heard(bench, 0, REDIS_DOWN, "");
    until(bench, bench->ear.ups == 1);
    ask(bench, "GET", "foo", 0);
    assert_heard(bench, 1, REDIS_OK, "server 2");
    ask(bench, "GET", "bar", 0);
    assert_heard(bench, 2, REDIS_OK, "server 0");
    ask(bench, "GET", "x{foo}y", 0);
    assert_heard(bench, 3, REDIS_OK, "server 2");
    assert_in_range(maps_read, 1, 2); // once more when a connection took its time, but for no command
    bench_free(bench);
}

static void test_moved_is_followed_and_remembered(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(4, 3);
    unsigned read = maps_at_rest(bench);
    snprintf(moved[2], sizeof moved[2], "-MOVED 12182 127.0.0.1:%u\r\n", bench->servers[3].port);
    ask(bench, "GET", "foo", 0); // that one is connected first
    assert_heard(bench, 0, REDIS_OK, "server 3");
    unsigned before = asked[2];
    for (unsigned i = 1; i < 20; i++) {
        ask(bench, "GET", "foo", 0);
        assert_heard(bench, i, REDIS_OK, "server 3");
    }
    assert_int_equal(asked[2], before);
    until(bench, maps_read > read); // which still says 2
    ask(bench, "GET", "foo", 0);
    assert_heard(bench, 20, REDIS_OK, "server 3");
    assert_int_equal(bench->ear.downs, 0);
    bench_free(bench);
}

static void test_the_map_is_read_at_most_once_a_second(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(4, 3);
    snprintf(moved[2], sizeof moved[2], "-MOVED 12182 127.0.0.1:%u\r\n", bench->servers[3].port);
    snprintf(moved[3], sizeof moved[3], "-MOVED 12182 127.0.0.1:%u\r\n", bench->servers[2].port);
    uint64_t began_us = clock_monotonic_us(), took_us = 0;
    for (unsigned i = 0; took_us < 1500000; took_us = clock_monotonic_us() - began_us, i++) {
        ask(bench, "GET", "foo", 0);
        assert_heard(bench, i % HEARD, REDIS_DOWN, ""); // five times to and fro
        bench->ear.replies = bench->ear.replies % HEARD;
    }
    assert_in_range(maps_read, 2, 2 + took_us / 1000000);
    bench_free(bench);
}

static void test_ask_is_followed_this_once(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(4, 3);
    unsigned read = maps_at_rest(bench);
    snprintf(moved[2], sizeof moved[2], "-ASK 12182 127.0.0.1:%u\r\n", bench->servers[3].port);
    for (unsigned i = 0; i < 3; i++) {
        unsigned before = asked[3];
        ask(bench, "GET", "foo", 0);
        assert_heard(bench, i, REDIS_OK, "server 3");
        assert_int_equal(asked[3] - before, 2); // ASKING before it
    }
    moved[2][0] = 0;
    ask(bench, "GET", "foo", 0);
    assert_heard(bench, 3, REDIS_OK, "server 2");
    turn_for(bench, 1100); // it would be read by now
    assert_int_equal(maps_read, read);
    bench_free(bench);
}

static void test_the_deadline_is_one_for_all_redirections(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(5, 3);
    snprintf(moved[2], sizeof moved[2], "-ASK 12182 127.0.0.1:%u\r\n", bench->servers[4].port);
    bench->servers[4].frozen = true; // its connection is not made in time
    uint64_t began_us = clock_monotonic_us();
    ask(bench, "GET", "foo", 100000);
    assert_heard(bench, 0, REDIS_DEADLINE, "");
    uint64_t took_us = clock_monotonic_us() - began_us;
    assert_in_range(took_us, 90000, bench->settings.deadline_us - 1);
    assert_int_equal(bench->ear.downs, 0);
    bench_free(bench);
}

static void test_errors_of_the_cluster(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(3, 3);
    static const struct {
        const char *error;
        enum redis_failure failure;
        const char *text;
    } cases[] = {
        {"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", REDIS_OK,
         "TRYAGAIN Multiple keys request during rehashing of slot"},
        {"-CLUSTERDOWN The cluster is down\r\n", REDIS_DOWN, ""},
        {"-MOVED 12182 nowhere.internal:1\r\n", REDIS_DOWN, ""},
        {"-MOVED 12182 ?:1\r\n", REDIS_DOWN, ""},
        {"-MOVED 99999 127.0.0.1:1\r\n", REDIS_OK, "MOVED 99999 127.0.0.1:1"},
        {"-OOM command not allowed\r\n", REDIS_OK, "OOM command not allowed"},
    };
    for (unsigned i = 0; i < countof(cases); i++) {
        snprintf(moved[2], sizeof moved[2], "%s", cases[i].error);
        ask(bench, "GET", "foo", 0);
        assert_heard(bench, i, cases[i].failure, cases[i].text);
    }
    bench_free(bench);
}

static void test_a_failover(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(4, 3);
    server_stop(&bench->servers[2]);
    until(bench, bench->ear.downs == 1);
    ask(bench, "GET", "foo", 0);
    ask(bench, "GET", "bar", 0);
    assert_heard(bench, 0, REDIS_DOWN, "");
    assert_heard(bench, 1, REDIS_OK, "server 0"); // the others' slots are served
    uint16_t port = bench->servers[2].port;       // the fourth takes over
    bench->servers[2].port = bench->servers[3].port;
    share_slots(bench, 3);
    bench->servers[2].port = port;
    until(bench, bench->ear.ups == 2);
    ask(bench, "GET", "foo", 0);
    assert_heard(bench, 2, REDIS_OK, "server 3");
    bench_free(bench);
}

static void test_all_known_ones_are_sources(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(4, 3);
    share_slots(bench, 4);
    server_stop(&bench->servers[0]); // the only one that is configured
    until(bench, bench->servers[3].accepted);
    bench_free(bench);
}

static void test_hostile_maps(void **state)
{
    (void)state;
    static const char *const bad[] = {"*0\r\n",
                                      "+OK\r\n",
                                      "-ERR no\r\n",
                                      "$-1\r\n",
                                      "*1000000\r\n",
                                      "HTTP\r\n",
                                      "*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n+127.0.0.1\r\n:1\r\n",
                                      ""};
    for (unsigned i = 0; i < countof(bad); i++) {
        struct bench *bench = cluster_new(3, 3);
        snprintf(map_text, sizeof map_text, "%s", bad[i]);
        start(bench, 2);
        until(bench, maps_read >= 2); // the next one is asked
        assert_int_equal(bench->ear.ups, 0);
        share_slots(bench, 3);
        until(bench, bench->ear.ups == 1);
        bench_free(bench);
    }
}

static void test_redirections_to_a_thousand_places(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(3, 3);
    for (unsigned i = 0; i < SLOT_NODES + 200; i++) { // nobody is there
        snprintf(moved[2], sizeof moved[2], "-ASK 12182 127.1.%u.%u:9\r\n", i / 250, 1 + i % 250);
        ask(bench, "GET", "foo", 0);
        until(bench, bench->ear.replies == 1);
        assert_int_not_equal(bench->ear.heard[0].failure, REDIS_OK);
        bench->ear.replies = 0;
    }
    moved[2][0] = 0;
    ask(bench, "GET", "foo", 0);
    assert_heard(bench, 0, REDIS_OK, "server 2");
    bench_free(bench);
}

static void test_subscribing_anywhere(void **state)
{
    (void)state;
    struct bench *bench = cluster_new(3, 3);
    start(bench, 3);
    redis_fleet_subscribe(bench->fleet, STR("deny"));
    until(bench, bench->ear.ups == 1 && bench->ear.subscribed == 1);
    unsigned at = 0;
    while (bench->servers[at].subscribed < 0)
        at++;
    server_stop(&bench->servers[at]);
    until(bench, bench->ear.subscribed == 2);
    unsigned next = 0;
    while (bench->servers[next].subscribed < 0)
        next++;
    assert_int_not_equal(at, next);
    server_say(&bench->servers[next], (unsigned)bench->servers[next].subscribed,
               ">3\r\n+message\r\n+deny\r\n+x\r\n");
    until(bench, bench->ear.messages == 1);
    bench_free(bench);
}

static void test_what_waits_fails_with_the_fleet(void **state)
{
    (void)state;
    struct bench *bench = cluster_up(5, 3);
    snprintf(moved[2], sizeof moved[2], "-ASK 12182 127.0.0.1:%u\r\n", bench->servers[4].port);
    bench->servers[4].frozen = true;
    ask(bench, "GET", "foo", 5000000);
    turn_for(bench, 50);
    ask(bench, "GET", "bar", 5000000);
    redis_fleet_free(bench->fleet);
    bench->fleet = NULL;
    assert_int_equal(bench->ear.replies, 2);
    assert_heard(bench, 0, REDIS_DOWN, "");
    assert_heard(bench, 1, REDIS_DOWN, "");
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_go_to_their_slot),
        cmocka_unit_test(test_moved_is_followed_and_remembered),
        cmocka_unit_test(test_the_map_is_read_at_most_once_a_second),
        cmocka_unit_test(test_ask_is_followed_this_once),
        cmocka_unit_test(test_the_deadline_is_one_for_all_redirections),
        cmocka_unit_test(test_errors_of_the_cluster),
        cmocka_unit_test(test_a_failover),
        cmocka_unit_test(test_all_known_ones_are_sources),
        cmocka_unit_test(test_hostile_maps),
        cmocka_unit_test(test_redirections_to_a_thousand_places),
        cmocka_unit_test(test_subscribing_anywhere),
        cmocka_unit_test(test_what_waits_fails_with_the_fleet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
