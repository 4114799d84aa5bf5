// What all gateways on one Redis have in common, seen to by the control thread: the seed of their keys, and
// how many of them there are.
//
//   PREFIXseed       32 hexadecimal digits, made by whoever comes first, and put back when it is lost
//   PREFIXgateways   a sorted set: who was there when, in seconds by Redis's own clock
//
// Keys of buckets are hashes under that seed: nothing a client sends is part of a key, and nobody who does
// not know the seed finds two callers with one bucket.
#pragma once

#include "base/siphash.h"
#include "limit/script.h"
#include "redis/fleet.h"

enum {
    LIMIT_HEARTBEAT_MS = 1000,
    LIMIT_GATEWAY_GONE_S = 3, // without a heartbeat
};

struct limit_gateways;

// Connects from the next turn on. One of them is in force in a process: what it learns is known to all
// threads, and until then nothing is. NULL and *err: the settings make no sense.
struct limit_gateways *limit_gateways_new(const struct redis_access *access, struct err *err);
void limit_gateways_free(struct limit_gateways *gateways); // NULL is harmless
bool limit_gateways_is_same(const struct limit_gateways *a, const struct limit_gateways *b);

// Looks at buckets, for people. told is valid during the call, NULL when Redis does not answer. queries: as
// limit_script_command.
void limit_gateways_look(struct limit_gateways *gateways, const struct limit_query *queries, uint32_t count,
                         int64_t now_s, uint64_t now_us, void *context,
                         void (*on_told)(void *context, const struct limit_told *told));
// Makes them full. keys: at least one, all with the same tag.
void limit_gateways_reset(struct limit_gateways *gateways, const struct str *keys, uint32_t count,
                          void *context, void (*on_reset)(void *context, bool done));

// ---- any thread ----

struct limit_seed { // a thread's copy; zero it
    uint64_t version;
    struct siphash_key key;
};
// False: it is not known yet.
bool limit_seed_get(struct limit_seed *seed);
// Gateways that are alive, this one too: the last number that was heard and is believed, at least 1.
uint32_t limit_gateways_count(void);

// ---- pure ----

// What to believe when `known` were alive and Redis, which has been heard of for so long, says `told`. A
// Redis that is back, or a replica that became the master, has to hear of everybody before fewer is news:
// until then a gateway would give itself the shares of those that are late.
uint32_t limit_gateways_believe(uint32_t known, int64_t told, uint64_t heard_ms);
