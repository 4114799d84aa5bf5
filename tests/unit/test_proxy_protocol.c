// PROXY headers, versions 1 and 2: who the client is, how long the header was, and what is refused; byte by
// byte the same as at once.
#include "base/buf.h"
#include "base/check.h"
#include "net/proxy_protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct proxy_case {
    struct str input;
    const char *want; // "client:port +bytes left", "own" for no client; "more"; "bad"
};

#define CASE(text, want)               \
    {                                  \
        {text, sizeof(text) - 1}, want \
    }
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static void outcome_of(struct str input, size_t step, char *outcome)
{
    struct ip source = {.family = 99};
    size_t consumed = 0, n = step < input.n ? step : input.n;
    enum proxy_result result;
    for (;; n = input.n - n > step ? n + step : input.n) {
        char *copy = malloc(n ? n : 1);
        if (n)
            memcpy(copy, input.p, n);
        result = proxy_protocol_parse(copy, n, &consumed, &source);
        free(copy);
        if (result != PROXY_MORE || n == input.n)
            break;
    }
    if (result != PROXY_DONE) {
        assert_int_equal(consumed, 0);
        snprintf(outcome, 128, result == PROXY_MORE ? "more" : "bad");
        return;
    }
    char text[IP_TEXT_MAX + 1] = "own";
    if (source.family != 99)
        text[ip_print(&source, text)] = 0;
    assert_true(consumed <= n && consumed <= PROXY_HEADER_MAX);
    snprintf(outcome, 128, "%s:%u +%zu", text, source.port, input.n - consumed);
}

static void expect_cases(const struct proxy_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t step = 1; step <= cases[i].input.n + 1; step++) {
            char got[128];
            outcome_of(cases[i].input, step, got);
            if (strcmp(got, cases[i].want) != 0)
                fail_msg("'%.*s' by %zu: got '%s', want '%s'", STR_ARG(cases[i].input), step, got,
                         cases[i].want);
        }
    }
}

#define EXPECT(cases) expect_cases(cases, countof(cases))

static void test_version_1(void **state)
{
    (void)state;
    static const struct proxy_case cases[] = {
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\nGET /", "1.2.3.4:1111 +5"),
        CASE("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535 +0"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n", "1.2.3.4:0 +0"),
        CASE("PROXY TCP6 2001:db8::1 ::1 1111 80\r\n", "2001:db8::1:1111 +0"),
        CASE("PROXY UNKNOWN\r\n", "own:0 +0"),
        CASE("PROXY UNKNOWN anything at all\r\nx", "own:0 +1"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r", "more"),
        CASE("PROXY", "more"),
        CASE("P", "more"),
        CASE("", "more"),
        CASE("PROXY \r\n", "bad"),
        CASE("PROXY TCP4\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80 \r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4  5.6.7.8 1111 80\r\n", "bad"),
        CASE("PROXY  TCP4 1.2.3.4 5.6.7.8 1111 80\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111 65536\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 -1 80\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 01 80\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.256 5.6.7.8 1111 80\r\n", "bad"),
        CASE("PROXY TCP4 ::1 ::1 1111 80\r\n", "bad"),
        CASE("PROXY TCP6 1.2.3.4 5.6.7.8 1111 80\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 ::1 1111 80\r\n", "bad"),
        CASE("PROXY tcp4 1.2.3.4 5.6.7.8 1111 80\r\n", "bad"),
        CASE("PROXY UDP4 1.2.3.4 5.6.7.8 1111 80\r\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\n", "bad"),
        CASE("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\rX", "bad"),
        CASE("proxy TCP4 1.2.3.4 5.6.7.8 1111 80\r\n", "bad"),
        CASE("GET / HTTP/1.1\r\n", "bad"),
        CASE("PO", "bad"),
        CASE("\0", "bad"),
    };
    EXPECT(cases);
}

static void test_version_1_length(void **state)
{
    (void)state;
    char text[110], got[128];
    memset(text, 'x', sizeof text);
    memcpy(text, "PROXY UNKNOWN ", 14);
    memcpy(text + 105, "\r\n", 2);
    outcome_of((struct str){text, 107}, 1, got);
    assert_string_equal(got, "own:0 +0");
    memcpy(text + 105, "x\r\n", 3);
    outcome_of((struct str){text, 108}, 1, got);
    assert_string_equal(got, "bad");
    outcome_of((struct str){text, 106}, 200, got);
    assert_string_equal(got, "bad"); // 106 bytes without an end: there will be none
}

static void test_version_2(void **state)
{
    (void)state;
    static const struct proxy_case cases[] = {
        CASE(SIGNATURE "\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x04\x57\0\x50GET /", "1.2.3.4:1111 +5"),
        CASE(SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
                       "\x04\x57\0\x50",
             "2001:db8::1:1111 +0"),
        CASE(SIGNATURE "\x20\0\0\0", "own:0 +0"),
        CASE(SIGNATURE "\x20\x11\0\x0c\1\2\3\4\5\6\7\x08\x04\x57\0\x50", "own:0 +0"), // LOCAL
        CASE(SIGNATURE "\x20\xff\0\2ab", "own:0 +0"),
        CASE(SIGNATURE "\x21\0\0\3abc", "own:0 +0"), // unspecified
        // TLVs behind the addresses
        CASE(SIGNATURE "\x21\x11\0\x12\1\2\3\4\5\6\7\x08\x04\x57\0\x50\4\0\3abc", "1.2.3.4:1111 +0"),
        CASE(SIGNATURE "\x21\x11\0\x12\1\2\3\4\5\6\7\x08\x04\x57\0\x50\4\0\4abc", "bad"),
        CASE(SIGNATURE "\x21\x11\0\x0e\1\2\3\4\5\6\7\x08\x04\x57\0\x50\4\0", "bad"),
        CASE(SIGNATURE "\x21\x11\0\x0b\1\2\3\4\5\6\7\x08\x04\x57\0", "bad"),
        CASE(SIGNATURE "\x21\x21\0\x0c\1\2\3\4\5\6\7\x08\x04\x57\0\x50", "bad"),
        CASE(SIGNATURE "\x21\x12\0\x0c\1\2\3\4\5\6\7\x08\x04\x57\0\x50", "bad"), // UDP
        CASE(SIGNATURE "\x21\x41\0\0", "bad"),
        CASE(SIGNATURE "\x22\x11\0\x0c", "bad"),
        CASE(SIGNATURE "\x11\x11\0\x0c", "bad"),
        CASE(SIGNATURE "\x31\x11\0\x0c", "bad"),
        CASE(SIGNATURE "\x21\x11\x02\x09", "bad"), // longer than any honest one
        CASE(SIGNATURE "\x21\x11\xff\xff", "bad"),
        CASE(SIGNATURE "\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x04\x57\0", "more"),
        CASE(SIGNATURE "\x21", "more"),
        CASE("\r\n\r\n\0\r\nQU", "more"),
        CASE("\r", "more"),
        CASE("\r\n\r\nGET / HTTP/1.1\r\n", "bad"),
        CASE("\r\n\r\n\0\r\nQUIT\r", "bad"),
    };
    EXPECT(cases);
}

static void test_version_2_unix(void **state)
{
    (void)state;
    struct buf text = {0};
    char got[128];
    buf_append(&text, STR(SIGNATURE "\x21\x31\0\xd8"));
    for (unsigned i = 0; i < 216; i++)
        buf_append(&text, STR("p"));
    outcome_of(buf_str(&text), 1, got);
    assert_string_equal(got, "own:0 +0");
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_version_1_length),
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_version_2_unix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
