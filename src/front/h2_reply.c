// The reply verbs over HTTP/2: how an exchange's response becomes frames.
#include "front/h2.h"

#include <stdlib.h>

// Trailers that wait for DATA which waits for the client, when their exchange is over: a copy.
struct h2_tail {
    size_t count;
    nghttp2_nv nv[];
};

static struct h2_stream *stream_of(struct exchange *x)
{
    return x->client_context;
}

static struct buf_pool *buffers_of(const struct h2_stream *s)
{
    return client_buffers(s->h2->client);
}

static uint64_t now_us(const struct h2_stream *s)
{
    return s->h2->client->conn.loop->now_us;
}

// ---- out of nghttp2 ----

// The socket takes no more, and enough waits for it.
static bool is_congested(const struct h2_client *h2)
{
    const struct out *out = &h2->client->out;
    return out->blocked && buf_len(&out->buf) >= H2_OUT_BYTES;
}

static void put(struct h2_client *h2, struct str span)
{
    struct client *c = h2->client;
    out_span(&c->out, &c->conn, client_buffers(c), span);
}

void h2_serialise(struct h2_client *h2)
{
    const uint8_t *frame;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(h2->session, &frame)) > 0)
        put(h2, (struct str){(const char *)frame, (size_t)n});
    if (n < 0 && !h2->failure)
        h2->failure = NGHTTP2_INTERNAL_ERROR;
}

static void submit_failed(struct h2_stream *s, int error)
{
    if (nghttp2_is_fatal(error) && !s->h2->failure)
        s->h2->failure = NGHTTP2_INTERNAL_ERROR;
}

// ---- what waits for the client ----

static void release_pending(struct h2_stream *s)
{
    s->h2->room.held_bytes -= s->pending.cap;
    buf_release(&s->pending, buffers_of(s));
}

// A whole block is quicker to have, but most of it may stay empty.
static bool reserve_pending(struct h2_stream *s, size_t n)
{
    if (!s->pending.base && unlikely(client_room_is_full(&s->h2->room)) && n < BUF_BLOCK)
        return buf_acquire_exactly(&s->pending, n);
    return buf_reserve(&s->pending, buffers_of(s), n, OUT_MAX);
}

static bool keep(struct h2_stream *s, struct str span)
{
    uint32_t before = s->pending.cap;
    if (!reserve_pending(s, span.n))
        return false;
    s->h2->room.held_bytes += s->pending.cap - before;
    buf_put(&s->pending, span);
    return true;
}

// ---- DATA ----

static size_t unsent(const struct h2_stream *s)
{
    return buf_len(&s->pending) + s->lent.span.n;
}

size_t h2_waiting(const struct h2_stream *s)
{
    return unsent(s) - (s->kept_back && unsent(s));
}

static void stream_late(struct h2_stream *s)
{
    if (list_empty(&s->late))
        list_push_back(&s->h2->late_streams, &s->late);
    h2_wake(s->h2);
}

void h2_resume_data(struct h2_client *h2)
{
    struct list *node;
    while (!is_congested(h2) && (node = list_pop_front(&h2->late_streams))) {
        struct h2_stream *s = container_of(node, struct h2_stream, late);
        // Refused when it is not waiting for us but for the client's window: fine.
        submit_failed(s, nghttp2_session_resume_data(h2->session, s->id));
    }
}

static bool uses_up_window(nghttp2_session *session, int32_t id, size_t n)
{
    return nghttp2_session_get_remote_window_size(session) <= (int32_t)n ||
           nghttp2_session_get_stream_remote_window_size(session, id) <= (int32_t)n;
}

