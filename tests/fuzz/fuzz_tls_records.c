// The record layer of TLS 1.3 behind a handshake (net/tls_records.c): a peer that holds the keys says what it
// likes.
//
// The input is a list of orders: bytes as they are, a record sealed with the peer's key (any inner type, any
// padding), a read of some size, a write. What must hold: data arrives whole and in order, whatever the
// records and reads are cut to; after the end or a failure nothing more does; nothing is read or written out
// of bounds.
#include "net/tls_private.h"

#include <openssl/kdf.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PLAIN_MAX = 1 << 20, READ_MAX = 20000, DATA = 23 };

static struct loop loop;
static struct tls_slot *slot;
static struct tls_secrets secrets = {.client_n = 32, .server_n = 32};
static SSL *shaken; // says TLS 1.3 and AES-128-GCM; its keys are not used

struct side {
    uint8_t key[16], iv[12];
    uint64_t sequence;
};

static void expand(const char *label, uint8_t *out, size_t n)
{
    uint8_t info[64] = {0, (uint8_t)n, (uint8_t)(strlen(label) + 6)};
    size_t m = 3;
    memcpy(info + m, "tls13 ", 6);
    memcpy(info + m + 6, label, strlen(label));
    m += 6 + strlen(label) + 1;
    EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(hkdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", (char[]){"SHA256"}, 0),
                           OSSL_PARAM_construct_octet_string("key", secrets.client, 32),
                           OSSL_PARAM_construct_octet_string("info", info, m),
                           OSSL_PARAM_construct_int("mode", &mode), OSSL_PARAM_construct_end()};
    check(EVP_KDF_derive(context, out, n, params) > 0);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(hkdf);
}

static void use_own_certificate(SSL_CTX *server)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *leaf = X509_new();
    check(X509_gmtime_adj(X509_getm_notBefore(leaf), 0) && X509_gmtime_adj(X509_getm_notAfter(leaf), 3600) &&
          X509_set_pubkey(leaf, key) && X509_sign(leaf, key, EVP_sha256()) &&
          SSL_CTX_use_certificate(server, leaf) && SSL_CTX_use_PrivateKey(server, key));
    X509_free(leaf);
    EVP_PKEY_free(key);
}

// Two SSLs in memory.
static void shake(void)
{
    SSL_CTX *server = SSL_CTX_new(TLS_server_method()), *client = SSL_CTX_new(TLS_client_method());
    use_own_certificate(server);
    check(SSL_CTX_set_ciphersuites(client, "TLS_AES_128_GCM_SHA256"));
    SSL *peer = SSL_new(client);
    shaken = SSL_new(server);
    BIO *up = BIO_new(BIO_s_mem()), *down = BIO_new(BIO_s_mem());
    check(BIO_up_ref(up) && BIO_up_ref(down));
    SSL_set_bio(shaken, up, down);
    SSL_set_bio(peer, down, up);
    SSL_set_accept_state(shaken);
    SSL_set_connect_state(peer);
    for (unsigned i = 0; i < 4; i++) {
        SSL_do_handshake(peer);
        SSL_do_handshake(shaken);
    }
    check(SSL_is_init_finished(shaken) && SSL_version(shaken) == TLS1_3_VERSION);
    SSL_free(peer);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err;
    (void)argc;
    (void)argv;
    check(loop_init(&loop, &err) == ERR_OK);
    slot = tls_slot_get(1);
    check(slot);
    for (uint8_t i = 0; i < 32; i++) {
        secrets.client[i] = i;
        secrets.server[i] = (uint8_t)~i;
    }
    shake();
    return 0;
}

// ---- one connection ----

struct scene {
    struct conn conn;
    struct side peer;
    int fd;        // the peer's
    uint8_t *said; // data that the peer has sealed, in order
    size_t said_n, heard_n;
    bool honest; // nothing was sent yet that ends the connection
    bool over;   // recv has said the end, or failed
};

static void on_nothing(struct conn *conn)
{
    (void)conn;
}

static const struct conn_events events = {.on_ready = on_nothing, .on_free = on_nothing};

