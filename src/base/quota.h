// A bound on how many of something may be in use at a time, over all workers.
//
// A small limit is exact: one atomic counter. A large one is cut into shares, one for each worker, so that
// the workers share no cache line on a request's path; a share may run out while others have some left.
#pragma once

#include "base/check.h"
#include "base/kept.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { QUOTA_EXACT_PER_WORKER = 64 /* limits up to this much a worker are exact */ };

struct quota {
    atomic_uint used;          // by workers whose side is exact
    _Atomic uint64_t short_ms; // when somebody was held up for it last: written and read by its owners
};

// Quotas by a dense index, made when first asked for and kept for the life of the process, since what is in
// use outlives a change of configuration. One thread.
struct quota_table {
    struct kept quotas;
};

struct quota *quota_at(struct quota_table *table, uint32_t index);

// A worker's side. Zero it, then quota_set.
struct quota_share {
    struct quota *quota;
    uint32_t limit; // of all, when exact; else this worker's share
    uint32_t used;  // by this worker
    bool exact;
};

// Begins, or follows a change of the limit: what is in use stays so.
void quota_set(struct quota_share *share, struct quota *quota, int64_t limit, unsigned slot,
               unsigned workers);
must_check bool quota_take(struct quota_share *share);
void quota_give(struct quota_share *share);

// Whether a limit is so large that each worker has a part of it for itself.
bool quota_is_cut(int64_t limit, unsigned workers);
// This worker's part of limit, so that all parts add up to it; at least one when limit is not 0.
uint32_t quota_part(int64_t limit, unsigned slot, unsigned workers);
