// HTTP/1.1 towards an upstream: the request is written as it comes, the response is read as strictly as a
// request.
#include "http/h1_parse.h"
#include "http/h1_write.h"
#include "upstream/link.h"

#include <stdlib.h>

struct h1_link {
    struct upstream_conn base;
    struct upstream_link link;
    struct buf in;
    struct h1_parse parse;
    struct response_head *head; // being parsed, in the call's arena
    struct body_reader body;
    unsigned informational; // 1xx heads seen for this request
    bool chunked_request, upgrade;
    bool request_sent; // something of the request has been handed to the kernel
    bool request_ended, head_seen, response_ended;
    bool keep_alive;      // the response allows it
    bool paused;          // the client side is full
    bool shutdown_wanted; // half-close as soon as the output is gone
};

static struct h1_link *of_link(const struct upstream_link *link)
{
    return container_of(link, struct h1_link, link);
}

static struct h1_link *of_base(struct upstream_conn *c)
{
    return container_of(c, struct h1_link, base);
}

static struct buf_pool *buffers_of(const struct h1_link *h1)
{
    return connection_needs(&h1->base)->buffers;
}

static void fail(struct h1_link *h1, enum end_cause cause)
{
    struct upstream_call *call = h1->link.call;
    h1->keep_alive = false;
    call->events->on_fail(call, cause); // finishes the call
}

// ---- reading ----

static void end_response(struct h1_link *h1, struct headers *trailers)
{
    struct upstream_call *call = h1->link.call;
    h1->response_ended = true;
    if (buf_len(&h1->in))
        h1->keep_alive = false; // more than was announced: whose it is, nobody can say
    call->events->on_end(call, trailers);
}

// Each of these returns true when more can be done at once with what is in the buffer.

static bool take_informational(struct h1_link *h1, struct response_head *head)
{
    if (head->status == 101 || ++h1->informational > INFORMATIONAL_MAX) {
        fail(h1, END_UPSTREAM_BAD_RESPONSE);
        return false;
    }
    h1->parse = (struct h1_parse){0};
    h1->head = NULL;
    struct upstream_call *call = h1->link.call;
    call->events->on_informational(call, head);
    return h1->link.call == call;
}

static bool take_head(struct h1_link *h1)
{
    static const struct h1_limits limits = {.head_bytes = UPSTREAM_HEAD_BYTES, .headers = UPSTREAM_HEADERS};
    struct upstream_call *call = h1->link.call;
    if (!h1->head) // once for each head, however small the pieces it comes in
        h1->head = arena_new(call->arena, struct response_head);
    struct response_head *head = h1->head;
    struct str data = buf_str(&h1->in);
    switch (h1_parse_response(&h1->parse, data.p, data.n, &limits, call->method, call->arena, head)) {
    case H1_MORE: return false;
    case H1_FAULT: fail(h1, END_UPSTREAM_BAD_RESPONSE); return false;
    case H1_DONE: break;
    }
    buf_consume(&h1->in, h1->parse.consumed);
    bool switched = head->status == 101 && h1->upgrade;
    if (head->status < 200 && !switched)
        return take_informational(h1, head);
    h1->head_seen = true;
    h1->keep_alive = head->keep_alive && head->framing != FRAMING_CLOSE && head->framing != FRAMING_TUNNEL;
    h1->upgrade = switched;
    body_reader_init(&h1->body, head->framing, head->content_length);
    call->head_us = connection_needs(&h1->base)->loop->now_us;
    call->events->on_head(call, head);
    return h1->link.call == call;
}

static bool take_body(struct h1_link *h1)
{
    struct upstream_call *call = h1->link.call;
    struct headers trailers = {0};
    struct str data = buf_str(&h1->in), span;
    size_t consumed = 0;
    switch (body_read(&h1->body, data.p, data.n, &consumed, &span, &trailers, call->arena)) {
    case BODY_MORE: buf_consume(&h1->in, consumed); return false;
    case BODY_BAD: fail(h1, END_UPSTREAM_BAD_RESPONSE); return false;
    case BODY_DONE:
        buf_consume(&h1->in, consumed);
        end_response(h1, trailers.count ? &trailers : NULL);
        return false;
    case BODY_SPAN: break;
    }
    h1->paused = call->events->on_body(call, span) == FLOW_FULL;
    if (h1->link.call != call)
        return false;
    buf_consume(&h1->in, consumed);
    // The end may need no further byte (Content-Length reached): ask even when the buffer is empty.
    return !h1->paused;
}

static void take(struct h1_link *h1)
{
    struct upstream_call *call = h1->link.call;
    for (bool more = true; more && h1->link.call == call && !h1->response_ended;)
        more = h1->head_seen ? take_body(h1) : buf_len(&h1->in) ? take_head(h1) : false;
}

