// What the tests of HTTP/2 towards upstreams share: a gateway's worker with one upstream, which is a server
// that nghttp2 speaks for, in the test's own turns, and calls that note what they are told.
#pragma once

#include "unit_loopback.h"

#include "upstream/h2_session.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEERS = 8, CALLS = 200, TURNS = 4000 };

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

static inline int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *context)
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

static inline void peer_meet(struct fixture *f, struct peer *peer, int fd)
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

static inline void peer_close(struct peer *peer)
{
    if (peer->fd < 0)
        return;
    close(peer->fd);
    nghttp2_session_del(peer->ng);
    peer->fd = -1;
}

static inline void peer_write(struct peer *peer)
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

static inline void peer_turn(struct peer *peer)
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

static inline void turn(struct fixture *f)
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

static inline void turns(struct fixture *f, unsigned count)
{
    while (count--)
        turn(f);
}

// ---- calls ----

static inline void on_ready(struct upstream_call *call)
{
    struct try *t = container_of(call, struct try, call);
    t->ready = true;
    assert_true(upstream_call_head(call, &t->request, STR("/"), FRAMING_NONE, false));
    upstream_call_end(call, NULL);
    upstream_call_flush(call);
}

static inline void on_head(struct upstream_call *call, struct response_head *head)
{
    container_of(call, struct try, call)->status = head->status;
}

static inline void finish(struct upstream_call *call)
{
    static const struct attempt_end gone = {.cause = END_CLIENT_GONE};
    upstream_call_finish(call, &gone);
}

static inline enum flow on_body(struct upstream_call *call, struct str span)
{
    struct try *t = container_of(call, struct try, call);
    t->got += span.n;
    return t->is_full ? FLOW_FULL : FLOW_MORE;
}

static inline void on_end(struct upstream_call *call, struct headers *trailers)
{
    (void)trailers;
    container_of(call, struct try, call)->ended = true;
    finish(call);
}

static inline void on_fail(struct upstream_call *call, enum end_cause cause)
{
    struct try *t = container_of(call, struct try, call);
    t->failed = true;
    t->cause = cause;
    struct attempt_end end = {.cause = cause, .stale = t->is_stale};
    upstream_call_finish(call, &end);
}

static inline void on_nothing(struct upstream_call *call)
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

static inline struct try *begin(struct fixture *f, unsigned number)
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

static inline struct h2_session *session_of_try(const struct try *t)
{
    return container_of(t->call.link, struct h2_stream, link)->session;
}

static inline struct h2_session *idle_session(struct fixture *f)
{
    struct list *idle = &f->worker->locals[f->upstream.index]->pools[0]->idle;
    return list_empty(idle) ? NULL : session_of(container_of(idle->next, struct upstream_conn, node));
}

static inline uint32_t links(struct fixture *f)
{
    return f->worker->locals[f->upstream.index]->links.fair.used;
}

static inline ssize_t give_body(nghttp2_session *ng, int32_t id, uint8_t *data, size_t max, uint32_t *flags,
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

static inline void answer(struct peer *peer, unsigned number, size_t body)
{
    nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"200", 7, 3, NGHTTP2_NV_FLAG_NONE};
    nghttp2_data_provider provider = {.read_callback = give_body};
    peer->body_left = body;
    assert_int_equal(nghttp2_submit_response(peer->ng, peer->streams[number], &status, 1, &provider), 0);
}

// ---- setup ----

static inline void make_upstream(struct fixture *f, uint32_t targets)
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

static inline void make_worker(struct fixture *f)
{
    struct upstream_worker_needs needs = {.loop = &f->loop,
                                          .buffers = &f->buffers,
                                          .rand = &f->rand,
                                          .metrics = f->metrics,
                                          .slot = 0,
                                          .workers = 1,
                                          .tls_slot = 1};
    f->worker = upstream_worker_new(&needs);
}

static inline int setup(void **state)
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
    struct addr addr = bind_loopback(&f->listener, true);
    f->target = (struct upstream_target){endpoint_ref(STR("up"), STR("peer"), &addr), 1, STR("peer")};
    f->target.endpoint->addr = addr; // known from the test before, by another port
    f->requests = concurrency_at(0);
    f->pending = quota_at(&quotas, 0);
    f->connections = connection_bound_at(0);
    for (unsigned i = 0; i < PEERS; i++)
        f->peers[i].fd = -1;
    make_worker(f);
    make_upstream(f, 1);
    struct upstream *all = &f->upstream;
    upstream_worker_update(f->worker, &all, 1);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
