// The Auth Service decides: it sees a request's method, address and some of its headers, and says 2xx (let it
// through, and tell the upstream this), 401 or 403. Any other answer is no decision; redirects are not
// followed.
//
// The service is asked about every request, also about one that carries none of request_headers: it may let
// anonymous callers through. When it refuses such a request with 401, there were no credentials (AUTH_NONE):
// the next provider is asked, and a route with `optional` goes on without an identity.
//
// What an answer is kept by is cache.key, and those of request_headers that cache.key does not tell apart:
// what the service was shown of one caller must not answer for another. It sees more than that (method,
// address): with ttl above zero it is the operator who says that its answer depends on nothing else. Without
// ttl only questions that are the same in everything that is sent share an answer.
#include "auth/question.h"

enum { CHALLENGE_BYTES = 1024 /* of WWW-Authenticate; a longer one is not passed on */ };

// ---- what the service sees ----

// What the gateway says by itself, and what is about the message and not about the caller.
static bool is_ours(enum header_id id)
{
    switch (id) {
    case HEADER_GONE:
    case HEADER_HOST:
    case HEADER_CONTENT_LENGTH:
    case HEADER_EXPECT:
    case HEADER_X_FORWARDED_METHOD:
    case HEADER_X_FORWARDED_PROTO:
    case HEADER_X_FORWARDED_HOST:
    case HEADER_X_FORWARDED_URI:
    case HEADER_X_FORWARDED_FOR:
    case HEADER_X_REQUEST_ID: return true;
    default: return header_is_hop_by_hop(id);
    }
}

// The next field of this name that may be passed on, behind *at; NULL: none.
static const struct header *next_shown(const struct headers *headers, struct str name, uint32_t *at)
{
    while (*at < headers->count) {
        const struct header *header = &headers->v[(*at)++];
        if (!is_ours(header->id) && str_eq_fold(header->name, name) &&
            !headers_list_has(headers, HEADER_CONNECTION, name))
            return header;
    }
    return NULL;
}

static struct str uri_of(const struct auth_call *call, struct arena *arena)
{
    const struct request_head *request = call->request;
    if (!request->has_query)
        return request->path;
    return arena_printf(arena, "%.*s?%.*s", STR_ARG(request->path), STR_ARG(request->query));
}

static struct str address_of(const struct auth_call *call, struct arena *arena)
{
    char *text = arena_alloc(arena, IP_TEXT_MAX);
    return (struct str){text, ip_print(call->client, text)};
}

static void compose(const struct auth_provider *provider, const struct auth_call *call,
                    struct str credentials, struct arena *arena, struct fetch_request *request)
{
    const struct forward_settings *settings = &provider->settings->forward;
    const struct request_head *asked = call->request;
    (void)credentials;
    struct headers *headers = arena_new(arena, struct headers);
    headers_add_as(headers, arena, HEADER_X_FORWARDED_METHOD, STR("X-Forwarded-Method"), asked->method_name);
    headers_add_as(headers, arena, HEADER_X_FORWARDED_PROTO, STR("X-Forwarded-Proto"), call->scheme);
    headers_add_as(headers, arena, HEADER_X_FORWARDED_HOST, STR("X-Forwarded-Host"), asked->authority);
    headers_add_as(headers, arena, HEADER_X_FORWARDED_URI, STR("X-Forwarded-Uri"), uri_of(call, arena));
    headers_add_as(headers, arena, HEADER_X_FORWARDED_FOR, STR("X-Forwarded-For"), address_of(call, arena));
    headers_add_as(headers, arena, HEADER_X_REQUEST_ID, STR("X-Request-Id"), call->request_id);
    const struct header *header;
    for (uint32_t i = 0; i < settings->request_headers.count; i++)
        for (uint32_t at = 0; (header = next_shown(&asked->headers, settings->request_headers.v[i], &at));)
            headers_add_as(headers, arena, header->id, header->name, header->value);
    request->method = METHOD_GET;
    request->target = settings->uri.target;
    request->authority = settings->uri.authority;
    request->headers = headers;
}

static bool has_credentials(const struct auth_provider *provider, const struct auth_call *call)
{
    const struct str_list *names = &provider->settings->forward.request_headers;
    for (uint32_t i = 0, at = 0; i < names->count; i++, at = 0)
        if (next_shown(&call->request->headers, names->v[i], &at))
            return true;
    return false;
}

