// Counters and histograms. Each worker writes its own shard with plain stores and shares no cache line; the
// control thread collects by asking each worker's loop for a copy, so there is no lock and no atomic on the
// request path.
//
// Series are named by small dense ids that live as long as the process: a reload that keeps a route's name
// keeps its counters. The set of label values comes from the configuration alone.
#pragma once

#include "base/buf.h"
#include "base/priority.h"
#include "observe/end.h"

// ---- names: process-wide, locked, for configuration time and for scraping ----

enum name_kind {
    NAME_LISTENER,
    NAME_ROUTE,
    NAME_UPSTREAM,
    NAME_ENDPOINT,
    NAME_PROVIDER,
    NAME_LIMIT,
    NAME_KINDS
};

// The id of a name, the same for the life of the process. Endpoint names are "upstream\0address" pairs.
uint32_t metric_name_id(enum name_kind kind, struct str name);
// The name of an id, valid for ever.
struct str metric_name(enum name_kind kind, uint32_t id);
uint32_t metric_name_count(enum name_kind kind);

// ---- a worker's shard ----

struct metrics; // opaque; one for each worker, one thread writes
struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics);
// Makes room for every id handed out so far: call after picking up a snapshot, so that the path never grows
// arrays.
void metrics_reserve(struct metrics *metrics);

// What one finished exchange adds.
struct metric_request {
    uint32_t listener, route; // ids; route UINT32_MAX: none matched (label "")
    unsigned method;          // enum http_method
    unsigned status;
    enum end_cause cause;
    uint64_t duration_us, bytes_in, bytes_out;
};
void metrics_request(struct metrics *metrics, const struct metric_request *request);

// One attempt at an upstream; status 0: no response.
void metrics_upstream(struct metrics *metrics, uint32_t upstream, unsigned status, uint64_t duration_us);
enum retry_reason {
    RETRIED_CONNECT_FAILURE,
    RETRIED_RESET,
    RETRIED_REFUSED_STREAM,
    RETRIED_STATUS,
    RETRIED_TIMEOUT,
    RETRY_REASONS
};
void metrics_retry(struct metrics *metrics, uint32_t upstream, enum retry_reason reason);
// A copy of its answer was given.
void metrics_stale_answer(struct metrics *metrics, uint32_t upstream);

// What became of second attempts beside slow ones: X(id, value of the label "result").
#define HEDGE_RESULTS(X)                                                     \
    X(HEDGE_WON, "won")   /* it was first, or the other one failed */        \
    X(HEDGE_LOST, "lost") /* the other one was, or nobody waited any more */ \
    X(HEDGE_FAILED, "failed")
enum hedge_result {
#define X(id, ...) id,
    HEDGE_RESULTS(X)
#undef X
        HEDGE_RESULT_COUNT,
};
void metrics_hedge(struct metrics *metrics, uint32_t upstream, enum hedge_result result);

// Ejections of endpoints, by why: X(id, value of the label "reason", for people).
#define EJECTION_REASON_LIST(X)                                                      \
    X(EJECTED_CONSECUTIVE_FAILURES, "consecutive_failures", "failures in a row")     \
    X(EJECTED_CONNECT_FAILURES, "connect_failures", "connects that failed in a row") \
    X(EJECTED_SUCCESS_RATE, "success_rate", "a lower success rate than the others'")
enum ejection_reason {
#define X(id, ...) id,
    EJECTION_REASON_LIST(X)
#undef X
        EJECTION_REASONS,
};
struct str ejection_reason_name(enum ejection_reason reason);
void metrics_ejection(struct metrics *metrics, uint32_t endpoint, enum ejection_reason reason);

// Gauges that move by ±1.
enum connection_state { CONNECTIONS_ACTIVE, CONNECTIONS_IDLE, CONNECTION_STATES };
void metrics_connections(struct metrics *metrics, uint32_t listener, enum connection_state state, int change);
void metrics_upstream_connections(struct metrics *metrics, uint32_t upstream, enum connection_state state,
                                  int change);

// What is counted for each provider of authentication. Rows of one family stand together: X(id, family, value
// of the label "result").
#define PROVIDER_FAMILIES(X)                                                                                \
    X(PROVIDER_DECISIONS, "sallyport_auth_decisions_total", "Requests that a provider was asked about.")    \
    X(PROVIDER_CACHE, "sallyport_auth_cache_total", "Of these, how the cache of decisions knew an answer.") \
    X(PROVIDER_JWKS, "sallyport_jwks_refresh_total", "Fetches of key sets.")
