#include "unit.h"

#include "base/check.h"
#include "exchange/steps.h"

static void test_an_upload_keeps_its_place_by_a_kilobyte_a_second(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes, us;
        bool slow;
    } cases[] = {
        {0, 0, false},
        {0, 999999, false},
        {0, 1000000, true},
        {1023, 1000000, true},
        {1024, 1000000, false},
        {20000, 20000000, true},
        {1 << 20, 60000000, false},
        {60 * 1024 - 1, 60000000, true},
    };
    for (size_t i = 0; i < countof(cases); i++)
        assert_int_equal(upload_is_slow(cases[i].bytes, cases[i].us), cases[i].slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_upload_keeps_its_place_by_a_kilobyte_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
