// One TLS connection: handshakes however the bytes come, and a transport that behaves as the plain one does.
#include "test_tls_fixture.h"

#include <sys/ioctl.h>

static struct made ca, leaf;
static struct tls_certificate_files files;
static struct tls_server *server;

static struct tls_server *server_with(struct tls_server_options options)
{
    struct err err = {0};
    if (!options.certificates) {
        options.certificates = &files;
        options.certificate_count = 1;
    }
    struct tls_server *made = tls_server_new(1, &options, &err);
    if (!made)
        fail_msg("%s: %s", err.where, err.what);
    return made;
}

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    ca = make_ca("Test CA");
    leaf = make_leaf("a.example", "DNS:a.example", &ca);
    files = write_made("a", &leaf);
    server = server_with((struct tls_server_options){.alpn = TLS_ALPN_H2 | TLS_ALPN_HTTP1});
    return 0;
}

static int teardown(void **state)
{
    tls_server_unref(server);
    made_free(&leaf);
    made_free(&ca);
    return fixture_teardown(state);
}

// A connection from a client of that version, accepted and secured.
static void open_secured(struct pair *pair, int version)
{
    SSL_CTX *context = peer_context(TLS_client_method());
    SSL_CTX_set_max_proto_version(context, version);
    pair_open(pair);
    assert_true(tls_accept(&pair->side.conn, server, STR_NULL));
    peer_begin(pair, context, true);
    assert_true(pair_shake(pair));
    SSL_CTX_free(context);
}

static void test_both_versions_and_their_facts(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < countof(versions); i++) {
        struct pair pair;
        char data[16];
        ssize_t last;
        open_secured(&pair, versions[i]);
        const struct tls_facts *facts = tls_facts(&pair.side.conn);
        assert_non_null(facts);
        assert_true(str_eq(facts->version, i ? STR("TLSv1.3") : STR("TLSv1.2")));
        assert_true(str_starts(facts->cipher, STR("TLS_")));
        assert_int_equal(facts->alpn, TLS_ALPN_NONE);
        assert_false(facts->resumed);
        assert_int_equal(facts->server_name.n + facts->client_subject.n + facts->client_sans.n, 0);
        peer_say(&pair, "hello", 5);
        assert_int_equal(side_take(&pair, data, 5, &last), 5);
        assert_memory_equal(data, "hello", 5);
        assert_true(side_say(&pair, "and you", 7));
        assert_int_equal(peer_take(&pair, data, 7), 7);
        assert_memory_equal(data, "and you", 7);
        pair_close(&pair);
    }
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    char data[16];
    ssize_t last;
    pair_open(&pair);
    pair.peer.chunk = 1;
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    peer_begin(&pair, context, true);
    assert_true(pair_shake(&pair));
    peer_say(&pair, "slowly", 6);
    assert_int_equal(side_take(&pair, data, 6, &last), 6);
    assert_memory_equal(data, "slowly", 6);
    pair_close(&pair);
    SSL_CTX_free(context);
}

// The ClientHello, or any part of it, came behind a PROXY header and has been read already.
static void test_early_bytes(void **state)
{
    (void)state;
    SSL_CTX *context = peer_context(TLS_client_method());
    for (unsigned part = 0; part < 4; part++) {
        struct pair pair;
        char hello[4096];
        pair_open(&pair);
        peer_begin(&pair, context, true);
        assert_int_equal(SSL_do_handshake(pair.peer.ssl), -1);
        int n = BIO_read(SSL_get_wbio(pair.peer.ssl), hello, sizeof hello);
        assert_true(n > 10);
        size_t early = part == 0 ? 1 : part == 1 ? 7 : part == 2 ? (size_t)n - 1 : (size_t)n;
        assert_true(tls_accept(&pair.side.conn, server, (struct str){hello, early}));
        peer_write_raw(&pair, hello + early, (size_t)n - early);
        assert_int_equal(pair.side.secured_calls, 0); // nothing is called from inside
        assert_true(pair_shake(&pair));
        pair_close(&pair);
    }
    SSL_CTX_free(context);
}

