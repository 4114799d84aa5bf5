// The field tables of upstreams.
#include "upstream/upstream_config.h"

#include "base/map.h"
#include "http/header.h"

#include <limits.h>

#define MILLISECOND 1e3
#define SECOND      1e6
#define HOUR        3600e6

// ---- statuses: "200-399", 503 ----

bool status_set_has(const struct status_set *set, unsigned status)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (status >= set->v[i].from && status <= set->v[i].to)
            return true;
    return false;
}

static bool parse_status(struct str text, unsigned *status)
{
    uint64_t value;
    if (text.n != 3 || !str_to_u64(text, 599, &value) || value < 100)
        return false;
    *status = (unsigned)value;
    return true;
}

static bool parse_range(struct str text, struct status_range *range)
{
    size_t dash = str_find(text, '-');
    if (!parse_status((struct str){text.p, dash}, &range->from))
        return false;
    if (dash == text.n)
        range->to = range->from;
    else if (!parse_status(str_skip(text, dash + 1), &range->to))
        return false;
    return range->from <= range->to;
}

void config_decode_statuses(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    if (node->kind != CONFIG_LIST) {
        config_fail_type(decoder, node, "write [\"200-399\", 503]", "a list of statuses");
        return;
    }
    struct status_set set = {arena_array(config_arena(decoder), struct status_range, node->count), 0};
    uint32_t index = 0;
    for (const struct config_node *child = node->first; child; child = child->next) {
        config_enter_index(decoder, index++);
        if (child->kind == CONFIG_SCALAR && parse_range(child->text, &set.v[set.count]))
            set.count++;
        else
            config_fail_type(decoder, child, "from 100 to 599, the lower one first",
                             "a status such as 503, or a range such as \"200-399\"");
        config_leave(decoder);
    }
    memcpy(target, &set, sizeof set);
}

struct config_node *config_encode_statuses(struct arena *arena, const void *target)
{
    const struct status_set *set = target;
    struct config_node *list = config_new_list(arena), *last = NULL;
    for (uint32_t i = 0; i < set->count; i++) {
        const struct status_range *range = &set->v[i];
        struct config_node *node =
            range->from == range->to
                ? config_new_plain(arena, arena_u64(arena, range->from))
                : config_new_string(arena, arena_printf(arena, "%u-%u", range->from, range->to));
        config_append(list, &last, STR_NULL, node);
    }
    return list;
}

// ---- names ----

bool config_check_name(struct config_decoder *decoder, const struct config_node *node, struct str name)
{
    bool is_good = name.n > 0 && name.n <= 64;
    for (size_t i = 0; i < name.n && is_good; i++) {
        char c = ascii_lower(name.p[i]);
        is_good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
    }
    const char *hint = "1 to 64 letters, digits, _ . and -";
    int shown = name.n > 80 ? 80 : (int)name.n;
    if (!is_good && name.p == node->key.p)
        config_fail_key(decoder, node, hint, "not a name: \"%.*s\"", shown, name.p);
    else if (!is_good)
        config_fail(decoder, node, hint, "not a name: \"%.*s\"", shown, name.p);
    return is_good;
}

bool config_check_path(struct config_decoder *decoder, const struct config_node *node, struct str path)
{
    if (path.n > 0 && path.n < PATH_MAX)
        return true;
    config_fail(decoder, node, "", path.n ? "longer than any path" : "an empty path");
    return false;
}

bool config_accept_name(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    return config_check_name(decoder, node, *value);
}

bool config_accept_path(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    return config_check_path(decoder, node, *value);
}

// ---- hash_on: client_ip | header.NAME | cookie.NAME | identity | path ----

static const struct hash_prefix {
    const char *text;
    enum hash_source source;
    bool is_named;
} hash_prefixes[] = {
    {"client_ip", HASH_CLIENT_IP, false}, {"header.", HASH_HEADER, true}, {"cookie.", HASH_COOKIE, true},
    {"identity", HASH_IDENTITY, false},   {"path", HASH_PATH, false},
};

