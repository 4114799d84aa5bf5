// Tokens verified at the gateway: signatures, claims, the cache, revocation, and waiting for keys.
#include "test_auth_fixture.h"
#include "test_jwks_fake.h"
#include "test_token_fixture.h"

enum { NOW_S = 1000000, LEEWAY_S = 30, TIMEOUT_US = 2000000 };

// RSA keys take their time: made once.
static struct token_signer *signers[3], *stranger;
static const enum token_algorithm algorithms[] = {ALGORITHM_RS256, ALGORITHM_ES256, ALGORITHM_EDDSA};

struct jwt_scene {
    struct auth_scene auth;
    struct arena tokens;
    struct str audience[1], required[1];
};

// ---- making ----

static struct token_keys *keys_of(struct token_signer *const *some, size_t count)
{
    struct buf text = set_of(some, count);
    struct err err;
    struct token_keys *keys = token_keys_parse(buf_str(&text), &err);
    assert_non_null(keys);
    buf_free(&text);
    return keys;
}

static struct str sign(struct jwt_scene *scene, struct token_signer *signer, const char *claims)
{
    struct str token = token_sign(signer, STR("JWT"), str_of(claims), &scene->tokens);
    assert_true(token.n);
    return token;
}

#define GOOD_CLAIMS                                                                                      \
    "\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"sub\":\"ann\",\"jti\":\"j1\",\"iat\":999000," \
    "\"exp\":1000100"

static struct str good_token(struct jwt_scene *scene)
{
    return sign(scene, signers[0], "{" GOOD_CLAIMS "}");
}

// ---- asking ----

static enum auth_result again(struct jwt_scene *scene)
{
    struct auth_scene *auth = &scene->auth;
    return auth_ask(auth->worker, &auth->provider, &auth->call);
}

static enum auth_result ask_at(struct jwt_scene *scene, struct str token, int64_t now_s)
{
    auth_scene_bearer(&scene->auth, token);
    scene->auth.call.now_s = now_s;
    return again(scene);
}

static enum auth_result ask(struct jwt_scene *scene, struct str token)
{
    return ask_at(scene, token, NOW_S);
}

static void assert_allowed(struct jwt_scene *scene, enum auth_result result)
{
    assert_int_equal(result, AUTH_ALLOW);
    assert_non_null(scene->auth.call.identity);
    identity_unref(scene->auth.call.identity);
}

static void assert_denied(struct jwt_scene *scene, enum auth_result result, enum end_cause cause,
                          const char *detail)
{
    const struct auth_call *call = &scene->auth.call;
    assert_int_equal(result, AUTH_DENY);
    assert_int_equal(call->cause, cause);
    assert_null(call->identity);
    assert_true(str_starts(call->challenge, STR("Bearer realm=\"sallyport\", error=\"invalid_token\"")));
    if (detail && !str_eq(call->detail, str_of(detail)))
        fail_msg("%.*s", STR_ARG(call->detail));
}

static unsigned long cache_counted(struct jwt_scene *scene, const char *result)
{
    return auth_scene_counted(&scene->auth, "cache_total", result);
}

static void keys_fetched(void)
{
    fake_listener->on_fetched(fake_listener);
}

// ---- signatures ----

static void test_each_algorithm(void **state)
{
    struct jwt_scene *scene = *state;
    for (size_t i = 0; i < countof(signers); i++) {
        assert_allowed(scene, ask(scene, sign(scene, signers[i], "{" GOOD_CLAIMS "}")));
        struct identity *identity = scene->auth.call.identity;
        assert_true(str_eq(identity->subject, STR("ann")));
        assert_true(str_eq(identity->issuer, STR("https://auth.example")));
        assert_true(str_eq(identity->jti, STR("j1")));
        assert_int_equal(identity->issued_at, 999000);
        assert_int_equal(identity->expires, 1000100);
        assert_int_equal(identity->provider, scene->auth.provider.id);
    }
}

