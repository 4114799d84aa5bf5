// What the admin API may do, and explain.
#include "admin/room.h"
#include "base/json_parse.h"

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

// NULL: it was read.
typedef const char *mistake;

static mistake read_header(struct str name, const struct json_value *value, struct question *question)
{
    if (!json_is_string(value))
        return "expected a string";
    if (question->headers.count == QUESTION_HEADERS)
        return "too many headers";
    question->headers.v[question->headers.count++] = (struct str_pair){name, value->text};
    return NULL;
}

// A header's value is a string, or a list of them for a field that comes more than once.
static mistake read_headers(const struct json_value *headers, struct question *question)
{
    if (!headers || headers->kind == JSON_NULL)
        return NULL;
    if (headers->kind != JSON_OBJECT)
        return "expected an object of headers";
    mistake why = NULL;
    for (const struct json_value *header = headers->first; header && !why; header = header->next) {
        if (header->kind != JSON_ARRAY)
            why = read_header(header->key, header, question);
        else
            for (const struct json_value *item = header->first; item && !why; item = item->next)
                why = read_header(header->key, item, question);
    }
    return why;
}

static mistake read_question(struct str body, struct arena *arena, struct question *question)
{
    mistake why = NULL;
    const struct json_value *root = json_parse(body, arena, &why);
    if (!root)
        return why;
    const struct json_value *request = json_get(root, STR("request"));
    if (!json_is_string(request) || !request->text.n)
        return "expected {\"request\": \"GET https://host/path\", \"headers\": {\"Name\": \"value\"}}";
    struct str line = request->text;
    size_t space = str_find(line, ' ');
    question->method = space < line.n ? (struct str){line.p, space} : STR("GET");
    question->url = space < line.n ? str_trim(str_skip(line, space + 1)) : line;
    question->headers.v = arena_array(arena, struct str_pair, QUESTION_HEADERS);
    return read_headers(json_get(root, STR("headers")), question);
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
    struct str body = c->body.base ? buf_str(&c->body) : STR_NULL;
    mistake why = read_question(body, &c->arena, &question);
    if (why)
        serve_reply_problem(c, &(struct serve_problem){400, STR("bad_request"), str_of(why)});
    else
        explain(c, &question);
}
