#include "unit_arena.h"

#include "base/arena.h"
#include "http/cache_control.h"

#include <stdlib.h>

static struct headers headers_of(const char *name, const char *const *lines)
{
    struct headers headers = {0};
    for (; *lines; lines++)
        headers_add(&headers, &arena, str_of(name), str_of(*lines));
    return headers;
}

enum { NO_STORE = 1, NO_CACHE = 2, PRIVATE = 4, PUBLIC = 8, MUST = 16 };

static unsigned flags_of(const struct cache_control *said)
{
    return (said->no_store ? NO_STORE : 0) | (said->no_cache ? NO_CACHE : 0) |
           (said->is_private ? PRIVATE : 0) | (said->is_public ? PUBLIC : 0) |
           (said->must_revalidate ? MUST : 0);
}

static const uint64_t NO = CACHE_UNSAID;
enum { MOST = 0x7fffffff };

static void test_directives(void **state)
{
    (void)state;
    const struct {
        const char *lines[3];
        unsigned flags;
        uint64_t max_age, s_maxage, stale_if_error;
    } rows[] = {
        {{NULL}, 0, NO, NO, NO},
        {{""}, 0, NO, NO, NO},
        {{" , ,"}, 0, NO, NO, NO},
        {{"no-store"}, NO_STORE, NO, NO, NO},
        {{"NO-Store"}, NO_STORE, NO, NO, NO},
        {{"no-store-at-all"}, 0, NO, NO, NO},
        {{"max-age=60"}, 0, 60, NO, NO},
        {{"max-age = 60"}, 0, 60, NO, NO},
        {{"max-age=\"60\""}, 0, 60, NO, NO},
        {{"max-age=60, max-age=30"}, 0, 30, NO, NO},
        {{"max-age=60", "max-age=30"}, 0, 30, NO, NO},
        {{"max-age=60", "no-cache"}, NO_CACHE, 60, NO, NO},
        {{"max-age"}, 0, 0, NO, NO},
        {{"max-age=-1"}, 0, 0, NO, NO},
        {{"max-age=1.5"}, 0, 0, NO, NO},
        {{"max-age=99999999999999999999999"}, 0, MOST, NO, NO},
        {{"max-age=4294967296"}, 0, MOST, NO, NO},
        {{"public,s-maxage=5,stale-if-error=7"}, PUBLIC, NO, 5, 7},
        {{"must-revalidate"}, MUST, NO, NO, NO},
        {{"proxy-revalidate"}, MUST, NO, NO, NO},
        {{"private=\"set-cookie, x-name\", public"}, PRIVATE | PUBLIC, NO, NO, NO},
        {{"no-cache=\"set-cookie\""}, NO_CACHE, NO, NO, NO},
        {{"other=\"a, no-store\""}, 0, NO, NO, NO},
        {{"other=\"a\\\", no-store\", public"}, PUBLIC, NO, NO, NO},
        {{"other=\"a, public"}, NO_STORE, NO, NO, NO}, // an open quote hides what is there
        {{"other=\"a\\"}, NO_STORE, NO, NO, NO},
        {{"public;no-store"}, 0, NO, NO, NO},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct headers headers = headers_of("cache-CONTROL", rows[i].lines);
        struct cache_control said = http_cache_control(&headers);
        if (flags_of(&said) != rows[i].flags || said.max_age_s != rows[i].max_age ||
            said.s_maxage_s != rows[i].s_maxage || said.stale_if_error_s != rows[i].stale_if_error)
            fail_msg("row %zu: %s", i, rows[i].lines[0]);
    }
}

// In memory of its own: a sanitizer sees what is read beyond it.
static void test_every_prefix(void **state)
{
    (void)state;
    const struct str whole = STR("private=\"a\\\"b, c\" , max-age=\"12\",no-cache");
    for (size_t n = 0; n <= whole.n; n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, whole.p, n);
        struct headers headers = {0};
        headers_add(&headers, &arena, STR("Cache-Control"), (struct str){copy, n});
        struct cache_control said = http_cache_control(&headers);
        assert_true(n < 7 || said.is_private || said.no_store);
        free(copy);
    }
}

