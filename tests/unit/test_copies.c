#include "unit_arena.h"

#include "replay/copies.h"

#include <pthread.h>
#include <stdlib.h>

enum { NOW = 1000, LATER = 2000 };

static struct replay_hash hash_of_number(unsigned number)
{
    struct str part = {(const char *)&number, sizeof number};
    return replay_hash(&part, 1);
}

static struct copy_key key_of(unsigned resource, unsigned place, uint64_t caller)
{
    return (struct copy_key){hash_of_number(resource), hash_of_number(1000000 + place), caller, place};
}

static struct headers with(const char *name, const char *value)
{
    struct headers headers = {0};
    if (name)
        headers_add(&headers, &arena, str_of(name), str_of(value));
    return headers;
}

static bool keep_public(const struct copy_key *key, const struct headers *request, const char *vary,
                        struct str body, bool is_public)
{
    const struct copy copy = {
        .asked_us = NOW, .until_us = LATER, .is_public = is_public, .span = STR("head:")};
    return copies_keep(key, request, str_of(vary), &copy, body);
}

static bool keep(const struct copy_key *key, const struct headers *request, const char *vary,
                 const char *body)
{
    return keep_public(key, request, vary, str_of(body), false);
}

static const char *found_public(const struct copy_key *key, const struct headers *request, uint64_t now_us,
                                bool is_personal)
{
    struct copy copy;
    if (!copies_find(key, request, is_personal, now_us, &copy))
        return NULL;
    const char *text = arena_printf(&arena, "%.*s", STR_ARG(copy.span)).p;
    shared_unref(copy.in);
    return text;
}

static const char *found(const struct copy_key *key, const struct headers *request)
{
    return found_public(key, request, NOW, false);
}

static void test_a_life(void **state)
{
    (void)state;
    struct headers none = with(NULL, NULL);
    struct copy_key key = key_of(1, 1, 1), elsewhere = key_of(1, 2, 1), other = key_of(2, 1, 1);
    assert_null(found(&key, &none));
    assert_true(keep(&key, &none, "", "first"));
    assert_string_equal(found(&key, &none), "head:first");
    assert_null(found(&elsewhere, &none));
    assert_null(found(&other, &none));
    assert_true(keep(&key, &none, "", "second"));
    assert_string_equal(found(&key, &none), "head:second");
    assert_int_equal(copies_counts().resources, 1);
    assert_string_equal(found_public(&key, &none, LATER - 1, false), "head:second");
    assert_null(found_public(&key, &none, LATER, false));
    assert_int_equal(copies_counts().resources, 0); // its time is over
    assert_true(keep(&key, &none, "", "third"));
    assert_true(keep(&elsewhere, &none, "", "by another route"));
    assert_true(copies_any());
    copies_forget(key.resource, &elsewhere.place, 0);
    assert_string_equal(found(&key, &none), "head:third");
    assert_null(found(&elsewhere, &none));
    assert_true(keep(&elsewhere, &none, "", "by another route"));
    copies_forget(key.resource, NULL, 0);
    assert_null(found(&key, &none));
    assert_null(found(&elsewhere, &none));
    assert_false(copies_any());
}

static void test_asked_for_before_a_change(void **state)
{
    (void)state;
    struct headers none = with(NULL, NULL);
    struct copy_key key = key_of(1, 1, 1), other = key_of(2, 1, 1);
    copies_forget(key.resource, NULL, NOW);
    assert_false(keep(&key, &none, "", "old"));
    assert_true(keep(&other, &none, "", "another"));
    copies_forget(key.resource, NULL, NOW - 1);
    assert_true(keep(&key, &none, "", "new"));
}

static void test_dropped_by_hand(void **state)
{
    (void)state;
    struct headers none = with(NULL, NULL);
    struct copy_key one = key_of(1, 1, 1), beside = key_of(1, 2, 1), other = key_of(2, 2, 1);
    const struct copy_key *keys[] = {&one, &beside, &other};
    assert_true(keep(&one, &none, "", "of 1") && keep(&beside, &none, "", "of 2") &&
                keep(&other, &none, "", "of 2"));
    other.caller = 2;
    assert_true(keep(&other, &none, "", "of 2")); // preferred from now on
    assert_int_equal(copies_counts().copies, 3);
    assert_int_equal(copies_counts().resources, 2);
    assert_int_equal(copies_of(1).copies, 1);
    assert_int_equal(copies_of(2).copies, 2);
    assert_int_equal(copies_of(3).copies, 0);
    assert_true(copies_of(1).bytes + copies_of(2).bytes < copies_counts().bytes);
    assert_int_equal(copies_drop(2, NOW - 1), 2);
    assert_string_equal(found(&one, &none), "head:of 1");
    assert_null(found(&beside, &none));
    assert_null(found(&other, &none));
    assert_int_equal(copies_of(2).bytes, 0);
    assert_int_equal(copies_drop(COPIES_OF_ALL, NOW), 1);
    for (unsigned i = 0; i < countof(keys); i++)
        assert_false(keep(keys[i], &none, "", "asked for before"));
    assert_int_equal(copies_drop(COPIES_OF_ALL, 0), 0);
}

