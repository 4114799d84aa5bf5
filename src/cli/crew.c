#include "cli/crew.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct crew_errand {
    struct loop_task task;
    struct crew_order *order;
    struct crew_member *member;
};

static _Thread_local struct worker *current_worker;

struct worker *crew_current_worker(void)
{
    return current_worker;
}

// ---- in a worker's thread ----

static void on_turn_end(struct loop_hook *hook)
{
    struct crew_member *member = container_of(hook, struct crew_member, hook);
    if (likely(!member->leaving) || member->empty)
        return;
    if (front_connection_count(member->front) == 0 && member->worker->live == 0) {
        member->empty = true;
        loop_post(member->crew->control, &member->empty_task);
    }
}

void crew_member_leave(struct crew_member *member)
{
    member->leaving = true;
}

static bool set_up(struct crew_member *member)
{
    struct crew *crew = member->crew;
    member->worker = worker_new(member->slot, crew->count, crew->gateway, crew->writer, &member->err);
    if (!member->worker)
        return false;
    current_worker = member->worker;
    member->front = front_new(member->worker);
    if (!member->front) {
        err_set(&member->err, ERR_MEMORY, "front", "out of memory");
        return false;
    }
    member->hook.on_turn_end = on_turn_end;
    loop_hook_add(&member->worker->loop, &member->hook);
    return true;
}

static void tear_down(struct crew_member *member)
{
    if (member->front)
        loop_turn(&member->worker->loop, 0); // orders given in the last moment
    member->leaving = false;
    if (member->front)
        front_free(member->front);
    if (member->worker) {
        loop_turn(&member->worker->loop, 0); // what was closed just now is freed at the end of a turn
        worker_free(member->worker);
    }
    current_worker = NULL;
}

static void *thread_main(void *context)
{
    struct crew_member *member = context;
    struct crew *crew = member->crew;
    bool good = set_up(member);
    sem_post(&crew->ready);
    while (sem_wait(&crew->go) != 0)
        ;
    if (good && !crew->failed)
        loop_run(&member->worker->loop);
    tear_down(member);
    return NULL;
}

static void run_errand(struct loop_task *task)
{
    struct crew_errand *errand = container_of(task, struct crew_errand, task);
    struct crew_order *order = errand->order;
    order->run(errand->member, order);
    if (atomic_fetch_sub(&order->remaining, 1) == 1)
        loop_post(order->crew->control, &order->done_task);
}

// ---- in the control thread ----

static void on_member_empty(struct loop_task *task)
{
    struct crew *crew = container_of(task, struct crew_member, empty_task)->crew;
    if (++crew->empty_count == crew->count)
        crew->on_empty(crew);
}

static void on_order_done(struct loop_task *task)
{
    struct crew_order *order = container_of(task, struct crew_order, done_task);
    order->crew->orders--;
    free(order->errands);
    order->done(order);
}

void crew_order(struct crew *crew, struct crew_order *order)
{
    order->crew = crew;
    order->done_task.run = on_order_done;
    order->errands = calloc(crew->count, sizeof *order->errands);
    check(order->errands);
    atomic_init(&order->remaining, crew->count);
    crew->orders++;
    struct crew_errand *errands = order->errands; // the order may be done before the last post returns
    for (unsigned i = 0; i < crew->count; i++) {
        errands[i] = (struct crew_errand){{.run = run_errand}, order, &crew->members[i]};
        loop_post(&crew->members[i].worker->loop, &errands[i].task);
    }
}

static void start_thread(struct crew *crew, unsigned slot)
{
    struct crew_member *member = &crew->members[slot];
    *member = (struct crew_member){.crew = crew, .slot = slot, .empty_task.run = on_member_empty};
    int error = pthread_create(&member->thread, NULL, thread_main, member);
    if (error) {
        errno = error;
        err_system(&member->err, "worker", "cannot start a thread");
        sem_post(&crew->ready);
        return;
    }
    member->started = true;
    char name[24]; // at most "worker-255": 15 bytes are what the kernel keeps
    snprintf(name, sizeof name, "worker-%u", slot);
    pthread_setname_np(member->thread, name);
}

enum err_code crew_start(struct crew *crew, struct err *err)
{
    unsigned count = crew->count;
    crew->members = calloc(count, sizeof *crew->members);
    check(crew->members);
    sem_init(&crew->ready, 0, 0);
    sem_init(&crew->go, 0, 0);
    for (unsigned i = 0; i < count; i++)
        start_thread(crew, i);
    for (unsigned i = 0; i < count; i++)
        while (sem_wait(&crew->ready) != 0)
            ;
    for (unsigned i = 0; i < count; i++) {
        if (crew->members[i].err.code == ERR_OK)
            continue;
        *err = crew->members[i].err;
        crew->failed = true;
    }
    for (unsigned i = 0; i < count; i++)
        sem_post(&crew->go);
    if (!crew->failed)
        return ERR_OK;
    for (unsigned i = 0; i < count; i++)
        if (crew->members[i].started)
            pthread_join(crew->members[i].thread, NULL);
    return err->code;
}

bool crew_stop(struct crew *crew)
{
    for (unsigned i = 0; i < crew->count; i++)
        loop_stop(&crew->members[i].worker->loop);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CREW_STOP_MS / 1000;
    for (unsigned i = 0; i < crew->count; i++) {
        if (pthread_timedjoin_np(crew->members[i].thread, NULL, &until) != 0) {
            log_error("worker", "thread %u does not end", i);
            return false;
        }
    }
    sem_destroy(&crew->ready);
    sem_destroy(&crew->go);
    free(crew->members);
    crew->members = NULL;
    return true;
}
