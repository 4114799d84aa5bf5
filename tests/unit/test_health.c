// Active checks: the decision by tables, the rest against real sockets on a real loop. The server is part of
// the test's own loop of turns, so nothing here depends on another thread's pace.
#include "test_health_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// ---- the decision ----

static void test_judge(void **state)
{
    (void)state;
    // checks: + success, - failure; changes: what each one makes of it, U, D or nothing (.).
    static const struct {
        bool up;
        int64_t healthy, unhealthy;
        const char *checks, *changes;
    } cases[] = {
        {true, 2, 3, "+++++", "....."},
        {true, 2, 3, "--", ".."},
        {true, 2, 3, "---", "..D"},
        {true, 2, 3, "-----", "..D.."},
        {true, 2, 3, "--+--+--+", "........."},
        {true, 2, 3, "--+---", ".....D"},
        {true, 2, 3, "---++", "..D.U"},
        {true, 2, 3, "---+-+-+", "..D....."},
        {true, 2, 3, "---+-++---", "..D...U..D"},
        {false, 2, 3, "++", ".U"},
        {false, 1, 1, "+-+-", "UDUD"},
        {true, 1, 1, "-+", "DU"},
        {false, 3, 1, "++-+++", ".....U"},
        {false, 2, 3, "------", "......"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct health_tally tally = {0};
        bool up = cases[i].up;
        for (size_t n = 0; cases[i].checks[n]; n++) {
            enum health_change change =
                health_judge(&tally, up, cases[i].checks[n] == '+', cases[i].healthy, cases[i].unhealthy);
            char letter = change == HEALTH_UP ? 'U' : change == HEALTH_DOWN ? 'D' : '.';
            if (letter != cases[i].changes[n])
                fail_msg("case %zu, check %zu: %c", i, n, letter);
            up = change == HEALTH_SAME ? up : change == HEALTH_UP;
        }
    }
}

static void test_judge_does_not_wrap(void **state)
{
    (void)state;
    struct health_tally tally = {.failures = UINT32_MAX};
    assert_int_equal(health_judge(&tally, true, false, 1, 3), HEALTH_DOWN);
    assert_int_equal(tally.failures, UINT32_MAX);
}

// ---- a server of many faces ----

enum { CLIENTS = 600 };

struct server {
    int fd;
    struct addr addr;
    char name[ADDR_TEXT_MAX];
    const char *answer; // NULL: none ever; "": closes at once
    size_t piece;       // bytes a turn; 0: all at once
    bool dribbles;      // no more than a turn a millisecond
    unsigned accepted, asked, open, most_open;
    char request[512]; // the last one
    struct {
        int fd;
        size_t sent;
        bool asked;
    } clients[CLIENTS];
};

#define OK_ANSWER  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
#define BAD_ANSWER "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

static void server_listen(struct server *server)
{
    socklen_t length = sizeof server->addr.v4;
    server->fd = socket(server->addr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(server->fd >= 0);
    int on = 1;
    setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(server->fd, &server->addr.any, server->addr.length), 0);
    assert_int_equal(listen(server->fd, 1024), 0);
    if (server->addr.any.sa_family == AF_INET)
        assert_int_equal(getsockname(server->fd, &server->addr.any, &length), 0);
    addr_print(&server->addr, server->name);
}

static struct server *server_new(const char *address, const char *answer)
{
    struct server *server = calloc(1, sizeof *server);
    server->answer = answer;
    assert_true(addr_parse(str_of(address), &server->addr));
    server_listen(server);
    for (int i = 0; i < CLIENTS; i++)
        server->clients[i].fd = -1;
    return server;
}

static void client_close(struct server *server, int i)
{
    close(server->clients[i].fd);
    server->clients[i].fd = -1;
    server->open--;
}

static void server_accept(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++) {
        if (server->clients[i].fd >= 0)
            continue;
        int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        server->clients[i].fd = fd;
        server->clients[i].sent = 0;
        server->clients[i].asked = false;
        server->accepted++;
        server->open++;
    }
}

