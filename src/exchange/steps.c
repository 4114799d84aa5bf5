// The path of a request, top to bottom. A step sets the next one and says MORE, WAIT or DONE.
#include "exchange/steps.h"
#include "exchange/stale.h"

#include "http/grpc.h"

static enum step_result go(struct exchange *x, enum exchange_step next)
{
    x->step = next;
    return STEP_MORE;
}

static enum step_result end(struct exchange *x, enum end_cause cause, struct str detail)
{
    exchange_end(x, cause, detail);
    return STEP_MORE;
}

// us 0: until somebody else wakes it, or its deadline.
static enum step_result wait_for(struct exchange *x, uint64_t us)
{
    x->wait_until_us = us ? exchange_now_us(x) + us : 0;
    exchange_arm(x);
    return STEP_WAIT;
}

// A connection that was made for one site asks for another, which has other certificates (RFC 9110 7.4).
static bool is_misdirected(const struct exchange *x)
{
    return x->tls && x->tls->server_name.n && x->request.host.n &&
           !tls_server_same_site(x->tls_server, x->tls->server_name, x->request.host);
}

static enum step_result step_admit(struct exchange *x)
{
    x->body_limit = x->listener->settings->limits.body_bytes;
    x->body = x->request.framing == FRAMING_NONE ? BODY_ENDED : BODY_HELD;
    auth_strip(&x->gateway->auth, &x->request.headers);
    forward_identify(x);
    if (is_misdirected(x))
        return end(x, END_MISDIRECTED, STR_NULL);
    if (x->listener->redirect) {
        if (!x->request.host.n)
            return end(x, END_BAD_REQUEST, STR("a request without Host cannot be redirected"));
        reply_redirect_to_tls(x);
        return go(x, STEP_FINISH);
    }
    return go(x, STEP_ROUTE);
}

// What every policy of the route may see.
static void prepare_policies(struct exchange *x)
{
    struct policy_call *call = &x->policy;
    call->request = &x->request;
    call->arena = &x->arena;
    call->rand = &x->worker->rand;
    call->now_s = (int64_t)(x->wall_us / 1000000);
    call->client = &x->source;
    call->tls = x->tls;
    call->origin = headers_value(&x->request.headers, HEADER_ORIGIN);
    call->scheme = x->scheme;
    call->request_id = x->request_id;
    call->route = x->match.route->name;
    call->auth = x->worker->auth;
    call->providers = &x->gateway->auth;
    call->limits = &x->gateway->limits;
    call->limiter = x->worker->limiter;
    call->replays = x->worker->replays;
    call->metrics = x->worker->metrics;
}

// Before anything that costs: the gateway itself is overloaded.
static bool is_shed(struct exchange *x, enum priority priority)
{
    struct overload *overload = &x->worker->overload;
    if (!overload_sheds(&overload->meter, overload->pressure, priority))
        return false;
    metrics_shed(x->worker->metrics, priority);
    return true;
}

static enum step_result step_route(struct exchange *x)
{
    route_find(x->gateway->routes, &x->request, x->worker->scratch, &x->arena, &x->match);
    const struct route *route = x->match.route;
    if (!route)
        return end(x, x->match.method_mismatch ? END_METHOD_NOT_ALLOWED : END_NO_ROUTE, STR_NULL);
    const struct route_settings *settings = route->settings;
    if (unlikely(x->worker->overload.pressure > 0) && is_shed(x, (enum priority)settings->priority))
        return end(x, END_OVERLOADED, STR("the gateway is short of something"));
    if (route->policy_count)
        prepare_policies(x);
    if (settings->request_body_bytes != UINT64_MAX)
        x->body_limit = settings->request_body_bytes;
    if (x->request.framing == FRAMING_LENGTH && x->request.content_length > x->body_limit)
        return end(x, END_BODY_TOO_LARGE,
                   arena_printf(&x->arena, "the body may have at most %llu bytes",
                                (unsigned long long)x->body_limit));
    if (!deadline_take(x))
        return end(x, END_BAD_REQUEST, STR("grpc-timeout is not a number and a unit"));
    x->policy.deadline_us = x->deadline_us;
    return go(x, STEP_GUARD);
}

