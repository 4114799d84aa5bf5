#include "base/block_pool.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined __SANITIZE_ADDRESS__
#define IS_SANITIZED true
#elif defined __has_feature
#define IS_SANITIZED __has_feature(address_sanitizer)
#else
#define IS_SANITIZED false
#endif

struct block {
    size_t size; // that fits: a multiple of BLOCK_STEP, or what the heap was asked for
    alignas(max_align_t) union {
        struct block *next; // of a free one
        char bytes[1];
    };
};

static struct block *block_of(void *p)
{
    return (struct block *)((char *)p - offsetof(struct block, bytes));
}

static struct block **list_of(struct block_pool *pool, size_t size)
{
    return &pool->free[size / BLOCK_STEP - 1];
}

static size_t whole_size(size_t size)
{
    if (size > BLOCK_MAX)
        return size;
    return size ? (size + BLOCK_STEP - 1) / BLOCK_STEP * BLOCK_STEP : BLOCK_STEP;
}

void *block_alloc(struct block_pool *pool, size_t size)
{
    if (size > PTRDIFF_MAX)
        return NULL;
    size = whole_size(size);
    struct block *block = size <= BLOCK_MAX ? *list_of(pool, size) : NULL;
    if (block) {
        *list_of(pool, size) = block->next;
        pool->kept_bytes -= size;
        return block->bytes;
    }
    block = malloc(offsetof(struct block, bytes) + size);
    if (!block)
        return NULL;
    block->size = size;
    return block->bytes;
}

void block_free(struct block_pool *pool, void *p)
{
    if (!p)
        return;
    struct block *block = block_of(p);
    if (IS_SANITIZED || block->size > BLOCK_MAX || pool->kept_bytes + block->size > BLOCK_KEPT_BYTES) {
        free(block);
        return;
    }
    struct block **list = list_of(pool, block->size);
    block->next = *list;
    *list = block;
    pool->kept_bytes += block->size;
}

void *block_calloc(struct block_pool *pool, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *p = block_alloc(pool, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void *block_realloc(struct block_pool *pool, void *p, size_t size)
{
    if (!p)
        return block_alloc(pool, size);
    struct block *block = block_of(p);
    if (size <= block->size && block->size <= BLOCK_MAX)
        return p;
    void *moved = block_alloc(pool, size);
    if (!moved)
        return NULL;
    memcpy(moved, p, block->size < size ? block->size : size);
    block_free(pool, p);
    return moved;
}

void block_pool_fini(struct block_pool *pool)
{
    for (size_t i = 0; i < BLOCK_MAX / BLOCK_STEP; i++) {
        while (pool->free[i]) {
            struct block *block = pool->free[i];
            pool->free[i] = block->next;
            free(block);
        }
    }
    pool->kept_bytes = 0;
}
