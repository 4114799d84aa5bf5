#include "test_config_fixture.h"

static struct config_node *parse(struct fixture *fixture, const char *text)
{
    return config_parse(STR("t"), str_of(text), &fixture->arena, &fixture->report);
}

static void test_nodes_know_where_they_stand(void **state)
{
    struct fixture *fixture = *state;
    const struct config_node *root = parse(fixture, "a: 1\nlist:\n  - x\n  - {k: 'v', ü: \"w\"}\nempty:\n");
    assert_non_null(root);
    assert_int_equal(root->kind, CONFIG_MAP);
    assert_int_equal(root->count, 3);
    const struct config_node *list = config_get(root, STR("list"));
    assert_int_equal(list->key_line, 2);
    assert_int_equal(list->key_column, 1);
    assert_int_equal(list->line, 3);
    assert_int_equal(list->column, 3);
    const struct config_node *map = list->first->next, *w = config_get(map, STR("ü"));
    assert_int_equal(w->line, 4);
    assert_int_equal(w->key_column, 14);
    assert_int_equal(w->column, 17); // characters, not bytes
    assert_true(w->quoted && config_get(map, STR("k"))->quoted);
    assert_false(list->first->quoted);
    assert_int_equal(config_get(root, STR("empty"))->kind, CONFIG_NULL);
    assert_null(config_get(root, STR("none")));
    assert_null(config_get(list, STR("x")));
    assert_string_equal(take_report(fixture), "");
}

static void test_null_is_told_from_text(void **state)
{
    struct fixture *fixture = *state;
    const struct config_node *root =
        parse(fixture, "[~, null, '', \"null\", Null, '${SALLYPORT_NONE:-null}']");
    static const enum config_kind kinds[] = {CONFIG_NULL,   CONFIG_NULL,   CONFIG_SCALAR,
                                             CONFIG_SCALAR, CONFIG_SCALAR, CONFIG_SCALAR};
    size_t i = 0;
    for (const struct config_node *child = root->first; child; child = child->next)
        assert_int_equal(child->kind, kinds[i++]);
    assert_int_equal(i, countof(kinds));
}

static void test_aliases_share_what_is_below_them(void **state)
{
    struct fixture *fixture = *state;
    const struct config_node *root = parse(fixture, "a: &x {k: [1, 2]}\nb: *x\nc: [*x, &x 5, *x]\n");
    const struct config_node *a = config_get(root, STR("a")), *b = config_get(root, STR("b"));
    assert_ptr_equal(a->first, b->first);
    assert_int_equal(b->line, 2);
    assert_int_equal(b->first->line, 1);
    const struct config_node *c = config_get(root, STR("c"));
    assert_int_equal(c->count, 3);
    assert_true(str_eq(c->first->next->next->text, STR("5"))); // the later anchor
    assert_string_equal(take_report(fixture), "");
}

// Each is reported, and whether there still is a tree.
static void test_refusals(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text, *report;
        bool has_tree;
    } rows[] = {
        {"", "t:1:1: the file is empty", false},
        {"a: 1\na: 2\n", "t:2:1: a: duplicate key, first on line 1", true},
        {"a: {b: 1, 'b': 2}\n", "t:1:11: a.b: duplicate key", true},
        {"a: &x {}\nb: {<<: *x}\n", "t:2:5: b.<<: merge keys", true},
        {"a: !!str 5\n", "t:1:4: a: tags (tag:yaml.org,2002:str) are not supported", true},
        {"- [a, *b]\n", "t:1:7: [0][1]: no anchor &b", true},
        {"? {a: 1}\n: 2\n", "t:1:3: a key must be a single word", false},
        {"*a : 1\n", "t:1:1: an alias cannot be a key", false},
        {"a: 1\n---\nb: 2\n", "t:2:1: a second document", false},
        {"a: [\n", "t:2:1: a[0]: not YAML:", false},
        {"a:\n\t- b\n", "spaces, not tabs", false},
        {"a: \"\\0\"\n", "t:1:4: a: a NUL character", true},
        {"a: \xff\n", "t:1:4: not YAML: invalid leading UTF-8 octet", false},
        {"a\n\x01\n", "t:2:1: not YAML: control characters are not allowed", false},
        {"a: ${\n", "t:1:4: a: malformed ${…}", true},
        {"a: "
         "{\"012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345"
         "6789"
         "012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
         "9"
         "012345678901234567890123456789012345678901234567890123456\": 1}\n",
         ": the key is too long", true},
        {"%YAML 3.0\n---\na: 1\n", "not YAML: found incompatible YAML document", false},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        const struct config_node *root = parse(fixture, rows[i].text);
        const char *report = take_report(fixture);
        if (!strstr(report, rows[i].report) || (root != NULL) != rows[i].has_tree)
            fail_msg("%s: %s", rows[i].text, report);
    }
}

