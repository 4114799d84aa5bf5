// The root of the field tables, and the rules between sections.
#include "exchange/gateway_config.h"

#include "base/map.h"
#include "exchange/listener_config.h"
#include "observe/access_log.h"
#include "replay/store.h"

#define HOUR 3600e6

// ---- workers ----

enum { WORKERS_MAX = 256 };

static void decode_workers(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    int64_t workers = 0; // auto
    bool is_auto = node->kind == CONFIG_SCALAR && str_eq(node->text, STR("auto"));
    bool is_number = node->kind == CONFIG_SCALAR && (!node->quoted || node->expanded) &&
                     config_plain_of(node->text) == CONFIG_PLAIN_INT;
    if (!is_auto && !is_number)
        config_fail_type(decoder, node, "", "auto or a whole number");
    else if (is_number &&
             (!config_decode_int(decoder, node, &workers) || workers < 1 || workers > WORKERS_MAX))
        config_fail(decoder, node, "auto: one for each CPU", "must be between 1 and %d, or auto",
                    WORKERS_MAX);
    else
        memcpy(target, &workers, sizeof workers);
}

static struct config_node *encode_workers(struct arena *arena, const void *target)
{
    int64_t workers = *(const int64_t *)target;
    return config_new_plain(arena, workers ? arena_printf(arena, "%lld", (long long)workers) : STR("auto"));
}

// ---- admin and status ----

#define IN(section, field) \
    (offsetof(struct gateway_settings, section.field) - offsetof(struct gateway_settings, section))

static void check_admin(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct admin_settings *admin = target;
    struct addr addr;
    const struct config_node *token = config_get(node, STR("token"));
    bool has_token = token && token->kind != CONFIG_NULL;
    if (!has_token && addr_parse(admin->address, &addr) && !addr_is_loopback(&addr))
        config_fail_at(decoder, node, STR("address"), "add token: { env: NAME }, or listen on 127.0.0.1",
                       "refuses to start open: without a token, only loopback addresses");
}

static const struct config_field admin_fields[] = {
    {.name = "address",
     .type = CONFIG_STRING,
     .offset = IN(admin, address),
     .fallback = "\"127.0.0.1:9901\"",
     .accept = config_accept_address,
     .pattern = CONFIG_ADDRESS_PATTERN,
     .type_name = "an address",
     .doc = "Where it listens; without a token, loopback addresses and unix sockets only."},
    {.name = "token",
     .type = CONFIG_SECRET,
     .offset = IN(admin, token),
     .nullable = true,
     .doc = "What callers must send, as Authorization: Bearer.",
     .example = "{ env: ADMIN_TOKEN }"},
    {0},
};

static const struct config_object admin_object = {
    .name = "admin",
    .doc = "The admin API: what the gateway is doing, reload and drain.",
    .example = "{ address: \"127.0.0.1:9901\", token: null }",
    .size = sizeof(((struct gateway_settings *)0)->admin),
    .fields = admin_fields,
    .check_rules = check_admin,
};

static const struct config_field status_fields[] = {
    {.name = "address",
     .type = CONFIG_STRING,
     .offset = IN(status, address),
     .fallback = "\"127.0.0.1:9902\"",
     .accept = config_accept_address,
     .pattern = CONFIG_ADDRESS_PATTERN,
     .type_name = "an address",
     .doc = "Where it listens."},
    {0},
};

static const struct config_object status_object = {
    .name = "status",
    .doc = "/livez, /readyz, /healthz and /metrics, for probes and for Prometheus; /jwks.json, the public "
           "key of "
           "identity_token.",
    .example = "{ address: \"127.0.0.1:9902\" }",
    .size = sizeof(((struct gateway_settings *)0)->status),
    .fields = status_fields,
};

// ---- telemetry ----

