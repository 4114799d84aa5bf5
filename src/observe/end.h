// How an exchange ended: one table. The access log, metrics, breaker, retry and the error answer read the
// same row.
#pragma once

#include "base/log.h"
#include "base/str.h"
#include "observe/grpc_status.h"

// The gRPC column follows the protocol's "HTTP to gRPC status code mapping" where that says more than
// UNKNOWN. What it would call UNAVAILABLE, which clients try again by themselves, is DEADLINE_EXCEEDED for
// upstream_timeout: the call may have been carried out.
//
// X(id, code name, status, gRPC status, log level, counts against the upstream, may be tried again, title,
// detail)
#define END_CAUSES(X)                                                                                       \
    X(END_OK, "ok", 0, GRPC_OK, LOG_DEBUG, 0, 0, "", "")                                                    \
    X(END_BAD_REQUEST, "bad_request", 400, GRPC_INTERNAL, LOG_INFO, 0, 0, "Bad Request",                    \
      "the request is malformed or ambiguous")                                                              \
    X(END_NO_CREDENTIALS, "no_credentials", 401, GRPC_UNAUTHENTICATED, LOG_INFO, 0, 0, "Unauthorized",      \
      "this needs credentials")                                                                             \
    X(END_INVALID_TOKEN, "invalid_token", 401, GRPC_UNAUTHENTICATED, LOG_INFO, 0, 0, "Unauthorized",        \
      "the token is not valid")                                                                             \
    X(END_EXPIRED_TOKEN, "expired_token", 401, GRPC_UNAUTHENTICATED, LOG_INFO, 0, 0, "Unauthorized",        \
      "the token has expired")                                                                              \
    X(END_REVOKED_TOKEN, "revoked_token", 401, GRPC_UNAUTHENTICATED, LOG_INFO, 0, 0, "Unauthorized",        \
      "the token has been revoked")                                                                         \
    X(END_INVALID_KEY, "invalid_key", 401, GRPC_UNAUTHENTICATED, LOG_INFO, 0, 0, "Unauthorized",            \
      "the API key is not known")                                                                           \
    X(END_UNKNOWN_CERTIFICATE, "unknown_certificate", 401, GRPC_UNAUTHENTICATED, LOG_INFO, 0, 0,            \
      "Unauthorized", "the client certificate belongs to nobody")                                           \
    X(END_INSUFFICIENT_SCOPE, "insufficient_scope", 403, GRPC_PERMISSION_DENIED, LOG_INFO, 0, 0,            \
      "Forbidden", "a scope is missing")                                                                    \
    X(END_INSUFFICIENT_ROLE, "insufficient_role", 403, GRPC_PERMISSION_DENIED, LOG_INFO, 0, 0, "Forbidden", \
      "a role is missing")                                                                                  \
    X(END_DENIED_BY_AUTH_SERVICE, "denied_by_auth_service", 403, GRPC_PERMISSION_DENIED, LOG_INFO, 0, 0,    \
      "Forbidden", "the Auth Service says no")                                                              \
    X(END_IP_DENIED, "ip_denied", 403, GRPC_PERMISSION_DENIED, LOG_INFO, 0, 0, "Forbidden",                 \
      "this address may not use this route")                                                                \
    X(END_NO_ROUTE, "no_route", 404, GRPC_UNIMPLEMENTED, LOG_INFO, 0, 0, "Not Found",                       \
      "no route matches this host and path")                                                                \
    X(END_METHOD_NOT_ALLOWED, "method_not_allowed", 405, GRPC_UNIMPLEMENTED, LOG_INFO, 0, 0,                \
      "Method Not Allowed", "no route here takes this method")                                              \
    X(END_REQUEST_TIMEOUT, "request_timeout", 408, GRPC_DEADLINE_EXCEEDED, LOG_INFO, 0, 0,                  \
      "Request Timeout", "the request did not arrive in time")                                              \
    X(END_BODY_TOO_LARGE, "body_too_large", 413, GRPC_RESOURCE_EXHAUSTED, LOG_INFO, 0, 0,                   \
      "Content Too Large", "the request body is too large")                                                 \
    X(END_URI_TOO_LONG, "uri_too_long", 414, GRPC_RESOURCE_EXHAUSTED, LOG_INFO, 0, 0, "URI Too Long",       \
      "the request target is too long")                                                                     \
    X(END_MISDIRECTED, "misdirected_request", 421, GRPC_UNKNOWN, LOG_INFO, 0, 0, "Misdirected Request",     \
      "this connection was made for another host")                                                          \
    X(END_IDEMPOTENCY_NO_KEY, "idempotency_key_required", 400, GRPC_INVALID_ARGUMENT, LOG_INFO, 0, 0,       \
      "Bad Request", "this needs an Idempotency-Key")                                                       \
    X(END_IDEMPOTENCY_RUNNING, "idempotency_in_progress", 409, GRPC_ABORTED, LOG_INFO, 0, 0, "Conflict",    \
      "the request with this Idempotency-Key is still under way")                                           \
    X(END_IDEMPOTENCY_LOST, "idempotency_not_replayable", 409, GRPC_ALREADY_EXISTS, LOG_INFO, 0, 0,         \
      "Conflict", "the request with this Idempotency-Key was answered, but not with what is kept")          \
    X(END_IDEMPOTENCY_MISMATCH, "idempotency_mismatch", 422, GRPC_INVALID_ARGUMENT, LOG_INFO, 0, 0,         \
      "Unprocessable Content", "this Idempotency-Key was used for another request")                         \
    X(END_RATE_LIMITED, "rate_limited", 429, GRPC_RESOURCE_EXHAUSTED, LOG_INFO, 0, 0, "Too Many Requests",  \
      "a rate limit is used up")                                                                            \
    X(END_QUOTA_EXCEEDED, "quota_exceeded", 429, GRPC_RESOURCE_EXHAUSTED, LOG_INFO, 0, 0,                   \
      "Too Many Requests", "a quota is used up")                                                            \
    X(END_HEADERS_TOO_LARGE, "headers_too_large", 431, GRPC_RESOURCE_EXHAUSTED, LOG_INFO, 0, 0,             \
      "Request Header Fields Too Large", "the request head is too large")                                   \
    X(END_NOT_IMPLEMENTED, "not_implemented", 501, GRPC_UNIMPLEMENTED, LOG_INFO, 0, 0, "Not Implemented",   \
      "this method or transfer coding is not offered")                                                      \
    X(END_VERSION, "version_not_supported", 505, GRPC_UNIMPLEMENTED, LOG_INFO, 0, 0,                        \
      "HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1 are offered")                               \
    X(END_FAULT_INJECTED, "fault_injected", 503, GRPC_UNAVAILABLE, LOG_INFO, 0, 0, "Service Unavailable",   \
      "a fault was injected on purpose")                                                                    \
    X(END_CLIENT_GONE, "client_gone", 499, GRPC_CANCELLED, LOG_INFO, 0, 0, "Client Closed Request",         \
      "the client has gone")                                                                                \
    X(END_CLIENT_SLOW, "client_slow", 499, GRPC_CANCELLED, LOG_INFO, 0, 0, "Client Too Slow",               \
      "the client reads too slowly")                                                                        \
    X(END_UPSTREAM_CONNECT_FAILED, "upstream_connect_failed", 502, GRPC_UNAVAILABLE, LOG_WARN, 1, 1,        \
      "Bad Gateway", "the service cannot be reached")                                                       \
    X(END_UPSTREAM_RESET, "upstream_reset", 502, GRPC_UNAVAILABLE, LOG_WARN, 1, 1, "Bad Gateway",           \
      "the service closed the connection without an answer")                                                \
    X(END_UPSTREAM_REFUSED_STREAM, "upstream_refused_stream", 502, GRPC_UNAVAILABLE, LOG_WARN, 1, 1,        \
      "Bad Gateway", "the service refused the request without looking at it")                               \
    X(END_UPSTREAM_BAD_RESPONSE, "upstream_bad_response", 502, GRPC_UNAVAILABLE, LOG_WARN, 1, 0,            \
      "Bad Gateway", "the service gave an answer that is not valid HTTP")                                   \
    X(END_UPSTREAM_TRUNCATED, "upstream_truncated", 502, GRPC_UNAVAILABLE, LOG_WARN, 1, 0, "Bad Gateway",   \
      "the service broke off its answer")                                                                   \
    X(END_UPSTREAM_STATUS, "upstream_status", 502, GRPC_UNAVAILABLE, LOG_INFO, 1, 1, "Bad Gateway",         \
      "the service answered with a failure")                                                                \
    X(END_NO_ENDPOINT, "no_endpoint", 503, GRPC_UNAVAILABLE, LOG_WARN, 0, 0, "Service Unavailable",         \
      "the service has no endpoint that takes requests")                                                    \
    X(END_OVERLOADED, "overloaded", 503, GRPC_UNAVAILABLE, LOG_WARN, 0, 0, "Service Unavailable",           \
      "too many requests are waiting for the service")                                                      \
    X(END_BREAKER_OPEN, "breaker_open", 503, GRPC_UNAVAILABLE, LOG_INFO, 0, 0, "Service Unavailable",       \
      "the service is failing, and is not asked for a while")                                               \
    X(END_AUTH_UNAVAILABLE, "auth_unavailable", 503, GRPC_UNAVAILABLE, LOG_WARN, 0, 0,                      \
      "Service Unavailable", "nobody can say at the moment who you are")                                    \
    X(END_LIMITER_UNAVAILABLE, "limiter_unavailable", 503, GRPC_UNAVAILABLE, LOG_WARN, 0, 0,                \
      "Service Unavailable", "nobody can say at the moment whether a limit is used up")                     \
    X(END_IDEMPOTENCY_UNAVAILABLE, "idempotency_unavailable", 503, GRPC_UNAVAILABLE, LOG_WARN, 0, 0,        \
      "Service Unavailable", "nobody can say at the moment whether this Idempotency-Key was used")          \
    X(END_DRAINING, "draining", 503, GRPC_UNAVAILABLE, LOG_INFO, 0, 0, "Service Unavailable",               \
      "the gateway is being stopped")                                                                       \
    X(END_UPSTREAM_TIMEOUT, "upstream_timeout", 504, GRPC_DEADLINE_EXCEEDED, LOG_WARN, 1, 1,                \
      "Gateway Timeout", "the service did not answer in time")                                              \
    X(END_DEADLINE_EXCEEDED, "deadline_exceeded", 504, GRPC_DEADLINE_EXCEEDED, LOG_WARN, 1, 0,              \
      "Gateway Timeout", "the time for this request is over")                                               \
    X(END_INTERNAL, "internal", 500, GRPC_INTERNAL, LOG_ERROR, 0, 0, "Internal Server Error",               \
      "the gateway failed")

enum end_cause {
#define X(id, ...) id,
    END_CAUSES(X)
#undef X
        END_CAUSE_COUNT,
};

struct end_row {
    struct str code;
    unsigned status;
    enum grpc_status grpc_status;
    enum log_level level;
    bool against_upstream;
    bool retryable;
    struct str title;
    struct str detail; // for people, when the place it happened at has nothing better to say
};

extern const struct end_row end_rows[END_CAUSE_COUNT];

static inline const struct end_row *end_row(enum end_cause cause)
{
    return &end_rows[cause];
}
