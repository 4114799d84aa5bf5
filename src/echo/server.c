#include "echo/echo.h"

#include "base/clock.h"
#include "http/date.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void run_again(struct loop_task *task)
{
    struct echo *echo = container_of(task, struct echo, again_task);
    echo->again_posted = false;
    struct list now;
    list_init(&now);
    list_move_all(&echo->again, &now);
    struct list *node;
    while ((node = list_pop_front(&now)))
        client_run(container_of(node, struct client, again));
}

void echo_run_again(struct echo *echo, struct client *c)
{
    list_remove(&c->again);
    list_push_back(&echo->again, &c->again);
    if (!echo->again_posted) {
        echo->again_posted = true;
        loop_post(&echo->loop, &echo->again_task);
    }
}

bool echo_init(struct echo *echo, struct str name, struct err *err)
{
    *echo = (struct echo){
        .name = name,
        .healthy = true,
        .buffers.max = 256,
        .spares.max = 256,
        .again_task.run = run_again,
    };
    list_init(&echo->clients);
    list_init(&echo->again);
    rand_init(&echo->rand);
    outage_init(echo);
    return loop_init(&echo->loop, err) == ERR_OK;
}

static void on_accept(struct listener *listener, int fd, const struct addr *peer)
{
    (void)peer;
    struct door *door = container_of(listener, struct door, listener);
    struct echo *echo = container_of(listener->loop, struct echo, loop);
    if (door->closed) // a unix socket, which cannot refuse
        close(fd);
    else
        client_accept(echo, fd, door->control);
}

// Port 0 becomes a port by name, or the kernel would take it back when the door is closed. A socket that is
// bound and does not listen keeps it meanwhile.
static int listen_by_name(const struct addr *addr, struct err *err)
{
    bool any_port = addr->any.sa_family != AF_UNIX && addr->v4.sin_port == 0; // v6 has it at the same place
    if (!any_port)
        return listen_socket(addr, false, err);
    struct addr named = {.length = sizeof named.local};
    int keeper = socket(addr->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1;
    setsockopt(keeper, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(keeper, &addr->any, addr->length) == 0 && getsockname(keeper, &named.any, &named.length) == 0)
        fd = listen_socket(&named, false, err);
    else
        err_system(err, "--listen", "bind");
    if (keeper >= 0)
        close(keeper);
    return fd;
}

bool echo_listen(struct echo *echo, const struct addr *addr, bool control, struct err *err)
{
    if (echo->door_count == ECHO_LISTENERS) {
        err_set(err, ERR_LIMIT, "--listen", "at most %d addresses", ECHO_LISTENERS);
        return false;
    }
    int fd = listen_by_name(addr, err);
    if (fd < 0)
        return false;
    struct door *door = &echo->doors[echo->door_count];
    *door = (struct door){.listener.on_accept = on_accept, .fd = fd, .control = control};
    if (listener_start(&door->listener, &echo->loop, fd) != ERR_OK) {
        err_system(err, "--listen", "epoll");
        return false;
    }
    echo->door_count++;
    return true;
}

// ---- refusing

static bool is_tcp(int fd)
{
    struct sockaddr_storage at;
    socklen_t length = sizeof at;
    return getsockname(fd, (struct sockaddr *)&at, &length) == 0 && at.ss_family != AF_UNIX;
}

// A listening socket that is shut down answers with resets and keeps its port; it can listen again. Until
// then epoll would tell of it (EPOLLHUP) in every turn.
static void door_close(struct door *door)
{
    door->closed = true;
    if (!is_tcp(door->fd))
        return;
    listener_stop(&door->listener);
    shutdown(door->fd, SHUT_RDWR);
}

static void door_open(struct door *door)
{
    door->closed = false;
    if (is_tcp(door->fd))
        check(listen(door->fd, SOMAXCONN) == 0 &&
              listener_start(&door->listener, door->listener.loop, door->fd) == ERR_OK);
}

void echo_refuse(struct echo *echo, bool refuse)
{
    if (refuse == echo->refusing)
        return;
    echo->refusing = refuse;
    for (unsigned i = 0; i < echo->door_count; i++)
        if (!echo->doors[i].control)
            (refuse ? door_close : door_open)(&echo->doors[i]);
    list_each (&echo->clients, node) {
        struct client *c = container_of(node, struct client, node);
        if (refuse && !c->control)
            client_reset(c);
    }
}

void echo_fini(struct echo *echo)
{
    outage_end(echo);
    for (unsigned i = 0; i < echo->door_count; i++)
        listener_stop(&echo->doors[i].listener);
    list_each (&echo->clients, node)
        client_close(container_of(node, struct client, node));
    loop_turn(&echo->loop, 0); // frees them
    echo_forget_keys(echo);
    buf_free(&echo->json);
    buf_pool_fini(&echo->buffers);
    arena_spares_fini(&echo->spares);
    loop_fini(&echo->loop);
}

struct str echo_date(struct echo *echo)
{
    uint64_t second = echo->loop.now_us / 1000000;
    if (second != echo->date_second || !echo->date_length) {
        echo->date_length = http_date_print((int64_t)(clock_wall_us() / 1000000), echo->date).n;
        echo->date_second = second;
    }
    return (struct str){echo->date, echo->date_length};
}

void echo_forget_keys(struct echo *echo)
{
    struct map_entry *entry;
    for (size_t i = 0; map_next(&echo->keys, &i, &entry);) {
        free((char *)(uintptr_t)entry->key.p);
        free(entry->value);
    }
    map_fini(&echo->keys);
}

struct key_count *echo_key(struct echo *echo, struct str key)
{
    struct key_count *count = map_get(&echo->keys, key);
    if (count || echo->keys.count == ECHO_KEYS)
        return count;
    count = calloc(1, sizeof *count);
    check(count);
    map_put(&echo->keys, (struct str){str_dup(key), key.n}, count);
    return count;
}
