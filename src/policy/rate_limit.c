// Rate limits of a route (limit/limit.h), and what clients are told of them: RateLimit and RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-10) with every answer, Retry-After with a refusal. Limits in shadow
// mode are kept to the log and the metrics. A request with a limit in Redis waits for it
// (limit/redis_store.h).
#include "base/log.h"
#include "limit/redis_store.h"
#include "policy/policy.h"

#include <stdatomic.h>

enum { SECOND_US = 1000000, MILLISECOND_US = 1000, MEMBER_BYTES = 64 };

struct limited { // in the exchange's arena, from the verdict to the response
    uint32_t count;
    bool is_shared; // one is in Redis
    struct limit_asking asking;
    struct limit_use uses[];
};

struct limit_places { // in the exchange's arena, to its end
    uint32_t count;
    struct limit_flight flights[];
};

static bool is_shadow(const struct limit_use *use)
{
    return use->limit->settings->shadow;
}

static uint64_t seconds_of(uint64_t us) // rounded up
{
    return (us + SECOND_US - 1) / SECOND_US;
}

// ---- the verdict ----

static const struct siphash_key *shared_seed(const struct policy_call *call)
{
    return call->limits->any_shared ? limit_worker_seed(call->limiter) : NULL;
}

static struct limit_caller caller_of(const struct policy_call *call)
{
    const struct route_limit_stage *stage = call->settings;
    return (struct limit_caller){.identity = call->identity,
                                 .client = call->client,
                                 .headers = &call->request->headers,
                                 .route = stage->route,
                                 .now_s = call->now_s,
                                 .now_us = call->now_us,
                                 .shared_seed = shared_seed(call)};
}

static struct limited *ask(struct policy_call *call)
{
    const struct route_limit_stage *stage = call->settings;
    const struct limit_caller caller = caller_of(call);
    size_t room = stage->count * LIMIT_USES * sizeof(struct limit_use);
    struct limited *limited = arena_alloc(call->arena, sizeof *limited + room);
    limited->count = 0;
    limited->is_shared = false;
    for (uint32_t i = 0; i < stage->count; i++) {
        const struct limit *limit = &call->limits->v[stage->indices[i]];
        uint32_t count = limit_ask(limit, &caller, &limited->uses[limited->count]);
        limited->count += count;
        limited->is_shared |= count && limit->is_shared;
    }
    limited->asking = (struct limit_asking){.table = call->limits->table,
                                            .uses = limited->uses,
                                            .count = limited->count,
                                            .now_s = call->now_s,
                                            .is_keyed = caller.shared_seed,
                                            .ticket = call->ticket};
    return limited;
}

// A line a second, whatever comes: the metrics have them all.
static void log_shadow(const struct limit *limit, struct str route, uint64_t now_us)
{
    static _Atomic uint64_t next_us;
    uint64_t next = atomic_load_explicit(&next_us, memory_order_relaxed);
    if (now_us < next || !atomic_compare_exchange_strong(&next_us, &next, now_us + SECOND_US))
        return;
    log_info("limit", "%.*s, in shadow mode, would have refused a request of route %.*s",
             STR_ARG(limit->name), STR_ARG(route));
}

static bool has_no_place(const struct limit_places *places, const struct limit *limit)
{
    for (uint32_t i = 0; places && i < places->count; i++)
        if (places->flights[i].limit == limit)
            return places->flights[i].is_over;
    return false;
}

// What a limit said, with its quotas, counts once, whether another one refused the request or not.
static void count(const struct policy_call *call, const struct limited *limited)
{
    const struct route_limit_stage *stage = call->settings;
    for (uint32_t i = 0, next = 0; i < stage->count; i++) {
        const struct limit *limit = &call->limits->v[stage->indices[i]];
        bool allows = !has_no_place(call->places[stage->stage], limit), is_degraded = false;
        for (; next < limited->count && limited->uses[next].limit == limit; next++) {
            allows &= !limited->uses[next].wait_us;
            is_degraded |= limited->uses[next].is_degraded;
        }
        bool shadow = limit->settings->shadow;
        metrics_limit(call->metrics, limit->id,
                      is_degraded ? LIMIT_DEGRADED
                      : allows    ? LIMIT_ALLOWED
                      : shadow    ? LIMIT_SHADOW_DENIED
                                  : LIMIT_DENIED);
        if (!allows && shadow)
            log_shadow(limit, stage->route, call->now_us);
    }
}

static void note(struct policy_call *call, struct limited *limited)
{
    const struct route_limit_stage *stage = call->settings;
    call->limited[stage->stage] = limited;
    count(call, limited);
}

