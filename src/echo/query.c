#include "echo/query.h"

#include "http/chars.h"

#include <stdlib.h>

bool query_next(struct str *rest, struct str name, struct str *value)
{
    while (rest->n) {
        struct str pair = {rest->p, str_find(*rest, '&')};
        *rest = str_skip(*rest, pair.n < rest->n ? pair.n + 1 : pair.n);
        struct str key = {pair.p, str_find(pair, '=')};
        if (str_eq(key, name)) {
            *value = str_skip(pair, key.n < pair.n ? key.n + 1 : key.n);
            return true;
        }
    }
    return false;
}

bool query_get(struct str query, struct str name, struct str *value)
{
    return query_next(&query, name, value);
}

uint64_t query_u64(struct str query, struct str name, uint64_t fallback, uint64_t max)
{
    struct str text;
    uint64_t value;
    return query_get(query, name, &text) && str_to_u64(text, max, &value) ? value : fallback;
}

double query_share(struct str query, struct str name, double fallback)
{
    struct str text;
    char copy[24], *end;
    if (!query_get(query, name, &text))
        return fallback;
    if (!text.n || text.n >= sizeof copy)
        return -1;
    memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    double share = strtod(copy, &end);
    return *end || !(share >= 0 && share <= 1) ? -1 : share;
}

struct str query_decode(struct str value, struct arena *arena)
{
    if (str_find(value, '%') == value.n && str_find(value, '+') == value.n)
        return value;
    char *out = arena_alloc(arena, value.n), *at = out;
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        if (c == '%' && i + 2 < value.n && char_is(value.p[i + 1], CHAR_HEX) &&
            char_is(value.p[i + 2], CHAR_HEX)) {
            *at++ = (char)(hex_value(value.p[i + 1]) << 4 | hex_value(value.p[i + 2]));
            i += 2;
        } else {
            *at++ = c == '+' ? ' ' : c;
        }
    }
    return str_range(out, at);
}
