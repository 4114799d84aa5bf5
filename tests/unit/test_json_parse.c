// What is JSON, what is refused, and what the tree says.
#include "unit.h"

#include "base/buf.h"
#include "base/json.h"
#include "base/json_parse.h"

#include <stdlib.h>

struct parsed {
    struct arena arena;
    char *copy;
    const struct json_value *value;
    const char *why;
};

static void parse(struct parsed *parsed, struct str text)
{
    *parsed = (struct parsed){.copy = malloc(text.n ? text.n : 1)}; // of the exact size, for ASan
    memcpy(parsed->copy, text.p, text.n);
    arena_init(&parsed->arena, NULL);
    parsed->value = json_parse((struct str){parsed->copy, text.n}, &parsed->arena, &parsed->why);
    assert_true(!parsed->value == !!parsed->why);
}

static void forget(struct parsed *parsed)
{
    arena_reset(&parsed->arena);
    free(parsed->copy);
}

static bool is_good(struct str text)
{
    struct parsed parsed;
    parse(&parsed, text);
    forget(&parsed);
    return parsed.why == NULL;
}

static void test_good(void **state)
{
    (void)state;
    static const struct str texts[] = {
        STR("{}"),
        STR("[]"),
        STR("\"\""),
        STR("0"),
        STR("-0"),
        STR("-1.5e+3"),
        STR("1E-2"),
        STR("0.0"),
        STR("10e0007"),
        STR("123456789012345678901234567890.12345678901234567890"),
        STR("true"),
        STR("false"),
        STR("null"),
        STR(" \t\r\n{ \t\r\n} \t\r\n"),
        STR(" [ 1 , 2 , [ 3 , { } ] , \"x\" ] "),
        STR("{\"a\":1,\"b\":{\"c\":[null,true]},\"d\":\"\\\"\\\\\\/"
            "\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"}\r\n\t"),
        STR("{\"\":0}"),
        STR("{\"a\":1,\"A\":2,\"a \":3,\"a\\u0000\":4}"),
        STR("{\"a\":{\"a\":{\"a\":1}}}"),
        STR("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]"),
        STR("\"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f"
            "\xbf\xbf\""),
    };
    for (size_t i = 0; i < countof(texts); i++)
        if (!is_good(texts[i]))
            fail_msg("%s: refused", texts[i].p);
}