static void decode_log_format(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    static const struct str words[] = {STR("json"), STR("combined")};
    struct access_log_settings *log = target;
    struct str text;
    const char *why = "";
    if (!config_decode_string(decoder, node, &text))
        return;
    if (str_eq(text, words[0]) || str_eq(text, words[1])) {
        log->format = str_eq(text, words[0]) ? LOG_FORMAT_JSON : LOG_FORMAT_COMBINED;
    } else if (str_find(text, '$') == text.n) {
        const char *hint = config_suggest(decoder, text, words, countof(words));
        config_fail(decoder, node,
                    *hint ? hint : "json, combined, or a template such as \"$method $path $status\"",
                    "unknown value \"%.*s\"", STR_ARG(text));
    } else if (!access_format_compile(ACCESS_TEMPLATE, text, config_arena(decoder), &why)) {
        config_fail(decoder, node,
                    "the names are those of the JSON format, and $query, $user_agent, $referer, $time_local",
                    "%s", why);
    } else {
        log->format = LOG_FORMAT_TEMPLATE;
        log->template = text;
    }
}

static struct config_node *encode_log_format(struct arena *arena, const void *target)
{
    const struct access_log_settings *log = target;
    if (log->format == LOG_FORMAT_TEMPLATE)
        return config_new_string(arena, log->template);
    return config_new_plain(arena, log->format == LOG_FORMAT_JSON ? STR("json") : STR("combined"));
}

static bool accept_log_output(struct config_decoder *decoder, const struct config_node *node,
                              struct str *value)
{
    static const struct str words[] = {STR("stdout"), STR("stderr"), STR("off")};
    for (size_t i = 0; i < countof(words); i++)
        if (str_eq(*value, words[i]))
            return true;
    const char *hint =
        str_find(*value, '/') == value->n ? config_suggest(decoder, *value, words, countof(words)) : "";
    if (!*hint && value->n)
        return true;
    config_fail(decoder, node, *hint ? hint : "stdout, stderr, off or a path", "unknown value \"%.*s\"",
                STR_ARG(*value));
    return false;
}

static const struct config_field access_log_fields[] = {
    {.name = "format",
     .type = CONFIG_CUSTOM,
     .offset = 0, // format and template
     .fallback = "json",
     .decode = decode_log_format,
     .encode = encode_log_format,
     .schema = "{ anyOf: [{ enum: [json, combined] }, { type: string, pattern: '[$]' }] }",
     .type_name = "json, combined or a template",
     .doc = "json: one object a line; combined: as Apache and nginx write it; else a template with $names: "
            "the names of "
            "the JSON fields, and $query, $user_agent, $referer, $time_local.",
     .example = "\"$client $method $path $status $duration_ms\""},
    {.name = "output",
     .type = CONFIG_STRING,
     .offset = offsetof(struct access_log_settings, output),
     .fallback = "stdout",
     .accept = accept_log_output,
     .pattern = ".",
     .type_name = "stdout, stderr, off or a path",
     .doc = "stdout, stderr, off, or the path of a file; USR1 opens it again."},
    {.name = "sample",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct access_log_settings, sample),
     .fallback = "1.0",
     .min = 0,
     .max = 1,
     .doc = "The share of requests that are logged, drawn at random."},
    {0},
};

const struct config_object access_log_object = {
    .name = "access_log",
    .doc = "One line for each request.",
    .example = "{ format: json, output: stdout, sample: 1.0 }",
    .size = sizeof(struct access_log_settings),
    .fields = access_log_fields,
};

#define HEADER_OFFSET(field) \
    (offsetof(struct telemetry_settings, headers.field) - offsetof(struct telemetry_settings, headers))

static const struct config_field header_fields[] = {
    {.name = "request_id",
     .type = CONFIG_STRING,
     .offset = HEADER_OFFSET(request_id),
     .fallback = "X-Request-Id",
     .accept = config_accept_header,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a header name",
     .doc = "The header that carries the request's id, to upstreams and to clients."},
    {.name = "server_timing",
     .type = CONFIG_BOOL,
     .offset = HEADER_OFFSET(server_timing),
     .fallback = "false",
     .doc = "true: clients get Server-Timing with the time spent here and in the upstream."},
    {.name = "rate_limit_legacy",
     .type = CONFIG_BOOL,
     .offset = HEADER_OFFSET(rate_limit_legacy),
     .fallback = "false",
     .doc =
         "true: besides RateLimit and RateLimit-Policy clients get X-RateLimit-Limit, X-RateLimit-Remaining "
         "and X-RateLimit-Reset (seconds), of the limit that has the least left."},
    {0},
};

