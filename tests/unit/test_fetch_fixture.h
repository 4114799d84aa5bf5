// What the tests of whole questions to an upstream share: a loop, a worker's side of upstreams, and a server
// on loopback that is part of the test's own loop of turns, so that nothing depends on another thread's pace.
// It answers every complete request with the bytes it was given, or holds it, or closes.
#pragma once

#include "unit_loopback.h"

#include "base/clock.h"
#include "upstream/fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVER_PEERS = 64, SERVER_BYTES = 64 * 1024, TURNS_MS = 20000 };

struct server_peer {
    int fd; // -1: none
    char in[SERVER_BYTES];
    size_t n;
    bool asked;       // a request that was not answered yet
    const char *rest; // of the answer, when it goes out in pieces
    size_t rest_n;
};

struct server {
    int listener;
    uint16_t port;
    struct server_peer peers[SERVER_PEERS];
    const char *reply; // NULL: requests are held
    size_t reply_n;    // 0: strlen(reply)
    size_t piece;      // > 0: so many bytes of it a turn
    bool hangs_up;     // when a request has come, without an answer
    bool closes;       // behind an answer
    unsigned accepted, requests, answered;
    char last[SERVER_BYTES]; // the last request
};

struct upstream_scene {
    struct loop loop;
    struct buf_pool buffers;
    struct rand rand;
    struct metrics *metrics;
    struct upstream_worker *worker;
    struct upstream_settings settings;
    struct upstream_target targets[3];
    struct upstream upstream;
    struct server server;
};

// ---- the server ----

static inline void peer_close(struct server_peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
}

static inline void server_hang_up(struct server *server)
{
    for (unsigned i = 0; i < SERVER_PEERS; i++)
        peer_close(&server->peers[i]);
}

