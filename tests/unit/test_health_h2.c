// Active checks over HTTP/2, by path and by gRPC, against a server that nghttp2 speaks for and that says what
// the test wants, good or bad.
#include "test_health_fixture.h"
#include "unit_loopback.h"

#include "upstream/grpc_health.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 64, FIELDS = 8 };

// ---- the server ----

struct field {
    const char *name, *value;
};

// What each request is answered with.
struct script {
    const char *raw; // this instead of HTTP/2, as soon as somebody comes
    size_t raw_n;
    struct field head[FIELDS]; // none: no answer ever
    bool ends_with_head;
    const char *body;
    size_t body_n;
    struct field trailers[FIELDS]; // none: the body ends the stream
    unsigned interim;              // heads of 103 before
    uint32_t reset;                // RST_STREAM with this code instead of an answer
    bool goaway;                   // that has not seen the request, instead of an answer
    unsigned pings;                // before the answer
    size_t piece;                  // bytes a turn; 0: all at once
};

struct client {
    struct server *server;
    int fd;
    nghttp2_session *session;
    char out[256 * 1024];
    size_t out_at, out_n;
    size_t raw_at, body_at;
};

struct server {
    int fd;
    struct addr addr;
    char name[ADDR_TEXT_MAX];
    const struct script *script;
    unsigned asked;
    char request[1024]; // the last one: fields, one a line, then its body
    size_t request_n;
    struct client clients[CLIENTS];
};

static size_t fill(nghttp2_nv *nv, const struct field *fields)
{
    size_t count = 0;
    for (; count < FIELDS && fields[count].name; count++)
        nv[count] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)fields[count].name,
                                 .namelen = strlen(fields[count].name),
                                 .value = (uint8_t *)(uintptr_t)fields[count].value,
                                 .valuelen = strlen(fields[count].value)};
    return count;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *context)
{
    (void)source;
    struct client *client = context;
    const struct script *script = client->server->script;
    size_t left = script->body_n - client->body_at, n = left < room ? left : room;
    if (n)
        memcpy(out, script->body + client->body_at, n);
    client->body_at += n;
    if (n < left)
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    nghttp2_nv nv[FIELDS];
    size_t count = fill(nv, script->trailers);
    if (count) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        assert_int_equal(nghttp2_submit_trailer(session, stream, nv, count), 0);
    }
    return (ssize_t)n;
}

static void answer(struct client *client, int32_t stream)
{
    const struct script *script = client->server->script;
    nghttp2_session *session = client->session;
    nghttp2_nv nv[FIELDS];
    for (unsigned i = 0; i < script->pings; i++)
        assert_int_equal(nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, NULL), 0);
    for (unsigned i = 0; i < script->interim; i++) {
        size_t count = fill(nv, (struct field[FIELDS]){{":status", "103"}, {"link", "</a>"}});
        assert_int_equal(nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, stream, NULL, nv, count, NULL),
                         0);
    }
    if (script->goaway) {
        nghttp2_session_terminate_session2(session, 0, NGHTTP2_NO_ERROR);
    } else if (script->reset) {
        assert_int_equal(nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, script->reset), 0);
    } else if (script->head[0].name) {
        nghttp2_data_provider provider = {.read_callback = read_body};
        client->body_at = 0;
        assert_int_equal(nghttp2_submit_response(session, stream, nv, fill(nv, script->head),
                                                 script->ends_with_head ? NULL : &provider),
                         0);
    }
}

static void note(struct server *server, const void *bytes, size_t n)
{
    assert_true(server->request_n + n < sizeof server->request);
    memcpy(server->request + server->request_n, bytes, n);
    server->request_n += n;
    server->request[server->request_n] = '\0';
}

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session, (void)frame;
    ((struct client *)context)->server->request_n = 0;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *context)
{
    (void)session, (void)frame, (void)flags;
    struct server *server = ((struct client *)context)->server;
    note(server, name, name_n);
    note(server, ": ", 2);
    note(server, value, value_n);
    note(server, "\n", 1);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t n,
                   void *context)
{
    (void)session, (void)flags, (void)stream;
    note(((struct client *)context)->server, data, n);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session;
    struct client *client = context;
    bool is_message = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (is_message && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        client->server->asked++;
        answer(client, frame->hd.stream_id);
    }
    return 0;
}

