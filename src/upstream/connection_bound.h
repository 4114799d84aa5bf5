// How many connections to an upstream may be open at a time, over all workers: its limits.connections.
//
// One counter of the process, exact however large the limit (fair_quota.h): it is touched when a connection
// is made or closed, never by the requests between. When it is used up, workers stand in line, and those that
// hold connections are woken. They close what lies idle, as many as are wanted; and of what comes back from
// its call what is more than their fair part, or, when there is less than one for each, what they have had
// for a turn. What is given back goes to the one in line that has the fewest.
#pragma once

#include "upstream/fair_quota.h"

enum {
    CONNECTION_IDLE_MS = 10, // unused for so long, it is given up for others: not between two requests
    CONNECTION_TURN_MS = 50, // how long the only one may be kept busy while others have none
    CONNECTION_ASK_MS = 10,  // how often holders are woken by one in line
};

struct connection_bound {
    struct fair_quota quota; // used: those open or on their way, and those granted
    uint32_t closing;        // shares that are; the quota's lock
};

// By a dense index, made when first asked for and kept for the life of the process, since connections outlive
// a change of configuration. Control thread.
struct connection_bound *connection_bound_at(uint32_t index);
void connection_bound_init(struct connection_bound *bound);

// A worker's side. Zero it, then connection_share_init.
struct connection_share {
    struct fair_share fair; // its task is also posted when somebody else wants some
    struct connection_bound *bound;
    bool closing;                // what it gives back next was wanted; changed by its worker
    bool asked;                  // others want some, or did lately
    uint64_t asked_ms, since_ms; // when it asked others last; when it came by its first
};

// run is called in the loop's thread, from the task; it calls connection_share_heard.
void connection_share_init(struct connection_share *share, struct loop *loop,
                           void (*run)(struct loop_task *task));
// Begins, or follows a change of the limit: what is in use stays so.
void connection_share_set(struct connection_share *share, struct connection_bound *bound, int64_t limit);
// The worker ends: nothing is in use by it any more. The loop's thread, or when that has ended.
void connection_share_leave(struct connection_share *share);

must_check bool connection_share_take(struct connection_share *share, uint64_t now_ms);
void connection_share_give(struct connection_share *share);
// Takes one more than the limit: the caller gives one back at once, whose place it takes.
void connection_share_swap(struct connection_share *share);
// Its worker could use n more: it stands in line until it has been granted so many, or says another number.
// 0: no longer. True when some are granted, which connection_share_take takes.
bool connection_share_want(struct connection_share *share, uint32_t n, uint64_t now_ms);

// From run: looks whether others want some, for the next two.
void connection_share_heard(struct connection_share *share);
// Whether a connection that has been idle since then is to be closed for others: then it must be, before the
// next question, since nobody else is told to.
must_check bool connection_share_close_idle(struct connection_share *share, uint64_t idle_since_ms,
                                            uint64_t now_ms);
// Whether one that is busy should be closed for others as soon as it comes back. leaving: of those in use,
// how many will be closed anyway. One look at memory of its own while nobody is in line.
bool connection_share_owes(struct connection_share *share, uint32_t leaving, uint64_t now_ms);
