// A worker's pools of connections to endpoints, and what a call is lent of them: private to the room.
//
//   struct upstream_link   what one call is lent: a whole HTTP/1.1 connection, or a stream of an HTTP/2 one
//   struct upstream_conn   a connection's life, whatever is spoken on it
//   struct protocol        what is spoken: one row for each
//
//   CONNECTING ──opened──▶ LENT ──last call over, may serve again──▶ IDLE ──lend──▶ LENT
//        │ (nobody waits: goes on, to IDLE)  │               │ peer closed, spoke up, idle_us over
//        └────────── failed, timed out ──────┴───────────────┴──▶ closed
#pragma once

#include "net/tls.h"
#include "upstream/slow_calls.h"
#include "upstream/upstream.h"

enum {
    HOST_BYTES = 256,           // of a target's name: DNS knows no longer ones
    COMPLAINTS_EVERY_MS = 1000, // about one endpoint in the log
};

// The TLS session with an endpoint, shared by a pool and the connections that may still hand in a ticket.
struct pool_session {
    struct tls_session tls;
    unsigned references;
};

// A worker's connections to one endpoint.
struct upstream_pool {
    struct upstream_local *local;
    struct endpoint *endpoint;
    int position;     // in local->balance.endpoints; -1: no longer there
    struct list idle; // connections without a call, the most recently used first
    struct list open; // connections with calls that take more of them, the same
    struct list connecting;
    uint32_t links;        // all of them, those with calls that take no more too
    uint32_t active;       // calls
    char host[HOST_BYTES]; // of the target, without port: what its certificate is checked for
    uint8_t host_bytes;
    struct pool_session *session; // NULL: none yet
    uint64_t complained_ms;
};

// A worker's side of one upstream.
struct upstream_local {
    struct upstream_worker *worker;
    struct upstream *upstream; // of the newest snapshot that has it
    bool retired;              // no longer in the configuration: only exchanges of an old snapshot come here
    uint32_t metric_id;
    uint64_t generation, connect_ms, idle_ms; // of upstream, which a retired one may outlive
    const struct protocol *protocol;
    struct tls_client *tls; // a reference; NULL: plain
    uint32_t epoch;         // of protocol and tls: connections of another one take no new calls
    struct balance balance;
    struct upstream_pool **pools; // parallel to balance.endpoints
    struct list waiting;          // calls, first come first served
    bool serving;                 // local_serve_waiting is on the stack
    struct loop_timer poll;       // looks what can be done about it, while somebody waits
    struct connection_share links;
    struct list leaving; // connections that take no more calls, since others want them, oldest first
    uint32_t leaving_count;
    struct concurrency_share requests;
    struct quota_share pending;
    struct retry_share retries;
    struct slow_calls slow_calls;
};

struct upstream_worker {
    struct upstream_worker_needs needs;
    struct upstream_local **locals; // by upstream->index
    uint32_t local_count;
    uint32_t lent; // calls with a link
    bool draining;
    struct list spare_streams; // of HTTP/2
    unsigned spare_stream_count;
    uint64_t stream_serial; // of the stream lent last
};

// ---- what a call is lent ----

// Behind upstream_call_head and its like.
struct link_verbs {
    bool (*head)(struct upstream_link *link, const struct request_head *head, struct str target,
                 enum framing framing, bool upgrade);
    enum flow (*body)(struct upstream_link *link, struct str span);
    void (*end)(struct upstream_link *link, const struct headers *trailers);
    void (*flush)(struct upstream_link *link);
    void (*resume)(struct upstream_link *link);
    bool (*is_unsent)(const struct upstream_link *link);
    // The call is over, whatever state it is in: link->call is NULL already. False: the endpoint is yet to be
    // told, with the turn's output, and the call's place in local->requests is given back then.
    bool (*give)(struct upstream_link *link);
};

struct upstream_link {
    const struct link_verbs *verbs;
    struct upstream_call *call; // NULL: none
};

// ---- a connection ----

enum upstream_conn_state { UPSTREAM_CONNECTING, UPSTREAM_IDLE, UPSTREAM_LENT };

