#include "admin/collect.h"
#include "auth/jwks.h"
#include "base/clock.h"
#include "token/sign.h"

#include <stdlib.h>

struct str admin_state_name(enum admin_state state)
{
    static const struct str names[] = {
        [ADMIN_STARTING] = {"starting", 8}, [ADMIN_READY] = {"ready", 5}, [ADMIN_DRAINING] = {"draining", 8}};
    return names[state];
}

void status_livez(struct serve_client *c)
{
    serve_reply(c, 200, STR("application/json"), STR("{\"status\":\"alive\"}\n"));
}

void status_readyz(struct serve_client *c)
{
    enum admin_state state = host_of(c)->state;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "status", state == ADMIN_READY ? STR("ready") : STR("not_ready"));
    if (state != ADMIN_READY)
        json_field_string(&json, "reason", admin_state_name(state));
    struct str awaited = jwks_awaited(&host_of(c)->gateway->auth);
    if (state == ADMIN_STARTING && awaited.n)
        json_field_string(&json, "awaits_keys_of", awaited);
    json_object_end(&json);
    serve_reply_json(c, state == ADMIN_READY ? 200 : 503, &body);
}

static uint32_t count_up(const struct upstream *upstream)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < upstream->target_count; i++)
        up += atomic_load_explicit(&upstream->targets[i].endpoint->up, memory_order_relaxed);
    return up;
}

static uint32_t count_ejected(const struct upstream *upstream)
{
    uint32_t ejected = 0;
    uint64_t now_us = clock_monotonic_us();
    for (uint32_t i = 0; i < upstream->target_count; i++)
        ejected += ejector_is_out(&upstream->targets[i].endpoint->ejector, now_us);
    return ejected;
}

// How bad it is: an upstream with no endpoint up, or a configuration file that is not what runs.
static struct str overall(const struct admin_host *host)
{
    if (host->state != ADMIN_READY)
        return STR("not_ready");
    for (uint32_t i = 0; i < host->gateway->upstream_count; i++)
        if (count_up(host->gateway->upstreams[i]) == 0)
            return STR("degraded");
    return host->process.last_reload_ok ? STR("ok") : STR("degraded");
}

static void print_upstreams(const struct gateway *gateway, struct json *json)
{
    json_key(json, STR("upstreams"));
    json_array(json);
    for (uint32_t i = 0; i < gateway->upstream_count; i++) {
        const struct upstream *upstream = gateway->upstreams[i];
        json_object(json);
        json_field_string(json, "name", upstream->name);
        json_field_u64(json, "endpoints", upstream->target_count);
        json_field_u64(json, "up", count_up(upstream));
        json_field_u64(json, "ejected", count_ejected(upstream));
        json_object_end(json);
    }
    json_array_end(json);
}

void status_healthz(struct serve_client *c)
{
    const struct admin_host *host = host_of(c);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "status", overall(host));
    json_field_string(&json, "state", admin_state_name(host->state));
    json_key(&json, STR("listeners"));
    json_object(&json);
    json_field_u64(&json, "configured", host->gateway->listener_count);
    json_field_u64(&json, "accepting", host->listening);
    json_object_end(&json);
    print_upstreams(host->gateway, &json);
    json_key(&json, STR("config"));
    json_object(&json);
    json_field_u64(&json, "generation", host->gateway->generation);
    json_field_bool(&json, "last_reload_ok", host->process.last_reload_ok);
    json_object_end(&json);
    json_object_end(&json);
    serve_reply_json(c, host->state == ADMIN_READY ? 200 : 503, &body);
}

// ---- the key of identity_token ----

static void reply_key(struct serve_client *c, const struct token_signer *signer)
{
    struct buf body = {0};
    struct json json;
    struct serve_field age = {STR("Cache-Control"), STR("public, max-age=300")};
    json_init(&json, &body, false);
    json_object(&json);
    json_key(&json, STR("keys"));
    json_array(&json);
    token_signer_jwk(signer, &json);
    json_array_end(&json);
    json_object_end(&json);
    serve_reply_with(c, &(struct serve_answer){.status = 200,
                                               .type = STR("application/jwk-set+json"),
                                               .body = buf_str(&body),
                                               .fields = &age,
                                               .field_count = 1});
    buf_free(&body);
}

void status_jwks(struct serve_client *c)
{
    const struct auth *auth = &host_of(c)->gateway->auth;
    struct err err;
    if (!auth->identity_token) {
        serve_reply_problem(
            c, &(struct serve_problem){404, STR("no_route"), STR("identity_token is not configured")});
        return;
    }
    struct token_signer *signer = token_signer_new(auth->identity_key, tls_library(TLS_SLOT_CONTROL), &err);
    if (signer)
        reply_key(c, signer);
    else
        serve_reply_problem(
            c, &(struct serve_problem){500, STR("internal"), STR("the key of identity_token is not usable")});
    token_signer_free(signer);
}

// ---- metrics ----

