// How long a request may take: the route's timeout or what the client gives it, whichever is over sooner, and
// what upstreams are told of it: what is left, at each attempt, rounded down, so that no deadline grows on
// its way and nobody works for a client that has been answered.
//
//   gRPC           grpc-timeout, both ways
//   other requests X-Request-Timeout-Ms, whole milliseconds; believed from trusted peers only
#include "exchange/steps.h"

#include "http/grpc.h"

static void shorten(struct exchange *x, uint64_t timeout_us)
{
    uint64_t deadline_us = x->began_us + timeout_us;
    if (x->deadline_us && deadline_us >= x->deadline_us)
        return;
    x->deadline_us = deadline_us;
    x->client_deadline = true;
}

// What is malformed, or longer than anybody waits, is not there.
static void take_timeout_ms(struct exchange *x)
{
    const struct header *given = headers_find(&x->request.headers, HEADER_X_REQUEST_TIMEOUT_MS);
    uint64_t timeout_ms;
    if (given && str_to_u64(given->value, UINT32_MAX, &timeout_ms))
        shorten(x, timeout_ms * 1000);
}

static bool take_grpc_timeout(struct exchange *x)
{
    const struct header *given = headers_find(&x->request.headers, HEADER_GRPC_TIMEOUT);
    uint64_t timeout_us;
    if (given && !grpc_timeout_parse(given->value, &timeout_us))
        return false;
    if (given)
        shorten(x, timeout_us);
    headers_remove(&x->request.headers, HEADER_GRPC_TIMEOUT);
    return true;
}

bool deadline_take(struct exchange *x)
{
    uint64_t timeout_us = x->match.route->settings->timeout_us;
    if (timeout_us)
        x->deadline_us = x->began_us + timeout_us;
    if (x->peer_trusted)
        take_timeout_ms(x);
    return !x->grpc || take_grpc_timeout(x);
}

// A tunnel has no deadline once it is one: its service is told none.
static bool is_told(const struct exchange *x)
{
    return x->deadline_us && !x->request.upgrade.n && !x->request.extended_connect;
}

void deadline_prepare(struct exchange *x)
{
    if (!is_told(x))
        return;
    if (x->grpc)
        headers_add_as(&x->request.headers, &x->arena, HEADER_GRPC_TIMEOUT, STR("grpc-timeout"), STR_NULL);
    else
        headers_add_as(&x->request.headers, &x->arena, HEADER_X_REQUEST_TIMEOUT_MS,
                       STR("X-Request-Timeout-Ms"), STR_NULL);
}

bool deadline_pass(struct exchange *x)
{
    enum { LEAST_US = 1000 }; // 0 ms is no time to give to anybody
    if (!is_told(x))
        return true;
    uint64_t now_us = exchange_now_us(x);
    if (now_us + LEAST_US > x->deadline_us)
        return false;
    uint64_t left_us = x->deadline_us - now_us;
    struct headers *headers = &x->request.headers;
    if (x->grpc)
        headers_find(headers, HEADER_GRPC_TIMEOUT)->value =
            grpc_timeout_print(left_us, arena_alloc(&x->arena, GRPC_TIMEOUT_TEXT));
    else
        headers_find(headers, HEADER_X_REQUEST_TIMEOUT_MS)->value = arena_u64(&x->arena, left_us / 1000);
    return true;
}
