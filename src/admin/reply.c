#include "admin/client.h"

#include "base/clock.h"

#include <time.h>

static struct str date_text(struct arena *arena)
{
    time_t now = (time_t)(clock_wall_us() / 1000000);
    struct tm tm;
    char text[32];
    gmtime_r(&now, &tm);
    size_t n = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return arena_copy(arena, (struct str){text, n});
}

static void append_head(struct admin_client *c, const struct response_head *head, struct str connection)
{
    size_t size = h1_response_size(head);
    char *room = arena_alloc(&c->arena, size);
    struct buf written = {.base = room, .cap = (uint32_t)size};
    h1_write_response(&written, head, FRAMING_LENGTH, connection);
    buf_append(&c->out, buf_str(&written));
}

static void reply(struct admin_client *c, unsigned status, struct str type,
                  const struct admin_problem *problem, struct str body)
{
    struct response_head head = {.status = status, .reason = http_reason(status), .content_length = body.n};
    struct headers *headers = &head.headers;
    headers_add(headers, &c->arena, STR("Date"), date_text(&c->arena));
    headers_add(headers, &c->arena, STR("Content-Type"), type);
    headers_add(headers, &c->arena, STR("X-Request-Id"), ((struct str){c->id, sizeof c->id}));
    headers_add(headers, &c->arena, STR("Cache-Control"), STR("no-store"));
    headers_add(headers, &c->arena, STR("X-Content-Type-Options"), STR("nosniff"));
    if (status == 503)
        headers_add(headers, &c->arena, STR("Retry-After"), STR("1"));
    if (problem && problem->allow.n)
        headers_add(headers, &c->arena, STR("Allow"), problem->allow);
    if (problem && problem->authenticate.n)
        headers_add(headers, &c->arena, STR("WWW-Authenticate"), problem->authenticate);
    struct str connection = !c->keep ? STR("close") : c->request.minor == 0 ? STR("keep-alive") : STR_NULL;
    append_head(c, &head, connection);
    if (c->request.method != METHOD_HEAD)
        buf_append(&c->out, body);
    admin_client_send(c);
}

void admin_reply(struct admin_client *c, unsigned status, struct str type, struct str body)
{
    reply(c, status, type, NULL, body);
}

void admin_reply_json(struct admin_client *c, unsigned status, struct buf *body)
{
    buf_append(body, STR("\n"));
    reply(c, status, STR("application/json"), NULL, buf_str(body));
    buf_free(body);
}

void admin_begin_problem(const struct admin_client *c, struct json *json, const struct admin_problem *problem)
{
    json_object(json);
    json_field_string(json, "type", STR("about:blank"));
    json_field_string(json, "title", http_reason(problem->status));
    json_field_u64(json, "status", problem->status);
    json_field_string(json, "detail", problem->detail);
    json_field_string(json, "instance", ((struct str){c->id, sizeof c->id}));
    json_field_string(json, "code", problem->code);
}

void admin_reply_problem_json(struct admin_client *c, unsigned status, struct buf *body)
{
    buf_append(body, STR("\n"));
    reply(c, status, STR("application/problem+json"), NULL, buf_str(body));
    buf_free(body);
}

void admin_reply_problem(struct admin_client *c, const struct admin_problem *problem)
{
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    admin_begin_problem(c, &json, problem);
    json_object_end(&json);
    buf_append(&body, STR("\n"));
    reply(c, problem->status, STR("application/problem+json"), problem, buf_str(&body));
    buf_free(&body);
}
