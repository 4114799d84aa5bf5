// HTTP/2 without TLS (RFC 9113, prior knowledge), and gRPC over it. A stream is a struct client of its own,
// with no connection: what the paths do and how they misbehave is the same, answer.c puts heads and bodies
// here.
//
//   carrier (a client with a connection) ─▶ nghttp2 ─▶ callbacks ─▶ stream: client_begin_request, …_body,
//   …_end socket ◀─ carrier->out ◀─ nghttp2 ◀─ read_body ◀─ stream->out ◀─ answer.c
//
// nghttp2 may not be asked to send from its own callbacks: h2_flush does nothing while they run.
#include "echo/echo.h"

#include "http/h2.h"

#include <stdlib.h>

enum { PENDING_MAX = 64 * 1024 }; // of a stream's answer: past it, the service waits

static const struct h1_limits limits = {
    .head_bytes = ECHO_HEAD_BYTES,
    .uri_bytes = ECHO_HEAD_BYTES / 2,
    .headers = ECHO_HEADERS,
};

struct h2 {
    struct client *carrier;
    nghttp2_session *session;
    struct list streams;
    bool busy;               // in nghttp2, or among the streams: nothing is sent
    struct h2_fields fields; // of the block that is being decoded
};

// ---- a stream's life

static void free_stream(struct loop_task *task)
{
    free(container_of(task, struct client, conn.free_task));
}

static void stream_gone(struct client *s)
{
    client_forget(s);
    out_release(&s->out, &s->echo->buffers);
    list_remove(&s->node);
    s->conn.closed = true;
    s->stream = 0;
    s->conn.free_task.run = free_stream;
    loop_defer(&s->echo->loop, &s->conn.free_task);
}

void h2_reset_stream(struct client *s, uint32_t error)
{
    if (s->conn.closed)
        return;
    s->conn.closed = true;
    client_stop(s);
    nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->stream, error);
    h2_flush(s->h2);
}

// For what has left, or is kept or dropped: as much more may come.
static void open_window(struct client *s)
{
    if (!s->unread || s->deaf || s->out.blocked)
        return;
    nghttp2_session_consume_stream(s->h2->session, s->stream, s->unread);
    s->unread = 0;
}

void h2_stream_run(struct client *s)
{
    for (unsigned spans = 0; !s->conn.closed && client_step_answer(s); spans++) {
        if (spans == ECHO_SPANS_A_TURN) {
            echo_run_again(s->echo, s);
            break;
        }
    }
    if (s->conn.closed)
        return;
    open_window(s);
    if (s->out.broken)
        h2_reset_stream(s, NGHTTP2_INTERNAL_ERROR);
    else if (s->answer != ANSWER_NONE)
        nghttp2_session_resume_data(s->h2->session, s->stream);
    h2_flush(s->h2);
}

struct client *client_connection(struct client *c)
{
    return c->stream ? c->h2->carrier : c;
}

// ---- what leaves

void h2_answer_end(struct client *s, const struct headers *trailers)
{
    if (!trailers)
        return;
    s->end_trailers = arena_alloc(&s->arena, sizeof *trailers);
    *s->end_trailers = *trailers;
}

static void submit_trailers(nghttp2_session *session, struct client *s)
{
    nghttp2_nv *nv = arena_alloc(&s->arena, h2_fields_max(s->end_trailers) * sizeof *nv);
    size_t count = h2_trailer_fields(s->end_trailers, &s->arena, nv);
    for (size_t i = 0; i < count; i++)
        nv[i].flags = NGHTTP2_NV_FLAG_NONE; // copied: they outlive the stream's arena
    nghttp2_submit_trailer(session, s->stream, nv, count);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)id;
    (void)user;
    struct client *s = source->ptr;
    struct str ready = buf_str(&s->out.buf);
    size_t n = ready.n < room ? ready.n : room;
    memcpy(to, ready.p ? ready.p : "", n);
    buf_consume(&s->out.buf, n);
    if (s->out.blocked && buf_len(&s->out.buf) < PENDING_MAX / 2) {
        s->out.blocked = false;
        echo_run_again(s->echo, s);
    }
    if (buf_len(&s->out.buf) || s->answer != ANSWER_DONE)
        return n ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->end_trailers && s->end_trailers->count) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(session, s);
    }
    return (ssize_t)n;
}

