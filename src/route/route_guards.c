// Which policies guard a route: one row each, in the order they run.
#include "route/route_table.h"

static bool uses_ip(const struct route_settings *settings)
{
    return settings->ip.allow.count || settings->ip.deny.count;
}

static bool uses_cors(const struct route_settings *settings)
{
    return settings->has_cors;
}

static bool uses_auth(const struct route_settings *settings)
{
    return settings->auth.any_of.count;
}

static bool uses_early_limits(const struct route_settings *settings)
{
    return settings->rate_limits.stages[LIMIT_BEFORE_AUTH].count;
}

static bool uses_rate_limits(const struct route_settings *settings)
{
    return settings->rate_limits.stages[LIMIT_AFTER_AUTH].count;
}

static bool uses_fault(const struct route_settings *settings)
{
    const struct fault_settings *fault = &settings->fault;
    return settings->has_fault && (fault->delay_us || fault->status);
}

static bool uses_idempotency(const struct route_settings *settings)
{
    return settings->has_idempotency;
}

static bool edits(const struct header_edit *edit)
{
    return edit->set.count || edit->add.count || edit->remove.count;
}

static bool uses_headers(const struct route_settings *settings)
{
    return edits(&settings->headers.request) || edits(&settings->headers.response);
}

static const struct guard {
    const struct policy *policy;
    size_t settings; // offset in struct route_settings
    bool (*in_use)(const struct route_settings *settings);
} guards[] = {
    {&policy_ip, offsetof(struct route_settings, ip), uses_ip},
    {&policy_cors, offsetof(struct route_settings, cors), uses_cors},
    {&policy_rate_limit, offsetof(struct route_settings, rate_limits.stages[LIMIT_BEFORE_AUTH]),
     uses_early_limits},
    {&policy_auth, offsetof(struct route_settings, auth), uses_auth},
    {&policy_rate_limit, offsetof(struct route_settings, rate_limits.stages[LIMIT_AFTER_AUTH]),
     uses_rate_limits},
    {&policy_fault, offsetof(struct route_settings, fault), uses_fault},
    {&policy_idempotency, offsetof(struct route_settings, idempotency), uses_idempotency},
    {&policy_conceal, offsetof(struct route_settings, auth), uses_auth},
    {&policy_headers, offsetof(struct route_settings, headers), uses_headers},
};

void route_guards_compile(struct route *route, struct arena *arena)
{
    const struct route_settings *settings = route->settings;
    struct policy_use uses[countof(guards)];
    uint32_t count = 0;
    for (size_t i = 0; i < countof(guards); i++)
        if (guards[i].in_use(settings))
            uses[count++] =
                (struct policy_use){guards[i].policy, (const char *)settings + guards[i].settings};
    if (!count)
        return;
    struct policy_use *kept = arena_array(arena, struct policy_use, count);
    memcpy(kept, uses, sizeof *kept * count);
    for (uint32_t i = 0; i < count; i++)
        route->has_ends |= kept[i].policy->on_end != NULL;
    route->policies = kept;
    route->policy_count = count;
}
