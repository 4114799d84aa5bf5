#include "exchange/stale.h"

#include "base/clock.h"
#include "base/siphash.h"
#include "exchange/forward_names.h"
#include "exchange/steps.h"
#include "http/cache_control.h"
#include "http/uri.h"
#include "replay/copies.h"

#include <stdatomic.h>

enum { RECORDING_BYTES = 32 * 1024 * 1024 }; // of all bodies that pass, in the process

#define SECOND_US 1000000

// ---- decisions ----

static bool has(const struct headers *headers, const char *name)
{
    return headers_find_name(headers, str_of(name)) != NULL;
}

static bool is_plain(const struct stale_asked *asked)
{
    const struct request_head *request = asked->request;
    return !asked->is_grpc && request->framing == FRAMING_NONE && !request->upgrade.n &&
           !request->extended_connect && !has(&request->headers, "Range");
}

// RFC 9111 3: no-store, private, Set-Cookie and Vary: * keep it from others; no-cache (5.2.2.4) from being
// given away without a question to the service, which cannot be put.
static bool is_for_others(const struct response_head *head, const struct cache_control *said)
{
    return head->status == 200 && !said->no_store && !said->is_private && !said->no_cache &&
           !has(&head->headers, "Set-Cookie") && !headers_list_has(&head->headers, HEADER_VARY, STR("*"));
}

static uint64_t left_us(uint64_t seconds, uint64_t age_us)
{
    uint64_t us = seconds * SECOND_US;
    return us > age_us ? us - age_us : 0;
}

// RFC 9111 4.2.4: nothing stale after must-revalidate, proxy-revalidate or s-maxage (which means the same, to
// a shared cache: 5.2.2.10). RFC 5861 4: where the service bounds how stale, it does.
// fresh_s: CACHE_UNSAID is not at all.
static uint64_t good_us(const struct cache_control *said, uint64_t fresh_s, uint64_t age_us,
                        uint64_t stale_us)
{
    uint64_t most_us = stale_us;
    if (fresh_s == CACHE_UNSAID)
        fresh_s = 0;
    if (said->must_revalidate || said->s_maxage_s != CACHE_UNSAID)
        most_us = left_us(fresh_s, age_us);
    else if (said->stale_if_error_s != CACHE_UNSAID)
        most_us = left_us(fresh_s + said->stale_if_error_s, age_us);
    return most_us < stale_us ? most_us : stale_us;
}

struct stale_verdict stale_judge(const struct stale_asked *asked, const struct response_head *head,
                                 uint64_t age_us, int64_t now_s, uint64_t stale_us)
{
    static const struct stale_verdict no = {0};
    struct cache_control said = http_cache_control(&head->headers);
    if (asked->request->method != METHOD_GET || !is_plain(asked) || !is_for_others(head, &said) ||
        http_cache_control(&asked->request->headers).no_store)
        return no;
    struct stale_verdict verdict = {
        .good_us = good_us(&said, http_fresh_s(&head->headers, &said, now_s), age_us, stale_us),
        .is_public = said.is_public || said.s_maxage_s != CACHE_UNSAID, // RFC 9111 3.5
    };
    return asked->is_personal && !verdict.is_public ? no : verdict;
}

bool stale_is_changed(const struct stale_asked *asked, const struct response_head *head)
{
    if (http_method_safe(asked->request->method))
        return asked->request->method == METHOD_GET && (head->status == 404 || head->status == 410);
    return head->status >= 200 && head->status < 400;
}

static bool has_pragma_no_cache(const struct headers *headers)
{
    const struct header *pragma = headers_find_name(headers, STR("Pragma"));
    struct str list = pragma ? pragma->value : STR_NULL;
    for (struct str word; str_next_token(&list, &word);)
        if (str_eq_fold(word, STR("no-cache")))
            return true;
    return false;
}

// RFC 9111 4.3.2: only the service can judge If-Match and If-Unmodified-Since. 5.2.1.4, 5.4: who says
// no-cache wants its word.
bool stale_may_answer(const struct stale_asked *asked)
{
    const struct request_head *request = asked->request;
    const struct headers *headers = &request->headers;
    if ((request->method != METHOD_GET && request->method != METHOD_HEAD) || !is_plain(asked) ||
        has(headers, "If-Match") || has(headers, "If-Unmodified-Since"))
        return false;
    bool is_old = !has(headers, "Cache-Control") && has_pragma_no_cache(headers);
    return !is_old && !http_cache_control(headers).no_cache;
}

// ---- of an exchange ----

// What the gateway knows of the caller, or what the service may know one by. Of certificates as the request
// for the service says it: this gateway has seen one, or a trusted proxy.
static bool is_personal(const struct exchange *x)
{
    const struct headers *headers = &x->request.headers;
    return x->policy.identity || headers_find(headers, HEADER_AUTHORIZATION) ||
           headers_find(headers, HEADER_COOKIE) || headers_find(headers, HEADER_X_FORWARDED_CLIENT_CERT) ||
           headers_find(headers, HEADER_CLIENT_CERT);
}

