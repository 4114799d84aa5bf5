// What a header block means: from its fields to a head, by the rules of RFC 9113 8.3 and then by those of
// HTTP/1 (head.h).
#include "http/h2.h"

#include "base/check.h"
#include "http/chars.h"
#include "http/head.h"

static struct head_parse parse_of(struct h2_fields *fields, struct h1_parse *parse)
{
    return (struct head_parse){
        .parse = parse,
        .arena = fields->arena,
        .seen = fields->seen,
        .repeated = fields->repeated,
    };
}

static enum h2_verdict malformed(struct h2_fields *fields, const char *why)
{
    fields->fault = H1_BAD_REQUEST;
    fields->why = why;
    return H2_HEAD_MALFORMED;
}

static enum h2_verdict refuse(struct h2_fields *fields, enum h1_fault fault, const char *why)
{
    fields->fault = fault;
    fields->why = why;
    return H2_HEAD_REFUSED;
}

// ---- requests ----

// RFC 9113 8.3.1 and 8.5, RFC 8441 4: which pseudo-fields there must be.
static const char *why_bad_pseudo(const struct h2_fields *fields)
{
    bool connect = str_eq(fields->method, STR("CONNECT"));
    if (fields->status)
        return ":status in a request";
    if (!fields->method.n)
        return "no :method";
    if (!header_name_valid(fields->method))
        return "malformed :method";
    if (fields->protocol.p && !connect)
        return ":protocol without CONNECT";
    if (connect && !fields->protocol.p)
        return fields->scheme.p || fields->path.p ? "CONNECT with :scheme or :path"
               : fields->authority.n              ? NULL
                                                  : "CONNECT without :authority";
    if (!fields->scheme.n)
        return "no :scheme";
    if (!fields->path.n)
        return "no :path";
    bool asterisk = str_eq(fields->path, STR("*")) && str_eq(fields->method, STR("OPTIONS"));
    if (fields->path.p[0] != '/' && !asterisk)
        return "malformed :path";
    return NULL;
}

// One of both, or both alike.
static const char *why_bad_authority(const struct h2_fields *fields)
{
    const struct header *host = headers_find(&fields->headers, HEADER_HOST);
    if (fields->repeated & header_bit(HEADER_HOST))
        return "more than one Host";
    if (fields->authority.p && !fields->authority.n)
        return "empty :authority";
    if (!host && !fields->authority.p)
        return "no :authority";
    if (host && fields->authority.p && !str_eq_fold(host->value, fields->authority))
        return ":authority and Host differ";
    return NULL;
}

static bool take_method(struct head_parse *p, const struct h2_fields *fields)
{
    struct request_head *head = p->request;
    if (fields->method.n > HEAD_METHOD_BYTES)
        return head_fail(p, H1_NOT_IMPLEMENTED, "unknown method");
    head->method_name = fields->method;
    head->method = http_method_of(fields->method);
    if (head->method != METHOD_CONNECT)
        return true;
    if (!fields->protocol.p)
        return head_fail(p, H1_NOT_IMPLEMENTED, "CONNECT is not supported");
    if (!str_eq_fold(fields->protocol, STR("websocket")))
        return head_fail(p, H1_NOT_IMPLEMENTED, "this :protocol is not supported");
    head->upgrade = fields->protocol;
    head->method = METHOD_GET;
    head->method_name = STR("GET");
    return true;
}

static bool take_target(struct head_parse *p, const struct h2_fields *fields)
{
    struct request_head *head = p->request;
    struct str path = fields->path; // a space and padding are behind it
    if (!str_eq_fold(fields->scheme, STR("http")) && !str_eq_fold(fields->scheme, STR("https")))
        return head_bad(p, ":scheme is neither http nor https");
    if (path.p[0] == '*') {
        head->target = head->path = path;
        return true;
    }
    struct first_line line = {path.p, path.p + path.n + 1, path.p + path.n + 1 + HEAD_PADDING};
    if (!head_take_path_query(p, &line, line.p))
        return false;
    if (line.p != line.end) // it stopped at a space within
        return head_bad(p, "character not allowed in the request target");
    return true;
}

// Host becomes what :authority says; without one it is written for upstreams (RFC 9113 8.3.1).
static bool take_authority(struct head_parse *p, const struct h2_fields *fields)
{
    struct request_head *head = p->request;
    if (head_has(p, HEADER_HOST)) {
        head->authority = fields->authority;
    } else {
        headers_add_id(&head->headers, p->arena, HEADER_HOST, fields->authority);
        p->seen |= header_bit(HEADER_HOST);
    }
    return head_take_host(p);
}

static bool take_underscores(struct head_parse *p)
{
    struct headers *headers = &p->request->headers;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->v[i];
        if (header->id != HEADER_OTHER || str_find(header->name, '_') == header->name.n)
            continue;
        if (p->underscores == H1_UNDERSCORES_REJECT)
            return head_bad(p, "underscore in a header name");
        header->id = HEADER_GONE;
    }
    return true;
}

