// The field table of circuit breakers, and of answers that the configuration gives.
#include "config/header.h"
#include "upstream/upstream_config.h"

#define MILLISECOND 1e3
#define SECOND      1e6
#define HOUR        3600e6

// ---- answers ----

bool config_accept_respond_header(struct config_decoder *decoder, const struct config_node *node,
                                  struct str *value)
{
    bool is_name = config_check_header_edit(decoder, node, node->key);
    return config_check_header_value(decoder, node, *value) && is_name;
}

void config_check_respond(struct config_decoder *decoder, const struct config_node *node,
                          const struct respond_settings *respond)
{
    config_check_header_names(decoder, node, STR("headers"));
    if (respond->body.n && (respond->status == 204 || respond->status == 205 || respond->status == 304))
        config_fail_at(decoder, node, STR("body"), "remove it, or choose another status",
                       "a response with status %lld has no body", (long long)respond->status);
}

// ---- fallback ----

// Defaults may stand beside upstream and stale: `dump` prints them.
static void check_fallback(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct breaker_fallback *fallback = target;
    const struct respond_settings *respond = &fallback->respond;
    bool is_default = respond->status == 200 && !respond->body.n && !respond->headers.count;
    fallback->has_respond = !fallback->upstream.n && !(fallback->stale_us && is_default);
    if (!fallback->upstream.n) {
        config_check_respond(decoder, node, respond);
        return;
    }
    struct str beside = respond->body.n          ? STR("body")
                        : respond->headers.count ? STR("headers")
                        : respond->status != 200 ? STR("status")
                                                 : STR_NULL;
    if (beside.n)
        config_fail_at(decoder, node, beside, "keep one of the two",
                       "not together with upstream, which answers instead");
}

static const struct config_field fallback_fields[] = {
    {.name = "stale",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct breaker_fallback, stale_us),
     .fallback = "0s",
     .min = 0,
     .max = 7 * 24 * HOUR,
     .doc = "Copies of answers to GET are kept, and given for so long after they came, where RFC 9111 lets a "
            "shared cache do that. What follows is for requests without one; left at its defaults it says "
            "nothing, and they get 503. 0s: no copies."},
    {.name = "upstream",
     .type = CONFIG_STRING,
     .offset = offsetof(struct breaker_fallback, upstream),
     .nullable = true,
     .doc = "The upstream that is asked instead, unless its own breaker is open too. null: the answer below.",
     .example = "orders-standby"},
    CONFIG_RESPOND_FIELDS(struct breaker_fallback, respond),
    {0},
};

static const struct config_object fallback_object = {
    .name = "breaker_fallback",
    .doc = "What takes the place of an answer while a circuit breaker is open: a copy of an earlier one, "
           "another "
           "upstream, or a response.",
    .example = "{ stale: 1h, status: 200, body: \"[]\", headers: { Content-Type: application/json } }",
    .size = sizeof(struct breaker_fallback),
    .fields = fallback_fields,
    .check_rules = check_fallback,
};

// ---- the breaker ----

static void check_breaker(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct breaker_settings *breaker = target;
    breaker->rules.judges_slow = breaker->slow_call_us > 0;
    if (breaker->rules.max_open_us < breaker->rules.open_us)
        config_fail_at(decoder, node, STR("max_open"), "raise it, or lower open",
                       "shorter than open, which it bounds");
}

static const struct config_option scope_options[] = {
    {"upstream", BREAKER_OF_UPSTREAM}, {"endpoint", BREAKER_OF_ENDPOINT}, {0}};

#define RULE(field) offsetof(struct breaker_settings, rules.field)

static const struct config_field breaker_fields[] = {
    {.name = "enabled",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct breaker_settings, enabled),
     .fallback = "true",
     .doc = "false: none."},
    {.name = "window",
     .type = CONFIG_DURATION,
     .offset = RULE(window_us),
     .fallback = "10s",
     .min = 100 * MILLISECOND,
     .max = HOUR,
     .doc = "The time that is judged, up to now. It slides by a tenth."},
    {.name = "min_requests",
     .type = CONFIG_INT,
     .offset = RULE(min_requests),
     .fallback = "20",
     .min = 1,
     .max = 1000000,
     .doc = "Fewer of them in the window say nothing."},
    {.name = "failure_ratio",
     .type = CONFIG_NUMBER,
     .offset = RULE(failure_ratio),
     .fallback = "0.5",
     .min = 0.01,
     .max = 1,
     .doc =
         "Opens when at least this share failed: no connection, a timeout, a reset, an answer that is no "
         "HTTP or breaks off, and failure_statuses. Never for what clients or the gateway's own limits do."},
    {.name = "failure_statuses",
     CONFIG_STATUSES,
     .offset = offsetof(struct breaker_settings, failure_statuses),
     .fallback = "[\"500-599\"]",
     .doc = "Responses that are failures. A gRPC status counts as the HTTP status it amounts to."},
    {.name = "slow_call",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct breaker_settings, slow_call_us),
     .fallback = "0s",
     .min = 0,
     .max = HOUR,
     .doc = "A response whose head takes longer, from the end of the request, is slow: counted when this is "
            "over, "
            "though the call goes on. 0s: none is."},
    {.name = "slow_ratio",
     .type = CONFIG_NUMBER,
     .offset = RULE(slow_ratio),
     .fallback = "1.0",
     .min = 0.01,
     .max = 1,
     .doc = "Opens when at least this share was slow."},
    {.name = "open",
     .type = CONFIG_DURATION,
     .offset = RULE(open_us),
     .fallback = "5s",
     .min = 10 * MILLISECOND,
     .max = HOUR,
     .doc = "How long nothing is sent. Doubles on each re-opening, less up to a fifth by chance."},
    {.name = "max_open",
     .type = CONFIG_DURATION,
     .offset = RULE(max_open_us),
     .fallback = "60s",
     .min = 10 * MILLISECOND,
     .max = 24 * HOUR,
     .doc = "The longest. Closed for so long, the next opening is as short as the first."},
    {.name = "half_open_requests",
     .type = CONFIG_INT,
     .offset = RULE(half_open_requests),
     .fallback = "3",
     .min = 1,
     .max = 1000,
     .doc = "Probes in flight at most, over all workers, and good ones that end the probing."},
    {.name = "ramp",
     .type = CONFIG_DURATION,
     .offset = RULE(ramp_us),
     .fallback = "10s",
     .min = 0,
     .max = HOUR,
     .doc = "How long the share of requests that is let through grows to all of them after the probes."},
    {.name = "scope",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct breaker_settings, scope),
     .fallback = "upstream",
     .options = scope_options,
     .doc = "upstream: one breaker. endpoint: one for each target; those that are open are not chosen."},
    {.name = "fallback",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct breaker_settings, fallback),
     .nullable = true,
     .is_set_offset = offsetof(struct breaker_settings, has_fallback),
     .object = &fallback_object,
     .doc = "What clients get while it is open. null: 503 breaker_open."},
    {0},
};

const struct config_object breaker_object = {
    .name = "circuit_breaker",
    .doc = "When an upstream is not asked for a while because it fails, and how it is let back in.",
    .example = "{ failure_ratio: 0.3, slow_call: 2s, slow_ratio: 0.5, open: 5s, ramp: 10s }",
    .size = sizeof(struct breaker_settings),
    .fields = breaker_fields,
    .check_rules = check_breaker,
};
