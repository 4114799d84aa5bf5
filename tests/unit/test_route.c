// Which route a request gets: precedence, fallbacks, 405, captures, conditions.
#include "test_route_fixture.h"

struct ask {
    const char *request, *headers, *want;
};

static void expect(const struct route_spec *specs, uint32_t count, const struct ask *asks, uint32_t ask_count)
{
    struct fixture f;
    fixture_open(&f, specs, count);
    for (uint32_t i = 0; i < ask_count; i++) {
        const char *headers = asks[i].headers ? asks[i].headers : "";
        const char *got = fixture_find(&f, asks[i].request, headers);
        if (strcmp(got, asks[i].want) != 0)
            fail_msg("%s [%s]: got %s, want %s", asks[i].request, headers, got, asks[i].want);
    }
    fixture_close(&f);
}

#define EXPECT(specs, asks) expect(specs, countof(specs), asks, countof(asks))

static void test_no_routes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, NULL, 0);
    assert_string_equal(fixture_find(&f, "GET a.com /", ""), "404");
    assert_int_equal(route_table_count(f.table), 0);
    fixture_close(&f);
}

static void test_hosts(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"any", "", "/"},
        {"wide", "*.com", "/"},
        {"exact", "api.example.com", "/"},
        {"wild", "*.example.com", "/"},
        {"deeper", "*.b.example.com", "/"},
        {"two", "one.org two.org one.org", "/"},
        {"v6", "[::1]", "/"},
        {"org", "*.org", "/only"},
    };
    static const struct ask asks[] = {
        {"GET api.example.com /", NULL, "exact"},
        {"GET api.example.com. /", NULL, "exact"}, // the dot does not lead around the route
        {"GET api2.example.com /", NULL, "wild"},
        {"GET b.example.com /", NULL, "wild"},
        {"GET a.b.example.com /", NULL, "deeper"},
        {"GET z.a.b.example.com /", NULL, "deeper"},
        {"GET q.w.e.r.t.y.example.com /", NULL, "wild"},
        {"GET example.com /", NULL, "wide"}, // a wildcard covers at least one label
        {"GET com /", NULL, "any"},
        {"GET .example.com /", NULL, "wide"},
        {"GET .com /", NULL, "any"},
        {"GET xexample.com /", NULL, "wide"},
        {"GET one.org /", NULL, "two"},
        {"GET two.org /only/x", NULL, "two"}, // the host decides before the path
        {"GET three.org /only", NULL, "org"},
        {"GET three.org /", NULL, "any"},
        {"GET [::1] /", NULL, "v6"},
        {"GET  /", NULL, "any"},
        {"GET . /", NULL, "any"},
    };
    EXPECT(specs, asks);
}

static void test_host_fallback(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"exact", "a.example.com", "/x"},
        {"wild", "*.example.com", "/y"},
        {"star", "*", "/z"},
        {"any", "", "/w"},
    };
    static const struct ask asks[] = {
        {"GET a.example.com /x", NULL, "exact"}, {"GET a.example.com /y", NULL, "wild"},
        {"GET a.example.com /z", NULL, "star"},  {"GET a.example.com /w", NULL, "any"},
        {"GET a.example.com /v", NULL, "404"},   {"GET b.example.com /x", NULL, "404"},
    };
    EXPECT(specs, asks);
}

static void test_preflights(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"read", "", "/a", "GET HEAD", .cors = true},
        {"write", "", "/a", "PUT PURGE", .cors = true},
        {"template", "", "/a/{x}", "DELETE", .cors = true},
        {"public", "", "/b", "GET"},
        {"any", "", "/c", .cors = true},
        {"options", "", "/d", "OPTIONS"},
        {"own", "", "/d", "GET", .cors = true},
        {"theirs", "", "/d", "POST"},
    };
#define ASKS(method) "Origin: https://a.example|Access-Control-Request-Method: " method
    static const struct ask asks[] = {
        {"OPTIONS h /a", ASKS("GET"), "read"},
        {"OPTIONS h /a", ASKS("PUT"), "write"},
        {"OPTIONS h /a", ASKS("PURGE"), "write"},
        {"OPTIONS h /a", ASKS("DELETE"), "405 GET, HEAD, PUT, PURGE"},
        {"OPTIONS h /a/1", ASKS("DELETE"), "template"},
        {"OPTIONS h /a", ASKS("G T"), "405 GET, HEAD, PUT, PURGE"},
        {"OPTIONS h /a", ASKS(""), "405 GET, HEAD, PUT, PURGE"},
        {"OPTIONS h /a", "Access-Control-Request-Method: GET", "405 GET, HEAD, PUT, PURGE"},
        {"OPTIONS h /a", "Origin: https://a.example", "405 GET, HEAD, PUT, PURGE"},
        {"POST h /a", ASKS("GET"), "405 GET, HEAD, PUT, PURGE"},
        {"OPTIONS h /b", ASKS("GET"), "405 GET"}, // without cors, a request like any other
        {"OPTIONS h /c", ASKS("GET"), "any"},
        {"OPTIONS h /c", NULL, "any"},
        {"OPTIONS h /d", ASKS("GET"), "own"},
        {"OPTIONS h /d", ASKS("POST"), "options"},
    };
    EXPECT(specs, asks);
}

