// HTTP/1.1 and 1.0 heads: one strict grammar (RFC 9112), no I/O, no allocation but the caller's arena.
//
// A head is parsed in place, once, when it is complete. What is refused, and with which fault, is the table
// below; nothing that was refused is ever forwarded. CRLF only ends lines; bare CR, bare LF and NUL are
// refused everywhere. Empty lines (CRLF) before a request line are skipped, at most two (RFC 9112 2.2).
#pragma once

#include "http/message.h"
#include "observe/end.h"

struct arena;

// A head's faults, over HTTP/1 or 2.
enum h1_fault {
    H1_OK = 0,
    H1_BAD_REQUEST,     // 400: grammar, ambiguous framing, Host
    H1_URI_TOO_LONG,    // 414
    H1_HEAD_TOO_LARGE,  // 431: bytes or number of fields
    H1_NOT_IMPLEMENTED, // 501: an unknown transfer coding; CONNECT
    H1_VERSION,         // 505: not HTTP/1.x
    H1_BAD_RESPONSE,    // 502: from an upstream
};

// How an exchange with such a head ends.
enum end_cause h1_fault_cause(enum h1_fault fault);

struct h1_limits {
    uint32_t head_bytes; // request line or status line and fields, with line ends
    uint32_t uri_bytes;
    uint32_t headers;   // number of fields
    bool merge_slashes; // uri.h; requests
};

enum h1_result { H1_MORE, H1_DONE, H1_FAULT };

struct h1_parse {
    // The caller's, kept between calls for one message; zero it for the next.
    size_t scanned; // bytes known to hold no end of head: whole lines, checked
    uint32_t lines; // fields in them
    // The outcome.
    size_t consumed; // H1_DONE: length of the head with its empty line
    enum h1_fault fault;
    const char *why; // H1_FAULT: a phrase for the answer's detail and the log, static
};

// What becomes of request fields with an underscore in their name: "drop" removes them (the default), since
// "_" and "-" look alike to many frameworks behind a gateway.
enum h1_underscores { H1_UNDERSCORES_DROP, H1_UNDERSCORES_REJECT, H1_UNDERSCORES_ALLOW };

// Parses a request head at data. On H1_DONE every str in *head points into arena (the head is copied there
// once), so data may be reused at once. Path and host are normalised (uri.h); framing, keep-alive, expect and
// upgrade are decided. In absolute-form the authority also replaces the value of Host (RFC 9112 3.2.2).
// H1_MORE: nothing is wrong so far; call again with more bytes (data may have moved). Each line is checked
// and limits are enforced as soon as they are there, not only at the end; the fault is the same however the
// bytes are split. H1_FAULT: *head holds what was understood in this call, for the log: method_name and
// target are empty or in arena.
enum h1_result h1_parse_request(struct h1_parse *parse, const char *data, size_t n,
                                const struct h1_limits *limits, enum h1_underscores underscores,
                                struct arena *arena, struct request_head *head);

// Parses a response head; request_method decides about the body (RFC 9112 6.3: HEAD, 1xx, 204, 304, CONNECT).
// 101 gets FRAMING_TUNNEL. A response with both Transfer-Encoding and Content-Length, with repeated or listed
// lengths, with an unknown or non-final chunked coding or with Transfer-Encoding in HTTP/1.0 is
// H1_BAD_RESPONSE. Content-Length in 1xx and 204 is removed (RFC 9110 8.6).
enum h1_result h1_parse_response(struct h1_parse *parse, const char *data, size_t n,
                                 const struct h1_limits *limits, enum http_method request_method,
                                 struct arena *arena, struct response_head *head);