static enum verdict refuse(struct policy_call *call, const struct limit_use *use)
{
    uint64_t wait_ms = (use->wait_us + MILLISECOND_US - 1) / MILLISECOND_US;
    call->cause = use->rule.is_window ? END_QUOTA_EXCEEDED : END_RATE_LIMITED;
    call->detail = arena_printf(call->arena, "the %s %.*s is used up; try again in %llu.%03llu s",
                                use->rule.is_window ? "quota" : "limit", STR_ARG(use->face->label),
                                (unsigned long long)(wait_ms / 1000), (unsigned long long)(wait_ms % 1000));
    headers_add_as(&call->answer.headers, call->arena, HEADER_RETRY_AFTER, STR("Retry-After"),
                   arena_u64(call->arena, seconds_of(use->wait_us)));
    return FAIL;
}

// ---- requests under way ----

// Takes a place of each limit that bounds how many may be under way. What refuses, or NULL.
static const struct limit_flight *enter(struct policy_call *call)
{
    const struct route_limit_stage *stage = call->settings;
    const struct limit_caller caller = caller_of(call);
    size_t room = stage->count * sizeof(struct limit_flight);
    struct limit_places *places = arena_alloc(call->arena, sizeof *places + room);
    places->count = 0;
    for (uint32_t i = 0; i < stage->count; i++) {
        const struct limit *limit = &call->limits->v[stage->indices[i]];
        places->count += limit_ask_flight(limit, &caller, &places->flights[places->count]);
    }
    call->places[stage->stage] = places;
    return limits_enter(places->flights, places->count);
}

static void leave(struct policy_call *call)
{
    const struct route_limit_stage *stage = call->settings;
    struct limit_places *places = call->places[stage->stage];
    if (places)
        limits_leave(places->flights, places->count);
}

// No bucket is charged; what they hold is told all the same. When a bucket would refuse, too, it knows better
// when to try again.
static enum verdict turn_away(struct policy_call *call, struct limited *limited,
                              const struct limit_flight *full)
{
    const struct limit_use *refuser =
        limits_look(call->limits->table, limited->uses, limited->count, call->now_us);
    note(call, limited);
    if (refuser)
        return refuse(call, refuser);
    call->cause = END_RATE_LIMITED; // Retry-After: 1 is the exchange's
    call->detail = arena_printf(call->arena, "the limit %.*s allows %u at once; try again in 1 s",
                                STR_ARG(full->limit->name), full->most);
    return FAIL;
}

static enum verdict conclude(struct policy_call *call, struct limited *limited,
                             const struct limit_use *refuser)
{
    note(call, limited);
    if (refuser)
        leave(call);
    return refuser ? refuse(call, refuser) : PASS;
}

static enum verdict judge_in_redis(struct policy_call *call, struct limited *limited)
{
    switch (limit_decide(call->limiter, &limited->asking, call->now_us)) {
    case LIMIT_WAIT: call->state = limited; return WAIT;
    case LIMIT_PASSED: return conclude(call, limited, NULL);
    case LIMIT_REFUSED: return conclude(call, limited, limited->asking.refuser);
    case LIMIT_UNAVAILABLE: break;
    }
    count(call, limited);
    leave(call);
    call->cause = END_LIMITER_UNAVAILABLE;
    return FAIL;
}

static enum verdict judge(struct policy_call *call)
{
    struct limited *limited = call->again ? call->state : ask(call);
    const struct limit_flight *full = !call->again && call->limits->any_flight ? enter(call) : NULL;
    if (full)
        return turn_away(call, limited, full);
    if (limited->is_shared)
        return judge_in_redis(call, limited);
    return conclude(call, limited,
                    limits_take(call->limits->table, limited->uses, limited->count, call->now_us));
}

static void forget(struct policy_call *call)
{
    struct limited *limited = call->state;
    limit_forget(&limited->asking);
}

// ---- what clients are told ----

struct text {
    char *p;
    size_t n;
};

static void put(struct text *text, struct str s)
{
    memcpy(text->p + text->n, s.p, s.n);
    text->n += s.n;
}

static void put_u64(struct text *text, uint64_t value)
{
    text->n += u64_print(value, text->p + text->n);
}

static uint64_t remaining(const struct limit_use *use, uint64_t now_us)
{
    return rule_remaining(&use->rule, use->state, now_us);
}

static uint64_t full_s(const struct limit_use *use, uint64_t now_us)
{
    return seconds_of(rule_full_us(&use->rule, use->state, now_us));
}

