// What client connections of all protocols share.
#include "front/client.h"

#include <stdlib.h>

void client_speak(struct client *c, const struct client_protocol *protocol)
{
    c->protocol = protocol;
    c->conn.events = &protocol->events;
    c->timer.on_fire = protocol->on_timer;
}

static void count(const struct client *c, int change)
{
    metrics_connections(client_worker(c)->metrics, c->listener->settings->metric_id,
                        c->active ? CONNECTIONS_ACTIVE : CONNECTIONS_IDLE, change);
}

void client_set_active(struct client *c, bool active)
{
    if (c->active == active)
        return;
    count(c, -1);
    c->active = active;
    count(c, +1);
}

struct exchange *client_exchange(struct client *c, const struct client_verbs *verbs, void *context)
{
    struct exchange *x = exchange_new(client_worker(c), c->listener->settings, verbs, context, &c->peer);
    if (x && c->conn.tls) {
        x->tls = tls_facts(&c->conn);
        x->tls_server = c->tls_server;
        x->scheme = STR("https");
    }
    return x;
}

enum receive client_receive(struct client *c, size_t max)
{
    if (!c->conn.readable)
        return RECEIVE_NOTHING;
    if (!buf_reserve(&c->in, client_buffers(c), 1, max))
        return RECEIVE_END;
    ssize_t n = conn_recv(&c->conn, c->in.base + c->in.end, buf_space(&c->in));
    if (n == CONN_AGAIN)
        return RECEIVE_NOTHING;
    if (n <= 0)
        return RECEIVE_END;
    c->in.end += (uint32_t)n;
    return RECEIVED;
}

void client_give_back_empty_buffer(struct client *c)
{
    if (!buf_len(&c->in))
        buf_release(&c->in, client_buffers(c));
}

void client_shutdown(struct client *c)
{
    c->shutdown_due = !out_empty(&c->out);
    if (!c->shutdown_due)
        conn_shutdown_send(&c->conn);
}

void client_close(struct client *c)
{
    if (c->conn.closed)
        return;
    if (c->protocol->on_close)
        c->protocol->on_close(c);
    count(c, -1);
    // What is cut off must not look complete: the end of the connection may be the end of a message.
    c->cut |= !out_empty(&c->out);
    loop_timer_stop(c->conn.loop, &c->timer);
    buf_release(&c->in, client_buffers(c));
    out_release(&c->out, client_buffers(c));
    list_remove(&c->node);
    c->front->client_count--;
    quota_give(&c->listener->connections);
    if (c->cut)
        conn_abort(&c->conn);
    else
        conn_close(&c->conn);
}

void client_on_free(struct conn *conn)
{
    free(container_of(conn, struct client, conn));
}
