#include "test_gateway_config_fixture.h"

#include "token/token.h"

#include <stdlib.h>

#define BASE "version: 1\nlisteners: [{name: http, address: ':8080'}]\n"

static const struct auth_settings *load_provider(struct fixture *fixture, const char *provider,
                                                 struct gateway_settings *settings)
{
    struct str text = arena_printf(&fixture->arena, BASE "auth: {p: %s}\n", provider);
    assert_string_equal(load(fixture, text.p, settings), "");
    assert_int_equal(settings->auth.count, 1);
    const struct auth_settings *auth = settings->auth.v;
    assert_string_equal(auth->name.p, "p");
    assert_int_equal(auth->line, 3);
    return auth;
}

#define assert_list(list, ...)                                 \
    do {                                                       \
        static const char *const expected[] = {__VA_ARGS__};   \
        assert_int_equal((list).count, countof(expected));     \
        for (size_t i_ = 0; i_ < countof(expected); i_++)      \
            assert_string_equal((list).v[i_].p, expected[i_]); \
    } while (0)

// The values of the configuration contract.
static void test_jwt_defaults(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    const struct auth_settings *auth =
        load_provider(fixture, "{jwt: {issuer: me, jwks: {file: a}}}", &settings);
    const struct jwt_settings *jwt = &auth->jwt;
    assert_int_equal(auth->kind, AUTH_JWT);
    assert_true(auth->has_jwt && jwt->has_jwks && jwt->forward_token);
    assert_false(auth->has_forward || auth->has_introspection || auth->has_api_key || auth->has_mtls);
    assert_int_equal(jwt->audiences.count, 0);
    assert_int_equal(jwt->jwks.uri.text.n, 0);
    assert_string_equal(jwt->jwks.file.p, "a");
    assert_int_equal(jwt->jwks.refresh_us, 600000000);
    assert_int_equal(jwt->jwks.cooldown_us, 10000000);
    assert_int_equal(jwt->jwks.keep_last_good_us, 24 * UINT64_C(3600000000));
    assert_int_equal(jwt->jwks.timeout_us, 2000000);
    assert_int_equal(jwt->algorithms, 1U << ALGORITHM_RS256 | 1U << ALGORITHM_ES256 | 1U << ALGORITHM_EDDSA);
    assert_int_equal(jwt->secret.n, 0);
    assert_int_equal(jwt->leeway_us, 30000000);
    assert_list(jwt->required_claims, "exp");
    assert_string_equal(jwt->roles_claim.p, "roles");
    assert_string_equal(jwt->scopes_claim.p, "scope");
    assert_int_equal(jwt->consumer_claim.n, 0);
    assert_false(jwt->revocation);
}

static void test_secrets(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    setenv("SALLYPORT_UNIT_SECRET", "0123456789abcdef0123456789abcdef", 1);
    const struct jwt_settings *jwt =
        &load_provider(fixture, "{jwt: {issuer: me, secret: {env: SALLYPORT_UNIT_SECRET}}}", &settings)->jwt;
    assert_false(jwt->has_jwks);
    assert_int_equal(jwt->algorithms, 1U << ALGORITHM_HS256);
    assert_int_equal(jwt->secret.n, 32);
    struct buf dump = {0};
    config_dump(&gateway_object, &settings, false, &dump);
    assert_null(memmem(dump.base, buf_len(&dump), "0123456789abcdef", 16));
    assert_non_null(memmem(dump.base, buf_len(&dump), "secret: \"***\"", 13));
    buf_free(&dump);
    setenv("SALLYPORT_UNIT_SECRET", "0123456789abcdef0123456789abcde", 1);
    assert_string_equal(
        load(fixture, BASE "auth: {p: {jwt: {issuer: me, secret: {env: SALLYPORT_UNIT_SECRET}}}}\n",
             &settings),
        "t:3:38: auth.p.jwt.secret: HS256 needs a secret of 32 bytes or more, not 31 (openssl rand -base64 "
        "64)\n");
}

