// A request with an Idempotency-Key is carried out once (draft-ietf-httpapi-idempotency-key-header): who
// sends it again gets the first answer. Whose key it is, is the caller's: two callers with one key are two
// requests.
//
//   on_request ─▶ the key; the body is wanted
//   on_body ─▶ who claims it: new ─▶ PASS … on_response ─▶ the answer is listened to … on_end ─▶ kept or
//   dropped
//                             answered ─▶ REPLY; under way, another request ─▶ FAIL; Redis is asked ─▶ WAIT
#include "http/grpc.h"
#include "policy/policy.h"
#include "policy/policy_config.h"

enum {
    GRACE_US = 1000000, // between an exchange's deadline and its end
    PIECE_BYTES = 1000, // at least: a body may come byte by byte
};

struct piece { // of a body
    struct piece *next;
    size_t bytes, room;
    char data[];
};

struct idempotent { // in the exchange's arena
    const struct idempotency_settings *settings;
    struct replay_asking asking;
    struct str authorization, certificate; // of a caller whom the gateway does not know
    bool is_held;
    // The answer, as it passes:
    const struct response_head *head; // NULL: none came from the upstream
    unsigned status;
    struct piece *first, *last; // NULL: none yet
    size_t body_bytes;
    bool is_too_long;
};

// ---- the request ----

// The caller, as limits by identity know one: consumer, subject of an issuer, or address.
static struct replay_hash name_of(const struct policy_call *call, struct str key)
{
    const struct identity *identity = call->identity;
    const struct ip *client = call->client;
    struct str parts[5] = {call->route,
                           key,
                           STR("address"),
                           {(const char *)client->bytes, sizeof client->bytes},
                           client->family == AF_INET ? STR("4") : STR("6")};
    if (identity && identity->consumer.n) {
        parts[2] = STR("consumer");
        parts[3] = identity->consumer;
        parts[4] = STR_NULL;
    } else if (identity && identity->subject.n) {
        parts[2] = STR("subject");
        parts[3] = identity->subject;
        parts[4] = identity->issuer;
    }
    return replay_hash(parts, countof(parts));
}

// What the service may know a caller by of whom the gateway knows an address alone: others may have that,
// too. A part of the print, not of the name: who asks with other credentials gets 422, neither another's
// answer nor a second payment.
static void note_credentials(struct policy_call *call)
{
    struct idempotent *own = call->idempotent;
    const struct identity *identity = call->identity;
    if (identity && (identity->consumer.n || identity->subject.n))
        return;
    own->authorization = headers_value(&call->request->headers, HEADER_AUTHORIZATION);
    own->certificate = call->tls ? call->tls->client_fingerprint : STR_NULL;
}

static struct replay_hash print_of(const struct policy_call *call)
{
    const struct request_head *request = call->request;
    const struct idempotent *own = call->idempotent;
    struct str parts[] = {request->method_name, request->host, request->path,      request->query,
                          call->body,           STR_NULL,      own->authorization, own->certificate};
    bool has_credentials = own->authorization.n || own->certificate.n;
    return replay_hash(parts, has_credentials ? countof(parts) : 5); // as older gateways say it
}

// How a request in a state is refused, and counted.
static const struct outcome {
    enum idempotency_result result;
    enum end_cause cause;
    struct str detail;
} outcomes[] = {
#define WORDS(text)            \
    {                          \
        text, sizeof(text) - 1 \
    }
    [REPLAY_RUNNING] = {IDEMPOTENCY_IN_PROGRESS, END_IDEMPOTENCY_RUNNING},
    [REPLAY_OTHER] = {IDEMPOTENCY_MISMATCH, END_IDEMPOTENCY_MISMATCH},
    [REPLAY_LOST] = {IDEMPOTENCY_LOST, END_IDEMPOTENCY_LOST},
    [REPLAY_UNAVAILABLE] = {IDEMPOTENCY_UNAVAILABLE, END_IDEMPOTENCY_UNAVAILABLE},
    [REPLAY_FULL] = {IDEMPOTENCY_OVERLOADED, END_OVERLOADED,
                     WORDS("too many requests with an Idempotency-Key are under way")},
};
static const struct outcome no_key = {IDEMPOTENCY_NO_KEY, END_IDEMPOTENCY_NO_KEY},
                            bad_key = {IDEMPOTENCY_NO_KEY, END_IDEMPOTENCY_NO_KEY,
                                       WORDS("there must be one Idempotency-Key, of 1 to 255 bytes")};
#undef WORDS

static enum verdict fail(struct policy_call *call, const struct outcome *outcome)
{
    metrics_idempotency(call->metrics, outcome->result);
    call->cause = outcome->cause;
    call->detail = outcome->detail;
    if (outcome->cause == END_IDEMPOTENCY_RUNNING)
        headers_add_as(&call->answer.headers, call->arena, HEADER_RETRY_AFTER, STR("Retry-After"), STR("1"));
    return FAIL;
}

static enum verdict note_key(struct policy_call *call)
{
    const struct idempotency_settings *settings = call->settings;
    const struct request_head *request = call->request;
    if ((request->method != METHOD_POST && request->method != METHOD_PATCH) || grpc_is_request(request))
        return PASS;
    struct str key = http_idempotency_key(request);
    if (!key.n && headers_find(&request->headers, HEADER_IDEMPOTENCY_KEY))
        return fail(call, &bad_key);
    if (!key.n)
        return settings->required ? fail(call, &no_key) : PASS;
    call->idempotent = arena_new(call->arena, struct idempotent);
    call->idempotent->settings = settings;
    call->idempotent->asking.name = name_of(call, key);
    note_credentials(call); // before they are concealed
    call->body_wanted = settings->body_bytes;
    return PASS;
}

