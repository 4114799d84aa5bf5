#include "upstream/concurrency.h"

#include <pthread.h>
#include <stdlib.h>

struct concurrency {
    pthread_mutex_t lock;
    struct adaptive adaptive;
    atomic_uint limit; // of the controller; 0: not begun
};

struct concurrency *concurrency_at(uint32_t index)
{
    static struct concurrency **all;
    static uint32_t count;
    if (index >= count) {
        all = realloc(all, (index + 1) * sizeof *all);
        check(all);
        while (count <= index)
            all[count++] = NULL;
    }
    if (!all[index]) {
        all[index] = calloc(1, sizeof **all);
        check(all[index]);
        pthread_mutex_init(&all[index]->lock, NULL);
    }
    return all[index];
}

uint32_t concurrency_limit(const struct concurrency *concurrency, uint32_t most)
{
    uint32_t limit = atomic_load_explicit(&concurrency->limit, memory_order_relaxed);
    return limit && limit < most ? limit : most;
}

// ---- a worker's side ----

void concurrency_set(struct concurrency_share *share, struct quota *quota, int64_t most,
                     struct concurrency *adaptive, unsigned slot, unsigned workers)
{
    share->adaptive = adaptive;
    share->most = (uint32_t)most;
    if (adaptive)
        quota_set_exact(&share->places, quota, most);
    else
        quota_set(&share->places, quota, most, slot, workers);
}

static bool take_adaptive(struct concurrency_share *share)
{
    share->places.limit = concurrency_limit(share->adaptive, share->most);
    if (!quota_take(&share->places)) {
        share->batch.bound = true;
        return false;
    }
    uint32_t used = atomic_load_explicit(&share->places.quota->used, memory_order_relaxed);
    if (used > share->batch.peak)
        share->batch.peak = used;
    return true;
}

bool concurrency_take(struct concurrency_share *share)
{
    return share->adaptive ? take_adaptive(share) : quota_take(&share->places);
}

void concurrency_give(struct concurrency_share *share)
{
    quota_give(&share->places);
}

// ---- measuring ----

// Answers that were quick because the service did nothing say nothing about its queue; timeouts say all.
static bool tells_of_queue(const struct upstream_outcome *outcome)
{
    if (outcome->verdict == OUTCOME_ANSWER)
        return outcome->status < 500 && outcome->status != 429;
    return outcome->verdict == OUTCOME_FAILURE &&
           (outcome->cause == END_UPSTREAM_TIMEOUT || outcome->cause == END_DEADLINE_EXCEEDED);
}

static void tell(struct concurrency_share *share, uint64_t now_us)
{
    struct concurrency *concurrency = share->adaptive;
    if (pthread_mutex_trylock(&concurrency->lock) != 0)
        return; // next time
    share->told_us = now_us;
    adaptive_note(&concurrency->adaptive, &share->batch, share->most, now_us);
    atomic_store_explicit(&concurrency->limit, adaptive_limit(&concurrency->adaptive, share->most),
                          memory_order_relaxed);
    pthread_mutex_unlock(&concurrency->lock);
    share->batch = (struct adaptive_batch){
        .peak = atomic_load_explicit(&share->places.quota->used, memory_order_relaxed)};
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
