// How one attempt at an upstream ended: described once, by whoever made it, and read by all that judge
// upstreams and endpoints by it.
//
//   exchange, fetch                           upstream
//     upstream_call_judge (at the head) ──┐
//     upstream_call_finish (at the end) ──┴──▶ outcome_of ──▶ call->outcome, once an attempt, whatever became
//                                                             of it: note_outcome (call.c) tells the readers
#pragma once

#include "observe/end.h"

#include <stdint.h>

struct endpoint;

// What is known where the attempt was made. Zero it, then fill in.
struct attempt_end {
    enum end_cause cause; // END_OK, END_UPSTREAM_STATUS: the answer itself says how it went
    unsigned status;      // of the response; 0: no head came
    bool grpc_ended;      // a grpc-status came, in the head or in trailers
    unsigned grpc_status; // as it was sent: may be none of the known ones
    bool excused;         // the time was over, or its patience, but it was not the upstream that took it
    bool client_deadline; // the client has set a deadline that the upstream knows of
    bool outrun;          // another attempt at the request, begun later, was answered first (a hedge)
    bool stale;           // a kept connection that the upstream had closed; tried again
};

enum outcome_verdict {
    OUTCOME_NONE,    // says nothing of the upstream: it was not asked, or was not waited for
    OUTCOME_ANSWER,  // it answered: status says with what
    OUTCOME_OUTRUN,  // it was slower than a hedge that was asked later, and was left alone
    OUTCOME_FAILURE, // connect, timeout, reset, garbage, truncation: no answer, or not all of it
};

struct upstream_outcome {
    enum outcome_verdict verdict;
    enum end_cause cause;
    unsigned status;     // OUTCOME_ANSWER: of HTTP; for an ended gRPC call what its status amounts to
    bool connect_failed; // OUTCOME_FAILURE: there was not even a connection
    bool is_shared;      // OUTCOME_FAILURE: the connection's, which another attempt's outcome has told of
    uint64_t latency_us; // from the request's end to the response head; 0: none came, or before that end
    struct endpoint *endpoint; // NULL: none was chosen
};

// The verdict, pure; latency and endpoint are the call's to fill in.
//
// A failure is what the end-cause table counts against the upstream, unless it is excused: never a client
// that went away, a limit or a deadline of the client's own. A head that came before such an end counts as
// the answer that it is.
struct upstream_outcome outcome_of(const struct attempt_end *end);
