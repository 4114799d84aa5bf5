// The streams of an HTTP/2 client: what nghttp2 reports about them is noted, then settled.
#include "front/h2.h"

#include "http/websocket.h"

#include <stdlib.h>

// ---- new and free ----

static struct h2_stream *take_spare(struct front *front)
{
    struct list *node = list_pop_front(&front->spare_streams);
    if (!node)
        return malloc(sizeof(struct h2_stream));
    front->spare_stream_count--;
    return container_of(node, struct h2_stream, node);
}

static struct h2_stream *new_stream(struct h2_client *h2, int32_t id)
{
    struct client *c = h2->client;
    struct exchange *x = client_exchange(c, &h2_verbs, NULL);
    struct h2_stream *s = x ? take_spare(c->front) : NULL;
    if (!s) {
        if (x)
            exchange_discard(x);
        return NULL;
    }
    *s = (struct h2_stream){.h2 = h2, .x = x, .id = id};
    x->client_context = s;
    x->room = &h2->room;
    list_init(&s->due);
    list_init(&s->late);
    list_push_back(&h2->streams, &s->node);
    h2->stream_count++;
    h2->idle_us = 0;
    client_set_active(c, true);
    return s;
}

static void note_idle(struct h2_client *h2)
{
    struct client *c = h2->client;
    h2->idle_us = c->conn.loop->now_us;
    client_set_active(c, false);
    h2_arm_in(h2, client_settings(c)->timeouts.idle_us);
}

static void free_stream(struct h2_stream *s)
{
    struct h2_client *h2 = s->h2;
    struct front *front = h2->client->front;
    check(!s->x);
    h2_drop_reply(s);
    h2_drop_held(s);
    list_remove(&s->due);
    list_remove(&s->late);
    list_remove(&s->node);
    if (--h2->stream_count == 0)
        note_idle(h2);
    if (front->spare_stream_count >= H2_SPARE_STREAMS) {
        free(s);
        return;
    }
    front->spare_stream_count++;
    list_push_front(&front->spare_streams, &s->node);
}

void h2_stream_due(struct h2_stream *s)
{
    if (list_empty(&s->due))
        list_push_back(&s->h2->due, &s->due);
}

void h2_reset(struct h2_stream *s, uint32_t error)
{
    h2_drop_reply(s);
    if (s->closed || s->reset)
        return;
    s->reset = true;
    if (nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, error) != 0)
        s->h2->failure = NGHTTP2_INTERNAL_ERROR; // memory is out
    h2_wake(s->h2);
}

// ---- what nghttp2 reports ----

// The windows of DATA that nobody will look at any more are given back at once.
static void consume(struct h2_stream *s, size_t n)
{
    if (s->h2->lingering)
        return;
    int error = s->closed ? nghttp2_session_consume_connection(s->h2->session, n)
                          : nghttp2_session_consume(s->h2->session, s->id, n);
    if (error && !s->h2->failure)
        s->h2->failure = NGHTTP2_INTERNAL_ERROR;
}

static int note_event(struct h2_client *h2, enum h2_event event)
{
    if (event == H2_EVENTS || h2_guard_note(&h2->guard, event, h2->client->conn.loop->now_us))
        return 0;
    h2->failure = NGHTTP2_ENHANCE_YOUR_CALM;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *frame, void *context)
{
    struct h2_client *h2 = context;
    (void)session;
    if (frame->type == NGHTTP2_PRIORITY && !frame->stream_id) { // RFC 9113 6.3; nghttp2 does not look at it
        h2->failure = NGHTTP2_PROTOCOL_ERROR;
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return note_event(h2, h2_event_of(frame));
}

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

// Nobody wants the block: it is decoded and counted, for the sake of HPACK's state.
static void ignore_block(struct h2_client *h2)
{
    h2->block = NULL;
    h2->fields.fault = H1_HEAD_TOO_LARGE; // keeps nothing
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct h2_client *h2 = context;
    const struct h1_limits *limits = &h2->client->listener->limits;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        h2->block = stream_of(session, frame->hd.stream_id);
        bool wanted = h2->block && h2->block->x;
        h2_fields_init(&h2->fields, wanted ? &h2->block->x->arena : NULL, TRAILER_BYTES, TRAILER_FIELDS);
        if (!wanted)
            ignore_block(h2);
        return 0;
    }
    struct h2_stream *s = new_stream(h2, frame->hd.stream_id);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; // RST_STREAM INTERNAL_ERROR
    nghttp2_session_set_stream_user_data(session, s->id, s);
    h2->block = s;
    h2_fields_init(&h2->fields, &s->x->arena, limits->head_bytes, limits->headers);
    return 0;
}

