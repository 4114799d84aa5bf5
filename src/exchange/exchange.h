// One request and its response. The exchange knows no protocol: a front feeds it and offers the reply verbs;
// the upstream room lends it a connection.
//
//                 front events                                 upstream events
//   exchange_begin   exchange_body  exchange_body_end     on_ready  on_head  on_body  on_end  on_fail
//        │                 │                                  │         │        │       │       │
//        ▼                 ▼ request body                     ▼         ▼        ▼       ▼       ▼
//   admit → route → guard → gather → act → pick → send → await → shape → relay → finish
//             │       │        │      │     ▲                │                     ▲
//             └───────┴────────┴──────┴── reply_error / reply_answer ──────────────┘
//                                           └── another try ─┘
//
// States: a step returns MORE (the next one runs now), WAIT (an event or the timer resumes it by
// exchange_run), or DONE (freed). Only the driver, exchange_run, calls steps.
//
// A policy that waits for somebody else's answer is given a ticket; exchange_resume is the one door by which
// such answers come back, and where one that comes too late is dropped.
#pragma once

#include "exchange/worker.h"
#include "http/h1_parse.h"

enum {
    REQUEST_ID_MAX = 128,    // bytes: a trusted peer's longer one is replaced
    CONTINUE_WAIT_MS = 1000, // for an upstream's 100, which it need not send (RFC 9110 10.1.1)
    BACKOFF_DOUBLINGS = 6,   // of retries.backoff
};

struct exchange;

// How a reply reaches the client: one row for each protocol. Called by the exchange only; none of them calls
// back into the exchange but resume (with the body that is already there) and finished.
struct client_verbs {
    const char *protocol; // "HTTP/1.1"
    // Heads are gathered until a flush, a large span or the end. framing as the upstream delimits it: the
    // front chooses its own. False: memory is out.
    bool (*send_head)(struct exchange *x, struct response_head *head);
    void (*send_informational)(struct exchange *x, struct response_head *head); // 1xx but 101
    enum flow (*send_body)(struct exchange *x, struct str span);
    // The response is complete; trailers may be NULL. For a tunnel: half-close.
    void (*send_end)(struct exchange *x, const struct headers *trailers);
    // All three at once, for an answer that is whole; the span is empty where no body may be sent. The body
    // is given back when it has been sent or will not be, perhaps long after finished; without a lender it is
    // lent for the call. False: memory is out.
    bool (*send_whole)(struct exchange *x, struct response_head *head, struct lent body,
                       const struct headers *trailers);
    void (*flush)(struct exchange *x);
    // Deliver the request body (the tunnel after 101) from now on, by exchange_body…; also after FLOW_FULL.
    void (*resume)(struct exchange *x);
    // The response cannot be completed: cut the connection or stream so that it never looks complete.
    void (*abort)(struct exchange *x);
    // The exchange is over and gone; the last verb.
    void (*finished)(void *client_context);
};

enum exchange_step {
    STEP_ADMIT,
    STEP_ROUTE,
    STEP_GUARD,
    STEP_GATHER,
    STEP_ACT,
    STEP_PICK,
    STEP_SEND,
    STEP_AWAIT,
    STEP_SHAPE,
    STEP_RELAY,
    STEP_FINISH,
    STEP_COUNT,
};

// What is sent to the client so far.
enum reply_state { REPLY_NONE, REPLY_HEAD, REPLY_ENDED, REPLY_CUT };

// Where the request body is.
enum request_body_state {
    BODY_HELD,    // not asked for yet
    BODY_OPEN,    // flowing
    BODY_ENDED,   // complete
    BODY_UNWANTED // the rest is the front's to drain or cut
};

struct exchange {
    enum exchange_step step;
    uint32_t slot;       // in worker->slots
    struct list listed;  // in the worker's spare_exchanges while it is not in use, or in watched
    bool running, again; // the driver is on the stack; an event wants it to go on

    struct worker *worker;
    struct gateway_hold *hold;
    struct gateway *gateway; // hold's: the snapshot it began with
    const struct gateway_listener *listener;
    const struct client_verbs *client;
    void *client_context;     // the front's
    struct client_room *room; // of the client's connection; NULL: nothing bounds what it leaves
    const char *protocol;     // the client's
    struct arena arena;

    struct ip peer;   // who is connected
    struct ip source; // who asks: from trusted proxies' headers, else the peer
    bool peer_trusted;
    struct str scheme;                   // "http" or "https", as the client spoke to the first proxy
    const struct tls_facts *tls;         // of the client's connection; NULL: plain
    const struct tls_server *tls_server; // whose certificates it was shown

    struct request_head request;
    bool grpc;          // errors are told in gRPC's way (reply.c)
    bool grpc_trailers; // also now that the answer has begun: it can end with a grpc-status in trailers
    struct route_match match;
    struct str request_id;
    char trace_id[32];
    bool trace_kept; // the peer's own traceparent goes on

