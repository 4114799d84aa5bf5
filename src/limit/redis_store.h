// Rate limits whose buckets are in Redis, so that all gateways share them: the worker's side. One connection
// a worker; one script decides about all limits of a request (script.h); decisions of one loop turn leave in
// one write.
//
//   limit_decide ─▶ the local table remembers a refusal ──────────────────────────▶ LIMIT_REFUSED
//        │
//        ├─▶ a leased limit has enough in its purse: taken from there, and Redis is not asked
//        ├─▶ limits of this process are taken from
//        └─▶ Redis is asked ─▶ LIMIT_WAIT … wake ─▶ limit_decide ─▶ LIMIT_PASSED or LIMIT_REFUSED
//                  └─ it is in trouble, or says nothing in time ─▶ each limit's on_redis_down
//
// Keys with one tag are asked about together; in a Cluster, where only they are in one place, limits with
// other tags are asked about afterwards, in the order of the route, and who refuses makes those before give
// back. A server that is alone, or a master, is asked once about all.
//
// What Redis says of a bucket is remembered in the local table, as a time on this process's clock, never
// later than the truth. While that says that there is not enough, Redis is not asked. It is also where this
// gateway's share goes on from when Redis is gone.
#pragma once

#include "base/ticket.h"
#include "limit/gateways.h"
#include "limit/limit.h"
#include "loop/loop.h"

enum {
    LIMIT_TROUBLE_IN_A_ROW = 5, // failures; then Redis is not asked until it has answered a probe
    LIMIT_TROUBLE_MIN = 20,     // answers within a second, before their ratio says something
    LIMIT_TROUBLE_PERCENT = 50, // of them that failed
    LIMIT_PROBE_MS = 100,       // up to half as much more, so that gateways do not probe together
};

// Where a use's tokens were taken from.
enum limit_taken {
    LIMIT_NOT_TAKEN,
    LIMIT_TAKEN_HERE,
    LIMIT_TAKEN_IN_REDIS,
    LIMIT_TAKEN_OF_LEASE, // from the purse, or with what was bought for it (purse.h)
    LIMIT_TAKEN_OF_SHARE, // here, without Redis
    LIMIT_WAVED_THROUGH,  // nothing was, without Redis
};

enum limit_result {
    LIMIT_PASSED,
    LIMIT_REFUSED,     // asking->refuser
    LIMIT_UNAVAILABLE, // on_redis_down: deny
    LIMIT_WAIT,        // ask again when the ticket is redeemed
};

struct limit_worker;
struct limit_question;

// One request's way through its limits; it stays where it is from the first call of limit_decide to the last,
// or limit_forget.
struct limit_asking { // fill in the first part, zero the rest
    struct limit_table *table;
    struct limit_use *uses;
    uint32_t count;
    int64_t now_s; // as limit_ask was told
    bool is_keyed; // limit_ask was told the shared seed
    struct ticket ticket;
    // Its own:
    const struct limit_use *refuser;
    struct limit_question *question; // under way
    uint32_t group, groups;          // that is asked about, from 1, and how many there are
    bool has_failed, is_refused;     // what came of it
};

struct limit_worker_needs {
    struct loop *loop;
    unsigned tls_slot;
    struct metrics *metrics;
    struct rand *rand;
    void *context;
    void (*wake)(void *context, struct ticket ticket);
};

struct limit_worker *limit_worker_new(const struct limit_worker_needs *needs);
// Gives back what is in purses, for which it turns the loop until Redis has it, or for twice the deadline.
void limit_worker_free(struct limit_worker *worker);
// A new snapshot: connects to its Redis when a limit is there, and stays connected to the same.
void limit_worker_update(struct limit_worker *worker, const struct limits *limits);
// The process is to end: what is in purses is spent or goes back, nothing more is bought.
void limit_worker_drain(struct limit_worker *worker);
// For limit_ask: NULL when it is not known (yet).
const struct siphash_key *limit_worker_seed(struct limit_worker *worker);

// For requests that have at least one use of a limit in Redis. now_us: now.
enum limit_result limit_decide(struct limit_worker *worker, struct limit_asking *asking, uint64_t now_us);
// The request is gone while it waits: what has been taken stays taken.
void limit_forget(struct limit_asking *asking);
// As limit_take_rest, wherever the use's tokens came from. Nobody waits for Redis.
void limit_settle(struct limit_worker *worker, struct limit_table *table, struct limit_use *use,
                  uint64_t cost, int64_t now_s, uint64_t now_us);
