// The life of an HTTP/1 client connection: bytes in, exchanges out.
#include "front/client.h"

#include "net/proxy_protocol.h"

#include <stdlib.h>
#include <unistd.h>

static struct worker *worker_of(const struct h1_client *c)
{
    return c->front->worker;
}

static const struct listener_settings *settings_of(const struct h1_client *c)
{
    return c->listener->settings->settings;
}

// ---- states and deadlines ----

static bool is_idle(uint8_t state)
{
    return state == CLIENT_IDLE || state == CLIENT_PROXY;
}

static void count_state(const struct h1_client *c, int change)
{
    if (c->state != CLIENT_CLOSED)
        metrics_connections(worker_of(c)->metrics, c->listener->settings->metric_id,
                            is_idle(c->state) ? CONNECTIONS_IDLE : CONNECTIONS_ACTIVE, change);
}

void h1_set_state(struct h1_client *c, enum client_state state)
{
    bool counted_alike = state != CLIENT_CLOSED && is_idle(c->state) == is_idle((uint8_t)state);
    if (!counted_alike)
        count_state(c, -1);
    c->state = (uint8_t)state;
    if (!counted_alike)
        count_state(c, +1);
    c->since_us = c->conn.loop->now_us;
}

// How long the present state may last without progress, in µs; 0: for ever.
static uint64_t patience_us(const struct h1_client *c)
{
    const struct listener_settings *settings = settings_of(c);
    if (c->out.blocked)
        return settings->timeouts.write_us;
    switch ((enum client_state)c->state) {
    case CLIENT_PROXY:
    case CLIENT_HEAD: return settings->timeouts.header_us;
    case CLIENT_IDLE:
        return c->front->draining ? DRAIN_IDLE_MS * 1000
               : c->served        ? settings->timeouts.idle_us
                                  : settings->timeouts.header_us;
    case CLIENT_EXCHANGE: return c->body_wanted && !c->tunnel ? settings->timeouts.body_us : 0;
    case CLIENT_DRAIN: return settings->timeouts.body_us;
    case CLIENT_LINGER: return LINGER_MS * 1000;
    case CLIENT_CLOSED: break;
    }
    return 0;
}

static bool is_head(uint8_t state)
{
    return state == CLIENT_PROXY || state == CLIENT_HEAD;
}

void h1_arm(struct h1_client *c)
{
    uint64_t us = patience_us(c), spent_us = 0;
    if (is_head(c->state)) // the whole of it has one deadline, however often it is armed
        spent_us = c->conn.loop->now_us - c->since_us;
    if (us)
        loop_timer_set(c->conn.loop, &c->timer, us > spent_us ? (us - spent_us) / 1000 : 0);
}

