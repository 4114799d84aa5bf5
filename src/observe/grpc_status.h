// The status codes of gRPC (grpc/grpc: doc/statuscodes.md): what ends take their place in answers to gRPC
// requests, and what health checks are told.
#pragma once

#include "base/str.h"

// X(id, number, name)
#define GRPC_STATUSES(X)                                  \
    X(GRPC_OK, 0, "OK")                                   \
    X(GRPC_CANCELLED, 1, "CANCELLED")                     \
    X(GRPC_UNKNOWN, 2, "UNKNOWN")                         \
    X(GRPC_INVALID_ARGUMENT, 3, "INVALID_ARGUMENT")       \
    X(GRPC_DEADLINE_EXCEEDED, 4, "DEADLINE_EXCEEDED")     \
    X(GRPC_NOT_FOUND, 5, "NOT_FOUND")                     \
    X(GRPC_ALREADY_EXISTS, 6, "ALREADY_EXISTS")           \
    X(GRPC_PERMISSION_DENIED, 7, "PERMISSION_DENIED")     \
    X(GRPC_RESOURCE_EXHAUSTED, 8, "RESOURCE_EXHAUSTED")   \
    X(GRPC_FAILED_PRECONDITION, 9, "FAILED_PRECONDITION") \
    X(GRPC_ABORTED, 10, "ABORTED")                        \
    X(GRPC_OUT_OF_RANGE, 11, "OUT_OF_RANGE")              \
    X(GRPC_UNIMPLEMENTED, 12, "UNIMPLEMENTED")            \
    X(GRPC_INTERNAL, 13, "INTERNAL")                      \
    X(GRPC_UNAVAILABLE, 14, "UNAVAILABLE")                \
    X(GRPC_DATA_LOSS, 15, "DATA_LOSS")                    \
    X(GRPC_UNAUTHENTICATED, 16, "UNAUTHENTICATED")

enum grpc_status {
#define X(id, number, name) id = number,
    GRPC_STATUSES(X)
#undef X
        GRPC_STATUS_COUNT,
};

// "UNAVAILABLE"; n == 0 for a number that is none of these.
struct str grpc_status_name(unsigned status);
