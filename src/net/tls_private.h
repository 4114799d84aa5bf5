// What the files of net/tls*.c share: a slot's OpenSSL objects, loaded certificates, one connection's state.
#pragma once

#include "base/map.h"
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>

enum {
    TLS_SLOTS = 1024,               // more than there can be workers, and the control thread
    TLS_DIGEST = 32,                // bytes of SHA-256
    TLS_SECRET_MAX = 48,            // bytes of a traffic secret: of SHA-384
    TLS_FLIGHT = 4096,              // read at once during a handshake
    TLS_RECORD = 16384,             // bytes of plaintext (RFC 8446 5.1)
    TLS_NAME = 255,                 // bytes of a host name
    TLS_NAME_ROOM = 256,            // for one, in whole vectors
    TLS_FILE_BYTES = 16 << 20,      // a longer certificate or CA file is a mistake
    TLS_IDENTITY_BYTES = 16 * 1024, // subject and names of a client's certificate, printed
};

// ---- slots (tls_context.c) ----

enum tls_suite { TLS_SUITE_AES128, TLS_SUITE_AES256, TLS_SUITE_CHACHA20, TLS_SUITES };

struct tls_aead {
    EVP_CIPHER_CTX *context;
    uint64_t key_id; // whose key it holds; 0: nobody's
};

struct tls_ticket_key {
    uint64_t epoch; // hours since 1970, in steps of TLS_TICKET_HOURS
    uint8_t name[16], cipher[32], mac[32];
};

// One thread's OpenSSL: what is needed for each connection is fetched once.
struct tls_slot {
    OSSL_LIB_CTX *library;
    EVP_MD *sha256, *sha384;
    EVP_CIPHER *ticket_cipher;
    // For tls_records.c.
    EVP_MD_CTX *hash;
    struct tls_aead aead[TLS_SUITES][2]; // opening, sealing
    uint64_t last_key_id;
    uint8_t *inbox, *outbox;
    X509_STORE *system;                              // loaded when it is first asked for
    struct tls_ticket_key keys[TLS_TICKET_KEPT + 2]; // by epoch, derived when first needed; the slot's thread
};

// Made on demand and kept. NULL: memory is out.
struct tls_slot *tls_slot_get(unsigned slot);
// A context with the policy that both sides share. NULL and *err on failure.
SSL_CTX *tls_context_new(struct tls_slot *slot, const SSL_METHOD *method, struct err *err);
// The trusted certificates of a file or "system". The reference is the caller's. digest, when not NULL, gets
// a hash of them. NULL and *err on failure.
X509_STORE *tls_store_new(struct tls_slot *slot, struct str path, uint8_t digest[TLS_DIGEST],
                          struct err *err);
// The subjects in a CA file, for what a server tells its clients it accepts.
STACK_OF(X509_NAME) * tls_store_subjects(X509_STORE *store);
void tls_secret_copy(uint8_t secret[TLS_SECRET_BYTES]);
// Why OpenSSL refused, from its error queue, which is emptied.
const char *tls_words(void);

// ---- certificates (tls_certificate.c) ----

enum tls_key_kind { TLS_KEY_RSA, TLS_KEY_RSA_PSS, TLS_KEY_ECDSA, TLS_KEY_EDDSA, TLS_KEY_KINDS };

struct tls_certificate {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    enum tls_key_kind kind;
    uint8_t *ocsp; // DER, NULL: none
    size_t ocsp_n;
    int64_t ocsp_from, ocsp_until; // Unix seconds
};

must_check enum err_code tls_certificate_load(struct tls_slot *slot,
                                              const struct tls_certificate_files *files, bool allow_expired,
                                              struct tls_certificate *certificate, struct err *err);
void tls_certificate_fini(struct tls_certificate *certificate);
// Each name the certificate is for, lower case, no final dot: DNS names, else the common name.
void tls_certificate_names(X509 *leaf, void (*on_name)(void *arg, struct str name), void *arg);
// Lower case without a final dot. False: it is longer than out.
bool tls_name_normalize(struct str name, char out[TLS_NAME_ROOM], struct str *normal);
// Reads a whole file; free() *data. ERR_NOT_FOUND, ERR_INVALID or ERR_MEMORY with the path in *err.
must_check enum err_code tls_file_read(struct str path, uint8_t **data, size_t *n, struct err *err);
// All PEM certificates in data. NULL and *err when there is none or one is broken.
STACK_OF(X509) * tls_certificates_parse(struct tls_slot *slot, const char *path, const void *data, size_t n,
                                        struct err *err);

// ---- tickets (tls_tickets.c) ----

void tls_tickets_setup(SSL_CTX *context);

// ---- sides ----

