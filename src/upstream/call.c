// One attempt at one request: picking an endpoint, lending, waiting in line, giving back.
#include "upstream/link.h"
#include "upstream/outlier.h"

#include <stdlib.h>

enum { POLL_MS = 10 }; // another worker gives no sign when it has made room

static void begin_on(struct upstream_call *call, int position)
{
    struct upstream_local *local = call->local;
    struct upstream_pool *pool = local->pools[position];
    call->endpoint = pool->endpoint;
    call->pool = pool;
    call->placed_us = local->worker->needs.loop->now_us;
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
    concurrency_give(&local->requests);
    if (pool->position >= 0)
        balance_ended(&local->balance, (uint32_t)pool->position, latency_us, now_us);
    else if (pool->links == 0 && pool->active == 0)
        pool_free(pool);
    call->pool = NULL;
}

// ---- the circuit breaker ----

static bool ask_breaker(struct upstream_call *call, struct shared_breaker *breaker)
{
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    if (breaker &&
        !shared_breaker_admit(breaker, &call->upstream->settings->circuit_breaker.rules, needs->loop->now_us,
                              needs->rand, &call->pass, &call->breaker_wait_us))
        return false;
    call->breaker = breaker;
    return true;
}

static void tell_breaker(struct upstream_call *call, enum breaker_result result)
{
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    if (!call->breaker)
        return;
    shared_breaker_note(call->breaker, &call->upstream->settings->circuit_breaker.rules, needs->tls_slot,
                        call->pass, result, needs->loop->now_us, needs->rand);
    call->breaker = NULL;
}

static enum breaker_result result_of(const struct upstream_call *call)
{
    const struct breaker_settings *settings = &call->upstream->settings->circuit_breaker;
    switch (call->outcome.verdict) {
    case OUTCOME_NONE: break;
    case OUTCOME_FAILURE: return BREAKER_FAILED;
    case OUTCOME_ANSWER:
        if (status_set_has(&settings->failure_statuses, call->outcome.status))
            return BREAKER_FAILED;
        return settings->slow_call_us && call->outcome.latency_us > settings->slow_call_us ? BREAKER_SLOW
                                                                                           : BREAKER_GOOD;
    }
    return BREAKER_NEUTRAL;
}

bool upstream_call_is_probe(const struct upstream_call *call)
{
    return call->breaker && call->pass.probe;
}

// While it waited in line the breaker has opened, perhaps: it asks again. False: it may not go.
static bool pass_again(struct upstream_call *call)
{
    struct shared_breaker *breaker = call->breaker;
    if (!breaker || !shared_breaker_is_stale(breaker, call->pass))
        return true;
    tell_breaker(call, BREAKER_NEUTRAL);
    return ask_breaker(call, breaker);
}

// ---- where it goes ----

static bool bar(struct upstream_call *call, struct balance_endpoint *at, uint64_t wait_us)
{
    at->barred = true;
    if (!call->breaker_wait_us || (wait_us && wait_us < call->breaker_wait_us))
        call->breaker_wait_us = wait_us;
    return at->weight > 0;
}

// Among the endpoints whose breakers let it pass.
static int pick_guarded(struct upstream_call *call, enum end_cause *cause)
{
    struct balance *balance = &call->local->balance;
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    uint64_t now_us = needs->loop->now_us, wait_us;
    bool any_open = false;
    call->breaker_wait_us = 0;
    for (uint32_t i = 0; i < balance->count; i++) {
        const struct shared_breaker *breaker = balance->endpoints[i].endpoint->breaker;
        if (breaker && shared_breaker_is_open(breaker, now_us, &wait_us))
            any_open |= bar(call, &balance->endpoints[i], wait_us);
    }
    int position;
    for (;;) {
        position = balance_pick(balance, call->hash, call->tried, now_us, needs->rand);
        if (position == BALANCE_NONE)
            break;
        struct balance_endpoint *at = &balance->endpoints[position];
        uint64_t soonest_us = call->breaker_wait_us;
        if (ask_breaker(call, at->endpoint->breaker))
            break;
        wait_us = call->breaker_wait_us;
        call->breaker_wait_us = soonest_us;
        any_open |= bar(call, at, wait_us);
    }
    for (uint32_t i = 0; i < balance->count; i++)
        balance->endpoints[i].barred = false;
    *cause = any_open ? END_BREAKER_OPEN : END_NO_ENDPOINT;
    return position;
}

static int pick(struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    const struct upstream_worker_needs *needs = &local->worker->needs;
    if (call->upstream->endpoint_breakers)
        return pick_guarded(call, cause);
    *cause = END_NO_ENDPOINT;
    return balance_pick(&local->balance, call->hash, call->tried, needs->loop->now_us, needs->rand);
}

