// The life of the service: start, signals, time, reload, end.
#include "auth_service/service.h"

#include "auth_service/disk.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/file.h"
#include "cli/load.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

int64_t service_now_s(void)
{
    return (int64_t)(clock_wall_us() / 1000000);
}

// ---- configuration ----

static void compile(struct config *config)
{
    const struct auth_service_settings *settings = &config->settings;
    const struct access_log_settings *log = &settings->access_log;
    struct client_settings *clients = settings->clients.v;
    struct user_settings *users = settings->users.v;
    const char *why;
    for (uint32_t i = 0; i < settings->clients.count; i++)
        map_put(&config->clients, clients[i].id, &clients[i]);
    for (uint32_t i = 0; i < settings->users.count; i++)
        map_put(&config->users, users[i].name, &users[i]);
    config->states = calloc(settings->clients.count + 1, sizeof *config->states);
    check(config->states);
    enum access_format_kind kind = log->format == LOG_FORMAT_JSON       ? ACCESS_JSON
                                   : log->format == LOG_FORMAT_COMBINED ? ACCESS_COMBINED
                                                                        : ACCESS_TEMPLATE;
    config->format = access_format_compile(kind, log->template, &config->arena, &why);
    check(config->format); // the field's own check has compiled it before
}

struct config *config_load(const char *file, struct config_report *report)
{
    static uint64_t generation;
    struct config *config = calloc(1, sizeof *config);
    struct str text;
    struct err err;
    check(config);
    config->generation = ++generation;
    arena_init(&config->arena, NULL);
    if (file_read(file, &text, &err) != ERR_OK) {
        config_report_add(report, &(struct config_error){.file = str_of(file), .what = str_of(err.what)});
        config_free(config);
        return NULL;
    }
    bool good = auth_settings_load(str_of(file), text, &config->arena, &config->settings, report);
    free((void *)(uintptr_t)text.p);
    if (!good) {
        config_free(config);
        return NULL;
    }
    compile(config);
    return config;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    map_fini(&config->clients);
    map_fini(&config->users);
    free(config->states);
    arena_reset(&config->arena);
    free(config);
}

// What a running service cannot change.
static bool is_same_place(const struct config *a, const struct config *b)
{
    return str_eq(a->settings.address, b->settings.address) && str_eq(a->settings.state, b->settings.state) &&
           str_eq(a->settings.access_log.output, b->settings.access_log.output) &&
           a->settings.threads == b->settings.threads && a->settings.has_redis == b->settings.has_redis &&
           str_eq(a->settings.redis.url.text, b->settings.redis.url.text) &&
           str_eq(a->settings.redis.key_prefix, b->settings.redis.key_prefix);
}

static void take_limits(struct service *service)
{
    const struct auth_service_settings *settings = &service->config->settings;
    service->limit.per_us = settings->login_limit.per_us;
    service->limit.counts[0] = (uint64_t)settings->login_limit.failures;
    service->limit.counts[1] = (uint64_t)settings->login_limit.from_address;
    service->limit.counts[2] = (uint64_t)settings->login_limit.for_name;
}

static void reload(struct service *service)
{
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    struct config *config = config_load(service->file, &report);
    load_print(&report);
    arena_reset(&arena);
    if (config && !is_same_place(config, service->config)) {
        log_error("auth", "address, state, threads, redis and access_log.output take a restart");
        config_free(config);
        config = NULL;
    }
    if (!config) {
        service->reloads_bad++;
        log_error("auth", "the configuration is not taken; what was in force stays");
        return;
    }
    // No request is on the stack here, and those that wait look at nothing of the old one (authenticate.c).
    config_free(service->config);
    service->config = config;
    service->reloads_good++;
    take_limits(service);
    keyring_configure(&service->keys, &config->settings, clock_wall_us() / 1000);
    log_info("auth", "the configuration is in force");
}

// ---- time ----

static void save(struct service *service)
{
    struct err err;
    if (!vault_save(&service->vault, service_now_s(), &err))
        log_error("state", "%s: %s", err.where, err.what);
}

static void on_save(struct loop_timer *timer)
{
    struct service *service = container_of(timer, struct service, save);
    uint64_t before_us = clock_monotonic_us();
    save(service);
    uint64_t took_ms = (clock_monotonic_us() - before_us) / 1000;
    if (service->vault.changed || took_ms > 100) // a large or a broken one is written less often
        loop_timer_set(&service->loop, timer, 10 * (took_ms + 100));
}

void service_changed(struct service *service)
{
    if (service->save.due_ms == 0)
        loop_timer_set(&service->loop, &service->save, VAULT_SAVE_MS);
}

static void on_second(struct loop_timer *timer)
{
    struct service *service = container_of(timer, struct service, second);
    keyring_tick(&service->keys, clock_wall_us() / 1000);
    vault_sweep(&service->vault, service_now_s());
    if (service->vault.changed)
        service_changed(service);
    loop_timer_set(&service->loop, timer, 1000);
}

