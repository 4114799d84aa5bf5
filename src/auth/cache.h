// A worker's cache of decisions, of all providers: tokens that were verified, answers of Auth Services. Keyed
// by a SipHash of what was asked (128 bits, secret key), so that the credentials themselves are not kept.
// Bounded by count and bytes; the least recently used goes first (CLOCK: one bit an entry, no list to move on
// a hit).
#pragma once

#include "auth/identity.h"
#include "base/siphash.h"
#include "observe/end.h"

enum {
    AUTH_CACHE_ENTRIES = 128 * 1024,      // a worker: a hundred thousand live tokens and room
    AUTH_CACHE_BYTES = 128 * 1024 * 1024, // of identities, a worker
};

struct auth_decision {
    struct hash128 key;
    struct identity *identity; // NULL: denied
    enum end_cause cause;      // of a denial
    uint32_t why;              // of a denial: what its kind makes of it
    int64_t fresh_until_ms;    // Unix milliseconds
    int64_t stale_until_ms;    // when the service is down; >= fresh_until_ms
};

struct auth_cache;
struct auth_cache *auth_cache_new(void);
void auth_cache_free(struct auth_cache *cache);
// Also what is stale: look at fresh_until_ms. NULL: none, or past stale_until_ms. Valid until the next call.
struct auth_decision *auth_cache_find(struct auth_cache *cache, struct hash128 key, int64_t now_ms);
// Takes its own reference to the identity; replaces what is there.
void auth_cache_put(struct auth_cache *cache, const struct auth_decision *decision);
void auth_cache_drop(struct auth_cache *cache, struct hash128 key);
uint32_t auth_cache_count(const struct auth_cache *cache);
size_t auth_cache_bytes(const struct auth_cache *cache);
