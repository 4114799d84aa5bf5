#include "cli/supervisor.h"

#include "base/clock.h"
#include "base/log.h"
#include "cli/notify.h"
#include "cli/secret.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int free_place(const struct supervisor *supervisor)
{
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
        if (!supervisor->children[i].pid)
            return i;
    return -1;
}

uint64_t supervisor_pause_ms(unsigned early_deaths)
{
    if (early_deaths <= 1)
        return 0;
    unsigned doublings = early_deaths - 2;
    uint64_t pause = doublings < 16 ? 10U << doublings : SUPERVISOR_RESTART_MAX_MS;
    return pause < SUPERVISOR_RESTART_MAX_MS ? pause : SUPERVISOR_RESTART_MAX_MS;
}

void supervisor_tell(struct supervisor *supervisor, int place, enum control_type type)
{
    struct child *child = &supervisor->children[place];
    if (child->control >= 0 && !control_send(child->control, type, 0, STR(""), NULL, 0, 0))
        log_warn("supervisor", "worker process %d does not listen", child->pid);
}

// Where the running binary is, as long as it is there: a replaced one is only to be had by the magic link
// itself, which under valgrind and the like is somebody else.
static bool running_path(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return !str_ends((struct str){path, (size_t)n}, STR(" (deleted)"));
}

// Another execution of this very binary rather than a bare fork: addresses and stack canaries are drawn
// afresh, so that a crash tells an attacker nothing about the process that comes next.
static _Noreturn void become_worker(const struct supervisor *supervisor, int control)
{
    char number[16];
    snprintf(number, sizeof number, "%d", control);
    char *argv[] = {supervisor->argv[0], "worker", number, (char *)(uintptr_t)supervisor->file, NULL};
    fcntl(control, F_SETFD, 0);
    char path[PATH_MAX];
    if (running_path(path, sizeof path))
        execv(path, argv);
    execv("/proc/self/exe", argv);
    execv(supervisor->binary, argv); // no /proc
    log_error("supervisor", "cannot execute %s: %m", supervisor->binary);
    _exit(127);
}

static bool send_start(const struct supervisor *supervisor, const struct child *child, int config)
{
    char text[CONTROL_TEXT], secret[SECRET_HEX_SIZE];
    secret_to_hex(supervisor->secret, secret);
    int n = snprintf(text, sizeof text,
                     "restarts %llu reloads %llu failed %llu last_ok %d log_level %d alone %d secret %s",
                     (unsigned long long)supervisor->restarts, (unsigned long long)supervisor->reloads_ok,
                     (unsigned long long)supervisor->reloads_failed, supervisor->last_reload_ok,
                     supervisor->log_level, supervisor->current < 0, secret);
    bool sent = control_send(child->control, CONTROL_START, 0, (struct str){text, (size_t)n}, &config,
                             config >= 0, 0);
    explicit_bzero(text, sizeof text);
    explicit_bzero(secret, sizeof secret);
    return sent;
}

bool supervisor_spawn(struct supervisor *supervisor, int config)
{
    int place = free_place(supervisor), pair[2];
    if (place < 0 || !control_pair(pair)) {
        log_error("supervisor", "cannot start a worker process: %s",
                  place < 0 ? "too many of them leave" : "no socket");
        return false;
    }
    struct child *child = &supervisor->children[place];
    pid_t pid = fork();
    if (pid == 0)
        become_worker(supervisor, pair[1]);
    close(pair[1]);
    if (pid < 0) {
        log_error("supervisor", "cannot start a worker process: %m");
        close(pair[0]);
        return false;
    }
    uint64_t now = clock_monotonic_us();
    *child = (struct child){.pid = pid,
                            .control = pair[0],
                            .config = -1,
                            .started_us = now,
                            .kill_at_us = now + SUPERVISOR_START_MS * 1000};
    supervisor->next = place;
    send_start(supervisor, child, config);
    return true;
}

