// What Auth Services have said, for all workers: copies of identities, and many threads at once.
#include "unit.h"

#include "auth/provider.h"
#include "auth/shared.h"

#include <pthread.h>

enum { KEYS = 64, ROUNDS = 20000, THREADS = 2 };

static const struct auth_provider corp = {.name = {"corp", 4}, .id = 7};

static struct hash128 key_of(uint64_t n)
{
    return siphash128(siphash_process_key(), n, STR_NULL);
}

static struct identity *identity_named(struct str subject)
{
    static const struct str roles[] = {{"gold", 4}, {"silver", 6}}, scopes[] = {{"read", 4}};
    static const struct identity_header rendered[] = {
        {{"X-User-Id", 9}, HEADER_OTHER, IDENTITY_SUBJECT, {0}},
        {{"X-User-Roles", 12}, HEADER_OTHER, IDENTITY_ROLES, {0}},
    };
    static const struct str claims[] = {{"tenant", 6}};
    const struct auth snapshot = {.headers = rendered, .header_count = 2, .claims = claims, .claim_count = 1};
    struct arena arena;
    const char *why;
    arena_init(&arena, NULL);
    const struct identity_facts facts = {
        .provider = &corp,
        .revocable = true,
        .subject = subject,
        .consumer = STR("shop"),
        .issuer = STR("https://auth.example"),
        .jti = STR("id-1"),
        .roles = {(struct str *)(uintptr_t)roles, 2},
        .scopes = {(struct str *)(uintptr_t)scopes, 1},
        .issued_at = 100,
        .expires = 5000,
        .leeway_s = 3,
        .claims = json_parse(STR("{\"tenant\":\"acme\"}"), &arena, &why),
    };
    struct identity *identity = identity_new(&snapshot, &facts);
    assert_non_null(identity);
    arena_reset(&arena);
    return identity;
}

static bool is_inside(const struct identity *identity, const void *p)
{
    const char *at = p, *begin = (const char *)identity;
    return at >= begin && at < begin + identity->bytes;
}

static void assert_text(const struct identity *identity, struct str text, const char *expected)
{
    assert_true(str_eq(text, str_of(expected)));
    assert_true(is_inside(identity, text.p));
}

static void assert_whole(const struct identity *identity, const char *subject)
{
    assert_int_equal(identity->references, 1);
    assert_int_equal(identity->provider, 7);
    assert_true(identity->revocable);
    assert_int_equal(identity->issued_at, 100);
    assert_int_equal(identity->expires, 5000);
    assert_int_equal(identity->leeway_s, 3);
    assert_text(identity, identity->subject, subject);
    assert_text(identity, identity->consumer, "shop");
    assert_text(identity, identity->issuer, "https://auth.example");
    assert_text(identity, identity->jti, "id-1");
    assert_int_equal(identity->roles.count, 2);
    assert_text(identity, identity->roles.v[1], "silver");
    assert_int_equal(identity->scopes.count, 1);
    assert_text(identity, identity->scopes.v[0], "read");
    assert_int_equal(identity->header_count, 2);
    assert_text(identity, identity->headers[0].name, "X-User-Id");
    assert_text(identity, identity->headers[0].value, subject);
    assert_text(identity, identity->headers[1].value, "gold,silver");
    assert_int_equal(identity->claim_count, 1);
    assert_text(identity, identity->claims[0].name, "tenant");
    assert_text(identity, identity->claims[0].value, "acme");
    assert_true(is_inside(identity, identity->roles.v) && is_inside(identity, identity->headers) &&
                is_inside(identity, identity->claims));
}

static void put(uint64_t n, struct identity *identity, int64_t fresh_until_ms)
{
    const struct auth_decision decision = {.key = key_of(n),
                                           .identity = identity,
                                           .cause = END_INVALID_TOKEN,
                                           .fresh_until_ms = fresh_until_ms,
                                           .stale_until_ms = fresh_until_ms + 1000};
    auth_shared_put(&decision);
}

