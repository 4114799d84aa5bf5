#include "unit.h"

#include "base/arena.h"
#include "http/query.h"

static void test_parameters(void **state)
{
    (void)state;
    struct str rest = STR("a=1&&b&=c&d=e=f&");
    static const struct {
        const char *name, *value;
    } rows[] = {{"a", "1"}, {"", ""}, {"b", ""}, {"", "c"}, {"d", "e=f"}};
    struct query_parameter parameter;
    for (size_t i = 0; i < countof(rows); i++) {
        assert_true(query_next(&rest, &parameter));
        assert_true(str_eq(parameter.name, str_of(rows[i].name)));
        assert_true(str_eq(parameter.value, str_of(rows[i].value)));
    }
    assert_false(query_next(&rest, &parameter));
}

static void test_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *encoded, *text;
    } rows[] = {
        {"abc", "abc"}, {"%61+%62", "a b"},     {"%", "%"}, {"%4", "%4"},
        {"%zz", "%zz"}, {"%C3%aB", "\xc3\xab"}, {"", ""},
    };
    char out[16];
    for (size_t i = 0; i < countof(rows); i++) {
        struct str encoded = str_of(rows[i].encoded), text = str_of(rows[i].text);
        assert_true(str_eq(query_decode(encoded, out), text));
        assert_true(query_text_eq(encoded, text));
        assert_false(query_text_eq(encoded, STR("abcd")));
    }
    assert_false(query_text_eq(STR("ab"), STR("abc")));
}

static void test_replaced(void **state)
{
    (void)state;
    static const struct {
        const char *query, *without, *masked;
    } rows[] = {
        {"k=1", "", "k=***"},
        {"k", "", "k=***"},
        {"k&k&k", "", "k=***&k=***&k=***"},
        {"a&k=1&b=k", "a&b=k", "a&k=***&b=k"},
        {"%6b=1&a", "a", "%6b=***&a"},
        {"a&&b&k", "a&&b", "a&&b&k=***"},
        {"K=1&kk=1&k%00=1", "K=1&kk=1&k%00=1", "K=1&kk=1&k%00=1"},
        {"", "", ""},
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        struct str query = str_of(rows[i].query);
        assert_true(str_eq(query_replace(query, STR("k"), STR_NULL, &arena), str_of(rows[i].without)));
        assert_true(str_eq(query_replace(query, STR("k"), STR("***"), &arena), str_of(rows[i].masked)));
    }
    struct str same = STR("a=1");
    assert_ptr_equal(query_replace(same, STR("k"), STR("***"), &arena).p, same.p);
    // The most that it can grow.
    static char many[20001];
    for (size_t i = 0; i < sizeof many; i++)
        many[i] = i % 2 ? '&' : 'k';
    struct str long_query = {many, sizeof many};
    assert_int_equal(query_replace(long_query, STR("k"), STR("***"), &arena).n, sizeof many + 10001 * 4);
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_decoded),
        cmocka_unit_test(test_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