static void test_no_any_host(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"exact", "a.com", "/"}};
    static const struct ask asks[] = {{"GET a.com /x", NULL, "exact"}, {"GET b.com /x", NULL, "404"}};
    EXPECT(specs, asks);
}

static void test_prefixes(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"root", "", "/"},
        {"orders", "", "/orders"},
        {"items", "", "/orders/items/"},
        {"long", "", "/orders/items/a-segment-of-more-than-sixteen-bytes"},
        {"double", "", "/x//y"},
    };
    static const struct ask asks[] = {
        {"GET h /", NULL, "root"},
        {"GET h //", NULL, "root"},
        {"GET h /orders", NULL, "orders"},
        {"GET h /orders/", NULL, "orders"},
        {"GET h /orders/1", NULL, "orders"},
        {"GET h /ordersx", NULL, "root"},
        {"GET h /order", NULL, "root"},
        {"GET h /Orders", NULL, "root"}, // paths have case
        {"GET h /orders/items", NULL, "items"},
        {"GET h /orders/items/", NULL, "items"},
        {"GET h /orders/itemsx", NULL, "orders"},
        {"GET h /orders//items", NULL, "orders"},
        {"GET h /orders/items/a-segment-of-more-than-sixteen-bytes/1", NULL, "long"},
        {"GET h /orders/items/a-segment-of-more-than-sixteen-bytez/1", NULL, "items"},
        {"GET h /x//y/z", NULL, "double"},
        {"GET h /x/y/z", NULL, "root"},
        {"OPTIONS h *", NULL, "404"},
        {"CONNECT h ", NULL, "404"},
    };
    EXPECT(specs, asks);
}

static void test_paths_in_order(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"prefix", "", "/o/1"},      {"late", "", "~/o/[0-9]+"}, {"later", "", "~/o/.*"},
        {"template", "", "/o/{id}"}, {"exact", "", "=/o/1"},     {"slash", "", "=/o/1/"},
        {"left", "", "/t/{a}/c"},    {"right", "", "/t/b/{c}"},  {"first", "", "/u/a/{b}/{c}"},
        {"more", "", "/u/{a}/b/c"},  {"home", "", "=/"},
    };
    static const struct ask asks[] = {
        {"GET h /o/1", NULL, "exact"}, {"GET h /o/1/", NULL, "slash"},    {"GET h /o/2", NULL, "template"},
        {"GET h /o/", NULL, "later"},  {"GET h /o/1/2", NULL, "later"},   {"GET h /o/2/2", NULL, "later"},
        {"GET h /oo/1", NULL, "404"},  {"GET h /t/b/c", NULL, "right"},   {"GET h /t/x/c", NULL, "left"},
        {"GET h /t/x/y", NULL, "404"}, {"GET h /u/a/b/c", NULL, "first"}, {"GET h /u/x/b/c", NULL, "more"},
        {"GET h /", NULL, "home"},     {"GET h //", NULL, "404"},
    };
    EXPECT(specs, asks);
}

static void test_path_fallback(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"root", "", "/", "", "all=1"},         {"exact", "", "=/o/1", "", "e=1"},
        {"template", "", "/o/{id}", "", "t=1"}, {"regex", "", "~/o/.", "", "r=1"},
        {"second", "", "~/./1", "", "s=1"},     {"prefix", "", "/o", "", "p=1"},
    };
    static const struct ask asks[] = {
        {"GET h /o/1", "E: 1|T: 1|R: 1|S: 1|P: 1|All: 1", "exact"},
        {"GET h /o/1", "T: 1|R: 1|S: 1|P: 1|All: 1", "template"},
        {"GET h /o/1", "R: 1|S: 1|P: 1|All: 1", "regex"},
        {"GET h /o/1", "S: 1|P: 1|All: 1", "second"},
        {"GET h /o/1", "P: 1|All: 1", "prefix"},
        {"GET h /o/1", "All: 1", "root"},
        {"GET h /o/1", "", "404"},
    };
    EXPECT(specs, asks);
}

