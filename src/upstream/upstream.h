// Upstreams: who can answer (endpoints), and lending connections to them.
//
//   struct upstream        in the snapshot: settings, endpoints, ring. Read-only but for per-worker slots.
//   struct upstream_local  a worker's side, by name across reloads: balancer, pools, waiting calls
//   struct upstream_call   one attempt at one request, in the exchange: picks, waits, sends, hears back
//
//   exchange                          upstream                                    net
//     upstream_call_start ───────────▶ pick endpoint, take idle or connect ─────▶ conn_connect
//     ◀── on_ready                     lent connection
//     upstream_call_head, _body, _end▶ h1 framing, out buffer ──────────────────▶ conn_sendv
//     ◀── on_head, on_body, on_end     response parser ◀──────────────────────── conn_recv
//     upstream_call_finish ──────────▶ give back to the pool, or close
#pragma once

#include "base/quota.h"
#include "http/body.h"
#include "http/message.h"
#include "net/out.h"
#include "net/tls.h"
#include "observe/metrics.h"
#include "upstream/balance.h"
#include "upstream/client_room.h"
#include "upstream/concurrency.h"
#include "upstream/connection_bound.h"
#include "upstream/outcome.h"
#include "upstream/retry_budget.h"
#include "upstream/shared_breaker.h"

enum {
    UPSTREAM_HEAD_BYTES = 64 * 1024, // of a response head: twice what clients may send
    UPSTREAM_HEADERS = 200,          // fields of a response head
    INFORMATIONAL_MAX = 16,          // 1xx heads before the final one: more is a flood
};

struct upstream_conn; // a connection to an endpoint
struct upstream_link; // what a call is lent of one: HTTP/1.1: all of it; HTTP/2: a stream

struct upstream_target {
    struct endpoint *endpoint;
    uint32_t weight;
    struct str host; // upstream_host of the address as configured
};

struct upstream {
    const struct upstream_settings *settings;
    struct str name;
    uint32_t index; // dense by name, process-wide: workers' arrays use it
    uint32_t metric_id;
    struct upstream_target *targets;
    uint32_t target_count;
    const struct hash_ring *ring;
    struct shared_breaker *breaker;       // by name, process-wide. NULL: none for it as a whole
    bool endpoint_breakers;               // its endpoints have some
    struct breaker_tally *breaker_tally;  // of all of them; NULL: there are none
    struct upstream *fallback;            // asked while its breaker is open; NULL: none
    uint64_t stale_us;                    // copies of its answers are good for so long then; 0: none is kept
    struct concurrency *requests;         // of limits, over all workers; by name, process-wide
    struct quota *pending;                // the same
    struct connection_bound *connections; // the same
    struct retry_budget *retries;         // the same
    struct tls_client **tls;              // by slot: 0 the control thread's, n + 1 worker n's; NULL: plain
    unsigned tls_count;
    uint64_t generation; // of the snapshot: a worker rebuilds its local side when it differs
};

// The host of a target's address, without port and brackets; "localhost" for a unix socket. Borrowed.
struct str upstream_host(struct str address);

// Builds the upstreams of a snapshot; host names are looked up. tls_slots: so many TLS contexts are made, the
// control thread's and each worker's; 0: none, it is only looked at. Control thread. ERR_INVALID and *err on
// failure.
must_check enum err_code upstream_compile(struct upstream *upstream, const struct upstream_settings *settings,
                                          uint64_t generation, unsigned tls_slots, struct arena *arena,
                                          struct err *err);
// The breakers that guard it, one after the other: the one of all of it, or those of its targets' endpoints.
// False: there are no more.
struct upstream_breaker {
    struct shared_breaker *breaker;
    const struct endpoint *endpoint; // NULL: of the upstream as a whole
};
bool upstream_breaker_at(const struct upstream *upstream, uint32_t i, struct upstream_breaker *breaker);
void upstream_fini(struct upstream *upstream); // drops the references to endpoints and TLS contexts

