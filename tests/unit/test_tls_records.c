// The records of TLS 1.3 after the handshake, against OpenSSL's and against forged ones: what a client may
// say and what ends the connection (RFC 8446 5 and 4.6.3).
#include "test_tls_fixture.h"

#include <openssl/kdf.h>

static struct made ca, leaf;
static struct tls_certificate_files files;
static struct tls_server *server;

static int setup(void **state)
{
    struct err err = {0};
    if (fixture_setup(state))
        return -1;
    ca = make_ca("Test CA");
    leaf = make_leaf("a.example", "DNS:a.example", &ca);
    files = write_made("a", &leaf);
    server =
        tls_server_new(1, &(struct tls_server_options){.certificates = &files, .certificate_count = 1}, &err);
    return server ? 0 : -1;
}

static int teardown(void **state)
{
    tls_server_unref(server);
    made_free(&leaf);
    made_free(&ca);
    return fixture_teardown(state);
}

// ---- a client that forges ----

struct forger {
    uint8_t secret[32], key[16], iv[12];
    uint64_t sequence;
};

static struct forger forger;

static void note_secret(const SSL *ssl, const char *line)
{
    static const char label[] = "CLIENT_TRAFFIC_SECRET_0 ";
    (void)ssl;
    if (strncmp(line, label, sizeof label - 1) != 0)
        return;
    const char *hex = strrchr(line, ' ') + 1;
    for (size_t i = 0; i < sizeof forger.secret; i++)
        assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &forger.secret[i]), 1);
}

static void expand(const char *label, uint8_t *out, size_t n)
{
    uint8_t info[64];
    size_t m = (size_t)snprintf((char *)info, sizeof info, "%c%c%ctls13 %s%c", 0, (int)n,
                                (int)strlen(label) + 6, label, 0);
    EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(hkdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", (char[]){"SHA256"}, 0),
                           OSSL_PARAM_construct_octet_string("key", forger.secret, sizeof forger.secret),
                           OSSL_PARAM_construct_octet_string("info", info, m),
                           OSSL_PARAM_construct_int("mode", &mode), OSSL_PARAM_construct_end()};
    assert_true(EVP_KDF_derive(context, out, n, params) > 0);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(hkdf);
}

static void forge_keys(void)
{
    forger.sequence = 0;
    expand("key", forger.key, sizeof forger.key);
    expand("iv", forger.iv, sizeof forger.iv);
}

// Seals inner (with its type behind it) and sends it.
static void forge(struct pair *pair, const void *inner, size_t n)
{
    static uint8_t out[5 + 17000 + 16];
    uint8_t nonce[12];
    int m;
    memcpy(nonce, forger.iv, sizeof nonce);
    for (size_t i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(forger.sequence >> 8 * i);
    forger.sequence++;
    const uint8_t header[] = {23, 3, 3, (uint8_t)((n + 16) >> 8), (uint8_t)(n + 16)};
    memcpy(out, header, 5);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex2(context, EVP_aes_128_gcm(), forger.key, nonce, NULL);
    EVP_EncryptUpdate(context, NULL, &m, header, 5);
    EVP_EncryptUpdate(context, out + 5, &m, inner, (int)n);
    EVP_EncryptFinal_ex(context, out + 5 + n, &m);
    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, out + 5 + n);
    EVP_CIPHER_CTX_free(context);
    peer_write_raw(pair, out, 5 + n + 16);
}

static void open_with(struct pair *pair, const char *suite, const SSL_METHOD *method, size_t chunk)
{
    SSL_CTX *context = peer_context(method);
    SSL_CTX_set_keylog_callback(context, note_secret);
    assert_int_equal(SSL_CTX_set_ciphersuites(context, suite), 1);
    pair_open(pair);
    pair->peer.chunk = chunk;
    assert_true(tls_accept(&pair->side.conn, server, STR_NULL));
    peer_begin(pair, context, true);
    assert_true(pair_shake(pair));
    SSL_CTX_free(context);
}

static void open_forged(struct pair *pair)
{
    open_with(pair, "TLS_AES_128_GCM_SHA256", TLS_client_method(), 0);
    forge_keys();
}

