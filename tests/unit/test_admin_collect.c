// Asking workers: answers in time, late, and when nobody waits any more. The workers' loops are turned by
// hand.
#include "unit.h"

#include "admin/collect.h"
#include "auth/jwks.h"
#include "auth/provider.h"
#include "token/sign.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 2 };

struct fixture {
    struct loop loop;
    struct gateway *gateway;
    struct worker *workers[WORKERS];
    struct admin_host host;
    struct admin *admin;
    int listener, client;
    char answer[65536];
    size_t got;
};

static const char config[] = "version: 1\n"
                             "listeners: [{ name: http, address: \"127.0.0.1:1\" }]\n"
                             "upstreams: { u: { targets: [{ address: \"127.0.0.1:2\" }] } }\n"
                             "routes: [{ name: r, upstream: u }]\n";

static void open_fixture(struct fixture *f, enum admin_kind kind)
{
    memset(f, 0, sizeof *f);
    struct err err = {0};
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    assert_int_equal(loop_init(&f->loop, &err), ERR_OK);
    f->gateway = gateway_new(STR("test"), str_of(config), NULL, &report);
    if (!f->gateway)
        fail_msg("%.*s", STR_ARG(report.first->what));
    arena_reset(&arena);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_non_null(f->workers[i] = worker_new(i, WORKERS, f->gateway, NULL, &err));
    f->host = (struct admin_host){
        .workers = f->workers, .worker_count = WORKERS, .gateway = f->gateway, .state = ADMIN_READY};
    f->admin = admin_new(&f->loop, &f->host);
    struct addr addr;
    assert_true(addr_parse(STR("127.0.0.1:0"), &addr));
    assert_true((f->listener = listen_socket(&addr, true, &err)) >= 0);
    assert_true(admin_listen(f->admin, kind, f->listener));
    addr.length = sizeof addr.local;
    assert_int_equal(getsockname(f->listener, &addr.any, &addr.length), 0);
    f->client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(f->client, &addr.any, addr.length), 0);
    fcntl(f->client, F_SETFL, O_NONBLOCK);
}

static void turn_workers(struct fixture *f)
{
    for (unsigned i = 0; i < WORKERS; i++)
        loop_turn(&f->workers[i]->loop, 0);
}

static void close_fixture(struct fixture *f)
{
    if (f->admin)
        admin_free(f->admin);
    turn_workers(f);
    loop_turn(&f->loop, 0);
    for (unsigned i = 0; i < WORKERS; i++)
        worker_free(f->workers[i]);
    gateway_unref(f->gateway);
    gateway_reap();
    loop_fini(&f->loop);
    close(f->listener);
    close(f->client);
}

static void ask(struct fixture *f, const char *path)
{
    char text[256];
    int n =
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    assert_int_equal(send(f->client, text, (size_t)n, 0), n);
}

// Turns the control loop until the answer is complete.
static const char *await(struct fixture *f)
{
    uint64_t until_ms = loop_now_ms(&f->loop) + 20000;
    while (loop_now_ms(&f->loop) < until_ms) {
        loop_turn(&f->loop, 5);
        ssize_t n = recv(f->client, f->answer + f->got, sizeof f->answer - 1 - f->got, 0);
        if (n == 0) {
            f->answer[f->got] = 0;
            return f->answer;
        }
        f->got += n > 0 ? (size_t)n : 0;
    }
    fail_msg("no answer");
    return NULL;
}

// Until the request has been read and the workers have been asked.
static void await_asked(struct fixture *f)
{
    for (unsigned i = 0; i < 4000 && !f->admin->collections; i++)
        loop_turn(&f->loop, 5);
    assert_int_equal(f->admin->collections, 1);
}

static void test_all_answer(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_API);
    ask(&f, "/api/v1/exchanges");
    await_asked(&f);
    turn_workers(&f);
    assert_non_null(strstr(await(&f), "{\"live\":0,\"complete\":true,\"exchanges\":[]}"));
    assert_int_equal(f.admin->collections, 0);
    close_fixture(&f);
}

static void test_one_is_late(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_API);
    ask(&f, "/api/v1/info");
    await_asked(&f);
    loop_turn(&f.workers[0]->loop, 0);
    const char *answer = await(&f);
    assert_non_null(strstr(answer, "{\"worker\":0,\"answers\":true,"));
    assert_non_null(strstr(answer, "{\"worker\":1,\"answers\":false}"));
    assert_int_equal(f.admin->collections, 1); // kept for the one that will still write to it
    loop_turn(&f.workers[1]->loop, 0);
    loop_turn(&f.loop, 0);
    assert_int_equal(f.admin->collections, 0);
    close_fixture(&f);
}

static void test_metrics_need_all(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_STATUS);
    ask(&f, "/metrics");
    await_asked(&f);
    loop_turn(&f.workers[0]->loop, 0);
    const char *answer = await(&f);
    assert_non_null(strstr(answer, "HTTP/1.1 503 "));
    assert_non_null(strstr(answer, "Retry-After: "));
    close_fixture(&f);
}