static void test_order_within_a_path(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"plain", "", "/p"},
        {"again", "", "/p"},
        {"query", "", "/p", "", "", "q=1"},
        {"header", "", "/p", "", "a=1"},
        {"both", "", "/p/", "", "a=1", "q=1"},
        {"headers", "", "/p", "", "a=1 b"},
        {"get", "", "/p", "GET"},
        {"get-header", "", "/p", "GET POST", "a=1"},
    };
    static const struct ask asks[] = {
        {"PUT h /p", NULL, "plain"},
        {"PUT h /p?q=1", NULL, "query"},
        {"PUT h /p?q=1", "A: 1", "both"},
        {"PUT h /p?q=2", "A: 1", "header"},
        {"PUT h /p?q=1", "A: 1|B: x", "headers"},
        {"GET h /p?q=1", "B: 1", "get"},
        {"GET h /p?q=1", "A: 1|B: 1", "get-header"},
        {"POST h /p", "B: 1", "plain"},
    };
    EXPECT(specs, asks);
}

static void test_same_expression_is_one_path(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"first", "", "~/a.*"}, {"other", "", "~/a/b.*"}, {"with-header", "", "~/a.*", "", "x=1"}};
    static const struct ask asks[] = {{"GET h /a/b", NULL, "first"}, {"GET h /a/b", "X: 1", "with-header"}};
    EXPECT(specs, asks);
}

static void test_methods(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"get", "a.com", "=/o", "GET"},
        {"post", "", "/o", "POST PURGE"},
        {"del", "", "/", "DELETE", "x=1"},
        {"lower", "", "/low", "get"},
        {"free", "", "/free"},
    };
    static const struct ask asks[] = {
        {"GET a.com /o", NULL, "get"},
        {"HEAD a.com /o", NULL, "405 GET, POST, PURGE"}, // HEAD is not implied
        {"POST a.com /o", NULL, "post"},
        {"PURGE a.com /o", NULL, "post"},
        {"BREW a.com /o", NULL, "405 GET, POST, PURGE"},
        {"PUT a.com /o", NULL, "405 GET, POST, PURGE"},
        {"PUT a.com /o", "X: 1", "405 GET, POST, DELETE, PURGE"},
        {"DELETE a.com /o", "X: 1", "del"},
        {"DELETE a.com /o", NULL, "405 GET, POST, PURGE"},
        {"GET b.com /o", NULL, "405 POST, PURGE"},
        {"GET b.com /q", NULL, "404"}, // only the header keeps del from fitting
        {"GET b.com /q", "X: 1", "405 DELETE"},
        {"get b.com /low", NULL, "lower"},
        {"GET b.com /low", NULL, "405 get"},
        {"BREW b.com /free", NULL, "free"},
    };
    EXPECT(specs, asks);
}

static void test_header_values(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"known", "", "/", "", "cookie=a=b"},
        {"regex", "", "/", "", "x-v~v[0-9]+"},
        {"exact", "", "/", "", "X-Name=One"},
        {"present", "", "/", "", "x-there"},
    };
    static const struct ask asks[] = {
        {"GET h /", "Cookie: a=b", "known"},    {"GET h /", "COOKIE: z|Cookie: a=b", "known"}, // any line
        {"GET h /", "X-V: v12", "regex"},       {"GET h /", "X-V: av12", "404"}, // the whole value
        {"GET h /", "X-V: v12b", "404"},        {"GET h /", "X-V: |x-v: v1", "regex"},
        {"GET h /", "x-name: One", "exact"},    {"GET h /", "x-name: one", "404"},
        {"GET h /", "x-name: One, Two", "404"}, {"GET h /", "X-There: ", "present"},
    };
    EXPECT(specs, asks);
}

static void test_gone_headers_do_not_match(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"x", "", "/", "", "x-a=1"}, {"known", "", "/", "", "te"}};
    struct fixture f;
    fixture_open(&f, specs, countof(specs));
    fixture_request(&f, "GET h /", "X-A: 1|TE: trailers");
    headers_remove_name(&f.request.headers, STR("x-a"));
    route_find(f.table, &f.request, f.scratch, &f.request_arena, &f.match);
    assert_true(str_eq(f.match.route->name, STR("known")));
    headers_remove(&f.request.headers, HEADER_TE);
    route_find(f.table, &f.request, f.scratch, &f.request_arena, &f.match);
    assert_null(f.match.route);
    fixture_close(&f);
}