static void test_every_suite(void **state)
{
    (void)state;
    static const char *const suites[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                         "TLS_CHACHA20_POLY1305_SHA256"};
    struct pair pairs[countof(suites)];
    for (size_t i = 0; i < countof(suites); i++) {
        open_with(&pairs[i], suites[i], TLS_client_method(), 0);
        assert_true(str_eq(tls_facts(&pairs[i].side.conn)->cipher, str_of(suites[i])));
    }
    for (unsigned round = 0; round < 5; round++) // they take turns, with the same contexts of the slot
        for (size_t i = 0; i < countof(suites); i++) {
            char data[16];
            ssize_t last;
            peer_say(&pairs[i], "question", 8);
            assert_int_equal(side_take(&pairs[i], data, 8, &last), 8);
            assert_memory_equal(data, "question", 8);
            struct iovec iov[] = {{(char[]){"an "}, 3}, {(char[]){"answer"}, 6}};
            assert_int_equal(conn_sendv(&pairs[i].side.conn, iov, 2), 9);
            assert_int_equal(peer_take(&pairs[i], data, 9), 9);
            assert_memory_equal(data, "an answer", 9);
        }
    for (size_t i = 0; i < countof(suites); i++)
        pair_close(&pairs[i]);
}

// The request comes with the end of the handshake: it is there when on_secured has been called.
static void test_data_behind_the_handshake(void **state)
{
    (void)state;
    static const size_t chunks[] = {0, 1, 7, 100};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static SSL_SESSION *session; // a resumed TLS 1.2 handshake ends with the client
    for (size_t v = 0; v < countof(versions); v++)
        for (size_t i = 0; i < countof(chunks); i++) {
            SSL_CTX *context = peer_context(TLS_client_method());
            struct pair pair;
            char data[32];
            ssize_t last;
            SSL_CTX_set_max_proto_version(context, versions[v]);
            pair_open(&pair);
            pair.peer.chunk = chunks[i];
            assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
            peer_begin(&pair, context, true);
            if (session && versions[v] == TLS1_2_VERSION)
                SSL_set_session(pair.peer.ssl, session);
            while (SSL_do_handshake(pair.peer.ssl) != 1)
                peer_pump(&pair);
            assert_int_equal(SSL_write(pair.peer.ssl, "GET /", 5), 5);
            assert_int_equal(SSL_write(pair.peer.ssl, " HTTP/1.1\r\n", 11), 11);
            peer_pump(&pair);
            assert_int_equal(pair.side.secured, SECURED);
            assert_int_equal(side_take(&pair, data, 16, &last), 16);
            assert_memory_equal(data, "GET / HTTP/1.1\r\n", 16);
            assert_true(pair.side.ready > 0);
            if (versions[v] == TLS1_2_VERSION && !session)
                session = SSL_get1_session(pair.peer.ssl);
            else if (versions[v] == TLS1_2_VERSION)
                assert_true(tls_facts(&pair.side.conn)->resumed);
            SSL_set_shutdown(pair.peer.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); // else it is no use
            pair_close(&pair);
            SSL_CTX_free(context);
        }
    SSL_SESSION_free(session);
    session = NULL;
}

