// Files of certificates: what is wrong with them in words, and which of them a name gets.
#include "test_tls_fixture.h"

#include <openssl/ocsp.h>

static struct made ca;

static int setup(void **state)
{
    ca = make_ca("Test CA");
    return fixture_setup(state);
}

static int teardown(void **state)
{
    made_free(&ca);
    return fixture_teardown(state);
}

// ---- checks ----

static void expect_bad(const struct tls_certificate_files *files, enum err_code code, struct str where,
                       const char *what)
{
    struct tls_certificate_info info;
    struct arena arena;
    struct err err = {0};
    arena_init(&arena, NULL);
    assert_int_equal(tls_certificate_check(files, &arena, &info, &err), code);
    assert_int_equal(err.code, code);
    assert_true(str_eq(str_of(err.where), where));
    if (!strstr(err.what, what))
        fail_msg("\"%s\" does not say \"%s\"", err.what, what);
    arena_reset(&arena);
}

static void test_a_good_one(void **state)
{
    (void)state;
    struct made leaf = make_leaf("common", "DNS:First.example,DNS:second.example", &ca);
    struct tls_certificate_files files = write_made("good", &leaf);
    struct tls_certificate_info info;
    struct arena arena;
    struct err err = {0};
    arena_init(&arena, NULL);
    assert_int_equal(tls_certificate_check(&files, &arena, &info, &err), ERR_OK);
    assert_true(str_eq(info.name, STR("first.example")));
    assert_string_equal(info.algorithm, "ecdsa");
    assert_int_equal(info.ocsp_until, 0);
    int64_t now = (int64_t)(clock_wall_us() / 1000000);
    assert_true(info.not_before < now - DAY + 100 && info.not_before > now - DAY - 100);
    assert_true(info.not_after < now + 20 * DAY + 100 && info.not_after > now + 20 * DAY - 100);
    arena_reset(&arena);
    made_free(&leaf);
}

static void test_every_kind_of_key_is_named(void **state)
{
    static const char *const kinds[][2] = {
        {"RSA", "rsa"}, {"EC", "ecdsa"}, {"ED25519", "eddsa"}, {"ED448", "eddsa"}};
    (void)state;
    for (size_t i = 0; i < countof(kinds); i++) {
        struct made leaf = make_certificate("a.example", NULL, &ca, kinds[i][0], false, -DAY, 20 * DAY);
        struct tls_certificate_files files = write_made("kind", &leaf);
        struct tls_certificate_info info;
        struct arena arena;
        struct err err = {0};
        arena_init(&arena, NULL);
        assert_int_equal(tls_certificate_check(&files, &arena, &info, &err), ERR_OK);
        assert_string_equal(info.algorithm, kinds[i][1]);
        arena_reset(&arena);
        made_free(&leaf);
    }
}

