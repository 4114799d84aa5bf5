// The circuit breakers as they are, and a hand on them.
#include "admin/room.h"
#include "base/clock.h"
#include "base/json_parse.h"
#include "http/uri.h"

static struct str force_name(enum breaker_force force)
{
    static const struct str names[] = {STR("automatic"), STR("open"), STR("closed")};
    return names[force];
}

static void print_breaker(struct json *json, const struct upstream *upstream,
                          const struct upstream_breaker *at)
{
    const struct breaker_rules *rules = &upstream->settings->circuit_breaker.rules;
    uint64_t now_us = clock_monotonic_us();
    struct breaker now = shared_breaker_look(at->breaker, rules, now_us);
    struct breaker_slice sum = breaker_sum(&now, now_us);
    json_object(json);
    json_field_string(json, "upstream", upstream->name);
    if (at->endpoint)
        json_field_string(json, "endpoint", at->endpoint->name);
    json_field_string(json, "state", str_of(breaker_state_name(now.state)));
    json_field_string(json, "forced", force_name(now.force));
    json_field_string(json, "reason", str_of(breaker_reason_name(now.reason)));
    if (now.since_us)
        json_field_u64(json, "since_ms", clock_elapsed_us(now.since_us, now_us) / 1000);
    if (now.state == BREAKER_OPEN && now.force == BREAKER_AUTOMATIC)
        json_field_u64(json, "half_open_in_ms", breaker_wait_us(&now, now_us) / 1000);
    json_field_u64(json, "openings", now.entered[BREAKER_OPEN]);
    json_field_u64(json, "probes", now.probes);
    json_key(json, STR("window"));
    json_object(json);
    json_field_u64(json, "requests", sum.calls);
    json_field_u64(json, "failed", sum.failed);
    json_field_u64(json, "slow", sum.slow);
    json_object_end(json);
    json_object_end(json);
}

// ---- which ----

struct breaker_choice {
    const struct upstream *upstream;
    struct str endpoint; // n == 0: all there are
};

static bool is_chosen(const struct breaker_choice *choice, const struct upstream_breaker *at)
{
    return !choice->endpoint.n || (at->endpoint && str_eq(at->endpoint->name, choice->endpoint));
}

static bool refuse(struct serve_client *c, unsigned status, const char *why)
{
    struct str code = status == 404 ? STR("not_found") : STR("bad_request");
    serve_reply_problem(c, &(struct serve_problem){.status = status, .code = code, .detail = str_of(why)});
    return false;
}

const struct upstream *upstream_named(const struct gateway *gateway, struct str name)
{
    for (uint32_t i = 0; i < gateway->upstream_count; i++)
        if (str_eq(gateway->upstreams[i]->name, name))
            return gateway->upstreams[i];
    return NULL;
}

static bool any_chosen(const struct breaker_choice *choice)
{
    struct upstream_breaker at;
    for (uint32_t i = 0; upstream_breaker_at(choice->upstream, i, &at); i++)
        if (is_chosen(choice, &at))
            return true;
    return false;
}

// /UPSTREAM, with ?endpoint=ADDRESS for one of its endpoints. False: it has been answered.
static bool read_choice(struct serve_client *c, struct breaker_choice *choice)
{
    struct str query = c->request.query, word = STR("endpoint=");
    struct str name = str_skip(c->request.path, c->row->path.n);
    *choice = (struct breaker_choice){.upstream = upstream_named(host_of(c)->gateway, name)};
    if (!choice->upstream)
        return refuse(c, 404, "no upstream has this name");
    if (query.n && !str_starts(query, word))
        return refuse(c, 400, "expected ?endpoint=ADDRESS, or nothing");
    if (query.n &&
        (!uri_form_decode(str_skip(query, word.n), &c->arena, &choice->endpoint) || !choice->endpoint.n))
        return refuse(c, 400, "the endpoint is not percent-encoded, or is empty");
    if (!any_chosen(choice))
        return refuse(c, 404,
                      "there is no such breaker: see circuit_breaker.enabled and .scope of the upstream");
    return true;
}

// ---- what is told ----

static void print_chosen(struct json *json, const struct breaker_choice *choice)
{
    struct upstream_breaker at;
    for (uint32_t i = 0; upstream_breaker_at(choice->upstream, i, &at); i++)
        if (is_chosen(choice, &at))
            print_breaker(json, choice->upstream, &at);
}

static void reply_breakers(struct serve_client *c, const struct breaker_choice *choices, uint32_t count)
{
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_key(&json, STR("breakers"));
    json_array(&json);
    for (uint32_t i = 0; i < count; i++)
        print_chosen(&json, &choices[i]);
    json_array_end(&json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void api_breakers(struct serve_client *c)
{
    const struct gateway *gateway = host_of(c)->gateway;
    struct breaker_choice *all = arena_array(&c->arena, struct breaker_choice, gateway->upstream_count + 1);
    for (uint32_t i = 0; i < gateway->upstream_count; i++)
        all[i] = (struct breaker_choice){.upstream = gateway->upstreams[i]};
    reply_breakers(c, all, gateway->upstream_count);
}

void api_breaker(struct serve_client *c)
{
    struct breaker_choice choice;
    if (read_choice(c, &choice))
        reply_breakers(c, &choice, 1);
}

// ---- by hand ----

static void force(struct serve_client *c, const struct breaker_choice *choice, enum breaker_force how)
{
    struct upstream_breaker at;
    for (uint32_t i = 0; upstream_breaker_at(choice->upstream, i, &at); i++)
        if (is_chosen(choice, &at))
            shared_breaker_set_force(at.breaker, how, clock_monotonic_us());
    reply_breakers(c, choice, 1);
}

const char *breaker_force_read(struct str body, struct arena *arena, enum breaker_force *how)
{
    const char *why = NULL;
    const struct json_value *object = json_parse(body, arena, &why);
    const struct json_value *word = object ? json_get(object, STR("force")) : NULL;
    struct str text = json_is_string(word) ? word->text : STR_NULL;
    if (str_eq(text, STR("open")))
        *how = BREAKER_FORCED_OPEN;
    else if (str_eq(text, STR("closed")))
        *how = BREAKER_FORCED_CLOSED;
    else
        return why ? why : "expected {\"force\": \"open\"} or {\"force\": \"closed\"}";
    return NULL;
}

void api_breaker_force(struct serve_client *c)
{
    struct breaker_choice choice;
    enum breaker_force how = BREAKER_AUTOMATIC;
    if (!read_choice(c, &choice))
        return;
    const char *why = breaker_force_read(serve_body(c), &c->arena, &how);
    if (why)
        refuse(c, 400, why);
    else
        force(c, &choice, how);
}

void api_breaker_let_go(struct serve_client *c)
{
    struct breaker_choice choice;
    if (read_choice(c, &choice))
        force(c, &choice, BREAKER_AUTOMATIC);
}
