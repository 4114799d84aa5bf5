// One attempt at one request: picking an endpoint, lending, waiting in line, giving back.
#include "upstream/link.h"

#include <stdlib.h>

enum { POLL_MS = 10 }; // another worker gives no sign when it has made room

static void begin_on(struct upstream_call *call, int position)
{
    struct upstream_local *local = call->local;
    struct upstream_pool *pool = local->pools[position];
    call->endpoint = pool->endpoint;
    call->pool = pool;
    pool->active++;
    balance_began(&local->balance, (uint32_t)position);
}

static void leave_endpoint(struct upstream_call *call)
{
    struct upstream_pool *pool = call->pool;
    struct upstream_local *local = call->local;
    if (!pool)
        return;
    uint64_t now_us = local->worker->needs.loop->now_us;
    uint64_t latency_us = call->ready_us ? (call->head_us ? call->head_us : now_us) - call->ready_us : 0;
    pool->active--;
    quota_give(&local->requests);
    if (pool->position >= 0)
        balance_ended(&local->balance, (uint32_t)pool->position, latency_us, now_us);
    else if (pool->links == 0 && pool->active == 0)
        free(pool);
    call->pool = NULL;
}

// An idle connection, or a new one. CALL_REFUSED leaves the endpoint chosen, so that it is not tried again.
static enum call_start connect_call(struct upstream_call *call, bool fresh, enum end_cause *cause)
{
    struct upstream_pool *pool = call->pool;
    bool careful = !http_method_idempotent(call->method);
    while (!fresh && !list_empty(&pool->idle)) {
        struct upstream_conn *c = container_of(pool->idle.next, struct upstream_conn, node);
        // What must not be sent twice is not trusted to a connection that may just have been closed.
        if (careful && conn_is_stale(&c->conn)) {
            connection_close(c);
            continue;
        }
        connection_lend(c, call);
        return CALL_READY;
    }
    return connection_start(pool, call, cause) ? CALL_WAITING : CALL_REFUSED;
}

static bool any_idle(const struct upstream_local *local)
{
    for (uint32_t i = 0; i < local->balance.count; i++)
        if (!list_empty(&local->pools[i]->idle))
            return true;
    return false;
}

// A connection may be had now: an idle one, room for a new one, or an idle one elsewhere that makes room.
static bool has_room(struct upstream_local *local, const struct upstream_pool *pool, bool fresh)
{
    if (local->links < local->max_links || (!fresh && !list_empty(&pool->idle)))
        return true;
    for (uint32_t i = 0; i < local->balance.count; i++)
        if (!list_empty(&local->pools[i]->idle)) {
            connection_close(container_of(local->pools[i]->idle.prev, struct upstream_conn, node));
            return true;
        }
    return false;
}

static void on_pending_timeout(struct loop_timer *timer)
{
    struct upstream_call *call = container_of(timer, struct upstream_call, pending_timer);
    call->events->on_fail(call, END_OVERLOADED);
}

static enum call_start wait_in_line(struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    leave_endpoint(call); // chosen again when its turn comes
    if (!quota_take(&local->pending)) {
        *cause = END_OVERLOADED;
        return CALL_REFUSED;
    }
    list_push_back(&local->waiting, &call->waiting);
    call->queued = true;
    loop_timer_set(local->worker->needs.loop, &local->poll, POLL_MS);
    loop_timer_set(local->worker->needs.loop, &call->pending_timer, local->connect_ms);
    return CALL_WAITING;
}

// A place in local->requests has been taken for it.
static enum call_start place_call(struct upstream_call *call, bool fresh, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    struct upstream_worker_needs *needs = &local->worker->needs;
    int position = balance_pick(&local->balance, call->hash, call->tried, needs->loop->now_us, needs->rand);
    if (position == BALANCE_NONE) {
        quota_give(&local->requests);
        *cause = END_NO_ENDPOINT;
        return CALL_REFUSED;
    }
    begin_on(call, position);
    if (!has_room(local, call->pool, fresh))
        return wait_in_line(call, cause);
    if (position < 64)
        call->tried |= UINT64_C(1) << position;
    return connect_call(call, fresh, cause);
}

