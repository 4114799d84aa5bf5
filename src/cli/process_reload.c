#include "cli/process.h"

#include "base/clock.h"
#include "base/log.h"
#include "cli/file.h"
#include "cli/running.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// What an order to serve a snapshot carries.
struct change {
    struct crew_order order;
    struct process *process;
    struct gateway *gateway; // NULL: the one that the workers have
    struct access_writer *writer;
    struct listening {
        unsigned thread;
        int fd;
        struct str name; // in the snapshot, which outlives the order
    } * listening;
    unsigned count;
    void (*done)(struct process *process);
};

// ---- in each worker's thread ----

static void serve(struct crew_member *member, struct crew_order *order)
{
    struct change *change = container_of(order, struct change, order);
    if (change->gateway) {
        worker_update(member->worker, gateway_ref(change->gateway), change->writer);
        front_update(member->front);
    }
    for (unsigned i = 0; i < change->count; i++) {
        const struct listening *listening = &change->listening[i];
        if (listening->thread == member->slot && !front_listen(member->front, listening->name, listening->fd))
            log_error("worker", "thread %u cannot accept for listener %.*s", member->slot,
                      STR_ARG(listening->name));
    }
}

// ---- in the control thread ----

// Every socket is served and every thread serves one: there are more sockets than threads after `workers` was
// lowered, fewer when an address has but one (unix, socket activation).
static void spread(struct change *change, const struct place *place, struct str name, unsigned threads)
{
    unsigned pairs = place->count > threads ? place->count : threads;
    change->listening = realloc(change->listening, (change->count + pairs) * sizeof *change->listening);
    check(change->listening);
    for (unsigned i = 0; i < pairs; i++)
        change->listening[change->count++] =
            (struct listening){i % threads, place->fds[i % place->count], name};
}

static void free_old_outputs(struct process *process)
{
    if (process->crew.orders)
        return;
    while (process->outputs_before) {
        struct log_output *output = process->outputs_before;
        process->outputs_before = output->next;
        if (output->writer)
            access_writer_free(output->writer);
        free(output);
    }
}

static void on_served(struct crew_order *order)
{
    struct change *change = container_of(order, struct change, order);
    struct process *process = change->process;
    if (change->gateway)
        gateway_unref(change->gateway);
    free_old_outputs(process);
    process_sweep(process);
    void (*done)(struct process *) = change->done;
    free(change->listening);
    free(change);
    if (done)
        done(process);
}

void process_apply(struct process *process, struct gateway *gateway, void (*done)(struct process *process))
{
    struct change *change = calloc(1, sizeof *change);
    check(change);
    change->order.run = serve;
    change->order.done = on_served;
    change->process = process;
    change->gateway = gateway ? gateway_ref(gateway) : NULL;
    change->writer = process->output->writer;
    change->done = done;
    const struct gateway *now = process->host.gateway;
    for (uint32_t i = 0; i < now->listener_count; i++) {
        const struct place *place = process_place(process, &now->listeners[i].addr);
        check(place);
        spread(change, place, now->listeners[i].name, process->crew.count);
    }
    crew_order(&process->crew, &change->order);
}

bool process_open_log(struct process *process, struct str name, struct config_report *report)
{
    if (process->output && str_eq(process->output->name, name))
        return true;
    struct access_writer *writer = NULL;
    struct err err = {0};
    if (!str_eq(name, STR("off")) && !(writer = access_writer_new(name, &err)))
        return process_refuse(report, process->file, 0, 0, STR("telemetry.access_log.output"), "%s: %s",
                              err.where, err.what);
    struct log_output *output = calloc(1, sizeof *output + name.n);
    check(output);
    memcpy(output + 1, name.p, name.n);
    output->name = (struct str){(char *)(output + 1), name.n};
    output->writer = writer;
    if (process->output) {
        process->output->next = process->outputs_before;
        process->outputs_before = process->output;
    }
    process->output = output;
    return true;
}

