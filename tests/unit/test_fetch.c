// Whole questions to an upstream, against a server that answers, hangs, breaks off and talks nonsense.
#include "test_fetch_fixture.h"

#include "http/h2.h"

enum { ANSWER_BYTES = 64 * 1024 };

struct question {
    struct fetch *fetch;
    enum end_cause cause; // of a start that failed, or of the answer
    unsigned calls, status;
    size_t body_n;
    char body[ANSWER_BYTES + 1], type[64];
};

struct fixture {
    struct upstream_scene scene;
    struct question questions[8];
};

static void on_done(void *owner, const struct fetch_answer *answer)
{
    struct question *question = owner;
    question->calls++;
    question->fetch = NULL;
    question->cause = answer->cause;
    question->status = answer->status;
    question->body_n = answer->body.n;
    assert_true(answer->body.n <= ANSWER_BYTES);
    if (answer->body.n)
        memcpy(question->body, answer->body.p, answer->body.n);
    question->body[answer->body.n] = 0;
    assert_int_equal(answer->headers != NULL, answer->cause == END_OK);
    if (answer->headers)
        snprintf(question->type, sizeof question->type, "%.*s",
                 STR_ARG(headers_value(answer->headers, HEADER_CONTENT_TYPE)));
}

static void ask(struct fixture *f, struct question *question, struct fetch_request request)
{
    request.upstream = &f->scene.upstream;
    request.authority = STR("auth.example:9400");
    if (!request.target.n)
        request.target = STR("/introspect?x=1");
    if (!request.timeout_us)
        request.timeout_us = 5000000;
    if (!request.answer_bytes)
        request.answer_bytes = ANSWER_BYTES;
    *question = (struct question){0};
    question->fetch = fetch_start(f->scene.worker, &request, question, on_done, &question->cause);
    assert_int_equal(question->calls, 0);
}

static const struct fetch_request get = {.method = METHOD_GET};
static const struct fetch_request post = {.method = METHOD_POST, .body = {"token=abc", 9}};

// To its end.
static struct question *finish(struct fixture *f, struct fetch_request request)
{
    struct question *question = &f->questions[0];
    ask(f, question, request);
    assert_non_null(question->fetch);
    UNTIL(&f->scene, question->calls);
    scene_turns(&f->scene, 3);
    assert_int_equal(question->calls, 1);
    return question;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    scene_init(&f->scene);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < countof(f->questions); i++)
        if (f->questions[i].fetch)
            fetch_cancel(f->questions[i].fetch);
    scene_fini(&f->scene);
    free(f);
    return 0;
}

#define OK_REPLY \
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"active\":true}"

// ---- answers ----

static void test_a_question_and_its_answer(void **state)
{
    struct fixture *f = *state;
    struct server *server = &f->scene.server;
    server->reply = OK_REPLY;
    struct header fields[] = {{STR("Accept"), STR("application/json"), HEADER_OTHER},
                              {STR("X-Gone"), STR("1"), HEADER_GONE}};
    struct headers headers = {fields, 2, 2};
    struct fetch_request request = post;
    request.headers = &headers;
    struct question *question = finish(f, request);
    assert_int_equal(question->cause, END_OK);
    assert_int_equal(question->status, 200);
    assert_string_equal(question->body, "{\"active\":true}");
    assert_string_equal(question->type, "application/json");
    assert_string_equal(server->last, "POST /introspect?x=1 HTTP/1.1\r\nHost: auth.example:9400\r\n"
                                      "User-Agent: sallyport\r\nAccept: application/json\r\n"
                                      "Content-Length: 9\r\n\r\ntoken=abc");
    // The connection is kept; a GET has no length.
    question = finish(f, get);
    assert_int_equal(question->cause, END_OK);
    assert_string_equal(server->last, "GET /introspect?x=1 HTTP/1.1\r\nHost: auth.example:9400\r\n"
                                      "User-Agent: sallyport\r\n\r\n");
    assert_int_equal(server->accepted, 1);
}

