// The field tables of routes. What a route matches is in match_config.c; here is what it does, and the rules
// between.
#include "route/match_config.h"
#include "route/route.h"

#include "http/uri.h"

// ---- rewrite ----

static bool accept_rewrite_prefix(struct config_decoder *decoder, const struct config_node *node,
                                  struct str *value)
{
    return config_normalise_path(decoder, node, value);
}

static bool accept_rewrite_path(struct config_decoder *decoder, const struct config_node *node,
                                struct str *value)
{
    return config_normalise_template(decoder, node, value);
}

static void decode_rewrite_host(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct rewrite_settings *rewrite = target;
    struct str text, host, port;
    if (!config_decode_string(decoder, node, &text))
        return;
    if (str_eq(text, STR("upstream"))) {
        rewrite->host_kind = REWRITE_HOST_UPSTREAM;
    } else if (uri_authority_split(text, &host, &port) && host.n) {
        rewrite->host_kind = REWRITE_HOST_NAME;
        rewrite->host = text;
    } else {
        config_fail(decoder, node, "a host name, with a port if need be, or upstream", "not a host: \"%.*s\"",
                    STR_ARG(text));
    }
}

static struct config_node *encode_rewrite_host(struct arena *arena, const void *target)
{
    const struct rewrite_settings *rewrite = target;
    if (rewrite->host_kind == REWRITE_HOST_KEEP)
        return NULL;
    return config_new_string(arena,
                             rewrite->host_kind == REWRITE_HOST_NAME ? rewrite->host : STR("upstream"));
}

static void check_rewrite(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    (void)target;
    const struct config_node *prefix = config_get(node, STR("prefix")), *path = config_get(node, STR("path"));
    if (!node->count)
        config_fail(decoder, node, "add prefix, path or host", "nothing to rewrite");
    if (prefix && prefix->kind != CONFIG_NULL && path && path->kind != CONFIG_NULL)
        config_fail_at(decoder, node, STR("path"), "remove one of the two",
                       "prefix and path exclude each other");
}

static const struct config_field rewrite_fields[] = {
    {.name = "prefix",
     .type = CONFIG_STRING,
     .offset = offsetof(struct rewrite_settings, prefix),
     .nullable = true,
     .accept = accept_rewrite_prefix,
     .pattern = "^/",
     .type_name = "a path",
     .doc = "Replaces the prefix that was matched; only with match.path.prefix."},
    {.name = "path",
     .type = CONFIG_STRING,
     .offset = offsetof(struct rewrite_settings, path),
     .nullable = true,
     .accept = accept_rewrite_path,
     .pattern = "^/",
     .type_name = "a path",
     .doc = "Replaces the whole path; {name} stands for that segment of match.path.template."},
    {.name = "host",
     .type = CONFIG_CUSTOM,
     .nullable = true,
     .decode = decode_rewrite_host,
     .encode = encode_rewrite_host,
     .schema = "{ type: string, minLength: 1 }",
     .type_name = "a host name, or upstream",
     .doc = "The Host that the upstream sees: a name, or upstream for the target's own. null: the client's."},
    {0},
};

static const struct config_object rewrite_object = {
    .name = "rewrite",
    .doc = "What the upstream receives instead of the request's path and Host.",
    .example = "{ path: \"/v1/orders/{id}\", host: orders.internal }",
    .size = sizeof(struct rewrite_settings),
    .fields = rewrite_fields,
    .check_rules = check_rewrite,
};

// ---- split, redirect, respond ----

static const struct config_field split_fields[] = {
    {.name = "upstream",
     .type = CONFIG_STRING,
     .offset = offsetof(struct split_target, upstream),
     .required = true,
     .type_name = "the name of an upstream",
     .doc = "Its name.",
     .example = "orders"},
    {.name = "weight",
     .type = CONFIG_INT,
     .offset = offsetof(struct split_target, weight),
     .fallback = "1",
     .min = 0,
     .max = 1000000,
     .doc = "Its share of the requests, relative to the others."},
    {0},
};

static const struct config_object split_object = {
    .name = "split_target",
    .doc = "One of the upstreams that share a route's requests.",
    .example = "{ upstream: orders, weight: 95 }",
    .size = sizeof(struct split_target),
    .fields = split_fields,
    .has_position = true,
};

