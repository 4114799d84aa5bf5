#include "test_config_fixture.h"

#include <stdlib.h>

static void test_plain_types(void **state)
{
    (void)state;
    static const struct {
        enum config_plain plain;
        const char *texts[16];
    } rows[] = {
        {CONFIG_PLAIN_NULL, {"", "~", "null"}},
        {CONFIG_PLAIN_BOOL, {"true", "false"}},
        {CONFIG_PLAIN_INT, {"0", "-1", "+7", "007", "0x1F", "0o17", "99999999999999999999"}},
        {CONFIG_PLAIN_FLOAT, {"1.5", "-.5", "1.", "1e3", "1.5E-7", ".inf", "-.INF", ".nan"}},
        {CONFIG_PLAIN_STRING,
         {"True", "yes", "off", "Null", ".", "-", "+", "e3", "1e", "1.2.3", "0x", "0xg", "1_000", "12:30",
          "-.e1", "0o8"}},
    };
    for (size_t i = 0; i < countof(rows); i++)
        for (size_t j = 0; j < 16 && rows[i].texts[j]; j++)
            assert_int_equal(config_plain_of(str_of(rows[i].texts[j])), rows[i].plain);
}

static void test_durations(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text;
        uint64_t us;
        const char *printed;
    } rows[] = {
        {"0s", 0, "0s"},
        {"1us", 1, "1us"},
        {"250ms", 250000, "250ms"},
        {"3s", 3000000, "3s"},
        {"1m30s", 90000000, "1m30s"},
        {"90s", 90000000, "1m30s"},
        {"1500ms", 1500000, "1s500ms"},
        {"2h", 7200000000, "2h"},
        {"36h", 129600000000, "36h"},
        {"48h", 172800000000, "2d"},
        {"1d2h3m4s5ms6us", 93784005006, "26h3m4s5ms6us"},
        {"3650d", 315360000000000, "3650d"},
    };
    static const char *const bad[] = {"",
                                      "s",
                                      "1",
                                      "-1s",
                                      "+1s",
                                      "1.5s",
                                      "1 s",
                                      "s1",
                                      "1s1",
                                      "1s1m",
                                      "1s1s",
                                      "1ns",
                                      "1sm",
                                      "1S",
                                      "1w",
                                      "3651d",
                                      "99999999999999999999s",
                                      "999999999999999999d",
                                      "1d 2h"};
    for (size_t i = 0; i < countof(rows); i++) {
        uint64_t us = 1;
        assert_true(config_duration(str_of(rows[i].text), &us));
        assert_int_equal(us, rows[i].us);
        assert_string_equal(config_new_duration(&fixture->arena, us)->text.p, rows[i].printed);
    }
    for (size_t i = 0; i < countof(bad); i++) {
        uint64_t us = 1;
        assert_false(config_duration(str_of(bad[i]), &us));
        assert_int_equal(us, 1);
    }
}

static void test_sizes(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *printed;
    } rows[] = {
        {"0", 0, "0"},
        {"512", 512, "512"},
        {"1024", 1024, "1KiB"},
        {"32KiB", 32768, "32KiB"},
        {"1536KiB", 1572864, "1536KiB"},
        {"10MiB", 10485760, "10MiB"},
        {"3GiB", UINT64_C(3) << 30, "3GiB"},
        {"9223372036854775807", INT64_MAX, "9223372036854775807"},
    };
    static const char *const bad[] = {"",
                                      "KiB",
                                      "1K",
                                      "1KB",
                                      "1kib",
                                      "-1",
                                      "1.5MiB",
                                      "1 KiB",
                                      "1TiB",
                                      "8589934592GiB",
                                      "9223372036854775808"};
    for (size_t i = 0; i < countof(rows); i++) {
        uint64_t bytes = 1;
        assert_true(config_size(str_of(rows[i].text), &bytes));
        assert_int_equal(bytes, rows[i].bytes);
        assert_string_equal(config_new_size(&fixture->arena, bytes)->text.p, rows[i].printed);
    }
    for (size_t i = 0; i < countof(bad); i++) {
        uint64_t bytes;
        assert_false(config_size(str_of(bad[i]), &bytes));
    }
}

static void test_variables(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text, *expanded; // NULL: refused
        bool changed;
    } rows[] = {
        {"", "", false},
        {"plain", "plain", false},
        {"$", "$", false},
        {"a$b $5", "a$b $5", false},
        {"$$", "$", false},
        {"$$$$", "$$", false},
        {"$$$", "$$", false},
        {"$${SALLYPORT_A}", "${SALLYPORT_A}", false},
        {"${SALLYPORT_A}", "one: {two}", true},
        {"x${SALLYPORT_A}y${SALLYPORT_A}", "xone: {two}yone: {two}", true},
        {"$$${SALLYPORT_A}", "$one: {two}", true},
        {"${SALLYPORT_EMPTY}", "", true},
        {"${SALLYPORT_EMPTY:-d}", "d", true},
        {"${SALLYPORT_NONE:-}", "", true},
        {"${SALLYPORT_NONE:-a:-b$c{d}", "a:-b$c{d", true},
        {"${SALLYPORT_A:-d}", "one: {two}", true},
        {"${SALLYPORT_A:?m}", "one: {two}", true},
        {"${SALLYPORT_NONE}", NULL, false},
        {"${SALLYPORT_NONE:?m}", NULL, false},
        {"${SALLYPORT_EMPTY:?}", NULL, false},
        {"${", NULL, false},
        {"${}", NULL, false},
        {"${A", NULL, false},
        {"${1A}", NULL, false},
        {"${A B}", NULL, false},
        {"${A:}", NULL, false},
        {"${A:x}", NULL, false},
        {"${A:+x}", NULL, false},
        {"${A:-${B}}", NULL, false},
        {"${A-b}", NULL, false},
    };
    setenv("SALLYPORT_A", "one: {two}", 1);
    setenv("SALLYPORT_EMPTY", "", 1);
    unsetenv("SALLYPORT_NONE");
    for (size_t i = 0; i < countof(rows); i++) {
        struct str out, why = STR_NULL;
        const char *hint = NULL;
        bool changed = false;
        bool done = config_expand(str_of(rows[i].text), &fixture->arena, &out, &changed, &why, &hint);
        assert_int_equal(done, rows[i].expanded != NULL);
        if (done) {
            assert_string_equal(out.p, rows[i].expanded);
            assert_int_equal(changed, rows[i].changed);
        } else {
            assert_true(why.n > 0 && hint);
        }
    }
}

static void test_a_variable_cannot_grow_without_bound(void **state)
{
    struct fixture *fixture = *state;
    struct buf text = {0};
    char *large = calloc(1, 100001);
    memset(large, 'x', 100000);
    setenv("SALLYPORT_LARGE", large, 1);
    free(large);
    for (int i = 0; i < 3; i++)
        buf_append(&text, STR("${SALLYPORT_LARGE}"));
    struct str out, why = STR_NULL;
    const char *hint;
    bool changed;
    assert_false(config_expand(buf_str(&text), &fixture->arena, &out, &changed, &why, &hint));
    assert_true(str_eq(why, STR("too long with its variables expanded")));
    buf_free(&text);
    unsetenv("SALLYPORT_LARGE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_types),
        cmocka_unit_test_setup_teardown(test_durations, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sizes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_variables, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_variable_cannot_grow_without_bound, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
