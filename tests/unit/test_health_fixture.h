// What the tests of active checks share: a scene of a loop, one upstream and one server, which is part of the
// test's own loop of turns, so that nothing depends on another thread's pace. The test says what its server
// is.
#pragma once

#include "unit.h"

#include "base/clock.h"
#include "upstream/health.h"

#include <stdlib.h>

struct server;
static void server_turn(struct server *server);
static void server_close(struct server *server); // may be called twice

struct scene {
    struct loop loop;
    struct server *server;
    struct upstream_settings settings;
    struct status_range statuses;
    struct upstream upstream;
    struct upstream *list[1];
    struct upstream_target targets[400];
    struct health *health;
};

static inline struct scene *scene_around(struct server *server, const char *upstream_name, const char *name,
                                         const struct addr *addr)
{
    struct scene *scene = calloc(1, sizeof *scene);
    struct err err;
    assert_int_equal(loop_init(&scene->loop, &err), ERR_OK);
    scene->server = server;
    scene->statuses = (struct status_range){200, 399};
    scene->settings.name = str_of(upstream_name);
    scene->settings.health_check = (struct health_settings){.path = STR("/health"),
                                                            .interval_us = 2000,
                                                            .timeout_us = 15000000, // the machine may be busy
                                                            .healthy = 2,
                                                            .unhealthy = 3,
                                                            .statuses = {&scene->statuses, 1}};
    scene->upstream = (struct upstream){.settings = &scene->settings,
                                        .name = scene->settings.name,
                                        .targets = scene->targets,
                                        .target_count = 1};
    scene->list[0] = &scene->upstream;
    scene->targets[0] = (struct upstream_target){endpoint_ref(scene->settings.name, str_of(name), addr), 1,
                                                 upstream_host(str_of(name))};
    return scene;
}

static inline void scene_start(struct scene *scene)
{
    scene->health = health_start(&scene->loop, scene->list, 1, scene->health);
}

static inline struct endpoint *endpoint_of(struct scene *scene)
{
    return scene->targets[0].endpoint;
}

static inline bool is_up(struct scene *scene)
{
    return atomic_load(&endpoint_of(scene)->up);
}

static inline uint64_t checks_of(struct scene *scene)
{
    return atomic_load(&endpoint_of(scene)->checks);
}

static inline void turn(struct scene *scene)
{
    loop_turn(&scene->loop, 1);
    server_turn(scene->server);
}

// To see that nothing happens.
static inline void turn_for(struct scene *scene, unsigned ms)
{
    for (uint64_t end = clock_monotonic_us() + ms * UINT64_C(1000); clock_monotonic_us() < end;)
        turn(scene);
}

// Turns until the endpoint is up or down as wanted, or this many more checks are over.
static inline void turn_until(struct scene *scene, bool up)
{
    for (uint64_t end = clock_monotonic_us() + 60000000; is_up(scene) != up; turn(scene))
        if (clock_monotonic_us() > end)
            fail_msg("still %s: %s", up ? "down" : "up", endpoint_of(scene)->last_check);
}

static inline void turn_checks(struct scene *scene, uint64_t more)
{
    uint64_t until = checks_of(scene) + more, end = clock_monotonic_us() + 60000000;
    for (; checks_of(scene) < until; turn(scene))
        assert_true(clock_monotonic_us() < end);
}

static inline void scene_free(struct scene *scene)
{
    health_stop(scene->health);
    for (int i = 0; i < 3; i++)
        loop_turn(&scene->loop, 0); // what was closed is freed
    server_close(scene->server);
    for (uint32_t i = 0; i < scene->upstream.target_count; i++)
        endpoint_unref(scene->targets[i].endpoint);
    loop_fini(&scene->loop);
    free(scene->server);
    free(scene);
}

static inline void assert_says(struct scene *scene, const char *text)
{
    if (!strstr(endpoint_of(scene)->last_check, text))
        fail_msg("\"%s\" says nothing of \"%s\"", endpoint_of(scene)->last_check, text);
}

// Starts the checks; so many half turns later they are stopped, or begun anew as by a reload, whatever the
// probe is doing.
static inline void interrupt_checks(struct scene *scene, int half_turns, const char *says)
{
    scene_start(scene);
    for (int i = 0; i < half_turns / 2; i++)
        turn(scene);
    if (half_turns % 2) {
        scene_start(scene);
        turn_checks(scene, 1);
        assert_says(scene, says);
        return;
    }
    health_stop(scene->health);
    scene->health = NULL;
    for (int i = 0; i < 5; i++)
        turn(scene);
}
