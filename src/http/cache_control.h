// What a message says to caches (RFC 9111 5.2, RFC 5861), as a shared one reads it.
#pragma once

#include "http/header.h"

#define CACHE_UNSAID UINT64_MAX

struct cache_control {
    bool no_store, no_cache;
    bool is_private, is_public;
    bool must_revalidate; // or proxy-revalidate
    // Seconds; CACHE_UNSAID: it does not say. Of several the smallest; 0 for what is no number (4.2.1).
    uint64_t max_age_s, s_maxage_s, stale_if_error_s;
};

// All Cache-Control lines. Directives with field names (private="Set-Cookie") are read as those without; what
// cannot be read is no-store.
struct cache_control http_cache_control(const struct headers *headers);

// For how many seconds from its Date a shared cache may call an answer fresh (RFC 9111 4.2.1, 5.3): s-maxage,
// else max-age, else Expires. CACHE_UNSAID: it does not say. now_s: when it came, if it has no Date.
uint64_t http_fresh_s(const struct headers *headers, const struct cache_control *said, int64_t now_s);

// The seconds that an answer had spent in other caches (RFC 9111 5.1): of the first Age, 0 when that is no
// number.
uint64_t http_age_s(const struct headers *headers);
// The seconds since its Date, 0 without one (apparent_age, RFC 9111 4.2.3).
uint64_t http_apparent_age_s(const struct headers *headers, int64_t now_s);
