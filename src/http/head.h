// The rules over heads that every version of HTTP shares: targets, Host, lengths, Expect. Private to the
// room: h1_parse.c and h2_head.c bring a head this far, each by its own grammar.
#pragma once

#include "http/h1_parse.h"
#include "http/h1_scan.h"

#include "base/arena.h"

enum {
    HEAD_METHOD_BYTES = 32, // longer than any registered method
    HEAD_PADDING = 64,      // readable bytes behind a copied head: what a SIMD step may read
    HEAD_FIELDS_FIRST = 32, // room for fields at first, and for a few that the gateway adds
};

struct head_parse {
    struct h1_parse *parse; // where a fault goes
    const struct h1_limits *limits;
    enum h1_underscores underscores;
    struct arena *arena;
    struct request_head *request;   // NULL: a response
    struct response_head *response; // NULL: a request
    // Of HTTP/1: what is parsed.
    const char *data;
    size_t n;     // of data
    size_t start; // where the first line starts, behind empty lines
    // Of the fields, as h1_fields.
    uint64_t seen, repeated;
};

static inline bool head_fail(struct head_parse *p, enum h1_fault fault, const char *why)
{
    p->parse->fault = p->response ? H1_BAD_RESPONSE : fault;
    p->parse->why = why;
    return false;
}

static inline bool head_bad(struct head_parse *p, const char *why)
{
    return head_fail(p, H1_BAD_REQUEST, why);
}

static inline bool head_has(const struct head_parse *p, enum header_id id)
{
    return (p->seen & header_bit(id)) != 0;
}

static inline bool head_has_twice(const struct head_parse *p, enum header_id id)
{
    return (p->repeated & header_bit(id)) != 0;
}

// All of a line but its CRLF; limit: the end of readable memory behind it.
struct first_line {
    const char *p, *end, *limit;
};

bool head_check_target_length(struct head_parse *p, const struct first_line *line);
// path [ "?" query ] from `at` up to SP, where line->p is left; it is still at the start of the target
// before. Sets target, path, query.
bool head_take_path_query(struct head_parse *p, struct first_line *line, const char *at);
// Host, and the authority that replaces it (RFC 9112 3.2.2, 9113 8.3.1) when request->authority is set.
bool head_take_host(struct head_parse *p);
// The value of the one Content-Length.
bool head_take_length(struct head_parse *p, const struct headers *headers, uint64_t *length);
// Expect: 100-continue, once framing is known.
void head_take_expect(struct head_parse *p);
// RFC 9110 8.6: none may be sent with 1xx and 204, so none is forwarded.
void head_drop_length(struct response_head *head);
// RFC 9110 6.4.1: whether an answer with this status to this method has no content, whatever its fields say.
bool head_is_bodiless(enum http_method method, unsigned status);
// s itself, or a copy without capital letters; s holds no bytes above 0x7f.
struct str head_lower(struct str s, struct arena *arena);
