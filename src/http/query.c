#include "http/query.h"

#include "base/arena.h"

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                             ? c - '0'
           : ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f' ? ascii_lower(c) - 'a' + 10
                                                            : -1;
}

static char next_decoded(struct str *rest)
{
    char c = rest->p[0];
    if (c == '%' && rest->n >= 3) {
        int high = hex_digit(rest->p[1]), low = hex_digit(rest->p[2]);
        if (high >= 0 && low >= 0) {
            *rest = str_skip(*rest, 3);
            return (char)(high << 4 | low);
        }
    }
    *rest = str_skip(*rest, 1);
    return c == '+' ? ' ' : c;
}

bool query_next(struct str *rest, struct query_parameter *parameter)
{
    if (!rest->n)
        return false;
    size_t end = str_find(*rest, '&');
    struct str whole = {rest->p, end};
    *rest = str_skip(*rest, end < rest->n ? end + 1 : end);
    size_t equals = str_find(whole, '=');
    *parameter = (struct query_parameter){
        whole, {whole.p, equals}, str_skip(whole, equals < whole.n ? equals + 1 : equals)};
    return true;
}

bool query_text_eq(struct str encoded, struct str text)
{
    while (encoded.n && text.n) {
        if (next_decoded(&encoded) != text.p[0])
            return false;
        text = str_skip(text, 1);
    }
    return encoded.n == 0 && text.n == 0;
}

struct str query_decode(struct str encoded, char *out)
{
    size_t n = 0;
    while (encoded.n)
        out[n++] = next_decoded(&encoded);
    return (struct str){out, n};
}

static bool has(struct str query, struct str name)
{
    struct query_parameter parameter;
    while (query_next(&query, &parameter))
        if (query_text_eq(parameter.name, name))
            return true;
    return false;
}

static char *put(char *at, struct str s)
{
    return s.n ? mempcpy(at, s.p, s.n) : at;
}

struct str query_replace(struct str query, struct str name, struct str value, struct arena *arena)
{
    struct query_parameter parameter;
    if (!has(query, name))
        return query;
    // A parameter has two bytes at least, with what stands before or behind it.
    char *text = arena_alloc(arena, query.n + (query.n / 2 + 1) * (value.n + 1)), *at = text;
    while (query_next(&query, &parameter)) {
        bool is_it = query_text_eq(parameter.name, name);
        if (is_it && !value.n)
            continue;
        if (at > text)
            *at++ = '&';
        at = put(at, is_it ? parameter.name : parameter.whole);
        if (is_it) {
            *at++ = '=';
            at = put(at, value);
        }
    }
    return (struct str){text, (size_t)(at - text)};
}