static void decode_hash_on(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text;
    if (!config_decode_string(decoder, node, &text))
        return;
    for (size_t i = 0; i < countof(hash_prefixes); i++) {
        struct str prefix = str_of(hash_prefixes[i].text);
        struct hash_settings hash = {.source = hash_prefixes[i].source};
        if (!hash_prefixes[i].is_named ? !str_eq(text, prefix) : !str_starts(text, prefix))
            continue;
        hash.name = str_skip(text, prefix.n);
        if (hash_prefixes[i].is_named && !header_name_valid(hash.name))
            break;
        memcpy(target, &hash, sizeof hash);
        return;
    }
    static const struct str words[] = {STR("client_ip"), STR("identity"), STR("path")};
    const char *hint = config_suggest(decoder, text, words, countof(words));
    config_fail_type(decoder, node, hint, "client_ip, header.NAME, cookie.NAME, identity or path");
}

static struct config_node *encode_hash_on(struct arena *arena, const void *target)
{
    const struct hash_settings *hash = target;
    for (size_t i = 0; i < countof(hash_prefixes); i++)
        if (hash_prefixes[i].source == hash->source)
            return config_new_string(
                arena, arena_printf(arena, "%s%.*s", hash_prefixes[i].text, STR_ARG(hash->name)));
    return NULL;
}

// ---- targets ----