// The edge came while the connection was plain: tls_accept must not wait for another.
static void test_the_hello_is_there_already(void **state)
{
    (void)state;
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    pair_open(&pair);
    peer_begin(&pair, context, true);
    assert_int_equal(SSL_do_handshake(pair.peer.ssl), -1);
    peer_pump(&pair);
    assert_true(pair.side.conn.readable);
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    assert_int_equal(pair.side.secured_calls, 0);
    pair.side.ready = 0;
    assert_true(pair_shake(&pair));
    pair_close(&pair);
    SSL_CTX_free(context);
}

static void test_alpn(void **state)
{
    (void)state;
    static const struct {
        const char *offered;
        unsigned n;
        enum tls_alpn expected;
        bool refused;
    } cases[] = {
        {"\x08http/1.1\x02h2", 12, TLS_ALPN_H2, false},
        {"\x08http/1.1", 9, TLS_ALPN_HTTP1, false},
        {"\x03"
         "foo\x08http/1.1",
         13, TLS_ALPN_HTTP1, false},
        {"\x08http/1.0\x02h3", 12, TLS_ALPN_NONE, true},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        SSL_CTX *context = peer_context(TLS_client_method());
        struct pair pair;
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)cases[i].offered, cases[i].n);
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
        peer_begin(&pair, context, true);
        assert_int_equal(pair_shake(&pair), !cases[i].refused);
        if (cases[i].refused) {
            assert_int_equal(pair.side.secured, SECURE_FAILED);
            assert_null(tls_facts(&pair.side.conn));
            peer_pump(&pair);
            ERR_clear_error();
            assert_int_equal(SSL_do_handshake(pair.peer.ssl), -1);
            assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
        } else {
            assert_int_equal(tls_facts(&pair.side.conn)->alpn, cases[i].expected);
        }
        pair_close(&pair);
        SSL_CTX_free(context);
    }
}

static void test_plain_http(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (unsigned early = 0; early < 2; early++) {
        struct pair pair;
        char data[64];
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, server, early ? STR("POST") : STR_NULL));
        peer_write_raw(&pair, request, sizeof request - 1);
        loop_turn(&pair.loop, 100);
        assert_int_equal(pair.side.secured_calls, 1);
        assert_int_equal(pair.side.secured, SECURE_PLAIN_HTTP);
        assert_null(tls_facts(&pair.side.conn));
        assert_string_equal(tls_failure(&pair.side.conn), "");
        assert_true(side_say(&pair, "HTTP/1.1 400 ", 13));
        assert_int_equal(recv(pair.peer.fd, data, sizeof data, 0), 13);
        assert_memory_equal(data, "HTTP/1.1 400 ", 13);
        pair_close(&pair);
    }
}

static void test_what_is_no_tls(void **state)
{
    (void)state;
    static const char *const cases[] = {"\x80\x2e\x01\x03\x01", "\r\n\r\n\r\n", "\x16\x01\x00\x00\x00\x00",
                                        "ssh-2.0", "\x17\x03\x03\xff\xff\x00"};
    for (size_t i = 0; i < countof(cases); i++) {
        struct pair pair;
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
        peer_write_raw(&pair, cases[i], 6);
        shutdown(pair.peer.fd, SHUT_WR);
        for (unsigned turn = 0; turn < 5 && !pair.side.secured_calls; turn++)
            loop_turn(&pair.loop, 50);
        assert_int_equal(pair.side.secured_calls, 1);
        assert_int_equal(pair.side.secured, SECURE_FAILED);
        assert_true(*tls_failure(&pair.side.conn));
        pair_close(&pair);
    }
}

// Nine bytes announce a ClientHello: it is refused before memory is taken for it.
static void test_oversized_client_hello(void **state)
{
    (void)state;
    static const uint8_t announced[] = {22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfd};
    static const uint8_t split[] = {22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 3, 1, 0, 0};
    static const uint8_t longest[] = {22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc};
    static const struct {
        const uint8_t *bytes;
        size_t n;
        bool refused;
    } cases[] = {
        {announced, sizeof announced, true}, {split, sizeof split, true}, {longest, sizeof longest, false}};
    for (size_t i = 0; i < countof(cases); i++) {
        struct pair pair;
        char data[16];
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
        peer_write_raw(&pair, cases[i].bytes, cases[i].n);
        loop_turn(&pair.loop, 50);
        assert_int_equal(pair.side.secured_calls, cases[i].refused);
        if (cases[i].refused) {
            assert_int_equal(pair.side.secured, SECURE_FAILED);
            assert_string_equal(tls_failure(&pair.side.conn), "the ClientHello is too long");
            assert_int_equal(recv(pair.peer.fd, data, sizeof data, 0), 7);
            assert_memory_equal(data, "\x15\x03\x03\x00\x02\x02\x2f", 7);
        }
        pair_close(&pair);
    }
}

