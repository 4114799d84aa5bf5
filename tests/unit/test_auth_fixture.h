// What the tests of providers share: a worker's side of authentication, a provider, and one request's
// question to it.
#pragma once

#include "unit.h"

#include "auth/deny.h"
#include "auth/provider.h"

#include <stdlib.h>

struct auth_scene {
    struct loop loop; // when it has its own
    struct metrics *metrics;
    struct auth_worker *worker;
    struct auth auth;
    struct auth_settings settings;
    struct auth_provider provider, *all[1];
    // The request and its question.
    struct arena arena;
    struct request_head request;
    struct auth_call call;
    // Who was woken.
    unsigned woken;
    struct ticket last_woken;
};

static inline void auth_scene_wake(void *context, struct ticket ticket)
{
    struct auth_scene *scene = context;
    scene->woken++;
    scene->last_woken = ticket;
}

// A fresh request and question, without credentials.
static inline void auth_scene_request(struct auth_scene *scene)
{
    arena_reset(&scene->arena);
    scene->request = (struct request_head){.method = METHOD_GET, .path = STR("/")};
    scene->call = (struct auth_call){
        .request = &scene->request,
        .arena = &scene->arena,
        .now_s = 1000000,
        .ticket = {1, 1},
    };
}

// With `Authorization: Bearer token`.
static inline void auth_scene_bearer(struct auth_scene *scene, struct str token)
{
    auth_scene_request(scene);
    headers_add(&scene->request.headers, &scene->arena, STR("Authorization"),
                arena_printf(&scene->arena, "Bearer %.*s", STR_ARG(token)));
}

// The value of sallyport_auth_FAMILY{provider=…,result=…}.
static inline unsigned long auth_scene_counted(const struct auth_scene *scene, const char *family,
                                               const char *result)
{
    struct buf text = {0};
    struct metrics_process process = {0};
    char line[128];
    metrics_print(scene->metrics, &process, NULL, 0, false, &text);
    buf_append(&text, (struct str){"", 1});
    snprintf(line, sizeof line, "sallyport_auth_%s{provider=\"%.*s\",result=\"%s\"} ", family,
             STR_ARG(scene->provider.name), result);
    const char *found = strstr(buf_str(&text).p, line);
    unsigned long value = found ? strtoul(found + strlen(line), NULL, 10) : 0;
    buf_free(&text);
    return value;
}

// On a loop and counters of the caller's; upstreams may be NULL.
static inline void auth_scene_init_on(struct auth_scene *scene, struct loop *loop, struct metrics *metrics,
                                      struct upstream_worker *upstreams)
{
    arena_init(&scene->arena, NULL);
    scene->metrics = metrics;
    scene->provider = (struct auth_provider){
        .settings = &scene->settings,
        .auth = &scene->auth,
        .name = STR("corp"),
        .id = metric_name_id(NAME_PROVIDER, STR("corp")),
        .fingerprint = 0x5a11,
    };
    scene->all[0] = &scene->provider;
    scene->auth.providers = scene->all;
    scene->auth.provider_count = 1;
    metrics_reserve(metrics);
    const struct auth_worker_needs needs = {
        .loop = loop,
        .upstreams = upstreams,
        .metrics = metrics,
        .tls_slot = 1,
        .context = scene,
        .wake = auth_scene_wake,
    };
    scene->worker = auth_worker_new(&needs);
    assert_non_null(scene->worker);
    auth_worker_update(scene->worker, &scene->auth);
}

static inline void auth_scene_fini_on(struct auth_scene *scene)
{
    if (scene->provider.kind && scene->provider.kind->fini)
        scene->provider.kind->fini(&scene->provider);
    auth_worker_free(scene->worker);
    arena_reset(&scene->arena);
}

static inline void auth_scene_init(struct auth_scene *scene)
{
    struct err err;
    assert_int_equal(loop_init(&scene->loop, &err), ERR_OK);
    auth_scene_init_on(scene, &scene->loop, metrics_new(), NULL);
}

static inline void auth_scene_fini(struct auth_scene *scene)
{
    auth_scene_fini_on(scene);
    metrics_free(scene->metrics);
    loop_fini(&scene->loop);
}
