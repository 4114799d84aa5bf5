// What the tables of this room have in common: a key's set, its tag there, and a lock that is held for a
// moment and seldom.
#pragma once

#include "base/siphash.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

// Zeroes; pages that nobody touches are not used. NULL: memory is out. munmap gives them back.
static inline void *sets_map(size_t bytes)
{
    void *sets =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sets == MAP_FAILED)
        return NULL;
    // Keys lie anywhere: with huge pages a few dozen of them would take all the memory.
    madvise(sets, bytes, MADV_NOHUGEPAGE);
    return sets;
}

// Which of count sets.
static inline uint64_t sets_index(struct hash128 key, uint64_t count)
{
    return (uint64_t)((unsigned __int128)key.hi * count >> 64);
}

// Never 0, which is no key's.
static inline uint64_t sets_tag(struct hash128 key)
{
    return key.lo ? key.lo : 1;
}

static inline void sets_lock(atomic_uint *lock)
{
    enum { SPINS = 100 };
    for (unsigned spins = 0; atomic_exchange_explicit(lock, 1, memory_order_acquire); spins++)
        if (spins >= SPINS)
            sched_yield();
}

static inline void sets_unlock(atomic_uint *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release);
}