static size_t list_endpoints(const struct gateway *gateway, struct metrics_endpoint **endpoints)
{
    size_t count = 0, capacity = 0;
    uint64_t now_us = clock_monotonic_us();
    for (uint32_t i = 0; i < gateway->upstream_count; i++)
        capacity += gateway->upstreams[i]->target_count;
    *endpoints = calloc(capacity + 1, sizeof **endpoints);
    check(*endpoints);
    for (uint32_t i = 0; i < gateway->upstream_count; i++) {
        const struct upstream *upstream = gateway->upstreams[i];
        for (uint32_t j = 0; j < upstream->target_count; j++) {
            const struct endpoint *endpoint = upstream->targets[j].endpoint;
            (*endpoints)[count++] = (struct metrics_endpoint){
                .endpoint = endpoint->metric_id,
                .up = atomic_load_explicit(&endpoint->up, memory_order_relaxed),
                .ejected = ejector_is_out(&endpoint->ejector, now_us),
            };
        }
    }
    return count;
}

static size_t list_certificates(const struct gateway *gateway, struct metrics_certificate **certificates)
{
    const struct gateway_files *files = &gateway->files;
    *certificates = calloc(files->certificate_count + 1, sizeof **certificates);
    check(*certificates);
    for (uint32_t i = 0; i < files->certificate_count; i++) {
        const struct tls_certificate_info *info = &files->certificates[i].info;
        (*certificates)[i] = (struct metrics_certificate){info->name, info->not_after};
    }
    return files->certificate_count;
}

// The gauges, and the counters, which outlive the endpoints that moved them.
static void list_breakers(const struct gateway *gateway, struct metrics_process *process, struct arena *arena)
{
    uint64_t now_us = clock_monotonic_us();
    size_t capacity = 0, count = 0, change_count = 0;
    for (uint32_t i = 0; i < gateway->upstream_count; i++)
        capacity += gateway->upstreams[i]->target_count;
    struct metrics_breaker *breakers = arena_array(arena, struct metrics_breaker, capacity + 1);
    struct metrics_breaker_changes *changes =
        arena_array(arena, struct metrics_breaker_changes, gateway->upstream_count + 1);
    for (uint32_t i = 0; i < gateway->upstream_count; i++) {
        const struct upstream *upstream = gateway->upstreams[i];
        const struct breaker_rules *rules = &upstream->settings->circuit_breaker.rules;
        struct upstream_breaker at;
        for (uint32_t k = 0; upstream_breaker_at(upstream, k, &at); k++)
            breakers[count++] = (struct metrics_breaker){
                upstream->metric_id, at.endpoint ? at.endpoint->metric_id : UINT32_MAX,
                shared_breaker_look(at.breaker, rules, now_us).state};
        if (!upstream->breaker_tally)
            continue;
        struct metrics_breaker_changes *of_this = &changes[change_count++];
        of_this->upstream = upstream->metric_id;
        for (unsigned state = 0; state < BREAKER_STATES; state++)
            of_this->to[state] =
                atomic_load_explicit(&upstream->breaker_tally->entered[state], memory_order_relaxed);
    }
    process->breakers = breakers;
    process->breaker_count = count;
    process->breaker_changes = changes;
    process->breaker_change_count = change_count;
}

static void list_requests(const struct gateway *gateway, struct metrics_process *process, struct arena *arena)
{
    uint32_t count = gateway->upstream_count;
    struct metrics_requests *requests = arena_array(arena, struct metrics_requests, count + 1);
    for (uint32_t i = 0; i < count; i++) {
        const struct upstream *upstream = gateway->upstreams[i];
        requests[i] = (struct metrics_requests){upstream->metric_id, upstream_requests_limit(upstream),
                                                upstream_requests_waiting(upstream)};
    }
    process->requests = requests;
    process->requests_count = count;
}

static void on_metrics(struct serve_client *c, struct collection *collection)
{
    const struct admin_host *host = host_of(c);
    bool openmetrics = serve_accepts_openmetrics(&c->request.headers);
    struct metrics *total = metrics_new();
    struct metrics_endpoint *endpoints;
    struct metrics_certificate *certificates;
    struct metrics_process process = host->process;
    struct buf body = {0};
    metrics_reserve(total);
    if (host->own)
        metrics_merge(total, host->own);
    for (unsigned i = 0; i < collection->count; i++) {
        const struct collect_part *part = collect_part(collection, i);
        if (part)
            metrics_merge(total, part->metrics);
    }
    overload_read(process.overload);
    size_t count = list_endpoints(host->gateway, &endpoints);
    process.certificate_count = list_certificates(host->gateway, &certificates);
    process.certificates = certificates;
    list_breakers(host->gateway, &process, &c->arena);
    list_requests(host->gateway, &process, &c->arena);
    metrics_print(total, &process, endpoints, count, openmetrics, &body);
    serve_reply(c, 200, serve_metrics_type(openmetrics), buf_str(&body));
    buf_free(&body);
    free(endpoints);
    free(certificates);
    metrics_free(total);
}

// Sums of counters must not go back because one worker is late: without all of them there is no answer.
static void on_metrics_collected(struct serve_client *c, struct collection *collection)
{
    if (collect_complete(collection)) {
        on_metrics(c, collection);
        return;
    }
    serve_reply_problem(
        c, &(struct serve_problem){503, STR("overloaded"), STR("a worker did not answer in time")});
}

void status_metrics(struct serve_client *c)
{
    collect_start(c, COLLECT_METRICS, on_metrics_collected);
}