static void test_close_during_the_handshake(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    peer_write_raw(&pair, "\x16\x03\x01", 3);
    peer_hang_up(&pair);
    loop_turn(&pair.loop, 50);
    assert_int_equal(pair.side.secured_calls, 1);
    assert_int_equal(pair.side.secured, SECURE_FAILED);
    assert_string_equal(tls_failure(&pair.side.conn), "the peer closed during the handshake");
    pair_close(&pair);
}

static void test_the_owner_closes_when_it_hears(void **state)
{
    (void)state;
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    pair_open(&pair);
    pair.side.close_when_secured = true;
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    peer_begin(&pair, context, true);
    pair_shake(&pair);
    assert_int_equal(pair.side.secured_calls, 1);
    assert_int_equal(pair.side.ready, 0);
    pair_close(&pair);
    SSL_CTX_free(context);
}

// Closed before anything came: the work that waits for the end of the turn must not find it.
static void test_closed_before_it_began(void **state)
{
    (void)state;
    for (unsigned abort = 0; abort < 2; abort++) {
        struct pair pair;
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, server, STR("\x16")));
        if (abort)
            conn_abort(&pair.side.conn);
        pair_close(&pair);
        assert_int_equal(pair.side.secured_calls, 0);
    }
}

// ---- the transport ----

static void test_close_notify_is_the_end_and_a_cut_is_not(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 4; i++) {
        struct pair pair;
        char data[16];
        ssize_t last;
        bool clean = i & 1;
        open_secured(&pair, versions[i / 2]);
        assert_int_equal(SSL_write(pair.peer.ssl, "half", 4), 4);
        if (clean)
            SSL_shutdown(pair.peer.ssl);
        peer_pump(&pair);
        peer_hang_up(&pair);
        loop_turn(&pair.loop, 50);
        assert_int_equal(side_take(&pair, data, sizeof data, &last), 4);
        assert_int_equal(last, clean ? 0 : CONN_FAILED);
        assert_int_equal(pair.side.conn.error, clean ? 0 : ECONNRESET);
        assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), clean ? 0 : CONN_FAILED);
        pair_close(&pair);
    }
}

static void test_half_close_both_ways(void **state)
{
    (void)state;
    struct pair pair;
    char data[16];
    ssize_t last;
    open_secured(&pair, TLS1_3_VERSION);
    SSL_shutdown(pair.peer.ssl); // the client has said all
    peer_pump(&pair);
    assert_int_equal(side_take(&pair, data, 1, &last), 0);
    assert_int_equal(last, 0);
    assert_true(side_say(&pair, "answer", 6)); // and still hears
    assert_int_equal(peer_take(&pair, data, 6), 6);
    conn_shutdown_send(&pair.side.conn);
    assert_int_equal(peer_take(&pair, data, 1), 0);
    assert_true(SSL_get_shutdown(pair.peer.ssl) & SSL_RECEIVED_SHUTDOWN);
    peer_pump(&pair);
    assert_true(pair.peer.end);
    pair_close(&pair);

    open_secured(&pair, TLS1_3_VERSION);
    conn_shutdown_send(&pair.side.conn); // ours first
    assert_int_equal(peer_take(&pair, data, 1), 0);
    assert_true(SSL_get_shutdown(pair.peer.ssl) & SSL_RECEIVED_SHUTDOWN);
    peer_say(&pair, "more", 4);
    assert_int_equal(side_take(&pair, data, 4, &last), 4);
    pair_close(&pair);
}

