// The kinds that know their callers by `consumers`: API keys and client certificates.
#include "test_auth_fixture.h"

#include "auth/consumers.h"

static struct consumers *consumers_with(const char *name, const char *key)
{
    char hex[64], text[512];
    struct err err;
    consumers_hash_key(str_of(key), hex);
    snprintf(
        text, sizeof text,
        "{\"name\":\"%s\",\"api_keys\":[\"%.64s\"],\"roles\":[\"gold\"],\"scopes\":[\"read\"]}\n"
        "{\"name\":\"orders\",\"certificates\":[{\"san\":\"DNS=orders.example\"},{\"subject\":\"CN=old\"}],"
        "\"roles\":[\"service\"]}",
        name, hex);
    const struct consumers_source source = {.file = STR("c.jsonl"), .text = str_of(text)};
    struct consumers *consumers = consumers_new(&source, &err);
    if (!consumers)
        fail_msg("%s", err.what);
    return consumers;
}

static int setup(void **state, enum auth_kind kind, const struct auth_kind_row *row)
{
    struct auth_scene *scene = calloc(1, sizeof *scene);
    struct err err;
    auth_scene_init(scene);
    scene->settings.kind = kind;
    scene->provider.kind = row;
    scene->settings.api_key = (struct api_key_settings){.header = STR("X-API-Key"), .query = STR("api_key")};
    scene->settings.mtls.require_consumer = true;
    scene->auth.consumers = consumers_with("acme", "secret");
    const struct auth_sources sources = {0};
    if (row->compile)
        assert_true(row->compile(&scene->provider, &sources, &scene->arena, &err));
    auth_scene_request(scene);
    *state = scene;
    return 0;
}

static int setup_keys(void **state)
{
    return setup(state, AUTH_API_KEY, &auth_api_key);
}

static int setup_mtls(void **state)
{
    return setup(state, AUTH_MTLS, &auth_mtls);
}

static int teardown(void **state)
{
    struct auth_scene *scene = *state;
    auth_scene_fini(scene);
    consumers_unref(scene->auth.consumers);
    free(scene);
    return 0;
}

static void put_key(struct auth_scene *scene, const char *name, const char *value)
{
    headers_add(&scene->request.headers, &scene->arena, str_of(name), str_of(value));
}

static void put_query(struct auth_scene *scene, const char *query)
{
    scene->request.has_query = true;
    scene->request.query = str_of(query);
    scene->request.target = arena_printf(&scene->arena, "/a?%s", query);
    scene->request.path = (struct str){scene->request.target.p, 2};
}

static enum auth_result ask(struct auth_scene *scene)
{
    return auth_ask(scene->worker, &scene->provider, &scene->call);
}

static void assert_allowed(struct auth_scene *scene, const char *name)
{
    assert_int_equal(ask(scene), AUTH_ALLOW);
    const struct identity *identity = scene->call.identity;
    assert_true(str_eq(identity->consumer, str_of(name)));
    assert_true(str_eq(identity->subject, str_of(name)));
    assert_false(identity->revocable);
    assert_true(identity->expires == INT64_MAX);
    identity_unref(scene->call.identity);
}

static void assert_denied(struct auth_scene *scene, enum end_cause cause)
{
    assert_int_equal(ask(scene), AUTH_DENY);
    assert_int_equal(scene->call.cause, cause);
    assert_null(scene->call.identity);
    assert_true(scene->call.detail.n > 0);
}

// ---- API keys ----

static void test_key_in_the_header(void **state)
{
    struct auth_scene *scene = *state;
    assert_int_equal(ask(scene), AUTH_NONE);
    put_key(scene, "x-api-key", "secret");
    assert_int_equal(ask(scene), AUTH_ALLOW);
    assert_true(str_eq(scene->call.identity->roles.v[0], STR("gold")));
    assert_true(str_eq(scene->call.identity->scopes.v[0], STR("read")));
    identity_unref(scene->call.identity);
    assert_allowed(scene, "acme");
    assert_int_equal(auth_scene_counted(scene, "cache_total", "miss"), 1);
    assert_int_equal(auth_scene_counted(scene, "cache_total", "hit"), 1);
    assert_true(str_eq(auth_challenge(&scene->provider), STR("ApiKey realm=\"sallyport\"")));
}

