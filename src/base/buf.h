// Byte buffers. A buf has room to read into and bytes to consume: [start, end) is filled, [end, cap) is free.
// A pool keeps spare blocks of one size for a worker, so that an idle connection holds none.
#pragma once

#include "base/check.h"
#include "base/str.h"

enum { BUF_BLOCK = 16 * 1024 };

struct buf {
    char *base; // NULL: holds no memory
    uint32_t start, end, cap;
};

struct buf_pool {
    struct slist_block *first;
    unsigned count, max; // spare blocks, and how many are kept
};

static inline size_t buf_len(const struct buf *buf)
{
    return buf->end - buf->start;
}

static inline struct str buf_str(const struct buf *buf)
{
    return (struct str){buf->base ? buf->base + buf->start : NULL, buf->end - buf->start};
}

static inline size_t buf_space(const struct buf *buf)
{
    return buf->cap - buf->end;
}

static inline void buf_consume(struct buf *buf, size_t n)
{
    buf->start += (uint32_t)n;
    if (buf->start == buf->end)
        buf->start = buf->end = 0;
}

// Takes a block of BUF_BLOCK bytes when the buffer holds no memory. False when memory is out.
must_check bool buf_acquire(struct buf *buf, struct buf_pool *pool);
// Gives the memory back; the content is lost.
void buf_release(struct buf *buf, struct buf_pool *pool);
// Makes room for n more bytes: moves the content to the front, then grows on the heap up to max bytes in all.
// False when that is not enough.
must_check bool buf_reserve(struct buf *buf, struct buf_pool *pool, size_t n, size_t max);
// Content that will stay for long gives back what it does not need of its block, if memory allows.
void buf_fit(struct buf *buf, struct buf_pool *pool);
// As buf_reserve for a buffer that holds no memory, without a byte too much.
must_check bool buf_acquire_exactly(struct buf *buf, size_t n);
void buf_pool_fini(struct buf_pool *pool);

// Text building, on the heap, for what is not on the request path (admin, metrics, documents): grows as it
// must and aborts when memory is out. pool is not used; free with buf_free.
void buf_append(struct buf *buf, struct str s);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_free(struct buf *buf);

// Raw appends where the caller has reserved the space.
static inline void buf_put(struct buf *buf, struct str s)
{
    memcpy(buf->base + buf->end, s.p, s.n);
    buf->end += (uint32_t)s.n;
}
