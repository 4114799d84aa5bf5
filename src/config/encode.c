// Settings struct + table → node tree, for `sallyport dump` and the admin API.
#include "config/decoder.h"

static struct config_node *encode_object(const struct config_object *object, const char *base,
                                         struct arena *arena);

static struct config_node *null_node(struct arena *arena)
{
    return config_new_plain(arena, STR("null"));
}

// Fields whose values open doors. They cannot be secrets as { env: NAME } in the middle of a text, so they
// are masked.
static bool is_credential(struct str name)
{
    static const struct str parts[] = {STR("authorization"), STR("cookie"), STR("token"),  STR("secret"),
                                       STR("password"),      STR("apikey"), STR("api-key")};
    for (size_t i = 0; i < countof(parts); i++)
        for (size_t at = 0; at + parts[i].n <= name.n; at++)
            if (str_eq_fold((struct str){name.p + at, parts[i].n}, parts[i]))
                return true;
    return false;
}

static struct config_node *encode_string_map(const struct config_field *field, const struct str_map *map,
                                             struct arena *arena)
{
    struct config_node *node = config_new_map(arena), *last = NULL;
    for (uint32_t i = 0; i < map->count; i++) {
        bool is_masked = field->masked && is_credential(map->v[i].name);
        config_append(node, &last, map->v[i].name,
                      config_new_string(arena, is_masked ? STR("***") : map->v[i].value));
    }
    return node;
}

static struct config_node *encode_strings(const struct str_list *list, struct arena *arena)
{
    struct config_node *node = config_new_list(arena), *last = NULL;
    for (uint32_t i = 0; i < list->count; i++)
        config_append(node, &last, STR_NULL, config_new_string(arena, list->v[i]));
    return node;
}

static struct config_node *encode_flags(const struct config_field *field, unsigned flags, struct arena *arena)
{
    struct config_node *node = config_new_list(arena), *last = NULL;
    for (const struct config_option *option = field->options; option->name; option++)
        if (flags & (unsigned)option->value)
            config_append(node, &last, STR_NULL, config_new_plain(arena, str_of(option->name)));
    return node;
}

static struct config_node *encode_enum(const struct config_field *field, int value, struct arena *arena)
{
    for (const struct config_option *option = field->options; option->name; option++)
        if (option->value == value) // a word, or one that looks like a number: "1.2"
            return config_plain_of(str_of(option->name)) == CONFIG_PLAIN_STRING
                       ? config_new_plain(arena, str_of(option->name))
                       : config_new_string(arena, str_of(option->name));
    return NULL;
}

static struct config_node *encode_objects(const struct config_field *field, const struct config_list *list,
                                          struct arena *arena)
{
    const struct config_object *object = field->object;
    bool is_map = field->type == CONFIG_OBJECT_MAP;
    struct config_node *node = is_map ? config_new_map(arena) : config_new_list(arena), *last = NULL;
    for (uint32_t i = 0; i < list->count; i++) {
        const char *item = (const char *)list->v + object->size * i;
        struct str name = STR_NULL;
        if (is_map)
            memcpy(&name, item + object->name_offset, sizeof name);
        config_append(node, &last, name, encode_object(object, item, arena));
    }
    return node;
}

// NULL: the string is absent.
static struct config_node *encode_string(const struct str *s, struct arena *arena)
{
    return s->p ? config_new_string(arena, *s) : NULL;
}

static struct config_node *encode_number(const struct config_field *field, uint64_t number,
                                         struct arena *arena)
{
    if (config_is_null_number(field) && number == field->null_value)
        return NULL;
    if (field->type == CONFIG_DURATION)
        return config_new_duration(arena, number);
    if (field->type == CONFIG_SIZE)
        return config_new_size(arena, number);
    return config_new_plain(arena, arena_printf(arena, "%lld", (long long)number));
}

static struct config_node *encode_double(double value, struct arena *arena)
{
    struct buf text = {0};
    struct json json;
    json_init(&json, &text, false);
    json_double(&json, value);
    struct config_node *node = config_new_plain(arena, buf_str(&text));
    buf_free(&text);
    return node;
}

static struct config_node *encode_field(const struct config_field *field, const char *base,
                                        struct arena *arena)
{
    const void *at = base + field->offset;
    switch (field->type) {
    case CONFIG_STRING: return encode_string(at, arena);
    case CONFIG_BOOL: return config_new_plain(arena, *(const bool *)at ? STR("true") : STR("false"));
    case CONFIG_INT:
    case CONFIG_DURATION:
    case CONFIG_SIZE: return encode_number(field, *(const uint64_t *)at, arena);
    case CONFIG_NUMBER: return encode_double(*(const double *)at, arena);
    case CONFIG_ENUM: return encode_enum(field, *(const int *)at, arena);
    case CONFIG_FLAGS: return encode_flags(field, *(const unsigned *)at, arena);
    case CONFIG_STRINGS: return encode_strings(at, arena);
    case CONFIG_SECRET: return ((const struct str *)at)->n ? config_new_string(arena, STR("***")) : NULL;
    case CONFIG_OBJECT:
        return field->is_set_offset && !base[field->is_set_offset] ? NULL
                                                                   : encode_object(field->object, at, arena);
    case CONFIG_OBJECTS:
    case CONFIG_OBJECT_MAP: return encode_objects(field, at, arena);
    case CONFIG_STRING_MAP: return encode_string_map(field, at, arena);
    case CONFIG_CUSTOM: return field->encode(arena, at);
    }
    return NULL;
}

static bool is_one_of(const struct config_object *object, const char *key)
{
    for (const char *const *one = object->one_of; one && *one; one++)
        if (strcmp(*one, key) == 0)
            return true;
    return false;
}

static struct config_node *encode_object(const struct config_object *object, const char *base,
                                         struct arena *arena)
{
    struct config_node *node = config_new_map(arena), *last = NULL;
    for (const struct config_field *field = object->fields; field->name; field++) {
        struct config_node *value = encode_field(field, base, arena);
        if (value && is_one_of(object, field->name) && value->kind >= CONFIG_LIST && !value->first)
            value = NULL; // an empty list that stands for "not this one"
        if (!value && field->nullable)
            value = null_node(arena);
        if (value)
            config_append(node, &last, str_of(field->name), value);
    }
    return node;
}

struct config_node *config_encode(const struct config_object *object, const void *target, struct arena *arena)
{
    return encode_object(object, target, arena);
}

void config_dump(const struct config_object *object, const void *target, bool as_json, struct buf *out)
{
    struct arena arena;
    arena_init(&arena, NULL);
    const struct config_node *node = config_encode(object, target, &arena);
    if (as_json) {
        struct json json;
        json_init(&json, out, true);
        config_print_json(node, &json);
        buf_append(out, STR("\n"));
    } else {
        config_print_yaml(node, out);
    }
    arena_reset(&arena);
}