// nghttp2 asks how much of the body the next frame may take. With a window of zero it sends no DATA at all,
// not even an empty frame to end the stream, and a client that has all of the body need not open it again. So
// while the end is not known, the last byte that the window allows is kept for it.
static ssize_t read_data(nghttp2_session *session, int32_t id, uint8_t *buf, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *context)
{
    (void)buf;
    struct h2_client *h2 = context;
    struct h2_stream *s = source->ptr;
    size_t all = unsent(s), n = all < room ? all : room;
    s->kept_back = !s->end_due && n && n == all && uses_up_window(session, id, n);
    n -= s->kept_back;
    if (s->reset || (!n && !s->end_due))
        return NGHTTP2_ERR_DEFERRED;
    if (is_congested(h2)) {
        stream_late(s);
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n < all || !s->end_due)
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    s->data_done = true;
    if (s->tail_due)
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    else
        s->end_sent = true;
    return (ssize_t)n;
}

static struct str take_unsent(struct h2_stream *s, size_t n)
{
    struct str pending = buf_str(&s->pending), *from = pending.n ? &pending : &s->lent.span;
    struct str piece = {from->p, from->n < n ? from->n : n};
    if (from == &s->lent.span)
        s->lent.span = str_skip(s->lent.span, piece.n);
    else
        s->pending.start += (uint32_t)piece.n; // the bytes stay where they are until they are copied
    return piece;
}

int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                 nghttp2_data_source *source, void *context)
{
    (void)session, (void)frame;
    enum { FRAME_HEAD = 9 };
    struct h2_client *h2 = context;
    struct h2_stream *s = source->ptr;
    if (n > unsent(s))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; // it was reset since
    h2_guard_sent(&h2->guard, n);
    put(h2, (struct str){(const char *)head, FRAME_HEAD});
    while (n) {
        struct str piece = take_unsent(s, n);
        put(h2, piece);
        n -= piece.n;
    }
    if (!buf_len(&s->pending))
        release_pending(s);
    if (!s->lent.span.n)
        lent_give_back(&s->lent);
    s->stalled_us = h2_waiting(s) || (s->end_due && !s->data_done) ? now_us(s) : 0;
    if ((s->full && !h2_waiting(s)) || (s->tail && s->data_done) || (s->end_sent && !s->ended))
        h2_stream_due(s);
    return 0;
}

// What could not leave yet has so long to do so.
static void watch_stall(struct h2_stream *s)
{
    if (s->stalled_us)
        return;
    s->stalled_us = now_us(s);
    h2_arm_in(s->h2, client_settings(s->h2->client)->timeouts.write_us);
}

// ---- the end of the response ----

void h2_drop_reply(struct h2_stream *s)
{
    release_pending(s);
    lent_give_back(&s->lent);
    s->stalled_us = 0;
    free(s->tail);
    s->tail = NULL;
}

static struct h2_tail *copy_tail(const nghttp2_nv *nv, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += nv[i].namelen + nv[i].valuelen;
    struct h2_tail *tail = malloc(sizeof *tail + count * sizeof *nv + bytes);
    if (!tail)
        return NULL;
    uint8_t *text = (uint8_t *)&tail->nv[count];
    tail->count = count;
    for (size_t i = 0; i < count; i++) {
        tail->nv[i] = (nghttp2_nv){text, text + nv[i].namelen, nv[i].namelen, nv[i].valuelen, 0};
        memcpy(text, nv[i].name, nv[i].namelen);
        memcpy(text + nv[i].namelen, nv[i].value, nv[i].valuelen);
        text += nv[i].namelen + nv[i].valuelen;
    }
    return tail;
}

static void submit_tail(struct h2_stream *s, const nghttp2_nv *nv, size_t count)
{
    s->end_sent = true;
    s->stalled_us = 0;
    submit_failed(s, nghttp2_submit_trailer(s->h2->session, s->id, nv, count));
    h2_wake(s->h2);
}

void h2_send_tail(struct h2_stream *s)
{
    submit_tail(s, s->tail->nv, s->tail->count); // copied there
    free(s->tail);
    s->tail = NULL;
}

