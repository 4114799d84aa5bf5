// Another try, when it cannot make anything worse: before any byte of the response went out, for what may be
// sent twice (RFC 9110 9.2.2, or by its Idempotency-Key) or was not sent at all, within attempts, the time of
// the request and the upstream's budget.
#include "exchange/stale.h"
#include "exchange/steps.h"

// Once a request such an end costs nothing: it is tried again.
static bool is_free(const struct exchange *x, enum end_cause cause)
{
    return !x->stale_retried && upstream_call_was_stale(x->call, cause);
}

static bool may_repeat(const struct exchange *x, enum end_cause cause)
{
    if (x->reply != REPLY_NONE || (x->body_bytes && x->replay_lost))
        return false;
    return cause == END_UPSTREAM_CONNECT_FAILED || cause == END_UPSTREAM_REFUSED_STREAM ||
           upstream_call_unsent(x->call) || x->repeatable;
}

static bool is_wanted(const struct retry_settings *retries, enum end_cause cause)
{
    switch (cause) {
    case END_UPSTREAM_CONNECT_FAILED: return retries->retry_on & RETRY_CONNECT_FAILURE;
    case END_UPSTREAM_REFUSED_STREAM: return retries->retry_on & RETRY_REFUSED_STREAM;
    case END_UPSTREAM_RESET: return retries->retry_on & RETRY_RESET_BEFORE_HEADERS;
    case END_UPSTREAM_TIMEOUT: return retries->retry_on & RETRY_RESPONSE_TIMEOUT;
    case END_UPSTREAM_STATUS: return true; // the status was listed
    default: return false;
    }
}

// At this upstream, the one under way included, but not the free one.
static unsigned tries_that_count(const struct exchange *x)
{
    return x->attempts - x->attempts_elsewhere - x->stale_retried;
}

static uint64_t backoff_us(struct exchange *x)
{
    unsigned retries = tries_that_count(x) - 1;
    unsigned doublings = retries < BACKOFF_DOUBLINGS ? retries : BACKOFF_DOUBLINGS;
    double base = (double)(x->retries->backoff_us << doublings);
    return (uint64_t)(base * (0.5 + rand_unit(&x->worker->rand)));
}

// A back-off that ends with the request's time would only keep the client waiting.
static bool is_too_late(const struct exchange *x, uint64_t at_us)
{
    return x->deadline_us && at_us >= x->deadline_us;
}

bool exchange_may_retry(struct exchange *x, enum end_cause cause)
{
    if (x->retry_at_us)
        return true;
    if (!may_repeat(x, cause))
        return false;
    uint64_t now_us = exchange_now_us(x);
    if (is_free(x, cause)) // free: it was no fault of the upstream's
        return true;
    if (!end_row(cause)->retryable || !is_wanted(x->retries, cause) ||
        tries_that_count(x) > (uint64_t)x->retries->attempts)
        return false;
    uint64_t at_us = now_us + backoff_us(x);
    if (is_too_late(x, at_us) || !retry_place_take(&x->retry_place, x->retries->budget, now_us))
        return false;
    x->retry_at_us = at_us;
    return true;
}

void exchange_choose_retries(struct exchange *x)
{
    const struct route *route = x->match.route;
    x->retries = route->retries ? route->retries : &x->upstream->settings->retries;
}

uint64_t exchange_record_attempt(struct exchange *x, const struct upstream_call *call, unsigned status)
{
    if (!call->pool) // no endpoint was asked: it is no attempt at the upstream, and took it no time
        return 0;
    uint64_t spent_us = call->ready_us ? exchange_now_us(x) - call->ready_us : 0;
    metrics_upstream(x->worker->metrics, x->upstream->metric_id, status, spent_us);
    return spent_us;
}

static enum retry_reason reason_of(enum end_cause cause)
{
    switch (cause) {
    case END_UPSTREAM_CONNECT_FAILED: return RETRIED_CONNECT_FAILURE;
    case END_UPSTREAM_REFUSED_STREAM: return RETRIED_REFUSED_STREAM;
    case END_UPSTREAM_STATUS: return RETRIED_STATUS;
    case END_UPSTREAM_TIMEOUT: return RETRIED_TIMEOUT;
    default: return RETRIED_RESET;
    }
}

