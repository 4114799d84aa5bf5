#include "observe/grpc_status.h"

struct str grpc_status_name(unsigned status)
{
    static const struct str names[GRPC_STATUS_COUNT] = {
#define X(id, number, name) [id] = {name, sizeof(name) - 1},
        GRPC_STATUSES(X)
#undef X
    };
    return status < GRPC_STATUS_COUNT ? names[status] : STR_NULL;
}
