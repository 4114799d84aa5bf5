// The client against a server that says what the test tells it to.
#include "test_redis_ear.h"
#include "unit_loopback.h"

#include "base/clock.h"
#include "observe/shard.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 5000 };

// ---- the bench: a loop, a listening socket, a client ----

struct bench {
    struct loop loop;
    struct arena arena;
    struct metrics *metrics;
    struct redis_settings settings;
    struct redis *redis;
    int listener, peer;
    struct ear ear;
};

static const struct redis_events events = {.on_up = on_up, .on_down = on_down, .on_message = on_message};

static void listen_anywhere(struct bench *bench)
{
    struct addr addr = bind_loopback(&bench->listener, true);
    const char *why;
    struct str url = arena_printf(&bench->arena, "redis://127.0.0.1:%u", ntohs(addr.v4.sin_port));
    assert_true(redis_url_parse(url, &bench->arena, &bench->settings.url, &why));
}

static struct bench *bench_new(void)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct err err;
    assert_non_null(bench);
    assert_int_equal(loop_init(&bench->loop, &err), ERR_OK);
    arena_init(&bench->arena, NULL);
    bench->metrics = metrics_new();
    bench->peer = -1;
    listen_anywhere(bench);
    bench->settings.deadline_us = 5000000; // the machine may be busy
    return bench;
}

static void start(struct bench *bench)
{
    struct err err;
    bench->redis = redis_new(&(struct redis_options){.loop = &bench->loop,
                                                     .settings = &bench->settings,
                                                     .metrics = bench->metrics,
                                                     .events = &events,
                                                     .context = &bench->ear},
                             &err);
    assert_non_null(bench->redis);
}

static void bench_free(struct bench *bench)
{
    redis_free(bench->redis);
    loop_turn(&bench->loop, 0);
    if (bench->peer >= 0)
        close(bench->peer);
    close(bench->listener);
    loop_fini(&bench->loop);
    arena_reset(&bench->arena);
    metrics_free(bench->metrics);
    free(bench);
}

