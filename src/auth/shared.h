// What Auth Services have said, for all workers: behind the cache of each, so that a service is asked by one
// of them, and nobody who is known to one is unknown to another when it is down.
//
//   the worker's cache ─not fresh─▶ auth_shared_find ─not fresh─▶ the service
//          ▲──────── a copy ◀────────────┘                            │
//          └────────────── both are told: auth_shared_put ◀───────────┘
//
// An identity is counted by one worker without atomics, so the identities here are copies, in and out, under
// one lock. Who finds a fresh answer in the worker's own cache never takes it. Bounded as that one is.
#pragma once

#include "auth/cache.h"

// Any thread. One for each worker; with the last one everything is forgotten.
void auth_shared_open(void);
void auth_shared_close(void);
// Fresh or stale, as auth_cache_find; only what is fresh for longer than known_ms, when the worker's own is
// (INT64_MIN: it has none). found->identity: the caller's reference to a copy, or NULL.
bool auth_shared_find(struct hash128 key, int64_t now_ms, int64_t known_ms, struct auth_decision *found);
void auth_shared_put(const struct auth_decision *decision); // what memory has no room for is forgotten
void auth_shared_drop(struct hash128 key);
