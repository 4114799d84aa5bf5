// The bound of an upstream's connections: who is granted what is given back, what others are asked for, and
// that it is never exceeded, whoever takes and gives at the same moment.
#include "unit.h"
#include "unit_crowd.h"

#include "upstream/connection_bound.h"

#include <stdlib.h>

enum { SHARES = 4 };

struct scene {
    struct connection_bound bound;
    struct loop loop;
    struct connection_share shares[SHARES];
    unsigned woken[SHARES];
};

static struct scene *scene;

static void on_task(struct loop_task *task)
{
    struct connection_share *share = container_of(task, struct connection_share, fair.task);
    connection_share_heard(share);
    scene->woken[share - scene->shares]++;
}

static void set_limit(int64_t limit)
{
    for (unsigned i = 0; i < SHARES; i++)
        connection_share_set(&scene->shares[i], &scene->bound, limit);
}

static int setup(void **state)
{
    (void)state;
    struct err err;
    scene = calloc(1, sizeof *scene);
    connection_bound_init(&scene->bound);
    assert_int_equal(loop_init(&scene->loop, &err), ERR_OK);
    for (unsigned i = 0; i < SHARES; i++)
        connection_share_init(&scene->shares[i], &scene->loop, on_task);
    set_limit(2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SHARES; i++)
        connection_share_leave(&scene->shares[i]);
    assert_int_equal(atomic_load(&scene->bound.quota.used), 0);
    loop_turn(&scene->loop, 0); // nothing of them is posted any more
    loop_fini(&scene->loop);
    pthread_mutex_destroy(&scene->bound.quota.lock);
    free(scene);
    return 0;
}

static struct connection_share *share(unsigned i)
{
    return &scene->shares[i];
}

static bool take(unsigned i, uint64_t now_ms)
{
    return connection_share_take(share(i), now_ms);
}

static void give_all(void)
{
    for (unsigned i = 0; i < SHARES; i++)
        while (atomic_load(&share(i)->fair.used))
            connection_share_give(share(i));
}

static void test_it_is_one_for_all(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    assert_false(take(0, 1) || take(1, 1));
    connection_share_give(share(0));
    assert_true(take(1, 1));
    assert_false(take(0, 1));
    give_all();
}

static void test_what_is_given_back_goes_to_who_is_in_line(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    assert_false(connection_share_want(share(1), 1, 100));
    connection_share_give(share(0));
    assert_false(take(0, 100) || take(2, 100)); // though one is free
    loop_turn(&scene->loop, 0);
    assert_int_equal(scene->woken[1], 1);
    assert_true(take(1, 100));
    connection_share_give(share(0));
    assert_true(take(2, 100)); // nobody is in line any more
    give_all();
}

static void test_who_has_fewest_is_first(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(1, 1));
    assert_false(connection_share_want(share(1), 5, 100));
    assert_false(connection_share_want(share(2), 5, 101));
    connection_share_give(share(0));
    assert_true(take(2, 102) && !take(1, 102));
    assert_false(connection_share_want(share(0), 1, 103)); // has none, but had one after the others
    assert_false(connection_share_want(share(3), 1, 104));
    connection_share_give(share(2));
    assert_true(take(3, 105));
    connection_share_give(share(3));
    assert_true(take(0, 106));
    give_all();
    for (unsigned i = 0; i < SHARES; i++)
        connection_share_want(share(i), 0, 200);
}

static void test_what_is_not_wanted_any_more_goes_on(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    assert_false(connection_share_want(share(1), 2, 100));
    assert_false(connection_share_want(share(2), 1, 100));
    give_all();
    assert_int_equal(atomic_load(&share(1)->fair.granted) + atomic_load(&share(2)->fair.granted), 2);
    assert_false(connection_share_want(share(2), 0, 101));
    assert_int_equal(atomic_load(&share(1)->fair.granted), 2);
    assert_false(connection_share_want(share(1), 0, 102));
    assert_int_equal(atomic_load(&scene->bound.quota.used), 0);
    assert_true(take(3, 103));
    give_all();
}

static void test_holders_are_asked_now_and_then(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    assert_false(connection_share_want(share(1), 1, 100));
    loop_turn(&scene->loop, 0);
    assert_int_equal(scene->woken[0], 1);
    assert_int_equal(scene->woken[2], 0); // has nothing to give
    for (uint64_t now_ms = 101; now_ms < 100 + CONNECTION_ASK_MS; now_ms++) {
        connection_share_want(share(1), 0, now_ms);
        connection_share_want(share(1), 3, now_ms);
    }
    loop_turn(&scene->loop, 0);
    assert_int_equal(scene->woken[0], 1);
    connection_share_want(share(1), 3, 100 + CONNECTION_ASK_MS);
    loop_turn(&scene->loop, 0);
    assert_int_equal(scene->woken[0], 2);
    connection_share_want(share(1), 0, 200);
    give_all();
}

static void test_idle_ones_are_wanted_one_for_each(void **state)
{
    (void)state;
    set_limit(4);
    assert_true(take(0, 1) && take(0, 1) && take(2, 1) && take(3, 1));
    assert_false(connection_share_close_idle(share(0), 0, 100));
    connection_share_want(share(1), 2, 100);
    loop_turn(&scene->loop, 0);
    assert_false(connection_share_close_idle(share(0), 95, 100)); // between two requests, perhaps
    assert_true(connection_share_close_idle(share(0), 90, 100));
    assert_true(connection_share_close_idle(share(2), 90, 100));
    assert_false(connection_share_close_idle(share(3), 90, 100)); // two are on their way
    connection_share_give(share(0));
    assert_false(connection_share_close_idle(share(0), 90, 100));
    connection_share_give(share(2));
    assert_true(take(1, 100) && take(1, 100));
    give_all();
}