// RFC 9113 8.2.3: crumbs become one field, as HTTP/1 demands. Empty ones say nothing.
static void join_cookies(struct head_parse *p)
{
    struct headers *headers = &p->request->headers;
    struct header *first = headers_find(headers, HEADER_COOKIE);
    size_t n = 0;
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->v[i].id == HEADER_COOKIE)
            n += headers->v[i].value.n + 2;
    char *text = arena_alloc(p->arena, n), *at = text;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->v[i];
        if (header->id != HEADER_COOKIE)
            continue;
        if (header->value.n && at != text) {
            memcpy(at, "; ", 2);
            at += 2;
        }
        memcpy(at, header->value.p, header->value.n);
        at += header->value.n;
        if (header != first)
            header->id = HEADER_GONE;
    }
    first->value = str_range(text, at);
}

// RFC 9113 8.1.1: a length that the stream cannot keep is malformed.
static const char *take_framing(struct head_parse *p, bool end_stream)
{
    struct request_head *head = p->request;
    head->framing = end_stream ? FRAMING_NONE : FRAMING_CHUNKED;
    if (head->extended_connect) {
        head->framing = FRAMING_NONE;
        return head_has(p, HEADER_CONTENT_LENGTH) ? "Content-Length with CONNECT" : NULL;
    }
    if (!head_has(p, HEADER_CONTENT_LENGTH))
        return NULL;
    if (!head_take_length(p, &head->headers, &head->content_length))
        return p->parse->why;
    head->framing = FRAMING_LENGTH;
    return end_stream && head->content_length ? "Content-Length without a body" : NULL;
}

// The rules that HTTP/1 knows too: what breaks them is answered.
static bool take_head(struct head_parse *p, struct h2_fields *fields)
{
    struct request_head *head = p->request;
    if (!take_method(p, fields))
        return false;
    head->target = fields->path; // should it be refused
    if (!take_target(p, fields))
        return false;
    if (!take_authority(p, fields))
        return false;
    if (fields->has_underscore && p->underscores != H1_UNDERSCORES_ALLOW && !take_underscores(p))
        return false;
    if (head_has_twice(p, HEADER_COOKIE))
        join_cookies(p);
    head->te_trailers = head_has(p, HEADER_TE);
    head_take_expect(p);
    return true;
}

// What a refused block says about itself, for the log.
static void name_refused(const struct h2_fields *fields, struct request_head *head)
{
    if (!header_name_valid(fields->method) || fields->method.n > HEAD_METHOD_BYTES)
        return;
    head->method_name = fields->method;
    head->method = http_method_of(fields->method);
    head->target = fields->path;
}

enum h2_verdict h2_request_head(struct h2_fields *fields, bool end_stream, const struct h1_limits *limits,
                                enum h1_underscores underscores, struct request_head *head)
{
    *head = (struct request_head){.minor = 1, .http2 = true, .keep_alive = true};
    if (fields->fault == H1_BAD_REQUEST)
        return H2_HEAD_MALFORMED;
    if (fields->fault) {
        name_refused(fields, head);
        return H2_HEAD_REFUSED;
    }
    const char *why = why_bad_pseudo(fields);
    if (!why)
        why = why_bad_authority(fields);
    if (why)
        return malformed(fields, why);
    struct h1_parse parse = {0};
    struct head_parse p = parse_of(fields, &parse);
    p.request = head;
    p.limits = limits;
    p.underscores = underscores;
    head->headers = fields->headers;
    head->extended_connect = fields->protocol.p != NULL;
    if ((why = take_framing(&p, end_stream)))
        return malformed(fields, why);
    return take_head(&p, fields) ? H2_HEAD_GOOD : refuse(fields, parse.fault, parse.why);
}

// ---- responses ----

enum h2_verdict h2_response_head(struct h2_fields *fields, bool end_stream, enum http_method method,
                                 struct response_head *head)
{
    *head = (struct response_head){.minor = 1, .keep_alive = true, .status = fields->status};
    if (fields->fault)
        return fields->fault == H1_BAD_REQUEST ? H2_HEAD_MALFORMED : H2_HEAD_REFUSED;
    if (!fields->status)
        return malformed(fields, "no :status");
    if (fields->method.p || fields->scheme.p || fields->authority.p || fields->path.p || fields->protocol.p)
        return malformed(fields, "pseudo-field of a request in a response");
    if (fields->status == 101)
        return malformed(fields, "101 in HTTP/2");
    if (fields->status < 200 && end_stream)
        return malformed(fields, "an interim response that ends the stream");
    struct h1_parse parse = {0};
    struct head_parse p = parse_of(fields, &parse);
    p.response = head;
    head->headers = fields->headers;
    head->framing = FRAMING_CHUNKED;
    if (head_has(&p, HEADER_CONTENT_LENGTH)) {
        if (!head_take_length(&p, &head->headers, &head->content_length))
            return malformed(fields, parse.why);
        head->has_length = true;
        head->framing = FRAMING_LENGTH;
    }
    bool bodiless = head_is_bodiless(method, head->status);
    if (end_stream && !bodiless && head->content_length)
        return malformed(fields, "Content-Length without a body");
    if (end_stream || bodiless)
        head->framing = FRAMING_NONE;
    head_drop_length(head);
    return H2_HEAD_GOOD;
}
