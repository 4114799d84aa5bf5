// Sessions that come back, to whom they may and no further; and clients that show a certificate.
#include "test_tls_fixture.h"

static struct made ca, other_ca, leaf, client, stranger;
static struct tls_certificate_files files;
static struct str ca_path, other_ca_path;

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    ca = make_ca("Test CA");
    other_ca = make_ca("Another CA");
    leaf = make_leaf("a.example", "DNS:a.example", &ca);
    client =
        make_leaf("Ann, of \"Sales\"",
                  "DNS:ann.example,URI:spiffe://example/ann%2C;DNS=bob,email:ann@example,IP:10.0.0.1", &ca);
    stranger = make_leaf("stranger", NULL, &other_ca);
    files = write_made("server", &leaf);
    ca_path = write_made("ca", &ca).cert;
    other_ca_path = write_made("other-ca", &other_ca).cert;
    return 0;
}

static int teardown(void **state)
{
    made_free(&ca);
    made_free(&other_ca);
    made_free(&leaf);
    made_free(&client);
    made_free(&stranger);
    return fixture_teardown(state);
}

static struct tls_server *server_on(unsigned slot, struct str name, enum tls_client_auth auth)
{
    struct err err = {0};
    struct tls_server_options options = {.certificates = &files,
                                         .certificate_count = 1,
                                         .name = name,
                                         .client_auth = auth,
                                         .client_ca = ca_path};
    struct tls_server *server = tls_server_new(slot, &options, &err);
    if (!server)
        fail_msg("%s: %s", err.where, err.what);
    return server;
}

static SSL_SESSION *newest; // that the peer got
static unsigned sessions;

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(newest);
    newest = session;
    sessions++;
    return 1;
}

struct visit {
    int version;
    const struct made *shown; // the client's certificate
    bool resume;              // offer the newest session
    char facts[512];          // what our side knows of the client
    bool secured, resumed, peer_resumed;
    int alert; // why the peer's handshake failed
};