static void put_policy(struct text *text, const struct limit_use *use, uint64_t now_us)
{
    (void)now_us;
    put(text, use->face->policy);
}

// `"per_consumer";r=37;t=2`: tokens that are there, seconds until all are.
static void put_state(struct text *text, const struct limit_use *use, uint64_t now_us)
{
    put(text, STR("\""));
    put(text, use->face->label);
    put(text, STR("\";r="));
    put_u64(text, remaining(use, now_us));
    put(text, STR(";t="));
    put_u64(text, full_s(use, now_us));
}

// What clients are told of, of both stages: whichever comes last tells all.
struct told {
    const struct limit_use *uses[LIMITS_PER_ROUTE * LIMIT_USES];
    uint32_t count;
};

static void gather(const struct policy_call *call, struct told *told)
{
    told->count = 0;
    for (unsigned stage = 0; stage < LIMIT_STAGES; stage++) {
        const struct limited *limited = call->limited[stage];
        for (uint32_t i = 0; limited && i < limited->count; i++)
            if (!is_shadow(&limited->uses[i]))
                told->uses[told->count++] = &limited->uses[i];
    }
}

// A list of structured fields (RFC 9651), one member for each limit.
static void tell(struct policy_call *call, const struct told *told, struct str name,
                 void (*put_member)(struct text *text, const struct limit_use *use, uint64_t now_us))
{
    size_t room = 0;
    for (uint32_t i = 0; i < told->count; i++)
        room += told->uses[i]->face->policy.n + MEMBER_BYTES;
    struct text text = {.p = arena_alloc(call->arena, room)};
    for (uint32_t i = 0; i < told->count; i++) {
        if (text.n)
            put(&text, STR(", "));
        put_member(&text, told->uses[i], call->now_us);
    }
    headers_set(&call->response->headers, call->arena, name, (struct str){text.p, text.n});
}

static void tell_number(struct policy_call *call, struct str name, uint64_t value)
{
    headers_set(&call->response->headers, call->arena, name, arena_u64(call->arena, value));
}

// These have no names of limits: the one with the least left speaks.
static void tell_legacy(struct policy_call *call, const struct told *told)
{
    const struct limit_use *least = told->uses[0];
    for (uint32_t i = 1; i < told->count; i++)
        if (remaining(told->uses[i], call->now_us) < remaining(least, call->now_us))
            least = told->uses[i];
    tell_number(call, STR("X-RateLimit-Limit"), rule_tokens(&least->rule));
    tell_number(call, STR("X-RateLimit-Remaining"), remaining(least, call->now_us));
    tell_number(call, STR("X-RateLimit-Reset"), full_s(least, call->now_us));
}

static void tell_all(struct policy_call *call)
{
    struct told told;
    gather(call, &told);
    if (!told.count)
        return;
    tell(call, &told, STR("RateLimit-Policy"), put_policy);
    tell(call, &told, STR("RateLimit"), put_state);
    if (call->limits->legacy)
        tell_legacy(call, &told);
}

// ---- what a response costs ----

static bool is_whole_number(struct str text)
{
    size_t n = 0;
    while (n < text.n && text.p[n] >= '0' && text.p[n] <= '9')
        n++;
    return n && n == text.n;
}

// False: the response does not say, or not in a way that counts.
static bool said_cost(const struct policy_call *call, const struct limit *limit, uint64_t *cost)
{
    struct str name = limit->settings->cost.header;
    const struct header *header = name.n ? headers_find_name(&call->response->headers, name) : NULL;
    if (!header || !is_whole_number(header->value))
        return false;
    if (!str_to_u64(header->value, UINT32_MAX, cost))
        *cost = UINT32_MAX; // far beyond any burst
    return true;
}

static void settle(struct policy_call *call)
{
    const struct route_limit_stage *stage = call->settings;
    struct limited *limited = call->limited[stage->stage];
    uint64_t cost;
    for (uint32_t i = 0; limited && i < limited->count; i++) {
        struct limit_use *use = &limited->uses[i];
        if (use->wait_us || !said_cost(call, use->limit, &cost))
            continue;
        if (limited->is_shared)
            limit_settle(call->limiter, call->limits->table, use, cost, call->now_s, call->now_us);
        else
            limit_take_rest(call->limits->table, use, cost, call->now_us);
    }
    tell_all(call);
}

const struct policy policy_rate_limit = {.name = "rate_limit",
                                         .on_request = judge,
                                         .on_response = settle,
                                         .on_answer = tell_all,
                                         .on_forget = forget,
                                         .on_end = leave};