static void send_trailers(struct exchange *x, struct h2_stream *s, const struct headers *trailers)
{
    nghttp2_nv *nv = arena_alloc(&x->arena, h2_fields_max(trailers) * sizeof *nv);
    size_t count = h2_trailer_fields(trailers, &x->arena, nv);
    s->tail_due = true;
    if (unsent(s)) {
        submit_failed(s, nghttp2_session_resume_data(s->h2->session, s->id));
        h2_serialise(s->h2);
    }
    if (!unsent(s)) {
        submit_tail(s, nv, count);
        h2_serialise(s->h2); // while the arena holds them
    } else if (!(s->tail = copy_tail(nv, count))) {
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
    }
}

// ---- verbs ----

static bool is_over(const struct h2_stream *s)
{
    return s->closed || s->reset;
}

// Sets what HTTP/2 makes of the upstream's framing; the result is what Content-Length says.
static enum framing reply_framing(struct h2_stream *s, const struct exchange *x,
                                  const struct response_head *head)
{
    if (x->request.method == METHOD_HEAD || head->status == 204 || head->status == 304)
        return head->has_length && head->status != 204 ? FRAMING_LENGTH : FRAMING_NONE;
    s->has_data =
        head->framing != FRAMING_NONE && !(head->framing == FRAMING_LENGTH && !head->content_length);
    return head->framing == FRAMING_LENGTH ? FRAMING_LENGTH : FRAMING_NONE;
}

// RFC 8441 5: 101 becomes 200, and what belongs to the handshake of HTTP/1 stays there.
static enum framing open_tunnel(struct h2_stream *s, struct response_head *head)
{
    s->tunnel = s->has_data = true;
    head->status = 200;
    headers_remove_name(&head->headers, STR("sec-websocket-accept"));
    return FRAMING_NONE;
}

// False: memory is out.
static bool submit_head(struct exchange *x, struct h2_stream *s, struct response_head *head)
{
    enum framing framing = head->status == 101 ? open_tunnel(s, head) : reply_framing(s, x, head);
    s->continue_due = false;
    nghttp2_nv *nv = arena_alloc(&x->arena, h2_fields_max(&head->headers) * sizeof *nv);
    size_t count = h2_response_fields(head, framing, &x->arena, nv);
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_data};
    int error = nghttp2_submit_response(s->h2->session, s->id, nv, count, s->has_data ? &body : NULL);
    s->end_sent = !error && !s->has_data;
    return !error;
}

static bool send_head(struct exchange *x, struct response_head *head)
{
    struct h2_stream *s = stream_of(x);
    if (is_over(s))
        return true;
    if (!submit_head(x, s, head))
        return false;
    h2_serialise(s->h2);
    h2_wake(s->h2);
    return true;
}

static void submit_informational(struct h2_stream *s, const nghttp2_nv *nv, size_t count)
{
    submit_failed(s, nghttp2_submit_headers(s->h2->session, NGHTTP2_FLAG_NONE, s->id, NULL, nv, count, NULL));
    h2_serialise(s->h2);
    h2_wake(s->h2);
}

static void send_informational(struct exchange *x, struct response_head *head)
{
    struct h2_stream *s = stream_of(x);
    if (is_over(s))
        return;
    nghttp2_nv *nv = arena_alloc(&x->arena, h2_fields_max(&head->headers) * sizeof *nv);
    submit_informational(s, nv, h2_response_fields(head, FRAMING_NONE, &x->arena, nv));
}

// What was lent for one call and did not leave. False: memory is out.
static bool keep_rest(struct h2_stream *s)
{
    struct str rest = s->lent.span;
    if (s->lent.lender || !rest.n)
        return true;
    s->lent.span = STR_NULL;
    return keep(s, rest);
}

// Frames what there is from where it lies; what the client's window or the socket does not take is kept.
static bool send_now(struct h2_stream *s, struct str span)
{
    s->lent.span = span;
    submit_failed(s, nghttp2_session_resume_data(s->h2->session, s->id));
    h2_serialise(s->h2);
    h2_wake(s->h2);
    s->full = h2_waiting(s);
    return keep_rest(s);
}

