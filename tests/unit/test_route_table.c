// The table as a whole: ten thousand routes, matching order, printing, what is refused.
#include "test_route_fixture.h"

enum { MANY = 10000 };

// Route number i is for this host and for paths of one of four kinds.
static void many_host(uint32_t i, const char *wildcard, char out[64])
{
    if (i % 8 < 4)
        snprintf(out, 64, "host-%u.example.com", i / 100);
    else
        snprintf(out, 64, "%s.tenant-%u.example.com", wildcard, i / 100);
}

static void fill_many(struct fixture *f)
{
    static const char *const before[] = {"/api/service-", "=/api/service-", "/api/service-", "/v"},
                             *const after[] = {"", "/status", "/items/{id}", ""};
    fixture_init(f);
    f->settings = arena_array(&f->arena, struct route_settings, MANY);
    f->count = MANY;
    for (uint32_t i = 0; i < MANY; i++) {
        char host[64];
        many_host(i, "*", host);
        struct route_spec spec = {.name = arena_printf(&f->arena, "r%u", i).p,
                                  .hosts = i % 3 ? arena_copy(&f->arena, str_of(host)).p : "",
                                  .path =
                                      arena_printf(&f->arena, "%s%u%s", before[i % 4], i, after[i % 4]).p};
        spec_settings(&f->arena, &spec, &f->settings[i]);
    }
}

static void test_ten_thousand_routes(void **state)
{
    (void)state;
    static const char *const before[] = {"/api/service-", "/api/service-", "/api/service-", "/v"},
                             *const after[] = {"/x/y", "/status", "/items/7", ""};
    struct fixture f;
    fill_many(&f);
    struct err err;
    assert_non_null(fixture_compile(&f, &err));
    for (uint32_t i = 0; i < MANY; i++) {
        char host[64], line[160];
        many_host(i, "a", host);
        snprintf(line, sizeof line, "GET %s %s%u%s", host, before[i % 4], i, after[i % 4]);
        fixture_find(&f, line, "");
        assert_ptr_equal(f.match.route ? f.match.route->settings : NULL, &f.settings[i]);
    }
    assert_string_equal(fixture_find(&f, "GET nobody.example.com /api/service-1/x", ""), "404");
    assert_int_equal(route_table_count(f.table), MANY);
    fixture_close(&f);
}

static void test_one_path_with_many_hosts_and_back(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.settings = arena_array(&f.arena, struct route_settings, 2);
    f.count = 2;
    struct str_list hosts = {arena_array(&f.arena, struct str, MANY), MANY};
    for (uint32_t i = 0; i < MANY; i++)
        hosts.v[i] = arena_printf(&f.arena, "h%u.com", i);
    spec_settings(&f.arena, &(struct route_spec){"one", "", "/a"}, &f.settings[0]);
    spec_settings(&f.arena, &(struct route_spec){"two", "", "=/a/b"}, &f.settings[1]);
    f.settings[0].match.hosts = f.settings[1].match.hosts = hosts;
    struct err err;
    assert_non_null(fixture_compile(&f, &err));
    assert_string_equal(fixture_find(&f, "GET h9999.com /a/b", ""), "two");
    assert_string_equal(fixture_find(&f, "GET h0.com /a/c", ""), "one");
    assert_string_equal(fixture_find(&f, "GET h10000.com /a", ""), "404");
    fixture_close(&f);
}

static void test_matching_order(void **state)
{
    (void)state;
    static const struct route_spec specs[] = {
        {"any", "", "/"},
        {"regex-b", "a.com", "~/b"},
        {"wild", "*.com", "/long/prefix"},
        {"longer-wild", "*.b.com", "/"},
        {"prefix", "a.com", "/p"},
        {"longer-prefix", "a.com", "/p/q"},
        {"second", "z.com", "/p"},
        {"template-left", "a.com", "/t/{x}/c"},
        {"template", "a.com", "/t/c/{x}"},
        {"exact", "a.com", "=/p"},
        {"regex-a", "a.com", "~/a"},
        {"get", "a.com", "/p", "GET"},
        {"header", "a.com", "/p", "", "h=1"},
        {"query", "a.com", "/p", "", "", "q=1"},
        {"two-hosts", "*.org a.com", "/zz"},
    };
    static const char *const want[] = {"exact",         "template",  "template-left", "regex-b", "regex-a",
                                       "longer-prefix", "two-hosts", "get",           "header",  "query",
                                       "prefix",        "second",    "longer-wild",   "wild",    "any"};
    struct fixture f;
    fixture_open(&f, specs, countof(specs));
    for (uint32_t i = 0; i < countof(want); i++) {
        struct str name = route_table_at(f.table, i)->name;
        if (!str_eq(name, str_of(want[i])))
            fail_msg("%u: %.*s, want %s", i, STR_ARG(name), want[i]);
    }
    fixture_close(&f);
}