static void test_an_empty_post_has_a_length(void **state)
{
    struct fixture *f = *state;
    f->scene.server.reply = "HTTP/1.1 204 No Content\r\n\r\n";
    struct question *question = finish(f, (struct fetch_request){.method = METHOD_POST});
    assert_int_equal(question->cause, END_OK);
    assert_int_equal(question->status, 204);
    assert_int_equal(question->body_n, 0);
    assert_non_null(strstr(f->scene.server.last, "\r\nContent-Length: 0\r\n"));
}

static void test_any_status_and_framing_is_an_answer(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *reply;
        bool closes;
        unsigned status;
        const char *body;
    } rows[] = {
        {"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", false, 500, "oops"},
        {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", false, 302, ""},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", false, 200,
         "abcde"},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", true, 200, "until the end"},
        {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
         false, 200, "ok"},
    };
    for (size_t piece = 0; piece < 2; piece++) // in one piece, and byte by byte
        for (size_t i = 0; i < countof(rows); i++) {
            f->scene.server.reply = rows[i].reply;
            f->scene.server.closes = rows[i].closes;
            f->scene.server.piece = piece;
            struct question *question = finish(f, get);
            assert_int_equal(question->cause, END_OK);
            assert_int_equal(question->status, rows[i].status);
            assert_string_equal(question->body, rows[i].body);
        }
}

static void test_what_is_no_answer(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *reply;
        bool closes;
        enum end_cause cause;
    } rows[] = {
        {"SSH-2.0-OpenSSH_9.2\r\n\r\n", false, END_UPSTREAM_BAD_RESPONSE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", false,
         END_UPSTREAM_BAD_RESPONSE},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", false, END_UPSTREAM_BAD_RESPONSE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"active\":true", true, END_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true, END_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 200", true, END_UPSTREAM_RESET},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        f->scene.server.reply = rows[i].reply;
        f->scene.server.closes = rows[i].closes;
        struct question *question = finish(f, get);
        assert_int_equal(question->cause, rows[i].cause);
        assert_int_equal(question->body_n, 0);
        assert_int_equal(f->scene.server.requests, i + 1); // and it is not asked again
    }
}

static void test_an_answer_that_is_too_long(void **state)
{
    struct fixture *f = *state;
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < countof(replies); i++) {
        struct fetch_request request = get;
        f->scene.server.reply = replies[i];
        request.answer_bytes = 11;
        assert_int_equal(finish(f, request)->cause, END_OK);
        request.answer_bytes = 10;
        assert_int_equal(finish(f, request)->cause, END_UPSTREAM_BAD_RESPONSE);
        request.answer_bytes = 1;
        assert_int_equal(finish(f, request)->cause, END_UPSTREAM_BAD_RESPONSE);
    }
}

static void test_a_long_answer_in_pieces(void **state)
{
    struct fixture *f = *state;
    static char reply[ANSWER_BYTES + 128];
    int head = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", ANSWER_BYTES);
    memset(reply + head, 'x', ANSWER_BYTES);
    f->scene.server.reply = reply;
    f->scene.server.reply_n = (size_t)head + ANSWER_BYTES;
    f->scene.server.piece = 7001;
    struct question *question = finish(f, get);
    assert_int_equal(question->cause, END_OK);
    assert_int_equal(question->body_n, ANSWER_BYTES);
    for (size_t i = 0; i < ANSWER_BYTES; i++)
        assert_int_equal(question->body[i], 'x');
}

// ---- time ----

static void test_one_deadline_for_all_of_it(void **state)
{
    struct fixture *f = *state;
    struct fetch_request request = get;
    request.timeout_us = 50000;
    // Nothing comes.
    uint64_t began_us = f->scene.loop.now_us;
    assert_int_equal(finish(f, request)->cause, END_UPSTREAM_TIMEOUT);
    assert_true(clock_monotonic_us() - began_us >= 50000);
    // What comes bit by bit, and never to its end, does not make it longer.
    f->scene.server.reply = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\nabcdefghijklmnopqrstuvwxyz";
    f->scene.server.piece = 1;
    assert_int_equal(finish(f, request)->cause, END_UPSTREAM_TIMEOUT);
    // What had not ended is not used again.
    f->scene.server.piece = 0;
    f->scene.server.reply = OK_REPLY;
    assert_int_equal(finish(f, get)->cause, END_OK);
    assert_int_equal(f->scene.server.accepted, 3);
}

