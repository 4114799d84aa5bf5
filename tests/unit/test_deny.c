// The deny list: what is found, what is forgotten, and readers beside writers.
#include "unit.h"

#include "auth/deny.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { NOW = 1000000 };

static struct str text_of(char *out, size_t size, const char *prefix, unsigned i)
{
    return (struct str){out, (size_t)snprintf(out, size, "%s%u", prefix, i)};
}

static enum deny_result add_jti(struct str issuer, struct str jti, int64_t until)
{
    return deny_add(&(struct deny_entry){.issuer = issuer, .jti = jti, .until = until}, NOW);
}

static enum deny_result add_subject(struct str issuer, struct str subject, int64_t before)
{
    return deny_add(
        &(struct deny_entry){.issuer = issuer, .subject = subject, .before = before, .until = NOW + 50}, NOW);
}

static int forget_all(void **state)
{
    (void)state;
    deny_sweep(INT64_MAX - 1);
    assert_int_equal(deny_count(), 0);
    return 0;
}

static void test_by_jti(void **state)
{
    (void)state;
    struct str iss = STR("https://a"), none = STR_NULL;
    assert_false(deny_has(iss, STR("x"), STR("u"), 5, NOW));
    assert_int_equal(add_jti(iss, STR("x"), NOW + 10), DENY_ADDED);
    assert_true(deny_has(iss, STR("x"), none, INT64_MIN, NOW));
    assert_true(deny_has(iss, STR("x"), STR("u"), INT64_MAX, NOW));
    assert_false(deny_has(STR("https://b"), STR("x"), none, 5, NOW));
    assert_false(deny_has(none, STR("x"), none, 5, NOW));
    assert_false(deny_has(iss, none, STR("x"), 5, NOW));              // a subject of that name
    assert_false(deny_has(STR("https://"), STR("ax"), none, 5, NOW)); // the same letters
    assert_true(deny_has(iss, STR("x"), none, 5, NOW + 9));
    assert_false(deny_has(iss, STR("x"), none, 5, NOW + 10));
    assert_int_equal(add_jti(none, STR("y"), NOW + 10), DENY_ADDED); // of any issuer
    assert_true(deny_has(iss, STR("y"), none, 5, NOW));
    assert_true(deny_has(none, STR("y"), none, 5, NOW));
}

static void test_by_subject_and_time(void **state)
{
    (void)state;
    struct str iss = STR("https://a"), ann = STR("ann");
    assert_int_equal(add_subject(iss, ann, 500), DENY_ADDED);
    assert_true(deny_has(iss, STR("j"), ann, 500, NOW));
    assert_true(deny_has(iss, STR_NULL, ann, INT64_MIN, NOW)); // it does not say when
    assert_false(deny_has(iss, STR("j"), ann, 501, NOW));
    assert_false(deny_has(iss, STR("j"), STR("bob"), 500, NOW));
    assert_int_equal(add_subject(iss, ann, 400), DENY_KNOWN); // it never shrinks
    assert_true(deny_has(iss, STR("j"), ann, 500, NOW));
    assert_int_equal(add_subject(iss, ann, 600), DENY_ADDED);
    assert_true(deny_has(iss, STR("j"), ann, 600, NOW));
    assert_int_equal(deny_count(), 1);
}

static void test_the_version_tells_of_what_is_new(void **state)
{
    (void)state;
    uint64_t version = deny_version();
    assert_true(version > 0);
    assert_int_equal(add_jti(STR("i"), STR("v"), NOW + 10), DENY_ADDED);
    assert_true(deny_version() != version);
    version = deny_version();
    assert_int_equal(add_jti(STR("i"), STR("v"), NOW + 10), DENY_KNOWN);
    assert_int_equal(add_jti(STR("i"), STR("v"), NOW + 5), DENY_KNOWN);
    assert_int_equal(add_jti(STR("i"), STR("w"), NOW), DENY_PAST);
    assert_int_equal(deny_version(), version);
    assert_int_equal(add_jti(STR("i"), STR("v"), NOW + 20), DENY_ADDED); // longer
    assert_true(deny_version() != version);
    assert_true(deny_has(STR("i"), STR("v"), STR_NULL, 0, NOW + 19));
}

static void test_what_is_no_entry(void **state)
{
    (void)state;
    static char large[DENY_TEXT_BYTES + 1];
    memset(large, 'x', sizeof large);
    struct str fits = {large, DENY_TEXT_BYTES}, too_long = {large, sizeof large};
    assert_int_equal(add_jti(STR_NULL, too_long, NOW + 1), DENY_BAD);
    assert_int_equal(add_jti(STR("i"), fits, NOW + 1), DENY_BAD);
    assert_int_equal(add_jti(too_long, STR("j"), NOW + 1), DENY_BAD);
    assert_int_equal(add_jti(STR("i"), STR_NULL, NOW + 1), DENY_BAD);
    assert_int_equal(
        deny_add(&(struct deny_entry){.jti = STR("a"), .subject = STR("b"), .until = NOW + 1}, NOW),
        DENY_BAD);
    assert_int_equal(deny_count(), 0);
    assert_int_equal(add_jti(STR_NULL, fits, NOW + 1), DENY_ADDED);
    assert_true(deny_has(STR("i"), fits, too_long, 0, NOW));
    assert_false(deny_has(too_long, too_long, too_long, 0, NOW));
}

