// Answers to gRPC health checks. What is taken is one message of the announced length; cut short anywhere it
// is refused, and what stands behind it does not pass for more of it.
#include "h1_input.h"
#include "upstream/grpc_health.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *read_copy(const char *data, size_t n, uint64_t *serving)
{
    char *copy = exact_copy(data, n);
    const char *why = grpc_health_answer((struct str){copy, n}, serving);
    free(copy);
    return why;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *body = (const char *)data;
    uint64_t serving, other;
    if (read_copy(body, n, &serving))
        return 0;
    check(n >= GRPC_PREFIX_BYTES && body[0] == 0);
    for (size_t i = 0; i < n; i++)
        check(read_copy(body, i, &other));
    char *longer = malloc(n + 1);
    check(longer);
    memcpy(longer, body, n);
    longer[n] = 0;
    check(read_copy(longer, n + 1, &other));
    free(longer);
    return 0;
}