// Records of every size into memory of every size, with padding and without, however the network cuts them.
static void test_reads_of_any_size(void **state)
{
    (void)state;
    enum { TOTAL = 120000 };
    static const size_t rooms[] = {1, 2, 17, 1000, 16384, 20000}, chunks[] = {0, 3, 1000, 16405};
    char *text = malloc(TOTAL), *got = malloc(TOTAL + 20000);
    for (size_t i = 0; i < TOTAL; i++)
        text[i] = (char)(i * 31 >> 3);
    for (size_t r = 0; r < countof(rooms); r++)
        for (size_t c = 0; c < countof(chunks); c++) {
            struct pair pair;
            open_with(&pair, "TLS_AES_128_GCM_SHA256", TLS_client_method(), 0);
            pair.peer.chunk = chunks[c];
            if (r & 1)
                SSL_set_block_padding(pair.peer.ssl, 512);
            size_t said = 0, heard = 0, part = 1, limit = chunks[c] == 3 ? 20000 : TOTAL;
            size_t most = chunks[c] == 3 ? 200 : 16384; // pieces fill the socket before their bytes do
            uint64_t deadline = fixture_deadline();
            while (heard < limit && clock_monotonic_us() < deadline) {
                if (said < limit && said < heard + 2 * most) {
                    size_t n = limit - said < part ? limit - said : part;
                    assert_int_equal(SSL_write(pair.peer.ssl, text + said, (int)n), n);
                    said += n;
                    part = part * 5 % most + 1;
                }
                peer_pump(&pair);
                while (pair.side.conn.readable) {
                    ssize_t n = conn_recv(&pair.side.conn, got + heard, rooms[r]);
                    if (n == CONN_AGAIN)
                        break;
                    assert_true(n > 0 && (size_t)n <= rooms[r]);
                    heard += (size_t)n;
                }
            }
            assert_int_equal(heard, limit);
            assert_memory_equal(got, text, limit);
            pair_close(&pair);
        }
    free(got);
    free(text);
}

static void expect_failure(struct pair *pair, const char *why, int alert)
{
    char data[64];
    ssize_t last;
    loop_turn(&pair->loop, 50);
    side_take(pair, data, sizeof data, &last);
    assert_int_equal(last, CONN_FAILED);
    assert_int_equal(pair->side.conn.error, EPROTO);
    assert_string_equal(tls_failure(&pair->side.conn), why);
    assert_int_equal(conn_recv(&pair->side.conn, data, 1), CONN_FAILED);
    assert_false(side_say(pair, "x", 1));
    if (alert) {
        peer_pump(pair);
        ERR_clear_error();
        assert_true(SSL_read(pair->peer.ssl, data, 1) <= 0);
        assert_int_equal(ERR_GET_REASON(ERR_peek_error()), alert);
    }
}

