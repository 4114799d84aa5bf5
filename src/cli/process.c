#include "cli/process.h"

#include "base/clock.h"
#include "base/log.h"
#include "cli/cpus.h"
#include "cli/file.h"
#include "cli/load.h"
#include "cli/running.h"
#include "cli/secret.h"
#include "exchange/exchange.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

struct process *process_of(struct admin_host *host)
{
    return container_of(host, struct process, host);
}

// ---- the supervisor ----

void process_tell(struct process *process, enum control_type type, uint32_t value, struct str text, int fd)
{
    if (!control_send(process->control_fd, type, value, text, &fd, fd >= 0, CONTROL_WAIT_MS))
        log_warn("worker", "the supervisor does not listen");
}

static void reload_for_supervisor(struct process *process)
{
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    process_reload(process, &report);
    arena_reset(&arena);
}

void process_hear(struct process *process, enum control_type type)
{
    switch (type) {
    case CONTROL_RELOAD: reload_for_supervisor(process); break;
    case CONTROL_REOPEN:
        if (process->output->writer)
            access_writer_reopen(process->output->writer);
        log_info("worker", "logs are opened again");
        break;
    case CONTROL_DRAIN: process_drain(process, false); break;
    case CONTROL_HAND_OVER: process_drain(process, true); break;
    case CONTROL_QUIT: process_quit(process); break;
    default: break; // a newer supervisor's
    }
}

static void on_control(struct loop_source *source, uint32_t events)
{
    struct process *process = container_of(source, struct process, control);
    (void)events;
    struct control_message message;
    for (;;) {
        enum control_result result = control_recv(process->control_fd, &message, 0);
        if (result == CONTROL_NOTHING)
            return;
        if (result == CONTROL_CLOSED) {
            log_error("worker", "the supervisor is gone: finishing what there is");
            loop_remove(&process->loop, source);
            process_drain(process, true);
            return;
        }
        control_drop_fds(&message);
        process_hear(process, message.type);
    }
}

static void on_early(struct loop_task *task)
{
    struct process *process = container_of(task, struct process, early_task);
    struct process_message *message = process->early;
    process->early = NULL;
    while (message) {
        struct process_message *next = message->next;
        process_hear(process, message->type);
        free(message);
        message = next;
    }
}

// ---- what the admin room asks for ----

static bool reload_for_admin(struct admin_host *host, struct config_report *report)
{
    return process_reload(process_of(host), report);
}

static void drain_for_admin(struct admin_host *host)
{
    process_tell(process_of(host), CONTROL_STOP, 0, STR(""), -1);
}

// ---- start ----

