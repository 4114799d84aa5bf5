#include "http/uri.h"

#include "base/arena.h"
#include "base/check.h"
#include "http/chars.h"

#include <arpa/inet.h>

enum {
    HOST_BYTES = 255, // RFC 3986 3.2.2: a name longer than DNS allows names nothing
    PORT_MAX = 65535,
};

// ---- paths

// The canonical path as it grows. Invariant: out[0..n) is canonical and starts with "/".
struct normaliser {
    char *out;
    size_t n;
    size_t segment;        // where the last segment starts, behind its "/"
    unsigned after_escape; // 1, 2: out ends with "%25" and that many - 1 hex digits; 0: it does not
    bool merge_slashes;
    const char *why;
};

static bool bad(struct normaliser *to, const char *why)
{
    to->why = why;
    return false;
}

// What would be an escape again after one more decoding: "%2541", also when spelled "%25%341".
static bool put(struct normaliser *to, char c)
{
    if (to->after_escape && char_is(c, CHAR_HEX)) {
        if (to->after_escape == 2)
            return bad(to, "doubly encoded character in the path");
        to->after_escape = 2;
    } else {
        to->after_escape = 0;
    }
    to->out[to->n++] = c;
    return true;
}

static bool put_escape(struct normaliser *to, unsigned value)
{
    static const char digits[] = "0123456789ABCDEF";
    to->out[to->n++] = '%';
    to->out[to->n++] = digits[value >> 4];
    to->out[to->n++] = digits[value & 15];
    to->after_escape = value == '%';
    return true;
}

static bool take_escape(struct normaliser *to, struct str path, size_t at)
{
    if (path.n - at < 3 || !char_is(path.p[at + 1], CHAR_HEX) || !char_is(path.p[at + 2], CHAR_HEX))
        return bad(to, "bad percent-encoding in the path");
    unsigned value = hex_value(path.p[at + 1]) << 4 | hex_value(path.p[at + 2]);
    if (value < 0x20 || value == 0x7f)
        return bad(to, "encoded control character in the path");
    if (value == '/' || value == '\\')
        return bad(to, "encoded slash or backslash in the path");
    if (char_classes[value] & CHAR_UNRESERVED)
        return put(to, (char)value);
    return put_escape(to, value);
}

static bool is_dots(struct str segment)
{
    return (segment.n == 1 && segment.p[0] == '.') || (segment.n == 2 && memcmp(segment.p, "..", 2) == 0);
}

// "." or "..", then a path parameter: servers that cut parameters off see a dot segment where others see
// none. The escaped semicolon is the same to those that decode first.
static bool has_dots_with_parameter(struct str segment)
{
    for (size_t dots = 1; dots <= 2; dots++) {
        struct str rest = str_skip(segment, dots < segment.n ? dots : segment.n);
        if (is_dots((struct str){segment.p, dots <= segment.n ? dots : 0}) &&
            (str_starts(rest, STR(";")) || str_starts(rest, STR("%3B"))))
            return true;
    }
    return false;
}

// Drops the last whole segment of out, which ends behind a "/".
static void drop_segment(struct normaliser *to)
{
    to->n--;
    while (to->out[to->n - 1] != '/')
        to->n--;
}

// Settles the segment that just ended. slash: another one follows.
static bool end_segment(struct normaliser *to, bool slash)
{
    struct str segment = {to->out + to->segment, to->n - to->segment};
    to->after_escape = 0;
    if (has_dots_with_parameter(segment))
        return bad(to, "dot segment with a parameter in the path");
    if (is_dots(segment)) { // RFC 3986 5.2.4; what remains ends with "/", so no further one is put
        to->n = to->segment;
        if (segment.n == 2) {
            if (to->n == 1)
                return bad(to, "path climbs above the root");
            drop_segment(to);
        }
    } else if (slash && !(to->merge_slashes && segment.n == 0)) {
        to->out[to->n++] = '/';
    }
    to->segment = to->n;
    return true;
}

