// One connection over TLS: the handshake, and the second row of struct transport.
//
//   on_event ─ shake ─ SSL_do_handshake ─┬─ more is needed: the next edge
//                                        ├─ complete ─ on_secured(SECURED) ─ on_ready when bytes are there
//                                        └─ fail ───── on_secured(SECURE_FAILED / SECURE_PLAIN_HTTP)
//
// OpenSSL reads and writes through our own BIO, so that system calls are counted as in plain connections: a
// short read says that the socket is empty, a short write that it is full, and neither is tried again before
// the next edge. With read_ahead one recv takes all records of a flight, up to 16 KiB.
#include "net/tls_private.h"

#include <errno.h>
#include <openssl/bio.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    RECORD_ALERT = 21,
    RECORD_HANDSHAKE = 22,
    MESSAGE_CLIENT_HELLO = 1,
    MESSAGE_HEADER = 4,
    DRAIN_READS = 8, // of what a peer had sent before its handshake failed
};

// ---- what OpenSSL reads and writes ----

// How much of the present record OpenSSL may have next.
static size_t part_of_record(const struct tls_handshake *handshake, size_t n)
{
    size_t part =
        handshake->record_left ? handshake->record_left : sizeof handshake->record - handshake->record_n;
    return n < part ? n : part;
}

// data is such a part. Looks no further than the header of the first handshake message of each flight.
static void follow_record(struct tls_handshake *handshake, const uint8_t *data, size_t n)
{
    if (!handshake->record_left) {
        memcpy(handshake->record + handshake->record_n, data, n);
        handshake->record_n = (uint8_t)(handshake->record_n + n);
        if (handshake->record_n < sizeof handshake->record)
            return;
        handshake->record_left = (uint16_t)(handshake->record[3] << 8 | handshake->record[4]);
        handshake->record_n = 0;
        return;
    }
    handshake->record_left = (uint16_t)(handshake->record_left - n);
    for (size_t i = 0; i < n && handshake->message_n < MESSAGE_HEADER; i++)
        if (handshake->record[0] == RECORD_HANDSHAKE)
            handshake->message[handshake->message_n++] = data[i];
}

// False: what comes from this client is not to be read on. OpenSSL would allocate 128 KiB for whoever
// announces a ClientHello of that size.
static bool is_client_fine(struct tls_handshake *handshake, uint8_t first)
{
    if (!handshake->began) {
        handshake->began = true;
        handshake->plain_http = first >= 'A' && first <= 'Z'; // a method; no type of record
    }
    const uint8_t *message = handshake->message;
    size_t length = (size_t)message[1] << 16 | (size_t)message[2] << 8 | message[3];
    handshake->too_long = handshake->message_n == MESSAGE_HEADER && message[0] == MESSAGE_CLIENT_HELLO &&
                          length > TLS_CLIENT_HELLO_BYTES - MESSAGE_HEADER;
    return !handshake->plain_http && !handshake->too_long;
}

ssize_t tls_socket_recv(struct conn *conn, void *data, size_t n)
{
    ssize_t got;
    do
        got = recv(conn->source.fd, data, n, 0);
    while (got < 0 && errno == EINTR);
    if (got >= 0 && (size_t)got < n && !conn->peer_closed)
        conn->tls->socket_readable = false; // empty: the next byte is an edge
    return got;
}

// As recv: 0 at the end, -1 with errno.
static ssize_t read_socket(struct conn *conn, void *data, size_t n)
{
    struct tls *tls = conn->tls;
    if (!tls->socket_readable) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t got = tls_socket_recv(conn, data, n);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        tls->socket_readable = false;
    else if (got < 0)
        conn->error = errno;
    else if (got == 0)
        tls->end_of_socket = true;
    return got;
}

// During a client's handshake: a part of one record.
static ssize_t read_flight(struct conn *conn, uint8_t *data, size_t n)
{
    struct tls_handshake *handshake = conn->tls->handshake;
    if (handshake->in_at == handshake->in_n) {
        ssize_t got = read_socket(conn, handshake->in, handshake->in_size);
        if (got <= 0)
            return got;
        handshake->in_at = 0;
        handshake->in_n = (size_t)got;
    }
    const uint8_t *from = handshake->in + handshake->in_at;
    size_t there = handshake->in_n - handshake->in_at;
    n = part_of_record(handshake, n < there ? n : there);
    follow_record(handshake, from, n);
    handshake->in_at += n;
    if (!is_client_fine(handshake, *from)) {
        errno = EPROTO;
        return -1;
    }
    memcpy(data, from, n);
    return (ssize_t)n;
}

