#include "cli/control.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct head {
    uint32_t type, value;
};

bool control_pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0;
}

static bool wait_for(int fd, short events, int wait_ms)
{
    struct pollfd entry = {.fd = fd, .events = events};
    int n;
    do
        n = poll(&entry, 1, wait_ms);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

bool control_send(int fd, enum control_type type, uint32_t value, struct str text, const int *fds,
                  unsigned fd_count, int wait_ms)
{
    check(text.n <= CONTROL_TEXT && fd_count <= CONTROL_FDS);
    struct head head = {(uint32_t)type, value};
    struct iovec iov[2] = {{&head, sizeof head}, {(void *)(uintptr_t)text.p, text.n}};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * CONTROL_FDS)];
    } ancillary = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = text.n ? 2 : 1};
    if (fd_count) {
        msg.msg_control = &ancillary;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_count);
    }
    for (;;) {
        if (sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return true;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN || wait_ms == 0 || !wait_for(fd, POLLOUT, wait_ms))
            return false;
    }
}

static void take_fds(struct msghdr *msg, struct control_message *message)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        check(message->fd_count + count <= CONTROL_FDS);
        memcpy(message->fds + message->fd_count, CMSG_DATA(cmsg), count * sizeof(int));
        message->fd_count += (unsigned)count;
    }
}

enum control_result control_recv(int fd, struct control_message *message, int wait_ms)
{
    struct head head;
    struct iovec iov[2] = {{&head, sizeof head}, {message->text, CONTROL_TEXT}};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * CONTROL_FDS)];
    } ancillary;
    for (;;) {
        struct msghdr msg = {
            .msg_iov = iov, .msg_iovlen = 2, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
        message->fd_count = 0;
        ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (wait_ms == 0 || !wait_for(fd, POLLIN, wait_ms))
                return CONTROL_NOTHING;
            continue;
        }
        if (n <= 0)
            return CONTROL_CLOSED;
        take_fds(&msg, message);
        if ((size_t)n < sizeof head ||
            msg.msg_flags & MSG_TRUNC) { // not ours, and no way to make sense of it
            control_drop_fds(message);
            continue;
        }
        if (msg.msg_flags & MSG_CTRUNC) // our descriptor table is full: some is as bad as none
            control_drop_fds(message);
        message->type = (enum control_type)head.type;
        message->value = head.value;
        message->text[(size_t)n - sizeof head] = '\0';
        return CONTROL_MESSAGE;
    }
}

void control_drop_fds(struct control_message *message)
{
    for (unsigned i = 0; i < message->fd_count; i++)
        if (message->fds[i] >= 0)
            close(message->fds[i]);
    message->fd_count = 0;
}
