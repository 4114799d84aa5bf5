#include "cli/notify.h"

#include "base/clock.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_GIVEN_FD = 3 }; // SD_LISTEN_FDS_START

void notify_send(const char *format, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@')
        to.sun_path[0] = '\0'; // the abstract namespace
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    check(length > 0 && (size_t)length < sizeof text);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (sendto(fd, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&to, size) < 0)
        log_warn("supervisor", "cannot notify %s: %m", path);
    close(fd);
}

void notify_reloading(void)
{
    notify_send("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_monotonic_us());
}

static bool take_socket(struct sockets *sockets, int fd)
{
    struct addr addr = {0};
    socklen_t length = sizeof addr.local;
    int listening = 0;
    socklen_t size = sizeof listening;
    if (getsockname(fd, &addr.any, &length) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || !listening)
        return false;
    addr.length = length;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    sockets_adopt(sockets, &addr, fd, true, 0);
    return true;
}

void notify_take_sockets(struct sockets *sockets)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    uint64_t value = 0, fds = 0;
    if (pid && count && str_to_u64(str_of(pid), INT32_MAX, &value) && (pid_t)value == getpid() &&
        str_to_u64(str_of(count), 1024, &fds)) {
        for (int fd = FIRST_GIVEN_FD; fd < FIRST_GIVEN_FD + (int)fds; fd++)
            if (!take_socket(sockets, fd))
                log_warn("supervisor", "descriptor %d of LISTEN_FDS is no listening socket: left alone", fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}
