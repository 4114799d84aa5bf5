// The keys of Auth Services, fetched on the control thread; a start waits for the first ones.
#include "cli/process.h"

static void look(struct process *process)
{
    struct key_watch *watch = &process->keys;
    if (!watch->done || !jwks_is_ready(&process->host.gateway->auth))
        return;
    void (*done)(struct process *) = watch->done;
    watch->done = NULL;
    loop_timer_stop(&process->loop, &watch->timer);
    done(process);
}

static void on_fetched(struct jwks_listener *listener)
{
    look(container_of(listener, struct process, keys.listener));
}

// None is waited for any longer than that.
static void on_timer(struct loop_timer *timer)
{
    struct process *process = container_of(timer, struct process, keys.timer);
    loop_timer_set(&process->loop, timer, JWKS_RETRY_MS);
    look(process);
}

void process_start_keys(struct process *process)
{
    struct key_watch *watch = &process->keys;
    rand_init(&watch->rand);
    watch->upstreams = upstream_worker_new(&(struct upstream_worker_needs){.loop = &process->loop,
                                                                           .buffers = &watch->buffers,
                                                                           .rand = &watch->rand,
                                                                           .metrics = process->host.own,
                                                                           .slot = 0,
                                                                           .workers = 1,
                                                                           .tls_slot = TLS_SLOT_CONTROL});
    jwks_start(&process->loop, watch->upstreams, process->host.own);
    loop_timer_init(&watch->timer, on_timer);
    watch->listener = (struct jwks_listener){.loop = &process->loop, .on_fetched = on_fetched};
    jwks_listen(&watch->listener);
}

void process_use_keys(struct process *process)
{
    jwks_update(&process->host.gateway->auth);
}

void process_await_keys(struct process *process, void (*done)(struct process *process))
{
    struct key_watch *watch = &process->keys;
    watch->done = done;
    loop_timer_set(&process->loop, &watch->timer, JWKS_FIRST_MS);
    look(process);
}

void process_end_keys(struct process *process)
{
    struct key_watch *watch = &process->keys;
    watch->done = NULL;
    loop_timer_stop(&process->loop, &watch->timer);
    jwks_unlisten(&watch->listener);
    jwks_stop();
    upstream_worker_free(watch->upstreams);
    loop_turn(&process->loop, 0); // its connections are freed
    buf_pool_fini(&watch->buffers);
}
