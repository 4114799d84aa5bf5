// What would happen to a request: the same grammar, the same table.
#include "unit.h"

#include "admin/admin.h"

static const char config[] =
    "version: 1\n"
    "listeners:\n"
    "  - { name: http, address: \"127.0.0.1:8080\", limits: { uri_bytes: 64, headers: 3 } }\n"
    "  - { name: loose, address: \"127.0.0.1:8081\", merge_slashes: true, limits: { body_bytes: 10 } }\n"
    "auth: { corp: { jwt: { issuer: me, jwks: { file: keys.json } } }, keys: { api_key: {} } }\n"
    "upstreams:\n"
    "  a: { targets: [{ address: \"127.0.0.1:1\" }] }\n"
    "  b: { targets: [{ address: \"127.0.0.1:2\" }], retries: { attempts: 3 } }\n"
    "routes:\n"
    "  - { name: plain, match: { path: { prefix: /plain } }, upstream: a }\n"
    "  - { name: wild, match: { hosts: [\"*.example.com\"], path: { prefix: /x } }, upstream: b, timeout: 3s "
    "}\n"
    "  - { name: exact, match: { hosts: [api.example.com], path: { exact: /x } }, upstream: a }\n"
    "  - { name: template, match: { path: { template: \"/t/{id}/{sub}\" }, methods: [GET], headers: { X-A: "
    "\"1\" } },\n"
    "      upstream: b, rewrite: { path: \"/{sub}/{id}\", host: inner.example } }\n"
    "  - { name: regex, match: { path: { regex: \"/r[0-9]+\" } }, respond: { status: 203, body: hi } }\n"
    "  - { name: split, match: { path: { prefix: /split } },\n"
    "      split: [{ upstream: a, weight: 9 }, { upstream: b, weight: 1 }] }\n"
    "  - { name: away, match: { path: { prefix: /away } }, redirect: { to: \"https://{host}{path}\", status: "
    "301 } }\n"
    "  - { name: guarded, match: { path: { prefix: /guarded } }, upstream: a, ip: { deny: [10.0.0.0/8] },\n"
    "      headers: { request: { set: { X: \"1\" } } }, request_body_bytes: 100 }\n"
    "  - { name: post, match: { path: { exact: /post }, methods: [POST, PUT] }, upstream: a }\n"
    "  - { name: known, match: { path: { prefix: /known } }, upstream: a, auth: corp }\n"
    "  - { name: allowed, match: { path: { prefix: /allowed } }, upstream: a,\n"
    "      auth: { any_of: [corp, keys], optional: true, require: { scopes: [read], roles: [x, y] } } }\n";

static struct gateway *gateway;

static int make_gateway(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    gateway = gateway_new(STR("test"), str_of(config), NULL, &report);
    for (const struct config_error *error = report.first; error; error = error->next)
        print_error("%u: %.*s: %.*s\n", error->line, STR_ARG(error->path), STR_ARG(error->what));
    arena_reset(&arena);
    return gateway ? 0 : -1;
}

static int free_gateway(void **state)
{
    (void)state;
    gateway_unref(gateway);
    gateway_reap();
    return 0;
}

// The explanation, or "! where: what".
static const char *explain(const char *method, const char *url, const struct str_map *headers)
{
    static struct buf out;
    struct json json;
    struct err err = {0};
    out.start = out.end = 0;
    json_init(&json, &out, false);
    if (!explain_request(gateway, str_of(method), str_of(url), headers, &json, &err)) {
        out.end = 0;
        buf_printf(&out, "! %s: %s", err.where, err.what);
    }
    buf_append(&out, (struct str){"", 1});
    return buf_str(&out).p;
}

static void expect(const char *method, const char *url, const char *want)
{
    const char *got = explain(method, url, NULL);
    if (!strstr(got, want))
        fail_msg("%s %s: %s\nlacks %s", method, url, got, want);
}