static const struct config_object telemetry_headers_object = {
    .name = "telemetry_headers",
    .doc = "What messages tell of themselves.",
    .example = "{ request_id: X-Request-Id, server_timing: false }",
    .size = sizeof(((struct telemetry_settings *)0)->headers),
    .fields = header_fields,
};

static const struct config_field telemetry_fields[] = {
    {.name = "access_log",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct telemetry_settings, access_log),
     .object = &access_log_object,
     .doc = "The access log."},
    {.name = "headers",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct telemetry_settings, headers),
     .object = &telemetry_headers_object,
     .doc = "What messages tell of themselves."},
    {0},
};

static const struct config_object telemetry_object = {
    .name = "telemetry",
    .doc = "How requests are told about.",
    .example = "access_log: { format: combined, output: /var/log/sallyport/access.log }\n",
    .size = sizeof(struct telemetry_settings),
    .fields = telemetry_fields,
};

// ---- drain ----

static const struct config_field drain_fields[] = {
    {.name = "delay",
     .type = CONFIG_DURATION,
     .offset = IN(drain, delay_us),
     .fallback = "5s",
     .min = 0,
     .max = HOUR,
     .doc = "After SIGTERM: not ready any more, but still accepting, so that load balancers can notice."},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = IN(drain, timeout_us),
     .fallback = "30s",
     .min = 0,
     .max = 24 * HOUR,
     .doc = "Then: how long requests may take to finish."},
    {0},
};

static const struct config_object drain_object = {
    .name = "drain",
    .doc = "How the gateway stops without losing a request.",
    .example = "{ delay: 5s, timeout: 30s }",
    .size = sizeof(((struct gateway_settings *)0)->drain),
    .fields = drain_fields,
};

// ---- rules between sections ----

static const struct config_node *first_of(const struct config_node *list)
{
    return list && list->kind == CONFIG_LIST ? list->first : NULL;
}

static void check_unique_name(struct config_decoder *decoder, struct map *seen,
                              const struct config_node *node, struct str name)
{
    const struct config_node *before = name.n ? map_put(seen, name, (void *)(uintptr_t)node) : NULL;
    if (before)
        config_fail_at(decoder, node, STR("name"), "names are unique", "the same name as on line %u",
                       before->line);
}

struct used_address {
    const char *owner;
    unsigned line;
};

// Port 0 is whatever is free, so never the same twice.
static void check_unique_address(struct config_decoder *decoder, struct map *used,
                                 const struct config_node *node, struct str text, const char *owner)
{
    struct addr addr;
    char printed[ADDR_TEXT_MAX];
    if (!addr_parse(text, &addr) || (ip_of(&addr).family && ip_of(&addr).port == 0))
        return;
    struct str key = arena_copy(config_arena(decoder), (struct str){printed, addr_print(&addr, printed)});
    struct used_address *use = arena_new(config_arena(decoder), struct used_address);
    const struct config_node *at = config_get(node, STR("address"));
    *use = (struct used_address){owner, at ? at->line : 0};
    const struct used_address *before = map_put(used, key, use);
    if (!before)
        return;
    if (before->line)
        config_fail_at(decoder, node, STR("address"), "each needs an address of its own",
                       "the same address as %s on line %u", before->owner, before->line);
    else
        config_fail_at(decoder, node, STR("address"), "each needs an address of its own",
                       "the same address as %s", before->owner);
}

static bool has_key(const struct config_node *map, struct str key)
{
    const struct config_node *value = config_get(map, key);
    return value && value->kind != CONFIG_NULL;
}

