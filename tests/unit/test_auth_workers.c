// Two workers that ask the same Auth Service: what one has heard, the other one knows.
#include "test_auth_questions_fixture.h"

#include "auth/shared.h"

#define OTHER    "{\"active\":true,\"sub\":\"bob\"}"
#define INACTIVE "{\"active\":false}"

static void be_down(struct fixture *f)
{
    reply(f, "500 Oops", "", "");
}

static void hear(struct fixture *f, unsigned worker, const char *body, const char *authorization)
{
    be_worker(f, worker);
    say(f, body);
    (void)ask_to_the_end(f, authorization);
}

static void test_known_to_one_known_to_the_other(void **state)
{
    struct fixture *f = *state;
    hear(f, 0, ACTIVE, "Bearer shared");
    struct identity *first = identity_ref(allowed(f, 0));
    be_down(f);
    be_worker(f, 1);
    assert_int_equal(ask(f, 1, "Bearer shared"), AUTH_ALLOW);
    const struct identity *second = allowed(f, 1);
    assert_ptr_not_equal(first, second); // counted by one worker
    assert_true(str_eq(second->subject, first->subject));
    assert_int_equal(ask(f, 2, "Bearer shared"), AUTH_ALLOW);
    assert_ptr_equal(allowed(f, 2), second); // from its own cache now
    assert_int_equal(f->upstream.server.requests, 1);
    assert_int_equal(cache_counted(f, "hit"), 2);
    identity_unref(first);
}

static void test_refused_by_one_refused_by_the_other(void **state)
{
    struct fixture *f = *state;
    hear(f, 0, INACTIVE, "Bearer refused");
    denied(f, END_INVALID_TOKEN);
    be_worker(f, 1);
    assert_int_equal(ask(f, 0, "Bearer refused"), AUTH_DENY);
    denied(f, END_INVALID_TOKEN);
    assert_int_equal(f->upstream.server.requests, 1);
}

static void test_no_longer_than_its_time(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.cache.ttl_us = SHORT_US;
    hear(f, 0, ACTIVE, "Bearer short");
    allowed(f, 0);
    let_pass(f, SHORT_US + 2000);
    hear(f, 1, OTHER, "Bearer short");
    assert_true(str_eq(allowed(f, 0)->subject, STR("bob")));
    assert_int_equal(f->upstream.server.requests, 2);
    let_pass(f, SHORT_US + 2000);
    be_down(f);
    be_worker(f, 0);
    ask_to_the_end(f, "Bearer short");
    unavailable(f);
}

static void test_what_may_not_be_kept_is_nobodys(void **state)
{
    struct fixture *f = *state;
    reply(f, "200 OK", "Cache-Control: no-store\r\n", ACTIVE);
    ask_to_the_end(f, "Bearer unkept");
    allowed(f, 0);
    be_worker(f, 1);
    assert_int_equal(ask(f, 0, "Bearer unkept"), AUTH_WAIT);
    settle(f, 0);
    allowed(f, 0);
}

// Also through the other worker: the deny list is asked about the copy.
static void test_revoked(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.revocation = true;
    hear(f, 0, "{\"active\":true,\"sub\":\"ann\",\"jti\":\"opaque-2\"}", "Bearer revoked");
    allowed(f, 0);
    const struct deny_entry entry = {.jti = STR("opaque-2"), .until = now_s() + 1000};
    assert_int_equal(deny_add(&entry, now_s()), DENY_ADDED);
    be_worker(f, 1);
    ask(f, 0, "Bearer revoked");
    denied(f, END_REVOKED_TOKEN);
}

static void keep_stale(struct fixture *f)
{
    f->auth.settings.introspection.cache =
        (struct auth_cache_settings){.ttl_us = SHORT_US, .negative_ttl_us = SHORT_US, .stale_us = 60000000};
}

static void test_stale_through_the_other_one(void **state)
{
    struct fixture *f = *state;
    keep_stale(f);
    hear(f, 0, ACTIVE, "Bearer stale");
    allowed(f, 0);
    let_pass(f, SHORT_US + 2000);
    be_down(f);
    be_worker(f, 1);
    ask_to_the_end(f, "Bearer stale");
    assert_true(str_eq(allowed(f, 0)->subject, STR("ann")));
    assert_int_equal(cache_counted(f, "stale"), 1);
}

static void test_of_two_stale_ones_the_fresher_counts(void **state)
{
    struct fixture *f = *state;
    keep_stale(f);
    hear(f, 0, ACTIVE, "Bearer twice");
    allowed(f, 0);
    let_pass(f, SHORT_US + 2000);
    hear(f, 1, OTHER, "Bearer twice");
    allowed(f, 0);
    let_pass(f, SHORT_US + 2000);
    be_down(f);
    for (unsigned worker = 0; worker < 2; worker++) {
        be_worker(f, worker);
        ask_to_the_end(f, "Bearer twice");
        assert_true(str_eq(allowed(f, 0)->subject, STR("bob")));
    }
}

// What another worker was told later takes back what this one has, also when the refusal has run out.
static void test_a_later_refusal_counts(void **state)
{
    struct fixture *f = *state;
    keep_stale(f);
    for (unsigned kept = 0; kept < 2; kept++) {
        const char *token = kept ? "Bearer back1" : "Bearer back2";
        f->auth.settings.introspection.cache.negative_ttl_us = kept ? SHORT_US : 0;
        hear(f, 0, ACTIVE, token);
        allowed(f, 0);
        let_pass(f, SHORT_US + 2000);
        hear(f, 1, INACTIVE, token);
        denied(f, END_INVALID_TOKEN);
        let_pass(f, SHORT_US + 2000);
        be_down(f);
        be_worker(f, 0);
        ask_to_the_end(f, token);
        unavailable(f);
    }
}

// An answer that comes to one while the other waits in vain.
static void test_heard_while_waiting(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.timeout_us = SHORT_US;
    assert_int_equal(ask(f, 0, "Bearer late"), AUTH_WAIT);
    be_worker(f, 1);
    assert_int_equal(ask(f, 1, "Bearer late"), AUTH_WAIT);
    auth_forget(f->auth.worker, &f->asking[1].call);
    be_worker(f, 0);
    const struct identity_facts facts = {
        .provider = &f->auth.provider, .subject = STR("ann"), .expires = INT64_MAX};
    struct identity *identity = identity_new(&f->auth.auth, &facts);
    const struct auth_decision decision = {
        .key = siphash128(siphash_process_key(), f->auth.provider.fingerprint, STR("late")),
        .identity = identity,
        .fresh_until_ms = INT64_MAX,
        .stale_until_ms = INT64_MAX,
    };
    auth_shared_put(&decision);
    identity_unref(identity);
    settle(f, 0);
    assert_true(str_eq(allowed(f, 0)->subject, STR("ann")));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_known_to_one_known_to_the_other),
        TEST(test_refused_by_one_refused_by_the_other),
        TEST(test_no_longer_than_its_time),
        TEST(test_what_may_not_be_kept_is_nobodys),
        TEST(test_revoked),
        TEST(test_stale_through_the_other_one),
        TEST(test_of_two_stale_ones_the_fresher_counts),
        TEST(test_a_later_refusal_counts),
        TEST(test_heard_while_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
