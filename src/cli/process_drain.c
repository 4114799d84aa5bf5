#include "cli/process.h"

#include "base/log.h"

#include <stdlib.h>

enum { ABORT_MS = 1000 }; // what closing every connection gets

struct farewell {
    struct crew_order order;
    struct process *process;
};

static void order(struct process *process, void (*run)(struct crew_member *member, struct crew_order *order),
                  void (*done)(struct crew_order *order))
{
    struct farewell *farewell = calloc(1, sizeof *farewell);
    check(farewell);
    farewell->process = process;
    farewell->order.run = run;
    farewell->order.done = done;
    crew_order(&process->crew, &farewell->order);
}

// ---- in each worker's thread ----

static void finish_connections(struct crew_member *member, struct crew_order *order)
{
    (void)order;
    worker_drain(member->worker);
    front_drain(member->front);
    crew_member_leave(member);
}

static void cut_connections(struct crew_member *member, struct crew_order *order)
{
    (void)order;
    front_abort(member->front);
    crew_member_leave(member);
}

// ---- in the control thread ----

static void on_told(struct crew_order *order)
{
    struct farewell *farewell = container_of(order, struct farewell, order);
    // Nobody accepts any more: the supervisor closes the sockets too, unless a successor serves them, so that
    // clients are refused at once instead of waiting in a queue.
    process_unlisten(farewell->process);
    process_sweep(farewell->process);
    free(farewell);
}

static uint64_t timeout_ms(const struct process *process)
{
    return process->host.gateway->settings.drain.timeout_us / 1000;
}

static void stop_accepting(struct process *process)
{
    process->leaving = LEAVING_DRAIN;
    process->host.listening = 0;
    order(process, finish_connections, on_told);
    loop_timer_set(&process->loop, &process->leave_timer, timeout_ms(process));
}

static void cut(struct process *process)
{
    process->leaving = LEAVING_ABORT;
    process->host.listening = 0;
    order(process, cut_connections, on_told);
    loop_timer_set(&process->loop, &process->leave_timer, ABORT_MS);
}

void process_on_leave_timer(struct loop_timer *timer)
{
    struct process *process = container_of(timer, struct process, leave_timer);
    switch (process->leaving) {
    case LEAVING_DELAY: stop_accepting(process); break;
    case LEAVING_DRAIN:
        log_warn("worker", "drain.timeout is over: the remaining connections are cut");
        cut(process);
        break;
    case LEAVING_ABORT: loop_stop(&process->loop); break;
    case LEAVING_NOT: break;
    }
}

// Not from within the turn's events: one of them may be for a listener that is freed here.
static void release_admin(struct loop_task *task)
{
    struct process *process = container_of(task, struct process, release_task);
    admin_free(process->admin);
    process->admin = NULL;
}

void process_drain(struct process *process, bool at_once)
{
    if (process->leaving != LEAVING_NOT && !(process->leaving == LEAVING_DELAY && at_once))
        return;
    uint64_t delay_ms = at_once ? 0 : process->host.gateway->settings.drain.delay_us / 1000;
    process->host.state = ADMIN_DRAINING;
    uint64_t most_ms = delay_ms + timeout_ms(process) + ABORT_MS;
    process_tell(process, CONTROL_DRAINING, most_ms < UINT32_MAX ? (uint32_t)most_ms : UINT32_MAX, STR(""),
                 -1);
    if (at_once && process->admin) { // the ports are the successor's, or for whoever is started next
        process->release_task.run = release_admin;
        loop_post(&process->loop, &process->release_task);
    }
    if (delay_ms == 0) {
        stop_accepting(process);
        return;
    }
    process->leaving = LEAVING_DELAY;
    loop_timer_set(&process->loop, &process->leave_timer, delay_ms);
}

void process_quit(struct process *process)
{
    if (process->leaving == LEAVING_ABORT)
        return;
    process->host.state = ADMIN_DRAINING;
    cut(process);
}

void process_on_empty(struct crew *crew)
{
    struct process *process = crew->context;
    log_info("worker", "no connection is left");
    loop_stop(&process->loop);
}
