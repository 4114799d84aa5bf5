#include "unit.h"

#include "http/date.h"

#include <stdlib.h>

enum { NOV_6_1994 = 784111777, NOV_29_2026 = 1795910400 };

static bool reads(struct str text, int64_t now_s, int64_t *unix_s)
{
    *unix_s = -1;
    return http_date_read(text, now_s, unix_s);
}

static void test_dates(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int64_t unix_s;
    } rows[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", NOV_6_1994},
        {"Sunday, 06-Nov-94 08:49:37 GMT", NOV_6_1994},
        {"Sun Nov  6 08:49:37 1994", NOV_6_1994},
        {"sun, 06 nov 1994 08:49:37 gmt", NOV_6_1994},
        {"SUNDAY, 06-NOV-94 08:49:37 GMT", NOV_6_1994},
        {"Mon, 06 Nov 1994 08:49:37 GMT", NOV_6_1994}, // it was no Monday
        {"Wed Nov 16 08:49:37 1994", NOV_6_1994 + 10 * 86400},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Thu, 29 Feb 2024 23:59:59 GMT", 1709251199},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800}, // a leap second
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
        {"Sunday, 29-Nov-26 00:00:00 GMT", NOV_29_2026},
        {"Sunday, 29-Nov-76 00:00:00 GMT", 3373833600}, // 50 years ahead: not more
        {"Tuesday, 29-Nov-77 00:00:00 GMT", 249609600}, // 1977
    };
    for (size_t i = 0; i < countof(rows); i++) {
        int64_t unix_s;
        if (!reads(str_of(rows[i].text), NOV_29_2026, &unix_s) || unix_s != rows[i].unix_s)
            fail_msg("%s: %lld", rows[i].text, (long long)unix_s);
    }
}

static void test_no_dates(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "0",
        "-1",
        "now",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Non 1994 08:49:37 GMT",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, -6 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov 06 08:49:37 1994 GMT",
        "1994-11-06T08:49:37Z",
    };
    for (size_t i = 0; i < countof(texts); i++) {
        int64_t unix_s;
        if (reads(str_of(texts[i]), NOV_29_2026, &unix_s))
            fail_msg("%s: %lld", texts[i], (long long)unix_s);
    }
}

static void test_printed_and_read(void **state)
{
    (void)state;
    char text[HTTP_DATE_BYTES];
    assert_string_equal(http_date_print(NOV_6_1994, text).p, "Sun, 06 Nov 1994 08:49:37 GMT");
    enum { STEP = 86400 * 3 + 3601 };
    for (int64_t at = 0; at < INT64_C(4102444800); at += STEP) {
        int64_t back;
        struct str printed = http_date_print(at, text);
        assert_int_equal(printed.n, HTTP_DATE_BYTES - 1);
        assert_true(reads(printed, NOV_29_2026, &back) && back == at);
    }
}

// In memory of its own: a sanitizer sees what is read beyond it.
static void test_every_prefix(void **state)
{
    (void)state;
    static const char *const texts[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                        "Sun Nov  6 08:49:37 1994"};
    for (size_t i = 0; i < countof(texts); i++) {
        struct str whole = str_of(texts[i]);
        for (size_t n = 0; n < whole.n; n++) {
            char *copy = malloc(n ? n : 1);
            memcpy(copy, whole.p, n);
            int64_t unix_s;
            assert_false(reads((struct str){copy, n}, NOV_29_2026, &unix_s));
            free(copy);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_no_dates),
        cmocka_unit_test(test_printed_and_read),
        cmocka_unit_test(test_every_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
