// Bodies on their way through: request body from the front to the upstream, response body back, each in
// bounded memory. A side that is full says so once; the other side is told to go on when it has drained.
#include "exchange/stale.h"
#include "exchange/steps.h"

#include <limits.h>

// ---- the request body ----

static void stop_awaiting_continue(struct exchange *x)
{
    if (x->continue_awaited)
        x->wait_until_us = 0;
    x->continue_awaited = false;
}

void relay_open_body(struct exchange *x)
{
    stop_awaiting_continue(x);
    if (x->body == BODY_HELD)
        x->body = BODY_OPEN;
    if (x->body == BODY_OPEN)
        x->client->resume(x);
}

static void lose_replay(struct exchange *x)
{
    x->replay_lost = true;
    x->replay_at = 0;
    buf_release(&x->replay, &x->worker->buffers);
}

static void keep(struct exchange *x, struct str span, size_t max)
{
    if (buf_reserve(&x->replay, &x->worker->buffers, span.n, max))
        buf_put(&x->replay, span);
    else
        lose_replay(x);
}

// A server of HTTP/2 says so when it has not looked at a request: any may then be sent again.
static bool may_be_refused(const struct exchange *x)
{
    return x->upstream->settings->protocol == UPSTREAM_H2 && (x->retries->retry_on & RETRY_REFUSED_STREAM);
}

// Kept for another try only while that is allowed and small.
static void keep_for_replay(struct exchange *x, struct str span)
{
    if (x->replay_lost)
        return;
    bool repeatable =
        x->retries && x->retries->attempts > 0 && !x->tunnel && (x->repeatable || may_be_refused(x));
    if (!repeatable || buf_len(&x->replay) + span.n > x->retries->body_bytes)
        lose_replay(x);
    else
        keep(x, span, x->retries->body_bytes);
    x->replay_at = buf_len(&x->replay);
}

static bool is_replaying(const struct exchange *x)
{
    return x->replay_at < buf_len(&x->replay);
}

static void end_body(struct exchange *x)
{
    upstream_call_end(x->call, x->trailers.count ? &x->trailers : NULL);
}

bool relay_replay_body(struct exchange *x, size_t from)
{
    enum { PIECE = 64 * 1024 }; // an output buffer takes one on top of what is blocked
    x->replay_at = from;
    while (is_replaying(x)) {
        struct str rest = str_skip(buf_str(&x->replay), x->replay_at);
        struct str piece = {rest.p, rest.n < PIECE ? rest.n : PIECE};
        x->replay_at += piece.n;
        x->body_full = upstream_call_body(x->call, piece) == FLOW_FULL;
        if (x->body_full && is_replaying(x))
            return false;
    }
    if (x->body == BODY_ENDED)
        end_body(x);
    return true;
}

static bool has_room_to_gather(const struct exchange *x)
{
    enum priority priority = (enum priority)x->match.route->settings->priority;
    return x->body_bytes <= x->policy.body_wanted && !overload_lacks_memory(&x->worker->overload, priority);
}

// For policies that judge it. What is too much is told to step_gather by the timer: this may not end x.
static enum flow gather(struct exchange *x, struct str span)
{
    if (!x->replay_lost && has_room_to_gather(x))
        keep(x, span, x->policy.body_wanted);
    else
        lose_replay(x);
    if (!x->replay_lost)
        return FLOW_MORE;
    x->wait_until_us = exchange_now_us(x);
    exchange_arm(x);
    return FLOW_FULL;
}

enum flow exchange_body(struct exchange *x, struct str span)
{
    x->bytes_in += span.n;
    x->body_bytes += span.n;
    x->progress_us = exchange_now_us(x);
    if (x->step == STEP_GATHER)
        return gather(x, span);
    if (!x->call->link || is_replaying(x)) { // behind what is repeated first; resumed then
        if (!x->replay_lost)
            keep(x, span, buf_len(&x->replay) + span.n);
        return FLOW_FULL;
    }
    keep_for_replay(x, span);
    x->body_full = upstream_call_body(x->call, span) == FLOW_FULL;
    return x->body_full ? FLOW_FULL : FLOW_MORE;
}

void exchange_body_flush(struct exchange *x)
{
    if (x->call->link)
        upstream_call_flush(x->call);
}

