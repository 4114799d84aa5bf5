// The client side of one worker: its listeners and client connections.
#pragma once

#include "exchange/worker.h"
#include "http/h2.h"

enum {
    LINGER_MS = 2000,                 // how long a closing connection may still talk
    LINGER_BYTES = 1 << 20,           // and how much
    DRAIN_IDLE_MS = 1000,             // while draining, an idle connection is closed after this
    DRAIN_BODY_BYTES = 64 * 1024,     // of an unread request body: no more is read to keep the connection
    H2_OUT_BYTES = 64 * 1024,         // unsent on an HTTP/2 connection: no DATA is framed beyond it
    H2_HELD_BYTES = H2_STREAM_WINDOW, // of a request body that the exchange does not take yet
    H2_TURN_BYTES = 64 * 1024,        // read from one HTTP/2 connection before others have their turn
    H2_SPARE_STREAMS = 1024,
};

struct front;

struct front *front_new(struct worker *worker);
// With no connection left, or to cut those that are (their exchanges end as client_gone).
void front_free(struct front *front);

// ---- in the worker's thread ----

// Accepts on fd for the listener of that name in the worker's snapshot. fd stays open and the caller's; a
// second call with the same name and fd changes nothing.
must_check bool front_listen(struct front *front, struct str name, int fd);
// After worker_update: settings are looked up again by name; listeners that are gone stop accepting, their
// connections live on.
void front_update(struct front *front);
// Accepts no more. Connections that have been idle for a second are closed; every answer closes its
// connection.
void front_drain(struct front *front);
// Closes every connection at once.
void front_abort(struct front *front);
uint32_t front_connection_count(const struct front *front);
