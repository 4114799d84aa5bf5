// The policy contract. A policy judges a request by its head, and may edit the response head. It sees the
// request, an arena, its own settings and a place for its verdict; never a socket, never the loop.
//
// A new policy is one new file, one row in route/route_guards.c, one wire test, one page in docs/.
#pragma once

#include "auth/auth.h"
#include "base/rand.h"
#include "limit/redis_store.h"
#include "replay/store.h"

enum verdict {
    PASS,  // go on with the next policy
    REPLY, // answer filled in: the exchange ends with it
    WAIT,  // call again with call->again set: when call->ticket is redeemed, or after call->wait_ms
    FAIL,  // call->cause filled in: an answer of the gateway's own (reply_error) with answer.headers added;
           // answer.status, if not 0, replaces the status of the cause's row
};

// A full answer (REPLY).
struct policy_answer {
    unsigned status;
    struct str content_type, body;
    struct headers headers, trailers;
    struct shared *in; // where it lies: held, for the exchange to let go. NULL: in the arena
};

struct policy_call {
    const void *settings;
    struct request_head *request;   // may be edited: headers, never method, path or framing
    struct response_head *response; // on_response and on_answer only
    struct str origin;              // the request's, as the client said it; n == 0: none
    struct arena *arena;            // lives as long as the exchange
    struct rand *rand;
    uint64_t now_us;             // monotonic
    int64_t now_s;               // Unix seconds, when the request began
    const struct ip *client;     // the client's address in force (trusted_proxies)
    const struct tls_facts *tls; // of the client's connection; NULL: plain
    struct str scheme, request_id, route;
    struct ticket ticket; // what a late answer wakes this exchange by
    struct auth_worker *auth;
    const struct auth *providers;              // of the snapshot
    struct identity *identity;                 // what authentication found, a reference; NULL: nobody
    const struct limits *limits;               // of the snapshot
    struct limited *limited[LIMIT_STAGES];     // rate_limit's: what it found
    struct limit_places *places[LIMIT_STAGES]; // rate_limit's: what it holds; NULL: nothing
    struct limit_worker *limiter;
    struct replay_store *replays; // the worker's
    struct metrics *metrics;      // the worker's
    bool again;                   // called after a WAIT
    void *state;                  // the policy's that waits
    struct str body;              // on_body only: the request's, all of it
    uint64_t deadline_us;         // of the exchange; 0: none
    bool is_whole; // on_end: the upstream's response was complete, and is in the client's hands
    const struct headers *trailers; // on_end: the upstream's, after such a response; NULL: none
    struct idempotent *idempotent;  // idempotency's: NULL: the request has no key
    // Filled in by the policy:
    uint64_t wait_ms;
    bool outlives_client; // from on_body to on_end: it goes on when its client has gone
    uint64_t body_wanted; // on_request: on_body is to be called, with a body of at most so many bytes (413)
    // on_response: is told the body, span by span, as it passes. NULL: nobody listens.
    void (*on_response_body)(struct policy_call *call, struct str span);
    enum end_cause cause;
    struct str detail; // FAIL: a sentence for the problem's detail
    struct policy_answer answer;
};

struct policy {
    const char *name;
    enum verdict (*on_request)(struct policy_call *call); // NULL: nothing to say
    // When all policies have passed, and this one or another has said body_wanted. NULL: nothing to say.
    enum verdict (*on_body)(struct policy_call *call);
    void (*on_response)(struct policy_call *call); // the upstream's; NULL: nothing to say
    // An answer of the gateway's own, this policy's or any other; call->response as with on_response. It may
    // come before on_request. NULL: nothing to say.
    void (*on_answer)(struct policy_call *call);
    // The exchange ends while this policy waits. NULL: nothing is to be undone.
    void (*on_forget)(struct policy_call *call);
    // The exchange is over, however it ended: its answer is complete, or never will be. Once, whether the
    // policy was asked or not; just before the end of the answer is sent, so that who has it can count on
    // what this gives back. NULL: nothing is held.
    void (*on_end)(struct policy_call *call);
};

// One use of a policy on a route.
struct policy_use {
    const struct policy *policy;
    const void *settings; // in the snapshot's arena
};

// In the order in which a route runs them.
extern const struct policy policy_ip;          // struct ip_rules
extern const struct policy policy_cors;        // struct cors_settings
extern const struct policy policy_auth;        // struct route_auth_settings
extern const struct policy policy_rate_limit;  // struct route_limit_stage, twice
extern const struct policy policy_fault;       // struct fault_settings
extern const struct policy policy_idempotency; // struct idempotency_settings
extern const struct policy policy_conceal;     // struct route_auth_settings; limits by header come before
extern const struct policy policy_headers;     // struct header_rules
