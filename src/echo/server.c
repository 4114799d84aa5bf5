#include "echo/echo.h"

#include "base/clock.h"

#include <stdlib.h>
#include <time.h>

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
    return loop_init(&echo->loop, err) == ERR_OK;
}

static void on_accept(struct listener *listener, int fd, const struct addr *peer)
{
    (void)peer;
    client_accept(container_of(listener->loop, struct echo, loop), fd);
}

bool echo_listen(struct echo *echo, const struct addr *addr, struct err *err)
{
    if (echo->listener_count == ECHO_LISTENERS) {
        err_set(err, ERR_LIMIT, "--listen", "at most %d addresses", ECHO_LISTENERS);
        return false;
    }
    int fd = listen_socket(addr, false, err);
    if (fd < 0)
        return false;
    struct listener *listener = &echo->listeners[echo->listener_count];
    listener->on_accept = on_accept;
    if (listener_start(listener, &echo->loop, fd) != ERR_OK) {
        err_system(err, "--listen", "epoll");
        return false;
    }
    echo->listener_count++;
    return true;
}

void echo_fini(struct echo *echo)
{
    for (unsigned i = 0; i < echo->listener_count; i++)
        listener_stop(&echo->listeners[i]);
    list_each (&echo->clients, node)
        client_close(container_of(node, struct client, node));
    loop_turn(&echo->loop, 0); // frees them
    struct map_entry *entry;
    for (size_t i = 0; map_next(&echo->keys, &i, &entry);) {
        free((char *)(uintptr_t)entry->key.p);
        free(entry->value);
    }
    map_fini(&echo->keys);
    buf_free(&echo->json);
    buf_pool_fini(&echo->buffers);
    arena_spares_fini(&echo->spares);
    loop_fini(&echo->loop);
}

struct str echo_date(struct echo *echo)
{
    uint64_t second = echo->loop.now_us / 1000000;
    if (second != echo->date_second || !echo->date_length) {
        time_t now = (time_t)(clock_wall_us() / 1000000);
        struct tm tm;
        gmtime_r(&now, &tm);
        echo->date_length = strftime(echo->date, sizeof echo->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        echo->date_second = second;
    }
    return (struct str){echo->date, echo->date_length};
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