static void client_serve(struct server *server, int i)
{
    char bytes[512];
    ssize_t n;
    while ((n = recv(server->clients[i].fd, bytes, sizeof bytes - 1, 0)) > 0) {
        bytes[n] = 0;
        memcpy(server->request, bytes, (size_t)n + 1);
        server->clients[i].asked = true;
        server->asked++;
    }
    if (n == 0 || errno != EAGAIN) {
        client_close(server, i);
        return;
    }
    if (!server->answer || !server->clients[i].asked)
        return;
    size_t left = strlen(server->answer) - server->clients[i].sent;
    size_t piece = server->piece && server->piece < left ? server->piece : left;
    n = send(server->clients[i].fd, server->answer + server->clients[i].sent, piece, MSG_NOSIGNAL);
    if (n >= 0)
        server->clients[i].sent += (size_t)n;
    if ((n < 0 && errno != EAGAIN) || (size_t)n == left)
        client_close(server, i);
}

static void server_turn(struct server *server)
{
    static uint64_t last_ms;
    if (server->fd < 0 || (server->dribbles && clock_monotonic_us() / 1000 == last_ms))
        return;
    last_ms = clock_monotonic_us() / 1000;
    server_accept(server);
    for (int i = 0; i < CLIENTS; i++)
        if (server->clients[i].fd >= 0)
            client_serve(server, i);
    if (server->open > server->most_open) // by now those are gone that the other end has closed
        server->most_open = server->open;
}

static void server_close(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++)
        if (server->clients[i].fd >= 0)
            client_close(server, i);
    if (server->fd >= 0)
        close(server->fd);
    server->fd = -1;
}

static struct scene *scene_new(const char *upstream_name, const char *address, const char *answer)
{
    struct server *server = server_new(address, answer);
    return scene_around(server, upstream_name, server->name, &server->addr);
}

// ---- against the server ----

static void test_a_good_answer(void **state)
{
    (void)state;
    struct scene *scene = scene_new("good", "127.0.0.1:0", OK_ANSWER);
    char expected[512];
    scene_start(scene);
    turn_checks(scene, 3);
    assert_true(is_up(scene));
    assert_int_equal(atomic_load(&endpoint_of(scene)->check_failures), 0);
    assert_int_equal(atomic_load(&endpoint_of(scene)->up_since_us), 0); // it was up all along
    assert_says(scene, "status 200");
    snprintf(expected, sizeof expected,
             "GET /health HTTP/1.1\r\nHost: %s\r\nUser-Agent: sallyport-health\r\nAccept: */*\r\n"
             "Connection: close\r\n\r\n",
             scene->server->name);
    assert_string_equal(scene->server->request, expected);
    assert_int_equal(scene->server->most_open, 1);
    scene_free(scene);
}

static void test_down_and_up_again(void **state)
{
    (void)state;
    struct scene *scene = scene_new("turns", "127.0.0.1:0", BAD_ANSWER);
    scene_start(scene);
    turn_until(scene, false);
    assert_int_equal(checks_of(scene), 3);
    assert_int_equal(atomic_load(&endpoint_of(scene)->check_failures), 3);
    assert_says(scene, "status 503");
    uint64_t before_us = scene->loop.now_us;
    scene->server->answer = OK_ANSWER;
    turn_until(scene, true);
    assert_true(atomic_load(&endpoint_of(scene)->up_since_us) > before_us);
    scene->server->answer = BAD_ANSWER;
    turn_until(scene, false);
    scene_free(scene);
}

static void test_answers_that_fail(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *says;
    } cases[] = {
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "status 101"},
        {"", "closed without an answer"},
        {"HTTP/1.1 200 OK\r\nContent-Le", "closed without an answer"},
        {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "bad response"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad response"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct scene *scene = scene_new("failing", "127.0.0.1:0", cases[i].answer);
        scene_start(scene);
        turn_until(scene, false);
        assert_says(scene, cases[i].says);
        scene_free(scene);
    }
}

static void test_answers_that_pass(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "HTTP/1.0 200 OK\r\n\r\nall day long",
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 Done\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < countof(answers); i++) {
        struct scene *scene = scene_new("passing", "127.0.0.1:0", BAD_ANSWER);
        scene_start(scene);
        turn_until(scene, false);
        scene->server->answer = answers[i];
        scene->server->piece = i % 2 ? 1 : 0; // byte by byte as well
        turn_until(scene, true);
        scene_free(scene);
    }
}