// One connection: handshake, a word each way, the tickets taken, the end.
static void visit(struct tls_server *server, struct visit *visit)
{
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    char data[8];
    ssize_t last;
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    SSL_CTX_set_max_proto_version(context, visit->version);
    if (visit->shown)
        assert_int_equal(SSL_CTX_use_cert_and_key(context, visit->shown->x509, visit->shown->key, NULL, 1),
                         1);
    pair_open(&pair);
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    peer_begin(&pair, context, true);
    if (visit->resume)
        assert_int_equal(SSL_set_session(pair.peer.ssl, newest), 1);
    sessions = 0;
    visit->secured = pair_shake(&pair);
    if (visit->secured) {
        const struct tls_facts *facts = tls_facts(&pair.side.conn);
        visit->resumed = facts->resumed;
        visit->peer_resumed = SSL_session_reused(pair.peer.ssl);
        snprintf(visit->facts, sizeof visit->facts, "%.*s|%.*s|%.*s", STR_ARG(facts->client_subject),
                 STR_ARG(facts->client_sans), STR_ARG(facts->client_fingerprint));
        peer_say(&pair, "ping", 4);
        assert_int_equal(side_take(&pair, data, 4, &last), 4);
        assert_true(side_say(&pair, "pong", 4));
        assert_int_equal(peer_take(&pair, data, 4), 4);
        SSL_shutdown(pair.peer.ssl);
    } else {
        // In TLS 1.3 a client hears of it after its own end of the handshake.
        peer_pump(&pair);
        ERR_clear_error();
        assert_true(SSL_read(pair.peer.ssl, data, 1) <= 0);
        visit->alert = ERR_GET_REASON(ERR_peek_error());
    }
    pair_close(&pair);
    SSL_CTX_free(context);
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static void forget(void)
{
    SSL_SESSION_free(newest);
    newest = NULL;
}

static void test_a_session_lives_anywhere(void **state)
{
    (void)state;
    struct tls_server *here = server_on(1, STR("web"), TLS_CLIENT_AUTH_NONE);
    struct tls_server *reloaded = server_on(1, STR("web"), TLS_CLIENT_AUTH_NONE);
    struct tls_server *elsewhere = server_on(2, STR("web"), TLS_CLIENT_AUTH_NONE);
    struct tls_server *const stations[] = {here, reloaded, elsewhere, here};
    for (size_t v = 0; v < countof(versions); v++) {
        struct visit first = {.version = versions[v]};
        visit(here, &first);
        assert_true(first.secured && !first.resumed);
        assert_int_equal(sessions, 1);
        assert_true(SSL_SESSION_get_ticket_lifetime_hint(newest) ==
                    TLS_TICKET_KEPT * TLS_TICKET_HOURS * 3600);
        for (size_t i = 0; i < countof(stations); i++) {
            struct visit again = {.version = versions[v], .resume = true};
            visit(stations[i], &again);
            assert_true(again.secured && again.resumed && again.peer_resumed);
            assert_int_equal(sessions, v); // TLS 1.3: a new ticket for each
        }
        forget();
    }
    tls_server_unref(here);
    tls_server_unref(reloaded);
    tls_server_unref(elsewhere);
}

static void test_a_session_crosses_no_policy(void **state)
{
    (void)state;
    struct tls_server *web = server_on(1, STR("web"), TLS_CLIENT_AUTH_NONE);
    struct tls_server *other_name = server_on(1, STR("api"), TLS_CLIENT_AUTH_NONE);
    struct tls_server *optional = server_on(1, STR("web"), TLS_CLIENT_AUTH_OPTIONAL);
    struct tls_server *require = server_on(1, STR("web"), TLS_CLIENT_AUTH_REQUIRE);
    struct str kept = ca_path;
    ca_path = other_ca_path;
    struct tls_server *other_trust = server_on(1, STR("web"), TLS_CLIENT_AUTH_OPTIONAL);
    ca_path = kept;
    struct tls_server *const from[] = {web, web, web, optional, optional}, *const to[] = {
                                                                               other_name, optional, require,
                                                                               other_trust, require};
    for (size_t v = 0; v < countof(versions); v++)
        for (size_t i = 0; i < countof(from); i++) {
            struct visit first = {.version = versions[v]}, again = {.version = versions[v], .resume = true};
            visit(from[i], &first);
            assert_true(first.secured);
            visit(to[i], &again);
            assert_int_equal(again.secured, to[i] != require);
            assert_false(again.resumed);
            if (to[i] == require)
                assert_int_equal(again.alert, v ? SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED
                                                : SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE);
            forget();
        }
    tls_server_unref(web);
    tls_server_unref(other_name);
    tls_server_unref(optional);
    tls_server_unref(require);
    tls_server_unref(other_trust);
}

static void test_forged_tickets_are_ignored(void **state)
{
    (void)state;
    struct tls_server *server = server_on(1, STR("web"), TLS_CLIENT_AUTH_NONE);
    for (size_t v = 0; v < countof(versions); v++)
        for (size_t place = 0; place < 80; place += 13) { // the key's name, the IV, the sealed session
            struct visit first = {.version = versions[v]}, again = {.version = versions[v], .resume = true};
            visit(server, &first);
            const unsigned char *ticket;
            size_t n;
            SSL_SESSION_get0_ticket(newest, &ticket, &n);
            assert_true(n > 80);
            ((unsigned char *)(uintptr_t)ticket)[place] ^= 0x40;
            visit(server, &again);
            assert_true(again.secured && !again.resumed);
            assert_int_equal(sessions, 1);
            forget();
        }
    tls_server_unref(server);
}

static const char ann[] =
    "CN=Ann\\, of "
    "\\\"Sales\\\"|DNS=ann.example,URI=spiffe://example/ann%252C%3BDNS=bob,email=ann@example,IP=10.0.0.1|";

static void test_client_certificates(void **state)
{
    (void)state;
    char fingerprint[2 * 32 + 1];
    uint8_t digest[32];
    X509_digest(client.x509, EVP_sha256(), digest, NULL);
    for (size_t i = 0; i < 32; i++)
        snprintf(fingerprint + 2 * i, 3, "%02x", digest[i]);
    struct tls_server *optional = server_on(1, STR("web"), TLS_CLIENT_AUTH_OPTIONAL);
    struct tls_server *require = server_on(1, STR("web"), TLS_CLIENT_AUTH_REQUIRE);
    for (size_t v = 0; v < countof(versions); v++) {
        struct visit none = {.version = versions[v]}, good = {.version = versions[v], .shown = &client},
                     bad = {.version = versions[v], .shown = &stranger},
                     again = {.version = versions[v], .resume = true};
        visit(optional, &none);
        assert_true(none.secured);
        assert_string_equal(none.facts, "||");
        visit(optional, &bad);
        assert_false(bad.secured);
        assert_int_equal(bad.alert, SSL_R_TLSV1_ALERT_UNKNOWN_CA);
        visit(require, &bad);
        assert_false(bad.secured);
        visit(require, &none);
        assert_false(none.secured);
        forget();
        visit(require, &good);
        assert_true(good.secured && !good.resumed);
        assert_memory_equal(good.facts, ann, sizeof ann - 1);
        assert_string_equal(good.facts + sizeof ann - 1, fingerprint);
        visit(require, &again); // the session stands for the certificate
        assert_true(again.secured && again.resumed);
        assert_string_equal(again.facts, good.facts);
        forget();
    }
    tls_server_unref(optional);
    tls_server_unref(require);
}

// A session does not outlive the certificate it stands for.
static void test_an_expired_identity_is_not_resumed(void **state)
{
    (void)state;
    struct tls_server *require = server_on(1, STR("web"), TLS_CLIENT_AUTH_REQUIRE);
    for (size_t v = 0; v < countof(versions); v++) {
        struct made brief = make_certificate("brief", NULL, &ca, "EC", false, -DAY, 2);
        struct visit first = {.version = versions[v], .shown = &brief},
                     again = {.version = versions[v], .shown = &brief, .resume = true};
        visit(require, &first);
        assert_true(first.secured);
        uint64_t deadline = fixture_deadline();
        while (X509_cmp_time(X509_get0_notAfter(brief.x509), NULL) > 0 && clock_monotonic_us() < deadline)
            usleep(10000);
        visit(require, &again);
        assert_false(again.secured);
        assert_int_equal(again.alert, SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED);
        forget();
        made_free(&brief);
    }
    tls_server_unref(require);
}

static void test_client_ca_is_needed(void **state)
{
    (void)state;
    struct err err = {0};
    struct tls_server_options options = {
        .certificates = &files, .certificate_count = 1, .client_auth = TLS_CLIENT_AUTH_REQUIRE};
    assert_null(tls_server_new(1, &options, &err));
    assert_int_equal(err.code, ERR_INVALID);
    options.client_ca = fixture_path("missing-ca.pem");
    assert_null(tls_server_new(1, &options, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_true(str_eq(str_of(err.where), options.client_ca));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_session_lives_anywhere),
        cmocka_unit_test(test_a_session_crosses_no_policy),
        cmocka_unit_test(test_forged_tickets_are_ignored),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_an_expired_identity_is_not_resumed),
        cmocka_unit_test(test_client_ca_is_needed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
