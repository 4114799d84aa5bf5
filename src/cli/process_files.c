// Files that change on disk: certificates, consumers_file, the key of identity_token. The control thread
// looks at the files of the snapshot in force; when one of them is another, it compiles the configuration
// text in force again (not the file, which may hold an edit that nobody has reloaded) and puts the result in
// force as a reload does: connections keep what they have.
//
//   look ── as they were ──▶ look again in 2 s
//     │ changed
//     ▼
//   look again in 0.5 s, until they rest: a certificate and its key are seldom written in one moment
//     │ at rest
//     ▼
//   compile ── bad ──▶ log once; look on; again when they change, or in a minute (a name server may have
//     │                failed)
//     ▼
//   in force
#include "cli/process.h"

#include "base/clock.h"
#include "base/log.h"
#include "cli/running.h"

#include <stdlib.h>
#include <unistd.h>

enum { LOOK_MS = 2000, SETTLE_MS = 500, RETRY_MS = 60000 };

void process_warn_of_expiry(const struct process *process)
{
    const struct gateway *gateway = process->host.gateway;
    struct arena arena;
    struct buf out = {0};
    arena_init(&arena, NULL);
    struct config_report warnings = {.arena = &arena};
    gateway_files_warn(&gateway->files, gateway->file, (int64_t)(clock_wall_us() / 1000000), &warnings);
    config_report_print(&warnings, &out);
    for (struct str rest = buf_str(&out); rest.n;) {
        size_t n = str_find(rest, '\n');
        log_warn("config", "%.*s", (int)n, rest.p);
        rest = str_skip(rest, n < rest.n ? n + 1 : n);
    }
    buf_free(&out);
    arena_reset(&arena);
}

// The files of the snapshot in force, as they were when it was made.
static void follow(struct certificate_watch *watch, const struct gateway *gateway)
{
    const struct gateway_files *files = &gateway->files;
    free(watch->seen);
    free(watch->tried);
    watch->count = files->count;
    watch->seen = calloc(watch->count + 1, sizeof *watch->seen);
    watch->tried = calloc(watch->count + 1, sizeof *watch->tried);
    check(watch->seen && watch->tried);
    for (uint32_t i = 0; i < watch->count; i++)
        watch->seen[i] = watch->tried[i] = files->v[i].stamp;
    watch->generation = gateway->generation;
    watch->retry_us = 0;
}

// Whether they are still being written, or rest as they were tried before.
struct look {
    bool moves, differs;
};

static struct look look_at(struct certificate_watch *watch, const struct gateway *gateway)
{
    struct look look = {0};
    for (uint32_t i = 0; i < watch->count; i++) {
        struct file_stamp stamp = file_stamp_of(gateway->files.v[i].path);
        look.moves |= !file_stamp_same(&stamp, &watch->seen[i]);
        look.differs |= !file_stamp_same(&stamp, &watch->tried[i]);
        watch->seen[i] = stamp;
    }
    return look;
}

static void log_changed(const struct certificate_watch *watch, const struct gateway *gateway)
{
    for (uint32_t i = 0; i < watch->count; i++)
        if (!file_stamp_same(&watch->seen[i], &watch->tried[i]))
            log_info("worker", "%.*s has changed", STR_ARG(gateway->files.v[i].path));
}

static bool put_in_force(struct process *process, struct config_report *report)
{
    struct running running;
    struct err err = {0};
    if (running_read(process->running, process->file, &running, &err) != ERR_OK)
        return process_refuse(report, process->file, 0, 0, STR(""), "%s", err.what);
    struct gateway_use use = {.workers = process->crew.count};
    struct gateway *gateway = gateway_new(str_of(process->file), running.text, &use, report);
    bool good = gateway && process_put_in_force(process, gateway, report);
    if (good)
        process_keep_running(process, running.text);
    else if (gateway)
        gateway_unref(gateway);
    running_fini(&running);
    return good;
}

static void try_again(struct process *process, bool is_new)
{
    struct certificate_watch *watch = &process->certificates;
    uint64_t began_us = clock_monotonic_us();
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    if (is_new)
        log_changed(watch, process->host.gateway);
    if (put_in_force(process, &report)) {
        log_info("worker", "changed files are in force after %llu ms",
                 (unsigned long long)((clock_monotonic_us() - began_us) / 1000));
        follow(watch, process->host.gateway);
    } else {
        if (is_new) {
            process_log_mistakes(&report);
            log_error("worker", "changed files are not taken: what was in force stays");
        }
        memcpy(watch->tried, watch->seen, watch->count * sizeof *watch->tried);
        watch->retry_us = clock_monotonic_us() + RETRY_MS * 1000;
    }
    arena_reset(&arena);
}

void process_on_certificates_timer(struct loop_timer *timer)
{
    struct process *process = container_of(timer, struct process, certificates.timer);
    struct certificate_watch *watch = &process->certificates;
    const struct gateway *gateway = process->host.gateway;
    if (process->leaving != LEAVING_NOT)
        return;
    if (watch->generation != gateway->generation) // a reload
        follow(watch, gateway);
    struct look look = look_at(watch, gateway);
    bool is_due = watch->retry_us && watch->retry_us <= clock_monotonic_us();
    if (!look.moves && process->running >= 0 && (look.differs || is_due))
        try_again(process, look.differs);
    loop_timer_set(&process->loop, timer, look.moves ? SETTLE_MS : LOOK_MS);
}

void process_watch_certificates(struct process *process)
{
    loop_timer_set(&process->loop, &process->certificates.timer, LOOK_MS);
}

void process_forget_certificates(struct process *process)
{
    loop_timer_stop(&process->loop, &process->certificates.timer);
    free(process->certificates.seen);
    free(process->certificates.tried);
    if (process->running >= 0)
        close(process->running);
}