    struct policy_call policy;
    uint32_t policy_next;
    bool policies_ended; // on_end has been called

    struct upstream *upstream;
    struct upstream_call *call;  // the attempt whose answer goes on; never NULL
    struct upstream_call *hedge; // a second one beside it (hedge.c); NULL: none
    struct upstream_call first_call;
    const struct retry_settings *retries;
    struct str target; // the request target for the upstream
    unsigned attempts;
    unsigned attempts_elsewhere;    // at upstreams before, whose fallback this one is; without the free one
    bool prepared;                  // the request head is ready for upstreams
    bool repeatable;                // the request may be sent twice
    bool fresh;                     // the next try takes a new connection
    bool stale_retried;             // a reused connection had died once
    bool hedged;                    // a second attempt was made beside one
    uint64_t hedge_at_us;           // when it is to be made; 0: not
    struct retry_place retry_place; // in the upstream's budget
    uint64_t retry_at_us;           // this attempt may be followed by another, then; 0: not asked, or no
    struct header *host;            // the Host field for upstreams

    enum request_body_state body;
    bool continue_awaited; // Expect: 100-continue went upstream; its answer opens the body
    uint64_t body_bytes, body_limit;
    struct buf replay;       // the request body so far, for another try
    size_t replay_at;        // how much of it this try has been given
    bool replay_lost;        // it did not fit, or must not be repeated
    struct headers trailers; // of the request, once its body has ended
    bool body_full;          // the upstream said FLOW_FULL
    bool client_full;        // the client said FLOW_FULL
    bool client_held_up;     // it once took nothing of the answer for long: who sends it may have given up
    bool client_deadline;    // deadline_us is the client's own (grpc-timeout)
    bool excused;            // the deadline passed, but not for waiting for the upstream

    enum reply_state reply;
    struct response_head *response; // the upstream's
    struct stale_copying *copying;  // stale.c's: a copy is made of it; NULL: none
    bool tunnel, upstream_ended;
    bool grpc_ended; // the upstream has sent a grpc-status
    unsigned grpc_status;
    struct str websocket_accept; // what the upstream's 101 must say, when the front began the handshake

    enum end_cause cause;
    unsigned retry_after_s; // what a 503 says; 0: a second
    struct str detail;
    unsigned status;
    uint64_t bytes_in, bytes_out;
    uint64_t began_us, wall_us;
    uint64_t deadline_us;   // the whole exchange; 0: none
    uint64_t wait_until_us; // a policy's delay, a back-off, or 100-continue; 0: none
    uint64_t progress_us;   // when something last moved
    uint64_t upstream_us;
    struct loop_timer timer;
};

// ---- for fronts ----

// A new exchange with an empty request, to be filled in place (request, with arena). NULL: memory is out.
struct exchange *exchange_new(struct worker *worker, const struct gateway_listener *listener,
                              const struct client_verbs *client, void *client_context, const struct ip *peer);
// The head is complete: run. x may be gone when this returns.
void exchange_begin(struct exchange *x);
// The head was refused: answer and end. x may be gone when this returns.
void exchange_reject(struct exchange *x, enum end_cause cause, struct str detail);
// The request body, at most body_limit bytes (the front counts: exchange_body_fail). After FLOW_FULL the
// front waits for resume. exchange_body does not free x; exchange_body_end may.
enum flow exchange_body(struct exchange *x, struct str span);
// trailers: in the exchange's arena, or NULL.
void exchange_body_end(struct exchange *x, struct headers *trailers);
// No more of the body is there at the moment: what is gathered goes out.
void exchange_body_flush(struct exchange *x);
// The body will not complete: framing fault, too large, too slow. x may be gone when this returns.
void exchange_body_fail(struct exchange *x, enum end_cause cause, struct str detail);
// The client's connection takes more again. x may be gone when this returns.
void exchange_client_drained(struct exchange *x);
// The client has gone, or reads too slowly (END_CLIENT_GONE, END_CLIENT_SLOW): end at once. x is gone
// afterwards, or goes on for nobody, when a policy keeps its answer for who asks again.
void exchange_client_gone(struct exchange *x, enum end_cause cause);
// The worker stops: those that go on for nobody end, and no more will.
void exchange_end_orphans(struct worker *worker);
// Never begun: nothing is logged.
void exchange_discard(struct exchange *x);

// ---- for late answers ----

// The policy that waits with this ticket is called again. Nothing happens when nobody waits with it any more.
// From the loop, never from inside a policy.
void exchange_resume(struct worker *worker, struct ticket ticket);

// ---- within the room ----

void exchange_watch_init(struct worker *worker);
// The driver: runs steps until one waits. x may be gone when this returns.
void exchange_run(struct exchange *x);
// For the admin API: one line of state, as JSON. In the worker's thread.
void exchange_print(const struct exchange *x, struct json *out);