// Also what nghttp2 finds invalid comes here: our own grammar tells what is wrong with it.
static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *context)
{
    struct h2_client *h2 = context;
    (void)session, (void)flags;
    struct str key = {(const char *)name, name_n}, text = {(const char *)value, value_n};
    bool whole = frame->headers.cat == NGHTTP2_HCAT_REQUEST ? h2_field(&h2->fields, key, text)
                                                            : h2_trailer_field(&h2->fields, key, text);
    if (whole)
        return 0;
    h2->failure = NGHTTP2_ENHANCE_YOUR_CALM;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static void take_head(struct h2_stream *s, bool end_stream)
{
    struct h2_client *h2 = s->h2;
    struct client *c = h2->client;
    s->head_done = true;
    switch (h2_request_head(&h2->fields, end_stream, &c->listener->limits,
                            (enum h1_underscores)client_settings(c)->underscores, &s->x->request)) {
    case H2_HEAD_GOOD: break;
    case H2_HEAD_REFUSED:
        s->refused = (uint8_t)h1_fault_cause(h2->fields.fault);
        s->why = h2->fields.why;
        break;
    case H2_HEAD_MALFORMED:
        exchange_discard(s->x);
        s->x = NULL;
        h2_reset(s, NGHTTP2_PROTOCOL_ERROR);
        break;
    }
}

static void take_trailers(struct h2_stream *s)
{
    struct h2_fields *fields = &s->h2->fields;
    if (s->h2->block != s)
        return;
    if (fields->fault)
        h2_reset(s, NGHTTP2_PROTOCOL_ERROR);
    else
        s->trailers = fields->headers;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct h2_client *h2 = context;
    uint8_t type = frame->hd.type;
    if (type != NGHTTP2_HEADERS && type != NGHTTP2_DATA)
        return 0;
    bool end_stream = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s && type == NGHTTP2_HEADERS && !s->head_done)
        take_head(s, end_stream);
    else if (s && type == NGHTTP2_HEADERS)
        take_trailers(s);
    if (type == NGHTTP2_HEADERS)
        h2->block = NULL;
    if (s) {
        s->ended |= end_stream;
        h2_stream_due(s);
    }
    // Padding alone is no more than nothing.
    bool is_padding = type == NGHTTP2_DATA && frame->hd.length && frame->data.padlen == frame->hd.length;
    return is_padding && !end_stream ? note_event(h2, H2_EVENT_EMPTY) : 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                         void *context)
{
    struct h2_client *h2 = context;
    (void)flags;
    h2->chunk_stream = stream_of(session, id);
    h2->chunk = (struct str){(const char *)data, n};
    if (!h2->chunk_stream)
        return nghttp2_session_consume(session, id, n);
    h2->paused = true;
    return NGHTTP2_ERR_PAUSE;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *context)
{
    struct h2_client *h2 = context;
    struct h2_stream *s = stream_of(session, id);
    if (!s)
        return 0;
    s->closed = true;
    s->error = error;
    if (h2->block == s)
        ignore_block(h2);
    if (!s->begun && s->x) { // a head that is taken back at once costs no upstream anything
        exchange_discard(s->x);
        s->x = NULL;
    }
    h2_stream_due(s);
    return 0;
}