static void test_close_says_goodbye_and_abort_does_not(void **state)
{
    (void)state;
    for (unsigned abort = 0; abort < 2; abort++) {
        struct pair pair;
        char data[16];
        open_secured(&pair, TLS1_3_VERSION);
        if (abort)
            conn_abort(&pair.side.conn);
        else
            conn_close(&pair.side.conn);
        assert_int_equal(peer_take(&pair, data, 1), 0);
        assert_int_equal(SSL_get_shutdown(pair.peer.ssl) & SSL_RECEIVED_SHUTDOWN,
                         abort ? 0 : SSL_RECEIVED_SHUTDOWN);
        pair_close(&pair);
    }
}

static int waiting_bytes(int fd)
{
    int n = 0;
    ioctl(fd, FIONREAD, &n);
    return n;
}

static void test_spans_leave_in_one_record(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    open_secured(&pair, TLS1_3_VERSION);
    peer_take(&pair, data, 0);
    peer_pump(&pair);
    struct iovec iov[] = {{(char[]){"a head, "}, 8}, {NULL, 0}, {(char[]){"a body"}, 6}, {NULL, 0}};
    assert_int_equal(conn_sendv(&pair.side.conn, iov, countof(iov)), 14);
    assert_int_equal(waiting_bytes(pair.peer.fd), 5 + 14 + 1 + 16); // header, text, type, tag
    assert_int_equal(peer_take(&pair, data, 14), 14);
    assert_memory_equal(data, "a head, a body", 14);
    assert_int_equal(conn_sendv(&pair.side.conn, iov + 3, 1), 0);
    pair_close(&pair);
}

static char pattern(size_t at)
{
    return (char)(at * 31 >> 3);
}

// Random spans against a peer that reads in fits: all arrives once, in order.
static void test_a_full_peer_loses_nothing(void **state)
{
    (void)state;
    enum { TOTAL = 3 << 20, KEPT = 100000 };
    struct pair pair;
    char *text = malloc(TOTAL), *moved = malloc(TOTAL), *got = malloc(TOTAL);
    open_secured(&pair, TLS1_3_VERSION);
    for (size_t i = 0; i < TOTAL; i++)
        text[i] = moved[i] = pattern(i);
    size_t sent = 0, received = 0;
    unsigned blocked = 0, step = 0;
    uint64_t deadline = fixture_deadline();
    while ((sent < TOTAL || received < TOTAL) && clock_monotonic_us() < deadline) {
        size_t n = TOTAL - sent < KEPT ? TOTAL - sent : KEPT, first = step++ * 7919 % (n + 1);
        struct iovec iov[] = {{text + sent, first}, {text + sent + first, n - first}};
        ssize_t took = n && pair.side.conn.writable ? conn_sendv(&pair.side.conn, iov, 2) : CONN_AGAIN;
        assert_true(took != CONN_FAILED);
        if (took > 0)
            sent += (size_t)took;
        else if (n) {
            blocked++;
            memcpy(moved + sent, text + sent, n); // the address may differ, the bytes may not
            memset(text + sent, 0, n);
            char *left = text;
            text = moved;
            moved = left;
        }
        if (!pair.side.conn.writable || sent == TOTAL) {
            int more = SSL_read(pair.peer.ssl, got + received, (int)(TOTAL - received));
            if (more > 0)
                received += (size_t)more;
            else
                peer_pump(&pair);
        }
    }
    assert_int_equal(received, TOTAL);
    assert_true(blocked > 3);
    for (size_t i = 0; i < TOTAL; i++)
        assert_int_equal(got[i], pattern(i));
    free(got);
    free(moved);
    free(text);
    pair_close(&pair);
}

static void test_large_uploads(void **state)
{
    (void)state;
    enum { TOTAL = 1 << 20 };
    struct pair pair;
    char *text = malloc(TOTAL), *got = malloc(TOTAL);
    open_secured(&pair, TLS1_3_VERSION);
    for (size_t i = 0; i < TOTAL; i++)
        text[i] = pattern(i);
    ssize_t last;
    for (size_t at = 0, part = 1; at < TOTAL; at += part, part = part * 3 % 70001 + 1) {
        size_t n = TOTAL - at < part ? TOTAL - at : part;
        for (size_t done = 0; done < n;) {
            size_t piece = n - done < 65536 ? n - done : 65536;
            assert_int_equal(SSL_write(pair.peer.ssl, text + at + done, (int)piece), piece);
            peer_pump(&pair);
            done += piece;
            assert_int_equal(side_take(&pair, got + at + done - piece, piece, &last), piece);
        }
    }
    assert_memory_equal(got, text, TOTAL);
    assert_false(pair.side.conn.readable && conn_recv(&pair.side.conn, got, 1) != CONN_AGAIN);
    free(got);
    free(text);
    pair_close(&pair);
}