// One policy's word. It is called again until it has another one than WAIT.
static enum verdict ask_policy(struct exchange *x, const struct policy_use *use,
                               enum verdict (*hook)(struct policy_call *call))
{
    struct policy_call *call = &x->policy;
    bool waited = call->again;
    call->settings = use->settings;
    call->now_us = exchange_now_us(x);
    call->wait_ms = 0;
    enum verdict verdict = hook(call);
    call->again = verdict == WAIT;
    if (waited && !call->again) { // the answer to one policy is not for the next
        call->ticket = exchange_new_ticket(x);
        call->state = NULL;
    }
    return verdict;
}

static enum step_result heed(struct exchange *x, enum verdict verdict, enum exchange_step next)
{
    struct policy_call *call = &x->policy;
    switch (verdict) {
    case PASS: return go(x, next);
    case REPLY: reply_answer(x, &call->answer); break;
    case WAIT: return wait_for(x, call->wait_ms * 1000);
    case FAIL:
        x->cause = call->cause;
        reply_refusal(x);
        break;
    }
    return go(x, STEP_FINISH);
}

static enum step_result step_guard(struct exchange *x)
{
    const struct route *route = x->match.route;
    enum verdict verdict = PASS;
    for (; x->policy_next < route->policy_count; x->policy_next++) {
        const struct policy_use *use = &route->policies[x->policy_next];
        if (use->policy->on_request)
            verdict = ask_policy(x, use, use->policy->on_request);
        if (verdict != PASS)
            return heed(x, verdict, STEP_GUARD);
    }
    if (!x->policy.body_wanted)
        return go(x, STEP_ACT);
    x->policy_next = 0;
    return go(x, STEP_GATHER);
}

// The whole body first, for policies that judge it. It goes on as a body that is repeated does: relay.c.
static enum step_result step_gather(struct exchange *x)
{
    const struct route *route = x->match.route;
    struct policy_call *call = &x->policy;
    bool is_long = x->request.framing == FRAMING_LENGTH && x->request.content_length > call->body_wanted;
    if (is_long || x->body_bytes > call->body_wanted)
        return end(x, END_BODY_TOO_LARGE,
                   arena_printf(&x->arena, "here the body may have at most %llu bytes",
                                (unsigned long long)call->body_wanted));
    if (x->replay_lost)
        return end(x, END_OVERLOADED, STR("memory is short"));
    if (x->body == BODY_HELD)
        relay_open_body(x);
    if (x->body != BODY_ENDED)
        return wait_for(x, 0);
    call->body = buf_str(&x->replay);
    enum verdict verdict = PASS;
    for (; x->policy_next < route->policy_count; x->policy_next++) {
        const struct policy_use *use = &route->policies[x->policy_next];
        if (use->policy->on_body)
            verdict = ask_policy(x, use, use->policy->on_body);
        if (verdict != PASS)
            return heed(x, verdict, STEP_GATHER);
    }
    return go(x, STEP_ACT);
}

static enum step_result step_act(struct exchange *x)
{
    const struct route *route = x->match.route;
    switch (route->action) {
    case ROUTE_REDIRECT: reply_redirect(x); return go(x, STEP_FINISH);
    case ROUTE_RESPOND: reply_respond(x, &route->settings->respond); return go(x, STEP_FINISH);
    case ROUTE_SPLIT: x->upstream = route_draw(route, &x->worker->rand); break;
    case ROUTE_FORWARD: x->upstream = route->upstream; break;
    }
    if (exchange_lacks_upgrade(x, x->upstream))
        return end(x, END_NOT_IMPLEMENTED, STR("the service speaks HTTP/2, which has no Upgrade"));
    if (!forward_make_target(x))
        return end(x, END_BAD_REQUEST, STR("the rewritten path is refused"));
    exchange_watch(x); // gRPC's answer may begin late
    exchange_choose_retries(x);
    x->repeatable = http_request_repeatable(&x->request);
    return go(x, STEP_PICK);
}