static nghttp2_nv *response_fields(struct client *s, const struct response_head *head, enum framing framing,
                                   size_t *count)
{
    nghttp2_nv *nv = arena_alloc(&s->arena, h2_fields_max(&head->headers) * sizeof *nv);
    *count = h2_response_fields(head, framing, &s->arena, nv);
    for (size_t i = 0; i < *count; i++)
        nv[i].flags = NGHTTP2_NV_FLAG_NONE; // copied: the date is written over each second
    return nv;
}

void h2_answer_head(struct client *s, const struct response_head *head, enum framing framing)
{
    size_t count;
    nghttp2_nv *nv = response_fields(s, head, framing, &count);
    nghttp2_session *session = s->h2->session;
    s->head_sent = head->status >= 200;
    if (head->status < 200)
        nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, s->stream, NULL, nv, count, NULL);
    else if (s->head_is_all)
        nghttp2_submit_response(session, s->stream, nv, count, NULL);
    else
        nghttp2_submit_response(session, s->stream, nv, count,
                                &(nghttp2_data_provider){.source.ptr = s, .read_callback = read_body});
}

void h2_answer_bytes(struct client *s, struct str bytes)
{
    if (!s->head_sent) { // raw HTTP/1: it has no meaning here
        h2_reset_stream(s, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    if (!out_reserve(&s->out, &s->echo->buffers, bytes.n))
        return; // broken: seen by h2_stream_run
    buf_put(&s->out.buf, bytes);
    s->out.blocked = buf_len(&s->out.buf) >= PENDING_MAX;
}

void h2_flush(struct h2 *h2)
{
    struct client *carrier = h2->carrier;
    struct echo *echo = carrier->echo;
    if (h2->busy || carrier->conn.closed)
        return;
    h2->busy = true;
    const uint8_t *data;
    ssize_t n = 0;
    while (!carrier->out.blocked && !carrier->out.broken &&
           (n = nghttp2_session_mem_send(h2->session, &data)) > 0)
        out_span(&carrier->out, &carrier->conn, &echo->buffers, (struct str){(const char *)data, (size_t)n});
    h2->busy = false;
    out_flush(&carrier->out, &carrier->conn, &echo->buffers);
    bool over = !nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session);
    if (n < 0 || carrier->out.broken || (over && out_empty(&carrier->out)))
        client_close(carrier);
}

// ---- what arrives

static struct client *stream_of(nghttp2_session *session, int32_t id)
{
    struct client *s = nghttp2_session_get_stream_user_data(session, id);
    return s && !s->conn.closed ? s : NULL;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2 *h2 = user;
    struct client *s = stream_of(session, frame->hd.stream_id);
    if (!s) {
        s = client_new(h2->carrier->echo);
        if (!s)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        s->h2 = h2;
        s->stream = frame->hd.stream_id;
        s->id = h2->carrier->id;
        s->control = h2->carrier->control;
        s->served = h2->carrier->served++;
        list_push_back(&h2->streams, &s->node);
        nghttp2_session_set_stream_user_data(session, s->stream, s);
    }
    h2_fields_init(&h2->fields, &s->arena, ECHO_HEAD_BYTES, ECHO_HEADERS);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags, void *user)
{
    struct h2 *h2 = user;
    (void)flags;
    struct client *s = stream_of(session, frame->hd.stream_id);
    if (!s)
        return 0;
    struct str field_name = {(const char *)name, name_size}, field_value = {(const char *)value, value_size};
    bool taken = frame->headers.cat == NGHTTP2_HCAT_REQUEST
                     ? h2_field(&h2->fields, field_name, field_value)
                     : h2_trailer_field(&h2->fields, field_name, field_value);
    return taken ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static void on_head(struct h2 *h2, struct client *s, bool end)
{
    if (h2_request_head(&h2->fields, end, &limits, H1_UNDERSCORES_ALLOW, &s->request) == H2_HEAD_GOOD)
        client_begin_request(s);
    else
        h2_reset_stream(s, NGHTTP2_PROTOCOL_ERROR);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2 *h2 = user;
    struct client *s = stream_of(session, frame->hd.stream_id);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (!s || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && s->state == REQUEST_HEAD)
        on_head(h2, s, end);
    else if (frame->hd.type == NGHTTP2_HEADERS)
        s->trailers = h2->fields.headers;
    if (end && !s->conn.closed && s->state == REQUEST_BODY)
        client_end_request(s);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t size,
                   void *user)
{
    (void)flags;
    (void)user;
    struct client *s = stream_of(session, id);
    nghttp2_session_consume_connection(session, size);
    if (!s || s->state != REQUEST_BODY)
        return 0;
    client_note_body(s, (struct str){(const char *)data, size});
    s->unread += (uint32_t)size; // the window opens when what it became has left: open_window
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)error;
    (void)user;
    struct client *s = nghttp2_session_get_stream_user_data(session, id);
    if (s)
        stream_gone(s);
    return 0;
}

static nghttp2_session *session_new(struct h2 *h2)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option = h2_options();
    nghttp2_session *session = NULL;
    check(option && nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    check(nghttp2_session_server_new2(&session, callbacks, h2, option) == 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    check(h2_submit_settings(session, false, ECHO_HEAD_BYTES) == 0);
    return session;
}

bool h2_preface(const struct client *c, bool *partial)
{
    static const char preface[] = NGHTTP2_CLIENT_MAGIC;
    struct str have = buf_str(&c->in);
    size_t n = have.n < NGHTTP2_CLIENT_MAGIC_LEN ? have.n : NGHTTP2_CLIENT_MAGIC_LEN;
    bool same = c->served == 0 && n > 0 && memcmp(have.p, preface, n) == 0;
    *partial = same && n < NGHTTP2_CLIENT_MAGIC_LEN;
    return same && n == NGHTTP2_CLIENT_MAGIC_LEN;
}

void h2_begin(struct client *carrier)
{
    struct h2 *h2 = calloc(1, sizeof *h2);
    check(h2);
    list_init(&h2->streams);
    h2->carrier = carrier;
    h2->session = session_new(h2);
    carrier->h2 = h2;
}

void h2_end(struct client *carrier)
{
    struct h2 *h2 = carrier->h2;
    list_each (&h2->streams, node)
        stream_gone(container_of(node, struct client, node));
    nghttp2_session_del(h2->session);
    free(h2);
}

static void run_streams(struct h2 *h2)
{
    h2->busy = true; // or one could be closed here while it is the next
    list_each (&h2->streams, node)
        h2_stream_run(container_of(node, struct client, node));
    h2->busy = false;
}

void h2_run(struct client *carrier)
{
    struct h2 *h2 = carrier->h2;
    do {
        struct str data = buf_str(&carrier->in);
        h2->busy = true;
        ssize_t n = data.n ? nghttp2_session_mem_recv(h2->session, (const uint8_t *)data.p, data.n) : 0;
        h2->busy = false;
        if (n < 0) {
            client_close(carrier);
            return;
        }
        buf_consume(&carrier->in, (size_t)n);
        run_streams(h2);
        h2_flush(h2);
    } while (!carrier->conn.closed && !carrier->out.blocked && client_receive(carrier) && !carrier->eof);
    if (carrier->eof && !carrier->conn.closed)
        client_close(carrier);
}
