// What the admin API may do, and explain.
#include "admin/json_read.h"
#include "admin/room.h"

void api_reload(struct serve_client *c)
{
    struct admin_host *host = host_of(c);
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    bool good = host->reload(host, &report);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    if (good) {
        json_object(&json);
        json_field_bool(&json, "reloaded", true);
        json_field_u64(&json, "generation", host->gateway->generation);
    } else {
        serve_begin_problem(c, &json,
                            &(struct serve_problem){422, STR("invalid_configuration"),
                                                    STR("the file was not taken; what was in force stays")});
        json_field_bool(&json, "reloaded", false);
        json_key(&json, STR("errors"));
        config_report_json(&report, &json);
    }
    json_object_end(&json);
    arena_reset(&arena);
    if (good)
        serve_reply_json(c, 200, &body);
    else
        serve_reply_problem_json(c, 422, &body);
}

void api_drain(struct serve_client *c)
{
    struct admin_host *host = host_of(c);
    host->drain(host);
    serve_reply(c, 202, STR("application/json"), STR("{\"draining\":true}\n"));
}

// ---- explain ----

struct question {
    struct str method, url;
    struct str_map headers;
};

enum { QUESTION_HEADERS = 256 };

static void read_header(struct json_reader *reader, struct str name, struct question *question)
{
    struct str value = json_read_string(reader);
    if (question->headers.count == QUESTION_HEADERS)
        reader->why = "too many headers";
    else
        question->headers.v[question->headers.count++] = (struct str_pair){name, value};
}

// A header's value is a string, or a list of them for a field that comes more than once.
static void read_headers(struct json_reader *reader, struct question *question)
{
    struct str name;
    for (json_read_enter(reader, '{'); json_read_member(reader, &name);) {
        if (json_read_peek(reader) != '[') {
            read_header(reader, name, question);
            continue;
        }
        for (json_read_enter(reader, '['); json_read_item(reader);)
            read_header(reader, name, question);
    }
}

static bool read_question(struct json_reader *reader, struct question *question)
{
    struct str key, request = STR_NULL;
    question->headers.v = arena_array(reader->arena, struct str_pair, QUESTION_HEADERS);
    for (json_read_enter(reader, '{'); json_read_member(reader, &key);) {
        if (str_eq(key, STR("request")))
            request = json_read_string(reader);
        else if (str_eq(key, STR("headers")) && json_read_peek(reader) != 'n')
            read_headers(reader, question);
        else
            json_read_skip(reader);
    }
    size_t space = str_find(request, ' ');
    question->method = space < request.n ? (struct str){request.p, space} : STR("GET");
    question->url = space < request.n ? str_trim(str_skip(request, space + 1)) : request;
    if (!request.n && !reader->why)
        reader->why = "expected {\"request\": \"GET https://host/path\", \"headers\": {\"Name\": \"value\"}}";
    return json_read_end(reader);
}

// What the snapshot does not know: which endpoints are up now.
static void print_live(const struct admin_host *host, const struct explained *explained, struct json *json)
{
    json_key(json, STR("live"));
    json_object(json);
    json_field_string(json, "state", admin_state_name(host->state));
    json_field_u64(json, "generation", host->gateway->generation);
    json_key(json, STR("upstreams"));
    json_array(json);
    for (unsigned i = 0; i < explained->count; i++) {
        const struct upstream *upstream = explained->upstreams[i];
        json_object(json);
        json_field_string(json, "name", upstream->name);
        json_key(json, STR("endpoints"));
        json_array(json);
        for (uint32_t j = 0; j < upstream->target_count; j++)
            print_endpoint(json, &upstream->targets[j], -1);
        json_array_end(json);
        json_object_end(json);
    }
    json_array_end(json);
    json_object_end(json);
}

static void explain(struct serve_client *c, const struct question *question)
{
    const struct admin_host *host = host_of(c);
    struct explained explained = {0};
    struct err err = {0};
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    if (!explain_members(host->gateway, question->method, question->url, &question->headers, &json,
                         &explained, &err)) {
        buf_free(&body);
        struct str detail = arena_printf(&c->arena, "%s: %s", err.where, err.what);
        serve_reply_problem(c, &(struct serve_problem){400, STR("bad_request"), detail});
        return;
    }
    print_live(host, &explained, &json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void api_explain(struct serve_client *c)
{
    struct question question = {0};
    struct json_reader reader = {.rest = c->body.base ? buf_str(&c->body) : STR_NULL, .arena = &c->arena};
    if (read_question(&reader, &question))
        explain(c, &question);
    else
        serve_reply_problem(c, &(struct serve_problem){400, STR("bad_request"), str_of(reader.why)});
}