void exchange_body_end(struct exchange *x, struct headers *trailers)
{
    if (x->body != BODY_OPEN)
        return;
    if (trailers) {
        auth_strip(&x->gateway->auth, trailers);
        x->trailers = *trailers;
    }
    x->body = BODY_ENDED;
    x->progress_us = exchange_now_us(x);
    if (x->call->link && !is_replaying(x)) {
        end_body(x);
        upstream_call_flush(x->call);
    }
    if (x->step == STEP_GATHER) {
        exchange_run(x);
    } else if (x->tunnel && x->upstream_ended) {
        x->step = STEP_FINISH;
        exchange_run(x);
    }
}

// ---- what the upstream says ----

static struct exchange *exchange_of(struct upstream_call *call)
{
    struct exchange *x = call->context;
    x->progress_us = exchange_now_us(x);
    return x;
}

static void on_ready(struct upstream_call *call)
{
    struct exchange *x = exchange_of(call);
    x->step = STEP_SEND;
    exchange_run(x);
}

static void on_informational(struct upstream_call *call, struct response_head *head)
{
    struct exchange *x = exchange_of(call);
    if (head->status == 100) {
        if (x->continue_awaited)
            relay_open_body(x); // the front says 100 itself when it begins to read
        return;
    }
    headers_remove_hop_by_hop(&head->headers);
    if (x->reply == REPLY_NONE)
        x->client->send_informational(x, head);
}

// How the upstream says that a gRPC call ended: in trailers, or in a head without a body.
static void note_grpc_status(struct exchange *x, const struct headers *fields)
{
    const struct header *field = headers_find_name(fields, STR("grpc-status"));
    uint64_t status;
    if (!field)
        return;
    x->grpc_ended = true;
    x->grpc_status = str_to_u64(field->value, UINT_MAX, &status) ? (unsigned)status : UINT_MAX;
}

static void on_head(struct upstream_call *call, struct response_head *head)
{
    struct exchange *x = exchange_of(call);
    x->response = head;
    if (x->grpc)
        note_grpc_status(x, &head->headers);
    stop_awaiting_continue(x);
    x->step = STEP_SHAPE;
    exchange_run(x);
}

static enum flow on_body(struct upstream_call *call, struct str span)
{
    struct exchange *x = exchange_of(call);
    x->bytes_out += span.n;
    if (x->policy.on_response_body)
        x->policy.on_response_body(&x->policy, span);
    x->client_full = x->client->send_body(x, span) == FLOW_FULL;
    if (unlikely(x->copying != NULL))
        stale_hear_body(x, span);
    return x->client_full ? FLOW_FULL : FLOW_MORE;
}

static void on_end(struct upstream_call *call, struct headers *trailers)
{
    struct exchange *x = exchange_of(call);
    bool half_open = x->tunnel && x->body == BODY_OPEN;
    x->upstream_ended = true;
    if (x->grpc && trailers)
        note_grpc_status(x, trailers);
    x->policy.is_whole = !x->tunnel;
    x->policy.trailers = half_open ? NULL : trailers; // they are gone by the time the other direction ends
    if (unlikely(x->copying != NULL))
        stale_keep(x);
    if (!half_open)
        exchange_end_policies(x);
    x->client->send_end(x, trailers);
    if (half_open)
        return; // the other direction goes on
    x->reply = REPLY_ENDED;
    x->step = STEP_FINISH;
    exchange_run(x);
}

static void on_flush(struct upstream_call *call)
{
    struct exchange *x = call->context; // what was read has made progress; when nothing was, nothing has
    x->client->flush(x);
}

static void on_drain(struct upstream_call *call)
{
    struct exchange *x = exchange_of(call);
    x->body_full = false;
    if (is_replaying(x)) {
        if (!relay_replay_body(x, x->replay_at))
            return;
        upstream_call_flush(x->call);
    }
    if (x->body == BODY_OPEN && !x->body_full)
        x->client->resume(x);
}

static void on_fail(struct upstream_call *call, enum end_cause cause)
{
    struct exchange *x = exchange_of(call);
    if (exchange_try_again(x, cause) == STEP_MORE)
        exchange_run(x);
}

const struct upstream_call_events exchange_call_events = {
    .on_ready = on_ready,
    .on_informational = on_informational,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_flush = on_flush,
    .on_drain = on_drain,
    .on_fail = on_fail,
};

void exchange_client_drained(struct exchange *x)
{
    enum { LONG_US = 1000000 };
    x->client_held_up |= x->client_full && exchange_now_us(x) - x->progress_us >= LONG_US;
    x->client_full = false;
    x->progress_us = exchange_now_us(x);
    upstream_call_resume(x->call);
}
