#include "test_limit_fixture.h"

#include "limit/limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define NOW UINT64_C(86400000000)
enum { THREADS = 8, SECOND = 1000000 };

struct scene {
    struct fixture *fixture;
    struct root root;
    struct limits limits;
    struct ip client;
    struct headers headers;
    struct identity identity;
    struct limit_caller caller;
};

static struct limit_table *table;

static int end(void **state)
{
    limit_table_free(table);
    return tear_down(state);
}

static struct scene *new_scene(struct fixture *fixture, const char *yaml)
{
    struct scene *scene = arena_new(&fixture->arena, struct scene);
    struct str text = arena_printf(&fixture->arena, "rate_limits: %s", yaml);
    const struct config_node *node = config_parse(STR("t"), text, &fixture->arena, &fixture->report);
    config_decode(&root_object, node, &scene->root, STR("t"), &fixture->arena, &fixture->report);
    assert_string_equal(take_report(fixture), "");
    scene->fixture = fixture;
    limits_compile(&scene->limits, &scene->root.limits, NULL, table = limit_table_new(1 << 20),
                   &fixture->arena);
    assert_true(ip_parse(STR("192.0.2.1"), &scene->client));
    scene->caller =
        (struct limit_caller){.client = &scene->client, .headers = &scene->headers, .route = STR("r")};
    return scene;
}

static struct limit_use asked(struct scene *scene, const char *name)
{
    struct limit_use uses[LIMIT_USES];
    const struct limit *limit = limit_named(&scene->limits, str_of(name));
    assert_non_null(limit);
    limit_ask(limit, &scene->caller, uses);
    return uses[0];
}

static bool same(struct limit_use a, struct limit_use b)
{
    return a.key.lo == b.key.lo && a.key.hi == b.key.hi;
}

static struct limit_use asked_from(struct scene *scene, const char *name, const char *address)
{
    assert_true(ip_parse(str_of(address), &scene->client));
    return asked(scene, name);
}

static void test_who_is_who(void **state)
{
    struct scene *scene = new_scene(*state, "{id: {default: {rate: 1/s}}, other: {default: {rate: 1/s}}}");
    struct limit_use nobody = asked(scene, "id");
    assert_false(same(nobody, asked(scene, "other"))); // each limit has buckets of its own
    scene->caller.identity = &scene->identity;
    assert_true(same(nobody, asked(scene, "id")));
    scene->identity.subject = STR("alice");
    struct limit_use alice = asked(scene, "id");
    assert_false(same(nobody, alice));
    scene->identity.issuer = STR("https://a.example");
    struct limit_use alice_of_a = asked(scene, "id");
    assert_false(same(alice, alice_of_a)); // somebody else's alice
    scene->identity.issuer = STR("https://b.example");
    assert_false(same(alice_of_a, asked(scene, "id")));
    scene->identity.consumer = STR("alice");
    struct limit_use consumer = asked(scene, "id");
    assert_false(same(alice, consumer));
    scene->identity.subject = STR("bob"); // of the same consumer
    assert_true(same(consumer, asked(scene, "id")));
}

static void test_addresses(void **state)
{
    struct scene *scene = new_scene(
        *state, "{a: {key: client_ip, default: {rate: 1/s}}, b: {key: client_ip, ipv6_prefix: 60, default: "
                "{rate: 1/s}}}");
    struct limit_use one = asked_from(scene, "a", "2001:db8:0:1::1");
    assert_true(same(one, asked_from(scene, "a", "2001:db8:0:1:ffff:ffff:ffff:ffff")));
    assert_false(same(one, asked_from(scene, "a", "2001:db8:0:2::1")));
    struct limit_use wide = asked_from(scene, "b", "2001:db8:0:10::1");
    assert_true(same(wide, asked_from(scene, "b", "2001:db8:0:1f::1")));
    assert_false(same(wide, asked_from(scene, "b", "2001:db8:0:20::1")));
    assert_false(same(asked_from(scene, "a", "192.0.2.1"), asked_from(scene, "a", "192.0.2.2")));
}

static void test_parts_are_apart(void **state)
{
    struct scene *scene = new_scene(*state, "{k: {key: [header.a, header.b], default: {rate: 1/s}}}");
    struct arena *arena = &scene->fixture->arena;
    headers_add(&scene->headers, arena, STR("A"), STR("xy"));
    headers_add(&scene->headers, arena, STR("B"), STR("z"));
    struct limit_use one = asked(scene, "k");
    headers_set(&scene->headers, arena, STR("A"), STR("x"));
    headers_set(&scene->headers, arena, STR("B"), STR("yz"));
    assert_false(same(one, asked(scene, "k")));
}

