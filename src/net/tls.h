// TLS over a connection (RFC 8446, RFC 5246): contexts made by the control thread, and the second row of
// struct transport.
//
//   struct tls_server   a listener's side: certificates by name, policy      made for one slot
//   struct tls_client   an upstream's side: what is trusted, own certificate  made for one slot
//   struct tls          one connection's state, conn->tls
//
// OpenSSL 3.0 threads that share a library context contend for its locks, so there is a library context for
// each slot: slot 0 is the control thread's, worker n's is n + 1. What was made for a slot is used on that
// thread's loop.
//
// OpenSSL shakes hands. What follows on a client's TLS 1.3 connection is read and written by tls_records.c,
// in a twentieth of the memory; TLS 1.2 and connections to upstreams go on with OpenSSL.
//
// Policy (Mozilla "intermediate", 5.7): TLS 1.2 and 1.3; ECDHE with AES-GCM or ChaCha20-Poly1305; X25519,
// P-256, P-384; our order of ciphers, AES-128 first, but ChaCha20 for who prefers it; no compression, no
// renegotiation, no early data. Sessions are resumed by stateless tickets (RFC 5077, RFC 8446 4.6.1): sealed
// with keys that every worker derives from one secret for each hour, so a session lives through reloads,
// upgrades and other workers.
#pragma once

#include "base/arena.h"
#include "net/conn.h"

enum {
    TLS_SLOT_CONTROL = 0,
    TLS_SECRET_BYTES = 32,
    TLS_TICKET_HOURS = 1,           // after which new tickets are sealed with another key
    TLS_TICKET_KEPT = 24,           // so many older keys still open tickets
    TLS_CLIENT_HELLO_BYTES = 16384, // a longer ClientHello ends the connection
    TLS_CHAIN_DEPTH = 8,            // of a peer's certificate chain
};

// What is spoken inside, by ALPN (RFC 7301). Bits, in the order of our preference.
enum tls_alpn { TLS_ALPN_NONE = 0, TLS_ALPN_H2 = 1, TLS_ALPN_HTTP1 = 2 };

enum tls_version { TLS_1_2, TLS_1_3 };
enum tls_client_auth { TLS_CLIENT_AUTH_NONE, TLS_CLIENT_AUTH_OPTIONAL, TLS_CLIENT_AUTH_REQUIRE };

struct tls_certificate_files {
    struct str cert; // PEM: the certificate, then its chain
    struct str key;  // PEM, not encrypted
    struct str ocsp; // DER, stapled (RFC 6066 8) while it is valid; n == 0: none
};

// ---- process-wide, before any thread ----

// The secret that ticket keys are derived from; the same for processes that follow each other. Called once,
// before any context is made (else a random one is taken).
void tls_set_secret(const uint8_t secret[TLS_SECRET_BYTES]);

// ---- slots ----

// The library context (OSSL_LIB_CTX) of a slot, for other cryptography on its thread: token_verifier_new.
// Lives as long as the process. NULL: memory is out.
void *tls_library(unsigned slot);

// ---- certificates: any thread ----

struct tls_certificate_info {
    struct str name;               // the first DNS name, else the common name
    int64_t not_before, not_after; // Unix seconds, of the certificate itself
    int64_t ocsp_until;            // end of the OCSP response's validity; 0: none
    const char *algorithm;         // of its key: "rsa", "rsa-pss", "ecdsa", "eddsa"
};

// Where the files are read: `get` knows what is in one of them, or says false, and it is read from disk.
// NULL: all are. While a configuration is compiled, so that every context is made of the same bytes. For
// this thread.
void tls_read_from(bool (*get)(const void *context, struct str path, struct str *content),
                   const void *context);

// Reads the files and checks them: readable, parsable, the key fits, the OCSP response is about this
// certificate, not expired. ERR_NOT_FOUND, ERR_INVALID with err->where = the file and err->what = why; of one
// that has expired and has no other mistake, *info is told all the same. Strings of *info are in arena.
must_check enum err_code tls_certificate_check(const struct tls_certificate_files *files, struct arena *arena,
                                               struct tls_certificate_info *info, struct err *err);
