// Active health checks of each endpoint from the control thread, on its loop: GET health_check.path over the
// upstream's protocol, or grpc.health.v1.Health/Check (health_probe.h), with TLS where the upstream has it;
// each on a connection of its own, which one deadline covers from connect to answer. `healthy` successes in a
// row mark an endpoint up, `unhealthy` failures in a row mark it down. Intervals are jittered by ±10 %; the
// first check runs at once. An endpoint is up until its checks say otherwise. A good check readmits an
// ejected endpoint (outlier.h).
#pragma once

#include "upstream/upstream.h"

enum {
    HEALTH_HEAD_BYTES = 8192, // of an answer: nothing is wanted from it but the status
    HEALTH_HEAD_FIELDS = 100,
    HEALTH_ANSWER_BYTES = 64 * 1024, // in all, with what comes before the head in HTTP/2
    HEALTH_AT_ONCE = 256, // probes: however many endpoints there are, they leave descriptors to the clients
};

struct health; // the checks of one snapshot

// Starts checking every upstream with health_check.path or .grpc. before (may be NULL): the checks of the
// last snapshot, whose counts are taken over for endpoints that stay. Frees before.
struct health *health_start(struct loop *loop, struct upstream *const *upstreams, uint32_t count,
                            struct health *before);
void health_stop(struct health *health);

// ---- the decision, pure ----

struct health_tally { // of one endpoint: the last checks that agreed
    uint32_t successes, failures;
};
enum health_change { HEALTH_SAME, HEALTH_UP, HEALTH_DOWN };
// Counts one check of an endpoint that is up or not, and says whether that changes. A success ends a row of
// failures and the other way round.
enum health_change health_judge(struct health_tally *tally, bool up, bool success, int64_t healthy,
                                int64_t unhealthy);
