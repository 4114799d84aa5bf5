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

#include "upstream/upstream.h"

// A worker's connections to one endpoint.
struct upstream_pool {
    struct upstream_local *local;
    struct endpoint *endpoint;
    int position;     // in local->balance.endpoints; -1: no longer there
    struct list idle; // connections without a call, the most recently used first
    struct list connecting;
    uint32_t links;  // all of them
    uint32_t active; // calls
};

// A worker's side of one upstream.
struct upstream_local {
    struct upstream_worker *worker;
    struct upstream *upstream; // of the newest snapshot that has it
    bool retired;              // no longer in the configuration: only exchanges of an old snapshot come here
    uint32_t metric_id;
    uint64_t generation, connect_ms, idle_ms; // of upstream, which a retired one may outlive
    const struct protocol *protocol;
    struct balance balance;
    struct upstream_pool **pools; // parallel to balance.endpoints
    struct list waiting;          // calls, first come first served
    bool serving;                 // local_serve_waiting is on the stack
    struct loop_timer poll;       // looks whether another worker has made room, while somebody waits
    uint32_t links, max_links;    // limits.connections: this worker's part, so that none can starve another
    uint32_t calls, retrying;
    struct quota_share requests, pending;
};

struct upstream_worker {
    struct upstream_worker_needs needs;
    struct upstream_local **locals; // by upstream->index
    uint32_t local_count;
    uint32_t lent; // calls with a link
    bool draining;
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
    // The call is over, whatever state it is in: link->call is NULL already.
    void (*give)(struct upstream_link *link);
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
    struct list node; // in one of the pool's lists
    struct upstream_pool *pool;
    struct list waiting; // calls, until it is open
    enum upstream_conn_state state;
    bool used; // has served a request
    struct buf in;
    struct out out;
    struct loop_timer timer; // CONNECTING: deadline; IDLE: expiry; LENT: the protocol's
};

struct protocol {
    struct upstream_conn *(*new)(void); // zeroed; NULL: memory is out
    void (*free)(struct upstream_conn *c);
    // Lends to one call more.
    struct upstream_link *(*lend)(struct upstream_conn *c, struct upstream_call *call);
    void (*on_ready)(struct upstream_conn *c);
    void (*on_timer)(struct upstream_conn *c); // while LENT
};

extern const struct protocol h1_protocol;

static inline struct upstream_worker_needs *connection_needs(const struct upstream_conn *c)
{
    return &c->pool->local->worker->needs;
}

// ---- connection.c: its life ----

// Starts connecting for call, which waits for it. False and *cause when it cannot even start.
must_check bool connection_start(struct upstream_pool *pool, struct upstream_call *call,
                                 enum end_cause *cause);
void connection_lend(struct upstream_conn *c, struct upstream_call *call);
// Whether a connection without a call is worth keeping.
bool connection_is_wanted(const struct upstream_conn *c);
// No call is left: it waits for the next.
void connection_become_idle(struct upstream_conn *c);
// Twice is harmless. The connection is freed at the end of the turn, a retired pool at once when this was the
// last of it.
void connection_close(struct upstream_conn *c);
void pool_close_idle(struct upstream_pool *pool);
void pool_close_connecting(struct upstream_pool *pool);

// ---- call.c ----

// A connection was closed or came back: serve who waits.
void local_serve_waiting(struct upstream_local *local);

// ---- upstream.c ----

struct upstream_local *upstream_local_of(struct upstream_worker *worker, struct upstream *upstream);