static void test_what_is_past_is_forgotten(void **state)
{
    (void)state;
    char text[32];
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(add_jti(STR("i"), text_of(text, sizeof text, "t", i), NOW + 1 + i % 10), DENY_ADDED);
    assert_int_equal(deny_count(), 50000);
    deny_sweep(NOW);
    assert_int_equal(deny_count(), 50000);
    deny_sweep(NOW + 5);
    assert_int_equal(deny_count(), 25000);
    for (unsigned i = 0; i < 50000; i++)
        assert_true(deny_has(STR("i"), text_of(text, sizeof text, "t", i), STR_NULL, 0, NOW) ==
                    (i % 10 >= 5));
    deny_sweep(NOW + 10);
    assert_int_equal(deny_count(), 0);
}

static void test_the_list_has_a_bound(void **state)
{
    (void)state;
    char text[32];
    for (unsigned i = 0; i < DENY_ENTRIES; i++)
        assert_int_equal(add_jti(STR("i"), text_of(text, sizeof text, "b", i), NOW + 10 + (i > 0)),
                         DENY_ADDED);
    assert_int_equal(add_jti(STR("i"), STR("one more"), NOW + 20), DENY_FULL);
    assert_int_equal(add_jti(STR("i"), STR("b7"), NOW + 20), DENY_ADDED); // there is one already
    assert_int_equal(deny_count(), DENY_ENTRIES);
    // What is past makes room.
    assert_int_equal(deny_add(&(struct deny_entry){.jti = STR("one more"), .until = NOW + 20}, NOW + 10),
                     DENY_ADDED);
    assert_int_equal(deny_count(), DENY_ENTRIES);
}

static const struct {
    struct deny_entry entry;
    const char *text;
} texts[] = {
    {{.jti = {"abc", 3}}, "{\"jti\":\"abc\"}"},
    {{.issuer = {"https://a", 9}, .jti = {"a\"b", 3}}, "{\"iss\":\"https://a\",\"jti\":\"a\\\"b\"}"},
    {{.issuer = {"i", 1}, .subject = {"ann", 3}, .before = 1700000000},
     "{\"iss\":\"i\",\"sub\":\"ann\",\"before\":1700000000}"},
    {{.subject = {"ann", 3}, .before = -5}, "{\"sub\":\"ann\",\"before\":-5}"},
};

static void test_entries_as_text(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(texts); i++) {
        struct deny_entry entry;
        struct str text = deny_print(&texts[i].entry, &arena);
        assert_true(str_eq(text, str_of(texts[i].text)));
        assert_true(deny_parse(text, &arena, &entry));
        assert_true(str_eq(entry.issuer, texts[i].entry.issuer) && str_eq(entry.jti, texts[i].entry.jti));
        assert_true(str_eq(entry.subject, texts[i].entry.subject) && entry.before == texts[i].entry.before);
    }
    static const char *const bad[] = {"",
                                      "x",
                                      "[]",
                                      "{}",
                                      "null",
                                      "{\"iss\":\"i\"}",
                                      "{\"jti\":1}",
                                      "{\"jti\":\"\"}",
                                      "{\"sub\":\"a\"}",
                                      "{\"sub\":\"a\",\"before\":\"1\"}",
                                      "{\"jti\":\"a\"} x",
                                      "{\"jti\":\"a\",\"sub\":\"b\",\"before\":1}",
                                      "{\"jti\":\"a\",\"jti\":\"a\"}",
                                      "{\"jti\":\"a\",\"iss\":null}"};
    for (size_t i = 0; i < countof(bad); i++) {
        struct deny_entry entry;
        if (deny_parse(str_of(bad[i]), &arena, &entry))
            fail_msg("taken: %s", bad[i]);
    }
    arena_reset(&arena);
}

// ---- threads ----

static atomic_bool enough;

// As a provider does: an identity that was looked up at a version stays good until the version changes.
static void *read_on(void *context)
{
    atomic_uint *known = context;
    char text[32];
    while (!atomic_load(&enough)) {
        unsigned count = atomic_load(known);
        uint64_t version = deny_version();
        check(version > 0);
        for (unsigned i = 0; i < count; i++)
            check(deny_has(STR("i"), text_of(text, sizeof text, "r", i), STR_NULL, 0, NOW));
        check(!deny_has(STR("i"), STR("nobody"), STR("nobody"), 0, NOW));
    }
    return NULL;
}

static void test_readers_beside_writers(void **state)
{
    (void)state;
    atomic_uint known = 0;
    pthread_t readers[3];
    char text[32];
    atomic_store(&enough, false);
    for (size_t i = 0; i < countof(readers); i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, &known), 0);
    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(add_jti(STR("i"), text_of(text, sizeof text, "r", i), NOW + 10), DENY_ADDED);
        atomic_store(&known, i + 1 < 200 ? i + 1 : 200);
        assert_int_equal(add_jti(STR("i"), text_of(text, sizeof text, "gone", i), NOW + 1), DENY_ADDED);
        if (i % 100 == 0)
            deny_sweep(NOW + 2);
    }
    atomic_store(&enough, true);
    for (size_t i = 0; i < countof(readers); i++)
        pthread_join(readers[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_by_jti, forget_all),
        cmocka_unit_test_teardown(test_by_subject_and_time, forget_all),
        cmocka_unit_test_teardown(test_the_version_tells_of_what_is_new, forget_all),
        cmocka_unit_test_teardown(test_what_is_no_entry, forget_all),
        cmocka_unit_test_teardown(test_what_is_past_is_forgotten, forget_all),
        cmocka_unit_test_teardown(test_the_list_has_a_bound, forget_all),
        cmocka_unit_test_teardown(test_entries_as_text, forget_all),
        cmocka_unit_test_teardown(test_readers_beside_writers, forget_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
