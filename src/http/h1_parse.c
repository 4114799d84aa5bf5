// A head's way: skip empty lines → h1_scan.head finds its end (and every bare CR, LF and control byte) → one
// copy into the arena → the first line → h1_scan.fields → the rules over several fields. Only a head that is
// not complete, or not clean, takes the slow road: the whole lines at hand are checked where they lie, so
// that the first fault in the order of bytes is answered at once, and is the same however the bytes were
// split.
#include "http/h1_parse.h"

#include "base/arena.h"
#include "base/check.h"
#include "http/chars.h"
#include "http/h1_scan.h"
#include "http/head.h"
#include "http/uri.h"

enum {
    EMPTY_LINES = 2,         // before a request line
    CONNECTION_OPTIONS = 32, // each is looked up among the fields, so their number is bounded
    FIELDS_CHECKED = 16,     // at a time, on the slow road
};

// ---- the request line (RFC 9112 3)

// Leaves line->p at the target. A line that ends within the method is no fault yet: *ends.
static bool take_method(struct head_parse *p, struct first_line *line, struct str *method, bool *ends)
{
    const char *at = line->p;
    while (at < line->end && char_is(*at, CHAR_TOKEN)) {
        if (++at - line->p > HEAD_METHOD_BYTES)
            return head_fail(p, H1_NOT_IMPLEMENTED, "unknown method");
    }
    *method = str_range(line->p, at);
    *ends = at == line->end;
    if (*ends)
        return true;
    if (*at != ' ' || at == line->p)
        return head_bad(p, "malformed method");
    line->p = at + 1;
    return true;
}

static size_t scheme_length(struct str target)
{
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < countof(schemes); i++)
        if (target.n >= schemes[i].n && str_eq_fold((struct str){target.p, schemes[i].n}, schemes[i]))
            return schemes[i].n;
    return 0;
}

// RFC 9112 3.2.2. The authority is checked with Host, later.
static bool take_absolute_form(struct head_parse *p, struct first_line *line, size_t scheme)
{
    struct request_head *head = p->request;
    const char *at = line->p + scheme, *from = at;
    while (at < line->end && *at != '/' && *at != '?' && *at != ' ')
        at++;
    head->authority = str_range(from, at);
    if (!uri_authority_split(head->authority, &(struct str){0}, &(struct str){0}))
        return head_check_target_length(p, line) && head_bad(p, "malformed authority in the request target");
    if (!head_take_path_query(p, line, at))
        return false;
    if (!head->path.n) // RFC 9110 4.2.3, 9112 3.2.4
        head->path = head->method == METHOD_OPTIONS && !head->has_query ? STR("*") : STR("/");
    return true;
}

// "*" and authority-form, and everything that is no target.
static bool take_other_form(struct head_parse *p, struct first_line *line)
{
    struct request_head *head = p->request;
    struct str rest = str_range(line->p, line->end), target = {rest.p, str_find(rest, ' ')};
    if (!head_check_target_length(p, line))
        return false;
    if (head->method == METHOD_CONNECT) {
        if (!uri_authority_split(target, &(struct str){0}, &(struct str){0}))
            return head_bad(p, "malformed target of CONNECT");
        return head_fail(p, H1_NOT_IMPLEMENTED, "CONNECT is not supported");
    }
    if (!str_eq(target, STR("*")))
        return head_bad(p, "malformed request target");
    if (target.n == rest.n)
        return head_bad(p, "request line without a version");
    head->target = head->path = target;
    line->p += 2;
    return true;
}

static bool take_target(struct head_parse *p, struct first_line *line)
{
    if (likely(*line->p == '/') && p->request->method != METHOD_CONNECT)
        return head_take_path_query(p, line, line->p);
    size_t scheme = scheme_length(str_range(line->p, line->end));
    if (scheme && p->request->method != METHOD_CONNECT)
        return take_absolute_form(p, line, scheme);
    return take_other_form(p, line);
}

// HTTP-version (RFC 9112 2.3), case-sensitive. A higher minor is met as 1.1 (RFC 9110 2.5).
static bool parse_version(struct head_parse *p, struct str text, unsigned *minor)
{
    if (text.n != 8 || memcmp(text.p, "HTTP/", 5) != 0 || !IS_DIGIT(text.p[5]) || text.p[6] != '.' ||
        !IS_DIGIT(text.p[7]))
        return head_bad(p, "malformed HTTP version");
    if (text.p[5] != '1')
        return head_fail(p, H1_VERSION, "HTTP version not supported");
    *minor = text.p[7] != '0';
    return true;
}