// Small pieces are framed together, unless there is no room to wait for more.
static bool gathers(const struct h2_stream *s, size_t n)
{
    return s->full || (buf_len(&s->pending) + n <= OUT_GATHER && likely(!client_room_is_full(&s->h2->room)));
}

static enum flow send_body(struct exchange *x, struct str span)
{
    struct h2_stream *s = stream_of(x);
    if (is_over(s) || !s->has_data || !span.n)
        return FLOW_MORE;
    if (!(gathers(s, span.n) ? keep(s, span) : send_now(s, span))) {
        h2_reset(s, NGHTTP2_INTERNAL_ERROR); // memory is out
        return FLOW_MORE;
    }
    if (h2_waiting(s))
        watch_stall(s);
    return s->full ? FLOW_FULL : FLOW_MORE;
}

static void send_end(struct exchange *x, const struct headers *trailers)
{
    struct h2_stream *s = stream_of(x);
    if (is_over(s) || s->end_sent)
        return;
    s->end_due = true;
    if (trailers && !s->tunnel)
        send_trailers(x, s, trailers);
    else
        stream_late(s);
    if (!s->end_sent && !s->reset)
        watch_stall(s);
}

// nghttp2 is asked once, for a head behind which the body lies already, with the end of the response.
static bool send_without_trailers(struct exchange *x, struct h2_stream *s, struct response_head *head,
                                  struct lent body)
{
    s->lent = body;
    if (!submit_head(x, s, head))
        return false;
    s->end_due = true;
    h2_serialise(s->h2);
    h2_wake(s->h2);
    if (!s->end_sent && !s->reset)
        watch_stall(s);
    return true;
}

static bool send_with_trailers(struct exchange *x, struct h2_stream *s, struct response_head *head,
                               struct lent body, const struct headers *trailers)
{
    bool sent = send_head(x, head);
    s->lent = body;
    if (sent)
        send_end(x, trailers);
    return sent;
}

static bool send_whole(struct exchange *x, struct response_head *head, struct lent body,
                       const struct headers *trailers)
{
    struct h2_stream *s = stream_of(x);
    if (is_over(s)) {
        lent_give_back(&body);
        return true;
    }
    bool sent =
        trailers ? send_with_trailers(x, s, head, body, trailers) : send_without_trailers(x, s, head, body);
    if (!sent || !s->has_data)
        lent_give_back(&s->lent);
    if (!keep_rest(s))
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
    return sent;
}

static void flush(struct exchange *x)
{
    struct h2_stream *s = stream_of(x);
    if (!is_over(s) && unsent(s))
        stream_late(s);
}

static void resume(struct exchange *x)
{
    struct h2_stream *s = stream_of(x);
    if (s->continue_due) {
        s->continue_due = false;
        nghttp2_nv status = {(uint8_t *)":status", (uint8_t *)"100", 7, 3, NGHTTP2_NV_FLAG_NONE};
        if (!is_over(s) && !s->ended)
            submit_informational(s, &status, 1);
    }
    s->body_wanted = true;
    s->since_us = now_us(s);
    h2_deliver(s);
    h2_stream_due(s);
    h2_wake(s->h2);
}

static void abort_reply(struct exchange *x)
{
    struct h2_stream *s = stream_of(x);
    if (!s->end_sent)
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
}

static void finished(void *client_context)
{
    struct h2_stream *s = client_context;
    s->x = NULL;
    s->body_wanted = false;
    s->trailers = (struct headers){0};
    h2_drop_held(s);
    h2_stream_due(s);
    h2_wake(s->h2);
}

const struct client_verbs h2_verbs = {
    .protocol = "HTTP/2.0",
    .send_head = send_head,
    .send_informational = send_informational,
    .send_body = send_body,
    .send_whole = send_whole,
    .send_end = send_end,
    .flush = flush,
    .resume = resume,
    .abort = abort_reply,
    .finished = finished,
};