static ssize_t read_left(struct tls *tls, uint8_t *data, size_t n)
{
    struct tls_left *left = tls->left;
    if (n > left->n)
        n = left->n;
    memcpy(data, left->bytes + left->at, n);
    left->at += n;
    left->n -= n;
    if (!left->n) {
        free(left);
        tls->left = NULL;
    }
    return (ssize_t)n;
}

static int bio_read(BIO *bio, char *data, int n)
{
    struct conn *conn = BIO_get_data(bio);
    struct tls *tls = conn->tls;
    ssize_t got;
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    if (tls->handshake && tls->server)
        got = read_flight(conn, (uint8_t *)data, (size_t)n);
    else if (tls->left)
        got = read_left(tls, (uint8_t *)data, (size_t)n);
    else
        got = read_socket(conn, data, (size_t)n);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_read(bio);
    return (int)got;
}

// The next message is the first of its flight. In TLS 1.2 it can be no ClientHello any more, but an encrypted
// one that begins like it.
static void begin_flight(struct tls *tls)
{
    struct tls_handshake *handshake = tls->handshake;
    bool had_hello = SSL_version(tls->ssl) < TLS1_3_VERSION;
    handshake->message_n = had_hello ? MESSAGE_HEADER : 0;
    handshake->message[0] = 0;
}

static int bio_write(BIO *bio, const char *data, int n)
{
    struct conn *conn = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    if (!conn->writable) {
        BIO_set_retry_write(bio);
        return -1;
    }
    if (conn->tls->handshake)
        begin_flight(conn->tls);
    ssize_t sent;
    do
        sent = send(conn->source.fd, data, (size_t)n, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        conn->writable = false;
        BIO_set_retry_write(bio);
    } else if (sent < 0) {
        conn->error = errno;
        conn->tls->send_failed = true;
    } else if (sent < n) {
        conn->writable = false;
    }
    return (int)sent;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    struct conn *conn = BIO_get_data(bio);
    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return conn->tls->end_of_socket;
    default: return 0;
    }
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conn");
    if (bio_method && BIO_meth_set_read(bio_method, bio_read) && BIO_meth_set_write(bio_method, bio_write) &&
        BIO_meth_set_ctrl(bio_method, bio_ctrl))
        return;
    BIO_meth_free(bio_method);
    bio_method = NULL;
}

static BIO *bio_for(struct conn *conn)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_bio_method);
    BIO *bio = bio_method ? BIO_new(bio_method) : NULL;
    if (bio) {
        BIO_set_data(bio, conn);
        BIO_set_init(bio, 1);
    }
    return bio;
}

struct conn *tls_conn_of(const SSL *ssl)
{
    return BIO_get_data(SSL_get_rbio(ssl));
}

// ---- the handshake ----

static void free_handshake(struct tls *tls)
{
    struct tls_handshake *handshake = tls->handshake;
    if (!handshake)
        return;
    tls->handshake = NULL;
    loop_late_cancel(&handshake->late);
    SSL_SESSION_free(handshake->offered);
    OPENSSL_cleanse(&handshake->secrets, sizeof handshake->secrets);
    free(handshake);
}

static void free_ssl(struct tls *tls)
{
    // Else OpenSSL takes the session for broken and would not offer it again (RFC 5246 7.2.1 took that back).
    if (tls->ssl && tls->complete)
        SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(tls->ssl);
    tls->ssl = NULL;
}

static void free_tls(struct tls *tls)
{
    free_handshake(tls);
    free_ssl(tls);
    tls_records_free(tls->records);
    free(tls->left);
    tls_server_unref(tls->server);
    tls_client_unref(tls->client);
    free(tls->facts);
    free(tls);
}

// Bytes of the application, or its end, may be there.
static void note_readable(struct conn *conn)
{
    struct tls *tls = conn->tls;
    conn->readable = tls->socket_readable || tls->left || SSL_has_pending(tls->ssl);
}

static bool report(struct conn *conn, enum secured secured)
{
    conn->events->on_secured(conn, secured);
    return !conn->closed && secured != SECURE_FAILED && conn->readable;
}

static const char *words_for_failure(struct tls *tls, int error)
{
    long verdict = SSL_get_verify_result(tls->ssl);
    if (tls->handshake && tls->handshake->too_long)
        return "the ClientHello is too long";
    if (tls->end_of_socket)
        return tls->complete ? "the peer closed without close_notify"
                             : "the peer closed during the handshake";
    if (error)
        return strerrordesc_np(error);
    if (!tls->complete && verdict != X509_V_OK)
        return X509_verify_cert_error_string(verdict);
    return tls_words();
}