static void test_a_copy_is_whole(void **state)
{
    (void)state;
    struct identity *identity = identity_named(STR("ann"));
    size_t bytes = identity->bytes;
    identity->signed_token = (struct str){str_dup(STR("a.b.c")), 5};
    identity->signed_until = 1234;
    identity->bytes += 5;
    identity_ref(identity);
    struct identity *copy = identity_copy(identity);
    identity_unref(identity);
    identity_unref(identity);
    assert_int_equal(copy->bytes, bytes);
    assert_whole(copy, "ann");
    assert_null(copy->signed_token.p);
    assert_int_equal(copy->signed_until, 0);
    identity_unref(copy);
}

static void test_a_copy_of_nothing(void **state)
{
    (void)state;
    const struct auth snapshot = {0};
    const struct identity_facts facts = {.provider = &corp};
    struct identity *identity = identity_new(&snapshot, &facts), *copy = identity_copy(identity);
    identity_unref(identity);
    assert_null(copy->subject.p);
    assert_int_equal(copy->roles.count + copy->scopes.count + copy->header_count + copy->claim_count, 0);
    identity_unref(copy);
}

static void test_find_put_drop(void **state)
{
    (void)state;
    struct auth_decision found;
    auth_shared_open();
    assert_false(auth_shared_find(key_of(1), 0, INT64_MIN, &found));
    struct identity *identity = identity_named(STR("ann"));
    put(1, identity, 1000);
    assert_int_equal(identity->references, 1);
    identity_unref(identity);
    assert_true(auth_shared_find(key_of(1), 1999, INT64_MIN, &found)); // stale, and told so
    assert_int_equal(found.fresh_until_ms, 1000);
    assert_int_equal(found.stale_until_ms, 2000);
    assert_whole(found.identity, "ann");
    identity_unref(found.identity);
    assert_true(auth_shared_find(key_of(1), 0, 999, &found));
    identity_unref(found.identity);
    assert_false(auth_shared_find(key_of(1), 0, 1000, &found)); // the worker's own is as good
    assert_false(auth_shared_find(key_of(1), 2000, INT64_MIN, &found));

    put(2, NULL, 1000);
    assert_true(auth_shared_find(key_of(2), 0, INT64_MIN, &found));
    assert_null(found.identity);
    assert_int_equal(found.cause, END_INVALID_TOKEN);
    auth_shared_drop(key_of(2));
    assert_false(auth_shared_find(key_of(2), 0, INT64_MIN, &found));
    auth_shared_close();
}

static void test_forgotten_with_the_last_worker(void **state)
{
    (void)state;
    struct auth_decision found;
    auth_shared_open();
    auth_shared_open();
    put(1, NULL, 1000);
    auth_shared_close();
    assert_true(auth_shared_find(key_of(1), 0, INT64_MIN, &found));
    auth_shared_close();
    auth_shared_open();
    assert_false(auth_shared_find(key_of(1), 0, INT64_MIN, &found));
    auth_shared_close();
}

// Each with identities of its own, as a worker; no assertion of cmocka's off the main thread.
static void *hammer(void *context)
{
    static const struct str names[] = {{"ann", 3}, {"bob", 3}};
    bool *good = context;
    struct identity *own[countof(names)];
    *good = true;
    auth_shared_open();
    for (size_t i = 0; i < countof(names); i++)
        own[i] = identity_named(names[i]);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct auth_decision found;
        uint64_t key = i * 7 % KEYS;
        if (i % 5 == 0)
            put(key, i % 3 ? own[i % countof(names)] : NULL, 1000 + i % 100);
        else if (i % 11 == 0)
            auth_shared_drop(key_of(key));
        else if (auth_shared_find(key_of(key), i % 3000, i % 7 ? INT64_MIN : 1050, &found)) {
            if (found.identity)
                *good &= found.identity->references == 1 && found.identity->subject.n == 3 &&
                         str_eq(found.identity->headers[0].value, found.identity->subject);
            identity_unref(found.identity);
        }
    }
    for (size_t i = 0; i < countof(names); i++) {
        *good &= own[i]->references == 1;
        identity_unref(own[i]);
    }
    auth_shared_close();
    return NULL;
}

static void test_many_workers_at_once(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    bool good[THREADS];
    (void)siphash_process_key();
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &good[i]), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(good[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copy_is_whole),      cmocka_unit_test(test_a_copy_of_nothing),
        cmocka_unit_test(test_find_put_drop),        cmocka_unit_test(test_forgotten_with_the_last_worker),
        cmocka_unit_test(test_many_workers_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
