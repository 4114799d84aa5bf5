// HTTP/1.1 towards an upstream: the request is written as it comes, the response is read as strictly as a
// request.
#include "http/h1_parse.h"
#include "http/h1_write.h"
#include "upstream/link.h"

void link_reset_message(struct upstream_link *link)
{
    link->parse = (struct h1_parse){0};
    link->head = NULL;
    link->informational = 0;
    link->chunked_request = link->upgrade = false;
    link->request_sent = link->request_ended = link->head_seen = link->response_ended = false;
    link->keep_alive = link->paused = link->shutdown_wanted = link->out.full = false;
}

static void fail(struct upstream_link *link, enum end_cause cause)
{
    struct upstream_call *call = link->call;
    link->keep_alive = false;
    call->events->on_fail(call, cause); // finishes the call
}

// ---- reading ----

static void end_response(struct upstream_link *link, struct headers *trailers)
{
    struct upstream_call *call = link->call;
    link->response_ended = true;
    if (buf_len(&link->in))
        link->keep_alive = false; // more than was announced: whose it is, nobody can say
    call->events->on_end(call, trailers);
}

// Each of these returns true when more can be done at once with what is in the buffer.

static bool take_informational(struct upstream_link *link, struct response_head *head)
{
    if (head->status == 101 || ++link->informational > INFORMATIONAL_MAX) {
        fail(link, END_UPSTREAM_BAD_RESPONSE);
        return false;
    }
    link->parse = (struct h1_parse){0};
    link->head = NULL;
    struct upstream_call *call = link->call;
    call->events->on_informational(call, head);
    return link->call == call;
}

static bool take_head(struct upstream_link *link)
{
    static const struct h1_limits limits = {.head_bytes = UPSTREAM_HEAD_BYTES, .headers = UPSTREAM_HEADERS};
    struct upstream_call *call = link->call;
    if (!link->head) // once for each head, however small the pieces it comes in
        link->head = arena_new(call->arena, struct response_head);
    struct response_head *head = link->head;
    struct str data = buf_str(&link->in);
    switch (h1_parse_response(&link->parse, data.p, data.n, &limits, call->method, call->arena, head)) {
    case H1_MORE: return false;
    case H1_FAULT: fail(link, END_UPSTREAM_BAD_RESPONSE); return false;
    case H1_DONE: break;
    }
    buf_consume(&link->in, link->parse.consumed);
    bool switched = head->status == 101 && link->upgrade;
    if (head->status < 200 && !switched)
        return take_informational(link, head);
    link->head_seen = true;
    link->keep_alive = head->keep_alive && head->framing != FRAMING_CLOSE && head->framing != FRAMING_TUNNEL;
    link->upgrade = switched;
    body_reader_init(&link->body, head->framing, head->content_length);
    call->head_us = link_needs(link)->loop->now_us;
    call->events->on_head(call, head);
    return link->call == call;
}

static bool take_body(struct upstream_link *link)
{
    struct upstream_call *call = link->call;
    struct headers trailers = {0};
    struct str data = buf_str(&link->in), span;
    size_t consumed = 0;
    switch (body_read(&link->body, data.p, data.n, &consumed, &span, &trailers, call->arena)) {
    case BODY_MORE: buf_consume(&link->in, consumed); return false;
    case BODY_BAD: fail(link, END_UPSTREAM_BAD_RESPONSE); return false;
    case BODY_DONE:
        buf_consume(&link->in, consumed);
        end_response(link, trailers.count ? &trailers : NULL);
        return false;
    case BODY_SPAN: break;
    }
    link->paused = call->events->on_body(call, span) == FLOW_FULL;
    if (link->call != call)
        return false;
    buf_consume(&link->in, consumed);
    // The end may need no further byte (Content-Length reached): ask even when the buffer is empty.
    return !link->paused;
}

static void take(struct upstream_link *link)
{
    struct upstream_call *call = link->call;
    for (bool more = true; more && link->call == call && !link->response_ended;)
        more = link->head_seen ? take_body(link) : buf_len(&link->in) ? take_head(link) : false;
}

static void end_of_stream(struct upstream_link *link, bool reset)
{
    // A failed send has taken the socket's error: this end may be a reset, so it completes nothing.
    reset = reset || link->out.broken;
    if (link->head_seen && (link->body.framing == FRAMING_CLOSE || link->body.framing == FRAMING_TUNNEL) &&
        !reset)
        end_response(link, NULL);
    else
        fail(link, link->head_seen ? END_UPSTREAM_TRUNCATED : END_UPSTREAM_RESET);
}

