// Node tree + table → settings struct.
#include "config/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// In secret.c.
bool config_read_secret(struct config_decoder *decoder, const struct config_node *node, struct str *secret);

static void decode_field(struct config_decoder *decoder, const struct config_field *field,
                         const struct config_node *node, char *base);

// ---- what is expected ----

const char *config_type_name(const struct config_field *field, struct arena *arena)
{
    if (field->type_name)
        return field->type_name;
    switch (field->type) {
    case CONFIG_STRING: return "a string";
    case CONFIG_BOOL: return "true or false";
    case CONFIG_INT: return "a whole number";
    case CONFIG_NUMBER: return "a number";
    case CONFIG_DURATION: return "a duration";
    case CONFIG_SIZE: return "a size";
    case CONFIG_STRINGS: return "a list of strings";
    case CONFIG_SECRET: return "a secret, { env: NAME } or { file: PATH }";
    case CONFIG_OBJECT: return "a map of keys";
    case CONFIG_OBJECTS: return "a list of maps";
    case CONFIG_OBJECT_MAP: return "a map of names";
    case CONFIG_STRING_MAP: return "a map of strings";
    case CONFIG_CUSTOM: return "another type";
    case CONFIG_ENUM:
    case CONFIG_FLAGS: break;
    }
    bool is_flags = field->type == CONFIG_FLAGS;
    struct str words = is_flags ? STR("a list of ") : field->options[1].name ? STR("one of ") : STR_NULL;
    for (const struct config_option *option = field->options; option->name; option++)
        words = arena_printf(arena, "%.*s%s%s", STR_ARG(words), option > field->options ? ", " : "",
                             option->name);
    return words.p;
}

static void fail_field(struct config_decoder *decoder, const struct config_field *field,
                       const struct config_node *node, const char *hint)
{
    const char *expected = config_is_full(decoder) ? "" : config_type_name(field, decoder->report->arena);
    config_fail_type(decoder, node, hint, expected);
}

// ---- scalars ----

// A scalar that may be read as what the field wants: plain, or one whose variables were expanded.
static bool is_open_scalar(const struct config_node *node)
{
    return node->kind == CONFIG_SCALAR && (!node->quoted || node->expanded);
}

static bool is_string(const struct config_node *node)
{
    return node->kind == CONFIG_SCALAR &&
           (node->quoted || node->expanded || config_plain_of(node->text) == CONFIG_PLAIN_STRING);
}

bool config_decode_string(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (!is_string(node)) {
        const char *hint = node->kind == CONFIG_SCALAR
                               ? config_hint(decoder, "put it in quotes: \"%.*s\"", STR_ARG(node->text))
                               : "";
        config_fail_type(decoder, node, hint, "a string");
        return false;
    }
    *value = arena_copy(decoder->arena, node->text);
    return true;
}

static bool parse_int(struct str text, int64_t *value)
{
    bool is_negative = text.n && text.p[0] == '-';
    uint64_t digits;
    if (text.n && (is_negative || text.p[0] == '+'))
        text = str_skip(text, 1);
    if (!str_to_u64(text, INT64_MAX, &digits))
        return false;
    *value = is_negative ? -(int64_t)digits : (int64_t)digits;
    return true;
}

bool config_decode_int(struct config_decoder *decoder, const struct config_node *node, int64_t *value)
{
    if (is_open_scalar(node) && parse_int(node->text, value))
        return true;
    const char *hint = node->kind == CONFIG_SCALAR && node->quoted && parse_int(node->text, value)
                           ? "write it without quotes"
                           : "";
    config_fail_type(decoder, node, hint, "a whole number");
    return false;
}

// Bounds in the field's own words.
static struct str print_bound(const struct config_field *field, double bound, struct arena *arena)
{
    if (field->type == CONFIG_DURATION)
        return config_new_duration(arena, (uint64_t)bound)->text;
    if (field->type == CONFIG_SIZE)
        return config_new_size(arena, (uint64_t)bound)->text;
    return arena_printf(arena, "%.15g", bound);
}

