#include "http/header.h"

// RFC 6265 5.4: "name=value; name2=value2", perhaps on several lines.
struct str headers_cookie(const struct headers *headers, struct str name)
{
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->v[i].id != HEADER_COOKIE)
            continue;
        struct str rest = headers->v[i].value;
        while (rest.n) {
            size_t end = str_find(rest, ';');
            struct str pair = str_trim((struct str){rest.p, end});
            size_t equals = str_find(pair, '=');
            if (equals < pair.n && str_eq((struct str){pair.p, equals}, name))
                return str_skip(pair, equals + 1);
            rest = str_skip(rest, end < rest.n ? end + 1 : end);
        }
    }
    return STR_NULL;
}
