#include "serve/serve.h"

#include <stdlib.h>
#include <unistd.h>

enum { READ_BYTES = 4096 }; // the least room that is worth a read

static struct buf_pool no_pool; // keeps nothing: max is 0

static const struct serve_limits *limits_of(const struct serve_client *c)
{
    return &c->server->settings->limits;
}

// ---- ending ----

// It may hold a password.
static void free_body(struct serve_client *c)
{
    if (c->body.base)
        explicit_bzero(c->body.base, c->body.cap);
    buf_free(&c->body);
}

static void on_free(struct conn *conn)
{
    struct serve_client *c = container_of(conn, struct serve_client, conn);
    buf_release(&c->in, &no_pool);
    free_body(c);
    buf_free(&c->out);
    arena_reset(&c->arena);
    free(c);
}

void serve_client_close(struct serve_client *c)
{
    if (c->conn.closed)
        return;
    if (c->pending)
        c->on_gone(c->pending);
    c->pending = NULL;
    loop_timer_stop(c->conn.loop, &c->timer);
    list_remove(&c->node);
    c->server->count--;
    conn_close(&c->conn);
}

static void close_politely(struct serve_client *c)
{
    conn_shutdown_send(&c->conn);
    serve_client_close(c);
}

static void arm(struct serve_client *c, uint64_t ms)
{
    loop_timer_set(c->conn.loop, &c->timer, ms);
}

// ---- one request ----

static void new_id(struct serve_client *c)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < sizeof c->id; i += 16) {
        uint64_t bits = rand_u64(c->server->rand);
        for (unsigned j = 0; j < 16; j++)
            c->id[i + j] = digits[bits >> (4 * j) & 15];
    }
}

static void forget_request(struct serve_client *c)
{
    arena_reset(&c->arena);
    free_body(c);
    buf_free(&c->out);
    if (!buf_len(&c->in))
        buf_release(&c->in, &no_pool);
    c->parse = (struct h1_parse){0};
    c->request = (struct request_head){0};
    c->row = NULL;
    c->consumer = c->subject = STR_NULL;
    c->step = SERVE_IDLE;
    list_remove(&c->node);
    list_push_back(&c->server->clients, &c->node);
    arm(c, limits_of(c)->idle_ms);
}

// Answers before the request has been read to its end.
static void refuse(struct serve_client *c, const struct serve_problem *problem)
{
    if (c->step != SERVE_READ_BODY || !c->reader.done)
        c->keep = false;
    serve_reply_problem(c, problem);
}

static void refuse_cause(struct serve_client *c, enum end_cause cause, struct str detail)
{
    const struct end_row *row = end_row(cause);
    c->keep = false;
    refuse(c, &(struct serve_problem){row->status, row->code, detail});
}

static bool is_row_of(const struct serve_row *row, struct str path)
{
    return row->below ? path.n > row->path.n && str_starts(path, row->path) : str_eq(path, row->path);
}

// GET rows serve HEAD; *allow lists what the path takes when the method is another.
static const struct serve_row *find_row(struct serve_client *c, struct str *allow)
{
    const struct serve_settings *settings = c->server->settings;
    const struct request_head *request = &c->request;
    enum http_method method = request->method == METHOD_HEAD ? METHOD_GET : request->method;
    *allow = STR_NULL;
    for (size_t i = 0; i < settings->row_count; i++) {
        const struct serve_row *row = &settings->rows[i];
        if (!is_row_of(row, request->path))
            continue;
        if (row->method == method || row->method == METHOD_OTHER)
            return row;
        struct str name = row->method == METHOD_GET ? STR("GET, HEAD") : http_method_name(row->method);
        *allow = arena_printf(&c->arena, "%.*s%s%.*s", STR_ARG(*allow), allow->n ? ", " : "", STR_ARG(name));
    }
    return NULL;
}

static void refuse_large(struct serve_client *c)
{
    refuse_cause(c, END_BODY_TOO_LARGE,
                 arena_printf(&c->arena, "the body may have %u bytes", limits_of(c)->body_bytes));
}

static void begin_request(struct serve_client *c)
{
    const struct serve_settings *settings = c->server->settings;
    const struct request_head *request = &c->request;
    struct serve_problem problem;
    struct str allow;
    new_id(c);
    c->keep = request->keep_alive;
    body_reader_init(&c->reader, request->framing, request->content_length);
    c->step = SERVE_READ_BODY;
    if (settings->admit && !settings->admit(c, &problem)) {
        refuse(c, &problem);
        return;
    }
    c->row = find_row(c, &allow);
    if (!c->row && allow.n) {
        refuse(c, &(struct serve_problem){405, STR("method_not_allowed"), STR("not with this method"), allow,
                                          STR_NULL});
    } else if (!c->row) {
        refuse(c, &(struct serve_problem){404, STR("no_route"), settings->no_row});
    } else if (request->framing == FRAMING_LENGTH && request->content_length > limits_of(c)->body_bytes) {
        refuse_large(c);
    } else if (request->expect_continue) {
        struct str line = STR("HTTP/1.1 100 Continue\r\n\r\n");
        conn_sendv(&c->conn, &(struct iovec){(void *)(uintptr_t)line.p, line.n}, 1);
    }
}

static void handle(struct serve_client *c)
{
    c->step = SERVE_ANSWERING;
    loop_timer_stop(c->conn.loop, &c->timer);
    c->row->handle(c);
}

void serve_wait(struct serve_client *c, void *pending, void (*on_gone)(void *pending))
{
    check(!c->pending && c->step == SERVE_ANSWERING);
    c->pending = pending;
    c->on_gone = on_gone;
}

void serve_resume(struct serve_client *c)
{
    check(c->pending);
    c->pending = NULL;
}