bool config_is_host_name(struct str host)
{
    if (!host.n || host.n > 253 || host.p[0] == '-' || host.p[0] == '.')
        return false;
    bool has_letter = false; // digits and dots alone are a malformed IPv4 address
    for (size_t i = 0; i < host.n; i++) {
        char c = ascii_lower(host.p[i]);
        bool is_letter = c >= 'a' && c <= 'z';
        if (!is_letter && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_')
            return false;
        if (c == '.' && host.p[i - 1] == '.')
            return false;
        has_letter |= is_letter;
    }
    return has_letter;
}

static bool split_host_port(struct str text, struct str *host, uint64_t *port)
{
    size_t colon = str_find(text, ':');
    *host = (struct str){text.p, colon};
    return colon < text.n && str_to_u64(str_skip(text, colon + 1), 65535, port) && *port > 0;
}

static bool is_any_address(const struct addr *addr)
{
    struct ip ip = ip_of(addr);
    static const uint8_t any4[16] = {[10] = 0xff, 0xff}, any6[16] = {0};
    return ip.family && (memcmp(ip.bytes, any4, 16) == 0 || memcmp(ip.bytes, any6, 16) == 0);
}

static bool accept_target(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct addr addr;
    struct str host;
    uint64_t port;
    if (addr_parse(*value, &addr)) {
        if (is_any_address(&addr)) {
            config_fail(decoder, node, "name the host: 127.0.0.1 for this machine", "no host to connect to");
            return false;
        }
        if (ip_of(&addr).family && ip_of(&addr).port == 0) {
            config_fail(decoder, node, "ports are 1 to 65535", "port 0 cannot be connected to");
            return false;
        }
        return true;
    }
    if (split_host_port(*value, &host, &port) && config_is_host_name(host))
        return true;
    const char *hint = "host:port, [v6]:port or unix:/path";
    if (memmem(value->p, value->n, "://", 3))
        hint = "without a scheme and a path: host:port";
    else if (value->n && str_find(*value, ':') == value->n)
        hint = config_hint(decoder, "add the port: %.*s:80", STR_ARG(*value));
    config_fail(decoder, node, hint, "not an address: \"%.*s\"", STR_ARG(*value));
    return false;
}

static void check_targets(struct config_decoder *decoder, const struct config_node *node,
                          const struct upstream_settings *upstream)
{
    const struct config_node *list = config_get(node, STR("targets"));
    const struct target_settings *targets = upstream->targets.v;
    struct map seen = {0};
    int64_t weights = 0;
    uint32_t i = 0;
    if (!list || list->kind != CONFIG_LIST || !upstream->targets.count)
        return;
    config_enter(decoder, STR("targets"));
    for (const struct config_node *child = list->first; child; child = child->next, i++) {
        weights += targets[i].weight;
        config_enter_index(decoder, i);
        const struct target_settings *before =
            targets[i].address.n ? map_put(&seen, targets[i].address, (void *)(uintptr_t)&targets[i]) : NULL;
        if (before)
            config_fail_at(decoder, child, STR("address"), "give one of them the sum of the weights",
                           "the same address as on line %u", before->line);
        config_leave(decoder);
    }
    if (weights == 0)
        config_fail(decoder, list, "give one of them a weight", "every target has weight 0");
    config_leave(decoder);
    map_fini(&seen);
}

// A socket's path is no name that a certificate could be checked against.
static void check_verification(struct config_decoder *decoder, const struct config_node *node,
                               const struct upstream_settings *upstream)
{
    const struct config_node *tls = config_get(node, STR("tls"));
    const struct config_node *name = config_get(tls, STR("server_name"));
    const struct target_settings *targets = upstream->targets.v;
    if (!upstream->has_tls || !upstream->tls.verify || (name && name->kind != CONFIG_NULL))
        return;
    for (uint32_t i = 0; i < upstream->targets.count; i++)
        if (str_starts(targets[i].address, STR("unix:"))) {
            config_enter(decoder, STR("tls"));
            config_fail_at(decoder, tls, STR("server_name"), "add the name in the target's certificate",
                           "missing: %.*s is no name to verify", STR_ARG(targets[i].address));
            config_leave(decoder);
            return;
        }
}

static void check_upstream(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct upstream_settings *upstream = target;
    check_targets(decoder, node, upstream);
    check_verification(decoder, node, upstream);
    // In line, connecting, asking: whatever became of it, a probe is over by then, unless its client sends
    // for longer. A second for those who note it late.
    upstream->circuit_breaker.rules.probe_us =
        2 * upstream->timeouts.connect_us + upstream->timeouts.response_us + (uint64_t)SECOND;
    const struct config_node *protocol = config_get(node, STR("protocol"));
    bool is_http1 = !protocol || (protocol->kind == CONFIG_SCALAR && str_eq(protocol->text, STR("http/1.1")));
    if (upstream->health_check.has_grpc && is_http1) {
        config_enter(decoder, STR("health_check"));
        config_fail_at(decoder, config_get(node, STR("health_check")), STR("grpc"),
                       "add protocol: h2 to the upstream", "gRPC needs HTTP/2");
        config_leave(decoder);
    }
}

// ---- tables ----

static const struct config_field target_fields[] = {
    {.name = "address",
     .type = CONFIG_STRING,
     .offset = offsetof(struct target_settings, address),
     .required = true,
     .accept = accept_target,
     .pattern = "^(unix:/.+|.*:[0-9]{1,5})$",
     .type_name = "an address",
     .doc = "host:port, [v6]:port or unix:/path. Host names are looked up when the file is loaded.",
     .example = "\"127.0.0.1:9101\""},
    {.name = "weight",
     .type = CONFIG_INT,
     .offset = offsetof(struct target_settings, weight),
     .fallback = "1",
     .min = 0,
     .max = 1000,
     .doc = "Its share of the requests, relative to the other targets. 0: it takes no new requests."},
    {0},
};

static const struct config_object target_object = {
    .name = "target",
    .doc = "One address that serves an upstream's requests.",
    .example = "{ address: \"127.0.0.1:9101\", weight: 1 }",
    .size = sizeof(struct target_settings),
    .fields = target_fields,
    .has_position = true,
};

static const struct config_option retry_options[] = {
    {"connect_failure", RETRY_CONNECT_FAILURE},
    {"refused_stream", RETRY_REFUSED_STREAM},
    {"reset_before_headers", RETRY_RESET_BEFORE_HEADERS},
    {"response_timeout", RETRY_RESPONSE_TIMEOUT},
    {0},
};

static const struct config_field retry_fields[] = {
    {.name = "attempts",
     .type = CONFIG_INT,
     .offset = offsetof(struct retry_settings, attempts),
     .fallback = "1",
     .min = 0,
     .max = 10,
     .doc = "Further tries besides the first. 0: none."},
    {.name = "retry_on",
     .type = CONFIG_FLAGS,
     .offset = offsetof(struct retry_settings, retry_on),
     .fallback = "[connect_failure, refused_stream, reset_before_headers]",
     .options = retry_options,
     .doc = "Which failures are tried again. A request that is not idempotent, and has no Idempotency-Key, "
            "is tried again only when the upstream cannot have seen it."},
    {.name = "statuses",
     CONFIG_STATUSES,
     .offset = offsetof(struct retry_settings, statuses),
     .fallback = "[]",
     .doc = "Which response statuses are tried again, for idempotent methods and with Idempotency-Key."},
    {.name = "budget",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct retry_settings, budget),
     .fallback = "0.2",
     .min = 0,
     .max = 1,
     .doc = "Retries, at most, as a share of the upstream's requests: of those in flight, where three always "
            "may, and of those that come, where ten may be ahead. 0: no retries; 1: no bound."},
    {.name = "backoff",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct retry_settings, backoff_us),
     .fallback = "25ms",
     .min = 0,
     .max = 60 * SECOND,
     .doc = "Pause before the first retry; doubles, with jitter."},
    {.name = "body_bytes",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct retry_settings, body_bytes),
     .fallback = "64KiB",
     .min = 0,
     .max = 16 << 20,
     .doc = "Requests with a longer body are not kept for a retry."},
    {0},
};

