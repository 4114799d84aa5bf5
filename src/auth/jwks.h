// Key sets of Auth Services: process-wide, by where they come from, across reloads. The control thread
// fetches; workers read.
//
//   a snapshot names it ──▶ fetch, again and again, ever later, until it is good (the gateway is not ready
//                           before, for at most JWKS_FIRST_MS)
//   every refresh, ±10 % ─▶ fetch; failed: the last good set stays in force, for keep_last_good since it was
//                           fetched, and fetching is tried again soon
//   an unknown kid ───────▶ jwks_want ──▶ at most one fetch a cooldown, for all workers together
//   whatever ended, how ──▶ on_fetched of every listener, in its own loop
//
// The cooldown counts from the end of the last fetch that an unknown kid asked for: a periodic one does not
// hold it up.
//
// A file is looked at every JWKS_LOOK_MS, read when it has changed and rests, and at once when an unknown kid
// asks. One that is bad or gone leaves the last good set in force, without end: no time makes that doubtful.
#pragma once

#include "auth/auth_config.h"
#include "loop/loop.h"
#include "token/token.h"

enum {
    JWKS_FIRST_MS = 10000,
    JWKS_RETRY_MS = 200, // the first pause after a failure; then twice as long each time
    JWKS_RETRY_MAX_MS = 30000,
    JWKS_LOOK_MS = 1000,
};

struct jwks;
struct upstream;
struct upstream_worker;
struct metrics;
struct auth;

// ---- any thread that has a snapshot which names the source ----

// The set in force, a reference for the caller; NULL: none was ever had, or the last good one is too old.
// *version changes with the content, and when a set runs out; no two sets of the process share one. 0: never
// any.
struct token_keys *jwks_keys(struct jwks *jwks, uint64_t *version);
// Without a lock: whether the version is another one.
uint64_t jwks_version(const struct jwks *jwks);

enum jwks_want {
    JWKS_WAIT,   // a fetch is under way or begins: the listener hears of its end. Then look, and ask again
    JWKS_KNOWN,  // asked less than a cooldown ago and the answer was good: the kid is unknown
    JWKS_FAILED, // asked less than a cooldown ago in vain: nobody knows
};
enum jwks_want jwks_want(struct jwks *jwks);

// A worker that wants to hear when a fetch has ended, good or not, of any source: run in its own loop.
struct jwks_listener { // zero it, then fill in loop and on_fetched
    struct loop *loop;
    void (*on_fetched)(struct jwks_listener *listener);
    struct jwks_listener *next;
    struct loop_task task; // posted
    _Atomic bool posted;
};
void jwks_listen(struct jwks_listener *listener);
// In the loop's thread: nothing is called any more.
void jwks_unlisten(struct jwks_listener *listener);

// ---- control thread ----

// By file, or uri and ca. One reference is the caller's: the snapshot's.
struct jwks *jwks_open(struct str provider, const struct jwt_settings *settings);
void jwks_close(struct jwks *jwks); // NULL is harmless
// What fetches: once, before the first jwks_update, and before any worker runs. metrics: the control thread's
// own.
void jwks_start(struct loop *loop, struct upstream_worker *upstreams, struct metrics *metrics);
// No worker runs any more. What is under way is given up; upstreams can go after the loop's next turn.
void jwks_stop(void);
// A snapshot is in force, and stays until the next one is or jwks_stop: its sources are fetched, with the
// timings and over the upstream of the first provider that names each; others are not fetched any more.
void jwks_update(const struct auth *auth);
// The first provider whose keys have not been had yet, for less than JWKS_FIRST_MS; n == 0: the snapshot is
// ready.
struct str jwks_awaited(const struct auth *auth);
static inline bool jwks_is_ready(const struct auth *auth)
{
    return jwks_awaited(auth).n == 0;
}
