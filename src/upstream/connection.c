// The life of a connection to an endpoint: connecting, lent, idle, closed.
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

static void pool_drop_connection(struct upstream_pool *pool)
{
    pool->links--;
    pool->local->links--;
    if (pool->links == 0 && pool->active == 0 && pool->position < 0)
        free(pool);
}

void connection_close(struct upstream_conn *c)
{
    if (c->conn.closed)
        return;
    struct upstream_worker_needs *needs = connection_needs(c);
    count_state(c, c->state, -1);
    list_remove(&c->node);
    loop_timer_stop(needs->loop, &c->timer);
    buf_release(&c->in, needs->buffers);
    out_release(&c->out, needs->buffers);
    conn_close(&c->conn); // the rest is freed at the end of the turn
    struct upstream_pool *pool = c->pool;
    c->pool = NULL;
    pool_drop_connection(pool);
}

static void on_free(struct conn *conn)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
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

void pool_close_connecting(struct upstream_pool *pool)
{
    close_all(&pool->connecting);
}

// ---- lending and coming back ----

void connection_lend(struct upstream_conn *c, struct upstream_call *call)
{
    list_remove(&c->node);
    set_state(c, UPSTREAM_LENT);
    call->connecting = NULL;
    call->reused = c->used;
    call->ready_us = connection_needs(c)->loop->now_us;
    c->used = true;
    c->pool->local->worker->lent++;
    call->link = c->protocol->lend(c, call);
    call->link->call = call;
}

bool connection_is_wanted(const struct upstream_conn *c)
{
    const struct upstream_pool *pool = c->pool;
    return pool->position >= 0 && !pool->local->retired && !pool->local->worker->draining;
}

void connection_become_idle(struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    set_state(c, UPSTREAM_IDLE);
    list_remove(&c->node);
    list_push_front(&c->pool->idle, &c->node);
    loop_timer_set(local->worker->needs.loop, &c->timer, local->idle_ms);
}

// ---- connecting ----

static struct upstream_call *take_waiting(struct upstream_conn *c)
{
    struct list *node = list_pop_front(&c->waiting);
    return node ? container_of(node, struct upstream_call, waiting) : NULL;
}

static void fail_connecting(struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    connection_close(c);
    for (struct upstream_call *call; (call = take_waiting(c));) {
        call->connecting = NULL;
        call->events->on_fail(call, END_UPSTREAM_CONNECT_FAILED);
    }
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void opened(struct upstream_conn *c)
{
    struct upstream_local *local = c->pool->local;
    loop_timer_stop(c->conn.loop, &c->timer);
    struct upstream_call *call = take_waiting(c);
    if (call) {
        connection_lend(c, call);
        call->events->on_ready(call);
        return;
    }
    if (connection_is_wanted(c))
        connection_become_idle(c); // who asked has gone: the connection waits for the next
    else
        connection_close(c);
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void on_connected(struct conn *conn, int error)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
    if (error)
        fail_connecting(c);
    else
        opened(c);
}

static void on_ready(struct conn *conn)
{
    struct upstream_conn *c = container_of(conn, struct upstream_conn, conn);
    c->protocol->on_ready(c);
}

static const struct conn_events connection_events = {
    .on_ready = on_ready,
    .on_connected = on_connected,
    .on_free = on_free,
};

static void on_timer(struct loop_timer *timer)
{
    struct upstream_conn *c = container_of(timer, struct upstream_conn, timer);
    switch (c->state) {
    case UPSTREAM_CONNECTING: fail_connecting(c); break;
    case UPSTREAM_IDLE: connection_close(c); break;
    case UPSTREAM_LENT: c->protocol->on_timer(c); break;
    }
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
        return false;
    }
    c->protocol = protocol;
    c->pool = pool;
    c->state = UPSTREAM_CONNECTING;
    list_init(&c->node);
    list_push_back(&pool->connecting, &c->node);
    list_init(&c->waiting);
    list_push_back(&c->waiting, &call->waiting);
    call->connecting = c;
    loop_timer_init(&c->timer, on_timer);
    pool->links++;
    local->links++;
    count_state(c, UPSTREAM_CONNECTING, +1);
    loop_timer_set(loop, &c->timer, local->connect_ms);
    return true;
}