static void test_what_is_wrong_is_said(void **state)
{
    (void)state;
    struct made leaf = make_leaf("a.example", NULL, &ca), other = make_leaf("b.example", NULL, &ca);
    struct made old = make_certificate("c.example", NULL, &ca, "EC", false, -20 * DAY, -10 * DAY);
    struct tls_certificate_files good = write_made("wrong-a", &leaf), b = write_made("wrong-b", &other),
                                 bad = good;
    bad.cert = fixture_path("nowhere.pem");
    expect_bad(&bad, ERR_NOT_FOUND, bad.cert, "no such file");
    bad.cert = str_of(fixture_dir);
    expect_bad(&bad, ERR_INVALID, bad.cert, "is a directory");
    bad.cert = good.key;
    expect_bad(&bad, ERR_INVALID, bad.cert, "there is no certificate in it");
    bad = good;
    bad.key = fixture_path("nowhere.key");
    expect_bad(&bad, ERR_NOT_FOUND, bad.key, "no such file");
    bad.key = good.cert;
    expect_bad(&bad, ERR_INVALID, bad.key, "there is no private key in it");
    bad.key = b.key;
    expect_bad(&bad, ERR_INVALID, bad.key, "the key does not fit the certificate");

    bad = good;
    bad.key = fixture_path("encrypted.key");
    FILE *out = fopen(bad.key.p, "w");
    assert_true(
        PEM_write_PrivateKey(out, leaf.key, EVP_aes_128_cbc(), (const unsigned char *)"word", 4, NULL, NULL));
    fclose(out);
    expect_bad(&bad, ERR_INVALID, bad.key, "encrypted");

    bad = good;
    bad.cert = fixture_path("broken.pem");
    write_bytes(bad.cert, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", 60);
    expect_bad(&bad, ERR_INVALID, bad.cert, "broken");
    write_bytes(bad.cert, "", 0);
    expect_bad(&bad, ERR_INVALID, bad.cert, "there is no certificate in it");

    struct tls_certificate_files expired = write_made("wrong-old", &old);
    char day[32];
    struct tm tm;
    time_t then = time(NULL) - 10 * DAY;
    strftime(day, sizeof day, "expired on %Y-%m-%d", gmtime_r(&then, &tm));
    expect_bad(&expired, ERR_INVALID, expired.cert, day);

    // A worker that comes back serves what was accepted once; others do not.
    struct err err = {0};
    struct tls_server_options options = {.certificates = &expired, .certificate_count = 1};
    assert_null(tls_server_new(1, &options, &err));
    assert_true(str_eq(str_of(err.where), expired.cert) && strstr(err.what, day));
    options.allow_expired = true;
    struct tls_server *server = tls_server_new(1, &options, &err);
    assert_non_null(server);
    tls_server_unref(server);
    struct tls_certificate_info info = {0};
    struct arena arena;
    arena_init(&arena, NULL);
    assert_int_equal(tls_certificate_check(&expired, &arena, &info, &err), ERR_INVALID);
    assert_true(info.not_after && info.not_after < time(NULL) && info.name.n);
    arena_reset(&arena);
    made_free(&leaf);
    made_free(&other);
    made_free(&old);
}

static bool only_these(const void *context, struct str path, struct str *content)
{
    for (const struct str *pair = context; pair->p; pair += 2)
        if (str_eq(pair[0], path)) {
            *content = pair[1];
            return true;
        }
    return false;
}

// Files that were read before are not looked for on disk; what is not among them is.
static void test_files_that_were_read_before(void **state)
{
    (void)state;
    struct made leaf = make_leaf("kept.example", NULL, &ca);
    struct tls_certificate_files files = write_made("kept", &leaf);
    char text[8192];
    FILE *in = fopen(files.cert.p, "r");
    assert_non_null(in);
    struct str pairs[] = {STR("no/such/cert.pem"), {text, fread(text, 1, sizeof text, in)}, STR_NULL};
    fclose(in);
    struct tls_certificate_files kept = {.cert = pairs[0], .key = files.key};
    struct tls_certificate_info info;
    struct err err = {0};
    struct arena arena;
    arena_init(&arena, NULL);
    tls_read_from(only_these, pairs);
    assert_int_equal(tls_certificate_check(&kept, &arena, &info, &err), ERR_OK);
    assert_true(str_eq(info.name, STR("kept.example")));
    struct tls_server_options options = {.certificates = &kept, .certificate_count = 1};
    struct tls_server *server = tls_server_new(1, &options, &err);
    assert_non_null(server);
    tls_server_unref(server);
    tls_read_from(NULL, NULL);
    assert_int_equal(tls_certificate_check(&kept, &arena, &info, &err), ERR_NOT_FOUND);
    arena_reset(&arena);
    made_free(&leaf);
}

static void test_ca_files(void **state)
{
    (void)state;
    struct err err = {0};
    struct tls_certificate_files files = write_made("ca-check", &ca);
    assert_int_equal(tls_ca_check(files.cert, &err), ERR_OK);
    assert_int_equal(tls_ca_check(files.key, &err), ERR_INVALID);
    assert_true(str_eq(str_of(err.where), files.key));
    assert_int_equal(tls_ca_check(fixture_path("no-ca.pem"), &err), ERR_NOT_FOUND);
    assert_int_equal(tls_ca_check(fixture_path("no-ca.pem"), NULL), ERR_NOT_FOUND);
    // The system's store, wherever it is.
    setenv("SSL_CERT_FILE", files.cert.p, 1);
    assert_int_equal(tls_ca_check(STR("system"), &err), ERR_OK);
    unsetenv("SSL_CERT_FILE");
}

// ---- OCSP ----

// A response about that certificate (status: V_OCSP_CERTSTATUS_*), from and until relative to now.
static struct str write_ocsp(const char *name, const struct made *about, int status, long from_s,
                             long until_s)
{
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), about->x509, ca.x509);
    ASN1_TIME *from = X509_gmtime_adj(NULL, from_s), *until = X509_gmtime_adj(NULL, until_s);
    assert_non_null(OCSP_basic_add1_status(basic, id, status, 0, from, from, until));
    assert_int_equal(OCSP_basic_sign(basic, ca.x509, ca.key, EVP_sha256(), NULL, 0), 1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *der = NULL;
    int n = i2d_OCSP_RESPONSE(response, &der);
    struct str path = fixture_path(name);
    write_bytes(path, der, (size_t)n);
    OPENSSL_free(der);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return path;
}

