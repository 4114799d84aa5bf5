// A listening socket on a loop. Descriptors come from the supervisor, which holds them open across worker
// restarts and binary upgrades, so that no connection is refused meanwhile.
#pragma once

#include "loop/loop.h"
#include "net/addr.h"

struct listener {
    struct loop_source source;
    struct loop *loop;
    struct loop_timer resume; // accepting pauses when descriptors run out
    bool paused;
    uint64_t pauses; // how often that happened
    // fd is non-blocking, close-on-exec and the owner's to close.
    void (*on_accept)(struct listener *listener, int fd, const struct addr *peer);
    // Descriptors ran out (EMFILE, ENFILE, ENOBUFS, ENOMEM): accepting pauses for LISTENER_PAUSE_MS. May be
    // NULL.
    void (*on_exhausted)(struct listener *listener);
};

enum { LISTENER_PAUSE_MS = 50, LISTENER_BATCH = 64 /* accepted in one go */ };

// A bound and listening socket: SO_REUSEADDR, TCP_NODELAY inherited by accepted ones, a stale unix socket
// file is replaced. shared: SO_REUSEPORT, one of several for the same address. -1 and *err on failure.
must_check int listen_socket(const struct addr *addr, bool shared, struct err *err);

// fd stays the caller's.
must_check enum err_code listener_start(struct listener *listener, struct loop *loop, int fd);
void listener_stop(struct listener *listener);