static bool accept_redirect_to(struct config_decoder *decoder, const struct config_node *node,
                               struct str *value)
{
    struct str names[CONFIG_TEMPLATE_NAMES];
    for (size_t i = 0; i < value->n; i++) {
        unsigned char c = (unsigned char)value->p[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' || c == '\\') {
            config_fail(decoder, node, "percent-encode it", "a character that no URL may hold");
            return false;
        }
    }
    bool is_path = value->n && value->p[0] == '/';
    if (is_path && (str_starts(*value, STR("//")) || str_starts(*value, STR("/{path}")))) {
        config_fail(decoder, node, "write https://… for a host, one / for a path",
                    "begins with //, which names a host");
        return false;
    }
    if (!is_path && !str_starts(*value, STR("https://")) && !str_starts(*value, STR("http://")) &&
        !str_starts(*value, STR("{scheme}://")) && !str_starts(*value, STR("{path}"))) {
        config_fail(decoder, node, "such as https://{host}{path} or /new",
                    "neither a path nor an http or https URL");
        return false;
    }
    return config_template_names(decoder, node, *value, names) >= 0;
}

static void decode_redirect_status(struct config_decoder *decoder, const struct config_node *node,
                                   void *target)
{
    int64_t status;
    if (!config_decode_int(decoder, node, &status))
        return;
    if (status == 301 || status == 302 || status == 303 || status == 307 || status == 308)
        memcpy(target, &status, sizeof status);
    else
        config_fail(decoder, node, "301 and 308 for good, 302, 303 and 307 for now",
                    "no status for a redirect: %lld", (long long)status);
}

static struct config_node *encode_redirect_status(struct arena *arena, const void *target)
{
    return config_new_plain(arena, arena_printf(arena, "%lld", (long long)*(const int64_t *)target));
}

static const struct config_field redirect_fields[] = {
    {.name = "to",
     .type = CONFIG_STRING,
     .offset = offsetof(struct redirect_settings, to),
     .required = true,
     .accept = accept_redirect_to,
     .pattern = "^(/|https?://|[{](path|scheme)[}])",
     .type_name = "a URL or path",
     .doc = "The Location. {scheme}, {host}, {path} and {query} stand for the request's, {name} for that "
            "segment of "
            "match.path.template.",
     .example = "\"https://{host}{path}\""},
    {.name = "status",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct redirect_settings, status),
     .fallback = "308",
     .decode = decode_redirect_status,
     .encode = encode_redirect_status,
     .schema = "{ anyOf: [{ enum: [301, 302, 303, 307, 308] }, { $ref: '#/$defs/variable' }] }",
     .type_name = "301, 302, 303, 307 or 308",
     .doc = "308 and 301 for good, 307, 302 and 303 for now."},
    {0},
};

static const struct config_object redirect_object = {
    .name = "redirect",
    .doc = "Answers with another address instead of forwarding.",
    .example = "{ to: \"https://www.example.com{path}?{query}\", status: 308 }",
    .size = sizeof(struct redirect_settings),
    .fields = redirect_fields,
};

static void check_respond(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    config_check_respond(decoder, node, target);
}

struct respond_table { // so that the fields have a member to be of
    struct respond_settings respond;
};

static const struct config_field respond_fields[] = {CONFIG_RESPOND_FIELDS(struct respond_table, respond),
                                                     {0}};

static const struct config_object respond_object = {
    .name = "respond",
    .doc = "Answers by itself instead of forwarding.",
    .example = "{ status: 200, body: \"hello\", headers: { Content-Type: text/plain } }",
    .size = sizeof(struct respond_settings),
    .fields = respond_fields,
    .check_rules = check_respond,
};

// ---- rules between a route's parts ----