static void test_a_changed_token_is_refused(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = good_token(scene);
    char *changed = arena_alloc(&scene->tokens, token.n);
    size_t payload = str_find(token, '.') + 1;
    memcpy(changed, token.p, token.n);
    changed[payload + 40] = changed[payload + 40] == 'A' ? 'B' : 'A';
    struct str text = {changed, token.n};
    assert_denied(scene, ask(scene, text), END_INVALID_TOKEN, "the token's signature is not valid");
    assert_allowed(scene, ask(scene, token));
}

static void test_an_algorithm_that_is_not_allowed(void **state)
{
    struct jwt_scene *scene = *state;
    scene->auth.settings.jwt.algorithms = 1U << ALGORITHM_ES256;
    assert_denied(scene, ask(scene, good_token(scene)), END_INVALID_TOKEN,
                  "the token's algorithm is not accepted");
}

static void test_what_is_no_token(void **state)
{
    struct jwt_scene *scene = *state;
    static const char *const texts[] = {"abc", "a.b", "a.b.c", "..", "e30.e30.e30", "e30.e30."};
    for (size_t i = 0; i < countof(texts); i++)
        assert_denied(scene, ask(scene, str_of(texts[i])), END_INVALID_TOKEN, NULL);
    char *text = arena_alloc(&scene->tokens, TOKEN_BYTES + 1);
    memset(text, 'a', TOKEN_BYTES + 1);
    assert_denied(scene, ask(scene, (struct str){text, TOKEN_BYTES + 1}), END_INVALID_TOKEN,
                  "the token is too long");
    assert_int_equal(cache_counted(scene, "miss"), countof(texts) + 1);
    assert_int_equal(cache_counted(scene, "negative"), 0);
}

static void test_a_shared_secret(void **state)
{
    struct jwt_scene *scene = *state;
    struct auth_scene *auth = &scene->auth;
    struct err err;
    const struct auth_sources sources = {.tls_slots = 2};
    auth->provider.jwks = NULL;
    auth->settings.jwt = (struct jwt_settings){
        .secret = STR("kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"), // one byte too short
        .algorithms = 1U << ALGORITHM_HS256,
    };
    assert_false(auth_jwt.compile(&auth->provider, &sources, &scene->tokens, &err));
    auth->settings.jwt.secret = STR("kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk");
    assert_true(auth_jwt.compile(&auth->provider, &sources, &scene->tokens, &err));
    assert_null(auth->provider.jwks);
    // {"alg":"HS256"}.{"sub":"ann"}, signed with this secret and with another one
    assert_allowed(
        scene,
        ask(scene,
            STR("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.RZMcZEWsUZOkaKbpMtRHjxUymx95AbSxz7AbKgalMlI")));
    assert_denied(
        scene,
        ask(scene,
            STR("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ._E1GRQKyxAgRXkJBua1bJCh1_-CJTBP4cjg7IbzKhU8")),
        END_INVALID_TOKEN, NULL);
    assert_denied(scene, ask(scene, good_token(scene)), END_INVALID_TOKEN, NULL);
    assert_int_equal(fake_jwks.wants, 0);
}

// ---- claims ----

static void test_claims_that_do_not_fit(void **state)
{
    static const struct {
        const char *claims;
        enum end_cause cause;
        const char *detail;
    } cases[] = {
        {"{\"iss\":\"https://other.example\",\"aud\":\"orders\",\"exp\":1000100}", END_INVALID_TOKEN,
         "the token is of another issuer"},
        {"{\"iss\":\"https://auth.example\",\"aud\":\"billing\",\"exp\":1000100}", END_INVALID_TOKEN,
         "the token is for another audience"},
        {"{\"iss\":\"https://auth.example\",\"aud\":\"orders\"}", END_INVALID_TOKEN,
         "a required claim is missing: exp"},
        {"{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":\"1000100\"}", END_INVALID_TOKEN,
         "a claim of the token has the wrong type"},
        {"{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":1000100,\"nbf\":1000031}",
         END_INVALID_TOKEN, "the token is not valid yet"},
        {"{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":999970}", END_EXPIRED_TOKEN,
         "the token has expired"},
    };
    struct jwt_scene *scene = *state;
    for (size_t i = 0; i < countof(cases); i++)
        assert_denied(scene, ask(scene, sign(scene, signers[1], cases[i].claims)), cases[i].cause,
                      cases[i].detail);
}

