// The listening sockets that the supervisor holds, so that they outlive worker processes and binaries: a
// connection that waits in a socket's queue is accepted by whichever worker process is there next.
//
// An address has one SO_REUSEPORT socket for each thread, or one shared by all threads (unix sockets, sockets
// given by socket activation). A socket is never closed while its address is in use: its queue would be lost.
// So there can be more sockets than threads after `workers` was lowered, and a worker process serves them
// all.
#pragma once

#include "net/addr.h"

struct held_address {
    struct addr addr;
    int *fds;
    unsigned count;
    bool given;     // by socket activation: never closed, since its maker keeps the queue open anyway
    uint32_t users; // a bit for each worker process that serves it
};

struct sockets {
    struct held_address *v;
    unsigned count, capacity;
};

enum { SOCKETS_PER_ADDRESS = 256 }; // threads of a worker process at most

// Opens what is missing of `count` sockets and notes the user. All of the address's sockets are returned.
// NULL and *err when it cannot be bound; then nothing has changed.
struct held_address *sockets_use(struct sockets *sockets, const struct addr *addr, unsigned count,
                                 unsigned user, struct err *err);
// A socket that is open already. Takes over fd.
void sockets_adopt(struct sockets *sockets, const struct addr *addr, int fd, bool given, uint32_t users);
struct held_address *sockets_find(struct sockets *sockets, const struct addr *addr);
void sockets_retire(struct sockets *sockets, const struct addr *addr, unsigned user);
// The worker process is gone.
void sockets_forget(struct sockets *sockets, unsigned user);
// Closes what nobody uses.
void sockets_sweep(struct sockets *sockets);
// At the end of the program.
void sockets_close(struct sockets *sockets);
