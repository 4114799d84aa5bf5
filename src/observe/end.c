#include "observe/end.h"

const struct end_row end_rows[END_CAUSE_COUNT] = {
#define X(id, code, status, grpc, level, against, retryable, title, detail)                               \
    [id] = {                                                                                              \
        {code, sizeof(code) - 1},    status, grpc, level, against, retryable, {title, sizeof(title) - 1}, \
        {detail, sizeof(detail) - 1}},
    END_CAUSES(X)
#undef X
};
