#include "cli/supervisor.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "cli/notify.h"
#include "cli/upgrade.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(struct supervisor *supervisor, bool now)
{
    if (!supervisor->stopping)
        notify_send("STOPPING=1");
    supervisor->stopping = true;
    supervisor->restart_at_us = 0;
    if (supervisor->check)
        kill(supervisor->check, SIGKILL);
    bool alone = true;
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++) {
        struct child *child = &supervisor->children[i];
        if (!child->pid)
            continue;
        alone = false;
        if (now || !child->ready) {
            supervisor_tell(supervisor, i, CONTROL_QUIT);
            child->kill_at_us = clock_monotonic_us() + SUPERVISOR_QUIT_MS * 1000;
        } else if (!child->leaving) {
            supervisor_tell(supervisor, i, CONTROL_DRAIN);
        }
    }
    if (alone)
        supervisor->exit_status = 0;
}

static void reload(struct supervisor *supervisor)
{
    if (supervisor->stopping)
        return;
    notify_reloading();
    // A starting one may have read the file already; it is told again when it is ready.
    if (supervisor->next >= 0 || supervisor->current < 0)
        supervisor->reload_wanted = true;
    if (supervisor->current >= 0)
        supervisor_tell(supervisor, supervisor->current, CONTROL_RELOAD);
}

static void on_signal(struct supervisor *supervisor, int number)
{
    switch (number) {
    case SIGHUP:
        log_info("supervisor", "SIGHUP: reloading %s", supervisor->file);
        reload(supervisor);
        break;
    case SIGTERM:
    case SIGINT:
        log_info("supervisor", "SIG%s: %s", sigabbrev_np(number),
                 supervisor->stopping ? "stopping now" : "draining");
        supervisor->quitting = supervisor->stopping;
        stop(supervisor, supervisor->quitting);
        break;
    case SIGUSR1:
        for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
            if (supervisor->children[i].pid)
                supervisor_tell(supervisor, i, CONTROL_REOPEN);
        break;
    case SIGUSR2: upgrade_begin(supervisor); break;
    default: break; // SIGCHLD: reaped below
    }
}

static void read_signals(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    while (read(supervisor->signals, &info, sizeof info) == (ssize_t)sizeof info)
        on_signal(supervisor, (int)info.ssi_signo);
}

// Orphans of others too, where this is process 1 of a container.
static void reap(struct supervisor *supervisor)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == supervisor->check) {
            upgrade_checked(supervisor, status);
            continue;
        }
        for (int i = 0; i < SUPERVISOR_CHILDREN; i++) {
            if (supervisor->children[i].pid == pid) {
                supervisor_hear(supervisor, i); // its last words
                supervisor_bury(supervisor, i, status);
                break;
            }
        }
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return b && b < a ? b : a;
}

static int wait_ms(const struct supervisor *supervisor)
{
    uint64_t due = UINT64_MAX;
    due = earlier(due, supervisor->restart_at_us);
    due = earlier(due, supervisor->check ? supervisor->check_until_us : 0);
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
        due = earlier(due, supervisor->children[i].pid ? supervisor->children[i].kill_at_us : 0);
    if (due == UINT64_MAX)
        return -1;
    uint64_t now = clock_monotonic_us();
    uint64_t ms = due > now ? (due - now + 999) / 1000 : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static void on_deadlines(struct supervisor *supervisor)
{
    uint64_t now = clock_monotonic_us();
    if (supervisor->restart_at_us && supervisor->restart_at_us <= now) {
        supervisor->restart_at_us = 0;
        if (!supervisor_spawn(supervisor, supervisor->config))
            supervisor->restart_at_us = now + SUPERVISOR_RESTART_MAX_MS * 1000;
    }
    if (supervisor->check && supervisor->check_until_us <= now) {
        log_error("supervisor", "upgrade: the new binary's check takes longer than %d s",
                  SUPERVISOR_CHECK_MS / 1000);
        kill(supervisor->check, SIGKILL);
        supervisor->check_until_us = UINT64_MAX;
    }
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid && child->kill_at_us && child->kill_at_us <= now) {
            log_warn("supervisor", "worker process %d does not end: killing it", child->pid);
            kill(child->pid, SIGKILL);
            child->kill_at_us = 0;
        }
    }
}

static void turn(struct supervisor *supervisor)
{
    struct pollfd entries[1 + SUPERVISOR_CHILDREN];
    entries[0] = (struct pollfd){.fd = supervisor->signals, .events = POLLIN};
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++) {
        struct child *child = &supervisor->children[i];
        entries[1 + i] = (struct pollfd){.fd = child->pid ? child->control : -1, .events = POLLIN};
    }
    if (poll(entries, countof(entries), wait_ms(supervisor)) < 0 && errno != EINTR) {
        log_error("supervisor", "poll: %m");
        supervisor->exit_status = 1;
        return;
    }
    // Before the signals: who has seen a worker process ready and sends one finds that we know.
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
        if ((entries[0].revents || entries[1 + i].revents) && supervisor->children[i].pid)
            supervisor_hear(supervisor, i);
    if (entries[0].revents)
        read_signals(supervisor);
    reap(supervisor);
    on_deadlines(supervisor);
}

// Blocked for good and read from a descriptor; blocked ones are also kept for process 1, which has no default
// actions.
static bool take_signals(struct supervisor *supervisor)
{
    sigset_t set;
    sigemptyset(&set);
    const int numbers[] = {SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGCHLD};
    for (size_t i = 0; i < countof(numbers); i++) {
        signal(numbers[i], SIG_DFL); // nohup and the like: an ignored signal would never arrive
        sigaddset(&set, numbers[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    supervisor->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return supervisor->signals >= 0;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void finish(struct supervisor *supervisor)
{
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
        if (supervisor->children[i].pid)
            kill(supervisor->children[i].pid, SIGKILL);
    sockets_close(&supervisor->sockets);
    close(supervisor->signals);
    if (supervisor->config >= 0)
        close(supervisor->config);
    free(supervisor->binary);
    if (supervisor->was_ready)
        log_info("supervisor", "ended");
}

int supervisor_run(const char *file, int log_level, char **argv)
{
    struct supervisor supervisor = {.file = file,
                                    .argv = argv,
                                    .log_level = log_level,
                                    .current = -1,
                                    .next = -1,
                                    .config = -1,
                                    .last_reload_ok = true,
                                    .exit_status = -1};
    supervisor.binary = upgrade_binary_path(argv[0]);
    if (!take_signals(&supervisor)) {
        log_error("supervisor", "cannot take signals: %m");
        return 1;
    }
    raise_descriptor_limit();
    rand_secret(supervisor.secret, sizeof supervisor.secret);
    if (!upgrade_restore(&supervisor)) // which knows the one in use
        notify_take_sockets(&supervisor.sockets);
    if (!supervisor_spawn(&supervisor, -1)) {
        supervisor.upgrading = false;
        if (supervisor.current < 0)
            supervisor.exit_status = 1;
    }
    while (supervisor.exit_status < 0)
        turn(&supervisor);
    finish(&supervisor);
    return supervisor.exit_status;
}
