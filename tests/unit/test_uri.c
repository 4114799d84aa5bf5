// One canonical form of a path, and what has none; queries; authorities.
#include "base/arena.h"
#include "base/check.h"
#include "http/uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct path_case {
    struct str path;
    const char *want; // NULL: refused
};

#define PATH(text, want)               \
    {                                  \
        {text, sizeof(text) - 1}, want \
    }

static void expect_path(struct str path, bool merge_slashes, const char *want)
{
    struct arena arena;
    struct str out, again;
    const char *why = NULL;
    char *copy = malloc(path.n ? path.n : 1); // of the exact size, for ASan
    memcpy(copy, path.p, path.n);
    arena_init(&arena, NULL);
    enum uri_result result =
        uri_normalise_path((struct str){copy, path.n}, merge_slashes, &arena, &out, &why);
    if (!want) {
        if (result != URI_BAD)
            fail_msg("'%.*s': got '%.*s', want a refusal", STR_ARG(path), STR_ARG(out));
        assert_non_null(why);
    } else {
        if (result != URI_OK)
            fail_msg("'%.*s': refused (%s), want '%s'", STR_ARG(path), why, want);
        if (!str_eq(out, str_of(want)))
            fail_msg("'%.*s': got '%.*s', want '%s'", STR_ARG(path), STR_ARG(out), want);
        assert_int_equal(uri_normalise_path(out, merge_slashes, &arena, &again, &why), URI_OK);
        assert_true(str_eq(out, again));
        if (str_find(out, '%') == out.n && !strstr(want, "/."))
            assert_ptr_equal(out.p, again.p); // canonical already: no copy
    }
    arena_reset(&arena);
    free(copy);
}

static void expect_paths(const struct path_case *cases, size_t count, bool merge_slashes)
{
    for (size_t i = 0; i < count; i++)
        expect_path(cases[i].path, merge_slashes, cases[i].want);
}

static void test_canonical_paths(void **state)
{
    (void)state;
    static const struct path_case cases[] = {
        PATH("/", "/"),
        PATH("/a", "/a"),
        PATH("/a/", "/a/"),
        PATH("/a/b.c/d..e/.f/..g/...", "/a/b.c/d..e/.f/..g/..."),
        PATH("/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@"),
        PATH("//", "//"),
        PATH("//a///b", "//a///b"),
        PATH("/a;b=c/d", "/a;b=c/d"),
        PATH("/.a;b/..c;d/...;", "/.a;b/..c;d/...;"),
        PATH("/%20%3F%23%C3%A9", "/%20%3F%23%C3%A9"),
        PATH("/%25", "/%25"),
        PATH("/%25x4", "/%25x4"),
        PATH("/100%25/", "/100%25/"),
    };
    expect_paths(cases, countof(cases), false);
}

static void test_escapes(void **state)
{
    (void)state;
    static const struct path_case cases[] = {
        PATH("/%41%7a%30%2D%2e%5F%7E", "/Az0-._~"),
        PATH("/%c3%a9%3a", "/%C3%A9%3A"),
        PATH("/%2a", "/%2A"),
        PATH("/%", NULL),
        PATH("/%4", NULL),
        PATH("/%4g", NULL),
        PATH("/%g4", NULL),
        PATH("/%-1", NULL),
        PATH("/%%", NULL),
        PATH("/%u0041", NULL),
        PATH("/%00", NULL),
        PATH("/a%0d%0a", NULL),
        PATH("/%1F", NULL),
        PATH("/%7f", NULL),
        PATH("/%2f", NULL),
        PATH("/a%2Fb", NULL),
        PATH("/%5c", NULL),
        PATH("/%5C", NULL),
        // doubly encoded, however spelled
        PATH("/%2541", NULL),
        PATH("/%252e%252e/", NULL),
        PATH("/%252f", NULL),
        PATH("/%25%32%66", NULL),
        PATH("/%25%3266", NULL),
        PATH("/%252%66", NULL),
        PATH("/%2525", NULL),
        PATH("/%25%32.", "/%252."),
        PATH("/%25/41", "/%25/41"),
        PATH("/%25%2541", NULL),
    };
    expect_paths(cases, countof(cases), false);
}

