#include "upstream/fetch.h"

#include "upstream/link.h"

#include <stdlib.h>

enum { ANSWER_FIRST_BYTES = 2048 };

struct fetch {
    struct upstream_call call;
    struct upstream_worker *worker;
    struct arena arena;
    struct loop_timer deadline;
    struct loop_task free_task;
    struct request_head request;
    struct str target, body;
    bool repeatable, stale_retried;
    unsigned tries;
    const struct response_head *response; // in the arena; NULL: not there yet
    char *answer;                         // on the heap: nobody knows how long it will be
    size_t answer_n, answer_capacity, answer_max;
    void *owner;
    void (*on_done)(void *owner, const struct fetch_answer *answer);
};

static struct fetch *of_call(struct upstream_call *call)
{
    return container_of(call, struct fetch, call);
}

static struct loop *loop_of(const struct fetch *fetch)
{
    return fetch->worker->needs.loop;
}

// ---- its end ----

static void free_fetch(struct loop_task *task)
{
    struct fetch *fetch = container_of(task, struct fetch, free_task);
    arena_reset(&fetch->arena);
    free(fetch->answer);
    free(fetch);
}

// On a kept connection that the peer had closed: once, on a new one.
static bool was_stale(const struct fetch *fetch, enum end_cause cause)
{
    return !fetch->stale_retried && upstream_call_was_stale(&fetch->call, cause) &&
           (fetch->repeatable || upstream_call_unsent(&fetch->call));
}

// The attempt is over: what it cost is counted as of any other.
static void leave(struct fetch *fetch, enum end_cause cause)
{
    struct upstream_call *call = &fetch->call;
    if (!call->local)
        return;
    uint64_t spent_us = call->ready_us ? loop_of(fetch)->now_us - call->ready_us : 0;
    unsigned status = fetch->response ? fetch->response->status : 0;
    metrics_upstream(fetch->worker->needs.metrics, call->upstream->metric_id, status, spent_us);
    struct attempt_end end = {.cause = cause, .status = status, .stale = was_stale(fetch, cause)};
    upstream_call_finish(call, &end);
}

// The memory goes at the end of the turn: a connection may be in the middle of telling.
static void dispose(struct fetch *fetch, enum end_cause cause)
{
    leave(fetch, cause);
    loop_timer_stop(loop_of(fetch), &fetch->deadline);
    fetch->on_done = NULL;
    loop_defer(loop_of(fetch), &fetch->free_task);
}

void fetch_cancel(struct fetch *fetch)
{
    check(fetch->on_done);
    dispose(fetch, END_CLIENT_GONE);
}

static void done(struct fetch *fetch, enum end_cause cause)
{
    void (*on_done)(void *, const struct fetch_answer *) = fetch->on_done;
    struct fetch_answer answer = {.cause = cause};
    if (cause == END_OK) {
        answer.status = fetch->response->status;
        answer.headers = &fetch->response->headers;
        answer.body = (struct str){fetch->answer, fetch->answer_n};
    }
    dispose(fetch, cause);
    on_done(fetch->owner, &answer);
}

static void on_deadline(struct loop_timer *timer)
{
    done(container_of(timer, struct fetch, deadline), END_UPSTREAM_TIMEOUT);
}

// ---- trying ----

static bool any_untried(const struct upstream_call *call)
{
    return (unsigned)__builtin_popcountll(call->tried) < call->upstream->target_count;
}

static bool may_try_again(const struct fetch *fetch, enum end_cause cause)
{
    if (fetch->tries >= FETCH_TRIES)
        return false;
    switch (cause) {
    case END_UPSTREAM_CONNECT_FAILED: return any_untried(&fetch->call);
    case END_UPSTREAM_REFUSED_STREAM: return true;
    default: return was_stale(fetch, cause);
    }
}

static bool send_request(struct fetch *fetch)
{
    struct upstream_call *call = &fetch->call;
    if (!upstream_call_head(call, &fetch->request, fetch->target, fetch->request.framing, false))
        return false;
    if (fetch->body.n)
        upstream_call_body(call, fetch->body); // one span: there is nothing to hold back
    upstream_call_end(call, NULL);
    upstream_call_flush(call);
    return true;
}

// Until one attempt is under way. END_OK: it is.
static enum end_cause attempt(struct fetch *fetch)
{
    for (;;) {
        enum end_cause cause = END_OVERLOADED;
        fetch->tries++;
        switch (upstream_call_start(fetch->worker, &fetch->call, fetch->stale_retried, &cause)) {
        case CALL_READY: return send_request(fetch) ? END_OK : END_OVERLOADED;
        case CALL_WAITING: return END_OK;
        case CALL_REFUSED: break;
        }
        if (!may_try_again(fetch, cause))
            return cause;
        leave(fetch, cause);
    }
}

