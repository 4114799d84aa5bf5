#include "upstream/concurrency.h"

#include "base/check.h"
#include "base/kept.h"
#include "base/quota.h"

#include <stdlib.h>

struct concurrency {
    struct fair_quota places; // first: its counter shares no line with others'
    pthread_mutex_t lock;
    struct adaptive adaptive;
    atomic_uint limit; // of the controller; 0: not begun
    atomic_uint waiting;
};

struct concurrency *concurrency_at(uint32_t index)
{
    static struct kept all;
    void **place = kept_at(&all, index);
    if (!*place) {
        size_t size = (sizeof(struct concurrency) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        struct concurrency *concurrency = aligned_alloc(CACHE_LINE, size);
        check(concurrency);
        *concurrency = (struct concurrency){0};
        fair_quota_init(&concurrency->places, FAIR_LONGEST);
        pthread_mutex_init(&concurrency->lock, NULL);
        *place = concurrency;
    }
    return *place;
}

uint32_t concurrency_limit(const struct concurrency *concurrency, uint32_t most)
{
    uint32_t limit = atomic_load_explicit(&concurrency->limit, memory_order_relaxed);
    return limit && limit < most ? limit : most;
}

uint32_t concurrency_waiting(const struct concurrency *concurrency)
{
    return atomic_load_explicit(&concurrency->waiting, memory_order_relaxed);
}

// ---- a worker's side ----

void concurrency_init(struct concurrency_share *share, struct loop *loop, void (*run)(struct loop_task *task))
{
    fair_share_init(&share->places, loop, run);
}

void concurrency_set(struct concurrency_share *share, struct concurrency *concurrency, int64_t most,
                     bool adaptive, unsigned slot, unsigned workers)
{
    share->concurrency = concurrency;
    share->most = (uint32_t)most;
    share->adaptive = adaptive;
    share->part = quota_part(most, slot, workers);
    if (!adaptive && quota_is_cut(most, workers)) {
        fair_share_leave(&share->places);
        return;
    }
    fair_share_join(&share->places, &concurrency->places);
    fair_quota_set_limit(&concurrency->places,
                         adaptive ? concurrency_limit(concurrency, share->most) : share->most);
}

void concurrency_leave(struct concurrency_share *share)
{
    fair_share_leave(&share->places);
}

static uint32_t used_by_all(const struct concurrency_share *share)
{
    return atomic_load_explicit(&share->concurrency->places.used, memory_order_relaxed);
}

static bool take_of_part(struct concurrency_share *share)
{
    if (fair_share_used(&share->places) >= share->part)
        return false;
    fair_share_add_used(&share->places, 1);
    return true;
}

static bool take_adaptive(struct concurrency_share *share)
{
    if (!fair_share_take(&share->places)) {
        share->batch.bound = true;
        return false;
    }
    uint32_t used = used_by_all(share);
    if (used > share->batch.peak)
        share->batch.peak = used;
    return true;
}

bool concurrency_take(struct concurrency_share *share)
{
    if (share->adaptive)
        return take_adaptive(share);
    return share->places.quota ? fair_share_take(&share->places) : take_of_part(share);
}

void concurrency_give(struct concurrency_share *share)
{
    if (share->places.quota) {
        fair_share_give(&share->places);
        return;
    }
    check(fair_share_used(&share->places) > 0);
    fair_share_add_used(&share->places, -1U);
}

bool concurrency_want(struct concurrency_share *share, uint32_t n, uint64_t first_us, uint64_t last_us)
{
    if (!share->places.quota)
        return n && concurrency_left(share);
    bool granted = fair_share_want(&share->places, n, first_us, last_us);
    share->batch.bound |= n && !granted; // for the controller
    return granted;
}

void concurrency_wait(struct concurrency_share *share, int change)
{
    atomic_fetch_add_explicit(&share->concurrency->waiting, (uint32_t)change, memory_order_relaxed);
}

uint32_t concurrency_left(const struct concurrency_share *share)
{
    if (share->places.quota)
        return fair_share_left(&share->places);
    uint32_t used = fair_share_used(&share->places);
    return used < share->part ? share->part - used : 0;
}

// ---- measuring ----

// Answers that were quick because the service did nothing say nothing about its queue; timeouts say all.
static bool tells_of_queue(const struct upstream_outcome *outcome)
{
    if (outcome->verdict == OUTCOME_ANSWER)
        return outcome->status < 500 && outcome->status != 429;
    if (outcome->verdict == OUTCOME_OUTRUN)
        return true;
    return outcome->verdict == OUTCOME_FAILURE &&
           (outcome->cause == END_UPSTREAM_TIMEOUT || outcome->cause == END_DEADLINE_EXCEEDED);
}

static void tell(struct concurrency_share *share, uint64_t now_us)
{
    struct concurrency *concurrency = share->concurrency;
    if (pthread_mutex_trylock(&concurrency->lock) != 0)
        return; // next time
    share->told_us = now_us;
    adaptive_note(&concurrency->adaptive, &share->batch, share->most, now_us);
    uint32_t limit = adaptive_limit(&concurrency->adaptive, share->most);
    atomic_store_explicit(&concurrency->limit, limit, memory_order_relaxed);
    fair_quota_set_limit(&concurrency->places, limit);
    pthread_mutex_unlock(&concurrency->lock);
    share->batch = (struct adaptive_batch){.peak = used_by_all(share)};
}

void concurrency_note(struct concurrency_share *share, const struct upstream_outcome *outcome,
                      uint64_t waited_us, uint64_t now_us)
{
    if (!share->adaptive)
        return;
    if (waited_us && tells_of_queue(outcome)) {
        share->batch.samples++;
        share->batch.sum_us += waited_us;
    }
    if (now_us >= share->told_us + ADAPTIVE_TELL_US)
        tell(share, now_us);
}
