// The life of an exchange: made, driven, timed, ended, recorded.
#include "exchange/exchange.h"

#include "base/clock.h"
#include "exchange/stale.h"
#include "exchange/steps.h"
#include "http/grpc.h"

#include <stdlib.h>

enum {
    SPARE_EXCHANGES = 256,
    ARENA_RESERVE = 4, // blocks at hand before an exchange begins: most need one
};

// ---- slots ----

static bool grow_slots(struct worker *worker)
{
    uint32_t count = worker->slot_count ? worker->slot_count * 2 : 64;
    struct exchange **slots = realloc(worker->slots, count * sizeof(struct exchange *));
    if (slots)
        worker->slots = slots;
    uint32_t *free_slots = realloc(worker->free_slots, count * sizeof *free_slots);
    if (free_slots)
        worker->free_slots = free_slots;
    if (!slots || !free_slots)
        return false;
    for (uint32_t i = count; i-- > worker->slot_count;) {
        slots[i] = NULL;
        free_slots[worker->free_count++] = i;
    }
    worker->slot_count = count;
    return true;
}

// ---- new and free ----

static void on_timer(struct loop_timer *timer);

static struct exchange *take_spare(struct worker *worker)
{
    struct list *node = list_pop_front(&worker->spare_exchanges);
    if (!node)
        return malloc(sizeof(struct exchange));
    worker->spare_count--;
    return container_of(node, struct exchange, listed);
}

struct exchange *exchange_new(struct worker *worker, const struct gateway_listener *listener,
                              const struct client_verbs *client, void *client_context, const struct ip *peer)
{
    if (!worker->free_count && !grow_slots(worker))
        return NULL;
    if (!arena_spares_fill(&worker->spares, ARENA_RESERVE))
        return NULL;
    struct exchange *x = take_spare(worker);
    if (!x)
        return NULL;
    // The captures of the match are written before they are read: not worth clearing.
    memset(x, 0, offsetof(struct exchange, match));
    memset(&x->request_id, 0, sizeof *x - offsetof(struct exchange, request_id));
    x->match.route = NULL;
    x->call = &x->first_call;
    x->worker = worker;
    x->slot = worker->free_slots[--worker->free_count];
    x->policy.ticket = exchange_new_ticket(x);
    worker->slots[x->slot] = x;
    worker->live++;
    list_init(&x->listed);
    x->hold = worker_hold(worker);
    x->gateway = x->hold->gateway;
    x->listener = listener;
    x->client = client;
    x->client_context = client_context;
    x->protocol = client->protocol;
    x->peer = x->source = *peer;
    x->scheme = STR("http");
    arena_init(&x->arena, &worker->spares);
    x->began_us = x->progress_us = worker->loop.now_us;
    x->wall_us = clock_wall_us();
    loop_timer_init(&x->timer, on_timer);
    return x;
}

static void exchange_free(struct exchange *x)
{
    struct worker *worker = x->worker;
    loop_timer_stop(&worker->loop, &x->timer);
    list_remove(&x->listed);
    buf_release(&x->replay, &worker->buffers);
    arena_reset(&x->arena);
    worker->slots[x->slot] = NULL;
    worker->free_slots[worker->free_count++] = x->slot;
    worker->live--;
    worker_release(worker, x->hold);
    if (worker->spare_count >= SPARE_EXCHANGES) {
        free(x);
        return;
    }
    list_push_front(&worker->spare_exchanges, &x->listed);
    worker->spare_count++;
}

void exchange_discard(struct exchange *x)
{
    exchange_free(x);
}

// ---- the driver ----

void exchange_run(struct exchange *x)
{
    if (x->running) { // an event from inside a step: the loop below goes on with it
        x->again = true;
        return;
    }
    x->running = true;
    for (;;) {
        x->again = false;
        enum step_result result = steps[x->step].run(x);
        if (result == STEP_DONE)
            return;
        if (result == STEP_WAIT && !x->again)
            break;
    }
    x->running = false;
}

void exchange_begin(struct exchange *x)
{
    x->grpc = grpc_is_request(&x->request);
    x->step = STEP_ADMIT;
    exchange_run(x);
}

// ---- late answers ----

struct ticket exchange_new_ticket(struct exchange *x)
{
    if (++x->worker->generation == 0) // nobody's
        x->worker->generation = 1;
    return (struct ticket){x->slot, x->worker->generation};
}

void exchange_resume(struct worker *worker, struct ticket ticket)
{
    struct exchange *x = ticket.slot < worker->slot_count ? worker->slots[ticket.slot] : NULL;
    if (!x || (x->step != STEP_GUARD && x->step != STEP_GATHER) || !x->policy.again ||
        x->policy.ticket.generation != ticket.generation)
        return;
    x->wait_until_us = 0;
    exchange_arm(x);
    exchange_run(x);
}

// ---- ends ----