static struct stale_asked asked_of(const struct exchange *x)
{
    return (struct stale_asked){&x->request, x->grpc, is_personal(x)};
}

// n == 0: the scheme's own.
static struct str port_of(const struct exchange *x)
{
    struct str host, port;
    bool is_tls = str_eq(x->scheme, STR("https"));
    if (!uri_authority_split(x->request.authority, &host, &port) ||
        str_eq(port, is_tls ? STR("443") : STR("80")))
        return STR_NULL;
    return port;
}

// The URI, however it is spelled (RFC 3986 6.2.2, 6.2.3).
static struct replay_hash resource_of(const struct exchange *x)
{
    const struct request_head *request = &x->request;
    const struct str parts[] = {
        x->scheme,     request->host,  port_of(x),
        request->path, request->query, request->has_query ? STR("?") : STR_NULL,
    };
    return replay_hash(parts, countof(parts));
}

// An IPv6 caller has a network of 64 bits to himself.
static uint64_t caller_of(const struct exchange *x)
{
    enum { NETWORK_BYTES = 8 };
    const struct ip *source = &x->source;
    struct str bytes = {(const char *)source->bytes,
                        source->family == AF_INET6 ? NETWORK_BYTES : sizeof source->bytes};
    return siphash128(siphash_process_key(), (uint64_t)source->family, bytes).lo;
}

static bool is_node(struct str pair)
{
    return (pair.n >= 4 && str_eq_fold((struct str){pair.p, 4}, STR("for="))) ||
           (pair.n >= 3 && str_eq_fold((struct str){pair.p, 3}, STR("by=")));
}

// A value of Forwarded without its nodes (RFC 7239 5.1, 5.2): who has asked is not what was asked for.
static struct str without_nodes(struct str value, struct arena *arena)
{
    char *text = arena_alloc(arena, value.n), *at = text;
    while (value.n) {
        size_t n = 0;
        while (n < value.n && value.p[n] != ',' && value.p[n] != ';')
            n++;
        struct str pair = str_trim((struct str){value.p, n});
        bool is_wanted = pair.n && !is_node(pair);
        if (is_wanted)
            at = mempcpy(at, pair.p, pair.n);
        if (n < value.n && (is_wanted || value.p[n] == ','))
            *at++ = value.p[n];
        n += n < value.n;
        value = str_skip(value, n);
    }
    return str_range(text, at);
}

// Who answers, asked for what, and told what besides that (forward_steers): as the service gets it.
static struct replay_hash place_of(struct exchange *x)
{
    enum { FIXED = 4, EACH = 2 };
    const struct headers *headers = &x->request.headers;
    struct str *parts = arena_array(&x->arena, struct str, FIXED + EACH * (size_t)headers->count);
    unsigned n = 0;
    parts[n++] = x->upstream->name;
    parts[n++] = x->match.route->name;
    parts[n++] = x->request.authority;
    parts[n++] = x->target;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        if (!forward_steers(header->id) && header->id != HEADER_FORWARDED)
            continue;
        bool has_nodes = header->id == HEADER_FORWARDED;
        parts[n++] = (struct str){(const char *)&header->id, sizeof header->id};
        parts[n++] = has_nodes ? without_nodes(header->value, &x->arena) : header->value;
    }
    return replay_hash(parts, n);
}

static struct copy_key key_of(struct exchange *x)
{
    return (struct copy_key){resource_of(x), place_of(x), caller_of(x), x->upstream->metric_id};
}

// ---- a copy is made ----

struct stale_copying { // in the exchange's arena
    struct copy_key key;
    struct copy copy; // its span: the head
    struct str vary;
    struct buf body;
};

static atomic_size_t recording; // bytes that these bodies hold

static struct str vary_of(const struct headers *headers, struct arena *arena)
{
    struct str all = STR_NULL;
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->v[i].id != HEADER_VARY)
            continue;
        const struct str parts[] = {all, STR(","), headers->v[i].value};
        all = arena_join(arena, parts, countof(parts));
    }
    return all;
}

// RFC 9111 3.1: without what is for one hop. 4.2.3: Age is said anew. RFC 9110 6.6.1: with a Date.
static struct str head_of(struct exchange *x, struct response_head *head)
{
    struct headers *headers = &head->headers;
    headers_remove_hop_by_hop(headers);
    headers_remove_name(headers, STR("Proxy-Authentication-Info"));
    headers_remove(headers, HEADER_CONTENT_LENGTH);
    if (!headers_find(headers, HEADER_DATE))
        headers_add_as(headers, &x->arena, HEADER_DATE, STR("Date"),
                       arena_copy(&x->arena, worker_date(x->worker, clock_wall_us())));
    struct replay_answer answer = {.status = head->status, .headers = *headers};
    char *span = arena_alloc(&x->arena, replay_answer_bytes(&answer));
    replay_answer_write(&answer, span);
    return (struct str){span, replay_answer_bytes(&answer)};
}

