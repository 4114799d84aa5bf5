// The request and response heads that every protocol version turns into, and that every room to the left
// reads.
#pragma once

#include "http/header.h"

enum { IDEMPOTENCY_KEY_BYTES = 255 /* UUIDs have 36; Stripe takes as many */ };

#define HTTP_METHODS(X)          \
    X(METHOD_GET, "GET")         \
    X(METHOD_HEAD, "HEAD")       \
    X(METHOD_POST, "POST")       \
    X(METHOD_PUT, "PUT")         \
    X(METHOD_DELETE, "DELETE")   \
    X(METHOD_PATCH, "PATCH")     \
    X(METHOD_OPTIONS, "OPTIONS") \
    X(METHOD_TRACE, "TRACE")     \
    X(METHOD_CONNECT, "CONNECT")

enum http_method {
    METHOD_OTHER = 0, // any other token: case matters
#define X(id, name) id,
    HTTP_METHODS(X)
#undef X
        METHOD_COUNT,
};

// How a message's body is delimited (RFC 9112 6.3).
enum framing {
    FRAMING_NONE,    // no body
    FRAMING_LENGTH,  // content_length bytes (0 is FRAMING_NONE for a request without the field, LENGTH 0 with
                     // it)
    FRAMING_CHUNKED, // chunked; HTTP/2: until END_STREAM
    FRAMING_CLOSE,   // responses only: until the connection closes
    FRAMING_TUNNEL,  // after 101: bytes both ways until both sides close
};

struct request_head {
    enum http_method method;
    struct str method_name; // the token itself
    struct str target;      // as received
    struct str authority;   // host[:port] in force: absolute-form's, else Host; valid per RFC 3986 3.2
    struct str host;        // authority without port, lower case; IPv6 keeps its brackets
    struct str path;        // normalised, see uri.h; "*" for OPTIONS *
    struct str query;       // without '?', as received; has_query tells "" from none
    bool has_query;
    unsigned minor; // HTTP/1.minor
    struct headers headers;
    enum framing framing;
    uint64_t content_length;
    bool keep_alive;       // what the client asked for (RFC 9112 9.3)
    bool expect_continue;  // Expect: 100-continue from an HTTP/1.1 client with a body
    struct str upgrade;    // the Upgrade value when Connection names it, else n == 0
    bool http2;            // received over HTTP/2; minor is 1 then
    bool extended_connect; // upgrade was asked for by RFC 8441's CONNECT: the answer to it is 200, not 101
    bool te_trailers;      // the client takes trailers (TE: trailers); gRPC insists on it
};

struct response_head {
    unsigned status; // 100-599
    struct str reason;
    unsigned minor;
    struct headers headers;
    enum framing framing;
    uint64_t content_length; // also for HEAD and 304 when announced, see has_length
    bool has_length;
    bool keep_alive; // what the upstream allows
};

enum http_method http_method_of(struct str name);
struct str http_method_name(enum http_method method); // "OTHER" for METHOD_OTHER
// RFC 9110 9.2.1: GET, HEAD, OPTIONS, TRACE.
bool http_method_safe(enum http_method method);
// RFC 9110 9.2.2: the safe ones, PUT and DELETE.
bool http_method_idempotent(enum http_method method);
// draft-ietf-httpapi-idempotency-key-header: what a client calls its POST or PATCH, so that it may send it
// again. Opaque: quotes are part of it. n == 0: another method, none, several, or one longer than
// IDEMPOTENCY_KEY_BYTES.
struct str http_idempotency_key(const struct request_head *head);
// May be sent twice: by its method, or since the client says so by its Idempotency-Key.
bool http_request_repeatable(const struct request_head *head);
// The method that a CORS preflight asks about (Fetch standard, 3.2.2); n == 0: the request is none.
struct str http_preflight_method(const struct request_head *head);
// The standard reason phrase, or "" when there is none.
struct str http_reason(unsigned status);
