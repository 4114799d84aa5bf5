// Upstreams of a snapshot, and a worker's side of them across reloads.
#include "upstream/upstream.h"

#include "base/kept.h"
#include "discovery/lookup.h"
#include "upstream/link.h"

#include <stdlib.h>

// ---- the snapshot's side ----

struct str upstream_host(struct str address)
{
    if (str_starts(address, STR("unix:")))
        return STR("localhost"); // sent, not verified: that needs a configured name
    size_t colon = address.n;
    while (colon > 0 && address.p[colon - 1] != ':')
        colon--;
    struct str host = {address.p, colon ? colon - 1 : 0};
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (struct str){host.p + 1, host.n - 2};
    return host;
}

static enum err_code add_target(struct upstream *upstream, const struct target_settings *target,
                                struct arena *arena, struct err *err)
{
    struct addr addrs[LOOKUP_MAX];
    unsigned count;
    enum err_code code = lookup_target(target->address, addrs, &count, err);
    if (code)
        return code;
    struct upstream_target *all = arena_array(arena, struct upstream_target, upstream->target_count + count);
    if (upstream->target_count)
        memcpy(all, upstream->targets, upstream->target_count * sizeof *all);
    for (unsigned i = 0; i < count; i++) {
        struct str name = target->address;
        if (count > 1) { // a name with several addresses: each is an endpoint of its own
            char text[ADDR_TEXT_MAX];
            name = arena_copy(arena, (struct str){text, addr_print(&addrs[i], text)});
        }
        all[upstream->target_count + i] =
            (struct upstream_target){endpoint_ref(upstream->name, name, &addrs[i]), (uint32_t)target->weight,
                                     upstream_host(target->address)};
    }
    upstream->targets = all;
    upstream->target_count += count;
    return ERR_OK;
}

static void build_ring(struct upstream *upstream, struct arena *arena)
{
    struct str *names = arena_array(arena, struct str, upstream->target_count);
    uint32_t *weights = arena_array(arena, uint32_t, upstream->target_count);
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        names[i] = upstream->targets[i].endpoint->name;
        weights[i] = upstream->targets[i].weight;
    }
    upstream->ring = hash_ring_new(names, weights, upstream->target_count, arena);
}

static enum err_code build_tls(struct upstream *upstream, unsigned slots, struct arena *arena,
                               struct err *err)
{
    const struct upstream_tls_settings *tls = &upstream->settings->tls;
    struct tls_client_options options = {
        .ca = tls->ca,
        .server_name = tls->server_name,
        .verify = tls->verify,
        .cert = tls->cert,
        .key = tls->key,
        .alpn = upstream->settings->protocol == UPSTREAM_H2 ? TLS_ALPN_H2 : TLS_ALPN_HTTP1,
    };
    upstream->tls = arena_array(arena, struct tls_client *, slots);
    while (upstream->tls_count < slots) {
        struct tls_client *client = tls_client_new(upstream->tls_count, &options, err);
        if (!client)
            return err->code;
        upstream->tls[upstream->tls_count++] = client;
    }
    return ERR_OK;
}

// What all workers count together. Control thread.
static struct quota_table pending_quotas;

// What the process keeps of each upstream's breakers, by index. Control thread.
struct kept_breaker {
    struct breaker_tally tally;
    struct shared_breaker *whole; // NULL: not needed yet
};

static struct kept_breaker *kept_breaker_at(uint32_t index)
{
    static struct kept all;
    void **place = kept_at(&all, index);
    if (!*place) {
        *place = calloc(1, sizeof(struct kept_breaker));
        check(*place);
    }
    return *place;
}

static void find_breakers(struct upstream *upstream, unsigned slots)
{
    const struct breaker_settings *settings = &upstream->settings->circuit_breaker;
    if (!settings->enabled || !slots)
        return;
    struct kept_breaker *kept = kept_breaker_at(upstream->index);
    upstream->breaker_tally = &kept->tally;
    if (settings->scope == BREAKER_OF_UPSTREAM) {
        if (!kept->whole)
            kept->whole = shared_breaker_new(metric_name(NAME_UPSTREAM, upstream->index), STR_NULL, slots,
                                             &kept->tally);
        upstream->breaker = kept->whole;
        return;
    }
    upstream->endpoint_breakers = true;
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        struct endpoint *endpoint = upstream->targets[i].endpoint;
        if (!endpoint->breaker)
            endpoint->breaker =
                shared_breaker_new(endpoint->upstream_name, endpoint->name, slots, &kept->tally);
    }
}

