#include "upstream/connection_bound.h"

#include "base/check.h"
#include "base/kept.h"

#include <stdlib.h>

void connection_bound_init(struct connection_bound *bound)
{
    *bound = (struct connection_bound){0};
    fair_quota_init(&bound->quota, FAIR_FEWEST);
}

struct connection_bound *connection_bound_at(uint32_t index)
{
    static struct kept all;
    void **at = kept_at(&all, index);
    if (!*at) {
        struct connection_bound *bound = malloc(sizeof *bound);
        check(bound);
        connection_bound_init(bound);
        *at = bound;
    }
    return *at;
}

// ---- a worker's side ----

void connection_share_init(struct connection_share *share, struct loop *loop,
                           void (*run)(struct loop_task *task))
{
    fair_share_init(&share->fair, loop, run);
}

void connection_share_set(struct connection_share *share, struct connection_bound *bound, int64_t limit)
{
    share->bound = bound;
    fair_share_join(&share->fair, &bound->quota);
    fair_quota_set_limit(&bound->quota, (uint32_t)limit);
    share->asked = share->asked || fair_quota_is_over(&bound->quota);
}

void connection_share_leave(struct connection_share *share)
{
    fair_share_leave(&share->fair);
}

bool connection_share_take(struct connection_share *share, uint64_t now_ms)
{
    if (!fair_share_take(&share->fair))
        return false;
    if (fair_share_used(&share->fair) == 1)
        share->since_ms = now_ms;
    return true;
}

static void give_closing(struct connection_share *share)
{
    struct connection_bound *bound = share->bound;
    pthread_mutex_lock(&bound->quota.lock);
    share->closing = false;
    bound->closing--;
    fair_share_give_locked(&share->fair);
    pthread_mutex_unlock(&bound->quota.lock);
}

// Who closes one does not look whether it was for itself.
static void wake_itself(struct connection_share *share)
{
    pthread_mutex_lock(&share->bound->quota.lock);
    fair_share_wake(&share->fair);
    pthread_mutex_unlock(&share->bound->quota.lock);
}

void connection_share_give(struct connection_share *share)
{
    if (share->closing)
        give_closing(share);
    else
        fair_share_give(&share->fair);
    if (atomic_load(&share->fair.granted))
        wake_itself(share);
}

void connection_share_swap(struct connection_share *share)
{
    atomic_fetch_add(&share->bound->quota.used, 1);
    fair_share_add_used(&share->fair, 1);
}

static void ask_others(struct connection_share *share)
{
    struct fair_quota *quota = &share->bound->quota;
    pthread_mutex_lock(&quota->lock);
    list_each (&quota->shares, node) {
        struct fair_share *other = container_of(node, struct fair_share, node);
        if (other != &share->fair && fair_share_used(other))
            fair_share_wake(other);
    }
    pthread_mutex_unlock(&quota->lock);
}

bool connection_share_want(struct connection_share *share, uint32_t n, uint64_t now_ms)
{
    struct fair_share *fair = &share->fair;
    bool may_ask = now_ms >= share->asked_ms + CONNECTION_ASK_MS;
    if (n && atomic_load(&fair->granted))
        return true;
    if (n && fair->wants && !may_ask)
        return false; // it stands in line already, with about as many
    bool granted = fair_share_want(fair, n, 0, 0);
    if (fair_share_is_short(fair) && may_ask) {
        share->asked_ms = now_ms;
        ask_others(share);
    }
    return granted;
}

void connection_share_heard(struct connection_share *share)
{
    struct fair_quota *quota = &share->bound->quota;
    fair_share_heard(&share->fair);
    share->asked = atomic_load(&quota->in_line) || fair_quota_is_over(quota);
}

// Whether others than share want more than those that are being closed.
static bool any_wanted(const struct connection_bound *bound, const struct connection_share *share)
{
    uint64_t wanted = 0;
    list_each (&bound->quota.shares, node) {
        const struct fair_share *other = container_of(node, struct fair_share, node);
        if (other != &share->fair)
            wanted += other->wants - atomic_load(&other->granted);
    }
    return wanted > bound->closing;
}

bool connection_share_close_idle(struct connection_share *share, uint64_t idle_since_ms, uint64_t now_ms)
{
    struct connection_bound *bound = share->bound;
    struct fair_quota *quota = &bound->quota;
    bool is_idle = now_ms >= idle_since_ms + CONNECTION_IDLE_MS;
    if (!share->asked || (!is_idle && !fair_quota_is_over(quota)))
        return false;
    pthread_mutex_lock(&quota->lock);
    bool over = atomic_load(&quota->used) > atomic_load(&quota->limit) + bound->closing;
    share->closing = over || (is_idle && any_wanted(bound, share));
    bound->closing += share->closing;
    pthread_mutex_unlock(&quota->lock);
    return share->closing;
}

bool connection_share_owes(struct connection_share *share, uint32_t leaving, uint64_t now_ms)
{
    struct fair_quota *quota = &share->bound->quota;
    if (!share->asked)
        return false;
    if (fair_quota_is_over(quota))
        return true;
    if (!atomic_load(&quota->in_line)) {
        share->asked = false;
        return false;
    }
    uint32_t has = fair_share_used(&share->fair) - leaving;
    pthread_mutex_lock(&quota->lock);
    const struct fair_share *other = fair_quota_next(quota, &share->fair);
    uint32_t others = other ? fair_share_held(other) : 0;
    pthread_mutex_unlock(&quota->lock);
    if (!other)
        return false;
    return has > others + 1 || (!others && has == 1 && now_ms >= share->since_ms + CONNECTION_TURN_MS);
}
