// One attempt at one request: picking an endpoint, lending, waiting in line, giving back.
#include "base/clock.h"
#include "upstream/link.h"
#include "upstream/outlier.h"

#include <stdlib.h>

enum { POLL_MS = 10 }; // how often is looked for room while somebody waits, whether there was a sign or not

static enum call_start wait_for_link(struct upstream_call *call, enum end_cause *cause);

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
    if (pool->position >= 0)
        balance_ended(&local->balance, (uint32_t)pool->position, latency_us, now_us);
    else if (pool->links == 0 && pool->active == 0)
        pool_free(pool);
    call->pool = NULL;
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

static void note_any_short(const struct upstream_local *local)
{
    atomic_store_explicit(&any_short_ms, loop_now_ms(local->worker->needs.loop), memory_order_relaxed);
}

static void note_short(const struct upstream_local *local)
{
    uint64_t now_ms = loop_now_ms(local->worker->needs.loop);
    atomic_store_explicit(&local->pending.quota->short_ms, now_ms, memory_order_relaxed);
    note_any_short(local);
}

// ---- the circuit breaker ----

// False: *wait_us is when to ask again.
static bool ask_breaker(struct upstream_call *call, struct shared_breaker *breaker, uint64_t *wait_us)
{
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    if (breaker && !shared_breaker_admit(breaker, &call->upstream->settings->circuit_breaker.rules,
                                         needs->loop->now_us, needs->rand, &call->pass, wait_us)) {
        if (!*wait_us) // it probes: the probes' places are taken
            note_any_short(call->local);
        return false;
    }
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
    case OUTCOME_NONE:
    case OUTCOME_OUTRUN: break;
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

void upstream_call_pass_over(struct upstream_call *call)
{
    shared_breaker_pass_over(call->breaker, &call->upstream->settings->circuit_breaker.rules, &call->pass,
                             call->local->worker->needs.loop->now_us);
}

// While it waited in line the breaker has opened, perhaps: it asks again. False: it may not go.
static bool pass_again(struct upstream_call *call)
{
    struct shared_breaker *breaker = call->breaker;
    if (!breaker || !shared_breaker_is_stale(breaker, call->pass))
        return true;
    tell_breaker(call, BREAKER_NEUTRAL);
    return ask_breaker(call, breaker, &call->breaker_wait_us);
}

// ---- where it goes ----

static void bar(struct upstream_call *call, struct balance_endpoint *at, uint64_t wait_us,
                enum end_cause *cause)
{
    at->barred = true;
    if (at->weight)
        *cause = END_BREAKER_OPEN;
    if (!call->breaker_wait_us || (wait_us && wait_us < call->breaker_wait_us))
        call->breaker_wait_us = wait_us;
}

// Those whose breakers are open.
static void bar_open(struct upstream_call *call, enum end_cause *cause)
{
    struct balance *balance = &call->local->balance;
    uint64_t now_us = call->local->worker->needs.loop->now_us, wait_us;
    call->breaker_wait_us = 0;
    *cause = END_NO_ENDPOINT;
    for (uint32_t i = 0; i < balance->count; i++) {
        const struct shared_breaker *breaker = balance->endpoints[i].endpoint->breaker;
        if (breaker && shared_breaker_is_open(breaker, now_us, &wait_us))
            bar(call, &balance->endpoints[i], wait_us, cause);
    }
}

static void unbar_all(struct balance *balance)
{
    for (uint32_t i = 0; i < balance->count; i++)
        balance->endpoints[i].barred = false;
}

// Among the endpoints whose breakers let it pass.
static int pick_guarded(struct upstream_call *call, enum end_cause *cause)
{
    struct balance *balance = &call->local->balance;
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    uint64_t now_us = needs->loop->now_us, wait_us;
    int position;
    bar_open(call, cause);
    while ((position = balance_pick(balance, call->hash, call->tried, now_us, needs->rand)) != BALANCE_NONE &&
           !ask_breaker(call, balance->endpoints[position].endpoint->breaker, &wait_us))
        bar(call, &balance->endpoints[position], wait_us, cause);
    unbar_all(balance);
    return position;
}

// Whether it would wait in line for nothing: breakers are open, and leave it nobody to ask.
static bool waits_in_vain(struct upstream_call *call)
{
    const struct upstream *upstream = call->upstream;
    struct balance *balance = &call->local->balance;
    uint64_t now_us = call->local->worker->needs.loop->now_us;
    if (upstream->breaker)
        return shared_breaker_is_open(upstream->breaker, now_us, &call->breaker_wait_us);
    if (!upstream->endpoint_breakers)
        return false;
    enum end_cause cause;
    bar_open(call, &cause);
    bool in_vain = cause == END_BREAKER_OPEN && !balance_has_choice(balance, now_us);
    unbar_all(balance);
    return in_vain;
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

// One connection more may be opened: of those that the process may have, or for an idle one elsewhere that
// makes room.
static bool take_link(struct upstream_local *local)
{
    if (connection_share_take(&local->links, loop_now_ms(local->worker->needs.loop)))
        return true;
    for (uint32_t i = 0; i < local->balance.count; i++)
        if (!list_empty(&local->pools[i]->idle)) {
            connection_share_swap(&local->links);
            connection_close(container_of(local->pools[i]->idle.prev, struct upstream_conn, node));
            return true;
        }
    return false;
}

// One with room, or a new one, or it waits in line for one. CALL_REFUSED leaves the endpoint chosen, so that
// it is not tried again.
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
    if (!take_link(pool->local))
        return wait_for_link(call, cause);
    return connection_start(pool, call, cause) ? CALL_WAITING : CALL_REFUSED;
}

static bool any_room(const struct upstream_local *local)
{
    for (uint32_t i = 0; i < local->balance.count; i++) {
        const struct upstream_pool *pool = local->pools[i];
        if (!list_empty(&pool->open) || !list_empty(&pool->idle) || find_connecting(pool))
            return true;
    }
    return false;
}

// Stands in line for as many connections as those who wait could use. True: one may be opened now. Without a
// connection a place would be of no use: so one is asked for while no place is left, too.
static bool ask_for_links(struct upstream_local *local)
{
    uint32_t calls = local->pending.used, places = concurrency_left(&local->requests);
    uint32_t most = local->protocol->calls;
    uint32_t links = (calls < places ? calls : places ? places : 1);
    return connection_share_want(&local->links, (links + most - 1) / most,
                                 loop_now_ms(local->worker->needs.loop));
}

static struct upstream_call *call_in_line(struct list *node)
{
    return container_of(node, struct upstream_call, waiting);
}

// Stands in line for what those who wait have not got: connections, and when there are any, places. True: one
// of them may go now.
static bool ask_for_room(struct upstream_local *local)
{
    bool is_usable = any_room(local) || ask_for_links(local);
    if (!is_usable || list_empty(&local->waiting)) {
        concurrency_want(&local->requests, 0, 0, 0);
        return false;
    }
    return concurrency_want(&local->requests, local->pending.used,
                            call_in_line(local->waiting.next)->waits_since_us,
                            call_in_line(local->waiting.prev)->waits_since_us);
}

static void on_pending_timeout(struct loop_timer *timer)
{
    struct upstream_call *call = container_of(timer, struct upstream_call, pending_timer);
    call->events->on_fail(call, END_OVERLOADED);
}

// ---- waiting in line ----

// Others who come meanwhile do not put it off.
static void poll_within(struct upstream_local *local, uint64_t ms)
{
    struct loop *loop = local->worker->needs.loop;
    if (!local->poll.due_ms || loop_now_ms(loop) + ms < local->poll.due_ms)
        loop_timer_set(loop, &local->poll, ms);
}

// No longer than a connection may take, nor so long that the service would have less of the request's time
// than the line: else it would be asked for what cannot be answered in time, and blamed for it.
static uint64_t waits_at_most_us(const struct upstream_call *call)
{
    uint64_t most_us = call->local->connect_ms * 1000, now_us = call->local->worker->needs.loop->now_us;
    uint64_t left_us = call->deadline_us ? clock_elapsed_us(now_us, call->deadline_us) : UINT64_MAX;
    return left_us / 2 < most_us ? left_us / 2 : most_us;
}

static enum call_start wait_in_line(struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    if (call->upstream->endpoint_breakers)
        tell_breaker(call, BREAKER_NEUTRAL);
    if (call->pool)
        concurrency_give(&local->requests);
    leave_endpoint(call); // chosen again when its turn comes
    *cause = END_OVERLOADED;
    if (call->impatient)
        return CALL_REFUSED;
    if (waits_in_vain(call)) {
        *cause = END_BREAKER_OPEN;
        return CALL_REFUSED;
    }
    note_short(local);
    if (!quota_take(&local->pending))
        return CALL_REFUSED;
    list_push_back(&local->waiting, &call->waiting);
    concurrency_wait(&local->requests, +1);
    struct loop *loop = local->worker->needs.loop;
    if (!call->waits_since_us) { // who comes back from the front of the line keeps its deadline
        call->waits_since_us = loop->now_us;
        call->waits_until_us = loop->now_us + waits_at_most_us(call);
    }
    call->queued = true;
    poll_within(local, POLL_MS);
    loop_timer_set(loop, &call->pending_timer, clock_elapsed_us(loop->now_us, call->waits_until_us) / 1000);
    return CALL_WAITING;
}

static enum call_start wait_for_place(struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    enum call_start start = wait_in_line(call, cause);
    bool is_first = local->waiting.next == &call->waiting; // the others have been asked for
    if (start == CALL_WAITING && ask_for_room(local) && is_first && !local->serving)
        poll_within(local, 0);
    return start;
}

static enum call_start wait_for_link(struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = call->local;
    enum call_start start = wait_in_line(call, cause);
    if (start == CALL_WAITING && ask_for_links(local) && !local->serving)
        poll_within(local, 0);
    return start;
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
    enum call_start start = connect_call(call, fresh, cause);
    if (call->pool) // which it is not while it waits in line
        call->tried |= balance_bit((uint32_t)position);
    return start;
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
    enum call_start start = connect_call(call, call->fresh, &cause);
    report(call, start, cause);
}

enum call_start upstream_call_start(struct upstream_worker *worker, struct upstream_call *call, bool fresh,
                                    enum end_cause *cause)
{
    struct upstream_local *local = upstream_local_of(worker, call->upstream);
    call->local = local;
    call->link = NULL;
    call->connecting = call->failed_with = NULL;
    call->pool = NULL;
    call->queued = false;
    call->fresh = fresh;
    call->ready_us = call->head_us = call->asked_us = call->waits_since_us = 0;
    call->response_begun = call->reused = call->judged = false;
    call->breaker = NULL;
    call->breaker_wait_us = 0;
    list_init(&call->waiting);
    list_init(&call->unanswered);
    loop_timer_init(&call->pending_timer, on_pending_timeout);
    if (!ask_breaker(call, call->upstream->breaker, &call->breaker_wait_us)) {
        *cause = END_BREAKER_OPEN;
        return CALL_REFUSED;
    }
    if (!list_empty(&local->waiting) || !concurrency_take(&local->requests))
        return wait_for_place(call, cause); // who came first is served first
    return place_call(call, fresh, cause);
}

static void stop_waiting(struct upstream_call *call)
{
    if (!call->queued)
        return;
    list_remove(&call->waiting);
    loop_timer_stop(call->local->worker->needs.loop, &call->pending_timer);
    quota_give(&call->local->pending);
    concurrency_wait(&call->local->requests, -1);
    call->queued = false;
}

// False: the first in line may still be served.
static bool refuse_next(struct upstream_local *local)
{
    struct upstream_call *call = call_in_line(local->waiting.next);
    if (!waits_in_vain(call))
        return false;
    stop_waiting(call);
    report(call, CALL_REFUSED, END_BREAKER_OPEN);
    return true;
}

static void serve_next(struct upstream_local *local)
{
    struct upstream_call *call = call_in_line(local->waiting.next);
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
    local_take_back(local);
    // Who cannot be placed yet keeps the head of the line, and its deadline. At most once for each that waits
    // now: one that fails may be back at once.
    for (uint32_t n = local->pending.used; n && !list_empty(&local->waiting); n--) {
        if (refuse_next(local))
            continue;
        if (!ask_for_room(local) || !concurrency_take(&local->requests))
            break;
        serve_next(local);
    }
    local->serving = false;
    if (list_empty(&local->waiting)) {
        connection_share_want(&local->links, 0, 0);
        concurrency_want(&local->requests, 0, 0, 0);
        return;
    }
    note_short(local);
    poll_within(local, POLL_MS);
}

// For the upstream alone: not for a client that sends slowly.
static uint64_t waited_us(const struct upstream_call *call, uint64_t now_us)
{
    uint64_t until_us = call->head_us ? call->head_us : now_us;
    return call->asked_us ? clock_elapsed_us(call->asked_us, until_us) : 0;
}

// Of a connection that fails, its first call that is a failure tells.
static bool is_told_already(struct upstream_call *call)
{
    struct upstream_conn *c = call->failed_with;
    if (!c || call->outcome.verdict != OUTCOME_FAILURE)
        return false;
    bool before = c->failure_told;
    c->failure_told = true;
    return before;
}

// Once an attempt, while call->pool still stands.
static void note_outcome(struct upstream_call *call, const struct attempt_end *end)
{
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    struct upstream_outcome *outcome = &call->outcome;
    uint64_t now_us = needs->loop->now_us, waiting_us = waited_us(call, now_us);
    call->judged = true;
    *outcome = outcome_of(end);
    outcome->latency_us = call->head_us ? waiting_us : 0;
    if (call->pool)
        outcome->endpoint = call->pool->endpoint;
    else // it had not come so far as to ask one
        outcome->verdict = OUTCOME_NONE;
    outcome->is_shared = is_told_already(call);
    tell_breaker(call, result_of(call));
    outlier_note(call->upstream, outcome, call->placed_us, now_us, needs->rand, needs->metrics);
    concurrency_note(&call->local->requests, outcome, waiting_us, now_us);
}

void upstream_call_judge(struct upstream_call *call, const struct attempt_end *end)
{
    if (!call->judged)
        note_outcome(call, end);
}

static void give_room(struct upstream_call *call)
{
    if (!call->granted_bytes)
        return;
    client_room_give(call->room, call->granted_bytes);
    call->granted_bytes = 0;
}

void upstream_call_finish(struct upstream_call *call, const struct attempt_end *end)
{
    struct upstream_local *local = call->local;
    if (!local)
        return;
    upstream_call_judge(call, end);
    list_remove(&call->unanswered);
    bool was_in_line = call->queued; // for something that it leaves to others
    stop_waiting(call);
    give_room(call);
    struct upstream_link *link = call->link;
    bool gives_place = call->pool;
    connection_leave(call); // which goes on, for whoever comes next
    call->link = NULL;
    leave_endpoint(call);
    call->local = NULL;
    if (link) {
        link->call = NULL;
        local->worker->lent--;
        gives_place = link->verbs->give(link) && gives_place;
    }
    // Only now: else the endpoint could have the next one before it hears that this one is over.
    if (gives_place)
        concurrency_give(&local->requests);
    if (was_in_line || !list_empty(&local->waiting))
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
    if (!call->head_us) { // else it is answered: a tunnel's half-close
        call->asked_us = call->local->worker->needs.loop->now_us;
        slow_calls_watch(&call->local->slow_calls, call);
    }
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

void upstream_call_leave_client(struct upstream_call *call)
{
    give_room(call);
    call->room = NULL;
}

bool upstream_call_unsent(const struct upstream_call *call)
{
    return !call->link || call->link->verbs->is_unsent(call->link);
}

bool upstream_call_was_stale(const struct upstream_call *call, enum end_cause cause)
{
    return cause == END_UPSTREAM_RESET && call->reused && !call->response_begun;
}

// ---- the retry budget ----

void upstream_enter(struct upstream_worker *worker, struct upstream *upstream, struct retry_place *place)
{
    retry_place_enter(place, &upstream_local_of(worker, upstream)->retries);
}
