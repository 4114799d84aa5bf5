#include "echo/echo.h"

#include "http/grpc.h"

#include <stdio.h>

// ---- what was received

static void print_fields(struct json *json, const struct headers *headers)
{
    json_array(json);
    for (uint32_t i = 0; i < headers->count; i++) {
        json_array(json);
        json_string(json, headers->v[i].name);
        json_string(json, headers->v[i].value);
        json_array_end(json);
    }
    json_array_end(json);
}

static void print_hash(struct client *c, struct json *json)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char hash[SHA1_BYTES];
    char text[2 * SHA1_BYTES];
    sha1_final(&c->sha1, hash);
    for (unsigned i = 0; i < SHA1_BYTES; i++) {
        text[2 * i] = digits[hash[i] >> 4];
        text[2 * i + 1] = digits[hash[i] & 15];
    }
    json_field_string(json, "body_sha1", ((struct str){text, sizeof text}));
}

void describe_request(struct client *c, struct json *json)
{
    const struct request_head *request = &c->request;
    json_object(json);
    json_field_string(json, "service", c->echo->name);
    json_field_string(json, "method", request->method_name);
    json_field_string(json, "path", request->path);
    json_field_string(json, "query", request->query);
    json_field_string(json, "target", request->target);
    json_field_string(json, "protocol",
                      request->http2   ? STR("HTTP/2")
                      : request->minor ? STR("HTTP/1.1")
                                       : STR("HTTP/1.0"));
    json_key(json, STR("headers"));
    print_fields(json, &request->headers);
    json_key(json, STR("trailers"));
    print_fields(json, &c->trailers);
    json_field_u64(json, "body_bytes", c->body_bytes);
    if (c->hash)
        print_hash(c, json);
    json_field_string(json, "body", buf_str(&c->body_text));
    json_field_u64(json, "connection", c->id);
    json_field_u64(json, "request_on_connection", c->served);
    json_object_end(json);
}

void json_begin(struct client *c, struct json *json)
{
    c->echo->json.start = c->echo->json.end = 0;
    json_init(json, &c->echo->json, false);
}

static void describe_end(struct client *c)
{
    struct json json;
    json_begin(c, &json);
    describe_request(c, &json);
    answer_json(c, 200);
}

static void headers_end(struct client *c)
{
    struct json json;
    json_begin(c, &json);
    json_object(&json);
    json_key(&json, STR("headers"));
    print_fields(&json, &c->request.headers);
    json_object_end(&json);
    answer_json(c, 200);
}

// ---- answers of a wanted size, status or pace

// The part of the path behind the service's.
static struct str path_rest(const struct client *c)
{
    return str_skip(c->request.path, c->service->path.n - 1); // without the "*"
}

static void status_end(struct client *c)
{
    uint64_t status;
    if (!str_to_u64(path_rest(c), 599, &status) || status < 200) {
        answer_text(c, 400, STR("text/plain"), STR("/status/NNN: 200 to 599\n"));
        return;
    }
    struct json json;
    json_begin(c, &json);
    describe_request(c, &json);
    answer_json(c, (unsigned)status);
}

static enum produced produce_bytes(struct client *c)
{
    struct str piece = answer_filler(c->sent, c->total - c->sent);
    answer_span(c, piece);
    c->sent += piece.n;
    if (c->sent < c->total && !c->head_only)
        return PRODUCE_MORE;
    answer_end(c, NULL);
    return PRODUCE_ENDED;
}

static void bytes_end(struct client *c)
{
    if (!str_to_u64(path_rest(c), INT64_MAX, &c->total)) {
        answer_text(c, 400, STR("text/plain"), STR("/bytes/N: a number\n"));
        return;
    }
    answer_head(c, 200, STR("application/octet-stream"), FRAMING_LENGTH, c->total);
    answer_produce(c, produce_bytes);
}

static enum produced produce_chunk(struct client *c)
{
    if (c->total == 0 || c->head_only) {
        answer_end(c, NULL);
        return PRODUCE_ENDED;
    }
    // Every chunk starts the alphabet anew; one longer than the filler leaves as several.
    for (uint64_t at = 0; at < c->chunk;) {
        struct str piece = answer_filler(at, c->chunk - at);
        answer_span(c, piece);
        at += piece.n;
    }
    c->total--;
    if (!c->delay_ms || !c->total)
        return PRODUCE_MORE;
    client_wait(c, c->delay_ms, client_run);
    return PRODUCE_WAITS;
}

enum { CHUNK_MAX = 256 * 1024 };

static void stream_end(struct client *c)
{
    struct str query = c->request.query;
    c->total = query_u64(query, STR("n"), 10, INT64_MAX);
    c->chunk = query_u64(query, STR("chunk"), 1024, CHUNK_MAX);
    c->delay_ms = query_u64(query, STR("delay_ms"), 0, ECHO_DELAY_MAX_MS);
    answer_head(c, 200, STR("text/plain"), FRAMING_CHUNKED, 0);
    answer_produce(c, produce_chunk);
}

// ---- the body back, while it comes

static void echo_begin(struct client *c)
{
    struct str type = STR("application/octet-stream");
    const struct header *sent = headers_find(&c->request.headers, HEADER_CONTENT_TYPE);
    answer_head(c, 200, sent ? sent->value : type, FRAMING_CHUNKED, 0);
}

static void echo_body(struct client *c, struct str span)
{
    answer_span(c, span);
}

static void echo_end(struct client *c)
{
    answer_end(c, &c->trailers);
}

// ---- trailers, 1xx

