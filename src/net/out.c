#include "net/out.h"

static void break_out(struct out *out, struct buf_pool *pool)
{
    out->broken = true;
    buf_release(&out->buf, pool);
    lent_give_back(&out->lent);
}

bool out_reserve(struct out *out, struct buf_pool *pool, size_t n)
{
    if (out->broken)
        return false;
    check(!out->lent.lender);
    if (buf_reserve(&out->buf, pool, n, OUT_MAX))
        return true;
    break_out(out, pool);
    return false;
}

// Sends what is gathered and then span; returns how much of the span has gone.
static size_t send_with(struct out *out, struct conn *conn, struct buf_pool *pool, struct str span)
{
    struct iovec iov[2];
    int count = 0;
    size_t gathered = buf_len(&out->buf);
    if (gathered)
        iov[count++] = (struct iovec){out->buf.base + out->buf.start, gathered};
    if (span.n)
        iov[count++] = (struct iovec){(void *)(uintptr_t)span.p, span.n};
    if (!count)
        return 0;
    ssize_t sent = conn_sendv(conn, iov, count);
    if (sent == CONN_FAILED) {
        break_out(out, pool);
        return span.n;
    }
    size_t n = sent > 0 ? (size_t)sent : 0;
    out->blocked = n < gathered + span.n;
    if (n < gathered) {
        buf_consume(&out->buf, n);
        return 0;
    }
    buf_release(&out->buf, pool);
    return n - gathered;
}

void out_span(struct out *out, struct conn *conn, struct buf_pool *pool, struct str span)
{
    if (out->broken)
        return;
    if (!out->blocked && buf_len(&out->buf) + span.n > OUT_GATHER)
        span = str_skip(span, send_with(out, conn, pool, span));
    if (span.n && out_reserve(out, pool, span.n))
        buf_put(&out->buf, span);
}

void out_lend(struct out *out, struct lent lent)
{
    check(!out->lent.lender);
    out->lent = lent;
    if (out->broken)
        lent_give_back(&out->lent);
}

void out_flush(struct out *out, struct conn *conn, struct buf_pool *pool)
{
    if (out->broken || !conn->writable || out_empty(out))
        return;
    size_t n = send_with(out, conn, pool, out->lent.span);
    if (n < out->lent.span.n)
        out->lent.span = str_skip(out->lent.span, n);
    else
        lent_give_back(&out->lent);
}

void out_release(struct out *out, struct buf_pool *pool)
{
    buf_release(&out->buf, pool);
    lent_give_back(&out->lent);
    *out = (struct out){0};
}
