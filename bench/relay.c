/*
 * relay LISTEN UPSTREAM: the floor under every proxy's CPU cost.
 *
 *     client --recv--> relay --send--> upstream
 *     client <--send-- relay <--recv-- upstream
 *
 * One thread, one epoll, each descriptor registered once and edge-triggered. Each client has an upstream
 * connection of its own for as long as it lives, so a request on a kept connection costs four data system
 * calls and nothing else: no byte is looked at, logged or counted. A proxy that reads, routes, logs and pools
 * can come near to this figure and not below it, unless it saves system calls.
 */

#include "sock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS     256
#define READ_BYTES (64 * 1024)

struct pair;

struct half {
    int fd;
    bool readable;    /* the last edge promised bytes, and no short read has taken it back */
    bool writable;    /* connected, and no send has met a full buffer since */
    bool ending;      /* the peer has sent its FIN or a reset: read on to the end */
    char *held;       /* what a full socket refused: at most READ_BYTES, then the other half is not read */
    size_t held_at;   /* of it, already sent */
    size_t held_size; /* 0: nothing held */
    struct half *other;
    struct pair *pair;
};

struct pair {
    struct half client;
    struct half upstream;
    bool closed;
    struct pair *next_closed;
};

static char bytes[READ_BYTES];
static struct pair
    *closed_pairs; /* freed after the batch of events that closed them: later events may name them */

static void pair_close(struct pair *p)
{
    if (p->closed)
        return;
    p->closed = true;
    p->next_closed = closed_pairs;
    closed_pairs = p;
    close(p->client.fd);
    close(p->upstream.fd);
}

static void free_closed_pairs(void)
{
    while (closed_pairs != NULL) {
        struct pair *p = closed_pairs;
        closed_pairs = p->next_closed;
        free(p->client.held);
        free(p->upstream.held);
        free(p);
    }
}

/* Sends what it can and holds the rest; false when the connection is gone. */
static bool send_or_hold(struct half *to, const char *data, size_t size)
{
    ssize_t n = send(to->fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return false;
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == size)
        return true;
    to->writable = false;
    to->held = malloc(size - sent);
    if (to->held == NULL)
        return false;
    memcpy(to->held, data + sent, size - sent);
    to->held_at = 0;
    to->held_size = size - sent;
    return true;
}

/* Sends what was held; false when the connection is gone. */
static bool flush_held(struct half *to)
{
    while (to->writable && to->held_size > 0) {
        ssize_t n = send(to->fd, to->held + to->held_at, to->held_size - to->held_at, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n < 0) {
            to->writable = false;
            return true;
        }
        to->held_at += (size_t)n;
        if (to->held_at == to->held_size) {
            free(to->held);
            to->held = NULL;
            to->held_size = 0;
        }
    }
    return true;
}

/* Moves bytes from one half to the other until there are none or the other is full; false: close the pair. */
static bool pump(struct half *from)
{
    struct half *to = from->other;
    if (!flush_held(to))
        return false;
    while (from->readable && to->writable) {
        ssize_t n = recv(from->fd, bytes, sizeof bytes, 0);
        if (n == 0)
            return false;
        if (n < 0) {
            from->readable = false;
            return errno == EAGAIN;
        }
        if ((size_t)n < sizeof bytes && !from->ending)
            from->readable = false; /* a short read emptied the socket: the next edge will tell */
        if (!send_or_hold(to, bytes, (size_t)n))
            return false;
    }
    return true;
}

static void on_event(struct half *h, uint32_t events)
{
    if (h->pair->closed)
        return;
    if ((events & EPOLLERR) != 0) {
        pair_close(h->pair);
        return;
    }
    if ((events & EPOLLOUT) != 0)
        h->writable = true;
    if ((events & EPOLLIN) != 0)
        h->readable = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0) {
        h->readable = true;
        h->ending = true;
    }
    if (!pump(h) || !pump(h->other))
        pair_close(h->pair);
}

static bool watch(int epoll, struct half *h)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = h};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, h->fd, &e) == 0;
}

static void on_accept(int epoll, int client, const struct sockaddr_in *upstream)
{
    struct pair *p = calloc(1, sizeof *p);
    int server = sock_connect(upstream);
    if (p == NULL || server < 0) {
        free(p);
        if (server >= 0)
            close(server);
        close(client);
        return;
    }
    p->client = (struct half){.fd = client, .other = &p->upstream, .pair = p};
    p->upstream = (struct half){.fd = server, .other = &p->client, .pair = p};
    if (!watch(epoll, &p->client) || !watch(epoll, &p->upstream))
        pair_close(p);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: relay LISTEN UPSTREAM    (both as 127.0.0.1:8080)\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    sock_raise_limit();
    struct sockaddr_in own = sock_address(argv[1]);
    struct sockaddr_in upstream = sock_address(argv[2]);
    int listener = sock_listen(&own);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepting) != 0)
        die("epoll");
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL) {
                on_event(events[i].data.ptr, events[i].events);
                continue;
            }
            int client;
            while ((client = sock_accept(listener)) >= 0)
                on_accept(epoll, client, &upstream);
        }
        free_closed_pairs();
    }
}
