// What the admin API shows: the snapshot in force, the endpoints, and what the workers say.
#include "admin/collect.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void api_config(struct serve_client *c)
{
    const struct gateway *gateway = host_of(c)->gateway;
    struct buf body = {0};
    config_dump(&gateway_object, &gateway->settings, true, &body);
    serve_reply(c, 200, STR("application/json"), buf_str(&body));
    buf_free(&body);
}

// The members of an object's configuration, under their names.
static void print_settings(struct json *json, const struct config_object *object, const void *settings,
                           const char *without, struct arena *arena)
{
    const struct config_node *node = config_encode(object, settings, arena);
    for (const struct config_node *field = node->first; field; field = field->next) {
        if (str_eq(field->key, str_of(without)))
            continue;
        json_key(json, field->key);
        config_print_json(field, json);
    }
}

// ---- routes ----

void admin_print_route(struct json *json, const struct route *route)
{
    struct arena arena;
    struct buf pattern = {0};
    arena_init(&arena, NULL);
    route_print(route, &pattern);
    json_object(json);
    json_field_string(json, "name", route->name);
    json_field_string(json, "pattern", buf_str(&pattern));
    json_key(json, STR("policies"));
    json_array(json);
    for (uint32_t i = 0; i < route->policy_count; i++)
        json_string(json, str_of(route->policies[i].policy->name));
    json_array_end(json);
    print_settings(json, &route_object, route->settings, "name", &arena);
    json_object_end(json);
    buf_free(&pattern);
    arena_reset(&arena);
}

