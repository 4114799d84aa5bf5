// Gathered output of a connection: small pieces are copied together and leave in one send; large spans leave
// by one writev without a copy. What the kernel does not take stays here, bounded by what callers put in
// before they heed FLOW_FULL: one head and one span.
#pragma once

#include "base/buf.h"
#include "base/lent.h"
#include "net/conn.h"

enum flow {
    FLOW_MORE, // go on
    FLOW_FULL  // taken, but send no more until told
};

enum {
    OUT_GATHER = 8 * 1024, // up to this much is copied together and waits for the flush
    OUT_MAX =
        1024 * 1024 // more than this unsent is a bug of the flow control, or an upstream's monstrous head
};

struct out {
    struct buf buf;
    struct lent lent; // and behind it
    bool blocked;     // the kernel took less than there was
    bool full;        // FLOW_FULL was said, and its end has not been reported yet
    bool broken;      // the connection failed, or memory ran out: everything is discarded from now on
};

// Room for n bytes at buf's end, to be filled by the h1_write functions. False: memory is out (broken is
// set).
must_check bool out_reserve(struct out *out, struct buf_pool *pool, size_t n);
// Takes the whole span: copies it, or sends it with what is gathered.
void out_span(struct out *out, struct conn *conn, struct buf_pool *pool, struct str span);
// Behind what is gathered, with the next flush, from where it lies. Until it has gone nothing may be put
// behind it: out_empty says so.
void out_lend(struct out *out, struct lent lent);
// Sends what there is; the buffer goes back to the pool when it is empty.
void out_flush(struct out *out, struct conn *conn, struct buf_pool *pool);

// What to say to whoever filled it.
static inline enum flow out_flow(struct out *out)
{
    out->full = out->blocked && !out->broken;
    return out->full ? FLOW_FULL : FLOW_MORE;
}

// True once when FLOW_FULL was said and is over, whoever flushed: ask at each writable event.
static inline bool out_drained(struct out *out)
{
    bool drained = out->full && !out->blocked;
    if (drained)
        out->full = false;
    return drained;
}

static inline bool out_empty(const struct out *out)
{
    return buf_len(&out->buf) == 0 && !out->lent.lender;
}

void out_release(struct out *out, struct buf_pool *pool);