static const char *suggest_listener(struct config_decoder *decoder, struct str name,
                                    const struct config_list *list)
{
    const struct listener_settings *listeners = list->v;
    struct str *names = arena_array(config_arena(decoder), struct str, list->count);
    size_t count = 0;
    for (uint32_t i = 0; i < list->count; i++)
        if (listeners[i].has_tls && listeners[i].name.n && !listeners[i].redirect_to.n)
            names[count++] = listeners[i].name;
    const char *hint = config_suggest(decoder, name, names, count);
    if (*hint)
        return hint;
    return count ? config_hint(decoder, "such as %.*s", STR_ARG(names[0])) : "add a listener with tls";
}

// Clients are sent where somebody answers them, by TLS and in one step. to: the other listener's node.
static void check_redirect(struct config_decoder *decoder, const struct config_node *node, struct str name,
                           const struct config_node *to, const struct config_list *list)
{
    static const struct str key = STR("redirect_to");
    const struct config_node *address = config_get(to, STR("address"));
    if (!to)
        config_fail_at(decoder, node, key, suggest_listener(decoder, name, list),
                       "no listener is named \"%.*s\"", STR_ARG(name));
    else if (to == node)
        config_fail_at(decoder, node, key, "name another one, which has tls", "redirects to itself");
    else if (!has_key(to, STR("tls")))
        config_fail_at(decoder, node, key, suggest_listener(decoder, STR(""), list),
                       "listener %.*s, on line %u, has no tls", STR_ARG(name), to->line);
    else if (has_key(to, key))
        config_fail_at(decoder, node, key, "name the one where that leads",
                       "listener %.*s, on line %u, redirects as well", STR_ARG(name), to->line);
    else if (address && address->kind == CONFIG_SCALAR && str_starts(address->text, STR("unix:")))
        config_fail_at(decoder, node, key, "name one with a port",
                       "listener %.*s, on line %u, is a unix socket, where no URL leads", STR_ARG(name),
                       to->line);
}

static void check_listeners(struct config_decoder *decoder, const struct config_node *root,
                            const struct gateway_settings *settings, struct map *addresses)
{
    const struct config_node *list = config_get(root, STR("listeners"));
    const struct listener_settings *listeners = settings->listeners.v;
    struct map names = {0};
    uint32_t i = 0;
    config_enter(decoder, STR("listeners"));
    for (const struct config_node *child = first_of(list); child && i < settings->listeners.count;
         child = child->next, i++) {
        config_enter_index(decoder, i);
        check_unique_name(decoder, &names, child, listeners[i].name);
        check_unique_address(decoder, addresses, child, listeners[i].address, "a listener");
        config_leave(decoder);
    }
    i = 0;
    for (const struct config_node *child = first_of(list); child && i < settings->listeners.count;
         child = child->next, i++) {
        struct str name = listeners[i].redirect_to;
        config_enter_index(decoder, i);
        if (name.n)
            check_redirect(decoder, child, name, map_get(&names, name), &settings->listeners);
        config_leave(decoder);
    }
    config_leave(decoder);
    map_fini(&names);
}

static void check_own_address(struct config_decoder *decoder, const struct config_node *root,
                              struct str section, struct str address, struct map *addresses)
{
    const struct config_node *node = config_get(root, section);
    config_enter(decoder, section);
    check_unique_address(decoder, addresses, node ? node : root, address, section.p);
    config_leave(decoder);
}

struct upstream_names {
    const struct config_node *node; // of upstreams; may be NULL
    struct map map;
};

static void check_upstream_name(struct config_decoder *decoder, const struct config_node *node,
                                struct str name, const struct upstream_names *upstreams)
{
    if (!node || node->kind != CONFIG_SCALAR || node->bad || !name.p || map_get(&upstreams->map, name))
        return;
    const char *hint = config_suggest_key(decoder, name, upstreams->node);
    config_fail(decoder, node, *hint ? hint : "add it to upstreams", "no upstream is named \"%.*s\"",
                STR_ARG(name));
}