enum call_start upstream_call_start(struct upstream_worker *worker, struct upstream_call *call, bool fresh,
                                    enum end_cause *cause)
{
    struct upstream_local *local = upstream_local_of(worker, call->upstream);
    call->local = local;
    call->link = NULL;
    call->connecting = NULL;
    call->pool = NULL;
    call->queued = false;
    call->fresh = fresh;
    call->ready_us = call->head_us = 0;
    call->response_begun = call->reused = false;
    list_init(&call->waiting);
    loop_timer_init(&call->pending_timer, on_pending_timeout);
    local->calls++;
    if (!list_empty(&local->waiting) || !quota_take(&local->requests))
        return wait_in_line(call, cause); // who came first is served first
    return place_call(call, fresh, cause);
}

static void stop_waiting(struct upstream_call *call)
{
    if (!call->queued)
        return;
    list_remove(&call->waiting);
    loop_timer_stop(call->local->worker->needs.loop, &call->pending_timer);
    quota_give(&call->local->pending);
    call->queued = false;
}

static void serve_next(struct upstream_local *local)
{
    struct upstream_call *call = container_of(local->waiting.next, struct upstream_call, waiting);
    enum end_cause cause;
    stop_waiting(call);
    switch (place_call(call, call->fresh, &cause)) {
    case CALL_READY: call->events->on_ready(call); break;
    case CALL_WAITING: break;
    case CALL_REFUSED: call->events->on_fail(call, cause); break;
    }
}

void local_serve_waiting(struct upstream_local *local)
{
    if (local->serving)
        return; // from inside an event below: the loop goes on
    local->serving = true;
    // Who cannot be placed yet keeps the head of the line, and its deadline. At most once for each that waits
    // now: one that fails may be back at once.
    for (uint32_t n = local->pending.used; n && !list_empty(&local->waiting); n--) {
        if ((local->links >= local->max_links && !any_idle(local)) || !quota_take(&local->requests))
            break;
        serve_next(local);
    }
    local->serving = false;
    if (!list_empty(&local->waiting))
        loop_timer_set(local->worker->needs.loop, &local->poll, POLL_MS);
}

void upstream_call_finish(struct upstream_call *call)
{
    struct upstream_local *local = call->local;
    if (!local)
        return;
    stop_waiting(call);
    struct upstream_link *link = call->link;
    if (call->connecting)
        list_remove(&call->waiting); // goes on, for whoever comes next
    call->link = NULL;
    call->connecting = NULL;
    leave_endpoint(call);
    call->local = NULL;
    local->calls--;
    if (link) {
        link->call = NULL;
        local->worker->lent--;
        link->verbs->give(link);
    }
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

// ---- what goes through it ----

bool upstream_call_head(struct upstream_call *call, const struct request_head *head, struct str target,
                        enum framing framing, bool upgrade)
{
    return call->link->verbs->head(call->link, head, target, framing, upgrade);
}

enum flow upstream_call_body(struct upstream_call *call, struct str span)
{
    return call->link->verbs->body(call->link, span);
}

void upstream_call_end(struct upstream_call *call, const struct headers *trailers)
{
    call->link->verbs->end(call->link, trailers);
}

void upstream_call_flush(struct upstream_call *call)
{
    call->link->verbs->flush(call->link);
}

void upstream_call_resume(struct upstream_call *call)
{
    if (call->link)
        call->link->verbs->resume(call->link);
}

bool upstream_call_unsent(const struct upstream_call *call)
{
    return !call->link || call->link->verbs->is_unsent(call->link);
}

// ---- the retry budget ----

bool upstream_retry_take(struct upstream_call *call, double budget)
{
    struct upstream_local *local = call->local;
    if (budget <= 0)
        return false;
    double allowed = budget * local->calls;
    if (local->retrying >= RETRIES_AT_LEAST && (double)local->retrying + 1 > allowed)
        return false;
    local->retrying++;
    return true;
}

void upstream_retry_give(struct upstream_worker *worker, const struct upstream *upstream)
{
    worker->locals[upstream->index]->retrying--;
}
