// An upstream's side: what is verified, what is offered, and sessions that are resumed.
#include "test_tls_fixture.h"

#include <netinet/in.h>

static struct made ca, other_ca, leaf, own;
static struct str ca_path, other_ca_path;
static struct tls_certificate_files own_files;

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    ca = make_ca("Test CA");
    other_ca = make_ca("Another CA");
    leaf = make_leaf("common.example",
                     "DNS:a.example,DNS:*.wild.example,DNS:w*.part.example,IP:127.0.0.1,IP:::1", &ca);
    own = make_leaf("gateway", NULL, &ca);
    own_files = write_made("own", &own);
    ca_path = write_made("ca", &ca).cert;
    other_ca_path = write_made("other-ca", &other_ca).cert;
    return 0;
}

static int teardown(void **state)
{
    made_free(&ca);
    made_free(&other_ca);
    made_free(&leaf);
    made_free(&own);
    return fixture_teardown(state);
}

static struct tls_client *client_with(struct tls_client_options options)
{
    struct err err = {0};
    struct tls_client *client = tls_client_new(1, &options, &err);
    if (!client)
        fail_msg("%s: %s", err.where, err.what);
    return client;
}

static SSL_CTX *server_context(const struct made *certificate, int version)
{
    SSL_CTX *context = peer_context(TLS_server_method());
    assert_int_equal(SSL_CTX_use_cert_and_key(context, certificate->x509, certificate->key, NULL, 1), 1);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"peer", 4);
    return context;
}

// tls_connect, and the handshake with that peer. True: secured.
static bool shake(struct pair *pair, struct tls_client *client, struct str host, SSL_CTX *context,
                  struct tls_session *session)
{
    pair_open(pair);
    assert_true(tls_connect(&pair->side.conn, client, host, session));
    assert_int_equal(pair->side.secured_calls, 0);
    assert_int_equal(conn_sendv(&pair->side.conn, &(struct iovec){(char[]){"x"}, 1}, 1), CONN_AGAIN);
    peer_begin(pair, context, false);
    return pair_shake(pair);
}

static void test_names_are_verified(void **state)
{
    (void)state;
    static const struct {
        const char *host, *server_name;
        bool good;
        const char *sni; // NULL: none is sent
    } cases[] = {
        {"a.example", NULL, true, "a.example"},
        {"A.Example.", NULL, true, "a.example"},
        {"b.example", NULL, false, "b.example"},
        {"common.example", NULL, false, "common.example"}, // there are other names
        {"x.wild.example", NULL, true, "x.wild.example"},
        {"x.y.wild.example", NULL, false, "x.y.wild.example"},
        {"wild.example", NULL, false, "wild.example"},
        {"ww.part.example", NULL, false, "ww.part.example"},
        {"127.0.0.1", NULL, true, NULL},
        {"127.0.0.2", NULL, false, NULL},
        {"[::1]", NULL, true, NULL},
        {"::2", NULL, false, NULL},
        {"127.0.0.2", "a.example", true, "a.example"},
        {"a.example", "b.example", false, "b.example"},
    };
    SSL_CTX *context = server_context(&leaf, TLS1_3_VERSION);
    for (size_t i = 0; i < countof(cases); i++) {
        struct tls_client *client = client_with((struct tls_client_options){
            .ca = ca_path, .verify = true, .server_name = str_of(cases[i].server_name)});
        struct pair pair;
        bool secured = shake(&pair, client, str_of(cases[i].host), context, NULL);
        if (secured != cases[i].good)
            fail_msg("%s: %s", cases[i].host, tls_failure(&pair.side.conn));
        const char *sni = SSL_get_servername(pair.peer.ssl, TLSEXT_NAMETYPE_host_name);
        if (cases[i].sni)
            assert_string_equal(sni, cases[i].sni);
        else
            assert_null(sni);
        if (!secured)
            assert_true(strstr(tls_failure(&pair.side.conn), "mismatch") != NULL);
        pair_close(&pair);
        tls_client_unref(client);
    }
    SSL_CTX_free(context);
}