enum { FALLBACKS_MOST = 8 /* of one upstream, of that one, … */ };

// What is wrong with whom an upstream asks while its breaker is open, in the end. NULL: nothing.
static const char *judge_fallback(const struct map *settings, const struct upstream_settings *upstream)
{
    const struct upstream_settings *next = upstream;
    for (unsigned i = 0; i <= FALLBACKS_MOST; i++) {
        next = map_get(settings, next->circuit_breaker.fallback.upstream);
        if (!next)
            return NULL;
        if (next == upstream)
            return "would stand in for itself";
    }
    return "has too many fallbacks in a row";
}

static void check_fallback(struct config_decoder *decoder, const struct map *settings,
                           const struct upstream_settings *upstream, const struct upstream_names *upstreams)
{
    const struct str steps[] = {upstream->name, STR("circuit_breaker"), STR("fallback"), STR("upstream")};
    const struct config_node *node = map_get(&upstreams->map, upstream->name);
    for (size_t i = 0; i < countof(steps); i++) {
        config_enter(decoder, steps[i]);
        node = i ? config_get(node, steps[i]) : node;
    }
    check_upstream_name(decoder, node, upstream->circuit_breaker.fallback.upstream, upstreams);
    const char *mistake = judge_fallback(settings, upstream);
    if (mistake && node)
        config_fail(decoder, node, "name one that does not need this one", "upstream \"%.*s\" %s",
                    STR_ARG(upstream->name), mistake);
    for (size_t i = 0; i < countof(steps); i++)
        config_leave(decoder);
}

static void check_fallbacks(struct config_decoder *decoder, const struct config_list *list,
                            const struct upstream_names *upstreams)
{
    const struct upstream_settings *upstream = list->v;
    struct map settings = {0};
    for (uint32_t i = 0; i < list->count; i++)
        map_put(&settings, upstream[i].name, (void *)(uintptr_t)&upstream[i]);
    config_enter(decoder, STR("upstreams"));
    for (uint32_t i = 0; i < list->count; i++)
        if (upstream[i].circuit_breaker.fallback.upstream.n)
            check_fallback(decoder, &settings, &upstream[i], upstreams);
    config_leave(decoder);
    map_fini(&settings);
}

static void check_split_names(struct config_decoder *decoder, const struct config_node *list,
                              const struct route_settings *route, const struct upstream_names *upstreams)
{
    const struct split_target *targets = route->split.v;
    uint32_t i = 0;
    config_enter(decoder, STR("split"));
    for (const struct config_node *child = first_of(list); child && i < route->split.count;
         child = child->next, i++) {
        config_enter_index(decoder, i);
        config_enter(decoder, STR("upstream"));
        check_upstream_name(decoder, config_get(child, STR("upstream")), targets[i].upstream, upstreams);
        config_leave(decoder);
        config_leave(decoder);
    }
    config_leave(decoder);
}

static void check_replay_store(struct config_decoder *decoder, const struct config_node *node,
                               const struct route_settings *route, bool has_redis)
{
    config_enter(decoder, STR("idempotency"));
    if (route->has_idempotency && route->idempotency.store == REPLAY_REDIS && !has_redis)
        config_fail_at(decoder, config_get(node, STR("idempotency")), STR("store"),
                       "add redis, or say auto or local", "there is no redis");
    config_leave(decoder);
}

