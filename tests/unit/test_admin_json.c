// The reader of request bodies.
#include "unit.h"

#include "admin/json_read.h"
#include "base/buf.h"

static const char *skip_all(const char *text)
{
    struct arena arena;
    arena_init(&arena, NULL);
    struct json_reader reader = {.rest = str_of(text), .arena = &arena};
    json_read_skip(&reader);
    const char *why = json_read_end(&reader) ? NULL : reader.why;
    arena_reset(&arena);
    return why;
}

static void test_good(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        "\"\"",
        "1",
        "-1.5e+3",
        "true",
        "false",
        "null",
        " { } ",
        "[1,2,[3,{}],\"x\"]",
        "{\"a\":1,\"b\":{\"c\":[null,true]},\"d\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"}\r\n\t",
    };
    for (size_t i = 0; i < countof(texts); i++)
        if (skip_all(texts[i]))
            fail_msg("%s: %s", texts[i], skip_all(texts[i]));
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "[",
        "]",
        "\"",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "[,1]",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "nul",
        "x",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ude00\"",
        "\"a\nb\"",
        "{} {}",
        "1 1",
        "\"\\",
        "{\"a\":[1,",
        "[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]",
    };
    for (size_t i = 0; i < countof(texts); i++)
        if (!skip_all(texts[i]))
            fail_msg("%s: taken", texts[i]);
}

static void test_strings(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"\"plain\"", "plain"},
        {"\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\"tab\\there\"", "tab\there"},
        {"\"\xc3\xa9\"", "\xc3\xa9"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct json_reader reader = {.rest = str_of(cases[i].text), .arena = &arena};
        struct str got = json_read_string(&reader);
        assert_true(json_read_end(&reader));
        if (!str_eq(got, str_of(cases[i].want)))
            fail_msg("%s: got %.*s", cases[i].text, STR_ARG(got));
        arena_reset(&arena);
    }
}

static void test_members(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct json_reader reader = {.rest = STR("{\"a\":[\"x\",\"y\"],\"b\":{},\"a\":\"z\"}"), .arena = &arena};
    struct str key;
    struct buf seen = {0};
    for (json_read_enter(&reader, '{'); json_read_member(&reader, &key);) {
        buf_append(&seen, key);
        if (json_read_peek(&reader) == '[') {
            for (json_read_enter(&reader, '['); json_read_item(&reader);)
                buf_append(&seen, json_read_string(&reader));
        } else {
            json_read_skip(&reader);
        }
    }
    assert_true(json_read_end(&reader));
    assert_true(str_eq(buf_str(&seen), STR("axyba")));
    buf_free(&seen);
    arena_reset(&arena);
}

static void test_wrong_type_stops(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct json_reader reader = {.rest = STR("[1]"), .arena = &arena};
    struct str key;
    json_read_enter(&reader, '{');
    assert_false(json_read_member(&reader, &key));
    assert_false(json_read_end(&reader));
    assert_string_equal(reader.why, "expected an object");
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_wrong_type_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
