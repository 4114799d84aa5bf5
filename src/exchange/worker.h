// A worker: one thread, one loop, and everything that a request needs without asking another thread.
#pragma once

#include "base/block_pool.h"
#include "base/lent.h"
#include "exchange/gateway.h"
#include "exchange/overload.h"
#include "http/date.h"
#include "loop/loop.h"

struct exchange;

// A worker's reference to a snapshot, with its exchanges, and what of it is lent, counted by the worker
// alone: one atomic count for all workers would be a cache line that each request writes twice.
struct gateway_hold {
    struct gateway *gateway;
    uint32_t users;
    struct worker *worker;
    struct lender lender;
};

struct worker {
    unsigned slot, count; // which of how many
    struct loop loop;
    struct buf_pool buffers;
    struct arena_spares spares;
    struct block_pool blocks; // of HTTP/2 sessions, either side
    struct rand rand;
    struct metrics *metrics;
    struct access_log log;
    uint64_t log_dropped;      // lines of its writer that are in the metrics
    struct gateway *gateway;   // in force for new exchanges
    struct gateway_hold *hold; // of gateway
    struct upstream_worker *upstreams;
    struct route_scratch *scratch;
    struct auth_worker *auth;
    struct limit_worker *limiter;
    struct replay_store *replays;
    struct loop_hook turn_end;
    struct overload overload;
    uint64_t uploads_us; // when stalled uploads are looked for again
    bool aborting;       // exchanges end with their clients
    bool draining;       // answers carry Connection: close, health says draining

    uint64_t date_second; // the Date field's cached second and its text
    char date_text[HTTP_DATE_BYTES];

    // Live exchanges by slot, for the admin API and for a bug's last words.
    struct exchange **slots;
    uint32_t *free_slots; // a stack
    uint32_t slot_count, free_count, live;
    uint32_t generation;         // of the last ticket
    struct list spare_exchanges; // kept for the next requests
    uint32_t spare_count;

    // Streams whose identity is looked at now and then (watch.c), and the timer while there are any.
    struct list watched;
    struct loop_timer watch;
};

// Takes a reference to gateway. writer may be NULL (no access log). NULL and *err when the machine refuses.
struct worker *worker_new(unsigned slot, unsigned count, struct gateway *gateway,
                          struct access_writer *writer, struct err *err);
// After the loop has ended, with no exchange alive. Drops everything.
void worker_free(struct worker *worker);

// ---- in the worker's thread ----

// The snapshot in force, for one more exchange.
struct gateway_hold *worker_hold(struct worker *worker);
void worker_release(struct worker *worker, struct gateway_hold *hold);
// What lies in its snapshot, to send: it stays there until that is given back.
struct lent worker_lend(struct gateway_hold *hold, struct str part);

// A new snapshot is in force; takes over the caller's reference.
void worker_update(struct worker *worker, struct gateway *gateway, struct access_writer *writer);
void worker_drain(struct worker *worker);
// The Date field's value for now (RFC 9110 5.6.7); valid until the next call.
struct str worker_date(struct worker *worker, uint64_t wall_us);
