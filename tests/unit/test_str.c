#include "unit.h"

#include "base/digits.h"
#include "base/str.h"

static void test_equality_and_order(void **state)
{
    (void)state;
    assert_true(str_eq(STR("abc"), STR("abc")));
    assert_false(str_eq(STR("abc"), STR("abd")));
    assert_true(str_eq(STR_NULL, STR("")));
    assert_true(str_eq_fold(STR("Content-LENGTH"), STR("content-length")));
    assert_false(str_eq_fold(STR("content_length"), STR("content-length")));
    assert_true(str_compare(STR("ab"), STR("abc")) < 0);
    assert_true(str_compare(STR("b"), STR("abc")) > 0);
    assert_int_equal(str_compare(STR("abc"), STR("abc")), 0);
    assert_true(str_starts(STR("/orders/1"), STR("/orders")));
    assert_false(str_starts(STR("/o"), STR("/orders")));
    assert_true(str_ends(STR("a.example.com"), STR(".example.com")));
}

static void test_lists_of_tokens(void **state)
{
    (void)state;
    struct str rest = STR(" close ,, Upgrade,\tkeep-alive , "), token;
    const char *expected[] = {"close", "Upgrade", "keep-alive"};
    for (size_t i = 0; i < 3; i++) {
        assert_true(str_next_token(&rest, &token));
        assert_true(str_eq(token, str_of(expected[i])));
    }
    assert_false(str_next_token(&rest, &token));
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t max;
        bool ok;
        uint64_t value;
    } rows[] = {
        {"0", 10, true, 0},
        {"10", 10, true, 10},
        {"11", 10, false, 0},
        {"5", 5, true, 5},
        {"6", 5, false, 0}, // a digit above the bound
        {"", 10, false, 0},
        {"-1", 10, false, 0},
        {"+1", 10, false, 0},
        {"1 ", 10, false, 0},
        {"0x1", 100, false, 0},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
        {"18446744073709551616", UINT64_MAX, false, 0},
        {"99999999999999999999999", UINT64_MAX, false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t value = 0;
        assert_int_equal(str_to_u64(str_of(rows[i].text), rows[i].max, &value), rows[i].ok);
        assert_int_equal(value, rows[i].value);
        if (rows[i].ok) {
            char text[20];
            size_t n = u64_print(value, text);
            assert_true(str_eq((struct str){text, n}, str_of(rows[i].text)));
        }
    }
}

static void assert_printed(uint64_t value)
{
    char text[20], want[24];
    int n = snprintf(want, sizeof want, "%llu", (unsigned long long)value);
    assert_int_equal(u64_print(value, text), n);
    assert_memory_equal(text, want, (size_t)n);
}

// Around every power of ten, where the length changes, and of two.
static void test_printed_numbers(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 20000; i++)
        assert_printed(i);
    for (uint64_t power = 10; power < UINT64_MAX / 10; power *= 10)
        for (uint64_t i = 0; i < 3; i++)
            assert_printed(power - 1 + i);
    for (unsigned bit = 0; bit < 64; bit++)
        assert_printed((UINT64_C(1) << bit) * 2 - 1);
}

static void test_hex(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        const char *text;
    } rows[] = {
        {0, "0000000000000000"},
        {1, "0000000000000001"},
        {0x0123456789abcdef, "0123456789abcdef"},
        {0xfedcba9876543210, "fedcba9876543210"},
        {0x9a9a9a9aa9a9a9a9, "9a9a9a9aa9a9a9a9"},
        {UINT64_MAX, "ffffffffffffffff"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[HEX_U64];
        hex_print(rows[i].value, text);
        assert_memory_equal(text, rows[i].text, HEX_U64);
    }
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(str_distance(STR("match"), STR("mach")), 1);
    assert_int_equal(str_distance(STR("listeners"), STR("listners")), 1);
    assert_int_equal(str_distance(STR("usptream"), STR("upstream")), 1);
    assert_int_equal(str_distance(STR("abc"), STR("")), 3);
    assert_int_equal(str_distance(STR(""), STR("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equality_and_order),
        cmocka_unit_test(test_lists_of_tokens),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_printed_numbers),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