#define PROVIDER_COUNTERS(X)                               \
    X(COUNT_AUTH_ALLOW, PROVIDER_DECISIONS, "allow")       \
    X(COUNT_AUTH_DENY, PROVIDER_DECISIONS, "deny")         \
    X(COUNT_AUTH_NONE, PROVIDER_DECISIONS, "none")         \
    X(COUNT_AUTH_ERROR, PROVIDER_DECISIONS, "unavailable") \
    X(COUNT_CACHE_HIT, PROVIDER_CACHE, "hit")              \
    X(COUNT_CACHE_NEGATIVE, PROVIDER_CACHE, "negative")    \
    X(COUNT_CACHE_STALE, PROVIDER_CACHE, "stale")          \
    X(COUNT_CACHE_MISS, PROVIDER_CACHE, "miss")            \
    X(COUNT_JWKS_OK, PROVIDER_JWKS, "success")             \
    X(COUNT_JWKS_FAILED, PROVIDER_JWKS, "failure")
enum provider_family {
#define X(id, ...) id,
    PROVIDER_FAMILIES(X)
#undef X
        PROVIDER_FAMILY_COUNT,
};
enum provider_counter {
#define X(id, ...) id,
    PROVIDER_COUNTERS(X)
#undef X
        PROVIDER_COUNTER_COUNT,
};
void metrics_provider(struct metrics *metrics, uint32_t provider, enum provider_counter counter);

// What rate limits said: X(id, value of the label "decision").
#define LIMIT_DECISIONS(X)                                                      \
    X(LIMIT_ALLOWED, "allow")                                                   \
    X(LIMIT_DENIED, "deny")                                                     \
    X(LIMIT_SHADOW_DENIED, "shadow_deny") /* would have been, in shadow mode */ \
    X(LIMIT_DEGRADED, "degraded")         /* decided without Redis */
enum limit_decision {
#define X(id, ...) id,
    LIMIT_DECISIONS(X)
#undef X
        LIMIT_DECISION_COUNT,
};
void metrics_limit(struct metrics *metrics, uint32_t limit, enum limit_decision decision);

// Commands to Redis, by how they ended: X(id, value of the label "result").
#define REDIS_RESULTS(X)                                         \
    X(REDIS_COMMAND_OK, "ok")                                    \
    X(REDIS_COMMAND_ERROR, "error")       /* Redis's own */      \
    X(REDIS_COMMAND_DOWN, "down")         /* no connection */    \
    X(REDIS_COMMAND_DEADLINE, "deadline") /* no reply in time */ \
    X(REDIS_COMMAND_FULL, "full")         /* too much under way */
enum redis_result {
#define X(id, ...) id,
    REDIS_RESULTS(X)
#undef X
        REDIS_RESULT_COUNT,
};
// duration_us counts when there was a reply in time.
void metrics_redis(struct metrics *metrics, enum redis_result result, uint64_t duration_us);

// Requests of routes with idempotency, by what became of them: X(id, value of the label "result").
#define IDEMPOTENCY_RESULTS(X)                                                                 \
    X(IDEMPOTENCY_NEW, "new")                                                                  \
    X(IDEMPOTENCY_REPLAYED, "replayed")                                                        \
    X(IDEMPOTENCY_IN_PROGRESS, "in_progress")                                                  \
    X(IDEMPOTENCY_MISMATCH, "mismatch")       /* another request had the key */                \
    X(IDEMPOTENCY_LOST, "lost")               /* carried out, and its answer was not kept */   \
    X(IDEMPOTENCY_NO_KEY, "no_key")           /* malformed, or missing where it is required */ \
    X(IDEMPOTENCY_UNAVAILABLE, "unavailable") /* Redis does not answer */                      \
    X(IDEMPOTENCY_OVERLOADED, "overloaded")   /* too many are under way */
enum idempotency_result {
#define X(id, ...) id,
    IDEMPOTENCY_RESULTS(X)
#undef X
        IDEMPOTENCY_RESULT_COUNT,
};
void metrics_idempotency(struct metrics *metrics, enum idempotency_result result);

// What the gateway itself can run short of: X(id, value of the label "resource").
#define OVERLOAD_RESOURCE_NAMES(X)         \
    X(OVERLOAD_DESCRIPTORS, "descriptors") \
    X(OVERLOAD_MEMORY, "memory")           \
    X(OVERLOAD_LOOP, "loop") /* the time of a worker */
