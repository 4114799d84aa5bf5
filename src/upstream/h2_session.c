// An HTTP/2 connection to an upstream: bytes into nghttp2 and out of it, and its life: opened by the peer's
// SETTINGS, kept alive by pings, left by GOAWAY, closed when idle.
#include "upstream/h2_session.h"

#include <stdlib.h>

enum { FRAME_HEAD = 9 };

static struct buf_pool *buffers_of(const struct h2_session *s)
{
    return connection_needs(&s->base)->buffers;
}

// ---- room ----

void session_update_room(struct h2_session *s)
{
    uint32_t room = 0;
    if (s->open && !s->leaving && !s->doubted && !s->broken && nghttp2_session_check_request_allowed(s->ng)) {
        uint32_t max = nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
        max = max < H2_STREAMS ? max : H2_STREAMS;
        room = max > s->stream_count ? max - s->stream_count : 0;
    }
    connection_set_room(&s->base, room);
}

void session_lost_stream(struct h2_session *s)
{
    struct upstream_conn *c = &s->base;
    s->stream_count--;
    session_update_room(s);
    if (s->stream_count)
        return;
    if (c->room && connection_is_wanted(c))
        connection_become_idle(c);
    else if (!s->busy)
        connection_close(c);
}

// What could not be closed from inside nghttp2. True: it is closed now, or was.
static bool is_over(struct h2_session *s)
{
    struct upstream_conn *c = &s->base;
    if (c->state == UPSTREAM_LENT && !s->stream_count)
        connection_close(c);
    return c->conn.closed;
}

// ---- the end of a connection ----

// Whatever its streams have not got by now, they do not get.
static void break_off(struct h2_session *s, const char *why)
{
    struct upstream_conn *c = &s->base;
    struct upstream_local *local = c->pool->local;
    s->broken = true;
    if (c->state == UPSTREAM_CONNECTING) {
        connection_failed(c, why);
        return;
    }
    struct list streams;
    list_init(&streams);
    list_move_all(&s->streams, &streams);
    list_each (&streams, node)
        stream_orphaned(container_of(node, struct h2_stream, node));
    s->stream_count = 0;
    connection_close(c);
    for (struct list *node; (node = list_pop_front(&streams));)
        stream_settle(container_of(node, struct h2_stream, node));
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void settle(struct h2_session *s)
{
    for (struct list *node; (node = list_pop_front(&s->due));)
        stream_settle(container_of(node, struct h2_stream, due_node));
}

void session_note_due(struct h2_stream *stream, unsigned what)
{
    stream->due |= what;
    if (list_empty(&stream->due_node))
        list_push_back(&stream->session->due, &stream->due_node);
    session_write_late(stream->session);
}

// ---- out ----

static bool append(struct h2_session *s, const uint8_t *data, size_t n)
{
    struct out *out = &s->base.out;
    if (!out_reserve(out, buffers_of(s), n))
        return false;
    buf_put(&out->buf, (struct str){(const char *)data, n});
    s->queued_bytes += n;
    return true;
}

static void serialise(struct h2_session *s)
{
    const struct buf *gathered = &s->base.out.buf;
    s->busy = true;
    for (s->more = false; !s->broken && !s->more;) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(s->ng, &data);
        if (n == 0)
            break;
        if (n < 0 || !append(s, data, (size_t)n))
            s->broken = true;
        s->more = s->more || buf_len(gathered) >= H2_OUT_BYTES;
    }
    s->busy = false;
}

static void send_gathered(struct h2_session *s)
{
    out_flush(&s->base.out, &s->base.conn, buffers_of(s));
    if (s->base.out.broken)
        s->broken = true;
}

// Written or not, the endpoint was told as far as it goes: nobody waits for one that reads nothing.
static void give_places(struct h2_session *s, struct upstream_local *local)
{
    while (s->places) {
        s->places--;
        concurrency_give(&local->requests);
    }
}

static bool has_space(const struct h2_session *s)
{
    return !s->broken && buf_len(&s->base.out.buf) < H2_OUT_BYTES;
}

void session_write_bulk(struct h2_session *s)
{
    if (s->busy)
        return;
    serialise(s);
    while (s->more) {
        send_gathered(s);
        if (!has_space(s))
            break;
        serialise(s);
    }
    if (s->broken)
        session_write_late(s);
}

void session_write_late(struct h2_session *s)
{
    loop_late(s->base.conn.loop, &s->late);
}