static void test_a_fair_part_is_owed(void **state)
{
    (void)state;
    set_limit(4);
    for (unsigned i = 0; i < 4; i++)
        assert_true(take(0, 1));
    connection_share_want(share(1), 9, 100);
    loop_turn(&scene->loop, 0);
    assert_true(connection_share_owes(share(0), 0, 100));
    assert_true(connection_share_owes(share(0), 2, 100));
    assert_false(connection_share_owes(share(0), 3, 3)); // the last one, not so soon
    unsigned given = 0;
    while (connection_share_owes(share(0), 0, 100)) {
        connection_share_give(share(0));
        assert_true(take(1, 100));
        given++;
    }
    assert_int_equal(given, 2); // two each: they do not ask each other any more
    connection_share_want(share(0), 9, 200);
    loop_turn(&scene->loop, 0);
    assert_false(connection_share_owes(share(1), 0, 10000));
    connection_share_want(share(0), 0, 200);
    connection_share_want(share(1), 0, 200);
    assert_false(connection_share_owes(share(0), 0, 10000));
    assert_false(share(0)->asked); // it looks no more
    give_all();
}

static void test_the_only_one_is_kept_for_a_turn(void **state)
{
    (void)state;
    set_limit(1);
    assert_true(take(0, 1000));
    connection_share_want(share(1), 1, 1001);
    loop_turn(&scene->loop, 0);
    assert_false(connection_share_owes(share(0), 0, 1000 + CONNECTION_TURN_MS - 1));
    assert_true(connection_share_owes(share(0), 0, 1000 + CONNECTION_TURN_MS));
    connection_share_give(share(0));
    assert_true(take(1, 2000));
    connection_share_want(share(0), 1, 2000);
    loop_turn(&scene->loop, 0);
    assert_false(connection_share_owes(share(1), 0, 2001)); // has just come by it
    connection_share_want(share(0), 0, 2002);
    give_all();
}

static void test_a_changed_limit(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    connection_share_want(share(1), 1, 100);
    set_limit(3);
    assert_true(take(1, 100)); // granted by the change
    set_limit(1);
    assert_true(connection_share_close_idle(share(0), 100, 100));
    assert_true(connection_share_close_idle(share(1), 100, 100));
    connection_share_give(share(1));
    assert_true(connection_share_owes(share(0), 0, 100));
    connection_share_give(share(0));
    assert_false(connection_share_close_idle(share(0), 0, 100) || connection_share_owes(share(0), 0, 100));
    assert_false(take(1, 100));
    give_all();
}

static void test_one_for_another(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    connection_share_want(share(1), 1, 100);
    connection_share_swap(share(0)); // it closes one to open one: that is nobody else's
    connection_share_give(share(0));
    assert_int_equal(atomic_load(&share(0)->fair.used), 2);
    assert_false(take(1, 100));
    connection_share_want(share(1), 0, 100);
    give_all();
}

static void test_who_leaves_gives_back(void **state)
{
    (void)state;
    assert_true(take(0, 1) && take(0, 1));
    connection_share_want(share(1), 2, 100);
    connection_share_want(share(2), 1, 100);
    give_all();
    connection_share_leave(share(1));
    assert_true(take(2, 100));
    assert_true(take(3, 100));
    give_all();
}

// ---- by many at once ----

enum { ROUNDS = 1000, LIMIT = 2 };

struct hammer {
    struct crowd_member member; // first
    struct connection_share share;
    unsigned taken;
};

static struct connection_bound contended;

static void on_heard(struct loop_task *task)
{
    connection_share_heard(container_of(task, struct connection_share, fair.task));
}

static void *hammer_away(void *context)
{
    struct hammer *hammer = context;
    connection_share_init(&hammer->share, &hammer->member.loop, on_heard);
    connection_share_set(&hammer->share, &contended, LIMIT);
    for (uint64_t now_ms = 1; hammer->taken < ROUNDS; now_ms++) {
        if (!connection_share_take(&hammer->share, now_ms)) {
            if (!connection_share_want(&hammer->share, 1, now_ms))
                loop_turn(&hammer->member.loop, 1); // until woken
            continue;
        }
        crowd_pass();
        connection_share_give(&hammer->share);
        hammer->taken++;
    }
    connection_share_leave(&hammer->share);
    return NULL;
}

static void test_many_at_once(void **state)
{
    (void)state;
    static struct hammer hammers[SHARES];
    struct crowd_member *members[SHARES];
    for (unsigned i = 0; i < SHARES; i++)
        members[i] = &hammers[i].member;
    connection_bound_init(&contended);
    crowd_run(members, SHARES, hammer_away, LIMIT);
    assert_int_equal(atomic_load(&contended.quota.used), 0);
    pthread_mutex_destroy(&contended.quota.lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_it_is_one_for_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_given_back_goes_to_who_is_in_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_has_fewest_is_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_wanted_any_more_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holders_are_asked_now_and_then, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_ones_are_wanted_one_for_each, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_fair_part_is_owed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_only_one_is_kept_for_a_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_changed_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_for_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_leaves_gives_back, setup, teardown),
        cmocka_unit_test(test_many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
