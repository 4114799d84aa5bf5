// API keys: in a header or in a query parameter, looked up by their SHA-256 among the consumers. A request
// carries one key; of two, services behind could take the other one.
#include "auth/consumer_identity.h"
#include "http/query.h"

// What find returns (the same pointer) for what is a key, but none that could be somebody's.
static const struct str unusable = {"unusable", 8};

// ---- the key in the request ----

// Where keys may be is gone through once; the first one is kept.
struct found {
    struct str key;
    unsigned count;
};

static void note(struct found *found, struct str key)
{
    if (found->count++ == 0)
        found->key = key;
}

static void find_in_headers(const struct headers *headers, struct str name, struct found *found)
{
    enum header_id id = header_id_of(name);
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        if (header->id == id && (id != HEADER_OTHER || str_eq_fold(header->name, name)))
            note(found, header->value);
    }
}

static void find_in_query(struct str query, struct str name, struct arena *arena, struct found *found)
{
    struct query_parameter parameter;
    while (query_next(&query, &parameter))
        if (query_text_eq(parameter.name, name))
            note(found, query_decode(parameter.value, arena_alloc(arena, parameter.value.n)));
}

static struct str find(const struct auth_provider *provider, struct auth_call *call)
{
    const struct api_key_settings *settings = &provider->settings->api_key;
    const struct request_head *request = call->request;
    struct found found = {0};
    if (settings->header.n)
        find_in_headers(&request->headers, settings->header, &found);
    if (settings->query.n && request->query.n)
        find_in_query(request->query, settings->query, call->arena, &found);
    if (!found.count)
        return STR_NULL;
    return found.count == 1 && found.key.n && found.key.n <= API_KEY_BYTES ? found.key : unusable;
}

// ---- whose it is ----

static enum auth_result ask(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials)
{
    if (credentials.p == unusable.p)
        return auth_deny(call, END_INVALID_KEY, STR("the API key is empty, too long, or there are several"),
                         NULL);
    if (consumer_identity_find(worker, provider, call, credentials))
        return AUTH_ALLOW;
    const struct consumer *consumer = consumers_by_key(provider->auth->consumers, credentials);
    if (consumer && consumer_identity_make(worker, provider, call, credentials, consumer, STR_NULL))
        return AUTH_ALLOW;
    return auth_deny(call, END_INVALID_KEY, STR_NULL, NULL);
}

// ---- what services see of it ----

static void conceal_query(struct request_head *request, struct str name, struct arena *arena)
{
    struct str query = query_replace(request->query, name, STR_NULL, arena);
    if (query.p == request->query.p)
        return;
    request->query = query;
    request->has_query = query.n > 0;
    // As received no more: what goes upstream is made of path and query.
    request->target = query.n ? arena_printf(arena, "%.*s?%.*s", STR_ARG(request->path), STR_ARG(query))
                              : arena_copy(arena, request->path);
}

static void conceal(const struct auth_provider *provider, struct auth_call *call)
{
    const struct api_key_settings *settings = &provider->settings->api_key;
    if (settings->forward_key)
        return;
    if (settings->header.n)
        headers_remove_name(&call->request->headers, settings->header);
    if (settings->query.n && call->request->query.n)
        conceal_query(call->request, settings->query, call->arena);
}

struct str auth_loggable_query(const struct auth *auth, struct str query, struct arena *arena)
{
    for (uint32_t i = 0; query.n && i < auth->provider_count; i++) {
        const struct auth_settings *settings = auth->providers[i]->settings;
        if (settings->kind == AUTH_API_KEY && settings->api_key.query.n)
            query = query_replace(query, settings->api_key.query, STR("***"), arena);
    }
    return query;
}

// ---- the row ----

static bool compile(struct auth_provider *provider, const struct auth_sources *sources, struct arena *arena,
                    struct err *err)
{
    (void)sources, (void)arena, (void)err;
    provider->challenge = STR("ApiKey realm=\"sallyport\""); // no registered scheme, but 401 needs one
    return true;
}

const struct auth_kind_row auth_api_key = {
    .name = "api_key",
    .find = find,
    .ask = ask,
    .conceal = conceal,
    .compile = compile,
};