static void test_what_ends_it(void **state)
{
    (void)state;
    static const struct {
        struct str inner;
        const char *why;
        int alert; // that the peer hears; 0: none is due
    } cases[] = {
        {STR("\x16"), "an unexpected message", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("\x01\x00\x00\x02xx\x16"), "an unexpected message", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("\x18\x00\x00\x01\x02\x16"), "a bad key update", SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER},
        {STR("\x18\x00\x00\x01\x00\x18\x16"), "an unexpected message", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("\x18\x00\x00\x02\x16"), "an unexpected message", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("\x00\x00\x00"), "an unexpected record", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("x\x14"), "an unexpected record", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("x\x63"), "an unexpected record", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {STR("\x15"), "an alert of a wrong length", SSL_R_TLSV1_ALERT_DECODE_ERROR},
        {STR("\x02\x28\x00x\x15"), "an alert of a wrong length", SSL_R_TLSV1_ALERT_DECODE_ERROR},
        {STR("\x02\x28\x15"), "handshake failure", 0},
        {STR("\x01\x28\x15"), "handshake failure", 0}, // the level does not matter (RFC 8446 6)
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct pair pair;
        open_forged(&pair);
        forge(&pair, cases[i].inner.p, cases[i].inner.n);
        expect_failure(&pair, cases[i].why, cases[i].alert);
        pair_close(&pair);
    }
}

static void test_headers_that_end_it(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        const char *why;
        int alert;
    } cases[] = {
        {"\x15\x03\x03\x00\x02", "a record that is not encrypted", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {"\x14\x03\x03\x00\x01", "a record that is not encrypted", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {"GET /", "a record that is not encrypted", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE},
        {"\x17\x03\x03\x41\x01", "a record is too long", SSL_R_TLSV1_ALERT_RECORD_OVERFLOW},
        {"\x17\x03\x03\x00\x10", "a record is too short", SSL_R_SSLV3_ALERT_BAD_RECORD_MAC},
        {"\x17\x03\x03\x00\x00", "a record is too short", SSL_R_SSLV3_ALERT_BAD_RECORD_MAC},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct pair pair;
        open_forged(&pair);
        peer_write_raw(&pair, cases[i].header, 5);
        expect_failure(&pair, cases[i].why, cases[i].alert);
        pair_close(&pair);
    }
    // Longer inside than a record may be, though its sealed length is allowed (RFC 8446 5.4).
    struct pair pair;
    uint8_t *inner = calloc(1, 16384 + 2);
    open_forged(&pair);
    inner[16384 + 1] = 23;
    forge(&pair, inner, 16384 + 2);
    expect_failure(&pair, "a record is too long", SSL_R_TLSV1_ALERT_RECORD_OVERFLOW);
    pair_close(&pair);
    free(inner);
}

// The good data before it counts, what follows it does not.
static void test_data_before_a_forgery(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    open_forged(&pair);
    forge(&pair, "good\x17", 5);
    peer_write_raw(&pair, "\x17\x03\x03\x00\x14....................", 25);
    loop_turn(&pair.loop, 50);
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), 4);
    assert_memory_equal(data, "good", 4);
    expect_failure(&pair, "a record is not genuine", SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
    pair_close(&pair);
}

static void test_what_is_allowed(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    ssize_t last;
    open_forged(&pair);
    forge(&pair, "\x17", 1);             // no data
    forge(&pair, "\x17\0\0\0\0\0\0", 7); // nothing but padding
    forge(&pair, "\x01\x5a\x15", 3);     // user_canceled
    forge(&pair, "a\x17\0\0\0", 5);
    forge(&pair, "\x18\x00\x16", 3); // a key update in three pieces
    forge(&pair, "\x00\x01\x16\0", 4);
    forge(&pair, "\x00\x16", 2);
    expand("traffic upd", forger.secret, sizeof forger.secret);
    forge_keys();
    forge(&pair, "b\x17", 2);
    forge(&pair, "\x01\x00\x15", 3); // close_notify
    forge(&pair, "never\x17", 6);
    assert_int_equal(side_take(&pair, data, sizeof data, &last), 2);
    assert_memory_equal(data, "ab", 2);
    assert_int_equal(last, 0);
    assert_int_equal(conn_recv(&pair.side.conn, data, 1), 0);
    assert_true(pair.side.conn.peer_closed);
    pair_close(&pair);

    // Nothing may come between the pieces of a message (RFC 8446 5.1).
    open_forged(&pair);
    forge(&pair, "\x18\x00\x16", 3);
    forge(&pair, "a\x17", 2);
    expect_failure(&pair, "an unexpected record", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE);
    pair_close(&pair);
}

static void test_floods(void **state)
{
    (void)state;
    struct pair pair;
    open_forged(&pair);
    for (unsigned i = 0; i < 33; i++)
        forge(&pair, "\x17", 1);
    expect_failure(&pair, "too many records without data", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE);
    pair_close(&pair);

    open_forged(&pair);
    for (unsigned i = 0; i < 65; i++) {
        forge(&pair, "\x18\x00\x00\x01\x01\x16", 6);
        expand("traffic upd", forger.secret, sizeof forger.secret);
        forge_keys();
    }
    expect_failure(&pair, "too many key updates", SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE);
    pair_close(&pair);

    // With data between them they are no flood.
    char data[4];
    ssize_t last;
    open_forged(&pair);
    for (unsigned i = 0; i < 200; i++) {
        forge(&pair, "\x17", 1);
        forge(&pair, "x\x17", 2);
        assert_int_equal(side_take(&pair, data, 1, &last), 1);
    }
    pair_close(&pair);
}

// Key updates both ways, while the kernel takes less than there is.
static void test_key_updates_under_load(void **state)
{
    (void)state;
    enum { TOTAL = 5 << 20, KEPT = 150000 };
    struct pair pair;
    char *text = malloc(TOTAL), *got = malloc(TOTAL), data[16];
    open_with(&pair, "TLS_AES_256_GCM_SHA384", TLS_client_method(), 0);
    for (size_t i = 0; i < TOTAL; i++)
        text[i] = (char)(i * 7 >> 2);
    size_t sent = 0, received = 0;
    unsigned updates = 0, blocked = 0;
    uint64_t deadline = fixture_deadline();
    while (received < TOTAL && clock_monotonic_us() < deadline) {
        while (sent < TOTAL && pair.side.conn.writable) {
            size_t n = TOTAL - sent < KEPT ? TOTAL - sent : KEPT;
            ssize_t took = conn_sendv(&pair.side.conn, &(struct iovec){text + sent, n}, 1);
            assert_true(took != CONN_FAILED);
            sent += took > 0 ? (size_t)took : 0;
        }
        blocked += !pair.side.conn.writable;
        updates++;
        assert_int_equal(SSL_key_update(pair.peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(pair.peer.ssl), 1);
        peer_pump(&pair);
        if (pair.side.conn.readable)
            assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), CONN_AGAIN);
        for (int more; (more = SSL_read(pair.peer.ssl, got + received, (int)(TOTAL - received))) > 0;)
            received += (size_t)more;
    }
    assert_int_equal(received, TOTAL);
    assert_memory_equal(got, text, TOTAL);
    assert_true(updates > 10 && blocked > 2);
    free(text);
    free(got);
    pair_close(&pair);
}

