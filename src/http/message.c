#include "http/message.h"

#include "base/check.h"

// clang-format off
static const struct str methods[METHOD_COUNT] = {
    [METHOD_OTHER] = {"OTHER", 5},
#define X(id, name) [id] = {name, sizeof(name) - 1},
    HTTP_METHODS(X)
#undef X
};
// clang-format on

enum http_method http_method_of(struct str name)
{
    for (unsigned i = METHOD_OTHER + 1; i < METHOD_COUNT; i++)
        if (str_eq(methods[i], name))
            return (enum http_method)i;
    return METHOD_OTHER;
}

struct str http_method_name(enum http_method method)
{
    check(method < METHOD_COUNT);
    return methods[method];
}

bool http_method_safe(enum http_method method)
{
    return method == METHOD_GET || method == METHOD_HEAD || method == METHOD_OPTIONS ||
           method == METHOD_TRACE;
}

bool http_method_idempotent(enum http_method method)
{
    return http_method_safe(method) || method == METHOD_PUT || method == METHOD_DELETE;
}

struct str http_idempotency_key(const struct request_head *head)
{
    if (head->method != METHOD_POST && head->method != METHOD_PATCH)
        return STR_NULL;
    const struct header *only = NULL;
    for (uint32_t i = 0; i < head->headers.count; i++) {
        const struct header *header = &head->headers.v[i];
        if (header->id != HEADER_IDEMPOTENCY_KEY)
            continue;
        if (only)
            return STR_NULL;
        only = header;
    }
    return only && only->value.n <= IDEMPOTENCY_KEY_BYTES ? only->value : STR_NULL;
}

bool http_request_repeatable(const struct request_head *head)
{
    return http_method_idempotent(head->method) || http_idempotency_key(head).n;
}

struct str http_preflight_method(const struct request_head *head)
{
    if (head->method != METHOD_OPTIONS || !headers_find(&head->headers, HEADER_ORIGIN))
        return STR_NULL;
    const struct header *asked = headers_find_name(&head->headers, STR("Access-Control-Request-Method"));
    return asked && header_name_valid(asked->value) ? asked->value : STR_NULL; // a token like names
}

// The IANA registry of status codes, without those marked unused.
#define REASONS(X)                            \
    X(100, "Continue")                        \
    X(101, "Switching Protocols")             \
    X(102, "Processing")                      \
    X(103, "Early Hints")                     \
    X(200, "OK")                              \
    X(201, "Created")                         \
    X(202, "Accepted")                        \
    X(203, "Non-Authoritative Information")   \
    X(204, "No Content")                      \
    X(205, "Reset Content")                   \
    X(206, "Partial Content")                 \
    X(207, "Multi-Status")                    \
    X(208, "Already Reported")                \
    X(226, "IM Used")                         \
    X(300, "Multiple Choices")                \
    X(301, "Moved Permanently")               \
    X(302, "Found")                           \
    X(303, "See Other")                       \
    X(304, "Not Modified")                    \
    X(305, "Use Proxy")                       \
    X(307, "Temporary Redirect")              \
    X(308, "Permanent Redirect")              \
    X(400, "Bad Request")                     \
    X(401, "Unauthorized")                    \
    X(402, "Payment Required")                \
    X(403, "Forbidden")                       \
    X(404, "Not Found")                       \
    X(405, "Method Not Allowed")              \
    X(406, "Not Acceptable")                  \
    X(407, "Proxy Authentication Required")   \
    X(408, "Request Timeout")                 \
    X(409, "Conflict")                        \
    X(410, "Gone")                            \
    X(411, "Length Required")                 \
    X(412, "Precondition Failed")             \
    X(413, "Content Too Large")               \
    X(414, "URI Too Long")                    \
    X(415, "Unsupported Media Type")          \
    X(416, "Range Not Satisfiable")           \
    X(417, "Expectation Failed")              \
    X(421, "Misdirected Request")             \
    X(422, "Unprocessable Content")           \
    X(423, "Locked")                          \
    X(424, "Failed Dependency")               \
    X(425, "Too Early")                       \
    X(426, "Upgrade Required")                \
    X(428, "Precondition Required")           \
    X(429, "Too Many Requests")               \
    X(431, "Request Header Fields Too Large") \
    X(451, "Unavailable For Legal Reasons")   \
    X(500, "Internal Server Error")           \
    X(501, "Not Implemented")                 \
    X(502, "Bad Gateway")                     \
    X(503, "Service Unavailable")             \
    X(504, "Gateway Timeout")                 \
    X(505, "HTTP Version Not Supported")      \
    X(506, "Variant Also Negotiates")         \
    X(507, "Insufficient Storage")            \
    X(508, "Loop Detected")                   \
    X(511, "Network Authentication Required")

struct str http_reason(unsigned status)
{
    switch (status) {
#define X(code, reason) \
    case code: return STR(reason);
        REASONS(X)
#undef X
    default: return STR("");
    }
}
