// The small server: rows, answers that come later, clients that go, an end without a cut answer.
#include "unit.h"

#include "serve/serve.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

struct fixture {
    struct loop loop;
    struct rand rand;
    struct server server;
    int listener, client;
    struct serve_client *waiting;
    unsigned gone, answers, last_status;
    char answer[8192];
};

static struct fixture f;

static void handle_now(struct serve_client *c)
{
    serve_reply(c, 200, STR("text/plain"), serve_body(c));
}

static void on_gone(void *pending)
{
    assert_ptr_equal(pending, &f);
    f.gone++;
    f.waiting = NULL;
}

static void handle_later(struct serve_client *c)
{
    f.waiting = c;
    serve_wait(c, &f, on_gone);
}

static void on_answer(struct serve_client *c, unsigned status, size_t body_bytes)
{
    (void)c, (void)body_bytes;
    f.answers++;
    f.last_status = status;
}

static bool admit(struct serve_client *c, struct serve_problem *problem)
{
    *problem = (struct serve_problem){403, STR("no"), STR("not you"), STR_NULL, STR_NULL};
    return headers_find_name(&c->request.headers, STR("X-Stranger")) == NULL;
}

static const struct serve_row rows[] = {
    {METHOD_POST, SERVE_PATH("/echo"), handle_now},
    {METHOD_GET, SERVE_PATH("/both"), handle_now},
    {METHOD_POST, SERVE_PATH("/both"), handle_now},
    {METHOD_GET, SERVE_PATH("/later"), handle_later},
    {METHOD_OTHER, SERVE_PATH("/any"), handle_now},
    {METHOD_GET, SERVE_PATH("/below/"), handle_now, .below = true},
};

static const struct serve_settings settings = {
    .limits = {.connections = 2,
               .head = {.head_bytes = 1024, .uri_bytes = 256, .headers = 16},
               .body_bytes = 10,
               .request_ms = 5000,
               .idle_ms = 5000,
               .write_ms = 5000,
               .linger_ms = 200},
    .rows = rows,
    .row_count = countof(rows),
    .no_row = STR("nothing here"),
    .admit = admit,
    .on_answer = on_answer,
};