static void test_roles_scopes_and_consumer(void **state)
{
    struct jwt_scene *scene = *state;
    struct jwt_settings *settings = &scene->auth.settings.jwt;
    settings->roles_claim = STR("realm.roles");
    settings->consumer_claim = STR("client.id");
    assert_allowed(scene, ask(scene, sign(scene, signers[1],
                                          "{" GOOD_CLAIMS ",\"realm\":{\"roles\":[\"gold\",\"admin\"]},"
                                          "\"scope\":\"read write\",\"client\":{\"id\":\"acme\"}}")));
    const struct identity *identity = scene->auth.call.identity;
    assert_int_equal(identity->roles.count, 2);
    assert_true(str_eq(identity->roles.v[1], STR("admin")));
    assert_int_equal(identity->scopes.count, 2);
    assert_true(str_eq(identity->scopes.v[0], STR("read")));
    assert_true(str_eq(identity->consumer, STR("acme")));
    // Of the wrong type: nobody's, and none.
    assert_allowed(scene, ask(scene, sign(scene, signers[1],
                                          "{" GOOD_CLAIMS ",\"realm\":{\"roles\":{\"gold\":1}},\"scope\":7,"
                                          "\"client\":{\"id\":{}}}")));
    identity = scene->auth.call.identity;
    assert_int_equal(identity->roles.count + identity->scopes.count, 0);
    assert_int_equal(identity->consumer.n, 0);
}

static void test_a_token_that_says_too_much(void **state)
{
    struct jwt_scene *scene = *state;
    char scopes[11000];
    for (size_t i = 0; i < sizeof scopes; i++)
        scopes[i] = i % 2 ? ' ' : 'a';
    const char *claims =
        arena_printf(&scene->tokens, "{" GOOD_CLAIMS ",\"scope\":\"%.*s\"}", (int)sizeof scopes, scopes).p;
    assert_denied(scene, ask(scene, sign(scene, signers[1], claims)), END_INVALID_TOKEN,
                  "the token says too much");
}

// ---- time ----

static void test_accepted_until_exp_and_leeway_and_never_after(void **state)
{
    struct jwt_scene *scene = *state;
    struct str warm = good_token(scene), cold = sign(scene, signers[1], "{" GOOD_CLAIMS "}");
    const int64_t end_s = 1000100 + LEEWAY_S;
    assert_allowed(scene, ask(scene, warm));
    assert_allowed(scene, ask_at(scene, warm, end_s - 1));
    assert_int_equal(cache_counted(scene, "hit"), 1);
    assert_denied(scene, ask_at(scene, warm, end_s), END_EXPIRED_TOKEN, "the token has expired");
    assert_denied(scene, ask_at(scene, cold, end_s), END_EXPIRED_TOKEN, "the token has expired");
    assert_denied(scene, ask_at(scene, warm, INT32_MAX), END_EXPIRED_TOKEN, "the token has expired");
    assert_int_equal(cache_counted(scene, "hit"), 1);
}

static void test_a_token_without_end(void **state)
{
    struct jwt_scene *scene = *state;
    scene->auth.settings.jwt.required_claims.count = 0;
    struct str token = sign(scene, signers[1], "{\"iss\":\"https://auth.example\",\"aud\":\"orders\"}");
    assert_allowed(scene, ask(scene, token));
    assert_allowed(scene, ask_at(scene, token, INT32_MAX));
    assert_int_equal(scene->auth.call.identity->expires, INT64_MAX);
    assert_int_equal(cache_counted(scene, "hit"), 1);
}

static void test_not_valid_yet_is_not_remembered(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = sign(scene, signers[1], "{" GOOD_CLAIMS ",\"nbf\":1000031}");
    assert_denied(scene, ask(scene, token), END_INVALID_TOKEN, "the token is not valid yet");
    assert_allowed(scene, ask_at(scene, token, NOW_S + 1));
}

// ---- the cache ----

