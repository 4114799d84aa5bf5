// Limits in a real Redis, as the workers of several gateways see them: each "gateway" here has a table,
// purses, a connection and a clock of its own.
#pragma once

#include "test_redis_fixture.h"

#include "test_limit_fixture.h"

#include "base/rand.h"
#include "limit/redis_store.h"

enum { SECOND = 1000000, GATEWAYS = 3, HASTE_US = 1000000 };

struct member { // a gateway with one worker
    struct limit_table *table;
    struct purses *purses;
    struct limits limits;
    struct limit_worker *worker;
    struct rand rand;
    int64_t ahead_s; // its clock shows so much more
    bool woken;
};

static struct redis_bench bench;
static bool is_here;
static struct limit_gateways *gateways;
static struct fixture *fixture;
static struct member members[GATEWAYS];

static inline void wake(void *context, struct ticket ticket)
{
    assert_int_equal(ticket.slot, 7);
    ((struct member *)context)->woken = true;
}

static inline int open_all(void **state)
{
    struct err err;
    set_up(state);
    fixture = *state;
    is_here = redis_bench_open(&bench);
    if (!is_here)
        return 0;
    gateways = limit_gateways_new(
        &(struct redis_access){.loop = &bench.loop, .settings = &bench.settings, .metrics = bench.metrics},
        &err);
    assert_non_null(gateways);
    for (unsigned i = 0; i < GATEWAYS; i++) {
        struct member *member = &members[i];
        rand_init_seed(&member->rand, i);
        member->table = limit_table_new(1 << 20);
        member->purses = purses_new(1024);
        member->worker = limit_worker_new(&(struct limit_worker_needs){.loop = &bench.loop,
                                                                       .metrics = bench.metrics,
                                                                       .rand = &member->rand,
                                                                       .context = member,
                                                                       .wake = wake});
    }
    return 0;
}

static inline int close_all(void **state)
{
    if (is_here) {
        for (unsigned i = 0; i < GATEWAYS; i++) {
            limit_worker_free(members[i].worker);
            limit_table_free(members[i].table);
            purses_free(members[i].purses);
        }
        limit_gateways_free(gateways);
        redis_bench_close(&bench);
    }
    return tear_down(state);
}

static inline bool begin_with(const char *yaml)
{
    if (!is_here)
        return false;
    struct root *root = arena_new(&fixture->arena, struct root);
    struct str text = arena_printf(&fixture->arena, "rate_limits: %s", yaml);
    const struct config_node *node = config_parse(STR("t"), text, &fixture->arena, &fixture->report);
    config_decode(&root_object, node, root, STR("t"), &fixture->arena, &fixture->report);
    assert_string_equal(take_report(fixture), "");
    for (unsigned i = 0; i < GATEWAYS; i++) {
        struct member *member = &members[i];
        limits_compile(&member->limits, &root->limits, &bench.settings, member->table, &fixture->arena);
        member->limits.purses = member->purses;
        limit_worker_update(member->worker, &member->limits);
    }
    return true;
}

// For tests in which Redis is late.
static inline bool begin_in_haste(const char *yaml)
{
    uint64_t deadline_us = bench.settings.deadline_us;
    bench.settings.deadline_us = HASTE_US;
    bool is_begun = begin_with(yaml);
    bench.settings.deadline_us = deadline_us;
    return is_begun;
}

// ---- one request ----

struct request {
    struct limit_asking asking;
    struct limit_use uses[LIMITS_PER_ROUTE * LIMIT_USES];
};

// names: of limits, in the order of a route.
static inline void ask_as(struct member *member, struct request *request, const struct identity *identity,
                          const char *const *names)
{
    static const struct headers nothing;
    struct limit_caller caller = {.identity = identity,
                                  .headers = &nothing,
                                  .route = STR("r"),
                                  .now_s = (int64_t)(clock_wall_us() / SECOND) + member->ahead_s,
                                  .now_us = bench.loop.now_us,
                                  .shared_seed = limit_worker_seed(member->worker)};
    *request = (struct request){0};
    uint32_t count = 0;
    for (; *names; names++)
        count += limit_ask(limit_named(&member->limits, str_of(*names)), &caller, &request->uses[count]);
    request->asking = (struct limit_asking){.table = member->table,
                                            .uses = request->uses,
                                            .count = count,
                                            .now_s = caller.now_s,
                                            .is_keyed = caller.shared_seed,
                                            .ticket = {.slot = 7, .generation = 1}};
}

static inline void ask(struct member *member, struct request *request, struct str who,
                       const char *const *names)
{
    ask_as(member, request, &(struct identity){.consumer = who}, names);
}

static inline enum limit_result decide(struct member *member, struct request *request, bool *has_waited)
{
    enum limit_result result = limit_decide(member->worker, &request->asking, bench.loop.now_us);
    *has_waited = result == LIMIT_WAIT;
    while (result == LIMIT_WAIT) {
        member->woken = false;
        redis_turn_until(&bench, &member->woken);
        result = limit_decide(member->worker, &request->asking, bench.loop.now_us);
    }
    return result;
}

static inline enum limit_result take_of(struct member *member, struct str who, const char *const *names,
                                        struct request *request, bool *has_waited)
{
    ask(member, request, who, names);
    return decide(member, request, has_waited);
}

static inline enum limit_result take(struct member *member, const char *who, const char *name)
{
    struct request request;
    bool has_waited;
    return take_of(member, str_of(who), (const char *const[]){name, NULL}, &request, &has_waited);
}

static inline void turn_for(uint64_t ms)
{
    for (uint64_t end_us = clock_monotonic_us() + ms * 1000; clock_monotonic_us() < end_us;)
        loop_turn(&bench.loop, 2);
}

// Until Redis decides: connected, the seed known, the script loaded.
static inline void warm_up(const char *name)
{
    for (unsigned i = 0; i < GATEWAYS; i++) {
        uint64_t end_us = clock_monotonic_us() + REDIS_TEST_MS * UINT64_C(1000);
        struct request request;
        bool has_waited = false;
        do {
            loop_turn(&bench.loop, 5);
            struct str who = arena_printf(&fixture->arena, "warm%u", rand_below(&members[i].rand, 1u << 30));
            take_of(&members[i], who, (const char *const[]){name, NULL}, &request, &has_waited);
            assert_true(clock_monotonic_us() < end_us);
        } while (!has_waited || request.asking.has_failed);
    }
}