struct upstream_conn {
    struct conn conn;
    const struct protocol *protocol;
    struct list node; // in one of the pool's lists, or in none
    struct upstream_pool *pool;
    struct list waiting; // calls, until it is open
    uint32_t waiting_count;
    uint32_t room;  // calls that it takes besides those it has
    uint32_t epoch; // the local's when it began
    enum upstream_conn_state state;
    bool used;           // has served a request
    bool failure_told;   // its failure is known from one of its calls (call->failed_with)
    bool leaving;        // in local->leaving
    uint64_t leaving_ms; // since when
    uint64_t idle_ms;    // IDLE: since when
    struct out out;
    struct loop_timer timer; // CONNECTING: deadline; else the protocol's
    struct pool_session *session;
};

struct protocol {
    const char *name;
    unsigned calls;                     // one connection has at most at a time
    struct upstream_conn *(*new)(void); // zeroed; NULL: memory is out
    void (*free)(struct upstream_conn *c);
    // Connected (and secured): does what must be done before calls, then says connection_opened. NULL:
    // nothing. False: memory is out.
    bool (*open)(struct upstream_conn *c);
    // Lends to one call more, and sets c->room. NULL: memory is out.
    struct upstream_link *(*lend)(struct upstream_conn *c, struct upstream_call *call);
    // A last look at an idle connection before something is sent that must not be sent twice.
    bool (*is_fit)(struct upstream_conn *c);
    void (*on_ready)(struct upstream_conn *c);
    void (*on_timer)(struct upstream_conn *c); // IDLE: expired
    // Says goodbye, and lets go of everything but the memory. NULL: nothing.
    void (*on_close)(struct upstream_conn *c);
};

extern const struct protocol h1_protocol, h2_protocol;

static inline struct upstream_worker_needs *connection_needs(const struct upstream_conn *c)
{
    return &c->pool->local->worker->needs;
}

// ---- connection.c: its life ----

// Starts connecting for call, which waits for it. One of local->links has been taken for it, and is given
// back when it is closed, or cannot even start: false and *cause.
must_check bool connection_start(struct upstream_pool *pool, struct upstream_call *call,
                                 enum end_cause *cause);
// One call more waits until it is open.
void connection_join(struct upstream_conn *c, struct upstream_call *call);
void connection_leave(struct upstream_call *call);
// It is open: serves who waits for it.
void connection_opened(struct upstream_conn *c);
// It will not open: closes it, and fails who waits. why: for the log; NULL: nothing worth a line.
void connection_failed(struct upstream_conn *c, const char *why);
// False: memory is out.
must_check bool connection_lend(struct upstream_conn *c, struct upstream_call *call);
// It takes so many calls more than it has.
void connection_set_room(struct upstream_conn *c, uint32_t room);
// Whether a connection without a call is worth keeping, or one with some worth giving more.
bool connection_is_wanted(const struct upstream_conn *c);
// No call is left: it waits for the next.
void connection_become_idle(struct upstream_conn *c);
// Twice is harmless. The connection is freed at the end of the turn, a retired pool at once when this was the
// last of it.
void connection_close(struct upstream_conn *c);
void pool_close_idle(struct upstream_pool *pool);
// Those that have been idle since then or before.
void pool_close_idle_since(struct upstream_pool *pool, uint64_t since_ms);
void pool_close_connecting(struct upstream_pool *pool);
// Others want connections: closes what is idle, as many as they want.
void local_close_wanted(struct upstream_local *local);
// Connections that others still wait for after a turn, since a call on them does not end, take calls again.
void local_take_back(struct upstream_local *local);
void pool_free(struct upstream_pool *pool); // which has no connection and no call
// The next connection begins without what the ones so far have agreed on.
void pool_forget_session(struct upstream_pool *pool);

// ---- call.c ----

// A connection was closed or came back: serve who waits.
void local_serve_waiting(struct upstream_local *local);
// What the call waited for is not to be had: it gets another connection at its endpoint, or goes back in
// line.
void call_place_again(struct upstream_call *call);

// ---- upstream.c ----

struct upstream_local *upstream_local_of(struct upstream_worker *worker, struct upstream *upstream);

// ---- h2_stream.c ----

// Frees spare streams beyond these. From the loop: one that was given back may be in use further up the
// stack.
void streams_trim_spare(struct upstream_worker *worker, unsigned keep);