static bool is_in_bounds(struct config_decoder *decoder, const struct config_field *field,
                         const struct config_node *node, double value)
{
    struct arena *arena = decoder->report->arena;
    bool is_unbounded = field->min >= field->max && field->max <= 0;
    if (is_unbounded || (value >= field->min && value <= field->max))
        return true;
    struct str min = print_bound(field, field->min, arena), max = print_bound(field, field->max, arena);
    if (field->min >= field->max)
        config_fail(decoder, node, "", "must be %.*s", STR_ARG(max));
    else
        config_fail(decoder, node, "", "must be between %.*s and %.*s, not %.*s", STR_ARG(min), STR_ARG(max),
                    STR_ARG(node->text));
    return false;
}

static void decode_int(struct config_decoder *decoder, const struct config_field *field,
                       const struct config_node *node, int64_t *target)
{
    int64_t value;
    if (config_decode_int(decoder, node, &value) && is_in_bounds(decoder, field, node, (double)value))
        *target = value;
}

static void decode_number(struct config_decoder *decoder, const struct config_field *field,
                          const struct config_node *node, double *target)
{
    enum config_plain plain = is_open_scalar(node) ? config_plain_of(node->text) : CONFIG_PLAIN_STRING;
    if (plain != CONFIG_PLAIN_INT && plain != CONFIG_PLAIN_FLOAT) {
        bool is_percent =
            node->kind == CONFIG_SCALAR && node->text.n && node->text.p[node->text.n - 1] == '%';
        fail_field(decoder, field, node, is_percent ? "write 20% as 0.2" : "");
        return;
    }
    char *end;
    double value = strtod(node->text.p, &end);
    if (*end || !isfinite(value)) // .inf and .nan are no use to anyone
        fail_field(decoder, field, node, "");
    else if (is_in_bounds(decoder, field, node, value))
        *target = value;
}

static void decode_bool(struct config_decoder *decoder, const struct config_field *field,
                        const struct config_node *node, bool *target)
{
    if (is_open_scalar(node) && config_plain_of(node->text) == CONFIG_PLAIN_BOOL) {
        *target = node->text.p[0] == 't';
        return;
    }
    static const struct str yes[] = {STR("true"), STR("yes"), STR("on")},
                            no[] = {STR("false"), STR("no"), STR("off")};
    const char *hint = "";
    for (size_t i = 0; i < countof(yes) && node->kind == CONFIG_SCALAR; i++)
        hint = str_eq_fold(node->text, yes[i])  ? "write true"
               : str_eq_fold(node->text, no[i]) ? "write false"
                                                : hint;
    fail_field(decoder, field, node, hint);
}

static void decode_duration(struct config_decoder *decoder, const struct config_field *field,
                            const struct config_node *node, uint64_t *target)
{
    uint64_t us;
    if (node->kind == CONFIG_SCALAR && config_duration(node->text, &us)) {
        if (is_in_bounds(decoder, field, node, (double)us))
            *target = us;
        return;
    }
    const char *hint = "such as 250ms, 3s or 1m30s";
    if (node->kind == CONFIG_SCALAR && config_plain_of(node->text) == CONFIG_PLAIN_INT)
        hint = config_hint(decoder, "add a unit: %.*ss or %.*sms", STR_ARG(node->text), STR_ARG(node->text));
    else if (node->kind == CONFIG_SCALAR && str_find(node->text, '.') < node->text.n)
        hint = "no fractions: write 1500ms or 1s500ms";
    fail_field(decoder, field, node, hint);
}

static void decode_size(struct config_decoder *decoder, const struct config_field *field,
                        const struct config_node *node, uint64_t *target)
{
    uint64_t bytes;
    if (node->kind == CONFIG_SCALAR && config_size(node->text, &bytes)) {
        if (is_in_bounds(decoder, field, node, (double)bytes))
            *target = bytes;
        return;
    }
    static const char letters[] = "kmg";
    static const char *const units[] = {"KiB (1024 bytes)", "MiB (1024 KiB)", "GiB (1024 MiB)"};
    const char *hint = "such as 512, 32KiB or 10MiB";
    for (size_t i = 0; i < node->text.n && node->kind == CONFIG_SCALAR; i++) {
        const char *hit = strchr(letters, ascii_lower(node->text.p[i]));
        if (node->text.p[i] && hit) {
            hint = config_hint(decoder, "the unit is %s", units[hit - letters]);
            break;
        }
    }
    fail_field(decoder, field, node, hint);
}

// ---- words ----