static void trailers_end(struct client *c)
{
    struct headers head = {0}, trailers = {0};
    headers_add(&head, &c->arena, STR("Trailer"), STR("X-Checksum, X-Served-By"));
    answer_head_with(c, 200, STR("text/plain"), &head, FRAMING_CHUNKED, 0);
    answer_span(c, STR("a body\n"));
    headers_add(&trailers, &c->arena, STR("X-Checksum"), STR("c0ffee"));
    headers_add(&trailers, &c->arena, STR("X-Served-By"), c->echo->name);
    for (uint32_t i = 0; i < c->trailers.count; i++)
        headers_add(&trailers, &c->arena, c->trailers.v[i].name, c->trailers.v[i].value);
    answer_end(c, &trailers);
}

static void early_end(struct client *c)
{
    struct headers hints = {0};
    headers_add(&hints, &c->arena, STR("Link"), STR("</style.css>; rel=preload; as=style"));
    answer_informational(c, 103, &hints);
    describe_end(c);
}

static void health_end(struct client *c)
{
    struct echo *echo = c->echo;
    echo->counters.health_checks++;
    answer_text(c, echo->healthy ? 200 : 503, STR("text/plain"), echo->healthy ? STR("up\n") : STR("down\n"));
}

// ---- gRPC: messages go back as they come

static void grpc_body(struct client *c, struct str span)
{
    if (!c->head_sent)
        answer_head(c, 200, STR("application/grpc"), FRAMING_CHUNKED, 0);
    answer_span(c, span);
}

static void grpc_end(struct client *c)
{
    answer_grpc(c, 0);
}

static void grpc_status_end(struct client *c)
{
    uint64_t status;
    answer_grpc(c, str_to_u64(path_rest(c), 999, &status) ? (unsigned)status : GRPC_UNKNOWN);
}

// grpc.health.v1.HealthCheckResponse: field 1, SERVING 1 or NOT_SERVING 2.
static void grpc_health_end(struct client *c)
{
    static const char serving[] = {0, 0, 0, 0, 2, 8, 1}, not_serving[] = {0, 0, 0, 0, 2, 8, 2};
    c->echo->counters.health_checks++;
    answer_head(c, 200, STR("application/grpc"), FRAMING_CHUNKED, 0);
    answer_span(c, (struct str){c->echo->healthy ? serving : not_serving, sizeof serving});
    answer_grpc(c, 0);
}

static const struct service grpc_services[] = {
    {SERVICE_PATH("/grpc.health.v1.Health/Check"), "gRPC: what /health says", .end = grpc_health_end},
    {SERVICE_PATH("/status/*"), "gRPC: the call ends with status N, without a message",
     .end = grpc_status_end},
    {SERVICE_PATH("*"), "gRPC: the messages back as they come", .body = grpc_body, .end = grpc_end},
};

static const struct service services[] = {
    {SERVICE_PATH("/stream"), "?n=10&chunk=1024&delay_ms=0: n chunks", .end = stream_end},
    {SERVICE_PATH("/bytes/*"), "N bytes with Content-Length", .end = bytes_end},
    {SERVICE_PATH("/status/*"), "an answer with status NNN", .end = status_end},
    {SERVICE_PATH("/echo"), "the body back as it comes (?echo=1 on any path)", echo_begin, echo_body,
     echo_end},
    {SERVICE_PATH("/headers"), "the request's fields", .end = headers_end},
    {SERVICE_PATH("/trailers"), "a chunked answer with trailers, the request's among them",
     .end = trailers_end},
    {SERVICE_PATH("/early"), "103 Early Hints first", .end = early_end},
    {SERVICE_PATH("/ws"), "a WebSocket that echoes", .begin = websocket_begin, .tunnel = websocket_tunnel},
    {SERVICE_PATH("/health"), "200, or 503 after /_control/health?up=0", .end = health_end},
    {SERVICE_PATH("*"), "what was received, as JSON", .end = describe_end},
};
static const struct service echo_row = {SERVICE_PATH("*"), "", echo_begin, echo_body, echo_end};

static void list_rows(struct json *json, const struct service *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_key(json, rows[i].path);
        json_string(json, str_of(rows[i].about));
    }
}

void services_list(struct json *json)
{
    json_object(json);
    list_rows(json, services, countof(services));
    list_rows(json, control_services, control_service_count);
    list_rows(json, grpc_services, 1); // the other one has no path
    json_object_end(json);
}

bool is_control_path(struct str path)
{
    return str_starts(path, STR("/_control/"));
}

bool is_health_path(struct str path)
{
    return str_eq(path, STR("/health")) || str_eq(path, grpc_services[0].path);
}

static bool row_fits(const struct service *row, struct str path)
{
    if (!str_ends(row->path, STR("*")))
        return str_eq(row->path, path);
    return str_starts(path, (struct str){row->path.p, row->path.n - 1});
}

static const struct service *find_row(const struct service *rows, size_t count, struct str path)
{
    for (size_t i = 0; i < count; i++)
        if (row_fits(&rows[i], path))
            return &rows[i];
    return NULL;
}

const struct service *service_find(const struct client *c)
{
    struct str path = c->request.path, query = c->request.query, value;
    if (c->request.http2 && grpc_is_request(&c->request))
        return find_row(grpc_services, countof(grpc_services), path);
    if (is_control_path(path)) {
        const struct service *row = find_row(control_services, control_service_count, path);
        if (row)
            return row;
    }
    if (query.n && query_get(query, STR("echo"), &value) && str_eq(value, STR("1")))
        return &echo_row;
    return find_row(services, countof(services), path); // the last one fits everything, "*" (OPTIONS *) too
}