static void test_a_head_without_end(void **state)
{
    (void)state;
    static char endless[40000];
    size_t n = (size_t)snprintf(endless, sizeof endless, "HTTP/1.1 200 OK\r\n");
    while (n + 20 < sizeof endless)
        n += (size_t)snprintf(endless + n, sizeof endless - n, "X-Filler: %06zu\r\n", n);
    struct scene *scene = scene_new("endless", "127.0.0.1:0", endless);
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "bad response");
    scene_free(scene);
}

static void test_silence_meets_its_deadline(void **state)
{
    (void)state;
    struct scene *scene = scene_new("silent", "127.0.0.1:0", NULL);
    scene->settings.health_check.timeout_us = 300000;
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "no answer within 300 ms");
    scene_free(scene);
}

// One byte every millisecond does not put the deadline off.
static void test_dribble_meets_its_deadline(void **state)
{
    (void)state;
    static char answer[4000] = "HTTP/1.1 200 OK\r\nX: ";
    memset(answer + strlen(answer), 'x', sizeof answer - strlen(answer) - 1);
    struct scene *scene = scene_new("dribble", "127.0.0.1:0", answer);
    scene->server->piece = 1;
    scene->server->dribbles = true;
    scene->settings.health_check.timeout_us = 300000;
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "timeout");
    scene_free(scene);
}

static void test_refused(void **state)
{
    (void)state;
    struct scene *scene = scene_new("refused", "127.0.0.1:0", OK_ANSWER);
    server_close(scene->server);
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "connect: Connection refused");
    server_listen(scene->server); // the address is known by now
    turn_until(scene, true);
    scene_free(scene);
}

static void test_unix_socket(void **state)
{
    (void)state;
    char directory[] = "/tmp/sallyport-health-XXXXXX", address[64];
    assert_non_null(mkdtemp(directory));
    snprintf(address, sizeof address, "unix:%s/s", directory);
    struct scene *scene = scene_new("unix", address, BAD_ANSWER);
    scene_start(scene);
    turn_until(scene, false);
    assert_non_null(strstr(scene->server->request, "\r\nHost: localhost\r\n"));
    server_close(scene->server);
    assert_int_equal(unlink(address + 5), 0);
    turn_checks(scene, 1);
    assert_says(scene, "connect: No such file or directory");
    scene_free(scene);
    assert_int_equal(rmdir(directory), 0);
}

// ---- reload ----

static void test_reload_keeps_the_row(void **state)
{
    (void)state;
    struct scene *scene = scene_new("row", "127.0.0.1:0", BAD_ANSWER);
    scene_start(scene);
    turn_checks(scene, 2);
    assert_true(is_up(scene));
    scene->settings.health_check.interval_us = 3600000000;
    scene_start(scene); // what was due in 2 ms still is
    turn_until(scene, false);
    assert_int_equal(checks_of(scene), 3);
    turn_for(scene, 30);
    assert_int_equal(checks_of(scene), 3); // an hour from now
    scene->settings.health_check.interval_us = 2000;
    scene->server->answer = OK_ANSWER;
    scene_start(scene); // not in an hour any more
    turn_until(scene, true);
    scene_free(scene);
}

// Reloading more often than the timeout does not keep a silent endpoint in the list.
static void test_reload_keeps_the_probe(void **state)
{
    (void)state;
    struct scene *scene = scene_new("probe", "127.0.0.1:0", NULL);
    scene->settings.health_check.timeout_us = 50000;
    scene_start(scene);
    uint64_t last_us = 0;
    for (uint64_t end = clock_monotonic_us() + 20000000; is_up(scene); turn(scene)) {
        assert_true(clock_monotonic_us() < end);
        if (scene->loop.now_us - last_us > 5000) {
            scene_start(scene);
            last_us = scene->loop.now_us;
        }
    }
    assert_int_equal(checks_of(scene), 3);
    scene_free(scene);
}

static void test_reload_with_another_path_asks_anew(void **state)
{
    (void)state;
    struct scene *scene = scene_new("path", "127.0.0.1:0", NULL);
    scene_start(scene);
    while (!scene->server->asked)
        turn(scene);
    scene->settings.health_check.path = STR("/other");
    scene->server->answer = OK_ANSWER;
    scene_start(scene);
    turn_checks(scene, 1);
    assert_non_null(strstr(scene->server->request, "GET /other "));
    scene_free(scene);
}

