#include "unit.h"

#include "auth/cache.h"
#include "auth/provider.h"

static const struct auth snapshot = {0};
static const struct auth_provider corp = {.name = {"corp", 4}};

// Of about so many bytes.
static struct identity *identity_of(size_t bytes)
{
    static char text[IDENTITY_BYTES];
    memset(text, 'x', sizeof text);
    const struct identity_facts facts = {.provider = &corp, .jti = {text, bytes}};
    struct identity *identity = identity_new(&snapshot, &facts);
    assert_non_null(identity);
    return identity;
}

static struct hash128 key_of(uint64_t n)
{
    return siphash128(siphash_process_key(), n, STR_NULL);
}

static struct auth_decision decision_of(uint64_t n, struct identity *identity)
{
    return (struct auth_decision){.key = key_of(n),
                                  .identity = identity,
                                  .cause = END_INVALID_TOKEN,
                                  .fresh_until_ms = 1000,
                                  .stale_until_ms = 2000};
}

// Gives the caller's reference away.
static void put(struct auth_cache *cache, uint64_t n, struct identity *identity)
{
    struct auth_decision decision = decision_of(n, identity);
    auth_cache_put(cache, &decision);
    identity_unref(identity);
}

static bool has(struct auth_cache *cache, uint64_t n)
{
    return auth_cache_find(cache, key_of(n), 0) != NULL;
}

static void test_find_put_drop(void **state)
{
    (void)state;
    struct auth_cache *cache = auth_cache_new();
    assert_false(has(cache, 1));
    auth_cache_drop(cache, key_of(1));
    struct identity *identity = identity_ref(identity_of(10)), *other = identity_ref(identity_of(100));
    put(cache, 1, identity);
    put(cache, 2, NULL);
    assert_int_equal(auth_cache_count(cache), 2);
    assert_int_equal(auth_cache_bytes(cache), identity->bytes);

    struct auth_decision *found = auth_cache_find(cache, key_of(1), 1999);
    assert_ptr_equal(found->identity, identity);
    assert_int_equal(found->fresh_until_ms, 1000); // stale since, and told so
    found = auth_cache_find(cache, key_of(2), 1999);
    assert_null(found->identity);
    assert_int_equal(found->cause, END_INVALID_TOKEN);

    put(cache, 1, other);
    assert_int_equal(identity->references, 1);
    assert_int_equal(auth_cache_count(cache), 2);
    assert_int_equal(auth_cache_bytes(cache), other->bytes);
    auth_cache_drop(cache, key_of(1));
    assert_int_equal(other->references, 1);
    assert_false(has(cache, 1));
    assert_int_equal(auth_cache_bytes(cache), 0);
    identity_unref(identity);
    identity_unref(other);
    auth_cache_free(cache);
    auth_cache_free(NULL);
}

static void test_the_past_is_dropped(void **state)
{
    (void)state;
    struct auth_cache *cache = auth_cache_new();
    struct identity *identity = identity_ref(identity_of(10));
    put(cache, 1, identity);
    assert_non_null(auth_cache_find(cache, key_of(1), 1999));
    assert_null(auth_cache_find(cache, key_of(1), 2000));
    assert_int_equal(auth_cache_count(cache), 0);
    assert_int_equal(identity->references, 1);
    identity_unref(identity);
    auth_cache_free(cache);
}

// What was found is put back with another date: its identity has no reference but the cache's.
static void test_put_what_was_found(void **state)
{
    (void)state;
    struct auth_cache *cache = auth_cache_new();
    put(cache, 1, identity_of(10));
    struct auth_decision *found = auth_cache_find(cache, key_of(1), 0);
    found->stale_until_ms = 5000;
    auth_cache_put(cache, found);
    found = auth_cache_find(cache, key_of(1), 4999);
    assert_non_null(found);
    assert_int_equal(found->identity->references, 1);
    assert_int_equal(auth_cache_count(cache), 1);
    auth_cache_free(cache);
}

static void test_an_identity_that_grows(void **state)
{
    (void)state;
    struct auth_cache *cache = auth_cache_new();
    struct identity *identity = identity_ref(identity_of(10));
    put(cache, 1, identity);
    size_t before = auth_cache_bytes(cache);
    identity->bytes += 700;
    assert_true(has(cache, 1));
    assert_int_equal(auth_cache_bytes(cache), before + 700);
    auth_cache_drop(cache, key_of(1));
    assert_int_equal(auth_cache_bytes(cache), 0);
    identity_unref(identity);
    auth_cache_free(cache);
}

static void test_bounded_by_count(void **state)
{
    (void)state;
    enum { PUTS = 200000, LIVE = 1000 };
    struct auth_cache *cache = auth_cache_new();
    for (uint64_t n = 0; n < PUTS; n++) {
        put(cache, n, n % 3 ? identity_of(n % 100) : NULL);
        if (n % (PUTS / 20) == 0) // what is in use survives a flood of what is not
            for (uint64_t live = 0; live < LIVE && live <= n; live++)
                assert_true(has(cache, live));
        assert_in_range(auth_cache_count(cache), 1, AUTH_CACHE_ENTRIES);
        assert_true(auth_cache_bytes(cache) <= AUTH_CACHE_BYTES);
    }
    assert_int_equal(auth_cache_count(cache), AUTH_CACHE_ENTRIES);
    assert_true(has(cache, PUTS - 1));
    unsigned live = 0, all = 0;
    size_t bytes = 0;
    for (uint64_t n = 0; n < PUTS; n++) {
        struct auth_decision *found = auth_cache_find(cache, key_of(n), 0);
        all += found != NULL;
        live += found && n < LIVE;
        bytes += found && found->identity ? found->identity->bytes : 0;
    }
    assert_int_equal(live, LIVE);
    assert_int_equal(all, AUTH_CACHE_ENTRIES);
    assert_int_equal(bytes, auth_cache_bytes(cache));
    auth_cache_free(cache);
}

static void test_bounded_by_bytes(void **state)
{
    (void)state;
    enum { PUTS = 200000, BYTES = 15000 };
    struct auth_cache *cache = auth_cache_new();
    struct identity *identity = identity_of(BYTES); // one for all: it is counted for each
    for (uint64_t n = 0; n < PUTS; n++) {
        put(cache, n, identity_ref(identity));
        assert_true(auth_cache_bytes(cache) <= AUTH_CACHE_BYTES);
    }
    uint32_t fit = (uint32_t)(AUTH_CACHE_BYTES / identity->bytes);
    assert_int_equal(auth_cache_count(cache), fit);
    assert_int_equal(identity->references, fit + 1);
    // All of them in use: somebody has to go all the same.
    for (uint64_t n = 0; n < PUTS; n++)
        has(cache, n);
    put(cache, PUTS, identity_ref(identity));
    assert_true(has(cache, PUTS));
    assert_int_equal(auth_cache_count(cache), fit);
    for (uint64_t n = 0; n <= PUTS; n++)
        auth_cache_drop(cache, key_of(n));
    assert_int_equal(auth_cache_count(cache), 0);
    assert_int_equal(identity->references, 1);
    identity_unref(identity);
    auth_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find_put_drop),      cmocka_unit_test(test_the_past_is_dropped),
        cmocka_unit_test(test_put_what_was_found), cmocka_unit_test(test_an_identity_that_grows),
        cmocka_unit_test(test_bounded_by_count),   cmocka_unit_test(test_bounded_by_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