enum err_code upstream_compile(struct upstream *upstream, const struct upstream_settings *settings,
                               uint64_t generation, unsigned tls_slots, struct arena *arena, struct err *err)
{
    *upstream = (struct upstream){
        .settings = settings,
        .name = settings->name,
        .metric_id = metric_name_id(NAME_UPSTREAM, settings->name),
        .generation = generation,
    };
    if (settings->circuit_breaker.enabled && settings->circuit_breaker.has_fallback)
        upstream->stale_us = settings->circuit_breaker.fallback.stale_us;
    upstream->index = upstream->metric_id; // both are dense by name
    upstream->requests = concurrency_at(upstream->index);
    upstream->pending = quota_at(&pending_quotas, upstream->index);
    upstream->connections = connection_bound_at(upstream->index);
    upstream->retries = retry_budget_at(upstream->index);
    const struct target_settings *targets = settings->targets.v;
    for (uint32_t i = 0; i < settings->targets.count; i++) {
        enum err_code code = add_target(upstream, &targets[i], arena, err);
        if (code)
            return code;
    }
    if (settings->load_balancer == BALANCE_CONSISTENT_HASH)
        build_ring(upstream, arena);
    find_breakers(upstream, tls_slots);
    return settings->has_tls && tls_slots ? build_tls(upstream, tls_slots, arena, err) : ERR_OK;
}

bool upstream_breaker_at(const struct upstream *upstream, uint32_t i, struct upstream_breaker *breaker)
{
    if (upstream->breaker && i == 0)
        *breaker = (struct upstream_breaker){upstream->breaker, NULL};
    else if (upstream->endpoint_breakers && i < upstream->target_count)
        *breaker =
            (struct upstream_breaker){upstream->targets[i].endpoint->breaker, upstream->targets[i].endpoint};
    else
        return false;
    return true;
}

void upstream_fini(struct upstream *upstream)
{
    for (unsigned slot = 0; slot < upstream->tls_count; slot++)
        tls_client_unref(upstream->tls[slot]);
    upstream->tls_count = 0;
    for (uint32_t i = 0; i < upstream->target_count; i++)
        endpoint_unref(upstream->targets[i].endpoint);
    upstream->target_count = 0;
}

uint32_t upstream_requests_limit(const struct upstream *upstream)
{
    uint32_t most = (uint32_t)upstream->settings->limits.requests;
    return upstream->settings->adaptive_concurrency ? concurrency_limit(upstream->requests, most) : most;
}

uint32_t upstream_requests_waiting(const struct upstream *upstream)
{
    return concurrency_waiting(upstream->requests);
}

// ---- a worker's side ----

struct upstream_worker *upstream_worker_new(const struct upstream_worker_needs *needs)
{
    struct upstream_worker *worker = calloc(1, sizeof *worker);
    check(worker);
    worker->needs = *needs;
    list_init(&worker->spare_streams);
    return worker;
}

static struct upstream_pool *find_pool(struct upstream_pool **pools, uint32_t count, uint32_t hint,
                                       const struct endpoint *endpoint)
{
    if (hint < count && pools[hint] && pools[hint]->endpoint == endpoint)
        return pools[hint];
    for (uint32_t i = 0; i < count; i++)
        if (pools[i] && pools[i]->endpoint == endpoint)
            return pools[i];
    return NULL;
}

static struct upstream_pool *new_pool(struct upstream_local *local, struct endpoint *endpoint)
{
    struct upstream_pool *pool = calloc(1, sizeof *pool);
    check(pool);
    pool->local = local;
    pool->endpoint = endpoint;
    list_init(&pool->idle);
    list_init(&pool->open);
    list_init(&pool->connecting);
    return pool;
}

static void retire_pool(struct upstream_pool *pool)
{
    pool->position = -1;
    if (pool->links == 0 && pool->active == 0)
        pool_free(pool);
    else if (!list_empty(&pool->idle))
        pool_close_idle(pool); // the last one frees the pool
}

static void retire_pools(struct upstream_local *local)
{
    for (uint32_t i = 0; i < local->balance.count; i++)
        if (local->pools[i])
            retire_pool(local->pools[i]);
    free(local->pools);
    free(local->balance.endpoints);
    local->pools = NULL;
    local->balance.endpoints = NULL;
    local->balance.count = 0;
}