static void test_an_empty_body(void **state)
{
    (void)state;
    struct headers none = with(NULL, NULL);
    struct copy_key key = key_of(1, 1, 1);
    assert_true(keep_public(&key, &none, "", STR_NULL, false));
    assert_string_equal(found(&key, &none), "head:");
}

// RFC 9111 4.1.
static void test_vary(void **state)
{
    (void)state;
    struct copy_key key = key_of(1, 1, 1);
    struct headers de = with("Accept-Language", "de"), en = with("accept-language", "en"),
                   empty = with("Accept-Language", ""), none = with(NULL, NULL);
    assert_true(keep(&key, &de, ", Accept-Language", "de"));
    assert_true(keep(&key, &en, "accept-language", "en"));
    assert_true(keep(&key, &none, "Accept-Language,", "none"));
    assert_string_equal(found(&key, &de), "head:de");
    assert_string_equal(found(&key, &en), "head:en");
    assert_string_equal(found(&key, &none), "head:none");
    assert_null(found(&key, &empty));
    struct headers twice = with("Accept-Language", "de");
    headers_add(&twice, &arena, STR("Accept-Language"), STR("en"));
    assert_null(found(&key, &twice));
    assert_true(keep(&key, &twice, "Accept-Language, Host", "both"));
    struct headers joined = with("Accept-Language", "en");
    joined.v[0].value = STR("de:en"); // another text than the list of two
    assert_null(found(&key, &joined));
    assert_string_equal(found(&key, &twice), "head:both");
    struct headers gone = with("Accept-Language", "de");
    headers_remove_name(&gone, STR("Accept-Language"));
    assert_string_equal(found(&key, &gone), "head:none");
}

static void test_the_last_that_fits(void **state)
{
    (void)state;
    struct copy_key key = key_of(1, 1, 1);
    struct headers a = with("Origin", "a"), none = with(NULL, NULL);
    assert_true(keep(&key, &none, "", "for all"));
    assert_true(keep(&key, &a, "Origin", "for a"));
    assert_string_equal(found(&key, &a), "head:for a");
    assert_string_equal(found(&key, &none), "head:for all");
    assert_true(keep(&key, &none, "", "again for all"));
    assert_string_equal(found(&key, &a), "head:again for all");
}

static void test_for_those_who_say_who_they_are(void **state)
{
    (void)state;
    struct copy_key key = key_of(1, 1, 1);
    struct headers none = with(NULL, NULL);
    assert_true(keep(&key, &none, "", "not public"));
    assert_null(found_public(&key, &none, NOW, true));
    assert_string_equal(found_public(&key, &none, NOW, false), "head:not public");
    assert_true(keep_public(&key, &none, "", STR("public"), true));
    assert_true(keep(&key, &none, "", "not public again"));
    assert_string_equal(found_public(&key, &none, NOW, true), "head:public"); // nobody else took it away
}

static void test_what_is_too_long(void **state)
{
    (void)state;
    struct copy_key key = key_of(1, 1, 1);
    struct headers none = with(NULL, NULL), cookie = with("X-Long", "");
    enum { HEAD = 5 };
    char *bytes = calloc(1, COPY_BYTES);
    assert_true(keep_public(&key, &none, "", (struct str){bytes, COPY_BYTES - HEAD}, false));
    assert_false(keep_public(&key, &none, "", (struct str){bytes, COPY_BYTES - HEAD + 1}, false));
    memset(bytes, 'x', COPY_BYTES);
    cookie.v[0].value = (struct str){bytes, COPY_SELECTION_BYTES};
    assert_false(keep(&key, &cookie, "X-Long", "x"));
    cookie.v[0].value.n = COPY_SELECTION_BYTES - sizeof "X-Long:"; // and the end of the line
    assert_true(keep(&key, &cookie, "X-Long", "x"));
    bytes[COPY_SELECTION_BYTES + 1] = '\0';
    assert_false(keep(&key, &none, bytes, "x"));
    free(bytes);
}

