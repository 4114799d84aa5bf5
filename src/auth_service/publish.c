// What anybody may read: metadata (RFC 8414), keys, health, metrics; and how errors and log lines look.
#include "auth_service/service.h"

#include "base/clock.h"
#include "observe/access_line.h"
#include "observe/process_stats.h"

static const struct serve_row rows[] = {
    {METHOD_POST, SERVE_PATH("/token"), handle_token},
    {METHOD_GET, SERVE_PATH("/.well-known/oauth-authorization-server"), handle_metadata},
    {METHOD_GET, SERVE_PATH("/.well-known/openid-configuration"), handle_metadata},
    {METHOD_GET, SERVE_PATH("/jwks.json"), handle_jwks},
    {METHOD_POST, SERVE_PATH("/introspect"), handle_introspect},
    {METHOD_POST, SERVE_PATH("/revoke"), handle_revoke},
    {METHOD_OTHER, SERVE_PATH("/authorize"), handle_authorize},
    {METHOD_GET, SERVE_PATH("/livez"), handle_livez},
    {METHOD_GET, SERVE_PATH("/readyz"), handle_readyz},
    {METHOD_GET, SERVE_PATH("/metrics"), handle_metrics},
};
_Static_assert(countof(rows) == SERVICE_ROWS, "each endpoint has its counters");

const struct serve_settings service_settings = {
    .limits = {.connections = 4096,
               .head = {.head_bytes = 32 * 1024, .uri_bytes = 8192, .headers = 100},
               .body_bytes = 64 * 1024,
               .request_ms = 10000,
               .idle_ms = 60000,
               .write_ms = 10000,
               .linger_ms = 2000},
    .rows = rows,
    .row_count = countof(rows),
    .no_row = STR("there is nothing here; see docs/AUTH_SERVICE.md"),
    .on_answer = service_on_answer,
};

// ---- errors ----

static void reply_error(struct serve_client *c, unsigned status, struct str error, struct str description,
                        const struct serve_field *field)
{
    struct serve_field fields[2] = {{STR("Pragma"), STR("no-cache")}};
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "error", error);
    if (description.n)
        json_field_string(&json, "error_description", description);
    json_object_end(&json);
    buf_append(&body, STR("\n"));
    if (field)
        fields[1] = *field;
    serve_reply_with(c, &(struct serve_answer){.status = status,
                                               .type = STR("application/json"),
                                               .body = buf_str(&body),
                                               .fields = fields,
                                               .field_count = field ? 2 : 1});
    buf_free(&body);
}

void reply_oauth_error(struct serve_client *c, unsigned status, struct str error, struct str description)
{
    struct serve_field challenge = {STR("WWW-Authenticate"), STR("Basic realm=\"sallyport-auth\"")};
    reply_error(c, status, error, description, status == 401 ? &challenge : NULL);
}

void reply_retry(struct serve_client *c, unsigned status, struct str error, uint64_t retry_s)
{
    struct serve_field after = {STR("Retry-After"), arena_u64(&c->arena, retry_s)};
    reply_error(c, status, error, status == 429 ? STR("too many failed logins") : STR("try again later"),
                &after);
}

// ---- what is published ----

static void list(struct json *json, const char *name, const char *const *words)
{
    json_key(json, str_of(name));
    json_array(json);
    for (; *words; words++)
        json_string(json, str_of(*words));
    json_array_end(json);
}

static void endpoint(struct serve_client *c, struct json *json, const char *name, const char *path)
{
    struct str url = service_of(c)->config->settings.url;
    json_key(json, str_of(name));
    json_string(json, arena_printf(&c->arena, "%.*s%s", STR_ARG(url), path));
}

void handle_metadata(struct serve_client *c)
{
    const struct auth_service_settings *settings = &service_of(c)->config->settings;
    static const char *const ways[] = {"client_secret_basic", "client_secret_post", NULL};
    const char *grants[] = {"client_credentials", "refresh_token",
                            settings->password_grant ? "password" : NULL, NULL};
    static const char *const none[] = {NULL};
    const char *algorithms[AUTH_ALGORITHMS + 1] = {0};
    for (size_t i = 0, n = 0; i < AUTH_ALGORITHMS; i++)
        if (settings->keys.algorithms & (unsigned)auth_algorithm_rows[i].bit)
            algorithms[n++] = token_algorithm_name(auth_algorithm_rows[i].algorithm).p;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "issuer", settings->issuer);
    endpoint(c, &json, "token_endpoint", "/token");
    endpoint(c, &json, "jwks_uri", "/jwks.json");
    endpoint(c, &json, "introspection_endpoint", "/introspect");
    endpoint(c, &json, "revocation_endpoint", "/revoke");
    list(&json, "grant_types_supported", grants);
    list(&json, "response_types_supported", none);
    list(&json, "token_endpoint_auth_methods_supported", ways);
    list(&json, "introspection_endpoint_auth_methods_supported", ways);
    list(&json, "revocation_endpoint_auth_methods_supported", ways);
    list(&json, "access_token_signing_alg_values_supported", algorithms);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void handle_jwks(struct serve_client *c)
{
    const struct service *service = service_of(c);
    uint64_t age_s = service->config->settings.keys.rotate_us / 1000000 / 4;
    struct serve_field field = {
        STR("Cache-Control"),
        arena_printf(&c->arena, "public, max-age=%llu", (unsigned long long)(age_s > 300 ? 300 : age_s))};
    serve_reply_with(c, &(struct serve_answer){.status = 200,
                                               .type = STR("application/jwk-set+json"),
                                               .body = buf_str(&service->keys.jwks),
                                               .fields = &field,
                                               .field_count = 1});
}

