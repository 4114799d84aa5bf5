/*
 * sink LISTEN FILE: a log server, such as a proxy that does not write files itself sends its log to.
 *
 * Takes TCP connections and appends what comes over them to FILE, as it comes. Its CPU time is nobody's row
 * in the table: it runs beside the load, as a syslog daemon runs beside a proxy.
 */

#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS     16
#define READ_BYTES (256 * 1024)

static char bytes[READ_BYTES];

static void drain(int from, int file)
{
    ssize_t n = recv(from, bytes, sizeof bytes, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        close(from);
    for (ssize_t at = 0; at < n;) {
        ssize_t written = write(file, bytes + at, (size_t)(n - at));
        if (written <= 0)
            die("write");
        at += written;
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: sink LISTEN FILE    (LISTEN as 127.0.0.1:8080)\n");
        return 2;
    }
    struct sockaddr_in own = sock_address(argv[1]);
    int listener = sock_listen(&own);
    int file = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    if (file < 0 || epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e) != 0)
        die("cannot begin");
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != listener) {
                drain(events[i].data.fd, file);
                continue;
            }
            int fd = sock_accept(listener);
            struct epoll_event from = {.events = EPOLLIN, .data.fd = fd};
            if (fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &from) != 0)
                die("epoll_ctl");
        }
    }
}
