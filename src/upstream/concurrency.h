// How many requests an upstream is given at a time, over all workers: its limits.requests, or less where
// adaptive_concurrency finds that it takes no more (adaptive.h).
//
// A worker adds up what it measures and tells it now and then, when nobody else is telling: no request waits
// for a lock.
#pragma once

#include "base/quota.h"
#include "upstream/adaptive.h"
#include "upstream/outcome.h"

struct concurrency; // an upstream's controller, of the process

// By a dense index, made when first asked for and kept for the life of the process, so that what it has
// learned outlives a change of configuration. Control thread.
struct concurrency *concurrency_at(uint32_t index);
// The limit in force, for people. Any thread.
uint32_t concurrency_limit(const struct concurrency *concurrency, uint32_t most);

// A worker's side. Zero it, then concurrency_set.
struct concurrency_share {
    struct quota_share places;
    struct concurrency *adaptive; // NULL: the limit is fixed
    uint32_t most;                // limits.requests
    struct adaptive_batch batch;
    uint64_t told_us;
};

// Begins, or follows a change of settings: what is in use stays so. adaptive NULL: the limit is fixed.
void concurrency_set(struct concurrency_share *share, struct quota *quota, int64_t most,
                     struct concurrency *adaptive, unsigned slot, unsigned workers);
must_check bool concurrency_take(struct concurrency_share *share);
void concurrency_give(struct concurrency_share *share);
// How an attempt went that had a place. waited_us: from the end of its request to the response's head, or to
// the end of the attempt when there was none; 0: not known.
void concurrency_note(struct concurrency_share *share, const struct upstream_outcome *outcome,
                      uint64_t waited_us, uint64_t now_us);