static void test_print(void **state)
{
    (void)state;
    static const struct {
        struct route_spec spec;
        const char *want;
    } rows[] = {
        {{"a", "api.example.com", "/orders", "GET POST", "x=1"},
         "api.example.com /orders/* GET,POST [header x=1]"},
        {{"b", "", "/", "", "a b~c+", "q=1"}, "* /* * [header a] [header b~c+] [query q=1]"},
        {{"c", "a.com *.b.com", "=/x/", "", ""}, "a.com,*.b.com /x/ *"},
        {{"d", "", "/o/{id}", "GET"}, "* /o/{id} GET"},
        {{"e", "", "~/v[0-9]/.*"}, "* ~/v[0-9]/.* *"},
        {{"f", "", "/o/"}, "* /o/* *"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct fixture f;
        fixture_open(&f, &rows[i].spec, 1);
        struct buf out = {0};
        route_print(route_table_at(f.table, 0), &out);
        buf_append(&out, (struct str){"", 1});
        assert_string_equal(out.base, rows[i].want);
        buf_free(&out);
        fixture_close(&f);
    }
}

static void test_what_a_route_carries(void **state)
{
    (void)state;
    struct str_pair pair = {STR("X-A"), STR("1")};
    struct cidr net;
    assert_true(cidr_parse(STR("10.0.0.0/8"), &net));
    struct fixture f;
    fixture_init(&f);
    f.settings = arena_array(&f.arena, struct route_settings, 3);
    f.count = 3;
    for (int i = 0; i < 3; i++)
        spec_settings(&f.arena, &(struct route_spec){i ? "guarded" : "plain", "", "/"}, &f.settings[i]);
    struct route_settings *guarded = &f.settings[1], *answers = &f.settings[2];
    guarded->has_fault = guarded->has_retries = true;
    guarded->fault.status = 503;
    guarded->ip.allow = (struct cidr_set){&net, 1};
    guarded->headers.response.add = (struct str_map){&pair, 1};
    answers->upstream = STR("missing"); // not asked for
    answers->has_respond = true;
    answers->has_fault = true; // of nothing
    struct err err;
    assert_non_null(fixture_compile(&f, &err));
    const struct route *plain = route_table_at(f.table, 0), *second = route_table_at(f.table, 1),
                       *third = route_table_at(f.table, 2);
    assert_int_equal(plain->policy_count, 0);
    assert_null(plain->retries);
    assert_int_not_equal(plain->metric_id, second->metric_id);
    assert_int_equal(second->policy_count, 3);
    assert_ptr_equal(second->policies[0].policy, &policy_ip);
    assert_ptr_equal(second->policies[0].settings, &guarded->ip);
    assert_ptr_equal(second->policies[1].policy, &policy_fault);
    assert_ptr_equal(second->policies[1].settings, &guarded->fault);
    assert_ptr_equal(second->policies[2].policy, &policy_headers);
    assert_ptr_equal(second->policies[2].settings, &guarded->headers);
    assert_ptr_equal(second->retries, &guarded->retries);
    assert_int_equal(third->action, ROUTE_RESPOND);
    assert_int_equal(third->policy_count, 0);
    fixture_close(&f);
}

static void refused(const struct route_settings *bad, const char *where, const char *what)
{
    struct fixture f;
    fixture_init(&f);
    f.settings = arena_array(&f.arena, struct route_settings, 2);
    f.count = 2;
    spec_settings(&f.arena, &(struct route_spec){"good", "a.com", "~/good", "", "x~y"}, &f.settings[0]);
    f.settings[1] = *bad;
    struct err err = {0};
    assert_null(fixture_compile(&f, &err));
    assert_string_equal(err.where, where);
    if (!strstr(err.what, what))
        fail_msg("%s: should speak of %s", err.what, what);
    assert_null(fixture_compile(&f, NULL));
    fixture_close(&f);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct route_spec spec;
        const char *what;
    } rows[] = {
        {{"bad", "", "~/a["}, "offset 3"},
        {{"bad", "", "/", "", "x~(("}, "offset 2"},
        {{"bad", "", "/", "", "", "q~*"}, "offset 0"},
        {{"bad", "", "a/b"}, "begins with /"},
        {{"bad", "", "="}, "begins with /"},
        {{"bad", "", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}/{q}"}, "more than 16"},
    };
    struct arena arena;
    arena_init(&arena, NULL);
    struct route_settings settings;
    for (size_t i = 0; i < countof(rows); i++) {
        spec_settings(&arena, &rows[i].spec, &settings);
        refused(&settings, "route bad", rows[i].what);
    }
    char deep[400] = "/{x}";
    for (int i = 0; i < 64; i++)
        memcpy(deep + 4 + 2 * i, "/a", 3);
    spec_settings(&arena, &(struct route_spec){"bad", "", deep}, &settings);
    refused(&settings, "route bad", "more than 64 segments");
    spec_settings(&arena, &(struct route_spec){"bad"}, &settings);
    settings.upstream = STR("missing");
    refused(&settings, "route bad", "no upstream \"missing\"");
    struct split_target targets[] = {{.upstream = STR("a")}, {.upstream = STR("b")}};
    settings.split = (struct config_list){targets, 2};
    refused(&settings, "route bad", "add up");
    targets[0].weight = targets[1].weight = UINT32_MAX;
    refused(&settings, "route bad", "add up");
    targets[1].weight = (int64_t)UINT32_MAX + 1;
    refused(&settings, "route bad", "beyond");
    targets[1] = (struct split_target){.upstream = STR("missing"), .weight = 1};
    refused(&settings, "route bad", "no upstream \"missing\"");
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ten_thousand_routes),  cmocka_unit_test(test_one_path_with_many_hosts_and_back),
        cmocka_unit_test(test_matching_order),       cmocka_unit_test(test_print),
        cmocka_unit_test(test_what_a_route_carries), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
