#include "exchange/worker.h"

#include "base/clock.h"
#include "exchange/steps.h"

#include <stdlib.h>

enum {
    SPARE_BUFFERS = 256, // blocks of 16 KiB kept for the next bursts
    SPARE_BLOCKS = 256,  // arena blocks of 8 KiB
};

// All workers share the writer: the first of them tells the metrics.
static void count_dropped_lines(struct worker *worker)
{
    if (worker->slot != 0 || !worker->log.writer)
        return;
    uint64_t dropped = access_writer_dropped(worker->log.writer);
    if (dropped == worker->log_dropped)
        return;
    metrics_count(worker->metrics, COUNT_LOG_DROPPED, dropped - worker->log_dropped);
    worker->log_dropped = dropped;
}

static void on_turn_end(struct loop_hook *hook)
{
    struct worker *worker = container_of(hook, struct worker, turn_end);
    access_log_tick(&worker->log, worker->loop.now_us);
    count_dropped_lines(worker);
    overload_turn(&worker->overload, &worker->loop);
    upload_look_at_stalled(worker);
}

static void wake_exchange(void *context, struct ticket ticket)
{
    exchange_resume(context, ticket);
}

struct worker *worker_new(unsigned slot, unsigned count, struct gateway *gateway,
                          struct access_writer *writer, struct err *err)
{
    // Whole cache lines: the next worker's memory may be beside it.
    size_t size = (sizeof(struct worker) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct worker *worker = aligned_alloc(CACHE_LINE, size);
    check(worker);
    memset(worker, 0, size);
    if (loop_init(&worker->loop, err) != ERR_OK) {
        free(worker);
        return NULL;
    }
    worker->slot = slot;
    worker->count = count;
    worker->overload.slot = slot;
    worker->buffers.max = SPARE_BUFFERS;
    worker->spares.max = SPARE_BLOCKS;
    rand_init(&worker->rand);
    worker->metrics = metrics_new();
    access_log_init(&worker->log, writer);
    worker->scratch = route_scratch_new();
    list_init(&worker->spare_exchanges);
    exchange_watch_init(worker);
    struct upstream_worker_needs needs = {
        .loop = &worker->loop,
        .buffers = &worker->buffers,
        .blocks = &worker->blocks,
        .rand = &worker->rand,
        .metrics = worker->metrics,
        .slot = slot,
        .workers = count,
        .tls_slot = slot + 1,
    };
    worker->upstreams = upstream_worker_new(&needs);
    worker->auth = auth_worker_new(&(struct auth_worker_needs){.loop = &worker->loop,
                                                               .upstreams = worker->upstreams,
                                                               .metrics = worker->metrics,
                                                               .tls_slot = slot + 1,
                                                               .context = worker,
                                                               .wake = wake_exchange});
    worker->limiter = limit_worker_new(&(struct limit_worker_needs){.loop = &worker->loop,
                                                                    .tls_slot = slot + 1,
                                                                    .metrics = worker->metrics,
                                                                    .rand = &worker->rand,
                                                                    .context = worker,
                                                                    .wake = wake_exchange});
    worker->replays = replay_store_new(&(struct replay_store_needs){.loop = &worker->loop,
                                                                    .tls_slot = slot + 1,
                                                                    .metrics = worker->metrics,
                                                                    .rand = &worker->rand,
                                                                    .context = worker,
                                                                    .wake = wake_exchange});
    worker->turn_end.on_turn_end = on_turn_end;
    loop_hook_add(&worker->loop, &worker->turn_end);
    worker_update(worker, gateway_ref(gateway), writer);
    return worker;
}

void worker_free(struct worker *worker)
{
    check(worker->live == 0);
    replay_store_free(worker->replays);
    limit_worker_free(worker->limiter);
    auth_worker_free(worker->auth);
    upstream_worker_free(worker->upstreams);
    loop_turn(&worker->loop, 0); // connections closed just now are freed
    access_log_fini(&worker->log);
    route_scratch_free(worker->scratch);
    metrics_free(worker->metrics);
    gateway_unref(worker->gateway);
    free(worker->hold);
    struct list *node;
    while ((node = list_pop_front(&worker->spare_exchanges)))
        free(container_of(node, struct exchange, listed));
    free(worker->slots);
    free(worker->free_slots);
    buf_pool_fini(&worker->buffers);
    arena_spares_fini(&worker->spares);
    block_pool_fini(&worker->blocks);
    loop_fini(&worker->loop);
    free(worker);
}

static void take_back(struct lender *lender)
{
    struct gateway_hold *hold = container_of(lender, struct gateway_hold, lender);
    worker_release(hold->worker, hold);
}

void worker_update(struct worker *worker, struct gateway *gateway, struct access_writer *writer)
{
    struct gateway_hold *before = worker->hold;
    metrics_reserve(worker->metrics);
    upstream_worker_update(worker->upstreams, gateway->upstreams, gateway->upstream_count);
    auth_worker_update(worker->auth, &gateway->auth);
    gateway_files_read_from(&gateway->files);
    limit_worker_update(worker->limiter, &gateway->limits);
    replay_store_update(worker->replays, gateway->replays_in_redis ? &gateway->settings.redis : NULL,
                        gateway->redis_addrs, gateway->redis_addr_count);
    gateway_files_read_from(NULL);
    worker->gateway = gateway;
    worker->overload.settings = &gateway->settings.overload;
    worker->hold = calloc(1, sizeof *worker->hold);
    check(worker->hold);
    *worker->hold =
        (struct gateway_hold){.gateway = gateway, .worker = worker, .lender.take_back = take_back};
    if (writer != worker->log.writer) {
        count_dropped_lines(worker);
        access_log_switch(&worker->log, writer);
        worker->log_dropped = 0;
    }
    if (before && before->users == 0) {
        gateway_unref(before->gateway);
        free(before);
    }
}

struct gateway_hold *worker_hold(struct worker *worker)
{
    worker->hold->users++;
    return worker->hold;
}

void worker_release(struct worker *worker, struct gateway_hold *hold)
{
    if (--hold->users || hold == worker->hold)
        return;
    gateway_unref(hold->gateway);
    free(hold);
}

struct lent worker_lend(struct gateway_hold *hold, struct str part)
{
    hold->users++;
    return (struct lent){part, &hold->lender};
}

void worker_drain(struct worker *worker)
{
    worker->draining = true;
    upstream_worker_drain(worker->upstreams);
    limit_worker_drain(worker->limiter);
}

struct str worker_date(struct worker *worker, uint64_t wall_us)
{
    uint64_t second = wall_us / 1000000;
    if (second != worker->date_second) {
        http_date_print((int64_t)second, worker->date_text);
        worker->date_second = second;
    }
    return (struct str){worker->date_text, HTTP_DATE_BYTES - 1};
}
