// The script in a real Redis against bucket.c and window.c: the same states and the same verdicts, to the
// last part of a microsecond. Its clock is the test's here, and nothing expires.
#include "test_redis_fixture.h"

#include "base/rand.h"
#include "limit/script.h"

enum { SECOND = 1000000, KEYS = 4, ROUNDS = 4000 };

#define BEGAN_S INT64_C(1796000000)  // Unix time, in Redis
#define OFFSET  UINT64_C(1795900000) // of the model's clock, in seconds: as if the machine ran for a day

static struct redis_bench bench;
static bool is_here;
static struct str text; // of the script, with the test's clock

static struct str replaced(struct str in, const char *what, const char *by)
{
    const char *at = strstr(in.p, what);
    assert_non_null(at);
    struct str before = str_range(in.p, at), after = str_skip(in, before.n + strlen(what));
    return arena_printf(&bench.arena, "%.*s%s%.*s", STR_ARG(before), by, STR_ARG(after));
}

static int open_all(void **state)
{
    (void)state;
    is_here = redis_bench_open(&bench);
    if (!is_here)
        return 0;
    text = replaced(limit_script_text(), "redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
    text = replaced(text, "string.format('%.0f', ms)", "'100000000'");
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    if (is_here)
        redis_bench_close(&bench);
    return 0;
}

static const struct resp_value *run(enum limit_verb verb, const struct limit_query *queries, uint32_t count,
                                    int64_t gateway_s, uint64_t redis_us)
{
    struct str *argv, all[LIMIT_SCRIPT_HEAD + KEYS * LIMIT_SCRIPT_ARGUMENTS + 2];
    unsigned argc = limit_script_command(verb, queries, count, gateway_s, &bench.arena, &argv);
    assert_true(argc + 2 <= countof(all));
    memcpy(all, argv, argc * sizeof *argv);
    all[0] = STR("EVAL");
    all[1] = text;
    all[argc] = arena_printf(&bench.arena, "%llu", (unsigned long long)(redis_us / SECOND));
    all[argc + 1] = arena_printf(&bench.arena, "%llu", (unsigned long long)(redis_us % SECOND));
    const struct resp_value *reply = redis_do(&bench, all, argc + 2);
    if (reply->kind == RESP_ERROR)
        fail_msg("%.*s", STR_ARG(reply->text));
    return reply;
}

// ---- one model of all ----

struct model {
    struct limit_query queries[KEYS];
    uint64_t states[KEYS];
};

static struct limit_rule random_bucket(struct rand *rand, uint64_t *cost)
{
    static const uint64_t periods[] = {SECOND, 60 * (uint64_t)SECOND, 3600 * (uint64_t)SECOND,
                                       86400 * (uint64_t)SECOND};
    struct limit_rule rule = {0};
    uint64_t period, tokens, burst;
    do {
        period = periods[rand_below(rand, countof(periods))];
        tokens = 1 + rand_below(rand, rand_below(rand, 2) ? 50 : 1000000);
        burst = 1 + rand_below(rand, rand_below(rand, 2) ? 20 : 1000000);
    } while (!bucket_compile(&rule.bucket, tokens, period, burst, rand_below(rand, 2)));
    *cost =
        rand_below(rand, 4) ? 1 + rand_below(rand, (uint32_t)burst) : rand_below(rand, 3 * (uint32_t)burst);
    return rule;
}

static struct limit_rule random_window(struct rand *rand, uint64_t *cost)
{
    struct limit_rule rule = {.is_window = true};
    window_at(&rule.window, (enum window_unit)rand_below(rand, WINDOW_UNITS), NULL, 1 + rand_below(rand, 100),
              BEGAN_S, 0);
    *cost = rand_below(rand, 30);
    return rule;
}

// The same window by the model's clock.
static void move_window(struct limit_rule *rule, uint64_t redis_us, uint64_t now_us)
{
    static const uint64_t lengths[] = {60, 3600, 86400};
    unsigned unit = WINDOW_MONTH;
    for (unsigned i = 0; i < countof(lengths); i++)
        if (rule->window.length_us == lengths[i] * SECOND)
            unit = i;
    window_at(&rule->window, (enum window_unit)unit, NULL, rule->window.tokens, (int64_t)(redis_us / SECOND),
              now_us);
    rule->window.end_us -= redis_us % SECOND;
}

static uint64_t seen(const struct limit_query *query, uint64_t state, uint64_t now_us)
{
    uint64_t parts = query->rule.bucket.parts, over = state & (BUCKET_PARTS - 1);
    if (over >= parts)
        over = parts - 1;
    state = state >> BUCKET_PART_BITS << BUCKET_PART_BITS | over;
    uint64_t now = now_us << BUCKET_PART_BITS;
    return state > now ? state : now;
}

static void expect(const struct limit_query *query, uint64_t state, uint64_t wait_us,
                   const struct limit_told *told, uint64_t now_us)
{
    assert_int_equal(told->wait_us, wait_us);
    if (query->rule.is_window) {
        assert_int_equal(told->rule.window.end_us, query->rule.window.end_us);
        assert_int_equal(window_remaining(&told->rule.window, told->state),
                         window_remaining(&query->rule.window, state));
    } else {
        assert_int_equal(told->state, seen(query, state, now_us));
    }
}

static void ask_extras(struct limit_query *query, struct rand *rand)
{
    uint32_t most = 1 + rand_below(rand, (uint32_t)rule_tokens(&query->rule));
    query->extra_count = rand_below(rand, LIMIT_EXTRAS + 1);
    for (uint32_t i = 0; i < query->extra_count; i++)
        query->extras[i] = most / (1u << i);
}

// The first of which as much is left afterwards.
static uint32_t expected_extra(const struct limit_query *query, uint64_t *state, uint64_t now_us)
{
    for (uint32_t i = 0; i < query->extra_count; i++) {
        if (rule_wait_us(&query->rule, *state, now_us, 2 * (uint64_t)query->extras[i]))
            continue;
        *state = rule_charge(&query->rule, *state, now_us, query->extras[i]);
        return query->extras[i];
    }
    return 0;
}

static void step(struct model *model, struct rand *rand, uint32_t count, uint64_t redis_us)
{
    uint64_t now_us = redis_us - OFFSET * SECOND, waits[KEYS];
    enum limit_verb verb = (enum limit_verb)(rand_below(rand, 3) ? rand_below(rand, 2) * LIMIT_LEASE
                                                                 : rand_below(rand, LIMIT_LEASE));
    bool passes = true, told_passes;
    for (uint32_t i = 0; i < count; i++) {
        struct limit_query *query = &model->queries[i];
        if (query->rule.is_window)
            move_window(&query->rule, redis_us, now_us);
        else if (!rand_below(rand, 20))
            query->rule = random_bucket(rand, &query->cost); // the limit has changed
        ask_extras(query, rand);
        uint64_t settled = rule_settle(&query->rule, model->states[i], now_us);
        waits[i] = rule_wait_us(&query->rule, settled, now_us, query->cost);
        passes &= !waits[i] || query->is_shadow;
        if (verb != LIMIT_LOOK)
            model->states[i] = settled;
    }
    // A gateway's clock may be wrong, by weeks when nothing but a month's bounds are asked of it.
    int64_t gateway_s = (int64_t)(redis_us / SECOND) + (int64_t)rand_below(rand, 40 * 86400) - 20 * 86400;
    struct limit_told told[KEYS];
    const struct resp_value *reply = run(verb, model->queries, count, gateway_s, redis_us);
    assert_true(limit_script_read(reply, model->queries, count, now_us, &told_passes, told));
    assert_int_equal(told_passes, passes);
    for (uint32_t i = 0; i < count; i++) {
        struct limit_query *query = &model->queries[i];
        uint64_t *state = &model->states[i], shown = rule_settle(&query->rule, *state, now_us);
        bool takes = verb == LIMIT_TAKE || verb == LIMIT_LEASE;
        uint32_t extra = 0;
        if (verb == LIMIT_CHARGE || (takes && passes && !waits[i]))
            *state = rule_charge(&query->rule, *state, now_us, query->cost);
        if (verb == LIMIT_LEASE && passes && !waits[i])
            extra = expected_extra(query, state, now_us);
        assert_int_equal(told[i].extra, extra);
        if (verb == LIMIT_CHARGE || (takes && passes && !waits[i]))
            shown = *state;
        else if (verb == LIMIT_GIVE)
            shown = *state = rule_give(&query->rule, *state, query->cost);
        if (waits[i] && (verb == LIMIT_CHARGE || verb == LIMIT_GIVE)) { // it is told of what is there then
            uint64_t wait_us = rule_wait_us(&query->rule, shown, now_us, query->cost);
            waits[i] = wait_us ? wait_us : 1;
        }
        expect(query, shown, waits[i], &told[i], now_us);
    }
}

static void test_the_same_as_in_this_process(void **state)
{
    (void)state;
    if (!is_here)
        skip();
    struct rand rand;
    struct model model = {0};
    uint64_t redis_us = 0;
    rand_init_seed(&rand, 7);
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (i % 100 == 0) {
            redis_us = BEGAN_S * SECOND; // a state holds seventeen years
            for (uint32_t k = 0; k < KEYS; k++) {
                struct limit_query *query = &model.queries[k];
                query->key = arena_printf(&bench.arena, "test:%u:%u", i, k);
                query->is_shadow = !rand_below(&rand, 4);
                query->rule = rand_below(&rand, 3) ? random_bucket(&rand, &query->cost)
                                                   : random_window(&rand, &query->cost);
                model.states[k] = 0;
            }
        }
        uint64_t wait_us = rand_below(&rand, 10) ? rand_below(&rand, 1 << rand_below(&rand, 31))
                                                 : rand_below(&rand, 40 * 86400) * (uint64_t)SECOND;
        redis_us += wait_us;
        step(&model, &rand, 1 + rand_below(&rand, KEYS), redis_us);
    }
}

