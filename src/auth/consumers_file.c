// Consumers from a file. JSON Lines, for many: a line is read, added and forgotten. YAML, as in the settings:
// by their field table.
#include "auth/consumers_build.h"

#include "base/json_parse.h"

#include <stdio.h>

// Why a line is refused, in the words that follow its number.
struct line {
    struct arena *arena;
    struct err *err;
};

static bool refuse(const struct line *line, const char *what, struct str about)
{
    if (about.n)
        err_set(line->err, ERR_INVALID, "", "%s: \"%.*s\"", what, about.n > 64 ? 64 : (int)about.n, about.p);
    else
        err_set(line->err, ERR_INVALID, "", "%s", what);
    return false;
}

// ---- texts ----

static bool is_name(struct str text)
{
    return text.n && text.n <= CONSUMER_NAME_BYTES && config_is_printable(text);
}

static bool is_role(struct str text)
{
    return text.n <= CONSUMER_NAME_BYTES && auth_role_valid(text);
}

static bool is_scope(struct str text)
{
    return text.n <= CONSUMER_NAME_BYTES && auth_scope_valid(text);
}

static bool is_san(struct str text)
{
    return text.n <= CONSUMER_SAN_BYTES && auth_san_valid(text);
}

static bool is_subject(struct str text)
{
    return text.n && text.n <= CONSUMER_SAN_BYTES && config_is_printable(text);
}

static bool is_fingerprint(struct str text)
{
    uint8_t hash[CONSUMERS_HASH_BYTES];
    return consumers_read_hash(text, true, hash);
}

// ---- members ----

static bool is_list(const struct json_value *value)
{
    return value->kind == JSON_ARRAY && value->count <= CONSUMER_ITEMS;
}

static bool read_texts(const struct line *line, const struct json_value *value, bool (*is_good)(struct str),
                       struct str_list *list)
{
    if (!is_list(value))
        return refuse(line, "not a list, or too long a one", value->key);
    *list = (struct str_list){.v = arena_array(line->arena, struct str, value->count)};
    for (const struct json_value *item = value->first; item; item = item->next) {
        if (!json_is_string(item) || !is_good(item->text))
            return refuse(line, "a wrong value in", value->key);
        list->v[list->count++] = item->text;
    }
    return true;
}

static bool read_name(const struct line *line, const struct json_value *value,
                      struct consumer_settings *consumer)
{
    if (!json_is_string(value) || !is_name(value->text))
        return refuse(line, "name is not 1 to 256 bytes of printable text", STR_NULL);
    consumer->name = value->text;
    return true;
}

static bool read_roles(const struct line *line, const struct json_value *value,
                       struct consumer_settings *consumer)
{
    return read_texts(line, value, is_role, &consumer->roles);
}

static bool read_scopes(const struct line *line, const struct json_value *value,
                        struct consumer_settings *consumer)
{
    return read_texts(line, value, is_scope, &consumer->scopes);
}

// "…", or { "sha256": "…" } as in YAML. What is there by mistake may be a key itself: it is not shown.
static bool read_keys(const struct line *line, const struct json_value *value,
                      struct consumer_settings *consumer)
{
    if (!is_list(value))
        return refuse(line, "not a list, or too long a one", value->key);
    struct consumer_key *keys = arena_array(line->arena, struct consumer_key, value->count);
    consumer->api_keys = (struct config_list){keys, value->count};
    for (const struct json_value *item = value->first; item; item = item->next) {
        const struct json_value *text = item;
        if (item->kind == JSON_OBJECT)
            text = item->count == 1 ? json_get(item, STR("sha256")) : NULL;
        if (!json_is_string(text))
            return refuse(line, "a wrong value in", value->key);
        (keys++)->sha256 = text->text; // looked at when it is added
    }
    return true;
}

static bool read_certificate(const struct line *line, const struct json_value *value,
                             struct consumer_certificate *certificate)
{
    const struct {
        struct str name;
        bool (*is_good)(struct str);
        struct str *text;
    } properties[] = {
        {STR("san"), is_san, &certificate->san},
        {STR("subject"), is_subject, &certificate->subject},
        {STR("fingerprint"), is_fingerprint, &certificate->fingerprint},
    };
    const struct json_value *only = value->kind == JSON_OBJECT && value->count == 1 ? value->first : NULL;
    for (size_t i = 0; only && i < countof(properties); i++) {
        if (!str_eq(only->key, properties[i].name))
            continue;
        if (!json_is_string(only) || !properties[i].is_good(only->text))
            return refuse(line, "a wrong value in certificates", only->key);
        *properties[i].text = only->text;
        return true;
    }
    return refuse(line, "a certificate is named by one of san, subject and fingerprint", STR_NULL);
}

static bool read_certificates(const struct line *line, const struct json_value *value,
                              struct consumer_settings *consumer)
{
    if (!is_list(value))
        return refuse(line, "not a list, or too long a one", value->key);
    struct consumer_certificate *list = arena_array(line->arena, struct consumer_certificate, value->count);
    consumer->certificates = (struct config_list){list, value->count};
    for (const struct json_value *item = value->first; item; item = item->next)
        if (!read_certificate(line, item, list++))
            return false;
    return true;
}

