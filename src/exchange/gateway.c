#include "exchange/gateway.h"

#include "base/log.h"
#include "discovery/lookup_redis.h"

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
        listener->port_text = arena_u64(&gateway->arena, listener->port);
    }
    for (uint32_t i = 0; i < gateway->listener_count; i++)
        if (settings[i].redirect_to.n)
            gateway->listeners[i].redirect = gateway_listener_named(gateway, settings[i].redirect_to);
}

static unsigned count_workers(const struct gateway *gateway, const struct gateway_use *use)
{
    int64_t wanted = gateway->settings.workers;
    if (!use)
        return 0;
    return use->workers ? use->workers : wanted > 0 ? (unsigned)wanted : use->auto_workers;
}

static struct tls_server *new_server(const struct gateway_listener *listener, unsigned worker,
                                     const struct tls_certificate_files *files, bool allow_expired,
                                     struct err *err)
{
    const struct listener_settings *settings = listener->settings;
    struct tls_server_options options = {
        .certificates = files,
        .certificate_count = settings->tls.certificates.count,
        .client_ca = settings->tls.client_ca,
        .client_auth = (enum tls_client_auth)settings->tls.client_auth,
        .min_version = (enum tls_version)settings->tls.min_version,
        .strict_sni = settings->tls.strict_sni,
        .alpn = settings->protocols,
        .name = settings->name,
        .allow_expired = allow_expired,
    };
    return tls_server_new(worker + 1, &options, err); // the first slot is the control thread's
}

// Every file has been checked; what fails now was changed meanwhile, or memory is out.
static void compile_listener_tls(struct gateway *gateway, struct gateway_listener *listener,
                                 bool allow_expired, struct config_report *report)
{
    const struct listener_tls_settings *tls = &listener->settings->tls;
    const struct listener_certificate *certificates = tls->certificates.v;
    struct tls_certificate_files *files =
        arena_array(&gateway->arena, struct tls_certificate_files, tls->certificates.count);
    for (uint32_t i = 0; i < tls->certificates.count; i++)
        files[i] = certificates[i].files;
    listener->tls = arena_array(&gateway->arena, struct tls_server *, gateway->workers);
    for (unsigned worker = 0; worker < gateway->workers; worker++) {
        struct err err = {0};
        listener->tls[worker] = new_server(listener, worker, files, allow_expired, &err);
        if (listener->tls[worker])
            continue;
        report_failure(
            report, gateway->file, tls->line, tls->column,
            arena_printf(report->arena, "listeners[%u].tls", (unsigned)(listener - gateway->listeners)),
            &err);
        return;
    }
}

static bool compile_tls(struct gateway *gateway, const struct gateway_use *use, struct config_report *report)
{
    for (uint32_t i = 0; i < gateway->listener_count; i++)
        if (gateway->workers && gateway->listeners[i].settings->has_tls)
            compile_listener_tls(gateway, &gateway->listeners[i], use->accepted, report);
    return report->count == 0;
}

static bool compile_upstreams(struct gateway *gateway, struct config_report *report)
{
    const struct upstream_settings *settings = gateway->settings.upstreams.v;
    uint32_t count = gateway->settings.upstreams.count;
    gateway->upstreams =
        arena_array(&gateway->arena, struct upstream *, count + gateway->settings.auth.count);
    for (uint32_t i = 0; i < count; i++) {
        struct err err = {0};
        struct upstream *upstream = arena_new(&gateway->arena, struct upstream);
        gateway->upstreams[gateway->own_upstream_count++] = upstream;
        if (upstream_compile(upstream, &settings[i], gateway->generation,
                             gateway->workers ? gateway->workers + 1 : 0, &gateway->arena, &err))
            report_failure(report, gateway->file, settings[i].line, settings[i].column,
                           arena_printf(report->arena, "upstreams.%.*s", STR_ARG(settings[i].name)), &err);
        map_put(&gateway->upstream_names, upstream->name, upstream);
        gateway->keeps_copies |= upstream->stale_us > 0;
    }
    gateway->upstream_count = gateway->own_upstream_count;
    for (uint32_t i = 0; i < count; i++) // gateway_settings_load has seen that there is one
        gateway->upstreams[i]->fallback =
            map_get(&gateway->upstream_names, settings[i].circuit_breaker.fallback.upstream);
    return report->count == 0;
}

static bool keeps_replays_in_redis(const struct gateway_settings *settings)
{
    const struct route_settings *routes = settings->routes.v;
    for (uint32_t i = 0; settings->has_redis && i < settings->routes.count; i++)
        if (routes[i].has_idempotency && routes[i].idempotency.store != REPLAY_LOCAL)
            return true;
    return false;
}

