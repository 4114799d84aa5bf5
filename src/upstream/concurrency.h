// How many requests an upstream is given at a time, over all workers: its limits.requests, or less where
// adaptive_concurrency finds that it takes no more (adaptive.h).
//
// A small limit is one counter of the process, exact and fair (fair_quota.h): when it is used up, the lines
// of the workers are one line, and what comes back goes to who has waited the longest. A large limit that is
// fixed is cut into parts, one for each worker, so that the workers share no cache line on a request's path;
// a part may run out while others have some left.
//
// A worker adds up what it measures and tells it now and then, when nobody else is telling: no request waits
// for a lock but those that have to wait in line.
#pragma once

#include "upstream/adaptive.h"
#include "upstream/fair_quota.h"
#include "upstream/outcome.h"

struct concurrency; // an upstream's, of the process

// By a dense index, made when first asked for and kept for the life of the process, since what is in use, and
// what the controller has learned, outlives a change of configuration. Control thread.
struct concurrency *concurrency_at(uint32_t index);
// The limit in force where it is adaptive, for people. Any thread.
uint32_t concurrency_limit(const struct concurrency *concurrency, uint32_t most);

// Requests that wait in the workers' lines: for a place or for a connection. Any thread.
uint32_t concurrency_waiting(const struct concurrency *concurrency);

// A worker's side. Zero it, then concurrency_init.
struct concurrency_share {
    struct fair_share places; // without a quota: those of a part
    struct concurrency *concurrency;
    uint32_t most; // limits.requests
    uint32_t part; // of a limit that is cut, this worker's
    bool adaptive;
    struct adaptive_batch batch;
    uint64_t told_us;
};

// run is called in the loop's thread when a place has been granted; it calls fair_share_heard.
void concurrency_init(struct concurrency_share *share, struct loop *loop,
                      void (*run)(struct loop_task *task));
// Begins, or follows a change of settings: what is in use stays so. slot, workers: which of how many.
void concurrency_set(struct concurrency_share *share, struct concurrency *concurrency, int64_t most,
                     bool adaptive, unsigned slot, unsigned workers);
// The worker ends. The loop's thread, or when that has ended.
void concurrency_leave(struct concurrency_share *share);
must_check bool concurrency_take(struct concurrency_share *share);
void concurrency_give(struct concurrency_share *share);
// Its worker could use n more, for requests that have waited since then: it stands in line for them, until it
// says another number. 0: no longer. True when it may take one.
bool concurrency_want(struct concurrency_share *share, uint32_t n, uint64_t first_us, uint64_t last_us);
// So many requests more wait in its line.
void concurrency_wait(struct concurrency_share *share, int change);
uint32_t concurrency_left(const struct concurrency_share *share); // how many could be taken now
// How an attempt went that had a place. waited_us: from the end of its request to the response's head, or to
// the end of the attempt when there was none; 0: not known.
void concurrency_note(struct concurrency_share *share, const struct upstream_outcome *outcome,
                      uint64_t waited_us, uint64_t now_us);