static uint64_t hash_client(const struct exchange *x)
{
    char text[IP_TEXT_MAX];
    return balance_hash((struct str){text, ip_print(&x->source, text)});
}

static uint64_t hash_identity(const struct exchange *x)
{
    const struct identity *identity = x->policy.identity;
    if (!identity || (!identity->consumer.n && !identity->subject.n))
        return hash_client(x);
    return balance_hash(identity->consumer.n ? identity->consumer : identity->subject);
}

static uint64_t hash_key(const struct exchange *x)
{
    const struct hash_settings *hash = &x->upstream->settings->hash_on;
    const struct header *header;
    switch (hash->source) {
    case HASH_CLIENT_IP: return hash_client(x);
    case HASH_IDENTITY: return hash_identity(x);
    case HASH_PATH: return balance_hash(x->request.path);
    case HASH_HEADER:
        header = headers_find_name(&x->request.headers, hash->name);
        return balance_hash(header ? header->value : STR_NULL);
    case HASH_COOKIE: return balance_hash(headers_cookie(&x->request.headers, hash->name));
    }
    return 0;
}

static enum step_result step_pick(struct exchange *x)
{
    struct upstream_call *call = x->call;
    x->wait_until_us = 0;
    x->attempts++;
    call->events = &exchange_call_events;
    call->context = x;
    bool first = call->upstream != x->upstream; // try at it
    call->upstream = x->upstream;
    call->arena = &x->arena;
    call->method = x->request.method;
    call->room = x->room;
    call->deadline_us = x->deadline_us;
    upstream_enter(x->worker->upstreams, x->upstream, &x->retry_place);
    hedge_plan(x);
    if (first) {
        call->tried = 0;
        call->endpoint = NULL; // another upstream's
        x->fresh = false;
    }
    if (first && x->upstream->settings->load_balancer == BALANCE_CONSISTENT_HASH)
        call->hash = hash_key(x);
    x->progress_us = exchange_now_us(x);
    x->step = STEP_SEND; // on_ready resumes there
    enum end_cause cause;
    switch (upstream_call_start(x->worker->upstreams, call, x->fresh, &cause)) {
    case CALL_READY: return STEP_MORE;
    case CALL_WAITING: exchange_arm(x); return STEP_WAIT;
    case CALL_REFUSED: break;
    }
    return exchange_try_again(x, cause);
}

static enum step_result step_send(struct exchange *x)
{
    forward_prepare_request(x);
    forward_set_host(x, x->call);
    if (!deadline_pass(x)) {
        x->excused = true; // it was not asked
        return end(x, END_DEADLINE_EXCEEDED, STR_NULL);
    }
    struct request_head *request = &x->request;
    bool upgrade = request->upgrade.n > 0;
    if (x->body_bytes && x->replay_lost) // between two tries
        return end(x, END_OVERLOADED, STR("memory is short"));
    if (!upstream_call_head(x->call, request, x->target, request->framing, upgrade))
        return end(x, END_OVERLOADED, STR("memory is short"));
    x->step = STEP_AWAIT;
    bool replayed = relay_replay_body(x, 0);
    if (x->body == BODY_HELD && request->expect_continue) {
        x->continue_awaited = true;
        upstream_call_flush(x->call);
        return wait_for(x, CONTINUE_WAIT_MS * 1000);
    }
    if (replayed && (x->body == BODY_HELD || x->body == BODY_OPEN))
        relay_open_body(x);
    if (x->call->link)
        upstream_call_flush(x->call);
    exchange_arm(x);
    return STEP_WAIT;
}

