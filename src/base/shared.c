#include "base/shared.h"

#include "base/check.h"

#include <stdlib.h>

static void take_back(struct lender *lender)
{
    shared_unref(container_of(lender, struct shared, lender));
}

struct shared *shared_new(size_t n)
{
    struct shared *shared = malloc(sizeof *shared + n);
    if (!shared)
        return NULL;
    shared->lender.take_back = take_back;
    shared->n = n;
    atomic_init(&shared->holders, 1);
    return shared;
}

struct shared *shared_copy(struct str s)
{
    struct shared *shared = shared_new(s.n);
    if (shared && s.n)
        memcpy(shared->bytes, s.p, s.n);
    return shared;
}

struct shared *shared_ref(struct shared *shared)
{
    atomic_fetch_add_explicit(&shared->holders, 1, memory_order_relaxed);
    return shared;
}

void shared_unref(struct shared *shared)
{
    if (shared && atomic_fetch_sub_explicit(&shared->holders, 1, memory_order_acq_rel) == 1)
        free(shared);
}

struct lent shared_lend(struct shared *shared, struct str part)
{
    return (struct lent){part, &shared_ref(shared)->lender};
}
