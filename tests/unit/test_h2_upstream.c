// HTTP/2 towards upstreams, against a server that nghttp2 speaks for: what calls share and when it ends, with
// the clock pushed on where a test would wait.
#include "unit.h"

#include "upstream/h2_session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEERS = 8, CALLS = 200, TURNS = 4000, BODY = 600 * 1024 };

// ---- the server ----

struct peer {
    int fd; // -1: none
    nghttp2_session *ng;
    bool is_deaf; // reads nothing
    unsigned pings, goaways;
    int32_t streams[CALLS]; // whose requests are complete
    unsigned stream_count, resets;
    char out[64 * 1024];
    size_t out_n, out_at;
    size_t body_left;
};

// ---- the gateway's side ----

struct
try {
    struct upstream_call call;
    struct arena arena;
    struct request_head request;
    bool ready, ended, failed, is_full, is_stale;
    enum end_cause cause;
    unsigned status;
    size_t got;
};

struct fixture {
    struct loop loop;
    struct buf_pool buffers;
    struct rand rand;
    struct metrics *metrics;
    struct upstream_worker *worker;
    struct upstream_settings settings;
    struct concurrency *requests;
    struct quota *pending;
    struct connection_bound *connections;
    struct upstream_target target;
    struct upstream upstream;
    uint64_t generation;
    int listener;
    unsigned accepted;
    uint32_t max_streams;
    bool next_is_deaf;
    struct peer peers[PEERS];
    struct try tries[CALLS];
};

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *context)
{
    (void)ng;
    struct peer *peer = context;
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (ends)
            peer->streams[peer->stream_count++] = frame->hd.stream_id;
        break;
    case NGHTTP2_PING: peer->pings += !(frame->hd.flags & NGHTTP2_FLAG_ACK); break;
    case NGHTTP2_GOAWAY: peer->goaways++; break;
    case NGHTTP2_RST_STREAM: peer->resets++; break;
    default: break;
    }
    return 0;
}

static void peer_meet(struct fixture *f, struct peer *peer, int fd)
{
    nghttp2_session_callbacks *callbacks;
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    *peer = (struct peer){.fd = fd, .is_deaf = f->next_is_deaf};
    assert_int_equal(nghttp2_session_server_new(&peer->ng, callbacks, peer), 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry streams = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, f->max_streams};
    assert_int_equal(nghttp2_submit_settings(peer->ng, NGHTTP2_FLAG_NONE, &streams, 1), 0);
    f->accepted++;
}

static void peer_close(struct peer *peer)
{
    if (peer->fd < 0)
        return;
    close(peer->fd);
    nghttp2_session_del(peer->ng);
    peer->fd = -1;
}

static void peer_write(struct peer *peer)
{
    for (;;) {
        if (peer->out_at == peer->out_n) {
            const uint8_t *data;
            ssize_t n = nghttp2_session_mem_send(peer->ng, &data);
            assert_true(n >= 0 && (size_t)n <= sizeof peer->out);
            if (n == 0)
                return;
            memcpy(peer->out, data, (size_t)n);
            peer->out_at = 0;
            peer->out_n = (size_t)n;
        }
        ssize_t sent =
            send(peer->fd, peer->out + peer->out_at, peer->out_n - peer->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return;
        peer->out_at += (size_t)sent;
    }
}

static void peer_turn(struct peer *peer)
{
    char data[16 * 1024];
    ssize_t n;
    if (!peer->is_deaf) {
        while ((n = recv(peer->fd, data, sizeof data, MSG_DONTWAIT)) > 0)
            assert_int_equal(nghttp2_session_mem_recv(peer->ng, (uint8_t *)data, (size_t)n), n);
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
            peer_close(peer);
            return;
        }
    }
    peer_write(peer);
}

static void turn(struct fixture *f)
{
    loop_turn(&f->loop, 1);
    int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; i < PEERS; i++) {
        struct peer *peer = &f->peers[i];
        if (peer->fd < 0 && fd >= 0) {
            peer_meet(f, peer, fd);
            fd = -1;
        }
        if (peer->fd >= 0)
            peer_turn(peer);
    }
    assert_int_equal(fd, -1);
}

