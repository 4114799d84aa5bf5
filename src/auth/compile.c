// The snapshot's side: settings → providers, upstreams of their own, what upstreams are told, and the names
// that clients may not say.
#include "auth/consumers.h"
#include "auth/provider.h"
#include "base/siphash.h"
#include "token/sign.h"

static const struct auth_kind_row *const kinds[AUTH_KINDS] = {
    [AUTH_JWT] = &auth_jwt,         [AUTH_INTROSPECTION] = &auth_introspection,
    [AUTH_FORWARD] = &auth_forward, [AUTH_API_KEY] = &auth_api_key,
    [AUTH_MTLS] = &auth_mtls,
};

// ---- files ----

static bool read_file(const struct auth_sources *sources, struct str path, struct str *content,
                      struct err *err)
{
    if (sources->read_file(sources->read_context, path, content))
        return true;
    err_set(err, ERR_INVALID, path.p, "cannot be read");
    return false;
}

// ---- consumers ----

// A reload that leaves them as they were takes them over: a million of them take a second to read.
static struct hash128 known_hash; // control thread
static struct consumers *known;

static void put(struct buf *out, struct str text)
{
    buf_printf(out, "%zu:", text.n);
    buf_append(out, text);
}

static void put_list(struct buf *out, const struct str_list *list)
{
    buf_printf(out, "%u;", list->count);
    for (uint32_t i = 0; i < list->count; i++)
        put(out, list->v[i]);
}

// Whatever makes consumers what they are, so that no two sets have one text.
static void put_consumers(struct buf *out, const struct config_list *list)
{
    const struct consumer_settings *consumers = list->v;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct consumer_key *keys = consumers[i].api_keys.v;
        const struct consumer_certificate *certificates = consumers[i].certificates.v;
        put(out, consumers[i].name);
        put_list(out, &consumers[i].roles);
        put_list(out, &consumers[i].scopes);
        buf_printf(out, "%u;", consumers[i].api_keys.count);
        for (uint32_t k = 0; k < consumers[i].api_keys.count; k++)
            put(out, keys[k].sha256);
        buf_printf(out, "%u;", consumers[i].certificates.count);
        for (uint32_t k = 0; k < consumers[i].certificates.count; k++) {
            put(out, certificates[k].san);
            put(out, certificates[k].subject);
            put(out, certificates[k].fingerprint);
        }
    }
}

static bool compile_consumers(struct auth *auth, const struct auth_sources *sources, struct hash128 *hash,
                              struct err *err)
{
    struct consumers_source source = {.settings = sources->consumers, .file = sources->consumers_file};
    struct buf text = {0};
    if (source.file.n && !read_file(sources, source.file, &source.text, err))
        return false;
    put(&text, source.file);
    put_consumers(&text, source.settings);
    struct hash128 of_file = siphash128(siphash_process_key(), source.text.n, source.text);
    buf_printf(&text, "%016llx%016llx", (unsigned long long)of_file.lo, (unsigned long long)of_file.hi);
    *hash = siphash128(siphash_process_key(), 0, buf_str(&text));
    buf_free(&text);
    if (!known || hash->lo != known_hash.lo || hash->hi != known_hash.hi) {
        struct consumers *consumers = consumers_new(&source, err);
        if (!consumers)
            return false;
        consumers_unref(known);
        known = consumers;
        known_hash = *hash;
    }
    auth->consumers = consumers_ref(known);
    return true;
}

// ---- what upstreams are told ----

static void add_claim(struct auth *auth, struct str *claims, struct str path)
{
    for (uint32_t i = 0; i < auth->claim_count; i++)
        if (str_eq(claims[i], path))
            return;
    claims[auth->claim_count++] = path;
}

static void compile_headers(struct auth *auth, const struct auth_sources *sources, struct arena *arena)
{
    const struct str_map *map = sources->identity_headers;
    struct identity_header *headers = arena_array(arena, struct identity_header, map->count);
    struct str *claims = arena_array(arena, struct str, map->count + sources->claims.count);
    for (uint32_t i = 0; i < map->count; i++) {
        struct identity_header *header = &headers[auth->header_count++];
        header->name = map->v[i].name;
        header->id = header_id_of(header->name);
        check(auth_identity_source(map->v[i].value, &header->source,
                                   &header->claim)); // the tables have seen it
        if (header->source == IDENTITY_CLAIM)
            add_claim(auth, claims, header->claim);
    }
    for (uint32_t i = 0; i < sources->claims.count; i++)
        add_claim(auth, claims, sources->claims.v[i]);
    auth->headers = headers;
    auth->claims = claims;
}