static void client_close(struct client *client)
{
    close(client->fd);
    nghttp2_session_del(client->session);
    client->fd = -1;
    client->session = NULL;
}

static void server_accept(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++) {
        struct client *client = &server->clients[i];
        if (client->fd >= 0)
            continue;
        int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        client->server = server;
        client->fd = fd;
        client->out_at = client->out_n = client->raw_at = 0;
        nghttp2_session_callbacks *callbacks;
        assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
        assert_int_equal(nghttp2_session_server_new(&client->session, callbacks, client), 0);
        nghttp2_session_callbacks_del(callbacks);
        assert_int_equal(nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, NULL, 0), 0);
    }
}

// What nghttp2 wants to say, at most a piece of it a turn. False: the client has gone.
static bool client_send(struct client *client)
{
    const struct script *script = client->server->script;
    if (client->out_at == client->out_n) {
        const uint8_t *bytes;
        client->out_at = client->out_n = 0;
        ssize_t n;
        while ((n = nghttp2_session_mem_send(client->session, &bytes)) > 0) {
            assert_true(client->out_n + (size_t)n <= sizeof client->out);
            memcpy(client->out + client->out_n, bytes, (size_t)n);
            client->out_n += (size_t)n;
        }
        assert_int_equal(n, 0);
    }
    size_t left = client->out_n - client->out_at;
    size_t piece = script->piece && script->piece < left ? script->piece : left;
    ssize_t n = send(client->fd, client->out + client->out_at, piece, MSG_NOSIGNAL);
    if (n > 0)
        client->out_at += (size_t)n;
    return n >= 0 || errno == EAGAIN;
}

static bool client_send_raw(struct client *client)
{
    const struct script *script = client->server->script;
    ssize_t n = send(client->fd, script->raw + client->raw_at, script->raw_n - client->raw_at, MSG_NOSIGNAL);
    if (n > 0)
        client->raw_at += (size_t)n;
    return client->raw_at < script->raw_n && (n >= 0 || errno == EAGAIN);
}

static void client_serve(struct client *client)
{
    uint8_t bytes[4096];
    ssize_t n = recv(client->fd, bytes, sizeof bytes, 0);
    bool gone = n == 0 || (n < 0 && errno != EAGAIN);
    if (client->server->script->raw) {
        if (gone || (n > 0 && !client_send_raw(client)))
            client_close(client);
        return;
    }
    if (n > 0)
        gone = nghttp2_session_mem_recv(client->session, bytes, (size_t)n) < 0;
    if (gone || !client_send(client))
        client_close(client);
}

static void server_turn(struct server *server)
{
    server_accept(server);
    for (int i = 0; i < CLIENTS; i++)
        if (server->clients[i].fd >= 0)
            client_serve(&server->clients[i]);
}

static void server_close(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++)
        if (server->clients[i].fd >= 0)
            client_close(&server->clients[i]);
    if (server->fd >= 0)
        close(server->fd);
    server->fd = -1;
}

static struct server *server_new(const struct script *script)
{
    struct server *server = calloc(1, sizeof *server);
    server->script = script;
    server->addr = bind_loopback(&server->fd, true);
    addr_print(&server->addr, server->name);
    for (int i = 0; i < CLIENTS; i++)
        server->clients[i].fd = -1;
    return server;
}

static struct scene *scene_new(const struct script *script)
{
    struct server *server = server_new(script);
    struct scene *scene = scene_around(server, "h2", server->name, &server->addr);
    scene->settings.protocol = UPSTREAM_H2;
    return scene;
}

static struct scene *scene_grpc(const struct script *script, const char *service)
{
    struct scene *scene = scene_new(script);
    scene->settings.health_check.path = STR_NULL;
    scene->settings.health_check.has_grpc = true;
    scene->settings.health_check.grpc = str_of(service);
    return scene;
}

static void assert_asked(struct scene *scene, const char *line)
{
    if (!strstr(scene->server->request, line))
        fail_msg("not in the request: %s\n%s", line, scene->server->request);
}

// ---- by path ----

#define BYTES(literal) (literal), sizeof(literal) - 1
#define GRPC                               \
    {":status", "200"},                    \
    {                                      \
        "content-type", "application/grpc" \
    }
#define SERVING "\0\0\0\0\x02\x08\x01"

