// Tokens and a key set that is fetched: the first keys, rotation, and a service that is not there. What
// test_auth_jwt.c tests with keys at hand, end to end.
#include "test_auth_fixture.h"
#include "test_fetch_fixture.h"
#include "test_token_fixture.h"

enum { CALLS = 20, NOW_S = 1000000, TIMEOUT_US = 300000, MINUTE_US = 60000000 };

struct fixture {
    struct upstream_scene upstream;
    struct auth_scene auth;
    struct arena tokens;
    struct asking { // an exchange
        struct arena arena;
        struct header header;
        struct request_head request;
        struct auth_call call;
        enum auth_result result;
    } asking[CALLS];
    struct token_signer *signers[2]; // the old key, the new one
    struct buf replies[2];           // with the old one's key; with both
};

// ---- asking ----

static enum auth_result again(struct fixture *f, uint32_t n)
{
    struct asking *asking = &f->asking[n];
    asking->result = auth_ask(f->auth.worker, &f->auth.provider, &asking->call);
    if (asking->result == AUTH_ALLOW)
        identity_unref(asking->call.identity);
    return asking->result;
}

static enum auth_result ask_with(struct fixture *f, uint32_t n, struct str token)
{
    struct asking *asking = &f->asking[n];
    arena_reset(&asking->arena);
    asking->header = (struct header){
        STR("Authorization"), arena_printf(&f->tokens, "Bearer %.*s", STR_ARG(token)), HEADER_AUTHORIZATION};
    asking->request = (struct request_head){.headers = {&asking->header, 1, 1}};
    asking->call = (struct auth_call){
        .request = &asking->request, .arena = &asking->arena, .now_s = NOW_S, .ticket = {n, 1}};
    return again(f, n);
}

static enum auth_result ask(struct fixture *f, uint32_t n, struct token_signer *signer)
{
    return ask_with(f, n, token_sign(signer, STR("JWT"), STR("{\"sub\":\"ann\"}"), &f->tokens));
}

static void on_wake(void *context, struct ticket ticket)
{
    struct fixture *f = context;
    auth_scene_wake(&f->auth, ticket);
    (void)again(f, ticket.slot);
}

static enum auth_result settle(struct fixture *f, uint32_t n)
{
    uint64_t due_us = f->upstream.loop.now_us + f->asking[n].call.wait_us;
    UNTIL(&f->upstream, f->asking[n].result != AUTH_WAIT || f->upstream.loop.now_us >= due_us);
    return f->asking[n].result == AUTH_WAIT ? again(f, n) : f->asking[n].result;
}

static void have_keys(struct fixture *f)
{
    UNTIL(&f->upstream, jwks_is_ready(&f->auth.auth));
}

static void be_silent(struct fixture *f)
{
    f->upstream.server.reply = NULL;
}

// ---- tests ----

static void test_the_first_keys_are_waited_for(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, 0, f->signers[0]), AUTH_WAIT);
    assert_int_equal(settle(f, 0), AUTH_ALLOW);
    assert_int_equal(ask(f, 0, f->signers[0]), AUTH_ALLOW);
}

static void test_no_keys_in_time(void **state)
{
    struct fixture *f = *state;
    be_silent(f);
    assert_int_equal(ask(f, 0, f->signers[0]), AUTH_WAIT);
    assert_int_equal(settle(f, 0), AUTH_UNAVAILABLE);
}

static void test_rotation(void **state)
{
    struct fixture *f = *state;
    have_keys(f);
    assert_int_equal(ask(f, 0, f->signers[0]), AUTH_ALLOW);
    unsigned requests = f->upstream.server.requests;
    be_silent(f);
    for (uint32_t i = 0; i < CALLS; i++)
        assert_int_equal(ask(f, i, f->signers[1]), AUTH_WAIT);
    UNTIL(&f->upstream, f->upstream.server.requests > requests);
    f->upstream.server.reply = f->replies[1].base;
    for (uint32_t i = 0; i < CALLS; i++)
        assert_int_equal(settle(f, i), AUTH_ALLOW);
    assert_int_equal(f->auth.woken, CALLS);
    assert_int_equal(f->upstream.server.requests, requests + 1);
    assert_int_equal(ask(f, 0, f->signers[0]), AUTH_ALLOW);
}

static void test_a_key_that_nobody_knows(void **state)
{
    struct fixture *f = *state;
    have_keys(f);
    unsigned requests = f->upstream.server.requests;
    assert_int_equal(ask(f, 0, f->signers[1]), AUTH_WAIT);
    assert_int_equal(settle(f, 0), AUTH_DENY);
    assert_int_equal(f->asking[0].call.cause, END_INVALID_TOKEN);
    for (uint32_t i = 0; i < CALLS; i++) // within the cooldown nothing is fetched
        assert_int_equal(ask(f, i, f->signers[1]), AUTH_DENY);
    assert_int_equal(f->upstream.server.requests, requests + 1);
}

