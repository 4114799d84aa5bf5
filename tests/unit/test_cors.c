// CORS as the Fetch standard has it: whose scripts may call, what a preflight is told.
#include "policy/policy.h"
#include "policy/policy_config.h"

#include "unit.h"

struct bench {
    struct arena arena;
    struct cors_settings cors;
    struct request_head request;
    struct response_head response;
    struct policy_call call;
};

// Lists by commas.
static struct str_list list_of(struct arena *arena, const char *words)
{
    struct str_list list = {.v = arena_array(arena, struct str, strlen(words) + 1)};
    for (struct str rest = str_of(words), word; str_next_token(&rest, &word);)
        list.v[list.count++] = word;
    return list;
}

static void open_bench(struct bench *b, const char *origins, const char *origin)
{
    *b = (struct bench){0};
    arena_init(&b->arena, NULL);
    b->cors = (struct cors_settings){
        .origins = list_of(&b->arena, origins),
        .methods = list_of(&b->arena, "GET,PUT"),
        .headers = list_of(&b->arena, "Authorization,X-One"),
        .max_age_us = 600 * UINT64_C(1000000),
    };
    b->request.method = METHOD_GET;
    if (origin)
        headers_add(&b->request.headers, &b->arena, STR("Origin"), str_of(origin));
    b->call = (struct policy_call){.settings = &b->cors,
                                   .request = &b->request,
                                   .response = &b->response,
                                   .origin = headers_value(&b->request.headers, HEADER_ORIGIN),
                                   .arena = &b->arena};
}

static void ask_beforehand(struct bench *b, const char *method, const char *headers)
{
    b->request.method = METHOD_OPTIONS;
    headers_add(&b->request.headers, &b->arena, STR("access-control-request-method"), str_of(method));
    if (headers)
        headers_add(&b->request.headers, &b->arena, STR("access-control-request-headers"), str_of(headers));
}

// "Name: value|…" without the names' common beginning.
static const char *told(struct bench *b)
{
    policy_cors.on_response(&b->call);
    struct str out = STR("");
    const struct headers *headers = &b->response.headers;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct str name = headers->v[i].name, prefix = STR("Access-Control-");
        if (headers->v[i].id == HEADER_GONE)
            continue;
        if (str_starts(name, prefix))
            name = str_skip(name, prefix.n);
        out = arena_printf(&b->arena, "%.*s%.*s: %.*s|", STR_ARG(out), STR_ARG(name),
                           STR_ARG(headers->v[i].value));
    }
    return arena_printf(&b->arena, "%.*s", STR_ARG(out)).p;
}

static void close_bench(struct bench *b)
{
    arena_reset(&b->arena);
}

static void test_origins(void **state)
{
    (void)state;
    static const struct {
        const char *origins, *origin;
        bool allowed;
    } rows[] = {
        {"https://a.example", "https://a.example", true},
        {"https://b.example,https://a.example", "https://a.example", true},
        {"https://a.example:8443", "https://a.example:8443", true},
        {"https://a.example", "https://a.example:8443", false},
        {"https://a.example", "http://a.example", false},
        {"https://a.example", "https://a.example.evil.example", false},
        {"https://a.example", "https://a.exampl", false},
        {"https://a.example", "https://A.example", false},
        {"https://a.example", "https://a.example/", false},
        {"https://a.example", "https://evil.example https://a.example", false},
        {"https://a.example", "", false},
        {"https://a.example", NULL, false},
        {"https://a.example", "null", false},
        {"null", "null", true},
        {"https://*.example.com", "https://a.example.com", true},
        {"https://*.example.com", "https://a.b-c.example.com", true},
        {"https://*.example.com", "https://example.com", false},
        {"https://*.example.com", "https://.example.com", false},
        {"https://*.example.com", "https://..example.com", false},
        {"https://*.example.com", "https://a..example.com", false},
        {"https://*.example.com", "https://a.example.com:8443", false},
        {"https://*.example.com", "http://a.example.com", false},
        {"https://*.example.com", "https://evil.example/.example.com", false},
        {"https://*.example.com", "https://evil.example:1.example.com", false},
        {"https://*.example.com", "https://me@evil.example.com", false},
        {"https://*.example.com", "https://aexample.com", false},
        {"https://*.example.com", "null", false},
        {"https://*.example.com:8443", "https://a.example.com:8443", true},
        {"https://*.example.com:8443", "https://a.example.com", false},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct bench b;
        open_bench(&b, rows[i].origins, rows[i].origin);
        struct str expected = STR("Vary: Origin|");
        if (rows[i].allowed)
            expected = arena_printf(&b.arena, "Vary: Origin|Allow-Origin: %s|", rows[i].origin);
        assert_int_equal(policy_cors.on_request(&b.call), PASS);
        if (!str_eq(str_of(told(&b)), expected))
            fail_msg("%s of %s", rows[i].origin, rows[i].origins);
        close_bench(&b);
    }
}

static void test_everybody(void **state)
{
    (void)state;
    static const char *const origins[] = {"https://a.example", "null", NULL};
    for (size_t i = 0; i < countof(origins); i++) {
        struct bench b;
        open_bench(&b, "*", origins[i]);
        assert_string_equal(told(&b), "Allow-Origin: *|"); // one answer for all: no Vary
        close_bench(&b);
    }
}