// Requests that it is given at a time: limits.requests, or fewer where that is adaptive. Any thread.
uint32_t upstream_requests_limit(const struct upstream *upstream);
// Requests that wait in line for it, over all workers. Any thread.
uint32_t upstream_requests_waiting(const struct upstream *upstream);

// Whether somebody was held up for want of a place or a connection, in the last second: in this upstream; in
// any, or refused since all probes of a breaker were under way.
bool upstream_is_short(const struct upstream *upstream, uint64_t now_ms);
bool upstream_any_short(uint64_t now_ms);

// ---- a worker's side ----

struct block_pool;
struct upstream_worker; // all upstreams of one worker

struct upstream_worker_needs { // borrowed from the worker
    struct loop *loop;
    struct buf_pool *buffers;
    struct block_pool *blocks; // NULL: the heap
    struct rand *rand;
    struct metrics *metrics;
    unsigned slot, workers; // which worker of how many: limits are shared. The control thread: 0 of 1, so
                            // that what it asks is counted with the workers' calls, or by itself when limits
                            // are too large to be counted together
    unsigned tls_slot;      // of upstream->tls: TLS_SLOT_CONTROL, or n + 1 for worker n
};
struct upstream_worker *upstream_worker_new(const struct upstream_worker_needs *needs);
void upstream_worker_free(struct upstream_worker *worker);
// A new snapshot is in force: pools of endpoints that are gone are closed, the rest is kept.
void upstream_worker_update(struct upstream_worker *worker, struct upstream *const *upstreams,
                            uint32_t count);
// Drain: idle connections are closed, none are kept from now on.
void upstream_worker_drain(struct upstream_worker *worker);
// Descriptors are short: connections that have been idle for so long are closed.
void upstream_worker_close_idle(struct upstream_worker *worker, uint64_t idle_ms);
// For tests and the admin API.
uint32_t upstream_worker_lent(const struct upstream_worker *worker);

// ---- one attempt ----

struct upstream_call;

struct upstream_call_events {
    // A connection is lent; call->reused says whether it served a request before.
    void (*on_ready)(struct upstream_call *call);
    // 1xx but 101.
    void (*on_informational)(struct upstream_call *call, struct response_head *head);
    // The response head; it lives in the call's arena.
    void (*on_head)(struct upstream_call *call, struct response_head *head);
    enum flow (*on_body)(struct upstream_call *call, struct str span);
    // The response is complete; trailers may be NULL.
    void (*on_end)(struct upstream_call *call, struct headers *trailers);
    // All that was read has been handed over: flush what is gathered.
    void (*on_flush)(struct upstream_call *call);
    // FLOW_FULL is over for the request body.
    void (*on_drain)(struct upstream_call *call);
    // It ends here, whatever came before: connect failure, reset, timeout, garbage, truncation. Nothing
    // follows.
    void (*on_fail)(struct upstream_call *call, enum end_cause cause);
};

struct upstream_call { // zero it, then fill in the first block
    const struct upstream_call_events *events;
    void *context; // the caller's
    struct upstream *upstream;
    struct arena *arena; // the exchange's
    enum http_method method;
    uint64_t hash;            // consistent_hash key
    bool impatient;           // it is refused rather than made to wait in line
    uint64_t deadline_us;     // of its request: half of what is left is the longest it waits in line; 0: none
    struct client_room *room; // of the client's connection; NULL: none bounds it. upstream_call_leave_client
    uint64_t tried;           // endpoints that this exchange has tried: balance_bit

