// The field tables of the policies that a route's headers, fault and ip keys set up.
#include "policy/policy_config.h"

#include "replay/store.h"

// ---- networks ----

static const char *network_hint(const struct config_node *node)
{
    struct str text = node->kind == CONFIG_SCALAR ? node->text : STR_NULL;
    size_t slash = str_find(text, '/');
    struct ip ip;
    uint64_t bits;
    bool is_network = slash < text.n && ip_parse((struct str){text.p, slash}, &ip) &&
                      str_to_u64(str_skip(text, slash + 1), ip.family == AF_INET ? 32 : 128, &bits);
    return is_network ? "the bits behind the prefix must be zero"
                      : "such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7";
}

void config_decode_cidrs(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    if (node->kind != CONFIG_LIST) {
        config_fail_type(decoder, node, "write [\"10.0.0.0/8\"]", "a list of networks");
        return;
    }
    struct cidr *networks = arena_array(config_arena(decoder), struct cidr, node->count);
    uint32_t count = 0, index = 0;
    for (const struct config_node *child = node->first; child; child = child->next) {
        config_enter_index(decoder, index++);
        if (child->kind == CONFIG_SCALAR && cidr_parse(child->text, &networks[count]))
            count++;
        else
            config_fail_type(decoder, child, network_hint(child), "a network or an address");
        config_leave(decoder);
    }
    memcpy(target, &(struct cidr_set){networks, count}, sizeof(struct cidr_set));
}

struct config_node *config_encode_cidrs(struct arena *arena, const void *target)
{
    static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
    const struct cidr_set *set = target;
    struct config_node *list = config_new_list(arena), *last = NULL;
    for (uint32_t i = 0; i < set->count; i++) {
        struct ip ip = {.family = AF_INET};
        char text[IP_TEXT_MAX];
        unsigned bits = set->v[i].bits;
        memcpy(ip.bytes, set->v[i].bytes, sizeof ip.bytes);
        if (bits >= 96 && memcmp(ip.bytes, mapped, sizeof mapped) == 0)
            bits -= 96;
        else
            ip.family = AF_INET6;
        size_t n = ip_print(&ip, text);
        config_append(list, &last, STR_NULL,
                      config_new_string(arena, arena_printf(arena, "%.*s/%u", (int)n, text, bits)));
    }
    return list;
}

// ---- header edits ----

static bool accept_pair(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    bool is_name = config_check_header_edit(decoder, node, node->key);
    return config_check_header_value(decoder, node, *value) && is_name;
}

static void check_edit(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    (void)target;
    config_check_header_names(decoder, node, STR("set"));
    config_check_header_names(decoder, node, STR("add"));
}

static const struct config_field edit_fields[] = {
    {.name = "set",
     .type = CONFIG_STRING_MAP,
     .offset = offsetof(struct header_edit, set),
     .fallback = "{}",
     .accept = accept_pair,
     .masked = true,
     .type_name = "a map of header names to values",
     .doc = "Replaces the header, or adds it."},
    {.name = "add",
     .type = CONFIG_STRING_MAP,
     .offset = offsetof(struct header_edit, add),
     .fallback = "{}",
     .accept = accept_pair,
     .masked = true,
     .type_name = "a map of header names to values",
     .doc = "Adds one more line of the header."},
    {.name = "remove",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct header_edit, remove),
     .fallback = "[]",
     .accept = config_accept_header,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a list of header names",
     .doc = "Removes every line of the header."},
    {0},
};

static const struct config_object edit_object = {
    .name = "header_edit",
    .doc = "Changes to the headers of a message. Host, framing headers and those that belong to one "
           "connection cannot "
           "be changed here.",
    .example = "{ set: { X-Tenant: acme }, add: { Cache-Control: no-transform }, remove: [X-Debug] }",
    .size = sizeof(struct header_edit),
    .fields = edit_fields,
    .check_rules = check_edit,
};

static const struct config_field rules_fields[] = {
    {.name = "request",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct header_rules, request),
     .object = &edit_object,
     .doc = "What the upstream receives."},
    {.name = "response",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct header_rules, response),
     .object = &edit_object,
     .doc = "What the client receives."},
    {0},
};

const struct config_object header_rules_object = {
    .name = "headers",
    .doc = "Changes to the headers of a route's requests and responses.",
    .example = "request: { set: { X-Tenant: acme } }\n"
               "response: { remove: [Server] }\n",
    .size = sizeof(struct header_rules),
    .fields = rules_fields,
};

// ---- faults ----

static bool is_given(const struct config_node *map, struct str key)
{
    const struct config_node *child = config_get(map, key);
    return child && child->kind != CONFIG_NULL;
}

