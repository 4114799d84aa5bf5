#include "http/grpc.h"

// ---- which requests ----

bool grpc_is_content_type(struct str value)
{
    struct str type = STR("application/grpc");
    if (value.n < type.n || !str_eq_fold((struct str){value.p, type.n}, type))
        return false;
    if (value.n == type.n)
        return true;
    char next = value.p[type.n];
    return next == '+' || next == ';' || next == ' ' || next == '\t';
}

bool grpc_is_request(const struct request_head *head)
{
    return head->method == METHOD_POST &&
           grpc_is_content_type(headers_value(&head->headers, HEADER_CONTENT_TYPE));
}

bool grpc_can_end_early(const struct response_head *head)
{
    return head->status == 200 && !head->has_length &&
           (head->framing == FRAMING_CHUNKED || head->framing == FRAMING_CLOSE) &&
           grpc_is_content_type(headers_value(&head->headers, HEADER_CONTENT_TYPE));
}

// ---- grpc-timeout ----

// From the finest that is printed to the coarsest.
static const struct unit {
    char letter;
    uint64_t us;
} units[] = {
    {'u', 1}, {'m', 1000}, {'S', 1000000}, {'M', 60 * 1000000ull}, {'H', 3600 * 1000000ull},
};

enum { UNITS = sizeof units / sizeof *units, MOST = 99999999 };

bool grpc_timeout_parse(struct str value, uint64_t *us)
{
    uint64_t number;
    if (value.n < 2 || value.n > GRPC_TIMEOUT_TEXT ||
        !str_to_u64((struct str){value.p, value.n - 1}, MOST, &number))
        return false;
    char letter = value.p[value.n - 1];
    if (letter == 'n') {
        *us = number / 1000;
        return true;
    }
    for (unsigned i = 0; i < UNITS; i++) {
        if (units[i].letter == letter) {
            *us = number * units[i].us;
            return true;
        }
    }
    return false;
}

struct str grpc_timeout_print(uint64_t us, char out[GRPC_TIMEOUT_TEXT])
{
    unsigned i = 0;
    while (i + 1 < UNITS && us / units[i].us > MOST)
        i++;
    uint64_t number = us / units[i].us;
    char digits[20];
    size_t n = u64_print(number < MOST ? number : MOST, digits);
    memcpy(out, digits, n);
    out[n] = units[i].letter;
    return (struct str){out, n + 1};
}

// ---- errors ----

enum grpc_status grpc_status_of_http(unsigned status)
{
    switch (status) {
    case 400: return GRPC_INTERNAL;
    case 401: return GRPC_UNAUTHENTICATED;
    case 403: return GRPC_PERMISSION_DENIED;
    case 404:
    case 501: return GRPC_UNIMPLEMENTED;
    case 413:
    case 429:
    case 431: return GRPC_RESOURCE_EXHAUSTED;
    default: return status >= 500 ? GRPC_UNAVAILABLE : GRPC_UNKNOWN;
    }
}

unsigned grpc_status_to_http(unsigned status)
{
    static const unsigned short statuses[GRPC_STATUS_COUNT] = {
        [GRPC_OK] = 200,
        [GRPC_CANCELLED] = 499,
        [GRPC_UNKNOWN] = 500,
        [GRPC_INVALID_ARGUMENT] = 400,
        [GRPC_DEADLINE_EXCEEDED] = 504,
        [GRPC_NOT_FOUND] = 404,
        [GRPC_ALREADY_EXISTS] = 409,
        [GRPC_PERMISSION_DENIED] = 403,
        [GRPC_RESOURCE_EXHAUSTED] = 429,
        [GRPC_FAILED_PRECONDITION] = 400,
        [GRPC_ABORTED] = 409,
        [GRPC_OUT_OF_RANGE] = 400,
        [GRPC_UNIMPLEMENTED] = 404,
        [GRPC_INTERNAL] = 500,
        [GRPC_UNAVAILABLE] = 503,
        [GRPC_DATA_LOSS] = 500,
        [GRPC_UNAUTHENTICATED] = 401,
    };
    return status < GRPC_STATUS_COUNT ? statuses[status] : 500;
}

// At most n bytes of s, and no part of a character.
static struct str cut(struct str s, size_t n)
{
    if (s.n <= n)
        return s;
    while (n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    return (struct str){s.p, n};
}

struct str grpc_message_encode(struct arena *arena, struct str message)
{
    static const char hex[] = "0123456789ABCDEF";
    message = cut(message, GRPC_MESSAGE_BYTES);
    char *out = arena_alloc(arena, message.n * 3 + 1), *p = out;
    for (size_t i = 0; i < message.n; i++) {
        unsigned char c = (unsigned char)message.p[i];
        if (c >= ' ' && c <= '~' && c != '%') {
            *p++ = (char)c;
            continue;
        }
        *p++ = '%';
        *p++ = hex[c >> 4];
        *p++ = hex[c & 15];
    }
    return str_range(out, p);
}
