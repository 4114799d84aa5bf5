// The field table of ejection.
#include "upstream/upstream_config.h"

#define SECOND 1e6
#define HOUR   3600e6

static void check_outlier(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct outlier_settings *outlier = target;
    if (outlier->max_ejection_us >= outlier->ejection_us)
        return;
    if (config_get(node, STR("max_ejection")))
        config_fail_at(decoder, node, STR("max_ejection"), "raise it, or lower ejection",
                       "shorter than ejection");
    outlier->max_ejection_us = outlier->ejection_us; // of the two, only ejection was chosen
}

// With n endpoints, one that is alone in failing is sqrt(n - 1) standard deviations below the mean.
static void check_success_rate(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct success_rate_settings *rate = target;
    if (rate->deviations * rate->deviations >= (double)rate->min_endpoints - 1)
        config_fail_at(decoder, node, STR("deviations"), "lower it, or raise min_endpoints",
                       "among %lld endpoints one can never be so far off", (long long)rate->min_endpoints);
}

static const struct config_field success_rate_fields[] = {
    {.name = "interval",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct success_rate_settings, interval_us),
     .fallback = "10s",
     .min = SECOND,
     .max = HOUR,
     .doc = "How long answers are counted before they are compared."},
    {.name = "min_requests",
     .type = CONFIG_INT,
     .offset = offsetof(struct success_rate_settings, min_requests),
     .fallback = "100",
     .min = 1,
     .max = 1000000,
     .doc = "Targets with fewer requests in the interval are left out."},
    {.name = "min_endpoints",
     .type = CONFIG_INT,
     .offset = offsetof(struct success_rate_settings, min_endpoints),
     .fallback = "5",
     .min = 2,
     .max = 1000000,
     .doc = "With fewer targets than this to compare there is no comparison."},
    {.name = "deviations",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct success_rate_settings, deviations),
     .fallback = "1.9",
     .min = 0,
     .max = 100,
     .doc = "A target is an outlier when its share of good answers is so many standard deviations below the "
            "mean of "
            "all. 0: no comparison."},
    {.name = "min_gap",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct success_rate_settings, min_gap),
     .fallback = "0.05",
     .min = 0,
     .max = 1,
     .doc = "And it must be so far below the mean at least, since among targets that hardly fail the "
            "deviation is "
            "next to nothing."},
    {0},
};

static const struct config_object success_rate_object = {
    .name = "outlier_success_rate",
    .doc = "Ejection of targets that answer well less often than the others.",
    .example = "{ interval: 10s, min_requests: 100, min_endpoints: 3, deviations: 1.2 }",
    .size = sizeof(struct success_rate_settings),
    .fields = success_rate_fields,
    .check_rules = check_success_rate,
};

static const struct config_field outlier_fields[] = {
    {.name = "consecutive_failures",
     .type = CONFIG_INT,
     .offset = offsetof(struct outlier_settings, consecutive_failures),
     .fallback = "5",
     .min = 0,
     .max = 1000000,
     .doc = "So many failures in a row eject a target: statuses 500 to 599 but 501, timeouts, resets, broken "
            "answers, connects that fail. 0: never."},
    {.name = "connect_failures",
     .type = CONFIG_INT,
     .offset = offsetof(struct outlier_settings, connect_failures),
     .fallback = "3",
     .min = 0,
     .max = 1000000,
     .doc = "So many connects in a row that fail do so sooner. 0: they only count among all failures."},
    {.name = "ejection",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct outlier_settings, ejection_us),
     .fallback = "10s",
     .min = SECOND / 10,
     .max = 24 * HOUR,
     .doc = "How long a target takes no requests, less a tenth at random. Grows by as much with each further "
            "ejection, "
            "and shrinks again by as much for every such time of good service."},
    {.name = "max_ejection",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct outlier_settings, max_ejection_us),
     .fallback = "5m",
     .min = SECOND / 10,
     .max = 24 * HOUR,
     .doc = "It grows to no more."},
    {.name = "max_ejected",
     .type = CONFIG_NUMBER,
     .offset = offsetof(struct outlier_settings, max_ejected),
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .doc = "The share of the targets that may be ejected at a time; of two or more, one always may. "
            "`panic_threshold` must stay met without them. 0: none is ever ejected."},
    {.name = "check_readmits",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct outlier_settings, check_readmits),
     .fallback = "true",
     .doc = "A good active check lets a target back in before its time is over."},
    {.name = "success_rate",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct outlier_settings, success_rate),
     .object = &success_rate_object,
     .doc = "Ejection of targets that answer well less often than the others."},
    {0},
};

const struct config_object outlier_object = {
    .name = "outlier",
    .doc = "Which targets are ejected, and for how long.",
    .example = "{ consecutive_failures: 3, ejection: 30s, max_ejected: 0.3 }",
    .size = sizeof(struct outlier_settings),
    .fields = outlier_fields,
    .check_rules = check_outlier,
};
