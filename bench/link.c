#include "link.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The chain is not built: every server shows the same certificate, made for this run by whoever runs it. */
static int accept_any_chain(X509_STORE_CTX *store, void *unused)
{
    (void)store;
    (void)unused;
    return 1;
}

static bool set_alpn(SSL_CTX *tls, const char *alpn)
{
    unsigned char wire[64];
    size_t size = strlen(alpn);
    if (size >= sizeof wire)
        return false;
    wire[0] = (unsigned char)size;
    memcpy(wire + 1, alpn, size);
    return SSL_CTX_set_alpn_protos(tls, wire, (unsigned)size + 1) == 0;
}

SSL_CTX *link_tls_new(const char *alpn, bool small)
{
    errno = 0;
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (tls == NULL || SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set1_groups_list(tls, "X25519") != 1 || SSL_CTX_set1_sigalgs_list(tls, "ECDSA+SHA256") != 1 ||
        !set_alpn(tls, alpn))
        die("no TLS 1.3 with X25519, AES-128-GCM and ECDSA in this OpenSSL");
    SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_cert_verify_callback(tls, accept_any_chain, NULL);
    SSL_CTX_set_read_ahead(tls, 1); /* one recv for all records that have come, not two for each */
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              (small ? SSL_MODE_RELEASE_BUFFERS : 0));
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    return tls;
}

bool link_open(struct link *l, const struct sockaddr_in *to, SSL_CTX *tls, const char *name)
{
    l->fd = sock_connect(to);
    if (l->fd < 0)
        return false;
    if (l->shake != NULL)
        shake_begin(l->shake);
    if (tls == NULL)
        return true;
    l->ssl = SSL_new(tls);
    if (l->ssl == NULL || SSL_set_fd(l->ssl, l->fd) != 1 || SSL_set_tlsext_host_name(l->ssl, name) != 1)
        die("memory for TLS");
    SSL_set_connect_state(l->ssl);
    return true;
}

/* What a call's failure means, as errno. */
static void set_errno(struct link *l, int result)
{
    int saved = errno;
    switch (SSL_get_error(l->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return;
    case SSL_ERROR_SYSCALL: errno = saved != 0 && saved != EAGAIN ? saved : ECONNRESET; break;
    default: errno = EPROTO;
    }
    ERR_clear_error(); /* what stays in the queue would be taken for the next call's */
}

enum link_step link_shake(struct link *l)
{
    if (l->shake != NULL) {
        enum shake_step step = shake_go_on(l->shake, l->fd);
        return step == SHAKE_DONE ? LINK_DONE : step == SHAKE_MORE ? LINK_MORE : LINK_FAILED;
    }
    if (l->ssl == NULL)
        return LINK_DONE;
    int done = SSL_do_handshake(l->ssl);
    if (done == 1)
        return LINK_DONE;
    set_errno(l, done);
    return errno == EAGAIN ? LINK_MORE : LINK_FAILED;
}

bool link_agreed(const struct link *l, const char *alpn)
{
    if (l->ssl == NULL)
        return true;
    const unsigned char *chosen = NULL;
    unsigned size = 0;
    SSL_get0_alpn_selected(l->ssl, &chosen, &size);
    return size == strlen(alpn) && memcmp(chosen, alpn, size) == 0;
}

bool link_resumed(const struct link *l)
{
    return l->shake != NULL && shake_resumed(l->shake);
}

ssize_t link_recv(struct link *l, void *to, size_t size)
{
    if (l->shake != NULL)
        return shake_recv(l->shake, l->fd, to, size);
    if (l->ssl == NULL)
        return recv(l->fd, to, size, 0);
    size_t n = 0;
    int done = SSL_read_ex(l->ssl, to, size, &n);
    if (done == 1)
        return (ssize_t)n;
    if (SSL_get_error(l->ssl, done) == SSL_ERROR_ZERO_RETURN)
        return 0;
    set_errno(l, done);
    return -1;
}

ssize_t link_send(struct link *l, const void *data, size_t size)
{
    if (l->shake != NULL)
        return shake_send(l->shake, l->fd, data, size);
    if (l->ssl == NULL)
        return send(l->fd, data, size, MSG_NOSIGNAL);
    size_t n = 0;
    int done = SSL_write_ex(l->ssl, data, size, &n);
    if (done == 1)
        return (ssize_t)n;
    set_errno(l, done);
    return -1;
}

bool link_is_dry(const struct link *l, size_t n, size_t size, bool message_ended)
{
    if (l->shake != NULL)
        return message_ended && shake_is_dry(l->shake);
    if (l->ssl != NULL)
        return message_ended && SSL_has_pending(l->ssl) == 0;
    return n < size;
}

void link_close(struct link *l, bool goodbye)
{
    if (l->shake != NULL && goodbye)
        shake_goodbye(l->shake, l->fd);
    if (l->ssl != NULL) {
        if (goodbye && SSL_shutdown(l->ssl) < 0)
            ERR_clear_error();
        SSL_free(l->ssl);
        l->ssl = NULL;
    }
    close(l->fd);
    l->fd = -1;
}
