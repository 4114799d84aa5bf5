// Streams end soon after the identity that they began with is no longer good: its token has expired, or is on
// the deny list. Only what may go on for long without an end of its own is looked at: tunnels, server-sent
// events and gRPC calls. One timer for all of a worker's: a look is two comparisons.
#include "exchange/steps.h"

#include "base/clock.h"

enum { WATCH_MS = 500 }; // between two looks: well within the second that is promised

static bool is_event_stream(const struct response_head *head)
{
    struct str type = headers_value(&head->headers, HEADER_CONTENT_TYPE);
    type.n = str_find(type, ';');
    return str_eq_fold(str_trim(type), STR("text/event-stream"));
}

static bool is_stream(const struct exchange *x)
{
    return x->tunnel || x->grpc || (x->response && is_event_stream(x->response));
}

static bool can_go_bad(const struct identity *identity)
{
    return identity->revocable || identity->expires != INT64_MAX;
}

// Who was let in by the leeway, after the token's end, stays as long as that lasts.
static bool is_still_good(const struct exchange *x, int64_t now_s, enum end_cause *cause)
{
    struct identity *identity = x->policy.identity;
    int64_t late_s = x->policy.now_s >= identity->expires ? identity->leeway_s : 0;
    return auth_still_good(identity, now_s - late_s, cause);
}

void exchange_watch(struct exchange *x)
{
    struct worker *worker = x->worker;
    const struct identity *identity = x->policy.identity;
    if (!identity || !can_go_bad(identity) || x->match.route->settings->outlive_token || !is_stream(x) ||
        !list_empty(&x->listed))
        return;
    if (list_empty(&worker->watched))
        loop_timer_set(&worker->loop, &worker->watch, WATCH_MS);
    list_push_back(&worker->watched, &x->listed);
}

static void on_watch(struct loop_timer *timer)
{
    struct worker *worker = container_of(timer, struct worker, watch);
    int64_t now_s = (int64_t)(clock_wall_us() / 1000000);
    struct list rest;
    list_init(&rest);
    list_move_all(&worker->watched, &rest);
    for (struct list *node; (node = list_pop_front(&rest));) { // the end of one may end others
        struct exchange *x = container_of(node, struct exchange, listed);
        list_push_back(&worker->watched, node);
        enum end_cause cause;
        if (is_still_good(x, now_s, &cause))
            continue;
        exchange_end(x, cause, STR_NULL);
        exchange_run(x);
    }
    if (!list_empty(&worker->watched))
        loop_timer_set(&worker->loop, &worker->watch, WATCH_MS);
}

void exchange_watch_init(struct worker *worker)
{
    list_init(&worker->watched);
    loop_timer_init(&worker->watch, on_watch);
}