#define UNTIL(condition)                                \
    do {                                                \
        unsigned turns = 0;                             \
        while (!(condition)) {                          \
            if (++turns > TURNS)                        \
                fail_msg("it never came: " #condition); \
            turn(f);                                    \
        }                                               \
    } while (0)

static void turns(struct fixture *f, unsigned count)
{
    while (count--)
        turn(f);
}

// ---- calls ----

static void on_ready(struct upstream_call *call)
{
    struct try *t = container_of(call, struct try, call);
    t->ready = true;
    assert_true(upstream_call_head(call, &t->request, STR("/"), FRAMING_NONE, false));
    upstream_call_end(call, NULL);
    upstream_call_flush(call);
}

static void on_head(struct upstream_call *call, struct response_head *head)
{
    container_of(call, struct try, call)->status = head->status;
}

static void finish(struct upstream_call *call)
{
    static const struct attempt_end gone = {.cause = END_CLIENT_GONE};
    upstream_call_finish(call, &gone);
}

static enum flow on_body(struct upstream_call *call, struct str span)
{
    struct try *t = container_of(call, struct try, call);
    t->got += span.n;
    return t->is_full ? FLOW_FULL : FLOW_MORE;
}

static void on_end(struct upstream_call *call, struct headers *trailers)
{
    (void)trailers;
    container_of(call, struct try, call)->ended = true;
    finish(call);
}

static void on_fail(struct upstream_call *call, enum end_cause cause)
{
    struct try *t = container_of(call, struct try, call);
    t->failed = true;
    t->cause = cause;
    struct attempt_end end = {.cause = cause, .stale = t->is_stale};
    upstream_call_finish(call, &end);
}

static void on_nothing(struct upstream_call *call)
{
    (void)call;
}

static const struct upstream_call_events events = {
    .on_ready = on_ready,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_fail = on_fail,
    .on_flush = on_nothing,
    .on_drain = on_nothing,
};

static struct try *begin(struct fixture *f, unsigned number)
{
    struct try *t = &f->tries[number];
    *t = (struct try){.request = {.method = METHOD_GET, .method_name = STR("GET"), .minor = 1}};
    arena_init(&t->arena, NULL);
    headers_add_id(&t->request.headers, &t->arena, HEADER_HOST, STR("test"));
    t->call = (struct upstream_call){
        .events = &events, .upstream = &f->upstream, .arena = &t->arena, .method = METHOD_GET};
    enum end_cause cause;
    switch (upstream_call_start(f->worker, &t->call, false, &cause)) {
    case CALL_READY: on_ready(&t->call); break;
    case CALL_WAITING: break;
    case CALL_REFUSED: on_fail(&t->call, cause); break;
    }
    return t;
}

static struct h2_session *session_of_try(const struct try *t)
{
    return container_of(t->call.link, struct h2_stream, link)->session;
}

static struct h2_session *idle_session(struct fixture *f)
{
    struct list *idle = &f->worker->locals[f->upstream.index]->pools[0]->idle;
    return list_empty(idle) ? NULL : session_of(container_of(idle->next, struct upstream_conn, node));
}

static uint32_t links(struct fixture *f)
{
    return f->worker->locals[f->upstream.index]->links.fair.used;
}

static ssize_t give_body(nghttp2_session *ng, int32_t id, uint8_t *data, size_t max, uint32_t *flags,
                         nghttp2_data_source *source, void *context)
{
    (void)ng, (void)id, (void)source;
    struct peer *peer = context;
    size_t n = peer->body_left < max ? peer->body_left : max;
    memset(data, 'x', n);
    peer->body_left -= n;
    if (!peer->body_left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static void answer(struct peer *peer, unsigned number, size_t body)
{
    nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"200", 7, 3, NGHTTP2_NV_FLAG_NONE};
    nghttp2_data_provider provider = {.read_callback = give_body};
    peer->body_left = body;
    assert_int_equal(nghttp2_submit_response(peer->ng, peer->streams[number], &status, 1, &provider), 0);
}

// ---- setup ----

static void make_upstream(struct fixture *f, uint32_t targets)
{
    f->upstream = (struct upstream){
        .settings = &f->settings,
        .name = STR("up"),
        .targets = &f->target,
        .target_count = targets,
        .requests = f->requests,
        .pending = f->pending,
        .connections = f->connections,
        .generation = ++f->generation,
    };
}

static int setup(void **state)
{
    static struct quota_table quotas;
    struct fixture *f = calloc(1, sizeof *f);
    struct err err;
    assert_int_equal(loop_init(&f->loop, &err), ERR_OK);
    rand_init(&f->rand);
    f->metrics = metrics_new();
    f->settings = (struct upstream_settings){
        .name = STR("up"),
        .protocol = UPSTREAM_H2,
        .limits = {.connections = PEERS, .requests = CALLS, .pending = CALLS},
        .timeouts = {.connect_us = 2000000, .response_us = 5000000, .idle_us = 60000000},
    };
    f->max_streams = 100;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof any;
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&any, sizeof any), 0);
    assert_int_equal(listen(f->listener, 64), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&any, &size), 0);
    struct addr addr = {.length = sizeof any};
    memcpy(&addr.any, &any, sizeof any);
    f->target = (struct upstream_target){endpoint_ref(STR("up"), STR("peer"), &addr), 1, STR("peer")};
    f->target.endpoint->addr = addr; // known from the test before, by another port
    f->requests = concurrency_at(0);
    f->pending = quota_at(&quotas, 0);
    f->connections = connection_bound_at(0);
    for (unsigned i = 0; i < PEERS; i++)
        f->peers[i].fd = -1;
    struct upstream_worker_needs needs = {.loop = &f->loop,
                                          .buffers = &f->buffers,
                                          .rand = &f->rand,
                                          .metrics = f->metrics,
                                          .slot = 0,
                                          .workers = 1,
                                          .tls_slot = 1};
    f->worker = upstream_worker_new(&needs);
    make_upstream(f, 1);
    struct upstream *all = &f->upstream;
    upstream_worker_update(f->worker, &all, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < CALLS; i++)
        if (f->tries[i].call.local)
            finish(&f->tries[i].call);
    assert_int_equal(upstream_worker_lent(f->worker), 0);
    upstream_worker_free(f->worker);
    loop_turn(&f->loop, 0);
    for (unsigned i = 0; i < CALLS; i++)
        arena_reset(&f->tries[i].arena);
    for (unsigned i = 0; i < PEERS; i++)
        peer_close(&f->peers[i]);
    close(f->listener);
    endpoint_unref(f->target.endpoint);
    buf_pool_fini(&f->buffers);
    metrics_free(f->metrics);
    loop_fini(&f->loop);
    free(f);
    return 0;
}

