#include "unit.h"

#include "replay/shelf.h"

#include <stdlib.h>

enum { MOST = 8, MOST_BYTES = 800 };

static unsigned freed;

static void count_free(struct shelf_item *item)
{
    freed++;
    free(item);
}

static struct shelf shelf = SHELF_INIT(shelf, MOST, MOST_BYTES, count_free);

static struct replay_hash name_of(unsigned number)
{
    struct str part = {(const char *)&number, sizeof number};
    return replay_hash(&part, 1);
}

static struct shelf_item *get(unsigned number)
{
    return shelf_find(&shelf, name_of(number));
}

static struct shelf_item *put_held(unsigned number, size_t bytes)
{
    assert_true(shelf_make_room(&shelf, 1, bytes));
    struct shelf_item *item = calloc(1, sizeof *item);
    item->name = name_of(number);
    item->bytes = bytes;
    shelf_add(&shelf, item);
    return item;
}

static struct shelf_item *put(unsigned number, size_t bytes)
{
    struct shelf_item *item = put_held(number, bytes);
    shelf_use(&shelf, item);
    return item;
}

static int empty(void **state)
{
    (void)state;
    struct list *lists[] = {&shelf.plain, &shelf.preferred};
    for (unsigned i = 0; i < countof(lists); i++)
        list_each (lists[i], node)
            shelf_remove(&shelf, container_of(node, struct shelf_item, recent));
    assert_int_equal(shelf.count, 0);
    assert_int_equal(shelf.bytes, 0);
    assert_int_equal(shelf.preferred_count, 0);
    assert_int_equal(shelf.preferred_bytes, 0);
    freed = 0;
    return 0;
}

static void test_what_was_used_longest_ago_goes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MOST; i++)
        put(i, 1);
    shelf_use(&shelf, get(0));
    put(MOST, 1);
    assert_int_equal(freed, 1);
    assert_non_null(get(0));
    assert_null(get(1));
    assert_non_null(get(2));
}

static void test_bytes_count_too(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        put(i, MOST_BYTES / 4);
    put(4, MOST_BYTES / 4 + 1);
    assert_int_equal(freed, 2);
    assert_non_null(get(2));
    shelf_weigh(&shelf, get(4), 1);
    assert_true(shelf_make_room(&shelf, 0, MOST_BYTES / 4));
    assert_int_equal(freed, 2);
    assert_false(shelf_make_room(&shelf, 0, MOST_BYTES + 1));
    assert_int_equal(shelf.count, 0);
}

static void test_what_is_held_stays(void **state)
{
    (void)state;
    struct shelf_item *items[MOST];
    for (unsigned i = 0; i < MOST; i++)
        items[i] = put_held(i, 1);
    assert_false(shelf_make_room(&shelf, 1, 0));
    for (unsigned i = 0; i < MOST; i++)
        shelf_use(&shelf, items[i]);
    shelf_hold(items[0]);
    assert_true(shelf_make_room(&shelf, MOST - 1, 0));
    assert_non_null(get(0));
    assert_int_equal(freed, MOST - 1);
    shelf_use(&shelf, items[0]);
}

// Whoever asks for many things once does not drive them out.
static void test_what_is_preferred_outlives_a_flood(void **state)
{
    (void)state;
    enum { DEAR = 6 }; // three quarters
    for (unsigned i = 0; i < DEAR; i++)
        shelf_prefer(&shelf, put(i, 100));
    for (unsigned i = 100; i < 1100; i++)
        put(i, 100);
    for (unsigned i = 0; i < DEAR; i++)
        assert_non_null(get(i));
    assert_int_equal(shelf.count, MOST);
}

static void test_only_three_quarters_are_preferred(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MOST; i++)
        shelf_prefer(&shelf, put(i, 1));
    assert_int_equal(shelf.preferred_count, 6);
    assert_false(get(0)->is_preferred);
    put(100, 1); // 0 was the oldest
    assert_null(get(0));
    assert_non_null(get(1));
    shelf_weigh(&shelf, get(7), MOST_BYTES / 2);
    assert_int_equal(shelf.preferred_count, 6);
    shelf_weigh(&shelf, get(7), MOST_BYTES * 3 / 4);
    assert_int_equal(shelf.preferred_count, 1);
    assert_true(get(7)->is_preferred);
}

static void test_when_nothing_else_is_left_they_go(void **state)
{
    (void)state;
    shelf_prefer(&shelf, put(1, MOST_BYTES / 2));
    shelf_prefer(&shelf, put(2, MOST_BYTES / 4));
    assert_true(shelf_make_room(&shelf, 1, MOST_BYTES * 3 / 4));
    assert_null(get(1));
    assert_non_null(get(2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_what_was_used_longest_ago_goes, empty),
        cmocka_unit_test_teardown(test_bytes_count_too, empty),
        cmocka_unit_test_teardown(test_what_is_held_stays, empty),
        cmocka_unit_test_teardown(test_what_is_preferred_outlives_a_flood, empty),
        cmocka_unit_test_teardown(test_only_three_quarters_are_preferred, empty),
        cmocka_unit_test_teardown(test_when_nothing_else_is_left_they_go, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