// What a peer makes us reset costs as much as what it resets itself (CVE-2025-8671).
static bool is_provoked(uint32_t error)
{
    return error != NGHTTP2_NO_ERROR && error != NGHTTP2_INTERNAL_ERROR && error != NGHTTP2_CANCEL;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session;
    if (frame->hd.type == NGHTTP2_RST_STREAM && is_provoked(frame->rst_stream.error_code))
        (void)note_event(context, H2_EVENT_RESET); // failure is set: late work says so
    return 0;
}

// A head that HTTP/2 cannot carry.
static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error, void *context)
{
    (void)context, (void)error;
    struct h2_stream *s = frame->hd.type == NGHTTP2_HEADERS ? stream_of(session, frame->hd.stream_id) : NULL;
    if (s)
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
    return 0;
}

static int unpack_extension(nghttp2_session *session, void **payload, const nghttp2_frame_hd *frame,
                            void *context)
{
    (void)session, (void)frame, (void)context;
    *payload = NULL;
    return 0;
}

nghttp2_session_callbacks *h2_callbacks_new(void)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_send_data);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, unpack_extension);
    return callbacks;
}

// ---- the request body ----

void h2_drop_held(struct h2_stream *s)
{
    size_t n = buf_len(&s->held);
    buf_release(&s->held, client_buffers(s->h2->client));
    if (n)
        consume(s, n);
    if (s->h2->block == s) // its fields lie in the exchange's arena
        ignore_block(s->h2);
}

static bool body_too_large(struct h2_stream *s, size_t more)
{
    struct exchange *x = s->x;
    if (s->tunnel || x->body_bytes + more <= x->body_limit)
        return false;
    s->body_wanted = false;
    exchange_body_fail(
        x, END_BODY_TOO_LARGE,
        arena_printf(&x->arena, "the body may have at most %llu bytes", (unsigned long long)x->body_limit));
    return true;
}

// One span to the exchange, which wants it. False: it took none.
static bool give_body(struct h2_stream *s, struct str span)
{
    if (body_too_large(s, span.n))
        return false;
    s->body_wanted = exchange_body(s->x, span) == FLOW_MORE;
    s->body_fed = true;
    s->since_us = s->h2->client->conn.loop->now_us;
    consume(s, span.n);
    return true;
}

void h2_deliver(struct h2_stream *s)
{
    if (s->delivering)
        return; // the loop below goes on
    s->delivering = true;
    while (s->x && s->body_wanted) {
        struct str span = buf_str(&s->held);
        if (span.n) {
            if (!give_body(s, span))
                break;
            buf_release(&s->held, client_buffers(s->h2->client));
            continue;
        }
        if (!s->ended || s->reset)
            break;
        s->body_wanted = false;
        s->body_over = true;
        exchange_body_end(s->x, s->trailers.count ? &s->trailers : NULL);
    }
    s->delivering = false;
}

// Nobody wants it any more.
static void drop_data(struct h2_stream *s, size_t n)
{
    consume(s, n);
    if (!s->over_us || s->reset || s->closed)
        return;
    s->dropped_bytes += (uint32_t)n;
    if (s->dropped_bytes >= LINGER_BYTES)
        h2_reset(s, NGHTTP2_NO_ERROR);
}

void h2_take_data(struct h2_stream *s, struct str data)
{
    struct buf_pool *buffers = client_buffers(s->h2->client);
    if (s->x && s->begun && s->body_wanted && !buf_len(&s->held)) {
        s->delivering = true; // what comes back for more finds nothing held
        bool taken = give_body(s, data);
        s->delivering = false;
        h2_stream_due(s);
        if (taken)
            return;
    }
    if (!s->x || s->reset || s->closed) {
        drop_data(s, data.n);
    } else if (buf_reserve(&s->held, buffers, data.n, H2_HELD_BYTES)) {
        buf_put(&s->held, data);
        h2_stream_due(s);
    } else {
        consume(s, data.n);
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
    }
}