// The kernel has no room for close_notify: it waits, and the FIN waits for it.
static void test_goodbye_waits_for_room(void **state)
{
    (void)state;
    struct pair pair;
    static char junk[4096];
    open_with(&pair, "TLS_AES_128_GCM_SHA256", TLS_client_method(), 0);
    while (recv(pair.peer.fd, junk, sizeof junk, 0) > 0)
        ;
    while (send(pair.side.conn.source.fd, junk, sizeof junk, MSG_NOSIGNAL) > 0)
        ;
    conn_shutdown_send(&pair.side.conn);
    assert_false(pair.side.conn.writable);
    ssize_t n, total = 0;
    uint8_t tail[64] = {0};
    uint64_t deadline = fixture_deadline();
    while ((n = recv(pair.peer.fd, junk, sizeof junk, 0)) != 0 && clock_monotonic_us() < deadline) {
        if (n < 0)
            loop_turn(&pair.loop, 1);
        else if (n >= 24)
            memcpy(tail, junk + n - 24, 24);
        total += n > 0 ? n : 0;
    }
    assert_int_equal(n, 0);
    assert_true(total % 4096 == 24);
    assert_memory_equal(tail, "\x17\x03\x03\x00\x13", 5);
    pair_close(&pair);
}

// What was sealed but not taken when the owner gives up.
static void test_closing_with_much_unsent(void **state)
{
    (void)state;
    for (unsigned abort = 0; abort < 2; abort++) {
        struct pair pair;
        char *text = calloc(1, 1 << 20);
        open_with(&pair, "TLS_AES_128_GCM_SHA256", TLS_client_method(), 0);
        while (pair.side.conn.writable)
            assert_true(conn_sendv(&pair.side.conn, &(struct iovec){text, 1 << 20}, 1) != CONN_FAILED);
        assert_int_equal(conn_sendv(&pair.side.conn, &(struct iovec){text, 1 << 20}, 1), CONN_AGAIN);
        if (abort)
            conn_abort(&pair.side.conn);
        else
            conn_close(&pair.side.conn);
        char data[4096];
        while (peer_take(&pair, data, sizeof data) == sizeof data)
            ;
        assert_false(SSL_get_shutdown(pair.peer.ssl) & SSL_RECEIVED_SHUTDOWN); // it must not look complete
        pair_close(&pair);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_suite),
        cmocka_unit_test(test_data_behind_the_handshake),
        cmocka_unit_test(test_reads_of_any_size),
        cmocka_unit_test(test_what_ends_it),
        cmocka_unit_test(test_headers_that_end_it),
        cmocka_unit_test(test_data_before_a_forgery),
        cmocka_unit_test(test_what_is_allowed),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_key_updates_under_load),
        cmocka_unit_test(test_goodbye_waits_for_room),
        cmocka_unit_test(test_closing_with_much_unsent),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
