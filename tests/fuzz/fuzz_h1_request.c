// Request heads. The first byte chooses the settings, the second how the rest is split.
//
// Whatever the split and whichever the scanner, the outcome is the same. A head that is accepted holds
// nothing that the strict grammar forbids; written anew and parsed again it means the same.
#include "h1_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct outcome {
    enum h1_result result;
    struct h1_parse parse;
    struct request_head head;
};

struct settings {
    struct h1_limits limits;
    enum h1_underscores underscores;
};

// Parses data in growing prefixes: first, then each step more.
static void parse_prefixes(const char *data, size_t n, size_t first, size_t step,
                           const struct settings *settings, struct arena *arena, struct outcome *out)
{
    out->parse = (struct h1_parse){0};
    for (size_t have = first < n ? first : n;; have = n - have > step ? have + step : n) {
        char *copy = exact_copy(data, have);
        out->result = h1_parse_request(&out->parse, copy, have, &settings->limits, settings->underscores,
                                       arena, &out->head);
        free(copy);
        if (out->result != H1_MORE || have == n)
            return;
    }
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    check(a->result == b->result);
    if (a->result == H1_FAULT) {
        check(a->parse.fault == b->parse.fault);
        check(strcmp(a->parse.why, b->parse.why) == 0);
    }
    if (a->result != H1_DONE)
        return;
    check(a->parse.consumed == b->parse.consumed);
    check(str_eq(a->head.method_name, b->head.method_name) && a->head.method == b->head.method);
    check(str_eq(a->head.target, b->head.target));
    check(str_eq(a->head.authority, b->head.authority) && str_eq(a->head.host, b->head.host));
    check(str_eq(a->head.path, b->head.path) && str_eq(a->head.query, b->head.query));
    check(a->head.has_query == b->head.has_query && a->head.minor == b->head.minor);
    check(a->head.framing == b->head.framing && a->head.content_length == b->head.content_length);
    check(a->head.keep_alive == b->head.keep_alive && a->head.expect_continue == b->head.expect_continue);
    check(str_eq(a->head.upgrade, b->head.upgrade));
    check_same_headers(&a->head.headers, &b->head.headers);
}

static void check_head(const struct request_head *head, const struct settings *settings, struct arena *arena)
{
    struct str host, port, again;
    const char *why;
    check(header_name_valid(head->method_name));
    check(head->target.n <= settings->limits.uri_bytes && head->target.n > 0);
    check(head->headers.count <= settings->limits.headers + 1); // and Host of an absolute-form
    check_headers(&head->headers);
    if (!str_eq(head->path, STR("*")))
        check(uri_normalise_path(head->path, settings->limits.merge_slashes, arena, &again, &why) == URI_OK &&
              str_eq(again, head->path));
    check(uri_query_valid(head->query));
    check(head->has_query || head->query.n == 0);
    check(head->minor == 0 || head->authority.n);
    if (head->authority.n) {
        check(uri_authority_split(head->authority, &host, &port));
        check(str_eq_fold(host, head->host));
        check(str_eq(headers_find(&head->headers, HEADER_HOST)->value, head->authority));
    }
    bool chunked = headers_find(&head->headers, HEADER_TRANSFER_ENCODING) != NULL;
    bool length = headers_find(&head->headers, HEADER_CONTENT_LENGTH) != NULL;
    check(!(chunked && length));
    check((head->framing == FRAMING_CHUNKED) == chunked && (head->framing == FRAMING_LENGTH) == length);
    check(head->content_length <= INT64_MAX);
    for (size_t i = 0; i < head->host.n; i++)
        check(head->host.p[i] == ascii_lower(head->host.p[i]));
}

// As the gateway sends it on.
static struct buf write_anew(struct request_head *head, struct arena *arena)
{
    headers_remove_hop_by_hop(&head->headers);
    headers_remove(&head->headers, HEADER_CONTENT_LENGTH);
    if (!head->authority.n)
        headers_add_id(&head->headers, arena, HEADER_HOST, STR("h"));
    struct str target = head->path;
    if (head->has_query)
        target = arena_printf(arena, "%.*s?%.*s", STR_ARG(head->path), STR_ARG(head->query));
    struct buf buf = exact_buf(h1_request_size(head, target));
    h1_write_request(&buf, head, target, head->framing, head->upgrade.n > 0);
    return buf;
}

static void check_rewritten(struct request_head *head, const struct settings *settings, struct arena *arena)
{
    struct settings wide = {.limits = {1 << 24, 1 << 24, 1 << 20, settings->limits.merge_slashes},
                            .underscores = H1_UNDERSCORES_ALLOW};
    struct outcome again;
    struct buf buf = write_anew(head, arena);
    parse_prefixes(buf.base, buf.end, buf.end, 1, &wide, arena, &again);
    check(again.result == H1_DONE && again.parse.consumed == buf.end);
    check(str_eq(again.head.method_name, head->method_name));
    check(str_eq(again.head.path, head->path) && str_eq(again.head.query, head->query));
    check(again.head.has_query == head->has_query && again.head.minor == 1);
    check(again.head.framing == head->framing && again.head.content_length == head->content_length);
    check(str_eq(again.head.upgrade, head->upgrade));
    headers_remove_hop_by_hop(&again.head.headers);
    headers_remove(&again.head.headers, HEADER_CONTENT_LENGTH);
    check_same_headers(&again.head.headers, &head->headers);
    free(buf.base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    bool small = data[0] & 4;
    struct settings settings = {
        .limits = {small ? 200 : 32768, small ? 40 : 8192, small ? 6 : 100, (data[0] & 8) != 0},
        .underscores = (enum h1_underscores)(data[0] % 3),
    };
    size_t split = data[1];
    const char *text = (const char *)data + 2;
    n -= 2;

    struct arena arena;
    struct outcome at_once, other;
    struct h1_scanner chosen = h1_scan;
    arena_init(&arena, NULL);
    parse_prefixes(text, n, n, 1, &settings, &arena, &at_once);
    for (const struct h1_scanner *scanner = h1_scanners; scanner->name; scanner++) {
        if (!scanner->usable())
            continue;
        h1_scan = *scanner;
        parse_prefixes(text, n, n, 1, &settings, &arena, &other);
        check_same(&at_once, &other);
        if (scanner == &h1_scanners[split % SCANNERS]) {
            parse_prefixes(text, n, split, n < 1000 ? 1 + split % 8 : 64 + split, &settings, &arena, &other);
            check_same(&at_once, &other);
        }
    }
    h1_scan = chosen;
    if (at_once.result == H1_DONE) {
        check(at_once.parse.consumed <= n && at_once.parse.consumed <= settings.limits.head_bytes);
        check_head(&at_once.head, &settings, &arena);
        check_rewritten(&at_once.head, &settings, &arena);
    } else {
        check(at_once.result == H1_FAULT || n <= settings.limits.head_bytes);
    }
    arena_reset(&arena);
    return 0;
}
