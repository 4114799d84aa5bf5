// A byte connection on a loop. It moves bytes and knows no HTTP; plain TCP or unix, or TLS over it
// (net/tls.h), which is the second row of the verb table. Registered once, edge-triggered: readable and
// writable say what the last event or call left.
#pragma once

#include "loop/loop.h"
#include "net/addr.h"

#include <sys/types.h>
#include <sys/uio.h>

struct conn;

enum {
    CONN_AGAIN = -1, // nothing to read or no room to write: an event will come
    CONN_FAILED = -2 // reset or another error; conn->error holds errno
};

// How bytes move: one row for each transport.
struct transport {
    const char *name;
    // > 0: bytes; 0: end of stream (recv); CONN_AGAIN; CONN_FAILED. What sendv did not take is offered again
    // by the next call, first and unchanged (its address may differ): TLS may hold a record of these bytes
    // already.
    ssize_t (*recv)(struct conn *conn, void *data, size_t n);
    ssize_t (*sendv)(struct conn *conn, const struct iovec *iov, int count);
    // Half-close: no more bytes will be sent.
    void (*shutdown_send)(struct conn *conn);
    // See conn_is_stale.
    bool (*is_stale)(struct conn *conn);
    // Something happened on the socket: conn->readable and writable (of the socket) are set. True: the owner
    // shall hear on_ready. NULL: always.
    bool (*on_event)(struct conn *conn);
    // conn_close, not conn_abort: says goodbye where the protocol has one. NULL: nothing.
    void (*on_close)(struct conn *conn);
    // Frees what the transport holds; at the end of the turn. NULL: nothing.
    void (*on_free)(struct conn *conn);
};

extern const struct transport transport_plain;

enum secured {
    SECURED,           // the handshake is complete: tls_facts
    SECURE_FAILED,     // it failed: tls_failure; close the connection
    SECURE_PLAIN_HTTP, // a client spoke plain HTTP: the connection is plain again, what it said is gone
};

// What the owner hears. Called from the loop, never from inside a verb. After conn_close nothing is called.
struct conn_events {
    // Edges: something changed. conn->readable / conn->writable are set before the call.
    void (*on_ready)(struct conn *conn);
    // Outgoing connections only: established (error 0) or not (errno). on_ready follows later.
    void (*on_connected)(struct conn *conn, int error);
    // After tls_accept and tls_connect. on_ready follows when there is something to read already.
    void (*on_secured)(struct conn *conn, enum secured secured);
    // The last reference the loop had is gone: free the owner. Runs at the end of the turn of conn_close.
    void (*on_free)(struct conn *conn);
};

struct conn {
    struct loop_source source;
    struct loop *loop;
    const struct conn_events *events;
    const struct transport *transport;
    struct tls *tls; // NULL: plain
    struct loop_task free_task;
    int error; // errno of the failure
    bool readable, writable;
    bool peer_closed; // EPOLLRDHUP seen: recv will reach the end of stream
    bool hung_up;     // EPOLLHUP or EPOLLERR seen: nothing more can be sent
    bool connecting;
    bool closed;
};

// Takes over fd (non-blocking) and registers it. False: the kernel refused, fd is closed.
must_check bool conn_open(struct conn *conn, struct loop *loop, int fd, const struct conn_events *events);
// Starts a connection; on_connected reports. False with conn->error when it failed at once (nothing will be
// called).
must_check bool conn_connect(struct conn *conn, struct loop *loop, const struct addr *addr,
                             const struct conn_events *events);

// recv reads at most n bytes. A short read clears readable unless the peer has closed, so that no call is
// wasted on asking for EAGAIN.
static inline ssize_t conn_recv(struct conn *conn, void *data, size_t n)
{
    return conn->transport->recv(conn, data, n);
}

static inline ssize_t conn_sendv(struct conn *conn, const struct iovec *iov, int count)
{
    return conn->transport->sendv(conn, iov, count);
}

static inline void conn_shutdown_send(struct conn *conn)
{
    conn->transport->shutdown_send(conn);
}

// Unregisters, closes the descriptor, frees at the end of the turn through on_free. Twice is harmless.
void conn_close(struct conn *conn);
// Closes with a reset (SO_LINGER 0), so that the peer cannot take what it has for complete.
void conn_abort(struct conn *conn);
// A look without taking anything: true when the peer has closed or sent bytes nobody asked for.
bool conn_is_stale(struct conn *conn);