enum overload_resource {
#define X(id, ...) id,
    OVERLOAD_RESOURCE_NAMES(X)
#undef X
        OVERLOAD_RESOURCES,
};
// A request was turned away for it.
void metrics_shed(struct metrics *metrics, enum priority priority);

// Plain counters by name, for all that has no labels.
#define METRIC_COUNTERS(X)                                                                                 \
    X(COUNT_ACCEPTED, "sallyport_accepted_connections_total", "Connections accepted.")                     \
    X(COUNT_ACCEPT_PAUSES, "sallyport_accept_pauses_total",                                                \
      "Times accepting paused for want of descriptors.")                                                   \
    X(COUNT_REFUSED, "sallyport_refused_connections_total", "Connections closed at once: over the limit.") \
    X(COUNT_TLS_HANDSHAKES, "sallyport_tls_handshakes_total", "TLS handshakes of clients completed.")      \
    X(COUNT_TLS_RESUMED, "sallyport_tls_resumed_total", "Of these, those that resumed a session.")         \
    X(COUNT_TLS_FAILURES, "sallyport_tls_failures_total", "TLS handshakes of clients that failed.")        \
    X(COUNT_H2_FLOODS, "sallyport_http2_floods_total", "HTTP/2 connections ended for doing too much.")     \
    X(COUNT_LEASE_BOUGHT, "sallyport_rate_limit_leased_tokens_total",                                      \
      "Tokens of leased limits that were taken from Redis ahead of requests.")                             \
    X(COUNT_LEASE_RETURNED, "sallyport_rate_limit_returned_tokens_total",                                  \
      "Of these, those that went back unspent.")                                                           \
    X(COUNT_LEASE_LOST, "sallyport_rate_limit_lost_tokens_total",                                          \
      "Of these, those that were neither spent nor went back.")                                            \
    X(COUNT_LOG_DROPPED, "sallyport_access_log_dropped_total", "Access log lines that could not be written.")
enum metric_counter {
#define X(id, name, help) id,
    METRIC_COUNTERS(X)
#undef X
        METRIC_COUNTER_COUNT,
};
void metrics_count(struct metrics *metrics, enum metric_counter counter, uint64_t n);

// ---- collecting ----

// A deep copy of a shard, made in the worker's thread; metrics_free it.
struct metrics *metrics_copy(const struct metrics *metrics);
// Adds from's values to into.
void metrics_merge(struct metrics *into, const struct metrics *from);

struct metrics_certificate {
    struct str name;
    int64_t not_after; // Unix seconds
};

// Of circuit breakers (upstream/breaker.h): X(id, value of the label "to"). The gauge shows their numbers.
#define BREAKER_STATE_NAMES(X)        \
    X(BREAKER_CLOSED, "closed")       \
    X(BREAKER_OPEN, "open")           \
    X(BREAKER_HALF_OPEN, "half-open") \
    X(BREAKER_RAMPING, "ramping")
enum breaker_state {
#define X(id, ...) id,
    BREAKER_STATE_NAMES(X)
#undef X
        BREAKER_STATES,
};
struct metrics_breaker {
    uint32_t upstream, endpoint; // ids; endpoint UINT32_MAX: of the upstream as a whole (label "")
    enum breaker_state state;
};
struct metrics_breaker_changes { // of all breakers of an upstream
    uint32_t upstream;
    uint64_t to[BREAKER_STATES];
};
struct metrics_requests {
    uint32_t upstream; // id
    uint32_t limit;    // in force
    uint32_t waiting;  // in line
};

// What the control thread knows by itself.
struct metrics_process {
    uint64_t worker_restarts;
    uint64_t reloads_ok, reloads_failed;
    bool last_reload_ok;
    double start_seconds; // wall clock
    const struct metrics_certificate
        *certificates; // in force; of those with one name, the earliest end shows
    size_t certificate_count;
    double overload[OVERLOAD_RESOURCES]; // pressure, 0 to 3
    const struct metrics_breaker *breakers;
    size_t breaker_count;
    const struct metrics_breaker_changes *breaker_changes;
    size_t breaker_change_count;
    const struct metrics_requests *requests; // of upstreams
    size_t requests_count;
};
struct metrics_endpoint {
    uint32_t endpoint; // id
    bool up, ejected;
};
// Prometheus text 0.0.4, or OpenMetrics 1.0 (with # EOF); process_* from /proc/self.
void metrics_print(const struct metrics *total, const struct metrics_process *process,
                   const struct metrics_endpoint *endpoints, size_t endpoint_count, bool openmetrics,
                   struct buf *out);
