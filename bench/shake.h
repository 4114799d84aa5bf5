#ifndef BENCH_SHAKE_H
#define BENCH_SHAKE_H

/*
 * The client's side of TLS 1.3 (RFC 8446) for one cipher suite, one group, one signature scheme, to measure
 * handshakes with. OpenSSL's client needs more CPU time for one than a server does (a third of it to look at
 * the certificate), so on a core of its own it would be the client that is measured; this one needs a
 * quarter. It says nothing less than other clients do, and checks what it is told: the Finished messages
 * always, the certificate's signature of every eighth handshake.
 *
 * A struct shake is one place in which connections follow each other; it keeps the last ticket.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum shake_step { SHAKE_MORE, SHAKE_DONE, SHAKE_FAILED };

struct shake;

/* Once in a program; name is for SNI. With tickets, handshakes resume when there is one. */
void shake_setup(const char *name, const char *alpn, bool tickets);

struct shake *shake_new(void);

/* A new connection. */
void shake_begin(struct shake *s);

/* Goes on when the socket is connected, or ready again. */
enum shake_step shake_go_on(struct shake *s, int fd);

bool shake_resumed(const struct shake *s);

/* As recv and send; small messages only: what the socket refuses is an error. */
ssize_t shake_recv(struct shake *s, int fd, void *to, size_t size);
ssize_t shake_send(struct shake *s, int fd, const void *data, size_t size);

/* Whether nothing that has been received waits to be read. */
bool shake_is_dry(const struct shake *s);

/* Sends close_notify. */
void shake_goodbye(struct shake *s, int fd);

#endif
