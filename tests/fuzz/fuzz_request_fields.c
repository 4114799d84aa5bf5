// Fields by which clients say that a request may be sent twice and how long they wait: Idempotency-Key,
// X-Request-Timeout-Ms, grpc-timeout. The first byte says who sends them and what the route allows, the rest
// is a head of HTTP/1.1. A deadline only ever gets sooner, and what a service is told of it is never more
// than is left.
#include "h1_input.h"

#include "exchange/steps.h"
#include "http/grpc.h"
#include "policy/policy_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { TRUSTED = 1, GRPC = 2, ROUTE_TIMEOUT = 4, REQUIRED = 8, LATER = 16 };
enum { BEGAN_US = 1000000, ROUTE_TIMEOUT_US = 30000000 };

// ---- Idempotency-Key ----

static bool may_have_key(const struct request_head *request)
{
    return request->method == METHOD_POST || request->method == METHOD_PATCH;
}

// The only field of that name, when it is a good one.
static struct str key_of(const struct request_head *request, unsigned *count)
{
    struct str key = STR_NULL;
    *count = 0;
    for (uint32_t i = 0; i < request->headers.count; i++) {
        const struct header *field = &request->headers.v[i];
        if (!str_eq_fold(field->name, STR("idempotency-key")))
            continue;
        key = field->value;
        ++*count;
    }
    return *count == 1 && key.n <= 255 ? key : STR_NULL;
}

static void check_key(struct request_head *request, struct arena *arena, bool is_required)
{
    static const struct ip client = {.family = AF_INET};
    const struct idempotency_settings settings = {.required = is_required, .body_bytes = 4096};
    static struct metrics *metrics;
    if (!metrics)
        check(metrics = metrics_new());
    struct policy_call call = {.settings = &settings,
                               .request = request,
                               .arena = arena,
                               .client = &client,
                               .route = STR("r"),
                               .metrics = metrics};
    unsigned count;
    struct str key = key_of(request, &count);
    check(str_eq(http_idempotency_key(request), may_have_key(request) ? key : STR_NULL));
    bool is_asked = may_have_key(request) && !grpc_is_request(request);
    bool is_bad = is_asked && !key.n && (count || is_required);
    check(policy_idempotency.on_request(&call) == (is_bad ? FAIL : PASS));
    check(!is_bad || call.cause == END_IDEMPOTENCY_NO_KEY);
    check((call.idempotent != NULL) == (is_asked && key.n > 0));
    check(call.body_wanted == (call.idempotent ? settings.body_bytes : 0));
}

// ---- deadlines ----

static void check_told(struct exchange *x)
{
    bool is_told = x->deadline_us && !x->request.upgrade.n && !x->request.extended_connect;
    bool goes_on = deadline_pass(x);
    uint64_t now_us = x->worker->loop.now_us;
    uint64_t left_us = x->deadline_us > now_us ? x->deadline_us - now_us : 0, told;
    if (!is_told) {
        check(goes_on);
        return;
    }
    check(goes_on == (left_us >= 1000));
    if (!goes_on)
        return;
    struct str value =
        headers_value(&x->request.headers, x->grpc ? HEADER_GRPC_TIMEOUT : HEADER_X_REQUEST_TIMEOUT_MS);
    if (x->grpc) {
        check(grpc_timeout_parse(value, &told));
    } else {
        check(str_to_u64(value, UINT32_MAX, &told));
        told *= 1000;
    }
    check(told > 0 && told <= left_us);
}

static void check_deadline(struct request_head *request, struct arena *arena, unsigned flags)
{
    static struct worker worker;
    struct route_settings settings = {.timeout_us = flags & ROUTE_TIMEOUT ? ROUTE_TIMEOUT_US : 0};
    struct route route = {.settings = &settings};
    struct exchange x = {.worker = &worker,
                         .arena = *arena,
                         .began_us = BEGAN_US,
                         .peer_trusted = flags & TRUSTED,
                         .grpc = flags & GRPC,
                         .request = *request,
                         .match = {.route = &route}};
    worker.loop.now_us = BEGAN_US + (flags & LATER ? 123456 : 0);
    bool is_good = deadline_take(&x);
    check(is_good || (x.grpc && headers_find(&request->headers, HEADER_GRPC_TIMEOUT)));
    check(!x.client_deadline || x.deadline_us >= BEGAN_US);
    if (settings.timeout_us)
        check(x.deadline_us && x.deadline_us <= BEGAN_US + ROUTE_TIMEOUT_US);
    else
        check((x.deadline_us != 0) == x.client_deadline);
    check(x.peer_trusted || x.grpc || !x.client_deadline);
    if (is_good) {
        if (!x.grpc) // as forward.c does with what is not to be believed
            headers_remove(&x.request.headers, HEADER_X_REQUEST_TIMEOUT_MS);
        deadline_prepare(&x);
        check_told(&x);
    }
    *arena = x.arena;
}

// The same value as it is, and what the gateway would make of it.
static void check_grpc_timeout(struct str value)
{
    uint64_t us, again;
    char text[GRPC_TIMEOUT_TEXT];
    if (!grpc_timeout_parse(value, &us))
        return;
    check(value.n >= 2 && value.n <= GRPC_TIMEOUT_TEXT);
    check(grpc_timeout_parse(grpc_timeout_print(us, text), &again) && again <= us);
    check(us - again < us / 99999 + 1); // eight digits tell it that well
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct h1_limits limits = {.head_bytes = 8192, .uri_bytes = 4096, .headers = 64};
    struct request_head request = {0};
    struct h1_parse parse = {0};
    struct arena arena;
    if (!n)
        return 0;
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data + 1, n - 1);
    if (h1_parse_request(&parse, copy, n - 1, &limits, H1_UNDERSCORES_DROP, &arena, &request) == H1_DONE) {
        const struct header *timeout = headers_find(&request.headers, HEADER_GRPC_TIMEOUT);
        if (timeout)
            check_grpc_timeout(timeout->value);
        check_key(&request, &arena, data[0] & REQUIRED);
        check_deadline(&request, &arena, data[0]);
    }
    arena_reset(&arena);
    free(copy);
    return 0;
}