// ---- the pool ----

static void test_calls_wait_for_one_connection(void **state)
{
    struct fixture *f = *state;
    struct peer *peer = &f->peers[0];
    for (unsigned i = 0; i < 50; i++)
        begin(f, i);
    assert_int_equal(links(f), 1);
    UNTIL(peer->stream_count == 50);
    for (unsigned i = 1; i < 50; i++)
        assert_ptr_equal(session_of_try(&f->tries[i]), session_of_try(&f->tries[0]));
    for (unsigned i = 0; i < 50; i++) {
        answer(peer, i, 10);
        UNTIL(f->tries[i].ended);
        assert_int_equal(f->tries[i].got, 10);
    }
    assert_int_equal(f->accepted, 1);
    assert_non_null(idle_session(f));
}

static void test_more_than_the_peer_takes(void **state)
{
    struct fixture *f = *state;
    f->max_streams = 2;
    for (unsigned i = 0; i < 5; i++)
        begin(f, i);
    UNTIL(f->accepted == 3 && f->tries[4].ready);
    turns(f, 5);
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(f->peers[i].stream_count, 1, 2);
    assert_int_equal(links(f), 3);
}

static void test_a_peer_that_takes_none(void **state)
{
    struct fixture *f = *state;
    f->max_streams = 0;
    struct try *t = begin(f, 0);
    UNTIL(t->failed);
    assert_int_equal(t->cause, END_UPSTREAM_CONNECT_FAILED);
    assert_int_equal(links(f), 0);
}

