#include "upstream/outcome.h"

#include "http/grpc.h"

// gRPC says everything with status 200: what counts is how the call ended.
static unsigned status_of(const struct attempt_end *end)
{
    return end->grpc_ended && end->status == 200 ? grpc_status_to_http(end->grpc_status) : end->status;
}

// The upstream kept to a deadline that was not its own.
static bool is_late_for_client(const struct attempt_end *end)
{
    return end->client_deadline && end->grpc_ended && end->grpc_status == GRPC_DEADLINE_EXCEEDED;
}

struct upstream_outcome outcome_of(const struct attempt_end *end)
{
    struct upstream_outcome outcome = {.cause = end->cause};
    bool by_answer = end->cause == END_UPSTREAM_STATUS; // which says more than the cause
    if (end->stale || is_late_for_client(end))
        return outcome;
    if (end->outrun) {
        outcome.verdict = OUTCOME_OUTRUN;
        return outcome;
    }
    if (end_row(end->cause)->against_upstream && !end->excused && !by_answer) {
        outcome.verdict = OUTCOME_FAILURE;
        outcome.connect_failed = end->cause == END_UPSTREAM_CONNECT_FAILED;
    } else if (end->status) {
        outcome.verdict = OUTCOME_ANSWER;
        outcome.status = status_of(end);
    }
    return outcome;
}