// Every {name} of text must be a name of the route's template, or one of words.
static void check_names(struct config_decoder *decoder, const struct config_node *node,
                        const struct route_settings *route, struct str text, const struct str *words,
                        size_t word_count)
{
    struct str known[CONFIG_TEMPLATE_NAMES + 8], used[CONFIG_TEMPLATE_NAMES];
    int known_count = 0, used_count = config_template_names(NULL, node, text, used);
    if (route->match.path.kind == PATH_TEMPLATE)
        known_count = config_template_names(NULL, node, route->match.path.text, known);
    if (known_count < 0)
        known_count = 0;
    for (size_t i = 0; i < word_count; i++)
        known[known_count++] = words[i];
    for (int i = 0; i < used_count; i++) {
        bool is_known = false;
        for (int j = 0; j < known_count; j++)
            is_known |= str_eq(used[i], known[j]);
        if (is_known)
            continue;
        const char *hint = config_suggest(decoder, used[i], known, (size_t)known_count);
        config_fail(decoder, node, *hint ? hint : "names come from match.path.template",
                    "{%.*s} names nothing of the request", STR_ARG(used[i]));
    }
}

static void check_texts(struct config_decoder *decoder, const struct config_node *node,
                        const struct route_settings *route)
{
    static const struct str words[] = {STR("path"), STR("query"), STR("host"), STR("scheme")};
    const struct config_node *path = config_get(config_get(node, STR("rewrite")), STR("path"));
    const struct config_node *to = config_get(config_get(node, STR("redirect")), STR("to"));
    const struct config_node *prefix = config_get(config_get(node, STR("rewrite")), STR("prefix"));
    config_enter(decoder, STR("rewrite"));
    if (path && route->rewrite.path.n) {
        config_enter(decoder, STR("path"));
        check_names(decoder, path, route, route->rewrite.path, NULL, 0);
        config_leave(decoder);
    }
    if (prefix && route->rewrite.prefix.n && route->match.path.kind != PATH_PREFIX) {
        config_enter(decoder, STR("prefix"));
        config_fail(decoder, prefix, "write rewrite: { path: … }", "match.path is no prefix");
        config_leave(decoder);
    }
    config_leave(decoder);
    if (to && route->redirect.to.n) {
        config_enter(decoder, STR("redirect"));
        config_enter(decoder, STR("to"));
        check_names(decoder, to, route, route->redirect.to, words, countof(words));
        config_leave(decoder);
        config_leave(decoder);
    }
}

static void check_split(struct config_decoder *decoder, const struct config_node *node,
                        const struct route_settings *route)
{
    const struct split_target *targets = route->split.v;
    int64_t sum = 0;
    for (uint32_t i = 0; i < route->split.count; i++)
        sum += targets[i].weight;
    if (route->split.count && sum == 0)
        config_fail_at(decoder, node, STR("split"), "give one of them a weight",
                       "every upstream has weight 0");
    if (sum > UINT32_MAX)
        config_fail_at(decoder, node, STR("split"), "choose smaller ones", "the weights are too large");
}

// Keys that mean something only for what is forwarded.
static void check_forwarding(struct config_decoder *decoder, const struct config_node *node,
                             const struct route_settings *route)
{
    static const struct str keys[] = {STR("rewrite"), STR("retries")};
    if (!route->has_redirect && !route->has_respond)
        return;
    for (size_t i = 0; i < countof(keys); i++) {
        const struct config_node *child = config_get(node, keys[i]);
        if (child && child->kind != CONFIG_NULL)
            config_fail_at(decoder, node, keys[i], "remove it",
                           "a route that answers by itself forwards nothing");
    }
}

static void check_route(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct route_settings *route = target;
    route->has_auth = route->auth.any_of.count > 0;
    check_texts(decoder, node, route);
    check_split(decoder, node, route);
    check_forwarding(decoder, node, route);
}

static const struct config_option priority_options[] = {
#define X(id, name) {name, id},
    PRIORITY_NAMES(X)
#undef X
        {0}};

static const char *const actions[] = {"upstream", "split", "redirect", "respond", NULL};