void handle_livez(struct serve_client *c)
{
    serve_reply(c, 200, STR("application/json"), STR("{\"status\":\"alive\"}\n"));
}

void handle_readyz(struct serve_client *c)
{
    bool is_ready = !c->server->draining;
    serve_reply(c, is_ready ? 200 : 503, STR("application/json"),
                is_ready ? STR("{\"status\":\"ready\"}\n") : STR("{\"status\":\"not_ready\"}\n"));
}

// ---- metrics ----

struct page {
    struct buf *out;
    bool openmetrics;
};

// OpenMetrics leaves _total to the sample.
static void family(const struct page *page, const char *name, const char *type, const char *help)
{
    bool is_cut = page->openmetrics && str_ends(str_of(name), STR("_total"));
    int n = (int)strlen(name) - (is_cut ? 6 : 0);
    buf_printf(page->out, "# HELP %.*s %s\n# TYPE %.*s %s\n", n, name, help, n, name, type);
}

static void gauge(const struct page *page, const char *name, const char *help, double value)
{
    family(page, name, "gauge", help);
    buf_printf(page->out, "%s %.15g\n", name, value);
}

static void print_counters(const struct page *page, const struct service *service)
{
    static const struct {
        const char *name, *help;
    } counters[] = {
#define X(id, name, help) {"sallyport_auth_service_" name "_total", help},
        SERVICE_COUNTERS(X)
#undef X
    };
    for (size_t i = 0; i < countof(counters); i++) {
        family(page, counters[i].name, "counter", counters[i].help);
        buf_printf(page->out, "%s %llu\n", counters[i].name, (unsigned long long)service->counts[i]);
    }
    family(page, "sallyport_auth_service_requests_total", "counter", "Requests answered.");
    for (size_t i = 0; i <= SERVICE_ROWS; i++)
        for (unsigned status = 0; status < SERVICE_STATUSES; status++)
            if (service->answers[i][status])
                buf_printf(page->out,
                           "sallyport_auth_service_requests_total{endpoint=\"%s\",code=\"%u\"} %u\n",
                           i < SERVICE_ROWS ? rows[i].path.p : "", status, service->answers[i][status]);
    family(page, "sallyport_auth_service_config_reloads_total", "counter", "Times the file was read again.");
    buf_printf(page->out,
               "sallyport_auth_service_config_reloads_total{result=\"success\"} %llu\n"
               "sallyport_auth_service_config_reloads_total{result=\"failure\"} %llu\n",
               (unsigned long long)service->reloads_good, (unsigned long long)service->reloads_bad);
}