static bool parse_request_line(struct head_parse *p, struct first_line line)
{
    struct request_head *head = p->request;
    if (line.end - line.p >= 4 && memcmp(line.p, "GET ", 4) == 0) {
        head->method = METHOD_GET;
        head->method_name = (struct str){line.p, 3};
        line.p += 4;
    } else {
        bool ends;
        if (!take_method(p, &line, &head->method_name, &ends))
            return false;
        if (ends)
            return head_bad(p, "request line without a target");
        head->method = http_method_of(head->method_name);
    }
    if (!take_target(p, &line) || !parse_version(p, str_range(line.p, line.end), &head->minor))
        return false;
    // Looked at last, so that "PRI * HTTP/2.0" is told about its version.
    if (head->path.p[0] == '*' && head->method != METHOD_OPTIONS)
        return head_bad(p, "asterisk target without OPTIONS");
    return true;
}

// What can be said of a request line whose end is not there yet.
static bool check_partial_request_line(struct head_parse *p, struct first_line line)
{
    struct str method;
    bool ends;
    return take_method(p, &line, &method, &ends) && (ends || head_check_target_length(p, &line));
}

// ---- the status line (RFC 9112 4)

static bool parse_status_line(struct head_parse *p, struct first_line line)
{
    struct response_head *head = p->response;
    const char *at = line.p;
    if (line.end - at < 12 || memcmp(at, "HTTP/", 5) != 0)
        return head_bad(p, "malformed status line");
    if (!parse_version(p, (struct str){at, 8}, &head->minor))
        return false;
    at += 8;
    if (at[0] != ' ' || !IS_DIGIT(at[1]) || !IS_DIGIT(at[2]) || !IS_DIGIT(at[3]))
        return head_bad(p, "malformed status line");
    head->status = (unsigned)(at[1] - '0') * 100 + (unsigned)(at[2] - '0') * 10 + (unsigned)(at[3] - '0');
    if (head->status < 100 || head->status > 599)
        return head_bad(p, "status code out of range");
    at += 4;
    if (at == line.end) { // many servers leave out the last space with an empty reason
        head->reason = (struct str){at, 0};
        return true;
    }
    if (*at != ' ')
        return head_bad(p, "malformed status line");
    head->reason = str_range(at + 1, line.end);
    return true;
}

static bool check_partial_status_line(struct head_parse *p, struct first_line line)
{
    size_t n = (size_t)(line.end - line.p);
    return memcmp(line.p, "HTTP/", n < 5 ? n : 5) == 0 || head_bad(p, "malformed status line");
}

static bool parse_first_line(struct head_parse *p, struct first_line line)
{
    return p->request ? parse_request_line(p, line) : parse_status_line(p, line);
}

// ---- fields

static struct h1_fields fields_of(const struct head_parse *p, const char *from, const char *stop,
                                  const char *limit)
{
    return (struct h1_fields){
        .at = from,
        .stop = stop,
        .limit = limit,
        .lines_max = p->limits->headers,
        .drop_underscores = p->request && p->underscores == H1_UNDERSCORES_DROP,
        .reject_underscores = p->request && p->underscores == H1_UNDERSCORES_REJECT,
    };
}

static bool fail_fields(struct head_parse *p, const struct h1_fields *f, enum h1_fields_result result)
{
    if (result == H1_FIELDS_TOO_MANY)
        return head_fail(p, H1_HEAD_TOO_LARGE, "too many header fields");
    return head_bad(p, f->why);
}

static bool parse_fields(struct head_parse *p, const char *from, const char *stop, struct headers *headers)
{
    struct h1_fields f = fields_of(p, from, stop, stop + HEAD_PADDING);
    f.v = headers->v;
    f.capacity = headers->capacity;
    enum h1_fields_result result;
    while ((result = h1_scan.fields(&f)) == H1_FIELDS_FULL) {
        struct header *v = arena_alloc(p->arena, 2 * f.capacity * sizeof *v);
        memcpy(v, f.v, f.count * sizeof *v);
        f.v = v;
        f.capacity *= 2;
    }
    if (result != H1_FIELDS_DONE)
        return fail_fields(p, &f, result);
    *headers = (struct headers){f.v, f.count, f.capacity};
    p->seen = f.seen;
    p->repeated = f.repeated;
    return true;
}