static bool find_option(struct config_decoder *decoder, const struct config_field *field,
                        const struct config_node *node, int *value)
{
    const struct config_field one = {.type = CONFIG_ENUM, .options = field->options};
    struct str names[32];
    size_t count = 0;
    if (!is_string(node)) {
        const char *hint = "";
        for (const struct config_option *option = field->options; option->name; option++)
            if (node->kind == CONFIG_SCALAR && str_eq(node->text, str_of(option->name)))
                hint = config_hint(decoder, "put it in quotes: \"%s\"", option->name);
        fail_field(decoder, &one, node, hint);
        return false;
    }
    for (const struct config_option *option = field->options; option->name; option++) {
        check(count < countof(names));
        names[count++] = str_of(option->name);
        if (str_eq(node->text, names[count - 1])) {
            *value = option->value;
            return true;
        }
    }
    if (config_is_full(decoder))
        return false;
    const char *hint = config_suggest(decoder, node->text, names, count);
    const char *list = config_type_name(&one, decoder->report->arena);
    if (!*hint)
        hint = count == 1 ? config_hint(decoder, "only %s is offered", list) : list;
    config_fail(decoder, node, hint, "unknown value \"%.*s\"", node->text.n > 60 ? 60 : (int)node->text.n,
                node->text.p);
    return false;
}

static bool is_list(struct config_decoder *decoder, const struct config_field *field,
                    const struct config_node *node)
{
    if (node->kind != CONFIG_LIST) {
        bool is_one = node->kind != CONFIG_NULL;
        fail_field(decoder, field, node, is_one ? "put it in [ ], or behind a dash" : "");
        return false;
    }
    if (node->count < field->min_count) {
        config_fail(decoder, node, "", "needs at least %u", field->min_count);
        return false;
    }
    return true;
}

static void decode_flags(struct config_decoder *decoder, const struct config_field *field,
                         const struct config_node *node, unsigned *target)
{
    if (!is_list(decoder, field, node))
        return;
    unsigned flags = 0;
    uint32_t index = 0;
    for (const struct config_node *child = node->first; child; child = child->next) {
        int value;
        config_enter_index(decoder, index++);
        if (!child->bad && find_option(decoder, field, child, &value))
            flags |= (unsigned)value;
        config_leave(decoder);
    }
    *target = flags;
}

static void decode_string(struct config_decoder *decoder, const struct config_field *field,
                          const struct config_node *node, struct str *target)
{
    struct str value;
    if (config_decode_string(decoder, node, &value) &&
        (!field->accept || field->accept(decoder, node, &value)))
        *target = value;
}

static void decode_strings(struct config_decoder *decoder, const struct config_field *field,
                           const struct config_node *node, struct str_list *target)
{
    if (!is_list(decoder, field, node))
        return;
    struct str_list list = {arena_array(decoder->arena, struct str, node->count), 0};
    uint32_t index = 0;
    for (const struct config_node *child = node->first; child; child = child->next) {
        struct str value = STR_NULL;
        config_enter_index(decoder, index++);
        if (!child->bad)
            decode_string(decoder, field, child, &value);
        config_leave(decoder);
        if (value.p)
            list.v[list.count++] = value;
    }
    *target = list;
}

static bool is_map(struct config_decoder *decoder, const struct config_field *field,
                   const struct config_node *node)
{
    if (node->kind != CONFIG_MAP) {
        fail_field(decoder, field, node, "");
        return false;
    }
    if (node->count < field->min_count) {
        config_fail(decoder, node, "", "needs at least %u", field->min_count);
        return false;
    }
    return true;
}

static void decode_string_map(struct config_decoder *decoder, const struct config_field *field,
                              const struct config_node *node, struct str_map *target)
{
    if (!is_map(decoder, field, node))
        return;
    struct str_map map = {arena_array(decoder->arena, struct str_pair, node->count), 0};
    for (const struct config_node *child = node->first; child; child = child->next) {
        struct str value = STR_NULL;
        config_enter(decoder, child->key);
        if (!child->bad)
            decode_string(decoder, field, child, &value);
        config_leave(decoder);
        if (value.p)
            map.v[map.count++] = (struct str_pair){arena_copy(decoder->arena, child->key), value};
    }
    *target = map;
}

// ---- objects ----

