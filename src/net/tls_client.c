// An upstream's side: what is trusted, whom the certificate must name, and the sessions that are resumed.
#include "net/tls_private.h"

#include "net/addr.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

// OpenSSL holds the reference that this says it takes: 1.
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = tls_conn_of(ssl)->tls;
    if (!tls->session || !SSL_SESSION_is_resumable(session))
        return 0;
    SSL_SESSION_free(tls->session->session);
    tls->session->session = session;
    return 1;
}

void tls_session_fini(struct tls_session *session)
{
    SSL_SESSION_free(session->session);
    session->session = NULL;
}

// ---- making ----

static bool trust(struct tls_client *client, struct str ca, uint8_t digest[TLS_DIGEST], struct err *err)
{
    X509_STORE *store = tls_store_new(client->slot, ca, digest, err);
    if (!store)
        return false;
    SSL_CTX_set1_cert_store(client->context, store);
    X509_STORE_free(store);
    SSL_CTX_set_verify(client->context, SSL_VERIFY_PEER, NULL);
    return true;
}

static bool use_certificate(struct tls_client *client, const struct tls_client_options *options,
                            uint8_t digest[EVP_MAX_MD_SIZE], struct err *err)
{
    struct tls_certificate own;
    const struct tls_certificate_files files = {.cert = options->cert, .key = options->key};
    if (tls_certificate_load(client->slot, &files, false, &own, err) != ERR_OK)
        return false;
    unsigned n;
    bool good = SSL_CTX_use_cert_and_key(client->context, own.leaf, own.key, own.chain, 1) &&
                X509_digest(own.leaf, client->slot->sha256, digest, &n);
    if (!good) {
        char *path = str_dup(options->cert);
        err_set(err, ERR_INVALID, path, "the certificate cannot be used: %s", tls_words());
        free(path);
    }
    tls_certificate_fini(&own);
    return good;
}

static bool offer_protocols(struct tls_client *client, unsigned alpn)
{
    static const unsigned char h2[] = "\x02h2", http1[] = "\x08http/1.1", both[] = "\x02h2\x08http/1.1";
    switch (alpn) {
    case TLS_ALPN_NONE: return true;
    case TLS_ALPN_H2: return SSL_CTX_set_alpn_protos(client->context, h2, sizeof h2 - 1) == 0;
    case TLS_ALPN_HTTP1: return SSL_CTX_set_alpn_protos(client->context, http1, sizeof http1 - 1) == 0;
    default: return SSL_CTX_set_alpn_protos(client->context, both, sizeof both - 1) == 0;
    }
}

static bool digest_policy(struct tls_client *client, const struct tls_client_options *options,
                          const uint8_t trusted[TLS_DIGEST], const uint8_t own[TLS_DIGEST])
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    const uint8_t verify = options->verify;
    bool good = hash && EVP_DigestInit_ex(hash, client->slot->sha256, NULL) &&
                EVP_DigestUpdate(hash, &verify, sizeof verify) &&
                EVP_DigestUpdate(hash, trusted, TLS_DIGEST) && EVP_DigestUpdate(hash, own, TLS_DIGEST) &&
                EVP_DigestFinal_ex(hash, client->policy, NULL);
    EVP_MD_CTX_free(hash);
    return good;
}

static bool setup(struct tls_client *client, const struct tls_client_options *options, struct err *err)
{
    uint8_t trusted[TLS_DIGEST] = {0}, own[EVP_MAX_MD_SIZE] = {0};
    client->context = tls_context_new(client->slot, TLS_client_method(), err);
    if (!client->context || (options->verify && !trust(client, options->ca, trusted, err)) ||
        (options->cert.n && !use_certificate(client, options, own, err)))
        return false;
    if (!offer_protocols(client, options->alpn) || !digest_policy(client, options, trusted, own)) {
        err_set(err, ERR_MEMORY, "", "%s", tls_words());
        return false;
    }
    SSL_CTX_set_session_cache_mode(client->context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client->context, on_new_session);
    return true;
}

