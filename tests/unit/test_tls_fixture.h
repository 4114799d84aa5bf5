// For the TLS tests: certificates made on the spot, our side as a connection on a real loop, and the other
// side as plain OpenSSL between memory and a socket, so that a test decides which bytes go when.
#pragma once

#include "unit.h"

#include "base/clock.h"
#include "net/tls.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIXTURE_DEADLINE_MS = 20000, DAY = 86400 };

// ---- certificates ----

struct made {
    X509 *x509;
    EVP_PKEY *key;
};

static char fixture_dir[] = "/tmp/test-tls-XXXXXX";

__attribute__((unused)) static int fixture_setup(void **state)
{
    (void)state;
    return mkdtemp(fixture_dir) ? 0 : -1;
}

__attribute__((unused)) static int fixture_teardown(void **state)
{
    (void)state;
    DIR *directory = opendir(fixture_dir);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory)
        closedir(directory);
    return rmdir(fixture_dir);
}

// A path in the test's directory; lives until the program ends.
__attribute__((unused)) static struct str fixture_path(const char *name)
{
    static char paths[64][96];
    static unsigned next;
    assert_true(next < 64);
    char *path = paths[next++];
    snprintf(path, sizeof paths[0], "%s/%s", fixture_dir, name);
    return str_of(path);
}

static void fixture_extend(X509 *x509, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(x509, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

// sans: "DNS:a.example,IP:…" or NULL. by: the issuer, NULL: itself. kind: of key, "EC": P-256.
__attribute__((unused)) static struct made make_certificate(const char *name, const char *sans,
                                                            const struct made *by, const char *kind,
                                                            bool is_ca, long from_s, long until_s)
{
    static long serial = 1;
    struct made made = {.x509 = X509_new()};
    made.key = strcmp(kind, "RSA") == 0  ? EVP_RSA_gen(2048)
               : strcmp(kind, "EC") == 0 ? EVP_EC_gen("P-256")
                                         : EVP_PKEY_Q_keygen(NULL, NULL, kind);
    assert_non_null(made.key);
    X509_set_version(made.x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made.x509), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made.x509), from_s);
    X509_gmtime_adj(X509_getm_notAfter(made.x509), until_s);
    X509_NAME *subject = X509_get_subject_name(made.x509);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made.x509, by ? X509_get_subject_name(by->x509) : subject);
    X509_set_pubkey(made.x509, made.key);
    fixture_extend(made.x509, made.x509, NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "CA:FALSE");
    if (sans)
        fixture_extend(made.x509, made.x509, NID_subject_alt_name, sans);
    assert_true(X509_sign(made.x509, by ? by->key : made.key, EVP_sha256()) > 0);
    return made;
}

__attribute__((unused)) static struct made make_ca(const char *name)
{
    return make_certificate(name, NULL, NULL, "EC", true, -DAY, DAY * 30);
}

__attribute__((unused)) static struct made make_leaf(const char *name, const char *sans,
                                                     const struct made *ca)
{
    return make_certificate(name, sans, ca, "EC", false, -DAY, DAY * 20);
}

__attribute__((unused)) static void made_free(struct made *made)
{
    X509_free(made->x509);
    EVP_PKEY_free(made->key);
}

