// A bound on how many of something may be in use at a time, over all workers: exact, and fair when it is used
// up. To take and to give back is one atomic instruction each while nobody is in line, and no lock.
//
// When it is used up, workers stand in line, each for as many as it could use. What is given back is granted
// to the one whose turn it is, which is woken, and to nobody else on the way.
//
//   take ── free, and nobody in line ──────────────▶ in use ── give ──▶ granted to who is next, or free
//    └─ no: want n ──▶ in line ──▶ granted, woken ── take ──▶ in use
#pragma once

#include "base/list.h"
#include "loop/loop.h"

#include <pthread.h>
#include <stdatomic.h>

// Whose turn it is.
enum fair_order {
    FAIR_LONGEST, // who has waited the longest: for what comes back soon
    FAIR_FEWEST,  // who has the fewest, or of those whose turn is the longest ago: for what is kept
};

struct fair_quota {
    atomic_uint used, limit; // used: granted ones too
    atomic_bool in_line;     // somebody is: what is free is theirs
    enum fair_order order;
    pthread_mutex_t lock; // for what follows, and what is said to be in the shares
    struct list shares;
    uint64_t turn;
};

void fair_quota_init(struct fair_quota *quota, enum fair_order order);
// Any thread.
void fair_quota_set_limit(struct fair_quota *quota, uint32_t limit);
bool fair_quota_is_over(const struct fair_quota *quota); // more are in use than may be: the limit was lowered

// A worker's side. Zero it, then fair_share_init.
struct fair_share {
    struct fair_quota *quota; // NULL: what it uses is not counted with the others'
    struct loop *loop;
    struct loop_task task;      // posted when something was granted
    struct list node;           // lock
    bool woken;                 // task is on its way; lock
    uint32_t wants;             // granted ones too; written by its worker; lock
    uint64_t first_us, last_us; // since when the first and the last of them wait; the same
    uint64_t turn;              // of the quota, when it was granted one or gave one back last; lock
    atomic_uint granted;        // and not taken yet; changed with the lock
    atomic_uint used;           // changed by its worker
};

// run is called in the loop's thread, from the task; it calls fair_share_heard.
void fair_share_init(struct fair_share *share, struct loop *loop, void (*run)(struct loop_task *task));
// From here on what it uses is counted in quota, where it stays. Harmless when it is there.
void fair_share_join(struct fair_share *share, struct fair_quota *quota);
// What it uses is counted there no longer; it stands in no line. Harmless when it is nowhere. The loop's
// thread, or when that has ended.
void fair_share_leave(struct fair_share *share);

must_check bool fair_share_take(struct fair_share *share);
// When it is granted to the share itself, its worker is not woken: it is at it.
void fair_share_give(struct fair_share *share);
// Its worker could use n more, and who is to have them waits since then: it stands in line until it has been
// granted so many, or says another number. 0: no longer. True when some are granted, which fair_share_take
// takes.
bool fair_share_want(struct fair_share *share, uint32_t n, uint64_t first_us, uint64_t last_us);
bool fair_share_is_short(const struct fair_share *share); // it wants more than it has been granted
uint32_t fair_share_left(const struct fair_share *share); // how many could be taken now
void fair_share_heard(struct fair_share *share);

static inline uint32_t fair_share_used(const struct fair_share *share)
{
    return atomic_load_explicit(&share->used, memory_order_relaxed);
}

// Only its worker writes it: no locked instruction.
static inline void fair_share_add_used(struct fair_share *share, uint32_t change)
{
    atomic_store_explicit(&share->used, fair_share_used(share) + change, memory_order_relaxed);
}

// ---- with the lock, for those who build on it ----

// Who is in line, but for except, and whose turn it is. NULL: nobody.
struct fair_share *fair_quota_next(struct fair_quota *quota, const struct fair_share *except);
uint32_t fair_share_held(const struct fair_share *share); // in use, and granted
void fair_share_wake(struct fair_share *share);
void fair_share_give_locked(struct fair_share *share);
