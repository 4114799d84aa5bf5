// One request and its response on a stream of an HTTP/2 session.
#include "upstream/h2_session.h"

#include <stdlib.h>

enum {
    PENDING_BYTES = OUT_MAX,  // of a request body: one span is taken on top of what is blocked
    HANDED_BYTES = 64 * 1024, // of a held body at a time
};

static struct h2_stream *of_link(const struct upstream_link *link)
{
    return container_of(link, struct h2_stream, link);
}

static struct buf_pool *buffers_of(const struct h2_stream *stream)
{
    return stream->worker->needs.buffers;
}

// ---- made and given back ----

static struct h2_stream *take_spare(struct upstream_worker *worker)
{
    struct list *node = list_pop_front(&worker->spare_streams);
    if (!node)
        return malloc(sizeof(struct h2_stream));
    worker->spare_stream_count--;
    return container_of(node, struct h2_stream, node);
}

static void free_stream(struct h2_stream *stream)
{
    struct upstream_worker *worker = stream->worker;
    buf_release(&stream->pending, buffers_of(stream));
    buf_release(&stream->held, buffers_of(stream));
    stream->serial = 0; // whoever told the call that it was over looks at this: the memory stays until later
    list_push_front(&worker->spare_streams, &stream->node);
    worker->spare_stream_count++;
}

void streams_trim_spare(struct upstream_worker *worker, unsigned keep)
{
    struct list *node;
    for (; worker->spare_stream_count > keep && (node = list_pop_front(&worker->spare_streams));
         worker->spare_stream_count--)
        free(container_of(node, struct h2_stream, node));
}

// nghttp2 knows it no longer, or shall not speak of it any more.
static void detach(struct h2_stream *stream)
{
    struct h2_session *s = stream->session;
    list_remove(&stream->node);
    list_remove(&stream->due_node);
    stream->due = 0;
    stream->session = NULL;
    session_lost_stream(s);
}

static bool waited_in_vain(const struct h2_stream *stream)
{
    const struct h2_session *s = stream->session;
    uint64_t now_ms = loop_now_ms(s->base.conn.loop);
    return stream->head_queued && !stream->closed && s->heard_ms < stream->lent_ms &&
           now_ms >= stream->lent_ms + H2_DOUBT_MS;
}

// The call is over. What of the message is not complete is cancelled; the session lives on.
static bool h2_give(struct upstream_link *link)
{
    struct h2_stream *stream = of_link(link);
    struct h2_session *s = stream->session;
    bool is_told = true;
    if (s && stream->id && !stream->closed) {
        nghttp2_session_set_stream_user_data(s->ng, stream->id, NULL);
        if (!stream->response_ended || !stream->end_queued) {
            uint32_t code = stream->is_bad           ? NGHTTP2_PROTOCOL_ERROR
                            : stream->response_ended ? NGHTTP2_NO_ERROR
                                                     : NGHTTP2_CANCEL;
            nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, stream->id, code);
            session_write_late(s);
            is_told = false;
            s->places++;
        }
    }
    if (s && waited_in_vain(stream))
        session_doubt(s);
    if (s)
        detach(stream);
    free_stream(stream);
    return is_told;
}

// ---- what is told to the exchange ----

// Something is on its way that ends the call: what else the stream says is nobody's.
static bool is_over(const struct h2_stream *stream)
{
    return stream->due & DUE_FAIL;
}

static void fail_later(struct h2_stream *stream, enum end_cause cause)
{
    if (is_over(stream))
        return;
    stream->cause = cause;
    session_note_due(stream, DUE_FAIL);
}

void stream_bad(struct h2_stream *stream)
{
    stream->is_bad = true;
    fail_later(stream, END_UPSTREAM_BAD_RESPONSE);
}

void stream_settle(struct h2_stream *stream)
{
    struct upstream_call *call = stream->link.call;
    uint64_t serial = stream->serial;
    unsigned due = stream->due;
    stream->due = 0;
    if (due & DUE_FAIL) {
        call->failed_with = stream->failed_with;
        call->events->on_fail(call, stream->cause); // finishes the call
        return;
    }
    if (due & DUE_DRAIN)
        call->events->on_drain(call);
    if (due & DUE_FLUSH && stream->serial == serial)
        call->events->on_flush(call);
}

static void tell_end(struct h2_stream *stream)
{
    struct upstream_call *call = stream->link.call;
    call->events->on_end(call, stream->response_trailers);
}

// ---- the response's head and trailers ----

