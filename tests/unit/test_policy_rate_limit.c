// The policy between the limits and the exchange: the words, and what a request with limits costs.
#include "test_config_fixture.h"

#include "http/head.h"
#include "policy/policy.h"

#include <time.h>

#define NOW UINT64_C(86400000000)

// A configuration's limits by hand, and one route that has all of them.
struct bench {
    struct fixture *fixture;
    struct limit_settings settings[2];
    struct limits limits;
    struct route_limit_stage stage;
    struct metrics *metrics;
    struct identity identity;
    struct arena arena; // of one exchange
    struct request_head request;
    struct response_head response;
    struct ip client;
    struct policy_call call;
};

static void bench_open(struct bench *b, struct fixture *fixture, uint32_t count, int64_t in_flight)
{
    static struct str names[] = {STR("per_consumer"), STR("all")};
    static const uint32_t indices[] = {0, 1};
    *b = (struct bench){.fixture = fixture, .identity = {.consumer = STR("acme")}};
    for (uint32_t i = 0; i < 2; i++)
        b->settings[i] = (struct limit_settings){
            .name = names[i],
            .key = {{{i ? LIMIT_GLOBAL : LIMIT_IDENTITY, STR_NULL}}, 1},
            .otherwise = {.rate = {i ? 1000000 : 1, 1000000},
                          .burst = i ? 1000000 : 10,
                          .in_flight = in_flight},
            .cost = {.tokens = 1},
            .ipv6_prefix = 64,
        };
    struct config_list list = {b->settings, 2};
    limits_compile(&b->limits, &list, NULL, limit_table_new(1 << 20), &fixture->arena);
    b->stage = (struct route_limit_stage){
        .stage = LIMIT_AFTER_AUTH, .indices = indices, .count = count, .route = STR("r")};
    b->metrics = metrics_new();
    arena_init(&b->arena, NULL);
    assert_true(ip_parse(STR("192.0.2.1"), &b->client));
}

static void bench_close(struct bench *b)
{
    metrics_free(b->metrics);
    arena_reset(&b->arena);
    limit_table_free(b->limits.table);
}

static enum verdict ask(struct bench *b, uint64_t now_us)
{
    arena_reset(&b->arena);
    b->request.headers = (struct headers){0};
    b->response.headers = (struct headers){0};
    b->call = (struct policy_call){.settings = &b->stage,
                                   .request = &b->request,
                                   .response = &b->response,
                                   .arena = &b->arena,
                                   .now_us = now_us,
                                   .client = &b->client,
                                   .identity = &b->identity,
                                   .limits = &b->limits,
                                   .metrics = b->metrics};
    return policy_rate_limit.on_request(&b->call);
}

static void assert_told(struct bench *b, const char *name, const char *value)
{
    const struct header *header = headers_find_name(&b->response.headers, str_of(name));
    assert_non_null(header);
    assert_int_equal(header->value.n, strlen(value));
    assert_memory_equal(header->value.p, value, header->value.n);
}

static void test_words(void **state)
{
    struct bench b;
    bench_open(&b, *state, 2, 0);
    b.limits.legacy = true;
    assert_int_equal(ask(&b, NOW), PASS);
    policy_rate_limit.on_response(&b.call);
    assert_told(&b, "RateLimit-Policy", "\"per_consumer\";q=10;w=10, \"all\";q=1000000;w=1");
    assert_told(&b, "RateLimit", "\"per_consumer\";r=9;t=1, \"all\";r=999999;t=1");
    assert_told(&b, "X-RateLimit-Limit", "10");
    assert_told(&b, "X-RateLimit-Remaining", "9");
    assert_told(&b, "X-RateLimit-Reset", "1");
    for (int i = 0; i < 9; i++)
        assert_int_equal(ask(&b, NOW), PASS);
    assert_int_equal(ask(&b, NOW + 250000), FAIL);
    assert_int_equal(b.call.cause, END_RATE_LIMITED);
    assert_string_equal(b.call.detail.p, "the limit per_consumer is used up; try again in 0.750 s");
    assert_true(str_eq(headers_value(&b.call.answer.headers, HEADER_RETRY_AFTER), STR("1")));
    policy_rate_limit.on_answer(&b.call);
    assert_told(&b, "RateLimit", "\"per_consumer\";r=0;t=10, \"all\";r=1000000;t=0");
    bench_close(&b);
}

static uint32_t under_way(struct bench *b)
{
    static const struct limit_words words = {{STR("consumer:acme")}, 1, STR_NULL};
    struct hash128 key;
    const char *why;
    assert_true(limit_key_of_words(&b->limits.v[0], &words, &key, &why));
    return flight_count(key);
}

