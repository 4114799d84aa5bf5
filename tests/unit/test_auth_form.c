// Form bodies, credentials and lists of words that clients of the Auth Service send.
#include "unit.h"

#include "auth_service/form.h"

static struct arena arena;

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *name, *value; // NULL: refused
    } cases[] = {
        {"a=1&b=2", "b", "2"},   {"a=1+2%2B%26", "a", "1 2+&"},
        {"a%20b=c", "a b", "c"}, {"a=b=c", "a", "b=c"},
        {"a", "a", ""},          {"a=&a=1", "a", "1"}, // without a value: left out
        {"&&a=1&", "a", "1"},    {"", "a", ""},
        {"a=1&a=2", NULL, NULL}, {"a=1&%61=1", NULL, NULL},
        {"a=%", NULL, NULL},     {"a=%4", NULL, NULL},
        {"a=%4g", NULL, NULL},   {"a=%00", NULL, NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct form form;
        const char *why = "";
        bool good = form_parse(str_of(cases[i].text), &arena, &form, &why);
        if (good != (cases[i].name != NULL))
            fail_msg("%s: %s", cases[i].text, why);
        if (good && !str_eq(form_get(&form, str_of(cases[i].name)), str_of(cases[i].value)))
            fail_msg("%s: %s", cases[i].text, cases[i].value);
    }
}

static void test_many(void **state)
{
    (void)state;
    char text[FORM_FIELDS * 8 + 8] = "";
    struct form form;
    const char *why;
    for (int i = 0; i < FORM_FIELDS; i++)
        snprintf(text + strlen(text), 8, "%d=1&", i);
    assert_true(form_parse(str_of(text), &arena, &form, &why));
    snprintf(text + strlen(text), 8, "x=1");
    assert_false(form_parse(str_of(text), &arena, &form, &why));
}

static void test_basic(void **state)
{
    (void)state;
    static const struct {
        const char *header, *id, *secret; // id NULL: refused
    } cases[] = {
        {"Basic YTpi", "a", "b"},      {"basic  YTpi", "a", "b"},      {"Basic YTpiOmM=", "a", "b:c"},
        {"Basic YTolM2Er", "a", ": "}, // form-encoded
        {"Basic YTo=", "a", ""},       {"Basic OmI=", NULL, NULL},     {"Basic YWI=", NULL, NULL},
        {"Basic YTpi=", NULL, NULL},   {"Basic YTolMA==", NULL, NULL}, {"Basic", NULL, NULL},
        {"BasicYTpi", NULL, NULL},     {"Bearer YTpi", NULL, NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct str id, secret;
        bool good = form_basic(str_of(cases[i].header), &arena, &id, &secret);
        if (good != (cases[i].id != NULL))
            fail_msg("%s", cases[i].header);
        if (good && (!str_eq(id, str_of(cases[i].id)) || !str_eq(secret, str_of(cases[i].secret))))
            fail_msg("%s: %.*s %.*s", cases[i].header, STR_ARG(id), STR_ARG(secret));
    }
}

static void test_bearer(void **state)
{
    (void)state;
    assert_true(str_eq(form_bearer(STR("bearer x.y")), STR("x.y")));
    assert_int_equal(form_bearer(STR("Bearer x y")).n, 0);
    assert_int_equal(form_bearer(STR("Basic x")).n, 0);
    assert_int_equal(form_bearer(STR_NULL).n, 0);
}

static void test_words(void **state)
{
    (void)state;
    struct str rest = STR("  a  b "), word;
    assert_true(form_next_word(&rest, &word) && str_eq(word, STR("a")));
    assert_true(form_next_word(&rest, &word) && str_eq(word, STR("b")));
    assert_false(form_next_word(&rest, &word));
    assert_true(form_has_word(STR("a bc d"), STR("bc")));
    assert_false(form_has_word(STR("a bc d"), STR("b")));
    assert_true(form_is_word(STR("orders:read")));
    assert_false(form_is_word(STR("a b")) || form_is_word(STR("a,b")) || form_is_word(STR("\"")) ||
                 form_is_word(STR("\\")) || form_is_word(STR("a\r")) || form_is_word(STR("\xc3\xa4")) ||
                 form_is_word(STR_NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),  cmocka_unit_test(test_many),  cmocka_unit_test(test_basic),
        cmocka_unit_test(test_bearer), cmocka_unit_test(test_words),
    };
    arena_init(&arena, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_reset(&arena);
    return failed;
}
