// The life of an HTTP/1 client connection: bytes in, exchanges out.
#include "front/client.h"

// ---- states and deadlines ----

void h1_set_state(struct client *c, enum client_state state)
{
    c->h1.state = (uint8_t)state;
    c->since_us = c->conn.loop->now_us;
}

// How long the present state may last without progress, in µs; 0: for ever.
static uint64_t patience_us(const struct client *c)
{
    const struct listener_settings *settings = client_settings(c);
    if (c->out.blocked)
        return client_patience_us(c, settings->timeouts.write_us, OVERLOAD_MEMORY);
    switch ((enum client_state)c->h1.state) {
    case CLIENT_HEAD: return settings->timeouts.header_us;
    case CLIENT_IDLE:
        return c->front->draining ? DRAIN_IDLE_MS * 1000
               : c->served        ? client_patience_us(c, settings->timeouts.idle_us, OVERLOAD_DESCRIPTORS)
                                  : settings->timeouts.header_us;
    case CLIENT_EXCHANGE: return c->h1.body_wanted && !c->h1.tunnel ? settings->timeouts.body_us : 0;
    case CLIENT_DRAIN: return settings->timeouts.body_us;
    case CLIENT_LINGER: return LINGER_MS * 1000;
    case CLIENT_CLOSED: break;
    }
    return 0;
}

void h1_arm(struct client *c)
{
    uint64_t us = patience_us(c), spent_us = 0;
    if (c->h1.state == CLIENT_HEAD) // the whole of it has one deadline, however often it is armed
        spent_us = c->conn.loop->now_us - c->since_us;
    if (us)
        loop_timer_set(c->conn.loop, &c->timer, us > spent_us ? (us - spent_us) / 1000 : 0);
}