static void test_who_is_trusted(void **state)
{
    (void)state;
    struct made expired = make_certificate("a.example", "DNS:a.example", &ca, "EC", false, -20 * DAY, -DAY);
    struct made lone = make_leaf("a.example", "DNS:a.example", NULL);
    struct str lone_path = write_made("lone", &lone).cert;
    const struct {
        const struct made *shown;
        struct str ca;
        bool verify;
        const char *failure; // NULL: secured
    } cases[] = {
        {&leaf, ca_path, true, NULL},
        {&leaf, other_ca_path, true, "unable to get local issuer certificate"},
        {&leaf, other_ca_path, false, NULL},
        {&leaf, STR("system"), true, "unable to get local issuer certificate"},
        {&expired, ca_path, true, "certificate has expired"},
        {&expired, ca_path, false, NULL},
        {&lone, ca_path, true, "self-signed certificate"},
        {&lone, lone_path, true, NULL}, // pinned
    };
    setenv("SSL_CERT_FILE", other_ca_path.p, 1); // this machine's own may be anything
    for (size_t i = 0; i < countof(cases); i++) {
        SSL_CTX *context = server_context(cases[i].shown, TLS1_3_VERSION);
        struct tls_client *client =
            client_with((struct tls_client_options){.ca = cases[i].ca, .verify = cases[i].verify});
        struct pair pair;
        bool secured = shake(&pair, client, STR("a.example"), context, NULL);
        if (secured != !cases[i].failure)
            fail_msg("%zu: %s", i, tls_failure(&pair.side.conn));
        if (!secured) {
            assert_int_equal(pair.side.secured, SECURE_FAILED);
            assert_string_equal(tls_failure(&pair.side.conn), cases[i].failure);
        }
        pair_close(&pair);
        tls_client_unref(client);
        SSL_CTX_free(context);
    }
    unsetenv("SSL_CERT_FILE");
    made_free(&expired);
    made_free(&lone);
}

