#include "echo/echo.h"

#include <stdlib.h>
#include <unistd.h>

static const struct h1_limits limits = {
    .head_bytes = ECHO_HEAD_BYTES,
    .uri_bytes = ECHO_HEAD_BYTES / 2,
    .headers = ECHO_HEADERS,
};

enum { READ_BYTES = 8192 }; // the least room that is worth a read

// ---- what is under way

static void enter_load(struct client *c)
{
    if (c->control || is_control_path(c->request.path) || is_health_path(c->request.path))
        return;
    c->counted = true;
    load_begin(&c->echo->load, c->echo->loop.now_us);
}

static void leave_load(struct client *c)
{
    if (c->counted)
        load_end(&c->echo->load, c->echo->loop.now_us);
    c->counted = false;
}

// ---- ending

void client_forget(struct client *c)
{
    client_stop(c);
    leave_load(c);
    buf_release(&c->body_text, &c->echo->buffers);
    arena_reset(&c->arena);
}

static void on_free(struct conn *conn)
{
    struct client *c = container_of(conn, struct client, conn);
    if (c->h2)
        h2_end(c);
    client_forget(c);
    buf_release(&c->in, &c->echo->buffers);
    out_release(&c->out, &c->echo->buffers);
    list_remove(&c->node);
    c->echo->open--;
    free(c);
}

void client_stop(struct client *c)
{
    loop_timer_stop(&c->echo->loop, &c->timer);
    list_remove(&c->again);
}

void client_close(struct client *c)
{
    if (c->stream) {
        h2_reset_stream(c, NGHTTP2_CANCEL);
        return;
    }
    client_stop(c);
    conn_close(&c->conn);
}