// Those of OpenTelemetry's http.server.request.duration, as the gateway's.
static const struct {
    uint64_t us;
    const char *text;
} bounds[] = {
    {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"}, {50000, "0.05"},    {75000, "0.075"},
    {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},  {750000, "0.75"},   {1000000, "1.0"},
    {2500000, "2.5"}, {5000000, "5.0"}, {7500000, "7.5"}, {10000000, "10.0"},
};
_Static_assert(countof(bounds) == SERVICE_BOUNDS, "each bound has its counter");

static void note_duration(struct service_durations *durations, uint64_t us)
{
    size_t at = 0;
    while (at < SERVICE_BOUNDS && us > bounds[at].us)
        at++;
    durations->counts[at]++;
    durations->sum_us += us;
}

static void print_durations(const struct page *page, const struct service *service)
{
    const char *name = "sallyport_auth_service_request_duration_seconds";
    family(page, name, "histogram", "From a request's first byte to its answer.");
    for (size_t i = 0; i <= SERVICE_ROWS; i++) {
        const struct service_durations *durations = &service->durations[i];
        const char *endpoint = i < SERVICE_ROWS ? rows[i].path.p : "";
        unsigned long long count = 0;
        for (size_t at = 0; at < SERVICE_BOUNDS; at++) {
            count += durations->counts[at];
            buf_printf(page->out, "%s_bucket{endpoint=\"%s\",le=\"%s\"} %llu\n", name, endpoint,
                       bounds[at].text, count);
        }
        count += durations->counts[SERVICE_BOUNDS];
        buf_printf(page->out, "%s_bucket{endpoint=\"%s\",le=\"+Inf\"} %llu\n", name, endpoint, count);
        buf_printf(page->out, "%s_count{endpoint=\"%s\"} %llu\n", name, endpoint, count);
        buf_printf(page->out, "%s_sum{endpoint=\"%s\"} %.6f\n", name, endpoint,
                   (double)durations->sum_us / 1e6);
    }
}

static void print_process(const struct page *page, const struct service *service)
{
    struct process_stats stats;
    gauge(page, "process_start_time_seconds", "Start, in seconds since 1970.", service->started_s);
    if (!process_stats_read(&stats))
        return;
    family(page, "process_cpu_seconds_total", "counter", "User and system time.");
    buf_printf(page->out, "process_cpu_seconds_total %.2f\n", stats.cpu_seconds);
    gauge(page, "process_resident_memory_bytes", "Resident memory.", (double)stats.resident_bytes);
    gauge(page, "process_virtual_memory_bytes", "Virtual memory.", (double)stats.virtual_bytes);
    gauge(page, "process_open_fds", "Open descriptors.", (double)stats.open_fds);
    gauge(page, "process_max_fds", "Most descriptors allowed.", (double)stats.max_fds);
}

void handle_metrics(struct serve_client *c)
{
    const struct service *service = service_of(c);
    struct buf body = {0};
    struct page page = {&body, serve_accepts_openmetrics(&c->request.headers)};
    print_counters(&page, service);
    print_durations(&page, service);
    family(&page, "sallyport_auth_service_keys_made_total", "counter", "Signing keys made on schedule.");
    buf_printf(&body, "sallyport_auth_service_keys_made_total %llu\n",
               (unsigned long long)service->keys.made);
    gauge(&page, "sallyport_auth_service_refresh_families", "Refresh tokens in force.",
          service->vault.counts[VAULT_FAMILY]);
    gauge(&page, "sallyport_auth_service_revoked_tokens", "Revoked access tokens that have not expired.",
          service->vault.counts[VAULT_DENIED]);
    gauge(&page, "sallyport_auth_service_queue", "Logins that wait for a thread or are with one.",
          service->pool.under_way);
    family(&page, "sallyport_build_info", "gauge", "The version.");
    buf_append(&body, STR("sallyport_build_info{version=\"" SALLYPORT_VERSION "\"} 1\n"));
    print_process(&page, service);
    if (page.openmetrics)
        buf_append(&body, STR("# EOF\n"));
    serve_reply(c, 200, serve_metrics_type(page.openmetrics), buf_str(&body));
    buf_free(&body);
}

// ---- each answer ----

static enum end_cause cause_of(unsigned status)
{
    switch (status) {
    case 400: return END_BAD_REQUEST;
    case 401: return END_INVALID_TOKEN;
    case 403: return END_DENIED_BY_AUTH_SERVICE;
    case 404: return END_NO_ROUTE;
    case 405: return END_METHOD_NOT_ALLOWED;
    case 408: return END_REQUEST_TIMEOUT;
    case 413: return END_BODY_TOO_LARGE;
    case 429: return END_RATE_LIMITED;
    case 503: return END_OVERLOADED;
    default: return END_OK;
    }
}

void service_on_answer(struct serve_client *c, unsigned status, size_t bytes)
{
    struct service *service = service_of(c);
    size_t row = c->row ? (size_t)(c->row - rows) : SERVICE_ROWS;
    char client[IP_TEXT_MAX];
    struct ip ip = service_address_of(c);
    uint64_t now_us = clock_monotonic_us(), took_us = now_us - c->began_us;
    service->answers[row][status < SERVICE_STATUSES ? status : 0]++;
    note_duration(&service->durations[row], took_us);
    if (!service->writer || access_writer_is_off(service->writer))
        return;
    struct access_record record = {
        .wall_us = clock_wall_us() - took_us,
        .request_id = serve_id(c),
        .client = {client, ip_print(&ip, client)},
        .listener = STR("auth"),
        .host = c->request.host,
        .method = c->request.method_name,
        .path = c->request.path,
        .protocol = c->request.minor ? STR("HTTP/1.1") : STR("HTTP/1.0"),
        .route = c->row ? c->row->path : STR_NULL,
        .status = status,
        .cause = cause_of(status),
        .consumer = c->consumer,
        .subject = c->subject,
        .bytes_in = serve_body(c).n,
        .bytes_out = bytes,
        .duration_us = took_us,
    };
    access_log_record(&service->log, service->config->format, &record, now_us);
}