static void test_bounds(void **state)
{
    struct fixture *fixture = *state;
    struct buf text = {0};
    for (int depth = CONFIG_DEPTH; depth <= CONFIG_DEPTH + 1; depth++) {
        text.end = 0;
        for (int i = 0; i < depth; i++)
            buf_append(&text, STR("["));
        for (int i = 0; i < depth; i++)
            buf_append(&text, STR("]"));
        bool has_tree = config_parse(STR("t"), buf_str(&text), &fixture->arena, &fixture->report) != NULL;
        assert_int_equal(has_tree, depth == CONFIG_DEPTH);
        assert_int_equal(strstr(take_report(fixture), "nested too deeply") != NULL, depth > CONFIG_DEPTH);
    }
    buf_free(&text);
    // The depth that an alias brings along counts as well.
    assert_null(
        parse(fixture, "- &a [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n- [[[[[[[[[[[[[[[[[*a]]]]]]]]]]]]]]]]]\n"));
    assert_non_null(strstr(take_report(fixture), "nested too deeply"));
    // 10^6 nodes by aliases.
    assert_null(parse(fixture,
                      "- &a [1,1,1,1,1,1,1,1,1,1]\n- &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                      "- &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n- &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                      "- &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n- &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"));
    assert_non_null(strstr(take_report(fixture), "aliases unfold into too many values"));
    assert_null(config_parse(STR("t"), (struct str){"", (size_t)CONFIG_BYTES + 1}, &fixture->arena,
                             &fixture->report));
    assert_string_equal(take_report(fixture), "t: the file is too large (at most 256 MiB)\n");
}

static void test_many_keys_are_compared_by_hash(void **state)
{
    struct fixture *fixture = *state;
    struct buf text = {0};
    for (int i = 0; i < 100; i++)
        buf_printf(&text, "k%d: &a {x: 1}\n", i);
    buf_append(&text, STR("k99: 1\nk3: *a\nnew: *a\nnew: 2\n"));
    const struct config_node *root =
        config_parse(STR("t"), buf_str(&text), &fixture->arena, &fixture->report);
    assert_int_equal(root->count, 101);
    assert_string_equal(take_report(fixture),
                        "t:101:1: k99: duplicate key, first on line 100 (remove one of the two)\n"
                        "t:102:1: k3: duplicate key, first on line 4 (remove one of the two)\n"
                        "t:104:1: new: duplicate key, first on line 103 (remove one of the two)\n");
    buf_free(&text);
}

static void test_printing_reads_back(void **state)
{
    struct fixture *fixture = *state;
    const struct config_node *root =
        parse(fixture, "a: null\n"
                       "b: [1, 2.5, true, 'true', '', 'x y', \"tab\\tü\\\"\\\\\", '$$$${', '$x', -1]\n"
                       "'weird: key': {}\n"
                       "'${k}': []\n"
                       "c: [[], [[1]], {x: {y: [z]}}, [{q: 1, r: 2}]]\n"
                       "d: 'off'\n"
                       "e: '007'\n"
                       "g: \"a\\N\\L\\uFEFF\\uFFFF\\x7fü\\b\"\n"
                       "f: |\n  two\n  lines\n");
    assert_string_equal(take_report(fixture), "");
    for (int as_json = 0; as_json < 2; as_json++) {
        struct buf out[2] = {{0}, {0}};
        for (int i = 0; i < 2; i++) {
            struct json json;
            json_init(&json, &out[i], true);
            if (as_json)
                config_print_json(root, &json);
            else
                config_print_yaml(root, &out[i]);
            root = config_parse(STR("t"), buf_str(&out[i]), &fixture->arena, &fixture->report);
            assert_string_equal(take_report(fixture), "");
            assert_non_null(root);
        }
        assert_true(str_eq(buf_str(&out[0]), buf_str(&out[1])));
        assert_true(str_eq(config_get(root, STR("f"))->text, STR("two\nlines\n")));
        assert_int_equal(config_get(root, STR("e"))->quoted, true);
        assert_true(str_eq(config_get(root, STR("g"))->text,
                           STR("a\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xef\xbf\xbf\x7fü\b")));
        assert_true(str_eq(config_get(root, STR("b"))->first->next->next->next->next->next->next->next->text,
                           STR("$${")));
        buf_free(&out[0]);
        buf_free(&out[1]);
    }
}

static void test_printable(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x01",          "a\x7f",        "\xc2\x85",
                                      "x\xe2\x80\xa8", "\xe2\x80\xa9", "\xef\xbb\xbf"};
    for (size_t i = 0; i < countof(bad); i++)
        assert_false(config_is_printable(str_of(bad[i])));
    assert_true(config_is_printable(STR("")) && config_is_printable(STR("a b~\xc2\xa0ü€\xef\xbf\xbd")));
}

static void test_reports_are_sorted_bounded_and_one_line_each(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned i = 0; i < CONFIG_ERRORS + 5; i++)
        config_report_add(&fixture->report, &(struct config_error){.file = STR("f"),
                                                                   .line = i * 7919 % 1009 + 1,
                                                                   .column = i,
                                                                   .path = STR("p\x1b"),
                                                                   .what = STR("w\nw")});
    config_report_sort(&fixture->report);
    assert_int_equal(fixture->report.count, CONFIG_ERRORS + 5);
    unsigned line = 0, kept = 0;
    for (const struct config_error *error = fixture->report.first; error; error = error->next, kept++) {
        assert_true(error->line >= line);
        line = error->line;
    }
    assert_int_equal(kept, CONFIG_ERRORS);
    const char *text = take_report(fixture);
    assert_non_null(strstr(text, ": p\\x1b: w\\nw\n"));
    assert_non_null(strstr(text, "\nf: 5 more mistakes are not shown\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nodes_know_where_they_stand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_null_is_told_from_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_aliases_share_what_is_below_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_keys_are_compared_by_hash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_printing_reads_back, set_up, tear_down),
        cmocka_unit_test(test_printable),
        cmocka_unit_test_setup_teardown(test_reports_are_sorted_bounded_and_one_line_each, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
