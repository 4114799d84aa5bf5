// The life of a connection to an endpoint: connecting, lent, idle, closed.
#include "upstream/link.h"

#include <errno.h>
#include <stdlib.h>

static uint32_t metric_of(struct upstream_link *link)
{
    return link->pool->local->metric_id;
}

static void count_state(struct upstream_link *link, enum link_state state, int change)
{
    metrics_upstream_connections(link_needs(link)->metrics, metric_of(link),
                                 state == LINK_IDLE ? CONNECTIONS_IDLE : CONNECTIONS_ACTIVE, change);
}

static void set_state(struct upstream_link *link, enum link_state state)
{
    if ((link->state == LINK_IDLE) != (state == LINK_IDLE)) {
        count_state(link, link->state, -1);
        count_state(link, state, +1);
    }
    link->state = state;
}

// ---- closing ----

static void pool_drop_link(struct upstream_pool *pool)
{
    pool->links--;
    pool->local->links--;
    if (pool->links == 0 && pool->active == 0 && pool->position < 0)
        free(pool);
}

void link_close(struct upstream_link *link)
{
    if (link->conn.closed)
        return;
    struct upstream_worker_needs *needs = link_needs(link);
    count_state(link, link->state, -1);
    list_remove(&link->node);
    loop_timer_stop(needs->loop, &link->timer);
    buf_release(&link->in, needs->buffers);
    out_release(&link->out, needs->buffers);
    conn_close(&link->conn); // the link itself is freed at the end of the turn
    struct upstream_pool *pool = link->pool;
    link->pool = NULL;
    pool_drop_link(pool);
}

static void on_free(struct conn *conn)
{
    free(container_of(conn, struct upstream_link, conn));
}

static void close_all(struct list *links)
{
    struct list *node; // the list itself may go with the last of them: it is not looked at again
    for (bool last = list_empty(links); !last;) {
        node = links->next;
        last = node->next == links;
        link_close(container_of(node, struct upstream_link, node));
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

// ---- lending and giving back ----

void link_lend(struct upstream_link *link, struct upstream_call *call)
{
    list_remove(&link->node);
    set_state(link, LINK_LENT);
    link->call = call;
    call->link = link;
    call->connecting = NULL;
    call->reused = link->used;
    call->ready_us = link_needs(link)->loop->now_us;
    link->used = true;
    link_reset_message(link);
    link->pool->local->worker->lent++;
}

static bool pool_keeps_links(const struct upstream_pool *pool)
{
    return pool->position >= 0 && !pool->local->retired && !pool->local->worker->draining;
}

static void become_idle(struct upstream_link *link)
{
    struct upstream_local *local = link->pool->local;
    set_state(link, LINK_IDLE);
    list_remove(&link->node);
    list_push_front(&link->pool->idle, &link->node);
    loop_timer_set(local->worker->needs.loop, &link->timer, local->idle_ms);
}

void link_give(struct upstream_link *link)
{
    struct upstream_pool *pool = link->pool;
    struct upstream_local *local = pool->local;
    bool reusable = link->keep_alive && link->request_ended && link->response_ended && !buf_len(&link->in) &&
                    out_empty(&link->out) && !link->out.broken && !link->conn.peer_closed &&
                    pool_keeps_links(pool) && !link->upgrade;
    if (reusable) {
        buf_release(&link->in, local->worker->needs.buffers);
        become_idle(link);
    } else {
        link_close(link);
    }
}

// ---- events ----

static void fail_connecting(struct upstream_link *link)
{
    struct upstream_call *call = link->call;
    struct upstream_local *local = link->pool->local;
    link->call = NULL;
    link_close(link);
    if (call) {
        call->connecting = NULL;
        call->events->on_fail(call, END_UPSTREAM_CONNECT_FAILED);
    }
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void on_connected(struct conn *conn, int error)
{
    struct upstream_link *link = container_of(conn, struct upstream_link, conn);
    struct upstream_local *local = link->pool->local;
    if (error) {
        fail_connecting(link);
        return;
    }
    loop_timer_stop(conn->loop, &link->timer);
    struct upstream_call *call = link->call;
    if (call) {
        link->call = NULL;
        link_lend(link, call);
        call->events->on_ready(call);
        return;
    }
    if (pool_keeps_links(link->pool))
        become_idle(link); // who asked has gone: the connection waits for the next
    else
        link_close(link);
    if (!list_empty(&local->waiting))
        local_serve_waiting(local);
}

static void on_ready(struct conn *conn)
{
    struct upstream_link *link = container_of(conn, struct upstream_link, conn);
    if (link->state == LINK_IDLE) {
        if (conn->readable || conn->peer_closed)
            link_close(link); // closed by the peer, or it spoke unasked (RFC 9112 9.2)
        return;
    }
    if (conn->writable && (!out_empty(&link->out) || link->out.full))
        link_write(link);
    if (!conn->closed && conn->readable && link->call)
        link_read(link);
}

static const struct conn_events link_events = {
    .on_ready = on_ready,
    .on_connected = on_connected,
    .on_free = on_free,
};

static void on_timer(struct loop_timer *timer)
{
    struct upstream_link *link = container_of(timer, struct upstream_link, timer);
    switch (link->state) {
    case LINK_CONNECTING: fail_connecting(link); break;
    case LINK_IDLE: link_close(link); break;
    case LINK_LENT: link_read_last(link); break;
    }
}

struct upstream_link *link_connect(struct upstream_pool *pool, struct upstream_call *call,
                                   enum end_cause *cause)
{
    struct upstream_local *local = pool->local;
    struct loop *loop = local->worker->needs.loop;
    struct upstream_link *link = calloc(1, sizeof *link);
    if (!link || !conn_connect(&link->conn, loop, &pool->endpoint->addr, &link_events)) {
        int error = link ? link->conn.error : ENOMEM;
        *cause = error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS
                     ? END_OVERLOADED
                     : END_UPSTREAM_CONNECT_FAILED;
        free(link);
        return NULL;
    }
    list_init(&link->node);
    list_push_back(&pool->connecting, &link->node);
    loop_timer_init(&link->timer, on_timer);
    link->pool = pool;
    link->call = call;
    link->state = LINK_CONNECTING;
    pool->links++;
    local->links++;
    count_state(link, LINK_CONNECTING, +1);
    loop_timer_set(loop, &link->timer, local->connect_ms);
    return link;
}
