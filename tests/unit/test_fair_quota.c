// A bound over all workers that is fair when it is used up: whose turn it is, who is woken, and that nobody
// overtakes who waits, whoever takes and gives at the same moment.
#include "unit.h"
#include "unit_crowd.h"

#include "base/check.h"
#include "upstream/fair_quota.h"

#include <stdlib.h>

enum { SHARES = 3 };

struct scene {
    struct fair_quota quota;
    struct loop loop;
    struct fair_share shares[SHARES];
    unsigned woken[SHARES];
};

static struct scene *scene;

static void on_task(struct loop_task *task)
{
    struct fair_share *share = container_of(task, struct fair_share, task);
    fair_share_heard(share);
    scene->woken[share - scene->shares]++;
}

static int setup(void **state)
{
    (void)state;
    struct err err;
    scene = calloc(1, sizeof *scene);
    fair_quota_init(&scene->quota, FAIR_LONGEST);
    fair_quota_set_limit(&scene->quota, 2);
    assert_int_equal(loop_init(&scene->loop, &err), ERR_OK);
    for (unsigned i = 0; i < SHARES; i++) {
        fair_share_init(&scene->shares[i], &scene->loop, on_task);
        fair_share_join(&scene->shares[i], &scene->quota);
    }
    return 0;
}

static struct fair_share *share(unsigned i)
{
    return &scene->shares[i];
}

static bool take(unsigned i)
{
    return fair_share_take(share(i));
}

static void give(unsigned i)
{
    fair_share_give(share(i));
}

static bool want(unsigned i, uint32_t n, uint64_t first_us, uint64_t last_us)
{
    return fair_share_want(share(i), n, first_us, last_us);
}

static uint32_t granted(unsigned i)
{
    return atomic_load(&share(i)->granted);
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SHARES; i++)
        while (fair_share_used(share(i)))
            give(i);
    for (unsigned i = 0; i < SHARES; i++)
        fair_share_leave(share(i));
    assert_int_equal(atomic_load(&scene->quota.used), 0);
    loop_turn(&scene->loop, 0); // nothing of them is posted any more
    loop_fini(&scene->loop);
    pthread_mutex_destroy(&scene->quota.lock);
    free(scene);
    return 0;
}

static void test_it_is_one_for_all(void **state)
{
    (void)state;
    assert_int_equal(fair_share_left(share(2)), 2);
    assert_true(take(0) && take(1));
    assert_false(take(0) || take(1));
    assert_int_equal(fair_share_left(share(2)), 0);
    give(1);
    assert_true(take(2));
}

// One worker has all that is in use, and a line of its own: what comes back to it goes to the other.
static void test_what_comes_back_goes_to_who_has_waited_longest(void **state)
{
    (void)state;
    assert_true(take(0) && take(0));
    assert_false(want(1, 1, 100, 100));
    assert_false(want(0, 5, 101, 200));
    give(0);
    assert_false(take(0) || take(2));
    assert_int_equal(fair_share_left(share(0)), 0);
    loop_turn(&scene->loop, 0);
    assert_int_equal(scene->woken[1], 1);
    assert_true(take(1));
    give(0);
    assert_true(take(0)); // nobody waits any more but its own
    loop_turn(&scene->loop, 0);
    assert_int_equal(scene->woken[0], 0); // it was at it
}

static void test_who_comes_later_does_not_overtake(void **state)
{
    (void)state;
    assert_true(take(0) && take(0));
    assert_false(want(1, 1, 100, 100));
    give(0);
    give(0); // one is granted, one is free
    assert_true(take(2));
    assert_false(want(2, 1, 300, 300));
    assert_false(want(0, 1, 200, 200));
    give(2);
    assert_int_equal(granted(0), 1);
    assert_true(take(1) && take(0));
}

// Lines are taken for one, also while their workers sleep: since 100, 110, … 190 the one, since 150 the
// other.
static void test_lines_are_one_line(void **state)
{
    (void)state;
    fair_quota_set_limit(&scene->quota, 0);
    assert_false(want(0, 10, 100, 200));
    assert_false(want(1, 1, 145, 145));
    fair_quota_set_limit(&scene->quota, 5);
    assert_int_equal(granted(0), 5);
    assert_int_equal(granted(1), 0);
    fair_quota_set_limit(&scene->quota, 6);
    assert_int_equal(granted(1), 1);
    fair_quota_set_limit(&scene->quota, 20);
    assert_int_equal(granted(0), 10);
    assert_int_equal(fair_share_left(share(0)), 19);
    assert_true(take(2)); // nobody is short
    want(0, 0, 0, 0);
    want(1, 0, 0, 0);
}