// False: nothing more to read now, or the call is over.
static bool receive(struct upstream_link *link)
{
    struct upstream_worker_needs *needs = link_needs(link);
    struct upstream_call *call = link->call;
    if (!buf_reserve(&link->in, needs->buffers, 1, UPSTREAM_HEAD_BYTES + BUF_BLOCK)) {
        fail(link, END_OVERLOADED); // memory is out: a head that is too long was refused by the parser
        return false;
    }
    ssize_t n = conn_recv(&link->conn, link->in.base + link->in.end, buf_space(&link->in));
    if (n == CONN_AGAIN)
        return false;
    if (n <= 0) {
        end_of_stream(link, n < 0);
        return false;
    }
    call->response_begun = true;
    link->in.end += (uint32_t)n;
    take(link);
    return link->call == call;
}

void link_read(struct upstream_link *link)
{
    struct upstream_call *call = link->call;
    struct buf_pool *buffers = link_needs(link)->buffers;
    while (link->conn.readable && !link->paused && !link->response_ended)
        if (!receive(link))
            break;
    if (link->conn.closed || link->call != call)
        return;
    if (!buf_len(&link->in))
        buf_release(&link->in, buffers);
    call->events->on_flush(call);
}

void link_read_last(struct upstream_link *link)
{
    struct upstream_call *call = link->call;
    if (!link->out.broken || !call || link->paused)
        return;
    link_read(link);
    // The request cannot be completed, and no answer to what was sent of it is there.
    if (link->call == call && link->out.broken && !link->paused && !link->conn.readable)
        fail(link, link->head_seen ? END_UPSTREAM_TRUNCATED : END_UPSTREAM_RESET);
}

void upstream_call_resume(struct upstream_call *call)
{
    struct upstream_link *link = call->link;
    if (!link || !link->paused)
        return;
    link->paused = false;
    take(link);
    if (link->call == call && !link->conn.closed)
        link_read(link);
}

// ---- writing ----

static void after_write(struct upstream_link *link)
{
    if (link->out.broken) {         // reported from the loop, since the caller is in the middle of something
        link->conn.readable = true; // what the upstream had to say may still be there
        loop_timer_set(link->conn.loop, &link->timer, 0);
    } else if (link->shutdown_wanted && out_empty(&link->out)) {
        link->shutdown_wanted = false;
        conn_shutdown_send(&link->conn);
    }
}

void link_write(struct upstream_link *link)
{
    out_flush(&link->out, &link->conn, link_needs(link)->buffers);
    after_write(link);
    if (out_drained(&link->out) && link->call)
        link->call->events->on_drain(link->call);
}

bool upstream_call_head(struct upstream_call *call, const struct request_head *head, struct str target,
                        enum framing framing, bool upgrade)
{
    struct upstream_link *link = call->link;
    if (!out_reserve(&link->out, link_needs(link)->buffers, h1_request_size(head, target)))
        return false;
    h1_write_request(&link->out.buf, head, target, framing, upgrade);
    link->chunked_request = framing == FRAMING_CHUNKED;
    link->upgrade = upgrade;
    return true;
}

enum flow upstream_call_body(struct upstream_call *call, struct str span)
{
    struct upstream_link *link = call->link;
    struct buf_pool *buffers = link_needs(link)->buffers;
    struct out *out = &link->out;
    if (link->chunked_request) {
        if (!out_reserve(out, buffers, CHUNK_HEAD_MAX))
            return FLOW_MORE;
        out->buf.end += (uint32_t)h1_write_chunk_head(span.n, out->buf.base + out->buf.end);
    }
    out_span(out, &link->conn, buffers, span);
    if (link->chunked_request)
        out_span(out, &link->conn, buffers, STR("\r\n"));
    link->request_sent = true;
    after_write(link);
    return out_flow(out);
}

void upstream_call_end(struct upstream_call *call, const struct headers *trailers)
{
    struct upstream_link *link = call->link;
    struct out *out = &link->out;
    if (link->upgrade && link->head_seen) { // the tunnel's half-close
        link->shutdown_wanted = true;
        after_write(link);
    } else if (link->chunked_request) {
        if (out_reserve(out, link_needs(link)->buffers, h1_trailers_size(trailers)))
            h1_write_last_chunk(&out->buf, trailers);
        else
            after_write(link); // memory is out: the output is broken
    }
    link->request_ended = true;
}

void upstream_call_flush(struct upstream_call *call)
{
    struct upstream_link *link = call->link;
    link->request_sent = true;
    out_flush(&link->out, &link->conn, link_needs(link)->buffers);
    after_write(link);
}

bool upstream_call_unsent(const struct upstream_call *call)
{
    return !call->link || !call->link->request_sent;
}