static void note_failure(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (!tls->failure)
        tls->failure = words_for_failure(tls, conn->error);
    ERR_clear_error();
    if (tls->end_of_socket)
        conn->error = ECONNRESET;
    else if (!conn->error)
        conn->error = EPROTO;
    tls->failed = true;
}

// Of what can be received. A FIN is none: more records were to come, or close_notify.
static void note_end(struct conn *conn)
{
    if (conn->tls->end_of_socket)
        note_failure(conn);
    else
        conn->peer_closed = true;
}

// RFC 8446 6.2. OpenSSL sends the alerts for all that it finds itself.
static void send_plain_alert(struct conn *conn, uint8_t description)
{
    const uint8_t alert[] = {RECORD_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL, description};
    if (send(conn->source.fd, alert, sizeof alert, MSG_NOSIGNAL) < 0)
        conn->tls->send_failed = true;
}

// The kernel answers unread bytes with a reset, which may overtake the alert.
static void drain(struct conn *conn)
{
    char data[4096];
    for (unsigned i = 0; i < DRAIN_READS && conn->tls->socket_readable; i++)
        if (tls_socket_recv(conn, data, sizeof data) <= 0)
            return;
}

static void forget_refused_session(struct tls *tls)
{
    SSL_SESSION *offered = tls->handshake ? tls->handshake->offered : NULL;
    if (!offered || tls->session->session != offered || (!tls->failed && SSL_session_reused(tls->ssl)))
        return;
    SSL_SESSION_free(offered);
    tls->session->session = NULL;
}

static bool fail(struct conn *conn)
{
    struct tls *tls = conn->tls;
    note_failure(conn);
    if (tls->handshake->too_long)
        send_plain_alert(conn, SSL_AD_ILLEGAL_PARAMETER);
    forget_refused_session(tls);
    drain(conn);
    free_handshake(tls);
    return report(conn, SECURE_FAILED);
}

static bool become_plain(struct conn *conn)
{
    struct tls *tls = conn->tls;
    conn->transport = &transport_plain;
    conn->readable = tls->socket_readable;
    conn->tls = NULL;
    free_tls(tls);
    return report(conn, SECURE_PLAIN_HTTP);
}

// What follows the handshake goes on with our own records where it can, else with OpenSSL. False: memory is
// out.
static bool leave_handshake(struct conn *conn, struct tls_slot *slot)
{
    struct tls *tls = conn->tls;
    struct tls_handshake *handshake = tls->handshake;
    const uint8_t *early = handshake->in + handshake->in_at;
    size_t n = handshake->in_n - handshake->in_at;
    if (tls->server && tls_records_begin(conn, slot, &handshake->secrets, early, n)) {
        free_handshake(tls);
        free_ssl(tls);
        return true;
    }
    if (n) {
        tls->left = malloc(sizeof *tls->left + n);
        if (!tls->left)
            return false;
        *tls->left = (struct tls_left){0, n};
        memcpy(tls->left->bytes, early, n);
    }
    free_handshake(tls);
    note_readable(conn);
    return true;
}

static bool complete(struct conn *conn)
{
    struct tls *tls = conn->tls;
    struct tls_slot *slot = tls->server ? tls->server->slot : tls->client->slot;
    tls->facts = tls_facts_new(tls->ssl, slot, tls->server);
    if (!tls->facts) {
        tls->failure = "the client's certificate names too much, or memory is out";
        return fail(conn);
    }
    if (tls->client && tls->client->h2_only && tls->facts->alpn != TLS_ALPN_H2) {
        tls->failure = "the peer does not agree on h2";
        return fail(conn);
    }
    forget_refused_session(tls);
    tls->complete = true;
    if (!leave_handshake(conn, slot)) {
        tls->complete = false;
        tls->failure = "memory is out";
        return fail(conn);
    }
    return report(conn, SECURED);
}

// Goes on with the handshake. True: the owner shall hear on_ready.
static bool shake(struct conn *conn)
{
    struct tls *tls = conn->tls;
    conn->readable = false;
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1)
        return complete(conn);
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return false;
    default: return tls->handshake->plain_http ? become_plain(conn) : fail(conn);
    }
}

static void on_late(struct loop_late *late)
{
    struct conn *conn = container_of(late, struct tls_handshake, late)->conn;
    if (!conn->closed && shake(conn))
        conn->events->on_ready(conn);
}

// ---- the transport ----

