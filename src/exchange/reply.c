// Every answer of the gateway's own is written here.
#include "exchange/steps.h"
#include "http/grpc.h"

// What the route's policies have to say to an answer that is not the upstream's; to a copy of one that was,
// also what they say to those alone.
static void ask_policies(struct exchange *x, struct response_head *head, bool is_copy)
{
    const struct route *route = x->match.route;
    x->policy.response = head;
    x->policy.now_us = exchange_now_us(x);
    for (uint32_t i = 0; route && i < route->policy_count; i++) {
        const struct policy *policy = route->policies[i].policy;
        x->policy.settings = route->policies[i].settings;
        if (policy->on_answer)
            policy->on_answer(&x->policy);
        else if (is_copy && policy->on_response)
            policy->on_response(&x->policy);
    }
}

// To the client of an extended CONNECT any 2xx is a tunnel (RFC 8441 5): it gets the error that stands for
// it.
static bool refuse_as_tunnel(struct exchange *x, unsigned status)
{
    if (!x->request.extended_connect || status / 100 != 2)
        return false;
    if (x->cause == END_OK)
        x->cause = END_NOT_IMPLEMENTED;
    reply_error(x, x->cause, 0, STR_NULL);
    return true;
}

// Whatever becomes of it, the body is given back. trailers: none are sent where there is no body, and to
// clients of HTTP/1.0.
static void answer_with(struct exchange *x, struct response_head *head, struct lent body,
                        const struct headers *trailers, bool is_copy)
{
    if (unlikely(refuse_as_tunnel(x, head->status))) {
        lent_give_back(&body);
        return;
    }
    x->status = head->status;
    head->minor = 1;
    head->reason = http_reason(head->status);
    head->keep_alive = true;
    head->content_length = body.span.n;
    head->has_length = head->status != 204 && head->status != 304;
    head->framing = x->grpc && x->request.http2 && !body.span.n ? FRAMING_NONE : FRAMING_LENGTH;
    if (trailers->count)
        head->framing = FRAMING_CHUNKED;
    forward_shape_response(x, head);
    ask_policies(x, head, is_copy);
    exchange_end_policies(x);
    if (x->request.method == METHOD_HEAD || !head->has_length)
        lent_give_back(&body);
    size_t n = body.span.n;
    if (!x->client->send_whole(x, head, body, trailers->count ? trailers : NULL)) {
        x->client->abort(x);
        x->reply = REPLY_CUT;
        return;
    }
    x->bytes_out += n;
    x->reply = REPLY_ENDED;
}

static const struct headers no_trailers = {0};

static void answer(struct exchange *x, struct response_head *head, struct str body)
{
    answer_with(x, head, (struct lent){.span = body}, &no_trailers, false);
}

static struct str quote(struct arena *arena, struct str s)
{
    char *out = arena_alloc(arena, JSON_ESCAPE_MAX * s.n + 1);
    return (struct str){out, json_escape(s, out)};
}

// ---- gRPC: the status of HTTP is 200, the one that counts is a field ----

static void add_grpc_status(struct exchange *x, struct headers *headers, enum grpc_status status,
                            struct str message)
{
    headers_add(headers, &x->arena, STR("grpc-status"), arena_u64(&x->arena, status));
    if (message.n)
        headers_add(headers, &x->arena, STR("grpc-message"), grpc_message_encode(&x->arena, message));
}

// Trailers-Only: in HTTP/2 the head ends the stream.
static void answer_grpc(struct exchange *x, struct headers *headers, enum grpc_status status,
                        struct str message)
{
    struct response_head head = {.status = 200, .headers = *headers};
    headers_remove(&head.headers, HEADER_CONTENT_TYPE);
    headers_add(&head.headers, &x->arena, STR("Content-Type"), STR("application/grpc"));
    add_grpc_status(x, &head.headers, status, message);
    answer(x, &head, STR_NULL);
}

void reply_grpc_trailers(struct exchange *x, enum end_cause cause, struct str detail)
{
    const struct end_row *row = end_row(cause);
    struct headers trailers = {0};
    add_grpc_status(x, &trailers, row->grpc_status, detail.n ? detail : row->detail);
    exchange_end_policies(x);
    x->client->send_end(x, &trailers);
    x->reply = REPLY_ENDED;
}

// Worth another try; a policy may know better when.
static void say_when(struct exchange *x, unsigned status, struct headers *headers)
{
    if ((status == 503 || status == 429) && !headers_find(headers, HEADER_RETRY_AFTER))
        headers_add_as(headers, &x->arena, HEADER_RETRY_AFTER, STR("Retry-After"),
                       x->retry_after_s ? arena_u64(&x->arena, x->retry_after_s) : STR("1"));
}

static void error_in_grpc(struct exchange *x, enum end_cause cause, unsigned status, struct str detail,
                          struct headers *headers)
{
    const struct end_row *row = end_row(cause);
    bool own = status && status != row->status;
    say_when(x, status ? status : row->status, headers);
    answer_grpc(x, headers, own ? grpc_status_of_http(status) : row->grpc_status,
                detail.n ? detail : row->detail);
}

// ---- the answers ----

// RFC 9457. What is said in it besides the members' names needs no escape, but for a detail that was found on
// the way: titles and codes are the gateway's own, and request ids are plain (forward_identify).
#define PROBLEM_TITLE    "{\"type\":\"about:blank\",\"title\":\""
#define PROBLEM_STATUS   "\",\"status\":"
#define PROBLEM_DETAIL   ",\"detail\":\""
#define PROBLEM_INSTANCE "\",\"instance\":\""
#define PROBLEM_CODE     "\",\"code\":\""
#define PROBLEM_END      "\"}\n"