static void test_who_waits_may_leave(void **state)
{
    struct fixture *f = *state;
    struct try *gone = begin(f, 0), *there = begin(f, 1);
    finish(&gone->call);
    UNTIL(f->peers[0].stream_count == 1 && there->ready);
    assert_false(gone->ready);
    finish(&there->call);
    UNTIL(f->peers[0].resets == 1);
    assert_non_null(idle_session(f)); // cancelled, not broken
}

static void test_the_last_stream_id(void **state)
{
    struct fixture *f = *state;
    struct try *first = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    struct h2_session *s = session_of_try(first);
    assert_int_equal(nghttp2_session_set_next_stream_id(s->ng, INT32_MAX), 0);
    struct try *last = begin(f, 1);
    UNTIL(f->peers[0].stream_count == 2);
    assert_ptr_equal(session_of_try(last), s);
    struct try *next = begin(f, 2);
    UNTIL(f->accepted == 2 && f->peers[1].stream_count == 1);
    assert_ptr_not_equal(session_of_try(next), s);
    answer(&f->peers[0], 0, 1);
    answer(&f->peers[0], 1, 1);
    UNTIL(first->ended && last->ended && links(f) == 1);
}

static void test_what_was_not_sent(void **state)
{
    struct fixture *f = *state;
    begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    struct try *t = begin(f, 1);
    assert_true(t->ready);
    assert_true(upstream_call_unsent(&t->call)); // the turn is not over
    UNTIL(f->peers[0].stream_count == 2);
    assert_false(upstream_call_unsent(&t->call));
    // Ended before the turn: the peer hears nothing of it, and the session goes on.
    for (unsigned i = 2; i < CALLS; i++)
        finish(&begin(f, i)->call);
    turns(f, 5);
    assert_int_equal(f->peers[0].stream_count, 2);
    assert_int_equal(f->peers[0].resets, 0);
    answer(&f->peers[0], 1, 1);
    UNTIL(t->ended);
}

// The endpoint hears first that one is over, then of the next.
static void test_a_place_is_free_when_the_reset_is_written(void **state)
{
    struct fixture *f = *state;
    struct upstream *all = &f->upstream;
    f->settings.limits.requests = 1;
    make_upstream(f, 1);
    upstream_worker_update(f->worker, &all, 1);
    struct try *first = begin(f, 0), *second = begin(f, 1);
    UNTIL(f->peers[0].stream_count == 1);
    assert_true(second->call.queued);
    finish(&first->call);
    assert_false(second->ready);
    struct try *third = begin(f, 2); // the line stays one
    assert_false(third->ready);
    UNTIL(second->ready);
    assert_false(third->ready);
    UNTIL(f->peers[0].stream_count == 2);
    assert_int_equal(f->peers[0].resets, 1);
    peer_close(&f->peers[0]); // with a place that is not given back yet, perhaps
    finish(&second->call);
    UNTIL(third->ready);
    assert_int_equal(f->worker->locals[f->upstream.index]->requests.places.used, 1);
}

// ---- bodies ----

static void test_a_full_client_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 1);
    t->is_full = true;
    answer(peer, 0, BODY);
    UNTIL(BODY - peer->body_left >= H2_FIRST_WINDOW);
    turns(f, 20);
    assert_true(t->got < H2_FIRST_WINDOW);                     // one span was handed over
    assert_int_equal(BODY - peer->body_left, H2_FIRST_WINDOW); // and the rest is held, within the window
    struct try *other = begin(f, 1);
    UNTIL(peer->stream_count == 2);
    while (t->got < BODY) {
        size_t before = t->got;
        upstream_call_resume(&t->call);
        UNTIL(t->got > before);
    }
    upstream_call_resume(&t->call);
    UNTIL(t->ended);
    answer(peer, 1, 10);
    UNTIL(other->ended);
}