static enum verdict replay(struct policy_call *call, struct shared *answer)
{
    struct replay_answer kept;
    if (!replay_answer_read(shared_str(answer), call->arena, &kept)) {
        shared_unref(answer);
        return fail(call, &outcomes[REPLAY_LOST]);
    }
    metrics_idempotency(call->metrics, IDEMPOTENCY_REPLAYED);
    headers_set(&kept.headers, call->arena, STR("Idempotent-Replayed"), STR("true"));
    call->answer = (struct policy_answer){.status = kept.status,
                                          .headers = kept.headers,
                                          .trailers = kept.trailers,
                                          .body = kept.body,
                                          .in = answer};
    return REPLY;
}

static uint64_t over_us(const struct policy_call *call)
{
    uint64_t ttl_us = call->idempotent->settings->ttl_us;
    return call->deadline_us ? call->deadline_us + GRACE_US : call->now_us + ttl_us;
}

static void ask(struct policy_call *call)
{
    struct idempotent *own = call->idempotent;
    own->asking.print = print_of(call);
    own->asking.where = own->settings->store;
    own->asking.on_redis_down = own->settings->on_redis_down;
    own->asking.until_us = over_us(call);
    own->asking.arena = call->arena;
    own->asking.ticket = call->ticket;
}

static enum verdict claim(struct policy_call *call)
{
    struct idempotent *own = call->idempotent;
    if (!own)
        return PASS;
    if (!call->again)
        ask(call);
    enum replay_state state = replay_claim(call->replays, &own->asking, call->now_us);
    if (state == REPLAY_WAIT)
        return WAIT;
    if (state == REPLAY_ANSWER)
        return replay(call, replay_take_answer(&own->asking));
    if (state != REPLAY_NEW)
        return fail(call, &outcomes[state]);
    metrics_idempotency(call->metrics, IDEMPOTENCY_NEW);
    own->is_held = call->outlives_client = true;
    return PASS;
}

static void forget(struct policy_call *call)
{
    if (call->idempotent)
        replay_forget(&call->idempotent->asking);
}

// ---- the answer ----

static struct piece *add_piece(struct policy_call *call, size_t bytes)
{
    struct idempotent *own = call->idempotent;
    size_t room = bytes > PIECE_BYTES ? bytes : PIECE_BYTES;
    struct piece *piece = arena_alloc(call->arena, sizeof *piece + room);
    *piece = (struct piece){.room = room};
    *(own->last ? &own->last->next : &own->first) = piece;
    own->last = piece;
    return piece;
}

static void listen_to_body(struct policy_call *call, struct str span)
{
    struct idempotent *own = call->idempotent;
    if (own->is_too_long || own->body_bytes + span.n > own->settings->response_bytes) {
        own->is_too_long = true;
        call->outlives_client = false; // there is nothing to come back for
        return;
    }
    own->body_bytes += span.n;
    while (span.n) {
        struct piece *piece = own->last && own->last->room ? own->last : add_piece(call, span.n);
        size_t n = span.n < piece->room ? span.n : piece->room;
        memcpy(piece->data + piece->bytes, span.p, n);
        piece->bytes += n;
        piece->room -= n;
        span = str_skip(span, n);
    }
}

static void listen_to_answer(struct policy_call *call)
{
    struct idempotent *own = call->idempotent;
    if (!own || !own->is_held || call->response->status < 200) // a tunnel
        return;
    own->head = call->response;
    own->status = call->response->status;
    call->on_response_body = listen_to_body;
}

// The service says that it has not carried it out (RFC 9110 15.5.2, 15.5.9, RFC 8470, RFC 6585, RFC 9110
// 15.6.4).
static bool is_undone(unsigned status)
{
    return status == 401 || status == 408 || status == 425 || status == 429 || status == 503;
}

// n == 0: it is too long, or has broken off.
static struct str answer_of(const struct policy_call *call)
{
    const struct idempotent *own = call->idempotent;
    if (!call->is_whole || own->is_too_long) // the head may be gone
        return STR_NULL;
    struct replay_answer answer = {.status = own->head->status, .headers = own->head->headers};
    if (call->trailers)
        answer.trailers = *call->trailers;
    size_t head_bytes = replay_answer_bytes(&answer);
    if (head_bytes + own->body_bytes > own->settings->response_bytes)
        return STR_NULL;
    char *out = arena_alloc(call->arena, head_bytes + own->body_bytes);
    replay_answer_write(&answer, out);
    char *at = out + head_bytes;
    for (const struct piece *piece = own->first; piece; piece = piece->next)
        at = mempcpy(at, piece->data, piece->bytes);
    return str_range(out, at);
}

static void settle(struct policy_call *call)
{
    struct idempotent *own = call->idempotent;
    if (!own || !own->is_held)
        return;
    own->is_held = false;
    if (own->head && !is_undone(own->status))
        replay_keep(call->replays, &own->asking, answer_of(call), call->now_us, own->settings->ttl_us);
    else
        replay_drop(call->replays, &own->asking);
}

const struct policy policy_idempotency = {.name = "idempotency",
                                          .on_request = note_key,
                                          .on_body = claim,
                                          .on_response = listen_to_answer,
                                          .on_forget = forget,
                                          .on_end = settle};
