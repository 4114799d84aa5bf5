// Outliers among an upstream's endpoints: what attempts and checks say about each comes in here, and
// ejector.h decides. An endpoint's state is the process's: all workers see one, and reloads keep it.
//
//   worker    upstream_call_judge ──▶ outlier_note ──▶ it is enough? ──▶ ejected, by whichever worker saw it
//   control   health check good ──▶ outlier_check_passed
//             outliers_start: each second, success rates whose interval is over; the log says who is back
//
// A pick asks ejector_is_out with its own clock, so that an endpoint is back when its time is over, whoever
// looks.
#pragma once

#include "upstream/upstream.h"

enum { OUTLIER_SWEEP_MS = 1000 };

// How an attempt that began at began_us ended. Failures and statuses from 500 on are bad, but for 501, which
// callers bring about by what they ask for; every other answer is good. What says nothing of the upstream is
// passed over; of what a connection does to all of its calls one says enough for a row. Worker.
void outlier_note(const struct upstream *upstream, const struct upstream_outcome *outcome, uint64_t began_us,
                  uint64_t now_us, struct rand *rand, struct metrics *metrics);
// An active check that began at began_us was good: the endpoint is back at once when it was ejected before.
void outlier_check_passed(struct endpoint *endpoint, uint64_t began_us, uint64_t now_us);
// The interval of success rates that began at since_us is over.
void outlier_rate(const struct upstream *upstream, uint64_t since_us, uint64_t now_us, struct rand *rand,
                  struct metrics *metrics);
// Lets back in who may not stay ejected: the configuration no longer ejects, or nobody else is left (checks
// found the others down, or a new configuration is without them). And says in the log whose time is over.
void outlier_settle(const struct upstream *upstream, uint64_t now_us);

// ---- the control thread's part ----

struct outliers; // of one snapshot

// before (may be NULL): of the last snapshot, whose intervals go on; frees it. metrics: the control thread's
// own.
struct outliers *outliers_start(struct loop *loop, struct upstream *const *upstreams, uint32_t count,
                                struct metrics *metrics, struct outliers *before);
void outliers_stop(struct outliers *outliers);
