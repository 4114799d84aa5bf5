// The field table of active health checks.
#include "upstream/grpc_health.h"
#include "upstream/upstream_config.h"

#define MILLISECOND 1e3
#define HOUR        3600e6

static bool accept_health_path(struct config_decoder *decoder, const struct config_node *node,
                               struct str *value)
{
    for (size_t i = 0; i < value->n; i++)
        if ((unsigned char)value->p[i] <= ' ' || (unsigned char)value->p[i] >= 0x7f || value->p[i] == '#') {
            config_fail(decoder, node, "percent-encode it", "a character that no request target may hold");
            return false;
        }
    if (value->n && value->p[0] == '/')
        return true;
    config_fail(decoder, node, "such as /healthz", "a path begins with /");
    return false;
}

static void decode_grpc(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct health_settings *health = target;
    struct str service;
    if (!config_decode_string(decoder, node, &service))
        return;
    if (service.n > GRPC_HEALTH_SERVICE_MAX || !config_is_printable(service)) {
        config_fail(decoder, node, "such as shop.Orders, or \"\" for the server as a whole",
                    "not a name of a service");
        return;
    }
    health->has_grpc = true;
    health->grpc = service;
}

static struct config_node *encode_grpc(struct arena *arena, const void *target)
{
    const struct health_settings *health = target;
    return health->has_grpc ? config_new_string(arena, health->grpc) : NULL;
}

static void check_health(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct health_settings *health = target;
    if (health->timeout_us > health->interval_us)
        config_fail_at(decoder, node, STR("timeout"), "lower the timeout or raise the interval",
                       "longer than the interval");
    if (health->has_grpc && health->path.n)
        config_fail_at(decoder, node, STR("grpc"), "remove one of them", "together with path");
}

static const struct config_field health_fields[] = {
    {.name = "path",
     .type = CONFIG_STRING,
     .offset = offsetof(struct health_settings, path),
     .nullable = true,
     .accept = accept_health_path,
     .pattern = "^/",
     .type_name = "a path",
     .doc = "What is asked for, with GET. null, and grpc null: no active checks."},
    {.name = "grpc",
     .type = CONFIG_CUSTOM,
     .offset = 0, // has_grpc and grpc
     .nullable = true,
     .decode = decode_grpc,
     .encode = encode_grpc,
     .schema = "{ type: string, maxLength: 256 }",
     .type_name = "a service's name",
     .doc = "The service whose status is asked for by grpc.health.v1.Health/Check; \"\": the server as a "
            "whole. Needs protocol h2; instead of path.",
     .example = "shop.Orders"},
    {.name = "interval",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct health_settings, interval_us),
     .fallback = "5s",
     .min = 100 * MILLISECOND,
     .max = HOUR,
     .doc = "How often each target is asked, give or take 10 %."},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct health_settings, timeout_us),
     .fallback = "1s",
     .min = MILLISECOND,
     .max = HOUR,
     .doc = "How long an answer may take; not longer than the interval."},
    {.name = "healthy",
     .type = CONFIG_INT,
     .offset = offsetof(struct health_settings, healthy),
     .fallback = "2",
     .min = 1,
     .max = 100,
     .doc = "How many good answers in a row bring a target back."},
    {.name = "unhealthy",
     .type = CONFIG_INT,
     .offset = offsetof(struct health_settings, unhealthy),
     .fallback = "3",
     .min = 1,
     .max = 100,
     .doc = "How many failures in a row take a target out."},
    {.name = "statuses",
     CONFIG_STATUSES,
     .offset = offsetof(struct health_settings, statuses),
     .fallback = "[\"200-399\"]",
     .doc = "Which statuses are good answers to path."},
    {0},
};

const struct config_object health_object = {
    .name = "health_check",
    .doc = "Active checks: every target is asked for a path, or by gRPC, and takes requests while it answers "
           "well.",
    .example = "{ path: /healthz, interval: 5s, timeout: 1s, healthy: 2, unhealthy: 3, statuses: [200] }",
    .size = sizeof(struct health_settings),
    .fields = health_fields,
    .check_rules = check_health,
};