void process_log_mistakes(const struct config_report *report)
{
    struct buf out = {0};
    config_report_print(report, &out);
    for (struct str rest = buf_str(&out); rest.n;) {
        size_t n = str_find(rest, '\n');
        log_error("config", "%.*s", (int)n, rest.p);
        rest = str_skip(rest, n < rest.n ? n + 1 : n);
    }
    buf_free(&out);
}

bool process_refuse(struct config_report *report, const char *file, unsigned line, unsigned column,
                    struct str path, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    config_report_add(
        report,
        &(struct config_error){
            .file = str_of(file), .line = line, .column = column, .path = path, .what = str_of(what)});
    return false;
}

void process_keep_running(struct process *process, struct str text)
{
    int fd = running_write(text, &process->host.gateway->files);
    if (fd < 0) {
        log_warn("worker", "no memory file: a restart would run the configuration before this one");
    } else {
        process_tell(process, CONTROL_CONFIG, 0, STR(""), fd);
    }
    if (process->running >= 0)
        close(process->running);
    process->running = fd;
}

// The sockets of the configuration before are wanted again.
static void unlisten_new(struct process *process)
{
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report ignored = {.arena = &arena};
    bool held = process_listen(process, process->host.gateway, &ignored);
    arena_reset(&arena);
    check(held); // all of them are here already
    process_sweep(process);
}

bool process_put_in_force(struct process *process, struct gateway *gateway, struct config_report *report)
{
    struct admin_host *host = &process->host;
    if (!process_listen(process, gateway, report) ||
        !process_open_log(process, gateway->settings.telemetry.access_log.output, report) ||
        !process_use_redis(process, gateway, report) || !process_use_limits(process, gateway, report)) {
        unlisten_new(process);
        return false;
    }
    if (gateway->settings.workers != host->gateway->settings.workers)
        log_warn("worker", "workers: a changed number takes effect at the next start or upgrade (SIGUSR2)");
    struct gateway *before = host->gateway;
    host->gateway = gateway;
    process_use_keys(process);
    process->health =
        health_start(&process->loop, gateway->upstreams, gateway->upstream_count, process->health);
    process->outliers = outliers_start(&process->loop, gateway->upstreams, gateway->upstream_count, host->own,
                                       process->outliers);
    if (process->admin)
        process_listen_admin(process);
    host->listening = gateway->listener_count;
    process_apply(process, gateway, NULL);
    gateway_unref(before);
    process_warn_of_expiry(process);
    return true;
}

static bool load_again(struct process *process, struct config_report *report)
{
    struct err err = {0};
    struct str text;
    if (process->leaving != LEAVING_NOT)
        return process_refuse(report, process->file, 0, 0, STR(""), "the program is draining");
    if (process->host.state != ADMIN_READY)
        return process_refuse(report, process->file, 0, 0, STR(""), "the program is starting");
    if (file_read(process->file, &text, &err) != ERR_OK)
        return process_refuse(report, process->file, 0, 0, STR(""), "%s", err.what);
    struct gateway_use use = {.workers = process->crew.count};
    struct gateway *gateway = gateway_new(str_of(process->file), text, &use, report);
    bool good = gateway && process_put_in_force(process, gateway, report);
    if (good)
        process_keep_running(process, text);
    else if (gateway)
        gateway_unref(gateway);
    free((void *)(uintptr_t)text.p);
    return good;
}

bool process_reload(struct process *process, struct config_report *report)
{
    struct metrics_process *known = &process->host.process;
    uint64_t began_us = clock_monotonic_us();
    bool good = load_again(process, report);
    known->last_reload_ok = good;
    if (good) {
        known->reloads_ok++;
        log_info("worker", "%s is in force after %llu ms", process->file,
                 (unsigned long long)((clock_monotonic_us() - began_us) / 1000));
    } else {
        known->reloads_failed++;
        process_log_mistakes(report);
        log_error("worker", "%s is not taken: what was in force stays", process->file);
    }
    process_tell(process, CONTROL_RELOADED, good, STR(""), -1);
    return good;
}
