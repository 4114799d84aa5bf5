#include "loop/loop.h"

#include "base/clock.h"
#include "loop/wheel.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_wake(struct loop_source *source, uint32_t events)
{
    struct loop *loop = container_of(source, struct loop, wake);
    (void)events;
    uint64_t count;
    // Before the queue is looked at: a post from now on writes again.
    if (read(source->fd, &count, sizeof count) < 0)
        check(errno == EAGAIN);
    atomic_exchange(&loop->woken, false); // reads it, too: sees every post before the one that set it
}

// ---- lag ----

// Ready descriptors are served in the order in which they became ready: one of our own that joins the end of
// the line tells how long the line is. Edge-triggered, so that it need not be read.
static void on_probe(struct loop_source *source, uint32_t events)
{
    struct loop *loop = container_of(source, struct loop, probe);
    (void)events;
    if (!loop->probe_sent_us)
        return;
    loop->lag_us = loop->now_us - loop->probe_sent_us;
    loop->probe_sent_us = 0;
}

// There was more to do than one turn does.
static void send_probe(struct loop *loop, uint64_t now_us)
{
    uint64_t one = 1;
    if (!loop->probe_sent_us && write(loop->probe.fd, &one, sizeof one) == sizeof one)
        loop->probe_sent_us = now_us;
}

static void measure_lag(struct loop *loop, uint64_t took_us, bool full)
{
    uint64_t now_us = loop->now_us + took_us;
    uint64_t waits_us = loop->probe_sent_us ? now_us - loop->probe_sent_us : 0;
    bool more_to_come = full || loop->probe_sent_us;
    uint64_t least_us = took_us > waits_us ? took_us : waits_us;
    if (!more_to_come || loop->lag_us < least_us)
        loop->lag_us = least_us;
    if (full)
        send_probe(loop, now_us);
}

enum err_code loop_init(struct loop *loop, struct err *err)
{
    *loop = (struct loop){.epoll_fd = -1, .wake_fd = -1, .probe.fd = -1};
    list_init(&loop->hooks);
    list_init(&loop->late);
    loop->now_us = clock_monotonic_us();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop->wake = (struct loop_source){.fd = loop->wake_fd, .on_event = on_wake};
    loop->probe = (struct loop_source){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .on_event = on_probe};
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->probe.fd < 0 ||
        loop_add(loop, &loop->wake, EPOLLIN) != ERR_OK ||
        loop_add(loop, &loop->probe, EPOLLIN | EPOLLET) != ERR_OK) {
        err_system(err, "loop", "epoll or eventfd");
        loop_fini(loop);
        return ERR_SYSTEM;
    }
    if (!wheel_init(loop)) {
        loop_fini(loop);
        return err_set(err, ERR_MEMORY, "loop", "no memory for the timer wheel");
    }
    return ERR_OK;
}

void loop_fini(struct loop *loop)
{
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->probe.fd >= 0)
        close(loop->probe.fd);
    free(loop->slots);
    *loop = (struct loop){.epoll_fd = -1, .wake_fd = -1, .probe.fd = -1};
}

enum err_code loop_add(struct loop *loop, struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0 ? ERR_OK : ERR_SYSTEM;
}

void loop_modify(struct loop *loop, struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    check(epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) == 0);
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
    if (source->fd < 0)
        return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = -1;
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    struct loop_task *head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do
        task->next = head;
    while (!atomic_compare_exchange_weak_explicit(&loop->posted, &head, task, memory_order_release,
                                                  memory_order_relaxed));
    if (!atomic_exchange(&loop->woken, true)) {
        uint64_t one = 1;
        check(write(loop->wake_fd, &one, sizeof one) == sizeof one);
    }
}

// In order of posting.
static struct loop_task *take_posted(struct loop *loop)
{
    struct loop_task *task = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire),
                     *ordered = NULL;
    while (task) { // the newest is first: turn round
        struct loop_task *next = task->next;
        task->next = ordered;
        ordered = task;
        task = next;
    }
    return ordered;
}

void loop_withdraw(struct loop *loop, struct loop_task *task)
{
    struct loop_task **at = &loop->running;
    while (*at && *at != task)
        at = &(*at)->next;
    if (*at) {
        *at = task->next;
        return;
    }
    for (struct loop_task *other = take_posted(loop); other;) {
        struct loop_task *next = other->next;
        if (other != task)
            loop_post(loop, other);
        other = next;
    }
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    if (!atomic_exchange(&loop->woken, true)) {
        uint64_t one = 1;
        check(write(loop->wake_fd, &one, sizeof one) == sizeof one);
    }
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    task->next = loop->deferred;
    loop->deferred = task;
}

void loop_hook_add(struct loop *loop, struct loop_hook *hook)
{
    list_push_back(&loop->hooks, &hook->node);
}

void loop_late_init(struct loop_late *late, void (*run)(struct loop_late *late))
{
    list_init(&late->node);
    late->run = run;
}

void loop_late(struct loop *loop, struct loop_late *late)
{
    list_remove(&late->node);
    list_push_back(&loop->late, &late->node);
}

void loop_late_cancel(struct loop_late *late)
{
    list_remove(&late->node);
}

static void run_late(struct loop *loop)
{
    for (unsigned round = 0; round < LOOP_LATE_ROUNDS && !list_empty(&loop->late); round++) {
        struct list now, *node;
        list_init(&now);
        list_move_all(&loop->late, &now);
        while ((node = list_pop_front(&now))) {
            struct loop_late *late = container_of(node, struct loop_late, node);
            late->run(late);
        }
    }
}

// Whether there may be more than it took.
static bool run_events(struct loop *loop, uint64_t wait_ms)
{
    struct epoll_event events[LOOP_EVENTS];
    int n = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS, (int)wait_ms);
    check(n >= 0 || errno == EINTR);
    loop->now_us = clock_monotonic_us();
    for (int i = 0; i < n; i++) {
        struct loop_source *source = events[i].data.ptr;
        if (source->fd >= 0) // removed by an earlier event of this turn?
            source->on_event(source, events[i].events);
    }
    return n == LOOP_EVENTS;
}

static void run_posted(struct loop *loop)
{
    loop->running = take_posted(loop);
    while (loop->running) {
        struct loop_task *task = loop->running;
        loop->running = task->next;
        task->run(task);
    }
}

static void run_hooks(struct loop *loop)
{
    list_each (&loop->hooks, node) {
        struct loop_hook *hook = container_of(node, struct loop_hook, node);
        hook->on_turn_end(hook);
    }
}

static void run_deferred(struct loop *loop)
{
    while (loop->deferred) {
        struct loop_task *task = loop->deferred;
        loop->deferred = task->next;
        task->run(task);
    }
}

void loop_turn(struct loop *loop, uint64_t wait_ms)
{
    if (atomic_load_explicit(&loop->posted, memory_order_relaxed) || !list_empty(&loop->late))
        wait_ms = 0;
    bool full = run_events(loop, wheel_wait_ms(loop, wait_ms));
    wheel_advance(loop);
    run_posted(loop);
    run_late(loop);
    run_hooks(loop);
    run_deferred(loop);
    uint64_t took_us = clock_monotonic_us() - loop->now_us;
    loop->turns++;
    loop->busy_us += took_us;
    if (took_us > loop->longest_turn_us)
        loop->longest_turn_us = took_us;
    measure_lag(loop, took_us, full);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load_explicit(&loop->stopping, memory_order_relaxed))
        loop_turn(loop, LOOP_IDLE_MS);
}
