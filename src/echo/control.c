// /_control/…: what tests and scripts see and change. Open on every listener as long as it lets anybody in,
// and on --control always.
#include "echo/echo.h"

static void control_health_end(struct client *c)
{
    c->echo->healthy = query_u64(c->request.query, STR("up"), c->echo->healthy, 1);
    struct json json;
    json_begin(c, &json);
    json_object(&json);
    json_field_bool(&json, "up", c->echo->healthy);
    json_object_end(&json);
    answer_json(c, 200);
}

static void stats_end(struct client *c)
{
    const struct counters *counters = &c->echo->counters;
    struct json json;
    json_begin(c, &json);
    json_object(&json);
    json_field_string(&json, "service", c->echo->name);
    json_field_bool(&json, "up", c->echo->healthy);
    json_field_u64(&json, "connections_open", c->echo->open);
    json_field_u64(&json, "connections", counters->connections);
    json_field_u64(&json, "requests", counters->requests);
    json_field_u64(&json, "bad_requests", counters->bad_requests);
    json_field_u64(&json, "misbehaved", counters->misbehaved);
    json_field_u64(&json, "health_checks", counters->health_checks);
    json_field_u64(&json, "body_bytes", counters->body_bytes);
    json_field_u64(&json, "upgrades", counters->upgrades);
    json_object_end(&json);
    answer_json(c, 200);
}

static void count_end(struct client *c)
{
    struct str key = STR("");
    query_get(c->request.query, STR("of"), &key);
    const struct key_count *count = map_get(&c->echo->keys, key);
    struct json json;
    json_begin(c, &json);
    json_object(&json);
    json_field_string(&json, "key", key);
    json_field_u64(&json, "requests", count ? count->requests : 0);
    json_field_u64(&json, "misbehaved", count ? count->misbehaved : 0);
    json_object_end(&json);
    answer_json(c, 200);
}

// ---- outages

enum { BURSTS_SHOWN = 10, BURSTS_MOST = 100000 };

static void outage_end_of_request(struct client *c)
{
    struct echo *echo = c->echo;
    struct str query = c->request.query, value;
    if (query_get(query, STR("misbehave"), &value)) {
        struct outage_settings settings;
        const char *why = outage_parse(query, &settings);
        if (why) {
            answer_text(c, 400, STR("text/plain"), str_of(why));
            return;
        }
        outage_begin(echo, &settings);
        if (c->conn.closed) // it refuses, and this was no control door
            return;
    }
    if (query_u64(query, STR("end"), 0, 1))
        outage_end(echo);
    struct json json;
    json_begin(c, &json);
    outage_describe(echo, &json, query_u64(query, STR("bursts"), BURSTS_SHOWN, BURSTS_MOST));
    answer_json(c, 200);
}

// ---- load

enum { SLOTS_SHOWN = 20 };

// Requests of the last full second.
static uint64_t per_second(struct echo *echo)
{
    uint64_t requests = 0;
    for (uint64_t back = 1; back <= 1000 / LOAD_SLOT_MS; back++)
        requests += load_slot(&echo->load, echo->loop.now_us, back).requests;
    return requests;
}

static void load_end_of_request(struct client *c)
{
    struct echo *echo = c->echo;
    uint64_t now_us = echo->loop.now_us;
    uint64_t shown = query_u64(c->request.query, STR("slots"), SLOTS_SHOWN, LOAD_SLOTS);
    struct json json;
    json_begin(c, &json);
    json_object(&json);
    json_field_u64(&json, "requests", echo->load.requests);
    json_field_u64(&json, "in_flight", echo->load.in_flight);
    json_field_u64(&json, "most_in_flight", echo->load.most_in_flight);
    json_field_u64(&json, "per_second", per_second(echo));
    json_field_u64(&json, "slot_ms", LOAD_SLOT_MS);
    json_field_u64(&json, "age_ms", now_us / 1000 % LOAD_SLOT_MS); // of the last slot
    json_key(&json, STR("slots"));
    json_array(&json);
    while (shown--) {
        struct load_slot slot = load_slot(&echo->load, now_us, shown);
        json_array(&json);
        json_u64(&json, slot.requests);
        json_u64(&json, slot.most_in_flight);
        json_u64(&json, slot.misbehaved);
        json_array_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    if (query_u64(c->request.query, STR("reset"), 0, 1))
        load_reset(&echo->load, now_us);
    answer_json(c, 200);
}

static void help_end(struct client *c)
{
    struct json json;
    json_begin(c, &json);
    json.pretty = true;
    json_object(&json);
    json_key(&json, STR("paths"));
    services_list(&json);
    json_key(&json, STR("misbehave"));
    misbehave_list(&json);
    json_object_end(&json);
    answer_json(c, 200);
}

const struct service control_services[] = {
    {SERVICE_PATH("/_control/health"), "?up=0|1: what /health says", .end = control_health_end},
    {SERVICE_PATH("/_control/stats"), "counters", .end = stats_end},
    {SERVICE_PATH("/_control/count"), "?of=KEY: how many requests had ?key=KEY", .end = count_end},
    {SERVICE_PATH("/_control/outage"),
     "?misbehave=NAME[=VALUE],… (share, mean_ms, every_ms, down_ms, seed, for_ms, ratio, path): an outage "
     "begins;"
     " ?end=1: it is over; ?bursts=10: what is to come",
     .end = outage_end_of_request},
    {SERVICE_PATH("/_control/load"),
     "requests in flight, most in flight (?reset=1: from now on), per second; ?slots=20: of 100 ms, each"
     " [requests, most in flight, misbehaved], the present one last",
     .end = load_end_of_request},
    {SERVICE_PATH("/_control/help"), "this", .end = help_end},
};
const size_t control_service_count = countof(control_services);