const struct config_object retry_object = {
    .name = "retries",
    .doc = "When a failed request is sent again.",
    .example = "{ attempts: 2, retry_on: [connect_failure], statuses: [503], budget: 0.2, backoff: 25ms }",
    .size = sizeof(struct retry_settings),
    .fields = retry_fields,
};

static const struct config_field hedge_fields[] = {
    {.name = "after",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct hedge_settings, after_us),
     .required = true,
     .example = "50ms",
     .min = 1000,
     .max = 60 * SECOND,
     .doc =
         "How long the first try has for its answer to begin: about the 95th percentile of what it takes."},
    {0},
};

static const struct config_object hedge_object = {
    .name = "hedge",
    .doc = "A second try of a slow request, beside the first one; the first answer wins.",
    .example = "{ after: 50ms }",
    .size = sizeof(struct hedge_settings),
    .fields = hedge_fields,
};

#define LIMIT_OFFSET(field) \
    (offsetof(struct upstream_settings, limits.field) - offsetof(struct upstream_settings, limits))
#define TIMEOUT_OFFSET(field) \
    (offsetof(struct upstream_settings, timeouts.field) - offsetof(struct upstream_settings, timeouts))

static const struct config_field limit_fields[] = {
    {.name = "connections",
     .type = CONFIG_INT,
     .offset = LIMIT_OFFSET(connections),
     .fallback = "1024",
     .min = 1,
     .max = 1000000,
     .doc = "Connections to the upstream, idle ones too. Workers that want more take turns."},
    {.name = "requests",
     .type = CONFIG_INT,
     .offset = LIMIT_OFFSET(requests),
     .fallback = "1024",
     .min = 1,
     .max = 1000000,
     .doc = "Requests in flight."},
    {.name = "pending",
     .type = CONFIG_INT,
     .offset = LIMIT_OFFSET(pending),
     .fallback = "256",
     .min = 0,
     .max = 1000000,
     .doc = "Requests that wait for a connection or a place, each for `timeouts.connect` at most, and half "
            "of the time that it has left. Past it: "
            "503 at once."},
    {0},
};

static const struct config_object limits_object = {
    .name = "upstream_limits",
    .doc = "How much of an upstream may be in use at once, over all workers.",
    .example = "{ connections: 1024, requests: 1024, pending: 256 }",
    .size = sizeof(((struct upstream_settings *)0)->limits),
    .fields = limit_fields,
};

