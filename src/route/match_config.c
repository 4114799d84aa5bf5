// The field tables of a route's match: hosts, path, methods, headers, query.
#include "route/match_config.h"

#include "http/header.h"
#include "http/message.h"
#include "http/uri.h"
#include "route/route.h"
#include "route/route_regex.h"

_Static_assert((int)CONFIG_TEMPLATE_NAMES == (int)ROUTE_CAPTURES, "as many names as captures");

// ---- regular expressions ----

enum { REGEX_BYTES = 4096 };

// Compiles it, to say now and at the right place what is wrong.
static bool check_regex(struct config_decoder *decoder, const struct config_node *node, struct str text)
{
    if (text.n > REGEX_BYTES) {
        config_fail(decoder, node, "at most 4096 bytes", "the regular expression is too long");
        return false;
    }
    char why[REGEX_WHY_BYTES];
    size_t offset;
    void *code = route_regex_compile(text, why, &offset);
    if (code) {
        route_regex_code_free(code);
        return true;
    }
    config_fail(decoder, node, config_hint(decoder, "behind \"%.*s\"", (int)offset, text.p),
                "not a regular expression: %s at character %zu", why, offset + 1);
    return false;
}

// ---- {name} ----

static bool is_template_name(struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = ascii_lower(name.p[i]);
        if ((c < 'a' || c > 'z') && c != '_' && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return name.n > 0 && name.n <= 64;
}

static int fail_template(struct config_decoder *decoder, const struct config_node *node, const char *what,
                         const char *hint)
{
    if (decoder)
        config_fail(decoder, node, hint, "%s", what);
    return -1;
}

int config_template_names(struct config_decoder *decoder, const struct config_node *node, struct str text,
                          struct str names[CONFIG_TEMPLATE_NAMES])
{
    int count = 0;
    while (text.n) {
        if (text.p[0] == '}')
            return fail_template(decoder, node, "a } without its {", "write {name}");
        if (text.p[0] != '{') {
            text = str_skip(text, 1);
            continue;
        }
        size_t close = str_find(text, '}');
        struct str name = {text.p + 1, close - 1};
        if (close == text.n)
            return fail_template(decoder, node, "a { without its }", "write {name}");
        if (!is_template_name(name))
            return fail_template(decoder, node, "a malformed {name}", "letters, digits and _, at most 64");
        if (count == CONFIG_TEMPLATE_NAMES)
            return fail_template(decoder, node, "too many {names}", "at most 16");
        names[count++] = name;
        text = str_skip(text, close + 1);
    }
    return count;
}

// ---- paths ----

static bool fail_path(struct config_decoder *decoder, const struct config_node *node, struct str path,
                      const char *why)
{
    const char *hint = "";
    if (!path.n || path.p[0] != '/')
        hint = config_hint(decoder, "write /%.*s", STR_ARG(path));
    else if (str_find(path, '{') < path.n)
        hint = "write template: for a path with {name}";
    else if (str_find(path, '?') < path.n)
        hint = "parameters are matched by match.query";
    config_fail(decoder, node, hint, "%s", why);
    return false;
}

bool config_normalise_path(struct config_decoder *decoder, const struct config_node *node, struct str *path)
{
    const char *why = "";
    struct str normal;
    if (uri_normalise_path(*path, false, config_arena(decoder), &normal, &why) != URI_OK)
        return fail_path(decoder, node, *path, why);
    *path = arena_copy(config_arena(decoder), normal);
    return true;
}

static unsigned count_slashes(struct str path)
{
    unsigned count = 0;
    for (size_t i = 0; i < path.n; i++)
        count += path.p[i] == '/';
    return count;
}

static struct str next_segment(struct str *rest)
{
    size_t end = str_find(str_skip(*rest, 1), '/') + 1; // rest begins with "/"
    struct str segment = {rest->p, end};
    *rest = str_skip(*rest, end);
    return segment;
}

static bool is_variable(struct str segment)
{
    return segment.n > 2 && segment.p[1] == '{';
}

// Every {name} segment becomes "/-", so that the rest is a path like any other.
static struct str without_names(struct arena *arena, struct str path)
{
    char *out = arena_alloc(arena, path.n + 1), *at = out;
    for (struct str rest = path; rest.n;) {
        struct str segment = next_segment(&rest);
        at = mempcpy(at, is_variable(segment) ? "/-" : segment.p, is_variable(segment) ? 2 : segment.n);
    }
    return str_range(out, at);
}

static struct str with_names(struct arena *arena, struct str path, struct str normal)
{
    char *out = arena_alloc(arena, path.n + 1), *at = out;
    for (struct str rest = path; rest.n && normal.n;) {
        struct str segment = next_segment(&rest), plain = next_segment(&normal);
        struct str kept = is_variable(segment) ? segment : plain;
        at = mempcpy(at, kept.p, kept.n);
    }
    *at = 0;
    return str_range(out, at);
}

static bool has_partial_name(struct str path)
{
    for (struct str rest = path; rest.n;) {
        struct str segment = next_segment(&rest);
        size_t open = str_find(segment, '{');
        if (open < segment.n && (open != 1 || str_find(segment, '}') != segment.n - 1))
            return true;
    }
    return false;
}

bool config_normalise_template(struct config_decoder *decoder, const struct config_node *node,
                               struct str *path)
{
    struct str names[CONFIG_TEMPLATE_NAMES], normal;
    struct arena *arena = config_arena(decoder);
    const char *why = "";
    if (!path->n || path->p[0] != '/')
        return fail_path(decoder, node, *path, "a path begins with /");
    if (config_template_names(decoder, node, *path, names) < 0)
        return false;
    if (has_partial_name(*path)) {
        config_fail(decoder, node, "write regex: for parts of a segment",
                    "a {name} stands for a whole segment");
        return false;
    }
    struct str plain = without_names(arena, *path);
    if (uri_normalise_path(plain, false, arena, &normal, &why) != URI_OK)
        return fail_path(decoder, node, plain, why);
    if (count_slashes(plain) != count_slashes(normal)) {
        config_fail(decoder, node, "write the path that is meant", "dot segments beside {names}");
        return false;
    }
    *path = with_names(arena, *path, normal);
    return true;
}

static void set_path(void *target, enum path_kind kind, struct str text)
{
    *(struct path_match *)target = (struct path_match){kind, text};
}

static void decode_prefix(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text;
    if (!config_decode_string(decoder, node, &text))
        return;
    if (str_ends(text, STR("*")))
        config_fail(decoder, node, "a prefix matches all that is below it: remove the *",
                    "a * at the end of a prefix");
    else if (config_normalise_path(decoder, node, &text))
        set_path(target, PATH_PREFIX, text);
}

static void decode_exact(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text;
    if (config_decode_string(decoder, node, &text) && config_normalise_path(decoder, node, &text))
        set_path(target, PATH_EXACT, text);
}

static void decode_template(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text, names[CONFIG_TEMPLATE_NAMES];
    if (!config_decode_string(decoder, node, &text) || !config_normalise_template(decoder, node, &text))
        return;
    int count = config_template_names(decoder, node, text, names);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            if (str_eq(names[i], names[j])) {
                config_fail(decoder, node, "give each its own name", "{%.*s} stands there twice",
                            STR_ARG(names[i]));
                return;
            }
    set_path(target, PATH_TEMPLATE, text);
}

static void decode_regex(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text;
    if (config_decode_string(decoder, node, &text) && check_regex(decoder, node, text))
        set_path(target, PATH_REGEX, text);
}

static struct config_node *encode_path(struct arena *arena, const void *target, enum path_kind kind)
{
    const struct path_match *path = target;
    return path->kind == kind ? config_new_string(arena, path->text) : NULL;
}

static struct config_node *encode_prefix(struct arena *arena, const void *target)
{
    return encode_path(arena, target, PATH_PREFIX);
}

static struct config_node *encode_exact(struct arena *arena, const void *target)
{
    return encode_path(arena, target, PATH_EXACT);
}

static struct config_node *encode_template(struct arena *arena, const void *target)
{
    return encode_path(arena, target, PATH_TEMPLATE);
}

static struct config_node *encode_regex(struct arena *arena, const void *target)
{
    return encode_path(arena, target, PATH_REGEX);
}

#define PATH_SCHEMA "{ anyOf: [{ type: string, pattern: '^/' }, { $ref: '#/$defs/variable' }] }"

static const struct config_field path_fields[] = {
    {.name = "prefix",
     .type = CONFIG_CUSTOM,
     .decode = decode_prefix,
     .encode = encode_prefix,
     .schema = PATH_SCHEMA,
     .type_name = "a path",
     .doc =
         "This path and all below it, by whole segments: /orders takes /orders and /orders/7, not /orders7."},
    {.name = "exact",
     .type = CONFIG_CUSTOM,
     .decode = decode_exact,
     .encode = encode_exact,
     .schema = PATH_SCHEMA,
     .type_name = "a path",
     .doc = "This path alone."},
    {.name = "template",
     .type = CONFIG_CUSTOM,
     .decode = decode_template,
     .encode = encode_template,
     .schema = PATH_SCHEMA,
     .type_name = "a path with {name} segments",
     .doc = "A path in which {name} stands for any one segment."},
    {.name = "regex",
     .type = CONFIG_CUSTOM,
     .decode = decode_regex,
     .encode = encode_regex,
     .schema = "{ type: string }",
     .type_name = "a regular expression",
     .doc = "A regular expression (PCRE2) for the whole path."},
    {0},
};

static const char *const path_kinds[] = {"prefix", "exact", "template", "regex", NULL};

static const struct config_object path_object = {
    .name = "path",
    .doc = "Which paths are matched: exactly one of the four. Paths are compared in their normal form: dot "
           "segments "
           "removed, escapes of unreserved characters decoded.",
    .example = "{ template: \"/orders/{id}\" }",
    .size = sizeof(struct path_match),
    .fields = path_fields,
    .one_of = path_kinds,
};

// ---- hosts ----

static bool is_host(struct str host)
{
    size_t label = 0;
    if (!host.n || host.n > 253)
        return false;
    for (size_t i = 0; i <= host.n; i++) {
        if (i == host.n || host.p[i] == '.') {
            if (label == 0 || label > 63)
                return false;
            label = 0;
            continue;
        }
        char c = host.p[i];
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_')
            return false;
        label++;
    }
    return true;
}

static bool is_ip_literal(struct str host)
{
    struct ip ip;
    return host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']' &&
           ip_parse((struct str){host.p + 1, host.n - 2}, &ip);
}

static const char *host_hint(struct config_decoder *decoder, struct str host)
{
    for (size_t i = 0; i < host.n; i++)
        if ((unsigned char)host.p[i] >= 0x80)
            return "write the xn-- form of the name";
    if (memmem(host.p, host.n, "://", 3) || str_find(host, '/') < host.n)
        return "without a scheme and a path";
    size_t colon = str_find(host, ':');
    if (colon < host.n && host.p[0] != '[')
        return config_hint(decoder, "without a port: %.*s", (int)colon, host.p);
    if (str_eq(host, STR("*")))
        return "leave hosts out to match any";
    if (str_find(host, '*') < host.n)
        return "a * stands only in front: *.example.com";
    return "such as api.example.com or *.example.com";
}

static bool accept_host(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct str host = arena_copy(config_arena(decoder), *value);
    for (size_t i = 0; i < host.n; i++)
        ((char *)(uintptr_t)host.p)[i] = ascii_lower(host.p[i]);
    if (is_host(str_starts(host, STR("*.")) ? str_skip(host, 2) : host) || is_ip_literal(host)) {
        *value = host;
        return true;
    }
    config_fail(decoder, node, host_hint(decoder, host), "not a host: \"%.*s\"", STR_ARG(*value));
    return false;
}

// ---- methods ----

static bool accept_method(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    static const struct str known[] = {
#define X(id, name) STR(name),
        HTTP_METHODS(X)
#undef X
    };
    if (!header_name_valid(*value)) { // both are tokens
        config_fail(decoder, node, "such as GET or POST", "not a method: \"%.*s\"", STR_ARG(*value));
        return false;
    }
    if (str_eq(*value, STR("CONNECT"))) {
        config_fail(decoder, node, "this gateway is no forward proxy: CONNECT is answered with 501",
                    "never routed");
        return false;
    }
    for (size_t i = 0; i < countof(known); i++)
        if (!str_eq(*value, known[i]) && str_eq_fold(*value, known[i])) {
            config_fail(decoder, node, config_hint(decoder, "write %.*s", STR_ARG(known[i])),
                        "methods are in capital letters");
            return false;
        }
    return true;
}

// ---- headers and query parameters ----

static bool decode_value_map(struct config_decoder *decoder, const struct config_node *node,
                             struct value_match *match)
{
    const struct config_node *way = node->first;
    static const struct str ways[] = {STR("regex"), STR("present")};
    if (node->count != 1) {
        config_fail(decoder, node, "write a string, { regex: … } or { present: true }",
                    "needs exactly one of regex and present");
        return false;
    }
    config_enter(decoder, way->key);
    bool is_good = false;
    if (str_eq(way->key, ways[0])) {
        match->kind = VALUE_REGEX;
        is_good = config_decode_string(decoder, way, &match->text) && check_regex(decoder, way, match->text);
    } else if (!str_eq(way->key, ways[1])) {
        config_fail_key(decoder, way, config_suggest(decoder, way->key, ways, countof(ways)), "unknown key");
    } else if (way->kind == CONFIG_SCALAR && !way->quoted && str_eq(way->text, STR("true"))) {
        match->kind = VALUE_PRESENT;
        is_good = true;
    } else {
        config_fail_type(decoder, way, "that it is absent cannot be asked for", "true");
    }
    config_leave(decoder);
    return is_good;
}

static bool decode_value(struct config_decoder *decoder, const struct config_node *node,
                         struct value_match *match)
{
    if (node->kind == CONFIG_MAP)
        return decode_value_map(decoder, node, match);
    match->kind = VALUE_EXACT;
    return config_decode_string(decoder, node, &match->text);
}

static void decode_values(struct config_decoder *decoder, const struct config_node *node,
                          struct value_matches *target,
                          bool (*accept_name)(struct config_decoder *, const struct config_node *))
{
    if (node->kind != CONFIG_MAP) {
        config_fail_type(decoder, node, "", "a map of names to values");
        return;
    }
    struct value_matches matches = {arena_array(config_arena(decoder), struct value_match, node->count), 0};
    for (const struct config_node *child = node->first; child; child = child->next) {
        struct value_match match = {.name = arena_copy(config_arena(decoder), child->key)};
        config_enter(decoder, child->key);
        bool is_name = accept_name(decoder, child);
        if (!child->bad && decode_value(decoder, child, &match) && is_name)
            matches.v[matches.count++] = match;
        config_leave(decoder);
    }
    *target = matches;
}

static bool accept_header_name(struct config_decoder *decoder, const struct config_node *node)
{
    if (!header_name_valid(node->key)) {
        config_fail_key(decoder, node, "letters, digits and !#$%&'*+-.^_`|~", "not a header name");
        return false;
    }
    if (header_id_of(node->key) == HEADER_HOST) {
        config_fail_key(decoder, node, "write hosts: [NAME]", "the Host is matched by match.hosts");
        return false;
    }
    return true;
}

static bool accept_parameter_name(struct config_decoder *decoder, const struct config_node *node)
{
    bool is_printable = config_is_printable(node->key);
    if (!node->key.n)
        config_fail_key(decoder, node, "", "an empty parameter name");
    if (!is_printable)
        config_fail_key(decoder, node, "", "a control character in a parameter name");
    return node->key.n && is_printable;
}

static void decode_headers(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    decode_values(decoder, node, target, accept_header_name);
}

static void decode_query(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    decode_values(decoder, node, target, accept_parameter_name);
}

static struct config_node *encode_values(struct arena *arena, const void *target)
{
    const struct value_matches *matches = target;
    struct config_node *map = config_new_map(arena), *last = NULL;
    for (uint32_t i = 0; i < matches->count; i++) {
        const struct value_match *match = &matches->v[i];
        struct config_node *value = config_new_string(arena, match->text), *way_last = NULL;
        if (match->kind != VALUE_EXACT) {
            struct config_node *way =
                match->kind == VALUE_REGEX ? value : config_new_plain(arena, STR("true"));
            value = config_new_map(arena);
            config_append(value, &way_last, match->kind == VALUE_REGEX ? STR("regex") : STR("present"), way);
        }
        config_append(map, &last, match->name, value);
    }
    return map;
}

static void check_match(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    (void)target;
    config_check_header_names(decoder, node, STR("headers"));
}

// ---- the table ----

#define VALUES_SCHEMA                                                                                        \
    "{ type: object, additionalProperties: { anyOf: [{ type: string },"                                      \
    " { type: object, properties: { regex: { type: string } }, required: [regex], additionalProperties: "    \
    "false },"                                                                                               \
    " { type: object, properties: { present: { const: true } }, required: [present], additionalProperties: " \
    "false }] } }"

static const struct config_field match_fields[] = {
    {.name = "hosts",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct match_settings, hosts),
     .fallback = "[]",
     .accept = accept_host,
     .pattern = "^(([*][.])?[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*|\\[[0-9A-Fa-f:.]+\\])$",
     .type_name = "a list of hosts",
     .doc = "Host names, without a port; *.example.com takes every name below example.com. []: any."},
    {.name = "path",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct match_settings, path),
     .fallback = "{ prefix: / }",
     .object = &path_object,
     .doc = "Which paths."},
    {.name = "methods",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct match_settings, methods),
     .fallback = "[]",
     .accept = accept_method,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a list of methods",
     .doc = "Which methods. []: any."},
    {.name = "headers",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct match_settings, headers),
     .fallback = "{}",
     .decode = decode_headers,
     .encode = encode_values,
     .schema = VALUES_SCHEMA,
     .type_name = "a map of names to values",
     .doc = "NAME: value, NAME: { regex: … } (for the whole value) or NAME: { present: true }. All of them "
            "must fit.",
     .example = "{ X-Api-Version: \"2\", X-Debug: { present: true } }"},
    {.name = "query",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct match_settings, query),
     .fallback = "{}",
     .decode = decode_query,
     .encode = encode_values,
     .schema = VALUES_SCHEMA,
     .type_name = "a map of names to values",
     .doc = "The same for query parameters.",
     .example = "{ page: { regex: \"[0-9]+\" } }"},
    {0},
};

const struct config_object match_object = {
    .name = "match",
    .doc = "Which requests a route takes: those that fit every key given.",
    .example = "hosts: [api.example.com, \"*.api.example.com\"]\n"
               "path: { prefix: /orders }\n"
               "methods: [GET, POST]\n"
               "headers: { X-Api-Version: \"2\" }\n",
    .size = sizeof(struct match_settings),
    .fields = match_fields,
    .check_rules = check_match,
};