static void time_out(struct h1_client *c)
{
    if (c->out.blocked && c->state == CLIENT_EXCHANGE) {
        c->cut = true;
        exchange_client_gone(c->x, END_CLIENT_SLOW);
    } else if (c->state == CLIENT_HEAD) {
        c->close_after = true;
        h1_set_state(c, CLIENT_EXCHANGE);
        exchange_reject(c->x, END_REQUEST_TIMEOUT, STR("the request head did not arrive in time"));
    } else if (c->state == CLIENT_EXCHANGE) {
        c->close_after = true;
        c->body_wanted = false;
        exchange_body_fail(c->x, END_REQUEST_TIMEOUT, STR("the request body did not arrive in time"));
    } else {
        h1_close(c);
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct h1_client *c = container_of(timer, struct h1_client, timer);
    uint64_t us = patience_us(c), now_us = c->conn.loop->now_us;
    if (c->out.broken && c->state == CLIENT_EXCHANGE) {
        exchange_client_gone(c->x, END_CLIENT_GONE);
        return;
    }
    if (!us)
        return; // armed again when there is something to wait for
    if (now_us >= c->since_us + us)
        time_out(c);
    else
        loop_timer_set(c->conn.loop, &c->timer, (c->since_us + us - now_us) / 1000);
}

// ---- open and close ----

static void on_free(struct conn *conn)
{
    free(container_of(conn, struct h1_client, conn));
}

void h1_close(struct h1_client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    struct worker *worker = worker_of(c);
    if (c->x && c->state == CLIENT_HEAD) {
        exchange_discard(c->x);
        c->x = NULL;
    }
    check(!c->x);
    h1_set_state(c, CLIENT_CLOSED);
    loop_timer_stop(&worker->loop, &c->timer);
    buf_release(&c->in, &worker->buffers);
    out_release(&c->out, &worker->buffers);
    list_remove(&c->node);
    c->front->client_count--;
    quota_give(&c->listener->connections);
    if (c->cut)
        conn_abort(&c->conn);
    else
        conn_close(&c->conn);
}

void h1_drain(struct h1_client *c)
{
    c->close_after = true;
    if (c->state != CLIENT_IDLE)
        return;
    // One whose last answer has not left yet is not idle.
    if (!c->out.blocked && c->conn.loop->now_us >= c->since_us + DRAIN_IDLE_MS * 1000)
        h1_close(c);
    else
        h1_arm(c);
}

void h1_shutdown(struct h1_client *c)
{
    c->shutdown_due = !out_empty(&c->out);
    if (!c->shutdown_due)
        conn_shutdown_send(&c->conn);
}

static void on_ready(struct conn *conn)
{
    struct h1_client *c = container_of(conn, struct h1_client, conn);
    if (c->out.blocked && conn->writable) {
        c->since_us = conn->loop->now_us;
        out_flush(&c->out, conn, &worker_of(c)->buffers);
        if (c->shutdown_due)
            h1_shutdown(c);
    }
    if (out_drained(&c->out) && c->x && c->state == CLIENT_EXCHANGE)
        exchange_client_drained(c->x);
    // A tunnel's last bytes may still be there to read.
    bool gone = c->out.broken || (conn->hung_up && (!c->tunnel || c->body.done));
    if (gone && c->state == CLIENT_EXCHANGE && c->x)
        exchange_client_gone(c->x, END_CLIENT_GONE);
    else if (!conn->closed)
        h1_run(c);
}

static const struct conn_events client_events = {
    .on_ready = on_ready,
    .on_free = on_free,
};

void h1_accept(struct front_listener *listener, int fd, const struct addr *peer)
{
    struct worker *worker = listener->front->worker;
    struct h1_client *c = calloc(1, sizeof *c);
    if (!c || !conn_open(&c->conn, &worker->loop, fd, &client_events)) {
        if (!c)
            close(fd);
        free(c);
        quota_give(&listener->connections);
        return;
    }
    c->front = listener->front;
    c->listener = listener;
    c->peer = ip_of(peer);
    loop_timer_init(&c->timer, on_timer);
    list_push_back(&c->front->clients, &c->node);
    c->front->client_count++;
    const struct listener_settings *settings = settings_of(c);
    bool announced = settings->proxy_protocol && cidr_set_has(&settings->trusted_proxies, &c->peer);
    c->state = announced ? CLIENT_PROXY : CLIENT_IDLE;
    c->since_us = worker->loop.now_us;
    metrics_connections(worker->metrics, listener->settings->metric_id, CONNECTIONS_IDLE, +1);
    h1_arm(c);
}

// ---- reading ----

enum receive { RECEIVED, RECEIVE_NOTHING, RECEIVE_END };

static enum receive receive(struct h1_client *c, size_t max)
{
    if (!c->conn.readable)
        return RECEIVE_NOTHING;
    if (!buf_reserve(&c->in, &worker_of(c)->buffers, 1, max))
        return RECEIVE_END;
    ssize_t n = conn_recv(&c->conn, c->in.base + c->in.end, buf_space(&c->in));
    if (n == CONN_AGAIN)
        return RECEIVE_NOTHING;
    if (n <= 0)
        return RECEIVE_END;
    c->in.end += (uint32_t)n;
    c->since_us = c->conn.loop->now_us;
    return RECEIVED;
}

static void give_back_empty_buffer(struct h1_client *c)
{
    if (!buf_len(&c->in))
        buf_release(&c->in, &worker_of(c)->buffers);
}

// Each run_… returns true when there may be more to do at once.

static bool run_proxy(struct h1_client *c)
{
    struct str data = buf_str(&c->in);
    size_t consumed = 0;
    switch (proxy_protocol_parse(data.p, data.n, &consumed, &c->peer)) {
    case PROXY_DONE:
        buf_consume(&c->in, consumed);
        h1_set_state(c, CLIENT_IDLE);
        return true;
    case PROXY_BAD:
        h1_close(c);
        return false; // who cannot say who it is gets no answer (proxy-protocol.txt 2)
    case PROXY_MORE: break;
    }
    uint64_t since_us = c->since_us; // as for a head
    enum receive got = receive(c, BUF_BLOCK);
    c->since_us = since_us;
    switch (got) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING: return false;
    case RECEIVE_END: h1_close(c); return false;
    }
    return false;
}