#define until(bench, condition)                                             \
    do {                                                                    \
        uint64_t end_us = clock_monotonic_us() + WAIT_MS * 1000;            \
        while (!(condition)) {                                              \
            loop_turn(&(bench)->loop, 10);                                  \
            if (clock_monotonic_us() > end_us)                              \
                fail_msg("in vain: %s (%s)", #condition, (bench)->ear.why); \
        }                                                                   \
    } while (0)

static void accept_peer(struct bench *bench)
{
    if (bench->peer >= 0)
        close(bench->peer);
    bench->peer = -1;
    until(bench, (bench->peer = accept4(bench->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
}

// The next bytes are these, spaces for the ends of lines.
static void expect(struct bench *bench, const char *words)
{
    char wanted[1024], got[1024];
    size_t n = 0, have = 0;
    for (const char *c = words; *c; c++) {
        if (*c == ' ')
            wanted[n++] = '\r';
        wanted[n++] = *c == ' ' ? '\n' : *c;
    }
    until(bench, ({
              ssize_t more = recv(bench->peer, got + have, n - have, 0);
              assert_true(more != 0);
              have += more > 0 ? (size_t)more : 0;
              have == n;
          }));
    assert_memory_equal(got, wanted, n);
}

static void say(struct bench *bench, const char *text)
{
    size_t n = strlen(text);
    assert_int_equal(send(bench->peer, text, n, MSG_NOSIGNAL), n);
}

#define HELLO   "*4 $5 HELLO $1 3 $7 SETNAME $9 sallyport "
#define WELCOME "%1\r\n+proto\r\n:3\r\n"

static void come_up(struct bench *bench)
{
    start(bench);
    accept_peer(bench);
    expect(bench, HELLO);
    say(bench, WELCOME);
    until(bench, bench->ear.ups == 1);
}

static void ask(struct bench *bench, const char *word, uint64_t deadline_us)
{
    struct str argv[] = {str_of(word)};
    redis_command(bench->redis, argv, 1, deadline_us, &bench->ear, on_reply);
}

static void assert_heard(struct bench *bench, unsigned i, enum redis_failure failure, const char *text)
{
    until(bench, bench->ear.replies > i);
    assert_int_equal(bench->ear.heard[i].failure, failure);
    assert_string_equal(bench->ear.heard[i].text, text);
}

// ---- tests ----

static void test_commands_of_a_turn_leave_together(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    come_up(bench);
    assert_true(redis_is_up(bench->redis));
    ask(bench, "A", 0);
    ask(bench, "B", 0);
    assert_int_equal(bench->ear.replies, 0);
    loop_turn(&bench->loop, 0);
    char both[128]; // in one segment of a loopback connection, since they were sent by one call
    ssize_t n;
    until(bench, (n = recv(bench->peer, both, sizeof both, 0)) > 0);
    assert_int_equal(n, 22);
    assert_memory_equal(both, "*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n", 22);
    say(bench, "+a\r\n-ERR");
    assert_heard(bench, 0, REDIS_OK, "a");
    say(bench, " no\r\n");
    assert_heard(bench, 1, REDIS_OK, "ERR no");
    assert_int_equal(bench->metrics->redis_results[REDIS_COMMAND_OK], 1);
    assert_int_equal(bench->metrics->redis_results[REDIS_COMMAND_ERROR], 1);
    bench_free(bench);
}

static void test_greeting_with_user_and_database(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    bench->settings.username = STR("gate");
    bench->settings.password = STR("pw");
    bench->settings.url.database = 12;
    start(bench);
    accept_peer(bench);
    expect(bench, "*7 $5 HELLO $1 3 $4 AUTH $4 gate $2 pw $7 SETNAME $9 sallyport ");
    say(bench, WELCOME);
    expect(bench, "*2 $6 SELECT $2 12 ");
    assert_false(redis_is_up(bench->redis));
    say(bench, "+OK\r\n");
    until(bench, bench->ear.ups == 1);
    bench_free(bench);
}

static void test_old_servers_get_their_own_greeting(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    bench->settings.url.password = STR("pw");
    start(bench);
    accept_peer(bench);
    expect(bench, "*7 $5 HELLO $1 3 $4 AUTH $7 default $2 pw $7 SETNAME $9 sallyport ");
    say(bench, "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n");
    expect(bench, "*2 $4 AUTH $2 pw ");
    say(bench, "+OK\r\n");
    expect(bench, "*3 $6 CLIENT $7 SETNAME $9 sallyport ");
    say(bench, "-ERR unknown command\r\n"); // not worth a connection
    until(bench, bench->ear.ups == 1);
    ask(bench, "A", 0);
    expect(bench, "*1 $1 A ");
    say(bench, "*-1\r\n");
    assert_heard(bench, 0, REDIS_OK, "0");
    bench_free(bench);
}

static void test_a_wrong_password_is_tried_again_calmly(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    bench->settings.password = STR("pw");
    start(bench);
    uint64_t began_us = clock_monotonic_us();
    for (unsigned i = 0; i < 3; i++) {
        accept_peer(bench);
        expect(bench, "*7 $5 HELLO $1 3 $4 AUTH $7 default $2 pw $7 SETNAME $9 sallyport ");
        say(bench, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        until(bench, bench->ear.downs == i + 1);
        assert_non_null(strstr(bench->ear.why, "WRONGPASS"));
    }
    assert_true(clock_monotonic_us() - began_us >= 150000); // 50 and 100 at least
    ask(bench, "A", 0);
    assert_int_equal(bench->ear.replies, 0); // never from inside
    loop_turn(&bench->loop, 0);
    assert_heard(bench, 0, REDIS_DOWN, "");
    assert_int_equal(bench->metrics->redis_results[REDIS_COMMAND_DOWN], 1);
    bench_free(bench);
}

static void test_late_replies_are_dropped_by_their_place(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    come_up(bench);
    ask(bench, "A", 20000);
    ask(bench, "B", 4000000);
    ask(bench, "C", 10000); // due before the first
    expect(bench, "*1 $1 A *1 $1 B *1 $1 C ");
    until(bench, bench->ear.replies == 2);
    assert_heard(bench, 0, REDIS_DEADLINE, "");
    assert_heard(bench, 1, REDIS_DEADLINE, "");
    say(bench, "+a\r\n+b\r\n+c\r\n");
    assert_heard(bench, 2, REDIS_OK, "b");
    ask(bench, "D", 0);
    expect(bench, "*1 $1 D ");
    say(bench, "+d\r\n");
    assert_heard(bench, 3, REDIS_OK, "d");
    assert_int_equal(bench->ear.replies, 4);
    assert_int_equal(bench->ear.downs, 0);
    assert_int_equal(bench->metrics->redis_results[REDIS_COMMAND_DEADLINE], 2);
    assert_int_equal(bench->metrics->redis_results[REDIS_COMMAND_OK], 2);
    bench_free(bench);
}

static void test_a_silent_server_is_cut(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    bench->settings.deadline_us = 5000;
    come_up(bench);
    uint64_t began_us = bench->loop.now_us;
    ask(bench, "A", 0);
    assert_heard(bench, 0, REDIS_DEADLINE, "");
    ask(bench, "B", 4000000); // still waits when the first one is given up
    assert_heard(bench, 1, REDIS_DOWN, "");
    uint64_t took_us = clock_monotonic_us() - began_us;
    assert_true(took_us > 1000000 && took_us < 4000000);
    assert_int_equal(bench->ear.downs, 1);
    accept_peer(bench); // made anew
    expect(bench, HELLO);
    say(bench, WELCOME);
    until(bench, bench->ear.ups == 2);
    bench_free(bench);
}

static void test_what_is_under_way_is_bounded(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    come_up(bench);
    for (unsigned i = 0; i < REDIS_PENDING + 3; i++)
        ask(bench, "A", 4000000);
    until(bench, bench->ear.replies == 3);
    assert_heard(bench, 2, REDIS_FULL, "");
    bench_free(bench); // and all others fail

    bench = bench_new();
    come_up(bench);
    static char large[REDIS_OUT_BYTES / 4];
    struct str argv[] = {{large, sizeof large}};
    for (unsigned i = 0; i < 5; i++)
        redis_command(bench->redis, argv, 1, 4000000, &bench->ear, on_reply);
    until(bench, bench->ear.replies == 2);
    assert_heard(bench, 1, REDIS_FULL, "");
    bench_free(bench);
}

static void test_what_is_under_way_fails_with_the_connection(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    come_up(bench);
    ask(bench, "A", 0);
    ask(bench, "B", 0);
    expect(bench, "*1 $1 A *1 $1 B ");
    say(bench, "+a\r\n");
    shutdown(bench->peer, SHUT_RDWR);
    assert_heard(bench, 0, REDIS_OK, "a");
    assert_heard(bench, 1, REDIS_DOWN, "");
    assert_int_equal(bench->ear.downs, 1);
    bench_free(bench);
}

static void test_nonsense_ends_the_connection(void **state)
{
    (void)state;
    static const char *const nonsense[] = {"HTTP/1.1 200 OK\r\n", "+unasked\r\n", ">1\r\n:1\r\n",
                                           ">3\r\n+subscribe\r\n+c\r\n:1\r\n", "*1000000000\r\n"};
    for (size_t i = 0; i < countof(nonsense); i++) {
        struct bench *bench = bench_new();
        come_up(bench);
        say(bench, nonsense[i]);
        until(bench, bench->ear.downs == 1);
        assert_false(redis_is_up(bench->redis));
        bench_free(bench);
    }
}

static void test_subscribing_and_again_after_a_reconnect(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    start(bench);
    redis_subscribe(bench->redis, STR("deny"));
    for (unsigned i = 0; i < 2; i++) {
        accept_peer(bench);
        expect(bench, HELLO);
        say(bench, WELCOME);
        expect(bench, "*2 $9 SUBSCRIBE $4 deny ");
        assert_int_equal(bench->ear.ups, i); // not before it is confirmed
        say(bench, ">3\r\n+subscribe\r\n$4\r\ndeny\r\n:1\r\n>3\r\n+message\r\n$4\r\ndeny\r\n$1\r\nx\r\n");
        until(bench, bench->ear.messages == i + 1);
        assert_string_equal(bench->ear.message, "deny=x");
        assert_int_equal(bench->ear.ups, i + 1);
        shutdown(bench->peer, SHUT_RDWR);
        until(bench, bench->ear.downs == i + 1);
    }
    bench_free(bench);
}

static void test_subscribing_later_and_other_commands(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    come_up(bench);
    ask(bench, "A", 0);
    redis_subscribe(bench->redis, STR("one"));
    ask(bench, "B", 0);
    expect(bench, "*1 $1 A *2 $9 SUBSCRIBE $3 one *1 $1 B ");
    say(bench, "+a\r\n>3\r\n+subscribe\r\n+one\r\n:1\r\n>2\r\n+invalidate\r\n_\r\n+b\r\n");
    assert_heard(bench, 0, REDIS_OK, "a");
    assert_heard(bench, 1, REDIS_OK, "b");
    bench_free(bench);
}

static void test_subscribing_with_resp2(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    start(bench);
    redis_subscribe(bench->redis, STR("deny"));
    accept_peer(bench);
    expect(bench, HELLO);
    say(bench, "-NOPROTO unsupported protocol version\r\n");
    expect(bench, "*3 $6 CLIENT $7 SETNAME $9 sallyport ");
    say(bench, "+OK\r\n");
    expect(bench, "*2 $9 SUBSCRIBE $4 deny ");
    say(bench,
        "*3\r\n$9\r\nsubscribe\r\n$4\r\ndeny\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$4\r\ndeny\r\n$1\r\ny\r\n");
    until(bench, bench->ear.messages == 1);
    assert_string_equal(bench->ear.message, "deny=y");
    ask(bench, "A", 0);
    assert_heard(bench, 0, REDIS_DOWN, "");
    bench_free(bench);
}

static void test_a_refused_subscription_is_no_connection(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    start(bench);
    redis_subscribe(bench->redis, STR("deny"));
    accept_peer(bench);
    expect(bench, HELLO);
    say(bench, WELCOME);
    expect(bench, "*2 $9 SUBSCRIBE $4 deny ");
    say(bench, "-NOPERM this user has no permissions to access one of the channels\r\n");
    until(bench, bench->ear.downs == 1);
    assert_non_null(strstr(bench->ear.why, "NOPERM"));
    assert_int_equal(bench->ear.ups, 0);
    bench_free(bench);
}

static void test_a_large_reply_in_pieces(void **state)
{
    (void)state;
    struct bench *bench = bench_new();
    come_up(bench);
    ask(bench, "A", 4000000);
    expect(bench, "*1 $1 A ");
    say(bench, "$3000000\r\n");
    static char chunk[10000];
    memset(chunk, 'x', sizeof chunk);
    for (unsigned sent = 0; sent < 3000000;) {
        ssize_t n = send(bench->peer, chunk, sizeof chunk < 3000000 - sent ? sizeof chunk : 3000000 - sent,
                         MSG_NOSIGNAL);
        sent += n > 0 ? (unsigned)n : 0;
        loop_turn(&bench->loop, 0);
    }
    say(bench, "\r\n");
    until(bench, bench->ear.replies == 1);
    assert_int_equal(bench->ear.heard[0].failure, REDIS_OK);
    bench_free(bench);
}

static void test_urls(void **state)
{
    (void)state;
    static const struct {
        const char *text, *address, *host, *username, *password;
        unsigned database;
        bool tls;
    } good[] = {
        {"redis://127.0.0.1:6379/0", "127.0.0.1:6379", "127.0.0.1", "", "", 0, false},
        {"redis://cache", "cache:6379", "cache", "", "", 0, false},
        {"rediss://cache.internal:7000/15", "cache.internal:7000", "cache.internal", "", "", 15, true},
        {"redis://[::1]:6380/", "[::1]:6380", "::1", "", "", 0, false},
        {"redis://:p%40ss@h", "h:6379", "h", "", "p@ss", 0, false},
        {"redis://u:p:q@h:1/2", "h:1", "h", "u", "p:q", 2, false},
    };
    static const char *const bad[] = {"",
                                      "redis:/h",
                                      "http://h",
                                      "redis://",
                                      "redis://h:0",
                                      "redis://h:65536",
                                      "redis://h:x",
                                      "redis://h/x",
                                      "redis://h/0/1",
                                      "redis://h/65536",
                                      "redis://u@h",
                                      "redis://:%zz@h",
                                      "redis://:%00@h",
                                      "redis://:%4",
                                      "redis://[::1",
                                      "redis://[h]:1",
                                      "redis://h h",
                                      "redis://[::1]x",
                                      "redis://h?db=1"};
    struct arena arena;
    struct redis_url url;
    const char *why;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(good); i++) {
        assert_true(redis_url_parse(str_of(good[i].text), &arena, &url, &why));
        assert_true(str_eq(url.address, str_of(good[i].address)) && str_eq(url.host, str_of(good[i].host)));
        assert_true(str_eq(url.username, str_of(good[i].username)));
        assert_true(str_eq(url.password, str_of(good[i].password)));
        assert_true(url.database == good[i].database && url.tls == good[i].tls);
    }
    for (size_t i = 0; i < countof(bad); i++)
        if (redis_url_parse(str_of(bad[i]), &arena, &url, &why))
            fail_msg("taken: %s", bad[i]);
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_of_a_turn_leave_together),
        cmocka_unit_test(test_greeting_with_user_and_database),
        cmocka_unit_test(test_old_servers_get_their_own_greeting),
        cmocka_unit_test(test_a_wrong_password_is_tried_again_calmly),
        cmocka_unit_test(test_late_replies_are_dropped_by_their_place),
        cmocka_unit_test(test_a_silent_server_is_cut),
        cmocka_unit_test(test_what_is_under_way_is_bounded),
        cmocka_unit_test(test_what_is_under_way_fails_with_the_connection),
        cmocka_unit_test(test_nonsense_ends_the_connection),
        cmocka_unit_test(test_subscribing_and_again_after_a_reconnect),
        cmocka_unit_test(test_subscribing_later_and_other_commands),
        cmocka_unit_test(test_subscribing_with_resp2),
        cmocka_unit_test(test_a_refused_subscription_is_no_connection),
        cmocka_unit_test(test_a_large_reply_in_pieces),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
