// Ejection of one endpoint, the decisions: state, settings, clock and draw are passed in. outlier.h puts them
// to work.
//
//        failures in a row, connect failures in a row, an outlier by success rate
//     IN ─────────────────────────────────────────────────────────────────────────▶ OUT, until until_us
//     ▲                                                                               │
//     └───── its time is over, an active check is good, ejection is turned off ───────┘
//
// The time out grows by `ejection` with each ejection, up to max_ejection, and shrinks by as much for every
// `ejection` that the endpoint has served well since. Workers write with relaxed atomics: what two of them
// note at the same moment may count in either order. What says "the lock" is written under outlier.c's.
#pragma once

#include "observe/metrics.h"
#include "upstream/upstream_config.h"

#include <stdatomic.h>

// A tenth, at random, is taken off the time out, so that what was ejected together does not come back
// together.
#define EJECTION_JITTER 0.1

enum { EJECTOR_LINE = 64 }; // of the cache

struct ejector {                // zero it
    _Atomic(uint64_t) until_us; // read by every pick; in the past: since when it is back; 0: never was out
    char apart[EJECTOR_LINE];   // what follows is written by every request
    _Atomic(uint64_t) window;   // requests << 32 | good ones, of this interval
    _Atomic(uint32_t) failures, connect_failures; // in a row
    _Atomic(uint64_t) row_began_us;               // of the first of `failures`
    // Written under the lock.
    _Atomic(uint64_t) ejected_us; // when it was last ejected
    _Atomic(uint32_t) times;      // how often it was ejected, less what it has made good
    _Atomic(uint32_t) refused;    // ejections that would have left too few others, since it was last out
    _Atomic(enum ejection_reason) reason; // of the last one
    atomic_bool announced;                // the log has said that it is out, and not yet that it is back
};

// How one attempt at it went. What says nothing about the endpoint (the client went away, our own limits) is
// not noted. Every other one is good or bad: nothing holds a row of failures up. A row is one of things that
// happened: a connection that fails is one, however many attempts it takes with it. In success rates each
// counts.
enum ejector_result {
    EJECTOR_GOOD,
    EJECTOR_BAD,
    EJECTOR_CONNECT_FAILED,
    EJECTOR_BAD_TOO, // of what is in the row already
};

static inline bool ejector_is_out(const struct ejector *ejector, uint64_t now_us)
{
    return atomic_load_explicit(&ejector->until_us, memory_order_relaxed) > now_us;
}

// Counts an attempt that began at began_us. True and *reason: the endpoint should be ejected. An attempt from
// before its return says nothing about the endpoint as it is now. rated: success rates are compared.
must_check bool ejector_note(struct ejector *ejector, const struct outlier_settings *settings,
                             enum ejector_result result, bool rated, uint64_t began_us, uint64_t now_us,
                             enum ejection_reason *reason);

// How the endpoints of an upstream that take requests (weight > 0) fare: available: up and not ejected.
struct ejector_share {
    uint32_t endpoints, available, ejected;
};
// Whether one more of those available may be ejected: within max_ejected (but one always may), so that one at
// least is left, and that those left are no fewer than panic_threshold, below which all would be used.
bool ejector_may_eject(const struct outlier_settings *settings, double panic_threshold,
                       const struct ejector_share *share);

// Puts it out. bad_since_us: when what it is ejected for began. draw: uniform in [0, 1). The lock.
void ejector_eject(struct ejector *ejector, const struct outlier_settings *settings,
                   enum ejection_reason reason, uint64_t bad_since_us, uint64_t now_us, double draw);
// It was to be ejected, but may not: its row begins anew. The lock.
void ejector_refuse(struct ejector *ejector);
// Lets it back in now. The lock.
void ejector_readmit(struct ejector *ejector, uint64_t now_us);
void ejector_forget(struct ejector *ejector);

// ---- success rates ----

struct ejector_tally {
    uint32_t requests, good;
};
// What was counted in this interval; the next one begins.
struct ejector_tally ejector_take_tally(struct ejector *ejector);
// The share of good answers below which an endpoint is an outlier (Envoy's): the mean of the endpoints'
// shares less `deviations` standard deviations, and min_gap below the mean at least. Tallies with fewer than
// min_requests do not count; with fewer than min_endpoints that do, it is 0: no endpoint is below.
double ejector_rate_bound(const struct ejector_tally *tallies, uint32_t count,
                          const struct success_rate_settings *settings);
bool ejector_is_below(const struct ejector_tally *tally, double bound,
                      const struct success_rate_settings *settings);
