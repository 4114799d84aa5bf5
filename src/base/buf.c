#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct slist_block {
    struct slist_block *next;
};

bool buf_acquire(struct buf *buf, struct buf_pool *pool)
{
    if (buf->base)
        return true;
    if (pool->first) {
        buf->base = (char *)pool->first;
        pool->first = pool->first->next;
        pool->count--;
    } else if (!(buf->base = malloc(BUF_BLOCK))) {
        return false;
    }
    buf->start = buf->end = 0;
    buf->cap = BUF_BLOCK;
    return true;
}

static void block_release(char *base, uint32_t cap, struct buf_pool *pool)
{
    if (cap == BUF_BLOCK && pool->count < pool->max) {
        struct slist_block *block = (struct slist_block *)(void *)base;
        block->next = pool->first;
        pool->first = block;
        pool->count++;
        return;
    }
    free(base);
}

void buf_release(struct buf *buf, struct buf_pool *pool)
{
    if (buf->base)
        block_release(buf->base, buf->cap, pool);
    *buf = (struct buf){0};
}

bool buf_reserve(struct buf *buf, struct buf_pool *pool, size_t n, size_t max)
{
    if (!buf_acquire(buf, pool))
        return false;
    if (buf_space(buf) >= n)
        return true;
    size_t len = buf_len(buf), need = len + n;
    if (need <= buf->cap) {
        memmove(buf->base, buf->base + buf->start, len);
        buf->start = 0;
        buf->end = (uint32_t)len;
        return true;
    }
    if (need > max)
        return false;
    size_t cap = buf->cap;
    while (cap < need)
        cap *= 2;
    char *base = malloc(cap);
    if (!base)
        return false;
    memcpy(base, buf->base + buf->start, len);
    block_release(buf->base, buf->cap, pool);
    *buf = (struct buf){.base = base, .start = 0, .end = (uint32_t)len, .cap = (uint32_t)cap};
    return true;
}

bool buf_acquire_exactly(struct buf *buf, size_t n)
{
    check(!buf->base && n && n <= UINT32_MAX);
    buf->base = malloc(n);
    buf->start = buf->end = 0;
    buf->cap = buf->base ? (uint32_t)n : 0;
    return buf->base;
}

void buf_fit(struct buf *buf, struct buf_pool *pool)
{
    struct buf fitted = {0};
    if (!buf_len(buf) || buf_len(buf) > buf->cap / 2 || !buf_acquire_exactly(&fitted, buf_len(buf)))
        return;
    buf_put(&fitted, buf_str(buf));
    block_release(buf->base, buf->cap, pool);
    *buf = fitted;
}

void buf_pool_fini(struct buf_pool *pool)
{
    while (pool->first) {
        struct slist_block *block = pool->first;
        pool->first = block->next;
        free(block);
    }
    pool->count = 0;
}

static void grow_heap(struct buf *buf, size_t n)
{
    if (buf->base && buf_space(buf) >= n)
        return;
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap - buf->end < n)
        cap *= 2;
    check(cap <= UINT32_MAX);
    buf->base = realloc(buf->base, cap);
    check(buf->base);
    buf->cap = (uint32_t)cap;
}

void buf_append(struct buf *buf, struct str s)
{
    grow_heap(buf, s.n + 1);
    if (s.n)
        buf_put(buf, s);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    check(n >= 0);
    grow_heap(buf, (size_t)n + 1);
    vsnprintf(buf->base + buf->end, (size_t)n + 1, format, again);
    va_end(again);
    buf->end += (uint32_t)n;
}

void buf_free(struct buf *buf)
{
    free(buf->base);
    *buf = (struct buf){0};
}
