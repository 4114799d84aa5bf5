#include "admin/json_read.h"

#include "http/chars.h"

static void fail(struct json_reader *reader, const char *why)
{
    if (!reader->why)
        reader->why = why;
    reader->rest.n = 0;
}

static void skip_space(struct json_reader *reader)
{
    struct str *rest = &reader->rest;
    while (rest->n && (rest->p[0] == ' ' || rest->p[0] == '\t' || rest->p[0] == '\n' || rest->p[0] == '\r'))
        *rest = str_skip(*rest, 1);
}

char json_read_peek(struct json_reader *reader)
{
    skip_space(reader);
    return reader->rest.n ? reader->rest.p[0] : 0;
}

static bool take(struct json_reader *reader, char c, const char *why)
{
    if (json_read_peek(reader) != c || !c) {
        fail(reader, why);
        return false;
    }
    reader->rest = str_skip(reader->rest, 1);
    return true;
}

// ---- strings ----

// Four hex digits at p.
static bool read_unit(struct str s, uint32_t *unit)
{
    *unit = 0;
    for (size_t i = 0; i < 4; i++) {
        if (i >= s.n || !char_is(s.p[i], CHAR_HEX))
            return false;
        *unit = *unit << 4 | hex_value(s.p[i]);
    }
    return true;
}

static char *put_utf8(char *at, uint32_t point)
{
    if (point < 0x80) {
        *at++ = (char)point;
        return at;
    }
    unsigned more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    *at++ = (char)(0xff00u >> (more + 1) | point >> 6 * more);
    while (more--)
        *at++ = (char)(0x80 | (point >> 6 * more & 0x3f));
    return at;
}

// \uXXXX, or a pair of surrogates; returns how many bytes of s were used, 0: malformed.
static size_t read_escape_u(struct str s, char **at)
{
    uint32_t high, low;
    if (!read_unit(s, &high) || (high >= 0xdc00 && high < 0xe000))
        return 0;
    if (high < 0xd800 || high >= 0xe000) {
        *at = put_utf8(*at, high);
        return 4;
    }
    if (s.n < 10 || s.p[4] != '\\' || s.p[5] != 'u' || !read_unit(str_skip(s, 6), &low) || low < 0xdc00 ||
        low >= 0xe000)
        return 0;
    *at = put_utf8(*at, 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
    return 10;
}

// s begins behind the backslash.
static size_t read_escape(struct str s, char **at)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (!s.n)
        return 0;
    if (s.p[0] == 'u') {
        size_t used = read_escape_u(str_skip(s, 1), at);
        return used ? used + 1 : 0;
    }
    const char *known = memchr(from, s.p[0], sizeof from - 1);
    if (!known)
        return 0;
    *(*at)++ = to[known - from];
    return 1;
}

struct str json_read_string(struct json_reader *reader)
{
    if (!take(reader, '"', "expected a string"))
        return STR_NULL;
    struct str s = reader->rest;
    char *out = arena_alloc(reader->arena, s.n + 1), *at = out;
    while (s.n && s.p[0] != '"') {
        size_t used = 1;
        if (s.p[0] == '\\')
            used = read_escape(str_skip(s, 1), &at) + 1;
        else
            *at++ = s.p[0];
        if ((s.p[0] == '\\' && used == 1) || (unsigned char)s.p[0] < 0x20) {
            fail(reader, "a string with a bad escape or a control character");
            return STR_NULL;
        }
        s = str_skip(s, used);
    }
    reader->rest = s;
    if (!take(reader, '"', "a string without an end"))
        return STR_NULL;
    return str_range(out, at);
}

// ---- objects and arrays ----

void json_read_enter(struct json_reader *reader, char bracket)
{
    if (++reader->depth > JSON_READ_DEPTH)
        fail(reader, "nested too deeply");
    take(reader, bracket, bracket == '{' ? "expected an object" : "expected an array");
    reader->begun = true;
}

// True when another member follows.
static bool next(struct json_reader *reader, char end)
{
    bool first = reader->begun;
    reader->begun = false;
    if (json_read_peek(reader) == end) {
        take(reader, end, "");
        reader->depth--;
        return false;
    }
    return first ? !reader->why : take(reader, ',', "expected a comma or the end of an object or array");
}

bool json_read_member(struct json_reader *reader, struct str *key)
{
    if (!next(reader, '}'))
        return false;
    *key = json_read_string(reader);
    return take(reader, ':', "expected a colon");
}

bool json_read_item(struct json_reader *reader)
{
    return next(reader, ']');
}

// Numbers are not looked at closely: nothing here reads one.
static void skip_scalar(struct json_reader *reader)
{
    static const struct str words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    for (size_t i = 0; i < 3; i++) {
        if (str_starts(reader->rest, words[i])) {
            reader->rest = str_skip(reader->rest, words[i].n);
            return;
        }
    }
    size_t n = 0;
    while (n < reader->rest.n && memchr("+-.eE0123456789", reader->rest.p[n], 15))
        n++;
    if (!n)
        fail(reader, "expected a value");
    else
        reader->rest = str_skip(reader->rest, n);
}

void json_read_skip(struct json_reader *reader)
{
    struct str key;
    switch (json_read_peek(reader)) {
    case '"': json_read_string(reader); break;
    case '{':
        for (json_read_enter(reader, '{'); json_read_member(reader, &key);)
            json_read_skip(reader);
        break;
    case '[':
        for (json_read_enter(reader, '['); json_read_item(reader);)
            json_read_skip(reader);
        break;
    default: skip_scalar(reader); break;
    }
}

bool json_read_end(struct json_reader *reader)
{
    if (json_read_peek(reader))
        fail(reader, "something follows the value");
    return !reader->why;
}