static void test_dot_segments(void **state)
{
    (void)state;
    static const struct path_case cases[] = {
        PATH("/.", "/"),
        PATH("/./", "/"),
        PATH("/a/.", "/a/"),
        PATH("/a/./b", "/a/b"),
        PATH("/a/..", "/"),
        PATH("/a/../", "/"),
        PATH("/a/b/..", "/a/"),
        PATH("/a/b/../../c", "/c"),
        PATH("/a/b/c/./../../g", "/a/g"), // RFC 3986 5.2.4
        PATH("/a/%2e%2E/b", "/b"),
        PATH("/a/.%2e/b", "/b"),
        PATH("/%2E/b", "/b"),
        PATH("//..", "/"),
        PATH("/a//../b", "/a/b"),
        PATH("/a/..//b", "//b"),
        PATH("/..", NULL),
        PATH("/../a", NULL),
        PATH("/a/../..", NULL),
        PATH("/a/../../b", NULL),
        PATH("/./..", NULL),
        PATH("/%2e%2e/", NULL),
        PATH("/a/..;/b", NULL),
        PATH("/a/..;x=y/b", NULL),
        PATH("/a/.;/b", NULL),
        PATH("/a/..;", NULL),
        PATH("/a/%2e%2e;/b", NULL),
        PATH("/a/..%3b/b", NULL),
        PATH("/a/..%3B", NULL),
        PATH("/a/..%2fb", NULL),
    };
    expect_paths(cases, countof(cases), false);
}

static void test_merged_slashes(void **state)
{
    (void)state;
    static const struct path_case cases[] = {
        PATH("//", "/"),         PATH("///a//b///", "/a/b/"), PATH("/a//../b", "/b"),
        PATH("/a/.//b", "/a/b"), PATH("/a/..//b", "/b"),      PATH("//..", NULL),
    };
    expect_paths(cases, countof(cases), true);
}

static void test_bytes_of_a_path(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[] = "/a?b", want[] = "/a?b";
        text[2] = want[2] = (char)byte;
        bool allowed = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       (byte >= '0' && byte <= '9') || (byte && strchr("/-._~!$&'()*+,;=:@", (int)byte));
        expect_path((struct str){text, 4}, false, allowed ? want : NULL);
    }
    expect_path(STR("a"), false, NULL);
    expect_path(STR("*"), false, NULL);
    expect_path(STR(""), false, NULL);
    expect_path(STR("?"), false, NULL);
}

static void test_queries(void **state)
{
    (void)state;
    static const struct {
        struct str query;
        bool valid;
    } cases[] = {
        {STR(""), true},          {STR("a=b&c=d"), true},   {STR("?/:@!$'()*+,;=-._~"), true},
        {STR("%41%00%fF"), true}, {STR("%"), false},        {STR("%4"), false},
        {STR("%4x"), false},      {STR("a b"), false},      {STR("a#b"), false},
        {STR("\x7f"), false},     {STR("\xc3\xa9"), false}, {STR("\\"), false},
        {STR("a\tb"), false},     {STR("a[]={|}^`"), true}, {STR("\""), false},
        {STR("<"), false},        {STR(">"), false},
    };
    for (size_t i = 0; i < countof(cases); i++)
        if (uri_query_valid(cases[i].query) != cases[i].valid)
            fail_msg("'%.*s'", STR_ARG(cases[i].query));
}