// ---- in ----

static void take_in(struct h2_session *s, struct str data)
{
    if (!h2_frames_follow(&s->frames, (const uint8_t *)data.p, data.n)) {
        nghttp2_session_terminate_session(s->ng, NGHTTP2_ENHANCE_YOUR_CALM);
        s->broken = s->violated = true;
        return;
    }
    s->busy = true;
    ssize_t n = nghttp2_session_mem_recv(s->ng, (const uint8_t *)data.p, data.n);
    s->busy = false;
    if (n < 0)
        s->broken = s->violated = true;
}

// False: nothing more to read now.
static bool receive(struct h2_session *s, struct buf *in)
{
    struct upstream_conn *c = &s->base;
    ssize_t n = conn_recv(&c->conn, in->base, in->cap);
    if (n == CONN_AGAIN)
        return false;
    if (n <= 0) {
        break_off(s, "closed by the peer before it spoke HTTP/2");
        return false;
    }
    s->heard_ms = loop_now_ms(c->conn.loop);
    if (s->doubted) {
        s->doubted = false;
        session_update_room(s);
    }
    take_in(s, (struct str){in->base, (size_t)n});
    if (is_over(s))
        return false;
    if (s->open && c->state == UPSTREAM_CONNECTING) {
        if (!c->room) {
            break_off(s, "the peer takes no streams");
            return false;
        }
        connection_opened(c);
    }
    settle(s);
    return !c->conn.closed && !s->broken;
}

static void read_more(struct h2_session *s)
{
    struct upstream_conn *c = &s->base;
    struct buf_pool *buffers = buffers_of(s);
    struct buf in = {0}; // not the connection's: it may be closed while nghttp2 reads on
    streams_trim_spare(c->pool->local->worker, H2_SPARE_STREAMS);
    if (!buf_acquire(&in, buffers)) {
        break_off(s, NULL);
        return;
    }
    for (unsigned reads = 0; c->conn.readable && reads < H2_READS; reads++)
        if (!receive(s, &in))
            break;
    buf_release(&in, buffers);
    if (!c->conn.closed && (c->conn.readable || s->broken || nghttp2_session_want_write(s->ng)))
        session_write_late(s);
}

// ---- the turn's end ----

static const char *why_broken(const struct h2_session *s)
{
    return s->violated ? "the peer does not keep to HTTP/2" : "the connection was broken off";
}

