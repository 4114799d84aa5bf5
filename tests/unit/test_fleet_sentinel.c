// Sentinels, a master and others that say what the test tells them to: 0 to 2 are sentinels, the others
// servers.
#include "unit.h"

#include "test_fleet_fixture.h"

enum { FIRST = 3, SECOND = 4 };

static unsigned master;                                                  // as the sentinels see it
static const char *sentinels_say, *roles[SERVERS], *others_say[SERVERS]; // NULL: as it should be
static unsigned asked;

static const char *answer(struct server *server, const struct resp_value *argv, uint32_t argc)
{
    struct bench *bench = server->bench;
    unsigned at = (unsigned)(server - bench->servers);
    (void)argc;
    if (str_eq(argv[0].text, STR("SENTINEL"))) {
        asked++;
        assert_true(argc == 3 && str_eq(argv[2].text, STR("mymaster")));
        return sentinels_say
                   ? sentinels_say
                   : said(server, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05u\r\n", bench->servers[master].port);
    }
    if (str_eq(argv[0].text, STR("ROLE")))
        return roles[at] ? roles[at] : "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    return others_say[at] ? others_say[at] : said(server, "+server %u\r\n", at);
}

static struct bench *sentinels_new(void)
{
    struct bench *bench = bench_new(5);
    bench->settings.mode = REDIS_SENTINEL;
    bench->settings.master = STR("mymaster");
    memset(roles, 0, sizeof roles);
    memset(others_say, 0, sizeof others_say);
    sentinels_say = NULL;
    master = FIRST;
    asked = 0;
    for (unsigned i = 0; i < 5; i++)
        bench->servers[i].answer = answer;
    return bench;
}

static struct bench *sentinels_up(void)
{
    struct bench *bench = sentinels_new();
    start(bench, 3);
    until(bench, bench->ear.ups == 1);
    return bench;
}

static const char replica[] = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";

static void publish(struct bench *bench, const char *name)
{
    char text[128];
    unsigned told = 0;
    snprintf(text, sizeof text, ">3\r\n+message\r\n+%s\r\n+%s 127.0.0.1 1 127.0.0.1 2\r\n", "+switch-master",
             name);
    for (unsigned i = 0; i < FIRST; i++)
        if (bench->servers[i].subscribed >= 0) {
            server_say(&bench->servers[i], (unsigned)bench->servers[i].subscribed, text);
            told++;
        }
    assert_true(told);
}

static bool listens(const struct bench *bench)
{
    return bench->servers[0].subscribed >= 0 || bench->servers[1].subscribed >= 0 ||
           bench->servers[2].subscribed >= 0;
}

static void test_the_master_is_asked_for_and_used(void **state)
{
    (void)state;
    struct bench *bench = sentinels_new();
    start(bench, 3);
    ask(bench, "GET", "early", 0);
    assert_int_equal(bench->ear.replies, 0);
    assert_heard(bench, 0, REDIS_DOWN, "");
    until(bench, bench->ear.ups == 1);
    assert_string_equal(bench->servers[FIRST].last, "ROLE");
    ask(bench, "GET", "k", 0);
    assert_heard(bench, 1, REDIS_OK, "server 3");
    bench_free(bench);
}

static void test_sentinels_that_are_no_help(void **state)
{
    (void)state;
    static const char *const answers[] = {"*-1\r\n",
                                          "_\r\n",
                                          "-IDONTKNOW\r\n",
                                          "*2\r\n$4\r\nhost\r\n$1\r\n1\r\n",
                                          "*2\r\n$0\r\n\r\n$1\r\n1\r\n",
                                          "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n99999\r\n",
                                          "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n",
                                          "*2\r\n:1\r\n:1\r\n",
                                          "*1\r\n$1\r\nx\r\n",
                                          "HTTP/1.1 400\r\n"};
    for (size_t i = 0; i < countof(answers); i++) {
        struct bench *bench = sentinels_new();
        sentinels_say = answers[i];
        start(bench, 3);
        until(bench, bench->servers[0].commands && bench->servers[1].commands && bench->servers[2].commands);
        assert_int_equal(bench->ear.ups, 0);
        sentinels_say = NULL;
        until(bench, bench->ear.ups == 1);
        bench_free(bench);
    }
}

static void test_silent_and_stopped_sentinels(void **state)
{
    (void)state;
    struct bench *bench = sentinels_new();
    server_stop(&bench->servers[0]);
    bench->servers[1].frozen = true;
    start(bench, 3);
    until(bench, bench->ear.ups == 1);
    bench_free(bench);
}

static void test_a_switch_is_followed(void **state)
{
    (void)state;
    struct bench *bench = sentinels_up();
    until(bench, listens(bench));
    turn_for(bench, 50);
    unsigned before = asked;
    publish(bench, "another");
    turn_for(bench, 50);
    assert_int_equal(asked, before);
    master = SECOND; // the old one goes on answering
    publish(bench, "mymaster");
    until(bench, bench->servers[SECOND].commands); // ROLE
    for (unsigned last = 0; strcmp(bench->ear.heard[last].text, "server 4") != 0;) {
        last = bench->ear.replies % HEARD;
        ask(bench, "GET", "k", 0);
        until(bench, bench->ear.replies % HEARD != last);
    }
    assert_int_equal(bench->ear.downs, 0);
    bench_free(bench);
}

static void test_a_new_master_must_say_that_it_is_one(void **state)
{
    (void)state;
    struct bench *bench = sentinels_up();
    until(bench, listens(bench));
    roles[SECOND] = replica;
    master = SECOND;
    publish(bench, "mymaster");
    until(bench, bench->servers[SECOND].commands >= 3); // asked again and again
    ask(bench, "GET", "k", 0);
    assert_heard(bench, 0, REDIS_OK, "server 3");
    roles[SECOND] = NULL;
    until(bench, strcmp(bench->servers[SECOND].last, "GET k") == 0 ||
                     (ask(bench, "GET", "k", 0), turn_for(bench, 20), false));
    bench_free(bench);
}

static void test_readonly_is_a_reason_to_ask(void **state)
{
    (void)state;
    static const char *const errors[] = {"-READONLY You can't write against a read only replica.\r\n",
                                         "-ERR Error running script: @user_script:1: -READONLY You can't "
                                         "write against a read only replica.\r\n"};
    for (size_t i = 0; i < countof(errors); i++) {
        struct bench *bench = sentinels_up();
        others_say[FIRST] = errors[i];
        roles[FIRST] = replica;
        ask(bench, "SET", "k", 0);
        until(bench, bench->ear.replies == 1);
        assert_int_equal(bench->ear.heard[0].failure, REDIS_OK); // the error is passed on
        until(bench, bench->ear.downs == 1);
        turn_for(bench, 300); // the sentinels do not know yet
        ask(bench, "SET", "k", 0);
        assert_heard(bench, 1, REDIS_DOWN, "");
        master = SECOND;
        until(bench, bench->ear.ups == 2);
        ask(bench, "SET", "k", 0);
        assert_heard(bench, 2, REDIS_OK, "server 4");
        bench_free(bench);
    }
}

static void test_a_lost_master(void **state)
{
    (void)state;
    struct bench *bench = sentinels_up();
    ask(bench, "GET", "k", 5000000);
    server_stop(&bench->servers[FIRST]);
    assert_heard(bench, 0, REDIS_DOWN, "");
    assert_int_equal(bench->ear.downs, 1);
    turn_for(bench, 500);
    assert_in_range(asked, 1, 12); // calmly
    until(bench, asked >= 2);
    master = SECOND;
    until(bench, bench->ear.ups == 2);
    ask(bench, "GET", "k", 0);
    assert_heard(bench, 1, REDIS_OK, "server 4");
    bench_free(bench);
}

static void test_a_master_that_comes_back(void **state)
{
    (void)state;
    struct bench *bench = sentinels_up();
    server_stop(&bench->servers[FIRST]);
    until(bench, bench->ear.downs == 1);
    roles[FIRST] = replica; // at first
    server_start(&bench->servers[FIRST]);
    turn_for(bench, 1500);
    assert_int_equal(bench->ear.ups, 1);
    roles[FIRST] = NULL;
    until(bench, bench->ear.ups == 2);
    bench_free(bench);
}

static void test_sentinels_without_a_password(void **state)
{
    (void)state;
    static const char *const refusals[] = {
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        "-ERR AUTH <password> called without any password configured for the default user.\r\n"};
    for (size_t i = 0; i < countof(refusals); i++) {
        struct bench *bench = sentinels_new();
        bench->settings.username = STR("gate");
        bench->settings.password = STR("pw");
        for (unsigned j = 0; j < bench->server_count; j++) {
            bench->servers[j].demands = j == 0 || j >= FIRST; // one sentinel has it, too
            bench->servers[j].refusal = bench->servers[j].demands
                                            ? "-NOAUTH HELLO must be called with the client already "
                                              "authenticated\r\n"
                                            : refusals[i];
        }
        start(bench, 3);
        until(bench, bench->ear.ups == 1 && listens(bench));
        server_stop(&bench->servers[FIRST]);
        master = SECOND;
        until(bench, bench->ear.ups == 2);
        bench_free(bench);
    }
}

static void test_what_is_subscribed_follows(void **state)
{
    (void)state;
    struct bench *bench = sentinels_new();
    start(bench, 3);
    redis_fleet_subscribe(bench->fleet, STR("deny"));
    until(bench, bench->servers[FIRST].subscribed >= 0 && bench->ear.subscribed == 1 && listens(bench));
    master = SECOND;
    publish(bench, "mymaster");
    until(bench, bench->servers[SECOND].subscribed >= 0 && bench->ear.subscribed == 2);
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_master_is_asked_for_and_used),
        cmocka_unit_test(test_sentinels_that_are_no_help),
        cmocka_unit_test(test_silent_and_stopped_sentinels),
        cmocka_unit_test(test_a_switch_is_followed),
        cmocka_unit_test(test_a_new_master_must_say_that_it_is_one),
        cmocka_unit_test(test_readonly_is_a_reason_to_ask),
        cmocka_unit_test(test_a_lost_master),
        cmocka_unit_test(test_a_master_that_comes_back),
        cmocka_unit_test(test_sentinels_without_a_password),
        cmocka_unit_test(test_what_is_subscribed_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
