// What sallyport-echo counts of the load on it.
#include "unit.h"

#include "echo/load.h"

static struct load load;

static uint64_t at_ms(uint64_t ms)
{
    return UINT64_C(5000000000) + ms * 1000; // a clock that has run for a while
}

static int set_up(void **state)
{
    (void)state;
    load = (struct load){0};
    return 0;
}

static void test_in_flight_and_most(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        load_begin(&load, at_ms(10));
    load_end(&load, at_ms(20));
    load_begin(&load, at_ms(150));
    load_misbehaved(&load, at_ms(150));
    assert_int_equal(load.requests, 4);
    assert_int_equal(load.in_flight, 3);
    assert_int_equal(load.most_in_flight, 3);
    struct load_slot slot = load_slot(&load, at_ms(199), 0);
    assert_true(slot.requests == 1 && slot.most_in_flight == 3 && slot.misbehaved == 1);
    slot = load_slot(&load, at_ms(199), 1);
    assert_true(slot.requests == 3 && slot.most_in_flight == 3 && slot.misbehaved == 0);
}

// Requests that hang through slots in which nothing happens are in flight in each of them.
static void test_quiet_slots(void **state)
{
    (void)state;
    load_begin(&load, at_ms(0));
    load_begin(&load, at_ms(0));
    load_end(&load, at_ms(1000));
    load_end(&load, at_ms(1000));
    struct load_slot slot = load_slot(&load, at_ms(1500), 10); // that of 500 ms
    assert_true(slot.requests == 0 && slot.most_in_flight == 2);
    slot = load_slot(&load, at_ms(1500), 0);
    assert_true(slot.requests == 0 && slot.most_in_flight == 0);
}

static void test_the_most_is_counted_anew(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 9; i++)
        load_begin(&load, at_ms(0));
    for (unsigned i = 0; i < 8; i++)
        load_end(&load, at_ms(1));
    load_reset(&load, at_ms(2));
    assert_int_equal(load.most_in_flight, 1);
    load_begin(&load, at_ms(3));
    assert_int_equal(load.most_in_flight, 2);
}

static void test_what_is_too_old_is_forgotten(void **state)
{
    (void)state;
    load_begin(&load, at_ms(0));
    load_end(&load, at_ms(0));
    uint64_t end = (uint64_t)LOAD_SLOTS * LOAD_SLOT_MS;
    assert_int_equal(load_slot(&load, at_ms(end - LOAD_SLOT_MS), LOAD_SLOTS - 1).requests, 1);
    assert_int_equal(load_slot(&load, at_ms(end), 0).requests, 0); // stood in the same place
    load_begin(&load, at_ms(end));
    assert_int_equal(load_slot(&load, at_ms(100 * end), LOAD_SLOTS - 1).most_in_flight, 1);
    assert_int_equal(load_slot(&load, at_ms(100 * end), LOAD_SLOTS).most_in_flight, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_in_flight_and_most, set_up),
        cmocka_unit_test_setup(test_quiet_slots, set_up),
        cmocka_unit_test_setup(test_the_most_is_counted_anew, set_up),
        cmocka_unit_test_setup(test_what_is_too_old_is_forgotten, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