static int connect_client(void)
{
    struct addr addr = {.length = sizeof addr.local};
    assert_int_equal(getsockname(f.listener, &addr.any, &addr.length), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, &addr.any, addr.length), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int open_fixture(void **state)
{
    (void)state;
    struct err err;
    struct addr addr;
    memset(&f, 0, sizeof f);
    rand_init(&f.rand);
    assert_int_equal(loop_init(&f.loop, &err), ERR_OK);
    serve_init(&f.server, &f.loop, &settings, &f.rand, &f);
    assert_true(addr_parse(STR("127.0.0.1:0"), &addr));
    assert_true((f.listener = listen_socket(&addr, false, &err)) >= 0);
    assert_true(serve_listen(&f.server, f.listener));
    f.client = connect_client();
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    serve_fini(&f.server);
    loop_turn(&f.loop, 0);
    assert_int_equal(f.server.count, 0);
    loop_fini(&f.loop);
    close(f.client);
    close(f.listener);
    return 0;
}

static void say(const char *text)
{
    assert_int_equal(send(f.client, text, strlen(text), 0), strlen(text));
}

static bool has_ended; // the client has seen the end of the connection

// Turns the loop until what has come holds the text, or the connection has ended.
static const char *await(const char *text)
{
    size_t got = 0;
    memset(f.answer, 0, sizeof f.answer);
    has_ended = false;
    for (unsigned i = 0; i < 4000 && !has_ended && !strstr(f.answer, text); i++) {
        loop_turn(&f.loop, 2);
        ssize_t n = recv(f.client, f.answer + got, sizeof f.answer - 1 - got, 0);
        has_ended = n == 0;
        got += n > 0 ? (size_t)n : 0;
    }
    if (!strstr(f.answer, text))
        fail_msg("no \"%s\" in \"%s\"", text, f.answer);
    return f.answer;
}

static void test_rows(void **state)
{
    (void)state;
    say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_non_null(strstr(await("\r\n\r\nabc"), "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(f.answer, "Cache-Control: no-store\r\n"));
    say("BREW /any HTTP/1.1\r\nHost: x\r\n\r\n"); // the same connection
    await("HTTP/1.1 200 OK\r\n");
    say("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(await("method_not_allowed"), "Allow: POST\r\n"));
    f.answers = 0;
    close(f.client);
    f.client = connect_client();
    say("PUT /both HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(await("method_not_allowed"), "Allow: GET, HEAD, POST\r\n"));
    assert_int_equal(f.answers, 1);
    assert_int_equal(f.last_status, 405);
}

static void test_no_row(void **state)
{
    (void)state;
    say("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(await("nothing here"), "HTTP/1.1 404 "));
}

static void test_rows_of_what_lies_below(void **state)
{
    (void)state;
    say("GET /below/a/b?c HTTP/1.1\r\nHost: x\r\n\r\n");
    await("HTTP/1.1 200 OK\r\n");
    say("GET /below/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(await("nothing here"), "HTTP/1.1 404 "));
    say("DELETE /below/a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(await("method_not_allowed"), "Allow: GET, HEAD\r\n"));
}

static void test_not_admitted(void **state)
{
    (void)state;
    say("GET /both HTTP/1.1\r\nHost: x\r\nX-Stranger: 1\r\n\r\n");
    assert_non_null(strstr(await("not you"), "HTTP/1.1 403 "));
}

static void test_body_too_large(void **state)
{
    (void)state;
    say("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\n0\r\n\r\n");
    assert_non_null(strstr(await("the body may have 10 bytes"), "HTTP/1.1 413 "));
}

static void await_waiting(void)
{
    for (unsigned i = 0; i < 4000 && !f.waiting; i++)
        loop_turn(&f.loop, 2);
    assert_non_null(f.waiting);
}

static void test_later(void **state)
{
    (void)state;
    say("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    await_waiting();
    serve_resume(f.waiting);
    serve_reply(f.waiting, 202, STR("text/plain"), STR("at last"));
    await("at last");
    assert_int_equal(f.gone, 0);
}

static void test_client_goes(void **state)
{
    (void)state;
    say("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    await_waiting();
    struct linger reset = {1, 0};
    setsockopt(f.client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(f.client);
    for (unsigned i = 0; i < 4000 && f.server.count; i++)
        loop_turn(&f.loop, 2);
    assert_int_equal(f.gone, 1);
    f.client = dup(f.listener);
}

// Draining: whoever waits for an answer gets it, and is told that it is the last one.
static void test_drain(void **state)
{
    (void)state;
    int idle = connect_client();
    say("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    await_waiting();
    serve_drain(&f.server);
    assert_int_equal(f.server.count, 1);
    serve_resume(f.waiting);
    serve_reply(f.waiting, 200, STR("text/plain"), STR("the last"));
    assert_non_null(strstr(await("the last"), "Connection: close\r\n"));
    close(idle);
}

// The longest idle connection makes room; without an idle one the newcomer is closed.
static void test_room(void **state)
{
    (void)state;
    say("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    await_waiting();
    int second = connect_client(), third = connect_client();
    for (unsigned i = 0; i < 50; i++)
        loop_turn(&f.loop, 1);
    assert_int_equal(f.server.count, 2);
    char byte;
    assert_int_equal(recv(second, &byte, 1, 0), 0);
    assert_true(recv(third, &byte, 1, 0) < 0);
    close(second);
    close(third);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        TEST(test_rows),         TEST(test_no_row),         TEST(test_rows_of_what_lies_below),
        TEST(test_not_admitted), TEST(test_body_too_large), TEST(test_later),
        TEST(test_client_goes),  TEST(test_drain),          TEST(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