static void end_of_stream(struct h1_link *h1, bool reset)
{
    // A failed send has taken the socket's error: this end may be a reset, so it completes nothing.
    reset = reset || h1->base.out.broken;
    if (h1->head_seen && (h1->body.framing == FRAMING_CLOSE || h1->body.framing == FRAMING_TUNNEL) && !reset)
        end_response(h1, NULL);
    else
        fail(h1, h1->head_seen ? END_UPSTREAM_TRUNCATED : END_UPSTREAM_RESET);
}

static bool is_room_full(const struct h1_link *h1)
{
    const struct client_room *room = h1->link.call->room;
    return room && unlikely(client_room_is_full(room));
}

static size_t read_size(const struct h1_link *h1)
{
    size_t space = buf_space(&h1->in);
    return space > CLIENT_ROOM_SIP_BYTES && is_room_full(h1) ? CLIENT_ROOM_SIP_BYTES : space;
}

// False: nothing more to read now, or the call is over.
static bool receive(struct h1_link *h1)
{
    struct upstream_worker_needs *needs = connection_needs(&h1->base);
    struct upstream_call *call = h1->link.call;
    if (!buf_reserve(&h1->in, needs->buffers, 1, UPSTREAM_HEAD_BYTES + BUF_BLOCK)) {
        fail(h1, END_OVERLOADED); // memory is out: a head that is too long was refused by the parser
        return false;
    }
    ssize_t n = conn_recv(&h1->base.conn, h1->in.base + h1->in.end, read_size(h1));
    if (n == CONN_AGAIN)
        return false;
    if (n <= 0) {
        end_of_stream(h1, n < 0);
        return false;
    }
    call->response_begun = true;
    h1->in.end += (uint32_t)n;
    take(h1);
    return h1->link.call == call;
}

// Reads and hands over as much as there is, until the client side is full.
static void read_more(struct h1_link *h1)
{
    struct upstream_call *call = h1->link.call;
    struct buf_pool *buffers = buffers_of(h1);
    while (h1->base.conn.readable && !h1->paused && !h1->response_ended)
        if (!receive(h1))
            break;
    if (h1->base.conn.closed || h1->link.call != call)
        return;
    if (!buf_len(&h1->in))
        buf_release(&h1->in, buffers);
    else if (h1->paused && is_room_full(h1))
        buf_fit(&h1->in, buffers);
    call->events->on_flush(call);
}

// The output broke: what the upstream has said before is read, then the call fails.
static void read_last(struct h1_link *h1)
{
    struct upstream_call *call = h1->link.call;
    if (!h1->base.out.broken || !call || h1->paused)
        return;
    read_more(h1);
    // The request cannot be completed, and no answer to what was sent of it is there.
    if (h1->link.call == call && h1->base.out.broken && !h1->paused && !h1->base.conn.readable)
        fail(h1, h1->head_seen ? END_UPSTREAM_TRUNCATED : END_UPSTREAM_RESET);
}

static void h1_resume(struct upstream_link *link)
{
    struct h1_link *h1 = of_link(link);
    struct upstream_call *call = link->call;
    if (!h1->paused)
        return;
    h1->paused = false;
    take(h1);
    if (h1->link.call != call || h1->base.conn.closed)
        return;
    if (!buf_len(&h1->in)) // it may have been made to fit: read on into a whole block
        buf_release(&h1->in, buffers_of(h1));
    read_more(h1);
}

// ---- writing ----

static void after_write(struct h1_link *h1)
{
    if (h1->base.out.broken) { // reported from the loop, since the caller is in the middle of something
        h1->base.conn.readable = true; // what the upstream had to say may still be there
        loop_timer_set(h1->base.conn.loop, &h1->base.timer, 0);
    } else if (h1->shutdown_wanted && out_empty(&h1->base.out)) {
        h1->shutdown_wanted = false;
        conn_shutdown_send(&h1->base.conn);
    }
}

// The kernel takes more.
static void write_more(struct h1_link *h1)
{
    out_flush(&h1->base.out, &h1->base.conn, buffers_of(h1));
    after_write(h1);
    if (out_drained(&h1->base.out) && h1->link.call)
        h1->link.call->events->on_drain(h1->link.call);
}

static bool h1_head(struct upstream_link *link, const struct request_head *head, struct str target,
                    enum framing framing, bool upgrade)
{
    struct h1_link *h1 = of_link(link);
    if (!out_reserve(&h1->base.out, buffers_of(h1), h1_request_size(head, target)))
        return false;
    h1_write_request(&h1->base.out.buf, head, target, framing, upgrade);
    h1->chunked_request = framing == FRAMING_CHUNKED;
    h1->upgrade = upgrade;
    return true;
}

