#include "admin/collect.h"

#include <stdlib.h>

#define LIMITS                                                                                            \
    {                                                                                                     \
        .connections = ADMIN_CONNECTIONS,                                                                 \
        .head = {.head_bytes = ADMIN_HEAD_BYTES, .uri_bytes = ADMIN_URI_BYTES, .headers = ADMIN_HEADERS}, \
        .body_bytes = ADMIN_BODY_BYTES, .request_ms = ADMIN_REQUEST_MS, .idle_ms = ADMIN_IDLE_MS,         \
        .write_ms = ADMIN_WRITE_MS, .linger_ms = ADMIN_LINGER_MS                                          \
    }

static const struct serve_row status_rows[] = {
    {METHOD_GET, SERVE_PATH("/livez"), status_livez},
    {METHOD_GET, SERVE_PATH("/readyz"), status_readyz},
    {METHOD_GET, SERVE_PATH("/healthz"), status_healthz},
    {METHOD_GET, SERVE_PATH("/metrics"), status_metrics},
    {METHOD_GET, SERVE_PATH("/jwks.json"), status_jwks},
};

static const struct serve_row api_rows[] = {
    {METHOD_GET, SERVE_PATH("/api/v1/config"), api_config},
    {METHOD_GET, SERVE_PATH("/api/v1/routes"), api_routes},
    {METHOD_GET, SERVE_PATH("/api/v1/upstreams"), api_upstreams},
    {METHOD_GET, SERVE_PATH("/api/v1/breakers"), api_breakers},
    {METHOD_GET, SERVE_PATH("/api/v1/breakers/"), api_breaker, .below = true},
    {METHOD_PUT, SERVE_PATH("/api/v1/breakers/"), api_breaker_force, .below = true},
    {METHOD_DELETE, SERVE_PATH("/api/v1/breakers/"), api_breaker_let_go, .below = true},
    {METHOD_GET, SERVE_PATH("/api/v1/limits"), api_limits},
    {METHOD_GET, SERVE_PATH("/api/v1/limits/"), api_bucket, .below = true},
    {METHOD_DELETE, SERVE_PATH("/api/v1/limits/"), api_bucket_reset, .below = true},
    {METHOD_GET, SERVE_PATH("/api/v1/idempotency"), api_idempotency},
    {METHOD_GET, SERVE_PATH("/api/v1/stale"), api_stale},
    {METHOD_DELETE, SERVE_PATH("/api/v1/stale"), api_stale_drop},
    {METHOD_DELETE, SERVE_PATH("/api/v1/stale/"), api_stale_drop, .below = true},
    {METHOD_GET, SERVE_PATH("/api/v1/exchanges"), api_exchanges},
    {METHOD_GET, SERVE_PATH("/api/v1/info"), api_info},
    {METHOD_POST, SERVE_PATH("/api/v1/reload"), api_reload},
    {METHOD_POST, SERVE_PATH("/api/v1/drain"), api_drain},
    {METHOD_POST, SERVE_PATH("/api/v1/explain"), api_explain},
    {METHOD_GET, SERVE_PATH("/api/v1/revocations"), api_revocations},
    {METHOD_POST, SERVE_PATH("/api/v1/revocations"), api_revoke},
};

static bool admit_api(struct serve_client *c, struct serve_problem *problem)
{
    return admin_guard(host_of(c)->gateway->settings.admin.token, &c->peer, &c->request, problem);
}

static const struct serve_settings settings[ADMIN_KINDS] = {
    [ADMIN_API] = {.limits = LIMITS,
                   .rows = api_rows,
                   .row_count = countof(api_rows),
                   .no_row = STR("there is nothing here; see docs/ADMIN.md"),
                   .admit = admit_api},
    [ADMIN_STATUS] = {.limits = LIMITS,
                      .rows = status_rows,
                      .row_count = countof(status_rows),
                      .no_row = STR("there is nothing here; see docs/ADMIN.md")},
};

struct admin *admin_new(struct loop *loop, struct admin_host *host)
{
    struct admin *admin = calloc(1, sizeof *admin);
    check(admin);
    admin->loop = loop;
    admin->host = host;
    rand_init(&admin->rand);
    list_init(&admin->under_way);
    for (unsigned kind = 0; kind < ADMIN_KINDS; kind++)
        serve_init(&admin->doors[kind], loop, &settings[kind], &admin->rand, admin);
    return admin;
}

bool admin_listen(struct admin *admin, enum admin_kind kind, int fd)
{
    return serve_listen(&admin->doors[kind], fd);
}

void admin_free(struct admin *admin)
{
    for (unsigned kind = 0; kind < ADMIN_KINDS; kind++)
        serve_fini(&admin->doors[kind]);
    list_each (&admin->under_way, node) { // freed when the last worker answers
        container_of(node, struct collection, node)->admin = NULL;
        list_remove(node);
    }
    free(admin);
}