static void check_routes(struct config_decoder *decoder, const struct config_node *list,
                         struct gateway_settings *gateway, const struct upstream_names *upstreams)
{
    const struct config_list *settings = &gateway->routes;
    struct route_settings *routes = settings->v;
    struct map names = {0};
    uint32_t i = 0;
    config_enter(decoder, STR("routes"));
    for (const struct config_node *child = first_of(list); child && i < settings->count;
         child = child->next, i++) {
        config_enter_index(decoder, i);
        check_unique_name(decoder, &names, child, routes[i].name);
        config_enter(decoder, STR("upstream"));
        check_upstream_name(decoder, config_get(child, STR("upstream")), routes[i].upstream, upstreams);
        config_leave(decoder);
        check_split_names(decoder, config_get(child, STR("split")), &routes[i], upstreams);
        config_enter(decoder, STR("auth"));
        config_check_route_auth(decoder, config_get(child, STR("auth")), &gateway->auth, &routes[i].auth);
        config_leave(decoder);
        config_enter(decoder, STR("rate_limits"));
        config_check_route_limits(decoder, config_get(child, STR("rate_limits")), &gateway->rate_limits,
                                  routes[i].name, &routes[i].rate_limits);
        config_leave(decoder);
        check_replay_store(decoder, child, &routes[i], gateway->has_redis);
        config_leave(decoder);
    }
    config_leave(decoder);
    map_fini(&names);
}

static void check_gateway(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct gateway_settings *settings = target;
    struct upstream_names upstreams = {.node = config_get(node, STR("upstreams"))};
    struct map addresses = {0};
    check_own_address(decoder, node, STR("admin"), settings->admin.address, &addresses);
    check_own_address(decoder, node, STR("status"), settings->status.address, &addresses);
    config_enter(decoder, STR("rate_limits"));
    config_check_limit_stores(decoder, config_get(node, STR("rate_limits")), &settings->rate_limits,
                              settings->has_redis);
    config_leave(decoder);
    check_listeners(decoder, node, settings, &addresses);
    if (upstreams.node && upstreams.node->kind == CONFIG_MAP)
        for (const struct config_node *child = upstreams.node->first; child; child = child->next)
            map_put(&upstreams.map, child->key, (void *)(uintptr_t)child);
    check_fallbacks(decoder, &settings->upstreams, &upstreams);
    check_routes(decoder, config_get(node, STR("routes")), settings, &upstreams);
    config_check_auth(decoder, node,
                      &(struct auth_sections){
                          .providers = &settings->auth,
                          .consumers = &settings->consumers,
                          .identity_headers = &settings->identity_headers,
                          .identity_token = settings->has_identity_token ? &settings->identity_token : NULL,
                          .request_id = settings->telemetry.headers.request_id,
                      });
    map_fini(&addresses);
    map_fini(&upstreams.map);
}

// ---- the root ----