static void test_cancelled_at_any_moment(void **state)
{
    struct fixture *f = *state;
    f->scene.server.reply = OK_REPLY;
    f->scene.server.piece = 9;
    unsigned cancelled = 0;
    for (unsigned moment = 0; moment < 40; moment++) {
        struct question *question = &f->questions[0];
        ask(f, question, moment % 2 ? get : post);
        scene_turns(&f->scene, moment / 2);
        if (question->fetch) {
            fetch_cancel(question->fetch);
            question->fetch = NULL;
            cancelled++;
            scene_turns(&f->scene, 3);
            assert_int_equal(question->calls, 0);
        }
        assert_int_equal(upstream_worker_lent(f->scene.worker), 0);
    }
    assert_true(cancelled > 10 && cancelled < 40);
    f->scene.server.piece = 0;
    assert_int_equal(finish(f, get)->cause, END_OK);
}

// ---- connections ----

static void test_nobody_listens(void **state)
{
    struct fixture *f = *state;
    close(f->scene.server.listener);
    f->scene.server.listener = -1;
    assert_int_equal(finish(f, get)->cause, END_UPSTREAM_CONNECT_FAILED);
}

static void test_the_next_address_of_a_name(void **state)
{
    struct fixture *f = *state;
    int fds[2];
    for (unsigned i = 0; i < 2; i++) {
        struct addr addr = bind_loopback(&fds[i], false);
        struct endpoint *dead = endpoint_ref(STR("auth:service"), i ? STR("dead-b") : STR("dead-a"), &addr);
        dead->addr = addr;
        f->scene.targets[i + 1] = (struct upstream_target){dead, 1, STR("localhost")};
    }
    f->scene.upstream.target_count = 3;
    scene_update(&f->scene);
    f->scene.server.reply = OK_REPLY;
    for (unsigned i = 0; i < 6; i++) // wherever the turn begins
        assert_int_equal(finish(f, post)->cause, END_OK);
    close(fds[0]);
    close(fds[1]);
}

static void test_no_endpoint(void **state)
{
    struct fixture *f = *state;
    endpoint_unref(f->scene.targets[0].endpoint);
    f->scene.upstream.target_count = 0;
    scene_update(&f->scene);
    ask(f, &f->questions[0], get);
    assert_null(f->questions[0].fetch);
    assert_int_equal(f->questions[0].cause, END_NO_ENDPOINT);
    scene_turns(&f->scene, 3);
    assert_int_equal(f->questions[0].calls, 0);
}

// The server closes a kept-alive connection in the moment in which the next question leaves.
static void break_kept(struct fixture *f)
{
    f->scene.server.reply = OK_REPLY;
    f->scene.server.hangs_up = false;
    assert_int_equal(finish(f, get)->cause, END_OK);
    f->scene.server.hangs_up = true;
}

static void test_a_kept_connection_that_was_dead(void **state)
{
    struct fixture *f = *state;
    static const struct {
        bool repeatable;
        enum http_method method;
        bool again;
    } rows[] = {{false, METHOD_GET, true}, {false, METHOD_POST, false}, {true, METHOD_POST, true}};
    for (size_t i = 0; i < countof(rows); i++) {
        break_kept(f);
        unsigned accepted = f->scene.server.accepted, requests = f->scene.server.requests;
        struct question *question = &f->questions[0];
        ask(f, question, (struct fetch_request){.method = rows[i].method, .repeatable = rows[i].repeatable});
        UNTIL(&f->scene, f->scene.server.requests == requests + 1);
        f->scene.server.hangs_up = false;
        UNTIL(&f->scene, question->calls);
        assert_int_equal(question->cause, rows[i].again ? END_OK : END_UPSTREAM_RESET);
        assert_int_equal(f->scene.server.accepted, accepted + rows[i].again);
    }
}