static void set_host(struct upstream_pool *pool, struct str host)
{
    check(host.n < HOST_BYTES); // lookup_target takes no longer ones
    pool->host_bytes = (uint8_t)host.n;
    if (host.n)
        memcpy(pool->host, host.p, host.n);
}

// Another protocol, or other certificates: what is connected serves its calls to their end, and no more.
static void adopt_transport(struct upstream_local *local, const struct upstream *upstream)
{
    unsigned slot = local->worker->needs.tls_slot;
    check(!upstream->tls || slot < upstream->tls_count);
    struct tls_client *tls = upstream->tls ? upstream->tls[slot] : NULL;
    const struct protocol *protocol =
        upstream->settings->protocol == UPSTREAM_H2 ? &h2_protocol : &h1_protocol;
    bool same = protocol == local->protocol && tls_client_same(tls, local->tls);
    if (tls)
        tls_client_ref(tls);
    tls_client_unref(local->tls);
    local->tls = tls;
    local->protocol = protocol;
    if (same)
        return;
    local->epoch++;
    for (uint32_t i = 0; i < local->balance.count; i++) {
        struct upstream_pool *pool = local->pools[i];
        pool_forget_session(pool);
        pool_close_idle(pool);
        while (list_pop_front(&pool->open))
            continue;
    }
}

// The windows of a new configuration, which is in force from here on.
static void configure_breakers(const struct upstream *upstream)
{
    const struct breaker_rules *rules = &upstream->settings->circuit_breaker.rules;
    if (upstream->breaker)
        shared_breaker_configure(upstream->breaker, rules);
    for (uint32_t i = 0; upstream->endpoint_breakers && i < upstream->target_count; i++)
        shared_breaker_configure(upstream->targets[i].endpoint->breaker, rules);
}

// A place was granted.
static void on_place(struct loop_task *task)
{
    struct upstream_local *local = container_of(task, struct upstream_local, requests.places.task);
    fair_share_heard(&local->requests.places);
    local_serve_waiting(local);
}

// Something was granted, or others want some.
static void on_links(struct loop_task *task)
{
    struct upstream_local *local = container_of(task, struct upstream_local, links.fair.task);
    connection_share_heard(&local->links);
    local_close_wanted(local);
    local_serve_waiting(local);
}

static void adopt(struct upstream_local *local, struct upstream *upstream)
{
    struct balance before = local->balance;
    struct upstream_pool **pools = calloc(upstream->target_count + 1, sizeof *pools);
    struct balance_endpoint *endpoints = calloc(upstream->target_count + 1, sizeof *endpoints);
    check(pools && endpoints);
    uint32_t active = 0;
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        struct endpoint *endpoint = upstream->targets[i].endpoint;
        struct upstream_pool *pool = find_pool(local->pools, before.count, i, endpoint);
        if (pool) {
            uint32_t old = (uint32_t)pool->position;
            endpoints[i] = before.endpoints[old];
            local->pools[old] = NULL;
        } else {
            pool = new_pool(local, endpoint);
        }
        pool->position = (int)i;
        pools[i] = pool;
        endpoints[i].endpoint = endpoint;
        endpoints[i].barred = false;
        endpoints[i].weight = upstream->targets[i].weight;
        set_host(pool, upstream->targets[i].host);
        active += endpoints[i].active;
    }
    retire_pools(local);
    local->pools = pools;
    local->balance = (struct balance){
        .policy = (enum balance_policy)upstream->settings->load_balancer,
        .endpoints = endpoints,
        .count = upstream->target_count,
        .ring = upstream->ring,
        .panic_threshold = upstream->settings->panic_threshold,
        .slow_start_us = upstream->settings->slow_start_us,
        .active = active,
    };
    adopt_transport(local, upstream);
    configure_breakers(upstream);
    local->upstream = upstream;
    local->retired = false;
    local->metric_id = upstream->metric_id;
    local->generation = upstream->generation;
    local->connect_ms = upstream->settings->timeouts.connect_us / 1000;
    local->idle_ms = upstream->settings->timeouts.idle_us / 1000;
    unsigned slot = local->worker->needs.slot, workers = local->worker->needs.workers;
    connection_share_set(&local->links, upstream->connections, upstream->settings->limits.connections);
    local_close_wanted(local); // there may be fewer than before
    concurrency_set(&local->requests, upstream->requests, upstream->settings->limits.requests,
                    upstream->settings->adaptive_concurrency, slot, workers);
    quota_set(&local->pending, upstream->pending, upstream->settings->limits.pending, slot, workers);
    retry_share_join(&local->retries, upstream->retries);
    slow_calls_configure(&local->slow_calls, &upstream->settings->circuit_breaker);
}