static void test_a_refused_request_takes_nothing(void **state)
{
    (void)state;
    if (!is_here)
        skip();
    struct limit_query queries[2] = {{.key = STR("test:{a}1"), .cost = 1},
                                     {.key = STR("test:{a}2"), .cost = 1}};
    struct limit_told told[2];
    bool passes;
    assert_true(bucket_compile(&queries[0].rule.bucket, 1, 60 * SECOND, 5, false));
    assert_true(bucket_compile(&queries[1].rule.bucket, 1, 60 * SECOND, 2, false));
    for (int i = 0; i < 5; i++) {
        const struct resp_value *reply = run(LIMIT_TAKE, queries, 2, BEGAN_S, BEGAN_S * SECOND);
        assert_true(limit_script_read(reply, queries, 2, 0, &passes, told));
        assert_int_equal(passes, i < 2);
    }
    assert_int_equal(bucket_remaining(&queries[0].rule.bucket, told[0].state, 0), 3);
}

// Over the day of 25 hours, told by gateways whose clocks are wrong by up to half a day.
static void test_days_of_a_time_zone(void **state)
{
    (void)state;
    if (!is_here)
        skip();
    enum { HOURS = 4 * 24, TOKENS = 3, FROM_S = 1792800000 /* 2026-10-24 00:00 */, DAYS = 5 };
    struct time_zone zone;
    const char *why;
    assert_true(time_zone_load(STR("Europe/Berlin"), &bench.arena, &zone, &why));
    struct limit_query query = {.key = STR("test:zone:d"), .cost = 1, .rule.is_window = true};
    struct rand rand;
    struct limit_told told;
    unsigned admitted = 0;
    bool passes;
    rand_init_seed(&rand, 11);
    for (int64_t hour = 0; hour < HOURS; hour++) {
        int64_t now_s = FROM_S + hour * 3600, gateway_s = now_s + (int64_t)rand_below(&rand, 86400) - 43200;
        window_at(&query.rule.window, WINDOW_DAY, &zone, TOKENS, now_s, 0);
        const struct resp_value *reply = run(LIMIT_TAKE, &query, 1, gateway_s, (uint64_t)now_s * SECOND);
        assert_true(limit_script_read(reply, &query, 1, 0, &passes, &told));
        assert_int_equal(told.rule.window.end_us, query.rule.window.end_us);
        admitted += passes;
    }
    assert_int_equal(admitted, DAYS * TOKENS - 2); // of the last one only an hour
}

