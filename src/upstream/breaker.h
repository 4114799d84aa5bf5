// A circuit breaker: when a service fails, it is not asked for a while, and then let back in gently. Pure:
// the clock and the draw are passed in. One struct in fixed memory; shared_breaker.h makes it one for all
// workers.
//
//   CLOSED ── too much fails, or is slow ──▶ OPEN ◀───────────────────────┐
//     ▲                                        │ its time is over          │
//     │                                        ▼                           │
//     │ the ramp is over                   HALF_OPEN ── a probe fails, ────┤
//     │                                        │        or they are slow   │
//     │                                        │ all probes are good       │
//     │                                        ▼                           │
//     └──────────────────────────────────── RAMPING ── too much fails, ────┘
//                                                      or is slow, again
//
// The window is BREAKER_SLICES slices of time, each a few counters, so that it slides by a tenth. A closed
// breaker opens at the bad answer that makes it so:
//
//   at least min_requests in the window, and at least failure_ratio of them failed (slow_ratio: were slow);
//   or min_requests or more in a row failed or were slow, for at least one slice: a service that is down is
//   not asked for half a window more on the strength of what it answered before.
//
// A call counts once. One that is still under way when it has taken longer than a slow one may
// (breaker_note_slow) counts as slow from that moment on; if it then fails, it counts as failed at that
// moment, and no longer as slow.
//
// OPEN lasts `open`, twice as long each time it opens again, up to max_open, less a random part of up to a
// fifth so that gateways do not probe together; when it has been closed for max_open it begins with `open`
// again. HALF_OPEN admits at most half_open_requests that are not answered yet, and no more than it needs to
// have as many good ones. RAMPING admits a share that grows linearly from BREAKER_RAMP_SHARE to the whole.
//
// Nygard, "Release It!", 2nd ed. 2018, "Circuit Breaker"; the slow-call ratio is Resilience4j's.
#pragma once

#include "observe/metrics.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    BREAKER_SLICES = 10,
    BREAKER_RAMP_REQUESTS = 5, // enough of them to judge, while it ramps: it is suspect
};

#define BREAKER_RAMP_SHARE 0.05 // admitted when the ramp begins
#define BREAKER_JITTER     0.2

// Why the state changed last: X(id, word for admin and log)
#define BREAKER_REASONS(X)                                                  \
    X(BREAKER_BEGAN, "none yet")                                            \
    X(BREAKER_FAILURES, "failure ratio")                                    \
    X(BREAKER_SLOWNESS, "slow ratio")                                       \
    X(BREAKER_NOTHING_GOOD, "nothing good") /* for a slice of the window */ \
    X(BREAKER_PROBE_FAILED, "probe failed")                                 \
    X(BREAKER_PROBES_SLOW, "probes slow")                                   \
    X(BREAKER_PROBES_GOOD, "probes good")                                   \
    X(BREAKER_TIME_OVER, "time is over") /* of OPEN, of the ramp */         \
    X(BREAKER_BY_HAND, "forced")                                            \
    X(BREAKER_HANDS_OFF, "no longer forced")
enum breaker_reason {
#define X(id, word) id,
    BREAKER_REASONS(X)
#undef X
};

enum breaker_force { BREAKER_AUTOMATIC, BREAKER_FORCED_OPEN, BREAKER_FORCED_CLOSED };

// How one that was admitted went. NEUTRAL: says nothing; its place is given back.
enum breaker_result { BREAKER_NEUTRAL, BREAKER_GOOD, BREAKER_SLOW, BREAKER_FAILED };

struct breaker_rules { // microseconds
    uint64_t window_us, min_requests;
    double failure_ratio;
    bool judges_slow;
    double slow_ratio;
    uint64_t open_us, max_open_us, ramp_us;
    uint64_t half_open_requests;
    uint64_t probe_us; // a probe that has not been noted after so long is forgotten
};

struct breaker_slice {
    uint64_t at; // its number: time / slice_us
    uint32_t calls, failed, slow;
};

struct breaker { // zero it: closed. breaker_set_window before the first result
    enum breaker_state state;
    enum breaker_force force;
    enum breaker_reason reason; // of the last change
    uint32_t epoch;             // what was admitted in another one says nothing any more
    uint64_t since_us;          // of the state
    uint64_t until_us;          // OPEN
    unsigned openings;          // since it was closed for long enough: OPEN's time doubles
    uint64_t probes;            // not noted yet, those of an earlier HALF_OPEN too: they may still hang
    uint64_t probes_late;       // of them: of this HALF_OPEN, in probes_slow already
    uint64_t probes_until_us;   // then they are forgotten,
    uint32_t forgotten;         // so many times
    uint64_t probes_good, probes_slow;
    uint64_t bad_in_a_row, bad_since_us;
    uint32_t windows; // so many times what was counted has been forgotten
    uint64_t slice_us;
    struct breaker_slice slices[BREAKER_SLICES];
    uint64_t entered[BREAKER_STATES]; // how many times, from another one
};

// Goes with one that was admitted, to breaker_note.
struct breaker_pass {
    uint32_t epoch;
    uint32_t forgotten; // probe: the breaker's
    bool probe;
    bool late;        // breaker_note_slow has counted it,
    uint32_t windows; // in this window: the breaker's,
    uint64_t late_us; // at this time
};

// The width of the window; what was counted in another width is forgotten, the state stays.
void breaker_set_window(struct breaker *breaker, uint64_t window_us);

// What time alone brings about. The calls below begin with it; readers call it to see what is so now.
void breaker_tick(struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us);

// Whether one more may go. draw: uniform in [0, 1). True: *pass goes to breaker_note, exactly once.
bool breaker_admit(struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us, double draw,
                   struct breaker_pass *pass);
void breaker_note(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass pass,
                  enum breaker_result result, uint64_t now_us, double draw);
// It has been under way for longer than a slow one, and goes on: it counts as slow from now on. Said again it
// counts no more, but the window is judged anew: what hangs goes on hanging. Before its breaker_note.
void breaker_note_slow(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass *pass,
                       uint64_t now_us, double draw);
// A probe that says nothing for a while through no fault of the service: another may have its place. It goes
// on as a probe, and its breaker_note counts as long as the breaker is half-open.
void breaker_pass_over(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass *pass,
                       uint64_t now_us);
// What the result adds to what is known: of a late one only that it failed.
static inline enum breaker_result breaker_adds(struct breaker_pass pass, enum breaker_result result)
{
    return pass.late && result != BREAKER_FAILED ? BREAKER_NEUTRAL : result;
}
// n good results of the slice with this number, of the epoch in force; the state is not CLOSED's to leave by
// them.
void breaker_count_good(struct breaker *breaker, uint64_t slice, uint32_t n);

// By hand, until BREAKER_AUTOMATIC: then a breaker that was held open asks by probes first.
void breaker_set_force(struct breaker *breaker, enum breaker_force force, uint64_t now_us);

// When it is worth asking again, at the soonest; 0: nobody knows.
uint64_t breaker_wait_us(const struct breaker *breaker, uint64_t now_us);
// Of the window that ends now.
struct breaker_slice breaker_sum(const struct breaker *breaker, uint64_t now_us);

const char *breaker_state_name(enum breaker_state state);
const char *breaker_reason_name(enum breaker_reason reason);