static void test_variants_are_few(void **state)
{
    (void)state;
    struct copy_key key = key_of(1, 1, 1), other = key_of(1, 1, 2);
    struct headers shared = with("Origin", "shared");
    assert_true(keep(&key, &shared, "Origin", "shared"));
    assert_true(keep(&other, &shared, "Origin", "shared"));
    for (unsigned i = 0; i < 100; i++) {
        struct headers one = with("Origin", arena_printf(&arena, "%u", i).p);
        assert_true(keep(&other, &one, "Origin", "one"));
        assert_string_equal(found(&key, &one), "head:one");
    }
    assert_string_equal(found(&key, &shared), "head:shared"); // one caller does not drive it out
    unsigned kept = 0;
    for (unsigned i = 0; i < 100; i++) {
        struct headers one = with("Origin", arena_printf(&arena, "%u", i).p);
        kept += found(&key, &one) != NULL;
    }
    assert_int_equal(kept, COPY_VARIANTS - 1);
}

static void test_room_is_bounded(void **state)
{
    (void)state;
    struct headers none = with(NULL, NULL);
    struct copy_key dear = key_of(0, 1, 1), dear_too = key_of(0, 1, 2);
    assert_true(keep(&dear, &none, "", "dear"));
    assert_true(keep(&dear_too, &none, "", "dear"));
    char *bytes = calloc(1, COPY_BYTES);
    for (unsigned i = 1; i <= 2 * COPIES_BYTES / COPY_BYTES; i++) {
        struct copy_key key = key_of(i, 1, 7);
        assert_true(keep_public(&key, &none, "", (struct str){bytes, COPY_BYTES - 5}, false));
        assert_true(copies_counts().bytes <= COPIES_BYTES);
    }
    assert_true(copies_counts().bytes > COPIES_BYTES - 2 * COPY_BYTES);
    for (unsigned i = 1; i <= 2 * COPIES_RESOURCES; i++) {
        struct copy_key key = key_of(1000 + i, 1, 7);
        assert_true(keep(&key, &none, "", "small"));
    }
    assert_int_equal(copies_counts().resources, COPIES_RESOURCES);
    assert_string_equal(found(&dear, &none), "head:dear"); // two callers asked for it
    free(bytes);
    for (unsigned i = 0; i <= 3000 + 2 * COPIES_RESOURCES; i++)
        copies_forget(hash_of_number(i), NULL, 0);
}

static void test_who_has_one_keeps_it(void **state)
{
    (void)state;
    struct headers none = with(NULL, NULL);
    struct copy_key key = key_of(1, 1, 1);
    struct copy copy, same;
    assert_true(keep(&key, &none, "", "body"));
    assert_true(copies_find(&key, &none, false, NOW, &copy));
    assert_true(copies_find(&key, &none, false, NOW, &same));
    assert_ptr_equal(copy.span.p, same.span.p); // nothing is copied
    struct lent lent = shared_lend(copy.in, str_skip(copy.span, 5));
    shared_unref(copy.in);
    shared_unref(same.in);
    copies_forget(key.resource, NULL, 0);
    assert_int_equal(copies_counts().bytes, 0);
    assert_true(str_eq(lent.span, STR("body")));
    lent_give_back(&lent);
    assert_null(lent.span.p);
}

enum { THREADS = 4, ROUNDS = 3000, NAMES = 5 };

static void *keep_and_find(void *number)
{
    struct headers none = {0};
    uint64_t caller = (uint64_t)(uintptr_t)number;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct copy_key key = key_of(i % NAMES, 1, caller);
        const struct copy copy = {.asked_us = NOW, .until_us = i % 7 ? LATER : 0, .span = STR("head:")};
        struct copy back;
        copies_keep(&key, &none, STR_NULL, &copy, STR("body"));
        bool is_there = copies_find(&key, &none, false, NOW, &back);
        if (i % 11 == 0)
            copies_forget(key.resource, NULL, 0);
        check(!is_there || str_eq(back.span, STR("head:body")));
        if (is_there)
            shared_unref(back.in);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, keep_and_find, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static int end(void **state)
{
    for (unsigned i = 0; i < NAMES; i++)
        copies_forget(hash_of_number(i), NULL, 0);
    assert_int_equal(copies_counts().resources, 0);
    assert_int_equal(copies_counts().bytes, 0);
    assert_int_equal(copies_counts().copies, 0);
    return arena_end(state);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, arena_begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_life),
        TEST(test_asked_for_before_a_change),
        TEST(test_dropped_by_hand),
        TEST(test_an_empty_body),
        TEST(test_vary),
        TEST(test_the_last_that_fits),
        TEST(test_for_those_who_say_who_they_are),
        TEST(test_what_is_too_long),
        TEST(test_variants_are_few),
        TEST(test_room_is_bounded),
        TEST(test_who_has_one_keeps_it),
        TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