static bool normalise(struct normaliser *to, struct str path)
{
    to->out[to->n++] = '/';
    to->segment = 1;
    for (size_t i = 1; i < path.n; i++) {
        char c = path.p[i];
        if (c == '/') {
            if (!end_segment(to, true))
                return false;
        } else if (c == '%') {
            if (!take_escape(to, path, i))
                return false;
            i += 2;
        } else if (!char_is(c, CHAR_PATH)) {
            return bad(to, "character not allowed in a path");
        } else if (!put(to, c)) {
            return false;
        }
    }
    return end_segment(to, false);
}

static bool is_canonical(struct str path, bool merge_slashes)
{
    char before = 0;
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (!char_is(c, CHAR_PLAIN_PATH) && (c != '.' || before == '/'))
            return false;
        if (c == '/' && before == '/' && merge_slashes)
            return false;
        before = c;
    }
    return true;
}

enum uri_result uri_normalise_path(struct str path, bool merge_slashes, struct arena *arena, struct str *out,
                                   const char **why)
{
    if (!path.n || path.p[0] != '/') {
        *why = "path does not start with a slash";
        return URI_BAD;
    }
    if (is_canonical(path, merge_slashes)) {
        *out = path;
        return URI_OK;
    }
    // Never longer than what came in: escapes shrink or stay.
    struct normaliser to = {.out = arena_alloc(arena, path.n), .merge_slashes = merge_slashes};
    if (!normalise(&to, path)) {
        *why = to.why;
        return URI_BAD;
    }
    *out = (struct str){to.out, to.n};
    return URI_OK;
}

// ---- queries

bool uri_query_valid(struct str query)
{
    for (size_t i = 0; i < query.n; i++) {
        if (char_is(query.p[i], CHAR_QUERY))
            continue;
        if (query.p[i] != '%' || query.n - i < 3 || !char_is(query.p[i + 1], CHAR_HEX) ||
            !char_is(query.p[i + 2], CHAR_HEX))
            return false;
        i += 2;
    }
    return true;
}

// ---- authorities

// The length of "[…]" at the start, 0 when it holds no IPv6 address. No zone, no IPvFuture: neither can be
// routed on.
static size_t ip_literal_length(struct str authority)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    size_t close = str_find(authority, ']');
    if (close == authority.n || close - 1 >= sizeof text)
        return 0;
    memcpy(text, authority.p + 1, close - 1);
    text[close - 1] = 0;
    if (strlen(text) != close - 1 || inet_pton(AF_INET6, text, &ignored) != 1)
        return 0;
    return close + 1;
}

static size_t reg_name_length(struct str authority)
{
    size_t n = 0;
    while (n < authority.n && char_is(authority.p[n], CHAR_REG_NAME))
        n++;
    return n <= HOST_BYTES ? n : 0;
}

bool uri_authority_split(struct str authority, struct str *host, struct str *port)
{
    if (!authority.n)
        return false;
    size_t n = authority.p[0] == '[' ? ip_literal_length(authority) : reg_name_length(authority);
    if (n == 0)
        return false;
    struct str rest = str_skip(authority, n);
    *host = (struct str){authority.p, n};
    *port = STR_NULL;
    if (!rest.n)
        return true;
    if (rest.p[0] != ':')
        return false;
    *port = str_skip(rest, 1);
    uint64_t ignored;
    return port->n == 0 || str_to_u64(*port, PORT_MAX, &ignored); // RFC 3986 3.2.3: a port may be empty
}

// ---- forms ----

bool uri_form_decode(struct str text, struct arena *arena, struct str *out)
{
    char *to = arena_alloc(arena, text.n + 1), *at = to;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i] == '+' ? ' ' : text.p[i];
        if (c == '%') {
            if (i + 2 >= text.n || !char_is(text.p[i + 1], CHAR_HEX) || !char_is(text.p[i + 2], CHAR_HEX))
                return false;
            c = (char)(hex_value(text.p[i + 1]) << 4 | hex_value(text.p[i + 2]));
            i += 2;
        }
        if (!c)
            return false;
        *at++ = c;
    }
    *at = '\0';
    *out = str_range(to, at);
    return true;
}
