// What the supervisor and a worker process say to each other: datagrams on a socket pair, some with
// descriptors.
//
//   supervisor                       worker process
//     START ───────────────────────▶   reads the configuration
//     ◀─────────────────────── LISTEN  one for each address
//     SOCKETS | REFUSED ───────────▶   starts its threads
//     ◀─────────────── CONFIG, READY
//     RELOAD ──────────────────────▶   LISTEN, CONFIG, RELOADED, RETIRE
//     DRAIN | HAND_OVER | QUIT ────▶   DRAINING, RETIRE, exit
#pragma once

#include "base/err.h"
#include "base/str.h"

// The numbers are a promise: after a binary upgrade a new supervisor talks to an old worker process. Add,
// never renumber.
enum control_type {
    // supervisor → worker process
    CONTROL_START = 1,     // text: "restarts N reloads N failed N last_ok N log_level N secret HEX", the
                           // secret of session tickets; fd: the running configuration, if any
    CONTROL_SOCKETS = 2,   // some of the sockets asked for; value: how many follow after these
    CONTROL_REFUSED = 3,   // text: why there is no socket
    CONTROL_RELOAD = 4,    // read the file again
    CONTROL_REOPEN = 5,    // open the logs again
    CONTROL_DRAIN = 6,     // finish: not ready, accepting for drain.delay
    CONTROL_HAND_OVER = 7, // finish: a successor accepts on the same sockets
    CONTROL_QUIT = 8,      // end now
    // worker process → supervisor
    CONTROL_LISTEN = 32,   // text: an address; value: sockets wanted, one for each thread
    CONTROL_RETIRE = 33,   // text: an address that is no longer served
    CONTROL_CONFIG = 34,   // fd: the configuration now in force, for a restart after a crash
    CONTROL_READY = 35,    // serving
    CONTROL_RELOADED = 36, // value: 1 done, 0 refused
    CONTROL_DRAINING = 37, // value: milliseconds until it has ended at the latest
    CONTROL_STOP = 38,     // the admin API asks for a drain of the whole program
};

enum {
    CONTROL_TEXT = 1024, // bytes of text; a unix path and an error fit
    CONTROL_FDS = 128,   // descriptors in one message; the kernel's limit is 253
    CONTROL_WAIT_MS = 5000,
};

struct control_message {
    enum control_type type;
    uint32_t value;
    char text[CONTROL_TEXT + 1]; // NUL-terminated
    int fds[CONTROL_FDS];        // the receiver's to close
    unsigned fd_count;
};

enum control_result { CONTROL_MESSAGE, CONTROL_NOTHING, CONTROL_CLOSED };

// A connected pair, non-blocking and close-on-exec.
must_check bool control_pair(int fds[2]);
// fds stay the caller's. Waits for room for at most wait_ms. False: the peer has gone or does not read.
bool control_send(int fd, enum control_type type, uint32_t value, struct str text, const int *fds,
                  unsigned fd_count, int wait_ms);
// The next message, waiting for it at most wait_ms.
enum control_result control_recv(int fd, struct control_message *message, int wait_ms);
// Closes the descriptors that nobody has taken (those not -1).
void control_drop_fds(struct control_message *message);
