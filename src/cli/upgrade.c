#include "cli/upgrade.h"

#include "base/clock.h"
#include "base/log.h"
#include "cli/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE "SALLYPORT_UPGRADE"

extern char **environ;

static char *absolute(const char *path)
{
    char directory[PATH_MAX], *out = NULL;
    if (path[0] == '/')
        return strdup(path);
    if (!getcwd(directory, sizeof directory) || asprintf(&out, "%s/%s", directory, path) < 0)
        return NULL;
    return out;
}

static char *search(const char *name)
{
    const char *path = getenv("PATH");
    char candidate[PATH_MAX];
    for (struct str rest = str_of(path); rest.n;) {
        size_t n = str_find(rest, ':');
        if (n &&
            snprintf(candidate, sizeof candidate, "%.*s/%s", (int)n, rest.p, name) < (int)sizeof candidate &&
            access(candidate, X_OK) == 0)
            return absolute(candidate);
        rest = str_skip(rest, n < rest.n ? n + 1 : n);
    }
    return NULL;
}

char *upgrade_binary_path(const char *argv0)
{
    char *path = strchr(argv0, '/') ? absolute(argv0) : search(argv0);
    if (path && access(path, X_OK) == 0)
        return path;
    free(path);
    char link[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", link, sizeof link - 1);
    if (n < 0)
        return strdup(argv0);
    link[n] = '\0';
    return strdup(link);
}

void upgrade_begin(struct supervisor *supervisor)
{
    const char *why = supervisor->stopping                               ? "the program is draining"
                      : supervisor->check || supervisor->upgrading       ? "an upgrade is under way"
                      : supervisor->current < 0 || supervisor->next >= 0 ? "no worker process is ready"
                                                                         : NULL;
    if (why) {
        log_warn("supervisor", "SIGUSR2: not now, %s", why);
        return;
    }
    log_info("supervisor", "SIGUSR2: upgrade: checking %s with %s", supervisor->file, supervisor->binary);
    pid_t pid = fork();
    if (pid < 0) {
        log_error("supervisor", "upgrade: %m");
        return;
    }
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execl(supervisor->binary, supervisor->argv[0], "check", "-c", supervisor->file, (char *)NULL);
        log_error("supervisor", "upgrade: cannot execute %s: %m", supervisor->binary);
        _exit(127);
    }
    supervisor->check = pid;
    supervisor->check_until_us = clock_monotonic_us() + SUPERVISOR_CHECK_MS * 1000;
}

// Open across execve: everything in the description.
static void set_inherited(const struct supervisor *supervisor, bool inherited)
{
    int flags = inherited ? 0 : FD_CLOEXEC;
    for (unsigned i = 0; i < supervisor->sockets.count; i++)
        for (unsigned k = 0; k < supervisor->sockets.v[i].count; k++)
            fcntl(supervisor->sockets.v[i].fds[k], F_SETFD, flags);
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++)
        if (supervisor->children[i].pid && supervisor->children[i].control >= 0)
            fcntl(supervisor->children[i].control, F_SETFD, flags);
    if (supervisor->config >= 0)
        fcntl(supervisor->config, F_SETFD, flags);
}

static void execute(struct supervisor *supervisor)
{
    int fd = upgrade_write(supervisor);
    char number[16];
    if (fd < 0) {
        log_error("supervisor", "upgrade: no memory file: %m");
        return;
    }
    snprintf(number, sizeof number, "%d", fd);
    setenv(VARIABLE, number, 1);
    set_inherited(supervisor, true);
    fcntl(fd, F_SETFD, 0);
    execve(supervisor->binary, supervisor->argv, environ);
    int error = errno;
    set_inherited(supervisor, false);
    unsetenv(VARIABLE);
    close(fd);
    errno = error;
    log_error("supervisor", "upgrade: cannot execute %s: %m; nothing has changed", supervisor->binary);
}

void upgrade_checked(struct supervisor *supervisor, int status)
{
    supervisor->check = 0;
    if (supervisor->stopping)
        return;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && supervisor->current >= 0 && supervisor->next < 0)
        execute(supervisor);
    else
        log_error("supervisor", "upgrade: the new binary does not accept %s; nothing has changed",
                  supervisor->file);
}

