// Networks and who is in them.
#include "base/check.h"
#include "net/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int bits; // -1: malformed
    } cases[] = {
        {"10.0.0.0/8", 104},
        {"1.2.3.4", 128},
        {"1.2.3.4/32", 128},
        {"0.0.0.0/0", 96},
        {"128.0.0.0/1", 97},
        {"2001:db8::/32", 32},
        {"::/0", 0},
        {"::1", 128},
        {"::1/128", 128},
        {"fe80::/10", 10},
        {"10.0.0.1/8", -1},
        {"10.0.0.0/33", -1},
        {"10.0.0.0/", -1},
        {"10.0.0.0/-1", -1},
        {"10.0.0.0/8x", -1},
        {"10.0.0.0/8/8", -1},
        {"10.0.0/8", -1},
        {"/8", -1},
        {"", -1},
        {"a/8", -1},
        {"2001:db8::/129", -1},
        {"2001:db8::1/32", -1},
        {"fe90::/10", -1},
        {"fec0::/9", -1},
        {"::ffff:10.0.0.0/104", 104},
        {"255.255.255.254/31", 127},
        {"255.255.255.255/31", -1},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct cidr cidr;
        bool ok = cidr_parse(str_of(cases[i].text), &cidr);
        if (ok != (cases[i].bits >= 0))
            fail_msg("'%s'", cases[i].text);
        if (ok)
            assert_int_equal(cidr.bits, cases[i].bits);
    }
}

static bool has(const char *networks, const char *address)
{
    struct cidr v[4];
    struct cidr_set set = {v, 0};
    struct str rest = str_of(networks), text;
    struct ip ip = {0};
    while (str_next_token(&rest, &text))
        assert_true(cidr_parse(text, &v[set.count++]));
    if (strcmp(address, "unix") != 0)
        assert_true(ip_parse(str_of(address), &ip));
    return cidr_set_has(&set, &ip);
}

static void test_membership(void **state)
{
    (void)state;
    assert_true(has("10.0.0.0/8", "10.0.0.0"));
    assert_true(has("10.0.0.0/8", "10.255.255.255"));
    assert_false(has("10.0.0.0/8", "11.0.0.0"));
    assert_false(has("10.0.0.0/8", "9.255.255.255"));
    assert_true(has("10.0.0.0/9", "10.127.0.1"));
    assert_false(has("10.0.0.0/9", "10.128.0.1"));
    assert_true(has("1.2.3.4", "1.2.3.4"));
    assert_true(has("1.2.3.4", "::ffff:1.2.3.4"));
    assert_false(has("1.2.3.4", "1.2.3.5"));
    assert_true(has("0.0.0.0/0", "1.2.3.4"));
    assert_false(has("0.0.0.0/0", "2001:db8::1"));
    assert_true(has("::/0", "2001:db8::1"));
    assert_true(has("::/0", "1.2.3.4"));
    assert_true(has("2001:db8::/32", "2001:db8:ffff::1"));
    assert_false(has("2001:db8::/32", "2001:db9::1"));
    assert_false(has("2001:db8::/32", "1.2.3.4"));
    assert_true(has("fe80::/10", "febf::1"));
    assert_false(has("fe80::/10", "fec0::1"));
    assert_true(has("10.0.0.0/8, 192.168.0.0/16, ::1", "::1"));
    assert_true(has("10.0.0.0/8, 192.168.0.0/16, ::1", "192.168.1.1"));
    assert_false(has("10.0.0.0/8, 192.168.0.0/16, ::1", "192.169.1.1"));
    assert_false(has("", "1.2.3.4"));
}

static void test_unix_peers(void **state)
{
    (void)state;
    assert_true(has("127.0.0.1", "unix"));
    assert_true(has("127.0.0.0/8", "unix"));
    assert_true(has("0.0.0.0/0", "unix"));
    assert_true(has("10.0.0.0/8, 127.0.0.1", "unix"));
    assert_false(has("10.0.0.0/8", "unix"));
    assert_false(has("127.0.0.2", "unix"));
    assert_false(has("::1", "unix"));
    assert_false(has("", "unix"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_membership),
        cmocka_unit_test(test_unix_peers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
