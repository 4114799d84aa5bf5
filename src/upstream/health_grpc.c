// The probe by gRPC: /grpc.health.v1.Health/Check. SERVING is the one good answer.
#include "http/grpc.h"
#include "upstream/grpc_health.h"
#include "upstream/health_h2.h"

enum { PEERS_WORDS = 64 }; // of a grpc-message that are repeated

// The body of the answer so far.
struct answer {
    size_t n;
    char bytes[GRPC_HEALTH_ANSWER_MAX];
};

// Somebody else's words, for logs and JSON: still percent-encoded, without what should have been.
static void copy_words(char out[PEERS_WORDS], struct str words)
{
    size_t n = words.n < PEERS_WORDS - 1 ? words.n : PEERS_WORDS - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = words.p[i] >= ' ' && words.p[i] <= '~' ? words.p[i] : '?';
    out[n] = '\0';
}

static void judge_message(struct probe *probe, struct str body)
{
    uint64_t serving;
    const char *why = grpc_health_answer(body, &serving);
    if (why) {
        probe_fail(probe, "bad response", why);
        return;
    }
    struct str name = grpc_serving_name(serving);
    if (!name.n)
        name = STR("an unknown status");
    probe_say(probe, serving == GRPC_SERVING ? PROBE_GOOD : PROBE_BAD, "%.*s after %llu ms", STR_ARG(name),
              probe_took_ms(probe));
}

// The one grpc-status; *why when there is none.
static bool find_status(const struct headers *fields, uint64_t *status, const char **why)
{
    unsigned found = 0;
    struct str value = STR_NULL;
    for (uint32_t i = 0; i < fields->count; i++) {
        if (fields->v[i].id == HEADER_GONE || !str_eq_fold(fields->v[i].name, STR("grpc-status")))
            continue;
        value = fields->v[i].value;
        found++;
    }
    *why = found ? "malformed grpc-status" : "no grpc-status";
    return found == 1 && str_to_u64(value, UINT32_MAX, status);
}

// fields: the trailers, or a head that has all there is (Trailers-Only).
static void judge(struct probe *probe, const struct headers *fields, struct str body)
{
    uint64_t status;
    const char *why;
    if (!find_status(fields, &status, &why)) {
        probe_fail(probe, "bad response", why);
    } else if (status == GRPC_OK) {
        judge_message(probe, body);
    } else {
        const struct header *message = headers_find_name(fields, STR("grpc-message"));
        char words[PEERS_WORDS];
        copy_words(words, message ? message->value : STR_NULL);
        struct str name = grpc_status_name((unsigned)status);
        probe_say(probe, PROBE_BAD, "grpc-status %llu%s%.*s%s%s", (unsigned long long)status,
                  name.n ? " " : "", STR_ARG(name), message ? ": " : "", words);
    }
}

static void on_head(struct probe *probe, const struct response_head *head, bool end)
{
    if (head->status != 200)
        probe_say(probe, PROBE_BAD, "bad response: status %u, no gRPC", head->status);
    else if (!grpc_is_content_type(headers_value(&head->headers, HEADER_CONTENT_TYPE)))
        probe_fail(probe, "bad response", "its content type is not application/grpc");
    else if (end)
        judge(probe, &head->headers, STR_NULL);
}

static void on_body(struct probe *probe, struct str span)
{
    struct answer *answer = probe->h2->state;
    if (span.n > sizeof answer->bytes - answer->n) {
        probe_fail(probe, "bad response", "its message is too large");
        return;
    }
    memcpy(answer->bytes + answer->n, span.p, span.n);
    answer->n += span.n;
}

static void on_end(struct probe *probe, const struct headers *trailers)
{
    static const struct headers none;
    const struct answer *answer = probe->h2->state;
    judge(probe, trailers ? trailers : &none, (struct str){answer->bytes, answer->n});
}

static const struct h2_probe_events events = {.on_head = on_head, .on_body = on_body, .on_end = on_end};

static bool begin(struct probe *probe)
{
    struct arena *arena = &probe->arena;
    probe->h2 = arena_new(arena, struct h2_probe);
    struct request_head request = {.method = METHOD_POST};
    struct headers *headers = &request.headers;
    headers_add(headers, arena, STR("host"), probe_authority(probe));
    headers_add(headers, arena, STR("content-type"), STR("application/grpc"));
    headers_add(
        headers, arena, STR("grpc-timeout"),
        grpc_timeout_print(probe->question->timeout_ms * 1000, arena_alloc(arena, GRPC_TIMEOUT_TEXT)));
    headers_add(headers, arena, STR("user-agent"), STR("sallyport-health"));
    char *body = arena_alloc(arena, GRPC_HEALTH_REQUEST_MAX);
    size_t n = grpc_health_request(probe->question->service, body);
    if (!h2_probe_begin(probe, &events, &request, STR("/grpc.health.v1.Health/Check"), true,
                        (struct str){body, n}))
        return false;
    probe->h2->state = arena_new(arena, struct answer);
    return true;
}

const struct probe_kind probe_grpc = {
    .name = "grpc", .begin = begin, .ask = h2_probe_ask, .hear = h2_probe_hear, .fini = h2_probe_fini};
