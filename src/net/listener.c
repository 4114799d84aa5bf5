#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// The kernel clamps it to net.core.somaxconn.
enum { BACKLOG = 65535 };

static bool remove_stale_socket(const struct addr *addr)
{
    struct stat status;
    if (stat(addr->local.sun_path, &status) < 0)
        return errno == ENOENT;
    return S_ISSOCK(status.st_mode) && unlink(addr->local.sun_path) == 0;
}

int listen_socket(const struct addr *addr, bool shared, struct err *err)
{
    char text[ADDR_TEXT_MAX];
    addr_print(addr, text);
    int fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) {
        err_system(err, text, "socket");
        return -1;
    }
    if (addr->any.sa_family == AF_UNIX) {
        if (!remove_stale_socket(addr)) {
            err_system(err, text, "a file that is no socket is in the way");
            goto fail;
        }
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (shared)
            setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (addr->any.sa_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
    }
    if (bind(fd, &addr->any, addr->length) < 0) {
        err_system(err, text, "bind");
        goto fail;
    }
    if (listen(fd, BACKLOG) < 0) {
        err_system(err, text, "listen");
        goto fail;
    }
    return fd;
fail:
    close(fd);
    return -1;
}

static bool is_exhaustion(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void pause_accepting(struct listener *listener)
{
    listener->paused = true;
    listener->pauses++;
    loop_modify(listener->loop, &listener->source, 0);
    loop_timer_set(listener->loop, &listener->resume, LISTENER_PAUSE_MS);
    if (listener->on_exhausted)
        listener->on_exhausted(listener);
}

static void on_event(struct loop_source *source, uint32_t events)
{
    struct listener *listener = container_of(source, struct listener, source);
    (void)events;
    for (unsigned i = 0; i < LISTENER_BATCH && source->fd >= 0; i++) {
        struct addr peer = {.length = sizeof peer.local};
        int fd = accept4(source->fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener->on_accept(listener, fd, &peer);
            continue;
        }
        if (errno == ECONNABORTED || errno == EINTR)
            continue;
        if (is_exhaustion(errno))
            pause_accepting(listener);
        return;
    }
}

static void on_resume(struct loop_timer *timer)
{
    struct listener *listener = container_of(timer, struct listener, resume);
    listener->paused = false;
    loop_modify(listener->loop, &listener->source, EPOLLIN);
}

enum err_code listener_start(struct listener *listener, struct loop *loop, int fd)
{
    listener->source = (struct loop_source){.fd = fd, .on_event = on_event};
    listener->loop = loop;
    listener->paused = false;
    loop_timer_init(&listener->resume, on_resume);
    // Level-triggered: a batch may leave some, and a pause must not lose the edge.
    return loop_add(loop, &listener->source, EPOLLIN);
}

void listener_stop(struct listener *listener)
{
    loop_timer_stop(listener->loop, &listener->resume);
    loop_remove(listener->loop, &listener->source);
}
