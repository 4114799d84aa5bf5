// The two messages of grpc.health.v1.Health/Check (grpc/grpc: doc/health-checking.md), in gRPC's framing, as
// pure functions. Nothing else of protobuf is known here.
//
//   message HealthCheckRequest  { string service = 1; }
//   message HealthCheckResponse { ServingStatus status = 1; }
#pragma once

#include "base/str.h"

enum {
    GRPC_PREFIX_BYTES = 5, // a flag, a length
    GRPC_HEALTH_SERVICE_MAX = 256,
    GRPC_HEALTH_REQUEST_MAX = GRPC_PREFIX_BYTES + 3 + GRPC_HEALTH_SERVICE_MAX,
    // Of an answer: the message has one small field; the rest is for what later versions may add.
    GRPC_HEALTH_ANSWER_MAX = 1024,
};

enum grpc_serving { // ServingStatus
    GRPC_SERVING_UNKNOWN,
    GRPC_SERVING,
    GRPC_NOT_SERVING,
    GRPC_SERVICE_UNKNOWN,
};

// The body of the request; service has at most GRPC_HEALTH_SERVICE_MAX bytes. Returns its length.
size_t grpc_health_request(struct str service, char out[GRPC_HEALTH_REQUEST_MAX]);

// The whole body of an answer: exactly one message, not compressed. Fields that are not known are passed
// over, the last status counts, none is UNKNOWN (0); a number that is none of the above stays as it is. NULL,
// or why it is malformed; static.
const char *grpc_health_answer(struct str body, uint64_t *serving);
// "NOT_SERVING"; n == 0 for a number that is none of the above.
struct str grpc_serving_name(uint64_t serving);