static void check_fault(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    (void)target;
    bool has_delay = is_given(node, STR("delay")), has_status = is_given(node, STR("status"));
    if (!has_delay && !has_status)
        config_fail(decoder, node, "add delay: 100ms or status: 503", "neither a delay nor a status");
    else if (!has_delay && is_given(node, STR("delay_ratio")))
        config_fail_at(decoder, node, STR("delay_ratio"), "add delay: 100ms", "there is no delay");
    else if (!has_status && is_given(node, STR("status_ratio")))
        config_fail_at(decoder, node, STR("status_ratio"), "add status: 503", "there is no status");
}

static const struct config_field fault_fields[] = {
    {.name = "delay",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct fault_settings, delay_us),
     .fallback = "0s",
     .min = 0,
     .max = 3600e6,
     .doc = "How long a request is held before it goes on."},
    {.name = "delay_ratio",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct fault_settings, delay_ratio),
     .fallback = "1.0",
     .min = 0,
     .max = 1,
     .doc = "The share of requests that are held."},
    {.name = "status",
     .type = CONFIG_INT,
     .offset = offsetof(struct fault_settings, status),
     .nullable = true,
     .min = 200,
     .max = 599,
     .doc = "Answered instead of forwarding."},
    {.name = "status_ratio",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct fault_settings, status_ratio),
     .fallback = "1.0",
     .min = 0,
     .max = 1,
     .doc = "The share of requests that are answered so."},
    {0},
};

const struct config_object fault_object = {
    .name = "fault",
    .doc = "Failures on purpose, to try out how callers take them.",
    .example = "{ delay: 100ms, delay_ratio: 0.1, status: 503, status_ratio: 0.01 }",
    .size = sizeof(struct fault_settings),
    .fields = fault_fields,
    .check_rules = check_fault,
};

// ---- addresses ----

static const struct config_field ip_fields[] = {
    {.name = "allow",
     CONFIG_CIDRS,
     .offset = offsetof(struct ip_rules, allow),
     .fallback = "[]",
     .doc = "Only these clients are let through; empty: all."},
    {.name = "deny",
     CONFIG_CIDRS,
     .offset = offsetof(struct ip_rules, deny),
     .fallback = "[]",
     .doc = "These clients are refused, with 403, even when they are allowed above."},
    {0},
};

const struct config_object ip_rules_object = {
    .name = "ip",
    .doc = "Which client addresses a route takes. Behind a trusted proxy, the client is the one it names.",
    .example = "{ allow: [\"10.0.0.0/8\"], deny: [\"10.6.6.6\"] }",
    .size = sizeof(struct ip_rules),
    .fields = ip_fields,
};

// ---- idempotency ----

static const struct config_option replay_stores[] = {
    {"auto", REPLAY_AUTO}, {"redis", REPLAY_REDIS}, {"local", REPLAY_LOCAL}, {0}};
static const struct config_option replay_downs[] = {
    {"local", REPLAY_DOWN_LOCAL}, {"deny", REPLAY_DOWN_DENY}, {0}};

static const struct config_field idempotency_fields[] = {
    {.name = "required",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct idempotency_settings, required),
     .fallback = "false",
     .doc = "A POST or PATCH without the header is answered with 400 idempotency_key_required."},
    {.name = "ttl",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct idempotency_settings, ttl_us),
     .fallback = "24h",
     .min = 1e6,
     .max = 7 * 86400e6,
     .doc = "How long an answer is kept."},
    {.name = "body_bytes",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct idempotency_settings, body_bytes),
     .fallback = "64KiB",
     .min = 1,
     .max = 16 << 20,
     .doc = "A request with a key is read to its end before it goes on; a longer one is answered with 413."},
    {.name = "response_bytes",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct idempotency_settings, response_bytes),
     .fallback = "64KiB",
     .min = 0,
     .max = 1 << 20,
     .doc = "An answer whose head and body are longer is not kept: who asks again gets 409 "
            "idempotency_not_replayable."},
    {.name = "store",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct idempotency_settings, store),
     .fallback = "auto",
     .options = replay_stores,
     .doc = "Where answers are kept. redis: in the Redis of the root's redis, for all gateways together. "
            "local: in this "
            "process. auto: redis where there is one, else local."},
    {.name = "on_redis_down",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct idempotency_settings, on_redis_down),
     .fallback = "local",
     .options = replay_downs,
     .doc = "When Redis does not answer within redis.deadline. local: what this gateway itself has answered "
            "decides. "
            "deny: 503 idempotency_unavailable."},
    {0},
};

const struct config_object idempotency_object = {
    .name = "idempotency",
    .doc =
        "Requests with an Idempotency-Key are carried out once: who sends one again gets the first answer.",
    .example = "{ required: true, ttl: 1h, body_bytes: 16KiB }",
    .size = sizeof(struct idempotency_settings),
    .fields = idempotency_fields,
};