int upgrade_write(const struct supervisor *supervisor)
{
    int fd = memfd_create("sallyport-upgrade", MFD_CLOEXEC), copy = fd >= 0 ? dup(fd) : -1;
    FILE *file = copy >= 0 ? fdopen(copy, "w") : NULL;
    if (!file)
        return -1;
    fprintf(file, "sallyport-upgrade 1\ncounts %" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n",
            supervisor->restarts, supervisor->reloads_ok, supervisor->reloads_failed,
            supervisor->last_reload_ok);
    char secret[SECRET_HEX_SIZE];
    secret_to_hex(supervisor->secret, secret);
    fprintf(file, "secret %s\n", secret);
    explicit_bzero(secret, sizeof secret);
    if (supervisor->config >= 0)
        fprintf(file, "config %d\n", supervisor->config);
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++) {
        const struct child *child = &supervisor->children[i];
        if (child->pid)
            fprintf(file, "worker %d %d %d %" PRIu64 " %" PRIu64 " %s\n", i, child->pid, child->control,
                    child->started_us, child->kill_at_us, i == supervisor->current ? "current" : "leaving");
    }
    for (unsigned i = 0; i < supervisor->sockets.count; i++) {
        const struct held_address *held = &supervisor->sockets.v[i];
        char text[ADDR_TEXT_MAX];
        addr_print(&held->addr, text);
        for (unsigned k = 0; k < held->count; k++)
            fprintf(file, "socket %d %u %d %s\n", held->fds[k], held->users, held->given, text);
    }
    bool good = !ferror(file);
    good = fclose(file) == 0 && good;
    if (!good) {
        close(fd);
        return -1;
    }
    return fd;
}

static void keep(int fd)
{
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void read_worker(struct supervisor *supervisor, const char *line)
{
    int place, pid, control;
    char role[16];
    struct child child = {.config = -1, .ready = true};
    if (sscanf(line, "worker %d %d %d %" SCNu64 " %" SCNu64 " %15s", &place, &pid, &control,
               &child.started_us, &child.kill_at_us, role) != 6 ||
        place < 0 || place >= SUPERVISOR_CHILDREN || pid <= 0)
        return;
    child.pid = pid;
    child.control = control;
    child.leaving = strcmp(role, "current") != 0;
    if (control >= 0)
        keep(control);
    supervisor->children[place] = child;
    if (!child.leaving)
        supervisor->current = place;
}

static void read_line(struct supervisor *supervisor, const char *line)
{
    int fd, given, ok, at = 0;
    unsigned users;
    struct addr addr;
    if (sscanf(line, "socket %d %u %d %n", &fd, &users, &given, &at) == 3 && at &&
        addr_parse(str_of(line + at), &addr)) {
        keep(fd);
        sockets_adopt(&supervisor->sockets, &addr, fd, given, users);
    } else if (strncmp(line, "secret ", 7) == 0) {
        secret_of_hex(line + 7, supervisor->secret);
    } else if (sscanf(line, "config %d", &fd) == 1) {
        keep(fd);
        supervisor->config = fd;
    } else if (sscanf(line, "counts %" SCNu64 " %" SCNu64 " %" SCNu64 " %d", &supervisor->restarts,
                      &supervisor->reloads_ok, &supervisor->reloads_failed, &ok) == 4) {
        supervisor->last_reload_ok = ok;
    } else {
        read_worker(supervisor, line);
    }
}

bool upgrade_read(struct supervisor *supervisor, int fd)
{
    FILE *file = fdopen(fd, "r");
    if (!file) {
        close(fd);
        return false;
    }
    rewind(file);
    char line[512];
    bool ours = fgets(line, sizeof line, file) && strncmp(line, "sallyport-upgrade ", 18) == 0;
    while (ours && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        read_line(supervisor, line);
    }
    fclose(file);
    return ours;
}

bool upgrade_restore(struct supervisor *supervisor)
{
    const char *number = getenv(VARIABLE);
    uint64_t fd = 0;
    bool given = number && str_to_u64(str_of(number), INT_MAX, &fd) && fcntl((int)fd, F_GETFD) >= 0;
    unsetenv(VARIABLE);
    if (!given || !upgrade_read(supervisor, (int)fd))
        return false;
    supervisor->was_ready = true;
    supervisor->upgrading = supervisor->current >= 0;
    log_info("supervisor", "upgrade: running " SALLYPORT_VERSION " as process %d", getpid());
    return true;
}
