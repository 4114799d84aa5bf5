// Key sets of Auth Services: process-wide, by where they come from, across reloads. The control thread
// fetches; workers read.
//
//   first use ─▶ fetch, with back-off until it is good (the gateway is not ready before, for at most
//   JWKS_FIRST_MS) every `refresh`, ±10 % ─▶ fetch; failed: the last good set stays in force for
//   keep_last_good, tried again soon a worker meets an unknown kid ─▶ jwks_want ─▶ at most one fetch a
//   cooldown, for all workers ─▶ on_change of each
//
// The cooldown counts from the last fetch that an unknown kid asked for: a periodic one does not hold it up.
#pragma once

#include "auth/auth_config.h"
#include "loop/loop.h"
#include "token/token.h"

enum { JWKS_FIRST_MS = 10000, JWKS_RETRY_MS = 1000 };

struct jwks;
struct upstream;
struct upstream_worker;
struct metrics;
struct auth;

// ---- any thread ----

// The set in force, a reference for the caller; NULL: none was ever had, or the last good one is too old.
// *version changes with the content, and when a set runs out.
struct token_keys *jwks_keys(struct jwks *jwks, uint64_t *version);
// Without a lock: whether the version is another one.
uint64_t jwks_version(const struct jwks *jwks);

enum jwks_want {
    JWKS_WAIT,   // a fetch is under way or begins: the listener hears of its end
    JWKS_KNOWN,  // asked less than a cooldown ago and the answer was good: the kid is unknown
    JWKS_FAILED, // asked less than a cooldown ago in vain: nobody knows
};
enum jwks_want jwks_want(struct jwks *jwks);

// A worker that wants to hear when a fetch has ended, good or not: run in its own loop.
struct jwks_listener {
    struct jwks_listener *next;
    struct loop *loop;
    struct loop_task task; // posted
    void (*on_fetched)(struct jwks_listener *listener);
    _Atomic bool posted;
};
void jwks_listen(struct jwks_listener *listener);
void jwks_unlisten(struct jwks_listener *listener);

// ---- control thread ----

// By uri or file; the same source with other timings adopts them. One reference is the caller's.
struct jwks *jwks_open(struct str provider, const struct jwt_settings *settings);
void jwks_close(struct jwks *jwks);
// What fetches: once, before the first snapshot is compiled. metrics: the control thread's own.
void jwks_start(struct loop *loop, struct upstream_worker *upstreams, struct metrics *metrics);
void jwks_stop(void);
// A snapshot is in force: its sources are fetched, those that nobody holds any more are not.
void jwks_update(const struct auth *auth);
// Whether every source of the snapshot has been asked once, with success or for JWKS_FIRST_MS in vain.
bool jwks_is_ready(const struct auth *auth);