static struct attempt_end attempt_end_of(const struct exchange *x, enum end_cause cause)
{
    bool gave_up = (cause == END_UPSTREAM_RESET && upload_is_stalled(x)) ||
                   (cause == END_UPSTREAM_TRUNCATED && x->client_held_up); // on the client, as it may
    return (struct attempt_end){
        .cause = cause,
        .status = x->response ? x->response->status : 0,
        .grpc_ended = x->grpc_ended,
        .grpc_status = x->grpc_status,
        .excused = x->excused || gave_up,
        .client_deadline = x->client_deadline,
    };
}

static void leave(struct exchange *x, const struct attempt_end *end)
{
    if (!x->call->local)
        return;
    x->upstream_us += exchange_record_attempt(x, x->call, end->status);
    upstream_call_finish(x->call, end);
}

void exchange_leave_upstream(struct exchange *x, enum end_cause cause)
{
    struct attempt_end end = attempt_end_of(x, cause);
    hedge_settle(x);
    leave(x, &end);
}

void exchange_judge_upstream(struct exchange *x)
{
    struct attempt_end end = attempt_end_of(x, END_OK);
    upstream_call_judge(x->call, &end);
}

// ---- while the circuit breaker is open ----

enum { RETRY_AFTER_MOST_S = 3600 };

// For the client: whole seconds, at least one.
static unsigned retry_after_s(uint64_t wait_us)
{
    uint64_t seconds = (wait_us + 999999) / 1000000;
    return seconds > RETRY_AFTER_MOST_S ? RETRY_AFTER_MOST_S : seconds ? (unsigned)seconds : 1;
}

static bool may_ask_fallback(const struct exchange *x)
{
    return x->upstream->fallback && !exchange_lacks_upgrade(x, x->upstream->fallback) &&
           !(x->body_bytes && x->replay_lost);
}

// The upstream was not asked: so this is no attempt at it, and no metric of it.
static enum step_result fall_back(struct exchange *x)
{
    static const struct attempt_end refused = {.cause = END_BREAKER_OPEN};
    const struct breaker_settings *breaker = &x->upstream->settings->circuit_breaker;
    upstream_call_finish(x->call, &refused);
    x->attempts--;
    x->retry_after_s = retry_after_s(x->call->breaker_wait_us);
    if (stale_answer(x)) {
        x->cause = END_BREAKER_OPEN;
        x->step = STEP_FINISH;
    } else if (may_ask_fallback(x)) {
        x->upstream = x->upstream->fallback;
        x->attempts_elsewhere = x->attempts - x->stale_retried;
        x->retry_after_s = 0; // it knows better
        exchange_choose_retries(x);
        x->step = STEP_PICK;
    } else if (breaker->has_fallback && breaker->fallback.has_respond && !x->grpc) {
        x->cause = END_BREAKER_OPEN;
        x->step = STEP_FINISH;
        reply_respond(x, &breaker->fallback.respond);
    } else {
        exchange_end(x, END_BREAKER_OPEN, STR_NULL);
    }
    return STEP_MORE;
}

enum step_result exchange_try_again(struct exchange *x, enum end_cause cause)
{
    struct attempt_end attempt = attempt_end_of(x, cause);
    x->response = NULL;
    x->grpc_ended = false;
    if (x->hedge) {
        attempt.stale = upstream_call_was_stale(x->call, cause); // it is sent once more already
        return hedge_take_over(x, &attempt);
    }
    if (cause == END_BREAKER_OPEN)
        return fall_back(x);
    bool again = exchange_may_retry(x, cause), stale = again && is_free(x, cause);
    attempt.stale = stale;
    leave(x, &attempt);
    if (!again) {
        exchange_end(x, cause, STR_NULL);
        return STEP_MORE;
    }
    metrics_retry(x->worker->metrics, x->upstream->metric_id, reason_of(cause));
    x->step = STEP_PICK;
    x->fresh = true;
    x->body_full = false;
    uint64_t at_us = x->retry_at_us;
    x->retry_at_us = 0;
    if (stale) {
        x->stale_retried = true;
        return STEP_MORE;
    }
    x->wait_until_us = at_us;
    exchange_arm(x);
    return STEP_WAIT;
}
