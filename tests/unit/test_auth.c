// What all kinds of providers have in common: bearer tokens in requests, challenges, counting, revocation.
#include "test_auth_fixture.h"

// ---- bearer tokens ----

static struct str found_in(struct auth_scene *scene, const char *const *values)
{
    auth_scene_request(scene);
    for (; *values; values++)
        headers_add(&scene->request.headers, &scene->arena, STR("authorization"), str_of(*values));
    return auth_find_bearer(&scene->request);
}

static void test_bearer_found(void **state)
{
    static const struct {
        const char *value, *token;
    } cases[] = {
        {"Bearer abc", "abc"},
        {"bearer abc", "abc"},
        {"BEARER abc.def.ghi", "abc.def.ghi"},
        {"Bearer   abc", "abc"}, // 1*SP (RFC 9110 11.4)
        {"Bearer aZ09-._~+/==", "aZ09-._~+/=="},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct str token = found_in(*state, (const char *const[]){cases[i].value, NULL});
        assert_true(str_eq(token, str_of(cases[i].token)));
    }
}

static void test_bearer_none(void **state)
{
    static const char *const others[] = {"Basic dXNlcjpwYXNz", "Digest username=\"x\"", "Negotiate",
                                         "Bearers abc", "Bear abc"};
    assert_int_equal(found_in(*state, (const char *const[]){NULL}).n, 0);
    for (size_t i = 0; i < countof(others); i++) {
        struct str token = found_in(*state, (const char *const[]){others[i], NULL});
        assert_int_equal(token.n, 0);
        assert_ptr_not_equal(token.p, auth_garbled.p);
    }
}

static void test_bearer_garbled(void **state)
{
    static const char *const cases[][3] = {
        {""},           // a field that says nothing
        {"Bearer"},     // no token
        {"Bearer =="},  // only padding
        {"Bearer a b"}, // two
        {"Bearer a=b"}, // padding inside
        {"Bearer abc, Basic x"},
        {"Bearer \"abc\""},
        {"Bearer\tabc"},
        {"Bearer: abc"},
        {"Bearer,abc"},
        {"\xc3\x84rger abc"},
        {" Bearer abc"}, // a parser would have trimmed it
        {"Bearer abc\xff"},
        {"Bearer abc", "Bearer abc"},
        {"Bearer abc", "Basic x"},
        {"Basic x", "Bearer abc"},
        {"Basic x", "Basic y"},
    };
    for (size_t i = 0; i < countof(cases); i++)
        assert_ptr_equal(found_in(*state, cases[i]).p, auth_garbled.p);
}

static void test_every_byte_of_a_token(void **state)
{
    const char *plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";
    for (unsigned c = 1; c < 256; c++) {
        char value[] = "Bearer aaaaaaaaaaaaaaaaaaaaaaa?aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        *strchr(value, '?') = (char)c;
        struct str token = found_in(*state, (const char *const[]){value, NULL});
        assert_int_equal(token.p != auth_garbled.p, strchr(plain, (int)c) != NULL);
    }
}

static void test_removed_field_is_not_there(void **state)
{
    struct auth_scene *scene = *state;
    auth_scene_bearer(scene, STR("abc"));
    headers_remove(&scene->request.headers, HEADER_AUTHORIZATION);
    assert_int_equal(auth_find_bearer(&scene->request).n, 0);
}

// ---- asking ----

static enum auth_result next_result;
static unsigned asked, concealed, forgotten;

static struct str find_any(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider;
    return auth_find_bearer(call->request);
}

static enum auth_result answer(struct auth_worker *worker, const struct auth_provider *provider,
                               struct auth_call *call, struct str credentials)
{
    (void)worker, (void)provider;
    assert_true(str_eq(credentials, STR("abc")));
    asked++;
    if (next_result == AUTH_DENY)
        return auth_deny(call, END_INVALID_KEY, STR_NULL, NULL);
    return next_result;
}

static void conceal_it(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider, (void)call;
    concealed++;
}

