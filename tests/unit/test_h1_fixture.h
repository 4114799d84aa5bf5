// Parses a head in every way it can arrive and by every scanner of this build, and tells the outcome in one
// line. Whatever the way, the outcome must be the same; copies of the exact size let ASan see any read beyond
// the end.
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/check.h"
#include "http/h1_parse.h"
#include "http/h1_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct h1_way {
    bool response;
    enum http_method method; // of the request that is answered
    enum h1_underscores underscores;
    struct h1_limits limits;
};

enum { OUTCOME_MAX = 4096 };

static const struct h1_limits usual_limits = {.head_bytes = 32768, .uri_bytes = 8192, .headers = 100};
static const struct h1_way request_way = {.limits = {32768, 8192, 100}};
static const struct h1_way response_way = {
    .response = true, .method = METHOD_GET, .limits = {32768, 8192, 100}};

static const char *const fault_names[] = {[H1_OK] = "ok",
                                          [H1_BAD_REQUEST] = "400",
                                          [H1_URI_TOO_LONG] = "414",
                                          [H1_HEAD_TOO_LARGE] = "431",
                                          [H1_NOT_IMPLEMENTED] = "501",
                                          [H1_VERSION] = "505",
                                          [H1_BAD_RESPONSE] = "502"};

static void print_framing(struct buf *out, enum framing framing, uint64_t length)
{
    static const char *const names[] = {"none", "length", "chunked", "close", "tunnel"};
    buf_printf(out, " %s", names[framing]);
    if (framing == FRAMING_LENGTH)
        buf_printf(out, "=%llu", (unsigned long long)length);
}

static void print_headers(struct buf *out, const struct headers *headers)
{
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *h = &headers->v[i];
        check(h->id == HEADER_GONE || h->id == header_id_of(h->name));
        if (h->id != HEADER_GONE)
            buf_printf(out, "|%.*s:%.*s", STR_ARG(h->name), STR_ARG(h->value));
    }
}

static inline void print_request(struct buf *out, const struct request_head *head)
{
    buf_printf(out, "%.*s %.*s", STR_ARG(head->method_name), STR_ARG(head->path));
    if (head->has_query)
        buf_printf(out, "?%.*s", STR_ARG(head->query));
    buf_printf(out, " 1.%u host=%.*s", head->minor, STR_ARG(head->host));
    if (!str_eq(head->host, head->authority))
        buf_printf(out, "(%.*s)", STR_ARG(head->authority));
    print_framing(out, head->framing, head->content_length);
    buf_printf(out, head->keep_alive ? " keep" : " close");
    if (head->expect_continue)
        buf_printf(out, " expect");
    if (head->upgrade.n)
        buf_printf(out, " upgrade=%.*s", STR_ARG(head->upgrade));
    print_headers(out, &head->headers);
    check(head->method == http_method_of(head->method_name));
}

static inline void print_response(struct buf *out, const struct response_head *head)
{
    buf_printf(out, "%u '%.*s' 1.%u", head->status, STR_ARG(head->reason), head->minor);
    print_framing(out, head->framing, head->content_length);
    if (head->has_length && head->framing != FRAMING_LENGTH)
        buf_printf(out, " announced=%llu", (unsigned long long)head->content_length);
    buf_printf(out, head->keep_alive ? " keep" : " close");
    print_headers(out, &head->headers);
}

// One call with the first n bytes, from a copy that ends with them and is gone before the outcome is told.
static enum h1_result parse_once(const struct h1_way *way, struct str input, size_t n, struct h1_parse *parse,
                                 struct buf *out)
{
    struct arena arena;
    struct request_head request;
    struct response_head response;
    enum h1_result result;
    char *copy = malloc(n ? n : 1);
    arena_init(&arena, NULL);
    if (n)
        memcpy(copy, input.p, n);
    if (way->response)
        result = h1_parse_response(parse, copy, n, &way->limits, way->method, &arena, &response);
    else
        result = h1_parse_request(parse, copy, n, &way->limits, way->underscores, &arena, &request);
    free(copy);
    if (result == H1_FAULT) {
        buf_printf(out, "%s %s", fault_names[parse->fault], parse->why);
    } else if (result == H1_DONE) {
        if (way->response)
            print_response(out, &response);
        else
            print_request(out, &request);
        if (parse->consumed < n)
            buf_printf(out, " +%zu", n - parse->consumed);
    }
    arena_reset(&arena);
    return result;
}

// Feeds the input in two parts, or with `step` in parts of that size. Fills outcome with what was said;
// "more" when it was never enough. Bytes that were not there yet when the head was done count as left over.
static void parse_in_parts(const struct h1_way *way, struct str input, size_t first, size_t step,
                           char *outcome)
{
    struct buf out = {0};
    struct h1_parse parse = {0};
    enum h1_result result = H1_MORE;
    size_t n = first < input.n ? first : input.n;
    for (;; n = input.n - n > step ? n + step : input.n) {
        result = parse_once(way, input, n, &parse, &out);
        if (result != H1_MORE || n == input.n)
            break;
    }
    if (result == H1_MORE)
        buf_printf(&out, "more");
    if (result == H1_DONE) {
        size_t left = input.n - parse.consumed;
        size_t cut = n > parse.consumed ? (size_t)snprintf(NULL, 0, " +%zu", n - parse.consumed) : 0;
        out.end -= (uint32_t)cut;
        if (left)
            buf_printf(&out, " +%zu", left);
    }
    buf_append(&out, (struct str){"", 1});
    snprintf(outcome, OUTCOME_MAX, "%s", out.base);
    buf_free(&out);
}

// The outcome at once, when every other way agrees. "within" is where it was told, byte by byte: the number
// of bytes that were needed.
static inline void parse_every_way(const struct h1_way *way, struct str input, char *outcome)
{
    struct h1_scanner chosen = h1_scan;
    char other[OUTCOME_MAX];
    parse_in_parts(way, input, input.n, 1, outcome);
    for (const struct h1_scanner *scanner = h1_scanners; scanner->name; scanner++) {
        if (!scanner->usable())
            continue;
        h1_scan = *scanner;
        for (size_t split = 0; split <= input.n; split++) {
            parse_in_parts(way, input, split, input.n, other);
            if (strcmp(other, outcome) != 0)
                fail_msg("%s, split at %zu of '%.*s': %s, at once: %s", scanner->name, split, STR_ARG(input),
                         other, outcome);
        }
        for (size_t step = 1; step < 8; step++) {
            parse_in_parts(way, input, step, step, other);
            if (strcmp(other, outcome) != 0)
                fail_msg("%s, %zu bytes at a time of '%.*s': %s, at once: %s", scanner->name, step,
                         STR_ARG(input), other, outcome);
        }
    }
    h1_scan = chosen;
}

struct h1_case {
    struct str input;
    const char *want; // the outcome; a fault may be given without its words
};

#define CASE(text, want)               \
    {                                  \
        {text, sizeof(text) - 1}, want \
    }

static inline void expect_cases(const struct h1_way *way, const struct h1_case *cases, size_t count)
{
    char got[OUTCOME_MAX];
    for (size_t i = 0; i < count; i++) {
        parse_every_way(way, cases[i].input, got);
        size_t n = strlen(cases[i].want) == 3 ? 3 : sizeof got;
        if (strncmp(got, cases[i].want, n) != 0)
            fail_msg("'%.*s': got '%s', want '%s'", STR_ARG(cases[i].input), got, cases[i].want);
    }
}

#define EXPECT(way, cases) expect_cases(way, cases, countof(cases))
