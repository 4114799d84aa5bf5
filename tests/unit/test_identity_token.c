#include "unit.h"

#include "auth/identity_token.h"
#include "auth/provider.h"
#include "test_token_fixture.h"

enum { NOW = 1700000000, MINUTE = 60 };

static struct arena arena;
static struct buf pem;
static struct token_verifier *verifier;
static struct identity_token_settings settings = {.ttl_us = MINUTE * UINT64_C(1000000),
                                                  .issuer = {"sallyport", 9}};
static struct auth snapshot = {.identity_token = &settings};
static struct auth_provider corp = {.name = {"corp", 4}};
static struct auth_worker worker;

static struct token_verifier *verifier_of(struct str key)
{
    struct err err;
    struct token_signer *signer = token_signer_new(key, NULL, &err);
    assert_non_null(signer);
    struct buf set = set_of(&signer, 1);
    struct token_keys *keys = token_keys_parse(buf_str(&set), &err);
    assert_non_null(keys);
    struct token_verifier *made = token_verifier_new(keys, NULL);
    assert_non_null(made);
    token_keys_unref(keys);
    token_signer_free(signer);
    buf_free(&set);
    return made;
}

static int begin(void **state)
{
    (void)state;
    arena_init(&arena, NULL);
    assert_true(token_key_generate(ALGORITHM_ES256, NULL, &pem));
    verifier = verifier_of(buf_str(&pem));
    snapshot.identity_key = buf_str(&pem);
    corp.id = metric_name_id(NAME_PROVIDER, corp.name);
    return 0;
}

static int end(void **state)
{
    (void)state;
    identity_signer_free(worker.signer);
    worker = (struct auth_worker){0};
    token_verifier_free(verifier);
    buf_free(&pem);
    arena_reset(&arena);
    return 0;
}

static struct identity *identity_of(struct str subject, int64_t expires)
{
    static struct str roles[] = {STR("gold"), STR("a\"b")}, scopes[] = {STR("read"), STR("write")};
    const struct identity_facts facts = {
        .provider = &corp,
        .subject = subject,
        .consumer = STR("acme"),
        .roles = {roles, countof(roles)},
        .scopes = {scopes, countof(scopes)},
        .expires = expires,
    };
    struct identity *identity = identity_new(&snapshot, &facts);
    assert_non_null(identity);
    return identity;
}

static struct str token_at(struct identity *identity, int64_t now_s)
{
    return auth_identity_token(&worker, &snapshot, identity, now_s, &arena);
}

// Its claims, once the signature has been found good.
static const struct json_value *verified(struct str text, const struct token_verifier *by)
{
    struct token token;
    assert_int_equal(token_parse(text, &arena, &token), TOKEN_GOOD);
    assert_int_equal(token_verify((struct token_verifier *)(uintptr_t)by, &token, ALGORITHMS_ALL),
                     TOKEN_GOOD);
    assert_true(str_eq(json_get(token.header, STR("typ"))->text, STR("JWT")));
    return token.claims;
}

static void assert_claim(const struct json_value *claims, const char *name, const char *expected)
{
    const struct json_value *claim = json_get(claims, str_of(name));
    if (!expected ? claim != NULL : !claim || !str_eq(claim->text, str_of(expected)))
        fail_msg("%s: \"%.*s\" is not \"%s\"", name, STR_ARG(claim ? claim->text : STR("(none)")),
                 expected ? expected : "(none)");
}

static int64_t number_of(const struct json_value *claims, const char *name)
{
    int64_t number = 0;
    assert_true(json_integer(json_get(claims, str_of(name)), &number));
    return number;
}

static void test_within_the_leeway(void **state)
{
    (void)state;
    struct identity *identity = identity_of(STR("ann"), NOW - 2);
    assert_int_equal(token_at(identity, NOW).n, 0);
    identity->leeway_s = 5;
    assert_int_equal(number_of(verified(token_at(identity, NOW), verifier), "exp"), NOW + 3);
    assert_int_equal(token_at(identity, NOW + 3).n, 0);
    identity_unref(identity);
}