// Connections are shared by calls, so a second try needs no fresh one: what broke the first is not in a pool.
static bool is_shared(const struct upstream_local *local)
{
    return local->protocol->calls > 1;
}

// One that is connecting and has room for one more to wait.
static struct upstream_conn *find_connecting(const struct upstream_pool *pool)
{
    const struct upstream_local *local = pool->local;
    if (is_shared(local))
        list_each (&pool->connecting, node) {
            struct upstream_conn *c = container_of(node, struct upstream_conn, node);
            if (c->waiting_count < local->protocol->calls && c->epoch == local->epoch)
                return c;
        }
    return NULL;
}

static struct upstream_conn *find_idle(struct upstream_pool *pool, bool careful)
{
    while (!list_empty(&pool->idle)) {
        struct upstream_conn *c = container_of(pool->idle.next, struct upstream_conn, node);
        // What must not be sent twice is not trusted to a connection that may just have been closed.
        if (c->room && (!careful || c->protocol->is_fit(c)))
            return c;
        connection_close(c);
    }
    return NULL;
}

// One with room, or a new one. CALL_REFUSED leaves the endpoint chosen, so that it is not tried again.
static enum call_start connect_call(struct upstream_call *call, bool fresh, enum end_cause *cause)
{
    struct upstream_pool *pool = call->pool;
    struct upstream_conn *c = NULL;
    if (!list_empty(&pool->open))
        c = container_of(pool->open.next, struct upstream_conn, node);
    else if (!fresh || is_shared(pool->local))
        c = find_idle(pool, !http_method_idempotent(call->method));
    if (c) {
        *cause = END_OVERLOADED;
        return connection_lend(c, call) ? CALL_READY : CALL_REFUSED;
    }
    if ((c = find_connecting(pool))) {
        connection_join(c, call);
        return CALL_WAITING;
    }
    return connection_start(pool, call, cause) ? CALL_WAITING : CALL_REFUSED;
}

static bool pool_has_room(const struct upstream_pool *pool, bool fresh)
{
    return !list_empty(&pool->open) || find_connecting(pool) ||
           ((!fresh || is_shared(pool->local)) && !list_empty(&pool->idle));
}

static bool any_room(const struct upstream_local *local)
{
    for (uint32_t i = 0; i < local->balance.count; i++)
        if (pool_has_room(local->pools[i], false))
            return true;
    return false;
}

