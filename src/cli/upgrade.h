// Replacing the binary without losing a connection (USR2), in place: the supervisor executes the new binary
// over itself, so its process id stays what a service manager or a container knows.
//
//   USR2 ─▶ NEW check -c FILE ── bad, or too slow ──▶ log, nothing changes
//             │ good
//             ▼
//           execve(NEW), with every socket and worker process's control socket left open and a description of
//           them in
//             │          a memfd that $SALLYPORT_UPGRADE names
//             ▼
//           the new image starts a worker process on the same sockets ── dies first ──▶ log, the old one
//           keeps serving
//             │ READY
//             ▼
//           HAND_OVER to the old worker process: it accepts no more and finishes what it has
#pragma once

#include "cli/supervisor.h"

// The program's absolute path, links not followed: what a deployment replaces. The caller's to free.
char *upgrade_binary_path(const char *argv0);
// USR2.
void upgrade_begin(struct supervisor *supervisor);
// The new binary's check has ended: executes it, or says why not.
void upgrade_checked(struct supervisor *supervisor, int status);
// At start: takes over what an older image has left. False: there was none.
bool upgrade_restore(struct supervisor *supervisor);

// ---- the description, one fact a line; an image ignores lines it does not know ----

// The memfd, or -1.
int upgrade_write(const struct supervisor *supervisor);
// False: not a description. Closes fd.
bool upgrade_read(struct supervisor *supervisor, int fd);