// What the upstream has sent and the client does not take, when it has taken a third of it.
static size_t held_of(struct fixture *f, struct try *t)
{
    struct peer *peer = &f->peers[0];
    t->is_full = false;
    answer(peer, peer->stream_count - 1, BODY);
    UNTIL(t->got >= BODY / 3);
    t->is_full = true;
    turns(f, 50);
    return BODY - peer->body_left - t->got;
}

static void take_the_rest(struct fixture *f, struct try *t)
{
    t->is_full = false;
    upstream_call_resume(&t->call);
    UNTIL(t->ended);
    assert_int_equal(t->got, BODY);
}

static void test_windows_are_as_wide_as_the_client_has_room(void **state)
{
    struct fixture *f = *state;
    struct client_room room = {0}, full = {.held_bytes = CLIENT_ROOM_BYTES};
    struct {
        struct client_room *room;
        uint32_t granted_bytes;
    } cases[] = {{NULL, 0}, {&room, H2_STREAM_WINDOW - H2_FIRST_WINDOW}, {&full, 0}};
    for (unsigned i = 0; i < countof(cases); i++) {
        struct client_room *each = cases[i].room;
        struct try *t = begin(f, i);
        t->call.room = each;
        UNTIL(f->peers[0].stream_count == i + 1);
        size_t held = held_of(f, t), window = each == &full ? H2_FIRST_WINDOW : H2_STREAM_WINDOW;
        assert_in_range(held, window / 2, window);
        assert_int_equal(t->call.granted_bytes, cases[i].granted_bytes);
        if (each)
            assert_int_equal(each->granted_bytes, cases[i].granted_bytes);
        take_the_rest(f, t);
        if (each)
            assert_int_equal(each->granted_bytes, 0);
    }
}

static void test_a_client_that_goes_takes_its_room_with_it(void **state)
{
    struct fixture *f = *state;
    struct client_room room = {0};
    struct try *t = begin(f, 0);
    t->call.room = &room;
    UNTIL(f->peers[0].stream_count == 1);
    held_of(f, t);
    upstream_call_leave_client(&t->call);
    assert_int_equal(room.granted_bytes, 0);
    assert_null(t->call.room);
    take_the_rest(f, t);
}

static void test_what_is_held_outlives_the_connection(void **state)
{
    enum { HELD = 30 * 1024 };
    struct fixture *f = *state;
    struct try *t = begin(f, 0), *cut = begin(f, 1);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 2);
    t->is_full = true;
    answer(peer, 0, HELD);
    UNTIL(!peer->body_left);
    turns(f, 20);
    assert_false(t->ended);
    peer_close(peer);
    UNTIL(cut->failed);
    assert_int_equal(cut->cause, END_UPSTREAM_RESET);
    assert_int_equal(links(f), 0);
    t->is_full = false;
    upstream_call_resume(&t->call);
    assert_true(t->ended);
    assert_int_equal(t->got, HELD);
}

// ---- keeping alive ----

static void quiet_for(struct h2_session *s, uint64_t ms)
{
    s->heard_ms -= ms;
    s->tick.on_fire(&s->tick);
}

static void test_a_quiet_session_is_pinged_sparingly(void **state)
{
    struct fixture *f = *state;
    f->loop.now_us += 1000000000; // a machine that has run for a while: the past has room
    struct try *t = begin(f, 0);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 1);
    struct h2_session *s = session_of_try(t);
    quiet_for(s, H2_QUIET_MS - 1000);
    turns(f, 5);
    assert_int_equal(peer->pings, 0);
    quiet_for(s, 1000);
    UNTIL(peer->pings == 1 && !s->pinged_ms);
    assert_true(s->ping_was_last);
    quiet_for(s, H2_QUIET_MS * 3); // a gRPC server would count it
    turns(f, 5);
    assert_int_equal(peer->pings, 1);
    quiet_for(s, H2_QUIETER_MS);
    UNTIL(peer->pings == 2 && !s->pinged_ms);
    answer(peer, 0, 1);
    UNTIL(t->ended);
    assert_ptr_equal(idle_session(f), s);
    quiet_for(s, H2_QUIET_MS);
    turns(f, 5);
    assert_int_equal(peer->pings, 2);
    quiet_for(s, H2_IDLE_QUIET_MS);
    UNTIL(peer->pings == 3 && !s->pinged_ms);
}