static const char *tier_of(struct scene *scene, const char *name)
{
    struct limit_use use = asked(scene, name);
    uint32_t i = 0;
    while (use.face != &use.limit->tiers[i].face)
        i++;
    return i < use.limit->tier_count ? use.limit->tiers[i].name.p : "default";
}

static void test_tiers(void **state)
{
    struct scene *scene = new_scene(
        *state, "{roles: {tier_by: identity.roles, tiers: {gold: {rate: 3/s}, silver: {rate: 2/s}}, default: "
                "{rate: 1/s}},"
                " claim: {tier_by: jwt.plan, tiers: {gold: {rate: 3/s}}, default: {rate: 1/s}},"
                " consumer: {tier_by: identity.consumer, tiers: {acme: {rate: 3/s}}, default: {rate: 1/s}}}");
    static const char *names[] = {"roles", "claim", "consumer"};
    for (int i = 0; i < 3; i++)
        assert_string_equal(tier_of(scene, names[i]), "default");
    struct str roles[] = {STR("reader"), STR("silver"), STR("gold")};
    struct str_pair plan = {STR("plan"), STR("trial, gold")};
    scene->caller.identity = &scene->identity;
    scene->identity.consumer = STR("acme");
    scene->identity.claims = &plan;
    scene->identity.claim_count = 1;
    scene->identity.roles = (struct str_list){roles, 2};
    assert_string_equal(tier_of(scene, "roles"), "silver");
    scene->identity.roles.count = 3; // the first of the tiers, not of the roles
    assert_string_equal(tier_of(scene, "roles"), "gold");
    assert_string_equal(tier_of(scene, "claim"), "gold");
    assert_string_equal(tier_of(scene, "consumer"), "acme");
    plan.value = STR("golden");
    scene->identity.consumer = STR("acme2");
    assert_string_equal(tier_of(scene, "claim"), "default");
    assert_string_equal(tier_of(scene, "consumer"), "default");
    assert_int_equal(scene->limits.claims.count, 1);
}

// What the admin API is asked with finds the bucket of the request.
static void test_words(void **state)
{
    struct scene *scene = new_scene(
        *state,
        "{k: {key: [identity, header.t, client_ip, route], default: {rate: 1/s}}, g: {key: global, default: "
        "{rate: 1/s}}}");
    struct arena *arena = &scene->fixture->arena;
    static const struct {
        const char *consumer, *subject, *issuer, *header;
        struct limit_words words;
    } rows[] = {
        {"acme", "x", "", "t1", {{STR("consumer:acme"), STR("t1"), STR("192.0.2.1"), STR("r")}, 4, STR_NULL}},
        {"",
         "al:ice",
         "",
         "t1",
         {{STR("subject:al:ice"), STR("t1"), STR("192.0.2.1"), STR("r")}, 4, STR_NULL}},
        {"",
         "alice",
         "https://i",
         "t1",
         {{STR("subject:alice"), STR("t1"), STR("192.0.2.1"), STR("r")}, 4, STR("https://i")}},
        {"",
         "",
         "",
         "",
         {{STR("client_ip:192.0.2.1"), STR("client_ip:192.0.2.1"), STR("192.0.2.1"), STR("r")}, 4, STR_NULL}},
    };
    const char *why;
    struct limit_use found = {0};
    scene->caller.identity = &scene->identity;
    for (size_t i = 0; i < countof(rows); i++) {
        scene->identity.consumer = str_of(rows[i].consumer);
        scene->identity.subject = str_of(rows[i].subject);
        scene->identity.issuer = str_of(rows[i].issuer);
        headers_set(&scene->headers, arena, STR("T"), str_of(rows[i].header));
        assert_true(limit_key_of_words(&scene->limits.v[0], &rows[i].words, &found.key, &why));
        assert_true(same(asked(scene, "k"), found));
    }
    assert_true(limit_key_of_words(&scene->limits.v[1], &(struct limit_words){0}, &found.key, &why));
    assert_true(same(asked(scene, "g"), found));
    assert_false(limit_key_of_words(&scene->limits.v[0], &(struct limit_words){0}, &found.key, &why));
    assert_false(limit_key_of_words(&scene->limits.v[1], &rows[0].words, &found.key, &why));
}

// ---- verdicts ----

static uint64_t left_of(struct scene *scene, const struct limit_use *use, uint64_t now_us)
{
    uint64_t found = 0;
    limit_table_find(scene->limits.table, use->key, &found);
    return rule_remaining(&use->rule, found, now_us);
}

