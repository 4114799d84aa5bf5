// A bump allocator for things that die together: one exchange, one configuration. Blocks come from a block
// list that the worker keeps, so the steady path never asks the heap.
#pragma once

#include "base/check.h"
#include "base/str.h"

enum { ARENA_BLOCK = 8192 };

struct arena_block {
    struct arena_block *next;
    size_t size; // of data
    char data[] __attribute__((aligned(16)));
};

// A worker's spare blocks, all of ARENA_BLOCK bytes. One thread only.
struct arena_spares {
    struct arena_block *first;
    unsigned count, max;
};

struct arena {
    struct arena_block *blocks; // newest first
    char *at, *end;
    struct arena_spares *spares; // may be NULL: the heap
};

void arena_init(struct arena *arena, struct arena_spares *spares);
// Gives every block back; the arena is empty and usable again.
void arena_reset(struct arena *arena);
// Sees that so many blocks are at hand, so that what begins now need not ask the heap on its way. False:
// memory is out.
must_check bool arena_spares_fill(struct arena_spares *spares, unsigned count);
void arena_spares_fini(struct arena_spares *spares);

// 16-byte aligned, not zeroed. Never NULL: running out of memory in the middle of things aborts. Who can
// still refuse does so before it begins (arena_spares_fill); sizes that a peer chooses are bounded by the
// configured limits before they get here.
void *arena_alloc(struct arena *arena, size_t size);
void *arena_zalloc(struct arena *arena, size_t size);
struct str arena_copy(struct arena *arena, struct str s);
// The parts one after the other; the str has a NUL behind it.
struct str arena_join(struct arena *arena, const struct str *parts, size_t count);
struct str arena_u64(struct arena *arena, uint64_t value); // in decimal
// printf into the arena, with a NUL behind it.
struct str arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define arena_new(arena, type)          ((type *)arena_zalloc((arena), sizeof(type)))
#define arena_array(arena, type, count) ((type *)arena_zalloc((arena), sizeof(type) * (count)))
