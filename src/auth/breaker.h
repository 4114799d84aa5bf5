// A breaker in front of an Auth Service, one a worker and provider: when the service fails, it is not asked
// for a while, and who needs an answer hears at once that there is none. Pure: the clock and the draw are
// passed in.
//
//   CLOSED ──IN_A_ROW failures, or RATIO of at least MIN in the window──▶ OPEN
//     ▲                                                                    │ open_ms over
//     └───────────── the probe is answered ── PROBING ◀── one is let through
//                                                └── it fails ──▶ OPEN, for twice as long
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    AUTH_BREAKER_IN_A_ROW = 5,
    AUTH_BREAKER_MIN = 10,     // answers in the window, before their ratio says something
    AUTH_BREAKER_PERCENT = 50, // of them that failed
    AUTH_BREAKER_WINDOW_S = 10,
    // Doubles with each probe that fails, up to the second: so long, at most, a service that is back is not
    // noticed, and one probe a worker is no load for it.
    AUTH_BREAKER_OPEN_MS = 1000,
    AUTH_BREAKER_OPEN_MAX_MS = 5000,
    AUTH_BREAKER_JITTER_PERCENT = 20, // either way, so that workers and gateways do not probe together
};

enum auth_breaker_state { AUTH_BREAKER_CLOSED, AUTH_BREAKER_OPEN, AUTH_BREAKER_PROBING };

struct auth_breaker { // zero it
    enum auth_breaker_state state;
    uint32_t epoch; // changes with the state: what was asked before says nothing any more
    uint32_t in_a_row, openings;
    uint64_t open_until_ms;
    struct auth_breaker_second {
        uint64_t at; // which second
        uint32_t answers, failures;
    } seconds[AUTH_BREAKER_WINDOW_S];
};

// Whether one may be asked now. *epoch goes with it, to auth_breaker_note or _release: exactly one of them.
bool auth_breaker_admit(struct auth_breaker *breaker, uint64_t now_ms, uint32_t *epoch);
// How it went. draw: uniform in [0, 1). True: the state has changed.
bool auth_breaker_note(struct auth_breaker *breaker, uint32_t epoch, bool good, uint64_t now_ms, double draw);
// It says nothing about the service: it was not asked after all. Another one may probe.
void auth_breaker_release(struct auth_breaker *breaker, uint32_t epoch);
