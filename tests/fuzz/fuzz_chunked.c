// Chunked bodies. The first byte chooses how the rest is split.
//
// Read at once or in parts, with or without a place for trailers, the body is the same bytes of the input, in
// order, never more. What was read, written as chunks of our own, is read again as the same.
#include "h1_input.h"
#include "http/body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct outcome {
    enum body_result result;
    size_t consumed;
    struct buf body;
    struct headers trailers;
};

static void read_all(const char *data, size_t n, size_t first, size_t step, bool keep_trailers,
                     struct arena *arena, struct outcome *out)
{
    struct body_reader reader;
    body_reader_init(&reader, FRAMING_CHUNKED, 0);
    *out = (struct outcome){.result = BODY_MORE};
    for (size_t have = first < n ? first : n;; have = n - have > step ? have + step : n) {
        size_t part = have - out->consumed, at = 0, consumed;
        char *copy = exact_copy(data + out->consumed, part);
        do {
            struct str span;
            out->result = body_read(&reader, copy + at, part - at, &consumed, &span,
                                    keep_trailers ? &out->trailers : NULL, keep_trailers ? arena : NULL);
            check(consumed <= part - at);
            check((out->result == BODY_SPAN) == (span.n > 0));
            check(out->result != BODY_SPAN || span.p + span.n == copy + at + consumed);
            check(out->result != BODY_MORE || at + consumed == part);
            buf_append(&out->body, span);
            at += consumed;
        } while (out->result == BODY_SPAN);
        free(copy);
        out->consumed += at;
        check(reader.done == (out->result == BODY_DONE));
        check(reader.body_bytes == out->body.end && reader.body_bytes <= n);
        check(reader.extension_bytes <= CHUNK_EXTENSION_BYTES + 1 &&
              reader.trailer_bytes <= TRAILER_BYTES + 1);
        if (out->result != BODY_MORE || have == n)
            return;
    }
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    check(a->result == b->result && a->consumed == b->consumed);
    check(str_eq(buf_str(&a->body), buf_str(&b->body)));
}

static void put_chunk(struct buf *buf, struct str body)
{
    char head[CHUNK_HEAD_MAX];
    if (!body.n)
        return;
    buf_append(buf, (struct str){head, h1_write_chunk_head(body.n, head)});
    buf_append(buf, body);
    buf_append(buf, STR("\r\n"));
}

// In two chunks, and the trailers.
static void check_rewritten(const struct outcome *first, size_t split, struct arena *arena)
{
    struct buf text = {0};
    struct outcome again;
    struct str body = buf_str(&first->body);
    size_t cut = split < body.n ? split : body.n;
    put_chunk(&text, (struct str){body.p, cut});
    put_chunk(&text, str_skip(body, cut));
    struct buf last = exact_buf(h1_trailers_size(&first->trailers));
    h1_write_last_chunk(&last, &first->trailers);
    buf_append(&text, buf_str(&last));
    read_all(text.base, text.end, text.end, 1, true, arena, &again);
    check(again.result == BODY_DONE && again.consumed == text.end);
    check(str_eq(buf_str(&again.body), body));
    check_same_headers(&again.trailers, &first->trailers);
    buf_free(&again.body);
    buf_free(&text);
    free(last.base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1)
        return 0;
    size_t split = data[0], step = n < 2000 ? 1 + split % 5 : 1 + split;
    const char *text = (const char *)data + 1;
    n--;
    struct arena arena;
    struct outcome at_once, parts, plain;
    arena_init(&arena, NULL);
    read_all(text, n, n, 1, true, &arena, &at_once);
    read_all(text, n, split, step, true, &arena, &parts);
    read_all(text, n, split, step, false, &arena, &plain);
    check_same(&at_once, &parts);
    check_same(&at_once, &plain);
    check_same_headers(&at_once.trailers, &parts.trailers);
    check_headers(&at_once.trailers);
    check(at_once.trailers.count <= TRAILER_FIELDS);
    for (uint32_t i = 0; i < at_once.trailers.count; i++)
        check(at_once.trailers.v[i].id == HEADER_OTHER);
    if (at_once.result == BODY_DONE)
        check_rewritten(&at_once, split, &arena);
    buf_free(&at_once.body);
    buf_free(&parts.body);
    buf_free(&plain.body);
    arena_reset(&arena);
    return 0;
}
