// What the gateways on one Redis tell each other about rate limits (limit/gateways.h), on the control thread.
#include "cli/process.h"

#include "limit/gateways.h"

enum {
    LOOK_MS = 5,
    FIRST_MS = 500, // so long a start waits for Redis; then limits go by on_redis_down
};

bool process_use_limits(struct process *process, const struct gateway *gateway, struct config_report *report)
{
    struct limit_gateways *before = process->host.gateways, *next = NULL;
    struct err err = {0};
    if (gateway->settings.has_redis && gateway->limits.any_shared) {
        const struct redis_access access = process_redis_access(process, gateway);
        gateway_files_read_from(&gateway->files);
        next = limit_gateways_new(&access, &err);
        gateway_files_read_from(NULL);
        if (!next)
            return process_refuse_redis(process, gateway, &err, report);
    }
    if (before && next && limit_gateways_is_same(before, next)) {
        limit_gateways_free(next);
        return true;
    }
    process->host.gateways = next;
    limit_gateways_free(before);
    return true;
}

static void look(struct process *process)
{
    struct limit_watch *watch = &process->limits;
    struct limit_seed seed = {0};
    bool is_over =
        !process->host.gateways || limit_seed_get(&seed) || loop_now_ms(&process->loop) >= watch->until_ms;
    if (!is_over) {
        loop_timer_set(&process->loop, &watch->timer, LOOK_MS);
        return;
    }
    watch->done(process);
}

static void on_timer(struct loop_timer *timer)
{
    look(container_of(timer, struct process, limits.timer));
}

void process_await_limits(struct process *process, void (*done)(struct process *process))
{
    struct limit_watch *watch = &process->limits;
    watch->done = done;
    watch->until_ms = loop_now_ms(&process->loop) + FIRST_MS;
    loop_timer_init(&watch->timer, on_timer);
    look(process);
}

void process_end_limits(struct process *process)
{
    loop_timer_stop(&process->loop, &process->limits.timer);
    limit_gateways_free(process->host.gateways);
    process->host.gateways = NULL;
}