__attribute__((unused)) static void write_bytes(struct str path, const void *data, size_t n)
{
    FILE *file = fopen(path.p, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    fclose(file);
}

// Writes NAME.pem and NAME.key.
__attribute__((unused)) static struct tls_certificate_files write_made(const char *name,
                                                                       const struct made *made)
{
    char file[64];
    struct tls_certificate_files files = {0};
    snprintf(file, sizeof file, "%s.pem", name);
    files.cert = fixture_path(file);
    FILE *out = fopen(files.cert.p, "w");
    assert_true(out && PEM_write_X509(out, made->x509));
    fclose(out);
    snprintf(file, sizeof file, "%s.key", name);
    files.key = fixture_path(file);
    out = fopen(files.key.p, "w");
    assert_true(out && PEM_write_PrivateKey(out, made->key, NULL, NULL, 0, NULL, NULL));
    fclose(out);
    return files;
}

// ---- our side ----

struct side {
    struct conn conn;
    unsigned ready, freed, secured_calls;
    enum secured secured;
    bool was_ready_early; // on_ready before on_secured
    bool close_when_secured;
};

static void side_ready(struct conn *conn)
{
    struct side *side = container_of(conn, struct side, conn);
    side->ready++;
    side->was_ready_early |= conn->tls && !side->secured_calls;
}

static void side_secured(struct conn *conn, enum secured secured)
{
    struct side *side = container_of(conn, struct side, conn);
    side->secured_calls++;
    side->secured = secured;
    if (side->close_when_secured)
        conn_close(conn);
}

static void side_free(struct conn *conn)
{
    container_of(conn, struct side, conn)->freed++;
}

static const struct conn_events side_events = {
    .on_ready = side_ready, .on_secured = side_secured, .on_free = side_free};

// ---- the other side ----

struct peer {
    SSL *ssl;
    int fd;
    size_t chunk; // written at once, with a turn of the loop behind each; 0: all
    bool end;     // our side's FIN came
    int error;    // errno of the socket
};

struct pair {
    struct loop loop;
    struct side side;
    struct peer peer;
};

__attribute__((unused)) static void pair_open(struct pair *pair)
{
    struct err err;
    int fds[2];
    memset(pair, 0, sizeof *pair);
    assert_int_equal(loop_init(&pair->loop, &err), ERR_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_true(conn_open(&pair->side.conn, &pair->loop, fds[0], &side_events));
    pair->peer.fd = fds[1];
}

__attribute__((unused)) static void peer_hang_up(struct pair *pair)
{
    close(pair->peer.fd);
    pair->peer.fd = -1;
}

__attribute__((unused)) static void pair_close(struct pair *pair)
{
    conn_close(&pair->side.conn);
    loop_turn(&pair->loop, 0);
    loop_turn(&pair->loop, 0);
    assert_int_equal(pair->side.freed, 1);
    assert_false(pair->side.was_ready_early);
    SSL_free(pair->peer.ssl);
    if (pair->peer.fd >= 0)
        close(pair->peer.fd);
    loop_fini(&pair->loop);
    ERR_clear_error();
}

__attribute__((unused)) static SSL_CTX *peer_context(const SSL_METHOD *method)
{
    SSL_CTX *context = SSL_CTX_new(method);
    assert_non_null(context);
    return context;
}

// The peer speaks TLS as a client (or a server).
__attribute__((unused)) static void peer_begin(struct pair *pair, SSL_CTX *context, bool is_client)
{
    SSL *ssl = pair->peer.ssl = SSL_new(context);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    if (is_client)
        SSL_set_connect_state(ssl);
    else
        SSL_set_accept_state(ssl);
}

__attribute__((unused)) static void peer_write_raw(struct pair *pair, const void *data, size_t n)
{
    const char *at = data;
    while (n && pair->peer.fd >= 0) {
        size_t part = pair->peer.chunk && pair->peer.chunk < n ? pair->peer.chunk : n;
        ssize_t sent = send(pair->peer.fd, at, part, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            loop_turn(&pair->loop, 1);
            continue;
        }
        if (sent < 0) {
            pair->peer.error = errno;
            return;
        }
        at += sent;
        n -= (size_t)sent;
        if (pair->peer.chunk)
            loop_turn(&pair->loop, 0);
    }
}

// Moves what the peer has to say to the socket, and what came to the peer.
__attribute__((unused)) static void peer_pump(struct pair *pair)
{
    char data[32768];
    int n;
    while ((n = BIO_read(SSL_get_wbio(pair->peer.ssl), data, sizeof data)) > 0)
        peer_write_raw(pair, data, (size_t)n);
    loop_turn(&pair->loop, 0);
    ssize_t got;
    while (pair->peer.fd >= 0 && (got = recv(pair->peer.fd, data, sizeof data, 0)) != -1) {
        if (got == 0) {
            pair->peer.end = true;
            break;
        }
        BIO_write(SSL_get_rbio(pair->peer.ssl), data, (int)got);
    }
}

static uint64_t fixture_deadline(void)
{
    return clock_monotonic_us() + FIXTURE_DEADLINE_MS * 1000ull;
}

// Until our side has reported and the peer has done its part or failed. True: both succeeded.
__attribute__((unused)) static bool pair_shake(struct pair *pair)
{
    uint64_t deadline = fixture_deadline();
    bool peer_done = false, peer_failed = false;
    while (clock_monotonic_us() < deadline) {
        if (!peer_done && !peer_failed) {
            ERR_clear_error();
            int result = SSL_do_handshake(pair->peer.ssl);
            peer_done = result == 1;
            peer_failed = !peer_done && SSL_get_error(pair->peer.ssl, result) != SSL_ERROR_WANT_READ;
        }
        peer_pump(pair);
        if (pair->side.secured_calls && (peer_done || peer_failed))
            return peer_done && pair->side.secured == SECURED;
        if (pair->side.secured_calls && pair->side.secured != SECURED)
            return false;
    }
    fail_msg("the handshake did not end");
    return false;
}

// Takes exactly n bytes at the peer, or what there is before the end.
__attribute__((unused)) static size_t peer_take(struct pair *pair, char *into, size_t n)
{
    uint64_t deadline = fixture_deadline();
    size_t total = 0;
    while (total < n && clock_monotonic_us() < deadline) {
        ERR_clear_error();
        int got = SSL_read(pair->peer.ssl, into + total, (int)(n - total));
        if (got > 0) {
            total += (size_t)got;
            continue;
        }
        if (SSL_get_error(pair->peer.ssl, got) != SSL_ERROR_WANT_READ || pair->peer.end)
            break;
        peer_pump(pair);
    }
    return total;
}

__attribute__((unused)) static void peer_say(struct pair *pair, const char *text, size_t n)
{
    assert_int_equal(SSL_write(pair->peer.ssl, text, (int)n), n);
    peer_pump(pair);
}

// Receives at our side until n bytes, the end (0) or a failure; the last result goes to *last.
__attribute__((unused)) static size_t side_take(struct pair *pair, char *into, size_t n, ssize_t *last)
{
    uint64_t deadline = fixture_deadline();
    size_t total = 0;
    *last = CONN_AGAIN;
    while (total < n && clock_monotonic_us() < deadline) {
        if (!pair->side.conn.readable) {
            loop_turn(&pair->loop, 1);
            if (pair->peer.ssl)
                peer_pump(pair);
            continue;
        }
        *last = conn_recv(&pair->side.conn, into + total, n - total);
        if (*last > 0)
            total += (size_t)*last;
        else if (*last != CONN_AGAIN)
            break;
    }
    return total;
}

__attribute__((unused)) static bool side_say(struct pair *pair, const char *text, size_t n)
{
    struct iovec iov = {(void *)(uintptr_t)text, n};
    return conn_sendv(&pair->side.conn, &iov, 1) == (ssize_t)n;
}