static const struct config_field gateway_fields[] = {
    {.name = "version",
     .type = CONFIG_INT,
     .offset = offsetof(struct gateway_settings, version),
     .required = true,
     .min = 1,
     .max = 1,
     .doc = "Of this format: 1.",
     .example = "1"},
    {.name = "workers",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct gateway_settings, workers),
     .fallback = "auto",
     .decode = decode_workers,
     .encode = encode_workers,
     .schema = "{ anyOf: [{ const: auto }, { type: integer, minimum: 1, maximum: 256 }, { $ref: "
               "'#/$defs/variable' }] }",
     .type_name = "auto or a whole number",
     .doc = "Threads that serve requests, 1 to 256. auto: one for each CPU that the process may use."},
    {.name = "listeners",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct gateway_settings, listeners),
     .object = &listener_object,
     .required = true,
     .min_count = 1,
     .doc = "The addresses on which clients are served.",
     .example = "[{ name: http, address: \"0.0.0.0:8080\" }]"},
    {.name = "admin",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, admin),
     .object = &admin_object,
     .doc = "The admin API."},
    {.name = "status",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, status),
     .object = &status_object,
     .doc = "Probes and metrics."},
    {.name = "redis",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, redis),
     .nullable = true,
     .is_set_offset = offsetof(struct gateway_settings, has_redis),
     .object = &redis_object,
     .doc = "What gateways share: revoked tokens. null: everything lives in this process."},
    {.name = "auth",
     .type = CONFIG_OBJECT_MAP,
     .offset = offsetof(struct gateway_settings, auth),
     .fallback = "{}",
     .object = &auth_object,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .doc = "Providers, by name: the ways to find out who calls."},
    {.name = "consumers",
     .type = CONFIG_OBJECT_MAP,
     .offset = offsetof(struct gateway_settings, consumers),
     .fallback = "{}",
     .object = &consumer_object,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .doc = "Who holds which API key or client certificate, by name."},
    {.name = "consumers_file",
     .type = CONFIG_STRING,
     .offset = offsetof(struct gateway_settings, consumers_file),
     .nullable = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "A file with further consumers, read again when it changes: JSON Lines, one a line, { \"name\": "
            "\"acme\", \"api_keys\": [\"<sha256>\"], \"roles\": [\"gold\"] }, or YAML as below `consumers`.",
     .example = "consumers.jsonl"},
    {.name = "identity_headers",
     .type = CONFIG_STRING_MAP,
     .offset = offsetof(struct gateway_settings, identity_headers),
     .fallback = IDENTITY_HEADERS_DEFAULT,
     .accept = config_accept_identity_header,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a map of header names to sources",
     .doc =
         "What upstreams are told of who calls: identity.subject, identity.consumer, identity.roles, "
         "identity.scopes, identity.provider, or jwt.CLAIM (a dotted path). Lists are separated by commas. "
         "Clients cannot send these headers, on no route and in no spelling.",
     .example = "{ X-User-Id: identity.subject, X-Tenant: jwt.tenant }"},
    {.name = "identity_token",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, identity_token),
     .nullable = true,
     .is_set_offset = offsetof(struct gateway_settings, has_identity_token),
     .object = &identity_token_object,
     .doc = "The same as a signed token. null: none."},
    {.name = "rate_limits",
     .type = CONFIG_OBJECT_MAP,
     .offset = offsetof(struct gateway_settings, rate_limits),
     .fallback = "{}",
     .object = &rate_limit_object,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .doc = "How much callers may ask for, by name; a route lists those that apply."},
    {.name = "upstreams",
     .type = CONFIG_OBJECT_MAP,
     .offset = offsetof(struct gateway_settings, upstreams),
     .fallback = "{}",
     .object = &upstream_object,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .doc = "The services behind the gateway, by name."},
    {.name = "routes",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct gateway_settings, routes),
     .fallback = "[]",
     .object = &route_object,
     .doc = "Which requests go where. A request that no route takes is answered with 404."},
    {.name = "telemetry",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, telemetry),
     .object = &telemetry_object,
     .doc = "Access log and headers."},
    {.name = "drain",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, drain),
     .object = &drain_object,
     .doc = "How the gateway stops."},
    {.name = "overload",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct gateway_settings, overload),
     .object = &overload_object,
     .doc = "Who is turned away when the gateway runs short of descriptors, memory or time."},
    {0},
};

const struct config_object gateway_object = {
    .name = "gateway",
    .doc = "The whole file.",
    .example = "version: 1\n"
               "listeners:\n"
               "  - name: http\n"
               "    address: \"0.0.0.0:8080\"\n"
               "upstreams:\n"
               "  orders:\n"
               "    targets:\n"
               "      - { address: \"127.0.0.1:9101\" }\n"
               "      - { address: \"127.0.0.1:9102\" }\n"
               "    health_check: { path: /healthz }\n"
               "routes:\n"
               "  - name: orders\n"
               "    match: { path: { prefix: /orders } }\n"
               "    upstream: orders\n",
    .size = sizeof(struct gateway_settings),
    .fields = gateway_fields,
    .check_rules = check_gateway,
};

bool gateway_settings_load(struct str file, struct str text, struct arena *arena,
                           struct gateway_settings *settings, struct config_report *report)
{
    struct arena tree; // only the settings stay
    arena_init(&tree, NULL);
    const struct config_node *root = config_parse(file, text, &tree, report);
    if (root)
        config_decode(&gateway_object, root, settings, file, arena, report);
    arena_reset(&tree);
    config_report_sort(report);
    return report->count == 0;
}
