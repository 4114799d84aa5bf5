#include "test_config_fixture.h"

// ---- a table with one key of each type ----

struct part {
    CONFIG_POSITION_FIELDS;
    struct str name, word;
};

struct whole {
    struct str text;
    bool flag;
    int64_t count, maybe;
    double share;
    uint64_t wait_us, bytes;
    int colour;
    unsigned letters;
    struct str_list words;
    struct str secret;
    bool has_part;
    struct part part;
    struct config_list parts, named;
    struct str_map map;
    int64_t custom;
};

static bool accept_lower(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (str_eq(*value, STR("bad"))) {
        config_fail(decoder, node, "be good", "bad");
        return false;
    }
    if (str_eq(*value, STR("alias")))
        *value = STR("normal");
    return true;
}

static void decode_custom(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    int64_t value;
    if (config_decode_int(decoder, node, &value))
        *(int64_t *)target = value * 10;
}

static struct config_node *encode_custom(struct arena *arena, const void *target)
{
    int64_t value = *(const int64_t *)target / 10;
    return value ? config_new_plain(arena, arena_printf(arena, "%lld", (long long)value)) : NULL;
}

static const struct config_option colours[] = {{"red", 1}, {"green", 2}, {0}};
static const struct config_option letters[] = {{"a", 1}, {"b", 2}, {"c", 4}, {0}};

static const struct config_field part_fields[] = {
    {.name = "word",
     .type = CONFIG_STRING,
     .offset = offsetof(struct part, word),
     .required = true,
     .doc = "A word."},
    {0},
};

static void check_part(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct part *part = target;
    if (str_eq(part->word, STR("cross")))
        config_fail_at(decoder, node, STR("word"), "", "crossed");
}

static const struct config_object part_object = {
    .name = "part",
    .doc = "A part.",
    .size = sizeof(struct part),
    .fields = part_fields,
    .has_position = true,
    .name_offset = offsetof(struct part, name),
    .check_rules = check_part,
};

#define AT(member) .offset = offsetof(struct whole, member), .doc = #member

static const struct config_field whole_fields[] = {
    {.name = "text",
     .type = CONFIG_STRING,
     AT(text),
     .fallback = "\"yes\"",
     .accept = accept_lower,
     .pattern = "^."},
    {.name = "flag", .type = CONFIG_BOOL, AT(flag), .fallback = "true"},
    {.name = "count", .type = CONFIG_INT, AT(count), .fallback = "3", .min = -5, .max = 5},
    {.name = "maybe", .type = CONFIG_INT, AT(maybe), .nullable = true, .null_value = 99},
    {.name = "share", .type = CONFIG_NUMBER, AT(share), .fallback = "0.1", .min = 0, .max = 1},
    {.name = "wait", .type = CONFIG_DURATION, AT(wait_us), .fallback = "1m", .min = 1e6, .max = 60e6},
    {.name = "bytes", .type = CONFIG_SIZE, AT(bytes), .fallback = "1KiB"},
    {.name = "colour", .type = CONFIG_ENUM, AT(colour), .fallback = "green", .options = colours},
    {.name = "letters", .type = CONFIG_FLAGS, AT(letters), .fallback = "[a, c]", .options = letters},
    {.name = "words", .type = CONFIG_STRINGS, AT(words), .fallback = "[x]", .accept = accept_lower},
    {.name = "secret", .type = CONFIG_SECRET, AT(secret), .nullable = true},
    {.name = "part",
     .type = CONFIG_OBJECT,
     AT(part),
     .object = &part_object,
     .nullable = true,
     .is_set_offset = offsetof(struct whole, has_part)},
    {.name = "parts",
     .type = CONFIG_OBJECTS,
     AT(parts),
     .object = &part_object,

     .min_count = 1},
    {.name = "named", .type = CONFIG_OBJECT_MAP, AT(named), .object = &part_object, .fallback = "{}"},
    {.name = "map", .type = CONFIG_STRING_MAP, AT(map), .fallback = "{}", .masked = true},
    {.name = "custom",
     .type = CONFIG_CUSTOM,
     AT(custom),
     .decode = decode_custom,
     .encode = encode_custom,
     .schema = "{ type: integer }",
     .type_name = "a whole number"},
    {0},
};