// Signals are the supervisor's: a terminal's Ctrl-C and a service manager's TERM reach every process of the
// group.
static void leave_signals_to_supervisor(void)
{
    const int numbers[] = {SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGPIPE};
    for (size_t i = 0; i < countof(numbers); i++)
        signal(numbers[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

// A bug's last words: what this thread was doing.
static void print_exchanges(void)
{
    struct worker *worker = crew_current_worker();
    if (!worker)
        return;
    struct buf out = {0};
    struct json json;
    json_init(&json, &out, false);
    json_array(&json);
    for (uint32_t i = 0; i < worker->slot_count; i++)
        if (worker->slots[i])
            exchange_print(worker->slots[i], &json);
    json_array_end(&json);
    fprintf(stderr, "sallyport: worker %u, live exchanges: %.*s\n", worker->slot, STR_ARG(buf_str(&out)));
}

static bool take_start(struct process *process, int *config)
{
    struct control_message message;
    if (control_recv(process->control_fd, &message, CONTROL_WAIT_MS) != CONTROL_MESSAGE ||
        message.type != CONTROL_START)
        return false;
    struct metrics_process *known = &process->host.process;
    unsigned long long restarts = 0, reloads = 0, failed = 0;
    int ok = 1, level = LOG_INFO, alone = 1, secret = 0;
    sscanf(message.text, "restarts %llu reloads %llu failed %llu last_ok %d log_level %d alone %d secret %n",
           &restarts, &reloads, &failed, &ok, &level, &alone, &secret);
    uint8_t bytes[TLS_SECRET_BYTES];
    if (secret && secret_of_hex(message.text + secret, bytes))
        tls_set_secret(bytes);
    explicit_bzero(bytes, sizeof bytes);
    explicit_bzero(message.text, sizeof message.text);
    log_set_level((enum log_level)level);
    process->is_alone = alone;
    known->worker_restarts = restarts;
    known->reloads_ok = reloads;
    known->reloads_failed = failed;
    known->last_reload_ok = ok;
    known->start_seconds = (double)clock_wall_us() / 1e6;
    *config = message.fd_count ? message.fds[0] : -1;
    return true;
}

static bool compile(struct process *process, struct str text, const struct running *accepted,
                    struct config_report *report)
{
    unsigned cpus = cpus_usable();
    struct gateway_use use = {.auto_workers = cpus < CREW_MAX ? cpus : CREW_MAX};
    if (accepted) {
        use.accepted = true;
        use.files = accepted->files;
        use.file_count = accepted->file_count;
    }
    process->host.gateway = gateway_new(str_of(process->file), text, &use, report);
    if (process->host.gateway)
        process_keep_running(process, text);
    return process->host.gateway;
}

// What ran before after a crash, else the file.
static bool load(struct process *process, int before, struct config_report *report)
{
    struct err err = {0};
    if (before >= 0) {
        struct running running;
        if (running_read(before, process->file, &running, &err) != ERR_OK)
            return process_refuse(report, process->file, 0, 0, STR(""), "%s", err.what);
        bool good = compile(process, running.text, &running, report);
        running_fini(&running);
        return good;
    }
    struct str text;
    if (file_read(process->file, &text, &err) != ERR_OK)
        return process_refuse(report, process->file, 0, 0, STR(""), "%s", err.what);
    bool good = compile(process, text, NULL, report);
    free((void *)(uintptr_t)text.p);
    return good;
}

static bool start_crew(struct process *process, struct err *err)
{
    struct admin_host *host = &process->host;
    struct crew *crew = &process->crew;
    crew->control = &process->loop;
    crew->gateway = host->gateway;
    crew->writer = process->output->writer;
    crew->on_empty = process_on_empty;
    crew->context = process;
    if (crew_start(crew, err) != ERR_OK)
        return false;
    host->worker_count = crew->count;
    host->workers = calloc(crew->count, sizeof *host->workers);
    host->fronts = calloc(crew->count, sizeof *host->fronts);
    check(host->workers && host->fronts);
    for (unsigned i = 0; i < crew->count; i++) {
        host->workers[i] = crew->members[i].worker;
        host->fronts[i] = crew->members[i].front;
    }
    return true;
}

// First the supervisor: who hears from the status listener that we are ready may send it a signal next.
static void on_ready(struct process *process)
{
    process_tell(process, CONTROL_READY, 0, STR(""), -1);
    if (process->leaving == LEAVING_NOT)
        process->host.state = ADMIN_READY;
}

static void await_limits(struct process *process)
{
    process_await_limits(process, on_ready);
}

static void on_serving(struct process *process)
{
    process->host.listening = process->host.gateway->listener_count;
    process_watch_certificates(process);
    if (!process_listen_admin(process)) // out of descriptors or memory, right at the start
        _exit(1);
    process_await_keys(process, await_limits);
}

static void serve(struct process *process)
{
    process_apply(process, NULL, on_serving);
}

static void await_limits_and_serve(struct process *process)
{
    process_await_limits(process, serve);
}

static void on_turn_end(struct loop_hook *hook)
{
    struct process *process = container_of(hook, struct process, turn_end);
    gateway_reap();
    if (process->host.gateway)
        process_watch_overload(process);
}

static bool start(struct process *process, struct config_report *report, struct err *err)
{
    struct admin_host *host = &process->host;
    process->crew.count = host->gateway->workers;
    host->reload = reload_for_admin;
    host->drain = drain_for_admin;
    host->started_us = clock_monotonic_us();
    host->own = metrics_new();
    if (loop_init(&process->loop, err) != ERR_OK)
        return false;
    process->turn_end.on_turn_end = on_turn_end;
    loop_hook_add(&process->loop, &process->turn_end);
    process->early_task.run = on_early;
    loop_timer_init(&process->leave_timer, process_on_leave_timer);
    loop_timer_init(&process->certificates.timer, process_on_certificates_timer);
    process_start_revocation(process);
    process_start_keys(process);
    if (!process_use_redis(process, host->gateway, report) ||
        !process_use_limits(process, host->gateway, report) ||
        !process_listen(process, host->gateway, report) ||
        !process_open_log(process, host->gateway->settings.telemetry.access_log.output, report) ||
        !start_crew(process, err))
        return false;
    process->admin = admin_new(&process->loop, host);
    process->health =
        health_start(&process->loop, host->gateway->upstreams, host->gateway->upstream_count, NULL);
    process->outliers = outliers_start(&process->loop, host->gateway->upstreams,
                                       host->gateway->upstream_count, host->own, NULL);
    process->control = (struct loop_source){.fd = process->control_fd, .on_event = on_control};
    if (loop_add(&process->loop, &process->control, EPOLLIN) != ERR_OK) {
        err_system(err, "worker", "epoll_ctl");
        return false;
    }
    process_use_keys(process);
    // What needs no keys and no Redis is served without them, but not instead of a process that has them.
    if (process->is_alone)
        serve(process);
    else
        process_await_keys(process, await_limits_and_serve);
    return true;
}

// ---- end ----

static void finish(struct process *process)
{
    if (process->admin)
        admin_free(process->admin);
    process_end_revocation(process);
    process_end_limits(process);
    if (!crew_stop(&process->crew))
        _exit(1);                 // nothing more can be given back in order
    loop_turn(&process->loop, 0); // orders carried out in the last moment
    health_stop(process->health);
    outliers_stop(process->outliers);
    process_end_keys(process);
    loop_turn(&process->loop, 0); // connections are freed
    gateway_unref(process->host.gateway);
    gateway_reap();
    process->host.gateway = NULL;
    for (unsigned i = 0; i < process->places.count; i++)
        process->places.v[i].wanted = false;
    process_sweep(process);
    if (process->output->writer)
        access_writer_free(process->output->writer);
    free(process->output);
    process_forget_certificates(process);
    free(process->places.v);
    free(process->host.workers);
    free(process->host.fronts);
    metrics_free(process->host.own);
    loop_fini(&process->loop);
}

int process_main(int control_fd, const char *file)
{
    static struct process process; // its loop is large
    process = (struct process){.file = file, .control_fd = control_fd, .running = -1};
    leave_signals_to_supervisor();
    prctl(PR_SET_NAME, "sallyport");
    check_on_failure = print_exchanges;
    int config;
    if (!take_start(&process, &config))
        return 1; // the supervisor has gone before it said anything
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    struct err err = {0};
    bool good = load(&process, config, &report) && start(&process, &report, &err);
    if (config >= 0)
        close(config);
    if (!good && err.code != ERR_OK)
        process_refuse(&report, file, 0, 0, str_of(err.where), "%s", err.what);
    load_print(&report);
    arena_reset(&arena);
    if (!good)
        return 1;
    process_warn_of_expiry(&process);
    loop_run(&process.loop);
    finish(&process);
    return 0;
}
