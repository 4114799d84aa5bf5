#include "observe/metrics.h"

#include "base/check.h"
#include "observe/shard.h"

#include <stdlib.h>

enum {
    CHUNK_BYTES = 8192,
    FIRST_SERIES = 4, // a route seldom has more than one method and two statuses
};

static const uint64_t bounds_us[METRIC_BUCKETS] = {
#define X(us, text) us,
    METRIC_BOUNDS(X)
#undef X
};

static const uint64_t redis_bounds_us[METRIC_BUCKETS] = {
#define X(us, text) us,
    REDIS_BOUNDS(X)
#undef X
};

// ---- memory ----

static size_t round_to_line(size_t size)
{
    return (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

static struct metric_chunk *chunk_new(size_t size)
{
    size = round_to_line(size);
    struct metric_chunk *chunk = aligned_alloc(CACHE_LINE, size);
    if (chunk)
        *chunk = (struct metric_chunk){.used = CACHE_LINE, .size = size};
    return chunk;
}

// Zeroed, whole cache lines, as long-lived as the shard. NULL when memory is out: then a sample is lost, no
// request.
static void *shard_take(struct metrics *metrics, size_t size)
{
    size = round_to_line(size);
    struct metric_chunk *chunk = metrics->chunks;
    if (!chunk || chunk->size - chunk->used < size) {
        chunk = chunk_new(size + CACHE_LINE > CHUNK_BYTES ? size + CACHE_LINE : CHUNK_BYTES);
        if (!chunk)
            return NULL;
        chunk->next = metrics->chunks;
        metrics->chunks = chunk;
    }
    void *taken = (char *)chunk + chunk->used;
    chunk->used += size;
    metrics->bytes += size;
    return memset(taken, 0, size);
}

// Grows an array indexed by id to count items, new ones zeroed.
static void grow_array(void *array, uint32_t *have, uint32_t want, size_t item)
{
    if (want <= *have)
        return;
    char *grown = realloc(*(void **)array, want * item);
    check(grown);
    memset(grown + *have * item, 0, (want - *have) * item);
    *(void **)array = grown;
    *have = want;
}

struct metrics *metrics_new(void)
{
    struct metrics *metrics = aligned_alloc(CACHE_LINE, round_to_line(sizeof *metrics));
    check(metrics);
    memset(metrics, 0, sizeof *metrics);
    metrics_reserve(metrics);
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    while (metrics->chunks) {
        struct metric_chunk *chunk = metrics->chunks;
        metrics->chunks = chunk->next;
        free(chunk);
    }
    free(metrics->routes);
    free(metrics->upstreams);
    free(metrics->listeners);
    free(metrics->providers);
    free(metrics->limits);
    free(metrics->endpoints);
    free(metrics);
}

void metrics_reserve(struct metrics *metrics)
{
    grow_array(&metrics->routes, &metrics->route_count, metric_name_count(NAME_ROUTE) + 1,
               sizeof *metrics->routes);
    grow_array(&metrics->upstreams, &metrics->upstream_count, metric_name_count(NAME_UPSTREAM),
               sizeof *metrics->upstreams);
    grow_array(&metrics->listeners, &metrics->listener_count, metric_name_count(NAME_LISTENER),
               sizeof *metrics->listeners);
    grow_array(&metrics->providers, &metrics->provider_count, metric_name_count(NAME_PROVIDER),
               sizeof *metrics->providers);
    grow_array(&metrics->limits, &metrics->limit_count, metric_name_count(NAME_LIMIT),
               sizeof *metrics->limits);
    grow_array(&metrics->endpoints, &metrics->endpoint_count, metric_name_count(NAME_ENDPOINT),
               sizeof *metrics->endpoints);
}

// ---- series ----

static struct metric_series *table_place(const struct metric_table *table, uint64_t key)
{
    uint32_t mask = table->capacity - 1;
    for (uint32_t i = (uint32_t)((key * 0x9e3779b97f4a7c15) >> 40) & mask;; i = (i + 1) & mask)
        if (table->series[i].key == key || table->series[i].key == 0)
            return &table->series[i];
}

// The old array stays in its chunk: what growing leaves behind is never more than what is in use.
static bool table_grow(struct metrics *metrics, struct metric_table *table)
{
    uint32_t capacity = table->capacity ? table->capacity * 2 : FIRST_SERIES;
    struct metric_series *series = shard_take(metrics, capacity * sizeof *series);
    if (!series)
        return false;
    struct metric_table old = *table;
    *table = (struct metric_table){.series = series, .capacity = capacity, .count = old.count};
    for (uint32_t i = 0; i < old.capacity; i++)
        if (old.series[i].key)
            *table_place(table, old.series[i].key) = old.series[i];
    return true;
}

struct metric_histogram *metric_table_duration(const struct metric_table *table, unsigned status_class)
{
    for (uint32_t i = 0; i < table->capacity; i++) {
        const struct metric_series *series = &table->series[i];
        if (series->key && metric_class(metric_key_status(series->key)) == status_class)
            return series->duration;
    }
    return NULL;
}

// The series with this key, made at its first occurrence. duration NULL: it shares the histogram of its
// status class.
static __attribute__((noinline)) struct metric_series *table_find(struct metrics *metrics,
                                                                  struct metric_table *table, uint64_t key,
                                                                  struct metric_histogram *duration)
{
    if (table->capacity) {
        struct metric_series *series = table_place(table, key);
        if (series->key)
            return table->last = series;
    }
    if (!duration)
        duration = metric_table_duration(table, metric_class(metric_key_status(key)));
    if (!duration && !(duration = shard_take(metrics, sizeof *duration)))
        return NULL;
    if (table->count * 4 >= table->capacity * 3 && !table_grow(metrics, table))
        return NULL;
    struct metric_series *series = table_place(table, key);
    *series = (struct metric_series){.key = key, .duration = duration};
    table->count++;
    return table->last = series;
}

static inline struct metric_series *table_series(struct metrics *metrics, struct metric_table *table,
                                                 uint64_t key, struct metric_histogram *duration)
{
    struct metric_series *last = table->last;
    return likely(last && last->key == key) ? last : table_find(metrics, table, key, duration);
}

static inline void histogram_add(struct metric_histogram *histogram, const uint64_t *bounds, uint64_t us)
{
    unsigned i = 0;
    while (i < METRIC_BUCKETS && us > bounds[i])
        i++;
    histogram->counts[i]++;
    histogram->sum_us += us;
}

// ---- the request path ----

// The slot of a route, made at its first request. Ids beyond the arrays come only from a caller that has not
// reserved.
static __attribute__((noinline)) struct metric_route *route_make(struct metrics *metrics, uint32_t index)
{
    if (index >= metrics->route_count) {
        metrics_reserve(metrics);
        if (index >= metrics->route_count)
            return NULL;
    }
    if (!metrics->routes[index])
        metrics->routes[index] = shard_take(metrics, sizeof **metrics->routes);
    return metrics->routes[index];
}

static inline struct metric_route *route_slot(struct metrics *metrics, uint32_t index)
{
    struct metric_route *slot = likely(index < metrics->route_count) ? metrics->routes[index] : NULL;
    return likely(slot) ? slot : route_make(metrics, index);
}

void metrics_request(struct metrics *metrics, const struct metric_request *request)
{
    metrics->ends[request->cause]++;
    struct metric_route *slot = route_slot(metrics, request->route + 1); // UINT32_MAX, no route, becomes 0
    if (unlikely(!slot))
        return;
    slot->bytes_in += request->bytes_in;
    slot->bytes_out += request->bytes_out;
    uint64_t key = metric_key(request->listener, request->method, request->status);
    struct metric_series *series = table_series(metrics, &slot->requests, key, NULL);
    if (unlikely(!series))
        return;
    series->count++;
    histogram_add(series->duration, bounds_us, request->duration_us);
}

static __attribute__((noinline)) struct metric_upstream *upstream_make(struct metrics *metrics, uint32_t id)
{
    if (id >= metrics->upstream_count) {
        metrics_reserve(metrics);
        if (id >= metrics->upstream_count)
            return NULL;
    }
    struct metric_upstream *slot = metrics->upstreams[id];
    if (slot)
        return slot;
    slot = shard_take(metrics, sizeof *slot);
    if (!slot || !(slot->duration = shard_take(metrics, sizeof *slot->duration)))
        return NULL;
    return metrics->upstreams[id] = slot;
}

static inline struct metric_upstream *upstream_slot(struct metrics *metrics, uint32_t id)
{
    struct metric_upstream *slot = likely(id < metrics->upstream_count) ? metrics->upstreams[id] : NULL;
    return likely(slot) ? slot : upstream_make(metrics, id);
}

void metrics_upstream(struct metrics *metrics, uint32_t upstream, unsigned status, uint64_t duration_us)
{
    struct metric_upstream *slot = upstream_slot(metrics, upstream);
    if (unlikely(!slot))
        return;
    struct metric_series *series =
        table_series(metrics, &slot->requests, metric_key(0, 0, status), slot->duration);
    if (unlikely(!series))
        return;
    series->count++;
    histogram_add(slot->duration, bounds_us, duration_us);
}

void metrics_retry(struct metrics *metrics, uint32_t upstream, enum retry_reason reason)
{
    struct metric_upstream *slot = upstream_slot(metrics, upstream);
    if (slot)
        slot->retries[reason]++;
}

void metrics_hedge(struct metrics *metrics, uint32_t upstream, enum hedge_result result)
{
    struct metric_upstream *slot = upstream_slot(metrics, upstream);
    if (slot)
        slot->hedges[result]++;
}

void metrics_stale_answer(struct metrics *metrics, uint32_t upstream)
{
    struct metric_upstream *slot = upstream_slot(metrics, upstream);
    if (slot)
        slot->stale_answers++;
}

void metrics_connections(struct metrics *metrics, uint32_t listener, enum connection_state state, int change)
{
    if (unlikely(listener >= metrics->listener_count))
        metrics_reserve(metrics);
    if (likely(listener < metrics->listener_count))
        metrics->listeners[listener].connections[state] += change;
}

void metrics_upstream_connections(struct metrics *metrics, uint32_t upstream, enum connection_state state,
                                  int change)
{
    struct metric_upstream *slot = upstream_slot(metrics, upstream);
    if (slot)
        slot->connections[state] += change;
}

void metrics_provider(struct metrics *metrics, uint32_t provider, enum provider_counter counter)
{
    if (unlikely(provider >= metrics->provider_count))
        metrics_reserve(metrics);
    if (likely(provider < metrics->provider_count))
        metrics->providers[provider].counters[counter]++;
}

void metrics_limit(struct metrics *metrics, uint32_t limit, enum limit_decision decision)
{
    if (unlikely(limit >= metrics->limit_count))
        metrics_reserve(metrics);
    if (likely(limit < metrics->limit_count))
        metrics->limits[limit].decisions[decision]++;
}

struct str ejection_reason_name(enum ejection_reason reason)
{
    static const struct str names[EJECTION_REASONS] = {
#define X(id, name, words) {name, sizeof(name) - 1},
        EJECTION_REASON_LIST(X)
#undef X
    };
    return names[reason];
}

void metrics_ejection(struct metrics *metrics, uint32_t endpoint, enum ejection_reason reason)
{
    if (unlikely(endpoint >= metrics->endpoint_count))
        metrics_reserve(metrics);
    if (likely(endpoint < metrics->endpoint_count))
        metrics->endpoints[endpoint].ejections[reason]++;
}

void metrics_redis(struct metrics *metrics, enum redis_result result, uint64_t duration_us)
{
    metrics->redis_results[result]++;
    if (result == REDIS_COMMAND_OK || result == REDIS_COMMAND_ERROR)
        histogram_add(&metrics->redis_duration, redis_bounds_us, duration_us);
}

void metrics_idempotency(struct metrics *metrics, enum idempotency_result result)
{
    metrics->idempotency[result]++;
}

void metrics_shed(struct metrics *metrics, enum priority priority)
{
    metrics->sheds[priority]++;
}

void metrics_count(struct metrics *metrics, enum metric_counter counter, uint64_t n)
{
    metrics->counters[counter] += n;
}

// ---- collecting ----

static void histogram_merge(struct metric_histogram *into, const struct metric_histogram *from)
{
    for (unsigned i = 0; i <= METRIC_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->sum_us += from->sum_us;
}

static void table_merge(struct metrics *metrics, struct metric_table *into, const struct metric_table *from,
                        struct metric_histogram *duration)
{
    for (uint32_t i = 0; i < from->capacity; i++) {
        if (!from->series[i].key)
            continue;
        struct metric_series *series = table_series(metrics, into, from->series[i].key, duration);
        if (series)
            series->count += from->series[i].count;
    }
}

static void route_merge(struct metrics *metrics, uint32_t index, const struct metric_route *from)
{
    struct metric_route *into = route_slot(metrics, index);
    if (!into)
        return;
    into->bytes_in += from->bytes_in;
    into->bytes_out += from->bytes_out;
    table_merge(metrics, &into->requests, &from->requests, NULL);
    for (unsigned class = 0; class < METRIC_CLASSES; class ++) {
        const struct metric_histogram *duration = metric_table_duration(&from->requests, class);
        struct metric_histogram *sum = metric_table_duration(&into->requests, class);
        if (duration && sum)
            histogram_merge(sum, duration);
    }
}

static void upstream_merge(struct metrics *metrics, uint32_t id, const struct metric_upstream *from)
{
    struct metric_upstream *into = upstream_slot(metrics, id);
    if (!into)
        return;
    table_merge(metrics, &into->requests, &from->requests, into->duration);
    histogram_merge(into->duration, from->duration);
    for (unsigned i = 0; i < RETRY_REASONS; i++)
        into->retries[i] += from->retries[i];
    for (unsigned i = 0; i < HEDGE_RESULT_COUNT; i++)
        into->hedges[i] += from->hedges[i];
    into->stale_answers += from->stale_answers;
    for (unsigned i = 0; i < CONNECTION_STATES; i++)
        into->connections[i] += from->connections[i];
}

void metrics_merge(struct metrics *into, const struct metrics *from)
{
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++)
        into->ends[i] += from->ends[i];
    for (unsigned i = 0; i < METRIC_COUNTER_COUNT; i++)
        into->counters[i] += from->counters[i];
    for (unsigned i = 0; i < REDIS_RESULT_COUNT; i++)
        into->redis_results[i] += from->redis_results[i];
    for (unsigned i = 0; i < IDEMPOTENCY_RESULT_COUNT; i++)
        into->idempotency[i] += from->idempotency[i];
    for (unsigned i = 0; i < PRIORITIES; i++)
        into->sheds[i] += from->sheds[i];
    histogram_merge(&into->redis_duration, &from->redis_duration);
    grow_array(&into->listeners, &into->listener_count, from->listener_count, sizeof *into->listeners);
    for (uint32_t i = 0; i < from->listener_count; i++)
        for (unsigned state = 0; state < CONNECTION_STATES; state++)
            into->listeners[i].connections[state] += from->listeners[i].connections[state];
    grow_array(&into->providers, &into->provider_count, from->provider_count, sizeof *into->providers);
    for (uint32_t i = 0; i < from->provider_count; i++)
        for (unsigned k = 0; k < PROVIDER_COUNTER_COUNT; k++)
            into->providers[i].counters[k] += from->providers[i].counters[k];
    grow_array(&into->limits, &into->limit_count, from->limit_count, sizeof *into->limits);
    for (uint32_t i = 0; i < from->limit_count; i++)
        for (unsigned k = 0; k < LIMIT_DECISION_COUNT; k++)
            into->limits[i].decisions[k] += from->limits[i].decisions[k];
    grow_array(&into->endpoints, &into->endpoint_count, from->endpoint_count, sizeof *into->endpoints);
    for (uint32_t i = 0; i < from->endpoint_count; i++)
        for (unsigned k = 0; k < EJECTION_REASONS; k++)
            into->endpoints[i].ejections[k] += from->endpoints[i].ejections[k];
    for (uint32_t i = 0; i < from->route_count; i++)
        if (from->routes[i])
            route_merge(into, i, from->routes[i]);
    for (uint32_t i = 0; i < from->upstream_count; i++)
        if (from->upstreams[i])
            upstream_merge(into, i, from->upstreams[i]);
}

struct metrics *metrics_copy(const struct metrics *metrics)
{
    struct metrics *copy = metrics_new();
    // One block for all there is, so that the worker asks the heap once, however many routes it has seen.
    copy->chunks = chunk_new(metrics->bytes + CACHE_LINE);
    metrics_merge(copy, metrics);
    return copy;
}