static void test_a_warm_token_takes_no_memory(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = good_token(scene);
    assert_allowed(scene, ask(scene, token));
    const struct identity *identity = scene->auth.call.identity;
    auth_scene_bearer(&scene->auth, token);
    const char *at = scene->auth.arena.at;
    assert_allowed(scene, again(scene));
    assert_ptr_equal(scene->auth.arena.at, at);
    assert_ptr_equal(scene->auth.call.identity, identity);
    assert_int_equal(cache_counted(scene, "hit"), 1);
    assert_int_equal(cache_counted(scene, "miss"), 1);
    assert_int_equal(auth_scene_counted(&scene->auth, "decisions_total", "allow"), 2);
}

static void test_new_keys_end_what_was_decided(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = good_token(scene);
    assert_allowed(scene, ask(scene, token));
    fake_jwks_set(keys_of(signers + 1, 2));
    fake_jwks.answer = JWKS_KNOWN;
    assert_denied(scene, ask(scene, token), END_INVALID_TOKEN, "the token is signed with an unknown key");
    fake_jwks_set(keys_of(signers, 1));
    assert_allowed(scene, ask(scene, token));
    assert_int_equal(cache_counted(scene, "miss"), 3);
}

static void test_another_configuration_finds_nothing(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = good_token(scene);
    assert_allowed(scene, ask(scene, token));
    scene->auth.provider.fingerprint++;
    scene->audience[0] = STR("billing");
    assert_denied(scene, ask(scene, token), END_INVALID_TOKEN, "the token is for another audience");
    scene->auth.provider.fingerprint--;
    assert_allowed(scene, ask(scene, token));
    assert_int_equal(cache_counted(scene, "hit"), 1);
}

static void test_a_reload_keeps_what_was_decided(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = good_token(scene);
    assert_allowed(scene, ask(scene, token));
    auth_worker_update(scene->auth.worker, &scene->auth.auth);
    assert_allowed(scene, ask(scene, token));
    assert_int_equal(cache_counted(scene, "hit"), 1);
    assert_allowed(scene, ask(scene, sign(scene, signers[1], "{" GOOD_CLAIMS "}")));
}

static void test_one_bad_token_again_and_again(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = sign(scene, signers[1], "{" GOOD_CLAIMS "}");
    struct str worse = arena_copy(&scene->tokens, token);
    memcpy((char *)worse.p + worse.n - 8, "AAAA", 4);
    assert_denied(scene, ask(scene, worse), END_INVALID_TOKEN, "the token's signature is not valid");
    assert_denied(scene, ask_at(scene, worse, NOW_S + 4), END_INVALID_TOKEN,
                  "the token's signature is not valid");
    assert_int_equal(cache_counted(scene, "negative"), 1);
    assert_denied(scene, ask_at(scene, worse, NOW_S + 5), END_INVALID_TOKEN, NULL);
    assert_int_equal(cache_counted(scene, "negative"), 1);
    assert_int_equal(cache_counted(scene, "miss"), 2);
    struct str expired =
        sign(scene, signers[1], "{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":999000}");
    assert_denied(scene, ask(scene, expired), END_EXPIRED_TOKEN, "the token has expired");
    assert_denied(scene, ask(scene, expired), END_EXPIRED_TOKEN, "the token has expired");
    assert_int_equal(cache_counted(scene, "negative"), 2);
}

// ---- revocation ----

static void revoke(struct deny_entry entry)
{
    entry.until = NOW_S + 100000;
    assert_int_equal(deny_add(&entry, NOW_S), DENY_ADDED);
}

static void test_revoked_by_jti_while_cached(void **state)
{
    struct jwt_scene *scene = *state;
    scene->auth.settings.jwt.revocation = true;
    struct str token =
        sign(scene, signers[1],
             "{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":1000100,\"jti\":\"cached-jti\"}");
    assert_allowed(scene, ask(scene, token));
    assert_allowed(scene, ask(scene, token));
    revoke((struct deny_entry){.jti = STR("cached-jti")});
    assert_denied(scene, ask(scene, token), END_REVOKED_TOKEN, "the token has been revoked");
    assert_denied(scene, ask(scene, token), END_REVOKED_TOKEN, NULL);
    assert_int_equal(cache_counted(scene, "hit"), 3);
    assert_int_equal(cache_counted(scene, "miss"), 1);
}