static long stapled_bytes(struct tls_server *server)
{
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    const unsigned char *response;
    pair_open(&pair);
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    peer_begin(&pair, context, true);
    SSL_set_tlsext_status_type(pair.peer.ssl, TLSEXT_STATUSTYPE_ocsp);
    assert_true(pair_shake(&pair));
    long n = SSL_get_tlsext_status_ocsp_resp(pair.peer.ssl, &response);
    pair_close(&pair);
    SSL_CTX_free(context);
    return n;
}

static void test_ocsp(void **state)
{
    (void)state;
    struct made leaf = make_leaf("a.example", NULL, &ca), other = make_leaf("b.example", NULL, &ca);
    struct tls_certificate_files files = write_made("ocsp", &leaf);
    struct tls_certificate_info info;
    struct arena arena;
    struct err err = {0};
    arena_init(&arena, NULL);
    files.ocsp = write_ocsp("good.ocsp", &leaf, V_OCSP_CERTSTATUS_GOOD, -100, 1000);
    assert_int_equal(tls_certificate_check(&files, &arena, &info, &err), ERR_OK);
    int64_t now = (int64_t)(clock_wall_us() / 1000000);
    assert_true(info.ocsp_until > now + 900 && info.ocsp_until < now + 1100);
    struct tls_server_options options = {.certificates = &files, .certificate_count = 1};
    struct tls_server *server = tls_server_new(1, &options, &err);
    assert_true(stapled_bytes(server) > 100);
    tls_server_unref(server);

    files.ocsp = write_ocsp("old.ocsp", &leaf, V_OCSP_CERTSTATUS_GOOD, -1000, -100);
    server = tls_server_new(1, &options, &err);
    assert_non_null(server);
    assert_int_equal(stapled_bytes(server), -1);
    tls_server_unref(server);

    files.ocsp = write_ocsp("other.ocsp", &other, V_OCSP_CERTSTATUS_GOOD, -100, 1000);
    expect_bad(&files, ERR_INVALID, files.ocsp, "it is about another certificate");
    files.ocsp = write_ocsp("revoked.ocsp", &leaf, V_OCSP_CERTSTATUS_REVOKED, -100, 1000);
    expect_bad(&files, ERR_INVALID, files.ocsp, "revoked");
    files.ocsp = files.cert;
    expect_bad(&files, ERR_INVALID, files.ocsp, "it is no OCSP response");
    arena_reset(&arena);
    made_free(&leaf);
    made_free(&other);
}

// ---- names ----

// The subject of the certificate that a client that asks for name gets; "" when the handshake failed.
static void got_subject(struct tls_server *server, const char *name, const char *signatures, char out[64])
{
    SSL_CTX *context = peer_context(TLS_client_method());
    struct pair pair;
    *out = 0;
    pair_open(&pair);
    assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
    if (signatures)
        assert_int_equal(SSL_CTX_set1_sigalgs_list(context, signatures), 1);
    peer_begin(&pair, context, true);
    if (name)
        SSL_set_tlsext_host_name(pair.peer.ssl, name);
    if (pair_shake(&pair)) {
        X509 *certificate = SSL_get0_peer_certificate(pair.peer.ssl);
        X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, out, 64);
    } else {
        peer_pump(&pair);
        ERR_clear_error();
        SSL_do_handshake(pair.peer.ssl);
        assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_TLSV1_UNRECOGNIZED_NAME);
    }
    pair_close(&pair);
    SSL_CTX_free(context);
}