static void compile_stores(struct gateway *gateway)
{
    const struct gateway_settings *settings = &gateway->settings;
    limits_compile(&gateway->limits, &settings->rate_limits, settings->has_redis ? &settings->redis : NULL,
                   limit_table_shared(), &gateway->arena);
    gateway->replays_in_redis = keeps_replays_in_redis(settings);
    gateway->limits.legacy = gateway->settings.telemetry.headers.rate_limit_legacy;
}

static void hold_gateway(void *holder)
{
    gateway_ref(holder);
}

static void drop_gateway(void *holder)
{
    gateway_unref(holder);
}

static bool compile_auth(struct gateway *gateway, struct config_report *report)
{
    const struct gateway_settings *settings = &gateway->settings;
    const struct auth_sources sources = {
        .providers = &settings->auth,
        .consumers = &settings->consumers,
        .consumers_file = settings->consumers_file,
        .identity_headers = &settings->identity_headers,
        .identity_token = settings->has_identity_token ? &settings->identity_token : NULL,
        .claims = gateway->limits.claims,
        .generation = gateway->generation,
        .tls_slots = gateway->workers ? gateway->workers + 1 : 0,
        .read_file = gateway_files_content,
        .read_context = &gateway->files,
    };
    struct auth_mistake mistake = {0};
    struct auth *auth = &gateway->auth;
    auth->holder = gateway;
    auth->hold = hold_gateway;
    auth->drop = drop_gateway;
    if (!auth_compile(auth, &sources, &gateway->arena, &mistake)) {
        report_failure(report, gateway->file, mistake.line, mistake.column, mistake.path, &mistake.err);
        return false;
    }
    gateway->upstream_count +=
        auth_upstreams(auth, gateway->upstreams + gateway->upstream_count, settings->auth.count);
    return true;
}

static bool look_up_redis(struct gateway *gateway, struct config_report *report)
{
    const struct redis_settings *redis = &gateway->settings.redis;
    struct err err = {0};
    if (!gateway->settings.has_redis)
        return true;
    gateway->redis_addr_count = lookup_redis(redis, gateway->redis_addrs, &err);
    if (!gateway->redis_addr_count)
        report_failure(report, gateway->file, redis->line, redis->column,
                       redis->mode == REDIS_STANDALONE ? STR("redis.url") : STR("redis.nodes"), &err);
    gateway->limits.redis_addrs = gateway->redis_addrs;
    gateway->limits.redis_addr_count = gateway->redis_addr_count;
    return gateway->redis_addr_count;
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
    for (uint32_t i = 0; i < gateway->listener_count; i++)
        for (unsigned worker = 0; gateway->listeners[i].tls && worker < gateway->workers; worker++)
            tls_server_unref(gateway->listeners[i].tls[worker]);
    for (uint32_t i = 0; i < gateway->own_upstream_count; i++)
        upstream_fini(gateway->upstreams[i]);
    auth_fini(&gateway->auth);
    if (gateway->routes)
        route_table_fini(gateway->routes);
    map_fini(&gateway->upstream_names);
    gateway_files_fini(&gateway->files);
    arena_reset(&gateway->arena);
    free(gateway);
}

struct gateway *gateway_new(struct str file, struct str text, const struct gateway_use *use,
                            struct config_report *report)
{
    struct gateway *gateway = calloc(1, sizeof *gateway);
    check(gateway);
    arena_init(&gateway->arena, NULL);
    atomic_store(&gateway->references, 1);
    gateway->generation = atomic_fetch_add(&generations, 1) + 1;
    gateway->file = arena_copy(&gateway->arena, file);
    if (!gateway_settings_load(gateway->file, text, &gateway->arena, &gateway->settings, report))
        goto fail;
    gateway->workers = count_workers(gateway, use);
    compile_listeners(gateway);
    compile_stores(gateway);
    // Both, so that a bad file and a bad name are reported together.
    bool good = !use || gateway_files_check(&gateway->settings, gateway->file, use, &gateway->arena,
                                            &gateway->files, report);
    gateway_files_read_from(&gateway->files);
    good = (!use || look_up_redis(gateway, report)) && good;
    good = compile_upstreams(gateway, report) && good && compile_auth(gateway, report) &&
           compile_routes(gateway, report) && compile_telemetry(gateway, report) &&
           compile_tls(gateway, use, report);
    gateway_files_read_from(NULL);
    if (good)
        return gateway;
    config_report_sort(report);
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
