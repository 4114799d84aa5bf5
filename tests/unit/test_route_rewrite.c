// What becomes of a matched request: upstream paths, redirects, splits.
#include "test_route_fixture.h"

// The path the upstream sees, "refused", or the found name when no route fits.
static const char *rewritten(const char *path, const char *prefix, const char *whole, const char *request)
{
    static char out[256];
    struct fixture f;
    struct route_spec spec = {"r", "", path, "", "", ""};
    fixture_init(&f);
    f.settings = arena_array(&f.arena, struct route_settings, 1);
    f.count = 1;
    spec_settings(&f.arena, &spec, f.settings);
    f.settings->has_rewrite = true;
    f.settings->rewrite = (struct rewrite_settings){.prefix = str_of(prefix), .path = str_of(whole)};
    struct err err;
    assert_non_null(fixture_compile(&f, &err));
    char line[256];
    snprintf(line, sizeof line, "GET h %s", request);
    assert_string_equal(fixture_find(&f, line, ""), "r");
    struct str got;
    bool ok = route_rewrite_path(&f.match, &f.request, &f.request_arena, &got);
    snprintf(out, sizeof out, "%.*s", STR_ARG(ok ? got : STR("refused")));
    fixture_close(&f);
    return out;
}

// The table of Gateway API's HTTPPathModifier.
static void test_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *request, *prefix, *by, *want;
    } rows[] = {
        {"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
        {"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
        {"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
        {"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
        {"/foo", "/foo", "/xyz", "/xyz"},
        {"/foo", "/foo", "/xyz/", "/xyz/"},
        {"/foo/", "/foo", "/xyz", "/xyz/"},
        {"/foo/", "/foo", "/xyz/", "/xyz/"},
        {"/foo/bar", "/foo", "/", "/bar"},
        {"/foo/", "/foo", "/", "/"},
        {"/foo", "/foo", "/", "/"},
        {"/foo/a/b", "/", "/v1", "/v1/foo/a/b"},
        {"/", "/", "/v1", "/v1/"},
        {"/foo", "=/foo", "/v1/x", "/v1/x"},
        {"/a/1/b", "/a/{x}/b", "/c", "/c"},
        {"/foo//bar", "/foo", "/xyz", "/xyz//bar"},
    };
    for (size_t i = 0; i < countof(rows); i++)
        assert_string_equal(rewritten(rows[i].prefix, rows[i].by, NULL, rows[i].request), rows[i].want);
}

static void test_whole_path(void **state)
{
    (void)state;
    assert_string_equal(rewritten("/foo", NULL, "/v1", "/foo/bar"), "/v1");
    assert_string_equal(rewritten("/o/{id}/{x}", NULL, "/v1/{x}/{id}/z", "/o/7/a%20b"), "/v1/a%20b/7/z");
    assert_string_equal(rewritten("/o/{id}", NULL, "/{id}{id}", "/o/7"), "/77");
    assert_string_equal(rewritten("/foo", NULL, NULL, "/foo/bar"), "/foo/bar");
    // The request's own names are for redirects; an unknown name is no path.
    assert_string_equal(rewritten("/o/{id}", NULL, "/v1{path}", "/o/7"), "refused");
    assert_string_equal(rewritten("/o/{id}", NULL, "/{nobody}", "/o/7"), "refused");
    assert_string_equal(rewritten("/o/{id}", NULL, "/{id", "/o/7"), "refused");
}

// Pieces that are canonical alone and are not when joined.
static void test_rewritten_path_is_normalised(void **state)
{
    (void)state;
    assert_string_equal(rewritten("/o/{a}/{b}", NULL, "/files/{a}{b}/x", "/o/y/z"), "/files/yz/x");
    assert_string_equal(rewritten("/o/{a}", NULL, "/.{a}/x", "/o/b"), "/.b/x");
    assert_string_equal(rewritten("/o/{a}", NULL, "/a/../{a}", "/o/b"), "/b");
    assert_string_equal(rewritten("/o/{a}", NULL, "/../{a}", "/o/b"), "refused");
    assert_string_equal(rewritten("/o/{a}", NULL, "/%2{a}", "/o/f"), "refused");
    assert_string_equal(rewritten("/foo", "/a/./b", NULL, "/foo/c"), "/a/b/c");
}

static void test_without_rewrite(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"r", "", "/"}};
    struct fixture f;
    fixture_open(&f, specs, 1);
    fixture_find(&f, "GET h /a/b", "");
    struct str path;
    assert_true(route_rewrite_path(&f.match, &f.request, &f.request_arena, &path));
    assert_ptr_equal(path.p, f.request.path.p); // no copy
    fixture_close(&f);
}

static const char *location(const char *path, const char *to, const char *request)
{
    static char out[256];
    struct fixture f;
    struct route_spec spec = {"r", "", path, "", "", ""};
    fixture_init(&f);
    f.settings = arena_array(&f.arena, struct route_settings, 1);
    f.count = 1;
    spec_settings(&f.arena, &spec, f.settings);
    f.settings->upstream = STR_NULL;
    f.settings->has_redirect = true;
    f.settings->redirect = (struct redirect_settings){.to = str_of(to), .status = 308};
    struct err err;
    assert_non_null(fixture_compile(&f, &err));
    char line[256];
    snprintf(line, sizeof line, "GET shop.example %s", request);
    assert_string_equal(fixture_find(&f, line, ""), "r");
    assert_int_equal(f.match.route->action, ROUTE_REDIRECT);
    struct str got = route_redirect_location(&f.match, &f.request, STR("http"), &f.request_arena);
    snprintf(out, sizeof out, "%.*s", STR_ARG(got));
    fixture_close(&f);
    return out;
}

static void test_redirect(void **state)
{
    (void)state;
    assert_string_equal(location("/", "https://{host}{path}?{query}", "/a/b?x=1&y=%20"),
                        "https://shop.example/a/b?x=1&y=%20");
    assert_string_equal(location("/", "https://{host}{path}?{query}", "/a/b"), "https://shop.example/a/b");
    assert_string_equal(location("/", "https://{host}{path}?{query}#top", "/a"),
                        "https://shop.example/a#top");
    assert_string_equal(location("/", "{scheme}://www.{host}/", "/a"), "http://www.shop.example/");
    assert_string_equal(location("/o/{id}", "/orders/{id}?from={path}", "/o/7"), "/orders/7?from=/o/7");
    assert_string_equal(location("/", "https://x/{nothing}", "/a"), "https://x/{nothing}");
    assert_string_equal(location("/", "https://x/{", "/a"), "https://x/{");
    assert_string_equal(location("/", "https://x/}{path}", "/a"), "https://x/}/a");
}

// A path that begins with "//" stays a path of this server (RFC 3986 4.2).
static void test_redirect_never_leaves_by_path(void **state)
{
    (void)state;
    assert_string_equal(location("/", "{path}?{query}", "//evil.example/x"), "/.//evil.example/x");
    assert_string_equal(location("/", "/{path}", "/evil.example/x"), "/.//evil.example/x");
    assert_string_equal(location("/", "//cdn.example{path}", "/x"), "//cdn.example/x");
}

static void test_redirect_escapes(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"r", "", "/"}};
    struct fixture f;
    fixture_open(&f, specs, 1);
    f.settings->redirect.to = STR("https://x{path}");
    fixture_find(&f, "GET h /a", "");
    f.request.path = STR("/a\r\nSet-Cookie: x=\"1\"\\\xff"); // no parser lets this through
    struct str got = route_redirect_location(&f.match, &f.request, STR("https"), &f.request_arena);
    assert_true(str_eq(got, STR("https://x/a%0D%0ASet-Cookie:%20x=%221%22%5C%FF")));
    fixture_close(&f);
}

