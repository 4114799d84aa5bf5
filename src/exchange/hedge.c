// Hedged requests (Dean and Barroso, The Tail at Scale, 2013): when an attempt has no answer after
// `hedge.after`, a second one is made, elsewhere if there is an elsewhere, and the first answer wins. For
// safe requests without a body (RFC 9110 9.2.1), once for each, paid for as a retry is.
//
//   x->call    the attempt whose answer goes on
//   x->hedge   the second one, while both are under way; then one of them is x->call
//
//   the hedge answers first ─────▶ it has outrun the other, which ends: a bad mark for that endpoint alone
//   x->call answers first ───────▶ the hedge ends, and nothing is held against anybody
//   one of them fails ───────────▶ the other goes on alone
//
// It waits in no line and probes no service: where there is no room for it, or the first attempt is what a
// breaker waits to hear of, there is none, and nothing to be paid for.
#include "exchange/steps.h"

static bool is_hedgeable(const struct exchange *x)
{
    const struct request_head *request = &x->request;
    return http_method_safe(request->method) && request->framing == FRAMING_NONE && !request->upgrade.n;
}

void hedge_plan(struct exchange *x)
{
    uint64_t after_us = x->upstream->settings->hedge.after_us;
    x->hedge_at_us = after_us && !x->hedged && is_hedgeable(x) ? exchange_now_us(x) + after_us : 0;
}

static void note(struct exchange *x, enum hedge_result result)
{
    metrics_hedge(x->worker->metrics, x->upstream->metric_id, result);
}

static void drop(struct exchange *x, const struct attempt_end *end)
{
    struct upstream_call *hedge = x->hedge;
    x->hedge = NULL;
    x->call->tried |= hedge->tried;
    upstream_call_finish(hedge, end);
}

// Nobody waited for it to the end.
static void cancel(struct exchange *x)
{
    static const struct attempt_end cancelled = {.cause = END_OK};
    drop(x, &cancelled);
}

void hedge_settle(struct exchange *x)
{
    x->hedge_at_us = 0;
    if (!x->hedge)
        return;
    note(x, HEDGE_LOST);
    cancel(x);
}

// The hedge is the attempt from now on. The other one's time until it began counts; the rest is the hedge's.
static void succeed(struct exchange *x, const struct attempt_end *end)
{
    struct upstream_call *left = x->call, *hedge = x->hedge;
    uint64_t until_us = hedge->ready_us ? hedge->ready_us : exchange_now_us(x);
    if (left->ready_us && until_us > left->ready_us)
        x->upstream_us += until_us - left->ready_us;
    note(x, HEDGE_WON);
    hedge->events = &exchange_call_events;
    hedge->impatient = false; // it is all there is
    x->call = hedge;
    x->hedge = NULL;
    upstream_call_finish(left, end);
}

enum step_result hedge_take_over(struct exchange *x, const struct attempt_end *failed)
{
    const struct upstream_call *hedge = x->hedge;
    exchange_record_attempt(x, x->call, failed->status);
    succeed(x, failed);
    x->progress_us = hedge->ready_us ? hedge->ready_us : exchange_now_us(x); // it has timeouts.response, too
    x->step = hedge->ready_us ? STEP_AWAIT : STEP_SEND;
    exchange_arm(x);
    return STEP_WAIT;
}

// ---- what comes of it ----

static void ask(struct exchange *x)
{
    struct upstream_call *hedge = x->hedge;
    forward_prepare_request(x); // the first attempt may have no connection yet
    forward_set_host(x, hedge);
    if (!deadline_pass(x) || !upstream_call_head(hedge, &x->request, x->target, FRAMING_NONE, false)) {
        cancel(x);
        return;
    }
    upstream_call_end(hedge, NULL);
    upstream_call_flush(hedge);
}

// There was no room for it: as if it had never been begun.
static void leave_out(struct exchange *x)
{
    x->attempts--;
    retry_place_give_back(&x->retry_place);
    cancel(x);
}

static void fail(struct exchange *x, const struct attempt_end *end)
{
    note(x, HEDGE_FAILED);
    exchange_record_attempt(x, x->hedge, end->status);
    drop(x, end);
}

static void on_ready(struct upstream_call *hedge)
{
    ask(hedge->context);
}

static void on_head(struct upstream_call *hedge, struct response_head *head)
{
    static const struct attempt_end outrun = {.cause = END_OK, .outrun = true};
    struct exchange *x = hedge->context;
    if (status_set_has(&x->retries->statuses, head->status)) { // the other one may do better
        fail(x, &(struct attempt_end){.cause = END_UPSTREAM_STATUS, .status = head->status});
        return;
    }
    succeed(x, &outrun);
    hedge->events->on_head(hedge, head);
}

static void on_fail(struct upstream_call *hedge, enum end_cause cause)
{
    if (!end_row(cause)->against_upstream) { // it was to share a connection that has no room for it
        leave_out(hedge->context);
        return;
    }
    bool stale = upstream_call_was_stale(hedge, cause);
    fail(hedge->context, &(struct attempt_end){.cause = cause, .stale = stale});
}

static void on_informational(struct upstream_call *hedge, struct response_head *head)
{
    (void)hedge, (void)head;
}

static void on_nothing(struct upstream_call *hedge)
{
    (void)hedge;
}

// No body and no end come before a head: then these are the exchange's.
static const struct upstream_call_events hedge_events = {
    .on_ready = on_ready,
    .on_informational = on_informational,
    .on_head = on_head,
    .on_flush = on_nothing,
    .on_drain = on_nothing,
    .on_fail = on_fail,
};

// ---- its beginning ----

// It has waited in line, and its endpoint was chosen later than was planned, or is not yet.
static bool is_early(struct exchange *x)
{
    uint64_t now_us = exchange_now_us(x), chosen_us = x->call->queued ? now_us : x->call->placed_us;
    uint64_t due_us = chosen_us + x->upstream->settings->hedge.after_us;
    if (due_us <= now_us)
        return false;
    x->hedge_at_us = due_us;
    return true;
}

static bool may_start(struct exchange *x)
{
    return (x->step == STEP_SEND || x->step == STEP_AWAIT) && !upstream_call_is_probe(x->call) &&
           retry_place_take(&x->retry_place, x->retries->budget, exchange_now_us(x));
}

void hedge_start(struct exchange *x)
{
    x->hedge_at_us = 0;
    if (is_early(x) || !may_start(x))
        return;
    struct upstream_call *hedge = arena_alloc(&x->arena, sizeof *hedge);
    *hedge = (struct upstream_call){
        .events = &hedge_events,
        .context = x,
        .upstream = x->upstream,
        .arena = &x->arena,
        .method = x->request.method,
        .room = x->room,
        .deadline_us = x->deadline_us,
        .hash = x->call->hash,
        .tried = x->call->tried,
        .impatient = true,
    };
    x->hedged = true;
    x->hedge = hedge;
    x->attempts++;
    enum end_cause cause;
    enum call_start start = upstream_call_start(x->worker->upstreams, hedge, false, &cause);
    bool is_asked = start != CALL_REFUSED || end_row(cause)->against_upstream; // its endpoint
    if (!is_asked || upstream_call_is_probe(hedge))
        leave_out(x);
    else if (start == CALL_REFUSED)
        fail(x, &(struct attempt_end){.cause = cause});
    else if (start == CALL_READY)
        ask(x);
}