static void on_turn_end(struct loop_hook *hook)
{
    struct service *service = container_of(hook, struct service, hook);
    access_log_tick(&service->log, service->loop.now_us);
    if (service->server.draining && !service->server.count)
        loop_stop(&service->loop);
}

static void on_drained(struct loop_timer *timer)
{
    loop_stop(&container_of(timer, struct service, drained)->loop);
}

// ---- signals ----

static void stop(struct service *service)
{
    if (service->server.draining) {
        loop_stop(&service->loop);
        return;
    }
    log_info("auth", "stopping");
    serve_drain(&service->server);
    loop_timer_set(&service->loop, &service->drained, service->config->settings.drain_us / 1000);
}

static void on_signal(struct loop_source *source, uint32_t events)
{
    struct service *service = container_of(source, struct service, signals);
    struct signalfd_siginfo info;
    (void)events;
    while (read(source->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            reload(service);
        } else if (info.ssi_signo == SIGUSR1) {
            access_writer_reopen(service->writer);
        } else if (info.ssi_signo == SIGUSR2) {
            keyring_rotate(&service->keys, clock_wall_us() / 1000);
            log_info("auth", "the signing keys are rotated");
        } else {
            stop(service);
        }
    }
}

static bool watch_signals(struct service *service, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL); // in the threads to come, too
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    service->signals = (struct loop_source){.fd = fd, .on_event = on_signal};
    if (fd >= 0 && loop_add(&service->loop, &service->signals, EPOLLIN) == ERR_OK)
        return true;
    err_system(err, "signals", "cannot watch them");
    return false;
}

// ---- start and end ----

static bool listen_on(struct service *service, struct err *err)
{
    struct addr addr;
    check(addr_parse(service->config->settings.address, &addr)); // the field's own check has seen it
    service->listen_fd = listen_socket(&addr, false, err);
    if (service->listen_fd < 0)
        return false;
    if (!serve_listen(&service->server, service->listen_fd)) {
        err_system(err, service->config->settings.address.p, "cannot listen");
        return false;
    }
    return true;
}

static bool open_service(struct service *service, struct err *err)
{
    const struct auth_service_settings *settings = &service->config->settings;
    char state[4096];
    snprintf(state, sizeof state, "%.*s", STR_ARG(settings->state));
    rand_init(&service->rand);
    rand_secret(service->mac_key, sizeof service->mac_key);
    list_init(&service->questions);
    login_limit_init(&service->limit);
    take_limits(service);
    serve_init(&service->server, &service->loop, &service_settings, &service->rand, service);
    loop_timer_init(&service->second, on_second);
    loop_timer_init(&service->save, on_save);
    loop_timer_init(&service->drained, on_drained);
    service->started_s = (double)clock_wall_us() / 1e6;
    if (!watch_signals(service, err) || !disk_directory(state, err) ||
        (service->lock_fd = disk_lock(state, err)) < 0 ||
        !vault_open(&service->vault, settings->state, service_now_s(), err) ||
        !pool_start(&service->pool, &service->loop, (unsigned)settings->threads, err) ||
        !keyring_open(&service->keys, settings, &service->pool, clock_wall_us() / 1000, err) ||
        !tell_open(service, err))
        return false;
    service->writer = access_writer_new(settings->access_log.output, err);
    if (!service->writer)
        return false;
    access_log_init(&service->log, service->writer);
    service->hook.on_turn_end = on_turn_end;
    loop_hook_add(&service->loop, &service->hook);
    loop_timer_set(&service->loop, &service->second, 1000);
    return listen_on(service, err);
}

static void close_service(struct service *service)
{
    serve_fini(&service->server);
    pool_stop(&service->pool);
    redis_deny_free(service->deny); // what it has not told is told after the next start
    loop_turn(&service->loop, 0);   // what threads have ended, and the end of connections
    save(service);
    keyring_close(&service->keys);
    vault_close(&service->vault);
    login_limit_fini(&service->limit);
    access_log_fini(&service->log);
    access_writer_free(service->writer);
    close(service->signals.fd);
    close(service->listen_fd);
    close(service->lock_fd);
    config_free(service->config);
    loop_fini(&service->loop);
}

int service_run(const char *file)
{
    static struct service service;
    struct arena arena;
    struct err err;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    service.file = file;
    service.config = config_load(file, &report);
    load_print(&report);
    arena_reset(&arena);
    if (!service.config)
        return 1;
    if (loop_init(&service.loop, &err) != ERR_OK || !open_service(&service, &err)) {
        fprintf(stderr, "sallyport-auth: %s: %s\n", err.where, err.what);
        return 1; // the kernel takes back what there is
    }
    log_info("auth", "%.*s listens on %.*s", STR_ARG(service.config->settings.issuer),
             STR_ARG(service.config->settings.address));
    loop_run(&service.loop);
    close_service(&service);
    return 0;
}
