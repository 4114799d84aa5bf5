#include "base/quota.h"

#include <stdlib.h>

struct quota *quota_at(struct quota_table *table, uint32_t index)
{
    void **place = kept_at(&table->quotas, index);
    if (!*place) {
        struct quota *quota = aligned_alloc(CACHE_LINE, CACHE_LINE); // nothing else shares its line
        check(quota);
        *quota = (struct quota){0};
        *place = quota;
    }
    return *place;
}

bool quota_is_cut(int64_t limit, unsigned workers)
{
    return limit > (int64_t)QUOTA_EXACT_PER_WORKER * workers;
}

uint32_t quota_part(int64_t limit, unsigned slot, unsigned workers)
{
    int64_t part = limit / workers + (slot < (uint64_t)limit % workers);
    return part > 0 ? (uint32_t)part : limit > 0;
}

static void leave(struct quota_share *share)
{
    if (share->quota && share->exact)
        atomic_fetch_sub(&share->quota->used, share->used);
}

static void set_exact(struct quota_share *share, struct quota *quota, int64_t limit)
{
    leave(share);
    share->quota = quota;
    share->exact = true;
    share->limit = (uint32_t)limit;
    atomic_fetch_add(&quota->used, share->used);
}

void quota_set(struct quota_share *share, struct quota *quota, int64_t limit, unsigned slot, unsigned workers)
{
    if (!quota_is_cut(limit, workers)) {
        set_exact(share, quota, limit);
        return;
    }
    leave(share);
    share->quota = quota;
    share->exact = false;
    share->limit = quota_part(limit, slot, workers);
}

bool quota_take(struct quota_share *share)
{
    if (!share->exact) {
        if (share->used >= share->limit)
            return false;
    } else if (atomic_fetch_add(&share->quota->used, 1) >= share->limit) {
        atomic_fetch_sub(&share->quota->used, 1);
        return false;
    }
    share->used++;
    return true;
}

void quota_give(struct quota_share *share)
{
    check(share->used > 0);
    share->used--;
    if (share->exact)
        atomic_fetch_sub(&share->quota->used, 1);
}