static void test_matches(void **state)
{
    (void)state;
    static const struct {
        const char *method, *url, *want;
    } rows[] = {
        {"GET", "http://h/plain/y?q=1",
         "\"request\":{\"method\":\"GET\",\"scheme\":\"http\",\"host\":\"h\",\"path\":\"/plain/"
         "y\",\"query\":\"q=1\"}"},
        {"GET", "http://h/plain/y?q=1", "\"target\":\"/plain/y?q=1\""},
        {"GET", "http://h/plain/../plain/%7ey", "\"target\":\"/plain/~y\""},
        {"GET", "http://h/plain",
         "\"route\":\"plain\",\"matched\":{\"host\":{\"any\":\"*\"},\"path\":{\"prefix\":\"/plain\"}}"},
        {"GET", "http://h/plain", "\"action\":\"forward\",\"upstream\":\"a\""},
        {"GET", "http://h/plain", "\"host\":\"h\",\"retries\":{\"attempts\":1,"},
        {"GET", "http://h/plain#fragment", "\"path\":\"/plain\"}"},
        {"GET", "https://q.EXAMPLE.com/x/1",
         "\"matched\":{\"host\":{\"wildcard\":\"*.example.com\"},\"path\":{\"prefix\":\"/x\"}}"},
        {"GET", "https://q.example.com/x/1", "\"timeout\":\"3s\""},
        {"GET", "https://q.example.com/x/1", "\"retries\":{\"attempts\":3,"},
        {"GET", "https://api.example.com/x",
         "\"matched\":{\"host\":{\"exact\":\"api.example.com\"},\"path\":{\"exact\":\"/x\"}}"},
        {"GET", "https://api.example.com/x/", "\"route\":\"wild\""},
        {"GET", "http://h/r12", "\"matched\":{\"host\":{\"any\":\"*\"},\"path\":{\"regex\":\"/r[0-9]+\"}}"},
        {"GET", "http://h/r12", "\"action\":\"respond\",\"respond\":{\"status\":203,\"body\":\"hi\"}"},
        {"GET", "http://h/split",
         "\"action\":\"split\",\"split\":[{\"upstream\":\"a\",\"weight\":9},{\"upstream\":\"b\",\"weight\":1}"
         "]"},
        {"GET", "http://h/away/1", "\"redirect\":{\"status\":301,\"location\":\"https://h/away/1\"}"},
        {"GET", "http://h/guarded", "\"policies\":[\"ip\",\"headers\"]"},
        {"GET", "http://h/guarded", "\"request_body_bytes\":100"},
        {"GET", "http://h/guarded", "\"auth\":null,\"policies\":"},
        {"GET", "http://h/known",
         "\"auth\":{\"any_of\":[\"corp\"],\"optional\":false,\"require\":{\"scopes\":[],"},
        {"GET", "http://h/allowed", "\"auth\":{\"any_of\":[\"corp\",\"keys\"],\"optional\":true,"},
        {"GET", "http://h/allowed",
         "\"require\":{\"scopes\":[\"read\"],\"scopes_match\":\"all\",\"roles\":[\"x\",\"y\"],"
         "\"roles_match\":\"any\"}}"},
        {"POST", "http://h/post",
         "\"matched\":{\"host\":{\"any\":\"*\"},\"path\":{\"exact\":\"/post\"},\"method\":\"POST\"}"},
        {"GET", "http://h", "\"path\":\"/\""},
        {"GET", "http://h?q", "\"path\":\"/\",\"query\":\"q\""},
        {"GET", "http://h:8081//plain//y", "\"listener\":\"loose\",\"route\":\"plain\""},
        {"GET", "http://h//plain", "\"route\":null"},
    };
    for (size_t i = 0; i < countof(rows); i++)
        expect(rows[i].method, rows[i].url, rows[i].want);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *method, *url, *want;
    } rows[] = {
        {"GET", "http://h/none", "\"route\":null,\"error\":{\"status\":404,\"code\":\"no_route\","},
        {"GET", "http://h/post", "\"error\":{\"status\":405,\"code\":\"method_not_allowed\","},
        {"GET", "http://h/post", "\"allow\":\"POST, PUT\""},
        {"GET", "http://h/a%2fb", "\"error\":{\"status\":400,\"code\":\"bad_request\""},
        {"GET", "http://h/..", "\"error\":{\"status\":400,"},
        {"GET", "http://u@h/plain", "\"error\":{\"status\":400,"},
        {"GET", "http://h/plain/0123456789012345678901234567890123456789012345678901234567890123456789",
         "\"error\":{\"status\":414,\"code\":\"uri_too_long\""},
        {"CONNECT", "http://h/plain", "\"error\":{\"status\":"},
    };
    for (size_t i = 0; i < countof(rows); i++)
        expect(rows[i].method, rows[i].url, rows[i].want);
}

static void test_headers(void **state)
{
    (void)state;
    struct str_pair pairs[4] = {{STR("X-A"), STR("1")}};
    const struct str_map map = {pairs, 1}, four = {pairs, 4}, two = {pairs, 2};
    const char *got = explain("GET", "http://h/t/7/s%20s", &map);
    assert_non_null(strstr(got, "\"headers\":[\"X-A\"],\"captures\":{\"id\":\"7\",\"sub\":\"s%20s\"}"));
    assert_non_null(strstr(got, "\"target\":\"/s%20s/7\",\"host\":\"inner.example\""));
    assert_non_null(strstr(explain("GET", "http://h/t/7/s", NULL), "\"route\":null"));

    pairs[1] = (struct str_pair){STR("host"), STR("api.example.com")};
    assert_non_null(strstr(explain("GET", "http://h/x", &two), "\"route\":\"exact\""));
    pairs[1] = (struct str_pair){STR("Content-Length"), STR("101")};
    assert_non_null(strstr(explain("POST", "http://h/guarded", &two),
                           "\"error\":{\"status\":413,\"code\":\"body_too_large\""));
    pairs[1] = (struct str_pair){STR("Content-Length"), STR("100")};
    assert_non_null(strstr(explain("POST", "http://h/guarded", &two), "\"action\":\"forward\""));
    pairs[1] = (struct str_pair){STR("Content-Length"), STR("+1")};
    assert_non_null(strstr(explain("POST", "http://h/guarded", &two), "\"error\":{\"status\":400,"));
    pairs[2] = pairs[3] = pairs[0];
    pairs[1] = pairs[0];
    assert_non_null(strstr(explain("GET", "http://h/plain", &four),
                           "\"error\":{\"status\":431,\"code\":\"headers_too_large\""));
}

static void test_senseless_questions(void **state)
{
    (void)state;
    expect("GE T", "http://h/", "! method: ");
    expect("", "http://h/", "! method: ");
    expect("GET", "", "! url: ");
    expect("GET", "ftp://h/", "! url: ");
    expect("GET", "plain", "! url: ");
    expect("GET", "http://h/a b", "! url: ");
    expect("GET", "http://h/\r\nX: y", "! url: ");
    struct str_pair pair = {STR("X"), STR("a\r\nHost: evil")};
    const struct str_map map = {&pair, 1};
    assert_memory_equal(explain("GET", "http://h/plain", &map), "! headers: ", 11);
    pair = (struct str_pair){STR("X Y"), STR("a")};
    assert_memory_equal(explain("GET", "http://h/plain", &map), "! headers: ", 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_senseless_questions),
    };
    return cmocka_run_group_tests(tests, make_gateway, free_gateway);
}