static void on_late(struct loop_late *late)
{
    struct h2_session *s = container_of(late, struct h2_session, late);
    struct upstream_conn *c = &s->base;
    if (c->conn.readable && !s->broken) // more than one turn's share, or what came before the output broke
        read_more(s);
    if (c->conn.closed)
        return;
    struct upstream_local *local = c->pool->local;
    bool gave_up = s->broken, had_places = s->places;
    s->broken = c->out.broken; // what nghttp2 still says is a GOAWAY
    session_write_bulk(s);
    send_gathered(s);
    s->broken |= gave_up;
    give_places(s, local);
    if (!is_over(s))
        settle(s);
    if (!c->conn.closed && (s->broken || !nghttp2_session_want_read(s->ng)))
        break_off(s, why_broken(s));
    if (had_places && !list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void h2_on_ready(struct upstream_conn *c)
{
    struct h2_session *s = session_of(c);
    if (c->conn.readable)
        read_more(s);
    if (!c->conn.closed && c->conn.writable && (!out_empty(&c->out) || s->more))
        session_write_late(s);
}

// ---- keeping alive ----

static uint64_t quiet_ms(const struct h2_session *s)
{
    return s->ping_was_last ? H2_QUIETER_MS : s->stream_count ? H2_QUIET_MS : H2_IDLE_QUIET_MS;
}

static void ask_for_life(struct h2_session *s)
{
    if (s->pinged_ms || nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, NULL) != 0)
        return;
    s->pinged_ms = loop_now_ms(s->base.conn.loop);
    session_write_late(s);
}

void session_doubt(struct h2_session *s)
{
    s->doubted = true;
    ask_for_life(s);
}

static void on_tick(struct loop_timer *tick)
{
    struct h2_session *s = container_of(tick, struct h2_session, tick);
    struct loop *loop = s->base.conn.loop;
    uint64_t now_ms = loop_now_ms(loop);
    if (s->pinged_ms && now_ms >= s->pinged_ms + H2_PONG_MS) {
        break_off(s, NULL);
        return;
    }
    if (now_ms >= s->heard_ms + quiet_ms(s))
        ask_for_life(s);
    loop_timer_set(loop, tick, H2_TICK_MS);
}

static void h2_on_timer(struct upstream_conn *c)
{
    if (c->state == UPSTREAM_IDLE)
        connection_close(c);
}

// ---- nghttp2's callbacks ----

enum { STOP = NGHTTP2_ERR_CALLBACK_FAILURE };

static struct h2_stream *stream_of(const struct h2_session *s, int32_t id)
{
    return id ? nghttp2_session_get_stream_user_data(s->ng, id) : NULL;
}

// The connection ends: nghttp2 says so to the peer when it is asked for output.
static int refuse(struct h2_session *s, uint32_t code)
{
    nghttp2_session_terminate_session(s->ng, code);
    s->violated = true;
    return STOP;
}

static int note(struct h2_session *s, enum h2_event event)
{
    if (h2_guard_note(&s->guard, event, s->base.conn.loop->now_us))
        return 0;
    return refuse(s, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *context)
{
    (void)ng;
    struct h2_session *s = context;
    if (s->base.conn.closed)
        return STOP;
    enum h2_event event = h2_event_of(hd);
    switch (event) {
    case H2_EVENTS: return 0;
    case H2_EVENT_RESET: // one for each request costs the peer as much as us
    case H2_EVENT_UPDATE:
        if (!hd->stream_id || stream_of(s, hd->stream_id))
            return 0;
        break;
    default: break;
    }
    return note(s, event);
}

// Frames of unknown types are counted (on_begin_frame), and dropped.
static int drop_extension(nghttp2_session *ng, void **payload, const nghttp2_frame_hd *hd, void *context)
{
    (void)ng, (void)payload, (void)hd, (void)context;
    return NGHTTP2_ERR_CANCEL;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *context)
{
    (void)ng;
    struct h2_stream *stream = stream_of(context, frame->hd.stream_id);
    if (stream)
        stream_begin_fields(stream);
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *context)
{
    (void)ng, (void)flags;
    struct h2_session *s = context;
    struct h2_stream *stream = stream_of(s, frame->hd.stream_id);
    if (stream && !stream_field(stream, (struct str){(const char *)name, name_n},
                                (struct str){(const char *)value, value_n}))
        return refuse(s, NGHTTP2_ENHANCE_YOUR_CALM);
    return 0;
}

// nghttp2 would drop the field and go on; a head that is not well-formed is not forwarded.
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                             void *context)
{
    (void)ng, (void)frame, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags, (void)context;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *context)
{
    (void)ng, (void)error;
    struct h2_stream *stream = stream_of(context, frame->hd.stream_id);
    if (stream)
        stream_bad(stream);
    return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                   void *context)
{
    (void)flags;
    struct h2_session *s = context;
    s->ping_was_last = false;
    // A client that reads slowly holds up its own stream, not the others: the connection's window is opened
    // at once.
    if (nghttp2_session_consume_connection(ng, n))
        return STOP;
    struct h2_stream *stream = stream_of(s, id);
    if (stream)
        stream_data(stream, (struct str){(const char *)data, n});
    else
        nghttp2_session_consume_stream(ng, id, n);
    return s->base.conn.closed ? STOP : 0;
}

static int take_frame(struct h2_session *s, const nghttp2_frame *frame)
{
    struct h2_stream *stream = stream_of(s, frame->hd.stream_id);
    bool end_stream = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        s->ping_was_last = false;
        if (stream)
            stream_fields_end(stream, end_stream);
        break;
    case NGHTTP2_DATA:
        if (stream && end_stream)
            stream_end(stream);
        else if (frame->hd.length && frame->data.padlen == frame->hd.length)
            return note(s, H2_EVENT_EMPTY); // padding alone is no more than nothing
        break;
    case NGHTTP2_RST_STREAM:
        if (stream)
            stream->peer_reset = true;
        break;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
            s->open = true;
            session_update_room(s);
        }
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
            s->pinged_ms = 0;
            s->ping_was_last = true;
        }
        break;
    case NGHTTP2_GOAWAY:
        s->leaving = true;
        session_update_room(s);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        if (frame->window_update.window_size_increment < H2_SMALL_UPDATE)
            return note(s, H2_EVENT_UPDATE);
        break;
    default: break;
    }
    return 0;
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *context)
{
    (void)ng;
    struct h2_session *s = context;
    if (s->base.conn.closed)
        return STOP;
    int result = take_frame(s, frame);
    return s->base.conn.closed ? STOP : result;
}