static const struct script good_get = {.head = {{":status", "200"}}, .body = "ok", .body_n = 2};
static const struct script bad_get = {.head = {{":status", "503"}}, .ends_with_head = true};
static const struct script good_grpc = {
    .head = {GRPC}, .body = SERVING, .body_n = 7, .trailers = {{"grpc-status", "0"}}};

static void test_get(void **state)
{
    (void)state;
    struct scene *scene = scene_new(&good_get);
    scene_start(scene);
    turn_checks(scene, 3);
    assert_true(is_up(scene));
    assert_int_equal(atomic_load(&endpoint_of(scene)->check_failures), 0);
    assert_says(scene, "status 200 after");
    assert_asked(scene, ":method: GET\n:scheme: http\n:authority: 127.0.0.1:");
    assert_asked(scene, ":path: /health\n");
    assert_asked(scene, "user-agent: sallyport-health\n");
    scene_free(scene);
}

static void test_down_and_up_again(void **state)
{
    (void)state;
    struct scene *scene = scene_new(&bad_get);
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "status 503");
    scene->server->script = &good_get;
    turn_until(scene, true);
    scene_free(scene);
}

// Each of them as it comes, and byte by byte.
static void assert_each_passes(const struct script *scripts, size_t count, bool grpc)
{
    for (size_t i = 0; i < 2 * count; i++) {
        struct script script = scripts[i / 2];
        script.piece = i % 2;
        struct scene *scene = grpc ? scene_grpc(&script, "") : scene_new(&script);
        scene_start(scene);
        turn_checks(scene, 2);
        if (atomic_load(&endpoint_of(scene)->check_failures))
            fail_msg("script %zu: %s", i / 2, endpoint_of(scene)->last_check);
        scene_free(scene);
    }
}

static void test_answers_that_pass(void **state)
{
    (void)state;
    static const struct script scripts[] = {
        {.head = {{":status", "204"}}, .ends_with_head = true},
        {.head = {{":status", "302"}, {"location", "/login"}}, .ends_with_head = true},
        {.head = {{":status", "200"}}, .interim = 16, .body = "ok", .body_n = 2},
        {.head = {{":status", "200"}}, .pings = 100, .ends_with_head = true},
    };
    assert_each_passes(scripts, countof(scripts), false);
}

struct failing {
    struct script script;
    const char *says;
};

static void assert_each_fails(const struct failing *rows, size_t count, bool grpc)
{
    for (size_t i = 0; i < count; i++) {
        struct scene *scene = grpc ? scene_grpc(&rows[i].script, "") : scene_new(&rows[i].script);
        scene->settings.health_check.unhealthy = 1;
        scene_start(scene);
        turn_until(scene, false);
        assert_int_equal(checks_of(scene), 1);
        if (!strstr(endpoint_of(scene)->last_check, rows[i].says))
            fail_msg("script %zu: \"%s\" says nothing of \"%s\"", i, endpoint_of(scene)->last_check,
                     rows[i].says);
        scene_free(scene);
    }
}

static char flood[256 * 1024]; // frames of type PRIORITY_UPDATE behind empty SETTINGS

static void test_answers_that_fail(void **state)
{
    (void)state;
    size_t n = 0;
    for (; n + 9 <= sizeof flood; n += 9)
        memcpy(flood + n, n ? "\0\0\0\x10\0\0\0\0\0" : "\0\0\0\x04\0\0\0\0\0", 9);
    const struct failing rows[] = {
        {{.head = {{":status", "404"}}, .ends_with_head = true}, "status 404 after"},
        {{.head = {{":status", "2000"}}, .ends_with_head = true}, "bad response"},
        {{.head = {{"x-a", "b"}}, .ends_with_head = true}, "bad response"},
        {{.head = {{":status", "200"}, {"x-a", "\x01"}}, .ends_with_head = true}, "malformed header field"},
        {{.head = {{":status", "200"}, {"connection", "close"}}, .ends_with_head = true}, "bad response"},
        {{.head = {{":status", "200"}, {":path", "/"}}, .ends_with_head = true}, "bad response"},
        {{.head = {{":status", "101"}}, .ends_with_head = true}, "bad response"},
        {{.head = {{":status", "200"}}, .interim = 17, .ends_with_head = true}, "too many interim responses"},
        {{.reset = NGHTTP2_REFUSED_STREAM}, "the stream was closed: REFUSED_STREAM"},
        {{.reset = NGHTTP2_HTTP_1_1_REQUIRED}, "HTTP_1_1_REQUIRED"},
        {{.goaway = true}, "the stream was closed: REFUSED_STREAM"},
        {{.raw = BYTES("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")}, "not HTTP/2"},
        {{.raw = BYTES("SSH-2.0-OpenSSH_9.2\r\n")}, "not HTTP/2"},
        {{.raw = BYTES("\0\0\0\x04\0\0\0\0\0")}, "closed without an answer"},
        {{.raw = BYTES("")}, "closed without an answer"},
        {{.raw = BYTES("\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0")}, "not HTTP/2"}, // PING is first
        {{.raw = flood, .raw_n = n}, "too much of it"},
    };
    assert_each_fails(rows, countof(rows), false);
}

