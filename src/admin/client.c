#include "admin/collect.h"

#include <stdlib.h>
#include <unistd.h>

static const struct h1_limits limits = {
    .head_bytes = ADMIN_HEAD_BYTES,
    .uri_bytes = ADMIN_URI_BYTES,
    .headers = ADMIN_HEADERS,
};

enum { READ_BYTES = 4096 }; // the least room that is worth a read

static struct buf_pool no_pool; // keeps nothing: max is 0

// ---- ending ----

static void on_free(struct conn *conn)
{
    struct admin_client *c = container_of(conn, struct admin_client, conn);
    buf_release(&c->in, &no_pool);
    buf_free(&c->body);
    buf_free(&c->out);
    arena_reset(&c->arena);
    free(c);
}

void admin_client_close(struct admin_client *c)
{
    if (c->conn.closed)
        return;
    if (c->collection)
        collect_abandon(c->collection);
    c->collection = NULL;
    loop_timer_stop(c->conn.loop, &c->timer);
    list_remove(&c->node);
    c->door->count--;
    conn_close(&c->conn);
}

static void close_politely(struct admin_client *c)
{
    conn_shutdown_send(&c->conn);
    admin_client_close(c);
}

static void arm(struct admin_client *c, uint64_t ms)
{
    loop_timer_set(c->conn.loop, &c->timer, ms);
}

// ---- one request ----

static void new_id(struct admin_client *c)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < sizeof c->id; i += 16) {
        uint64_t bits = rand_u64(&c->admin->rand);
        for (unsigned j = 0; j < 16; j++)
            c->id[i + j] = digits[bits >> (4 * j) & 15];
    }
}

static void forget_request(struct admin_client *c)
{
    arena_reset(&c->arena);
    buf_free(&c->body);
    buf_free(&c->out);
    if (!buf_len(&c->in))
        buf_release(&c->in, &no_pool);
    c->parse = (struct h1_parse){0};
    c->request = (struct request_head){0};
    c->row = NULL;
    c->step = ADMIN_IDLE;
    list_remove(&c->node);
    list_push_back(&c->door->clients, &c->node);
    arm(c, ADMIN_IDLE_MS);
}

// Answers before the request has been read to its end.
static void refuse(struct admin_client *c, const struct admin_problem *problem)
{
    if (c->step != ADMIN_READ_BODY || !c->reader.done)
        c->keep = false;
    admin_reply_problem(c, problem);
}

static void refuse_cause(struct admin_client *c, enum end_cause cause, struct str detail)
{
    const struct end_row *row = end_row(cause);
    c->keep = false;
    refuse(c, &(struct admin_problem){row->status, row->code, detail});
}

// GET rows serve HEAD; *allow lists what the path takes when the method is another.
static const struct admin_row *find_row(struct admin_client *c, struct str *allow)
{
    const struct request_head *request = &c->request;
    enum http_method method = request->method == METHOD_HEAD ? METHOD_GET : request->method;
    *allow = STR_NULL;
    for (size_t i = 0; i < admin_row_count; i++) {
        const struct admin_row *row = &admin_rows[i];
        if (row->kind != c->door->kind || !str_eq(row->path, request->path))
            continue;
        if (row->method == method)
            return row;
        *allow = row->method == METHOD_GET ? STR("GET, HEAD") : STR("POST");
    }
    return NULL;
}

static void begin_request(struct admin_client *c)
{
    const struct request_head *request = &c->request;
    struct admin_problem problem;
    struct str allow;
    new_id(c);
    c->keep = request->keep_alive;
    body_reader_init(&c->reader, request->framing, request->content_length);
    c->step = ADMIN_READ_BODY;
    if (c->door->kind == ADMIN_API &&
        !admin_guard(c->admin->host->gateway->settings.admin.token, &c->peer, request, &problem)) {
        refuse(c, &problem);
        return;
    }
    c->row = find_row(c, &allow);
    if (!c->row && allow.n) {
        refuse(c, &(struct admin_problem){405, STR("method_not_allowed"), STR("not with this method"), allow,
                                          STR_NULL});
    } else if (!c->row) {
        refuse(c, &(struct admin_problem){404, STR("no_route"),
                                          STR("there is nothing here; see docs/ADMIN.md")});
    } else if (request->framing == FRAMING_LENGTH && request->content_length > ADMIN_BODY_BYTES) {
        refuse_cause(c, END_BODY_TOO_LARGE, STR("the body may have 65536 bytes"));
    } else if (request->expect_continue) {
        struct str line = STR("HTTP/1.1 100 Continue\r\n\r\n");
        conn_sendv(&c->conn, &(struct iovec){(void *)(uintptr_t)line.p, line.n}, 1);
    }
}

static void handle(struct admin_client *c)
{
    c->step = ADMIN_ANSWERING;
    loop_timer_stop(c->conn.loop, &c->timer);
    c->row->handle(c);
}

// ---- bytes ----

