// The life of a connection to an endpoint: connecting, secured, lent, idle, closed.
#include "upstream/link.h"

#include <errno.h>
#include <stdlib.h>

static void count_state(struct upstream_conn *c, enum upstream_conn_state state, int change)
{
    metrics_upstream_connections(connection_needs(c)->metrics, c->pool->local->metric_id,
                                 state == UPSTREAM_IDLE ? CONNECTIONS_IDLE : CONNECTIONS_ACTIVE, change);
}

static void set_state(struct upstream_conn *c, enum upstream_conn_state state)
{
    if ((c->state == UPSTREAM_IDLE) != (state == UPSTREAM_IDLE)) {
        count_state(c, c->state, -1);
        count_state(c, state, +1);
    }
    c->state = state;
}

// ---- closing ----

static void unref_session(struct pool_session *session)
{
    if (!session || --session->references)
        return;
    tls_session_fini(&session->tls);
    free(session);
}

void pool_forget_session(struct upstream_pool *pool)
{
    unref_session(pool->session);
    pool->session = NULL;
}

void pool_free(struct upstream_pool *pool)
{
    pool_forget_session(pool);
    free(pool);
}

static void pool_drop_connection(struct upstream_pool *pool)
{
    pool->links--;
    connection_share_give(&pool->local->links);
    if (pool->links == 0 && pool->active == 0 && pool->position < 0)
        pool_free(pool);
}

void connection_close(struct upstream_conn *c)
{
    if (c->conn.closed)
        return;
    struct upstream_worker_needs *needs = connection_needs(c);
    count_state(c, c->state, -1);
    list_remove(&c->node);
    c->pool->local->leaving_count -= c->leaving;
    loop_timer_stop(needs->loop, &c->timer);
    if (c->protocol->on_close)
        c->protocol->on_close(c);
    out_release(&c->out, needs->buffers);
    conn_close(&c->conn); // the rest is freed at the end of the turn
    struct upstream_pool *pool = c->pool;
    c->pool = NULL;
    pool_drop_connection(pool);
}

static void on_free(struct conn *conn)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
    unref_session(c->session);
    c->protocol->free(c);
}

static void close_all(struct list *connections)
{
    struct list *node; // the list itself may go with the last of them: it is not looked at again
    for (bool last = list_empty(connections); !last;) {
        node = connections->next;
        last = node->next == connections;
        connection_close(container_of(node, struct upstream_conn, node));
    }
}

void pool_close_idle(struct upstream_pool *pool)
{
    close_all(&pool->idle);
}

void pool_close_idle_since(struct upstream_pool *pool, uint64_t since_ms)
{
    while (!list_empty(&pool->idle)) {
        struct upstream_conn *c = container_of(pool->idle.prev, struct upstream_conn, node); // longest unused
        if (c->idle_ms > since_ms)
            break;
        connection_close(c);
    }
}

void pool_close_connecting(struct upstream_pool *pool)
{
    close_all(&pool->connecting);
}

// ---- others wait for connections ----

static void close_wanted(struct upstream_pool *pool, uint64_t now_ms)
{
    while (!list_empty(&pool->idle)) {
        struct upstream_conn *c = container_of(pool->idle.prev, struct upstream_conn, node); // longest unused
        if (!connection_share_close_idle(&pool->local->links, c->idle_ms, now_ms))
            break;
        connection_close(c);
    }
}

void local_close_wanted(struct upstream_local *local)
{
    for (uint32_t i = 0; i < local->balance.count; i++)
        close_wanted(local->pools[i], loop_now_ms(local->worker->needs.loop));
}

static bool is_owed(const struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    return connection_share_owes(&local->links, local->leaving_count, loop_now_ms(local->worker->needs.loop));
}

// It takes no more calls, and is closed when those that it has are over.
static void leave(struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    c->leaving = true;
    c->leaving_ms = loop_now_ms(local->worker->needs.loop);
    local->leaving_count++;
    list_remove(&c->node);
    list_push_back(&local->leaving, &c->node);
}