static void test_bad(void **state)
{
    (void)state;
    static const struct str texts[] = {
        STR(""),
        STR(" "),
        STR("{"),
        STR("["),
        STR("]"),
        STR("\""),
        STR("{]"),
        STR("[}"),
        STR("{\"a\"}"),
        STR("{\"a\":}"),
        STR("{\"a\":1,}"),
        STR("{,\"a\":1}"),
        STR("{\"a\":1,,\"b\":1}"),
        STR("{\"a\":1 \"b\":2}"),
        STR("{\"a\" 1}"),
        STR("{a:1}"),
        STR("{'a':1}"),
        STR("{1:1}"),
        STR("{null:1}"),
        STR("[1,]"),
        STR("[1 2]"),
        STR("[,1]"),
        STR("[,]"),
        STR("[1"),
        STR("[1,"),
        STR("{\"a\":[1,"),
        STR("nul"),
        STR("nulll"),
        STR("True"),
        STR("NaN"),
        STR("Infinity"),
        STR("-Infinity"),
        STR("x"),
        STR("undefined"),
        // numbers
        STR("01"),
        STR("-01"),
        STR("00"),
        STR("-"),
        STR("+1"),
        STR(".5"),
        STR("-.5"),
        STR("1."),
        STR("1.e1"),
        STR("1e"),
        STR("1e+"),
        STR("1e1.5"),
        STR("1e+-1"),
        STR("0x10"),
        STR("1_000"),
        STR("1 2"),
        STR("- 1"),
        STR("--1"),
        STR("\xd9\xa1"),
        // strings
        STR("\"\\x\""),
        STR("\"\\'\""),
        STR("\"\\0\""),
        STR("\"\\U0041\""),
        STR("\"\\u12\""),
        STR("\"\\u123\""),
        STR("\"\\u12g4\""),
        STR("\"\\u-123\""),
        STR("\"\\ud83d\""),
        STR("\"\\ud83dx\""),
        STR("\"\\ud83d\\\""),
        STR("\"\\ud83d\\n\""),
        STR("\"\\ud83d\\u0041\""),
        STR("\"\\ud83d\\ud83d\""),
        STR("\"\\ude00\""),
        STR("\"\\ude00\\ud83d\""),
        STR("\"a\nb\""),
        STR("\"a\tb\""),
        STR("\"a\0b\""),
        STR("\"\x1f\""),
        STR("\"\\\n\""),
        STR("\"\\"),
        STR("\"\\\""),
        STR("\"\\u"),
        STR("\"\\u1"),
        STR("\"abc"),
        STR("'a'"),
        // not UTF-8
        STR("\"\x80\""),
        STR("\"\xc3\""),
        STR("\"\xc3x\""),
        STR("\"\xc3"),
        STR("\"\xe2\x82\""),
        STR("\"\xe2\x82"),
        STR("\"\xf0\x9f\x98\""),
        STR("\"\xc0\xaf\""),
        STR("\"\xc1\xbf\""),
        STR("\"\xe0\x80\xaf\""),
        STR("\"\xe0\x9f\xbf\""),
        STR("\"\xf0\x80\x80\xaf\""),
        STR("\"\xed\xa0\x80\""),
        STR("\"\xed\xbf\xbf\""),
        STR("\"\xf4\x90\x80\x80\""),
        STR("\"\xf5\x80\x80\x80\""),
        STR("\"\xff\""),
        STR("\"\\\xc3\xa9\""),
        STR("{\"\xff\":1}"),
        STR("\xc2\xa0{}"),
        STR("\xef\xbb\xbf{}"),
        STR("\xff\xfe{\0}\0"),
        // something around it
        STR("{} {}"),
        STR("{}x"),
        STR("{}\0"),
        STR("\0{}"),
        STR("1 1"),
        STR("{}//"),
        STR("/**/{}"),
        STR("[1]]"),
        STR("\v{}"),
        STR("\f{}"),
        // twice
        STR("{\"a\":1,\"a\":1}"),
        STR("{\"a\":1,\"b\":2,\"\\u0061\":3}"),
        STR("{\"\":1,\"\":1}"),
        STR("{\"\\u0000\":1,\"\\u0000\":1}"),
        STR("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":1}"),
        STR("{\"x\":[{\"a\\/b\":1,\"a/b\":2}]}"),
        // too deep
        STR("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]"),
        STR("{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":[[[[[[[[0]]]]]]]]}}}}}}}}}"),
    };
    for (size_t i = 0; i < countof(texts); i++)
        if (is_good(texts[i]))
            fail_msg("%s: taken", texts[i].p);
}