void stream_begin_fields(struct h2_stream *stream)
{
    struct upstream_call *call = stream->link.call;
    call->response_begun = true;
    h2_fields_init(&stream->fields, call->arena, UPSTREAM_HEAD_BYTES, UPSTREAM_HEADERS);
}

bool stream_field(struct h2_stream *stream, struct str name, struct str value)
{
    return stream->head_seen ? h2_trailer_field(&stream->fields, name, value)
                             : h2_field(&stream->fields, name, value);
}

static void take_trailers(struct h2_stream *stream, bool end_stream)
{
    struct upstream_call *call = stream->link.call;
    if (stream->fields.fault || !end_stream) {
        stream_bad(stream);
        return;
    }
    if (stream->fields.headers.count) {
        stream->response_trailers = arena_new(call->arena, struct headers);
        *stream->response_trailers = stream->fields.headers;
    }
    stream_end(stream);
}

static void take_informational(struct h2_stream *stream, struct response_head *head)
{
    struct upstream_call *call = stream->link.call;
    if (++stream->informational > INFORMATIONAL_MAX)
        stream_bad(stream);
    else
        call->events->on_informational(call, head);
}

static void take_head(struct h2_stream *stream, bool end_stream)
{
    struct upstream_call *call = stream->link.call;
    struct response_head *head = arena_new(call->arena, struct response_head);
    if (h2_response_head(&stream->fields, end_stream, call->method, head) != H2_HEAD_GOOD) {
        stream_bad(stream);
        return;
    }
    if (head->status < 200) {
        take_informational(stream, head);
        return;
    }
    uint64_t serial = stream->serial;
    stream->head_seen = true;
    call->head_us = stream->worker->needs.loop->now_us;
    call->events->on_head(call, head);
    if (stream->serial != serial)
        return;
    session_note_due(stream, DUE_FLUSH);
    if (end_stream)
        stream_end(stream);
}

void stream_fields_end(struct h2_stream *stream, bool end_stream)
{
    if (is_over(stream))
        return;
    if (stream->head_seen)
        take_trailers(stream, end_stream);
    else
        take_head(stream, end_stream);
}

// ---- the response's body ----

static uint32_t take_room(struct upstream_call *call, uint32_t wanted_bytes)
{
    if (!call->room)
        return wanted_bytes;
    uint32_t bytes = client_room_take(call->room, wanted_bytes);
    call->granted_bytes += bytes;
    return bytes;
}

// The client takes what comes: more may be on its way, as far as there is room for what it may not take.
static void widen_window(struct h2_stream *stream)
{
    nghttp2_session *ng = stream->session->ng;
    stream->taken_bytes = 0;
    // Else it is not ours yet: the upstream has not acknowledged our SETTINGS.
    if (nghttp2_session_get_stream_effective_local_window_size(ng, stream->id) !=
        (int32_t)stream->window_bytes)
        return;
    uint32_t bytes = take_room(stream->link.call, H2_STREAM_WINDOW - stream->window_bytes);
    if (!bytes)
        return;
    stream->window_bytes += bytes;
    nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, stream->id, (int32_t)stream->window_bytes);
}

static void open_window(struct h2_stream *stream, size_t n)
{
    if (!n || !stream->session || stream->closed)
        return;
    stream->taken_bytes += (uint32_t)n;
    if (stream->window_bytes < H2_STREAM_WINDOW && stream->taken_bytes >= stream->window_bytes / 2)
        widen_window(stream);
    nghttp2_session_consume_stream(stream->session->ng, stream->id, n);
}

// The client side is full. The window, which is not opened meanwhile, bounds what is held.
static void hold(struct h2_stream *stream, struct str span)
{
    if (buf_reserve(&stream->held, buffers_of(stream), span.n, H2_STREAM_WINDOW))
        buf_put(&stream->held, span);
    else
        fail_later(stream, END_OVERLOADED);
}

// False: the call is over.
static bool hand_over(struct h2_stream *stream, struct str span)
{
    struct upstream_call *call = stream->link.call;
    uint64_t serial = stream->serial;
    enum flow flow = call->events->on_body(call, span);
    if (stream->serial != serial)
        return false;
    stream->paused = flow == FLOW_FULL;
    if (stream->paused)
        stream->unconsumed += span.n;
    else
        open_window(stream, span.n);
    return true;
}

void stream_data(struct h2_stream *stream, struct str span)
{
    if (is_over(stream))
        return;
    if (stream->paused)
        hold(stream, span);
    else if (hand_over(stream, span))
        session_note_due(stream, DUE_FLUSH);
}