static void test_a_dead_session_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    struct h2_session *s = session_of_try(t);
    f->peers[0].is_deaf = true;
    quiet_for(s, H2_QUIET_MS);
    assert_true(s->pinged_ms);
    turns(f, 5);
    assert_false(t->failed);
    s->pinged_ms -= H2_PONG_MS;
    quiet_for(s, 0);
    assert_true(t->failed);
    assert_int_equal(t->cause, END_UPSTREAM_RESET);
    assert_int_equal(t->call.outcome.verdict, OUTCOME_FAILURE);
    assert_ptr_equal(t->call.outcome.endpoint, f->target.endpoint);
    assert_int_equal(links(f), 0);
}

static void test_a_silent_session_takes_no_more(void **state)
{
    struct fixture *f = *state;
    struct try *hasty = begin(f, 0), *staying = begin(f, 1);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 2);
    struct h2_session *s = session_of_try(staying);
    finish(&hasty->call);
    assert_false(s->doubted);
    struct try *t = begin(f, 2);
    peer->is_deaf = true;
    s->heard_ms -= H2_DOUBT_MS * 3;
    container_of(t->call.link, struct h2_stream, link)->lent_ms -= H2_DOUBT_MS * 2;
    turns(f, 2);
    finish(&t->call); // it took too long
    assert_true(s->doubted && s->pinged_ms);
    t = begin(f, 3);
    UNTIL(t->ready);
    assert_ptr_not_equal(session_of_try(t), s);
    peer->is_deaf = false; // it was only slow
    UNTIL(!s->doubted && !s->pinged_ms);
    assert_true(s->base.room > 0);
}

// ---- what ends many calls at once ----

enum { CROWD = 40, EXCUSED = 3 }; // the first of them say nothing of the upstream

static void begin_crowd(struct fixture *f)
{
    f->peers[0].stream_count = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        arena_reset(&f->tries[i].arena);
        begin(f, i)->is_stale = i < EXCUSED;
    }
}

static struct peer *crowd_under_way(struct fixture *f)
{
    begin_crowd(f);
    UNTIL(f->peers[0].stream_count == CROWD);
    return &f->peers[0];
}

static unsigned failed(const struct fixture *f)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CROWD; i++)
        n += f->tries[i].failed;
    return n;
}

// How often the endpoint's row has been told of a failure.
static unsigned rows(const struct fixture *f)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        const struct upstream_outcome *outcome = &f->tries[i].call.outcome;
        n += f->tries[i].failed && outcome->verdict == OUTCOME_FAILURE && !outcome->is_shared;
    }
    return n;
}

static void test_a_connection_that_breaks_is_one_failure(void **state)
{
    struct fixture *f = *state;
    peer_close(crowd_under_way(f));
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), 1);
    assert_false(f->tries[EXCUSED].call.outcome.is_shared); // the first that is a failure tells
    peer_close(crowd_under_way(f));
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), 1);
}

static void test_a_connect_that_fails_is_one_failure(void **state)
{
    struct fixture *f = *state;
    f->max_streams = 0;
    for (unsigned round = 0; round < 2; round++) {
        begin_crowd(f);
        assert_int_equal(links(f), 1);
        UNTIL(failed(f) == CROWD);
        assert_int_equal(rows(f), 1);
        assert_true(f->tries[EXCUSED].call.outcome.connect_failed);
    }
    assert_int_equal(f->accepted, 2);
}

static void test_what_goaway_refuses_is_one_failure(void **state)
{
    struct fixture *f = *state;
    struct peer *peer = crowd_under_way(f);
    nghttp2_submit_goaway(peer->ng, NGHTTP2_FLAG_NONE, peer->streams[9], NGHTTP2_NO_ERROR, NULL, 0);
    UNTIL(failed(f) == CROWD - 10);
    assert_int_equal(f->tries[CROWD - 1].cause, END_UPSTREAM_REFUSED_STREAM);
    assert_int_equal(rows(f), 1);
    peer_close(peer);
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), 1);
}