static const struct config_field timeout_fields[] = {
    {.name = "connect",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(connect_us),
     .fallback = "1s",
     .min = MILLISECOND,
     .max = HOUR,
     .doc = "Until a connection stands."},
    {.name = "response",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(response_us),
     .fallback = "15s",
     .min = MILLISECOND,
     .max = 24 * HOUR,
     .doc = "From the end of the request to the response's head, and between the pieces of its body."},
    {.name = "idle",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(idle_us),
     .fallback = "60s",
     .min = MILLISECOND,
     .max = 24 * HOUR,
     .doc = "How long an unused connection is kept."},
    {0},
};

static const struct config_object timeouts_object = {
    .name = "upstream_timeouts",
    .doc = "How long an upstream may take.",
    .example = "{ connect: 1s, response: 15s, idle: 60s }",
    .size = sizeof(((struct upstream_settings *)0)->timeouts),
    .fields = timeout_fields,
};

static const struct config_option protocol_options[] = {
    {"http/1.1", UPSTREAM_HTTP1}, {"h2", UPSTREAM_H2}, {0}};

// ---- tls ----

static bool accept_server_name(struct config_decoder *decoder, const struct config_node *node,
                               struct str *value)
{
    if (config_is_host_name(*value))
        return true;
    config_fail(decoder, node, "a host name, without a port", "not a name: \"%.*s\"",
                value->n > 80 ? 80 : (int)value->n, value->p);
    return false;
}

static void check_tls(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    (void)target;
    const struct config_node *cert = config_get(node, STR("cert")), *key = config_get(node, STR("key"));
    bool has_cert = cert && cert->kind != CONFIG_NULL, has_key = key && key->kind != CONFIG_NULL;
    if (has_cert && !has_key)
        config_fail_at(decoder, node, STR("cert"), "add key: the file of its private key", "without its key");
    else if (has_key && !has_cert)
        config_fail_at(decoder, node, STR("key"), "add cert: the file of the certificate",
                       "without a certificate");
}

static const struct config_field tls_fields[] = {
    {.name = "ca",
     .type = CONFIG_STRING,
     .offset = offsetof(struct upstream_tls_settings, ca),
     .fallback = "system",
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: the certificates against which those of the targets are verified. system: those that the "
            "operating system trusts."},
    {.name = "server_name",
     .type = CONFIG_STRING,
     .offset = offsetof(struct upstream_tls_settings, server_name),
     .nullable = true,
     .accept = accept_server_name,
     .pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
     .type_name = "a host name",
     .doc = "What the targets are asked for (SNI) and must have in their certificates. null: the target's "
            "host.",
     .example = "orders.internal"},
    {.name = "verify",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct upstream_tls_settings, verify),
     .fallback = "true",
     .doc = "false: whoever answers is believed. For tests."},
    {.name = "cert",
     .type = CONFIG_STRING,
     .offset = offsetof(struct upstream_tls_settings, cert),
     .nullable = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: the gateway's own certificate and its chain, for targets that ask for one.",
     .example = "certs/gateway.pem"},
    {.name = "key",
     .type = CONFIG_STRING,
     .offset = offsetof(struct upstream_tls_settings, key),
     .nullable = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: its private key, not encrypted.",
     .example = "certs/gateway.key"},
    {0},
};

static const struct config_object tls_object = {
    .name = "upstream_tls",
    .doc = "TLS to targets.",
    .example = "{ ca: certs/internal-ca.pem, server_name: orders.internal }",
    .size = sizeof(struct upstream_tls_settings),
    .fields = tls_fields,
    .has_position = true,
    .check_rules = check_tls,
};

// ---- an upstream ----

static const struct config_option balance_options[] = {
    {"round_robin", BALANCE_ROUND_ROBIN},
    {"least_request", BALANCE_LEAST_REQUEST},
    {"random", BALANCE_RANDOM},
    {"consistent_hash", BALANCE_CONSISTENT_HASH},
    {"ewma", BALANCE_EWMA},
    {0},
};

