// What becomes of the request fields that the gateway knows, on their way to an upstream.
#pragma once

#include "http/header.h"

enum forward_rule {
    FORWARD_KEEP,
    FORWARD_DROP,    // written anew by the gateway (framing, Host's duplicates)
    FORWARD_REPLACE, // the gateway says this itself; a trusted peer's words are taken into it
    FORWARD_TRUSTED, // goes on from a trusted peer only
    FORWARD_EXPECT,  // goes on when the request is really waiting for 100
    FORWARD_TRACE,   // goes on when the peer's trace is kept
};

static inline enum forward_rule forward_rule(enum header_id id)
{
    static const unsigned char rules[] = {
        [HEADER_CONTENT_LENGTH] = FORWARD_DROP,
        [HEADER_HOST] = FORWARD_DROP,
        [HEADER_EXPECT] = FORWARD_EXPECT,
        [HEADER_VIA] = FORWARD_REPLACE,
        [HEADER_FORWARDED] = FORWARD_REPLACE,
        [HEADER_X_FORWARDED_FOR] = FORWARD_REPLACE,
        [HEADER_X_FORWARDED_PROTO] = FORWARD_REPLACE,
        [HEADER_X_FORWARDED_HOST] = FORWARD_REPLACE,
        [HEADER_X_FORWARDED_PORT] = FORWARD_REPLACE,
        [HEADER_X_FORWARDED_CLIENT_CERT] = FORWARD_REPLACE,
        [HEADER_X_REQUEST_TIMEOUT_MS] = FORWARD_REPLACE,
        [HEADER_CLIENT_CERT] = FORWARD_TRUSTED,
        [HEADER_CLIENT_CERT_CHAIN] = FORWARD_TRUSTED,
        [HEADER_X_REQUEST_ID] = FORWARD_TRUSTED,
        [HEADER_X_FORWARDED_PREFIX] = FORWARD_TRUSTED,
        [HEADER_X_FORWARDED_URI] = FORWARD_TRUSTED,
        [HEADER_X_FORWARDED_METHOD] = FORWARD_TRUSTED,
        [HEADER_X_FORWARDED_SERVER] = FORWARD_TRUSTED,
        [HEADER_X_REAL_IP] = FORWARD_TRUSTED,
        [HEADER_X_ORIGINAL_URL] = FORWARD_TRUSTED,
        [HEADER_X_REWRITE_URL] = FORWARD_TRUSTED,
        [HEADER_X_ORIGINAL_URI] = FORWARD_TRUSTED,
        [HEADER_X_ORIGINAL_METHOD] = FORWARD_TRUSTED,
        [HEADER_X_HTTP_METHOD_OVERRIDE] = FORWARD_TRUSTED,
        [HEADER_X_HTTP_METHOD] = FORWARD_TRUSTED,
        [HEADER_X_METHOD_OVERRIDE] = FORWARD_TRUSTED,
        [HEADER_TRACEPARENT] = FORWARD_TRACE,
        [HEADER_TRACESTATE] = FORWARD_TRACE,
    };
    return id < sizeof rules ? (enum forward_rule)rules[id] : FORWARD_KEEP;
}

// What a service may go by as by the request line and Host. It comes from trusted peers only, but many of
// those pass on what clients say under these names: it is a part of what was asked for. (Forwarded is, too,
// but for who it says has asked.)
static inline bool forward_steers(enum header_id id)
{
    static const bool steers[] = {
        [HEADER_X_FORWARDED_PROTO] = true,  [HEADER_X_FORWARDED_HOST] = true,
        [HEADER_X_FORWARDED_PORT] = true,   [HEADER_X_FORWARDED_PREFIX] = true,
        [HEADER_X_FORWARDED_URI] = true,    [HEADER_X_FORWARDED_METHOD] = true,
        [HEADER_X_FORWARDED_SERVER] = true, [HEADER_X_ORIGINAL_URL] = true,
        [HEADER_X_REWRITE_URL] = true,      [HEADER_X_ORIGINAL_URI] = true,
        [HEADER_X_ORIGINAL_METHOD] = true,  [HEADER_X_HTTP_METHOD_OVERRIDE] = true,
        [HEADER_X_HTTP_METHOD] = true,      [HEADER_X_METHOD_OVERRIDE] = true,
    };
    return id < sizeof steers && steers[id];
}
