// RESP2 and RESP3: what a value means, what is refused, and that pieces make no difference.
#include "unit_arena.h"

#include "redis/resp.h"

#include <math.h>
#include <stdlib.h>

enum { MAX = 1 << 20 };

// ---- printing, so that tables can say what they expect ----

static void print(struct buf *out, const struct resp_value *value)
{
    switch (value->kind) {
    case RESP_STRING: buf_printf(out, "'%.*s'", STR_ARG(value->text)); break;
    case RESP_ERROR: buf_printf(out, "!%.*s", STR_ARG(value->text)); break;
    case RESP_INTEGER: buf_printf(out, "%lld", (long long)value->integer); break;
    case RESP_DOUBLE: buf_printf(out, "%gd", isnan(value->number) ? (double)NAN : value->number); break;
    case RESP_NULL: buf_append(out, STR("null")); break;
    case RESP_ARRAY:
    case RESP_PUSH:
        buf_append(out, value->kind == RESP_PUSH ? STR(">[") : STR("["));
        for (uint32_t i = 0; i < value->count; i++) {
            if (i)
                buf_append(out, STR(" "));
            print(out, &value->items[i]);
        }
        buf_append(out, STR("]"));
        break;
    }
}

static void assert_prints(const struct resp_value *value, const char *wanted)
{
    struct buf out = {0};
    print(&out, value);
    buf_append(&out, (struct str){"", 1});
    assert_string_equal(out.base, wanted);
    buf_free(&out);
}

static const struct {
    const char *text, *wanted;
} good[] = {
    {"+OK\r\n", "'OK'"},
    {"+\r\n", "''"},
    {"-ERR unknown command\r\n", "!ERR unknown command"},
    {":0\r\n", "0"},
    {":-1\r\n", "-1"},
    {":+7\r\n", "7"},
    {":9223372036854775807\r\n", "9223372036854775807"},
    {":-9223372036854775808\r\n", "-9223372036854775808"},
    {"$5\r\nhello\r\n", "'hello'"},
    {"$0\r\n\r\n", "''"},
    {"$2\r\n\r\n\r\n", "'\r\n'"},
    {"$-1\r\n", "null"},
    {"*-1\r\n", "null"},
    {"*0\r\n", "[]"},
    {"*2\r\n$3\r\nfoo\r\n:1\r\n", "['foo' 1]"},
    {"*2\r\n*1\r\n+a\r\n*2\r\n$-1\r\n-E\r\n", "[['a'] [null !E]]"},
    // RESP3
    {"_\r\n", "null"},
    {"#t\r\n", "1"},
    {"#f\r\n", "0"},
    {",1.5\r\n", "1.5d"},
    {",-2e3\r\n", "-2000d"},
    {",10\r\n", "10d"},
    {",inf\r\n", "infd"},
    {",-inf\r\n", "-infd"},
    {",nan\r\n", "nand"},
    {"(3492890328409238509324850943850943825024385\r\n", "'3492890328409238509324850943850943825024385'"},
    {"(-12\r\n", "'-12'"},
    {"!5\r\nERR x\r\n", "!ERR x"},
    {"=8\r\ntxt:Some\r\n", "'Some'"},
    {"=4\r\nmkd:\r\n", "''"},
    {"%0\r\n", "[]"},
    {"%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n_\r\n", "['a' 1 'b' [null]]"},
    {"~3\r\n#t\r\n,0.5\r\n(7\r\n", "[1 0.5d '7']"},
    {">3\r\n+message\r\n+c\r\n$1\r\nx\r\n", ">['message' 'c' 'x']"},
    // attributes are passed over, wherever they stand
    {"|1\r\n+ttl\r\n:3600\r\n+OK\r\n", "'OK'"},
    {"|0\r\n+OK\r\n", "'OK'"},
    {"*2\r\n|1\r\n+k\r\n*2\r\n:1\r\n:2\r\n:3\r\n:4\r\n", "[3 4]"},
    {"*1\r\n|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n+d\r\n|1\r\n+e\r\n+f\r\n:9\r\n", "[9]"},
    {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "[[[[[[[[1]]]]]]]]"},
};

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(good); i++) {
        struct str data = str_of(good[i].text);
        struct resp_value value;
        size_t used = 0;
        assert_int_equal(resp_parse(data, MAX, &arena, &value, &used), RESP_VALUE);
        assert_int_equal(used, data.n);
        assert_prints(&value, good[i].wanted);
    }
}

static struct str followed(struct str text)
{
    char *both = arena_alloc(&arena, text.n + 4);
    memcpy(both, text.p, text.n);
    memcpy(both + text.n, ":5\r\n", 4);
    return (struct str){both, text.n + 4};
}