static void test_revoked_before_it_is_seen(void **state)
{
    struct jwt_scene *scene = *state;
    scene->auth.settings.jwt.revocation = true;
    revoke((struct deny_entry){.issuer = STR("https://auth.example"), .jti = STR("unseen-jti")});
    struct str token =
        sign(scene, signers[1],
             "{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":1000100,\"jti\":\"unseen-jti\"}");
    assert_denied(scene, ask(scene, token), END_REVOKED_TOKEN, NULL);
    scene->auth.settings.jwt.revocation = false; // and for who does not ask
    scene->auth.provider.fingerprint++;
    assert_allowed(scene, ask(scene, token));
}

static void test_revoked_by_subject_up_to_a_time(void **state)
{
    struct jwt_scene *scene = *state;
    scene->auth.settings.jwt.revocation = true;
    struct str old = sign(scene, signers[1],
                          "{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":1000100,"
                          "\"sub\":\"bob\",\"iat\":999500}");
    struct str new = sign(scene, signers[1],
                          "{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":1000100,"
                          "\"sub\":\"bob\",\"iat\":999501}");
    struct str undated = sign(scene, signers[1],
                              "{\"iss\":\"https://auth.example\",\"aud\":\"orders\",\"exp\":1000100,"
                              "\"sub\":\"bob\"}");
    assert_allowed(scene, ask(scene, old));
    assert_allowed(scene, ask(scene, new));
    revoke((struct deny_entry){.subject = STR("bob"), .before = 999500});
    assert_denied(scene, ask(scene, old), END_REVOKED_TOKEN, NULL);
    assert_allowed(scene, ask(scene, new));
    assert_denied(scene, ask(scene, undated), END_REVOKED_TOKEN, NULL);
}

// ---- waiting for keys ----

static void test_an_unknown_key_waits_for_a_fetch(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = sign(scene, stranger, "{" GOOD_CLAIMS "}");
    assert_int_equal(ask(scene, token), AUTH_WAIT);
    assert_true(scene->auth.call.wait_us > 0 && scene->auth.call.wait_us <= TIMEOUT_US);
    assert_int_equal(again(scene), AUTH_WAIT); // woken by something else
    assert_int_equal(scene->auth.woken, 0);
    fake_jwks_set(keys_of(&stranger, 1));
    keys_fetched();
    assert_int_equal(scene->auth.woken, 1);
    assert_allowed(scene, again(scene));
    assert_null(scene->auth.call.state);
    keys_fetched();
    assert_int_equal(scene->auth.woken, 1);
    assert_int_equal(cache_counted(scene, "miss"), 1);
    assert_int_equal(cache_counted(scene, "hit"), 0);
    assert_int_equal(auth_scene_counted(&scene->auth, "decisions_total", "allow"), 1);
}

static void test_an_unknown_key_that_stays_so(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = sign(scene, stranger, "{" GOOD_CLAIMS "}");
    assert_int_equal(ask(scene, token), AUTH_WAIT);
    fake_jwks.answer = JWKS_KNOWN;
    keys_fetched();
    assert_denied(scene, again(scene), END_INVALID_TOKEN, "the token is signed with an unknown key");
    assert_denied(scene, ask(scene, token), END_INVALID_TOKEN, NULL);
    assert_null(scene->auth.call.state);
}

static void test_keys_that_cannot_be_had(void **state)
{
    struct jwt_scene *scene = *state;
    struct str token = sign(scene, stranger, "{" GOOD_CLAIMS "}");
    fake_jwks.answer = JWKS_FAILED;
    assert_int_equal(ask(scene, token), AUTH_UNAVAILABLE);
    assert_true(scene->auth.call.detail.n);
    assert_allowed(scene, ask(scene, good_token(scene))); // a known key needs nobody
    fake_jwks_set(NULL);                                  // too old
    assert_int_equal(ask(scene, good_token(scene)), AUTH_UNAVAILABLE);
    fake_jwks.answer = JWKS_KNOWN; // a set came and went
    assert_int_equal(ask(scene, good_token(scene)), AUTH_UNAVAILABLE);
    assert_int_equal(auth_scene_counted(&scene->auth, "decisions_total", "unavailable"), 3);
}