static void *image_of(struct config_decoder *decoder, const struct config_object *object)
{
    for (unsigned i = 0; i < decoder->image_count; i++)
        if (decoder->images[i].object == object)
            return decoder->images[i].bytes;
    char *bytes = arena_zalloc(decoder->arena, object->size);
    for (const struct config_field *field = object->fields; field->name; field++) {
        const struct config_node *fallback = config_fallback(field, decoder->arena);
        if (fallback && fallback->kind != CONFIG_NULL)
            decode_field(decoder, field, fallback, bytes);
        else if (config_is_null_number(field))
            memcpy(bytes + field->offset, &field->null_value, sizeof field->null_value);
        else if (field->type == CONFIG_OBJECT)
            memcpy(bytes + field->offset, image_of(decoder, field->object), field->object->size);
        if (field->type == CONFIG_OBJECT && field->is_set_offset)
            bytes[field->is_set_offset] = false;
    }
    check(decoder->image_count < CONFIG_IMAGES);
    decoder->images[decoder->image_count++] = (struct config_image){object, bytes};
    return bytes;
}

static int find_field(const struct config_object *object, struct str key)
{
    if (key.n == 0)
        return -1;
    for (int i = 0; object->fields[i].name; i++) {
        const char *name = object->fields[i].name;
        if (name[0] == key.p[0] && strncmp(name, key.p, key.n) == 0 && name[key.n] == 0)
            return i;
    }
    return -1;
}

static void fail_unknown_key(struct config_decoder *decoder, const struct config_object *object,
                             const struct config_node *node)
{
    struct str names[64], list = STR_NULL;
    size_t count = 0;
    for (const struct config_field *field = object->fields; field->name && !config_is_full(decoder);
         field++) {
        names[count++] = str_of(field->name);
        list =
            arena_printf(decoder->report->arena, "%.*s%s%s", STR_ARG(list), list.n ? ", " : "", field->name);
    }
    const char *hint = config_suggest(decoder, node->key, names, count);
    config_fail_key(decoder, node, *hint ? hint : config_hint(decoder, "known here: %.*s", STR_ARG(list)),
                    "unknown key");
}

static void fail_missing(struct config_decoder *decoder, const struct config_object *object,
                         const struct config_node *node, uint64_t seen)
{
    for (unsigned i = 0; object->fields[i].name; i++) {
        const struct config_field *field = &object->fields[i];
        if (!field->required || (seen >> i & 1))
            continue;
        const char *hint = field->example ? config_hint(decoder, "add %s: %s", field->name, field->example)
                                          : config_hint(decoder, "add %s", field->name);
        config_fail_at(decoder, node, str_of(field->name), hint, "missing");
    }
}

// "a, b or c".
static const char *list_keys(struct config_decoder *decoder, const char *const *keys)
{
    const char *list = "";
    for (const char *const *key = keys; *key; key++)
        list = config_hint(decoder, "%s%s%s", list, key == keys ? "" : key[1] ? ", " : " or ", *key);
    return list;
}

static void check_one_of(struct config_decoder *decoder, const struct config_object *object,
                         const struct config_node *node)
{
    unsigned given = 0;
    for (const char *const *key = object->one_of; *key; key++)
        if (config_get(node, str_of(*key)) && given++)
            config_fail_at(decoder, node, str_of(*key), "remove all but one", "only one of %s",
                           list_keys(decoder, object->one_of));
    if (!given)
        config_fail(decoder, node, "add one of them", "needs %s", list_keys(decoder, object->one_of));
}

void config_decode_child(struct config_decoder *decoder, const struct config_object *object,
                         const struct config_node *node, void *target)
{
    memcpy(target, image_of(decoder, object), object->size);
    if (!node || node->bad)
        return;
    if (object->has_position)
        memcpy(target, (unsigned[2]){node->line, node->column}, 2 * sizeof(unsigned));
    if (node->kind != CONFIG_MAP) {
        if (object->is_hidden)
            config_fail(decoder, node, "", "expected a map of keys");
        else
            config_fail_type(decoder, node, "", "a map of keys");
        return;
    }
    uint64_t seen = 0;
    for (const struct config_node *child = node->first; child; child = child->next) {
        int i = find_field(object, child->key);
        config_enter(decoder, child->key);
        if (i < 0) {
            fail_unknown_key(decoder, object, child);
        } else {
            check(i < 64);
            seen |= UINT64_C(1) << i;
            decode_field(decoder, &object->fields[i], child, target);
        }
        config_leave(decoder);
    }
    fail_missing(decoder, object, node, seen);
    if (object->one_of)
        check_one_of(decoder, object, node);
    if (object->check_rules)
        object->check_rules(decoder, node, target);
}