void stream_end(struct h2_stream *stream)
{
    if (is_over(stream))
        return;
    stream->response_ended = true;
    if (!stream->paused)
        tell_end(stream);
}

static void h2_resume(struct upstream_link *link)
{
    struct h2_stream *stream = of_link(link);
    struct upstream_call *call = link->call;
    if (!stream->paused || is_over(stream))
        return;
    stream->paused = false;
    open_window(stream, stream->unconsumed);
    stream->unconsumed = 0;
    if (stream->session)
        session_write_late(stream->session);
    while (buf_len(&stream->held) && !stream->paused) {
        struct str held = buf_str(&stream->held);
        struct str piece = {held.p, held.n < HANDED_BYTES ? held.n : HANDED_BYTES};
        if (!hand_over(stream, piece))
            return;
        buf_consume(&stream->held, piece.n);
    }
    if (stream->paused)
        return;
    buf_release(&stream->held, buffers_of(stream));
    if (stream->response_ended)
        tell_end(stream);
    else
        call->events->on_flush(call);
}

// ---- its end ----

static enum end_cause cause_of_close(const struct h2_stream *stream, uint32_t error)
{
    if (error == NGHTTP2_REFUSED_STREAM && !stream->head_seen)
        return END_UPSTREAM_REFUSED_STREAM;
    if (!stream->peer_reset)
        return END_UPSTREAM_BAD_RESPONSE; // nghttp2 has found it to be
    return stream->head_seen ? END_UPSTREAM_TRUNCATED : END_UPSTREAM_RESET;
}

void stream_closed(struct h2_stream *stream, uint32_t error)
{
    stream->closed = true;
    if (stream->peer_reset)
        stream->link.call->response_begun = true; // it was heard: no connection that had died before
    if (!stream->response_ended) {
        if (error == NGHTTP2_REFUSED_STREAM && !stream->peer_reset && !is_over(stream))
            stream->failed_with = &stream->session->base; // by GOAWAY
        fail_later(stream, cause_of_close(stream, error));
    } else if (stream->paused && !is_over(stream))
        detach(stream); // what is held is still handed over
}

void stream_orphaned(struct h2_stream *stream)
{
    const struct h2_session *s = stream->session;
    bool unsent = stream->link.verbs->is_unsent(&stream->link);
    list_remove(&stream->due_node);
    if (!is_over(stream)) {
        stream->failed_with = &stream->session->base;
        stream->due = stream->response_ended ? 0 : DUE_FAIL;
        stream->cause = unsent && s->leaving ? END_UPSTREAM_REFUSED_STREAM
                        : s->violated        ? END_UPSTREAM_BAD_RESPONSE
                        : stream->head_seen  ? END_UPSTREAM_TRUNCATED
                                             : END_UPSTREAM_RESET;
    }
    stream->unsent = unsent;
    stream->session = NULL;
}

// ---- the request ----

// What nghttp2 is asked for next may have changed.
static void more_to_send(struct h2_stream *stream)
{
    struct h2_session *s = stream->session;
    if (stream->deferred) {
        stream->deferred = false;
        nghttp2_session_resume_data(s->ng, stream->id);
    }
    session_write_late(s);
}

static bool h2_head(struct upstream_link *link, const struct request_head *head, struct str target,
                    enum framing framing, bool upgrade)
{
    (void)upgrade; // there is none in HTTP/2: the upstream answers as to any other request
    struct h2_stream *stream = of_link(link);
    struct h2_session *s = stream->session;
    struct arena *arena = link->call->arena;
    if (!s || is_over(stream))
        return true; // the failure is on its way
    nghttp2_nv *nv = arena_alloc(arena, h2_fields_max(&head->headers) * sizeof *nv);
    struct str scheme = s->base.conn.tls ? STR("https") : STR("http");
    size_t count = h2_request_fields(head, scheme, target, framing, head->te_trailers, arena, nv);
    bool has_body = framing == FRAMING_CHUNKED || (framing == FRAMING_LENGTH && head->content_length);
    nghttp2_data_provider body = {.read_callback = session_read_body};
    int32_t id = nghttp2_submit_request(s->ng, NULL, nv, count, has_body ? &body : NULL, stream);
    if (id < 0)
        return false;
    stream->id = id;
    if (id == INT32_MAX)
        session_update_room(s); // there is no id for another one
    stream->request_ended = stream->end_queued = !has_body;
    session_write_late(s);
    return true;
}