// ---- bytes ----

// True when there is more to look at: bytes, or their end.
static bool receive(struct serve_client *c)
{
    if (c->eof || !c->conn.readable)
        return false;
    if (!buf_reserve(&c->in, &no_pool, READ_BYTES, limits_of(c)->head.head_bytes + 2 * BUF_BLOCK)) {
        serve_client_close(c);
        return false;
    }
    ssize_t n = conn_recv(&c->conn, c->in.base + c->in.end, buf_space(&c->in));
    if (n > 0)
        c->in.end += (uint32_t)n;
    if (n == CONN_FAILED)
        serve_client_close(c);
    c->eof = n == 0;
    return n >= 0;
}

static bool read_head(struct serve_client *c)
{
    if (buf_len(&c->in)) {
        if (c->step == SERVE_IDLE) {
            c->began_us = c->conn.loop->now_us;
            arm(c, limits_of(c)->request_ms);
        }
        c->step = SERVE_HEAD;
        enum h1_result result =
            h1_parse_request(&c->parse, c->in.base + c->in.start, buf_len(&c->in), &limits_of(c)->head,
                             H1_UNDERSCORES_DROP, &c->arena, &c->request);
        if (result == H1_FAULT) {
            new_id(c);
            refuse_cause(c, h1_fault_cause(c->parse.fault), str_of(c->parse.why));
            return true;
        }
        if (result == H1_DONE) {
            buf_consume(&c->in, c->parse.consumed);
            begin_request(c);
            return true;
        }
    }
    if (c->eof)
        serve_client_close(c);
    return receive(c);
}

static bool read_body(struct serve_client *c)
{
    if (c->reader.done) {
        handle(c);
        return true;
    }
    size_t consumed;
    struct str span;
    enum body_result result =
        body_read(&c->reader, c->in.base + c->in.start, buf_len(&c->in), &consumed, &span, NULL, &c->arena);
    if (result == BODY_BAD) {
        refuse_cause(c, END_BAD_REQUEST, STR("malformed chunked body"));
        return true;
    }
    if (result == BODY_SPAN && buf_len(&c->body) + span.n > limits_of(c)->body_bytes) {
        refuse_large(c);
        return true;
    }
    if (result == BODY_SPAN)
        buf_append(&c->body, span);
    buf_consume(&c->in, consumed);
    if (result != BODY_MORE)
        return true;
    if (c->eof)
        serve_client_close(c);
    return receive(c);
}

static bool send_answer(struct serve_client *c)
{
    while (buf_len(&c->out)) {
        struct iovec iov = {c->out.base + c->out.start, buf_len(&c->out)};
        ssize_t n = conn_sendv(&c->conn, &iov, 1);
        if (n == CONN_FAILED)
            serve_client_close(c);
        if (n < 0)
            return false;
        buf_consume(&c->out, (size_t)n);
        arm(c, limits_of(c)->write_ms);
    }
    if (c->keep) {
        forget_request(c);
        return true;
    }
    if (c->reader.done && c->row) {
        close_politely(c);
        return false;
    }
    conn_shutdown_send(&c->conn);
    c->step = SERVE_LINGER;
    arm(c, limits_of(c)->linger_ms);
    return true;
}

// The peer may still be sending: closing now would reset the connection, and the answer with it.
static bool linger(struct serve_client *c)
{
    buf_release(&c->in, &no_pool);
    if (c->eof)
        serve_client_close(c);
    return receive(c);
}

static bool step(struct serve_client *c)
{
    switch (c->step) {
    case SERVE_IDLE:
    case SERVE_HEAD: return read_head(c);
    case SERVE_READ_BODY: return read_body(c);
    case SERVE_ANSWERING: return false;
    case SERVE_SENDING: return send_answer(c);
    case SERVE_LINGER: return linger(c);
    }
    return false;
}

static void client_run(struct serve_client *c)
{
    c->running = true;
    while (!c->conn.closed && step(c))
        continue;
    c->running = false;
}

void serve_client_send(struct serve_client *c)
{
    c->step = SERVE_SENDING;
    arm(c, limits_of(c)->write_ms);
    if (!c->running)
        client_run(c);
}

static void on_ready(struct conn *conn)
{
    struct serve_client *c = container_of(conn, struct serve_client, conn);
    if (conn->hung_up)
        serve_client_close(c);
    else
        client_run(c);
}

static void on_fire(struct loop_timer *timer)
{
    struct serve_client *c = container_of(timer, struct serve_client, timer);
    if (c->step != SERVE_HEAD && c->step != SERVE_READ_BODY) {
        serve_client_close(c);
        return;
    }
    if (c->step == SERVE_HEAD)
        new_id(c);
    refuse_cause(c, END_REQUEST_TIMEOUT, STR("the request was not complete in time"));
}

static const struct conn_events events = {.on_ready = on_ready, .on_free = on_free};

// Room for a newcomer: the one that has been idle longest goes.
static bool make_room(struct server *server)
{
    if (server->count < server->settings->limits.connections)
        return true;
    list_each (&server->clients, node) {
        struct serve_client *c = container_of(node, struct serve_client, node);
        if (c->step != SERVE_IDLE)
            continue;
        serve_client_close(c);
        return true;
    }
    return false;
}

void serve_accept(struct server *server, int fd, const struct addr *peer)
{
    struct serve_client *c = make_room(server) ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    c->server = server;
    c->peer = *peer;
    list_init(&c->node);
    loop_timer_init(&c->timer, on_fire);
    arena_init(&c->arena, NULL);
    if (!conn_open(&c->conn, server->loop, fd, &events)) {
        free(c);
        return;
    }
    server->count++;
    list_push_back(&server->clients, &c->node);
    arm(c, limits_of(c)->request_ms);
}