static void test_what_scripts_may_read(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, "https://a.example", "https://a.example");
    b.cors.credentials = true;
    b.cors.expose = list_of(&b.arena, "X-Request-Id,ETag");
    assert_string_equal(told(&b), "Vary: Origin|Allow-Origin: https://a.example|Allow-Credentials: true|"
                                  "Expose-Headers: X-Request-Id, ETag|");
    close_bench(&b);
    open_bench(&b, "https://a.example", "https://b.example");
    b.cors.credentials = true;
    b.cors.expose = list_of(&b.arena, "ETag");
    assert_string_equal(told(&b), "Vary: Origin|");
    close_bench(&b);
}

static void test_what_the_upstream_says_is_replaced(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, "https://a.example", "https://b.example");
    struct headers *headers = &b.response.headers;
    headers_add(headers, &b.arena, STR("access-control-allow-origin"), STR("*"));
    headers_add(headers, &b.arena, STR("Access-Control-Allow-Credentials"), STR("true"));
    headers_add(headers, &b.arena, STR("Access-Control"), STR("kept"));
    headers_add(headers, &b.arena, STR("Vary"), STR("Accept, origin"));
    assert_string_equal(told(&b), "Access-Control: kept|Vary: Accept, origin|");
    close_bench(&b);
    open_bench(&b, "https://a.example", "https://a.example");
    headers_add(&b.response.headers, &b.arena, STR("Vary"), STR("*"));
    assert_string_equal(told(&b), "Vary: *|Allow-Origin: https://a.example|");
    close_bench(&b);
}

// ---- preflights ----

#define ALLOWED "Vary: Origin|Allow-Origin: https://a.example|"
#define LISTED  "Allow-Methods: GET, PUT|Allow-Headers: Authorization, X-One|Max-Age: 600|"

static void test_preflights(void **state)
{
    (void)state;
    static const struct {
        const char *origin, *method, *headers, *told;
    } rows[] = {
        {"https://a.example", "PUT", NULL, ALLOWED LISTED},
        {"https://a.example", "GET", "authorization,x-one", ALLOWED LISTED},
        {"https://a.example", "GET", "", ALLOWED LISTED},
        {"https://a.example", "put", NULL, "Vary: Origin|"}, // methods have case
        {"https://a.example", "DELETE", NULL, "Vary: Origin|"},
        {"https://a.example", "PUT", "authorization,x-two", "Vary: Origin|"},
        {"https://a.example", "PUT", "authorization x-one", "Vary: Origin|"},
        {"https://b.example", "PUT", NULL, "Vary: Origin|"},
        {"null", "PUT", NULL, "Vary: Origin|"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct bench b;
        open_bench(&b, "https://a.example", rows[i].origin);
        ask_beforehand(&b, rows[i].method, rows[i].headers);
        assert_int_equal(policy_cors.on_request(&b.call), REPLY);
        assert_int_equal(b.call.answer.status, 204);
        assert_string_equal(told(&b), rows[i].told);
        close_bench(&b);
    }
}

static void test_preflights_for_all(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, "https://a.example", "https://a.example");
    b.cors.methods = b.cors.headers = list_of(&b.arena, "*");
    b.cors.credentials = true;
    ask_beforehand(&b, "PURGE", "authorization,x-two");
    assert_string_equal(told(&b), ALLOWED "Allow-Credentials: true|Allow-Methods: PURGE|"
                                          "Allow-Headers: authorization,x-two|Max-Age: 600|");
    close_bench(&b);
    open_bench(&b, "*", "https://a.example");
    b.cors.headers = list_of(&b.arena, "");
    ask_beforehand(&b, "GET", NULL);
    assert_string_equal(told(&b), "Allow-Origin: *|Allow-Methods: GET, PUT|Max-Age: 600|");
    close_bench(&b);
}

static void test_other_options(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, "https://a.example", "https://a.example"); // asks about nothing
    b.request.method = METHOD_OPTIONS;
    assert_int_equal(policy_cors.on_request(&b.call), PASS);
    close_bench(&b);
    open_bench(&b, "https://a.example", NULL); // of no origin
    ask_beforehand(&b, "PUT", NULL);
    assert_int_equal(policy_cors.on_request(&b.call), PASS);
    close_bench(&b);
    open_bench(&b, "https://a.example", "https://a.example"); // about no method
    ask_beforehand(&b, "P T", NULL);
    assert_int_equal(policy_cors.on_request(&b.call), PASS);
    close_bench(&b);
    open_bench(&b, "https://a.example", "https://a.example"); // another method
    ask_beforehand(&b, "PUT", NULL);
    b.request.method = METHOD_POST;
    assert_int_equal(policy_cors.on_request(&b.call), PASS);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_everybody),
        cmocka_unit_test(test_what_scripts_may_read),
        cmocka_unit_test(test_what_the_upstream_says_is_replaced),
        cmocka_unit_test(test_preflights),
        cmocka_unit_test(test_preflights_for_all),
        cmocka_unit_test(test_other_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
