// JSON: whatever is taken is within the bounds, is UTF-8, names no member twice, and means the same when it
// is written again.
#include "exact_copy.h"

#include "base/json.h"
#include "base/json_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_utf8(struct str text)
{
    while (text.n) {
        size_t n = str_utf8_length(text);
        check(n > 0);
        text = str_skip(text, n);
    }
}

static void check_number(const struct json_value *value)
{
    int64_t integer = 0;
    check(value->text.n && (value->text.p[0] == '-' || (value->text.p[0] >= '0' && value->text.p[0] <= '9')));
    if (json_integer(value, &integer))
        check(integer >= -(1LL << 53) && integer <= 1LL << 53);
}

// Returns how many values there are.
static uint32_t check_value(const struct json_value *value, struct str text, unsigned depth)
{
    uint32_t children = 0, values = 1;
    bool nested = value->kind == JSON_ARRAY || value->kind == JSON_OBJECT;
    check(value->kind <= JSON_OBJECT && depth <= JSON_PARSE_DEPTH + !nested);
    if (value->kind == JSON_STRING)
        check_utf8(value->text);
    else
        check(value->text.p >= text.p && value->text.p + value->text.n <= text.p + text.n);
    if (value->kind == JSON_NUMBER)
        check_number(value);
    for (const struct json_value *child = value->first; child; child = child->next, children++) {
        values += check_value(child, text, depth + 1);
        check_utf8(child->key);
        if (value->kind == JSON_OBJECT)
            check(json_get(value, child->key) == child && json_get_path(value, child->key) == child);
    }
    check(children == value->count && (nested || children == 0));
    return values;
}

static void write_value(const struct json_value *value, struct json *out)
{
    switch (value->kind) {
    case JSON_STRING: json_string(out, value->text); return;
    case JSON_ARRAY: json_array(out); break;
    case JSON_OBJECT: json_object(out); break;
    default: json_raw(out, value->text); return;
    }
    for (const struct json_value *child = value->first; child; child = child->next) {
        if (value->kind == JSON_OBJECT)
            json_key(out, child->key);
        write_value(child, out);
    }
    if (value->kind == JSON_OBJECT)
        json_object_end(out);
    else
        json_array_end(out);
}

static void check_same(const struct json_value *a, const struct json_value *b)
{
    bool nested = a->kind == JSON_ARRAY || a->kind == JSON_OBJECT;
    check(a->kind == b->kind && a->count == b->count && str_eq(a->key, b->key));
    check(nested || str_eq(a->text, b->text));
    for (a = a->first, b = b->first; a; a = a->next, b = b->next)
        check_same(a, b);
}

static void check_again(const struct json_value *value, struct arena *arena, bool pretty)
{
    const char *why = NULL;
    struct buf out = {0};
    struct json json;
    json_init(&json, &out, pretty);
    write_value(value, &json);
    const struct json_value *again = json_parse(buf_str(&out), arena, &why);
    check(again);
    check_same(value, again);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena arena;
    const char *why = NULL;
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data, n);
    struct str text = {copy, n};
    const struct json_value *value = json_parse(text, &arena, &why);
    check(!value == !!why);
    if (value) {
        check(check_value(value, text, 1) <= JSON_PARSE_VALUES);
        check_again(value, &arena, false);
        check_again(value, &arena, true);
    }
    arena_reset(&arena);
    free(copy);
    return 0;
}
