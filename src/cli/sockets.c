#include "cli/sockets.h"

#include "net/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_local(const struct addr *addr)
{
    return addr->any.sa_family == AF_UNIX;
}

static bool is_any_v4(const struct addr *addr)
{
    return addr->any.sa_family == AF_INET && addr->v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

// [::]:80 of systemd's ListenStream=80 takes IPv4 too, so it is what the configuration calls 0.0.0.0:80.
static bool covers(const struct held_address *held, const struct addr *addr)
{
    return held->given && is_any_v4(addr) && held->addr.any.sa_family == AF_INET6 &&
           IN6_IS_ADDR_UNSPECIFIED(&held->addr.v6.sin6_addr) && held->addr.v6.sin6_port == addr->v4.sin_port;
}

struct held_address *sockets_find(struct sockets *sockets, const struct addr *addr)
{
    for (unsigned i = 0; i < sockets->count; i++)
        if (addr_eq(&sockets->v[i].addr, addr))
            return &sockets->v[i];
    for (unsigned i = 0; i < sockets->count; i++)
        if (covers(&sockets->v[i], addr))
            return &sockets->v[i];
    return NULL;
}

static struct held_address *add_address(struct sockets *sockets, const struct addr *addr)
{
    if (sockets->count == sockets->capacity) {
        sockets->capacity = sockets->capacity ? sockets->capacity * 2 : 8;
        sockets->v = realloc(sockets->v, sockets->capacity * sizeof *sockets->v);
        check(sockets->v);
    }
    struct held_address *held = &sockets->v[sockets->count++];
    *held = (struct held_address){.addr = *addr, .fds = calloc(SOCKETS_PER_ADDRESS, sizeof(int))};
    check(held->fds);
    return held;
}

static void drop_address(struct sockets *sockets, struct held_address *held)
{
    for (unsigned i = 0; i < held->count; i++)
        close(held->fds[i]);
    if (is_local(&held->addr) && !held->given && held->addr.local.sun_path[0])
        unlink(held->addr.local.sun_path);
    free(held->fds);
    *held = sockets->v[--sockets->count];
}

// SO_REUSEPORT would let a second gateway of the same user take half of the first one's connections without a
// word, and a unix socket that somebody still listens on would be replaced like a stale one. A bind without
// SO_REUSEPORT fails when anybody listens there; a connect to a unix socket succeeds.
static bool is_free(const struct addr *addr, struct err *err)
{
    int fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true; // listen_socket will say what is wrong
    bool taken;
    if (is_local(addr)) {
        taken = connect(fd, &addr->any, addr->length) == 0 || errno == EAGAIN;
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
        if (addr->any.sa_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int));
        taken = bind(fd, &addr->any, addr->length) != 0 && errno == EADDRINUSE;
    }
    close(fd);
    if (!taken)
        return true;
    char text[ADDR_TEXT_MAX];
    addr_print(addr, text);
    err_set(err, ERR_BUSY, text, "address already in use");
    return false;
}

struct held_address *sockets_use(struct sockets *sockets, const struct addr *addr, unsigned count,
                                 unsigned user, struct err *err)
{
    struct held_address *held = sockets_find(sockets, addr);
    if (!held) {
        if (!is_free(addr, err))
            return NULL;
        held = add_address(sockets, addr);
    }
    unsigned want = is_local(addr) ? 1 : count;
    if (want > SOCKETS_PER_ADDRESS)
        want = SOCKETS_PER_ADDRESS;
    unsigned before = held->count;
    while (!held->given && held->count < want) {
        int fd = listen_socket(addr, true, err);
        if (fd < 0) {
            if (before == 0)
                drop_address(sockets, held);
            return NULL;
        }
        held->fds[held->count++] = fd;
    }
    held->users |= 1U << user;
    return held;
}

void sockets_adopt(struct sockets *sockets, const struct addr *addr, int fd, bool given, uint32_t users)
{
    struct held_address *held = NULL;
    for (unsigned i = 0; i < sockets->count && !held; i++)
        if (addr_eq(&sockets->v[i].addr, addr))
            held = &sockets->v[i];
    if (!held)
        held = add_address(sockets, addr);
    held->given = held->given || given;
    held->users |= users;
    if (held->count < SOCKETS_PER_ADDRESS)
        held->fds[held->count++] = fd;
    else
        close(fd);
}

void sockets_retire(struct sockets *sockets, const struct addr *addr, unsigned user)
{
    struct held_address *held = sockets_find(sockets, addr);
    if (held)
        held->users &= ~(1U << user);
}

void sockets_forget(struct sockets *sockets, unsigned user)
{
    for (unsigned i = 0; i < sockets->count; i++)
        sockets->v[i].users &= ~(1U << user);
}

void sockets_sweep(struct sockets *sockets)
{
    for (unsigned i = sockets->count; i-- > 0;)
        if (!sockets->v[i].users && !sockets->v[i].given)
            drop_address(sockets, &sockets->v[i]);
}

void sockets_close(struct sockets *sockets)
{
    while (sockets->count)
        drop_address(sockets, &sockets->v[sockets->count - 1]);
    free(sockets->v);
    *sockets = (struct sockets){0};
}