static ssize_t tls_recv(struct conn *conn, void *data, size_t n)
{
    struct tls *tls = conn->tls;
    size_t total = 0, got;
    if (tls->failed)
        return CONN_FAILED;
    if (!tls->complete)
        return CONN_AGAIN;
    ERR_clear_error();
    do { // a record at a time, as many as have come
        int result = SSL_read_ex(tls->ssl, (char *)data + total, n - total, &got);
        if (result == 1) {
            total += got;
            continue;
        }
        switch (SSL_get_error(tls->ssl, result)) {
        case SSL_ERROR_WANT_READ: conn->readable = false; return total ? (ssize_t)total : CONN_AGAIN;
        case SSL_ERROR_WANT_WRITE:
            conn->readable = false;
            tls->recv_wants_room = true;
            return total ? (ssize_t)total : CONN_AGAIN;
        case SSL_ERROR_ZERO_RETURN: note_end(conn); break;
        default: note_failure(conn); break;
        }
        conn->readable = true; // the end or the failure is still to be read
        return total ? (ssize_t)total : tls->failed ? CONN_FAILED : 0;
    } while (total < n && SSL_has_pending(tls->ssl));
    note_readable(conn);
    return (ssize_t)total;
}

// The next n <= max bytes in one piece: as they are, or joined.
static const char *spans_join(const struct tls_spans *spans, size_t max, size_t *n)
{
    static _Thread_local char joined[TLS_RECORD];
    size_t first = spans->iov->iov_len - spans->at;
    const char *begin = (const char *)spans->iov->iov_base + spans->at;
    if (first >= max || spans->count == 1) {
        *n = first < max ? first : max;
        return begin;
    }
    memcpy(joined, begin, first);
    *n = first;
    for (int i = 1; i < spans->count && *n < max; i++) {
        size_t more = spans->iov[i].iov_len;
        if (more > max - *n)
            more = max - *n;
        if (more)
            memcpy(joined + *n, spans->iov[i].iov_base, more);
        *n += more;
    }
    return joined;
}

static ssize_t after_failed_send(struct conn *conn, int result, size_t n)
{
    struct tls *tls = conn->tls;
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_WRITE: tls->retry = (uint16_t)n; return CONN_AGAIN;
    case SSL_ERROR_WANT_READ:
        conn->writable = false;
        tls->send_wants_bytes = true;
        return CONN_AGAIN;
    default:
        if (!tls->failure)
            tls->failure = words_for_failure(tls, conn->error);
        ERR_clear_error();
        if (!conn->error)
            conn->error = EPROTO;
        tls->send_failed = true; // what the peer had said can still be read
        return CONN_FAILED;
    }
}

// A record for each 16 KiB, whatever the spans are: a head and a short body leave together.
static ssize_t tls_sendv(struct conn *conn, const struct iovec *iov, int count)
{
    struct tls *tls = conn->tls;
    struct tls_spans spans = {iov, count, 0};
    size_t total = 0;
    if (tls->failed || tls->send_failed)
        return CONN_FAILED;
    if (!tls->complete)
        return CONN_AGAIN;
    ERR_clear_error();
    for (tls_spans_skip(&spans, 0); spans.count && conn->writable;) {
        size_t n, written;
        const char *data = spans_join(&spans, tls->retry ? tls->retry : TLS_RECORD, &n);
        check(n >= tls->retry); // what was not taken is offered again
        int result = SSL_write_ex(tls->ssl, data, n, &written);
        if (result != 1) {
            ssize_t why = after_failed_send(conn, result, n);
            return total ? (ssize_t)total : why;
        }
        tls->retry = 0;
        total += written;
        tls_spans_skip(&spans, written);
    }
    return total || !spans.count ? (ssize_t)total : CONN_AGAIN;
}

static bool can_say_goodbye(const struct conn *conn)
{
    const struct tls *tls = conn->tls;
    return tls->complete && !tls->failed && !tls->send_failed && !tls->retry && !conn->hung_up &&
           !(SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN);
}

static void tls_shutdown_send(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (can_say_goodbye(conn) || tls->shutdown_due) {
        ERR_clear_error();
        int result = SSL_shutdown(tls->ssl);
        tls->shutdown_due = result < 0 && SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_WRITE;
        ERR_clear_error();
    }
    if (!tls->shutdown_due)
        shutdown(conn->source.fd, SHUT_WR);
}

// Takes what is no data (tickets, key updates), so that conn->readable means data or the end. For the
// client's side: servers send tickets whenever they like, and an idle connection that seems to have bytes
// would be closed.
static void look_for_data(struct conn *conn)
{
    struct tls *tls = conn->tls;
    char byte;
    size_t got;
    ERR_clear_error();
    int result = SSL_peek_ex(tls->ssl, &byte, 1, &got);
    if (result == 1) {
        conn->readable = true;
        return;
    }
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ: conn->readable = false; return;
    case SSL_ERROR_WANT_WRITE:
        conn->readable = false;
        tls->recv_wants_room = true;
        return;
    case SSL_ERROR_ZERO_RETURN: note_end(conn); break;
    default: note_failure(conn); break;
    }
    conn->readable = true;
}