static enum end_cause cause_of(enum h1_fault fault)
{
    static const enum end_cause causes[] = {
        [H1_OK] = END_INTERNAL,
        [H1_BAD_REQUEST] = END_BAD_REQUEST,
        [H1_URI_TOO_LONG] = END_URI_TOO_LONG,
        [H1_HEAD_TOO_LARGE] = END_HEADERS_TOO_LARGE,
        [H1_NOT_IMPLEMENTED] = END_NOT_IMPLEMENTED,
        [H1_VERSION] = END_VERSION,
        [H1_BAD_RESPONSE] = END_INTERNAL,
    };
    return causes[fault];
}

static bool run_idle(struct h1_client *c)
{
    if (c->out.blocked)
        return false; // who does not read answers asks no more
    if (!buf_len(&c->in)) {
        enum receive got = receive(c, BUF_BLOCK);
        if (got == RECEIVE_END) {
            h1_close(c);
            return false;
        }
        if (got == RECEIVE_NOTHING) {
            give_back_empty_buffer(c);
            return false;
        }
    }
    c->x = exchange_new(worker_of(c), c->listener->settings, &h1_verbs, c, &c->peer);
    if (!c->x) {
        h1_close(c);
        return false;
    }
    c->parse = (struct h1_parse){0};
    h1_set_state(c, CLIENT_HEAD);
    return true;
}

static void begin(struct h1_client *c)
{
    struct exchange *x = c->x;
    buf_consume(&c->in, c->parse.consumed);
    body_reader_init(&c->body, x->request.framing, x->request.content_length);
    c->body_wanted = c->chunked_reply = c->tunnel = c->cut = c->out.full = false;
    c->continue_due = x->request.expect_continue;
    c->close_after = !x->request.keep_alive || c->front->draining;
    c->served = true;
    h1_set_state(c, CLIENT_EXCHANGE);
    exchange_begin(x);
}

static bool run_head(struct h1_client *c)
{
    struct exchange *x = c->x;
    struct str data = buf_str(&c->in);
    const struct h1_limits *limits = &c->listener->limits;
    switch (h1_parse_request(&c->parse, data.p, data.n, limits,
                             (enum h1_underscores)settings_of(c)->underscores, &x->arena, &x->request)) {
    case H1_DONE: begin(c); return true;
    case H1_FAULT:
        c->close_after = true;
        h1_set_state(c, CLIENT_EXCHANGE);
        exchange_reject(x, cause_of(c->parse.fault), str_of(c->parse.why));
        return true;
    case H1_MORE: break;
    }
    uint64_t since_us = c->since_us; // the head's deadline runs from its first byte
    enum receive got = receive(c, (size_t)limits->head_bytes + BUF_BLOCK);
    c->since_us = since_us;
    switch (got) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING: h1_arm(c); return false;
    case RECEIVE_END: h1_close(c); return false;
    }
    return false;
}

// ---- the request body ----

