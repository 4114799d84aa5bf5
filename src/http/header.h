// Header fields and the names the gateway itself knows.
#pragma once

#include "base/str.h"

// Every field name that some room asks for. A name's id is found once, when the head is parsed.
#define HEADER_NAMES(X)                                          \
    X(HEADER_CONNECTION, "connection")                           \
    X(HEADER_CONTENT_LENGTH, "content-length")                   \
    X(HEADER_TRANSFER_ENCODING, "transfer-encoding")             \
    X(HEADER_TE, "te")                                           \
    X(HEADER_TRAILER, "trailer")                                 \
    X(HEADER_UPGRADE, "upgrade")                                 \
    X(HEADER_KEEP_ALIVE, "keep-alive")                           \
    X(HEADER_PROXY_CONNECTION, "proxy-connection")               \
    X(HEADER_PROXY_AUTHENTICATE, "proxy-authenticate")           \
    X(HEADER_PROXY_AUTHORIZATION, "proxy-authorization")         \
    X(HEADER_HTTP2_SETTINGS, "http2-settings")                   \
    X(HEADER_HOST, "host")                                       \
    X(HEADER_EXPECT, "expect")                                   \
    X(HEADER_DATE, "date")                                       \
    X(HEADER_SERVER, "server")                                   \
    X(HEADER_VIA, "via")                                         \
    X(HEADER_FORWARDED, "forwarded")                             \
    X(HEADER_X_FORWARDED_FOR, "x-forwarded-for")                 \
    X(HEADER_X_FORWARDED_PROTO, "x-forwarded-proto")             \
    X(HEADER_X_FORWARDED_HOST, "x-forwarded-host")               \
    X(HEADER_X_FORWARDED_PORT, "x-forwarded-port")               \
    X(HEADER_X_FORWARDED_PREFIX, "x-forwarded-prefix")           \
    X(HEADER_X_FORWARDED_URI, "x-forwarded-uri")                 \
    X(HEADER_X_FORWARDED_METHOD, "x-forwarded-method")           \
    X(HEADER_X_FORWARDED_SERVER, "x-forwarded-server")           \
    X(HEADER_X_REAL_IP, "x-real-ip")                             \
    X(HEADER_X_FORWARDED_CLIENT_CERT, "x-forwarded-client-cert") \
    X(HEADER_CLIENT_CERT, "client-cert")                         \
    X(HEADER_CLIENT_CERT_CHAIN, "client-cert-chain")             \
    X(HEADER_X_ORIGINAL_URL, "x-original-url")                   \
    X(HEADER_X_REWRITE_URL, "x-rewrite-url")                     \
    X(HEADER_X_ORIGINAL_URI, "x-original-uri")                   \
    X(HEADER_X_ORIGINAL_METHOD, "x-original-method")             \
    X(HEADER_X_HTTP_METHOD_OVERRIDE, "x-http-method-override")   \
    X(HEADER_X_HTTP_METHOD, "x-http-method")                     \
    X(HEADER_X_METHOD_OVERRIDE, "x-method-override")             \
    X(HEADER_X_REQUEST_ID, "x-request-id")                       \
    X(HEADER_X_REQUEST_TIMEOUT_MS, "x-request-timeout-ms")       \
    X(HEADER_TRACEPARENT, "traceparent")                         \
    X(HEADER_TRACESTATE, "tracestate")                           \
    X(HEADER_AUTHORIZATION, "authorization")                     \
    X(HEADER_COOKIE, "cookie")                                   \
    X(HEADER_RETRY_AFTER, "retry-after")                         \
    X(HEADER_LOCATION, "location")                               \
    X(HEADER_CONTENT_TYPE, "content-type")                       \
    X(HEADER_GRPC_TIMEOUT, "grpc-timeout")                       \
    X(HEADER_IDEMPOTENCY_KEY, "idempotency-key")                 \
    X(HEADER_USER_AGENT, "user-agent")                           \
    X(HEADER_REFERER, "referer")                                 \
    X(HEADER_SEC_WEBSOCKET_KEY, "sec-websocket-key")             \
    X(HEADER_ORIGIN, "origin")                                   \
    X(HEADER_VARY, "vary")

enum header_id {
    HEADER_OTHER = 0, // a name not in the table
#define X(id, name) id,
    HEADER_NAMES(X)
#undef X
        HEADER_ID_COUNT,
    HEADER_GONE = 255, // removed from the message: writers and searches skip it
};

struct header {
    struct str name, value; // as received (case kept), the value trimmed
    enum header_id id;
};

// The fields of one message, in the order received. The array lives in the message's arena.
struct headers {
    struct header *v;
    uint32_t count, capacity;
};

struct arena;

// Case-insensitive; HEADER_OTHER when unknown. O(1).
enum header_id header_id_of(struct str name);
// The lower-case name of a known id.
struct str header_name(enum header_id id);
// RFC 9110 5.6.2 token characters, at least one.
bool header_name_valid(struct str name);
// RFC 9110 5.5: no CTL but HTAB; obs-text (0x80-0xff) is allowed.
bool header_value_valid(struct str value);

// The first field with this id / name (any case) that is not gone, or NULL.
struct header *headers_find(const struct headers *headers, enum header_id id);
// Its value, n == 0 when there is none.
struct str headers_value(const struct headers *headers, enum header_id id);
struct header *headers_find_name(const struct headers *headers, struct str name);
// Grows in the arena. name and value are borrowed.
void headers_add(struct headers *headers, struct arena *arena, struct str name, struct str value);
void headers_add_id(struct headers *headers, struct arena *arena, enum header_id id, struct str value);
// A name whose id the caller knows, spelled as it should be sent.
void headers_add_as(struct headers *headers, struct arena *arena, enum header_id id, struct str name,
                    struct str value);
// Marks every field of that id / name as gone; returns how many there were.
unsigned headers_remove(struct headers *headers, enum header_id id);
unsigned headers_remove_name(struct headers *headers, struct str name);
// Removes, then adds one.
void headers_set(struct headers *headers, struct arena *arena, struct str name, struct str value);
// True when a comma-separated list field (all its lines) holds this token, any case: Connection, TE, Upgrade.
bool headers_list_has(const struct headers *headers, enum header_id id, struct str token);

// The value of a cookie of this name (case matters), n == 0 when there is none (RFC 6265 5.4).
struct str headers_cookie(const struct headers *headers, struct str name);

// Meant for the next peer alone (RFC 9110 7.6.1).
bool header_is_hop_by_hop(enum header_id id);
// RFC 9110 7.6.1: removes the hop-by-hop fields and every field named by Connection, except those a peer must
// not be able to strip: Host, framing (Content-Length, Transfer-Encoding) and the forwarding fields the
// gateway itself sets. Transfer-Encoding, Connection, Keep-Alive, TE, Trailer, Upgrade, Proxy-*,
// HTTP2-Settings are gone afterwards.
void headers_remove_hop_by_hop(struct headers *headers);
