#include "upstream/fair_quota.h"

#include "base/check.h"

void fair_quota_init(struct fair_quota *quota, enum fair_order order)
{
    *quota = (struct fair_quota){.order = order};
    pthread_mutex_init(&quota->lock, NULL);
    list_init(&quota->shares);
}

static bool take_free(struct fair_quota *quota)
{
    unsigned used = atomic_load(&quota->used), limit = atomic_load(&quota->limit);
    do {
        if (used >= limit)
            return false;
    } while (!atomic_compare_exchange_weak(&quota->used, &used, used + 1));
    return true;
}

bool fair_quota_is_over(const struct fair_quota *quota)
{
    return atomic_load(&quota->used) > atomic_load(&quota->limit);
}

// ---- the line: with the lock ----

uint32_t fair_share_held(const struct fair_share *share)
{
    return fair_share_used(share) + atomic_load(&share->granted);
}

bool fair_share_is_short(const struct fair_share *share)
{
    return share->wants > atomic_load(&share->granted);
}

// Of the first that has not been granted one. Its worker alone knows each: it is taken that they came evenly.
static uint64_t waits_since_us(const struct fair_share *share)
{
    uint64_t span_us = share->last_us - share->first_us;
    return share->first_us + span_us * atomic_load(&share->granted) / share->wants;
}

static bool is_before(const struct fair_quota *quota, const struct fair_share *a, const struct fair_share *b)
{
    if (quota->order == FAIR_LONGEST)
        return waits_since_us(a) < waits_since_us(b);
    return fair_share_held(a) < fair_share_held(b) ||
           (fair_share_held(a) == fair_share_held(b) && a->turn < b->turn);
}

struct fair_share *fair_quota_next(struct fair_quota *quota, const struct fair_share *except)
{
    struct fair_share *next = NULL;
    list_each (&quota->shares, node) {
        struct fair_share *share = container_of(node, struct fair_share, node);
        if (share != except && fair_share_is_short(share) && (!next || is_before(quota, share, next)))
            next = share;
    }
    return next;
}

void fair_share_wake(struct fair_share *share)
{
    if (share->woken)
        return;
    share->woken = true;
    loop_post(share->loop, &share->task);
}

// What is free goes to those in line. awake: needs not be told.
static void settle(struct fair_quota *quota, const struct fair_share *awake)
{
    struct fair_share *share;
    while ((share = fair_quota_next(quota, NULL)) && take_free(quota)) {
        atomic_fetch_add(&share->granted, 1);
        share->turn = ++quota->turn;
        if (share != awake)
            fair_share_wake(share);
    }
    atomic_store(&quota->in_line, share != NULL);
}

static void give_up_granted(struct fair_share *share, uint32_t keep)
{
    while (atomic_load(&share->granted) > keep) {
        atomic_fetch_sub(&share->granted, 1);
        atomic_fetch_sub(&share->quota->used, 1);
    }
}

void fair_share_give_locked(struct fair_share *share)
{
    fair_share_add_used(share, -1U);
    atomic_fetch_sub(&share->quota->used, 1);
    share->turn = ++share->quota->turn;
    settle(share->quota, share);
}

void fair_quota_set_limit(struct fair_quota *quota, uint32_t limit)
{
    if (atomic_exchange(&quota->limit, limit) >= limit || !atomic_load(&quota->in_line))
        return;
    pthread_mutex_lock(&quota->lock);
    settle(quota, NULL);
    pthread_mutex_unlock(&quota->lock);
}

// ---- a worker's side ----

void fair_share_init(struct fair_share *share, struct loop *loop, void (*run)(struct loop_task *task))
{
    share->loop = loop;
    share->task.run = run;
}

void fair_share_join(struct fair_share *share, struct fair_quota *quota)
{
    check(!share->quota || share->quota == quota);
    if (share->quota)
        return;
    pthread_mutex_lock(&quota->lock);
    share->quota = quota;
    list_push_back(&quota->shares, &share->node);
    atomic_fetch_add(&quota->used, fair_share_used(share));
    pthread_mutex_unlock(&quota->lock);
}

void fair_share_leave(struct fair_share *share)
{
    struct fair_quota *quota = share->quota;
    if (!quota)
        return;
    pthread_mutex_lock(&quota->lock);
    list_remove(&share->node);
    share->wants = 0;
    give_up_granted(share, 0);
    atomic_fetch_sub(&quota->used, fair_share_used(share));
    settle(quota, NULL);
    pthread_mutex_unlock(&quota->lock);
    if (share->woken)
        loop_withdraw(share->loop, &share->task);
    share->woken = false;
    share->quota = NULL;
}

seldom static bool take_granted(struct fair_share *share)
{
    pthread_mutex_lock(&share->quota->lock);
    atomic_fetch_sub(&share->granted, 1);
    share->wants--;
    fair_share_add_used(share, 1);
    pthread_mutex_unlock(&share->quota->lock);
    return true;
}

bool fair_share_take(struct fair_share *share)
{
    struct fair_quota *quota = share->quota;
    if (atomic_load(&share->granted))
        return take_granted(share);
    if (atomic_load(&quota->in_line) || !take_free(quota))
        return false;
    fair_share_add_used(share, 1);
    return true;
}

seldom static void given(struct fair_share *share)
{
    struct fair_quota *quota = share->quota;
    pthread_mutex_lock(&quota->lock);
    share->turn = ++quota->turn; // behind the others, when it wants another one
    settle(quota, share);
    pthread_mutex_unlock(&quota->lock);
}

void fair_share_give(struct fair_share *share)
{
    struct fair_quota *quota = share->quota;
    uint32_t used = fair_share_used(share);
    check(used > 0);
    atomic_store_explicit(&share->used, used - 1, memory_order_relaxed);
    atomic_fetch_sub(&quota->used, 1);
    if (atomic_load(&quota->in_line))
        given(share);
}

bool fair_share_want(struct fair_share *share, uint32_t n, uint64_t first_us, uint64_t last_us)
{
    struct fair_quota *quota = share->quota;
    if (!n && !share->wants)
        return false; // nor is anything granted
    pthread_mutex_lock(&quota->lock);
    share->wants = n;
    share->first_us = first_us;
    share->last_us = last_us > first_us ? last_us : first_us;
    give_up_granted(share, n);
    if (n) // before the look at what is free: who gives looks the other way round
        atomic_store(&quota->in_line, true);
    settle(quota, share);
    pthread_mutex_unlock(&quota->lock);
    return atomic_load(&share->granted) > 0;
}

uint32_t fair_share_left(const struct fair_share *share)
{
    const struct fair_quota *quota = share->quota;
    uint32_t granted = atomic_load(&share->granted);
    uint32_t used = atomic_load(&quota->used), limit = atomic_load(&quota->limit);
    return granted + (!atomic_load(&quota->in_line) && used < limit ? limit - used : 0);
}

void fair_share_heard(struct fair_share *share)
{
    pthread_mutex_lock(&share->quota->lock);
    share->woken = false;
    pthread_mutex_unlock(&share->quota->lock);
}