// What nghttp2 has not taken of the span.
static void keep_rest(struct h2_stream *stream)
{
    struct str rest = stream->span;
    stream->span = STR_NULL;
    if (!rest.n)
        return;
    if (buf_reserve(&stream->pending, buffers_of(stream), rest.n, PENDING_BYTES))
        buf_put(&stream->pending, rest);
    else
        fail_later(stream, END_OVERLOADED);
}

static enum flow h2_body(struct upstream_link *link, struct str span)
{
    struct h2_stream *stream = of_link(link);
    struct h2_session *s = stream->session;
    if (!s || stream->closed || stream->request_ended || is_over(stream))
        return FLOW_MORE; // nobody reads it any more: how the call ends is on its way
    stream->span = span;
    more_to_send(stream);
    if (buf_len(&stream->pending) + span.n >= H2_GATHER_BYTES)
        session_write_bulk(s);
    keep_rest(stream);
    stream->full = buf_len(&stream->pending) >= H2_GATHER_BYTES;
    return stream->full ? FLOW_FULL : FLOW_MORE;
}

static void h2_end(struct upstream_link *link, const struct headers *trailers)
{
    struct h2_stream *stream = of_link(link);
    if (!stream->session || stream->closed || stream->request_ended)
        return;
    stream->request_ended = true;
    if (trailers && trailers->count) {
        struct arena *arena = link->call->arena;
        stream->trailers = arena_alloc(arena, h2_fields_max(trailers) * sizeof *stream->trailers);
        stream->trailer_count = h2_trailer_fields(trailers, arena, stream->trailers);
    }
    more_to_send(stream);
}

static void h2_flush(struct upstream_link *link)
{
    (void)link; // every verb has asked for a write at the end of the turn
}

static bool h2_is_unsent(const struct upstream_link *link)
{
    const struct h2_stream *stream = of_link(link);
    const struct h2_session *s = stream->session;
    if (!s)
        return stream->unsent;
    return !stream->head_queued || stream->head_at >= s->queued_bytes - buf_len(&s->base.out.buf);
}

static bool submit_trailers(struct h2_stream *stream)
{
    for (size_t i = 0; i < stream->trailer_count; i++) // they may outlive the call in nghttp2's queue
        stream->trailers[i].flags &=
            (uint8_t) ~(NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
    return nghttp2_submit_trailer(stream->session->ng, stream->id, stream->trailers, stream->trailer_count) ==
           0;
}

ssize_t stream_read_body(struct h2_stream *stream, size_t max, uint32_t *flags)
{
    size_t there = buf_len(&stream->pending) + stream->span.n;
    if (!there && !stream->request_ended) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t n = there < max ? there : max;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!stream->request_ended || n < there)
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    stream->end_queued = true;
    if (stream->trailer_count) {
        if (!submit_trailers(stream))
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    return (ssize_t)n;
}

void stream_move_body(struct h2_stream *stream, size_t n)
{
    struct upstream_conn *c = &stream->session->base;
    struct str pending = buf_str(&stream->pending);
    size_t first = n < pending.n ? n : pending.n;
    if (first) {
        out_span(&c->out, &c->conn, buffers_of(stream), (struct str){pending.p, first});
        buf_consume(&stream->pending, first);
    }
    if (n > first) {
        out_span(&c->out, &c->conn, buffers_of(stream), (struct str){stream->span.p, n - first});
        stream->span = str_skip(stream->span, n - first);
    }
    if (buf_len(&stream->pending) >= H2_GATHER_BYTES)
        return;
    if (!buf_len(&stream->pending))
        buf_release(&stream->pending, buffers_of(stream));
    if (stream->full) {
        stream->full = false;
        session_note_due(stream, DUE_DRAIN);
    }
}

static const struct link_verbs h2_verbs = {
    .head = h2_head,
    .body = h2_body,
    .end = h2_end,
    .flush = h2_flush,
    .resume = h2_resume,
    .is_unsent = h2_is_unsent,
    .give = h2_give,
};

struct upstream_link *stream_lend(struct upstream_conn *c, struct upstream_call *call)
{
    struct h2_session *s = session_of(c);
    struct upstream_worker *worker = call->local->worker;
    struct h2_stream *stream = take_spare(worker);
    if (!stream)
        return NULL;
    *stream = (struct h2_stream){
        .link.verbs = &h2_verbs,
        .session = s,
        .worker = worker,
        .window_bytes = H2_FIRST_WINDOW,
        .lent_ms = loop_now_ms(c->conn.loop),
        .serial = ++worker->stream_serial,
    };
    list_init(&stream->due_node);
    list_init(&stream->node);
    list_push_back(&s->streams, &stream->node);
    s->stream_count++;
    session_update_room(s);
    return &stream->link;
}