static bool body_too_large(struct h1_client *c, size_t more)
{
    struct exchange *x = c->x;
    if (c->tunnel || x->body_bytes + more <= x->body_limit)
        return false;
    c->close_after = true;
    c->body_wanted = false;
    exchange_body_fail(
        x, END_BODY_TOO_LARGE,
        arena_printf(&x->arena, "the body may have at most %llu bytes", (unsigned long long)x->body_limit));
    return true;
}

static bool end_of_body_stream(struct h1_client *c)
{
    c->body_wanted = false;
    if (c->tunnel && !c->conn.error) {
        c->body.done = true;
        exchange_body_end(c->x, NULL);
    } else {
        exchange_client_gone(c->x, END_CLIENT_GONE);
    }
    return true;
}

static bool run_body(struct h1_client *c)
{
    struct exchange *x = c->x;
    struct headers trailers = {0};
    struct str data = buf_str(&c->in), span;
    size_t consumed = 0;
    switch (body_read(&c->body, data.p, data.n, &consumed, &span, &trailers, &x->arena)) {
    case BODY_SPAN:
        if (body_too_large(c, span.n))
            return true;
        c->body_wanted = exchange_body(x, span) == FLOW_MORE;
        buf_consume(&c->in, consumed);
        return c->body_wanted;
    case BODY_DONE:
        buf_consume(&c->in, consumed);
        c->body_wanted = false;
        exchange_body_end(x, trailers.count ? &trailers : NULL);
        return true;
    case BODY_BAD:
        c->close_after = true;
        c->body_wanted = false;
        exchange_body_fail(x, END_BAD_REQUEST, STR("the body's chunked framing is malformed"));
        return true;
    case BODY_MORE: buf_consume(&c->in, consumed); break;
    }
    switch (receive(c, BUF_BLOCK)) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING:
        exchange_body_flush(x);
        give_back_empty_buffer(c);
        h1_arm(c);
        return false;
    case RECEIVE_END: return end_of_body_stream(c);
    }
    return false;
}

// ---- after the answer ----

static bool run_drain(struct h1_client *c)
{
    struct str data = buf_str(&c->in), span;
    size_t consumed = 0;
    switch (body_read(&c->body, data.p, data.n, &consumed, &span, NULL, NULL)) {
    case BODY_DONE:
        buf_consume(&c->in, consumed);
        h1_set_state(c, CLIENT_IDLE);
        h1_arm(c);
        return true;
    case BODY_BAD: h1_close(c); return false;
    case BODY_SPAN: buf_consume(&c->in, consumed); return true;
    case BODY_MORE: buf_consume(&c->in, consumed); break;
    }
    switch (receive(c, BUF_BLOCK)) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING: give_back_empty_buffer(c); return false;
    case RECEIVE_END: h1_close(c); return false;
    }
    return false;
}

// Our side is shut; reading on keeps the kernel from resetting what the client has not read yet (RFC
// 9112 9.6).
static bool run_linger(struct h1_client *c)
{
    if (c->shutdown_due)
        return false;
    uint64_t since_us = c->since_us;
    c->dropped_bytes += (uint32_t)buf_len(&c->in);
    buf_release(&c->in, &worker_of(c)->buffers);
    enum receive got = receive(c, BUF_BLOCK);
    c->since_us = since_us;
    if (got == RECEIVED && c->dropped_bytes < LINGER_BYTES)
        return true;
    give_back_empty_buffer(c);
    if (got != RECEIVE_NOTHING)
        h1_close(c);
    return false;
}

void h1_run(struct h1_client *c)
{
    if (c->running)
        return; // the loop below goes on
    c->running = true;
    for (bool more = true; more;) {
        switch ((enum client_state)c->state) {
        case CLIENT_PROXY: more = run_proxy(c); break;
        case CLIENT_IDLE: more = run_idle(c); break;
        case CLIENT_HEAD: more = run_head(c); break;
        case CLIENT_EXCHANGE: more = c->body_wanted && run_body(c); break;
        case CLIENT_DRAIN: more = run_drain(c); break;
        case CLIENT_LINGER: more = run_linger(c); break;
        case CLIENT_CLOSED: more = false; break;
        }
    }
    c->running = false;
}
