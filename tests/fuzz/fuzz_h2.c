// HTTP/2: header blocks, or a whole connection. The first byte chooses which and the settings.
//
// Whatever is accepted and written for an HTTP/1 upstream is, parsed again, exactly one request that means
// the same (RFC 9113 10.3). A session with our options lives in bounded memory and ends in no other way than
// by an error of nghttp2 or by one of our accounts.
#include "h1_input.h"

#include "http/body.h"
#include "http/h2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct settings {
    struct h1_limits limits;
    enum h1_underscores underscores;
};

static struct settings settings_of(uint8_t choice)
{
    bool small = choice & 4;
    return (struct settings){
        .limits = {small ? 200 : 32768, small ? 40 : 8192, small ? 6 : 100, (choice & 8) != 0},
        .underscores = (enum h1_underscores)(choice % 3),
    };
}

// ---- heads ----

static void check_head(const struct request_head *head, const struct settings *settings, bool end_stream)
{
    check(header_name_valid(head->method_name) && head->method != METHOD_CONNECT);
    check(head->method == http_method_of(head->method_name));
    check(head->target.n > 0 && head->target.n <= settings->limits.uri_bytes);
    check(head->headers.count <= settings->limits.headers + 1); // and Host
    check(head->http2 && head->minor == 1 && head->authority.n);
    check_headers(&head->headers);
    check(uri_query_valid(head->query));
    check(head->framing != FRAMING_CHUNKED || !end_stream);
    check(!(end_stream && head->content_length));
    check(head->extended_connect == (head->upgrade.n > 0));
    unsigned hosts = 0, cookies = 0, lengths = 0;
    for (uint32_t i = 0; i < head->headers.count; i++) {
        const struct header *h = &head->headers.v[i];
        hosts += h->id == HEADER_HOST;
        cookies += h->id == HEADER_COOKIE;
        lengths += h->id == HEADER_CONTENT_LENGTH;
        check(h->id != HEADER_TRANSFER_ENCODING && h->id != HEADER_CONNECTION && h->id != HEADER_UPGRADE);
        for (size_t j = 0; j < h->name.n; j++)
            check(h->name.p[j] == ascii_lower(h->name.p[j]));
    }
    check(hosts == 1 && cookies <= 1 && lengths == (head->framing == FRAMING_LENGTH));
}

// As the gateway sends it on.
static struct buf write_anew(struct request_head *head, struct arena *arena)
{
    headers_remove_hop_by_hop(&head->headers);
    headers_remove(&head->headers, HEADER_CONTENT_LENGTH);
    struct str target = head->path;
    if (head->has_query)
        target = arena_printf(arena, "%.*s?%.*s", STR_ARG(head->path), STR_ARG(head->query));
    struct buf buf = exact_buf(h1_request_size(head, target));
    h1_write_request(&buf, head, target, head->framing, head->upgrade.n > 0);
    return buf;
}

static void check_is_one_request(struct request_head *head, const struct settings *settings,
                                 struct arena *arena)
{
    struct h1_limits wide = {1 << 24, 1 << 24, 1 << 20, settings->limits.merge_slashes};
    struct h1_parse parse = {0};
    struct request_head again;
    struct buf buf = write_anew(head, arena);
    check(h1_parse_request(&parse, buf.base, buf.end, &wide, H1_UNDERSCORES_ALLOW, arena, &again) == H1_DONE);
    check(parse.consumed == buf.end);
    check(str_eq(again.method_name, head->method_name));
    check(str_eq(again.authority, head->authority) && str_eq(again.host, head->host));
    check(str_eq(again.path, head->path) && str_eq(again.query, head->query));
    check(again.has_query == head->has_query && again.minor == 1);
    check(again.framing == head->framing && again.content_length == head->content_length);
    check(str_eq(again.upgrade, head->upgrade));
    headers_remove_hop_by_hop(&again.headers);
    headers_remove(&again.headers, HEADER_CONTENT_LENGTH);
    check_same_headers(&again.headers, &head->headers);
    free(buf.base);
}

// True: it was taken.
static bool check_request(struct h2_fields *fields, bool end_stream, const struct settings *settings,
                          struct request_head *head)
{
    switch (h2_request_head(fields, end_stream, &settings->limits, settings->underscores, head)) {
    case H2_HEAD_MALFORMED: check(fields->fault == H1_BAD_REQUEST && fields->why); return false;
    case H2_HEAD_REFUSED: check(fields->fault && fields->why); return false;
    case H2_HEAD_GOOD: break;
    }
    check(!fields->fault);
    check_head(head, settings, end_stream);
    check_is_one_request(head, settings, fields->arena);
    return true;
}

static void check_response(struct h2_fields *fields, bool end_stream, enum http_method method)
{
    struct response_head head;
    if (h2_response_head(fields, end_stream, method, &head) != H2_HEAD_GOOD) {
        check(fields->fault && fields->why);
        return;
    }
    check(head.status >= 100 && head.status <= 599 && head.status != 101);
    check(!end_stream || head.framing == FRAMING_NONE);
    check_headers(&head.headers);
    nghttp2_nv *nv = arena_alloc(fields->arena, h2_fields_max(&head.headers) * sizeof *nv);
    check(h2_response_fields(&head, FRAMING_LENGTH, fields->arena, nv) <= h2_fields_max(&head.headers));
}

static void check_trailers(const struct h2_fields *fields)
{
    if (fields->fault)
        return;
    check_headers(&fields->headers);
    for (uint32_t i = 0; i < fields->headers.count; i++)
        check(!body_forbids_trailer(fields->headers.v[i].name));
}

