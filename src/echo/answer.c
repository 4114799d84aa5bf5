#include "echo/echo.h"

#include <stdio.h>

static void add(struct client *c, struct headers *headers, const char *name, struct str value)
{
    headers_add(headers, &c->arena, str_of(name), value);
}

// ?set=Name:value, as often as wanted: more fields for the answer.
static void add_asked(struct client *c, struct headers *headers)
{
    struct str rest = c->request.query, value;
    while (query_next(&rest, STR("set"), &value)) {
        value = query_decode(value, &c->arena);
        struct str name = {value.p, str_find(value, ':')};
        if (name.n == value.n)
            continue;
        enum header_id id = header_id_of(name);
        value = str_trim(str_skip(value, name.n + 1));
        if (id != HEADER_CONTENT_LENGTH && id != HEADER_TRANSFER_ENCODING && header_name_valid(name) &&
            header_value_valid(value))
            headers_add(headers, &c->arena, name, value);
    }
}

static bool is_bodiless(const struct client *c, unsigned status)
{
    return c->request.method == METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

static struct str connection_value(const struct client *c)
{
    if (!c->keep)
        return STR("close");
    return c->request.minor == 0 ? STR("keep-alive") : STR_NULL;
}

static void write_head(struct client *c, struct response_head *head, enum framing framing,
                       struct str connection)
{
    if (c->stream)
        h2_answer_head(c, head, framing);
    else if (out_reserve(&c->out, &c->echo->buffers, h1_response_size(head)))
        h1_write_response(&c->out.buf, head, framing, connection);
}

void answer_head_with(struct client *c, unsigned status, struct str type, struct headers *more,
                      enum framing framing, uint64_t length)
{
    if (status == 200 && c->status)
        status = c->status;
    if (framing == FRAMING_CHUNKED && c->request.minor == 0)
        framing = FRAMING_CLOSE;
    if (c->stream && framing != FRAMING_LENGTH)
        framing = FRAMING_NONE; // HTTP/2's own
    if (framing == FRAMING_CLOSE)
        c->keep = false;
    struct response_head head = {.status = status, .reason = http_reason(status), .content_length = length};
    if (more)
        head.headers = *more;
    headers_add_id(&head.headers, &c->arena, HEADER_DATE, echo_date(c->echo));
    if (type.n)
        add(c, &head.headers, "Content-Type", type);
    add(c, &head.headers, "X-Served-By", c->echo->name);
    if (c->request.has_query)
        add_asked(c, &head.headers);
    c->head_only = is_bodiless(c, status);
    c->framing = framing;
    c->answer = ANSWER_GOING;
    bool no_framing = status < 200 || status == 204 || status == 304; // RFC 9110 8.6, 9112 6.1
    write_head(c, &head, no_framing ? FRAMING_NONE : framing, connection_value(c));
}

void answer_head(struct client *c, unsigned status, struct str type, enum framing framing, uint64_t length)
{
    answer_head_with(c, status, type, NULL, framing, length);
}

void answer_informational(struct client *c, unsigned status, const struct headers *headers)
{
    if (c->request.minor == 0)
        return; // RFC 9110 15.2
    struct response_head head = {.status = status, .reason = http_reason(status)};
    if (headers)
        head.headers = *headers;
    write_head(c, &head, FRAMING_NONE, STR_NULL);
}

void answer_raw(struct client *c, struct str bytes)
{
    if (c->stream) {
        h2_answer_bytes(c, bytes);
        return;
    }
    c->answer = ANSWER_GOING;
    out_span(&c->out, &c->conn, &c->echo->buffers, bytes);
}

void answer_span(struct client *c, struct str span)
{
    if (c->head_only || !span.n)
        return;
    char head[CHUNK_HEAD_MAX];
    if (c->framing == FRAMING_CHUNKED)
        answer_raw(c, (struct str){head, h1_write_chunk_head(span.n, head)});
    answer_raw(c, span);
    if (c->framing == FRAMING_CHUNKED)
        answer_raw(c, STR("\r\n"));
}

void answer_end(struct client *c, const struct headers *trailers)
{
    static const struct headers none;
    if (c->stream)
        h2_answer_end(c, trailers);
    if (c->framing == FRAMING_CHUNKED && !c->head_only) {
        trailers = trailers ? trailers : &none;
        if (out_reserve(&c->out, &c->echo->buffers, h1_trailers_size(trailers)))
            h1_write_last_chunk(&c->out.buf, trailers);
    }
    c->answer = ANSWER_DONE;
}

void answer_produce(struct client *c, enum produced (*produce)(struct client *c))
{
    c->answer = ANSWER_GOING;
    c->produce = produce;
}

// ---- a body at a slow pace

enum { PIECES = 10 };

static void next_piece(struct client *c)
{
    client_run(c);
}

static enum produced produce_pieces(struct client *c)
{
    size_t piece = c->chunk < c->text.n ? c->chunk : c->text.n;
    answer_span(c, (struct str){c->text.p, piece});
    c->text = str_skip(c->text, piece);
    if (!c->text.n) {
        answer_end(c, NULL);
        return PRODUCE_ENDED;
    }
    client_wait(c, c->pace_ms, next_piece);
    return PRODUCE_WAITS;
}

void answer_text(struct client *c, unsigned status, struct str type, struct str body)
{
    answer_head(c, status, type, FRAMING_LENGTH, body.n);
    if (c->pace_ms && body.n && !c->head_only) {
        c->text = arena_copy(&c->arena, body);
        c->chunk = (body.n + PIECES - 1) / PIECES;
        answer_produce(c, produce_pieces);
        return;
    }
    answer_span(c, body);
    answer_end(c, NULL);
}

void answer_json(struct client *c, unsigned status)
{
    buf_append(&c->echo->json, STR("\n"));
    answer_text(c, status, STR("application/json"), buf_str(&c->echo->json));
}

void answer_grpc(struct client *c, unsigned grpc_status)
{
    char text[16];
    struct headers fields = {0};
    int n = snprintf(text, sizeof text, "%u", grpc_status);
    headers_add(&fields, &c->arena, STR("grpc-status"), arena_copy(&c->arena, (struct str){text, (size_t)n}));
    if (c->head_sent) {
        answer_end(c, &fields);
        return;
    }
    c->head_is_all = true;
    answer_head_with(c, 200, STR("application/grpc"), &fields, FRAMING_CHUNKED, 0);
    answer_end(c, NULL);
}

// ---- what follows the last byte

// A reset right behind bytes may overtake them.
enum { RESET_AFTER_MS = 20 };

void answer_then(struct client *c, enum afterwards then)
{
    if (then == THEN_CLOSE && c->stream)
        then = THEN_RESET; // the end of a stream would make it whole
    switch (then) {
    case THEN_KEEP: c->answer = ANSWER_DONE; break;
    case THEN_CLOSE:
        c->answer = ANSWER_DONE;
        c->keep = false;
        break;
    case THEN_RESET:
        c->answer = ANSWER_GOING;
        client_wait(c, RESET_AFTER_MS, client_reset);
        break;
    case THEN_HANG:
        c->answer = ANSWER_GOING;
        c->waiting = true;
        break;
    }
}

// ---- filler

enum { FILLER_BYTES = ANSWER_PERIOD * 2520 }; // just below 64 KiB
static char filler[FILLER_BYTES];

__attribute__((constructor)) static void fill(void)
{
    for (unsigned i = 0; i < FILLER_BYTES; i++)
        filler[i] = (char)('a' + i % ANSWER_PERIOD);
}

struct str answer_filler(uint64_t offset, uint64_t n)
{
    size_t from = (size_t)(offset % ANSWER_PERIOD), room = FILLER_BYTES - from;
    return (struct str){filler + from, n < room ? (size_t)n : room};
}