// A connection may be had now: one with room, a new one, or an idle one elsewhere that makes room.
static bool has_room(struct upstream_local *local, const struct upstream_pool *pool, bool fresh)
{
    if (local->links < local->max_links || pool_has_room(pool, fresh))
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

// ---- what is short ----

enum { SHORT_MS = 1000 };

static _Atomic uint64_t any_short_ms;

static bool is_recent(_Atomic uint64_t *at_ms, uint64_t now_ms)
{
    uint64_t at = atomic_load_explicit(at_ms, memory_order_relaxed);
    return at && now_ms < at + SHORT_MS;
}

bool upstream_any_short(uint64_t now_ms)
{
    return is_recent(&any_short_ms, now_ms);
}

bool upstream_is_short(const struct upstream *upstream, uint64_t now_ms)
{
    return is_recent(&upstream->pending->short_ms, now_ms);
}

static void note_short(const struct upstream_local *local)
{
    uint64_t now_ms = loop_now_ms(local->worker->needs.loop);
    atomic_store_explicit(&local->pending.quota->short_ms, now_ms, memory_order_relaxed);
    atomic_store_explicit(&any_short_ms, now_ms, memory_order_relaxed);
}

// ---- waiting in line ----

static enum call_start wait_in_line(struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    if (call->upstream->endpoint_breakers)
        tell_breaker(call, BREAKER_NEUTRAL);
    leave_endpoint(call); // chosen again when its turn comes
    note_short(local);
    if (!quota_take(&local->pending)) {
        *cause = END_OVERLOADED;
        return CALL_REFUSED;
    }
    list_push_back(&local->waiting, &call->waiting);
    struct loop *loop = local->worker->needs.loop;
    uint64_t now_ms = loop_now_ms(loop);
    if (!call->give_up_ms) // who comes back from the front of the line keeps its deadline
        call->give_up_ms = now_ms + local->connect_ms;
    call->queued = true;
    loop_timer_set(loop, &local->poll, POLL_MS);
    loop_timer_set(loop, &call->pending_timer, call->give_up_ms > now_ms ? call->give_up_ms - now_ms : 0);
    return CALL_WAITING;
}

// A place in local->requests has been taken for it.
static enum call_start place_call(struct upstream_call *call, bool fresh, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    int position = pick(call, cause);
    if (position == BALANCE_NONE) {
        concurrency_give(&local->requests);
        return CALL_REFUSED;
    }
    begin_on(call, position);
    if (!has_room(local, call->pool, fresh))
        return wait_in_line(call, cause);
    if (position < 64)
        call->tried |= UINT64_C(1) << position;
    return connect_call(call, fresh, cause);
}

// Tells what a start outside upstream_call_start has come to.
static void report(struct upstream_call *call, enum call_start start, enum end_cause cause)
{
    switch (start) {
    case CALL_READY: call->events->on_ready(call); break;
    case CALL_WAITING: break;
    case CALL_REFUSED: call->events->on_fail(call, cause); break;
    }
}

void call_place_again(struct upstream_call *call)
{
    enum end_cause cause = END_OVERLOADED;
    enum call_start start = has_room(call->local, call->pool, call->fresh)
                                ? connect_call(call, call->fresh, &cause)
                                : wait_in_line(call, &cause);
    report(call, start, cause);
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
    call->ready_us = call->head_us = call->asked_us = call->give_up_ms = 0;
    call->response_begun = call->reused = call->judged = false;
    call->breaker = NULL;
    call->breaker_wait_us = 0;
    list_init(&call->waiting);
    loop_timer_init(&call->pending_timer, on_pending_timeout);
    if (!ask_breaker(call, call->upstream->breaker)) {
        *cause = END_BREAKER_OPEN;
        return CALL_REFUSED;
    }
    if (!list_empty(&local->waiting) || !concurrency_take(&local->requests))
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
    enum end_cause cause = END_OVERLOADED;
    stop_waiting(call);
    if (!pass_again(call)) {
        concurrency_give(&local->requests);
        report(call, CALL_REFUSED, END_BREAKER_OPEN);
        return;
    }
    enum call_start start = place_call(call, call->fresh, &cause);
    report(call, start, cause);
}

void local_serve_waiting(struct upstream_local *local)
{
    if (local->serving)
        return; // from inside an event below: the loop goes on
    local->serving = true;
    // Who cannot be placed yet keeps the head of the line, and its deadline. At most once for each that waits
    // now: one that fails may be back at once.
    for (uint32_t n = local->pending.used; n && !list_empty(&local->waiting); n--) {
        if ((local->links >= local->max_links && !any_room(local)) || !concurrency_take(&local->requests))
            break;
        serve_next(local);
    }
    local->serving = false;
    if (list_empty(&local->waiting))
        return;
    note_short(local);
    loop_timer_set(local->worker->needs.loop, &local->poll, POLL_MS);
}

// For the upstream alone: not for a client that sends slowly.
static uint64_t waited_us(const struct upstream_call *call, uint64_t now_us)
{
    uint64_t until_us = call->head_us ? call->head_us : now_us;
    return call->asked_us && until_us > call->asked_us ? until_us - call->asked_us : 0;
}

// Once an attempt, while call->pool still stands.
static void note_outcome(struct upstream_call *call, const struct attempt_end *end)
{
    struct upstream_outcome *outcome = &call->outcome;
    call->judged = true;
    *outcome = outcome_of(end);
    if (call->asked_us && call->head_us > call->asked_us)
        outcome->latency_us = call->head_us - call->asked_us;
    if (call->pool)
        outcome->endpoint = call->pool->endpoint;
    else // it had not come so far as to ask one
        outcome->verdict = OUTCOME_NONE;
    tell_breaker(call, result_of(call));
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    outlier_note(call->upstream, outcome, call->placed_us, needs->loop->now_us, needs->rand, needs->metrics);
    concurrency_note(&call->local->requests, outcome, waited_us(call, needs->loop->now_us),
                     needs->loop->now_us);
}

void upstream_call_judge(struct upstream_call *call, const struct attempt_end *end)
{
    if (!call->judged)
        note_outcome(call, end);
}

void upstream_call_finish(struct upstream_call *call, const struct attempt_end *end)
{
    struct upstream_local *local = call->local;
    if (!local)
        return;
    upstream_call_judge(call, end);
    stop_waiting(call);
    struct upstream_link *link = call->link;
    connection_leave(call); // which goes on, for whoever comes next
    call->link = NULL;
    leave_endpoint(call);
    call->local = NULL;
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
    call->asked_us = call->local->worker->needs.loop->now_us;
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

void upstream_enter(struct upstream_worker *worker, struct upstream *upstream, struct retry_place *place)
{
    retry_place_enter(place, &upstream_local_of(worker, upstream)->retries);
}
