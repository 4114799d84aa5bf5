// Table → JSON Schema 2020-12. It judges the structure that the decoder judges; rules across fields (dangling
// names, duplicate addresses, bounds of durations) are the decoder's alone.
#include "config/decoder.h"

#define DURATION_PATTERN                                                                                     \
    "^(?=[0-9])([0-9]{1,18}d)?([0-9]{1,18}h)?([0-9]{1,18}m)?([0-9]{1,18}s)?([0-9]{1,18}ms)?([0-9]{1,18}us)?" \
    "$"
#define SIZE_PATTERN "^[0-9]{1,18}(KiB|MiB|GiB)?$"

struct objects { // that need a definition, in the order in which they are met
    const struct config_object *v[CONFIG_IMAGES];
    unsigned count;
};

static void note_object(struct objects *objects, const struct config_object *object)
{
    for (unsigned i = 0; i < objects->count; i++)
        if (objects->v[i] == object)
            return;
    check(objects->count < CONFIG_IMAGES);
    objects->v[objects->count++] = object;
    for (const struct config_field *field = object->fields; field->name; field++)
        if (field->object)
            note_object(objects, field->object);
}

static void write_type(struct json *out, const char *type)
{
    json_field_string(out, "type", str_of(type));
}

static void write_ref(struct json *out, const char *name)
{
    char ref[96] = "#/$defs/";
    check(strlen(name) < sizeof ref - 8);
    memcpy(ref + 8, name, strlen(name) + 1);
    json_field_string(out, "$ref", str_of(ref));
}

static void write_bounds(const struct config_field *field, struct json *out)
{
    if (field->min >= field->max && field->max <= 0)
        return;
    if (field->min >= field->max) {
        json_field_double(out, "const", field->min);
        return;
    }
    json_field_double(out, "minimum", field->min);
    json_field_double(out, "maximum", field->max);
}

static void write_options(const struct config_field *field, struct json *out)
{
    json_key(out, STR("enum"));
    json_array(out);
    for (const struct config_option *option = field->options; option->name; option++)
        json_string(out, str_of(option->name));
    json_array_end(out);
}

static void write_string(const struct config_field *field, struct json *out)
{
    write_type(out, "string");
    if (field->pattern)
        json_field_string(out, "pattern", str_of(field->pattern));
}

static void write_secret(struct json *out)
{
    static const char *const sources[] = {"env", "file"};
    json_key(out, STR("oneOf"));
    json_array(out);
    for (size_t i = 0; i < countof(sources); i++) {
        json_object(out);
        write_type(out, "object");
        json_key(out, STR("properties"));
        json_object(out);
        json_key(out, str_of(sources[i]));
        json_object(out);
        write_type(out, "string");
        json_object_end(out);
        json_object_end(out);
        json_key(out, STR("required"));
        json_array(out);
        json_string(out, str_of(sources[i]));
        json_array_end(out);
        json_field_bool(out, "additionalProperties", false);
        json_object_end(out);
    }
    json_array_end(out);
}

static void write_size(struct json *out)
{
    json_key(out, STR("oneOf"));
    json_array(out);
    json_object(out);
    write_type(out, "integer");
    json_field_u64(out, "minimum", 0);
    json_object_end(out);
    json_object(out);
    write_type(out, "string");
    json_field_string(out, "pattern", STR(SIZE_PATTERN));
    json_object_end(out);
    json_array_end(out);
}

// An alternative to what was written before: text with a variable.
static void write_variable(struct json *out)
{
    json_object(out);
    write_ref(out, "variable");
    json_object_end(out);
}

static void write_scalar_item(const struct config_field *field, struct json *out)
{
    bool is_flags = field->type == CONFIG_FLAGS;
    if (!field->pattern && !is_flags) {
        write_string(field, out);
        return;
    }
    json_key(out, STR("anyOf"));
    json_array(out);
    json_object(out);
    if (is_flags)
        write_options(field, out);
    else
        write_string(field, out);
    json_object_end(out);
    write_variable(out);
    json_array_end(out);
}

static void write_items(const struct config_field *field, struct json *out)
{
    write_type(out, "array");
    if (field->min_count)
        json_field_u64(out, "minItems", field->min_count);
    json_key(out, STR("items"));
    json_object(out);
    if (field->type == CONFIG_OBJECTS)
        write_ref(out, field->object->name);
    else
        write_scalar_item(field, out);
    json_object_end(out);
}

static void write_map(const struct config_field *field, struct json *out)
{
    write_type(out, "object");
    if (field->min_count)
        json_field_u64(out, "minProperties", field->min_count);
    if (field->pattern) { // of the names
        json_key(out, STR("propertyNames"));
        json_object(out);
        json_field_string(out, "pattern", str_of(field->pattern));
        json_object_end(out);
    }
    json_key(out, STR("additionalProperties"));
    json_object(out);
    if (field->type == CONFIG_OBJECT_MAP)
        write_ref(out, field->object->name);
    else
        write_type(out, "string");
    json_object_end(out);
}

static void write_members(const char *schema, struct arena *arena, struct json *out)
{
    const struct config_node *map = config_parse_constant(schema, arena);
    check(map->kind == CONFIG_MAP);
    for (const struct config_node *child = map->first; child; child = child->next) {
        json_key(out, child->key);
        config_print_json(child, out);
    }
}