void exchange_end(struct exchange *x, enum end_cause cause, struct str detail)
{
    x->cause = cause;
    x->step = STEP_FINISH;
    if (x->reply == REPLY_NONE) {
        reply_error(x, cause, 0, detail);
    } else if (x->reply == REPLY_HEAD && x->grpc_trailers) {
        reply_grpc_trailers(x, cause, detail);
    } else if (x->reply == REPLY_HEAD) {
        x->client->abort(x);
        x->reply = REPLY_CUT;
    }
}

static void end_and_run(struct exchange *x, enum end_cause cause, struct str detail)
{
    exchange_end(x, cause, detail);
    exchange_run(x);
}

void exchange_reject(struct exchange *x, enum end_cause cause, struct str detail)
{
    x->body = BODY_UNWANTED;
    x->grpc = grpc_is_request(&x->request);
    forward_identify(x);
    end_and_run(x, cause, detail);
}

void exchange_body_fail(struct exchange *x, enum end_cause cause, struct str detail)
{
    x->body = BODY_UNWANTED;
    end_and_run(x, cause, detail);
}

void exchange_client_gone(struct exchange *x, enum end_cause cause)
{
    if (exchange_outlive_client(x, cause))
        return;
    x->cause = cause;
    if (x->reply == REPLY_NONE)
        x->status = end_row(cause)->status;
    if (x->reply == REPLY_NONE || x->reply == REPLY_HEAD)
        x->client->abort(x);
    x->reply = REPLY_CUT;
    x->step = STEP_FINISH;
    exchange_run(x);
}

static void record_metrics(struct exchange *x, uint64_t duration_us)
{
    struct metric_request record = {
        .listener = x->listener->metric_id,
        .route = x->match.route ? x->match.route->metric_id : UINT32_MAX,
        .method = x->request.method,
        .status = x->status,
        .cause = x->cause,
        .duration_us = duration_us,
        .bytes_in = x->bytes_in,
        .bytes_out = x->bytes_out,
    };
    metrics_request(x->worker->metrics, &record);
}

static void record_access(struct exchange *x, uint64_t duration_us)
{
    char client[IP_TEXT_MAX];
    const struct route *route = x->match.route;
    struct access_record record = {
        .wall_us = x->wall_us,
        .request_id = x->request_id,
        .client = {client, ip_print(&x->source, client)},
        .listener = x->listener->name,
        .host = x->request.host,
        .method = x->request.method_name,
        .path = x->request.path,
        .query = auth_loggable_query(&x->gateway->auth, x->request.query, &x->arena),
        .protocol = x->request.minor == 0 && x->request.method_name.n ? STR("HTTP/1.0") : str_of(x->protocol),
        .route = route ? route->name : STR_NULL,
        .upstream = x->upstream ? x->upstream->name : STR_NULL,
        .endpoint = x->call->endpoint ? x->call->endpoint->name : STR_NULL,
        .consumer = x->policy.identity ? x->policy.identity->consumer : STR_NULL,
        .subject = x->policy.identity ? x->policy.identity->subject : STR_NULL,
        .trace_id = {x->trace_id, x->trace_id[0] ? sizeof x->trace_id : 0},
        .user_agent = headers_value(&x->request.headers, HEADER_USER_AGENT),
        .referer = headers_value(&x->request.headers, HEADER_REFERER),
        .status = x->status,
        .cause = x->cause,
        .bytes_in = x->bytes_in,
        .bytes_out = x->bytes_out,
        .duration_us = duration_us,
        .upstream_us = x->upstream_us,
        .attempts = x->attempts,
    };
    access_log_record(&x->worker->log, x->gateway->log_format, &record, x->worker->loop.now_us);
}

static bool is_logged(struct exchange *x)
{
    double sample = x->gateway->settings.telemetry.access_log.sample;
    if (!x->worker->log.writer || (x->match.route && !x->match.route->settings->access_log))
        return false;
    return sample >= 1.0 || rand_unit(&x->worker->rand) < sample;
}

// It waits for an answer that nobody will take.
static void forget_policy(struct exchange *x)
{
    const struct policy_use *use = &x->match.route->policies[x->policy_next];
    x->policy.settings = use->settings;
    if (use->policy->on_forget)
        use->policy->on_forget(&x->policy);
}

void exchange_end_policies(struct exchange *x)
{
    const struct route *route = x->match.route;
    if (!route || !route->has_ends || x->policies_ended)
        return;
    x->policies_ended = true;
    x->policy.now_us = x->worker->loop.now_us;
    for (uint32_t i = 0; i < route->policy_count; i++) {
        x->policy.settings = route->policies[i].settings;
        if (route->policies[i].policy->on_end)
            route->policies[i].policy->on_end(&x->policy);
    }
}