static void forget_it(struct auth_worker *worker, struct auth_call *call)
{
    (void)worker;
    call->state = NULL;
    forgotten++;
}

static const struct auth_kind_row scripted = {
    .name = "scripted", .find = find_any, .ask = answer, .conceal = conceal_it, .forget = forget_it};

static enum auth_result ask_scripted(struct auth_scene *scene, enum auth_result result)
{
    scene->provider.kind = &scripted;
    auth_scene_bearer(scene, STR("abc"));
    next_result = result;
    return auth_ask(scene->worker, &scene->provider, &scene->call);
}

static void test_each_answer_is_counted_once(void **state)
{
    struct auth_scene *scene = *state;
    asked = 0;
    assert_int_equal(ask_scripted(scene, AUTH_ALLOW), AUTH_ALLOW);
    assert_int_equal(ask_scripted(scene, AUTH_DENY), AUTH_DENY);
    assert_int_equal(ask_scripted(scene, AUTH_UNAVAILABLE), AUTH_UNAVAILABLE);
    assert_int_equal(ask_scripted(scene, AUTH_WAIT), AUTH_WAIT);
    assert_int_equal(ask_scripted(scene, AUTH_WAIT), AUTH_WAIT);
    assert_int_equal(ask_scripted(scene, AUTH_ALLOW), AUTH_ALLOW);
    assert_int_equal(asked, 6);
    auth_scene_request(scene);
    assert_int_equal(auth_ask(scene->worker, &scene->provider, &scene->call), AUTH_NONE);
    assert_int_equal(asked, 6);
    assert_int_equal(auth_scene_counted(scene, "decisions_total", "allow"), 2);
    assert_int_equal(auth_scene_counted(scene, "decisions_total", "deny"), 1);
    assert_int_equal(auth_scene_counted(scene, "decisions_total", "unavailable"), 1);
    assert_int_equal(auth_scene_counted(scene, "decisions_total", "none"), 1);
}

static void test_garbled_is_refused_unasked(void **state)
{
    struct auth_scene *scene = *state;
    asked = 0;
    scene->provider.kind = &scripted;
    auth_scene_bearer(scene, STR("abc def"));
    assert_int_equal(auth_ask(scene->worker, &scene->provider, &scene->call), AUTH_DENY);
    assert_int_equal(scene->call.cause, END_INVALID_TOKEN);
    assert_int_equal(asked, 0);
    assert_int_equal(auth_scene_counted(scene, "decisions_total", "deny"), 1);
}

static void test_an_answer_does_not_show_in_the_next(void **state)
{
    struct auth_scene *scene = *state;
    ask_scripted(scene, AUTH_DENY);
    auth_deny(&scene->call, END_INVALID_TOKEN, STR("of before"), "invalid_token");
    next_result = AUTH_ALLOW;
    assert_int_equal(auth_ask(scene->worker, &scene->provider, &scene->call), AUTH_ALLOW);
    assert_int_equal(scene->call.cause, END_OK);
    assert_int_equal(scene->call.detail.n + scene->call.challenge.n, 0);
}

static void test_who_waits_is_forgotten_by_its_kind(void **state)
{
    struct auth_scene *scene = *state;
    forgotten = 0;
    ask_scripted(scene, AUTH_ALLOW);
    auth_forget(scene->worker, &scene->call);
    assert_int_equal(forgotten, 0);
    ask_scripted(scene, AUTH_WAIT);
    auth_forget(scene->worker, &scene->call);
    auth_forget(scene->worker, &scene->call);
    assert_int_equal(forgotten, 1);
}

static void test_conceal_is_the_kinds(void **state)
{
    struct auth_scene *scene = *state;
    concealed = 0;
    ask_scripted(scene, AUTH_ALLOW);
    auth_conceal(&scene->provider, &scene->call);
    assert_int_equal(concealed, 1);
    static const struct auth_kind_row shows = {.name = "shows"};
    scene->provider.kind = &shows;
    auth_conceal(&scene->provider, &scene->call);
    assert_int_equal(concealed, 1);
}

// ---- challenges ----