static const struct config_field route_fields[] = {
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = offsetof(struct route_settings, name),
     .required = true,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .type_name = "a name",
     .doc = "Its name in logs and metrics; unique.",
     .example = "orders"},
    {.name = "match",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, match),
     .object = &match_object,
     .doc = "Which requests it takes; without it, all."},
    {.name = "upstream",
     .type = CONFIG_STRING,
     .offset = offsetof(struct route_settings, upstream),
     .type_name = "the name of an upstream",
     .doc = "Forwards to this upstream. Exactly one of upstream, split, redirect and respond."},
    {.name = "split",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct route_settings, split),
     .object = &split_object,
     .min_count = 1,
     .doc = "Forwards to several upstreams, by weight."},
    {.name = "redirect",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, redirect),
     .is_set_offset = offsetof(struct route_settings, has_redirect),
     .object = &redirect_object,
     .doc = "Answers with another address."},
    {.name = "respond",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, respond),
     .is_set_offset = offsetof(struct route_settings, has_respond),
     .object = &respond_object,
     .doc = "Answers by itself."},
    {.name = "auth",
     CONFIG_ROUTE_AUTH,
     .offset = offsetof(struct route_settings, auth),
     .nullable = true,
     .doc = "Who may call: the name of a provider, or several, and what the caller must be allowed. null: "
            "everybody.",
     .example = "{ any_of: [corp, keys], require: { scopes: [orders.read] } }"},
    {.name = "outlive_token",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct route_settings, outlive_token),
     .fallback = "false",
     .doc =
         "Streams (tunnels such as WebSocket, text/event-stream responses, gRPC calls) end within a second "
         "when the token that they began with expires or is revoked. true: they go on."},
    {.name = "rewrite",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, rewrite),
     .is_set_offset = offsetof(struct route_settings, has_rewrite),
     .nullable = true,
     .object = &rewrite_object,
     .doc = "What the upstream receives instead of the path and Host."},
    {.name = "headers",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, headers),
     .object = &header_rules_object,
     .doc = "Changes to headers."},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct route_settings, timeout_us),
     .fallback = "30s",
     .min = 0,
     .max = 24 * 3600e6,
     .doc = "For the whole exchange, retries included; services are told what is left of it. 0s: none, for "
            "streams."},
    {.name = "retries",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, retries),
     .is_set_offset = offsetof(struct route_settings, has_retries),
     .nullable = true,
     .object = &retry_object,
     .doc = "Replaces the upstream's retries, all of its keys. null: the upstream's."},
    {.name = "cors",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, cors),
     .is_set_offset = offsetof(struct route_settings, has_cors),
     .nullable = true,
     .object = &cors_object,
     .doc = "Which scripts of other origins may call it. null: the upstream says."},
    {.name = "rate_limits",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct route_settings, rate_limits.names),
     .fallback = "[]",
     .type_name = "a list of names of rate_limits",
     .doc = "Limits that its requests must all pass; a request that one of them refuses is charged to none."},
    {.name = "fault",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, fault),
     .is_set_offset = offsetof(struct route_settings, has_fault),
     .nullable = true,
     .object = &fault_object,
     .doc = "Failures on purpose."},
    {.name = "idempotency",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, idempotency),
     .is_set_offset = offsetof(struct route_settings, has_idempotency),
     .nullable = true,
     .object = &idempotency_object,
     .doc = "Whether a request with an Idempotency-Key that is sent again gets the first answer. null: it is "
            "forwarded like any other."},
    {.name = "ip",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_settings, ip),
     .object = &ip_rules_object,
     .doc = "Which client addresses it takes."},
    {.name = "request_body_bytes",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct route_settings, request_body_bytes),
     .nullable = true,
     .null_value = UINT64_MAX,
     .min = 0,
     .max = CONFIG_BODY_MAX,
     .doc = "Longer request bodies are refused, with 413. null: the listener's limit."},
    {.name = "access_log",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct route_settings, access_log),
     .fallback = "true",
     .doc = "Whether its requests are in the access log."},
    {.name = "priority",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct route_settings, priority),
     .fallback = "normal",
     .options = priority_options,
     .doc = "Whose requests are answered with 503 `overloaded` first when the gateway itself runs short of "
            "something "
            "(`overload`). critical: never."},
    {0},
};

const struct config_object route_object = {
    .name = "route",
    .doc = "Which requests go where. Of all routes that match, the most specific one is taken: exact host, "
           "longer "
           "wildcard, any host; then exact path, template, regex, longer prefix; then a method, more "
           "headers, more query "
           "parameters, and the order of the file.",
    .example = "name: orders\n"
               "match: { hosts: [api.example.com], path: { prefix: /orders } }\n"
               "upstream: orders\n"
               "rewrite: { prefix: /v1/orders }\n",
    .size = sizeof(struct route_settings),
    .fields = route_fields,
    .has_position = true,
    .one_of = actions,
    .check_rules = check_route,
};