static const struct config_object whole_object = {
    .name = "whole", .doc = "All of it.", .size = sizeof(struct whole), .fields = whole_fields};

static const char *decode(struct fixture *fixture, const char *text, struct whole *whole)
{
    struct arena tree; // gone before the settings are looked at: nothing may point into it
    arena_init(&tree, NULL);
    memset(whole, 0xee, sizeof *whole);
    const struct config_node *root = config_parse(STR("t"), str_of(text), &tree, &fixture->report);
    assert_non_null(root);
    config_decode(&whole_object, root, whole, STR("t"), &fixture->arena, &fixture->report);
    arena_reset(&tree);
    return take_report(fixture);
}

static void check_defaults(const struct whole *whole)
{
    assert_string_equal(whole->text.p, "yes");
    assert_true(whole->flag);
    assert_int_equal(whole->count, 3);
    assert_int_equal(whole->maybe, 99);
    assert_true(whole->share > 0.099 && whole->share < 0.101);
    assert_int_equal(whole->wait_us, 60000000);
    assert_int_equal(whole->bytes, 1024);
    assert_int_equal(whole->colour, 2);
    assert_int_equal(whole->letters, 5);
    assert_int_equal(whole->words.count, 1);
    assert_int_equal(whole->secret.n, 0);
    assert_false(whole->has_part);
    assert_int_equal(whole->parts.count + whole->named.count + whole->map.count, 0);
    assert_int_equal(whole->custom, 0);
}

static void test_defaults(void **state)
{
    struct fixture *fixture = *state;
    struct whole whole;
    config_decode(&whole_object, NULL, &whole, STR("t"), &fixture->arena, &fixture->report);
    assert_string_equal(take_report(fixture), "");
    check_defaults(&whole);
    assert_string_equal(decode(fixture, "{}", &whole), "");
    check_defaults(&whole);
    assert_string_equal(decode(fixture, "{maybe: null, secret: ~, part: }", &whole), "");
    check_defaults(&whole);
}

static void test_values(void **state)
{
    struct fixture *fixture = *state;
    struct whole whole;
    assert_string_equal(
        decode(fixture,
               "text: alias\nflag: false\ncount: -5\nmaybe: 0\nshare: 1\nwait: 1s\nbytes: 7\n"
               "colour: 'red'\nletters: [b]\nwords: [p, alias]\nsecret: {env: PATH}\npart: {word: w}\n"
               "parts:\n  - word: one\n  - {word: two}\nnamed: {n: {word: three}}\n"
               "map: {k: v, Cookie: c}\ncustom: 4\n",
               &whole),
        "");
    assert_string_equal(whole.text.p, "normal");
    assert_false(whole.flag);
    assert_int_equal(whole.count, -5);
    assert_int_equal(whole.maybe, 0);
    assert_true(whole.share >= 1);
    assert_int_equal(whole.wait_us, 1000000);
    assert_int_equal(whole.bytes, 7);
    assert_int_equal(whole.colour, 1);
    assert_int_equal(whole.letters, 2);
    assert_int_equal(whole.words.count, 2);
    assert_string_equal(whole.words.v[1].p, "normal");
    assert_true(whole.secret.n > 0 && whole.has_part);
    const struct part *parts = whole.parts.v, *named = whole.named.v;
    assert_int_equal(whole.parts.count, 2);
    assert_string_equal(parts[1].word.p, "two");
    assert_int_equal(parts[1].line, 15);
    assert_int_equal(parts[1].column, 5);
    assert_string_equal(named[0].name.p, "n");
    assert_string_equal(whole.map.v[1].name.p, "Cookie");
    assert_int_equal(whole.custom, 40);
}