static int choose_first(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                        unsigned n, void *arg)
{
    const char *wanted = arg;
    (void)ssl;
    for (unsigned i = 0; i < n; i += in[i] + 1u)
        if (in[i] == strlen(wanted) && memcmp(in + i + 1, wanted, in[i]) == 0) {
            *out = in + i + 1;
            *out_n = in[i];
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_NOACK;
}

static void test_alpn(void **state)
{
    (void)state;
    static const struct {
        unsigned offered;
        const char *wanted; // by the peer
        bool good;
        enum tls_alpn agreed;
    } cases[] = {
        {TLS_ALPN_H2, "h2", true, TLS_ALPN_H2},
        {TLS_ALPN_H2, "http/1.1", false, TLS_ALPN_NONE}, // nothing is agreed on
        {TLS_ALPN_H2 | TLS_ALPN_HTTP1, "h2", true, TLS_ALPN_H2},
        {TLS_ALPN_H2 | TLS_ALPN_HTTP1, "http/1.1", true, TLS_ALPN_HTTP1},
        {TLS_ALPN_HTTP1, "h2", true, TLS_ALPN_NONE},
        {TLS_ALPN_NONE, "h2", true, TLS_ALPN_NONE},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        SSL_CTX *context = server_context(&leaf, TLS1_3_VERSION);
        SSL_CTX_set_alpn_select_cb(context, choose_first, (void *)(uintptr_t)cases[i].wanted);
        struct tls_client *client =
            client_with((struct tls_client_options){.ca = ca_path, .verify = true, .alpn = cases[i].offered});
        struct pair pair;
        assert_int_equal(shake(&pair, client, STR("a.example"), context, NULL), cases[i].good);
        if (cases[i].good)
            assert_int_equal(tls_facts(&pair.side.conn)->alpn, cases[i].agreed);
        else
            assert_string_equal(tls_failure(&pair.side.conn), "the peer does not agree on h2");
        pair_close(&pair);
        tls_client_unref(client);
        SSL_CTX_free(context);
    }
}

static void test_own_certificate(void **state)
{
    (void)state;
    X509_STORE *store = X509_STORE_new();
    X509_STORE_add_cert(store, ca.x509);
    for (unsigned shown = 0; shown < 2; shown++) {
        SSL_CTX *context = server_context(&leaf, TLS1_2_VERSION);
        SSL_CTX_set1_cert_store(context, store);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        struct tls_client_options options = {.ca = ca_path, .verify = true};
        if (shown)
            options.cert = own_files.cert, options.key = own_files.key;
        struct tls_client *client = client_with(options);
        struct pair pair;
        assert_int_equal(shake(&pair, client, STR("a.example"), context, NULL), shown);
        if (shown)
            assert_int_equal(X509_cmp(SSL_get0_peer_certificate(pair.peer.ssl), own.x509), 0);
        else
            assert_true(*tls_failure(&pair.side.conn));
        pair_close(&pair);
        tls_client_unref(client);
        SSL_CTX_free(context);
    }
    X509_STORE_free(store);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct err err = {0};
    struct tls_client_options options = {.verify = true, .ca = fixture_path("nothing.pem")};
    assert_null(tls_client_new(1, &options, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_true(str_eq(str_of(err.where), options.ca));
    options = (struct tls_client_options){.verify = true, .ca = ca_path, .cert = own_files.cert};
    options.key = write_made("alien", &leaf).key;
    assert_null(tls_client_new(1, &options, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_true(str_eq(str_of(err.where), options.key));
}

// ---- sessions ----

// One connection with a word each way; closes cleanly or not. True: it was resumed.
static bool visit(struct tls_client *client, struct str host, SSL_CTX *context, struct tls_session *session,
                  bool clean)
{
    struct pair pair;
    char data[8];
    ssize_t last;
    if (!shake(&pair, client, host, context, session))
        fail_msg("%s", tls_failure(&pair.side.conn));
    bool resumed = SSL_session_reused(pair.peer.ssl);
    assert_int_equal(tls_facts(&pair.side.conn)->resumed, resumed);
    assert_true(side_say(&pair, "ping", 4));
    assert_int_equal(peer_take(&pair, data, 4), 4);
    peer_say(&pair, "pong", 4);
    assert_int_equal(side_take(&pair, data, 4, &last), 4);
    if (clean) {
        SSL_shutdown(pair.peer.ssl);
        peer_pump(&pair);
        assert_int_equal(side_take(&pair, data, 1, &last), 0);
    } else {
        peer_hang_up(&pair);
        loop_turn(&pair.loop, 10);
        assert_int_equal(side_take(&pair, data, 1, &last), 0);
        assert_int_equal(last, CONN_FAILED);
    }
    pair_close(&pair);
    return resumed;
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static void test_sessions_are_resumed(void **state)
{
    (void)state;
    for (size_t v = 0; v < countof(versions); v++) {
        SSL_CTX *context = server_context(&leaf, versions[v]);
        struct tls_client *client = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
        struct tls_client *like = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
        struct tls_session session = {0};
        assert_false(visit(client, STR("a.example"), context, &session, true));
        assert_non_null(session.session);
        assert_true(visit(client, STR("a.example"), context, &session, false)); // a cut spoils no session
        assert_true(visit(client, STR("a.example"), context, &session, true));
        assert_true(visit(like, STR("a.example"), context, &session, true)); // after a reload, too

        // A peer that has forgotten its keys: a full handshake, and a session of the new ones.
        SSL_CTX *restarted = server_context(&leaf, versions[v]);
        void *before = session.session;
        assert_false(visit(client, STR("a.example"), restarted, &session, true));
        assert_true(session.session && session.session != before);
        assert_true(visit(client, STR("a.example"), restarted, &session, true));
        SSL_CTX_free(restarted);

        // One that gives no sessions: what it refused is gone.
        SSL_CTX *forgetful = server_context(&leaf, versions[v]);
        SSL_CTX_set_num_tickets(forgetful, 0);
        SSL_CTX_set_options(forgetful, SSL_OP_NO_TICKET);
        SSL_CTX_set_session_cache_mode(forgetful, SSL_SESS_CACHE_OFF);
        assert_false(visit(client, STR("a.example"), forgetful, &session, true));
        assert_true(!session.session || v == 0); // TLS 1.2 names a session whether it keeps it or not
        SSL_CTX_free(forgetful);
        tls_session_fini(&session);
        assert_null(session.session);
        tls_session_fini(&session);
        tls_client_unref(client);
        tls_client_unref(like);
        SSL_CTX_free(context);
    }
}

static void test_sessions_stay_with_their_policy(void **state)
{
    (void)state;
    for (size_t v = 0; v < countof(versions); v++) {
        SSL_CTX *context = server_context(&leaf, versions[v]);
        struct tls_client *lax = client_with((struct tls_client_options){.ca = ca_path, .verify = false});
        struct tls_client *strict = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
        struct tls_client *named = client_with((struct tls_client_options){
            .ca = ca_path, .verify = true, .cert = own_files.cert, .key = own_files.key});
        struct tls_session session = {0};
        assert_false(visit(lax, STR("a.example"), context, &session, true));
        assert_false(visit(strict, STR("a.example"), context, &session, true));      // never verified
        assert_false(visit(strict, STR("b.wild.example"), context, &session, true)); // another name
        assert_true(visit(strict, STR("b.wild.example"), context, &session, true));
        assert_false(visit(named, STR("b.wild.example"), context, &session, true)); // another identity
        tls_session_fini(&session);
        tls_client_unref(lax);
        tls_client_unref(strict);
        tls_client_unref(named);
        SSL_CTX_free(context);
    }
}

// Servers send tickets when they like: they are taken in, and an idle connection stays idle.
static void test_tickets_are_no_data(void **state)
{
    (void)state;
    SSL_CTX *context = server_context(&leaf, TLS1_3_VERSION);
    struct tls_client *client = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
    struct tls_session session = {0};
    struct pair pair;
    char byte;
    assert_true(shake(&pair, client, STR("a.example"), context, &session));
    for (unsigned i = 0; i < 20; i++)
        peer_pump(&pair);
    void *first = session.session;
    assert_non_null(first);
    assert_false(pair.side.conn.readable);
    assert_int_equal(SSL_new_session_ticket(pair.peer.ssl), 1);
    assert_int_equal(SSL_do_handshake(pair.peer.ssl), 1);
    char data[4096];
    int n = BIO_read(SSL_get_wbio(pair.peer.ssl), data, sizeof data);
    assert_true(n > 100);
    pair.side.ready = 0;
    // In two pieces: half a ticket is no reason to close, to read for ever or not to write.
    assert_int_equal(send(pair.peer.fd, data, 50, 0), 50);
    loop_turn(&pair.loop, 50);
    assert_false(pair.side.conn.readable);
    assert_false(conn_is_stale(&pair.side.conn));
    assert_true(side_say(&pair, "ping", 4));
    assert_int_equal(send(pair.peer.fd, data + 50, (size_t)n - 50, 0), n - 50);
    assert_false(conn_is_stale(&pair.side.conn)); // before the turn that reports it
    assert_true(session.session != first);
    loop_turn(&pair.loop, 50);
    assert_false(pair.side.conn.readable);
    assert_int_equal(conn_recv(&pair.side.conn, &byte, 1), CONN_AGAIN);
    peer_say(&pair, "!", 1);
    assert_true(pair.side.conn.readable);
    assert_true(conn_is_stale(&pair.side.conn));
    assert_int_equal(conn_recv(&pair.side.conn, &byte, 1), 1);
    SSL_shutdown(pair.peer.ssl);
    peer_pump(&pair);
    assert_true(pair.side.conn.readable && pair.side.conn.peer_closed);
    pair_close(&pair);
    tls_session_fini(&session);
    tls_client_unref(client);
    SSL_CTX_free(context);
}

static void test_a_peer_that_speaks_no_tls(void **state)
{
    (void)state;
    struct tls_client *client = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
    for (unsigned closes = 0; closes < 2; closes++) {
        struct pair pair;
        pair_open(&pair);
        assert_true(tls_connect(&pair.side.conn, client, STR("a.example"), NULL));
        loop_turn(&pair.loop, 10);
        if (closes)
            peer_hang_up(&pair);
        else
            peer_write_raw(&pair, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        for (unsigned i = 0; i < 5 && !pair.side.secured_calls; i++)
            loop_turn(&pair.loop, 10);
        assert_int_equal(pair.side.secured_calls, 1);
        assert_int_equal(pair.side.secured, SECURE_FAILED);
        assert_true(*tls_failure(&pair.side.conn));
        pair_close(&pair);
    }
    tls_client_unref(client);
}

static void test_hosts_that_are_no_names(void **state)
{
    (void)state;
    struct tls_client *client = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
    struct pair pair;
    char longer[300];
    memset(longer, 'a', sizeof longer);
    pair_open(&pair);
    assert_false(tls_connect(&pair.side.conn, client, STR_NULL, NULL));
    assert_false(tls_connect(&pair.side.conn, client, (struct str){longer, sizeof longer}, NULL));
    assert_null(pair.side.conn.tls);
    pair_close(&pair);
    tls_client_unref(client);
}

// ---- over TCP, both sides ours ----

struct dialler {
    struct conn conn;
    struct tls_client *client;
    unsigned connected, secured, ready;
    enum secured how;
};

static void on_connected(struct conn *conn, int error)
{
    struct dialler *dialler = container_of(conn, struct dialler, conn);
    assert_int_equal(error, 0);
    dialler->connected++;
    assert_true(tls_connect(conn, dialler->client, STR("127.0.0.1"), NULL));
}

static void on_secured(struct conn *conn, enum secured how)
{
    struct dialler *dialler = container_of(conn, struct dialler, conn);
    assert_int_equal(dialler->connected, 1);
    dialler->secured++;
    dialler->how = how;
}

static void on_dialler_ready(struct conn *conn)
{
    struct dialler *dialler = container_of(conn, struct dialler, conn);
    assert_int_equal(dialler->secured, 1);
    dialler->ready++;
}

static void on_dialler_free(struct conn *conn)
{
    (void)conn;
}

static void test_from_connect_to_close(void **state)
{
    (void)state;
    static const struct conn_events events = {.on_connected = on_connected,
                                              .on_secured = on_secured,
                                              .on_ready = on_dialler_ready,
                                              .on_free = on_dialler_free};
    struct tls_certificate_files files = write_made("both", &leaf);
    struct tls_server_options options = {.certificates = &files, .certificate_count = 1};
    struct err err = {0};
    struct tls_server *server = tls_server_new(2, &options, &err);
    struct tls_client *client = client_with((struct tls_client_options){.ca = ca_path, .verify = true});
    struct dialler dialler = {.client = client};
    struct loop loop;
    struct side side = {0};
    struct addr addr = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
                        .length = sizeof(struct sockaddr_in)};
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listening, &addr.any, addr.length), 0);
    assert_int_equal(listen(listening, 8), 0);
    assert_int_equal(getsockname(listening, &addr.any, &addr.length), 0);
    assert_int_equal(loop_init(&loop, &err), ERR_OK);
    assert_true(conn_connect(&dialler.conn, &loop, &addr, &events));
    dialler.client = client;
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(conn_open(&side.conn, &loop, fd, &side_events));
    assert_true(tls_accept(&side.conn, server, STR_NULL));
    uint64_t deadline = fixture_deadline();
    while ((!dialler.secured || !side.secured_calls) && clock_monotonic_us() < deadline)
        loop_turn(&loop, 10);
    assert_int_equal(dialler.how, SECURED);
    assert_int_equal(side.secured, SECURED);
    assert_int_equal(conn_sendv(&dialler.conn, &(struct iovec){(char[]){"hello"}, 5}, 1), 5);
    char data[8];
    while (!side.conn.readable && clock_monotonic_us() < deadline)
        loop_turn(&loop, 10);
    assert_int_equal(conn_recv(&side.conn, data, sizeof data), 5);
    conn_close(&side.conn);
    while (!dialler.conn.peer_closed && clock_monotonic_us() < deadline)
        loop_turn(&loop, 10);
    assert_true(dialler.ready && dialler.conn.readable);
    assert_int_equal(conn_recv(&dialler.conn, data, sizeof data), 0); // close_notify, then the FIN
    conn_close(&dialler.conn);
    loop_turn(&loop, 0);
    loop_fini(&loop);
    close(listening);
    tls_server_unref(server);
    tls_client_unref(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_verified),
        cmocka_unit_test(test_who_is_trusted),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_own_certificate),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_sessions_are_resumed),
        cmocka_unit_test(test_sessions_stay_with_their_policy),
        cmocka_unit_test(test_tickets_are_no_data),
        cmocka_unit_test(test_a_peer_that_speaks_no_tls),
        cmocka_unit_test(test_hosts_that_are_no_names),
        cmocka_unit_test(test_from_connect_to_close),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