static void test_client_goes_away(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_API);
    ask(&f, "/api/v1/upstreams");
    await_asked(&f);
    struct linger reset = {1, 0};
    setsockopt(f.client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(f.client);
    for (unsigned i = 0; i < 4000 && f.admin->doors[ADMIN_API].count; i++)
        loop_turn(&f.loop, 5);
    assert_int_equal(f.admin->doors[ADMIN_API].count, 0);
    turn_workers(&f);
    loop_turn(&f.loop, 0);
    assert_int_equal(f.admin->collections, 0);
    f.client = dup(f.listener);
    close_fixture(&f);
}

static void test_room_goes_away(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_STATUS);
    ask(&f, "/metrics");
    await_asked(&f);
    admin_free(f.admin);
    f.admin = NULL;
    loop_turn(&f.loop, 0);
    turn_workers(&f); // answers nobody wants
    loop_turn(&f.loop, 0);
    close_fixture(&f);
}

static void test_no_workers(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_STATUS);
    f.host.worker_count = 0;
    f.host.state = ADMIN_STARTING;
    ask(&f, "/metrics");
    assert_non_null(strstr(await(&f), "HTTP/1.1 200 OK\r\n"));
    close_fixture(&f);
}

static void test_starting(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_STATUS);
    f.host.state = ADMIN_STARTING;
    ask(&f, "/readyz");
    const char *answer = await(&f);
    assert_non_null(strstr(answer, "HTTP/1.1 503 "));
    assert_non_null(strstr(answer, "{\"status\":\"not_ready\",\"reason\":\"starting\"}"));
    close_fixture(&f);
}

static void test_whose_keys_are_awaited(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_STATUS);
    struct jwt_settings settings = {.jwks = {.file = STR("/nowhere")}};
    struct auth_provider provider = {.name = STR("corp"), .jwks = jwks_open(STR("corp"), &settings)};
    struct auth_provider *providers[] = {&provider};
    struct auth none = f.gateway->auth;
    f.gateway->auth.providers = providers;
    f.gateway->auth.provider_count = 1;
    f.host.state = ADMIN_STARTING;
    ask(&f, "/readyz");
    assert_non_null(
        strstr(await(&f), "{\"status\":\"not_ready\",\"reason\":\"starting\",\"awaits_keys_of\":\"corp\"}"));
    f.gateway->auth = none;
    jwks_close(provider.jwks);
    close_fixture(&f);
}

static void test_the_key_of_identity_token(void **state)
{
    (void)state;
    struct identity_token_settings settings = {.header = STR("X-Identity")};
    struct buf pem = {0};
    struct err err;
    assert_true(token_key_generate(ALGORITHM_ES256, NULL, &pem));
    struct token_signer *signer = token_signer_new(buf_str(&pem), NULL, &err);
    for (int is_on = 0; is_on < 2; is_on++) {
        struct fixture f;
        open_fixture(&f, ADMIN_STATUS);
        if (is_on) {
            f.gateway->auth.identity_token = &settings;
            f.gateway->auth.identity_key = buf_str(&pem);
        }
        ask(&f, "/jwks.json");
        const char *answer = await(&f);
        assert_non_null(strstr(answer, is_on ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 404 "));
        if (is_on) {
            assert_non_null(strstr(answer, "\r\nContent-Type: application/jwk-set+json\r\n"));
            const char *body = strstr(answer, "\r\n\r\n") + 4;
            struct token_keys *keys = token_keys_parse(str_of(body), &err); // nothing private is in it
            assert_non_null(keys);
            assert_int_equal(token_keys_count(keys), 1);
            token_keys_unref(keys);
            assert_non_null(
                memmem(body, strlen(body), token_signer_kid(signer).p, token_signer_kid(signer).n));
        }
        f.gateway->auth.identity_token = NULL;
        close_fixture(&f);
    }
    token_signer_free(signer);
    buf_free(&pem);
}

// A slow client of a long answer: sent as it is taken, to the end.
static void test_pieces(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, ADMIN_API);
    int small = 4096;
    setsockopt(f.client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ask(&f, "/api/v1/limits");
    const char *answer = await(&f);
    assert_non_null(strstr(answer, "\"upstreams\":[{\"name\":\"u\",\"limits\":{"));
    assert_string_equal(answer + strlen(answer) - 3, "}}\n"); // the whole of it
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_answer),
        cmocka_unit_test(test_one_is_late),
        cmocka_unit_test(test_metrics_need_all),
        cmocka_unit_test(test_client_goes_away),
        cmocka_unit_test(test_room_goes_away),
        cmocka_unit_test(test_no_workers),
        cmocka_unit_test(test_starting),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_whose_keys_are_awaited),
        cmocka_unit_test(test_the_key_of_identity_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