bool stale_listens(const struct exchange *x)
{
    return x->upstream->stale_us ||
           (!http_method_safe(x->request.method) && (x->gateway->keeps_copies || copies_any()));
}

// A change is one of the resource, whoever made it; that there is nothing, this service alone has said.
static void forget(struct exchange *x)
{
    struct replay_hash place = place_of(x);
    copies_forget(resource_of(x), http_method_safe(x->request.method) ? &place : NULL, clock_monotonic_us());
}

// RFC 9111 4.2.3: corrected_initial_age.
static uint64_t age_of(const struct exchange *x, const struct headers *headers, int64_t now_s)
{
    uint64_t now_us = exchange_now_us(x);
    uint64_t said_us = http_age_s(headers) * SECOND_US + (now_us - x->began_us);
    uint64_t apparent_us = http_apparent_age_s(headers, now_s) * SECOND_US;
    return apparent_us > said_us ? apparent_us : said_us;
}

void stale_hear(struct exchange *x, struct response_head *head)
{
    struct stale_asked asked = asked_of(x);
    if (stale_is_changed(&asked, head)) {
        forget(x);
        return;
    }
    uint64_t now_us = exchange_now_us(x);
    int64_t now_s = (int64_t)(clock_wall_us() / SECOND_US);
    uint64_t age_us = age_of(x, &head->headers, now_s);
    struct stale_verdict verdict = stale_judge(&asked, head, age_us, now_s, x->upstream->stale_us);
    if (!verdict.good_us || (head->has_length && head->content_length > COPY_BYTES))
        return;
    struct stale_copying *copying = x->copying = arena_new(&x->arena, struct stale_copying);
    copying->key = key_of(x);
    copying->vary = vary_of(&head->headers, &x->arena);
    copying->copy = (struct copy){.asked_us = x->began_us,
                                  .came_us = now_us,
                                  .born_us = now_us - age_us,
                                  .until_us = now_us + verdict.good_us,
                                  .is_public = verdict.is_public,
                                  .span = head_of(x, head)};
}

static void release(struct exchange *x)
{
    atomic_fetch_sub_explicit(&recording, x->copying->body.cap, memory_order_relaxed);
    buf_release(&x->copying->body, &x->worker->buffers);
    x->copying = NULL;
}

void stale_give_up(struct exchange *x)
{
    release(x);
}

// Those who read slowly may have a quarter of the room: else they could hold all of it.
static bool is_crowded(const struct exchange *x)
{
    size_t all = atomic_load_explicit(&recording, memory_order_relaxed);
    return all > (x->client_full ? RECORDING_BYTES / 4 : RECORDING_BYTES);
}

void stale_hear_body(struct exchange *x, struct str span)
{
    struct buf *body = &x->copying->body;
    uint32_t before = body->cap;
    bool has_room = buf_reserve(body, &x->worker->buffers, span.n, COPY_BYTES);
    atomic_fetch_add_explicit(&recording, body->cap - before, memory_order_relaxed);
    if (has_room && !is_crowded(x))
        buf_put(body, span);
    else
        stale_give_up(x);
}

void stale_keep(struct exchange *x)
{
    const struct stale_copying *copying = x->copying;
    copies_keep(&copying->key, &x->request.headers, copying->vary, &copying->copy, buf_str(&copying->body));
    release(x);
}

// ---- a copy is the answer ----

// RFC 9111 5.1, RFC 9211.
static void tell(struct exchange *x, struct headers *headers, const struct copy *copy)
{
    uint64_t age_s = (exchange_now_us(x) - copy->born_us) / SECOND_US;
    headers_set(headers, &x->arena, STR("Age"), arena_u64(&x->arena, age_s));
    headers_add(headers, &x->arena, STR("Cache-Status"), STR("sallyport; hit; detail=breaker_open"));
}

// It was kept by other settings.
static bool is_outlived(const struct exchange *x, const struct copy *copy)
{
    return clock_elapsed_us(copy->came_us, exchange_now_us(x)) >= x->upstream->stale_us;
}

bool stale_answer(struct exchange *x)
{
    if (!x->upstream->stale_us)
        return false;
    forward_prepare_request(x); // what selects a copy is what the service gets
    struct stale_asked asked = asked_of(x);
    if (!stale_may_answer(&asked))
        return false;
    struct copy_key key = key_of(x);
    struct copy copy;
    if (!copies_find(&key, &x->request.headers, asked.is_personal, exchange_now_us(x), &copy))
        return false;
    struct replay_answer answer;
    bool is_good = !is_outlived(x, &copy) && replay_answer_read(copy.span, &x->arena, &answer);
    if (is_good) {
        tell(x, &answer.headers, &copy);
        metrics_stale_answer(x->worker->metrics, x->upstream->metric_id);
        reply_copy(x, &answer, copy.in);
    }
    shared_unref(copy.in);
    return is_good;
}