static void test_mistakes(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text, *report;
    } rows[] = {
        {"[]", "t:1:1: expected a map of keys, got a list\n"},
        {"txt: a", "t:1:1: txt: unknown key (did you mean \"text\"?)\n"},
        {"TEXT: a", "t:1:1: TEXT: unknown key (did you mean \"text\"?)\n"},
        {"text: bad", "t:1:7: text: bad (be good)\n"},
        {"text: 5", "t:1:7: text: expected a string, got the number 5 (put it in quotes: \"5\")\n"},
        {"text: true", "t:1:7: text: expected a string, got true (put it in quotes: \"true\")\n"},
        {"text: {}", "t:1:7: text: expected a string, got a map\n"},
        {"flag: off", "t:1:7: flag: expected true or false, got \"off\" (write false)\n"},
        {"count: 6", "t:1:8: count: must be between -5 and 5, not 6\n"},
        {"count: 1.0", "t:1:8: count: expected a whole number, got the number 1.0\n"},
        {"count: '1'", "t:1:8: count: expected a whole number, got \"1\" (write it without quotes)\n"},
        {"count: null",
         "t:1:8: count: expected a whole number, got null (give it a value, or remove the key)\n"},
        {"count: 99999999999999999999",
         "t:1:8: count: expected a whole number, got the number 99999999999999999999\n"},
        {"share: 20%", "t:1:8: share: expected a number, got \"20%\" (write 20% as 0.2)\n"},
        {"share: -0.1", "t:1:8: share: must be between 0 and 1, not -0.1\n"},
        {"share: .inf", "t:1:8: share: expected a number, got the number .inf\n"},
        {"share: 1e999", "t:1:8: share: expected a number, got the number 1e999\n"},
        {"wait: 500ms", "t:1:7: wait: must be between 1s and 1m, not 500ms\n"},
        {"wait: 5", "t:1:7: wait: expected a duration, got the number 5 (add a unit: 5s or 5ms)\n"},
        {"bytes: 1kb", "t:1:8: bytes: expected a size, got \"1kb\" (the unit is KiB (1024 bytes))\n"},
        {"colour: gren", "t:1:9: colour: unknown value \"gren\" (did you mean \"green\"?)\n"},
        {"colour: 5", "t:1:9: colour: expected one of red, green, got the number 5\n"},
        {"colour: purple", "t:1:9: colour: unknown value \"purple\" (one of red, green)\n"},
        {"letters: a",
         "t:1:10: letters: expected a list of a, b, c, got \"a\" (put it in [ ], or behind a dash)\n"},
        {"letters: [a, z]", "t:1:14: letters[1]: unknown value \"z\" (one of a, b, c)\n"},
        {"words: [a, bad, 5]",
         "t:1:12: words[1]: bad (be good)\n"
         "t:1:17: words[2]: expected a string, got the number 5 (put it in quotes: \"5\")\n"},
        {"part: {}", "t:1:7: part.word: missing (add word)\n"},
        {"parts: []", "t:1:8: parts: needs at least 1\n"},
        {"parts: [{word: cross}, {wrd: a}]", "t:1:16: parts[0].word: crossed\n"
                                             "t:1:24: parts[1].word: missing (add word)\n"
                                             "t:1:25: parts[1].wrd: unknown key (did you mean \"word\"?)\n"},
        {"named: {a: 5}", "t:1:12: named.a: expected a map of keys, got the number 5\n"},
        {"named: []", "t:1:8: named: expected a map of names, got a list\n"},
        {"map: {a: [b]}", "t:1:10: map.a: expected a string, got a list\n"},
        {"custom: x", "t:1:9: custom: expected a whole number, got \"x\"\n"},
        {"custom: null",
         "t:1:9: custom: expected a whole number, got null (give it a value, or remove the key)\n"},
        {"secret: s3cret",
         "t:1:9: secret: expected a secret, { env: NAME } or { file: PATH } (secrets are never written "
         "in the file: { env: NAME } or { file: PATH })\n"},
        {"{count: 9, flag: 9, count: 8}",
         "t:1:9: count: must be between -5 and 5, not 9\n"
         "t:1:18: flag: expected true or false, got the number 9\n"
         "t:1:21: count: duplicate key, first on line 1 (remove one of the two)\n"},
        {"text: ${",
         "t:1:7: text: malformed ${…} (write ${NAME}, ${NAME:-default} or ${NAME:?message}; $$ stands "
         "for one $)\n"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct whole whole;
        assert_string_equal(decode(fixture, rows[i].text, &whole), rows[i].report);
    }
}