static void test_authorities(void **state)
{
    (void)state;
    static const struct {
        struct str authority;
        const char *host, *port; // NULL: refused
    } cases[] = {
        {STR("a"), "a", ""},
        {STR("A.b-c_d~!$&'()*+,;="), "A.b-c_d~!$&'()*+,;=", ""},
        {STR("a:80"), "a", "80"},
        {STR("a:"), "a", ""},
        {STR("a:0080"), "a", "0080"},
        {STR("a:65535"), "a", "65535"},
        {STR("a."), "a.", ""},
        {STR("1.2.3.4:5"), "1.2.3.4", "5"},
        {STR("[::1]"), "[::1]", ""},
        {STR("[2001:DB8::1]:80"), "[2001:DB8::1]", "80"},
        {STR("[::ffff:1.2.3.4]"), "[::ffff:1.2.3.4]", ""},
        {STR("[1111:2222:3333:4444:5555:6666:7777:8888]"), "[1111:2222:3333:4444:5555:6666:7777:8888]", ""},
        {STR(""), NULL, NULL},
        {STR(":80"), NULL, NULL},
        {STR("a:65536"), NULL, NULL},
        {STR("a:99999999999999999999"), NULL, NULL},
        {STR("a:8o"), NULL, NULL},
        {STR("a:+80"), NULL, NULL},
        {STR("a:80:80"), NULL, NULL},
        {STR("::1"), NULL, NULL},
        {STR("[::1"), NULL, NULL},
        {STR("::1]"), NULL, NULL},
        {STR("["), NULL, NULL},
        {STR("[]"), NULL, NULL},
        {STR("[::1]a"), NULL, NULL},
        {STR("[::1]]"), NULL, NULL},
        {STR("[::g]"), NULL, NULL},
        {STR("[::1%25eth0]"), NULL, NULL},
        {STR("[fe80::1%eth0]"), NULL, NULL},
        {STR("[v1.a]"), NULL, NULL},
        {STR("[1.2.3.4]"), NULL, NULL},
        {STR("[::1\0]"), NULL, NULL},
        {STR("[11111:2222:3333:4444:5555:6666:7777:8888:99999]"), NULL, NULL},
        {STR("u@a"), NULL, NULL},
        {STR("u:p@a"), NULL, NULL},
        {STR("a/b"), NULL, NULL},
        {STR("a%41"), NULL, NULL},
        {STR("a b"), NULL, NULL},
        {STR("a\\b"), NULL, NULL},
        {STR("a#b"), NULL, NULL},
        {STR("a?b"), NULL, NULL},
        {STR("\xc3\xa9"), NULL, NULL},
        {STR("a\0"), NULL, NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct str host, port;
        bool ok = uri_authority_split(cases[i].authority, &host, &port);
        if (ok != (cases[i].host != NULL))
            fail_msg("'%.*s'", STR_ARG(cases[i].authority));
        if (ok && (!str_eq(host, str_of(cases[i].host)) || !str_eq(port, str_of(cases[i].port))))
            fail_msg("'%.*s': '%.*s' '%.*s'", STR_ARG(cases[i].authority), STR_ARG(host), STR_ARG(port));
    }
}

static void test_long_host(void **state)
{
    (void)state;
    char name[257];
    struct str host, port;
    memset(name, 'a', sizeof name);
    assert_true(uri_authority_split((struct str){name, 255}, &host, &port));
    assert_false(uri_authority_split((struct str){name, 256}, &host, &port));
    name[255] = ':';
    assert_true(uri_authority_split((struct str){name, 256}, &host, &port));
}

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        const char *decoded; // NULL: refused
    } cases[] = {
        {STR(""), ""},       {STR("a+b%2B%41"), "a b+A"}, {STR("%c3%A9&="), "\xc3\xa9&="},
        {STR("%"), NULL},    {STR("%4"), NULL},           {STR("%4g"), NULL},
        {STR("a%00"), NULL},
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(cases); i++) {
        struct str out;
        bool ok = uri_form_decode(cases[i].text, &arena, &out);
        if (ok != (cases[i].decoded != NULL) || (ok && !str_eq(out, str_of(cases[i].decoded))))
            fail_msg("'%.*s'", STR_ARG(cases[i].text));
    }
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical_paths), cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_dot_segments),    cmocka_unit_test(test_merged_slashes),
        cmocka_unit_test(test_bytes_of_a_path), cmocka_unit_test(test_queries),
        cmocka_unit_test(test_authorities),     cmocka_unit_test(test_long_host),
        cmocka_unit_test(test_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
