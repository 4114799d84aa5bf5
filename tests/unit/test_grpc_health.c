#include "unit.h"

#include "upstream/grpc_health.h"

#include "base/check.h"

#define BYTES(literal) (literal), sizeof(literal) - 1

static void test_requests(void **state)
{
    (void)state;
    char out[GRPC_HEALTH_REQUEST_MAX];
    size_t n = grpc_health_request(STR(""), out);
    assert_int_equal(n, 5);
    assert_memory_equal(out, "\0\0\0\0\0", 5);
    n = grpc_health_request(STR("shop.Orders"), out);
    assert_int_equal(n, 18);
    assert_memory_equal(out, "\0\0\0\0\x0d\x0a\x0bshop.Orders", 18);
    char name[GRPC_HEALTH_SERVICE_MAX];
    memset(name, 'a', sizeof name);
    n = grpc_health_request((struct str){name, sizeof name}, out);
    assert_int_equal(n, GRPC_HEALTH_REQUEST_MAX);
    assert_memory_equal(out,
                        "\0\0\0\x01\x03\x0a\x80\x02"
                        "aa",
                        10);
    n = grpc_health_request((struct str){name, 128}, out);
    assert_memory_equal(out,
                        "\0\0\0\0\x83\x0a\x80\x01"
                        "aa",
                        10);
    assert_int_equal(n, 5 + 3 + 128);
}

static void test_answers(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t n;
        uint64_t serving;
    } rows[] = {
        {BYTES("\0\0\0\0\x02\x08\x01"), GRPC_SERVING},
        {BYTES("\0\0\0\0\x02\x08\x02"), GRPC_NOT_SERVING},
        {BYTES("\0\0\0\0\x02\x08\x03"), GRPC_SERVICE_UNKNOWN},
        {BYTES("\0\0\0\0\x02\x08\x00"), GRPC_SERVING_UNKNOWN},
        {BYTES("\0\0\0\0\0"), GRPC_SERVING_UNKNOWN},           // the default is not sent
        {BYTES("\0\0\0\0\x04\x08\x02\x08\x01"), GRPC_SERVING}, // the last one counts
        {BYTES("\0\0\0\0\x03\x08\x81\x00"), GRPC_SERVING},     // longer than it must be
        {BYTES("\0\0\0\0\x04\x10\x07\x08\x01"), GRPC_SERVING}, // behind a field that is not known: a number,
        {BYTES("\0\0\0\0\x06\x12\x02\x08\x02\x08\x01"), GRPC_SERVING},       // bytes,
        {BYTES("\0\0\0\0\x0b\x11\1\2\3\4\5\6\7\x08\x08\x01"), GRPC_SERVING}, // 64 bits,
        {BYTES("\0\0\0\0\x07\x15\1\2\3\4\x08\x01"), GRPC_SERVING},           // 32 bits
        {BYTES("\0\0\0\0\x06\x08\x81\x80\x80\x80\x10"), 0x100000001},        // not 1
        {BYTES("\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), UINT64_MAX},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        uint64_t serving = 77;
        const char *why = grpc_health_answer((struct str){rows[i].body, rows[i].n}, &serving);
        if (why)
            fail_msg("row %zu: %s", i, why);
        assert_int_equal(serving, rows[i].serving);
    }
}

static void test_malformed_answers(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t n;
        const char *why;
    } rows[] = {
        {BYTES(""), "no message"},
        {BYTES("\0"), "cut short"},
        {BYTES("\0\0\0\0"), "cut short"},
        {BYTES("\0\0\0\0\x02\x08"), "cut short"},
        {BYTES("\0\xff\xff\xff\xff\x08\x01"), "cut short"},
        {BYTES("\x01\0\0\0\x02\x08\x01"), "compressed"},
        {BYTES("\x80\0\0\0\x02\x08\x01"), "compressed"},
        {BYTES("\0\0\0\0\x02\x08\x01\0"), "more than one"},
        {BYTES("\0\0\0\0\x02\x08\x01\0\0\0\0\x02\x08\x01"), "more than one"},
        {BYTES("\0\0\0\0\x01\x08"), "malformed"},                                             // no value
        {BYTES("\0\0\0\0\x02\x08\x81"), "malformed"},                                         // half a value
        {BYTES("\0\0\0\0\x0c\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "malformed"}, // eleven bytes
        {BYTES("\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "malformed"},     // 65 bits
        {BYTES("\0\0\0\0\x03\x0a\x01\x01"), "malformed"}, // status as bytes
        {BYTES("\0\0\0\0\x02\x00\x01"), "malformed"},     // field 0
        {BYTES("\0\0\0\0\x02\x0b\x0c"), "malformed"},     // a group
        {BYTES("\0\0\0\0\x02\x0e\x01"), "malformed"},     // wire types 6, 7
        {BYTES("\0\0\0\0\x02\x17\x01"), "malformed"},
        {BYTES("\0\0\0\0\x03\x12\x02\x01"), "malformed"}, // past the end
        {BYTES("\0\0\0\0\x0b\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "malformed"},
        {BYTES("\0\0\0\0\x08\x11\1\2\3\4\5\6\7"), "malformed"},
        {BYTES("\0\0\0\0\x04\x15\1\2\3"), "malformed"},
        {BYTES("\0\0\0\0\x07\xf8\xff\xff\xff\xff\x01\x01"), "malformed"}, // a key past 32 bits
    };
    for (size_t i = 0; i < countof(rows); i++) {
        uint64_t serving;
        char exact[32]; // so that a byte too far is seen
        char *body = exact + sizeof exact - rows[i].n;
        memcpy(body, rows[i].body, rows[i].n);
        const char *why = grpc_health_answer((struct str){body, rows[i].n}, &serving);
        if (!why || !strstr(why, rows[i].why))
            fail_msg("row %zu: %s", i, why ? why : "was taken");
    }
}

static void test_names(void **state)
{
    (void)state;
    assert_true(str_eq(grpc_serving_name(GRPC_SERVING), STR("SERVING")));
    assert_true(str_eq(grpc_serving_name(GRPC_SERVICE_UNKNOWN), STR("SERVICE_UNKNOWN")));
    assert_int_equal(grpc_serving_name(4).n, 0);
    assert_int_equal(grpc_serving_name(UINT64_MAX).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_malformed_answers),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