static const struct config_field upstream_fields[] = {
    {.name = "targets",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct upstream_settings, targets),
     .object = &target_object,
     .required = true,
     .min_count = 1,
     .doc = "Where its requests go.",
     .example = "[{ address: \"127.0.0.1:9101\" }]"},
    {.name = "protocol",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct upstream_settings, protocol),
     .fallback = "http/1.1",
     .options = protocol_options,
     .doc = "What the targets speak; with tls they must agree to it by ALPN. h2 without tls is begun at "
            "once (prior knowledge)."},
    {.name = "tls",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, tls),
     .nullable = true,
     .is_set_offset = offsetof(struct upstream_settings, has_tls),
     .object = &tls_object,
     .doc = "TLS to the targets. null: none."},
    {.name = "load_balancer",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct upstream_settings, load_balancer),
     .fallback = "round_robin",
     .options = balance_options,
     .doc = "How a target is chosen. All of them honour weights."},
    {.name = "hash_on",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct upstream_settings, hash_on),
     .fallback = "client_ip",
     .decode = decode_hash_on,
     .encode = encode_hash_on,
     .schema = "{ anyOf: [{ type: string, pattern: '^(client_ip|identity|path|(header|cookie)[.].+)$' },"
               " { $ref: '#/$defs/variable' }] }",
     .type_name = "client_ip, header.NAME, cookie.NAME, identity or path",
     .doc = "What consistent_hash keeps together. identity: a consumer, else a subject, else client_ip."},
    {.name = "health_check",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, health_check),
     .object = &health_object,
     .doc = "Active health checks."},
    {.name = "outlier",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, outlier),
     .object = &outlier_object,
     .doc = "Ejection: a target that fails while others serve takes no requests for a while."},
    {.name = "panic_threshold",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct upstream_settings, panic_threshold),
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .doc = "When fewer targets than this share are healthy and not ejected, all of them are used."},
    {.name = "slow_start",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct upstream_settings, slow_start_us),
     .fallback = "0s",
     .min = 0,
     .max = HOUR,
     .doc = "How long the share of a target that came back grows to its full weight."},
    {.name = "circuit_breaker",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, circuit_breaker),
     .object = &breaker_object,
     .doc = "When it is not asked for a while, because it fails."},
    {.name = "limits",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, limits),
     .object = &limits_object,
     .doc = "How much may be in use at once."},
    {.name = "adaptive_concurrency",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct upstream_settings, adaptive_concurrency),
     .fallback = "false",
     .doc = "true: the limit of requests follows how long they take, up to `limits.requests`: as many as the "
            "targets "
            "serve without letting them wait in their own queues."},
    {.name = "timeouts",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, timeouts),
     .object = &timeouts_object,
     .doc = "How long it may take."},
    {.name = "retries",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, retries),
     .object = &retry_object,
     .doc = "When a failed request is sent again."},
    {.name = "hedge",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct upstream_settings, hedge),
     .nullable = true,
     .is_set_offset = offsetof(struct upstream_settings, has_hedge),
     .object = &hedge_object,
     .doc = "A second try of a safe request without a body that has no answer yet, out of the budget of "
            "`retries`; the "
            "first answer wins. null: none."},
    {0},
};

const struct config_object upstream_object = {
    .name = "upstream",
    .doc = "A service behind the gateway: the addresses that serve it, and how they are used.",
    .example = "targets:\n"
               "  - { address: \"127.0.0.1:9101\", weight: 2 }\n"
               "  - { address: \"127.0.0.1:9102\" }\n"
               "load_balancer: least_request\n"
               "health_check: { path: /healthz }\n",
    .size = sizeof(struct upstream_settings),
    .fields = upstream_fields,
    .has_position = true,
    .name_offset = offsetof(struct upstream_settings, name),
    .check_rules = check_upstream,
};