static bool tls_is_stale(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (!tls->complete || tls->failed)
        return true;
    tls->socket_readable = true; // asks the kernel, without waiting for its edge
    look_for_data(conn);
    return conn->readable;
}

static bool tls_on_event(struct conn *conn)
{
    struct tls *tls = conn->tls;
    tls->socket_readable |= conn->readable;
    if (!tls->complete) {
        if (!tls->handshake)
            return false; // it failed, and the owner knows
        loop_late_cancel(&tls->handshake->late);
        return shake(conn);
    }
    if (tls->shutdown_due && conn->writable)
        tls_shutdown_send(conn);
    if (tls->send_wants_bytes && tls->socket_readable) {
        tls->send_wants_bytes = false;
        conn->writable = true;
    }
    if (tls->recv_wants_room && conn->writable) {
        tls->recv_wants_room = false;
        conn->readable = true;
    }
    if (tls->failed)
        conn->readable = true;
    else if (tls->client && conn->readable)
        look_for_data(conn);
    return true;
}

static void tls_on_close(struct conn *conn)
{
    if (!can_say_goodbye(conn) || !conn->writable)
        return;
    ERR_clear_error();
    SSL_shutdown(conn->tls->ssl);
    ERR_clear_error();
}

void tls_on_free(struct conn *conn)
{
    free_tls(conn->tls);
    conn->tls = NULL;
}

static const struct transport transport_tls = {
    .name = "tls",
    .recv = tls_recv,
    .sendv = tls_sendv,
    .shutdown_send = tls_shutdown_send,
    .is_stale = tls_is_stale,
    .on_event = tls_on_event,
    .on_close = tls_on_close,
    .on_free = tls_on_free,
};

// ---- beginning ----

// Takes over ssl. False: memory is out; the connection stays as it was.
static bool begin(struct conn *conn, SSL *ssl, struct str early, size_t flight)
{
    struct tls *tls = calloc(1, sizeof *tls);
    size_t size = early.n > flight ? early.n : flight;
    struct tls_handshake *handshake = malloc(sizeof *handshake + size);
    BIO *bio = ssl ? bio_for(conn) : NULL;
    if (!tls || !handshake || !bio) {
        BIO_free(bio);
        SSL_free(ssl);
        free(handshake);
        free(tls);
        return false;
    }
    SSL_set_bio(ssl, bio, bio);
    *handshake = (struct tls_handshake){.conn = conn, .in_n = early.n, .in_size = size};
    if (early.n)
        memcpy(handshake->in, early.p, early.n);
    loop_late_init(&handshake->late, on_late);
    tls->ssl = ssl;
    tls->handshake = handshake;
    tls->socket_readable = conn->readable;
    conn->tls = tls;
    conn->transport = &transport_tls;
    return true;
}

bool tls_accept(struct conn *conn, struct tls_server *server, struct str early)
{
    if (!begin(conn, tls_server_ssl(server), early, TLS_FLIGHT))
        return false;
    conn->tls->server = tls_server_ref(server);
    SSL_set_accept_state(conn->tls->ssl);
    // Otherwise the first edge begins it.
    if (early.n || conn->readable)
        loop_late(conn->loop, &conn->tls->handshake->late);
    conn->readable = false;
    return true;
}

bool tls_connect(struct conn *conn, struct tls_client *client, struct str host, struct tls_session *session)
{
    check(!conn->connecting);
    if (!begin(conn, tls_client_ssl(client, host, session), STR_NULL, 0))
        return false;
    struct tls *tls = conn->tls;
    tls->client = tls_client_ref(client);
    tls->session = session;
    SSL_set_connect_state(tls->ssl);
    SSL_SESSION *offered = session ? SSL_get_session(tls->ssl) : NULL;
    if (offered && SSL_SESSION_up_ref(offered))
        tls->handshake->offered = offered;
    conn->readable = false;
    loop_late(conn->loop, &tls->handshake->late); // the ClientHello leaves before this turn ends
    return true;
}

const struct tls_facts *tls_facts(const struct conn *conn)
{
    return conn->tls && conn->tls->complete ? conn->tls->facts : NULL;
}

const char *tls_failure(const struct conn *conn)
{
    return conn->tls && conn->tls->failure ? conn->tls->failure : "";
}
