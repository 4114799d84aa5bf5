// Addresses in and out of text.
#include "base/check.h"
#include "net/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_addr_text(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        const char *want; // NULL: malformed
    } cases[] = {
        {STR("1.2.3.4:80"), "1.2.3.4:80"},
        {STR("127.0.0.1:0"), "127.0.0.1:0"},
        {STR(":80"), "0.0.0.0:80"},
        {STR("[::1]:80"), "[::1]:80"},
        {STR("[2001:DB8:0:0::1]:65535"), "[2001:db8::1]:65535"},
        {STR("[::]:1"), "[::]:1"},
        {STR("unix:/run/a.sock"), "unix:/run/a.sock"},
        {STR(""), NULL},
        {STR(":"), NULL},
        {STR("80"), NULL},
        {STR("1.2.3.4"), NULL},
        {STR("1.2.3.4:"), NULL},
        {STR("1.2.3.4:65536"), NULL},
        {STR("1.2.3.4:-1"), NULL},
        {STR("1.2.3.4:8o"), NULL},
        {STR("1.2.3:80"), NULL},
        {STR("1.2.3.256:80"), NULL},
        {STR("01.2.3.4:80"), NULL},
        {STR("localhost:80"), NULL},
        {STR("::1:80"), NULL},
        {STR("[::1:80"), NULL},
        {STR("[::1]80"), NULL},
        {STR("[1.2.3.4]:80"), NULL},
        {STR("[]:80"), NULL},
        {STR("[:80"), NULL},
        {STR("1.2.3.4\0:80"), NULL},
        {STR("unix:"), NULL},
        {STR("unix:a\0b"), NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct addr addr, again;
        char text[ADDR_TEXT_MAX];
        bool ok = addr_parse(cases[i].text, &addr);
        if (ok != (cases[i].want != NULL))
            fail_msg("'%.*s'", STR_ARG(cases[i].text));
        if (!ok)
            continue;
        size_t n = addr_print(&addr, text);
        assert_string_equal(text, cases[i].want);
        assert_int_equal(n, strlen(text));
        assert_true(addr_parse((struct str){text, n}, &again));
        assert_true(addr_eq(&addr, &again));
    }
}

static void test_long_unix_path(void **state)
{
    (void)state;
    char path[5 + sizeof(struct sockaddr_un)] = "unix:";
    char text[ADDR_TEXT_MAX];
    struct addr addr;
    size_t longest = sizeof addr.local.sun_path - 1;
    memset(path + 5, 'p', longest + 1);
    assert_true(addr_parse((struct str){path, 5 + longest}, &addr));
    assert_int_equal(addr_print(&addr, text), 5 + longest);
    assert_false(addr_parse((struct str){path, 5 + longest + 1}, &addr));
}

static struct addr parsed(const char *text)
{
    struct addr addr;
    assert_true(addr_parse(str_of(text), &addr));
    return addr;
}

static void test_no_address(void **state)
{
    (void)state;
    struct addr none = {0}, some = parsed("1.2.3.4:5");
    char text[ADDR_TEXT_MAX];
    assert_int_equal(addr_print(&none, text), 0);
    assert_string_equal(text, "");
    assert_true(addr_eq(&none, &none));
    assert_false(addr_eq(&none, &some));
    assert_false(addr_is_loopback(&none));
}

static void test_equality(void **state)
{
    (void)state;
    static const char *const different[] = {"1.2.3.4:5", "1.2.3.4:6", "1.2.3.5:5", "[::1]:5",
                                            "[::1]:6",   "[::2]:5",   "unix:/a",   "unix:/ab"};
    for (size_t i = 0; i < countof(different); i++) {
        for (size_t j = 0; j < countof(different); j++) {
            struct addr a = parsed(different[i]), b = parsed(different[j]);
            assert_int_equal(addr_eq(&a, &b), i == j);
        }
    }
}

static void test_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {
        {"127.0.0.1:1", true},
        {"127.255.0.9:1", true},
        {"126.0.0.1:1", false},
        {"128.0.0.1:1", false},
        {":1", false},
        {"[::1]:1", true},
        {"[::2]:1", false},
        {"[::]:1", false},
        {"unix:/a", true},
        {"[::ffff:127.0.0.1]:1", true},
        {"[::ffff:1.2.3.4]:1", false},
        {"[7f00::1]:1", false},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct addr addr = parsed(cases[i].text);
        assert_int_equal(addr_is_loopback(&addr), cases[i].loopback);
    }
}

static void test_ip(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        uint16_t family;
    } cases[] = {
        {"1.2.3.4", "1.2.3.4", AF_INET},
        {"255.255.255.255", "255.255.255.255", AF_INET},
        {"2001:DB8::1", "2001:db8::1", AF_INET6},
        {"::", "::", AF_INET6},
        {"::ffff:1.2.3.4", "1.2.3.4", AF_INET}, // one form for one peer
        {"1111:2222:3333:4444:5555:6666:7777:8888", "1111:2222:3333:4444:5555:6666:7777:8888", AF_INET6},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct ip ip;
        char text[IP_TEXT_MAX];
        assert_true(ip_parse(str_of(cases[i].text), &ip));
        size_t n = ip_print(&ip, text);
        assert_true(str_eq((struct str){text, n}, str_of(cases[i].want)));
        assert_int_equal(ip.family, cases[i].family);
        assert_int_equal(ip.port, 0);
    }
    static const char *const malformed[] = {"",       "1.2.3", "1.2.3.4.5", "1.2.3.4 ",  "[::1]",
                                            "::1%lo", "a",     ":::",       "1.2.3.4:80"};
    for (size_t i = 0; i < countof(malformed); i++) {
        struct ip ip;
        assert_false(ip_parse(str_of(malformed[i]), &ip));
    }
    assert_false(ip_parse(STR("1.2.3.4\0"), &(struct ip){0}));
}

static void test_ip_of(void **state)
{
    (void)state;
    char text[IP_TEXT_MAX];
    struct addr addr = parsed("1.2.3.4:513");
    struct ip ip = ip_of(&addr), parsed_ip;
    assert_true(ip_parse(STR("1.2.3.4"), &parsed_ip));
    assert_int_equal(ip.port, 513);
    assert_memory_equal(ip.bytes, parsed_ip.bytes, sizeof ip.bytes);
    addr = parsed("unix:/a");
    ip = ip_of(&addr);
    assert_int_equal(ip.family, 0);
    assert_true(str_eq((struct str){text, ip_print(&ip, text)}, STR("unix")));
    assert_int_equal(sizeof(struct ip), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addr_text),  cmocka_unit_test(test_long_unix_path),
        cmocka_unit_test(test_no_address), cmocka_unit_test(test_equality),
        cmocka_unit_test(test_loopback),   cmocka_unit_test(test_ip),
        cmocka_unit_test(test_ip_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