struct tls_client *tls_client_new(unsigned slot, const struct tls_client_options *options, struct err *err)
{
    struct tls_client *client = calloc(1, sizeof *client);
    if (!client || !(client->slot = tls_slot_get(slot))) {
        err_set(err, ERR_MEMORY, "tls", "no memory");
        free(client);
        return NULL;
    }
    atomic_init(&client->refs, 1);
    client->verify = options->verify;
    client->h2_only = options->alpn == TLS_ALPN_H2;
    client->server_name = options->server_name.n ? str_dup(options->server_name) : NULL;
    if (setup(client, options, err))
        return client;
    tls_client_unref(client);
    return NULL;
}

bool tls_client_same(const struct tls_client *a, const struct tls_client *b)
{
    if (!a || !b)
        return a == b;
    bool same_name = a->server_name && b->server_name ? strcmp(a->server_name, b->server_name) == 0
                                                      : a->server_name == b->server_name;
    return same_name && a->h2_only == b->h2_only && memcmp(a->policy, b->policy, sizeof a->policy) == 0;
}

struct tls_client *tls_client_ref(struct tls_client *client)
{
    atomic_fetch_add_explicit(&client->refs, 1, memory_order_relaxed);
    return client;
}

void tls_client_unref(struct tls_client *client)
{
    if (!client || atomic_fetch_sub_explicit(&client->refs, 1, memory_order_acq_rel) != 1)
        return;
    SSL_CTX_free(client->context);
    free(client->server_name);
    free(client);
}

// ---- a connection ----

static bool is_ip(const char *name)
{
    struct in6_addr ip;
    return inet_pton(AF_INET, name, &ip) == 1 || inet_pton(AF_INET6, name, &ip) == 1;
}

// Whom the certificate must name. An address is not sent as SNI (RFC 6066 3).
static bool set_name(const struct tls_client *client, SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (is_ip(name))
        return !client->verify || X509_VERIFY_PARAM_set1_ip_asc(param, name);
    // Alternative names alone name a server (RFC 9110 4.3.4).
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set_tlsext_host_name(ssl, name) &&
           (!client->verify || X509_VERIFY_PARAM_set1_host(param, name, 0));
}

// A session stands for what was verified when it was made: it is resumed under the same policy, for the same
// name.
static bool set_session(const struct tls_client *client, SSL *ssl, struct str name, SSL_SESSION *session)
{
    uint8_t text[TLS_DIGEST + TLS_NAME], digest[EVP_MAX_MD_SIZE];
    unsigned n;
    memcpy(text, client->policy, TLS_DIGEST);
    memcpy(text + TLS_DIGEST, name.p, name.n);
    if (!EVP_Digest(text, TLS_DIGEST + name.n, digest, &n, client->slot->sha256, NULL) ||
        !SSL_set_session_id_context(ssl, digest, n))
        return false;
    if (!session)
        return true;
    unsigned before_n;
    const unsigned char *before = SSL_SESSION_get0_id_context(session, &before_n);
    if (before_n != n || memcmp(before, digest, n) != 0)
        return true;
    return SSL_set_session(ssl, session);
}

static struct str without_brackets(struct str host)
{
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        return (struct str){host.p + 1, host.n - 2};
    return host;
}

SSL *tls_client_ssl(struct tls_client *client, struct str host, const struct tls_session *session)
{
    char name[TLS_NAME + 1];
    struct str normal;
    struct str wanted = client->server_name ? str_of(client->server_name) : without_brackets(host);
    if (!tls_name_normalize(wanted, name, &normal) || !normal.n)
        return NULL;
    name[normal.n] = 0;
    SSL *ssl = SSL_new(client->context);
    if (ssl && set_name(client, ssl, name) &&
        set_session(client, ssl, normal, session ? session->session : NULL))
        return ssl;
    SSL_free(ssl);
    ERR_clear_error();
    return NULL;
}
