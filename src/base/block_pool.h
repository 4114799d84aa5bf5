// Blocks of a library that asks for many small ones and gives them back soon: free lists by size in front of
// the heap, whose own fast path keeps seven blocks of a size. One thread.
//
// Sizes are rounded up to BLOCK_STEP; larger ones than BLOCK_MAX are the heap's. At most BLOCK_KEPT_BYTES
// wait in the lists; with AddressSanitizer none do, so that a use after free is seen.
#pragma once

#include <stddef.h>

enum {
    BLOCK_STEP = 32,
    BLOCK_MAX = 1024,
    BLOCK_KEPT_BYTES = 512 * 1024,
};

struct block;

struct block_pool { // zero it
    struct block *free[BLOCK_MAX / BLOCK_STEP];
    size_t kept_bytes;
};

// As malloc, calloc, realloc and free.
void *block_alloc(struct block_pool *pool, size_t size);
void *block_calloc(struct block_pool *pool, size_t count, size_t size);
void *block_realloc(struct block_pool *pool, void *p, size_t size);
void block_free(struct block_pool *pool, void *p);
// Gives back what waits in the lists, once all blocks are.
void block_pool_fini(struct block_pool *pool);