struct tls_server {
    atomic_uint refs;
    struct tls_slot *slot;
    struct tls_certificate *certificates;
    uint32_t certificate_count, set_count;
    struct tls_set *sets; // the first is the fallback
    struct map names;     // exact, and "*.parent": → struct tls_set
    struct arena arena;   // sets, certificates, names
    bool strict_sni;
    unsigned alpn;
};

struct tls_client {
    atomic_uint refs;
    struct tls_slot *slot;
    SSL_CTX *context;
    char *server_name; // NULL: the target's host
    bool verify, h2_only;
    uint8_t policy[TLS_DIGEST]; // what a session was made under
};

SSL *tls_server_ssl(struct tls_server *server);
// An SSL that will check host; offers *session when it was made under the same policy for the same name. NULL
// when memory is out or the name is too long.
SSL *tls_client_ssl(struct tls_client *client, struct str host, const struct tls_session *session);

// ---- a connection (tls.c) ----

// From OpenSSL's handshake, for tls_records.c.
struct tls_secrets {
    uint8_t client[TLS_SECRET_MAX], server[TLS_SECRET_MAX];
    uint8_t client_n, server_n; // 0: not yet
    uint8_t sealed;             // records that OpenSSL sealed with the server's: tickets
};

// What is needed until the handshake is over.
struct tls_handshake {
    struct loop_late late; // begins it, or goes on with it, when no edge of the socket will
    struct conn *conn;
    SSL_SESSION *offered; // a reference
    struct tls_secrets secrets;
    // The header of the present record, and of the first handshake message of a flight, as far as they have
    // been seen.
    uint8_t record[5], record_n, message[4], message_n;
    uint16_t record_left; // of its body
    bool began;           // a byte has come
    bool plain_http;      // it was no TLS at all
    bool too_long;        // a ClientHello beyond TLS_CLIENT_HELLO_BYTES
    // From a client: what has been read. OpenSSL gets it a record at a time, so that what follows the
    // handshake is still here.
    size_t in_at, in_n, in_size;
    uint8_t in[];
};

// Bytes that were read during the handshake and follow it.
struct tls_left {
    size_t at, n;
    uint8_t bytes[];
};

struct tls {
    SSL *ssl;                    // one of the two
    struct tls_records *records; // a server's, of TLS 1.3, after the handshake
    struct tls_server *server;   // one of the two
    struct tls_client *client;
    struct tls_session *session;
    struct tls_handshake *handshake; // NULL: it is over
    struct tls_left *left;           // NULL: nothing
    struct tls_facts *facts;
    const char *failure;
    uint16_t retry; // bytes of the record that OpenSSL holds and the kernel had no room for
    bool socket_readable;
    bool end_of_socket;    // the peer's FIN has been read
    bool complete;         // the handshake succeeded
    bool failed;           // nothing more can be received
    bool send_failed;      // nothing more can be sent
    bool recv_wants_room;  // receiving waits for room to send (a key update)
    bool send_wants_bytes; // sending waits for the rest of a post-handshake message
    bool shutdown_due;     // close_notify waits for room
};

// Where sendv has got to in its spans.
struct tls_spans {
    const struct iovec *iov;
    int count;
    size_t at; // in the first
};

static inline void tls_spans_skip(struct tls_spans *spans, size_t n)
{
    spans->at += n;
    while (spans->count && spans->at >= spans->iov->iov_len) {
        spans->at -= spans->iov->iov_len;
        spans->iov++;
        spans->count--;
    }
}

// Bytes to go, at most max.
static inline size_t tls_spans_length(const struct tls_spans *spans, size_t max)
{
    size_t n = 0;
    for (int i = 0; i < spans->count && n < max; i++)
        n += spans->iov[i].iov_len - (i ? 0 : spans->at);
    return n < max ? n : max;
}

// recv(2); a short read says that the socket is empty.
ssize_t tls_socket_recv(struct conn *conn, void *data, size_t n);
void tls_on_free(struct conn *conn); // of both transports
// The connection an SSL belongs to.
struct conn *tls_conn_of(const SSL *ssl);
// What was agreed, allocated in one piece. NULL: memory is out, or the client's identity is too long.
struct tls_facts *tls_facts_new(SSL *ssl, struct tls_slot *slot, bool is_server);

// ---- records without OpenSSL's connection (tls_records.c) ----

must_check bool tls_records_setup(struct tls_slot *slot);
void tls_records_teardown(struct tls_slot *slot);
// Takes over after a complete handshake; early: what has been read of the records that follow. False: it
// cannot (TLS 1.2, or memory is out); nothing has changed.
must_check bool tls_records_begin(struct conn *conn, struct tls_slot *slot, const struct tls_secrets *secrets,
                                  const uint8_t *early, size_t early_n);
void tls_records_free(struct tls_records *records);
