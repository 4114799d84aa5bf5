// Bytes that several hold, in whichever threads; the last one frees them. Who has made them fills them in
// before another one sees them, and nobody changes them after that.
#pragma once

#include "base/lent.h"

#include <stdatomic.h>

struct shared {
    struct lender lender;
    atomic_uint holders;
    size_t n;
    char bytes[];
};

// One holder's. NULL: memory is out.
struct shared *shared_new(size_t n);
struct shared *shared_copy(struct str s);
// One holder more.
struct shared *shared_ref(struct shared *shared);
// NULL is nobody's.
void shared_unref(struct shared *shared);
// A part of it, to send: a holder more until it is given back.
struct lent shared_lend(struct shared *shared, struct str part);

// Nobody else can come to hold it.
static inline bool shared_is_sole(const struct shared *shared)
{
    return atomic_load_explicit(&shared->holders, memory_order_acquire) == 1;
}

static inline struct str shared_str(const struct shared *shared)
{
    return (struct str){shared->bytes, shared->n};
}