// One recv for several small records, and no question after a short read.
static void test_records_are_taken_together(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    open_secured(&pair, TLS1_3_VERSION);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(SSL_write(pair.peer.ssl, "abc", 3), 3);
    peer_pump(&pair);
    assert_true(pair.side.conn.readable);
    assert_int_equal(conn_recv(&pair.side.conn, data, 7), 7);
    assert_true(pair.side.conn.readable);
    assert_int_equal(conn_recv(&pair.side.conn, data + 7, sizeof data - 7), 8);
    assert_false(pair.side.conn.readable);
    assert_memory_equal(data, "abcabcabcabcabc", 15);
    pair_close(&pair);
}

static void test_a_key_update_is_no_data(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    ssize_t last;
    open_secured(&pair, TLS1_3_VERSION);
    assert_int_equal(SSL_key_update(pair.peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_int_equal(SSL_do_handshake(pair.peer.ssl), 1);
    peer_pump(&pair);
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), CONN_AGAIN);
    assert_false(pair.side.conn.readable);
    peer_say(&pair, "after", 5);
    assert_int_equal(side_take(&pair, data, 5, &last), 5);
    assert_true(side_say(&pair, "and back", 8));
    assert_int_equal(peer_take(&pair, data, 8), 8);
    assert_memory_equal(data, "and back", 8);
    pair_close(&pair);
}

static void test_a_forged_record_ends_it(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    ssize_t last;
    open_secured(&pair, TLS1_3_VERSION);
    static const uint8_t forged[] = {23, 3,  3,  0,  20, 1,  2,  3,  4,  5,  6,  7, 8,
                                     9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
    peer_write_raw(&pair, forged, sizeof forged);
    loop_turn(&pair.loop, 50);
    assert_int_equal(side_take(&pair, data, 1, &last), 0);
    assert_int_equal(last, CONN_FAILED);
    assert_int_equal(pair.side.conn.error, EPROTO);
    assert_true(*tls_failure(&pair.side.conn));
    assert_false(side_say(&pair, "x", 1));
    pair_close(&pair);
}

static void test_renegotiation_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    char data[16];
    open_secured(&pair, TLS1_2_VERSION);
    assert_int_equal(SSL_renegotiate(pair.peer.ssl), 1);
    SSL_do_handshake(pair.peer.ssl);
    peer_pump(&pair);
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), CONN_AGAIN);
    peer_pump(&pair);
    ERR_clear_error();
    assert_int_equal(SSL_do_handshake(pair.peer.ssl), -1);
    assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    pair_close(&pair);
}

// Would end this program with SIGPIPE if a send were not careful.
static void test_writing_to_who_is_gone(void **state)
{
    (void)state;
    struct pair pair;
    open_secured(&pair, TLS1_3_VERSION);
    peer_hang_up(&pair);
    assert_false(side_say(&pair, "anybody?", 8));
    assert_int_equal(pair.side.conn.error, EPIPE);
    assert_false(side_say(&pair, "anybody?", 8));
    conn_shutdown_send(&pair.side.conn);
    pair_close(&pair);
}