static void test_what_is_gone_says_nothing(void **state)
{
    (void)state;
    const char *const lines[] = {"no-store", NULL};
    struct headers headers = headers_of("Cache-Control", lines);
    headers_remove_name(&headers, STR("Cache-Control"));
    assert_false(http_cache_control(&headers).no_store);
}

static void test_age(void **state)
{
    (void)state;
    const struct {
        const char *lines[3];
        uint64_t age;
    } rows[] = {
        {{NULL}, 0}, {{"7"}, 7},   {{"7, 9"}, 7}, {{"7", "9"}, 7},
        {{"-7"}, 0}, {{"old"}, 0}, {{""}, 0},     {{"99999999999999999999"}, MOST},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct headers headers = headers_of("Age", rows[i].lines);
        assert_int_equal(http_age_s(&headers), rows[i].age);
    }
}

// 4.2.1, 5.3. The dates are seconds after this one.
enum { NOW_S = 784111777 };
#define NOW    "Sun, 06 Nov 1994 08:49:37 GMT"
#define NOW_30 "Sun, 06 Nov 1994 08:50:07 GMT"
#define NOW_60 "Sun Nov  6 08:50:37 1994"

static void test_freshness(void **state)
{
    (void)state;
    const struct {
        const char *control, *date, *expires;
        uint64_t fresh;
    } rows[] = {
        {NULL, NULL, NULL, NO},
        {"public", NOW, NULL, NO},
        {"max-age=5", NULL, NULL, 5},
        {"max-age=5, s-maxage=7", NULL, NOW_30, 7},
        {"max-age=5", NULL, NOW_30, 5},
        {"max-age=soon", NULL, NOW_30, 0},
        {NULL, NULL, NOW_30, 30},
        {"public", NULL, NOW_30, 30},
        {NULL, NOW, NOW_60, 60},
        {NULL, NOW_30, NOW_60, 30},
        {NULL, NOW_60, NOW_30, 0},
        {NULL, NOW, NOW, 0},
        {NULL, "then", NOW_30, 30},
        {NULL, NULL, "0", 0},
        {NULL, NULL, "-1", 0},
        {NULL, NULL, "", 0},
        {NULL, NULL, "Fri, 31 Dec 9999 23:59:59 GMT", MOST},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct headers headers = {0};
        const struct str names[] = {STR("Cache-Control"), STR("Date"), STR("expires")};
        const char *const values[] = {rows[i].control, rows[i].date, rows[i].expires};
        for (size_t k = 0; k < countof(names); k++)
            if (values[k])
                headers_add(&headers, &arena, names[k], str_of(values[k]));
        struct cache_control said = http_cache_control(&headers);
        if (http_fresh_s(&headers, &said, NOW_S) != rows[i].fresh)
            fail_msg("row %zu: %llu", i, (unsigned long long)http_fresh_s(&headers, &said, NOW_S));
    }
}

static void test_apparent_age(void **state)
{
    (void)state;
    const struct {
        const char *date;
        uint64_t age;
    } rows[] = {{NOW, 60}, {NOW_30, 30}, {NOW_60, 0}, {"Sun, 06 Nov 1994 08:50:38 GMT", 0}, {"then", 0}};
    for (size_t i = 0; i < countof(rows); i++) {
        struct headers headers = {0};
        headers_add(&headers, &arena, STR("Date"), str_of(rows[i].date));
        assert_int_equal(http_apparent_age_s(&headers, NOW_S + 60), rows[i].age);
    }
    const struct headers none = {0};
    assert_int_equal(http_apparent_age_s(&none, NOW_S), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directives),
        cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_what_is_gone_says_nothing),
        cmocka_unit_test(test_age),
        cmocka_unit_test(test_freshness),
        cmocka_unit_test(test_apparent_age),
    };
    return cmocka_run_group_tests(tests, arena_begin, arena_end);
}
