// Asking every worker for something that lives in its thread.
//
//   control thread   collect_start ──▶ a task for each worker ─── all, or ADMIN_COLLECT_MS ──▶ on_done
//   worker threads          gather into their own part ──┘
//
// A part is read when it is ready. The collection outlives its deadline and its client until the last worker
// has answered, however late: only then is it freed.
#pragma once

#include "admin/room.h"

enum {
    COLLECT_AT_ONCE = 256,    // collections under way: workers that do not answer must not pile them up
    COLLECT_EXCHANGES = 1000, // printed of each worker: more would hold its requests up
};

enum collect_what { COLLECT_METRICS, COLLECT_LOAD, COLLECT_LIVE };

struct collect_part {
    struct loop_task task;
    struct collection *collection;
    struct worker *worker;
    struct front *front;
    atomic_bool ready;
    // COLLECT_METRICS:
    struct metrics *metrics;
    // COLLECT_LOAD and COLLECT_LIVE:
    uint32_t live, connections, lent;
    uint64_t turns, longest_turn_us;
    bool draining;
    uint32_t *active; // by endpoint->index: requests in flight
    uint32_t active_count;
    // COLLECT_LIVE:
    struct buf exchanges; // JSON: one value an exchange, commas between
    uint32_t printed;
};

struct collection {
    struct admin *admin;         // NULL: the room is gone
    struct serve_client *client; // NULL: nobody waits any more
    enum collect_what what;
    void (*on_done)(struct serve_client *c, struct collection *collection);
    struct loop *control;
    struct loop_timer deadline;
    atomic_uint remaining;
    struct loop_task done_task;
    struct list node;
    unsigned count;
    struct collect_part parts[];
};

// on_done replies. Replies 503 itself when there are too many.
void collect_start(struct serve_client *c, enum collect_what what,
                   void (*on_done)(struct serve_client *c, struct collection *collection));
// The part when it has come in, else NULL.
const struct collect_part *collect_part(const struct collection *collection, unsigned i);
bool collect_complete(const struct collection *collection);
// Requests in flight at an endpoint, of the workers that answered.
uint64_t collect_active(const struct collection *collection, uint32_t endpoint_index);