// Whether a second request, or a bucket, refuses: nothing is held, and nothing is charged, for who is
// refused.
static void test_requests_under_way(void **state)
{
    struct bench b;
    bench_open(&b, *state, 2, 1);
    struct arena first_arena;
    arena_init(&first_arena, NULL);
    assert_int_equal(ask(&b, NOW), PASS);
    assert_int_equal(under_way(&b), 1);
    struct policy_call first = b.call;
    struct arena kept = b.arena;
    b.arena = first_arena;
    assert_int_equal(ask(&b, NOW), FAIL);
    assert_int_equal(b.call.cause, END_RATE_LIMITED);
    assert_string_equal(b.call.detail.p, "the limit per_consumer allows 1 at once; try again in 1 s");
    policy_rate_limit.on_answer(&b.call);
    assert_told(&b, "RateLimit", "\"per_consumer\";r=9;t=1, \"all\";r=999999;t=1");
    policy_rate_limit.on_end(&b.call); // of who was refused: it holds nothing
    assert_int_equal(under_way(&b), 1);
    policy_rate_limit.on_end(&first);
    assert_int_equal(under_way(&b), 0);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(ask(&b, NOW), PASS);
        policy_rate_limit.on_end(&b.call);
    }
    assert_int_equal(ask(&b, NOW), FAIL); // the bucket
    assert_string_equal(b.call.detail.p, "the limit per_consumer is used up; try again in 1.000 s");
    assert_int_equal(under_way(&b), 0);
    arena_reset(&kept);
    bench_close(&b);
}

// An answer before the limits were reached: somebody without credentials, for example.
static void test_an_answer_before_it(void **state)
{
    struct bench b;
    bench_open(&b, *state, 1, 0);
    ask(&b, NOW);
    b.call.limited[LIMIT_AFTER_AUTH] = NULL;
    policy_rate_limit.on_answer(&b.call);
    assert_int_equal(b.response.headers.count, 0);
    bench_close(&b);
}

// Two stages of one request: each charges its own, both are told in one list.
static void test_stages(void **state)
{
    struct bench b;
    bench_open(&b, *state, 2, 0);
    b.limits.legacy = true;
    struct route_limit_stage late = b.stage, early = b.stage;
    early.stage = LIMIT_BEFORE_AUTH;
    early.count = late.count = 1;
    late.indices++;
    b.stage = early;
    assert_int_equal(ask(&b, NOW), PASS);
    b.call.settings = &late;
    assert_int_equal(policy_rate_limit.on_request(&b.call), PASS);
    for (int i = 0; i < 2; i++) {
        b.call.settings = i ? &late : &early;
        policy_rate_limit.on_response(&b.call);
    }
    assert_told(&b, "RateLimit", "\"per_consumer\";r=9;t=1, \"all\";r=999999;t=1");
    assert_told(&b, "X-RateLimit-Remaining", "9");
    bench_close(&b);
}

static uint64_t cpu_us(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000 + (uint64_t)spent.tv_nsec / 1000;
}

static void test_what_it_costs(void **state)
{
    enum { REQUESTS = 50000 };
    for (uint32_t count = 1; count <= 2; count++)
        for (int in_flight = 0; in_flight <= 5; in_flight += 5) {
            struct bench b;
            struct arena_spares spares = {.max = 4};
            bench_open(&b, *state, count, in_flight);
            b.arena.spares = &spares; // as a worker's exchanges: the heap is not asked
            uint64_t spent[3], began = cpu_us();
            for (uint64_t i = 0; i < REQUESTS; i++) {
                ask(&b, NOW + i * 1000000);
                policy_rate_limit.on_end(&b.call);
            }
            spent[0] = cpu_us() - began;
            began = cpu_us();
            for (uint64_t i = 0; i < REQUESTS; i++) {
                ask(&b, NOW + i * 1000000);
                policy_rate_limit.on_response(&b.call);
                policy_rate_limit.on_end(&b.call);
            }
            spent[1] = cpu_us() - began - spent[0];
            print_message("%u limits%s: %.0f ns for the verdict, %.0f ns for the headers\n", count,
                          in_flight ? ", with in_flight" : "", (double)spent[0] * 1000 / REQUESTS,
                          (double)spent[1] * 1000 / REQUESTS);
            bench_close(&b);
            arena_spares_fini(&spares);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_requests_under_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_answer_before_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_it_costs, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