static void test_once_only(void **state)
{
    struct fixture *f = *state;
    break_kept(f);
    unsigned requests = f->scene.server.requests;
    assert_int_equal(finish(f, get)->cause, END_UPSTREAM_RESET);
    assert_int_equal(f->scene.server.requests, requests + 2);
    // A fresh connection that breaks was not stale.
    assert_int_equal(finish(f, get)->cause, END_UPSTREAM_RESET);
    assert_int_equal(f->scene.server.requests, requests + 3);
}

static void test_more_than_there_are_connections(void **state)
{
    struct fixture *f = *state;
    f->scene.settings.limits.connections = 1;
    scene_update(&f->scene);
    for (unsigned i = 0; i < 8; i++)
        ask(f, &f->questions[i], i % 2 ? get : post);
    UNTIL(&f->scene, f->scene.server.requests == 1);
    fetch_cancel(f->questions[3].fetch); // in line
    f->questions[3].fetch = NULL;
    f->scene.server.reply = OK_REPLY;
    for (unsigned i = 0; i < 8; i++) {
        if (i != 3)
            UNTIL(&f->scene, f->questions[i].calls);
        assert_int_equal(f->questions[i].calls, i != 3);
        if (i != 3)
            assert_int_equal(f->questions[i].cause, END_OK);
    }
    assert_int_equal(f->scene.server.accepted, 1);
}

// ---- HTTP/2 ----

struct h2_peer {
    int fd;
    nghttp2_session *ng;
    char method[16], path[64], authority[64], agent[64], length[16], body[64];
    size_t body_n, left;
    unsigned requests;
    bool resets; // instead of answering
};

static int on_h2_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                        const uint8_t *value, size_t value_n, uint8_t flags, void *context)
{
    (void)ng, (void)frame, (void)flags;
    struct h2_peer *peer = context;
    struct {
        const char *name;
        char *out;
        size_t size;
    } places[] = {{":method", peer->method, sizeof peer->method},
                  {":path", peer->path, sizeof peer->path},
                  {":authority", peer->authority, sizeof peer->authority},
                  {"user-agent", peer->agent, sizeof peer->agent},
                  {"content-length", peer->length, sizeof peer->length}};
    for (size_t i = 0; i < countof(places); i++)
        if (str_eq((struct str){(const char *)name, name_n}, str_of(places[i].name)))
            snprintf(places[i].out, places[i].size, "%.*s", (int)value_n, (const char *)value);
    return 0;
}

static int on_h2_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                       void *context)
{
    (void)ng, (void)flags, (void)id;
    struct h2_peer *peer = context;
    assert_true(peer->body_n + n < sizeof peer->body);
    memcpy(peer->body + peer->body_n, data, n);
    peer->body_n += n;
    return 0;
}

static ssize_t give_h2_body(nghttp2_session *ng, int32_t id, uint8_t *data, size_t max, uint32_t *flags,
                            nghttp2_data_source *source, void *context)
{
    (void)ng, (void)id, (void)source;
    struct h2_peer *peer = context;
    size_t n = peer->left < max ? peer->left : max;
    memset(data, 'y', n);
    peer->left -= n;
    if (!peer->left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static int on_h2_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *context)
{
    struct h2_peer *peer = context;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) ||
        (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    peer->requests++;
    if (peer->resets) {
        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
        return 0;
    }
    nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"200", 7, 3, NGHTTP2_NV_FLAG_NONE};
    nghttp2_data_provider provider = {.read_callback = give_h2_body};
    return nghttp2_submit_response(ng, frame->hd.stream_id, &status, 1, &provider);
}