static void time_out(struct client *c)
{
    if (c->out.blocked && c->h1.state == CLIENT_EXCHANGE) {
        c->cut = true;
        exchange_client_gone(c->h1.x, END_CLIENT_SLOW);
    } else if (c->h1.state == CLIENT_HEAD) {
        c->close_after = true;
        h1_set_state(c, CLIENT_EXCHANGE);
        exchange_reject(c->h1.x, END_REQUEST_TIMEOUT, STR("the request head did not arrive in time"));
    } else if (c->h1.state == CLIENT_EXCHANGE) {
        c->close_after = true;
        c->h1.body_wanted = false;
        exchange_body_fail(c->h1.x, END_REQUEST_TIMEOUT, STR("the request body did not arrive in time"));
    } else {
        client_close(c);
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct client *c = container_of(timer, struct client, timer);
    uint64_t us = patience_us(c), now_us = c->conn.loop->now_us;
    if (c->out.broken && c->h1.state == CLIENT_EXCHANGE) {
        exchange_client_gone(c->h1.x, END_CLIENT_GONE);
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

static void on_close(struct client *c)
{
    if (c->h1.x && c->h1.state == CLIENT_HEAD) {
        exchange_discard(c->h1.x);
        c->h1.x = NULL;
    }
    check(!c->h1.x);
    c->h1.state = CLIENT_CLOSED;
}

static void drain(struct client *c)
{
    c->close_after = true;
    if (c->h1.state != CLIENT_IDLE)
        return;
    // One whose last answer has not left yet is not idle.
    if (!c->out.blocked && c->conn.loop->now_us >= c->since_us + DRAIN_IDLE_MS * 1000)
        client_close(c);
    else
        h1_arm(c);
}

static void abort_client(struct client *c)
{
    c->cut = true;
    if (c->h1.x && c->h1.state == CLIENT_EXCHANGE)
        exchange_client_gone(c->h1.x, END_CLIENT_GONE); // closes c
    else
        client_close(c);
}

static void on_ready(struct conn *conn)
{
    struct client *c = container_of(conn, struct client, conn);
    if (c->out.blocked && conn->writable) {
        c->since_us = conn->loop->now_us;
        out_flush(&c->out, conn, &client_worker(c)->buffers);
        if (c->shutdown_due)
            client_shutdown(c);
    }
    if (out_drained(&c->out) && c->h1.x && c->h1.state == CLIENT_EXCHANGE)
        exchange_client_drained(c->h1.x);
    // A tunnel's last bytes may still be there to read.
    bool gone = c->out.broken || (conn->hung_up && (!c->h1.tunnel || c->h1.body.done));
    if (gone && c->h1.state == CLIENT_EXCHANGE && c->h1.x)
        exchange_client_gone(c->h1.x, END_CLIENT_GONE);
    else if (!conn->closed)
        h1_run(c);
}

static const struct client_protocol h1_protocol = {
    .events = {.on_ready = on_ready, .on_free = client_on_free},
    .on_timer = on_timer,
    .drain = drain,
    .abort = abort_client,
    .on_close = on_close,
};

void h1_start(struct client *c)
{
    c->h1 = (struct h1_client){.state = CLIENT_IDLE};
    c->since_us = c->conn.loop->now_us;
    client_speak(c, &h1_protocol);
    h1_arm(c);
}

void h1_refuse(struct client *c, enum end_cause cause, struct str why)
{
    h1_start(c);
    c->h1.x = client_exchange(c, &h1_verbs, c);
    if (!c->h1.x) {
        client_close(c);
        return;
    }
    c->h1.parse.fault = H1_BAD_REQUEST; // nothing of what was said is a body
    c->close_after = true;
    h1_set_state(c, CLIENT_EXCHANGE);
    exchange_reject(c->h1.x, cause, why);
}

// ---- reading ----

static enum receive receive(struct client *c, size_t max)
{
    enum receive got = client_receive(c, max);
    if (got == RECEIVED)
        c->since_us = c->conn.loop->now_us;
    return got;
}

// Each run_… returns true when there may be more to do at once.

static bool run_idle(struct client *c)
{
    if (c->out.blocked)
        return false; // who does not read answers asks no more
    if (!buf_len(&c->in)) {
        enum receive got = receive(c, BUF_BLOCK);
        if (got == RECEIVE_END) {
            client_close(c);
            return false;
        }
        if (got == RECEIVE_NOTHING) {
            client_give_back_empty_buffer(c);
            return false;
        }
    }
    c->h1.x = client_exchange(c, &h1_verbs, c);
    if (!c->h1.x) {
        client_close(c);
        return false;
    }
    c->h1.parse = (struct h1_parse){0};
    h1_set_state(c, CLIENT_HEAD);
    return true;
}

static void begin(struct client *c)
{
    struct exchange *x = c->h1.x;
    buf_consume(&c->in, c->h1.parse.consumed);
    body_reader_init(&c->h1.body, x->request.framing, x->request.content_length);
    c->h1.body_wanted = c->h1.chunked_reply = c->h1.tunnel = c->cut = c->out.full = false;
    c->h1.continue_due = x->request.expect_continue;
    c->close_after = !x->request.keep_alive || client_is_last_request(c);
    c->served = true;
    h1_set_state(c, CLIENT_EXCHANGE);
    exchange_begin(x);
}

static bool run_head(struct client *c)
{
    struct exchange *x = c->h1.x;
    struct str data = buf_str(&c->in);
    const struct h1_limits *limits = &c->listener->limits;
    switch (h1_parse_request(&c->h1.parse, data.p, data.n, limits,
                             (enum h1_underscores)client_settings(c)->underscores, &x->arena, &x->request)) {
    case H1_DONE: begin(c); return true;
    case H1_FAULT:
        c->close_after = true;
        h1_set_state(c, CLIENT_EXCHANGE);
        exchange_reject(x, h1_fault_cause(c->h1.parse.fault), str_of(c->h1.parse.why));
        return true;
    case H1_MORE: break;
    }
    uint64_t since_us = c->since_us; // the head's deadline runs from its first byte
    enum receive got = receive(c, (size_t)limits->head_bytes + BUF_BLOCK);
    c->since_us = since_us;
    switch (got) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING: h1_arm(c); return false;
    case RECEIVE_END: client_close(c); return false;
    }
    return false;
}

// ---- the request body ----

static bool body_too_large(struct client *c, size_t more)
{
    struct exchange *x = c->h1.x;
    if (c->h1.tunnel || x->body_bytes + more <= x->body_limit)
        return false;
    c->close_after = true;
    c->h1.body_wanted = false;
    exchange_body_fail(
        x, END_BODY_TOO_LARGE,
        arena_printf(&x->arena, "the body may have at most %llu bytes", (unsigned long long)x->body_limit));
    return true;
}

static bool end_of_body_stream(struct client *c)
{
    c->h1.body_wanted = false;
    if (c->h1.tunnel && !c->conn.error) {
        c->h1.body.done = true;
        exchange_body_end(c->h1.x, NULL);
    } else {
        exchange_client_gone(c->h1.x, END_CLIENT_GONE);
    }
    return true;
}

static bool run_body(struct client *c)
{
    struct exchange *x = c->h1.x;
    struct headers trailers = {0};
    struct str data = buf_str(&c->in), span;
    size_t consumed = 0;
    switch (body_read(&c->h1.body, data.p, data.n, &consumed, &span, &trailers, &x->arena)) {
    case BODY_SPAN:
        if (body_too_large(c, span.n))
            return true;
        c->h1.body_wanted = exchange_body(x, span) == FLOW_MORE;
        buf_consume(&c->in, consumed);
        return c->h1.body_wanted;
    case BODY_DONE:
        buf_consume(&c->in, consumed);
        c->h1.body_wanted = false;
        exchange_body_end(x, trailers.count ? &trailers : NULL);
        return true;
    case BODY_BAD:
        c->close_after = true;
        c->h1.body_wanted = false;
        exchange_body_fail(x, END_BAD_REQUEST, STR("the body's chunked framing is malformed"));
        return true;
    case BODY_MORE: buf_consume(&c->in, consumed); break;
    }
    switch (receive(c, BUF_BLOCK)) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING:
        exchange_body_flush(x);
        client_give_back_empty_buffer(c);
        h1_arm(c);
        return false;
    case RECEIVE_END: return end_of_body_stream(c);
    }
    return false;
}

// ---- after the answer ----

static bool run_drain(struct client *c)
{
    struct str data = buf_str(&c->in), span;
    size_t consumed = 0;
    switch (body_read(&c->h1.body, data.p, data.n, &consumed, &span, NULL, NULL)) {
    case BODY_DONE:
        buf_consume(&c->in, consumed);
        h1_set_state(c, CLIENT_IDLE);
        h1_arm(c);
        return true;
    case BODY_BAD: client_close(c); return false;
    case BODY_SPAN: buf_consume(&c->in, consumed); return true;
    case BODY_MORE: buf_consume(&c->in, consumed); break;
    }
    switch (receive(c, BUF_BLOCK)) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING: client_give_back_empty_buffer(c); return false;
    case RECEIVE_END: client_close(c); return false;
    }
    return false;
}