static void test_defaults_of_other_kinds(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    setenv("SALLYPORT_UNIT_SECRET", "secret", 1);
    const struct auth_settings *auth = load_provider(
        fixture,
        "{introspection: {uri: 'http://a', client_id: b, client_secret: {env: SALLYPORT_UNIT_SECRET}}}",
        &settings);
    assert_int_equal(auth->kind, AUTH_INTROSPECTION);
    assert_int_equal(auth->introspection.timeout_us, 200000);
    assert_int_equal(auth->introspection.cache.ttl_us, 30000000);
    assert_int_equal(auth->introspection.cache.negative_ttl_us, 5000000);
    assert_int_equal(auth->introspection.cache.stale_us, 0);
    assert_false(auth->introspection.cache.ignore_cache_control);
    assert_true(auth->introspection.forward_token);
    auth = load_provider(fixture, "{forward: {uri: 'http://a'}}", &settings);
    assert_int_equal(auth->kind, AUTH_FORWARD);
    assert_int_equal(auth->forward.timeout_us, 200000);
    assert_list(auth->forward.request_headers, "Authorization", "Cookie");
    assert_list(auth->forward.response_headers, "X-User-Id", "X-User-Roles");
    assert_string_equal(auth->forward.subject_header.p, "X-User-Id");
    assert_string_equal(auth->forward.roles_header.p, "X-User-Roles");
    assert_int_equal(auth->forward.cache.ttl_us + auth->forward.cache.negative_ttl_us, 0);
    assert_false(auth->forward.cache.ignore_cache_control);
    assert_list(auth->forward.cache.key, "header.Authorization");
    auth = load_provider(fixture, "{api_key: {}}", &settings);
    assert_int_equal(auth->kind, AUTH_API_KEY);
    assert_string_equal(auth->api_key.header.p, "X-API-Key");
    assert_int_equal(auth->api_key.query.n, 0);
    assert_false(auth->api_key.forward_key);
    auth = load_provider(fixture, "{mtls: {}}", &settings);
    assert_int_equal(auth->kind, AUTH_MTLS);
    assert_true(auth->mtls.require_consumer);
}

// A null takes a default away.
static void test_nulls(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    const struct auth_settings *auth =
        load_provider(fixture, "{api_key: {header: null, query: key}}", &settings);
    assert_int_equal(auth->api_key.header.n, 0);
    assert_string_equal(auth->api_key.query.p, "key");
    auth = load_provider(fixture, "{forward: {uri: 'http://a', subject_header: null, roles_header: null}}",
                         &settings);
    assert_int_equal(auth->forward.subject_header.n + auth->forward.roles_header.n, 0);
}

static void test_root_defaults(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    static const char *const headers[][2] = {{"X-User-Id", "identity.subject"},
                                             {"X-User-Roles", "identity.roles"},
                                             {"X-User-Scopes", "identity.scopes"},
                                             {"X-Consumer", "identity.consumer"}};
    assert_string_equal(load(fixture, BASE, &settings), "");
    assert_int_equal(settings.auth.count + settings.consumers.count, 0);
    assert_int_equal(settings.consumers_file.n, 0);
    assert_false(settings.has_identity_token);
    assert_int_equal(settings.identity_headers.count, countof(headers));
    for (size_t i = 0; i < countof(headers); i++) {
        assert_string_equal(settings.identity_headers.v[i].name.p, headers[i][0]);
        assert_string_equal(settings.identity_headers.v[i].value.p, headers[i][1]);
    }
    assert_string_equal(load(fixture, BASE "identity_headers: {}\nidentity_token: {key: a}\n", &settings),
                        "");
    assert_int_equal(settings.identity_headers.count, 0);
    assert_true(settings.has_identity_token);
    assert_string_equal(settings.identity_token.header.p, "X-Identity");
    assert_string_equal(settings.identity_token.issuer.p, "sallyport");
    assert_int_equal(settings.identity_token.ttl_us, 60000000);
}