static const struct {
    struct str name;
    bool (*read)(const struct line *line, const struct json_value *value, struct consumer_settings *consumer);
} members[] = {
    {STR("name"), read_name},   {STR("api_keys"), read_keys}, {STR("certificates"), read_certificates},
    {STR("roles"), read_roles}, {STR("scopes"), read_scopes},
};

static bool read_member(const struct line *line, const struct json_value *value,
                        struct consumer_settings *consumer)
{
    for (size_t i = 0; i < countof(members); i++)
        if (str_eq(value->key, members[i].name))
            return members[i].read(line, value, consumer);
    return refuse(line, "unknown key", config_is_printable(value->key) ? value->key : STR_NULL);
}

// ---- lines ----

static bool read_line(const struct line *line, struct str text, struct consumers_builder *builder)
{
    struct consumer_settings consumer = {0};
    const char *why = "it is too long";
    const struct json_value *value =
        text.n <= CONSUMERS_LINE_BYTES ? json_parse(text, line->arena, &why) : NULL;
    if (!value)
        return refuse(line, why, STR_NULL);
    if (value->kind != JSON_OBJECT)
        return refuse(line, "not a JSON object", STR_NULL);
    for (const struct json_value *member = value->first; member; member = member->next)
        if (!read_member(line, member, &consumer))
            return false;
    if (!consumer.name.n)
        return refuse(line, "no name", STR_NULL);
    return consumers_add(builder, &consumer, line->err);
}

static bool read_lines(struct consumers_builder *builder, struct str rest, struct err *err)
{
    struct arena_spares spares = {.max = 1}; // the same block for each line
    struct arena arena;
    struct err why;
    struct line line = {&arena, &why};
    bool good = true;
    arena_init(&arena, &spares);
    for (uint32_t number = 1; good && rest.n; number++) {
        size_t n = str_find(rest, '\n');
        struct str text = str_trim((struct str){rest.p, n && rest.p[n - 1] == '\r' ? n - 1 : n});
        rest = str_skip(rest, n < rest.n ? n + 1 : n);
        if (!text.n)
            continue;
        good = read_line(&line, text, builder);
        if (!good)
            err_set(err, why.code, "", "line %u: %s", number, why.what);
        arena_reset(&arena);
    }
    arena_spares_fini(&spares);
    return good;
}

// ---- YAML ----

struct document {
    struct config_list consumers;
};

static const struct config_field document_fields[] = {
    {.name = "consumers",
     .type = CONFIG_OBJECT_MAP,
     .offset = offsetof(struct document, consumers),
     .object = &consumer_object,
     .accept = config_accept_name},
    {0},
};

static const struct config_object document_object = {
    .name = "consumers_file",
    .size = sizeof(struct document),
    .fields = document_fields,
};

// The file is what stands behind the key `consumers`: it is put there.
static struct config_node *parse_document(struct str file, struct str text, struct config_report *report)
{
    struct config_node *document = config_new_map(report->arena), *last = NULL;
    struct config_node *consumers = config_parse(file, text, report->arena, report);
    if (consumers && consumers->kind != CONFIG_NULL)
        config_append(document, &last, STR("consumers"), consumers);
    return document;
}

static bool add_document(struct consumers_builder *builder, const struct document *document, struct err *err)
{
    const struct consumer_settings *consumers = document->consumers.v;
    struct err why;
    for (uint32_t i = 0; i < document->consumers.count; i++) {
        if (consumers_add(builder, &consumers[i], &why))
            continue;
        err_set(err, why.code, "", "line %u: %s", consumers[i].line, why.what);
        return false;
    }
    return true;
}

static bool read_yaml(struct consumers_builder *builder, const struct consumers_source *source,
                      struct err *err)
{
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    struct document document = {0};
    const struct config_node *tree = parse_document(source->file, source->text, &report);
    if (!report.count)
        config_decode(&document_object, tree, &document, source->file, &arena, &report);
    config_report_sort(&report);
    const struct config_error *first = report.first;
    if (first)
        err_set(err, ERR_INVALID, "", "line %u: %.*s%s%.*s", first->line, STR_ARG(first->path),
                first->path.n ? ": " : "", STR_ARG(first->what));
    bool good = !first && add_document(builder, &document, err);
    arena_reset(&arena);
    return good;
}

// ---- either ----

static bool is_lines(struct str text)
{
    size_t at = 0;
    while (at < text.n && strchr(" \t\r\n", text.p[at]))
        at++;
    return at == text.n || text.p[at] == '{';
}

bool consumers_read_file(struct consumers_builder *builder, const struct consumers_source *source,
                         struct err *err)
{
    bool good =
        is_lines(source->text) ? read_lines(builder, source->text, err) : read_yaml(builder, source, err);
    if (!good && err)
        snprintf(err->where, sizeof err->where, "%.*s", STR_ARG(source->file));
    return good;
}
