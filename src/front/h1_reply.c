// The reply verbs over HTTP/1: how an exchange's response reaches the client.
#include "front/client.h"

#include "http/h1_write.h"

static struct client *client_of(struct exchange *x)
{
    return x->client_context;
}

// After anything that may send: what did not leave is reported from the loop, since the caller is in the
// middle of something.
static void after_send(struct client *c)
{
    if (c->out.broken)
        loop_timer_set(c->conn.loop, &c->timer, 0);
    else if (c->out.blocked)
        h1_arm(c);
}

static bool body_is_over(const struct client *c, const struct exchange *x)
{
    return c->h1.body.done || x->body == BODY_ENDED;
}

static bool short_enough_to_drain(const struct client *c)
{
    return c->h1.body.framing == FRAMING_LENGTH && c->h1.body.remaining <= DRAIN_BODY_BYTES;
}

static enum framing reply_framing(struct client *c, const struct exchange *x,
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

static struct str connection_option(const struct client *c, const struct exchange *x)
{
    if (c->h1.tunnel)
        return STR("upgrade");
    if (c->close_after)
        return STR("close");
    return x->request.minor == 0 ? STR("keep-alive") : STR_NULL;
}

static bool send_head(struct exchange *x, struct response_head *head)
{
    struct client *c = client_of(x);
    enum framing framing = reply_framing(c, x, head);
    c->h1.tunnel = framing == FRAMING_TUNNEL;
    c->h1.chunked_reply = framing == FRAMING_CHUNKED;
    if (c->h1.continue_due && !body_is_over(c, x))
        c->close_after = true; // without its 100 the client may send the body or not
    c->h1.continue_due = false;
    // While the body flows on to an upstream nobody knows; else an unread body costs the connection.
    if (c->front->draining || (!body_is_over(c, x) && !x->call->link && !short_enough_to_drain(c)))
        c->close_after = true;
    if (c->h1.tunnel) {
        headers_add(&head->headers, &x->arena, STR("Upgrade"), x->request.upgrade);
        body_reader_init(&c->h1.body, FRAMING_TUNNEL, 0);
    }
    if (!out_reserve(&c->out, client_buffers(c), h1_response_size(head)))
        return c->out.broken && c->conn.hung_up; // a client that has gone is no want of memory
    h1_write_response(&c->out.buf, head, framing, connection_option(c, x));
    return true;
}

static void send_informational(struct exchange *x, struct response_head *head)
{
    struct client *c = client_of(x);
    if (x->request.minor == 0 || !out_reserve(&c->out, client_buffers(c), h1_response_size(head)))
        return;
    h1_write_response(&c->out.buf, head, FRAMING_NONE, STR_NULL);
    out_flush(&c->out, &c->conn, client_buffers(c));
    after_send(c);
}

static enum flow send_body(struct exchange *x, struct str span)
{
    struct client *c = client_of(x);
    struct buf_pool *buffers = client_buffers(c);
    if (c->h1.chunked_reply) {
        if (!out_reserve(&c->out, buffers, CHUNK_HEAD_MAX))
            return FLOW_MORE;
        c->out.buf.end += (uint32_t)h1_write_chunk_head(span.n, c->out.buf.base + c->out.buf.end);
    }
    out_span(&c->out, &c->conn, buffers, span);
    if (c->h1.chunked_reply)
        out_span(&c->out, &c->conn, buffers, STR("\r\n"));
    after_send(c);
    return out_flow(&c->out);
}

static void send_end(struct exchange *x, const struct headers *trailers)
{
    struct client *c = client_of(x);
    if (c->h1.chunked_reply && out_reserve(&c->out, client_buffers(c), h1_trailers_size(trailers)))
        h1_write_last_chunk(&c->out.buf, trailers);
    out_flush(&c->out, &c->conn, client_buffers(c));
    after_send(c);
    if (c->h1.tunnel)
        client_shutdown(c);
}

static bool send_whole(struct exchange *x, struct response_head *head, struct lent body,
                       const struct headers *trailers)
{
    struct client *c = client_of(x);
    bool sent = send_head(x, head);
    // What is small is quicker to copy, and behind chunks there is more to say.
    if (sent && body.lender && body.span.n > OUT_GATHER && !c->h1.chunked_reply) {
        out_lend(&c->out, body);
    } else {
        if (sent && body.span.n)
            send_body(x, body.span);
        lent_give_back(&body);
    }
    if (sent)
        send_end(x, trailers);
    return sent;
}

static void flush(struct exchange *x)
{
    struct client *c = client_of(x);
    out_flush(&c->out, &c->conn, client_buffers(c));
    after_send(c);
}

static void resume(struct exchange *x)
{
    struct client *c = client_of(x);
    if (c->h1.continue_due) {
        c->h1.continue_due = false;
        if (out_reserve(&c->out, client_buffers(c), sizeof "HTTP/1.1 100 Continue\r\n\r\n")) {
            buf_put(&c->out.buf, STR("HTTP/1.1 100 Continue\r\n\r\n"));
            flush(x);
        }
    }
    c->h1.body_wanted = true;
    c->since_us = c->conn.loop->now_us;
    h1_run(c);
}

static void abort_reply(struct exchange *x)
{
    client_of(x)->cut = true;
}

static void linger(struct client *c)
{
    if (c->out.broken || c->conn.hung_up) {
        client_close(c);
        return;
    }
    client_shutdown(c);
    c->h1.dropped_bytes = 0;
    h1_set_state(c, CLIENT_LINGER);
    h1_arm(c);
}

static void finished(void *client_context)
{
    struct client *c = client_context;
    bool over = c->h1.body.done || c->h1.parse.fault;
    c->h1.x = NULL;
    c->h1.body_wanted = false;
    if (c->cut || c->out.broken) {
        client_close(c);
        return;
    }
    if (c->h1.tunnel || c->close_after || !(over || short_enough_to_drain(c))) {
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
    .send_whole = send_whole,
    .flush = flush,
    .resume = resume,
    .abort = abort_reply,
    .finished = finished,
};