// Its bytes, or 0: not all there yet.
static inline size_t request_length(const struct server_peer *peer)
{
    const char *end = memmem(peer->in, peer->n, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t n = (size_t)(end - peer->in) + 4;
    const char *length = memmem(peer->in, n, "Content-Length: ", 16);
    n += length ? strtoul(length + 16, NULL, 10) : 0;
    return n <= peer->n ? n : 0;
}

static inline void peer_send(struct server_peer *peer, const char *data, size_t n)
{
    while (n && peer->fd >= 0) {
        ssize_t sent = send(peer->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) { // the other side has hung up, or reads no more: so much was enough
            peer_close(peer);
            return;
        }
        data += sent;
        n -= (size_t)sent;
    }
}

static inline void peer_take_request(struct server *server, struct server_peer *peer)
{
    size_t n = request_length(peer);
    if (!n || peer->asked)
        return;
    memcpy(server->last, peer->in, n);
    server->last[n] = 0;
    memmove(peer->in, peer->in + n, peer->n - n);
    peer->n -= n;
    peer->asked = true;
    server->requests++;
    if (server->hangs_up)
        peer_close(peer);
}

static inline void peer_answer(struct server *server, struct server_peer *peer)
{
    if (peer->fd < 0 || !server->reply || !(peer->asked || peer->rest))
        return;
    size_t reply_n = server->reply_n ? server->reply_n : strlen(server->reply);
    if (peer->asked) {
        peer->asked = false;
        peer->rest = server->reply;
        peer->rest_n = reply_n;
        server->answered++;
    }
    size_t n = server->piece && server->piece < peer->rest_n ? server->piece : peer->rest_n;
    peer_send(peer, peer->rest, n);
    peer->rest += n;
    peer->rest_n -= n;
    if (peer->rest_n)
        return;
    peer->rest = NULL;
    if (server->closes)
        peer_close(peer);
}

static inline void peer_turn(struct server *server, struct server_peer *peer)
{
    ssize_t n;
    while ((n = recv(peer->fd, peer->in + peer->n, sizeof peer->in - peer->n, MSG_DONTWAIT)) > 0)
        peer->n += (size_t)n;
    if (n == 0 || errno != EAGAIN) {
        peer_close(peer);
        return;
    }
    peer_take_request(server, peer);
    peer_answer(server, peer);
}

static inline void server_accept(struct server *server)
{
    for (unsigned i = 0; i < SERVER_PEERS; i++) {
        struct server_peer *peer = &server->peers[i];
        if (peer->fd >= 0)
            continue;
        int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        peer->fd = fd;
        peer->n = 0;
        peer->asked = false;
        peer->rest = NULL;
        server->accepted++;
    }
}

static inline void server_turn(struct server *server)
{
    server_accept(server);
    for (unsigned i = 0; i < SERVER_PEERS; i++)
        if (server->peers[i].fd >= 0)
            peer_turn(server, &server->peers[i]);
}

// ---- the gateway's side ----

static inline void scene_turn(struct upstream_scene *scene)
{
    loop_turn(&scene->loop, 1);
    server_turn(&scene->server);
}

#define UNTIL(scene, condition)                                        \
    do {                                                               \
        uint64_t until_us = clock_monotonic_us() + TURNS_MS * 1000ull; \
        while (!(condition)) {                                         \
            if (clock_monotonic_us() > until_us)                       \
                fail_msg("it never came: " #condition);                \
            scene_turn(scene);                                         \
        }                                                              \
    } while (0)

static inline void scene_turns(struct upstream_scene *scene, unsigned count)
{
    while (count--)
        scene_turn(scene);
}

static inline void scene_update(struct upstream_scene *scene)
{
    struct upstream *all = &scene->upstream;
    scene->upstream.generation++;
    upstream_worker_update(scene->worker, &all, 1);
}

static inline void scene_init(struct upstream_scene *scene)
{
    static struct quota pending;
    struct err err;
    assert_int_equal(loop_init(&scene->loop, &err), ERR_OK);
    rand_init(&scene->rand);
    scene->metrics = metrics_new();
    scene->settings = (struct upstream_settings){
        .name = STR("auth:service"),
        .limits = {.connections = 64, .requests = 256, .pending = 256},
        .timeouts = {.connect_us = 2000000, .response_us = 5000000, .idle_us = 60000000},
    };
    for (unsigned i = 0; i < SERVER_PEERS; i++)
        scene->server.peers[i].fd = -1;
    struct addr addr = bind_loopback(&scene->server.listener, true);
    scene->server.port = ntohs(addr.v4.sin_port);
    struct endpoint *endpoint = endpoint_ref(STR("auth:service"), STR("peer"), &addr);
    endpoint->addr = addr; // known from the test before, by another port
    scene->targets[0] = (struct upstream_target){endpoint, 1, STR("localhost")};
    scene->upstream = (struct upstream){
        .settings = &scene->settings,
        .name = STR("auth:service"),
        .metric_id = metric_name_id(NAME_UPSTREAM, STR("auth:service")),
        .targets = scene->targets,
        .target_count = 1,
        .requests = concurrency_at(0),
        .pending = &pending,
        .connections = connection_bound_at(0),
    };
    scene->upstream.index = scene->upstream.metric_id;
    metrics_reserve(scene->metrics);
    struct upstream_worker_needs needs = {
        .loop = &scene->loop,
        .buffers = &scene->buffers,
        .rand = &scene->rand,
        .metrics = scene->metrics,
        .workers = 1,
        .tls_slot = 1,
    };
    scene->worker = upstream_worker_new(&needs);
    scene_update(scene);
}

static inline void scene_fini(struct upstream_scene *scene)
{
    assert_int_equal(upstream_worker_lent(scene->worker), 0);
    upstream_worker_free(scene->worker);
    loop_turn(&scene->loop, 0);
    server_hang_up(&scene->server);
    close(scene->server.listener);
    for (uint32_t i = 0; i < scene->upstream.target_count; i++)
        endpoint_unref(scene->targets[i].endpoint);
    buf_pool_fini(&scene->buffers);
    metrics_free(scene->metrics);
    loop_fini(&scene->loop);
}