// ---- what it says ----

static bool is_printable(struct str value)
{
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] < ' ' || value.p[i] > '~')
            return false;
    return true;
}

static struct str answer_value(const struct headers *headers, struct str name)
{
    const struct header *header = name.n ? headers_find_name(headers, name) : NULL;
    return header ? header->value : STR_NULL;
}

// Separated by commas or spaces.
static struct str_list split(struct str text, struct arena *arena)
{
    struct str_list list = {.v = arena_array(arena, struct str, text.n / 2 + 1)};
    for (size_t at = 0; at < text.n;) {
        size_t end = at;
        while (end < text.n && text.p[end] != ',' && text.p[end] != ' ' && text.p[end] != '\t')
            end++;
        if (end > at)
            list.v[list.count++] = (struct str){text.p + at, end - at};
        at = end + 1;
    }
    return list;
}

// What goes upstream, spelled as configured.
static void copy_headers(const struct str_list *names, const struct headers *from, struct headers *to,
                         struct arena *arena)
{
    for (uint32_t i = 0; i < names->count; i++)
        for (uint32_t k = 0; k < from->count; k++) {
            const struct header *header = &from->v[k];
            if (header->id == HEADER_GONE || !str_eq_fold(header->name, names->v[i]))
                continue;
            headers_add(to, arena, names->v[i], header->value); // identity_new makes it safe
        }
}

static void let_through(const struct auth_provider *provider, const struct headers *headers,
                        struct arena *arena, struct question_finding *finding)
{
    const struct forward_settings *settings = &provider->settings->forward;
    struct headers copied = {0};
    copy_headers(&settings->response_headers, headers, &copied, arena);
    const struct identity_facts facts = {
        .provider = provider,
        .subject = answer_value(headers, settings->subject_header),
        .roles = split(answer_value(headers, settings->roles_header), arena),
        .scopes = split(answer_value(headers, settings->scopes_header), arena),
        .issued_at = INT64_MIN,
        .expires = INT64_MAX,
        .copied = &copied,
    };
    finding->identity = identity_new(provider->auth, &facts);
    finding->decided = finding->identity != NULL;
    finding->why = "its answer has too much in its headers";
}

static struct str challenge_of(const struct headers *headers)
{
    struct str challenge = answer_value(headers, STR("WWW-Authenticate"));
    return challenge.n <= CHALLENGE_BYTES && is_printable(challenge) ? challenge : STR_NULL;
}

static void judge(const struct auth_provider *provider, const struct fetch_answer *answer, int64_t now_s,
                  struct arena *arena, struct question_finding *finding)
{
    (void)now_s;
    if (answer->status / 100 == 2) {
        let_through(provider, answer->headers, arena, finding);
    } else if (answer->status == 401) {
        finding->decided = true;
        finding->cause = END_INVALID_TOKEN;
        finding->detail = STR("the Auth Service does not accept the credentials");
        finding->challenge = challenge_of(answer->headers);
    } else if (answer->status == 403) {
        finding->decided = true;
        finding->cause = END_DENIED_BY_AUTH_SERVICE;
    } else {
        finding->why = "its status is neither 2xx nor 401 nor 403";
    }
}

static const struct question_kind question = {.compose = compose, .judge = judge};

// ---- keys ----

static const struct str header_prefix = STR("header."), cookie_prefix = STR("cookie.");

// What makes two questions the same, each part with its length before it.
struct material {
    char *text;
    size_t n, capacity;
    struct arena *arena;
};

static void put(struct material *material, const void *data, size_t n)
{
    if (n > material->capacity - material->n) {
        size_t capacity = 2 * (material->n + n) + 256;
        char *text = arena_alloc(material->arena, capacity);
        if (material->n)
            memcpy(text, material->text, material->n);
        material->text = text;
        material->capacity = capacity;
    }
    memcpy(material->text + material->n, data, n);
    material->n += n;
}

static void put_part(struct material *material, struct str part)
{
    uint32_t length = (uint32_t)part.n;
    put(material, &length, sizeof length);
    if (part.n)
        put(material, part.p, part.n);
}

// All lines, and how many.
static void put_header(struct material *material, const struct headers *headers, struct str name)
{
    const struct header *header;
    uint32_t count = 0;
    for (uint32_t at = 0; (header = next_shown(headers, name, &at)); count++)
        put_part(material, header->value);
    put(material, &count, sizeof count);
}

