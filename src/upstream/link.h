// One connection to an endpoint, speaking HTTP/1.1, and the pool it belongs to: private to the room.
//
//   CONNECTING ──connected──▶ LENT ──finish, all complete──▶ IDLE ──take──▶ LENT
//        │ (call cancelled: goes on, to IDLE)     │                │ peer closed, spoke up, idle_us over
//        └────────── failed, timed out ───────────┴────────────────┴──▶ closed
#pragma once

#include "http/h1_parse.h"
#include "upstream/upstream.h"

// A worker's connections to one endpoint.
struct upstream_pool {
    struct upstream_local *local;
    struct endpoint *endpoint;
    int position;     // in local->balance.endpoints; -1: no longer there
    struct list idle; // links, the most recently used first
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
    uint32_t lent; // links with a call
    bool draining;
};

enum link_state { LINK_CONNECTING, LINK_IDLE, LINK_LENT };

struct upstream_link {
    struct conn conn;
    struct list node; // in one of the pool's lists
    struct upstream_pool *pool;
    struct upstream_call *call; // NULL: none
    enum link_state state;
    struct buf in;
    struct out out;
    struct loop_timer timer; // CONNECTING: deadline; IDLE: expiry; LENT: set at once when the output broke
    struct h1_parse parse;
    struct response_head *head; // being parsed, in the call's arena
    struct body_reader body;
    unsigned informational; // 1xx heads seen for this request
    bool used;              // has served a request
    bool chunked_request, upgrade;
    bool request_sent; // something of the request has been handed to the kernel
    bool request_ended, head_seen, response_ended;
    bool keep_alive;      // the response allows it
    bool paused;          // the client side is full
    bool shutdown_wanted; // half-close as soon as the output is gone
};

static inline struct upstream_worker_needs *link_needs(const struct upstream_link *link)
{
    return &link->pool->local->worker->needs;
}

// ---- link.c: the life of a connection ----

// Starts connecting for call. NULL and *cause when it cannot even start.
struct upstream_link *link_connect(struct upstream_pool *pool, struct upstream_call *call,
                                   enum end_cause *cause);
void link_lend(struct upstream_link *link, struct upstream_call *call);
// Back to the pool, or closed when it may not serve again.
void link_give(struct upstream_link *link);
void link_close(struct upstream_link *link);
// Close connections of a pool; a retired pool may be gone with the last of them.
void pool_close_idle(struct upstream_pool *pool);
void pool_close_connecting(struct upstream_pool *pool);

// ---- h1_link.c: what is said on it ----

void link_reset_message(struct upstream_link *link);
// Reads and hands over as much as there is, until the client side is full.
void link_read(struct upstream_link *link);
// The output broke: what the upstream has said before is read, then the call fails.
void link_read_last(struct upstream_link *link);
// The kernel takes more.
void link_write(struct upstream_link *link);

// ---- upstream.c ----

// A connection was closed or came back: serve who waits.
void local_serve_waiting(struct upstream_local *local);