// step_finish: gives the upstream back, records, lets the front go on, and frees.
void exchange_release(struct exchange *x)
{
    if (x->policy.again)
        forget_policy(x);
    exchange_end_policies(x);
    if (unlikely(x->copying != NULL))
        stale_give_up(x);
    exchange_leave_upstream(x, x->cause);
    retry_place_leave(&x->retry_place);
    uint64_t duration_us = x->worker->loop.now_us - x->began_us;
    record_metrics(x, duration_us);
    if (is_logged(x))
        record_access(x, duration_us);
    identity_unref(x->policy.identity);
    const struct client_verbs *client = x->client;
    void *context = x->client_context;
    exchange_free(x);
    client->finished(context);
}

// ---- deadlines ----

// Whether it is the upstream that everybody is waiting for.
static bool waits_for_upstream(const struct exchange *x)
{
    if (x->step != STEP_AWAIT && x->step != STEP_RELAY)
        return false;
    if (x->client_full || x->continue_awaited)
        return false;
    return x->tunnel || x->body != BODY_OPEN || x->body_full;
}

static uint64_t silence_us(const struct exchange *x)
{
    return x->tunnel ? x->listener->settings->timeouts.idle_us : x->upstream->settings->timeouts.response_us;
}

void exchange_arm(struct exchange *x)
{
    uint64_t now_us = x->worker->loop.now_us, due_us = x->deadline_us ? x->deadline_us : UINT64_MAX;
    if (x->wait_until_us && x->wait_until_us < due_us)
        due_us = x->wait_until_us;
    if (x->hedge_at_us && x->hedge_at_us < due_us)
        due_us = x->hedge_at_us;
    if (x->upstream && silence_us(x)) {
        uint64_t silent_us = x->progress_us + silence_us(x);
        // While somebody else is waited for, look again later.
        silent_us = silent_us > now_us ? silent_us : now_us + silence_us(x);
        if (silent_us < due_us)
            due_us = silent_us;
    }
    if (due_us != UINT64_MAX)
        loop_timer_set(&x->worker->loop, &x->timer, due_us > now_us ? (due_us - now_us) / 1000 : 0);
}

// The time is over. Whether that is the service's fault: one that goes on with its answer has time enough,
// and the route is for shorter ones.
static bool owes_answer(const struct exchange *x, uint64_t now_us)
{
    if (x->step == STEP_SEND) // it connects, or waits in line, with no endpoint yet
        return true;
    bool goes_on = x->step == STEP_RELAY && now_us - x->progress_us <= (now_us - x->call->head_us) / 2;
    return waits_for_upstream(x) && !goes_on;
}

static void on_timer(struct loop_timer *timer)
{
    struct exchange *x = container_of(timer, struct exchange, timer);
    uint64_t now_us = x->worker->loop.now_us;
    if (x->deadline_us && now_us >= x->deadline_us) {
        x->excused = x->client_deadline || !owes_answer(x, now_us);
        end_and_run(x, END_DEADLINE_EXCEEDED, STR_NULL);
        return;
    }
    if (x->hedge_at_us && now_us >= x->hedge_at_us) {
        hedge_start(x);
        exchange_arm(x);
        return;
    }
    if (x->wait_until_us && now_us >= x->wait_until_us) {
        x->wait_until_us = 0;
        exchange_arm(x); // the deadlines go on, whatever the step makes of it
        exchange_run(x);
        return;
    }
    if (waits_for_upstream(x) && silence_us(x) && now_us >= x->progress_us + silence_us(x)) {
        if (exchange_try_again(x, END_UPSTREAM_TIMEOUT) == STEP_MORE)
            exchange_run(x);
        return;
    }
    exchange_arm(x);
}

// ---- for people ----

void exchange_print(const struct exchange *x, struct json *out)
{
    char client[IP_TEXT_MAX];
    json_object(out);
    json_field_string(out, "request_id", x->request_id);
    json_field_string(out, "step", str_of(steps[x->step].name));
    json_field_string(out, "client", ((struct str){client, ip_print(&x->source, client)}));
    json_field_string(out, "listener", x->listener->name);
    json_field_string(out, "method", x->request.method_name);
    json_field_string(out, "host", x->request.host);
    json_field_string(out, "path", x->request.path);
    json_field_string(out, "route", x->match.route ? x->match.route->name : STR_NULL);
    if (x->policy.identity) {
        json_field_string(out, "consumer", x->policy.identity->consumer);
        json_field_string(out, "subject", x->policy.identity->subject);
    }
    json_field_string(out, "upstream", x->upstream ? x->upstream->name : STR_NULL);
    json_field_string(out, "endpoint",
                      x->call->local && x->call->endpoint ? x->call->endpoint->name : STR_NULL);
    json_field_u64(out, "attempts", x->attempts);
    json_field_u64(out, "status", x->status);
    json_field_u64(out, "bytes_in", x->bytes_in);
    json_field_u64(out, "bytes_out", x->bytes_out);
    json_field_u64(out, "age_ms", (x->worker->loop.now_us - x->began_us) / 1000);
    json_object_end(out);
}
