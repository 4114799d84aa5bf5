// The retry budget of an upstream, over all workers of the process, so that a failing service is not buried
// under second tries. Two bounds, since neither is enough by itself:
//
//   at one time    retries in flight (their back-off included) are at most budget × the requests under way,
//                  but RETRIES_AT_LEAST always may (Envoy's retry budget)
//   over a span    a request earns budget, a retry costs 1 (Finagle's). A reserve of RETRY_RESERVE, one a
//                  second, lends to who has not earned enough: a service that is asked now and then
//
// The first lets a slow upstream's failures through in step with its load; the second holds when failures are
// quick, and few in flight are many in a second: of requests that all fail, a share of budget is sent again,
// or the reserve where that is more. A budget of 1 or more has no second bound; one of 0 allows nothing.
//
// On a request's path a worker writes to its own share alone; who wants a retry reads those of all.
#pragma once

#include "base/list.h"

#include <stdatomic.h>
#include <stdint.h>

enum {
    RETRIES_AT_LEAST = 3, // in flight, whatever the budget makes of few requests
    RETRY_RESERVE = 10,   // and as many seconds until it is full again
};

// ---- the decision ----

// What a retry was paid with.
enum retry_payment {
    RETRY_REFUSED, // it may not be made
    RETRY_FREE,    // a budget of 1 or more
    RETRY_EARNED,
    RETRY_LENT, // out of the reserve
};

struct retry_account { // zero it
    double earned;     // at most 1 + budget × the requests under way; below 0: borrowed
    double lent;       // of the reserve
    uint64_t begun;    // requests, when last looked at
    uint64_t at_us;
    uint32_t in_flight;
};

// active, begun: requests under way, and all that ever were. is_more: of a request that has a place in flight
// already. Unless RETRY_REFUSED the place in flight is held until in_flight is lowered.
enum retry_payment retry_account_take(struct retry_account *account, double budget, uint32_t active,
                                      uint64_t begun, bool is_more, uint64_t now_us);
// The retry was not made: the account is as if nobody had asked for it.
void retry_account_give_back(struct retry_account *account, enum retry_payment payment, bool was_more);

// ---- an upstream's ----

struct retry_budget;

// By a dense index, made when first asked for and kept for the life of the process. Control thread.
struct retry_budget *retry_budget_at(uint32_t index);

// A worker's side, which stays where it is between join and leave.
struct retry_share {
    struct retry_budget *budget; // NULL: not joined
    struct list listed;
    atomic_uint active;
    _Atomic uint64_t begun;
};

// Twice is harmless. budget NULL: nobody will ask for a retry.
void retry_share_join(struct retry_share *share, struct retry_budget *budget);
void retry_share_leave(struct retry_share *share);

// What one request holds. Zero it.
struct retry_place {
    struct retry_share *share; // NULL: it is not under way
    bool in_flight;            // with a retry
    enum retry_payment paid;   // for the last one; RETRY_REFUSED: nothing, or it was given back
    bool was_more;             // it was in flight before that one
};

// The request goes to the share's upstream; if it was under way to another one, it is not any more.
void retry_place_enter(struct retry_place *place, struct retry_share *share);
bool retry_place_take(struct retry_place *place, double budget, uint64_t now_us);
// What the last retry_place_take has paid for is not made after all. Once: harmless when nothing was paid.
void retry_place_give_back(struct retry_place *place);
void retry_place_leave(struct retry_place *place); // harmless when it holds nothing
