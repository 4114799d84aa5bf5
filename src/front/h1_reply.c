// The reply verbs over HTTP/1: how an exchange's response reaches the client.
#include "front/client.h"

#include "http/h1_write.h"

#include <unistd.h>

static struct h1_client *client_of(struct exchange *x)
{
    return x->client_context;
}

static struct buf_pool *buffers_of(struct h1_client *c)
{
    return &c->front->worker->buffers;
}

// After anything that may send: what did not leave is reported from the loop, since the caller is in the
// middle of something.
static void after_send(struct h1_client *c)
{
    if (c->out.broken)
        loop_timer_set(c->conn.loop, &c->timer, 0);
    else if (c->out.blocked)
        h1_arm(c);
}

static bool body_is_over(const struct h1_client *c, const struct exchange *x)
{
    return c->body.done || x->body == BODY_ENDED;
}

static bool short_enough_to_drain(const struct h1_client *c)
{
    return c->body.framing == FRAMING_LENGTH && c->body.remaining <= DRAIN_BODY_BYTES;
}

static enum framing reply_framing(struct h1_client *c, const struct exchange *x,
                                  const struct response_head *head)
{
    if (head->status == 101)
        return FRAMING_TUNNEL;
    bool no_body = x->request.method == METHOD_HEAD || head->status == 204 || head->status == 304;
    if (no_body)
        return head->has_length && head->status != 204 ? FRAMING_LENGTH : FRAMING_NONE;
    if (head->framing == FRAMING_LENGTH || head->framing == FRAMING_NONE)
        return FRAMING_LENGTH;
    if (x->request.minor >= 1)
        return FRAMING_CHUNKED;
    c->close_after = true; // HTTP/1.0 knows no other end
    return FRAMING_CLOSE;
}

static struct str connection_option(const struct h1_client *c, const struct exchange *x)
{
    if (c->tunnel)
        return STR("upgrade");
    if (c->close_after)
        return STR("close");
    return x->request.minor == 0 ? STR("keep-alive") : STR_NULL;
}

static bool send_head(struct exchange *x, struct response_head *head)
{
    struct h1_client *c = client_of(x);
    enum framing framing = reply_framing(c, x, head);
    c->tunnel = framing == FRAMING_TUNNEL;
    c->chunked_reply = framing == FRAMING_CHUNKED;
    if (c->continue_due && !body_is_over(c, x))
        c->close_after = true; // without its 100 the client may send the body or not
    c->continue_due = false;
    // While the body flows on to an upstream nobody knows; else an unread body costs the connection.
    if (c->front->draining || (!body_is_over(c, x) && !x->call.link && !short_enough_to_drain(c)))
        c->close_after = true;
    if (c->tunnel) {
        headers_add(&head->headers, &x->arena, STR("Upgrade"), x->request.upgrade);
        body_reader_init(&c->body, FRAMING_TUNNEL, 0);
    }
    if (!out_reserve(&c->out, buffers_of(c), h1_response_size(head)))
        return c->out.broken && c->conn.hung_up; // a client that has gone is no want of memory
    h1_write_response(&c->out.buf, head, framing, connection_option(c, x));
    return true;
}

static void send_informational(struct exchange *x, struct response_head *head)
{
    struct h1_client *c = client_of(x);
    if (x->request.minor == 0 || !out_reserve(&c->out, buffers_of(c), h1_response_size(head)))
        return;
    h1_write_response(&c->out.buf, head, FRAMING_NONE, STR_NULL);
    out_flush(&c->out, &c->conn, buffers_of(c));
    after_send(c);
}

static enum flow send_body(struct exchange *x, struct str span)
{
    struct h1_client *c = client_of(x);
    struct buf_pool *buffers = buffers_of(c);
    if (c->chunked_reply) {
        if (!out_reserve(&c->out, buffers, CHUNK_HEAD_MAX))
            return FLOW_MORE;
        c->out.buf.end += (uint32_t)h1_write_chunk_head(span.n, c->out.buf.base + c->out.buf.end);
    }
    out_span(&c->out, &c->conn, buffers, span);
    if (c->chunked_reply)
        out_span(&c->out, &c->conn, buffers, STR("\r\n"));
    after_send(c);
    return out_flow(&c->out);
}

static void send_end(struct exchange *x, const struct headers *trailers)
{
    struct h1_client *c = client_of(x);
    if (c->chunked_reply && out_reserve(&c->out, buffers_of(c), h1_trailers_size(trailers)))
        h1_write_last_chunk(&c->out.buf, trailers);
    out_flush(&c->out, &c->conn, buffers_of(c));
    after_send(c);
    if (c->tunnel)
        h1_shutdown(c);
}

static void flush(struct exchange *x)
{
    struct h1_client *c = client_of(x);
    out_flush(&c->out, &c->conn, buffers_of(c));
    after_send(c);
}

static void resume(struct exchange *x)
{
    struct h1_client *c = client_of(x);
    if (c->continue_due) {
        c->continue_due = false;
        if (out_reserve(&c->out, buffers_of(c), sizeof "HTTP/1.1 100 Continue\r\n\r\n")) {
            buf_put(&c->out.buf, STR("HTTP/1.1 100 Continue\r\n\r\n"));
            flush(x);
        }
    }
    c->body_wanted = true;
    c->since_us = c->conn.loop->now_us;
    h1_run(c);
}

static void abort_reply(struct exchange *x)
{
    client_of(x)->cut = true;
}

static void linger(struct h1_client *c)
{
    if (c->out.broken || c->conn.hung_up) {
        h1_close(c);
        return;
    }
    h1_shutdown(c);
    c->dropped_bytes = 0;
    h1_set_state(c, CLIENT_LINGER);
    h1_arm(c);
}

static void finished(void *client_context)
{
    struct h1_client *c = client_context;
    bool over = c->body.done || c->parse.fault;
    c->x = NULL;
    c->body_wanted = false;
    if (c->cut || c->out.broken) {
        h1_close(c);
        return;
    }
    if (c->tunnel || c->close_after || !(over || short_enough_to_drain(c))) {
        linger(c);
    } else if (!over) {
        h1_set_state(c, CLIENT_DRAIN);
        h1_arm(c);
    } else {
        h1_set_state(c, CLIENT_IDLE);
        h1_arm(c);
    }
    h1_run(c);
}

const struct client_verbs h1_verbs = {
    .protocol = "HTTP/1.1",
    .send_head = send_head,
    .send_informational = send_informational,
    .send_body = send_body,
    .send_end = send_end,
    .flush = flush,
    .resume = resume,
    .abort = abort_reply,
    .finished = finished,
};