static void test_challenge_of_a_denial(void **state)
{
    struct auth_scene *scene = *state;
    struct auth_call *call = &scene->call;
    auth_scene_request(scene);
    assert_int_equal(auth_deny(call, END_EXPIRED_TOKEN, STR_NULL, "invalid_token"), AUTH_DENY);
    assert_int_equal(call->cause, END_EXPIRED_TOKEN);
    assert_true(str_eq(call->detail, STR("the token has expired")));
    assert_true(str_eq(call->challenge, STR("Bearer realm=\"sallyport\", error=\"invalid_token\", "
                                            "error_description=\"the token has expired\"")));
    auth_deny(call, END_INVALID_TOKEN, STR("say \"x\\y\"\r\nSet-Cookie: a\xc3\xa4\x7f"), "invalid_token");
    assert_true(str_eq(call->challenge, STR("Bearer realm=\"sallyport\", error=\"invalid_token\", "
                                            "error_description=\"say 'x'y'??Set-Cookie: a???\"")));
}

static void test_denial_without_an_error_has_the_kinds_challenge(void **state)
{
    struct auth_scene *scene = *state;
    auth_scene_request(scene);
    auth_deny(&scene->call, END_INVALID_KEY, STR_NULL, NULL);
    assert_int_equal(scene->call.challenge.n, 0);
    scene->provider.challenge = STR("ApiKey realm=\"sallyport\"");
    assert_true(str_eq(auth_challenge(&scene->provider), STR("ApiKey realm=\"sallyport\"")));
}

// ---- what was good before ----

static void test_still_good_until_it_expires(void **state)
{
    (void)state;
    struct identity identity = {.expires = 1000, .issued_at = 900, .subject = STR("ann")};
    enum end_cause cause = END_OK;
    assert_true(auth_still_good(&identity, 999, &cause));
    assert_false(auth_still_good(&identity, 1000, &cause));
    assert_int_equal(cause, END_EXPIRED_TOKEN);
    identity.expires = INT64_MAX;
    assert_true(auth_still_good(&identity, INT64_MAX - 1, &cause));
}

static void test_still_good_until_it_is_revoked(void **state)
{
    (void)state;
    struct identity identity = {
        .expires = INT64_MAX, .issued_at = 900, .subject = STR("still-good"), .revocable = true};
    struct identity later = identity, not_asked = identity;
    later.issued_at = 951;
    not_asked.revocable = false;
    enum end_cause cause = END_OK;
    assert_true(auth_still_good(&identity, 950, &cause));
    assert_int_equal(identity.deny_version, deny_version());
    const struct deny_entry entry = {.subject = STR("still-good"), .before = 950, .until = 5000};
    assert_int_equal(deny_add(&entry, 950), DENY_ADDED);
    assert_false(auth_still_good(&identity, 950, &cause));
    assert_int_equal(cause, END_REVOKED_TOKEN);
    assert_false(auth_still_good(&identity, 951, &cause)); // and it stays so
    assert_true(auth_still_good(&later, 951, &cause));
    assert_true(auth_still_good(&not_asked, 951, &cause));
}

static int scene_setup(void **state)
{
    struct auth_scene *scene = calloc(1, sizeof *scene);
    auth_scene_init(scene);
    *state = scene;
    return 0;
}

static int scene_teardown(void **state)
{
    auth_scene_fini(*state);
    free(*state);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_setup, scene_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_bearer_found),
        TEST(test_bearer_none),
        TEST(test_bearer_garbled),
        TEST(test_every_byte_of_a_token),
        TEST(test_removed_field_is_not_there),
        TEST(test_each_answer_is_counted_once),
        TEST(test_garbled_is_refused_unasked),
        TEST(test_an_answer_does_not_show_in_the_next),
        TEST(test_who_waits_is_forgotten_by_its_kind),
        TEST(test_conceal_is_the_kinds),
        TEST(test_challenge_of_a_denial),
        TEST(test_denial_without_an_error_has_the_kinds_challenge),
        TEST(test_still_good_until_it_expires),
        TEST(test_still_good_until_it_is_revoked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