static enum flow h1_body(struct upstream_link *link, struct str span)
{
    struct h1_link *h1 = of_link(link);
    struct buf_pool *buffers = buffers_of(h1);
    struct out *out = &h1->base.out;
    if (h1->chunked_request) {
        if (!out_reserve(out, buffers, CHUNK_HEAD_MAX))
            return FLOW_MORE;
        out->buf.end += (uint32_t)h1_write_chunk_head(span.n, out->buf.base + out->buf.end);
    }
    out_span(out, &h1->base.conn, buffers, span);
    if (h1->chunked_request)
        out_span(out, &h1->base.conn, buffers, STR("\r\n"));
    h1->request_sent = true;
    after_write(h1);
    return out_flow(out);
}

static void h1_end(struct upstream_link *link, const struct headers *trailers)
{
    struct h1_link *h1 = of_link(link);
    struct out *out = &h1->base.out;
    if (h1->upgrade && h1->head_seen) { // the tunnel's half-close
        h1->shutdown_wanted = true;
        after_write(h1);
    } else if (h1->chunked_request) {
        if (out_reserve(out, buffers_of(h1), h1_trailers_size(trailers)))
            h1_write_last_chunk(&out->buf, trailers);
        else
            after_write(h1); // memory is out: the output is broken
    }
    h1->request_ended = true;
}

static void h1_flush(struct upstream_link *link)
{
    struct h1_link *h1 = of_link(link);
    h1->request_sent = true;
    out_flush(&h1->base.out, &h1->base.conn, buffers_of(h1));
    after_write(h1);
}

static bool h1_is_unsent(const struct upstream_link *link)
{
    return !of_link(link)->request_sent;
}

// ---- the connection ----

// Back to the pool, or closed when it may not serve again.
static bool h1_give(struct upstream_link *link)
{
    struct h1_link *h1 = of_link(link);
    struct upstream_conn *c = &h1->base;
    if (c->conn.readable && conn_is_stale(&c->conn)) // the buffer was read full: is there more?
        h1->keep_alive = false;
    bool reusable = h1->keep_alive && h1->request_ended && h1->response_ended && !buf_len(&h1->in) &&
                    out_empty(&c->out) && !c->out.broken && !c->conn.peer_closed && connection_is_wanted(c) &&
                    !h1->upgrade;
    if (!reusable) {
        connection_close(c);
        return true;
    }
    buf_release(&h1->in, buffers_of(h1));
    c->room = 1;
    connection_become_idle(c);
    return true;
}

static const struct link_verbs h1_verbs = {
    .head = h1_head,
    .body = h1_body,
    .end = h1_end,
    .flush = h1_flush,
    .resume = h1_resume,
    .is_unsent = h1_is_unsent,
    .give = h1_give,
};

static struct upstream_conn *h1_new(void)
{
    struct h1_link *h1 = calloc(1, sizeof *h1);
    if (!h1)
        return NULL;
    h1->link.verbs = &h1_verbs;
    h1->base.room = 1;
    return &h1->base;
}

static void h1_free(struct upstream_conn *c)
{
    free(of_base(c));
}

static struct upstream_link *h1_lend(struct upstream_conn *c, struct upstream_call *call)
{
    (void)call;
    struct h1_link *h1 = of_base(c);
    h1->parse = (struct h1_parse){0};
    h1->head = NULL;
    h1->informational = 0;
    h1->chunked_request = h1->upgrade = false;
    h1->request_sent = h1->request_ended = h1->head_seen = h1->response_ended = false;
    h1->keep_alive = h1->paused = h1->shutdown_wanted = c->out.full = false;
    c->room = 0;
    return &h1->link;
}

static bool h1_is_fit(struct upstream_conn *c)
{
    return !conn_is_stale(&c->conn);
}

static void h1_on_ready(struct upstream_conn *c)
{
    struct h1_link *h1 = of_base(c);
    if (c->state != UPSTREAM_LENT) {
        char byte; // TLS speaks of itself between messages; a closed end or a word unasked (RFC 9112 9.2)
                   // ends it
        if (c->conn.peer_closed || (c->conn.readable && conn_recv(&c->conn, &byte, 1) != CONN_AGAIN))
            connection_close(c);
        return;
    }
    if (c->conn.writable && (!out_empty(&c->out) || c->out.full))
        write_more(h1);
    if (!c->conn.closed && c->conn.readable && h1->link.call)
        read_more(h1);
}

static void h1_on_timer(struct upstream_conn *c)
{
    if (c->state == UPSTREAM_IDLE)
        connection_close(c);
    else
        read_last(of_base(c));
}

static void h1_on_close(struct upstream_conn *c)
{
    struct h1_link *h1 = of_base(c);
    buf_release(&h1->in, buffers_of(h1));
}

const struct protocol h1_protocol = {
    .name = "http/1.1",
    .calls = 1,
    .new = h1_new,
    .free = h1_free,
    .lend = h1_lend,
    .is_fit = h1_is_fit,
    .on_ready = h1_on_ready,
    .on_timer = h1_on_timer,
    .on_close = h1_on_close,
};