static void put_key(struct material *material, const struct auth_call *call, struct str name)
{
    const struct request_head *request = call->request;
    if (str_starts(name, header_prefix))
        put_header(material, &request->headers, str_skip(name, header_prefix.n));
    else if (str_starts(name, cookie_prefix))
        put_part(material, headers_cookie(&request->headers, str_skip(name, cookie_prefix.n)));
    else if (str_eq(name, STR("client_ip")))
        put_part(material, address_of(call, material->arena));
    else if (str_eq(name, STR("host")))
        put_part(material, request->host);
    else if (str_eq(name, STR("method")))
        put_part(material, request->method_name);
    else
        put_part(material, request->path);
}

static struct hash128 hash_of(const struct auth_provider *provider, const struct material *material)
{
    return siphash128(siphash_process_key(), provider->fingerprint,
                      (struct str){material->text, material->n});
}

// Whether a part of the key tells callers apart that send this header. A cookie does when it is there: who
// sends none by that name may still be known to the service, by another or by one that is read differently.
static bool is_in_key(const struct str_list *key, const struct headers *headers, struct str name)
{
    for (uint32_t i = 0; i < key->count; i++) {
        struct str part = key->v[i];
        if (str_starts(part, header_prefix) && str_eq_fold(str_skip(part, header_prefix.n), name))
            return true;
        if (str_starts(part, cookie_prefix) && str_eq_fold(name, STR("Cookie")) &&
            headers_cookie(headers, str_skip(part, cookie_prefix.n)).n)
            return true;
    }
    return false;
}

static struct hash128 cache_key(const struct auth_provider *provider, const struct auth_call *call)
{
    const struct forward_settings *settings = &provider->settings->forward;
    const struct str_list *key = &settings->cache.key, *shown = &settings->request_headers;
    const struct headers *headers = &call->request->headers;
    struct material material = {.arena = call->arena};
    put_part(&material, STR("kept"));
    for (uint32_t i = 0; i < key->count; i++)
        put_key(&material, call, key->v[i]);
    for (uint32_t i = 0; i < shown->count; i++)
        if (!is_in_key(key, headers, shown->v[i]))
            put_header(&material, headers, shown->v[i]);
    return hash_of(provider, &material);
}

// Of all that is sent, but for the request's id.
static struct hash128 whole_key(const struct auth_provider *provider, const struct auth_call *call)
{
    const struct str_list *names = &provider->settings->forward.request_headers;
    struct material material = {.arena = call->arena};
    put_part(&material, STR("asked"));
    put_part(&material, call->request->method_name);
    put_part(&material, call->scheme);
    put_part(&material, call->request->authority);
    put_part(&material, uri_of(call, call->arena));
    put_part(&material, address_of(call, call->arena));
    for (uint32_t i = 0; i < names->count; i++)
        put_header(&material, &call->request->headers, names->v[i]);
    return hash_of(provider, &material);
}

// ---- the row ----

static struct str find(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider, (void)call;
    return STR("the request"); // whatever it carries
}

static enum auth_result ask_service(struct auth_worker *worker, const struct auth_provider *provider,
                                    struct auth_call *call)
{
    const struct forward_settings *settings = &provider->settings->forward;
    if (call->state)
        return question_again(worker, provider, call);
    struct hash128 key = settings->cache.ttl_us ? cache_key(provider, call) : whole_key(provider, call);
    const struct question_asked asked = {
        .kind = &question,
        .cache = &settings->cache,
        .timeout_us = settings->timeout_us,
        .key = key,
        .same = key,
    };
    return question_ask(worker, provider, call, &asked);
}

static enum auth_result ask(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials)
{
    (void)credentials;
    enum auth_result result = ask_service(worker, provider, call);
    if (result != AUTH_DENY || call->cause != END_INVALID_TOKEN || has_credentials(provider, call))
        return result;
    // Who brought none made no error (RFC 6750 3.1). What the service has said instead stays.
    if (str_starts(call->challenge, STR(AUTH_BEARER ", error=")))
        call->challenge = STR(AUTH_BEARER);
    return AUTH_NONE;
}

const struct auth_kind_row auth_forward = {
    .name = "forward",
    .find = find,
    .ask = ask,
    .forget = question_forget,
};