static int before_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *context)
{
    (void)ng;
    struct h2_session *s = context;
    struct h2_stream *stream = stream_of(s, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_HEADERS && stream && !stream->head_queued) {
        stream->head_queued = true;
        stream->head_at = s->queued_bytes;
    }
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        s->violated = true;
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *context)
{
    (void)ng;
    struct h2_stream *stream = stream_of(context, id);
    if (stream)
        stream_closed(stream, error);
    return 0;
}

ssize_t session_read_body(nghttp2_session *ng, int32_t id, uint8_t *data, size_t max, uint32_t *flags,
                          nghttp2_data_source *source, void *context)
{
    (void)ng, (void)data, (void)source;
    struct h2_stream *stream = stream_of(context, id);
    return stream ? stream_read_body(stream, max, flags) : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// DATA leaves from where it lies, behind its frame's head, unless it is small or the kernel takes no more.
static int send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t n,
                     nghttp2_data_source *source, void *context)
{
    (void)ng, (void)source;
    struct h2_session *s = context;
    struct out *out = &s->base.out;
    struct h2_stream *stream = stream_of(s, frame->hd.stream_id);
    if (!stream)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (buf_len(&out->buf) >= H2_OUT_BYTES) {
        s->more = true;
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    if (!out_reserve(out, buffers_of(s), FRAME_HEAD))
        return STOP;
    buf_put(&out->buf, (struct str){(const char *)head, FRAME_HEAD});
    s->queued_bytes += FRAME_HEAD + n;
    stream_move_body(stream, n);
    if (out->broken)
        return STOP;
    h2_guard_sent(&s->guard, n);
    return 0;
}

// ---- its life ----

static nghttp2_session_callbacks *new_callbacks(void)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks))
        return NULL;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, drop_extension);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_before_frame_send_callback(callbacks, before_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    return callbacks;
}

static struct upstream_conn *h2_new(void)
{
    struct h2_session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    list_init(&s->streams);
    list_init(&s->due);
    loop_late_init(&s->late, on_late);
    loop_timer_init(&s->tick, on_tick);
    return &s->base;
}

static void h2_free(struct upstream_conn *c)
{
    struct h2_session *s = session_of(c);
    nghttp2_session_del(s->ng);
    free(s);
}

static bool h2_open(struct upstream_conn *c)
{
    struct h2_session *s = session_of(c);
    nghttp2_session_callbacks *callbacks = new_callbacks();
    nghttp2_option *options = h2_options();
    struct block_pool *blocks = c->pool->local->worker->needs.blocks;
    nghttp2_mem memory = h2_memory(blocks);
    bool made = callbacks && options &&
                nghttp2_session_client_new3(&s->ng, callbacks, s, options, blocks ? &memory : NULL) == 0;
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(options);
    if (!made || h2_submit_settings(s->ng, true, UPSTREAM_HEAD_BYTES))
        return false;
    s->heard_ms = loop_now_ms(c->conn.loop);
    loop_timer_set(c->conn.loop, &s->tick, H2_TICK_MS);
    session_write_late(s);
    return true;
}

// Idle for long, a POST may find it closed: what the peer has said is read first.
static bool h2_is_fit(struct upstream_conn *c)
{
    struct h2_session *s = session_of(c);
    if (s->busy)
        return true;
    c->conn.readable = true;
    read_more(s);
    return !c->conn.closed && !s->broken && c->room;
}

static void h2_on_close(struct upstream_conn *c)
{
    struct h2_session *s = session_of(c);
    loop_late_cancel(&s->late);
    loop_timer_stop(c->conn.loop, &s->tick);
    if (s->open && !s->broken && !s->busy) {
        if (nghttp2_session_terminate_session(s->ng, NGHTTP2_NO_ERROR) == 0)
            serialise(s);
        send_gathered(s);
    }
    give_places(s, c->pool->local);
}

const struct protocol h2_protocol = {
    .name = "h2",
    .calls = H2_STREAMS,
    .new = h2_new,
    .free = h2_free,
    .open = h2_open,
    .lend = stream_lend,
    .is_fit = h2_is_fit,
    .on_ready = h2_on_ready,
    .on_timer = h2_on_timer,
    .on_close = h2_on_close,
};
