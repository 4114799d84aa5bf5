// The probe over HTTP/2: a client session with one stream, and GET on it.
#include "upstream/health_h2.h"

#include "net/tls.h"
#include "upstream/upstream.h"

// ---- what nghttp2 tells ----

static int over_or_ok(const struct probe *probe)
{
    return probe_is_over(probe) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session, (void)frame;
    struct probe *probe = context;
    h2_fields_init(&probe->h2->fields, &probe->arena, HEALTH_HEAD_BYTES, HEALTH_HEAD_FIELDS);
    return over_or_ok(probe);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *context)
{
    (void)session, (void)frame, (void)flags;
    struct probe *probe = context;
    struct h2_probe *h2 = probe->h2;
    struct str n = {(const char *)name, name_n}, v = {(const char *)value, value_n};
    if (!(h2->has_head ? h2_trailer_field(&h2->fields, n, v) : h2_field(&h2->fields, n, v)))
        probe_fail(probe, "bad response", "its head is too large");
    return over_or_ok(probe);
}

// Else nghttp2 would leave the field out without a word.
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                             void *context)
{
    (void)session, (void)frame, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags;
    struct probe *probe = context;
    probe_fail(probe, "bad response", "malformed header field");
    return over_or_ok(probe);
}

static void take_head(struct probe *probe, bool end)
{
    struct h2_probe *h2 = probe->h2;
    struct response_head head;
    if (h2_response_head(&h2->fields, end, METHOD_GET, &head) != H2_HEAD_GOOD) {
        probe_fail(probe, "bad response", h2->fields.why);
    } else if (head.status >= 200) {
        h2->has_head = true;
        h2->events->on_head(probe, &head, end);
    } else if (++h2->interim > INFORMATIONAL_MAX) {
        probe_fail(probe, "bad response", "too many interim responses");
    }
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session;
    struct probe *probe = context;
    struct h2_probe *h2 = probe->h2;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_HEADERS && !h2->has_head)
        take_head(probe, end);
    else if (frame->hd.type == NGHTTP2_HEADERS && h2->fields.fault)
        probe_fail(probe, "bad response", h2->fields.why);
    else if (frame->hd.type == NGHTTP2_HEADERS)
        h2->events->on_end(probe, &h2->fields.headers);
    else if (frame->hd.type == NGHTTP2_DATA && end)
        h2->events->on_end(probe, NULL);
    return over_or_ok(probe);
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                         size_t n, void *context)
{
    (void)session, (void)flags, (void)stream;
    struct probe *probe = context;
    probe->h2->events->on_body(probe, (struct str){(const char *)data, n});
    return over_or_ok(probe);
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *context)
{
    (void)session, (void)stream;
    struct probe *probe = context;
    probe_say(probe, PROBE_BAD, "receive: the stream was closed: %s", nghttp2_http2_strerror(error));
    return over_or_ok(probe);
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *context)
{
    (void)session, (void)frame;
    struct probe *probe = context;
    probe_fail(probe, "bad response", nghttp2_strerror(error));
    return over_or_ok(probe);
}

// nghttp2 ends the session or the stream for what the peer has done: it knows best why.
static int before_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    (void)session;
    struct probe *probe = context;
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        probe_say(probe, PROBE_BAD, "bad response: not HTTP/2: %.*s (%s)", (int)frame->goaway.opaque_data_len,
                  (const char *)frame->goaway.opaque_data, nghttp2_http2_strerror(frame->goaway.error_code));
    else if (frame->hd.type == NGHTTP2_RST_STREAM)
        probe_say(probe, PROBE_BAD, "bad response: not HTTP/2: %s",
                  nghttp2_http2_strerror(frame->rst_stream.error_code));
    return over_or_ok(probe);
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *context)
{
    (void)session, (void)stream, (void)source;
    struct str *body = &((struct probe *)context)->h2->body;
    size_t n = body->n < room ? body->n : room;
    memcpy(out, body->p, n);
    *body = str_skip(*body, n);
    if (!body->n)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

// ---- the session ----

static nghttp2_session_callbacks *callbacks_new(void)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_before_frame_send_callback(callbacks, before_frame_send);
    return callbacks;
}

static nghttp2_session *session_new(struct probe *probe)
{
    nghttp2_session *session = NULL;
    nghttp2_session_callbacks *callbacks = callbacks_new();
    nghttp2_option *options = h2_options();
    if (callbacks && options && nghttp2_session_client_new2(&session, callbacks, probe, options) != 0)
        session = NULL;
    nghttp2_option_del(options);
    nghttp2_session_callbacks_del(callbacks);
    return session;
}

bool h2_probe_begin(struct probe *probe, const struct h2_probe_events *events,
                    const struct request_head *request, struct str target, bool te_trailers, struct str body)
{
    struct h2_probe *h2 = probe->h2;
    *h2 = (struct h2_probe){.session = session_new(probe), .events = events, .body = body};
    if (!h2->session)
        return false;
    nghttp2_nv *fields = arena_array(&probe->arena, nghttp2_nv, h2_fields_max(&request->headers));
    size_t count =
        h2_request_fields(request, probe->question->tls ? STR("https") : STR("http"), target,
                          body.n ? FRAMING_CHUNKED : FRAMING_NONE, te_trailers, &probe->arena, fields);
    nghttp2_data_provider provider = {.read_callback = read_body};
    return h2_submit_settings(h2->session, true, HEALTH_HEAD_BYTES) == 0 &&
           nghttp2_submit_request(h2->session, NULL, fields, count, body.n ? &provider : NULL, NULL) > 0;
}

void h2_probe_ask(struct probe *probe)
{
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(probe->h2->session, &bytes);
    if (n < 0 && !probe_is_over(probe))
        probe_fail(probe, "send", nghttp2_strerror((int)n));
    else if (n > 0)
        buf_append(&probe->out, (struct str){(const char *)bytes, (size_t)n});
}

void h2_probe_hear(struct probe *probe)
{
    ssize_t n = nghttp2_session_mem_recv(probe->h2->session, (const uint8_t *)probe->data, probe->received);
    probe->received = 0;
    if (n < 0)
        probe_fail(probe, "bad response", nghttp2_strerror((int)n));
}

void h2_probe_fini(struct probe *probe)
{
    nghttp2_session_del(probe->h2->session);
}

// ---- GET ----

static void judge_head(struct probe *probe, const struct response_head *head, bool end)
{
    (void)end;
    probe_judge_status(probe, head->status);
}

static const struct h2_probe_events get_events = {.on_head = judge_head};

static bool begin_get(struct probe *probe)
{
    probe->h2 = arena_new(&probe->arena, struct h2_probe);
    struct request_head request = {.method = METHOD_GET};
    struct headers *headers = &request.headers;
    headers_add(headers, &probe->arena, STR("host"), probe_authority(probe));
    headers_add(headers, &probe->arena, STR("user-agent"), STR("sallyport-health"));
    headers_add(headers, &probe->arena, STR("accept"), STR("*/*"));
    return h2_probe_begin(probe, &get_events, &request, probe->question->path, false, STR_NULL);
}

const struct probe_kind probe_h2 = {
    .name = "h2", .begin = begin_get, .ask = h2_probe_ask, .hear = h2_probe_hear, .fini = h2_probe_fini};
