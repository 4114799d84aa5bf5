#include "net/conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t note_failure(struct conn *conn, bool *ready)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        *ready = false;
        return CONN_AGAIN;
    }
    conn->error = errno;
    return CONN_FAILED;
}

static ssize_t plain_recv(struct conn *conn, void *data, size_t n)
{
    ssize_t got;
    do
        got = recv(conn->source.fd, data, n, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return note_failure(conn, &conn->readable);
    if ((size_t)got < n && !conn->peer_closed)
        conn->readable = false; // the socket is empty: the next byte is an edge
    return got;
}

static ssize_t plain_sendv(struct conn *conn, const struct iovec *iov, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
    ssize_t sent;
    do
        sent = count == 1 ? send(conn->source.fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                          : sendmsg(conn->source.fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return note_failure(conn, &conn->writable);
    size_t wanted = 0;
    for (int i = 0; i < count; i++)
        wanted += iov[i].iov_len;
    if ((size_t)sent < wanted)
        conn->writable = false; // the socket is full: room is an edge, and who waits for it hears of it there
    return sent;
}

static void plain_shutdown_send(struct conn *conn)
{
    shutdown(conn->source.fd, SHUT_WR);
}

static bool plain_is_stale(struct conn *conn)
{
    char byte;
    return recv(conn->source.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
           (errno != EAGAIN && errno != EWOULDBLOCK);
}

const struct transport transport_plain = {
    .name = "plain",
    .recv = plain_recv,
    .sendv = plain_sendv,
    .shutdown_send = plain_shutdown_send,
    .is_stale = plain_is_stale,
};

static bool finish_connecting(struct conn *conn, uint32_t events)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(conn->source.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        error = errno;
    if (!error && !(events & EPOLLOUT))
        return false; // not yet
    conn->connecting = false;
    conn->error = error;
    conn->events->on_connected(conn, error);
    return !conn->closed && !error && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP));
}

static void on_event(struct loop_source *source, uint32_t events)
{
    struct conn *conn = container_of(source, struct conn, source);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->readable = true;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        conn->writable = true;
    if (events & EPOLLRDHUP)
        conn->peer_closed = true;
    if (events & (EPOLLHUP | EPOLLERR))
        conn->peer_closed = conn->hung_up = true;
    if (conn->connecting && !finish_connecting(conn, events))
        return;
    if (!conn->transport->on_event || conn->transport->on_event(conn))
        conn->events->on_ready(conn);
}

static void on_free_task(struct loop_task *task)
{
    struct conn *conn = container_of(task, struct conn, free_task);
    if (conn->transport->on_free)
        conn->transport->on_free(conn);
    conn->events->on_free(conn);
}

static bool conn_register(struct conn *conn, struct loop *loop, int fd, const struct conn_events *events)
{
    *conn = (struct conn){
        .source = {.fd = fd, .on_event = on_event},
        .loop = loop,
        .events = events,
        .transport = &transport_plain,
        .free_task = {.run = on_free_task},
        .writable = true,
    };
    if (loop_add(loop, &conn->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) == ERR_OK)
        return true;
    conn->error = errno;
    conn->closed = true;
    conn->source.fd = -1;
    close(fd);
    return false;
}

bool conn_open(struct conn *conn, struct loop *loop, int fd, const struct conn_events *events)
{
    // Bytes may be there already; the registration reports them as the first edge.
    return conn_register(conn, loop, fd, events);
}

bool conn_connect(struct conn *conn, struct loop *loop, const struct addr *addr,
                  const struct conn_events *events)
{
    int fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *conn = (struct conn){.error = errno, .closed = true, .source.fd = -1};
        return false;
    }
    int on = 1;
    if (addr->any.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, &addr->any, addr->length) < 0 && errno != EINPROGRESS) {
        *conn = (struct conn){.error = errno, .closed = true, .source.fd = -1};
        close(fd);
        return false;
    }
    if (!conn_register(conn, loop, fd, events))
        return false;
    conn->connecting = true; // also when it succeeded at once: the event reports it
    conn->writable = false;
    return true;
}

static void close_now(struct conn *conn)
{
    conn->closed = true;
    int fd = conn->source.fd;
    conn->source.fd = -1;
    close(fd); // the last reference: epoll forgets it
    loop_defer(conn->loop, &conn->free_task);
}

void conn_close(struct conn *conn)
{
    if (conn->closed)
        return;
    if (conn->transport->on_close)
        conn->transport->on_close(conn);
    close_now(conn);
}

void conn_abort(struct conn *conn)
{
    if (conn->closed)
        return;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(conn->source.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_now(conn);
}

bool conn_is_stale(struct conn *conn)
{
    return conn->peer_closed || conn->transport->is_stale(conn);
}