static void test_key_in_the_query(void **state)
{
    struct auth_scene *scene = *state;
    static const char *const good[] = {"api_key=secret", "x=1&api_key=secret&y", "%61pi%5fkey=s%65cret",
                                       "&&api_key=secret"};
    for (size_t i = 0; i < countof(good); i++) {
        auth_scene_request(scene);
        put_query(scene, good[i]);
        assert_allowed(scene, "acme");
    }
    static const char *const none[] = {"", "api_keys=secret", "Api_Key=secret", "x=api_key=secret",
                                       "x;api_key=secret"};
    for (size_t i = 0; i < countof(none); i++) {
        auth_scene_request(scene);
        put_query(scene, none[i]);
        assert_int_equal(ask(scene), AUTH_NONE);
    }
}

static void test_keys_that_are_refused(void **state)
{
    struct auth_scene *scene = *state;
    static char longest[API_KEY_BYTES + 2];
    memset(longest, 'k', sizeof longest - 1);
    const struct {
        const char *headers[2], *query;
    } rows[] = {
        {{"Secret"}},
        {{"secret "}},
        {{"secret", "secret"}},
        {{"secret", "other"}},
        {{"other", "secret"}},
        {{""}},
        {{"secret,secret"}},
        {{longest}},
        {{"secret"}, "api_key=secret"},
        {{"secret"}, "api_key"},
        {{0}, "api_key=other"},
        {{0}, "api_key="},
        {{0}, "api_key"},
        {{0}, "api_key=secret&api_key=secret"},
        {{0}, "api_key=secret&%61pi_key=x"},
        {{0}, "api_key=secret%00"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        auth_scene_request(scene);
        for (size_t k = 0; k < 2 && rows[i].headers[k]; k++)
            put_key(scene, "X-API-Key", rows[i].headers[k]);
        if (rows[i].query)
            put_query(scene, rows[i].query);
        assert_denied(scene, END_INVALID_KEY);
        assert_int_equal(scene->call.challenge.n, 0); // the kind's own
    }
    assert_int_equal(auth_cache_count(scene->worker->cache), 0);
    auth_scene_request(scene);
    put_key(scene, "X-API-Key", longest);
    assert_denied(scene, END_INVALID_KEY);
    assert_non_null(strstr(scene->call.detail.p, "too long")); // it was not looked for
}

// A key that is taken away is refused at once, though its identity is in the cache.
static void test_key_taken_away(void **state)
{
    struct auth_scene *scene = *state;
    put_key(scene, "X-API-Key", "secret");
    assert_allowed(scene, "acme");
    consumers_unref(scene->auth.consumers);
    scene->auth.consumers = consumers_with("acme", "other");
    scene->provider.fingerprint++; // as auth_compile sees to
    assert_denied(scene, END_INVALID_KEY);
}

static void test_key_is_concealed(void **state)
{
    struct auth_scene *scene = *state;
    static const struct {
        const char *query, *kept; // NULL: no query is left
    } rows[] = {
        {"api_key=secret", NULL},
        {"a=1&api_key=secret&b=%2f", "a=1&b=%2f"},
        {"%61pi_key=secret&a", "a"},
        {"a&api_key=secret", "a"},
        {"a=api_key&api_keys=1", "a=api_key&api_keys=1"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        auth_scene_request(scene);
        put_query(scene, rows[i].query);
        put_key(scene, "x-api-KEY", "secret");
        put_key(scene, "X-Other", "1");
        auth_conceal(&scene->provider, &scene->call);
        const struct request_head *request = &scene->request;
        assert_null(headers_find_name(&request->headers, STR("X-API-Key")));
        assert_non_null(headers_find_name(&request->headers, STR("X-Other")));
        assert_int_equal(request->has_query, rows[i].kept != NULL);
        assert_true(str_eq(request->query, str_of(rows[i].kept)));
        assert_true(str_eq(request->path, STR("/a")));
        struct str target = rows[i].kept ? arena_printf(&scene->arena, "/a?%s", rows[i].kept) : STR("/a");
        assert_true(str_eq(request->target, target));
        // forward_make_target takes the target as received when the path is in it.
        if (!rows[i].kept || strcmp(rows[i].query, rows[i].kept) != 0)
            assert_ptr_not_equal(request->path.p, request->target.p);
    }
    scene->settings.api_key.forward_key = true;
    auth_scene_request(scene);
    put_query(scene, "api_key=secret");
    put_key(scene, "X-API-Key", "secret");
    auth_conceal(&scene->provider, &scene->call);
    assert_true(str_eq(scene->request.query, STR("api_key=secret")));
    assert_non_null(headers_find_name(&scene->request.headers, STR("X-API-Key")));
}

static void test_key_is_not_logged(void **state)
{
    struct auth_scene *scene = *state;
    static const struct {
        const char *query, *logged;
    } rows[] = {
        {"api_key=secret", "api_key=***"},
        {"a=1&%61pi_key=secret&b", "a=1&%61pi_key=***&b"},
        {"api_key&api_key=", "api_key=***&api_key=***"},
        {"a=1", "a=1"},
        {"", ""},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct str logged = auth_loggable_query(&scene->auth, str_of(rows[i].query), &scene->arena);
        assert_true(str_eq(logged, str_of(rows[i].logged)));
    }
    scene->settings.api_key.query = STR_NULL;
    assert_true(str_eq(auth_loggable_query(&scene->auth, STR("api_key=x"), &scene->arena), STR("api_key=x")));
}

static void test_key_in_one_place_only(void **state)
{
    struct auth_scene *scene = *state;
    scene->settings.api_key.header = STR_NULL;
    put_key(scene, "X-API-Key", "secret");
    assert_int_equal(ask(scene), AUTH_NONE);
    scene->settings.api_key = (struct api_key_settings){.header = STR("Authorization")};
    auth_scene_request(scene);
    put_query(scene, "api_key=secret");
    assert_int_equal(ask(scene), AUTH_NONE);
    put_key(scene, "authorization", "secret");
    assert_allowed(scene, "acme");
}

// ---- client certificates ----

#define PRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddee"

static void test_certificates(void **state)
{
    struct auth_scene *scene = *state;
    struct tls_facts tls = {0};
    assert_int_equal(ask(scene), AUTH_NONE); // plain
    scene->call.tls = &tls;
    assert_int_equal(ask(scene), AUTH_NONE); // no certificate
    tls = (struct tls_facts){.client_fingerprint = STR(PRINT "01"),
                             .client_subject = STR("CN=orders"),
                             .client_sans = STR("DNS=www.example,DNS=Orders.example")};
    assert_allowed(scene, "orders");
    assert_allowed(scene, "orders"); // of the cache
    assert_int_equal(auth_scene_counted(scene, "cache_total", "hit"), 1);
    tls = (struct tls_facts){.client_fingerprint = STR(PRINT "02"), .client_subject = STR("CN=old")};
    assert_allowed(scene, "orders");
    tls.client_fingerprint = STR(PRINT "03");
    tls.client_subject = STR("CN=orders.example");
    assert_denied(scene, END_UNKNOWN_CERTIFICATE);
}

static void test_certificates_of_nobody(void **state)
{
    struct auth_scene *scene = *state;
    struct tls_facts tls = {.client_fingerprint = STR(PRINT "04"),
                            .client_subject = STR("CN=x,O=Example"),
                            .client_sans = STR("URI=spiffe://x/y,DNS=z")};
    scene->settings.mtls.require_consumer = false;
    scene->call.tls = &tls;
    for (int again = 0; again < 2; again++) {
        assert_int_equal(ask(scene), AUTH_ALLOW);
        assert_true(str_eq(scene->call.identity->subject, STR("CN=x,O=Example")));
        assert_int_equal(scene->call.identity->consumer.n, 0);
        assert_int_equal(scene->call.identity->roles.count, 0);
        identity_unref(scene->call.identity);
    }
    tls.client_fingerprint = STR(PRINT "05");
    tls.client_subject = STR_NULL;
    assert_int_equal(ask(scene), AUTH_ALLOW);
    assert_true(str_eq(scene->call.identity->subject, STR("URI=spiffe://x/y")));
    identity_unref(scene->call.identity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_key_in_the_header, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_key_in_the_query, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_keys_that_are_refused, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_key_taken_away, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_key_is_concealed, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_key_is_not_logged, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_key_in_one_place_only, setup_keys, teardown),
        cmocka_unit_test_setup_teardown(test_certificates, setup_mtls, teardown),
        cmocka_unit_test_setup_teardown(test_certificates_of_nobody, setup_mtls, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