// A block of fields, each two lengths and two strings.
static void run_block(const uint8_t *data, size_t n, uint8_t choice)
{
    enum kind { REQUEST, RESPONSE, TRAILERS, KINDS } kind = (enum kind)(choice >> 4 & 7) % KINDS;
    struct settings settings = settings_of(choice);
    struct arena arena;
    struct h2_fields fields;
    struct request_head head;
    bool whole = true;
    arena_init(&arena, NULL);
    h2_fields_init(&fields, &arena, settings.limits.head_bytes, settings.limits.headers);
    while (whole && n > 2) {
        size_t name_n = data[0], value_n = data[1];
        data += 2;
        n -= 2;
        name_n = name_n < n ? name_n : n;
        value_n = value_n < n - name_n ? value_n : n - name_n;
        char *name = exact_copy((const char *)data, name_n);
        char *value = exact_copy((const char *)data + name_n, value_n);
        whole = kind == TRAILERS
                    ? h2_trailer_field(&fields, (struct str){name, name_n}, (struct str){value, value_n})
                    : h2_field(&fields, (struct str){name, name_n}, (struct str){value, value_n});
        free(name);
        free(value);
        data += name_n + value_n;
        n -= name_n + value_n;
    }
    bool end_stream = choice & 1;
    if (kind == REQUEST)
        check_request(&fields, end_stream, &settings, &head);
    else if (kind == RESPONSE)
        check_response(&fields, end_stream, choice & 2 ? METHOD_HEAD : METHOD_GET);
    else
        check_trailers(&fields);
    arena_reset(&arena);
}

// ---- a connection ----

struct connection {
    struct arena arena;
    struct settings settings;
    struct h2_fields fields; // of the block that is being decoded
    struct h2_guard guard;
    uint64_t now_us;
    uint32_t live;
    bool flooded;
};

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct connection *c = context;
    (void)session;
    bool trailers = frame->headers.cat == NGHTTP2_HCAT_HEADERS;
    c->live += !trailers;
    check(c->live <= H2_STREAMS);
    h2_fields_init(&c->fields, &c->arena, trailers ? TRAILER_BYTES : c->settings.limits.head_bytes,
                   trailers ? TRAILER_FIELDS : c->settings.limits.headers);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *context)
{
    struct connection *c = context;
    (void)session, (void)flags;
    struct str key = {(const char *)name, name_n}, text = {(const char *)value, value_n};
    bool trailers = frame->headers.cat == NGHTTP2_HCAT_HEADERS;
    bool whole = trailers ? h2_trailer_field(&c->fields, key, text) : h2_field(&c->fields, key, text);
    c->flooded |= !whole;
    return whole ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int note(struct connection *c, enum h2_event event)
{
    if (event == H2_EVENTS || h2_guard_note(&c->guard, event, c->now_us))
        return 0;
    c->flooded = true;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *frame, void *context)
{
    (void)session;
    return note(context, h2_event_of(frame));
}

static int answer(nghttp2_session *session, int32_t stream, struct connection *c)
{
    struct response_head head = {.status = 200};
    headers_add(&head.headers, &c->arena, STR("Server"), STR("fuzz"));
    nghttp2_nv nv[8];
    return nghttp2_submit_response(session, stream, nv,
                                   h2_response_fields(&head, FRAMING_NONE, &c->arena, nv), NULL);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct connection *c = context;
    struct request_head head;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    bool end_stream = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->headers.cat == NGHTTP2_HCAT_HEADERS) {
        check_trailers(&c->fields);
        return 0;
    }
    if (check_request(&c->fields, end_stream, &c->settings, &head))
        return answer(session, frame->hd.stream_id, c);
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_PROTOCOL_ERROR);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t n,
                   void *context)
{
    (void)flags, (void)data, (void)context;
    return nghttp2_session_consume(session, stream, n);
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *context)
{
    struct connection *c = context;
    (void)session, (void)stream, (void)error;
    check(c->live > 0);
    c->live--;
    return 0;
}

static int unpack_extension(nghttp2_session *session, void **payload, const nghttp2_frame_hd *frame,
                            void *context)
{
    (void)session, (void)frame, (void)context;
    *payload = NULL;
    return 0;
}

static nghttp2_session *open_session(struct connection *c)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *session;
    nghttp2_option *options = h2_options();
    check(options && nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, unpack_extension);
    check(nghttp2_session_server_new2(&session, callbacks, c, options) == 0);
    check(h2_submit_settings(session, false, c->settings.limits.head_bytes) == 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(options);
    return session;
}

// Everything that wants to be sent is thrown away.
static bool drain(nghttp2_session *session)
{
    const uint8_t *out;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(session, &out)) > 0)
        continue;
    return n == 0;
}

static void run_connection(const uint8_t *data, size_t n, uint8_t choice, size_t step)
{
    struct connection c = {.settings = settings_of(choice), .now_us = 1};
    arena_init(&c.arena, NULL);
    nghttp2_session *session = open_session(&c);
    bool going = nghttp2_session_mem_recv(session, (const uint8_t *)NGHTTP2_CLIENT_MAGIC,
                                          NGHTTP2_CLIENT_MAGIC_LEN) == NGHTTP2_CLIENT_MAGIC_LEN;
    while (going && n) {
        size_t part = n < step ? n : step;
        char *copy = exact_copy((const char *)data, part);
        ssize_t taken = nghttp2_session_mem_recv(session, (const uint8_t *)copy, part);
        free(copy);
        going = taken == (ssize_t)part && drain(session);
        data += part;
        n -= part;
        c.now_us += 1000;
    }
    nghttp2_session_del(session);
    arena_reset(&c.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    if (data[0] & 0x80)
        run_connection(data + 2, n - 2, data[0], data[1] ? (size_t)data[1] * 8 : 1);
    else
        run_block(data + 1, n - 1, data[0]);
    return 0;
}