static void expect_subject(struct tls_server *server, const char *name, const char *signatures,
                           const char *expected)
{
    char subject[64];
    got_subject(server, name, signatures, subject);
    if (strcmp(subject, expected) != 0)
        fail_msg("%s (%s) got \"%s\", not \"%s\"", name ? name : "no name", signatures ? signatures : "any",
                 subject, expected);
}

static void test_names(void **state)
{
    (void)state;
    struct made made[] = {
        make_leaf("first", "DNS:first.example,DNS:also.example", &ca),
        make_leaf("exact", "DNS:exact.wild.example", &ca),
        make_leaf("wild", "DNS:*.wild.example", &ca),
        make_certificate("wild-rsa", "DNS:*.wild.example", &ca, "RSA", false, -DAY, DAY),
        make_leaf("common.example", NULL, &ca),
        make_leaf("hidden.example", "DNS:shown.example", &ca),
        make_leaf("partial", "DNS:p*.partial.example", &ca),
    };
    struct tls_certificate_files files[countof(made)];
    for (size_t i = 0; i < countof(made); i++) {
        char name[16];
        snprintf(name, sizeof name, "names-%zu", i);
        files[i] = write_made(name, &made[i]);
    }
    struct err err = {0};
    struct tls_server_options options = {.certificates = files, .certificate_count = countof(files)};
    struct tls_server *server = tls_server_new(1, &options, &err);
    options.strict_sni = true;
    struct tls_server *strict = tls_server_new(1, &options, &err);
    assert_true(server && strict);

    static const char ec[] = "ECDSA+SHA256", rsa[] = "RSA-PSS+SHA256:RSA+SHA256";
    expect_subject(server, NULL, NULL, "first");
    expect_subject(server, "unknown.example", NULL, "first");
    expect_subject(server, "ALSO.Example", NULL, "first");
    expect_subject(server, "also.example.", NULL, "first");
    expect_subject(server, "exact.wild.example", ec, "exact");
    expect_subject(server, "exact.wild.example", rsa, "wild-rsa"); // better than no certificate
    expect_subject(server, "any.wild.example", ec, "wild");
    expect_subject(server, "any.wild.example", rsa, "wild-rsa");
    expect_subject(server, "two.any.wild.example", NULL, "first"); // one label only
    expect_subject(server, "wild.example", NULL, "first");
    expect_subject(server, ".wild.example", NULL, "first");
    expect_subject(server, "common.example", NULL, "common.example");
    expect_subject(server, "shown.example", NULL, "hidden.example");
    expect_subject(server, "hidden.example", NULL, "first"); // no common name beside other names
    expect_subject(server, "pa.partial.example", NULL, "first");

    expect_subject(strict, "also.example", NULL, "first");
    expect_subject(strict, "any.wild.example", ec, "wild");
    expect_subject(strict, "unknown.example", NULL, "");
    expect_subject(strict, NULL, NULL, "");

    // Both get the same certificates, or 421.
    assert_true(tls_server_same_site(server, STR_NULL, STR("any.wild.example")));
    assert_true(tls_server_same_site(server, STR("first.example"), STR("also.example")));
    assert_true(tls_server_same_site(server, STR("First.example."), STR("ALSO.example")));
    assert_true(tls_server_same_site(server, STR("a.wild.example"), STR("b.wild.example")));
    assert_true(tls_server_same_site(server, STR("unknown.example"), STR("10.0.0.1")));
    assert_true(tls_server_same_site(server, STR("unknown.example"), STR("first.example")));
    assert_false(tls_server_same_site(server, STR("first.example"), STR("a.wild.example")));
    assert_false(tls_server_same_site(server, STR("exact.wild.example"), STR("a.wild.example")));
    assert_false(tls_server_same_site(strict, STR("first.example"), STR("unknown.example")));
    options = (struct tls_server_options){.certificates = files, .certificate_count = 1};
    struct tls_server *single = tls_server_new(1, &options, &err);
    assert_true(tls_server_same_site(single, STR("first.example"), STR("whatever.example")));
    tls_server_unref(single);
    tls_server_unref(strict);
    tls_server_unref(server);
    for (size_t i = 0; i < countof(made); i++)
        made_free(&made[i]);
}

