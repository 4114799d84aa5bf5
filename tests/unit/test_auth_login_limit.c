// How many logins may fail, with the clock in hand.
#include "unit.h"

#include "auth_service/login_limit.h"

#define MINUTE 60000000ULL

static struct login_limit limit;
static struct ip one, other, same_network;

static int open_limit(void **state)
{
    (void)state;
    login_limit_init(&limit);
    limit.per_us = MINUTE;
    limit.counts[0] = 3;
    limit.counts[1] = 6;
    limit.counts[2] = 9;
    assert_true(ip_parse(STR("192.0.2.1"), &one) && ip_parse(STR("192.0.2.2"), &other));
    return 0;
}

static int close_limit(void **state)
{
    (void)state;
    login_limit_fini(&limit);
    return 0;
}

static struct login_charge charge;
static uint64_t retry_us;

static bool take(const char *name, const struct ip *address, uint64_t now_us)
{
    return login_limit_take(&limit, str_of(name), address, now_us, &charge, &retry_us);
}

static void test_a_name_from_an_address(void **state)
{
    (void)state;
    uint64_t now = 5 * MINUTE;
    for (int i = 0; i < 3; i++)
        assert_true(take("ada", &one, now));
    assert_false(take("ada", &one, now));
    assert_int_equal(retry_us, MINUTE / 3);
    assert_true(take("ada", &other, now)); // from elsewhere
    assert_true(take("bob", &one, now));   // another name
    assert_false(take("ada", &one, now + MINUTE / 3 - 1));
    assert_true(take("ada", &one, now + MINUTE / 3));
    assert_false(take("ada", &one, now + MINUTE / 3));
}

static void test_an_address(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    for (int i = 0; i < 6; i++)
        assert_true(take(names[i], &one, MINUTE));
    assert_false(take("g", &one, MINUTE));
    assert_true(take("g", &other, MINUTE)); // a refusal has charged nothing
}

static void test_a_name(void **state)
{
    (void)state;
    char text[32];
    for (int i = 0; i < 9; i++) {
        snprintf(text, sizeof text, "192.0.2.%d", i);
        assert_true(ip_parse(str_of(text), &other) && take("ada", &other, MINUTE));
    }
    assert_false(take("ada", &one, MINUTE));
    assert_false(login_limit_is_own(&limit, &charge, MINUTE)); // of others' doing
    for (int i = 0; i < 3; i++)
        assert_true(take("bob", &one, MINUTE));
    assert_false(take("bob", &one, MINUTE));
    assert_true(login_limit_is_own(&limit, &charge, MINUTE));
}

static void test_a_network(void **state)
{
    (void)state;
    assert_true(ip_parse(STR("2001:db8::1"), &one) && ip_parse(STR("2001:db8::2:1"), &same_network));
    for (int i = 0; i < 3; i++)
        assert_true(take("ada", &one, MINUTE));
    assert_false(take("ada", &same_network, MINUTE));
}

static void test_given_back(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        assert_true(take("ada", &one, MINUTE));
        login_limit_give(&limit, &charge);
    }
    for (int i = 0; i < 3; i++)
        assert_true(take("ada", &one, MINUTE));
    assert_false(take("ada", &one, MINUTE));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_limit, close_limit)
    const struct CMUnitTest tests[] = {
        TEST(test_a_name_from_an_address),
        TEST(test_an_address),
        TEST(test_a_name),
        TEST(test_a_network),
        TEST(test_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