// Woken by the response head (on_head), a failure (on_fail) or the timer.
static enum step_result step_await(struct exchange *x)
{
    if (x->continue_awaited) // the timer: the upstream says nothing
        relay_open_body(x);
    exchange_arm(x);
    return STEP_WAIT;
}

// To the client of an extended CONNECT any 2xx is a tunnel (RFC 8441 5): none but 101 may become one.
static bool is_unexpected_upgrade(const struct exchange *x)
{
    const struct response_head *head = x->response;
    const struct header *upgrade = headers_find(&head->headers, HEADER_UPGRADE);
    if (head->status == 101 && x->websocket_accept.n) {
        const struct header *accept = headers_find_name(&head->headers, STR("Sec-WebSocket-Accept"));
        if (!accept || !str_eq(accept->value, x->websocket_accept))
            return true;
    }
    if (head->status == 101)
        return !(upgrade && str_eq_fold(upgrade->value, x->request.upgrade));
    return x->request.extended_connect && head->status / 100 == 2;
}

// A gRPC call that ends with its head has no other status than that of HTTP it amounts to.
static bool is_retried_status(const struct exchange *x)
{
    unsigned status = x->grpc_ended ? grpc_status_to_http(x->grpc_status) : x->response->status;
    return status_set_has(&x->retries->statuses, status);
}

static enum step_result step_shape(struct exchange *x)
{
    struct response_head *head = x->response;
    if (is_unexpected_upgrade(x))
        return exchange_try_again(x, END_UPSTREAM_BAD_RESPONSE);
    if (is_retried_status(x) && (x->hedge || exchange_may_retry(x, END_UPSTREAM_STATUS)))
        return exchange_try_again(x, END_UPSTREAM_STATUS);
    hedge_settle(x);
    x->status =
        x->request.extended_connect && head->status == 101 ? 200 : head->status; // as the client gets it
    x->tunnel = head->status == 101;
    if (unlikely(stale_listens(x)))
        stale_hear(x, head);
    forward_shape_response(x, head);
    struct policy_call *call = &x->policy;
    const struct route *route = x->match.route;
    call->response = head;
    call->now_us = exchange_now_us(x);
    for (uint32_t i = 0; i < route->policy_count; i++) {
        call->settings = route->policies[i].settings;
        if (route->policies[i].policy->on_response)
            route->policies[i].policy->on_response(call);
    }
    x->reply = REPLY_HEAD;
    x->step = STEP_RELAY;
    if (!x->client->send_head(x, head))
        return end(x, END_OVERLOADED, STR_NULL);
    exchange_watch(x);
    x->grpc_trailers = x->grpc && x->request.http2 && grpc_can_end_early(head);
    if (x->tunnel) {
        exchange_judge_upstream(x); // how the attempt went is known long before it ends
        x->deadline_us = 0;
        x->body = BODY_HELD;
        exchange_arm(x); // other deadlines from now on
        relay_open_body(x);
    }
    return STEP_WAIT;
}

// Woken by on_end, a failure or the timer; bodies flow by themselves (relay.c).
static enum step_result step_relay(struct exchange *x)
{
    return exchange_is_forsaken(x) ? end(x, x->cause, STR_NULL) : STEP_WAIT;
}

static enum step_result step_finish(struct exchange *x)
{
    exchange_release(x);
    return STEP_DONE;
}

const struct step steps[STEP_COUNT] = {
    [STEP_ADMIT] = {"admit", step_admit},    [STEP_ROUTE] = {"route", step_route},
    [STEP_GUARD] = {"guard", step_guard},    [STEP_GATHER] = {"gather", step_gather},
    [STEP_ACT] = {"act", step_act},          [STEP_PICK] = {"pick", step_pick},
    [STEP_SEND] = {"send", step_send},       [STEP_AWAIT] = {"await", step_await},
    [STEP_SHAPE] = {"shape", step_shape},    [STEP_RELAY] = {"relay", step_relay},
    [STEP_FINISH] = {"finish", step_finish},
};