static void decode_objects(struct config_decoder *decoder, const struct config_field *field,
                           const struct config_node *node, struct config_list *target)
{
    if (!is_list(decoder, field, node))
        return;
    const struct config_object *object = field->object;
    struct config_list list = {arena_zalloc(decoder->arena, object->size * node->count), 0};
    for (const struct config_node *child = node->first; child; child = child->next) {
        config_enter_index(decoder, list.count);
        config_decode_child(decoder, object, child, (char *)list.v + object->size * list.count++);
        config_leave(decoder);
    }
    *target = list;
}

static void decode_object_map(struct config_decoder *decoder, const struct config_field *field,
                              const struct config_node *node, struct config_list *target)
{
    if (!is_map(decoder, field, node))
        return;
    const struct config_object *object = field->object;
    struct config_list list = {arena_zalloc(decoder->arena, object->size * node->count), 0};
    for (const struct config_node *child = node->first; child; child = child->next) {
        char *item = (char *)list.v + object->size * list.count++;
        struct str name = arena_copy(decoder->arena, child->key);
        config_enter(decoder, child->key);
        config_decode_child(decoder, object, child, item);
        if (!field->accept || field->accept(decoder, child, &name))
            memcpy(item + object->name_offset, &name, sizeof name);
        config_leave(decoder);
    }
    *target = list;
}

// ---- one field ----

static void decode_field(struct config_decoder *decoder, const struct config_field *field,
                         const struct config_node *node, char *base)
{
    void *target = base + field->offset;
    int option;
    if (node->bad)
        return;
    if (node->kind == CONFIG_NULL) {
        if (!field->nullable)
            fail_field(decoder, field, node, "");
        return;
    }
    switch (field->type) {
    case CONFIG_STRING: decode_string(decoder, field, node, target); break;
    case CONFIG_BOOL: decode_bool(decoder, field, node, target); break;
    case CONFIG_INT: decode_int(decoder, field, node, target); break;
    case CONFIG_NUMBER: decode_number(decoder, field, node, target); break;
    case CONFIG_DURATION: decode_duration(decoder, field, node, target); break;
    case CONFIG_SIZE: decode_size(decoder, field, node, target); break;
    case CONFIG_ENUM:
        if (find_option(decoder, field, node, &option))
            memcpy(target, &option, sizeof option);
        break;
    case CONFIG_FLAGS: decode_flags(decoder, field, node, target); break;
    case CONFIG_STRINGS: decode_strings(decoder, field, node, target); break;
    case CONFIG_SECRET: config_read_secret(decoder, node, target); break;
    case CONFIG_OBJECT:
        config_decode_child(decoder, field->object, node, target);
        if (field->is_set_offset)
            base[field->is_set_offset] = true;
        break;
    case CONFIG_OBJECTS: decode_objects(decoder, field, node, target); break;
    case CONFIG_OBJECT_MAP: decode_object_map(decoder, field, node, target); break;
    case CONFIG_STRING_MAP: decode_string_map(decoder, field, node, target); break;
    case CONFIG_CUSTOM: field->decode(decoder, node, target); break;
    }
}

struct config_node *config_parse_constant(const char *text, struct arena *arena)
{
    struct config_report report = {.arena = arena};
    struct config_node *node = config_parse(STR("table"), str_of(text), arena, &report);
    check(node && report.count == 0);
    return node;
}

const struct config_node *config_fallback(const struct config_field *field, struct arena *arena)
{
    if (!field->fallback)
        return NULL;
    char first = field->fallback[0];
    if (first == '[' || first == '{' || first == '"')
        return config_parse_constant(field->fallback, arena);
    return config_new_plain(arena, str_of(field->fallback));
}

void config_decode(const struct config_object *object, const struct config_node *node, void *target,
                   struct str file, struct arena *arena, struct config_report *report)
{
    struct config_decoder decoder = {.file = file, .arena = arena, .report = report};
    config_decode_child(&decoder, object, node, target);
}
