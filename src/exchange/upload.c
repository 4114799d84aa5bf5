// Uploads that stall hold places of an upstream for as long as their clients like, up to timeouts.body. They
// may, while there is room. When others are held up for want of it, those whose clients keep the upstream
// waiting go: with 408, a second after they were given their place, unless they have brought a kilobyte a
// second. Probes of a half-open breaker that wait like that go on (a stream may begin so), but others take
// their places: all are refused meanwhile. So it is with probes whose answer has begun well, and lasts: that
// is all that will be known of them for a while.
#include "exchange/steps.h"

enum {
    UPLOAD_LOOK_US = 100000,
    UPLOAD_GRACE_US = 1000000,
    UPLOAD_BYTES_PER_S = 1024,
    PROBE_LASTS_US = 250000, // after the head: most answers are over by then, or broken off
};

// It is the client that everybody waits for.
static bool waits_for_client(const struct exchange *x)
{
    return x->body == BODY_OPEN && x->call->link && !x->body_full && !x->tunnel && x->reply == REPLY_NONE;
}

bool upload_is_slow(uint64_t bytes, uint64_t us)
{
    return us >= UPLOAD_GRACE_US && bytes < us * UPLOAD_BYTES_PER_S / 1000000;
}

bool upload_is_stalled(const struct exchange *x)
{
    return x->upstream && waits_for_client(x) &&
           upload_is_slow(x->body_bytes, exchange_now_us(x) - x->call->ready_us);
}

static bool is_lasting_probe(const struct exchange *x, uint64_t now_us)
{
    return upstream_call_is_probe(x->call) && x->step == STEP_RELAY &&
           now_us - x->call->head_us >= PROBE_LASTS_US;
}

static void end_stalled(struct exchange *x)
{
    x->body = BODY_UNWANTED;
    if (exchange_try_again(x, END_REQUEST_TIMEOUT) == STEP_MORE)
        exchange_run(x);
}

void upload_look_at_stalled(struct worker *worker)
{
    uint64_t now_us = worker->loop.now_us;
    if (now_us < worker->uploads_us || !upstream_any_short(now_us / 1000))
        return;
    worker->uploads_us = now_us + UPLOAD_LOOK_US;
    for (uint32_t i = 0; i < worker->slot_count; i++) { // the end of one may end others
        struct exchange *x = worker->slots[i];
        if (x && is_lasting_probe(x, now_us))
            exchange_judge_upstream(x);
        if (!x || !upload_is_stalled(x))
            continue;
        if (upstream_is_short(x->upstream, now_us / 1000))
            end_stalled(x);
        else if (upstream_call_is_probe(x->call))
            upstream_call_pass_over(x->call);
    }
}
