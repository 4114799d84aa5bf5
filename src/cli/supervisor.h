// The process that the user starts: it holds the listening sockets, keeps one worker process serving, and
// turns signals into messages. It reads no request and no configuration, so there is little in it that could
// fail.
//
//   HUP      → RELOAD                          TERM, INT → DRAIN, the second time QUIT
//   USR1     → REOPEN                          USR2      → check the new binary, then execve it in place
//   (upgrade.h) a worker process dies                      → another one, with the configuration that was
//   running
//
// At most one worker process is `current` (ready and serving) and one is `next` (starting). Those that a
// successor has replaced are `leaving` until their last connection is done.
#pragma once

#include "cli/control.h"
#include "cli/sockets.h"
#include "net/tls.h"

#include <sys/types.h>

enum {
    SUPERVISOR_CHILDREN = 16,         // worker processes at once: current, next and those that leave
    SUPERVISOR_EARLY_MS = 1000,       // a worker process that dies younger than this has failed to start
    SUPERVISOR_RESTART_MAX_MS = 1000, // the longest pause before another one
    SUPERVISOR_QUIT_MS = 2000,        // what QUIT gets before SIGKILL
    SUPERVISOR_GRACE_MS = 5000,       // past a worker process's own drain deadline, before SIGKILL
    SUPERVISOR_CHECK_MS = 10000,      // what a new binary's `check` gets
    SUPERVISOR_START_MS = 60000,      // from start to ready: slow name servers are waited for
};

struct child {
    pid_t pid; // 0: the place is free
    int control;
    int config;                      // a memfd with the configuration it runs, -1: none yet
    uint64_t started_us, kill_at_us; // 0: no deadline
    bool ready, leaving;
};

struct supervisor {
    const char *file; // -c
    char **argv;      // of the program, for an upgrade
    int log_level;
    char *binary; // its absolute path, as it was named at start: a link may point elsewhere by now
    uint8_t secret[TLS_SECRET_BYTES]; // of session tickets: drawn once, the same for all that follow
    struct sockets sockets;
    struct child children[SUPERVISOR_CHILDREN];
    int current, next; // places in children, -1: none
    int signals;       // signalfd
    int config;        // of the last worker process that was ready, -1: none yet
    uint64_t restarts, reloads_ok, reloads_failed;
    bool last_reload_ok;
    unsigned early_deaths;
    uint64_t restart_at_us; // 0: none is due
    pid_t check;            // the new binary's check, 0: none runs
    uint64_t check_until_us;
    bool was_ready;          // some worker process was, since the program was started
    bool upgrading;          // this image is new, and its first worker process is not ready yet
    bool stopping, quitting; // TERM or INT once, twice
    bool reload_wanted;      // by a HUP that no ready worker process has seen
    int exit_status;         // -1: goes on
};

// Until the program ends; its exit status. argv is kept for an upgrade.
int supervisor_run(const char *file, int log_level, char **argv);

// ---- supervisor_children.c ----

// Starts a worker process as `next`. False: the machine refuses.
bool supervisor_spawn(struct supervisor *supervisor, int config);
// Answers everything it has said.
void supervisor_hear(struct supervisor *supervisor, int place);
// It has ended: another one, or the end of the program.
void supervisor_bury(struct supervisor *supervisor, int place, int status);
void supervisor_tell(struct supervisor *supervisor, int place, enum control_type type);

// The pause before the next start, when the last `early_deaths` in a row died young: at once for the first,
// then 10 ms, doubling up to SUPERVISOR_RESTART_MAX_MS.
uint64_t supervisor_pause_ms(unsigned early_deaths);