static void test_what_it_says(void **state)
{
    (void)state;
    struct identity *identity = identity_of(STR("zo\xc3\xab \"\\\n"), INT64_MAX);
    const struct json_value *claims = verified(token_at(identity, NOW), verifier);
    assert_claim(claims, "iss", "sallyport");
    assert_claim(claims, "sub", "zo\xc3\xab \"\\\n");
    assert_claim(claims, "consumer", "acme");
    assert_claim(claims, "scope", "read write");
    assert_claim(claims, "provider", "corp");
    assert_claim(claims, "aud", NULL);
    struct str_list roles;
    assert_true(identity_claim_list(claims, STR("roles"), &arena, &roles));
    assert_int_equal(roles.count, 2);
    assert_true(str_eq(roles.v[1], STR("a\"b")));
    assert_int_equal(number_of(claims, "iat"), NOW);
    assert_int_equal(number_of(claims, "exp"), NOW + MINUTE);
    identity_unref(identity);

    const struct identity_facts facts = {.provider = &corp, .expires = INT64_MAX};
    identity = identity_new(&snapshot, &facts);
    claims = verified(token_at(identity, NOW), verifier);
    assert_int_equal(claims->count, 4); // iss, iat, exp, provider
    identity_unref(identity);
}

static void test_one_signature_for_half_a_ttl(void **state)
{
    (void)state;
    struct identity *identity = identity_of(STR("me"), INT64_MAX);
    size_t bytes = identity->bytes;
    struct str first = token_at(identity, NOW);
    assert_int_equal(identity->bytes, bytes + first.n);
    const char *kept = identity->signed_token.p;
    for (int64_t s = 0; s < MINUTE / 2; s++)
        assert_true(str_eq(token_at(identity, NOW + s), first));
    assert_ptr_equal(identity->signed_token.p, kept);
    struct str second = token_at(identity, NOW + MINUTE / 2);
    assert_false(str_eq(second, first));
    assert_int_equal(number_of(verified(second, verifier), "exp"), NOW + MINUTE / 2 + MINUTE);
    assert_int_equal(identity->bytes, bytes + second.n);
    verified(first, verifier); // is still there for who sends it
    identity_unref(identity);
}

static void test_not_beyond_the_identity(void **state)
{
    (void)state;
    struct identity *identity = identity_of(STR("me"), NOW + 40);
    struct str token = token_at(identity, NOW);
    assert_int_equal(number_of(verified(token, verifier), "exp"), NOW + 40);
    assert_true(str_eq(token_at(identity, NOW + 39), token)); // no other one would live longer
    assert_int_equal(token_at(identity, NOW + 40).n, 0);
    identity_unref(identity);
}

static void test_a_short_ttl(void **state)
{
    (void)state;
    struct identity *identity = identity_of(STR("me"), INT64_MAX);
    settings.ttl_us = 1000;
    assert_int_equal(number_of(verified(token_at(identity, NOW), verifier), "exp"), NOW + 1);
    assert_int_equal(number_of(verified(token_at(identity, NOW + 1), verifier), "exp"), NOW + 2);
    settings.ttl_us = MINUTE * UINT64_C(1000000);
    identity_unref(identity);
}

static void test_off_and_without_a_key(void **state)
{
    (void)state;
    struct identity *identity = identity_of(STR("me"), INT64_MAX);
    const struct auth off = {0}, bad = {.identity_token = &settings, .identity_key = STR("no key")};
    assert_int_equal(auth_identity_token(&worker, &off, identity, NOW, &arena).n, 0);
    assert_int_equal(auth_identity_token(&worker, &bad, identity, NOW, &arena).n, 0);
    assert_int_equal(identity->signed_until, NOW + MINUTE / 2); // not tried again for each request
    assert_int_equal(auth_identity_token(&worker, &bad, identity, NOW + 1, &arena).n, 0);
    identity_unref(identity);
}

static void test_another_key(void **state)
{
    (void)state;
    struct identity *before = identity_of(STR("me"), INT64_MAX), *after = identity_of(STR("me"), INT64_MAX);
    verified(token_at(before, NOW), verifier);
    struct buf other = {0};
    assert_true(token_key_generate(ALGORITHM_EDDSA, NULL, &other));
    struct token_verifier *by = verifier_of(buf_str(&other));
    snapshot.identity_key = buf_str(&other);
    verified(token_at(after, NOW), by);
    token_verifier_free(by);
    buf_free(&other);
    identity_unref(before);
    identity_unref(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_it_says, begin, end),
        cmocka_unit_test_setup_teardown(test_one_signature_for_half_a_ttl, begin, end),
        cmocka_unit_test_setup_teardown(test_not_beyond_the_identity, begin, end),
        cmocka_unit_test_setup_teardown(test_within_the_leeway, begin, end),
        cmocka_unit_test_setup_teardown(test_a_short_ttl, begin, end),
        cmocka_unit_test_setup_teardown(test_off_and_without_a_key, begin, end),
        cmocka_unit_test_setup_teardown(test_another_key, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
