#include "serve/serve.h"

#include "base/clock.h"
#include "http/date.h"
#include "http/h1_write.h"

static struct str date_text(struct arena *arena)
{
    char text[HTTP_DATE_BYTES];
    return arena_copy(arena, http_date_print((int64_t)(clock_wall_us() / 1000000), text));
}

static void append_head(struct serve_client *c, const struct response_head *head, struct str connection)
{
    size_t size = h1_response_size(head);
    char *room = arena_alloc(&c->arena, size);
    struct buf written = {.base = room, .cap = (uint32_t)size};
    h1_write_response(&written, head, FRAMING_LENGTH, connection);
    buf_append(&c->out, buf_str(&written));
}

static bool has_field(const struct serve_answer *answer, struct str name)
{
    for (unsigned i = 0; i < answer->field_count; i++)
        if (str_eq_fold(answer->fields[i].name, name))
            return true;
    return false;
}

void serve_reply_with(struct serve_client *c, const struct serve_answer *answer)
{
    struct response_head head = {
        .status = answer->status, .reason = http_reason(answer->status), .content_length = answer->body.n};
    struct headers *headers = &head.headers;
    headers_add(headers, &c->arena, STR("Date"), date_text(&c->arena));
    if (answer->type.n)
        headers_add(headers, &c->arena, STR("Content-Type"), answer->type);
    headers_add(headers, &c->arena, STR("X-Request-Id"), serve_id(c));
    if (!has_field(answer, STR("Cache-Control")))
        headers_add(headers, &c->arena, STR("Cache-Control"), STR("no-store"));
    headers_add(headers, &c->arena, STR("X-Content-Type-Options"), STR("nosniff"));
    if (answer->status == 503 && !has_field(answer, STR("Retry-After")))
        headers_add(headers, &c->arena, STR("Retry-After"), STR("1"));
    for (unsigned i = 0; i < answer->field_count; i++)
        headers_add(headers, &c->arena, answer->fields[i].name, answer->fields[i].value);
    c->keep = c->keep && !c->server->draining;
    struct str connection = !c->keep ? STR("close") : c->request.minor == 0 ? STR("keep-alive") : STR_NULL;
    append_head(c, &head, connection);
    if (c->request.method != METHOD_HEAD)
        buf_append(&c->out, answer->body);
    if (c->server->settings->on_answer)
        c->server->settings->on_answer(c, answer->status, buf_len(&c->out));
    serve_client_send(c);
}

void serve_reply(struct serve_client *c, unsigned status, struct str type, struct str body)
{
    serve_reply_with(c, &(struct serve_answer){.status = status, .type = type, .body = body});
}

static void reply_text(struct serve_client *c, unsigned status, struct str type, struct buf *body)
{
    buf_append(body, STR("\n"));
    serve_reply(c, status, type, buf_str(body));
    buf_free(body);
}

void serve_reply_json(struct serve_client *c, unsigned status, struct buf *body)
{
    reply_text(c, status, STR("application/json"), body);
}

void serve_begin_problem(const struct serve_client *c, struct json *json, const struct serve_problem *problem)
{
    json_object(json);
    json_field_string(json, "type", STR("about:blank"));
    json_field_string(json, "title", http_reason(problem->status));
    json_field_u64(json, "status", problem->status);
    json_field_string(json, "detail", problem->detail);
    json_field_string(json, "instance", serve_id(c));
    json_field_string(json, "code", problem->code);
}

void serve_reply_problem_json(struct serve_client *c, unsigned status, struct buf *body)
{
    reply_text(c, status, STR("application/problem+json"), body);
}

void serve_reply_problem(struct serve_client *c, const struct serve_problem *problem)
{
    struct buf body = {0};
    struct json json;
    struct serve_field fields[3];
    struct serve_answer answer = {.status = problem->status, .type = STR("application/problem+json")};
    json_init(&json, &body, false);
    serve_begin_problem(c, &json, problem);
    json_object_end(&json);
    buf_append(&body, STR("\n"));
    answer.body = buf_str(&body);
    answer.fields = fields;
    if (problem->allow.n)
        fields[answer.field_count++] = (struct serve_field){STR("Allow"), problem->allow};
    if (problem->authenticate.n)
        fields[answer.field_count++] = (struct serve_field){STR("WWW-Authenticate"), problem->authenticate};
    if (problem->cache.n)
        fields[answer.field_count++] = (struct serve_field){STR("Cache-Control"), problem->cache};
    serve_reply_with(c, &answer);
    buf_free(&body);
}
