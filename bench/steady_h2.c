// HTTP/2 by prior knowledge and gRPC for steady: as many connections as it takes for all requests that may be
// under way at a time, each asked in its turn; one that has ended is opened again when its turn comes. What
// is due while it connects waits for that.
//
// A call is unary, and bears an idempotency-key of its own, by which its client says that it may be sent
// again: gRPC calls are POSTs.

#include "h2_wire.h"
#include "steady.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#define READ_BYTES    (64 * 1024)
#define STREAMS       100 /* on a connection: what servers allow by default */
#define MESSAGE_BYTES 64
#define FIELDS_MAX    8

enum state { CLOSED, CONNECTING, OPEN };

struct call {
    struct h2_call wire; /* first */
    size_t request;
};

struct conn {
    struct link link;
    enum state state;
    nghttp2_session *session;
    struct h2_rest rest;
    size_t busy;
    struct call calls[STREAMS];
};

static struct {
    struct steady *steady;
    bool grpc;
    nghttp2_nv fields[FIELDS_MAX]; /* the key's place is the last of them */
    size_t field_count;
    uint8_t message[GRPC_PREFIX + MESSAGE_BYTES];
    nghttp2_session_callbacks *callbacks;
    struct conn *conns;
    size_t count, turn;
} pool;

static uint8_t input[READ_BYTES];

/* --- connections --- */

static void call_end(struct conn *c, struct call *call, enum outcome outcome)
{
    call->wire.busy = false;
    c->busy--;
    request_end(pool.steady, call->request, outcome);
}

static void conn_fail(struct conn *c)
{
    enum outcome outcome = c->state == CONNECTING ? REFUSED : BROKEN;
    for (size_t i = 0; i < STREAMS; i++)
        if (c->calls[i].wire.busy)
            call_end(c, &c->calls[i], outcome);
    nghttp2_session_del(c->session);
    c->session = NULL;
    h2_rest_reset(&c->rest);
    link_close(&c->link, false);
    c->state = CLOSED;
}

static bool conn_open(struct conn *c)
{
    if (!link_open(&c->link, &pool.steady->to, NULL, NULL))
        return false;
    if (nghttp2_session_client_new(&c->session, pool.callbacks, c) != 0 ||
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, NULL, 0) != 0)
        die("memory");
    c->state = CONNECTING;
    steady_watch(pool.steady, c->link.fd, c);
    return true;
}

static void conn_flush(struct conn *c)
{
    bool over = nghttp2_session_want_read(c->session) == 0 && nghttp2_session_want_write(c->session) == 0;
    if (over || !h2_flush(c->session, &c->link, &c->rest))
        conn_fail(c);
}

static bool conn_read(struct conn *c)
{
    for (;;) {
        ssize_t n = link_recv(&c->link, input, sizeof input);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0 || nghttp2_session_mem_recv(c->session, input, (size_t)n) != n)
            return false;
    }
}

static void h2_on_event(struct steady *s, void *place, uint32_t events)
{
    (void)s;
    struct conn *c = place;
    if (c->state == CLOSED)
        return;
    if (c->state == CONNECTING) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
            conn_fail(c);
            return;
        }
        if ((events & EPOLLOUT) == 0)
            return;
        c->state = OPEN;
    }
    if (conn_read(c))
        conn_flush(c);
    else
        conn_fail(c);
}

/* --- requests --- */

/* The next connection in turn that takes one more; NULL: none does. */
static struct conn *take_conn(void)
{
    for (size_t i = 0; i < pool.count; i++) {
        struct conn *c = &pool.conns[pool.turn++ % pool.count];
        if (c->state == CLOSED && !conn_open(c))
            return NULL;
        if (c->busy < STREAMS && nghttp2_session_check_request_allowed(c->session) != 0)
            return c;
    }
    return NULL;
}

static struct call *take_call(struct conn *c)
{
    struct call *call = c->calls;
    while (call->wire.busy)
        call++;
    c->busy++;
    return call;
}

