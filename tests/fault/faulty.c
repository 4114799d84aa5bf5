// LD_PRELOADed into a gateway: makes calls of the worker threads fail as the file named by FAULTY says. The
// test maps the same file and changes it while the gateway runs (tests/fault/faults.py).
//
// malloc, calloc, realloc and aligned_alloc count as one kind. Sanitizers bring their own allocator, which
// this cannot take over; the other kinds work under them too.
#include "../peers/shared_page.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum kind { NONE, MEMORY, SEND, RECV, CONNECT, ACCEPT, SOCKET, EPOLL_CTL, KIND_COUNT };

// Shared with the test; int32_t each.
struct control {
    _Atomic int32_t kind;  // which calls; NONE: all go well
    _Atomic int32_t pid;   // of this process only
    _Atomic int32_t skip;  // so many go well first
    _Atomic int32_t times; // then so many fail
    _Atomic int32_t error; // errno; 0: SEND and RECV take one byte only
    _Atomic int32_t failed;
};

static struct control *control;

__attribute__((constructor)) static void map_control(void)
{
    control = map_shared_page("FAULTY", sizeof *control);
}

static bool in_worker_thread(void)
{
    char name[16];
    return prctl(PR_GET_NAME, name) == 0 && strncmp(name, "worker-", 7) == 0;
}

// Whether this call is one that fails; errno is set then.
static bool fails(enum kind kind)
{
    if (!control || control->kind != (int32_t)kind || control->pid != getpid() || !in_worker_thread())
        return false;
    if (atomic_fetch_sub(&control->skip, 1) > 0)
        return false;
    if (atomic_fetch_sub(&control->times, 1) <= 0)
        return false;
    atomic_fetch_add(&control->failed, 1);
    errno = control->error;
    return true;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#ifdef FAULTY_MEMORY
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
    return fails(MEMORY) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return fails(MEMORY) ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    return fails(MEMORY) ? NULL : __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    return fails(MEMORY) ? NULL : __libc_memalign(alignment, n);
}
#endif

ssize_t send(int fd, const void *data, size_t n, int flags)
{
    bool failing = fails(SEND);
    if (failing && errno)
        return -1;
    return NEXT(send)(fd, data, failing && n ? 1 : n, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (!fails(SEND))
        return NEXT(sendmsg)(fd, message, flags);
    if (errno)
        return -1;
    return NEXT(send)(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len ? 1 : 0, flags);
}

ssize_t recv(int fd, void *data, size_t n, int flags)
{
    bool failing = fails(RECV);
    if (failing && errno)
        return -1;
    return NEXT(recv)(fd, data, failing && n ? 1 : n, flags);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    return fails(CONNECT) ? -1 : NEXT(connect)(fd, address, length);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    return fails(ACCEPT) ? -1 : NEXT(accept4)(fd, address, length, flags);
}

int socket(int family, int type, int protocol)
{
    return fails(SOCKET) ? -1 : NEXT(socket)(family, type, protocol);
}

int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    // The kernel needs memory to add a descriptor, but not to change or remove one.
    return operation == EPOLL_CTL_ADD && fails(EPOLL_CTL) ? -1
                                                          : NEXT(epoll_ctl)(epoll_fd, operation, fd, event);
}