    // Set by the room:
    struct upstream_local *local;
    struct upstream_link *link;       // NULL: none lent
    uint32_t granted_bytes;           // of room
    struct upstream_conn *connecting; // on its way; nothing may be written to it yet
    struct upstream_pool *pool;       // where it counts as active
    struct endpoint *endpoint;
    struct list waiting; // for a connection: in its list (connecting) or the pending queue (queued)
    bool queued;
    bool fresh; // takes no connection that was used before
    struct loop_timer pending_timer;
    uint64_t waits_since_us;    // in line; 0: has not waited
    uint64_t waits_until_us;    // at the longest
    uint64_t placed_us;         // when the endpoint was chosen
    uint64_t ready_us, head_us; // when lent, when the response head came
    uint64_t asked_us;          // when the request was complete; 0: it is not
    bool reused;
    bool response_begun;            // at least one byte of the response was read
    struct shared_breaker *breaker; // that let it pass, and is not told yet how it went; NULL: none
    struct breaker_pass pass;
    struct list unanswered;            // in one of local->slow_calls, or in none
    uint64_t breaker_wait_us;          // END_BREAKER_OPEN: when to ask again; 0: not known
    struct upstream_conn *failed_with; // during on_fail: the connection, when that is what has failed
    bool judged;                       // outcome is known, and has been noted
    struct upstream_outcome outcome;
};

enum call_start { CALL_READY, CALL_WAITING, CALL_REFUSED };

// Picks an endpoint and a connection. CALL_READY: lent now (on_ready is not called). CALL_WAITING: on_ready
// or on_fail will be called. CALL_REFUSED: *cause says why (END_BREAKER_OPEN, END_NO_ENDPOINT,
// END_OVERLOADED, END_UPSTREAM_CONNECT_FAILED). fresh: do not take a connection that was used before (second
// try). After CALL_REFUSED, too, upstream_call_finish ends the attempt.
enum call_start upstream_call_start(struct upstream_worker *worker, struct upstream_call *call, bool fresh,
                                    enum end_cause *cause);

// The request. Heads and chunk framing are gathered; upstream_call_flush sends them, and so does a body span.
// framing: NONE, LENGTH, CHUNKED or TUNNEL (upgrade). False: out of memory.
must_check bool upstream_call_head(struct upstream_call *call, const struct request_head *head,
                                   struct str target, enum framing framing, bool upgrade);
enum flow upstream_call_body(struct upstream_call *call, struct str span);
// The request's end; trailers may be NULL. For a tunnel: half-close.
void upstream_call_end(struct upstream_call *call, const struct headers *trailers);
void upstream_call_flush(struct upstream_call *call);
// Back-pressure of the response: go on after on_body said FLOW_FULL.
void upstream_call_resume(struct upstream_call *call);
// The client's connection may go now, and its room with it; the call goes on.
void upstream_call_leave_client(struct upstream_call *call);
// True when nothing of the request has reached the kernel yet, so that any method may be tried again.
bool upstream_call_unsent(const struct upstream_call *call);
// A kept connection that ended before a byte of the response: the upstream had closed it, most likely.
bool upstream_call_was_stale(const struct upstream_call *call, enum end_cause cause);

// Ends the attempt, from any state, also from inside an event: a connection whose request and response are
// both complete goes back to its pool, any other is closed. Nothing is called afterwards. end: how it ended,
// for those that judge the upstream, unless upstream_call_judge has told them.
void upstream_call_finish(struct upstream_call *call, const struct attempt_end *end);
// The attempt goes on, but how it went is known: for answers that last (tunnels, streams). Once an attempt.
void upstream_call_judge(struct upstream_call *call, const struct attempt_end *end);
// Whether a breaker waits to hear from it before it lets others pass.
bool upstream_call_is_probe(const struct upstream_call *call);
// It is the client that this probe waits for: the breaker may send another one instead.
void upstream_call_pass_over(struct upstream_call *call);

// ---- the retry budget ----

// A request is under way to upstream, whatever attempts it makes, until retry_place_leave; asked again with
// another upstream, it changes over. Whether it may try again: retry_place_take.
void upstream_enter(struct upstream_worker *worker, struct upstream *upstream, struct retry_place *place);