static void h2_begin(struct steady *s, size_t number)
{
    struct conn *c = take_conn();
    if (c == NULL) {
        request_end(s, number, REFUSED);
        return;
    }
    struct call *call = take_call(c);
    *call =
        (struct call){.wire = {.busy = true, .body = {pool.message, sizeof pool.message}}, .request = number};
    s->requests[number].place = (uint32_t)((size_t)(c - pool.conns) * STREAMS + (size_t)(call - c->calls));
    nghttp2_data_provider data = {.source.ptr = &call->wire.body, .read_callback = h2_read_body};
    char key[32];
    if (pool.grpc) {
        nghttp2_nv *field = &pool.fields[pool.field_count - 1];
        field->value = (uint8_t *)key;
        field->valuelen = (size_t)snprintf(key, sizeof key, "steady-%zu", number);
    }
    call->wire.stream = nghttp2_submit_request(c->session, NULL, pool.fields, pool.field_count,
                                               pool.grpc ? &data : NULL, call);
    if (call->wire.stream < 0)
        call_end(c, call, BROKEN);
    else if (c->state == OPEN)
        conn_flush(c);
}

static void h2_give_up(struct steady *s, size_t number)
{
    uint32_t place = s->requests[number].place;
    struct conn *c = &pool.conns[place / STREAMS];
    struct call *call = &c->calls[place % STREAMS];
    nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, call->wire.stream, NGHTTP2_CANCEL);
    call_end(c, call, TIMED_OUT);
    if (c->state == OPEN)
        conn_flush(c);
}

/* --- answers --- */

static enum outcome judge(const struct h2_answer *a)
{
    enum outcome outcome = outcome_of(a->status);
    if (outcome != OK || !pool.grpc)
        return outcome;
    if (a->has_grpc_status && !a->grpc_ok)
        return ERROR_STATUS;
    return a->grpc_ok && grpc_is_whole(&a->message) ? OK : BROKEN;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
    struct h2_call *call = h2_call_of(session, stream);
    if (call == NULL)
        return 0;
    bool whole = error == NGHTTP2_NO_ERROR && nghttp2_session_get_stream_remote_close(session, stream) == 1;
    call_end(user, (struct call *)call, whole && call->answer.status != 0 ? judge(&call->answer) : BROKEN);
    return 0;
}

/* --- before the run --- */

static void set_fields(const char *const (*from)[2], size_t count)
{
    for (size_t i = 0; i < count; i++)
        pool.fields[i] = h2_field(from[i][0], from[i][1]);
    pool.field_count = count;
}

static void h2_setup(struct steady *s)
{
    const char *const get[][2] = {{":method", "GET"},       {":scheme", "http"},
                                  {":path", s->path},       {":authority", "api.example.com"},
                                  {"user-agent", "steady"}, {"accept", "*/*"}};
    const char *const call[][2] = {{":method", "POST"},      {":scheme", "http"},
                                   {":path", s->path},       {":authority", "api.example.com"},
                                   {"te", "trailers"},       {"content-type", "application/grpc"},
                                   {"user-agent", "steady"}, {"idempotency-key", ""}};
    if (pool.grpc)
        set_fields(call, sizeof call / sizeof *call);
    else
        set_fields(get, sizeof get / sizeof *get);
    pool.fields[pool.field_count - 1].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME; /* of the key */
    grpc_make(pool.message, MESSAGE_BYTES);
    pool.callbacks = h2_client_callbacks(on_stream_close);
    if (pool.callbacks == NULL)
        die("memory");
    pool.count = s->rate * s->timeout_ns / NS_PER_S / STREAMS + 4;
    if (sock_raise_limit() < pool.count + 16)
        die("%zu connections are more than the limit on open files allows", pool.count);
    pool.conns = steady_alloc(pool.count, sizeof *pool.conns);
    pool.steady = s;
}

static void grpc_setup(struct steady *s)
{
    pool.grpc = true;
    h2_setup(s);
}

const struct wire wire_h2 = {h2_setup, h2_begin, h2_give_up, h2_on_event};
const struct wire wire_grpc = {grpc_setup, h2_begin, h2_give_up, h2_on_event};