static void h2_peer_turn(struct fixture *f, struct h2_peer *peer)
{
    loop_turn(&f->scene.loop, 1);
    if (peer->fd < 0) {
        peer->fd = accept4(f->scene.server.listener, NULL, NULL, SOCK_CLOEXEC);
        if (peer->fd < 0)
            return;
        nghttp2_session_callbacks *callbacks;
        assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_h2_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_h2_chunk);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_h2_frame);
        assert_int_equal(nghttp2_session_server_new(&peer->ng, callbacks, peer), 0);
        nghttp2_session_callbacks_del(callbacks);
        assert_int_equal(nghttp2_submit_settings(peer->ng, NGHTTP2_FLAG_NONE, NULL, 0), 0);
    }
    uint8_t data[16 * 1024];
    for (ssize_t n; (n = recv(peer->fd, data, sizeof data, MSG_DONTWAIT)) > 0;)
        assert_int_equal(nghttp2_session_mem_recv(peer->ng, data, (size_t)n), n);
    const uint8_t *out;
    for (ssize_t n; (n = nghttp2_session_mem_send(peer->ng, &out)) > 0;)
        assert_int_equal(send(peer->fd, out, (size_t)n, MSG_NOSIGNAL), n);
}

static void h2_finish(struct fixture *f, struct h2_peer *peer, struct question *question)
{
    uint64_t until_us = clock_monotonic_us() + TURNS_MS * 1000ull;
    while (!question->calls) {
        assert_true(clock_monotonic_us() < until_us);
        h2_peer_turn(f, peer);
    }
}

static void test_over_http2(void **state)
{
    struct fixture *f = *state;
    struct h2_peer peer = {.fd = -1, .left = 30000};
    struct question *question = &f->questions[0];
    f->scene.settings.protocol = UPSTREAM_H2;
    scene_update(&f->scene);
    ask(f, question, post);
    h2_finish(f, &peer, question);
    assert_int_equal(question->cause, END_OK);
    assert_int_equal(question->status, 200);
    assert_int_equal(question->body_n, 30000);
    assert_string_equal(peer.method, "POST");
    assert_string_equal(peer.path, "/introspect?x=1");
    assert_string_equal(peer.authority, "auth.example:9400");
    assert_string_equal(peer.agent, "sallyport");
    assert_string_equal(peer.length, "9");
    assert_string_equal(peer.body, "token=abc");
    // Too long: the stream is cancelled, the session lives.
    struct fetch_request request = get;
    peer.left = 3000;
    request.answer_bytes = 2999;
    ask(f, question, request);
    h2_finish(f, &peer, question);
    assert_int_equal(question->cause, END_UPSTREAM_BAD_RESPONSE);
    peer.resets = true;
    ask(f, question, get);
    h2_finish(f, &peer, question);
    assert_int_equal(question->cause, END_UPSTREAM_RESET);
    peer.resets = false;
    peer.left = 5;
    unsigned requests = peer.requests;
    for (unsigned moment = 0; moment < 8; moment++) { // cancelled at any moment
        peer.left = 5;
        ask(f, question, moment % 2 ? get : post);
        for (unsigned i = 0; i < moment / 2; i++)
            h2_peer_turn(f, &peer);
        if (question->fetch)
            fetch_cancel(question->fetch);
        question->fetch = NULL;
    }
    peer.body_n = 0;
    peer.left = 5;
    ask(f, question, get);
    h2_finish(f, &peer, question);
    assert_int_equal(question->cause, END_OK);
    assert_string_equal(question->body, "yyyyy");
    assert_true(peer.requests > requests);
    close(peer.fd);
    nghttp2_session_del(peer.ng);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_question_and_its_answer),
        TEST(test_an_empty_post_has_a_length),
        TEST(test_any_status_and_framing_is_an_answer),
        TEST(test_what_is_no_answer),
        TEST(test_an_answer_that_is_too_long),
        TEST(test_a_long_answer_in_pieces),
        TEST(test_one_deadline_for_all_of_it),
        TEST(test_cancelled_at_any_moment),
        TEST(test_nobody_listens),
        TEST(test_the_next_address_of_a_name),
        TEST(test_no_endpoint),
        TEST(test_a_kept_connection_that_was_dead),
        TEST(test_once_only),
        TEST(test_more_than_there_are_connections),
        TEST(test_over_http2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