static void test_reload_without_checks_brings_up(void **state)
{
    (void)state;
    struct scene *scene = scene_new("unchecked", "127.0.0.1:0", BAD_ANSWER);
    scene_start(scene);
    turn_until(scene, false);
    scene->settings.health_check.path = STR("");
    scene_start(scene);
    assert_true(is_up(scene));
    uint64_t checks = checks_of(scene);
    turn_for(scene, 20);
    assert_int_equal(checks_of(scene), checks);
    scene_free(scene);
}

// Stopped in the middle of everything: nothing is touched afterwards (ASan watches).
static void test_stop_at_any_moment(void **state)
{
    (void)state;
    for (int turns = 0; turns < 12; turns++) {
        struct scene *scene = scene_new("stop", "127.0.0.1:0", OK_ANSWER);
        scene->server->piece = 5;
        scene_start(scene);
        for (int i = 0; i < turns; i++)
            turn(scene);
        health_stop(scene->health);
        scene->health = NULL;
        for (int i = 0; i < 5; i++)
            turn(scene);
        scene_free(scene);
    }
    health_stop(NULL);
}

// ---- many ----

static void add_targets(struct scene *scene, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "many-%u:80", i);
        scene->targets[i] = (struct upstream_target){
            endpoint_ref(scene->settings.name, str_of(name), &scene->server->addr), 1};
    }
    scene->upstream.target_count = count;
}

static void test_many_take_turns(void **state)
{
    (void)state;
    struct scene *scene = scene_new("many", "127.0.0.1:0", NULL);
    add_targets(scene, 400);
    scene->settings.health_check.timeout_us = 100000;
    scene->settings.health_check.unhealthy = 1;
    scene_start(scene);
    uint64_t end = clock_monotonic_us() + 20000000;
    for (uint32_t down = 0; down < 400; turn(scene)) {
        assert_true(clock_monotonic_us() < end);
        down = 0;
        for (uint32_t i = 0; i < 400; i++)
            down += !atomic_load(&scene->targets[i].endpoint->up);
    }
    assert_int_equal(scene->server->most_open, 256);
    scene_free(scene);
}

static void test_a_target_listed_twice_is_checked_once(void **state)
{
    (void)state;
    struct scene *scene = scene_new("twice", "127.0.0.1:0", OK_ANSWER);
    scene->targets[1] = (struct upstream_target){
        endpoint_ref(scene->settings.name, str_of(scene->server->name), &scene->server->addr), 1};
    scene->upstream.target_count = 2;
    scene->settings.health_check.interval_us = 3600000000;
    scene_start(scene);
    turn_checks(scene, 1);
    turn_for(scene, 50);
    assert_int_equal(checks_of(scene), 1);
    scene_free(scene);
}

// Our own want of descriptors is not the endpoint's failure.
static void test_no_descriptors_left(void **state)
{
    (void)state;
    struct scene *scene = scene_new("fds", "127.0.0.1:0", BAD_ANSWER);
    struct rlimit limit, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    scene->settings.health_check.unhealthy = 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    scene_start(scene);
    for (uint64_t end = clock_monotonic_us() + 10000000; !endpoint_of(scene)->last_check[0];) {
        loop_turn(&scene->loop, 1);
        if (clock_monotonic_us() > end)
            break;
    }
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_says(scene, "Too many open files");
    assert_true(is_up(scene));
    assert_int_equal(checks_of(scene), 0);
    turn_until(scene, false); // once there are some again
    scene_free(scene);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_judge_does_not_wrap),
        cmocka_unit_test(test_a_good_answer),
        cmocka_unit_test(test_down_and_up_again),
        cmocka_unit_test(test_answers_that_fail),
        cmocka_unit_test(test_answers_that_pass),
        cmocka_unit_test(test_a_head_without_end),
        cmocka_unit_test(test_silence_meets_its_deadline),
        cmocka_unit_test(test_dribble_meets_its_deadline),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_reload_keeps_the_row),
        cmocka_unit_test(test_reload_keeps_the_probe),
        cmocka_unit_test(test_reload_with_another_path_asks_anew),
        cmocka_unit_test(test_reload_without_checks_brings_up),
        cmocka_unit_test(test_stop_at_any_moment),
        cmocka_unit_test(test_many_take_turns),
        cmocka_unit_test(test_a_target_listed_twice_is_checked_once),
        cmocka_unit_test(test_no_descriptors_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
