// What a metrics shard is made of; for metrics.c and metrics_print.c only.
//
//   metrics ── routes[id + 1] ─▶ metric_route ── bytes in, out
//                                     └── table ─▶ metric_series {listener, method, status} ─▶ count
//                                                       └─▶ metric_histogram, one for each status class
//
// A route costs a pointer until its first request. Then what it needs comes out of the shard's own chunks, so
// that two workers never write to one cache line, and a copy is one block of known size.
#pragma once

#include "observe/metrics.h"

// OpenTelemetry semantic conventions, http.server.request.duration: the advised bucket boundaries.
#define METRIC_BOUNDS(X) \
    X(5000, "0.005")     \
    X(10000, "0.01")     \
    X(25000, "0.025")    \
    X(50000, "0.05")     \
    X(75000, "0.075")    \
    X(100000, "0.1")     \
    X(250000, "0.25")    \
    X(500000, "0.5")     \
    X(750000, "0.75")    \
    X(1000000, "1")      \
    X(2500000, "2.5")    \
    X(5000000, "5")      \
    X(7500000, "7.5")    \
    X(10000000, "10")

// A server next door answers in a tenth of a millisecond: as many bounds, but finer ones.
#define REDIS_BOUNDS(X) \
    X(100, "0.0001")    \
    X(250, "0.00025")   \
    X(500, "0.0005")    \
    X(1000, "0.001")    \
    X(2500, "0.0025")   \
    X(5000, "0.005")    \
    X(10000, "0.01")    \
    X(25000, "0.025")   \
    X(50000, "0.05")    \
    X(100000, "0.1")    \
    X(250000, "0.25")   \
    X(500000, "0.5")    \
    X(1000000, "1")     \
    X(2500000, "2.5")

#define X(us, text) +1
enum { METRIC_BUCKETS = METRIC_BOUNDS(X) };
#undef X

struct metric_histogram {                // two cache lines
    uint64_t counts[METRIC_BUCKETS + 1]; // each by itself, not cumulative; the last is beyond every bound
    uint64_t sum_us;
};

struct metric_series {
    uint64_t key; // metric_key; 0: the place is empty
    uint64_t count;
    struct metric_histogram *duration;
};

// Open addressing over few keys. Nearly every request finds its series in `last`.
struct metric_table {
    struct metric_series *last; // NULL: none yet
    struct metric_series *series;
    uint32_t capacity, count; // capacity: 0 or a power of two
};

struct metric_route {
    struct metric_table requests;
    uint64_t bytes_in, bytes_out;
};

struct metric_upstream {
    struct metric_table requests; // all share `duration`
    uint64_t retries[RETRY_REASONS], hedges[HEDGE_RESULT_COUNT];
    uint64_t stale_answers;
    int64_t connections[CONNECTION_STATES];
    struct metric_histogram *duration;
};

struct metric_listener {
    int64_t connections[CONNECTION_STATES];
};

struct metric_provider {
    uint64_t counters[PROVIDER_COUNTER_COUNT];
};

struct metric_limit {
    uint64_t decisions[LIMIT_DECISION_COUNT];
};

struct metric_endpoint {
    uint64_t ejections[EJECTION_REASONS];
};

struct metric_chunk {
    struct metric_chunk *next;
    size_t used, size; // of the whole chunk, this head included
};

struct metrics {
    uint64_t ends[END_CAUSE_COUNT];
    uint64_t counters[METRIC_COUNTER_COUNT];
    uint64_t redis_results[REDIS_RESULT_COUNT];
    uint64_t idempotency[IDEMPOTENCY_RESULT_COUNT];
    uint64_t sheds[PRIORITIES];
    struct metric_histogram redis_duration; // by REDIS_BOUNDS
    struct metric_route **routes;           // by id + 1; 0: requests that matched no route
    struct metric_upstream **upstreams;
    struct metric_listener *listeners;
    struct metric_provider *providers;
    struct metric_limit *limits;
    struct metric_endpoint *endpoints;
    uint32_t route_count, upstream_count, listener_count, provider_count, limit_count, endpoint_count;
    struct metric_chunk *chunks;
    size_t bytes; // taken from chunks, all in all
};

// One key for what tells series of a route apart. Never 0. What is no HTTP status is 0.
static inline uint64_t metric_key(uint32_t listener, unsigned method, unsigned status)
{
    if (unlikely(status - 100 >= 500))
        status = 0;
    return (uint64_t)listener << 32 | 1u << 31 | (method & 0xff) << 16 | status;
}

static inline uint32_t metric_key_listener(uint64_t key)
{
    return (uint32_t)(key >> 32);
}

static inline unsigned metric_key_method(uint64_t key)
{
    return (unsigned)(key >> 16) & 0xff;
}

static inline unsigned metric_key_status(uint64_t key)
{
    return (unsigned)key & 0xffff;
}

// 1 to 5; 0 for status 0: the exchange ended before there was one.
enum { METRIC_CLASSES = 6 };

static inline unsigned metric_class(unsigned status)
{
    return status / 100;
}

// The histogram of a status class, or NULL when no series of that class is there.
struct metric_histogram *metric_table_duration(const struct metric_table *table, unsigned status_class);

// The label value of an enum http_method. That enum lives in a room this one may not include; a test compares
// them.
struct str metric_method_name(unsigned method);