void local_take_back(struct upstream_local *local)
{
    uint64_t now_ms = loop_now_ms(local->worker->needs.loop);
    while (!list_empty(&local->leaving)) {
        struct upstream_conn *c = container_of(local->leaving.next, struct upstream_conn, node);
        if (now_ms < c->leaving_ms + CONNECTION_TURN_MS)
            break;
        c->leaving = false;
        local->leaving_count--;
        list_remove(&c->node);
        local->links.since_ms = now_ms; // for a turn at least
        connection_set_room(c, c->room);
    }
}

// ---- lending and coming back ----

bool connection_lend(struct upstream_conn *c, struct upstream_call *call)
{
    struct upstream_link *link = c->protocol->lend(c, call);
    if (!link)
        return false;
    list_remove(&c->node);
    set_state(c, UPSTREAM_LENT);
    if (c->room)
        list_push_front(&c->pool->open, &c->node);
    link->call = call;
    call->link = link;
    call->connecting = NULL;
    call->reused = c->used;
    call->ready_us = connection_needs(c)->loop->now_us;
    c->used = true;
    c->pool->local->worker->lent++;
    return true;
}

void connection_set_room(struct upstream_conn *c, uint32_t room)
{
    bool grew = room > c->room;
    c->room = room;
    if (c->state != UPSTREAM_LENT)
        return;
    if (grew && !c->leaving && is_owed(c))
        leave(c);
    if (c->leaving)
        return;
    if (!room || c->epoch != c->pool->local->epoch)
        list_remove(&c->node);
    else if (list_empty(&c->node))
        list_push_back(&c->pool->open, &c->node);
}

bool connection_is_wanted(const struct upstream_conn *c)
{
    const struct upstream_pool *pool = c->pool;
    return pool->position >= 0 && !pool->local->retired && !pool->local->worker->draining &&
           c->epoch == pool->local->epoch && !c->leaving && !is_owed(c);
}

void connection_become_idle(struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    set_state(c, UPSTREAM_IDLE);
    list_remove(&c->node);
    list_push_front(&c->pool->idle, &c->node);
    c->idle_ms = loop_now_ms(local->worker->needs.loop);
    loop_timer_set(local->worker->needs.loop, &c->timer, local->idle_ms);
}

// ---- who waits for it ----

void connection_join(struct upstream_conn *c, struct upstream_call *call)
{
    list_push_back(&c->waiting, &call->waiting);
    c->waiting_count++;
    call->connecting = c;
}

void connection_leave(struct upstream_call *call)
{
    if (!call->connecting)
        return;
    list_remove(&call->waiting);
    call->connecting->waiting_count--;
    call->connecting = NULL;
}

static struct upstream_call *take_waiting(struct upstream_conn *c)
{
    if (list_empty(&c->waiting))
        return NULL;
    struct upstream_call *call = container_of(c->waiting.next, struct upstream_call, waiting);
    connection_leave(call);
    return call;
}

static void complain(struct upstream_conn *c, const char *why)
{
    struct upstream_pool *pool = c->pool;
    uint64_t now_ms = loop_now_ms(c->conn.loop);
    if (pool->complained_ms && now_ms < pool->complained_ms + COMPLAINTS_EVERY_MS)
        return;
    pool->complained_ms = now_ms;
    const struct endpoint *endpoint = pool->endpoint;
    log_warn("upstream", "%.*s: %.*s: %s", STR_ARG(endpoint->upstream_name), STR_ARG(endpoint->name), why);
}

