// Response heads. The first byte chooses the request's method and the limits, the second how the rest is
// split. The same promises as for requests: no split and no scanner changes the outcome, and what is accepted
// means the same when it is written anew.
#include "h1_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct outcome {
    enum h1_result result;
    struct h1_parse parse;
    struct response_head head;
};

static void parse_prefixes(const char *data, size_t n, size_t first, size_t step,
                           const struct h1_limits *limits, enum http_method method, struct arena *arena,
                           struct outcome *out)
{
    out->parse = (struct h1_parse){0};
    for (size_t have = first < n ? first : n;; have = n - have > step ? have + step : n) {
        char *copy = exact_copy(data, have);
        out->result = h1_parse_response(&out->parse, copy, have, limits, method, arena, &out->head);
        free(copy);
        if (out->result != H1_MORE || have == n)
            return;
    }
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    check(a->result == b->result);
    if (a->result == H1_FAULT)
        check(a->parse.fault == H1_BAD_RESPONSE && b->parse.fault == H1_BAD_RESPONSE &&
              strcmp(a->parse.why, b->parse.why) == 0);
    if (a->result != H1_DONE)
        return;
    check(a->parse.consumed == b->parse.consumed);
    check(a->head.status == b->head.status && a->head.minor == b->head.minor);
    check(str_eq(a->head.reason, b->head.reason));
    check(a->head.framing == b->head.framing && a->head.content_length == b->head.content_length);
    check(a->head.has_length == b->head.has_length && a->head.keep_alive == b->head.keep_alive);
    check_same_headers(&a->head.headers, &b->head.headers);
}

static void check_head(const struct response_head *head, enum http_method method)
{
    check(head->status >= 100 && head->status <= 599);
    check(header_value_valid(head->reason));
    check_headers(&head->headers);
    bool chunked = headers_find(&head->headers, HEADER_TRANSFER_ENCODING) != NULL;
    bool length = headers_find(&head->headers, HEADER_CONTENT_LENGTH) != NULL;
    check(!(chunked && length) && length == head->has_length);
    check(!head->keep_alive || (head->framing != FRAMING_CLOSE && head->framing != FRAMING_TUNNEL));
    bool bodiless = method == METHOD_HEAD || head->status < 200 || head->status == 204 || head->status == 304;
    check((head->framing == FRAMING_CHUNKED || head->framing == FRAMING_LENGTH ||
           head->framing == FRAMING_CLOSE) == !(bodiless || head->framing == FRAMING_TUNNEL));
    check((head->status == 101) <= (head->framing == FRAMING_TUNNEL));
}

static void check_rewritten(struct response_head *head, enum http_method method, struct arena *arena)
{
    static const struct h1_limits wide = {1 << 24, 1 << 24, 1 << 20, false};
    struct outcome again;
    headers_remove_hop_by_hop(&head->headers);
    if (head->framing == FRAMING_LENGTH)
        headers_remove(&head->headers, HEADER_CONTENT_LENGTH);
    struct buf buf = exact_buf(h1_response_size(head));
    h1_write_response(&buf, head, head->framing, head->keep_alive ? STR_NULL : STR("close"));
    parse_prefixes(buf.base, buf.end, buf.end, 1, &wide, method, arena, &again);
    check(again.result == H1_DONE && again.parse.consumed == buf.end);
    check(again.head.status == head->status && again.head.framing == head->framing);
    check(again.head.content_length == head->content_length && again.head.has_length == head->has_length);
    check(again.head.keep_alive == head->keep_alive);
    check(head->reason.n == 0 || str_eq(head->reason, again.head.reason));
    headers_remove_hop_by_hop(&again.head.headers);
    if (head->framing == FRAMING_LENGTH)
        headers_remove(&again.head.headers, HEADER_CONTENT_LENGTH);
    check_same_headers(&again.head.headers, &head->headers);
    free(buf.base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    bool small = data[0] & 128;
    struct h1_limits limits = {small ? 150 : 32768, 1, small ? 5 : 100, false};
    enum http_method method = (enum http_method)(data[0] % METHOD_COUNT);
    size_t split = data[1];
    const char *text = (const char *)data + 2;
    n -= 2;

    struct arena arena;
    struct outcome at_once, other;
    struct h1_scanner chosen = h1_scan;
    arena_init(&arena, NULL);
    parse_prefixes(text, n, n, 1, &limits, method, &arena, &at_once);
    for (const struct h1_scanner *scanner = h1_scanners; scanner->name; scanner++) {
        if (!scanner->usable())
            continue;
        h1_scan = *scanner;
        parse_prefixes(text, n, n, 1, &limits, method, &arena, &other);
        check_same(&at_once, &other);
        if (scanner == &h1_scanners[split % SCANNERS]) {
            parse_prefixes(text, n, split, n < 1000 ? 1 + split % 8 : 64 + split, &limits, method, &arena,
                           &other);
            check_same(&at_once, &other);
        }
    }
    h1_scan = chosen;
    if (at_once.result == H1_DONE) {
        check(at_once.parse.consumed <= n && at_once.parse.consumed <= limits.head_bytes);
        check_head(&at_once.head, method);
        check_rewritten(&at_once.head, method, &arena);
    } else {
        check(at_once.result == H1_FAULT || n <= limits.head_bytes);
    }
    arena_reset(&arena);
    return 0;
}
