// Header blocks written as lines, "name: value", and what becomes of them in one line.
#pragma once

#include "test_h1_fixture.h"

#include "http/h2.h"

struct h2_way {
    bool response, end_stream;
    enum http_method method; // of the request that is answered
    enum h1_underscores underscores;
    struct h1_limits limits;
};

static const struct h2_way h2_request_way = {.end_stream = true, .limits = {32768, 8192, 100}};
static const struct h2_way h2_body_way = {.limits = {32768, 8192, 100}};
static const struct h2_way h2_response_way = {
    .response = true, .method = METHOD_GET, .limits = {32768, 8192, 100}};

// The first colon may belong to a pseudo-field's name.
static inline bool next_field(struct str *text, struct str *name, struct str *value)
{
    if (!text->n)
        return false;
    struct str line = {text->p, str_find(*text, '\n')};
    *text = str_skip(*text, line.n + (line.n < text->n));
    size_t colon = line.n && line.p[0] == ':' ? 1 + str_find(str_skip(line, 1), ':') : str_find(line, ':');
    *name = (struct str){line.p, colon < line.n ? colon : line.n};
    *value = str_skip(line, colon + 2 <= line.n ? colon + 2 : line.n);
    return true;
}

static inline void feed_fields(struct h2_fields *fields, struct str text, bool trailers)
{
    struct str name, value;
    while (next_field(&text, &name, &value))
        assert_true(trailers ? h2_trailer_field(fields, name, value) : h2_field(fields, name, value));
}

static inline void tell_block(const struct h2_way *way, struct str text, char *outcome)
{
    struct arena arena;
    struct h2_fields fields;
    struct buf out = {0};
    struct request_head request;
    struct response_head response;
    arena_init(&arena, NULL);
    h2_fields_init(&fields, &arena, way->limits.head_bytes, way->limits.headers);
    feed_fields(&fields, text, false);
    enum h2_verdict verdict =
        way->response ? h2_response_head(&fields, way->end_stream, way->method, &response)
                      : h2_request_head(&fields, way->end_stream, &way->limits, way->underscores, &request);
    if (verdict == H2_HEAD_MALFORMED)
        buf_printf(&out, "malformed %s", fields.why);
    else if (verdict == H2_HEAD_REFUSED)
        buf_printf(&out, "%s %s", fault_names[fields.fault], fields.why);
    else if (way->response)
        print_response(&out, &response);
    else
        print_request(&out, &request);
    buf_append(&out, (struct str){"", 1});
    snprintf(outcome, OUTCOME_MAX, "%s", out.base);
    buf_free(&out);
    arena_reset(&arena);
}

static inline void expect_blocks(const struct h2_way *way, const struct h1_case *cases, size_t count)
{
    char got[OUTCOME_MAX];
    for (size_t i = 0; i < count; i++) {
        tell_block(way, cases[i].input, got);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("'%.*s': got '%s', want '%s'", STR_ARG(cases[i].input), got, cases[i].want);
    }
}

#define EXPECT_BLOCKS(way, cases) expect_blocks(way, cases, countof(cases))