// ---- rules over fields

static struct str value_of(const struct headers *headers, enum header_id id)
{
    return headers_find(headers, id)->value;
}

// Why a Transfer-Encoding other than "chunked" is refused (RFC 9112 6.1, 6.3): a final coding that is not
// chunked leaves the length unknown; codings before it are merely unknown.
static bool fail_coding(struct head_parse *p, struct str value)
{
    struct str coding, before = STR_NULL;
    unsigned chunked = 0, codings = 0;
    while (str_next_token(&value, &coding)) {
        codings++;
        if (!header_name_valid(coding)) // a coding without parameters is a token too
            return head_bad(p, "malformed transfer coding");
        chunked += str_eq_fold(coding, STR("chunked"));
        before = coding;
    }
    if (chunked != 1 || !str_eq_fold(before, STR("chunked")))
        return head_bad(p, "final transfer coding is not exactly chunked");
    if (codings == 1)
        return head_bad(p, "malformed Transfer-Encoding"); // stray commas
    return head_fail(p, H1_NOT_IMPLEMENTED, "transfer coding not supported");
}

// Content-Length and Transfer-Encoding: one of them, once, or none (RFC 9112 6.3). Answers where they are the
// same for requests and responses; *framing stays as it is when there is neither.
static bool take_framing(struct head_parse *p, const struct headers *headers, unsigned minor,
                         enum framing *framing, uint64_t *length)
{
    bool has_length = head_has(p, HEADER_CONTENT_LENGTH);
    if (head_has(p, HEADER_TRANSFER_ENCODING)) {
        if (minor == 0)
            return head_bad(p, "Transfer-Encoding in HTTP/1.0");
        if (has_length)
            return head_bad(p, "both Transfer-Encoding and Content-Length");
        if (head_has_twice(p, HEADER_TRANSFER_ENCODING))
            return head_bad(p, "repeated Transfer-Encoding");
        struct str value = value_of(headers, HEADER_TRANSFER_ENCODING);
        if (!str_eq_fold(value, STR("chunked")))
            return fail_coding(p, value);
        *framing = FRAMING_CHUNKED;
    } else if (has_length) {
        if (!head_take_length(p, headers, length))
            return false;
        *framing = FRAMING_LENGTH;
    }
    return true;
}

// Does s, which holds no controls, spell the lower-case word of letters and "-"?
static inline bool is_word(struct str s, struct str word)
{
    char differ = 0;
    for (size_t i = 0; i < word.n; i++)
        differ |= (char)((s.p[i] | 0x20) ^ word.p[i]);
    return differ == 0;
}

struct connection_options {
    unsigned count;
    bool close, keep_alive, upgrade;
};

static void take_option(struct connection_options *options, struct str option)
{
    options->count++;
    switch (option.n) {
    case 5: options->close |= is_word(option, STR("close")); break;
    case 7: options->upgrade |= is_word(option, STR("upgrade")); break;
    case 10: options->keep_alive |= is_word(option, STR("keep-alive")); break;
    }
}

static void take_options(struct connection_options *options, struct str value)
{
    struct str option;
    if (str_find(value, ',') == value.n) // nearly always
        take_option(options, value);
    else
        while (str_next_token(&value, &option))
            take_option(options, option);
}

// RFC 9112 9.3.
static bool take_connection(struct head_parse *p, const struct headers *headers, unsigned minor,
                            bool *keep_alive, bool *upgrade)
{
    struct connection_options options = {0};
    if (head_has_twice(p, HEADER_CONNECTION)) {
        for (uint32_t i = 0; i < headers->count; i++)
            if (headers->v[i].id == HEADER_CONNECTION)
                take_options(&options, headers->v[i].value);
    } else if (head_has(p, HEADER_CONNECTION)) {
        take_options(&options, value_of(headers, HEADER_CONNECTION));
    }
    *upgrade = options.upgrade;
    *keep_alive = !options.close && (minor > 0 || options.keep_alive);
    return options.count <= CONNECTION_OPTIONS || head_bad(p, "too many connection options");
}