// Who comes back to the end of a line may have waited the longest.
static void test_a_line_may_end_before_it_begins(void **state)
{
    (void)state;
    fair_quota_set_limit(&scene->quota, 0);
    assert_false(want(0, 3, 100, 50));
    assert_false(want(1, 1, 101, 101));
    fair_quota_set_limit(&scene->quota, 3);
    assert_int_equal(granted(0), 3);
    want(0, 0, 0, 0);
    want(1, 0, 0, 0);
}

static void test_what_is_not_wanted_any_more_goes_on(void **state)
{
    (void)state;
    assert_true(take(0) && take(0));
    assert_false(want(1, 2, 100, 100));
    assert_false(want(2, 1, 200, 200));
    give(0);
    give(0);
    assert_int_equal(granted(1), 2);
    assert_true(want(1, 1, 100, 100));
    assert_int_equal(granted(2), 1);
    assert_false(want(1, 0, 0, 0));
    assert_true(take(0) && take(2));
}

static void test_a_changed_limit(void **state)
{
    (void)state;
    assert_true(take(0) && take(0));
    assert_false(want(1, 2, 100, 100));
    fair_quota_set_limit(&scene->quota, 3);
    assert_true(take(1));
    fair_quota_set_limit(&scene->quota, 1);
    assert_true(fair_quota_is_over(&scene->quota));
    give(0);
    give(0);
    assert_false(take(1) || fair_quota_is_over(&scene->quota));
    give(1);
    assert_true(take(1));
    want(1, 0, 0, 0);
}

static void test_who_leaves_keeps_what_it_uses_to_itself(void **state)
{
    (void)state;
    assert_true(take(0) && take(1));
    assert_false(want(0, 1, 100, 100));
    assert_false(want(2, 1, 200, 200));
    fair_share_leave(share(0));
    assert_int_equal(fair_share_used(share(0)), 1);
    assert_true(take(2));
    fair_share_join(share(0), &scene->quota);
    assert_true(fair_quota_is_over(&scene->quota));
    fair_share_join(share(0), &scene->quota); // harmless
    assert_int_equal(atomic_load(&scene->quota.used), 3);
}

// ---- by many at once ----

enum { ROUNDS = 1000, LIMIT = 2, THREADS = 4 };

struct hammer {
    struct crowd_member member; // first
    struct fair_share share;
    unsigned taken;
};

static struct fair_quota contended;
static _Atomic uint64_t stamps;

static void on_heard(struct loop_task *task)
{
    fair_share_heard(container_of(task, struct fair_share, task));
}

static void stand_in_line(struct hammer *hammer)
{
    uint64_t since = atomic_fetch_add(&stamps, 1);
    if (!fair_share_want(&hammer->share, 1, since, since))
        while (!atomic_load(&hammer->share.granted))
            loop_turn(&hammer->member.loop, 60000); // until woken
    assert_true(fair_share_take(&hammer->share));
}

static void *hammer_away(void *context)
{
    struct hammer *hammer = context;
    fair_share_init(&hammer->share, &hammer->member.loop, on_heard);
    fair_share_join(&hammer->share, &contended);
    for (; hammer->taken < ROUNDS; hammer->taken++) {
        if (!fair_share_take(&hammer->share))
            stand_in_line(hammer);
        crowd_pass();
        fair_share_give(&hammer->share);
    }
    fair_share_leave(&hammer->share);
    return NULL;
}

static void test_many_at_once(void **state)
{
    (void)state;
    static struct hammer hammers[THREADS];
    struct crowd_member *members[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        members[i] = &hammers[i].member;
    fair_quota_init(&contended, FAIR_LONGEST);
    fair_quota_set_limit(&contended, LIMIT);
    crowd_run(members, THREADS, hammer_away, LIMIT);
    assert_int_equal(atomic_load(&contended.used), 0);
    pthread_mutex_destroy(&contended.lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_it_is_one_for_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_comes_back_goes_to_who_has_waited_longest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_comes_later_does_not_overtake, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lines_are_one_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_line_may_end_before_it_begins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_wanted_any_more_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_changed_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_leaves_keeps_what_it_uses_to_itself, setup, teardown),
        cmocka_unit_test(test_many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
