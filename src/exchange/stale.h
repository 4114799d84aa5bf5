// Answers of which a copy is kept, and given while the circuit breaker of their upstream is open
// (circuit_breaker.fallback.stale). Not a cache: while the service may be asked, it is.
//
//   step_shape ─▶ stale_hear ─▶ on_body: stale_hear_body … on_end: stale_keep ─▶ replay/copies.h
//   fall_back ─▶ stale_answer
//
// What may be kept, and for whom, are the rules of RFC 9111 for a shared cache; where they leave a choice,
// the stricter one. docs/CIRCUIT-BREAKING.md says them.
#pragma once

#include "exchange/exchange.h"

// ---- decisions ----

struct stale_asked {
    const struct request_head *request;
    bool is_grpc;
    bool is_personal; // the caller is known, or may be to the service
};

struct stale_verdict {
    uint64_t good_us; // how long a copy is good, from now; 0: none may be kept
    bool is_public;   // also for callers who say who they are
};

// age_us: how old the answer is already (RFC 9111 4.2.3). now_s: the time of day. stale_us: the configured
// bound.
struct stale_verdict stale_judge(const struct stale_asked *asked, const struct response_head *head,
                                 uint64_t age_us, int64_t now_s, uint64_t stale_us);
// The service says that there is something else now, or nothing (RFC 9111 4.4; 404 and 410).
bool stale_is_changed(const struct stale_asked *asked, const struct response_head *head);
// Whether a copy may answer this.
bool stale_may_answer(const struct stale_asked *asked);

// ---- what the path calls ----

// Whether the answer is one to hear: copies of this upstream's are wanted, or it may change what others' are
// of.
bool stale_listens(const struct exchange *x);
// The service's response head, before the gateway adds to it. Sets x->copying when a copy is wanted.
void stale_hear(struct exchange *x, struct response_head *head);
// With x->copying: the body as it passes, its end, and when there will be none.
void stale_hear_body(struct exchange *x, struct str span);
void stale_keep(struct exchange *x);
void stale_give_up(struct exchange *x);
// The upstream is not asked. True: a copy was the answer.
bool stale_answer(struct exchange *x);