static void send_sockets(const struct child *child, const struct held_address *held)
{
    for (unsigned at = 0; at < held->count;) {
        unsigned n = held->count - at < CONTROL_FDS ? held->count - at : CONTROL_FDS;
        control_send(child->control, CONTROL_SOCKETS, held->count - at - n, STR(""), held->fds + at, n, 0);
        at += n;
    }
}

static void listen_for(struct supervisor *supervisor, int place, struct control_message *message)
{
    struct child *child = &supervisor->children[place];
    struct addr addr;
    struct err err = {.what = "not an address"};
    struct held_address *held = NULL;
    if (addr_parse(str_of(message->text), &addr))
        held = sockets_use(&supervisor->sockets, &addr, message->value, (unsigned)place, &err);
    if (held)
        send_sockets(child, held);
    else
        control_send(child->control, CONTROL_REFUSED, 0, str_of(err.what), NULL, 0, 0);
}

static void replace_fd(int *fd, int by)
{
    if (*fd >= 0)
        close(*fd);
    *fd = by;
}

static void take_config(struct supervisor *supervisor, struct child *child, struct control_message *message)
{
    if (message->fd_count != 1)
        return;
    replace_fd(&child->config, message->fds[0]);
    message->fds[0] = -1;
    if (child->ready && !child->leaving) {
        replace_fd(&supervisor->config, child->config);
        child->config = -1;
    }
}

// Not while one is missing or starting: what a dead one has served, its successor will ask for.
static void sweep(struct supervisor *supervisor)
{
    if (supervisor->current >= 0 && supervisor->next < 0)
        sockets_sweep(&supervisor->sockets);
}

static void warn_of_unused(const struct supervisor *supervisor)
{
    char text[ADDR_TEXT_MAX];
    for (unsigned i = 0; i < supervisor->sockets.count; i++) {
        const struct held_address *held = &supervisor->sockets.v[i];
        if (held->given && !held->users) {
            addr_print(&held->addr, text);
            log_warn("supervisor", "%s was given by socket activation, and no listener has this address",
                     text);
        }
    }
}

static void on_ready(struct supervisor *supervisor, int place)
{
    struct child *child = &supervisor->children[place];
    if (place != supervisor->next)
        return;
    child->ready = true;
    child->kill_at_us = 0;
    int before = supervisor->current;
    supervisor->current = place;
    supervisor->next = -1;
    replace_fd(&supervisor->config, child->config);
    child->config = -1;
    uint64_t now = clock_monotonic_us();
    log_info("supervisor", "worker process %d is ready after %llu ms", child->pid,
             (unsigned long long)((now - child->started_us) / 1000));
    if (before >= 0) {
        supervisor->children[before].leaving = true;
        supervisor_tell(supervisor, before, CONTROL_HAND_OVER);
        log_info("supervisor", "upgrade: worker process %d has taken over from %d", child->pid,
                 supervisor->children[before].pid);
    }
    if (!supervisor->was_ready)
        warn_of_unused(supervisor);
    supervisor->was_ready = true;
    supervisor->upgrading = false;
    sweep(supervisor);
    if (supervisor->stopping)
        supervisor_tell(supervisor, place, supervisor->quitting ? CONTROL_QUIT : CONTROL_DRAIN);
    else
        notify_send("READY=1\nSTATUS=Serving with worker process %d", child->pid);
    if (supervisor->reload_wanted)
        supervisor_tell(supervisor, place, CONTROL_RELOAD);
    supervisor->reload_wanted = false;
}

static void on_reloaded(struct supervisor *supervisor, bool good)
{
    supervisor->last_reload_ok = good;
    if (good)
        supervisor->reloads_ok++;
    else
        supervisor->reloads_failed++;
    if (!supervisor->stopping)
        notify_send("READY=1\nSTATUS=%s",
                    good ? "Reloaded" : "The new configuration is bad: the last one stays");
}