// Every beginning wants more; byte by byte with one walk, the same value comes out; what follows stays.
static void test_values_in_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(good); i++) {
        struct str text = str_of(good[i].text), behind = followed(text);
        struct resp_walk walk = {0};
        struct resp_value value;
        size_t used = 0;
        for (size_t n = 0; n < text.n; n++) {
            assert_int_equal(resp_parse((struct str){text.p, n}, MAX, &arena, &value, &used), RESP_MORE);
            assert_int_equal(resp_continue(&walk, (struct str){text.p, n}, MAX, &arena, &value, &used),
                             RESP_MORE);
            assert_true(walk.needed > n && walk.needed <= text.n);
        }
        assert_int_equal(resp_continue(&walk, behind, MAX, &arena, &value, &used), RESP_VALUE);
        assert_int_equal(used, text.n);
        assert_prints(&value, good[i].wanted);
    }
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "x\r\n",
        "\r\n",
        "\n",
        "OK\r\n",
        "+OK\n",
        "+O\rK\r\n",
        ":\r\n",
        ":1a\r\n",
        ":--1\r\n",
        ":9223372036854775808\r\n",
        ":-9223372036854775809\r\n",
        ": 1\r\n",
        "$\r\n",
        "$x\r\n",
        "$-2\r\n",
        "$+1\r\na\r\n",
        "$01\r\na\r\n",
        "$1\r\nab\r\n",
        "$1\r\na\rx",
        "$99999999999999999999\r\n",
        "$9223372036854775807\r\n",
        "*-2\r\n",
        "*1000001\r\n",
        "*9223372036854775807\r\n",
        "%9223372036854775807\r\n",
        "%-1\r\n",
        "~-1\r\n",
        ">-1\r\n",
        ">0\r\n",
        "*1\r\n>1\r\n+a\r\n",
        "|1\r\n+a\r\n+b\r\n>1\r\n+x\r\n",
        "_x\r\n",
        "#\r\n",
        "#x\r\n",
        "#tt\r\n",
        ",\r\n",
        ",x\r\n",
        ",0x10\r\n",
        ",1.5x\r\n",
        ",infinity\r\n",
        ",1 \r\n",
        "(\r\n",
        "(-\r\n",
        "(1.5\r\n",
        "(12a\r\n",
        "!-1\r\n",
        "=-1\r\n",
        "=3\r\ntxt\r\n",
        "=5\r\ntxt;x\r\n",
        // streamed
        "$?\r\n;4\r\nabcd\r\n;0\r\n",
        "*?\r\n:1\r\n.\r\n",
        "%?\r\n",
        "~?\r\n",
        ";4\r\nabcd\r\n",
        ".\r\n",
        // deeper than RESP_DEPTH
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        "|1\r\n|1\r\n|1\r\n|1\r\n|1\r\n|1\r\n|1\r\n|1\r\n|1\r\n",
        "*2\r\n:1\r\n!x\r\n",
    };
    for (size_t i = 0; i < countof(bad); i++) {
        struct resp_value value;
        size_t used = 0;
        if (resp_parse(str_of(bad[i]), MAX, &arena, &value, &used) != RESP_BAD)
            fail_msg("taken: %s", bad[i]);
    }
}

static void test_a_line_has_a_bound(void **state)
{
    (void)state;
    struct buf buf = {0};
    struct resp_value value;
    size_t used = 0;
    buf_append(&buf, STR("+"));
    while (buf_len(&buf) <= RESP_LINE_BYTES)
        buf_append(&buf, STR("x"));
    assert_int_equal(resp_parse(buf_str(&buf), MAX, &arena, &value, &used), RESP_BAD);
    buf_free(&buf);
}

static void test_a_value_has_a_bound(void **state)
{
    (void)state;
    struct resp_value value;
    size_t used = 0;
    struct str blob = STR("$5\r\nhello\r\n"), array = STR("*2\r\n:1\r\n:2\r\n");
    assert_int_equal(resp_parse(blob, blob.n, &arena, &value, &used), RESP_VALUE);
    assert_int_equal(resp_parse(blob, blob.n - 1, &arena, &value, &used), RESP_BAD);
    assert_int_equal(resp_parse((struct str){blob.p, 4}, blob.n - 1, &arena, &value, &used),
                     RESP_BAD); // announced
    assert_int_equal(resp_parse(array, array.n, &arena, &value, &used), RESP_VALUE);
    assert_int_equal(resp_parse(array, array.n - 1, &arena, &value, &used), RESP_BAD);
    assert_int_equal(resp_parse(STR("*1000\r\n"), 3000, &arena, &value, &used), RESP_BAD); // cannot fit
    assert_int_equal(resp_parse(STR("*1000\r\n"), 3007, &arena, &value, &used), RESP_MORE);
    // Of all levels together.
    assert_int_equal(resp_parse(STR("*600000\r\n*600000\r\n"), SIZE_MAX / 2, &arena, &value, &used),
                     RESP_BAD);
    // What is announced costs nothing: only the pair above was built.
    assert_true(arena.blocks && !arena.blocks->next);
}

// A megabyte that comes in pieces of a hundred bytes: looked at once, by `needed`.
static void test_large_values_are_walked_once(void **state)
{
    (void)state;
    struct buf buf = {0};
    struct resp_walk walk = {0};
    struct resp_value value;
    size_t used = 0, n = 0;
    unsigned asked = 0;
    enum resp_result result = RESP_MORE;
    buf_append(&buf, STR("$1000000\r\n"));
    for (unsigned i = 0; i < 100000; i++)
        buf_append(&buf, STR("0123456789"));
    buf_append(&buf, STR("\r\n"));
    while (result == RESP_MORE) {
        n = n + 100 < buf_len(&buf) ? n + 100 : buf_len(&buf);
        if (n < walk.needed)
            continue;
        asked++;
        result = resp_continue(&walk, (struct str){buf.base, n}, MAX, &arena, &value, &used);
    }
    assert_int_equal(result, RESP_VALUE);
    assert_int_equal(value.text.n, 1000000);
    assert_int_equal(asked, 2);
    buf_free(&buf);
}

static void test_commands(void **state)
{
    (void)state;
    struct buf out = {0};
    struct resp_value value;
    size_t used = 0;
    const struct str argv[] = {STR("SET"), STR(""), STR("a\r\nb")};
    resp_command(&out, argv, 3);
    assert_memory_equal(out.base, "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n", buf_len(&out));
    assert_int_equal(resp_parse(buf_str(&out), MAX, &arena, &value, &used), RESP_VALUE);
    assert_prints(&value, "['SET' '' 'a\r\nb']");
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_values_in_pieces, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_what_is_refused, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_a_line_has_a_bound, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_a_value_has_a_bound, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_large_values_are_walked_once, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_commands, arena_begin, arena_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