// Our side is shut; reading on keeps the kernel from resetting what the client has not read yet (RFC
// 9112 9.6).
static bool run_linger(struct client *c)
{
    if (c->shutdown_due)
        return false;
    uint64_t since_us = c->since_us;
    c->h1.dropped_bytes += (uint32_t)buf_len(&c->in);
    buf_release(&c->in, &client_worker(c)->buffers);
    enum receive got = receive(c, BUF_BLOCK);
    c->since_us = since_us;
    if (got == RECEIVED && c->h1.dropped_bytes < LINGER_BYTES)
        return true;
    client_give_back_empty_buffer(c);
    if (got != RECEIVE_NOTHING)
        client_close(c);
    return false;
}

void h1_run(struct client *c)
{
    if (c->h1.running)
        return; // the loop below goes on
    c->h1.running = true;
    for (bool more = true; more;) {
        switch ((enum client_state)c->h1.state) {
        case CLIENT_IDLE: more = run_idle(c); break;
        case CLIENT_HEAD: more = run_head(c); break;
        case CLIENT_EXCHANGE: more = c->h1.body_wanted && run_body(c); break;
        case CLIENT_DRAIN: more = run_drain(c); break;
        case CLIENT_LINGER: more = run_linger(c); break;
        case CLIENT_CLOSED: more = false; break;
        }
    }
    c->h1.running = false;
    if (c->h1.state != CLIENT_CLOSED)
        client_set_active(c, c->h1.state != CLIENT_IDLE);
}