static void test_all_or_none(void **state)
{
    struct scene *scene = new_scene(
        *state, "{wide: {default: {rate: 1/h, burst: 10}}, narrow: {default: {rate: 1/h, burst: 2}},"
                " shadow: {shadow: true, default: {rate: 1/h, burst: 1}}}");
    struct limit_use uses[] = {asked(scene, "wide"), asked(scene, "narrow"), asked(scene, "shadow")};
    for (int i = 0; i < 2; i++)
        assert_null(limits_take(scene->limits.table, uses, 3, NOW));
    assert_true(uses[2].wait_us > 0); // it would have
    for (int i = 0; i < 5; i++) {
        const struct limit_use *refuser = limits_take(scene->limits.table, uses, 3, NOW);
        assert_ptr_equal(refuser, &uses[1]);
        assert_int_equal(refuser->wait_us, 3600 * UINT64_C(1000000));
    }
    assert_int_equal(left_of(scene, &uses[0], NOW), 8);
    assert_int_equal(left_of(scene, &uses[2], NOW), 0);
}

static void test_the_longest_wait_is_told(void **state)
{
    struct scene *scene =
        new_scene(*state, "{soon: {default: {rate: 1/s, burst: 1}}, late: {default: {rate: 1/h, burst: 1}}}");
    struct limit_use uses[] = {asked(scene, "late"), asked(scene, "soon")};
    assert_null(limits_take(scene->limits.table, uses, 2, NOW));
    assert_ptr_equal(limits_take(scene->limits.table, uses, 2, NOW), &uses[0]);
}

static void test_costs_known_afterwards(void **state)
{
    struct scene *scene = new_scene(*state, "{k: {cost: header.c, default: {rate: 1/h, burst: 10}}}");
    struct limit_use use = asked(scene, "k");
    static const struct {
        uint64_t cost, left;
    } steps[] = {{1, 9}, {0, 9}, {4, 5}, {100, 0}};
    for (size_t i = 0; i < countof(steps); i++) {
        use = asked(scene, "k");
        assert_null(limits_take(scene->limits.table, &use, 1, NOW));
        limit_take_rest(scene->limits.table, &use, steps[i].cost, NOW);
        assert_int_equal(left_of(scene, &use, NOW), steps[i].left);
    }
    use = asked(scene, "k");
    assert_non_null(limits_take(scene->limits.table, &use, 1, NOW));
    assert_int_equal(use.wait_us, 11 * 3600 * UINT64_C(1000000)); // one burst is owed
}

// ---- requests under way ----

static struct limit_flight flying(struct scene *scene, const char *name)
{
    struct limit_flight flight = {0};
    assert_true(limit_ask_flight(limit_named(&scene->limits, str_of(name)), &scene->caller, &flight));
    return flight;
}

static void test_who_is_bounded(void **state)
{
    struct scene *scene = new_scene(
        *state, "{some: {key: client_ip, tier_by: header.t, tiers: {gold: {in_flight: 3, rate: 1/s},"
                " free: {rate: 1/s}}, default: {in_flight: 2, quotas: [5/d]}},"
                " none: {default: {rate: 1/s}}}");
    const struct limit *some = limit_named(&scene->limits, STR("some"));
    struct limit_flight flight;
    struct limit_use uses[LIMIT_USES];
    assert_true(scene->limits.any_flight);
    assert_int_equal(flying(scene, "some").most, 2);
    assert_int_equal(limit_ask(some, &scene->caller, uses), 1); // the quota; there is no bucket
    assert_true(uses[0].rule.is_window);
    struct hash128 key = flying(scene, "some").key;
    headers_set(&scene->headers, &scene->fixture->arena, STR("T"), STR("gold"));
    assert_int_equal(flying(scene, "some").most, 3);
    assert_true(flying(scene, "some").key.lo == key.lo); // a tier is no part of the key
    assert_int_equal(limit_ask(some, &scene->caller, uses), 1);
    assert_false(uses[0].rule.is_window);
    headers_set(&scene->headers, &scene->fixture->arena, STR("T"), STR("free"));
    assert_false(limit_ask_flight(some, &scene->caller, &flight));
    assert_false(limit_ask_flight(limit_named(&scene->limits, STR("none")), &scene->caller, &flight));
}