static void test_strings(void **state)
{
    (void)state;
    static const struct {
        struct str text, want;
    } cases[] = {
        {STR("\"plain\""), STR("plain")},
        {STR("\"\\u0041\\u00e9\\u20AC\\uD83d\\ude00\""), STR("A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")},
        {STR("\"a\\u0000b\""), STR("a\0b")},
        {STR("\"\\u007f\\u0080\\u07ff\\u0800\\uffff\""), STR("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf")},
        {STR("\"\\ud800\\udc00\\udbff\\udfff\""), STR("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},
        {STR("\"tab\\there\""), STR("tab\there")},
        {STR("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), STR("\"\\/\b\f\n\r\t")},
        {STR("\"\\\\u0041\""), STR("\\u0041")},
        {STR("\"\xc3\xa9\""), STR("\xc3\xa9")},
        {STR("\"0123456789abcdef0123456789abcde\\n0123456789abcdef\""),
         STR("0123456789abcdef0123456789abcde\n0123456789abcdef")},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct parsed parsed;
        parse(&parsed, cases[i].text);
        if (!json_is_string(parsed.value) || !str_eq(parsed.value->text, cases[i].want))
            fail_msg("%s", cases[i].text.p);
        forget(&parsed);
    }
}

// A quote, a control, an escape or a sequence at every place of a long string is seen.
static void test_every_place(void **state)
{
    (void)state;
    static const struct {
        struct str piece;
        bool good;
    } pieces[] = {
        {STR("\x1f"), false},        {STR("\xff"), false}, {STR("\\n"), true},
        {STR("\xe2\x82\xac"), true}, {STR("\"x"), false},
    };
    for (size_t i = 0; i < countof(pieces); i++)
        for (size_t before = 0; before < 40; before++)
            for (size_t after = 0; after < 20; after++) {
                struct buf text = {0};
                buf_printf(&text, "\"%*s", (int)before, "");
                buf_append(&text, pieces[i].piece);
                buf_printf(&text, "%*s\"", (int)after, "");
                if (is_good(buf_str(&text)) != pieces[i].good)
                    fail_msg("%s", pieces[i].piece.p);
                buf_free(&text);
            }
}

// What must be escaped is, at every place of strings of every length, and what need not be is left alone.
static void test_every_place_escaped(void **state)
{
    (void)state;
    static const char specials[] = {'"', '\\', '\n', '\x01', '\x1f', '\x7f', '\xff'};
    for (size_t n = 1; n < 70; n++) {
        char text[70], escaped[JSON_ESCAPE_MAX * 70];
        memset(text, '~', n);
        assert_int_equal(json_escape((struct str){text, n}, escaped), n);
        assert_memory_equal(escaped, text, n);
        for (size_t at = 0; at < n; at++)
            for (size_t i = 0; i < sizeof specials; i++) {
                memset(text, ' ', n);
                text[at] = specials[i];
                size_t written = json_escape((struct str){text, n}, escaped);
                assert_true(written > n);
                assert_int_equal(escaped[at], specials[i] == '\xff' ? '\xef' : '\\');
                if (at + 1 < n)
                    assert_int_equal(escaped[written - 1], ' ');
            }
    }
}

static void test_tree(void **state)
{
    (void)state;
    struct parsed parsed;
    static const char text[] =
        "{\"n\":-1.50e2,\"list\":[true,\"x\",{}],\"o\":{\"in\":null},\"s\":\"v\",\"z\":false}";
    parse(&parsed, STR(text));
    const struct json_value *root = parsed.value, *list = json_get(root, STR("list"));
    assert_non_null(root);
    assert_int_equal(root->kind, JSON_OBJECT);
    assert_int_equal(root->count, 5);
    assert_true(str_eq(root->first->key, STR("n")));
    assert_int_equal(root->first->kind, JSON_NUMBER);
    assert_true(str_eq(root->first->text, STR("-1.50e2")));
    assert_ptr_equal(root->first->next, list);
    assert_true(str_eq(root->text, str_of(text)));
    assert_true(str_eq(list->text, STR("[true,\"x\",{}]")));
    assert_true(str_eq(list->first->text, STR("true")));
    assert_int_equal(list->kind, JSON_ARRAY);
    assert_int_equal(list->count, 3);
    assert_int_equal(list->first->kind, JSON_TRUE);
    assert_true(json_is_string(list->first->next));
    assert_int_equal(list->first->next->next->kind, JSON_OBJECT);
    assert_null(list->first->next->next->next);
    assert_int_equal(json_get_path(root, STR("o.in"))->kind, JSON_NULL);
    assert_ptr_equal(json_get(root, STR("s"))->text.p, strchr(parsed.copy, 'v')); // not copied
    assert_int_equal(json_get(root, STR("z"))->kind, JSON_FALSE);
    assert_null(json_get(root, STR("N")));
    assert_null(json_get(root, STR("")));
    assert_null(json_get(list, STR("x")));
    assert_null(json_get(NULL, STR("x")));
    assert_false(json_is_string(root->first));
    assert_false(json_is_string(NULL));
    forget(&parsed);
}

static void test_paths(void **state)
{
    (void)state;
    static const struct {
        struct str path;
        const char *want; // NULL: none
    } cases[] = {
        {STR("realm_access.roles"), "1"},
        {STR("https://x.example/roles"), "2"},
        {STR("a.b"), "3"},
        {STR("a.c"), NULL},
        {STR("o.p.q"), "4"},
        {STR("o.p"), NULL},
        {STR("plain"), "6"},
        {STR("plain.x"), NULL},
        {STR("list.0"), NULL},
        {STR("."), NULL},
        {STR(""), NULL},
        {STR("o."), "7"},
        {STR("none.none"), NULL},
    };
    struct parsed parsed;
    parse(&parsed,
          STR("{\"realm_access\":{\"roles\":1},\"https://x.example/roles\":2,\"a.b\":3,\"a\":{\"b\":9},"
              "\"o\":{\"p.q\":4,\"\":7},\"plain\":6,\"list\":[1]}"));
    assert_non_null(parsed.value);
    for (size_t i = 0; i < countof(cases); i++) {
        const struct json_value *value = json_get_path(parsed.value, cases[i].path);
        if (!value != !cases[i].want || (value && !str_eq(value->text, str_of(cases[i].want))))
            fail_msg("%s", cases[i].path.p);
    }
    forget(&parsed);
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        bool good;
        int64_t want;
    } cases[] = {
        {STR("0"), true, 0},
        {STR("-0"), true, 0},
        {STR("1700000000"), true, 1700000000},
        {STR("1700000000.9"), true, 1700000000},
        {STR("-1.9"), true, -1},
        {STR("1.7e9"), true, 1700000000},
        {STR("1.7E+9"), true, 1700000000},
        {STR("17000000000e-1"), true, 1700000000},
        {STR("123e-5"), true, 0},
        {STR("12.345e2"), true, 1234},
        {STR("12.345e-1"), true, 1},
        {STR("9007199254740992"), true, 9007199254740992},
        {STR("-9007199254740992"), true, -9007199254740992},
        {STR("9007199254740992.999"), true, 9007199254740992},
        {STR("9007199254740993"), false, 0},
        {STR("9223372036854775808"), false, 0},
        {STR("18446744073709551617"), false, 0},
        {STR("99999999999999999999999999"), false, 0},
        {STR("1e15"), true, 1000000000000000},
        {STR("1e16"), false, 0},
        {STR("1e99"), false, 0},
        {STR("1e99999999999999999999999"), false, 0},
        {STR("1e-99999999999999999999999"), true, 0},
        {STR("0e99999999999999999999999"), true, 0},
        {STR("0.000e40"), true, 0},
        {STR("0.0000000000000000001e20"), true, 10},
        {STR("\"1\""), false, 0},
        {STR("null"), false, 0},
        {STR("true"), false, 0},
        {STR("[1]"), false, 0},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct parsed parsed;
        int64_t got = 0;
        parse(&parsed, cases[i].text);
        if (json_integer(parsed.value, &got) != cases[i].good || got != cases[i].want)
            fail_msg("%s: %lld", cases[i].text.p, (long long)got);
        forget(&parsed);
    }
    assert_false(json_integer(NULL, &(int64_t){0}));
}

// `count` members, the last one named as the one at `twin`.
static bool takes_members(unsigned count, unsigned twin)
{
    struct buf text = {0};
    buf_append(&text, STR("{"));
    for (unsigned i = 0; i < count; i++)
        buf_printf(&text, "%s\"k%u\":0", i ? "," : "", i == count - 1 ? twin : i);
    buf_append(&text, STR("}"));
    bool good = is_good(buf_str(&text));
    buf_free(&text);
    return good;
}

static void test_duplicates_among_many(void **state)
{
    (void)state;
    for (unsigned count = 2; count < 100; count++) {
        assert_true(takes_members(count, count - 1));
        for (unsigned twin = 0; twin + 1 < count; twin++)
            assert_false(takes_members(count, twin));
    }
    assert_true(takes_members(JSON_PARSE_VALUES - 1, JSON_PARSE_VALUES - 2));
    assert_false(takes_members(JSON_PARSE_VALUES - 1, 5000));
}

static bool takes_elements(unsigned count)
{
    struct buf text = {0};
    buf_append(&text, STR("["));
    for (unsigned i = 0; i < count; i++)
        buf_append(&text, i ? STR(",0") : STR("0"));
    buf_append(&text, STR("]"));
    bool good = is_good(buf_str(&text));
    buf_free(&text);
    return good;
}

static void test_bounds(void **state)
{
    (void)state;
    assert_true(takes_elements(JSON_PARSE_VALUES - 1));
    assert_false(takes_elements(JSON_PARSE_VALUES));
    assert_false(takes_members(JSON_PARSE_VALUES, JSON_PARSE_VALUES - 1));

    char *spaces = malloc(JSON_PARSE_BYTES + 1);
    memset(spaces, ' ', JSON_PARSE_BYTES + 1);
    spaces[0] = '1';
    assert_true(is_good((struct str){spaces, JSON_PARSE_BYTES}));
    assert_false(is_good((struct str){spaces, JSON_PARSE_BYTES + 1}));
    free(spaces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_every_place),
        cmocka_unit_test(test_every_place_escaped),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_duplicates_among_many),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