static void test_split(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    struct split_target targets[] = {{.upstream = STR("a"), .weight = 95},
                                     {.upstream = STR("b"), .weight = 5},
                                     {.upstream = STR("c"), .weight = 0}};
    static const struct route_spec specs[] = {{"r", "", "/"}};
    struct fixture f;
    fixture_init(&f);
    f.settings = arena_array(&f.arena, struct route_settings, 1);
    f.count = 1;
    spec_settings(&f.arena, specs, f.settings);
    f.settings->split = (struct config_list){targets, countof(targets)};
    struct err err;
    assert_non_null(fixture_compile(&f, &err));
    const struct route *route = route_table_at(f.table, 0);
    assert_int_equal(route->action, ROUTE_SPLIT);
    assert_int_equal(route->split_total, 100);
    struct rand rand;
    rand_init_seed(&rand, 7);
    unsigned drawn[countof(targets)] = {0};
    for (unsigned i = 0; i < DRAWS; i++) {
        struct upstream *upstream = route_draw(route, &rand);
        for (size_t j = 0; j < countof(targets); j++)
            drawn[j] += upstream == route->split[j].upstream;
    }
    assert_int_equal(drawn[0] + drawn[1], DRAWS);
    assert_int_equal(drawn[2], 0);
    assert_in_range(drawn[1], DRAWS * 4 / 100, DRAWS * 6 / 100); // 14 standard deviations
    fixture_close(&f);
}

static void test_draw_without_split(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"r", "", "/"}};
    struct fixture f;
    fixture_open(&f, specs, 1);
    const struct route *route = route_table_at(f.table, 0);
    assert_int_equal(route->action, ROUTE_FORWARD);
    assert_non_null(route->upstream);
    assert_ptr_equal(route_draw(route, NULL), route->upstream);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_whole_path),
        cmocka_unit_test(test_rewritten_path_is_normalised),
        cmocka_unit_test(test_without_rewrite),
        cmocka_unit_test(test_redirect),
        cmocka_unit_test(test_redirect_never_leaves_by_path),
        cmocka_unit_test(test_redirect_escapes),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_draw_without_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