static void test_streams_that_are_reset_are_failures_each(void **state)
{
    struct fixture *f = *state;
    struct peer *peer = crowd_under_way(f);
    for (unsigned i = 0; i < CROWD; i++)
        nghttp2_submit_rst_stream(peer->ng, NGHTTP2_FLAG_NONE, peer->streams[i],
                                  i % 2 ? NGHTTP2_REFUSED_STREAM : NGHTTP2_INTERNAL_ERROR);
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), CROWD - EXCUSED);
}

// ---- leaving ----

static void end_of_a_live_session(struct fixture *f, struct try *t)
{
    turns(f, 5);
    assert_int_equal(f->peers[0].goaways, 0);
    answer(&f->peers[0], 0, 10);
    UNTIL(t->ended);
    assert_int_equal(t->got, 10);
    UNTIL(f->peers[0].fd < 0);
    assert_int_equal(f->peers[0].goaways, 1);
}

static void test_drain_lets_streams_end(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    upstream_worker_drain(f->worker);
    end_of_a_live_session(f, t);
    assert_int_equal(links(f), 0);
}

static void test_an_upstream_that_is_no_longer_configured(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    upstream_worker_update(f->worker, NULL, 0);
    end_of_a_live_session(f, t);
    assert_int_equal(links(f), 0);
}

static void test_an_endpoint_that_is_no_longer_configured(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    make_upstream(f, 0);
    struct upstream *all = &f->upstream;
    upstream_worker_update(f->worker, &all, 1);
    end_of_a_live_session(f, t);
    assert_int_equal(links(f), 0);
}

static void test_another_protocol(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    f->settings.protocol = UPSTREAM_HTTP1;
    make_upstream(f, 1);
    struct upstream *all = &f->upstream;
    upstream_worker_update(f->worker, &all, 1);
    f->next_is_deaf = true; // to HTTP/1.1
    begin(f, 1);
    assert_int_equal(links(f), 2); // not on the old one
    end_of_a_live_session(f, t);
}

static void test_stop_at_any_moment(void **state)
{
    struct fixture *f = *state;
    for (unsigned moment = 0; moment < 12; moment++) {
        struct try *t = begin(f, moment);
        turns(f, moment);
        finish(&t->call);
        upstream_worker_free(f->worker);
        loop_turn(&f->loop, 0);
        struct upstream_worker_needs needs = {.loop = &f->loop,
                                              .buffers = &f->buffers,
                                              .rand = &f->rand,
                                              .metrics = f->metrics,
                                              .slot = 0,
                                              .workers = 1,
                                              .tls_slot = 1};
        f->worker = upstream_worker_new(&needs);
        arena_reset(&t->arena);
        for (unsigned i = 0; i < 50 && f->peers[0].fd >= 0; i++)
            turn(f);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_calls_wait_for_one_connection),
        TEST(test_more_than_the_peer_takes),
        TEST(test_a_peer_that_takes_none),
        TEST(test_who_waits_may_leave),
        TEST(test_the_last_stream_id),
        TEST(test_what_was_not_sent),
        TEST(test_a_place_is_free_when_the_reset_is_written),
        TEST(test_a_full_client_is_waited_for),
        TEST(test_windows_are_as_wide_as_the_client_has_room),
        TEST(test_a_client_that_goes_takes_its_room_with_it),
        TEST(test_what_is_held_outlives_the_connection),
        TEST(test_a_quiet_session_is_pinged_sparingly),
        TEST(test_a_dead_session_is_given_up),
        TEST(test_a_silent_session_takes_no_more),
        TEST(test_a_connection_that_breaks_is_one_failure),
        TEST(test_a_connect_that_fails_is_one_failure),
        TEST(test_what_goaway_refuses_is_one_failure),
        TEST(test_streams_that_are_reset_are_failures_each),
        TEST(test_drain_lets_streams_end),
        TEST(test_an_upstream_that_is_no_longer_configured),
        TEST(test_an_endpoint_that_is_no_longer_configured),
        TEST(test_another_protocol),
        TEST(test_stop_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
