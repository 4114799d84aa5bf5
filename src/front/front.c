#include "front/front.h"

#include "front/client.h"

#include <stdlib.h>
#include <unistd.h>

// While something is short: whoever holds it for nothing is looked at more often than its deadline asks for.
static void on_turn_end(struct loop_hook *hook)
{
    struct front *front = container_of(hook, struct front, turn_end);
    const bool *pressed = front->worker->overload.is_pressed;
    uint64_t now_us = front->worker->loop.now_us;
    if (likely(!pressed[OVERLOAD_DESCRIPTORS] && !pressed[OVERLOAD_MEMORY]) ||
        now_us < front->relieved_us + OVERLOAD_RELIEF_US)
        return;
    front->relieved_us = now_us;
    if (pressed[OVERLOAD_DESCRIPTORS])
        upstream_worker_close_idle(front->worker->upstreams, OVERLOAD_PATIENCE_US / 1000);
    struct list rest;
    list_init(&rest);
    list_move_all(&front->clients, &rest);
    for (struct list *node; (node = list_pop_front(&rest));) { // one that ends may take others with it
        struct client *c = container_of(node, struct client, node);
        list_push_back(&front->clients, node);
        c->timer.on_fire(&c->timer);
    }
}

struct front *front_new(struct worker *worker)
{
    struct front *front = calloc(1, sizeof *front);
    check(front);
    front->worker = worker;
    list_init(&front->listeners);
    list_init(&front->clients);
    list_init(&front->spare_streams);
    front->turn_end.on_turn_end = on_turn_end;
    loop_hook_add(&worker->loop, &front->turn_end);
    return front;
}

static void stop_accepting(struct front_listener *listener)
{
    if (!listener->accepting)
        return;
    listener_stop(&listener->net);
    listener->accepting = false;
}

void front_free(struct front *front)
{
    front_abort(front);
    list_each (&front->listeners, node) {
        struct front_listener *listener = container_of(node, struct front_listener, node);
        stop_accepting(listener);
        gateway_unref(listener->gateway);
        list_remove(node);
        free(listener);
    }
    h2_shared_free(front);
    list_remove(&front->turn_end.node);
    free(front);
}

static void on_accept(struct listener *net, int fd, const struct addr *peer)
{
    struct front_listener *listener = container_of(net, struct front_listener, net);
    struct metrics *metrics = listener->front->worker->metrics;
    metrics_count(metrics, COUNT_ACCEPTED, 1);
    // The kernel gives the lowest that is free: this one tells how many are taken.
    if (fd >= overload_client_descriptors() || !quota_take(&listener->connections)) {
        metrics_count(metrics, COUNT_REFUSED, 1);
        close(fd);
        return;
    }
    client_accept(listener, fd, peer);
}

static void on_exhausted(struct listener *net)
{
    struct front_listener *listener = container_of(net, struct front_listener, net);
    metrics_count(listener->front->worker->metrics, COUNT_ACCEPT_PAUSES, 1);
    enum { SAY_EVERY = 200 }; // pauses: ten seconds
    if (net->pauses % SAY_EVERY == 1)
        log_warn("front", "listener %.*s: no descriptors left, accepting pauses",
                 STR_ARG(listener->settings->name));
}

// Points the listener at the settings of this snapshot.
static void adopt(struct front_listener *listener, struct gateway *gateway,
                  const struct gateway_listener *settings)
{
    struct gateway *before = listener->gateway;
    listener->gateway = gateway_ref(gateway);
    listener->settings = settings;
    listener->limits = (struct h1_limits){
        .head_bytes = (uint32_t)settings->settings->limits.header_bytes,
        .uri_bytes = (uint32_t)settings->settings->limits.uri_bytes,
        .headers = (uint32_t)settings->settings->limits.headers,
        .merge_slashes = settings->settings->merge_slashes,
    };
    struct worker *worker = listener->front->worker;
    quota_set(&listener->connections, settings->connections, settings->settings->limits.connections,
              worker->slot, worker->count);
    gateway_unref(before);
}

static bool is_on(const struct front_listener *listener, struct str name, int fd)
{
    return listener->accepting && listener->fd == fd && str_eq(listener->settings->name, name);
}

bool front_listen(struct front *front, struct str name, int fd)
{
    list_each (&front->listeners, node)
        if (is_on(container_of(node, struct front_listener, node), name, fd))
            return true;
    const struct gateway_listener *settings = gateway_listener_named(front->worker->gateway, name);
    struct front_listener *listener = settings ? calloc(1, sizeof *listener) : NULL;
    if (!listener)
        return false;
    listener->front = front;
    listener->fd = fd;
    listener->net = (struct listener){.on_accept = on_accept, .on_exhausted = on_exhausted};
    adopt(listener, front->worker->gateway, settings);
    if (listener_start(&listener->net, &front->worker->loop, fd) != ERR_OK) {
        gateway_unref(listener->gateway);
        free(listener);
        return false;
    }
    listener->accepting = true;
    list_push_back(&front->listeners, &listener->node);
    return true;
}

void front_update(struct front *front)
{
    list_each (&front->listeners, node) {
        struct front_listener *listener = container_of(node, struct front_listener, node);
        const struct gateway_listener *settings =
            gateway_listener_named(front->worker->gateway, listener->settings->name);
        // One that has stopped stays as it was, for its connections' exchanges still read its settings;
        // should its name come back, that is another listener.
        if (listener->accepting && settings && addr_eq(&settings->addr, &listener->settings->addr)) {
            adopt(listener, front->worker->gateway, settings);
            continue;
        }
        stop_accepting(listener);
        if (listener->connections.used == 0) {
            list_remove(node);
            gateway_unref(listener->gateway);
            free(listener);
        }
    }
}

void front_drain(struct front *front)
{
    front->draining = true;
    list_each (&front->listeners, node)
        stop_accepting(container_of(node, struct front_listener, node));
    list_each (&front->clients, node) {
        struct client *c = container_of(node, struct client, node);
        c->protocol->drain(c);
    }
}

void front_abort(struct front *front)
{
    exchange_end_orphans(front->worker);
    while (!list_empty(&front->clients)) { // one that ends may take others with it
        struct client *c = container_of(front->clients.next, struct client, node);
        c->protocol->abort(c);
    }
}

uint32_t front_connection_count(const struct front *front)
{
    return front->client_count;
}