// Everything that could tell a service who calls: what is said when there is somebody must not be said by
// clients when there is nobody.
static void compile_guarded(struct auth *auth, const struct auth_sources *sources, struct arena *arena)
{
    const struct auth_settings *settings = sources->providers->v;
    uint32_t room = auth->header_count + 1, count = 0;
    for (uint32_t i = 0; i < sources->providers->count; i++)
        if (settings[i].kind == AUTH_FORWARD)
            room += settings[i].forward.response_headers.count + 3;
    struct str *names = arena_array(arena, struct str, room);
    for (uint32_t i = 0; i < auth->header_count; i++)
        names[count++] = auth->headers[i].name;
    if (auth->identity_token)
        names[count++] = auth->identity_token->header;
    for (uint32_t i = 0; i < sources->providers->count; i++) {
        const struct forward_settings *forward = &settings[i].forward;
        if (settings[i].kind != AUTH_FORWARD)
            continue;
        for (uint32_t k = 0; k < forward->response_headers.count; k++)
            names[count++] = forward->response_headers.v[k];
        names[count++] = forward->subject_header;
        names[count++] = forward->roles_header;
        names[count++] = forward->scopes_header;
    }
    auth->guarded = auth_guarded_new(names, count, arena);
}

// ---- upstreams of Auth Services ----

struct service { // what a provider asks over HTTP
    const struct auth_uri *uri;
    struct str ca;
    uint64_t timeout_us;
};

static bool service_of(const struct auth_settings *settings, struct service *service)
{
    switch (settings->kind) {
    case AUTH_JWT:
        *service =
            (struct service){&settings->jwt.jwks.uri, settings->jwt.jwks.ca, settings->jwt.jwks.timeout_us};
        break;
    case AUTH_INTROSPECTION:
        *service = (struct service){&settings->introspection.uri, settings->introspection.ca,
                                    settings->introspection.timeout_us};
        break;
    case AUTH_FORWARD:
        *service =
            (struct service){&settings->forward.uri, settings->forward.ca, settings->forward.timeout_us};
        break;
    default: return false;
    }
    return service->uri->text.n > 0;
}

static struct config_node *new_text(struct arena *arena, struct str text)
{
    return config_new_string(arena, text);
}

// As a file would say it, so that it has every default of `upstreams` and is checked as those are.
static struct config_node *upstream_node(const struct service *service, struct arena *arena)
{
    struct config_node *last = NULL, *last_target = NULL, *last_in_target = NULL, *last_in_tls = NULL,
                       *last_timeout = NULL;
    struct config_node *upstream = config_new_map(arena), *targets = config_new_list(arena),
                       *target = config_new_map(arena), *timeouts = config_new_map(arena);
    config_append(target, &last_in_target, STR("address"), new_text(arena, service->uri->address));
    config_append(targets, &last_target, STR_NULL, target);
    config_append(upstream, &last, STR("targets"), targets);
    config_append(timeouts, &last_timeout, STR("connect"), config_new_duration(arena, service->timeout_us));
    config_append(timeouts, &last_timeout, STR("response"), config_new_duration(arena, service->timeout_us));
    config_append(upstream, &last, STR("timeouts"), timeouts);
    if (service->uri->tls) {
        struct config_node *tls = config_new_map(arena);
        config_append(tls, &last_in_tls, STR("ca"), new_text(arena, service->ca));
        config_append(upstream, &last, STR("tls"), tls);
    }
    struct config_node *breaker = config_new_map(arena), *last_in_breaker = NULL; // auth/breaker.h is its own
    config_append(breaker, &last_in_breaker, STR("enabled"), config_new_plain(arena, STR("false")));
    config_append(upstream, &last, STR("circuit_breaker"), breaker);
    return upstream;
}

static bool compile_upstream(struct auth_provider *provider, const struct auth_sources *sources,
                             struct arena *arena, struct err *err)
{
    struct service service;
    if (!sources->tls_slots || !service_of(provider->settings, &service))
        return true;
    struct upstream_settings *settings = arena_new(arena, struct upstream_settings);
    struct config_report report = {.arena = arena};
    config_decode(&upstream_object, upstream_node(&service, arena), settings, STR_NULL, arena, &report);
    if (report.count) {
        err_set(err, ERR_INVALID, "", "%.*s: %.*s", STR_ARG(report.first->path), STR_ARG(report.first->what));
        return false;
    }
    settings->name = arena_printf(arena, AUTH_UPSTREAM_PREFIX "%.*s", STR_ARG(provider->name));
    provider->upstream = arena_new(arena, struct upstream);
    return upstream_compile(provider->upstream, settings, sources->generation, sources->tls_slots, arena,
                            err) == ERR_OK;
}

// ---- providers ----