static void test_addresses(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text;
        bool tls;
        const char *address, *authority, *target;
    } cases[] = {
        {"http://a.example", false, "a.example:80", "a.example", "/"},
        {"https://a.example", true, "a.example:443", "a.example", "/"},
        {"https://a.example/", true, "a.example:443", "a.example", "/"},
        {"http://127.0.0.1:9400/jwks.json", false, "127.0.0.1:9400", "127.0.0.1:9400", "/jwks.json"},
        {"https://[2001:db8::1]/a/b?c=d/e", true, "[2001:db8::1]:443", "[2001:db8::1]", "/a/b?c=d/e"},
        {"http://[::1]:81?c", false, "[::1]:81", "[::1]:81", "/?c"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct auth_uri uri;
        const char *why;
        assert_true(auth_uri_parse(str_of(cases[i].text), &fixture->arena, &uri, &why));
        assert_string_equal(uri.text.p, cases[i].text);
        assert_int_equal(uri.tls, cases[i].tls);
        assert_string_equal(uri.address.p, cases[i].address);
        assert_string_equal(uri.authority.p, cases[i].authority);
        assert_string_equal(uri.target.p, cases[i].target);
    }
}

static void test_consumers(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(
        load(fixture,
             BASE
             "consumers:\n"
             "  acme: {api_keys: [{sha256: "
             "8649CDEBEE753898FD50E01408A9E438AA5090249BC3E51B65F33DCE973B0873}], roles: [a, b]}\n"
             "  orders: {certificates: [{san: 'IP=2001:DB8::0:1'}, {fingerprint: "
             "'86:49:CD:EB:EE:75:38:98:FD:50:E0:14:08:A9:E4:38:AA:50:90:24:9B:C3:E5:1B:65:F3:3D:CE:97:3B:"
             "08:73'}], scopes: [s]}\n",
             &settings),
        "");
    static const char hex[] = "8649cdebee753898fd50e01408a9e438aa5090249bc3e51b65f33dce973b0873";
    const struct consumer_settings *consumers = settings.consumers.v;
    assert_int_equal(settings.consumers.count, 2);
    assert_string_equal(consumers[0].name.p, "acme");
    assert_string_equal(((const struct consumer_key *)consumers[0].api_keys.v)->sha256.p, hex);
    assert_list(consumers[0].roles, "a", "b");
    const struct consumer_certificate *certificates = consumers[1].certificates.v;
    assert_string_equal(certificates[0].san.p, "IP=2001:db8::1");
    assert_string_equal(certificates[1].fingerprint.p, hex);
    assert_list(consumers[1].scopes, "s");
}

static void test_routes(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(
        load(fixture,
             BASE "auth: {a: {api_key: {}}, b: {mtls: {}}, c: {api_key: {header: X-Other}}}\n"
                  "routes:\n"
                  "  - {name: open, respond: {}, auth: null}\n"
                  "  - {name: one, respond: {}, auth: c, outlive_token: true}\n"
                  "  - {name: more, respond: {}, auth: {any_of: [c, a], optional: true,\n"
                  "     require: {scopes: [s], roles: [r, q], roles_match: all, scopes_match: any}}}\n",
             &settings),
        "");
    const struct route_settings *routes = settings.routes.v;
    assert_false(routes[0].has_auth || routes[0].outlive_token);
    assert_true(routes[1].has_auth && routes[1].outlive_token && !routes[1].auth.optional);
    assert_list(routes[1].auth.any_of, "c");
    assert_int_equal(routes[1].auth.indices[0], 2);
    assert_int_equal(routes[1].auth.scopes_match, AUTH_MATCH_ALL);
    assert_int_equal(routes[1].auth.roles_match, AUTH_MATCH_ANY);
    assert_true(routes[2].has_auth && routes[2].auth.optional);
    assert_list(routes[2].auth.any_of, "c", "a");
    assert_int_equal(routes[2].auth.indices[0], 2);
    assert_int_equal(routes[2].auth.indices[1], 0);
    assert_list(routes[2].auth.scopes, "s");
    assert_list(routes[2].auth.roles, "r", "q");
    assert_int_equal(routes[2].auth.scopes_match, AUTH_MATCH_ANY);
    assert_int_equal(routes[2].auth.roles_match, AUTH_MATCH_ALL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_jwt_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_secrets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_defaults_of_other_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nulls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_root_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_consumers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_routes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
