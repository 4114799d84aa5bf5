// The field tables of overload.
#include "exchange/overload.h"

#define SECOND     1e6
#define MEMORY_MAX (1024.0 * 1024 * 1024 * 1024 * 1024)

static void check_bounds(struct config_decoder *decoder, const struct config_node *node, double soft,
                         double hard)
{
    if (soft >= hard)
        config_fail_at(decoder, node, STR("soft"), "requests are turned away between the two",
                       "must be below hard");
}

static void check_shares(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct overload_bounds *bounds = target;
    check_bounds(decoder, node, bounds->soft, bounds->hard);
}

static const struct config_field share_fields[] = {
    {.name = "soft",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct overload_bounds, soft),
     .fallback = "0.85",
     .min = 0,
     .max = 1,
     .doc = "From this share on requests are turned away, those of low priority first."},
    {.name = "hard",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct overload_bounds, hard),
     .fallback = "0.95",
     .min = 0,
     .max = 1,
     .doc = "From this share on all are, but those of critical priority."},
    {0},
};

static const struct config_object shares_object = {
    .name = "overload_shares",
    .doc = "Shares of what there is.",
    .example = "{ soft: 0.85, hard: 0.95 }",
    .size = sizeof(struct overload_bounds),
    .fields = share_fields,
    .check_rules = check_shares,
};

#define LAG_OFFSET(field) \
    (offsetof(struct overload_settings, loop_lag.field) - offsetof(struct overload_settings, loop_lag))

static void check_lag(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct overload_settings *settings = container_of(target, struct overload_settings, loop_lag);
    check_bounds(decoder, node, (double)settings->loop_lag.soft_us, (double)settings->loop_lag.hard_us);
}

static const struct config_field lag_fields[] = {
    {.name = "soft",
     .type = CONFIG_DURATION,
     .offset = LAG_OFFSET(soft_us),
     .fallback = "250ms",
     .min = 0,
     .max = 3600 * SECOND,
     .doc = "From this lag on requests are turned away, those of low priority first."},
    {.name = "hard",
     .type = CONFIG_DURATION,
     .offset = LAG_OFFSET(hard_us),
     .fallback = "1s",
     .min = 1000,
     .max = 3600 * SECOND,
     .doc = "From this lag on all are, but those of critical priority."},
    {0},
};

static const struct config_object lag_object = {
    .name = "overload_lag",
    .doc = "How long what is ready waits for its worker. It counts when it has stood for half a second.",
    .example = "{ soft: 250ms, hard: 1s }",
    .size = sizeof(((struct overload_settings *)0)->loop_lag),
    .fields = lag_fields,
    .check_rules = check_lag,
};

static const struct config_field overload_fields[] = {
    {.name = "enabled",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct overload_settings, enabled),
     .fallback = "true",
     .doc = "false: nobody is turned away on account of the gateway itself."},
    {.name = "descriptors",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct overload_settings, descriptors),
     .object = &shares_object,
     .doc = "Of the descriptors that the process may have (RLIMIT_NOFILE). Beyond `hard`, and beyond all but "
            "16, client "
            "connections are closed as soon as they are accepted: the rest is for upstreams."},
    {.name = "memory",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct overload_settings, memory),
     .object = &shares_object,
     .doc = "Of `memory_limit`; counted is the worker process's resident memory."},
    {.name = "memory_limit",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct overload_settings, memory_limit),
     .nullable = true,
     .min = 1 << 20,
     .max = MEMORY_MAX,
     .doc = "How much there is. null: what the control group allows, else what the machine has."},
    {.name = "loop_lag",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct overload_settings, loop_lag),
     .object = &lag_object,
     .doc = "Each worker's by itself."},
    {0},
};

const struct config_object overload_object = {
    .name = "overload",
    .doc =
        "When the gateway itself runs short: new requests are answered with 503 `overloaded`, those of low "
        "`priority` first.",
    .example = "{ memory: { soft: 0.8, hard: 0.9 } }",
    .size = sizeof(struct overload_settings),
    .fields = overload_fields,
};