// The members of the value's schema, null and variables aside.
static void write_value(const struct config_field *field, struct arena *arena, struct json *out)
{
    switch (field->type) {
    case CONFIG_STRING: write_string(field, out); break;
    case CONFIG_BOOL: write_type(out, "boolean"); break;
    case CONFIG_INT:
        write_type(out, "integer");
        write_bounds(field, out);
        break;
    case CONFIG_NUMBER:
        write_type(out, "number");
        write_bounds(field, out);
        break;
    case CONFIG_DURATION:
        write_type(out, "string");
        json_field_string(out, "pattern", STR(DURATION_PATTERN));
        break;
    case CONFIG_SIZE: write_size(out); break;
    case CONFIG_ENUM: write_options(field, out); break;
    case CONFIG_SECRET: write_secret(out); break;
    case CONFIG_OBJECT: write_ref(out, field->object->name); break;
    case CONFIG_FLAGS:
    case CONFIG_STRINGS:
    case CONFIG_OBJECTS: write_items(field, out); break;
    case CONFIG_OBJECT_MAP:
    case CONFIG_STRING_MAP: write_map(field, out); break;
    case CONFIG_CUSTOM: write_members(field->schema, arena, out); break;
    }
}

// Scalars of a narrow type may be written as ${VAR}.
static bool takes_variable(const struct config_field *field)
{
    switch (field->type) {
    case CONFIG_STRING: return field->pattern != NULL;
    case CONFIG_BOOL:
    case CONFIG_INT:
    case CONFIG_NUMBER:
    case CONFIG_DURATION:
    case CONFIG_SIZE:
    case CONFIG_ENUM: return true;
    default: return false;
    }
}

static void write_field(const struct config_field *field, struct arena *arena, struct json *out)
{
    const struct config_node *fallback = config_fallback(field, arena);
    json_object(out);
    if (field->doc)
        json_field_string(out, "description", str_of(field->doc));
    if (fallback || field->nullable) {
        json_key(out, STR("default"));
        if (fallback)
            config_print_json(fallback, out);
        else
            json_null(out);
    }
    if (field->nullable || takes_variable(field)) {
        json_key(out, STR("anyOf"));
        json_array(out);
        json_object(out);
        write_value(field, arena, out);
        json_object_end(out);
        if (takes_variable(field))
            write_variable(out);
        if (field->nullable) {
            json_object(out);
            write_type(out, "null");
            json_object_end(out);
        }
        json_array_end(out);
    } else {
        write_value(field, arena, out);
    }
    json_object_end(out);
}

static void write_required(const struct config_object *object, struct json *out)
{
    bool any = false;
    for (const struct config_field *field = object->fields; field->name; field++)
        any |= field->required;
    if (!any)
        return;
    json_key(out, STR("required"));
    json_array(out);
    for (const struct config_field *field = object->fields; field->name; field++)
        if (field->required)
            json_string(out, str_of(field->name));
    json_array_end(out);
}

static void write_one_of(const struct config_object *object, struct json *out)
{
    json_key(out, STR("oneOf"));
    json_array(out);
    for (const char *const *key = object->one_of; *key; key++) {
        json_object(out);
        json_key(out, STR("required"));
        json_array(out);
        json_string(out, str_of(*key));
        json_array_end(out);
        json_object_end(out);
    }
    json_array_end(out);
}

static void write_object_members(const struct config_object *object, struct arena *arena, struct json *out)
{
    if (object->doc)
        json_field_string(out, "description", str_of(object->doc));
    write_type(out, "object");
    json_key(out, STR("properties"));
    json_object(out);
    for (const struct config_field *field = object->fields; field->name; field++) {
        json_key(out, str_of(field->name));
        write_field(field, arena, out);
    }
    json_object_end(out);
    write_required(object, out);
    if (object->one_of)
        write_one_of(object, out);
    json_field_bool(out, "additionalProperties", false);
}

static void write_definitions(const struct config_object *root, struct arena *arena, struct json *out)
{
    struct objects objects = {0};
    note_object(&objects, root);
    json_key(out, STR("$defs"));
    json_object(out);
    json_key(out, STR("variable"));
    json_object(out);
    json_field_string(out, "description", STR("text with ${NAME}, ${NAME:-default} or ${NAME:?message}"));
    write_type(out, "string");
    json_field_string(out, "pattern", STR("\\$\\{[A-Za-z_][A-Za-z0-9_]*(:[-?][^}]*)?\\}"));
    json_object_end(out);
    for (unsigned i = 1; i < objects.count; i++) {
        json_key(out, str_of(objects.v[i]->name));
        json_object(out);
        write_object_members(objects.v[i], arena, out);
        json_object_end(out);
    }
    json_object_end(out);
}

void config_schema(const struct config_object *object, const char *title, struct buf *out)
{
    struct arena arena;
    struct json json;
    arena_init(&arena, NULL);
    json_init(&json, out, true);
    json_object(&json);
    json_field_string(&json, "$schema", STR("https://json-schema.org/draft/2020-12/schema"));
    json_field_string(&json, "title", str_of(title));
    write_object_members(object, &arena, &json);
    write_definitions(object, &arena, &json);
    json_object_end(&json);
    buf_append(out, STR("\n"));
    arena_reset(&arena);
}