static void test_query_values(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"exact", "", "/a", "", "", "q=x&y"},   {"regex", "", "/b", "", "", "q~[a-z]+=[0-9]"},
        {"present", "", "/c", "", "", "q"},     {"empty", "", "/d", "", "", "q="},
        {"percent", "", "/e", "", "", "q=%zz"}, {"name", "", "/f", "", "", "a+b=1"},
    };
    static const struct ask asks[] = {
        {"GET h /a?q=x%26y", NULL, "exact"},
        {"GET h /a?z=1&q=x%26y", NULL, "exact"},
        {"GET h /a?%71=%78%26%79", NULL, "exact"},
        {"GET h /a?q=x&y", NULL, "404"},
        {"GET h /a?q=1&q=x%26y", NULL, "404"}, // the first one counts
        {"GET h /a?Q=x%26y", NULL, "404"},
        {"GET h /a", NULL, "404"},
        {"GET h /b?q=ab%3D1", NULL, "regex"},
        {"GET h /b?q=ab=1", NULL, "regex"},
        {"GET h /b?q=ab%3d12", NULL, "404"},
        {"GET h /b?q=", NULL, "404"},
        {"GET h /c?q", NULL, "present"},
        {"GET h /c?&&q=1", NULL, "present"},
        {"GET h /c?qq", NULL, "404"},
        {"GET h /c?=q", NULL, "404"},
        {"GET h /d?q", NULL, "empty"},
        {"GET h /d?q=", NULL, "empty"},
        {"GET h /d?q=1", NULL, "404"},
        {"GET h /e?q=%zz", NULL, "percent"},
        {"GET h /f?a%2Bb=1", NULL, "name"},
        {"GET h /f?a+b=1", NULL, "404"},
    };
    EXPECT(specs, asks);
}

static void test_captures(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"one", "", "/o/{id}/items/{item}"},
                                              {"other", "", "/o/{order}/items/{thing}", "POST"},
                                              {"deep", "", "/o/x/{y}"}};
    struct fixture f;
    fixture_open(&f, specs, countof(specs));
    assert_string_equal(fixture_find(&f, "GET h /o/7/items/a%20b", ""), "one");
    assert_int_equal(f.match.capture_count, 2);
    assert_true(str_eq(f.match.captures[0].name, STR("id")) && str_eq(f.match.captures[0].value, STR("7")));
    assert_true(str_eq(f.match.captures[1].name, STR("item")) &&
                str_eq(f.match.captures[1].value, STR("a%20b")));
    assert_string_equal(fixture_find(&f, "POST h /o/x/items/y", ""), "other");
    assert_true(str_eq(f.match.captures[0].name, STR("order")) &&
                str_eq(f.match.captures[0].value, STR("x")));
    assert_true(str_eq(f.match.captures[1].name, STR("thing")) &&
                str_eq(f.match.captures[1].value, STR("y")));
    assert_string_equal(fixture_find(&f, "GET h /o/7/items/", ""), "404"); // a name is never empty
    assert_int_equal(f.match.capture_count, 0);
    assert_string_equal(fixture_find(&f, "GET h /o//items/1", ""), "404");
    assert_string_equal(fixture_find(&f, "GET h /o/x/1", ""), "deep");
    assert_int_equal(f.match.capture_count, 1);
    fixture_close(&f);
}

// A template that fits but for its header leaves nothing behind.
static void test_captures_of_a_prefix(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {{"template", "", "/o/{id}", "", "x=1"}, {"prefix", "", "/o"}};
    struct fixture f;
    fixture_open(&f, specs, countof(specs));
    assert_string_equal(fixture_find(&f, "GET h /o/7", ""), "prefix");
    assert_int_equal(f.match.capture_count, 0);
    fixture_close(&f);
}

static void test_hard_expression_ends_the_search(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"open", "", "/"}, {"guarded", "", "~/(a|a|aa)+b"}, {"value", "", "/v", "", "x~(a|a|aa)+b"}};
    struct fixture f;
    fixture_open(&f, specs, countof(specs));
    assert_string_equal(fixture_find(&f, "GET h /aaab", ""), "guarded");
    assert_string_equal(fixture_find(&f, "GET h /c", ""), "open");
    const char *many = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabc";
    char request[128], headers[128];
    snprintf(request, sizeof request, "GET h /%s", many);
    snprintf(headers, sizeof headers, "X: %s", many);
    assert_string_equal(fixture_find(&f, request, ""), "404");
    assert_string_equal(fixture_find(&f, "GET h /v", "X: aab"), "value");
    assert_string_equal(fixture_find(&f, "GET h /v", headers), "404");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_routes),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_host_fallback),
        cmocka_unit_test(test_preflights),
        cmocka_unit_test(test_no_any_host),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_paths_in_order),
        cmocka_unit_test(test_path_fallback),
        cmocka_unit_test(test_order_within_a_path),
        cmocka_unit_test(test_same_expression_is_one_path),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_header_values),
        cmocka_unit_test(test_gone_headers_do_not_match),
        cmocka_unit_test(test_query_values),
        cmocka_unit_test(test_captures),
        cmocka_unit_test(test_captures_of_a_prefix),
        cmocka_unit_test(test_hard_expression_ends_the_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