static void test_a_mistaken_value_leaves_the_default(void **state)
{
    struct fixture *fixture = *state;
    struct whole whole;
    assert_string_not_equal(
        decode(fixture,
               "text: bad\nflag: 1\ncount: 7\nmaybe: x\nshare: 2\nwait: 1\nbytes: x\ncolour: x\n"
               "letters: x\nwords: 1\nsecret: x\nparts: x\nnamed: x\nmap: x\ncustom: x\n",
               &whole),
        "");
    check_defaults(&whole);
}

static void test_variables_take_the_expected_type(void **state)
{
    struct fixture *fixture = *state;
    struct whole whole;
    assert_string_equal(
        decode(fixture,
               "{text: '${NONE_X:-5}', flag: '${NONE_X:-false}', count: \"${NONE_X:-4}\", share: "
               "'${NONE_X:-0.5}', wait: '${NONE_X:-2}s', bytes: '${NONE_X:-9}', colour: '${NONE_X:-red}'}",
               &whole),
        "");
    assert_string_equal(whole.text.p, "5");
    assert_false(whole.flag);
    assert_int_equal(whole.count, 4);
    assert_int_equal(whole.wait_us, 2000000);
    assert_int_equal(whole.bytes, 9);
    assert_int_equal(whole.colour, 1);
    assert_string_equal(
        decode(fixture, "parts: '${NONE_X:-[a]}'", &whole),
        "t:1:8: parts: expected a list of maps, got \"[a]\" (put it in [ ], or behind a dash)\n");
}

static void test_dump(void **state)
{
    struct fixture *fixture = *state;
    struct whole whole;
    struct buf out = {0};
    decode(
        fixture,
        "{secret: {env: PATH}, parts: [{word: 'on'}], map: {Cookie: c, X: v}, custom: 4, wait: 1s, share: 1}",
        &whole);
    config_dump(&whole_object, &whole, false, &out);
    buf_append(&out, (struct str){"", 1});
    assert_string_equal(out.base,
                        "text: \"yes\"\nflag: true\ncount: 3\nmaybe: null\nshare: 1\nwait: 1s\nbytes: 1KiB\n"
                        "colour: green\nletters:\n  - a\n  - c\nwords:\n  - x\nsecret: \"***\"\npart: null\n"
                        "parts:\n  - word: \"on\"\nnamed: {}\nmap:\n  Cookie: \"***\"\n  X: v\ncustom: 4\n");
    buf_free(&out);
    config_decode(&whole_object, NULL, &whole, STR("t"), &fixture->arena, &fixture->report);
    config_dump(&whole_object, &whole, true, &out);
    buf_append(&out, (struct str){"", 1});
    assert_non_null(strstr(out.base, "\"secret\": null"));
    assert_non_null(strstr(out.base, "\"share\": 0.1"));
    assert_non_null(strstr(out.base, "\"count\": 3"));
    assert_non_null(strstr(out.base, "\"wait\": \"1m\""));
    assert_null(strstr(out.base, "custom"));
    buf_free(&out);
}

static void test_schema_and_reference(void **state)
{
    (void)state;
    struct buf out = {0};
    config_schema(&whole_object, "toy", &out);
    buf_append(&out, (struct str){"", 1});
    assert_non_null(strstr(out.base, "\"title\": \"toy\""));
    assert_non_null(strstr(out.base, "\"additionalProperties\": false"));
    assert_non_null(strstr(out.base, "\"minItems\": 1"));
    assert_non_null(strstr(out.base, "\"$ref\": \"#/$defs/part\""));
    buf_free(&out);
    config_reference(&whole_object, "Toy", &out);
    buf_append(&out, (struct str){"", 1});
    assert_non_null(strstr(out.base, "# Toy\n"));
    assert_non_null(strstr(out.base, "\n## part\n\nAt `part`, `parts[]`, `named.NAME`. A part.\n"));
    assert_non_null(strstr(out.base, "\n| `wait` | duration, 1s to 1m | `1m` | wait_us |\n"));
    assert_non_null(strstr(out.base, "\n| `colour` | `red`, `green` | `green` | colour |\n"));
    assert_non_null(strstr(out.base, "\n| `maybe` | whole number, or null | `null` | maybe |\n"));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mistakes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_mistaken_value_leaves_the_default, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_variables_take_the_expected_type, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dump, set_up, tear_down),
        cmocka_unit_test(test_schema_and_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