void client_reset(struct client *c)
{
    if (c->stream) {
        h2_reset_stream(c, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    client_stop(c);
    conn_abort(&c->conn);
}

// ---- waiting

static void on_fire(struct loop_timer *timer)
{
    struct client *c = container_of(timer, struct client, timer);
    c->waiting = false;
    c->on_timer(c);
}

void client_wait(struct client *c, uint64_t ms, void (*on_timer)(struct client *c))
{
    c->waiting = true;
    c->on_timer = on_timer;
    loop_timer_set(&c->echo->loop, &c->timer, ms);
}

// ---- one request

static void forget_request(struct client *c)
{
    leave_load(c);
    arena_reset(&c->arena);
    buf_release(&c->body_text, &c->echo->buffers);
    if (!buf_len(&c->in)) // an idle connection holds no buffer
        buf_release(&c->in, &c->echo->buffers);
    memset(&c->state, 0, sizeof *c - offsetof(struct client, state));
    arena_init(&c->arena, &c->echo->spares);
}

void client_serve(struct client *c)
{
    const struct service *service = c->service;
    if (!service)
        return;
    if (c->postponed && service->begin)
        service->begin(c);
    if (c->postponed && service->body && buf_len(&c->body_text))
        service->body(c, buf_str(&c->body_text));
    if (c->state != REQUEST_TUNNEL && service->end)
        service->end(c);
}

void client_end_request(struct client *c)
{
    c->state = REQUEST_DONE;
    c->echo->counters.body_bytes += c->body_bytes;
    if (c->postponed && misbehave_now(c) == INSTEAD)
        return;
    client_serve(c);
}

static void refuse(struct client *c)
{
    c->echo->counters.bad_requests++;
    c->state = REQUEST_DONE;
    c->service = NULL;
    c->produce = NULL;
    if (c->answer != ANSWER_NONE) { // an answer has begun: it must not look complete
        client_reset(c);
        return;
    }
    c->keep = false;
    struct str why = c->parse.why ? str_of(c->parse.why) : STR("bad request body");
    answer_text(c, 400, STR("text/plain"), why);
}

static void find_service(struct client *c)
{
    const struct header *asked = headers_find_name(&c->request.headers, STR("X-Echo"));
    c->wishes = asked ? asked->value : c->request.query;
    c->service = service_find(c);
    if (is_control_path(c->request.path))
        return;
    if (c->control) {
        answer_text(c, 404, STR("text/plain"), STR("this is the control door: /_control/help\n"));
        c->service = NULL;
    } else if (!misbehave_find(c)) {
        c->service = NULL; // answered
    }
}

void client_begin_request(struct client *c)
{
    c->served++;
    c->echo->counters.requests++;
    enter_load(c);
    c->keep = c->request.keep_alive;
    c->state = REQUEST_BODY;
    struct str value;
    c->hash = c->request.has_query && query_get(c->request.query, STR("hash"), &value);
    sha1_init(&c->sha1);
    body_reader_init(&c->reader, c->request.framing, c->request.content_length);
    find_service(c);
    if (c->misbehaviour && c->misbehaviour->at == AT_HEAD && misbehave_now(c) == INSTEAD)
        c->service = NULL;
    c->postponed = c->misbehaviour && c->misbehaviour->at == AT_END;
    if (c->request.expect_continue && !c->no_100 && c->answer == ANSWER_NONE)
        answer_informational(c, 100, NULL);
    if (c->service && c->service->begin && !c->postponed)
        c->service->begin(c);
    if (c->state == REQUEST_BODY && c->reader.done)
        client_end_request(c);
}

void client_note_body(struct client *c, struct str span)
{
    c->body_bytes += span.n;
    if (c->hash)
        sha1_update(&c->sha1, span);
    if (!c->service)
        return;
    if (c->service->body && !c->postponed) {
        c->service->body(c, span);
        return;
    }
    size_t room = ECHO_BODY_SHOWN - buf_len(&c->body_text);
    if (span.n > room)
        span.n = room;
    if (span.n && buf_reserve(&c->body_text, &c->echo->buffers, span.n, ECHO_BODY_SHOWN))
        buf_put(&c->body_text, span);
}

// ---- bytes in

// True when there are more.
bool client_receive(struct client *c)
{
    if (!c->conn.readable || c->eof)
        return false;
    if (!buf_reserve(&c->in, &c->echo->buffers, READ_BYTES, ECHO_HEAD_BYTES + 2 * BUF_BLOCK)) {
        client_reset(c);
        return false;
    }
    ssize_t n = conn_recv(&c->conn, c->in.base + c->in.end, buf_space(&c->in));
    if (n > 0) {
        c->in.end += (uint32_t)n;
        return true;
    }
    if (!buf_len(&c->in))
        buf_release(&c->in, &c->echo->buffers);
    if (n == CONN_FAILED)
        client_close(c);
    c->eof = n == 0;
    return n == 0;
}

static bool read_head(struct client *c)
{
    bool partial;
    if (h2_preface(c, &partial)) {
        h2_begin(c);
        h2_run(c);
        return false;
    }
    if (partial && !c->eof)
        return client_receive(c);
    if (buf_len(&c->in)) {
        enum h1_result result = h1_parse_request(&c->parse, c->in.base + c->in.start, buf_len(&c->in),
                                                 &limits, H1_UNDERSCORES_ALLOW, &c->arena, &c->request);
        if (result == H1_FAULT)
            refuse(c);
        if (result == H1_DONE) {
            buf_consume(&c->in, c->parse.consumed);
            client_begin_request(c);
        }
        if (result != H1_MORE)
            return true;
    }
    if (!c->eof)
        return client_receive(c);
    // No more requests; what is gathered of the last answer still goes out.
    c->state = REQUEST_DONE;
    c->answer = ANSWER_DONE;
    c->keep = false;
    return true;
}

static bool read_body(struct client *c)
{
    if (c->deaf || c->out.blocked)
        return false;
    size_t consumed;
    struct str span, data = buf_str(&c->in);
    switch (body_read(&c->reader, data.p, data.n, &consumed, &span, &c->trailers, &c->arena)) {
    case BODY_SPAN: client_note_body(c, span); break;
    case BODY_MORE:
        buf_consume(&c->in, consumed);
        if (c->eof)
            client_close(c);
        return client_receive(c);
    case BODY_DONE: break;
    case BODY_BAD: refuse(c); return true;
    }
    buf_consume(&c->in, consumed);
    if (c->reader.done)
        client_end_request(c);
    return true;
}

static bool read_tunnel(struct client *c)
{
    if (c->out.blocked || c->answer == ANSWER_DONE)
        return false;
    size_t consumed = 0;
    if (buf_len(&c->in))
        c->service->tunnel(c, c->in.base + c->in.start, buf_len(&c->in), &consumed);
    buf_consume(&c->in, consumed);
    if (consumed)
        return true;
    if (c->eof && c->answer != ANSWER_DONE)
        client_close(c);
    return client_receive(c);
}

static void close_now(struct client *c)
{
    conn_shutdown_send(&c->conn);
    client_close(c);
}

// The answer is out: the next request, or the end.
static bool finish(struct client *c)
{
    if (c->keep && !c->ends_silently) {
        if (c->out.blocked)
            return false;
        forget_request(c);
        return true;
    }
    out_flush(&c->out, &c->conn, &c->echo->buffers);
    if (!out_empty(&c->out))
        return false;
    if (c->ends_after_ms) {
        client_wait(c, c->ends_after_ms, close_now);
        c->ends_after_ms = 0;
    } else if (!c->waiting) {
        close_now(c);
    }
    return false;
}

// What the peer sends may be read; true when something moved.
static bool step_request(struct client *c)
{
    switch (c->state) {
    case REQUEST_HEAD: return !c->out.blocked && read_head(c);
    case REQUEST_BODY: return read_body(c);
    case REQUEST_TUNNEL: return read_tunnel(c) || (c->answer == ANSWER_DONE && finish(c));
    case REQUEST_DONE: return c->answer == ANSWER_DONE && finish(c);
    }
    return false;
}

bool client_step_answer(struct client *c)
{
    if (c->answer != ANSWER_GOING || !c->produce || c->waiting || c->out.blocked)
        return false;
    enum produced result = c->produce(c);
    if (result == PRODUCE_ENDED)
        c->produce = NULL;
    return result != PRODUCE_WAITS;
}

// A peer that has gone while nothing is read or written would not be noticed otherwise.
static bool is_abandoned(const struct client *c)
{
    return c->conn.hung_up || (c->conn.peer_closed && c->waiting && c->state == REQUEST_DONE);
}

void client_run(struct client *c)
{
    if (c->h2 && !c->conn.closed) {
        (c->stream ? h2_stream_run : h2_run)(c);
        return;
    }
    for (unsigned spans = 0; !c->conn.closed; spans++) {
        if (c->out.broken) {
            client_close(c);
            return;
        }
        if (spans == ECHO_SPANS_A_TURN) {
            echo_run_again(c->echo, c);
            break;
        }
        bool answered = client_step_answer(c);
        if (c->conn.closed || (!step_request(c) && !answered))
            break;
    }
    if (!c->conn.closed)
        out_flush(&c->out, &c->conn, &c->echo->buffers);
    if (c->out.broken)
        client_close(c);
}

static void on_ready(struct conn *conn)
{
    struct client *c = container_of(conn, struct client, conn);
    if (is_abandoned(c)) {
        client_close(c);
        return;
    }
    out_flush(&c->out, &c->conn, &c->echo->buffers);
    client_run(c);
}

static const struct conn_events events = {.on_ready = on_ready, .on_free = on_free};

struct client *client_new(struct echo *echo)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->echo = echo;
    list_init(&c->node);
    list_init(&c->again);
    loop_timer_init(&c->timer, on_fire);
    arena_init(&c->arena, &echo->spares);
    return c;
}

void client_accept(struct echo *echo, int fd, bool control)
{
    struct client *c = client_new(echo);
    if (!c) {
        close(fd);
        return;
    }
    if (!conn_open(&c->conn, &echo->loop, fd, &events)) {
        free(c);
        return;
    }
    c->control = control;
    c->id = ++echo->counters.connections;
    echo->open++;
    list_push_back(&echo->clients, &c->node);
}