static void test_server_name_is_a_fact(void **state)
{
    (void)state;
    struct made leaf = make_leaf("a.example", "DNS:a.example", &ca);
    struct tls_certificate_files files = write_made("sni", &leaf);
    struct tls_server_options options = {.certificates = &files, .certificate_count = 1};
    static const char *const cases[][2] = {{"A.Example.", "a.example"},
                                           {"un known\r\n.x", "un?known??.x"},
                                           {"xn--bcher-kva.example", "xn--bcher-kva.example"}};
    struct err err = {0};
    struct tls_server *server = tls_server_new(1, &options, &err);
    for (size_t i = 0; i < countof(cases); i++) {
        SSL_CTX *context = peer_context(TLS_client_method());
        struct pair pair;
        pair_open(&pair);
        assert_true(tls_accept(&pair.side.conn, server, STR_NULL));
        peer_begin(&pair, context, true);
        SSL_set_tlsext_host_name(pair.peer.ssl, cases[i][0]);
        assert_true(pair_shake(&pair));
        assert_true(str_eq(tls_facts(&pair.side.conn)->server_name, str_of(cases[i][1])));
        pair_close(&pair);
        SSL_CTX_free(context);
    }
    tls_server_unref(server);
    made_free(&leaf);
}

static void test_many_certificates(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    struct made leaf = make_leaf("many", "DNS:first.example", &ca);
    struct tls_certificate_files *files = calloc(MANY, sizeof *files);
    char(*paths)[64] = calloc(MANY, sizeof *paths);
    files[0] = write_made("many", &leaf);
    for (unsigned i = 1; i < MANY; i++) { // one key for all: making keys is not what is tested
        char name[32], sans[64];
        snprintf(name, sizeof name, "host-%u", i);
        snprintf(sans, sizeof sans, "DNS:host-%u.example,DNS:*.host-%u.example", i, i);
        snprintf(paths[i], sizeof paths[i], "%s/many-%u.pem", fixture_dir, i);
        struct made made = {.x509 = X509_dup(leaf.x509), .key = leaf.key};
        X509_NAME *subject = X509_NAME_new();
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (unsigned char *)name, -1, -1, 0);
        X509_set_subject_name(made.x509, subject);
        X509_NAME_free(subject);
        X509_EXTENSION_free(
            X509_delete_ext(made.x509, X509_get_ext_by_NID(made.x509, NID_subject_alt_name, -1)));
        fixture_extend(made.x509, made.x509, NID_subject_alt_name, sans);
        assert_true(X509_sign(made.x509, ca.key, EVP_sha256()) > 0);
        FILE *out = fopen(paths[i], "w");
        assert_true(out && PEM_write_X509(out, made.x509));
        fclose(out);
        files[i] = (struct tls_certificate_files){.cert = str_of(paths[i]), .key = files[0].key};
        X509_free(made.x509);
    }
    struct err err = {0};
    struct tls_server_options options = {.certificates = files, .certificate_count = MANY};
    struct tls_server *server = tls_server_new(2, &options, &err);
    assert_non_null(server);
    expect_subject(server, "host-1.example", NULL, "host-1");
    expect_subject(server, "x.host-500.example", NULL, "host-500");
    expect_subject(server, "host-999.example", NULL, "host-999");
    expect_subject(server, "host-1000.example", NULL, "many");
    tls_server_unref(server);
    free(files);
    free(paths);
    made_free(&leaf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_one),
        cmocka_unit_test(test_every_kind_of_key_is_named),
        cmocka_unit_test(test_what_is_wrong_is_said),
        cmocka_unit_test(test_files_that_were_read_before),
        cmocka_unit_test(test_ca_files),
        cmocka_unit_test(test_ocsp),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_server_name_is_a_fact),
        cmocka_unit_test(test_many_certificates),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
