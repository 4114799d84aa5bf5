// The policies, each called as the exchange calls it.
#include "policy/policy.h"

#include "policy/policy_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct bench {
    struct arena arena;
    struct request_head request;
    struct response_head response;
    struct rand rand;
    struct ip client;
    struct policy_call call;
};

static void bench_open(struct bench *b, const void *settings)
{
    *b = (struct bench){0};
    arena_init(&b->arena, NULL);
    rand_init_seed(&b->rand, 11);
    b->call = (struct policy_call){.settings = settings,
                                   .request = &b->request,
                                   .response = &b->response,
                                   .arena = &b->arena,
                                   .rand = &b->rand,
                                   .client = &b->client};
}

static void bench_close(struct bench *b)
{
    arena_reset(&b->arena);
}

// ---- ip ----

static struct cidr_set nets(struct arena *arena, const char *const *texts, uint32_t count)
{
    struct cidr *v = arena_array(arena, struct cidr, count + 1);
    for (uint32_t i = 0; i < count; i++)
        assert_true(cidr_parse(str_of(texts[i]), &v[i]));
    return (struct cidr_set){v, count};
}

static void test_ip(void **state)
{
    (void)state;
    static const char *const allow[] = {"10.0.0.0/8", "2001:db8::/32"}, *const deny[] = {"10.1.0.0/16"};
    static const struct {
        const char *client;
        bool allow, deny, passes;
    } rows[] = {
        {"10.2.3.4", true, true, true},    {"10.1.3.4", true, true, false}, // deny wins
        {"192.0.2.1", true, true, false},  {"192.0.2.1", false, true, true},
        {"10.1.3.4", false, true, false},  {"10.1.3.4", true, false, true},
        {"2001:db8::1", true, true, true}, {"2001:db9::1", true, false, false},
        {"192.0.2.1", false, false, true},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct ip_rules rules = {0};
        struct bench b;
        bench_open(&b, &rules);
        if (rows[i].allow)
            rules.allow = nets(&b.arena, allow, countof(allow));
        if (rows[i].deny)
            rules.deny = nets(&b.arena, deny, countof(deny));
        assert_true(ip_parse(str_of(rows[i].client), &b.client));
        enum verdict verdict = policy_ip.on_request(&b.call);
        assert_int_equal(verdict, rows[i].passes ? PASS : FAIL);
        if (verdict == FAIL) {
            assert_int_equal(b.call.cause, END_IP_DENIED);
            assert_int_equal(b.call.answer.status, 0);
            assert_true(b.call.detail.n > 0);
        }
        bench_close(&b);
    }
    assert_null(policy_ip.on_response);
}

// ---- fault ----

static void test_fault_waits_once_then_fails(void **state)
{
    (void)state;
    struct fault_settings fault = {.delay_us = 100500, .delay_ratio = 1, .status = 418, .status_ratio = 1};
    struct bench b;
    bench_open(&b, &fault);
    assert_int_equal(policy_fault.on_request(&b.call), WAIT);
    assert_int_equal(b.call.wait_ms, 101); // never shorter than asked
    b.call.again = true;
    assert_int_equal(policy_fault.on_request(&b.call), FAIL);
    assert_int_equal(b.call.cause, END_FAULT_INJECTED);
    assert_int_equal(b.call.answer.status, 418);
    bench_close(&b);
}

static void test_fault_delay_alone(void **state)
{
    (void)state;
    struct fault_settings fault = {.delay_us = 1, .delay_ratio = 1, .status_ratio = 1};
    struct bench b;
    bench_open(&b, &fault);
    assert_int_equal(policy_fault.on_request(&b.call), WAIT);
    assert_int_equal(b.call.wait_ms, 1);
    b.call.again = true;
    assert_int_equal(policy_fault.on_request(&b.call), PASS);
    bench_close(&b);
}

static void test_fault_never(void **state)
{
    (void)state;
    struct fault_settings fault = {.delay_us = 1000, .status = 503};
    struct bench b;
    bench_open(&b, &fault);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(policy_fault.on_request(&b.call), PASS);
    bench_close(&b);
}

static void test_fault_ratios(void **state)
{
    (void)state;
    enum { CALLS = 100000 };
    struct fault_settings fault = {.delay_us = 1000, .delay_ratio = 0.1, .status = 503, .status_ratio = 0.01};
    struct bench b;
    bench_open(&b, &fault);
    unsigned waits = 0, fails = 0, both = 0;
    for (int i = 0; i < CALLS; i++) {
        b.call.again = false;
        enum verdict verdict = policy_fault.on_request(&b.call);
        bool waited = verdict == WAIT;
        waits += waited;
        b.call.again = true;
        if (waited)
            verdict = policy_fault.on_request(&b.call);
        fails += verdict == FAIL;
        both += waited && verdict == FAIL;
    }
    assert_in_range(waits, CALLS * 9 / 100, CALLS * 11 / 100);
    assert_in_range(fails, CALLS * 8 / 1000, CALLS * 12 / 1000);
    assert_in_range(both, CALLS * 5 / 10000, CALLS * 15 / 10000); // the draws are independent
    bench_close(&b);
}