// ---- settling ----

// RFC 8441 5.1: the upstream's HTTP/1 handshake needs what CONNECT leaves out.
static void prepare_websocket(struct exchange *x)
{
    struct headers *headers = &x->request.headers;
    char *key = arena_alloc(&x->arena, WEBSOCKET_KEY_LENGTH);
    char *accept = arena_alloc(&x->arena, WEBSOCKET_ACCEPT_LENGTH);
    websocket_new_key(key);
    websocket_accept((struct str){key, WEBSOCKET_KEY_LENGTH}, accept);
    headers_set(headers, &x->arena, STR("sec-websocket-key"), (struct str){key, WEBSOCKET_KEY_LENGTH});
    headers_set(headers, &x->arena, STR("sec-websocket-version"), STR("13"));
    x->websocket_accept = (struct str){accept, WEBSOCKET_ACCEPT_LENGTH};
}

static void begin(struct h2_stream *s)
{
    struct exchange *x = s->x;
    s->begun = true;
    s->h2->client->served = true;
    s->since_us = s->h2->client->conn.loop->now_us;
    if (s->refused) {
        exchange_reject(x, (enum end_cause)s->refused, str_of(s->why));
        return;
    }
    s->continue_due = x->request.expect_continue;
    if (x->request.extended_connect)
        prepare_websocket(x);
    exchange_begin(x);
}

// The exchange ends, unless its answer is complete and it is about to say so.
static void settle_closed(struct h2_stream *s)
{
    if (s->x && (s->error || !s->end_sent)) {
        exchange_client_gone(s->x, END_CLIENT_GONE);
    }
    if (!s->x)
        free_stream(s);
}

// The answer is complete without the rest of the request. RFC 9113 8.1 lets us end the stream at once with
// RST_STREAM NO_ERROR, but there are clients (curl 7.88) that take it for a failure while their body is under
// way: whoever says little has the time to.
static void linger(struct h2_stream *s)
{
    s->over_us = s->h2->client->conn.loop->now_us;
    h2_arm_in(s->h2, LINGER_MS * 1000);
}

static void deliver_and_flush(struct h2_stream *s)
{
    h2_deliver(s);
    if (s->x && s->body_fed)
        exchange_body_flush(s->x);
    s->body_fed = false;
}

static void settle(struct h2_stream *s)
{
    if (s->closed) {
        if (s->tunnel && !s->error) // the client has said its last word, behind the upstream's
            deliver_and_flush(s);
        settle_closed(s);
        return;
    }
    if (s->x && !s->begun && s->head_done)
        begin(s);
    deliver_and_flush(s);
    if (s->x && s->body_wanted)
        h2_arm_in(s->h2, client_settings(s->h2->client)->timeouts.body_us);
    if (s->x && s->full && !h2_waiting(s)) {
        s->full = false;
        exchange_client_drained(s->x);
    }
    if (s->tail && s->data_done)
        h2_send_tail(s);
    if (!s->x && s->end_sent && !s->ended && !s->over_us)
        linger(s);
}

void h2_settle(struct h2_client *h2)
{
    struct list now, *node;
    list_init(&now);
    list_move_all(&h2->due, &now);
    while ((node = list_pop_front(&now)))
        settle(container_of(node, struct h2_stream, due));
}

void h2_end_streams(struct h2_client *h2, enum end_cause cause)
{
    list_each (&h2->streams, node) {
        struct h2_stream *s = container_of(node, struct h2_stream, node);
        s->closed = true; // nghttp2 is not asked any more
        h2_drop_reply(s);
        if (s->x && !s->begun)
            exchange_discard(s->x);
        else if (s->x)
            exchange_client_gone(s->x, cause);
        s->x = NULL;
        free_stream(s);
    }
}