static void test_a_large_head_fails(void **state)
{
    (void)state;
    static char value[10000];
    memset(value, 'x', sizeof value - 1);
    const struct failing rows[] = {
        {{.head = {{":status", "200"}, {"x-a", value}}, .ends_with_head = true}, "head too large"},
    };
    assert_each_fails(rows, countof(rows), false);
}

static void test_silence_meets_its_deadline(void **state)
{
    (void)state;
    static const struct script silent = {0};
    struct scene *scene = scene_new(&silent);
    scene->settings.health_check.timeout_us = 400000;
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "timeout: no answer within 400 ms");
    scene_free(scene);
}

// ---- by gRPC ----

static void test_grpc(void **state)
{
    (void)state;
    struct scene *scene = scene_grpc(&good_grpc, "shop.Orders");
    scene->settings.health_check.timeout_us = 1500000;
    scene_start(scene);
    turn_checks(scene, 3);
    assert_int_equal(atomic_load(&endpoint_of(scene)->check_failures), 0);
    assert_says(scene, "SERVING after");
    assert_asked(scene, ":method: POST\n");
    assert_asked(scene, ":path: /grpc.health.v1.Health/Check\n");
    assert_asked(scene, "content-type: application/grpc\n");
    assert_asked(scene, "te: trailers\n");
    assert_asked(scene, "grpc-timeout: 1500000u\n");
    size_t n = scene->server->request_n;
    assert_true(n > 18);
    assert_memory_equal(scene->server->request + n - 18, "\0\0\0\0\x0d\x0a\x0bshop.Orders", 18);
    scene_free(scene);
}

static void test_grpc_of_the_whole_server(void **state)
{
    (void)state;
    struct scene *scene = scene_grpc(&good_grpc, "");
    scene_start(scene);
    turn_checks(scene, 2);
    assert_true(is_up(scene));
    size_t n = scene->server->request_n;
    assert_memory_equal(scene->server->request + n - 6, "\n\0\0\0\0\0", 6);
    scene_free(scene);
}

static void test_grpc_answers_that_pass(void **state)
{
    (void)state;
    static const struct script scripts[] = {
        {.head = {{":status", "200"}, {"content-type", "application/grpc+proto"}},
         .body = SERVING,
         .body_n = 7,
         .trailers = {{"grpc-status", "0"}, {"grpc-message", ""}, {"x-a", "b"}}},
        {.head = {GRPC}, .interim = 3, .body = SERVING, .body_n = 7, .trailers = {{"grpc-status", "0"}}},
    };
    assert_each_passes(scripts, countof(scripts), true);
}