// True when there is more to look at: bytes, or their end.
static bool receive(struct admin_client *c)
{
    if (c->eof || !c->conn.readable)
        return false;
    if (!buf_reserve(&c->in, &no_pool, READ_BYTES, ADMIN_HEAD_BYTES + 2 * BUF_BLOCK)) {
        admin_client_close(c);
        return false;
    }
    ssize_t n = conn_recv(&c->conn, c->in.base + c->in.end, buf_space(&c->in));
    if (n > 0)
        c->in.end += (uint32_t)n;
    if (n == CONN_FAILED)
        admin_client_close(c);
    c->eof = n == 0;
    return n >= 0;
}

static bool read_head(struct admin_client *c)
{
    if (buf_len(&c->in)) {
        if (c->step == ADMIN_IDLE)
            arm(c, ADMIN_REQUEST_MS);
        c->step = ADMIN_HEAD;
        enum h1_result result = h1_parse_request(&c->parse, c->in.base + c->in.start, buf_len(&c->in),
                                                 &limits, H1_UNDERSCORES_DROP, &c->arena, &c->request);
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
        admin_client_close(c);
    return receive(c);
}

static bool read_body(struct admin_client *c)
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
    if (result == BODY_SPAN && buf_len(&c->body) + span.n > ADMIN_BODY_BYTES) {
        refuse_cause(c, END_BODY_TOO_LARGE, STR("the body may have 65536 bytes"));
        return true;
    }
    if (result == BODY_SPAN)
        buf_append(&c->body, span);
    buf_consume(&c->in, consumed);
    if (result != BODY_MORE)
        return true;
    if (c->eof)
        admin_client_close(c);
    return receive(c);
}

static bool send_answer(struct admin_client *c)
{
    while (buf_len(&c->out)) {
        struct iovec iov = {c->out.base + c->out.start, buf_len(&c->out)};
        ssize_t n = conn_sendv(&c->conn, &iov, 1);
        if (n == CONN_FAILED)
            admin_client_close(c);
        if (n < 0)
            return false;
        buf_consume(&c->out, (size_t)n);
        arm(c, ADMIN_WRITE_MS);
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
    c->step = ADMIN_LINGER;
    arm(c, ADMIN_LINGER_MS);
    return true;
}

// The peer may still be sending: closing now would reset the connection, and the answer with it.
static bool linger(struct admin_client *c)
{
    buf_release(&c->in, &no_pool);
    if (c->eof)
        admin_client_close(c);
    return receive(c);
}

static bool step(struct admin_client *c)
{
    switch (c->step) {
    case ADMIN_IDLE:
    case ADMIN_HEAD: return read_head(c);
    case ADMIN_READ_BODY: return read_body(c);
    case ADMIN_ANSWERING: return false;
    case ADMIN_SENDING: return send_answer(c);
    case ADMIN_LINGER: return linger(c);
    }
    return false;
}

static void client_run(struct admin_client *c)
{
    c->running = true;
    while (!c->conn.closed && step(c))
        continue;
    c->running = false;
}

void admin_client_send(struct admin_client *c)
{
    c->step = ADMIN_SENDING;
    arm(c, ADMIN_WRITE_MS);
    if (!c->running)
        client_run(c);
}

static void on_ready(struct conn *conn)
{
    struct admin_client *c = container_of(conn, struct admin_client, conn);
    if (conn->hung_up)
        admin_client_close(c);
    else
        client_run(c);
}

static void on_fire(struct loop_timer *timer)
{
    struct admin_client *c = container_of(timer, struct admin_client, timer);
    if (c->step != ADMIN_HEAD && c->step != ADMIN_READ_BODY) {
        admin_client_close(c);
        return;
    }
    if (c->step == ADMIN_HEAD)
        new_id(c);
    refuse_cause(c, END_REQUEST_TIMEOUT, STR("the request was not complete in time"));
}

static const struct conn_events events = {.on_ready = on_ready, .on_free = on_free};

// Room for a newcomer: the one that has been idle longest goes.
static bool make_room(struct admin_door *door)
{
    if (door->count < ADMIN_CONNECTIONS)
        return true;
    list_each (&door->clients, node) {
        struct admin_client *c = container_of(node, struct admin_client, node);
        if (c->step != ADMIN_IDLE)
            continue;
        admin_client_close(c);
        return true;
    }
    return false;
}

void admin_accept(struct admin_door *door, int fd, const struct addr *peer)
{
    struct admin_client *c = make_room(door) ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    c->admin = door->admin;
    c->door = door;
    c->peer = *peer;
    list_init(&c->node);
    loop_timer_init(&c->timer, on_fire);
    arena_init(&c->arena, NULL);
    if (!conn_open(&c->conn, door->admin->loop, fd, &events)) {
        free(c);
        return;
    }
    door->count++;
    list_push_back(&door->clients, &c->node);
    arm(c, ADMIN_REQUEST_MS);
}