static void test_a_service_that_fails(void **state)
{
    struct fixture *f = *state;
    have_keys(f);
    f->upstream.server.reply = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    assert_int_equal(ask(f, 0, f->signers[1]), AUTH_WAIT);
    assert_int_equal(settle(f, 0), AUTH_UNAVAILABLE);
    assert_int_equal(ask(f, 0, f->signers[1]), AUTH_UNAVAILABLE);
    assert_int_equal(ask(f, 0, f->signers[0]), AUTH_ALLOW);
}

// Which key would that be? It may be one that is not fetched yet; but strangers cannot have the service asked
// again and again.
static void test_no_kid_and_no_key_that_fits(void **state)
{
    struct fixture *f = *state;
    have_keys(f);
    unsigned requests = f->upstream.server.requests;
    char token[256] = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbm4ifQ."; // {"alg":"EdDSA"}, {"sub":"ann"}
    size_t n = strlen(token);
    memset(token + n, 'A', 86); // a signature of 64 bytes
    assert_int_equal(ask_with(f, 0, str_of(token)), AUTH_WAIT);
    assert_int_equal(settle(f, 0), AUTH_DENY);
    assert_int_equal(f->asking[0].call.cause, END_INVALID_TOKEN);
    assert_int_equal(auth_scene_counted(&f->auth, "cache_total", "negative"), 0);
    for (uint32_t i = 0; i < CALLS; i++) {
        token[n] = (char)('B' + i);
        assert_int_equal(ask_with(f, i, str_of(token)), AUTH_DENY);
    }
    assert_int_equal(ask_with(f, 0, str_of(token)), AUTH_DENY); // which costs no signature check any more
    assert_int_equal(auth_scene_counted(&f->auth, "cache_total", "negative"), 1);
    assert_int_equal(f->upstream.server.requests, requests + 1);
}

// ---- the scene ----

static void nothing(void *holder)
{
    (void)holder;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const struct auth_sources sources = {.tls_slots = 2};
    struct err err;
    for (unsigned i = 0; i < CALLS; i++)
        arena_init(&f->asking[i].arena, NULL);
    arena_init(&f->tokens, NULL);
    f->signers[0] = signer_of(ALGORITHM_EDDSA);
    f->signers[1] = signer_of(ALGORITHM_ES256);
    f->replies[0] = reply_of(f->signers, 1);
    f->replies[1] = reply_of(f->signers, 2);
    scene_init(&f->upstream);
    f->upstream.server.reply = f->replies[0].base;
    jwks_start(&f->upstream.loop, f->upstream.worker, f->upstream.metrics);
    auth_scene_init_on(&f->auth, &f->upstream.loop, f->upstream.metrics, f->upstream.worker);
    f->auth.worker->needs.wake = on_wake;
    f->auth.worker->needs.context = f;
    f->auth.auth.hold = f->auth.auth.drop = nothing;
    f->auth.settings.jwt = (struct jwt_settings){
        .jwks = {.uri = {.text = STR("http://auth.example/keys"),
                         .authority = STR("auth.example"),
                         .target = STR("/keys")},
                 .refresh_us = 10ull * MINUTE_US,
                 .cooldown_us = 10ull * MINUTE_US,
                 .keep_last_good_us = 10ull * MINUTE_US,
                 .timeout_us = TIMEOUT_US},
        .algorithms = ALGORITHMS_ALL & ~ALGORITHMS_HS,
    };
    f->auth.provider.kind = &auth_jwt;
    f->auth.provider.upstream = &f->upstream.upstream;
    assert_true(auth_jwt.compile(&f->auth.provider, &sources, &f->tokens, &err));
    jwks_update(&f->auth.auth);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    jwks_stop();
    auth_scene_fini_on(&f->auth);
    scene_fini(&f->upstream);
    for (unsigned i = 0; i < CALLS; i++)
        arena_reset(&f->asking[i].arena);
    arena_reset(&f->tokens);
    for (unsigned i = 0; i < 2; i++) {
        buf_free(&f->replies[i]);
        token_signer_free(f->signers[i]);
    }
    free(f);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_first_keys_are_waited_for),
        TEST(test_no_keys_in_time),
        TEST(test_rotation),
        TEST(test_a_key_that_nobody_knows),
        TEST(test_a_service_that_fails),
        TEST(test_no_kid_and_no_key_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