// ---- what the upstream says ----

static void on_ready(struct upstream_call *call)
{
    struct fetch *fetch = of_call(call);
    if (!send_request(fetch))
        done(fetch, END_OVERLOADED);
}

static void on_informational(struct upstream_call *call, struct response_head *head)
{
    (void)call, (void)head;
}

static void on_head(struct upstream_call *call, struct response_head *head)
{
    struct fetch *fetch = of_call(call);
    fetch->response = head;
    if (head->framing == FRAMING_LENGTH && head->content_length > fetch->answer_max)
        done(fetch, END_UPSTREAM_BAD_RESPONSE);
}

static bool keep(struct fetch *fetch, struct str span)
{
    size_t n = fetch->answer_n + span.n, capacity = fetch->answer_capacity;
    if (n > capacity) {
        capacity = 2 * capacity > n ? 2 * capacity : n;
        capacity = capacity > ANSWER_FIRST_BYTES ? capacity : ANSWER_FIRST_BYTES;
        char *grown = realloc(fetch->answer, capacity);
        if (!grown)
            return false;
        fetch->answer = grown;
        fetch->answer_capacity = capacity;
    }
    memcpy(fetch->answer + fetch->answer_n, span.p, span.n);
    fetch->answer_n = n;
    return true;
}

static enum flow on_body(struct upstream_call *call, struct str span)
{
    struct fetch *fetch = of_call(call);
    if (span.n > fetch->answer_max - fetch->answer_n)
        done(fetch, END_UPSTREAM_BAD_RESPONSE);
    else if (span.n && !keep(fetch, span))
        done(fetch, END_OVERLOADED);
    return FLOW_MORE;
}

static void on_end(struct upstream_call *call, struct headers *trailers)
{
    (void)trailers;
    done(of_call(call), END_OK);
}

static void on_nothing(struct upstream_call *call)
{
    (void)call;
}

static void on_fail(struct upstream_call *call, enum end_cause cause)
{
    struct fetch *fetch = of_call(call);
    if (may_try_again(fetch, cause)) {
        bool stale = was_stale(fetch, cause);
        leave(fetch, cause);
        fetch->stale_retried |= stale;
        cause = attempt(fetch);
    }
    if (cause != END_OK)
        done(fetch, cause);
}

static const struct upstream_call_events events = {
    .on_ready = on_ready,
    .on_informational = on_informational,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_flush = on_nothing,
    .on_drain = on_nothing,
    .on_fail = on_fail,
};

// ---- its start ----

static void build_request(struct fetch *fetch, const struct fetch_request *wanted)
{
    struct request_head *request = &fetch->request;
    struct arena *arena = &fetch->arena;
    request->method = wanted->method;
    request->method_name = http_method_name(wanted->method);
    request->minor = 1;
    headers_add_as(&request->headers, arena, HEADER_HOST, STR("Host"), arena_copy(arena, wanted->authority));
    headers_add_as(&request->headers, arena, HEADER_USER_AGENT, STR("User-Agent"), STR("sallyport"));
    for (uint32_t i = 0; wanted->headers && i < wanted->headers->count; i++) {
        const struct header *header = &wanted->headers->v[i];
        if (header->id != HEADER_GONE)
            headers_add_as(&request->headers, arena, header->id, arena_copy(arena, header->name),
                           arena_copy(arena, header->value));
    }
    fetch->target = arena_copy(arena, wanted->target);
    fetch->body = arena_copy(arena, wanted->body);
    if (wanted->body.n || wanted->method == METHOD_POST) {
        request->framing = FRAMING_LENGTH;
        request->content_length = wanted->body.n;
    }
}

struct fetch *fetch_start(struct upstream_worker *worker, const struct fetch_request *request, void *owner,
                          void (*on_done)(void *owner, const struct fetch_answer *answer),
                          enum end_cause *cause)
{
    struct fetch *fetch = calloc(1, sizeof *fetch);
    *cause = END_OVERLOADED;
    if (!fetch)
        return NULL;
    fetch->worker = worker;
    fetch->owner = owner;
    fetch->on_done = on_done;
    fetch->repeatable = request->repeatable || http_method_safe(request->method);
    fetch->answer_max = request->answer_bytes;
    fetch->free_task.run = free_fetch;
    arena_init(&fetch->arena, NULL);
    build_request(fetch, request);
    fetch->call = (struct upstream_call){
        .events = &events,
        .upstream = request->upstream,
        .arena = &fetch->arena,
        .method = request->method,
    };
    loop_timer_init(&fetch->deadline, on_deadline);
    loop_timer_set(loop_of(fetch), &fetch->deadline, (request->timeout_us + 999) / 1000);
    *cause = attempt(fetch);
    if (*cause != END_OK) {
        dispose(fetch, *cause);
        return NULL;
    }
    return fetch;
}