void api_routes(struct serve_client *c)
{
    const struct gateway *gateway = host_of(c)->gateway;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_u64(&json, "generation", gateway->generation);
    json_key(&json, STR("routes"));
    json_array(&json);
    for (uint32_t i = 0; i < route_table_count(gateway->routes); i++)
        admin_print_route(&json, route_table_at(gateway->routes, i));
    json_array_end(&json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

// ---- upstreams ----

static void print_ejection(struct json *json, const struct ejector *ejector, uint64_t now_us)
{
    uint64_t until_us = atomic_load_explicit(&ejector->until_us, memory_order_relaxed);
    bool out = until_us > now_us;
    json_field_bool(json, "ejected", out);
    if (out) {
        json_field_u64(json, "ejected_for_ms", (until_us - now_us) / 1000);
        json_field_string(json, "ejected_by", ejection_reason_name(ejector->reason));
    }
    json_field_u64(json, "consecutive_failures", ejector->failures);
    json_field_u64(json, "ejections_in_force", ejector->times);
    json_field_u64(json, "ejections_refused", ejector->refused);
}

void print_endpoint(struct json *json, const struct upstream_target *target, int64_t active)
{
    const struct endpoint *endpoint = target->endpoint;
    char resolved[ADDR_TEXT_MAX];
    size_t n = addr_print(&endpoint->addr, resolved);
    uint64_t since_us = atomic_load_explicit(&endpoint->up_since_us, memory_order_relaxed);
    uint64_t now_us = clock_monotonic_us();
    bool up = atomic_load_explicit(&endpoint->up, memory_order_relaxed);
    json_object(json);
    json_field_string(json, "address", endpoint->name);
    json_field_string(json, "resolved", ((struct str){resolved, n}));
    json_field_u64(json, "weight", target->weight);
    json_field_bool(json, "up", up);
    if (up && since_us)
        json_field_u64(json, "up_ms", (now_us - since_us) / 1000);
    print_ejection(json, &endpoint->ejector, now_us);
    json_field_u64(json, "checks", atomic_load_explicit(&endpoint->checks, memory_order_relaxed));
    json_field_u64(json, "check_failures",
                   atomic_load_explicit(&endpoint->check_failures, memory_order_relaxed));
    json_field_string(json, "last_check", str_of(endpoint->last_check));
    if (active >= 0)
        json_field_u64(json, "active_requests", (uint64_t)active);
    json_object_end(json);
}

static void print_upstream(struct json *json, const struct upstream *upstream,
                           const struct collection *collection)
{
    struct arena arena;
    arena_init(&arena, NULL);
    json_object(json);
    json_field_string(json, "name", upstream->name);
    print_settings(json, &upstream_object, upstream->settings, "name", &arena);
    json_field_u64(json, "requests_limit", upstream_requests_limit(upstream));
    json_field_u64(json, "requests_waiting", upstream_requests_waiting(upstream));
    json_key(json, STR("endpoints"));
    json_array(json);
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        const struct upstream_target *target = &upstream->targets[i];
        print_endpoint(json, target, (int64_t)collect_active(collection, target->endpoint->index));
    }
    json_array_end(json);
    json_object_end(json);
    arena_reset(&arena);
}

static void on_upstreams(struct serve_client *c, struct collection *collection)
{
    const struct gateway *gateway = host_of(c)->gateway;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_u64(&json, "generation", gateway->generation);
    json_field_bool(&json, "complete", collect_complete(collection));
    json_key(&json, STR("upstreams"));
    json_array(&json);
    for (uint32_t i = 0; i < gateway->upstream_count; i++)
        print_upstream(&json, gateway->upstreams[i], collection);
    json_array_end(&json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void api_upstreams(struct serve_client *c)
{
    collect_start(c, COLLECT_LOAD, on_upstreams);
}

// ---- exchanges ----

static void on_exchanges(struct serve_client *c, struct collection *collection)
{
    uint64_t live = 0, printed = 0;
    struct buf list = {0};
    for (unsigned i = 0; i < collection->count; i++) {
        const struct collect_part *part = collect_part(collection, i);
        if (!part)
            continue;
        live += part->live;
        if (printed && part->printed)
            buf_append(&list, STR(","));
        printed += part->printed;
        buf_append(&list, buf_str(&part->exchanges));
    }
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_u64(&json, "live", live);
    json_field_bool(&json, "complete", collect_complete(collection) && printed == live);
    json_key(&json, STR("exchanges"));
    json_array(&json);
    if (printed)
        json_raw(&json, buf_str(&list));
    json_array_end(&json);
    json_object_end(&json);
    buf_free(&list);
    serve_reply_json(c, 200, &body);
}

void api_exchanges(struct serve_client *c)
{
    collect_start(c, COLLECT_LIVE, on_exchanges);
}

// ---- info ----

static void print_worker(struct json *json, const struct collect_part *part, unsigned slot)
{
    json_object(json);
    json_field_u64(json, "worker", slot);
    json_field_bool(json, "answers", part != NULL);
    if (part) {
        json_field_u64(json, "client_connections", part->connections);
        json_field_u64(json, "exchanges", part->live);
        json_field_u64(json, "lent_connections", part->lent);
        json_field_u64(json, "turns", part->turns);
        json_field_u64(json, "longest_turn_us", part->longest_turn_us);
        json_field_bool(json, "draining", part->draining);
    }
    json_object_end(json);
}

static void print_workers(struct json *json, const struct collection *collection,
                          const struct admin_host *host)
{
    json_key(json, STR("workers"));
    json_array(json);
    for (unsigned i = 0; i < collection->count; i++)
        print_worker(json, collect_part(collection, i), i);
    json_array_end(json);
    json_field_u64(json, "worker_restarts", host->process.worker_restarts);
}

static void print_time(struct json *json, const char *key, int64_t seconds)
{
    char text[32] = "";
    struct tm utc;
    time_t time = seconds;
    if (gmtime_r(&time, &utc))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_key(json, str_of(key));
    json_string(json, str_of(text));
}

static void print_certificates(struct json *json, const struct gateway_files *files)
{
    json_key(json, STR("certificates"));
    json_array(json);
    for (uint32_t i = 0; i < files->certificate_count; i++) {
        const struct gateway_certificate *certificate = &files->certificates[i];
        const struct tls_certificate_info *info = &certificate->info;
        json_object(json);
        json_field_string(json, "name", info->name);
        if (certificate->listener.n)
            json_field_string(json, "listener", certificate->listener);
        else
            json_field_string(json, "upstream", certificate->upstream);
        json_field_string(json, "cert", certificate->files.cert);
        json_field_string(json, "algorithm", str_of(info->algorithm));
        print_time(json, "not_before", info->not_before);
        print_time(json, "not_after", info->not_after);
        if (info->ocsp_until)
            print_time(json, "ocsp_until", info->ocsp_until);
        json_object_end(json);
    }
    json_array_end(json);
}

static void print_overload(struct json *json)
{
    static const char *const names[] = {
#define X(id, name) name,
        OVERLOAD_RESOURCE_NAMES(X)
#undef X
    };
    double pressure[OVERLOAD_RESOURCES];
    overload_read(pressure);
    json_key(json, STR("overload"));
    json_object(json);
    for (unsigned i = 0; i < OVERLOAD_RESOURCES; i++) {
        char text[16];
        snprintf(text, sizeof text, "%.3f", pressure[i]);
        json_key(json, str_of(names[i]));
        json_raw(json, str_of(text));
    }
    json_object_end(json);
}

static void on_info(struct serve_client *c, struct collection *collection)
{
    const struct admin_host *host = host_of(c);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "version", STR(SALLYPORT_VERSION));
    json_field_u64(&json, "pid", (uint64_t)getpid());
    json_field_string(&json, "state", admin_state_name(host->state));
    json_field_u64(&json, "uptime_ms", (clock_monotonic_us() - host->started_us) / 1000);
    json_field_string(&json, "file", host->gateway->file);
    json_field_u64(&json, "generation", host->gateway->generation);
    json_key(&json, STR("reloads"));
    json_object(&json);
    json_field_u64(&json, "ok", host->process.reloads_ok);
    json_field_u64(&json, "failed", host->process.reloads_failed);
    json_field_bool(&json, "last_ok", host->process.last_reload_ok);
    json_object_end(&json);
    json_key(&json, STR("listeners"));
    json_object(&json);
    json_field_u64(&json, "configured", host->gateway->listener_count);
    json_field_u64(&json, "accepting", host->listening);
    json_object_end(&json);
    print_certificates(&json, &host->gateway->files);
    print_overload(&json);
    print_workers(&json, collection, host);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void api_info(struct serve_client *c)
{
    collect_start(c, COLLECT_LOAD, on_info);
}
