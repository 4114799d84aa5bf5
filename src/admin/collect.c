#include "admin/collect.h"

#include "exchange/exchange.h"

#include <stdlib.h>

// ---- in a worker's thread ----

static void gather_metrics(struct collect_part *part)
{
    part->metrics = metrics_copy(part->worker->metrics);
}

static void count_active(struct collect_part *part, const struct exchange *x)
{
    const struct upstream_call *calls[] = {x->call, x->hedge};
    for (unsigned i = 0; i < countof(calls); i++)
        if (calls[i] && calls[i]->local && calls[i]->endpoint &&
            calls[i]->endpoint->index < part->active_count)
            part->active[calls[i]->endpoint->index]++;
}

static void gather_load(struct collect_part *part)
{
    const struct worker *worker = part->worker;
    part->live = worker->live;
    part->lent = upstream_worker_lent(worker->upstreams);
    part->connections = part->front ? front_connection_count(part->front) : 0;
    part->turns = worker->loop.turns;
    part->longest_turn_us = worker->loop.longest_turn_us;
    part->draining = worker->draining;
    for (uint32_t i = 0; i < worker->slot_count; i++)
        if (worker->slots[i])
            count_active(part, worker->slots[i]);
}

static void gather_live(struct collect_part *part)
{
    const struct worker *worker = part->worker;
    gather_load(part);
    for (uint32_t i = 0; i < worker->slot_count && part->printed < COLLECT_EXCHANGES; i++) {
        if (!worker->slots[i])
            continue;
        struct json json;
        json_init(&json, &part->exchanges, false);
        if (part->printed++)
            buf_append(&part->exchanges, STR(","));
        exchange_print(worker->slots[i], &json);
    }
}

static void (*const gathers[])(struct collect_part *part) = {
    [COLLECT_METRICS] = gather_metrics,
    [COLLECT_LOAD] = gather_load,
    [COLLECT_LIVE] = gather_live,
};

static void run_part(struct loop_task *task)
{
    struct collect_part *part = container_of(task, struct collect_part, task);
    struct collection *collection = part->collection;
    gathers[collection->what](part);
    atomic_store_explicit(&part->ready, true, memory_order_release);
    if (atomic_fetch_sub(&collection->remaining, 1) == 1)
        loop_post(collection->control, &collection->done_task);
}

// ---- in the control thread ----

static void collection_free(struct collection *collection)
{
    for (unsigned i = 0; i < collection->count; i++) {
        struct collect_part *part = &collection->parts[i];
        if (part->metrics)
            metrics_free(part->metrics);
        free(part->active);
        buf_free(&part->exchanges);
    }
    if (collection->admin)
        collection->admin->collections--;
    list_remove(&collection->node);
    free(collection);
}

static void deliver(struct collection *collection)
{
    struct serve_client *c = collection->client;
    if (!c)
        return;
    loop_timer_stop(collection->control, &collection->deadline);
    collection->client = NULL;
    serve_resume(c);
    collection->on_done(c, collection);
}

static void on_all_done(struct loop_task *task)
{
    struct collection *collection = container_of(task, struct collection, done_task);
    deliver(collection);
    collection_free(collection);
}

static void on_deadline(struct loop_timer *timer)
{
    deliver(container_of(timer, struct collection, deadline)); // freed when the last worker answers
}

// The client is gone.
static void abandon(void *pending)
{
    struct collection *collection = pending;
    loop_timer_stop(collection->control, &collection->deadline);
    collection->client = NULL;
}

static void prepare(struct collection *collection, unsigned i)
{
    const struct admin_host *host = collection->admin->host;
    struct collect_part *part = &collection->parts[i];
    part->task.run = run_part;
    part->collection = collection;
    part->worker = host->workers[i];
    part->front = host->fronts ? host->fronts[i] : NULL;
    if (collection->what == COLLECT_METRICS)
        return;
    part->active_count = endpoint_count();
    part->active = calloc(part->active_count + 1, sizeof *part->active);
    check(part->active);
}

void collect_start(struct serve_client *c, enum collect_what what,
                   void (*on_done)(struct serve_client *c, struct collection *collection))
{
    struct admin *admin = admin_of(c);
    unsigned count = admin->host->worker_count;
    struct collection *collection = admin->collections < COLLECT_AT_ONCE
                                        ? calloc(1, sizeof *collection + count * sizeof *collection->parts)
                                        : NULL;
    if (!collection) {
        serve_reply_problem(
            c, &(struct serve_problem){503, STR("overloaded"), STR("the workers do not answer")});
        return;
    }
    *collection = (struct collection){
        .admin = admin,
        .client = c,
        .what = what,
        .on_done = on_done,
        .control = admin->loop,
        .done_task.run = on_all_done,
        .count = count,
    };
    admin->collections++;
    serve_wait(c, collection, abandon);
    list_push_back(&admin->under_way, &collection->node);
    atomic_init(&collection->remaining, count);
    loop_timer_init(&collection->deadline, on_deadline);
    loop_timer_set(admin->loop, &collection->deadline, ADMIN_COLLECT_MS);
    for (unsigned i = 0; i < count; i++)
        prepare(collection, i);
    if (!count)
        loop_post(admin->loop, &collection->done_task);
    for (unsigned i = 0; i < count; i++)
        loop_post(&collection->parts[i].worker->loop, &collection->parts[i].task);
}

const struct collect_part *collect_part(const struct collection *collection, unsigned i)
{
    const struct collect_part *part = &collection->parts[i];
    return atomic_load_explicit(&part->ready, memory_order_acquire) ? part : NULL;
}

bool collect_complete(const struct collection *collection)
{
    for (unsigned i = 0; i < collection->count; i++)
        if (!collect_part(collection, i))
            return false;
    return true;
}

uint64_t collect_active(const struct collection *collection, uint32_t endpoint_index)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < collection->count; i++) {
        const struct collect_part *part = collect_part(collection, i);
        if (part && endpoint_index < part->active_count)
            sum += part->active[endpoint_index];
    }
    return sum;
}