static void test_all_places_or_none(void **state)
{
    struct scene *scene = new_scene(
        *state, "{wide: {default: {in_flight: 9}}, narrow: {default: {in_flight: 1}},"
                " shadow: {shadow: true, default: {in_flight: 1}}, last: {default: {in_flight: 1}}}");
    static const char *const names[] = {"shadow", "wide", "narrow", "last"};
    struct limit_flight held[4], refused[4];
    for (size_t i = 0; i < 4; i++)
        held[i] = flying(scene, names[i]);
    memcpy(refused, held, sizeof held);
    assert_null(limits_enter(held, 4));
    assert_ptr_equal(limits_enter(refused, 4), &refused[2]);
    assert_true(refused[0].is_over && !refused[1].is_over && refused[2].is_over && refused[3].is_over);
    for (size_t i = 0; i < 4; i++) {
        assert_false(refused[i].is_held);
        assert_int_equal(flight_count(held[i].key), 1);
    }
    limits_leave(refused, 4);              // nothing is held
    assert_null(limits_enter(refused, 2)); // in shadow mode, which has no room
    assert_int_equal(flight_count(held[0].key), 1);
    assert_int_equal(flight_count(held[1].key), 2);
    for (int twice = 0; twice < 2; twice++) {
        limits_leave(refused, 4);
        limits_leave(held, 4);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(flight_count(held[i].key), 0);
}

struct race {
    struct scene *scene;
    atomic_uint admitted;
};

static void *flood(void *context)
{
    struct race *race = context;
    struct limit_use uses[] = {asked(race->scene, "a"), asked(race->scene, "b")};
    unsigned admitted = 0;
    for (int i = 0; i < 5000; i++)
        admitted += !limits_take(race->scene->limits.table, uses, 2, NOW);
    atomic_fetch_add(&race->admitted, admitted);
    return NULL;
}

// Those who are refused in the middle of the race give back what they took: in the end, each limit has lost
// what was admitted.
static void test_threads_on_two_limits(void **state)
{
    struct race race = {new_scene(*state,
                                  "{a: {default: {rate: 1/h, burst: 3000}}, b: {default: {rate: 1/h, burst: "
                                  "2000}}}"),
                        0};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, flood, &race), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct limit_use a = asked(race.scene, "a"), b = asked(race.scene, "b");
    assert_int_equal(atomic_load(&race.admitted), 2000);
    assert_int_equal(left_of(race.scene, &a, NOW), 1000);
    assert_int_equal(left_of(race.scene, &b, NOW), 0);
}

// Of this thread: others may want the machine as well.
static uint64_t cpu_us(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * SECOND + (uint64_t)spent.tv_nsec / 1000;
}

static void test_what_a_decision_costs(void **state)
{
    enum { DECISIONS = 1000000, CALLERS = 1000 };
    struct scene *scene = new_scene(
        *state, "{id: {tier_by: identity.roles, tiers: {gold: {rate: 999/s}, silver: {rate: 99/s}}, "
                "default: {rate: 9/s}}, all: {key: global, default: {rate: 999999/s}}}");
    struct str roles[] = {STR("silver")};
    char names[CALLERS][16];
    scene->caller.identity = &scene->identity;
    scene->identity.roles = (struct str_list){roles, 1};
    for (unsigned i = 0; i < CALLERS; i++)
        snprintf(names[i], sizeof names[i], "consumer-%u", i);
    for (unsigned count = 1; count <= 2; count++) {
        uint64_t began = cpu_us();
        for (unsigned i = 0; i < DECISIONS; i++) {
            scene->identity.consumer = str_of(names[i % CALLERS]);
            struct limit_use uses[1 + LIMIT_USES];
            for (unsigned k = 0; k < count; k++)
                limit_ask(&scene->limits.v[k], &scene->caller, &uses[k]);
            limits_take(scene->limits.table, uses, count, NOW + i);
        }
        print_message("%u limits of a request: %.0f ns, keys and tiers included\n", count,
                      (double)(cpu_us() - began) * 1000 / DECISIONS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_is_who, set_up, end),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, end),
        cmocka_unit_test_setup_teardown(test_parts_are_apart, set_up, end),
        cmocka_unit_test_setup_teardown(test_tiers, set_up, end),
        cmocka_unit_test_setup_teardown(test_words, set_up, end),
        cmocka_unit_test_setup_teardown(test_all_or_none, set_up, end),
        cmocka_unit_test_setup_teardown(test_the_longest_wait_is_told, set_up, end),
        cmocka_unit_test_setup_teardown(test_costs_known_afterwards, set_up, end),
        cmocka_unit_test_setup_teardown(test_who_is_bounded, set_up, end),
        cmocka_unit_test_setup_teardown(test_all_places_or_none, set_up, end),
        cmocka_unit_test_setup_teardown(test_threads_on_two_limits, set_up, end),
        cmocka_unit_test_setup_teardown(test_what_a_decision_costs, set_up, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