static void test_stale(void **state)
{
    (void)state;
    struct pair pair;
    open_secured(&pair, TLS1_3_VERSION);
    assert_false(conn_is_stale(&pair.side.conn));
    assert_int_equal(SSL_key_update(pair.peer.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    assert_int_equal(SSL_do_handshake(pair.peer.ssl), 1);
    peer_pump(&pair);
    assert_false(conn_is_stale(&pair.side.conn));
    peer_say(&pair, "!", 1);
    assert_true(conn_is_stale(&pair.side.conn));
    pair_close(&pair);

    open_secured(&pair, TLS1_3_VERSION);
    SSL_shutdown(pair.peer.ssl);
    char data[64];
    int n = BIO_read(SSL_get_wbio(pair.peer.ssl), data, sizeof data);
    assert_int_equal(send(pair.peer.fd, data, (size_t)n, 0), n);
    assert_true(conn_is_stale(&pair.side.conn)); // before any turn
    pair_close(&pair);
}

static void test_versions_and_ciphers_not_spoken(void **state)
{
    (void)state;
    struct tls_server *modern = server_with((struct tls_server_options){.min_version = TLS_1_3});
    static const struct {
        bool modern;
        int max;
        const char *ciphers, *groups;
    } cases[] = {
        {true, TLS1_2_VERSION, "ALL", "X25519"},
        {false, TLS1_1_VERSION, "ALL:@SECLEVEL=0", "X25519"},
        {false, TLS1_2_VERSION, "AES128-GCM-SHA256", "X25519"},
        {false, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA", "X25519"},
        {false, TLS1_3_VERSION, "ALL", "P-521"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        SSL_CTX *context = peer_context(TLS_client_method());
        struct pair pair;
        SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
        SSL_CTX_set_max_proto_version(context, cases[i].max);
        assert_int_equal(SSL_CTX_set_cipher_list(context, cases[i].ciphers), 1);
        assert_int_equal(SSL_CTX_set1_groups_list(context, cases[i].groups), 1);
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, cases[i].modern ? modern : server, STR_NULL));
        peer_begin(&pair, context, true);
        assert_false(pair_shake(&pair));
        assert_int_equal(pair.side.secured, SECURE_FAILED);
        peer_pump(&pair); // the alert came
        ERR_clear_error();
        assert_int_equal(SSL_do_handshake(pair.peer.ssl), -1);
        int reason = ERR_GET_REASON(ERR_peek_error());
        assert_true(reason == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION ||
                    reason == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE);
        pair_close(&pair);
        SSL_CTX_free(context);
    }
    tls_server_unref(modern);
}

// The server goes while connections live: they keep what they need.
static void test_connections_outlive_the_server(void **state)
{
    (void)state;
    struct tls_server *passing = server_with((struct tls_server_options){0});
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    char data[8];
    ssize_t last;
    pair_open(&pair);
    assert_true(tls_accept(&pair.side.conn, passing, STR_NULL));
    tls_server_unref(passing);
    peer_begin(&pair, context, true);
    assert_true(pair_shake(&pair));
    peer_say(&pair, "still", 5);
    assert_int_equal(side_take(&pair, data, 5, &last), 5);
    pair_close(&pair);
    SSL_CTX_free(context);
}

static void test_a_library_for_each_slot(void **state)
{
    (void)state;
    assert_non_null(tls_library(TLS_SLOT_CONTROL));
    assert_ptr_equal(tls_library(1), tls_library(1));
    assert_ptr_not_equal(tls_library(1), tls_library(2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_versions_and_their_facts),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_early_bytes),
        cmocka_unit_test(test_the_hello_is_there_already),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_plain_http),
        cmocka_unit_test(test_what_is_no_tls),
        cmocka_unit_test(test_oversized_client_hello),
        cmocka_unit_test(test_close_during_the_handshake),
        cmocka_unit_test(test_the_owner_closes_when_it_hears),
        cmocka_unit_test(test_closed_before_it_began),
        cmocka_unit_test(test_close_notify_is_the_end_and_a_cut_is_not),
        cmocka_unit_test(test_half_close_both_ways),
        cmocka_unit_test(test_close_says_goodbye_and_abort_does_not),
        cmocka_unit_test(test_spans_leave_in_one_record),
        cmocka_unit_test(test_a_full_peer_loses_nothing),
        cmocka_unit_test(test_large_uploads),
        cmocka_unit_test(test_records_are_taken_together),
        cmocka_unit_test(test_a_key_update_is_no_data),
        cmocka_unit_test(test_a_forged_record_ends_it),
        cmocka_unit_test(test_renegotiation_is_refused),
        cmocka_unit_test(test_writing_to_who_is_gone),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_versions_and_ciphers_not_spoken),
        cmocka_unit_test(test_connections_outlive_the_server),
        cmocka_unit_test(test_a_library_for_each_slot),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