// One protocol, no body before it, and never h2c: that would be a tunnel past every check (CVE-2026-2833
// class).
static struct str upgrade_of(const struct head_parse *p, const struct request_head *head)
{
    bool has_body = head->framing == FRAMING_CHUNKED || head->content_length > 0;
    if (!head_has(p, HEADER_UPGRADE) || head_has_twice(p, HEADER_UPGRADE) || has_body || head->minor == 0)
        return STR_NULL;
    struct str value = value_of(&head->headers, HEADER_UPGRADE);
    struct str name = {value.p, str_find(value, '/')};
    struct str version = str_skip(value, name.n + (name.n < value.n));
    if (!header_name_valid(name) || (name.n < value.n && !header_name_valid(version)))
        return STR_NULL;
    return str_eq_fold(name, STR("h2c")) || str_eq_fold(name, STR("h2")) ? STR_NULL : value;
}

static bool finish_request(struct head_parse *p)
{
    struct request_head *head = p->request;
    bool upgrade;
    head->framing = FRAMING_NONE;
    if (!head_take_host(p) ||
        !take_framing(p, &head->headers, head->minor, &head->framing, &head->content_length) ||
        !take_connection(p, &head->headers, head->minor, &head->keep_alive, &upgrade))
        return false;
    if (upgrade)
        head->upgrade = upgrade_of(p, head);
    head_take_expect(p);
    return true;
}

static bool finish_response(struct head_parse *p, enum http_method method)
{
    struct response_head *head = p->response;
    unsigned status = head->status;
    bool upgrade;
    head->framing = FRAMING_CLOSE;
    if (!take_framing(p, &head->headers, head->minor, &head->framing, &head->content_length) ||
        !take_connection(p, &head->headers, head->minor, &head->keep_alive, &upgrade))
        return false;
    head->has_length = head_has(p, HEADER_CONTENT_LENGTH);
    // RFC 9112 6.3 (1), (2).
    if (status == 101 || (method == METHOD_CONNECT && status / 100 == 2))
        head->framing = FRAMING_TUNNEL;
    else if (head_is_bodiless(method, status))
        head->framing = FRAMING_NONE;
    if (head->framing == FRAMING_CLOSE || head->framing == FRAMING_TUNNEL)
        head->keep_alive = false;
    head_drop_length(head);
    return true;
}

// ---- the slow road

static const char *why_bad_byte(const char *at, bool first)
{
    if (*at == '\n')
        return "bare LF";
    if (!first && at[-1] == '\r')
        return "bare CR";
    return *at ? "control character" : "NUL byte";
}

// The first line of [start, end), whole or not. *next: behind it, NULL when it is not whole. A whole one is
// copied first (once a message), so that *head never points into data.
static bool check_first_line(struct head_parse *p, const char *start, const char *end, const char **next)
{
    const char *lf = memchr(start, '\n', (size_t)(end - start));
    *next = lf ? lf + 1 : NULL;
    if (lf) {
        struct str copy = arena_copy(p->arena, str_range(start, lf + 1));
        return parse_first_line(p, (struct first_line){copy.p, copy.p + copy.n - 2, copy.p + copy.n});
    }
    struct first_line line = {start, end, end};
    if (line.end > line.p && line.end[-1] == '\r') // of a CRLF that is still to come
        line.end--;
    return p->request ? check_partial_request_line(p, line) : check_partial_status_line(p, line);
}

// Checks the whole field lines in [from, end); *next: where the unfinished line starts.
static bool check_field_lines(struct head_parse *p, const char *from, const char *end, const char **next)
{
    const char *lf = memrchr(from, '\n', (size_t)(end - from));
    *next = from;
    if (!lf)
        return true;
    *next = lf + 1;
    struct header ignored[FIELDS_CHECKED];
    struct h1_fields f = fields_of(p, from, lf + 1, end);
    f.v = ignored;
    f.capacity = countof(ignored);
    f.lines = p->parse->lines;
    enum h1_fields_result result;
    while ((result = h1_scan.fields(&f)) == H1_FIELDS_FULL)
        f.count = 0;
    p->parse->lines = f.lines;
    return result == H1_FIELDS_DONE || fail_fields(p, &f, result);
}

// data[0..upto) is clean and holds no end of head: faults what is wrong in it.
static bool check_incomplete(struct head_parse *p, size_t upto)
{
    const char *end = p->data + upto, *next = p->data + p->parse->scanned;
    if (p->parse->scanned <= p->start) {
        if (!check_first_line(p, p->data + p->start, end, &next))
            return false;
        if (!next)
            return true;
    }
    if (!check_field_lines(p, next, end, &next))
        return false;
    p->parse->scanned = (size_t)(next - p->data);
    return true;
}

