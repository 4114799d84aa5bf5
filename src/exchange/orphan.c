// Exchanges whose client has gone, and which go on all the same: a policy keeps the answer for who sends the
// request again. Their answers go nowhere.
#include "exchange/steps.h"

static bool take_head(struct exchange *x, struct response_head *head)
{
    (void)x, (void)head;
    return true;
}

static void take_informational(struct exchange *x, struct response_head *head)
{
    (void)x, (void)head;
}

// What has become too long to be kept may be a stream without end. step_relay ends it, told by the timer:
// this may not end x.
static enum flow take_body(struct exchange *x, struct str span)
{
    (void)span;
    if (exchange_is_forsaken(x)) {
        x->wait_until_us = exchange_now_us(x);
        exchange_arm(x);
    }
    return FLOW_MORE;
}

static void take_end(struct exchange *x, const struct headers *trailers)
{
    (void)x, (void)trailers;
}

static bool take_whole(struct exchange *x, struct response_head *head, struct lent body,
                       const struct headers *trailers)
{
    (void)x, (void)head, (void)trailers;
    lent_give_back(&body);
    return true;
}

static void take_nothing(struct exchange *x)
{
    (void)x;
}

static void on_finished(void *client_context)
{
    (void)client_context;
}

static const struct client_verbs nobody = {
    .send_head = take_head,
    .send_informational = take_informational,
    .send_body = take_body,
    .send_end = take_end,
    .send_whole = take_whole,
    .flush = take_nothing,
    .resume = take_nothing,
    .abort = take_nothing,
    .finished = on_finished,
};

static void leave_client_room(struct exchange *x)
{
    x->room = NULL;
    upstream_call_leave_client(x->call);
    if (x->hedge)
        upstream_call_leave_client(x->hedge);
}

bool exchange_outlive_client(struct exchange *x, enum end_cause cause)
{
    if (!x->policy.outlives_client || x->worker->aborting || !x->prepared || x->body != BODY_ENDED ||
        x->tunnel || (x->reply != REPLY_NONE && x->reply != REPLY_HEAD))
        return false;
    // The front's listener may go with its last connection; the snapshot stays.
    const struct gateway_listener *listener = gateway_listener_named(x->gateway, x->listener->name);
    if (!listener)
        return false;
    const struct client_verbs *client = x->client;
    void *context = x->client_context;
    client->abort(x);
    x->listener = listener;
    x->client = &nobody;
    x->client_context = NULL;
    x->tls = x->policy.tls = NULL;
    x->cause = cause;
    x->client_full = false;
    leave_client_room(x);
    client->finished(context);
    upstream_call_resume(x->call);
    return true;
}

bool exchange_is_forsaken(const struct exchange *x)
{
    return x->client == &nobody && !x->policy.outlives_client;
}

static void end(struct exchange *x)
{
    exchange_end(x, END_DRAINING, STR_NULL);
    exchange_run(x);
}

void exchange_end_orphans(struct worker *worker)
{
    worker->aborting = true;
    for (uint32_t i = 0; i < worker->slot_count; i++)
        if (worker->slots[i] && worker->slots[i]->client == &nobody)
            end(worker->slots[i]);
}