// The same for a file of CA certificates ("system": the system's store): at least one is in it.
must_check enum err_code tls_ca_check(struct str path, struct err *err);

// ---- the server's side ----

struct tls_server; // reference-counted; any thread may drop its reference

struct tls_server_options {
    const struct tls_certificate_files *certificates; // the first is the fallback
    uint32_t certificate_count;
    struct str client_ca; // path; n == 0: none
    enum tls_client_auth client_auth;
    enum tls_version min_version;
    bool strict_sni; // an unknown name ends the handshake (unrecognized_name) instead of getting the first
                     // certificate
    unsigned alpn;   // TLS_ALPN_* bits. A client that offers only others is refused (no_application_protocol)
    struct str
        name; // the listener's; with client_ca and client_auth it bounds where a session can be resumed
    bool allow_expired; // a worker process that comes back after a crash serves what was accepted once
};

// Control thread. Reads the files. NULL and *err (where: the file) on failure. One reference is the caller's.
struct tls_server *tls_server_new(unsigned slot, const struct tls_server_options *options, struct err *err);
struct tls_server *tls_server_ref(struct tls_server *server);
void tls_server_unref(struct tls_server *server); // NULL is harmless
// Whether a connection that asked for `sni` may ask for `host`: both get the same certificates (RFC 9110 7.4:
// else 421).
bool tls_server_same_site(const struct tls_server *server, struct str sni, struct str host);

// ---- the client's side ----

struct tls_client; // reference-counted; any thread may drop its reference

struct tls_client_options {
    struct str ca;          // path or "system"
    struct str server_name; // sent as SNI and checked; n == 0: the target's host
    bool verify;
    struct str cert, key; // our own; n == 0: none
    unsigned alpn;        // what is offered; one that is h2 alone must be agreed on
};

struct tls_client *tls_client_new(unsigned slot, const struct tls_client_options *options, struct err *err);
struct tls_client *tls_client_ref(struct tls_client *client);
void tls_client_unref(struct tls_client *client); // NULL is harmless
// Whether both trust the same, check the same name and show the same certificate: connections and sessions of
// one are as good for the other. NULL is plain.
bool tls_client_same(const struct tls_client *a, const struct tls_client *b);

// The last session with one peer, to be resumed. Zero it; must outlive the connections that were given it.
struct tls_session {
    void *session;
};
void tls_session_fini(struct tls_session *session);

// ---- a connection ----

// Begins TLS on an open (or connected) plain connection: from now on bytes go through it.
// conn->events->on_secured reports, from the loop; on_ready is not called before. early: what the peer has
// said already (behind a PROXY header); copied. False: memory is out.
must_check bool tls_accept(struct conn *conn, struct tls_server *server, struct str early);
// host: of the target, without port; an IP address is checked as one and not sent as SNI. session may be
// NULL.
must_check bool tls_connect(struct conn *conn, struct tls_client *client, struct str host,
                            struct tls_session *session);

// What was agreed; valid while the connection is open.
struct tls_facts {
    enum tls_alpn alpn;
    struct str version, cipher; // "TLSv1.3", "TLS_AES_128_GCM_SHA256"; static
    struct str server_name;     // SNI, lower case; n == 0: none
    bool resumed;
    // The client's verified certificate; n == 0: none was given.
    struct str client_subject;     // RFC 2253
    struct str client_fingerprint; // SHA-256 of the certificate, lower-case hex
    struct str client_sans; // "DNS=a.example,URI=spiffe://x/y,email=…,IP=…", percent-encoded where it must be
};
// NULL: plain, or the handshake is not complete.
const struct tls_facts *tls_facts(const struct conn *conn);
// Why the handshake or the connection failed, for the log; static or owned by the connection.
const char *tls_failure(const struct conn *conn);