static void on_poll(struct loop_timer *timer)
{
    local_serve_waiting(container_of(timer, struct upstream_local, poll));
}

static struct upstream_local *local_at(struct upstream_worker *worker, uint32_t index)
{
    if (index >= worker->local_count) {
        uint32_t count = index + 1;
        worker->locals = realloc(worker->locals, count * sizeof(struct upstream_local *));
        check(worker->locals);
        for (uint32_t i = worker->local_count; i < count; i++)
            worker->locals[i] = NULL;
        worker->local_count = count;
    }
    if (!worker->locals[index]) {
        struct upstream_local *local = calloc(1, sizeof *local);
        check(local);
        local->worker = worker;
        list_init(&local->waiting);
        list_init(&local->leaving);
        loop_timer_init(&local->poll, on_poll);
        connection_share_init(&local->links, worker->needs.loop, on_links);
        concurrency_init(&local->requests, worker->needs.loop, on_place);
        slow_calls_init(&local->slow_calls, worker->needs.loop);
        worker->locals[index] = local;
    }
    return worker->locals[index];
}

struct upstream_local *upstream_local_of(struct upstream_worker *worker, struct upstream *upstream)
{
    struct upstream_local *local = local_at(worker, upstream->index);
    if (!local->upstream)
        adopt(local, upstream);
    return local;
}

void upstream_worker_update(struct upstream_worker *worker, struct upstream *const *upstreams, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        adopt(local_at(worker, upstreams[i]->index), upstreams[i]);
    // An upstream that is gone keeps its endpoints for exchanges of the old snapshot, but no idle connection.
    for (uint32_t i = 0; i < worker->local_count; i++) {
        struct upstream_local *local = worker->locals[i];
        if (!local || local->retired || (count && local->generation == upstreams[0]->generation))
            continue;
        local->retired = true;
        if (local->balance.policy == BALANCE_CONSISTENT_HASH) { // the ring goes with its snapshot
            local->balance.policy = BALANCE_LEAST_REQUEST;
            local->balance.ring = NULL;
        }
        for (uint32_t k = 0; k < local->balance.count; k++)
            pool_close_idle(local->pools[k]);
    }
}

void upstream_worker_drain(struct upstream_worker *worker)
{
    worker->draining = true;
    for (uint32_t i = 0; i < worker->local_count; i++)
        for (uint32_t k = 0; worker->locals[i] && k < worker->locals[i]->balance.count; k++)
            pool_close_idle(worker->locals[i]->pools[k]);
}

void upstream_worker_close_idle(struct upstream_worker *worker, uint64_t idle_ms)
{
    uint64_t since_ms = loop_now_ms(worker->needs.loop) - idle_ms;
    for (uint32_t i = 0; i < worker->local_count; i++) {
        struct upstream_local *local = worker->locals[i];
        for (uint32_t k = 0; local && !local->retired && k < local->balance.count;
             k++) // retired: none is idle
            pool_close_idle_since(local->pools[k], since_ms);
    }
}

// What is still on its way for calls that have ended.
static void close_connecting(struct upstream_local *local)
{
    for (uint32_t i = 0; i < local->balance.count; i++)
        pool_close_connecting(local->pools[i]);
}

void upstream_worker_free(struct upstream_worker *worker)
{
    upstream_worker_drain(worker);
    for (uint32_t i = 0; i < worker->local_count; i++) {
        if (!worker->locals[i])
            continue;
        close_connecting(worker->locals[i]);
        loop_timer_stop(worker->needs.loop, &worker->locals[i]->poll);
        slow_calls_fini(&worker->locals[i]->slow_calls);
        retire_pools(worker->locals[i]);
        connection_share_leave(&worker->locals[i]->links);
        concurrency_leave(&worker->locals[i]->requests);
        tls_client_unref(worker->locals[i]->tls);
        retry_share_leave(&worker->locals[i]->retries);
        free(worker->locals[i]);
    }
    free(worker->locals);
    streams_trim_spare(worker, 0);
    free(worker);
}

uint32_t upstream_worker_lent(const struct upstream_worker *worker)
{
    return worker->lent;
}