// Nothing but the row of its cause to say: all of it but the request id is known beforehand.
static struct str plain_problem(struct exchange *x, enum end_cause cause)
{
    static const struct {
        struct str before, after; // the request id
    } texts[END_CAUSE_COUNT] = {
#define X(id, code, status, grpc, level, against, retryable, title, detail)                         \
    [id] = {STR(PROBLEM_TITLE title PROBLEM_STATUS #status PROBLEM_DETAIL detail PROBLEM_INSTANCE), \
            STR(PROBLEM_CODE code PROBLEM_END)},
        END_CAUSES(X)
#undef X
    };
    const struct str parts[] = {texts[cause].before, x->request_id, texts[cause].after};
    return arena_join(&x->arena, parts, countof(parts));
}

static struct str problem(struct exchange *x, enum end_cause cause, unsigned status, struct str detail)
{
    const struct end_row *row = end_row(cause);
    if (status == row->status && !detail.n)
        return plain_problem(x, cause);
    char digits[20];
    const struct str parts[] = {
        STR(PROBLEM_TITLE),    status == row->status ? row->title : http_reason(status),
        STR(PROBLEM_STATUS),   {digits, u64_print(status, digits)},
        STR(PROBLEM_DETAIL),   detail.n ? quote(&x->arena, detail) : row->detail,
        STR(PROBLEM_INSTANCE), x->request_id,
        STR(PROBLEM_CODE),     row->code,
        STR(PROBLEM_END),
    };
    return arena_join(&x->arena, parts, countof(parts));
}

// headers: more of them.
static void answer_error(struct exchange *x, enum end_cause cause, unsigned status, struct str detail,
                         struct headers *headers)
{
    if (x->grpc) {
        error_in_grpc(x, cause, status, detail, headers);
        return;
    }
    const struct end_row *row = end_row(cause);
    struct response_head head = {.status = status ? status : row->status, .headers = *headers};
    struct str body = problem(x, cause, head.status, detail);
    headers_add_as(&head.headers, &x->arena, HEADER_CONTENT_TYPE, STR("Content-Type"),
                   STR("application/problem+json"));
    say_when(x, head.status, &head.headers);
    if (cause == END_METHOD_NOT_ALLOWED)
        headers_add(&head.headers, &x->arena, STR("Allow"), x->match.allow);
    answer(x, &head, body);
}

void reply_error(struct exchange *x, enum end_cause cause, unsigned status, struct str detail)
{
    struct headers none = {0};
    answer_error(x, cause, status, detail, &none);
}

void reply_refusal(struct exchange *x)
{
    struct policy_call *call = &x->policy;
    answer_error(x, call->cause, call->answer.status, call->detail, &call->answer.headers);
}

// False: its client has not taken what is there for it alone already.
static bool lend_body(const struct exchange *x, const struct policy_answer *given, struct lent *body)
{
    *body = (struct lent){.span = given->body};
    if (!given->in)
        return true;
    bool is_sole = shared_is_sole(given->in);
    *body = shared_lend(given->in, given->body);
    if (!is_sole || !x->room || client_room_lend(x->room, body))
        return true;
    lent_give_back(body);
    return false;
}

static void answer_as_given(struct exchange *x, const struct policy_answer *given)
{
    struct response_head head = {.status = given->status, .headers = given->headers};
    struct lent body;
    if (!lend_body(x, given, &body)) {
        x->cause = END_OVERLOADED;
        reply_error(x, x->cause, 0, STR("this connection does not take its answers"));
        return;
    }
    if (given->content_type.n)
        headers_add(&head.headers, &x->arena, STR("Content-Type"), given->content_type);
    answer_with(x, &head, body, &given->trailers, false);
}

void reply_answer(struct exchange *x, struct policy_answer *given)
{
    if (x->grpc)
        answer_grpc(x, &given->headers, grpc_status_of_http(given->status), http_reason(given->status));
    else
        answer_as_given(x, given);
    shared_unref(given->in);
    given->in = NULL;
}

void reply_redirect(struct exchange *x)
{
    struct response_head head = {.status = (unsigned)x->match.route->settings->redirect.status};
    headers_add(&head.headers, &x->arena, STR("Location"),
                route_redirect_location(&x->match, &x->request, x->scheme, &x->arena));
    answer(x, &head, STR_NULL);
}

void reply_redirect_to_tls(struct exchange *x)
{
    struct response_head head = {.status = 308};
    headers_add(&head.headers, &x->arena, STR("Location"),
                gateway_tls_location(x->listener->redirect, &x->request, &x->arena));
    answer(x, &head, STR_NULL);
}

void reply_respond(struct exchange *x, const struct respond_settings *respond)
{
    struct response_head head = {.status = (unsigned)respond->status};
    for (uint32_t i = 0; i < respond->headers.count; i++)
        headers_add(&head.headers, &x->arena, respond->headers.v[i].name, respond->headers.v[i].value);
    if (respond->body.n && !headers_find(&head.headers, HEADER_CONTENT_TYPE))
        headers_add(&head.headers, &x->arena, STR("Content-Type"), STR("text/plain; charset=utf-8"));
    answer_with(x, &head, worker_lend(x->hold, respond->body), &no_trailers, false);
}

void reply_copy(struct exchange *x, const struct replay_answer *copy, struct shared *in)
{
    struct response_head head = {.status = copy->status, .headers = copy->headers};
    answer_with(x, &head, shared_lend(in, copy->body), &copy->trailers, true);
}