// Gateways that count days and months by one zone, then by another: counts go on as they do in this process.
static void test_another_time_zone(void **state)
{
    (void)state;
    if (!is_here)
        skip();
    static const struct str names[] = {{"Asia/Tokyo", 10}, {"Europe/Berlin", 13}, {"America/New_York", 16}};
    enum { CHANGES = 400, TOKENS = 20 };
    struct time_zone zones[countof(names)];
    struct limit_query queries[2] = {{.key = STR("test:{zones}d"), .cost = 1, .rule.is_window = true},
                                     {.key = STR("test:{zones}month"), .cost = 1, .rule.is_window = true}};
    static const enum window_unit units[] = {WINDOW_DAY, WINDOW_MONTH};
    struct rand rand;
    const char *why;
    for (unsigned i = 0; i < countof(names); i++)
        assert_true(time_zone_load(names[i], &bench.arena, &zones[i], &why));
    rand_init_seed(&rand, 13);
    uint64_t now_s = BEGAN_S, states[countof(units)] = {0};
    for (unsigned i = 0; i < CHANGES; i++) {
        uint64_t now_us = (now_s - OFFSET) * SECOND;
        const struct time_zone *zone = &zones[rand_below(&rand, countof(zones))];
        for (unsigned k = 0; k < countof(units); k++)
            window_at(&queries[k].rule.window, units[k], zone, TOKENS, (int64_t)now_s, now_us);
        const struct resp_value *reply =
            run(LIMIT_CHARGE, queries, countof(units), (int64_t)now_s, now_s * SECOND);
        struct limit_told told[countof(units)];
        bool passes;
        assert_true(limit_script_read(reply, queries, countof(units), now_us, &passes, told));
        for (unsigned k = 0; k < countof(units); k++) {
            states[k] = window_charge(&queries[k].rule.window, states[k], now_us, queries[k].cost);
            assert_int_equal(window_remaining(&told[k].rule.window, told[k].state),
                             window_remaining(&queries[k].rule.window, states[k]));
        }
        now_s += rand_below(&rand, 4 * 3600);
    }
}