// The settings as `dump` prints them, what that hides, and all else that an identity is made of.
static uint64_t fingerprint_of(const struct auth_provider *provider, const struct auth_sources *sources,
                               struct hash128 consumers)
{
    const struct auth_settings *settings = provider->settings;
    struct arena arena;
    struct buf text = {0};
    arena_init(&arena, NULL);
    put(&text, settings->name); // which the settings do not have, and identity.provider tells
    config_print_yaml(config_encode(&auth_object, settings, &arena), &text);
    put(&text, settings->jwt.secret);
    put(&text, settings->introspection.client_secret);
    for (uint32_t i = 0; i < sources->identity_headers->count; i++) {
        put(&text, sources->identity_headers->v[i].name);
        put(&text, sources->identity_headers->v[i].value);
    }
    for (uint32_t i = 0; i < provider->auth->claim_count; i++)
        put(&text, provider->auth->claims[i]);
    if (sources->identity_token) { // what has been signed is kept with the identity
        put(&text, provider->auth->identity_key);
        put(&text, sources->identity_token->issuer);
        buf_printf(&text, "%llu", (unsigned long long)sources->identity_token->ttl_us);
    }
    struct hash128 hash = siphash128(siphash_process_key(), consumers.lo ^ consumers.hi, buf_str(&text));
    if (text.base)
        explicit_bzero(text.base, text.end);
    buf_free(&text);
    arena_reset(&arena);
    return hash.lo;
}

static bool compile_provider(struct auth *auth, const struct auth_settings *settings,
                             const struct auth_sources *sources, struct hash128 consumers,
                             struct arena *arena, struct err *err)
{
    struct auth_provider *provider = arena_new(arena, struct auth_provider);
    provider->kind = kinds[settings->kind];
    provider->settings = settings;
    provider->auth = auth;
    provider->name = settings->name;
    provider->id = metric_name_id(NAME_PROVIDER, settings->name);
    provider->fingerprint = fingerprint_of(provider, sources, consumers);
    auth->providers[auth->provider_count++] = provider;
    return compile_upstream(provider, sources, arena, err) &&
           (!provider->kind->compile || provider->kind->compile(provider, sources, arena, err));
}

// Tried once: each worker makes a signer of its own when it first needs one.
static bool compile_identity_key(struct auth *auth, const struct auth_sources *sources, struct err *err)
{
    if (!read_file(sources, auth->identity_token->key, &auth->identity_key, err))
        return false;
    struct token_signer *signer = token_signer_new(auth->identity_key, tls_library(TLS_SLOT_CONTROL), err);
    token_signer_free(signer);
    return signer != NULL;
}

static bool compile_files(struct auth *auth, const struct auth_sources *sources, struct hash128 *consumers,
                          struct auth_mistake *mistake)
{
    mistake->path = STR("consumers_file");
    if (!compile_consumers(auth, sources, consumers, &mistake->err))
        return false;
    mistake->path = STR("identity_token.key");
    return !auth->identity_token || compile_identity_key(auth, sources, &mistake->err);
}

bool auth_check_files(const struct auth_sources *sources, struct auth_mistake *mistake)
{
    struct auth auth = {.identity_token = sources->identity_token};
    struct hash128 consumers;
    bool is_good = compile_files(&auth, sources, &consumers, mistake);
    consumers_unref(auth.consumers);
    return is_good;
}

bool auth_compile(struct auth *auth, const struct auth_sources *sources, struct arena *arena,
                  struct auth_mistake *mistake)
{
    const struct auth_settings *settings = sources->providers->v;
    struct hash128 consumers = {0};
    auth->identity_token = sources->identity_token;
    compile_headers(auth, sources, arena);
    compile_guarded(auth, sources, arena);
    auth->providers = arena_array(arena, struct auth_provider *, sources->providers->count);
    if (sources->tls_slots && !compile_files(auth, sources, &consumers, mistake))
        return false;
    for (uint32_t i = 0; i < sources->providers->count; i++) {
        if (compile_provider(auth, &settings[i], sources, consumers, arena, &mistake->err))
            continue;
        mistake->path = arena_printf(arena, "auth.%.*s", STR_ARG(settings[i].name));
        mistake->line = settings[i].line;
        mistake->column = settings[i].column;
        return false;
    }
    return true;
}

void auth_fini(struct auth *auth)
{
    for (uint32_t i = 0; i < auth->provider_count; i++) {
        struct auth_provider *provider = auth->providers[i];
        if (provider->kind->fini)
            provider->kind->fini(provider);
        if (provider->upstream)
            upstream_fini(provider->upstream);
    }
    auth->provider_count = 0;
    consumers_unref(auth->consumers);
    auth->consumers = NULL;
}

const struct auth_provider *auth_provider_named(const struct auth *auth, struct str name)
{
    for (uint32_t i = 0; i < auth->provider_count; i++)
        if (str_eq(auth->providers[i]->name, name))
            return auth->providers[i];
    return NULL;
}

uint32_t auth_upstreams(const struct auth *auth, struct upstream **upstreams, uint32_t max)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < auth->provider_count && count < max; i++)
        if (auth->providers[i]->upstream)
            upstreams[count++] = auth->providers[i]->upstream;
    return count;
}