static void on_message(struct supervisor *supervisor, int place, struct control_message *message)
{
    struct child *child = &supervisor->children[place];
    struct addr addr;
    switch (message->type) {
    case CONTROL_LISTEN: listen_for(supervisor, place, message); break;
    case CONTROL_RETIRE:
        if (addr_parse(str_of(message->text), &addr))
            sockets_retire(&supervisor->sockets, &addr, (unsigned)place);
        sweep(supervisor);
        break;
    case CONTROL_CONFIG: take_config(supervisor, child, message); break;
    case CONTROL_READY: on_ready(supervisor, place); break;
    case CONTROL_RELOADED: on_reloaded(supervisor, message->value == 1); break;
    case CONTROL_DRAINING:
        if (!supervisor->quitting)
            child->kill_at_us =
                clock_monotonic_us() + ((uint64_t)message->value + SUPERVISOR_GRACE_MS) * 1000;
        break;
    case CONTROL_STOP: kill(getpid(), SIGTERM); break; // one way for both
    default: log_warn("supervisor", "worker process %d says %d: not understood", child->pid, message->type);
    }
}

void supervisor_hear(struct supervisor *supervisor, int place)
{
    struct child *child = &supervisor->children[place];
    struct control_message message;
    enum control_result result;
    while ((result = control_recv(child->control, &message, 0)) == CONTROL_MESSAGE) {
        on_message(supervisor, place, &message);
        control_drop_fds(&message);
    }
    // Closed: it is about to end, and is waited for as a process. A closed socket is always readable, so it
    // must not be polled any more.
    if (result == CONTROL_CLOSED)
        replace_fd(&child->control, -1);
}

static void say_how_it_ended(const struct child *child, int status)
{
    const char *role = child->leaving ? "leaving worker process" : "worker process";
    if (WIFSIGNALED(status))
        log_error("supervisor", "%s %d was killed by SIG%s%s", role, child->pid,
                  sigabbrev_np(WTERMSIG(status)), WCOREDUMP(status) ? " (core dumped)" : "");
    else if (WEXITSTATUS(status) != 0)
        log_error("supervisor", "%s %d ended with status %d", role, child->pid, WEXITSTATUS(status));
    else
        log_info("supervisor", "%s %d ended", role, child->pid);
}

static void restart(struct supervisor *supervisor, bool early)
{
    supervisor->early_deaths = early ? supervisor->early_deaths + 1 : 0;
    supervisor->restarts++;
    uint64_t pause_ms = supervisor_pause_ms(supervisor->early_deaths);
    supervisor->restart_at_us = clock_monotonic_us() + pause_ms * 1000;
    if (pause_ms)
        log_warn("supervisor", "%u worker processes in a row died young: the next starts in %llu ms",
                 supervisor->early_deaths, (unsigned long long)pause_ms);
}

void supervisor_bury(struct supervisor *supervisor, int place, int status)
{
    struct child child = supervisor->children[place];
    bool bad = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    bool serving = place == supervisor->current, starting = place == supervisor->next;
    bool early = clock_monotonic_us() - child.started_us < SUPERVISOR_EARLY_MS * 1000;
    // The first one has said on stderr what is wrong with the configuration; nothing is to be added.
    if (supervisor->was_ready || supervisor->current >= 0 || WIFSIGNALED(status))
        say_how_it_ended(&child, status);
    if (child.control >= 0)
        close(child.control);
    if (child.config >= 0)
        close(child.config);
    supervisor->children[place] = (struct child){0};
    sockets_forget(&supervisor->sockets, (unsigned)place);
    if (serving)
        supervisor->current = -1;
    if (starting)
        supervisor->next = -1;

    if (supervisor->stopping) {
        if (bad && !supervisor->quitting && (serving || starting))
            log_error("supervisor", "it died while draining: its connections were cut");
        for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
            if (supervisor->children[i].pid)
                return;
        supervisor->exit_status = bad && !supervisor->quitting;
    } else if (starting && !supervisor->was_ready && supervisor->current < 0) {
        supervisor->exit_status = 1;
    } else if (starting && supervisor->current >= 0) {
        supervisor->upgrading = false;
        log_error("supervisor",
                  "upgrade: the new worker process did not become ready; worker process %d keeps serving",
                  supervisor->children[supervisor->current].pid);
    } else if ((serving || starting) && supervisor->next < 0) {
        restart(supervisor, early);
    }
    sweep(supervisor);
}