// The real one, as it is: how long keys live.
static void test_keys_go_when_they_say_nothing_any_more(void **state)
{
    (void)state;
    if (!is_here)
        skip();
    struct limit_query queries[2] = {{.key = STR("test:{t}1"), .cost = 1},
                                     {.key = STR("test:{t}2"), .rule.is_window = true, .cost = 1}};
    struct str *argv;
    struct limit_told told[2];
    bool passes;
    assert_true(bucket_compile(&queries[0].rule.bucket, 10, SECOND, 5, false));
    window_at(&queries[1].rule.window, WINDOW_MINUTE, NULL, 10, (int64_t)(clock_wall_us() / SECOND), 0);
    unsigned argc = limit_script_command(LIMIT_TAKE, queries, 2, (int64_t)(clock_wall_us() / SECOND),
                                         &bench.arena, &argv);
    const struct resp_value *reply = redis_do(&bench, argv, argc);
    assert_true(limit_script_is_missing(reply));
    assert_false(limit_script_is_torn(reply));
    limit_script_spell_out(argv);
    reply = redis_do(&bench, argv, argc);
    assert_true(limit_script_read(reply, queries, 2, 0, &passes, told) && passes);
    int64_t ttl_ms = redis_say(&bench, STR("PTTL"), queries[0].key)->integer;
    assert_true(ttl_ms > 80 && ttl_ms <= 101);
    ttl_ms = redis_say(&bench, STR("PTTL"), queries[1].key)->integer;
    assert_in_range(ttl_ms, told[1].rule.window.end_us / 1000 - 100, told[1].rule.window.end_us / 1000 + 2);
    argv[0] = STR("EVALSHA"); // it is known by now, under the name that was computed here
    limit_script_command(LIMIT_TAKE, queries, 2, 0, &bench.arena, &argv);
    assert_int_equal(redis_do(&bench, argv, argc)->kind, RESP_ARRAY);
}

static void test_answers_that_are_none(void **state)
{
    (void)state;
    struct limit_query query = {.cost = 1};
    struct limit_told told;
    bool passes;
    assert_true(bucket_compile(&query.rule.bucket, 1, SECOND, 5, false));
    struct resp_value items[4] = {{.kind = RESP_INTEGER, .integer = 1},
                                  {.kind = RESP_INTEGER},
                                  {.kind = RESP_INTEGER, .integer = 5},
                                  {.kind = RESP_INTEGER}};
    struct resp_value reply = {.kind = RESP_ARRAY, .items = items, .count = 4};
    assert_true(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    reply.count = 3;
    assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    reply.count = 4;
    for (unsigned i = 0; i < 4; i++) {
        struct resp_value good = items[i];
        items[i].integer = -1;
        assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
        items[i].integer = INT64_MAX;
        assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
        items[i].kind = RESP_STRING;
        assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
        items[i] = good;
    }
    // Somebody refuses, but nobody is said to have done so, or the other way round.
    items[0].integer = 0;
    assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    items[1].integer = 1;
    assert_true(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    assert_true(!passes && told.wait_us > 0);
    items[0].integer = 1;
    assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    query.is_shadow = true;
    assert_true(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    query.is_shadow = false;
    items[1].integer = 0;
    // Of a lease, which extra was taken.
    struct resp_value five[5] = {
        items[0], items[1], items[2], items[3], {.kind = RESP_INTEGER, .integer = 2}};
    reply.items = five;
    reply.count = 5;
    query.extra_count = 1;
    query.extras[0] = 70;
    query.extras[1] = 35;
    assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    query.extra_count = 2;
    assert_true(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    assert_int_equal(told.extra, 35);
    five[4].integer = -1;
    assert_false(limit_script_read(&reply, &query, 1, 0, &passes, &told));
    assert_false(limit_script_read(&(struct resp_value){.kind = RESP_ERROR, .text = STR("OOM")}, &query, 1, 0,
                                   &passes, &told));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_as_in_this_process),
        cmocka_unit_test(test_a_refused_request_takes_nothing),
        cmocka_unit_test(test_days_of_a_time_zone),
        cmocka_unit_test(test_another_time_zone),
        cmocka_unit_test(test_keys_go_when_they_say_nothing_any_more),
        cmocka_unit_test(test_answers_that_are_none),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