static void write_raw(struct scene *scene, const void *data, size_t n)
{
    if (send(scene->fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
        scene->honest = false; // cut by a full socket, or by a gateway that has gone
}

static void write_sealed(struct scene *scene, uint8_t type, const uint8_t *data, size_t n, size_t padding)
{
    static uint8_t inner[PLAIN_MAX + 1 + 256], out[5 + sizeof inner + 16];
    uint8_t nonce[12];
    int m;
    memcpy(inner, data, n);
    inner[n] = type;
    memset(inner + n + 1, 0, padding);
    size_t all = n + 1 + padding;
    memcpy(nonce, scene->peer.iv, sizeof nonce);
    for (size_t i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(scene->peer.sequence >> 8 * i);
    scene->peer.sequence++;
    const uint8_t header[] = {DATA, 3, 3, (uint8_t)((all + 16) >> 8), (uint8_t)(all + 16)};
    memcpy(out, header, sizeof header);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    check(EVP_EncryptInit_ex2(context, EVP_aes_128_gcm(), scene->peer.key, nonce, NULL) &&
          EVP_EncryptUpdate(context, NULL, &m, header, sizeof header) &&
          EVP_EncryptUpdate(context, out + 5, &m, inner, (int)all) &&
          EVP_EncryptFinal_ex(context, out + 5 + all, &m) &&
          EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, out + 5 + all));
    EVP_CIPHER_CTX_free(context);
    write_raw(scene, out, 5 + all + 16);
    if (type == DATA && scene->honest && scene->said_n + n <= PLAIN_MAX) {
        memcpy(scene->said + scene->said_n, data, n);
        scene->said_n += n;
    } else {
        scene->honest = false; // whatever it is, no more is promised
    }
}

static void take(struct scene *scene, size_t room)
{
    static uint8_t data[READ_MAX];
    ssize_t n = conn_recv(&scene->conn, data, room);
    if (scene->over)
        check(n <= 0);
    scene->over |= n == 0 || n == CONN_FAILED;
    if (n <= 0)
        return;
    check((size_t)n <= room);
    size_t known = scene->said_n - scene->heard_n;
    check(memcmp(scene->said + scene->heard_n, data, (size_t)n < known ? (size_t)n : known) == 0);
    check((size_t)n <= known || !scene->honest);
    scene->heard_n += (size_t)n < known ? (size_t)n : known;
}

static void give(struct scene *scene, size_t n)
{
    static uint8_t data[70000];
    struct iovec iov[] = {{data, n / 3}, {data + n / 3, n - n / 3}};
    while (scene->conn.tls->records && conn_sendv(&scene->conn, iov, 2) == CONN_AGAIN && scene->conn.writable)
        ;
    static uint8_t sink[1 << 16];
    while (recv(scene->fd, sink, sizeof sink, MSG_DONTWAIT) > 0)
        ;
}

static void obey(struct scene *scene, const uint8_t *data, size_t n)
{
    enum order { RAW, RECORD, RECEIVE, SEND, ORDERS };
    while (n >= 4) {
        size_t length = (size_t)data[1] << 8 | data[2], there = n - 4 < length ? n - 4 : length;
        uint8_t detail = data[3];
        enum order order = (enum order)(data[0] % ORDERS);
        data += 4;
        n -= 4;
        switch (order) {
        case RAW:
            write_raw(scene, data, there);
            scene->honest &= there == 0;
            break;
        case RECORD:
            write_sealed(scene, detail & 0x80 ? detail & 0x7f : DATA, data, there, detail & 0x3f);
            break;
        case RECEIVE: take(scene, length % READ_MAX + 1); continue;
        case SEND: give(scene, length + 1); continue;
        case ORDERS: break;
        }
        data += there;
        n -= there;
        loop_turn(&loop, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct scene scene = {.honest = true, .said = malloc(PLAIN_MAX)};
    int fds[2];
    check(scene.said && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    scene.fd = fds[0];
    check(conn_open(&scene.conn, &loop, fds[1], &events));
    struct tls *tls = calloc(1, sizeof *tls);
    check(tls);
    tls->ssl = shaken;
    tls->complete = true;
    scene.conn.tls = tls;
    expand("key", scene.peer.key, sizeof scene.peer.key);
    expand("iv", scene.peer.iv, sizeof scene.peer.iv);
    check(tls_records_begin(&scene.conn, slot, &secrets, NULL, 0));
    tls->ssl = NULL;
    obey(&scene, data, n);
    if (scene.honest) { // all that was said can be heard
        loop_turn(&loop, 0);
        for (size_t i = 0; i <= scene.said_n && scene.heard_n < scene.said_n && !scene.over; i++)
            take(&scene, READ_MAX);
        check(scene.heard_n == scene.said_n || scene.over);
    }
    conn_close(&scene.conn);
    loop_turn(&loop, 0);
    close(scene.fd);
    free(scene.said);
    return 0;
}