// ---- heads

// Sets p->start behind the empty lines. False: a fault, or (H1_OK) nothing but empty lines so far.
static bool skip_empty_lines(struct head_parse *p)
{
    size_t at = 0;
    for (unsigned lines = 0; at < p->n && (p->data[at] == '\r' || p->data[at] == '\n'); lines++, at += 2) {
        if (p->data[at] == '\n')
            return head_bad(p, "bare LF");
        if (lines == EMPTY_LINES)
            return head_bad(p, "too many empty lines before the request line");
        if (at + 1 < p->n && p->data[at + 1] != '\n')
            return head_bad(p, "bare CR");
        if (at + 1 == p->n)
            return false;
    }
    p->start = at;
    return at < p->n;
}

// A complete, clean head of n bytes at data: copies and parses it.
static bool parse_head(struct head_parse *p, const char *data, size_t n)
{
    struct headers headers = {.capacity = HEAD_FIELDS_FIRST};
    size_t fields_at = (n + HEAD_PADDING + 15) & ~(size_t)15;
    char *text = arena_alloc(p->arena, fields_at + HEAD_FIELDS_FIRST * sizeof *headers.v);
    memcpy(text, data, n);
    memset(text + n, 0, HEAD_PADDING);
    headers.v = (struct header *)(void *)(text + fields_at);

    const char *stop = text + n - 2, *cr = memchr(text, '\r', n);
    if (!parse_first_line(p, (struct first_line){text, cr, stop + HEAD_PADDING}) ||
        !parse_fields(p, cr + 2, stop, &headers))
        return false;
    *(p->request ? &p->request->headers : &p->response->headers) = headers;
    return true;
}

static enum h1_result parse_message(struct head_parse *p)
{
    struct h1_parse *parse = p->parse;
    parse->fault = H1_OK;
    if (p->request && !skip_empty_lines(p))
        return parse->fault ? H1_FAULT : H1_MORE;
    bool over = p->n > p->limits->head_bytes;
    size_t n = over ? p->limits->head_bytes : p->n, at = 0;
    size_t from = parse->scanned > p->start ? parse->scanned : p->start;
    enum h1_scanned scanned = from < n ? h1_scan.head(p->data + from, n - from, &at) : SCAN_MORE;
    if (likely(scanned == SCAN_END)) {
        parse->consumed = from + at;
        return parse_head(p, p->data + p->start, parse->consumed - p->start) ? H1_DONE : H1_FAULT;
    }
    size_t upto = scanned == SCAN_BAD ? from + at : n;
    if (p->start < upto && !check_incomplete(p, upto))
        return H1_FAULT;
    if (scanned == SCAN_BAD)
        head_bad(p, why_bad_byte(p->data + upto, upto == 0));
    else if (over)
        head_fail(p, H1_HEAD_TOO_LARGE, "head too large");
    return parse->fault ? H1_FAULT : H1_MORE;
}

enum h1_result h1_parse_request(struct h1_parse *parse, const char *data, size_t n,
                                const struct h1_limits *limits, enum h1_underscores underscores,
                                struct arena *arena, struct request_head *head)
{
    struct head_parse p = {.parse = parse,
                           .limits = limits,
                           .underscores = underscores,
                           .arena = arena,
                           .request = head,
                           .data = data,
                           .n = n};
    *head = (struct request_head){0};
    enum h1_result result = parse_message(&p);
    if (result == H1_MORE)
        *head = (struct request_head){0};
    return result == H1_DONE && !finish_request(&p) ? H1_FAULT : result;
}

enum h1_result h1_parse_response(struct h1_parse *parse, const char *data, size_t n,
                                 const struct h1_limits *limits, enum http_method request_method,
                                 struct arena *arena, struct response_head *head)
{
    struct head_parse p = {
        .parse = parse, .limits = limits, .arena = arena, .response = head, .data = data, .n = n};
    *head = (struct response_head){0};
    enum h1_result result = parse_message(&p);
    if (result == H1_MORE)
        *head = (struct response_head){0};
    return result == H1_DONE && !finish_response(&p, request_method) ? H1_FAULT : result;
}
