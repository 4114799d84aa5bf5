#ifndef BENCH_LINK_H
#define BENCH_LINK_H

/*
 * A load's connection: a socket, and over it TLS by OpenSSL when a context is given, or by shake.h when a
 * place for handshakes is. What is offered is one thing only (TLS 1.3, X25519, AES-128-GCM, ECDSA with
 * P-256), so a handshake that succeeds has used it, and all servers do the same work. Whom the certificate
 * names is not looked at.
 */

#include "shake.h"
#include "sock.h"

#include <openssl/ssl.h>
#include <sys/types.h>

enum link_step { LINK_MORE, LINK_DONE, LINK_FAILED };

struct link {
    int fd;
    SSL *ssl;            /* NULL: none */
    struct shake *shake; /* NULL: none; stays for the connections that follow */
};

/*
 * A context for all links of a program; dies when it cannot. alpn is the only protocol that is offered; small
 * gives buffers back while a link is idle, for thousands of them.
 */
SSL_CTX *link_tls_new(const char *alpn, bool small);

/* Begins to connect; `name` is for SNI. False: errno says why. */
bool link_open(struct link *l, const struct sockaddr_in *to, SSL_CTX *tls, const char *name);

/* Goes on with the handshake when the socket is ready; done at once without TLS. */
enum link_step link_shake(struct link *l);

/* Whether ALPN chose the protocol. True without OpenSSL. */
bool link_agreed(const struct link *l, const char *alpn);
bool link_resumed(const struct link *l);

/* As recv and send with their return values and errno (EAGAIN: when the socket is ready again). */
ssize_t link_recv(struct link *l, void *to, size_t size);
ssize_t link_send(struct link *l, const void *data, size_t size);

/*
 * Whether the read that returned n of size bytes, at the end of a message or not, left nothing behind, so
 * that the next one would say EAGAIN. False when it cannot be told.
 */
bool link_is_dry(const struct link *l, size_t n, size_t size, bool message_ended);

/* Closes the socket and frees what is OpenSSL's; with a goodbye, close_notify is sent. */
void link_close(struct link *l, bool goodbye);

#endif
