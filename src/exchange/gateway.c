#include "exchange/gateway.h"

#include <pthread.h>
#include <stdlib.h>

static atomic_uint_fast64_t generations;
static struct quota_table connection_quotas; // control thread

static void report_failure(struct config_report *report, struct str file, unsigned line, unsigned column,
                           struct str path, const struct err *err)
{
    struct str what =
        err->where[0] ? arena_printf(report->arena, "%s: %s", err->where, err->what) : str_of(err->what);
    config_report_add(report, &(struct config_error){
                                  .file = file, .line = line, .column = column, .path = path, .what = what});
}

static void compile_listeners(struct gateway *gateway)
{
    const struct listener_settings *settings = gateway->settings.listeners.v;
    gateway->listener_count = gateway->settings.listeners.count;
    gateway->listeners = arena_array(&gateway->arena, struct gateway_listener, gateway->listener_count);
    for (uint32_t i = 0; i < gateway->listener_count; i++) {
        struct gateway_listener *listener = &gateway->listeners[i];
        listener->settings = &settings[i];
        listener->name = settings[i].name;
        listener->metric_id = metric_name_id(NAME_LISTENER, settings[i].name);
        check(addr_parse(settings[i].address, &listener->addr)); // gateway_settings_load has seen it
        listener->connections = quota_at(&connection_quotas, listener->metric_id);
        listener->port = ip_of(&listener->addr).port;
        listener->port_text = arena_printf(&gateway->arena, "%u", listener->port);
    }
}

static bool compile_upstreams(struct gateway *gateway, struct config_report *report)
{
    const struct upstream_settings *settings = gateway->settings.upstreams.v;
    uint32_t count = gateway->settings.upstreams.count;
    gateway->upstreams = arena_array(&gateway->arena, struct upstream *, count);
    for (uint32_t i = 0; i < count; i++) {
        struct err err = {0};
        struct upstream *upstream = arena_new(&gateway->arena, struct upstream);
        gateway->upstreams[gateway->upstream_count++] = upstream;
        if (upstream_compile(upstream, &settings[i], gateway->generation, &gateway->arena, &err))
            report_failure(report, gateway->file, settings[i].line, settings[i].column,
                           arena_printf(report->arena, "upstreams.%.*s", STR_ARG(settings[i].name)), &err);
        map_put(&gateway->upstream_names, upstream->name, upstream);
    }
    return report->count == 0;
}

struct name_lookup {
    struct route_names names;
    const struct gateway *gateway;
};

static struct upstream *upstream_of(struct route_names *names, struct str name)
{
    return map_get(&container_of(names, struct name_lookup, names)->gateway->upstream_names, name);
}

static bool compile_routes(struct gateway *gateway, struct config_report *report)
{
    struct err err = {0};
    struct name_lookup lookup = {{upstream_of}, gateway};
    gateway->routes = route_table_new(&gateway->settings.routes, &gateway->arena, &lookup.names, &err);
    if (!gateway->routes)
        report_failure(report, gateway->file, 0, 0, STR("routes"), &err);
    return gateway->routes != NULL;
}

static bool compile_telemetry(struct gateway *gateway, struct config_report *report)
{
    const struct telemetry_settings *telemetry = &gateway->settings.telemetry;
    static const enum access_format_kind kinds[] = {
        [LOG_FORMAT_JSON] = ACCESS_JSON,
        [LOG_FORMAT_COMBINED] = ACCESS_COMBINED,
        [LOG_FORMAT_TEMPLATE] = ACCESS_TEMPLATE,
    };
    const char *why = NULL;
    gateway->log_format = access_format_compile(kinds[telemetry->access_log.format],
                                                telemetry->access_log.template, &gateway->arena, &why);
    if (!gateway->log_format) {
        struct err err;
        err_set(&err, ERR_INVALID, "", "%s", why);
        report_failure(report, gateway->file, 0, 0, STR("telemetry.access_log.format"), &err);
    }
    gateway->request_id_header = header_id_of(telemetry->headers.request_id);
    return gateway->log_format != NULL;
}

static void gateway_free(struct gateway *gateway)
{
    for (uint32_t i = 0; i < gateway->upstream_count; i++)
        upstream_fini(gateway->upstreams[i]);
    if (gateway->routes)
        route_table_fini(gateway->routes);
    map_fini(&gateway->upstream_names);
    arena_reset(&gateway->arena);
    free(gateway);
}

struct gateway *gateway_new(struct str file, struct str text, struct config_report *report)
{
    struct gateway *gateway = calloc(1, sizeof *gateway);
    check(gateway);
    arena_init(&gateway->arena, NULL);
    atomic_store(&gateway->references, 1);
    gateway->generation = atomic_fetch_add(&generations, 1) + 1;
    gateway->file = arena_copy(&gateway->arena, file);
    if (!gateway_settings_load(gateway->file, text, &gateway->arena, &gateway->settings, report))
        goto fail;
    compile_listeners(gateway);
    if (compile_upstreams(gateway, report) && compile_routes(gateway, report) &&
        compile_telemetry(gateway, report))
        return gateway;
fail:
    gateway_free(gateway);
    return NULL;
}

struct gateway *gateway_ref(struct gateway *gateway)
{
    atomic_fetch_add_explicit(&gateway->references, 1, memory_order_relaxed);
    return gateway;
}

// ---- the last reference ----

static pthread_mutex_t reap_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gateway *reap_list;

void gateway_unref(struct gateway *gateway)
{
    if (!gateway || atomic_fetch_sub_explicit(&gateway->references, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&reap_lock);
    gateway->next_dead = reap_list;
    reap_list = gateway;
    pthread_mutex_unlock(&reap_lock);
}

void gateway_reap(void)
{
    pthread_mutex_lock(&reap_lock);
    struct gateway *dead = reap_list;
    reap_list = NULL;
    pthread_mutex_unlock(&reap_lock);
    while (dead) {
        struct gateway *next = dead->next_dead;
        gateway_free(dead);
        dead = next;
    }
}

const struct gateway_listener *gateway_listener_named(const struct gateway *gateway, struct str name)
{
    for (uint32_t i = 0; i < gateway->listener_count; i++)
        if (str_eq(gateway->listeners[i].name, name))
            return &gateway->listeners[i];
    return NULL;
}

struct str gateway_tls_location(const struct gateway_listener *listener, const struct request_head *request,
                                struct arena *arena)
{
    enum { HTTPS_PORT = 443 };
    bool is_usual = listener->port == HTTPS_PORT || listener->port == 0;
    struct str port = is_usual ? STR_NULL : listener->port_text;
    struct str path = str_eq(request->path, STR("*")) ? STR_NULL : request->path; // OPTIONS *
    return arena_printf(arena, "https://%.*s%s%.*s%.*s%s%.*s", STR_ARG(request->host), is_usual ? "" : ":",
                        STR_ARG(port), STR_ARG(path), request->has_query ? "?" : "", STR_ARG(request->query));
}
