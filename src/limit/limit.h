// Rate limits, ready for use: which bucket a request draws from, and whether it may.
//
//   limits_compile   settings → struct limits, in the snapshot
//   limit_ask        limit, caller → tier, key               what is this request's bucket?
//   limits_enter     places of those under way → verdict     first: what leaves again has cost nothing
//   limits_take      uses of a route, clock → verdict        all are checked before any is charged
//   limit_take_rest  a response's own cost, afterwards
//
// A key names the limit and who is limited, never a configuration: a reload that changes a rate goes on with
// the same buckets (bucket.h says what becomes of them).
#pragma once

#include "auth/identity.h"
#include "http/message.h"
#include "limit/flight.h"
#include "limit/limit_config.h"
#include "limit/purse.h"
#include "limit/table.h"
#include "net/addr.h"
#include "redis/redis.h"

// What clients are told of it.
struct limit_face {
    struct str label;  // per_consumer; of a quota per_consumer:d
    struct str policy; // `"per_consumer";q=200;w=2`, for RateLimit-Policy
};

struct limit_quota {
    enum window_unit unit;
    uint64_t tokens;
    struct limit_face face;
};

struct limit_tier {
    struct str name; // n == 0: default
    bool has_bucket; // rule and face; without one there is in_flight
    struct limit_rule rule;
    struct limit_face face;
    const struct limit_quota *quotas;
    uint32_t quota_count;
    uint32_t in_flight; // 0: no bound
};

struct limit {
    const struct limit_settings *settings;
    struct str name;
    uint32_t id;                    // of metrics (NAME_LIMIT)
    uint64_t head;                  // of its keys: a hash of the name
    const struct limit_tier *tiers; // in order; the last one is the default
    uint32_t tier_count;            // without the default
    enum header_id cost_header;
    bool is_shared;  // its buckets are in Redis (redis_store.h)
    bool is_leased;  // of those the ones with purses (purse.h)
    bool has_flight; // a tier has in_flight
};

struct limits {
    const struct limit *v; // in the order of rate_limits
    uint32_t count;
    bool legacy; // telemetry.headers.rate_limit_legacy
    bool any_flight;
    struct limit_table *table;
    struct purses *purses;
    const struct redis_settings *redis; // NULL: there is none
    const struct addr *redis_addrs;     // the caller's to fill in
    unsigned redis_addr_count;
    bool any_shared;
    struct str_list claims; // paths of those that keys and tiers ask for
};

// settings: of limit_settings, checked. redis: NULL when the configuration has none. It and table are
// borrowed.
void limits_compile(struct limits *limits, const struct config_list *settings,
                    const struct redis_settings *redis, struct limit_table *table, struct arena *arena);
const struct limit *limit_named(const struct limits *limits, struct str name);

// Who asks.
struct limit_caller {
    const struct identity *identity; // NULL: nobody knows
    const struct ip *client;
    const struct headers *headers; // of the request
    struct str route;
    int64_t now_s; // Unix seconds: quotas go by the calendar
    uint64_t now_us;
    const struct siphash_key *shared_seed; // of keys in Redis; NULL: not known
};

// One bucket or quota of one request.
struct limit_use {
    const struct limit *limit;
    const struct limit_face *face;
    struct limit_rule rule;
    struct hash128 key;
    uint64_t cost;
    uint64_t state;   // when last looked at
    uint64_t wait_us; // until it would let the request through; 0: it does
    // Of a limit whose buckets are in Redis:
    struct hash128 tag; // of the key's parts, without the limit's name
    uint32_t group;     // which question of the request it is part of; 0: none, it is in this process
    unsigned taken;     // enum limit_taken
    bool is_degraded;   // decided without Redis
};

enum { LIMIT_USES = 1 + WINDOW_UNITS }; // of one limit, at most

// Fills in the bucket's use, if there is one, then those of the quotas. Returns how many.
uint32_t limit_ask(const struct limit *limit, const struct limit_caller *caller, struct limit_use *uses);
// What limits_take would say, without taking anything.
const struct limit_use *limits_look(struct limit_table *table, struct limit_use *uses, uint32_t count,
                                    uint64_t now_us);
// The one that refuses, and for the longest, or NULL: then all are charged. A limit in shadow mode refuses
// nobody, and is charged when it would not refuse.
const struct limit_use *limits_take(struct limit_table *table, struct limit_use *uses, uint32_t count,
                                    uint64_t now_us);
// The response says what the request cost in all (limit->settings->cost.header): the rest is taken.
void limit_take_rest(struct limit_table *table, struct limit_use *use, uint64_t cost, uint64_t now_us);

// ---- requests under way ----

// One request's place among those of its key.
struct limit_flight {
    const struct limit *limit;
    struct hash128 key;
    uint32_t most;
    bool is_held, is_over; // is_over: there was no room
    struct flight_place place;
};
// False: the caller's tier has no in_flight.
bool limit_ask_flight(const struct limit *limit, const struct limit_caller *caller,
                      struct limit_flight *flight);
// Takes all places, or none and returns the one that refuses. They stay where they are until limits_leave. A
// limit in shadow mode refuses nobody, and its place is taken when it would not refuse.
const struct limit_flight *limits_enter(struct limit_flight *flights, uint32_t count);
// Gives those back that are held.
void limits_leave(struct limit_flight *flights, uint32_t count);

// ---- for people: keys by their words ----

// One part of a key: "consumer:acme", "subject:alice", "client_ip:192.0.2.1" for identity, else the value.
// issuer: of a subject's token; n == 0: it has none.
struct limit_words {
    struct str v[LIMIT_KEY_PARTS];
    uint32_t count;
    struct str issuer;
};
// The key of a quota, by that of the limit's bucket.
struct hash128 limit_quota_key(struct hash128 key, enum window_unit unit);
// Where what is taken of either without Redis is counted.
static inline struct hash128 limit_share_key(struct hash128 key)
{
    return (struct hash128){.lo = ~key.lo, .hi = key.hi};
}
// Whose purse it is (purse.h). Tiers share a bucket, but a token costs each of them another time to come
// back: what was bought by one must neither be spent by another, nor go back at its price.
static inline struct hash128 limit_purse_key(struct hash128 key, const struct limit_rule *rule)
{
    const struct bucket *bucket = &rule->bucket;
    if (!rule->is_window)
        key.lo ^= (bucket->step * BUCKET_PARTS + bucket->parts) * UINT64_C(0x9e3779b97f4a7c15) + bucket->span;
    return key;
}
// False: *why says what is wrong with them (static).
bool limit_key_of_words(const struct limit *limit, const struct limit_words *words, struct hash128 *key,
                        const char **why);
// The tag of its keys in Redis. False: as above.
bool limit_tag_of_words(const struct limit *limit, const struct limit_words *words,
                        const struct siphash_key *shared_seed, struct hash128 *tag);
// PREFIX{TAG}LABEL: what has the same tag is in one slot of a Cluster. label: of the use's face.
struct str limit_redis_key(struct str prefix, struct hash128 tag, struct str label, struct arena *arena);
