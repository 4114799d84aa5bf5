#include "http/head.h"

#include "base/check.h"
#include "base/swar.h"
#include "http/chars.h"
#include "http/uri.h"

static const uint64_t LENGTH_MAX = INT64_MAX;

// ---- targets

bool head_check_target_length(struct head_parse *p, const struct first_line *line)
{
    size_t n = str_find(str_range(line->p, line->end), ' ');
    return n <= p->limits->uri_bytes || head_fail(p, H1_URI_TOO_LONG, "request target too long");
}

// The first byte in [at, end) that no query may hold; stops at a bad escape.
static const char *skip_query(const char *at, const struct first_line *line)
{
    for (;;) {
        at = h1_scan.query(at, line->limit);
        if (line->end - at < 3 || *at != '%' || !char_is(at[1], CHAR_HEX) || !char_is(at[2], CHAR_HEX))
            return at;
        at += 3;
    }
}

// Where a path ends: at "?", SP, or a byte that no path may hold. Escapes are looked at by the normaliser.
static const char *skip_path(const char *at, const struct first_line *line, bool *canonical)
{
    at = h1_scan.plain_path(at, line->limit);
    *canonical = *at != '.' && *at != '%';
    while (at < line->end && (char_is(*at, CHAR_PATH) || *at == '%'))
        at++;
    return at;
}

static bool set_path(struct head_parse *p, struct str path, bool canonical)
{
    const char *why;
    p->request->path = path;
    bool merge = p->limits->merge_slashes;
    if ((merge || !canonical) &&
        uri_normalise_path(path, merge, p->arena, &p->request->path, &why) == URI_BAD)
        return head_bad(p, why);
    return true;
}

static bool bad_target(struct head_parse *p, const struct first_line *line, const char *at)
{
    if (!head_check_target_length(p, line))
        return false;
    if (at == line->end)
        return head_bad(p, "request line without a version");
    return head_bad(p, *at == '#' ? "fragment in the request target"
                                  : "character not allowed in the request target");
}

bool head_take_path_query(struct head_parse *p, struct first_line *line, const char *at)
{
    struct request_head *head = p->request;
    bool canonical;
    const char *path_end = skip_path(at, line, &canonical), *end = path_end;
    if (*end == '?') {
        end = skip_query(path_end + 1, line);
        head->query = str_range(path_end + 1, end);
        head->has_query = true;
    }
    if (*end != ' ')
        return bad_target(p, line, end);
    head->target = str_range(line->p, end);
    if (head->target.n > p->limits->uri_bytes)
        return head_fail(p, H1_URI_TOO_LONG, "request target too long");
    line->p = end + 1;
    return path_end == at || set_path(p, str_range(at, path_end), canonical);
}

// ---- Host

// Are there capital letters in 8 bytes of ASCII?
static inline uint64_t capitals(uint64_t word)
{
    return (word + SWAR_EACH(0x80 - 'A')) & ~(word + SWAR_EACH(0x80 - 'Z' - 1)) & SWAR_EACH(0x80);
}

static bool has_capitals(struct str ascii)
{
    uint64_t found = 0;
    size_t i = 0;
    for (; ascii.n - i >= sizeof found; i += sizeof found)
        found |= capitals(swar_load8(ascii.p + i));
    for (; i < ascii.n; i++)
        found |= char_is(ascii.p[i], CHAR_UPPER);
    return found != 0;
}

struct str head_lower(struct str s, struct arena *arena)
{
    if (!has_capitals(s))
        return s;
    char *copy = arena_alloc(arena, s.n);
    for (size_t i = 0; i < s.n; i++)
        copy[i] = ascii_lower(s.p[i]);
    return (struct str){copy, s.n};
}

// RFC 9112 3.2: exactly one Host, except in HTTP/1.0.
bool head_take_host(struct head_parse *p)
{
    struct request_head *head = p->request;
    struct header *field = head_has(p, HEADER_HOST) ? headers_find(&head->headers, HEADER_HOST) : NULL;
    struct str port, absolute = head->authority;
    if (head_has_twice(p, HEADER_HOST))
        return head_bad(p, "more than one Host");
    if (!field && head->minor > 0)
        return head_bad(p, "no Host");
    if (field && !uri_authority_split(field->value, &head->host, &port))
        return head_bad(p, "malformed Host");
    if (absolute.n) { // 3.2.2: it replaces Host, so that all that look see the same
        if (!uri_authority_split(absolute, &head->host, &port))
            return head_bad(p, "malformed authority in the request target");
        if (field)
            field->value = absolute;
        else
            headers_add_id(&head->headers, p->arena, HEADER_HOST, absolute);
    } else if (field) {
        head->authority = field->value;
    }
    head->host = head_lower(head->host, p->arena);
    return true;
}

// ---- lengths

bool head_take_length(struct head_parse *p, const struct headers *headers, uint64_t *length)
{
    if (head_has_twice(p, HEADER_CONTENT_LENGTH))
        return head_bad(p, "repeated Content-Length");
    if (!str_to_u64(headers_value(headers, HEADER_CONTENT_LENGTH), LENGTH_MAX, length))
        return head_bad(p, "malformed Content-Length");
    return true;
}

void head_take_expect(struct head_parse *p)
{
    struct request_head *head = p->request;
    if (head_has(p, HEADER_EXPECT) && head->minor > 0 &&
        (head->framing == FRAMING_CHUNKED || head->content_length > 0))
        head->expect_continue = headers_list_has(&head->headers, HEADER_EXPECT, STR("100-continue"));
}

void head_drop_length(struct response_head *head)
{
    if (!head->has_length || (head->status >= 200 && head->status != 204))
        return;
    headers_remove(&head->headers, HEADER_CONTENT_LENGTH);
    head->has_length = false;
    head->content_length = 0;
}

bool head_is_bodiless(enum http_method method, unsigned status)
{
    return method == METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

enum end_cause h1_fault_cause(enum h1_fault fault)
{
    static const enum end_cause causes[] = {
        [H1_OK] = END_INTERNAL,
        [H1_BAD_REQUEST] = END_BAD_REQUEST,
        [H1_URI_TOO_LONG] = END_URI_TOO_LONG,
        [H1_HEAD_TOO_LARGE] = END_HEADERS_TOO_LARGE,
        [H1_NOT_IMPLEMENTED] = END_NOT_IMPLEMENTED,
        [H1_VERSION] = END_VERSION,
        [H1_BAD_RESPONSE] = END_UPSTREAM_BAD_RESPONSE,
    };
    return causes[fault];
}
