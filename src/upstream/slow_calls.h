// Calls of one worker to one upstream that wait for their response head: the circuit breaker hears of those
// that take longer than slow_call while they hang, not when timeouts.response is over.
//
//   upstream_call_end ──▶ asked ──slow_call is over, no head──▶ breaker_note_slow ──▶ late
//                           │ the head came: forgotten             a slice of its window later, once more
//                           ◀──┘ └── upstream_call_finish takes it out of either list
//
// Requests are complete in the order of time, so both lists are, too: one timer looks at their heads. It runs
// while there are any. With slow_call 0 (the default) a call costs a branch.
#pragma once

#include "base/list.h"
#include "loop/loop.h"

struct breaker_settings;
struct upstream_call;

enum { SLOW_CALLS_TICK_MS = 10 }; // between two looks, at least

struct slow_calls {
    struct loop *loop;
    struct list asked, late; // calls, by ->unanswered
    struct loop_timer timer;
    uint64_t slow_us;  // 0: none is slow
    uint64_t slice_us; // of the breaker's window
};

void slow_calls_init(struct slow_calls *calls, struct loop *loop);
// Of the newest snapshot: those that are under way are measured by it, too.
void slow_calls_configure(struct slow_calls *calls, const struct breaker_settings *settings);
void slow_calls_fini(struct slow_calls *calls);

// Its request is complete, at call->asked_us.
void slow_calls_watch(struct slow_calls *calls, struct upstream_call *call);