static void test_the_first_keys_are_waited_for(void **state)
{
    struct jwt_scene *scene = *state;
    fake_jwks_set(NULL);
    assert_int_equal(ask(scene, good_token(scene)), AUTH_WAIT);
    fake_jwks_set(keys_of(signers, 3));
    keys_fetched();
    assert_allowed(scene, again(scene));
}

static void test_waiting_ends_with_the_timeout(void **state)
{
    struct jwt_scene *scene = *state;
    assert_int_equal(ask(scene, sign(scene, stranger, "{" GOOD_CLAIMS "}")), AUTH_WAIT);
    scene->auth.loop.now_us += TIMEOUT_US - 1;
    assert_int_equal(again(scene), AUTH_WAIT);
    assert_int_equal(scene->auth.call.wait_us, 1);
    scene->auth.loop.now_us++;
    assert_int_equal(again(scene), AUTH_UNAVAILABLE);
    keys_fetched();
    assert_int_equal(scene->auth.woken, 0);
}

static void test_who_has_gone_is_not_woken(void **state)
{
    struct jwt_scene *scene = *state;
    assert_int_equal(ask(scene, sign(scene, stranger, "{" GOOD_CLAIMS "}")), AUTH_WAIT);
    auth_forget(scene->auth.worker, &scene->auth.call);
    auth_scene_request(&scene->auth); // its arena is gone
    keys_fetched();
    assert_int_equal(scene->auth.woken, 0);
}

static void test_keys_that_come_at_the_same_moment(void **state)
{
    struct jwt_scene *scene = *state;
    fake_jwks.news = keys_of(&stranger, 1);
    fake_jwks.answer = JWKS_KNOWN; // another worker had asked
    assert_allowed(scene, ask(scene, sign(scene, stranger, "{" GOOD_CLAIMS "}")));
    assert_int_equal(fake_jwks.wants, 1);
}

// Several exchanges at once, of which the first that is woken ends another.
static struct auth_call crowd[8];
static struct jwt_scene *crowded;

static void wake_and_end_one(void *context, struct ticket ticket)
{
    auth_scene_wake(context, ticket);
    if (ticket.slot == 0)
        auth_forget(crowded->auth.worker, &crowd[5]);
}

static void test_all_who_wait_are_woken(void **state)
{
    struct jwt_scene *scene = crowded = *state;
    struct auth_scene *auth = &scene->auth;
    auth->worker->needs.wake = wake_and_end_one;
    auth_scene_bearer(auth, sign(scene, stranger, "{" GOOD_CLAIMS "}"));
    for (uint32_t i = 0; i < countof(crowd); i++) {
        crowd[i] = auth->call;
        crowd[i].ticket = (struct ticket){i, 1};
        assert_int_equal(auth_ask(auth->worker, &auth->provider, &crowd[i]), AUTH_WAIT);
    }
    fake_jwks_set(keys_of(&stranger, 1));
    keys_fetched();
    assert_int_equal(auth->woken, countof(crowd) - 1);
    for (uint32_t i = 0; i < countof(crowd); i++) {
        if (i == 5)
            continue;
        assert_int_equal(auth_ask(auth->worker, &auth->provider, &crowd[i]), AUTH_ALLOW);
        identity_unref(crowd[i].identity);
    }
    assert_int_equal(cache_counted(scene, "miss"), 1); // the others find it
    assert_int_equal(cache_counted(scene, "hit"), countof(crowd) - 2);
}

// ---- what goes on ----

