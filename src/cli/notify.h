// The service manager: readiness by datagram to NOTIFY_SOCKET and listening sockets by LISTEN_FDS
// (sd_notify(3), sd_listen_fds(3)), without its library. Both do nothing where there is no such manager.
#pragma once

#include "cli/sockets.h"

// "READY=1", "STATUS=…"; several assignments are separated by newlines.
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
// RELOADING=1 with the time it needs (systemd 253, Type=notify-reload).
void notify_reloading(void);
// Takes the sockets this process was started with into the table, and forgets the variables.
void notify_take_sockets(struct sockets *sockets);