// ---- headers ----

#define PAIRS(...)                                                                                           \
    {                                                                                                        \
        (struct str_pair[]){__VA_ARGS__}, sizeof((struct str_pair[]){__VA_ARGS__}) / sizeof(struct str_pair) \
    }
#define NAMES(...)                                                                            \
    {                                                                                         \
        (struct str[]){__VA_ARGS__}, sizeof((struct str[]){__VA_ARGS__}) / sizeof(struct str) \
    }

// "Name: value|…" of what is left.
static const char *printed(struct bench *b, const struct headers *headers)
{
    struct str out = STR("");
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->v[i].id != HEADER_GONE)
            out = arena_printf(&b->arena, "%.*s%.*s: %.*s|", STR_ARG(out), STR_ARG(headers->v[i].name),
                               STR_ARG(headers->v[i].value));
    return arena_copy(&b->arena, out).p;
}

static void test_headers_of_request(void **state)
{
    (void)state;
    struct header_rules rules = {
        .request = {
            .set = PAIRS({STR("X-Set"), STR("mine")}, {STR("X-Both"), STR("set")}),
            .add = PAIRS({STR("X-Add"), STR("2")}, {STR("X-Gone"), STR("mine")}, {STR("X-Both"), STR("add")}),
            .remove = NAMES(STR("x-gone"), STR("Cookie"), STR("X-Nobody"))}};
    struct bench b;
    bench_open(&b, &rules);
    struct headers *headers = &b.request.headers;
    headers_add(headers, &b.arena, STR("Accept"), STR("*/*"));
    headers_add(headers, &b.arena, STR("X-Set"), STR("1"));
    headers_add(headers, &b.arena, STR("x-set"), STR("2"));
    headers_add(headers, &b.arena, STR("X-Add"), STR("1"));
    headers_add(headers, &b.arena, STR("X-Gone"), STR("theirs"));
    headers_add(headers, &b.arena, STR("cookie"), STR("a"));
    assert_int_equal(policy_headers.on_request(&b.call), PASS);
    assert_string_equal(printed(&b, headers),
                        "Accept: */*|X-Add: 1|X-Set: mine|X-Both: set|X-Add: 2|X-Gone: mine|X-Both: add|");
    assert_int_equal(b.response.headers.count, 0);
    bench_close(&b);
}

static void test_headers_of_response(void **state)
{
    (void)state;
    struct header_rules rules = {.response = {.set = PAIRS({STR("Cache-Control"), STR("no-store")}),
                                              .add = PAIRS({STR("X-Frame-Options"), STR("DENY")}),
                                              .remove = NAMES(STR("Server"))}};
    struct bench b;
    bench_open(&b, &rules);
    headers_add(&b.response.headers, &b.arena, STR("Server"), STR("x"));
    headers_add(&b.response.headers, &b.arena, STR("cache-control"), STR("public"));
    assert_int_equal(policy_headers.on_request(&b.call), PASS);
    policy_headers.on_response(&b.call);
    assert_string_equal(printed(&b, &b.response.headers), "Cache-Control: no-store|X-Frame-Options: DENY|");
    assert_int_equal(b.request.headers.count, 0);
    bench_close(&b);
}

static void test_headers_leave_framing_alone(void **state)
{
    (void)state;
    struct header_rules rules = {.response = {.set = PAIRS({STR("Transfer-Encoding"), STR("chunked")},
                                                           {STR("Content-Length"), STR("0")}),
                                              .add = PAIRS({STR("connection"), STR("x")}),
                                              .remove = NAMES(STR("CONTENT-LENGTH"))}};
    struct bench b;
    bench_open(&b, &rules);
    headers_add(&b.response.headers, &b.arena, STR("Content-Length"), STR("12"));
    policy_headers.on_response(&b.call);
    assert_string_equal(printed(&b, &b.response.headers), "Content-Length: 12|");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ip),
        cmocka_unit_test(test_fault_waits_once_then_fails),
        cmocka_unit_test(test_fault_delay_alone),
        cmocka_unit_test(test_fault_never),
        cmocka_unit_test(test_fault_ratios),
        cmocka_unit_test(test_headers_of_request),
        cmocka_unit_test(test_headers_of_response),
        cmocka_unit_test(test_headers_leave_framing_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
