// Every answer of the gateway's own is written here.
#include "exchange/steps.h"
#include "http/grpc.h"

// What the route's policies have to say to an answer that is not the upstream's.
static void ask_policies(struct exchange *x, struct response_head *head)
{
    const struct route *route = x->match.route;
    x->policy.response = head;
    x->policy.now_us = exchange_now_us(x);
    for (uint32_t i = 0; route && i < route->policy_count; i++) {
        x->policy.settings = route->policies[i].settings;
        if (route->policies[i].policy->on_answer)
            route->policies[i].policy->on_answer(&x->policy);
    }
}

static void answer(struct exchange *x, struct response_head *head, struct str body)
{
    x->status = head->status;
    head->minor = 1;
    head->reason = http_reason(head->status);
    head->keep_alive = true;
    head->content_length = body.n;
    head->has_length = head->status != 204 && head->status != 304;
    head->framing = x->grpc && x->request.http2 && !body.n ? FRAMING_NONE : FRAMING_LENGTH;
    forward_shape_response(x, head);
    ask_policies(x, head);
    x->reply = REPLY_HEAD;
    if (!x->client->send_head(x, head)) {
        x->client->abort(x);
        x->reply = REPLY_CUT;
        return;
    }
    if (x->request.method != METHOD_HEAD && body.n && head->has_length) {
        x->client->send_body(x, body);
        x->bytes_out += body.n;
    }
    exchange_end_policies(x);
    x->client->send_end(x, NULL);
    x->reply = REPLY_ENDED;
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
    char *digits = arena_alloc(&x->arena, 20);
    headers_add(headers, &x->arena, STR("grpc-status"), (struct str){digits, u64_print(status, digits)});
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
                       x->retry_after_s ? arena_printf(&x->arena, "%u", x->retry_after_s) : STR("1"));
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

// RFC 9457.
static struct str problem(struct exchange *x, const struct end_row *row, unsigned status, struct str detail)
{
    char digits[20];
    struct str title = status == row->status ? row->title : http_reason(status);
    const struct str parts[] = {
        STR("{\"type\":\"about:blank\",\"title\":\""),
        title,
        STR("\",\"status\":"),
        {digits, u64_print(status, digits)},
        STR(",\"detail\":\""),
        quote(&x->arena, detail.n ? detail : row->detail),
        STR("\",\"instance\":\""),
        quote(&x->arena, x->request_id),
        STR("\",\"code\":\""),
        row->code,
        STR("\"}\n"),
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
    struct str body = problem(x, row, head.status, detail);
    headers_add(&head.headers, &x->arena, STR("Content-Type"), STR("application/problem+json"));
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

void reply_answer(struct exchange *x, struct policy_answer *given)
{
    if (x->grpc) {
        answer_grpc(x, &given->headers, grpc_status_of_http(given->status), http_reason(given->status));
        return;
    }
    struct response_head head = {.status = given->status, .headers = given->headers};
    if (given->content_type.n)
        headers_add(&head.headers, &x->arena, STR("Content-Type"), given->content_type);
    answer(x, &head, given->body);
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
    answer(x, &head, respond->body);
}