static void test_conceal(void **state)
{
    struct jwt_scene *scene = *state;
    struct auth_scene *auth = &scene->auth;
    for (int forward = 0; forward < 2; forward++) {
        auth->settings.jwt.forward_token = forward;
        assert_allowed(scene, ask(scene, good_token(scene)));
        auth_conceal(&auth->provider, &auth->call);
        assert_int_equal(headers_find(&auth->request.headers, HEADER_AUTHORIZATION) != NULL, forward);
    }
}

static void test_only_looked_at(void **state)
{
    struct jwt_scene *scene = *state;
    struct auth_provider provider = {.settings = &scene->auth.settings, .auth = &scene->auth.auth};
    const struct auth_sources sources = {.tls_slots = 0};
    struct err err;
    assert_true(auth_jwt.compile(&provider, &sources, &scene->tokens, &err));
    assert_null(provider.jwks);
    assert_true(str_eq(auth_challenge(&provider), STR("Bearer realm=\"sallyport\"")));
}

// ---- the scene ----

static int jwt_setup(void **state)
{
    struct jwt_scene *scene = calloc(1, sizeof *scene);
    struct auth_scene *auth = &scene->auth;
    const struct auth_sources sources = {.tls_slots = 2};
    struct err err;
    arena_init(&scene->tokens, NULL);
    auth_scene_init(auth);
    scene->audience[0] = STR("orders");
    scene->required[0] = STR("exp");
    auth->settings.jwt = (struct jwt_settings){
        .issuer = STR("https://auth.example"),
        .audiences = {scene->audience, 1},
        .jwks = {.timeout_us = TIMEOUT_US},
        .algorithms = ALGORITHMS_ALL & ~ALGORITHMS_HS,
        .leeway_us = LEEWAY_S * 1000000,
        .required_claims = {scene->required, 1},
        .roles_claim = STR("roles"),
        .scopes_claim = STR("scope"),
        .forward_token = true,
    };
    auth->provider.kind = &auth_jwt;
    assert_true(auth_jwt.compile(&auth->provider, &sources, &scene->tokens, &err));
    fake_jwks_set(keys_of(signers, countof(signers)));
    *state = scene;
    return 0;
}

static int jwt_teardown(void **state)
{
    struct jwt_scene *scene = *state;
    auth_scene_fini(&scene->auth);
    arena_reset(&scene->tokens);
    free(scene);
    return 0;
}

static int make_signers(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(signers); i++)
        signers[i] = signer_of(algorithms[i]);
    stranger = signer_of(ALGORITHM_ES256);
    return 0;
}

static int free_signers(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(signers); i++)
        token_signer_free(signers[i]);
    token_signer_free(stranger);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, jwt_setup, jwt_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_each_algorithm),
        TEST(test_a_changed_token_is_refused),
        TEST(test_an_algorithm_that_is_not_allowed),
        TEST(test_what_is_no_token),
        TEST(test_a_shared_secret),
        TEST(test_claims_that_do_not_fit),
        TEST(test_roles_scopes_and_consumer),
        TEST(test_a_token_that_says_too_much),
        TEST(test_accepted_until_exp_and_leeway_and_never_after),
        TEST(test_a_token_without_end),
        TEST(test_not_valid_yet_is_not_remembered),
        TEST(test_a_warm_token_takes_no_memory),
        TEST(test_new_keys_end_what_was_decided),
        TEST(test_another_configuration_finds_nothing),
        TEST(test_a_reload_keeps_what_was_decided),
        TEST(test_one_bad_token_again_and_again),
        TEST(test_revoked_by_jti_while_cached),
        TEST(test_revoked_before_it_is_seen),
        TEST(test_revoked_by_subject_up_to_a_time),
        TEST(test_an_unknown_key_waits_for_a_fetch),
        TEST(test_an_unknown_key_that_stays_so),
        TEST(test_keys_that_cannot_be_had),
        TEST(test_the_first_keys_are_waited_for),
        TEST(test_waiting_ends_with_the_timeout),
        TEST(test_who_has_gone_is_not_woken),
        TEST(test_keys_that_come_at_the_same_moment),
        TEST(test_all_who_wait_are_woken),
        TEST(test_conceal),
        TEST(test_only_looked_at),
    };
    return cmocka_run_group_tests(tests, make_signers, free_signers);
}