void connection_failed(struct upstream_conn *c, const char *why)
{
    struct upstream_local *local = c->pool->local;
    if (why)
        complain(c, why);
    connection_close(c);
    for (struct upstream_call *call; (call = take_waiting(c));) {
        call->failed_with = c;
        call->events->on_fail(call, END_UPSTREAM_CONNECT_FAILED);
    }
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void serve(struct upstream_conn *c, struct upstream_call *call)
{
    if (c->conn.closed || !c->room || c->epoch != c->pool->local->epoch)
        call_place_again(call);
    else if (connection_lend(c, call))
        call->events->on_ready(call);
    else
        call->events->on_fail(call, END_OVERLOADED);
}

void connection_opened(struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    loop_timer_stop(c->conn.loop, &c->timer);
    list_remove(&c->node); // nobody joins any more
    for (struct upstream_call *call; (call = take_waiting(c));)
        serve(c, call);
    if (!c->conn.closed && c->state == UPSTREAM_CONNECTING) {
        if (connection_is_wanted(c))
            connection_become_idle(c); // who asked has gone: the connection waits for the next
        else
            connection_close(c);
    }
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

// ---- connecting ----

static void open_protocol(struct upstream_conn *c)
{
    if (!c->protocol->open || c->epoch != c->pool->local->epoch)
        connection_opened(c); // of an older configuration: who waits is sent elsewhere
    else if (!c->protocol->open(c))
        connection_failed(c, NULL);
}

// Without a session to resume, too, a connection can be made.
static struct tls_session *share_session(struct upstream_conn *c)
{
    struct upstream_pool *pool = c->pool;
    if (!pool->session && (pool->session = calloc(1, sizeof *pool->session)))
        pool->session->references = 1;
    c->session = pool->session;
    if (!c->session)
        return NULL;
    c->session->references++;
    return &c->session->tls;
}

static void secure(struct upstream_conn *c)
{
    struct upstream_pool *pool = c->pool;
    struct str host = {pool->host, pool->host_bytes};
    if (!tls_connect(&c->conn, pool->local->tls, host, share_session(c)))
        connection_failed(c, NULL);
}

static void on_connected(struct conn *conn, int error)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
    const struct upstream_local *local = c->pool->local;
    if (error)
        connection_failed(c, NULL);
    else if (local->tls && c->epoch == local->epoch)
        secure(c);
    else
        open_protocol(c);
}

static void on_secured(struct conn *conn, enum secured secured)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
    if (secured == SECURED)
        open_protocol(c);
    else
        connection_failed(c, tls_failure(conn));
}

static void on_ready(struct conn *conn)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
    c->protocol->on_ready(c);
}

static const struct conn_events connection_events = {
    .on_ready = on_ready,
    .on_connected = on_connected,
    .on_secured = on_secured,
    .on_free = on_free,
};

static void on_timer(struct loop_timer *timer)
{
    struct upstream_conn *c = container_of(timer, struct upstream_conn, timer);
    if (c->state == UPSTREAM_CONNECTING)
        connection_failed(c, NULL);
    else
        c->protocol->on_timer(c);
}

static enum end_cause cause_of(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS
               ? END_OVERLOADED
               : END_UPSTREAM_CONNECT_FAILED;
}

bool connection_start(struct upstream_pool *pool, struct upstream_call *call, enum end_cause *cause)
{
    struct upstream_local *local = pool->local;
    const struct protocol *protocol = local->protocol;
    struct loop *loop = local->worker->needs.loop;
    struct upstream_conn *c = protocol->new ();
    if (!c || !conn_connect(&c->conn, loop, &pool->endpoint->addr, &connection_events)) {
        *cause = cause_of(c ? c->conn.error : ENOMEM);
        if (c)
            protocol->free(c);
        connection_share_give(&local->links);
        return false;
    }
    c->protocol = protocol;
    c->pool = pool;
    c->epoch = local->epoch;
    c->state = UPSTREAM_CONNECTING;
    list_init(&c->node);
    list_push_back(&pool->connecting, &c->node);
    list_init(&c->waiting);
    connection_join(c, call);
    loop_timer_init(&c->timer, on_timer);
    pool->links++;
    count_state(c, UPSTREAM_CONNECTING, +1);
    loop_timer_set(loop, &c->timer, local->connect_ms);
    return true;
}