static void test_grpc_answers_that_fail(void **state)
{
    (void)state;
    static char large[GRPC_HEALTH_ANSWER_MAX + 1];
    const struct failing rows[] = {
        {{.head = {GRPC}, .body = BYTES("\0\0\0\0\x02\x08\x02"), .trailers = {{"grpc-status", "0"}}},
         "NOT_SERVING after"},
        {{.head = {GRPC}, .body = BYTES("\0\0\0\0\x02\x08\x03"), .trailers = {{"grpc-status", "0"}}},
         "SERVICE_UNKNOWN"},
        {{.head = {GRPC}, .body = BYTES("\0\0\0\0\0"), .trailers = {{"grpc-status", "0"}}}, "UNKNOWN after"},
        {{.head = {GRPC}, .body = BYTES("\0\0\0\0\x02\x08\x07"), .trailers = {{"grpc-status", "0"}}},
         "an unknown status"},
        {{.head = {GRPC, {"grpc-status", "12"}, {"grpc-message", "no such method"}}, .ends_with_head = true},
         "grpc-status 12 UNIMPLEMENTED: no such method"},
        {{.head = {GRPC, {"grpc-status", "5"}}, .ends_with_head = true}, "grpc-status 5 NOT_FOUND"},
        {{.head = {GRPC, {"grpc-status", "99"}, {"grpc-message", "\xff\xfe"}}, .ends_with_head = true},
         "grpc-status 99: ??"},
        {{.head = {GRPC, {"grpc-status", "0"}}, .ends_with_head = true}, "bad response: no message"},
        {{.head = {GRPC}, .ends_with_head = true}, "no grpc-status"},
        {{.head = {GRPC}, .body = BYTES(SERVING), .trailers = {{"grpc-status", "14"}}},
         "grpc-status 14 UNAVAILABLE"},
        {{.head = {GRPC}, .body = BYTES(SERVING)}, "no grpc-status"}, // no trailers
        {{.head = {GRPC}, .body = BYTES(SERVING), .trailers = {{"x-a", "b"}}}, "no grpc-status"},
        {{.head = {GRPC}, .body = BYTES(SERVING), .trailers = {{"grpc-status", "0"}, {"grpc-status", "0"}}},
         "malformed grpc-status"},
        {{.head = {GRPC}, .body = BYTES(SERVING), .trailers = {{"grpc-status", "ok"}}},
         "malformed grpc-status"},
        {{.head = {GRPC}, .body = BYTES(SERVING), .trailers = {{"grpc-status", "0"}, {":status", "200"}}},
         "bad response"},
        {{.head = {GRPC}, .body = BYTES("\0\0\0\0\x02\x08"), .trailers = {{"grpc-status", "0"}}},
         "cut short"},
        {{.head = {GRPC}, .body = BYTES("\1\0\0\0\x02\x08\1"), .trailers = {{"grpc-status", "0"}}},
         "compressed"},
        {{.head = {GRPC}, .body = large, .body_n = sizeof large, .trailers = {{"grpc-status", "0"}}},
         "its message is too large"},
        {{.head = {{":status", "404"}}, .ends_with_head = true}, "status 404, no gRPC"},
        {{.head = {{":status", "200"}, {"content-type", "text/html"}}, .body = "hi", .body_n = 2},
         "its content type is not application/grpc"},
        {{.head = {{":status", "200"}}, .ends_with_head = true}, "its content type"},
        {{.reset = NGHTTP2_INTERNAL_ERROR}, "the stream was closed: INTERNAL_ERROR"},
    };
    assert_each_fails(rows, countof(rows), true);
}

// ---- reload ----

static void test_reload_with_another_protocol_asks_anew(void **state)
{
    (void)state;
    static const struct script silent = {0};
    struct scene *scene = scene_new(&silent);
    scene_start(scene);
    while (!scene->server->asked)
        turn(scene);
    assert_asked(scene, ":path: /health\n");
    scene->settings.health_check.path = STR_NULL;
    scene->settings.health_check.has_grpc = true;
    scene->server->script = &good_grpc;
    scene_start(scene);
    turn_checks(scene, 1);
    assert_says(scene, "SERVING after");
    scene->settings.health_check.has_grpc = false; // no checks at all
    scene_start(scene);
    uint64_t checks = checks_of(scene);
    for (int i = 0; i < 20; i++)
        turn(scene);
    assert_int_equal(checks_of(scene), checks);
    scene_free(scene);
}

// Stopped, or handed on to the next snapshot, in the middle of everything (ASan watches).
static void test_stop_at_any_moment(void **state)
{
    (void)state;
    for (int turns = 0; turns < 24; turns++) {
        struct script script = good_grpc;
        script.piece = 11;
        struct scene *scene = scene_grpc(&script, "shop.Orders");
        interrupt_checks(scene, turns, "SERVING after");
        scene_free(scene);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_down_and_up_again),
        cmocka_unit_test(test_answers_that_pass),
        cmocka_unit_test(test_answers_that_fail),
        cmocka_unit_test(test_a_large_head_fails),
        cmocka_unit_test(test_silence_meets_its_deadline),
        cmocka_unit_test(test_grpc),
        cmocka_unit_test(test_grpc_of_the_whole_server),
        cmocka_unit_test(test_grpc_answers_that_pass),
        cmocka_unit_test(test_grpc_answers_that_fail),
        cmocka_unit_test(test_reload_with_another_protocol_asks_anew),
        cmocka_unit_test(test_stop_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
