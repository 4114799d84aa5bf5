// A redis-server of the test's own, and one command at a time to it. Without the program the tests that need
// it are skipped.
#pragma once

#include "unit_loopback.h"

#include "base/clock.h"
#include "observe/metrics.h"
#include "redis/fleet.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REDIS_TEST_MS = 10000 };

struct redis_bench {
    pid_t server;
    struct loop loop;
    struct arena arena;
    struct metrics *metrics;
    struct redis_settings settings;
    struct redis_fleet *fleet;
    // The last reply: text, or numbers.
    bool has_reply;
    enum redis_failure failure;
    struct resp_value reply;
};

static inline unsigned redis_free_port(void)
{
    int fd;
    struct addr addr = bind_loopback(&fd, false);
    close(fd);
    return ntohs(addr.v4.sin_port);
}

static inline bool redis_is_installed(void)
{
    int status = 0;
    pid_t child = fork();
    if (!child) {
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        execlp("redis-server", "redis-server", "--version", (char *)NULL);
        _exit(127);
    }
    return waitpid(child, &status, 0) == child && status == 0;
}

static inline void redis_start_server(struct redis_bench *bench, unsigned port)
{
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    bench->server = fork();
    if (bench->server)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("redis-server", "redis-server", "--port", text, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", "--logfile", "/dev/null", "--dir", "/tmp", (char *)NULL);
    _exit(127);
}

static inline void redis_turn_until(struct redis_bench *bench, const bool *done)
{
    uint64_t end_us = clock_monotonic_us() + REDIS_TEST_MS * UINT64_C(1000);
    while (!*done) {
        loop_turn(&bench->loop, 5);
        assert_true(clock_monotonic_us() < end_us);
    }
}

static inline struct resp_value redis_copy(struct arena *arena, const struct resp_value *value)
{
    struct resp_value copy = *value;
    if (value->text.n)
        copy.text = arena_copy(arena, value->text);
    copy.items = value->count ? arena_array(arena, struct resp_value, value->count) : NULL;
    for (uint32_t i = 0; i < value->count; i++)
        copy.items[i] = redis_copy(arena, &value->items[i]);
    return copy;
}

static inline void redis_on_test_reply(void *context, enum redis_failure failure,
                                       const struct resp_value *reply)
{
    struct redis_bench *bench = context;
    bench->has_reply = true;
    bench->failure = failure;
    bench->reply = (struct resp_value){.kind = RESP_NULL};
    if (reply)
        bench->reply = redis_copy(&bench->arena, reply);
}

// The reply is in the bench's arena.
static inline const struct resp_value *redis_do(struct redis_bench *bench, const struct str *argv,
                                                unsigned argc)
{
    bench->has_reply = false;
    redis_fleet_command(bench->fleet, argc > 3 ? argv[3] : STR("x"), argv, argc, REDIS_TEST_MS * 1000, bench,
                        redis_on_test_reply);
    redis_turn_until(bench, &bench->has_reply);
    assert_int_equal(bench->failure, REDIS_OK);
    return &bench->reply;
}

#define redis_say(bench, ...)                            \
    redis_do((bench), (const struct str[]){__VA_ARGS__}, \
             sizeof(const struct str[]){__VA_ARGS__} / sizeof(struct str))

static inline void redis_wait_up(struct redis_bench *bench)
{
    uint64_t end_us = clock_monotonic_us() + REDIS_TEST_MS * UINT64_C(1000);
    while (!redis_fleet_is_up(bench->fleet)) {
        loop_turn(&bench->loop, 5);
        if (clock_monotonic_us() > end_us)
            fail_msg("redis-server did not start");
    }
}

// False: there is no redis-server here.
static inline bool redis_bench_open(struct redis_bench *bench)
{
    if (!redis_is_installed()) {
        print_message("redis-server is not installed\n");
        return false;
    }
    static const struct redis_fleet_events events;
    struct err err = {0};
    const char *why;
    *bench = (struct redis_bench){0};
    arena_init(&bench->arena, NULL);
    assert_int_equal(loop_init(&bench->loop, &err), ERR_OK);
    bench->metrics = metrics_new();
    unsigned port = redis_free_port();
    assert_true(redis_url_parse(arena_printf(&bench->arena, "redis://127.0.0.1:%u", port), &bench->arena,
                                &bench->settings.url, &why));
    bench->settings.deadline_us = 5000000; // the machine may be busy
    bench->settings.key_prefix = STR("test:");
    redis_start_server(bench, port);
    bench->fleet = redis_fleet_new(
        &(struct redis_fleet_options){
            .access = {.loop = &bench->loop, .settings = &bench->settings, .metrics = bench->metrics},
            .events = &events},
        &err);
    assert_non_null(bench->fleet);
    redis_wait_up(bench);
    return true;
}

static inline void redis_bench_close(struct redis_bench *bench)
{
    redis_fleet_free(bench->fleet);
    loop_turn(&bench->loop, 0);
    kill(bench->server, SIGKILL);
    waitpid(bench->server, NULL, 0);
    metrics_free(bench->metrics);
    arena_reset(&bench->arena);
    loop_fini(&bench->loop);
}
