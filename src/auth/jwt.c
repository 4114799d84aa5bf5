// Tokens that are verified here: JSON Web Tokens, with the keys that an Auth Service publishes or with a
// secret.
//
//   ask ─▶ cache ─known─▶ answer                                      no allocation, no OpenSSL
//            └─▶ token_parse ─▶ token_verify ─▶ token_judge ─▶ identity ─▶ cache
//                                   └─unknown key─▶ jwks_want ─▶ wait for the fetch ─▶ ask again
//
// A token that does not say which key signed it and that none verifies may be of one that is not fetched yet:
// it is treated like a kid that is unknown.
//
// A token is accepted until its exp + leeway, and never after: so long is its decision fresh. What is cached
// belongs to one version of the key set: with a new one every token is verified again.
#include "auth/provider.h"

#include "net/tls.h"

enum {
    // An attacker, or a client that is stuck, sends one bad token again and again: it costs one verification
    // in so long.
    NEGATIVE_MS = 5000,
    WAITERS_MAX = 16384, // for keys, a worker and provider
};

// One exchange that waits for keys, in its arena.
struct waiter {
    struct list node; // of auth_local.waiting; in none: woken
    struct auth_local *local;
    struct ticket ticket;
    uint64_t give_up_us;
};

struct question {
    struct auth_worker *worker;
    const struct auth_provider *provider;
    const struct jwt_settings *settings;
    struct auth_call *call;
    struct auth_local *local;
    struct str token;
    uint64_t version; // in force when it was asked
    struct hash128 key;
};

static void count(const struct question *question, enum provider_counter counter)
{
    metrics_provider(question->worker->needs.metrics, question->provider->id, counter);
}

// ---- answers ----

static enum auth_result refuse(struct auth_call *call, enum token_fault fault, struct str missing)
{
    enum end_cause cause = fault == TOKEN_EXPIRED ? END_EXPIRED_TOKEN : END_INVALID_TOKEN;
    struct str detail = token_fault_words(fault);
    if (fault == TOKEN_MISSING_CLAIM && missing.n)
        detail = arena_printf(call->arena, "%.*s: %.*s", STR_ARG(detail), STR_ARG(missing));
    return auth_deny(call, cause, detail, "invalid_token");
}

static enum auth_result allow(struct auth_call *call, struct identity *identity)
{
    if (auth_is_revoked(identity, call->now_s))
        return auth_deny(call, END_REVOKED_TOKEN, STR_NULL, "invalid_token");
    call->identity = identity_ref(identity);
    return AUTH_ALLOW;
}

static enum auth_result give_up(struct auth_call *call)
{
    call->detail = STR("the keys of the Auth Service cannot be had");
    return AUTH_UNAVAILABLE;
}

// ---- the cache ----

// Which keys and which settings a decision was made with.
static uint64_t version_of(const struct auth_provider *provider, uint64_t keys_version)
{
    return provider->fingerprint ^ keys_version * 0x9e3779b97f4a7c15; // odd: every version gives another one
}

static uint64_t version_in_force(const struct auth_provider *provider)
{
    return version_of(provider, provider->jwks ? jwks_version(provider->jwks) : 0);
}

static struct hash128 key_of(uint64_t version, struct str token)
{
    return siphash128(siphash_process_key(), version, token);
}

static bool look_up(const struct question *question, enum auth_result *result)
{
    struct auth_call *call = question->call;
    const struct auth_decision *decision =
        auth_cache_find(question->worker->cache, question->key, call->now_s * 1000);
    if (!decision) // nothing is kept beyond its time (keep)
        return false;
    count(question, decision->identity ? COUNT_CACHE_HIT : COUNT_CACHE_NEGATIVE);
    *result = decision->identity ? allow(call, decision->identity) : refuse(call, decision->why, STR_NULL);
    return true;
}

static void keep(const struct question *question, struct auth_decision decision)
{
    uint64_t version = question->local->keys_version;
    decision.key = version == question->version ? question->key : key_of(version, question->token);
    decision.stale_until_ms = decision.fresh_until_ms;
    auth_cache_put(question->worker->cache, &decision);
}

static void keep_denial_for(const struct question *question, enum token_fault fault, int64_t ms)
{
    keep(question, (struct auth_decision){.cause = END_INVALID_TOKEN,
                                          .why = fault,
                                          .fresh_until_ms = question->call->now_s * 1000 + ms});
}

// Not for longer than it is in force: a token that is not valid yet may be at any moment.
static void keep_denial(const struct question *question, enum token_fault fault)
{
    if (fault != TOKEN_NOT_YET)
        keep_denial_for(question, fault, NEGATIVE_MS);
}

// ---- judging ----

static struct token_keys *keys_of(const struct auth_provider *provider, uint64_t *version)
{
    *version = 0;
    if (provider->jwks)
        return jwks_keys(provider->jwks, version);
    return provider->keys ? token_keys_ref(provider->keys) : NULL;
}

// The keys in force, made ready; NULL: there are none.
static struct token_verifier *verifier_of(const struct question *question)
{
    struct auth_local *local = question->local;
    const struct auth_provider *provider = question->provider;
    uint64_t version;
    if (local->verifier && local->keys_version == version_in_force(provider))
        return local->verifier;
    token_verifier_free(local->verifier);
    local->verifier = NULL;
    struct token_keys *keys = keys_of(provider, &version);
    local->keys_version = version_of(provider, version);
    if (keys)
        local->verifier = token_verifier_new(keys, tls_library(question->worker->needs.tls_slot));
    token_keys_unref(keys);
    return local->verifier;
}

static struct identity *make_identity(const struct question *question, const struct token *token,
                                      const struct token_facts *found, int64_t leeway_s)
{
    const struct jwt_settings *settings = question->settings;
    struct arena *arena = question->call->arena;
    struct identity_facts facts = {
        .provider = question->provider,
        .revocable = settings->revocation,
        .subject = found->subject,
        .issuer = found->issuer,
        .jti = found->jti,
        .issued_at = found->issued_at,
        .expires = found->expires,
        .leeway_s = leeway_s,
        .claims = token->claims,
    };
    // Which may be missing: who has no roles gets nowhere that asks for one.
    if (settings->roles_claim.n)
        (void)identity_claim_list(token->claims, settings->roles_claim, arena, &facts.roles);
    if (settings->scopes_claim.n)
        (void)identity_claim_list(token->claims, settings->scopes_claim, arena, &facts.scopes);
    if (settings->consumer_claim.n)
        (void)identity_claim_text(token->claims, settings->consumer_claim, arena, &facts.consumer);
    return identity_new(question->provider->auth, &facts);
}

static enum auth_result admit(const struct question *question, const struct token *token,
                              const struct token_facts *facts, int64_t leeway_s)
{
    struct identity *identity = make_identity(question, token, facts, leeway_s);
    if (!identity)
        return auth_deny(question->call, END_INVALID_TOKEN, STR("the token says too much"), "invalid_token");
    bool ends = facts->expires != INT64_MAX;
    keep(question, (struct auth_decision){
                       .identity = identity,
                       .fresh_until_ms = ends ? (facts->expires + leeway_s) * 1000 : INT64_MAX,
                   });
    enum auth_result result = allow(question->call, identity);
    identity_unref(identity);
    return result;
}

struct token_rules auth_jwt_rules(const struct jwt_settings *settings)
{
    return (struct token_rules){
        .issuer = settings->issuer,
        .audiences = settings->audiences.v,
        .audience_count = settings->audiences.count,
        .required = settings->required_claims.v,
        .required_count = settings->required_claims.count,
        .leeway_s = settings->leeway_us / 1000000,
    };
}

// A token whose signature is good.
static enum auth_result judge(const struct question *question, const struct token *token)
{
    const struct jwt_settings *settings = question->settings;
    const struct token_rules rules = auth_jwt_rules(settings);
    struct token_facts facts;
    struct str missing;
    enum token_fault fault = token_judge(token, &rules, question->call->now_s, &facts, &missing);
    if (fault == TOKEN_GOOD)
        return admit(question, token, &facts, (int64_t)rules.leeway_s);
    keep_denial(question, fault);
    return refuse(question->call, fault, missing);
}

// ---- waiting for keys ----

static struct waiter *waiter_of(const struct question *question)
{
    struct auth_call *call = question->call;
    if (call->state)
        return call->state;
    struct waiter *waiter = arena_new(call->arena, struct waiter);
    list_init(&waiter->node);
    waiter->local = question->local;
    waiter->ticket = call->ticket;
    waiter->give_up_us = question->worker->needs.loop->now_us + question->settings->jwks.timeout_us;
    call->state = waiter;
    return waiter;
}

static enum auth_result wait_for_keys(const struct question *question)
{
    struct auth_local *local = question->local;
    uint64_t now_us = question->worker->needs.loop->now_us;
    struct waiter *waiter = waiter_of(question);
    if (now_us >= waiter->give_up_us)
        return give_up(question->call);
    if (list_empty(&waiter->node)) {
        if (local->waiting_count >= WAITERS_MAX)
            return give_up(question->call);
        list_push_back(&local->waiting, &waiter->node);
        local->waiting_count++;
    }
    question->call->wait_us = waiter->give_up_us - now_us;
    return AUTH_WAIT;
}

// No other keys can be had for now. What cost a signature check is remembered until they may be asked for.
static enum auth_result refuse_for_now(const struct question *question, enum token_fault fault)
{
    int64_t cooldown_ms = (int64_t)(question->settings->jwks.cooldown_us / 1000);
    if (fault == TOKEN_BAD_SIGNATURE)
        keep_denial_for(question, fault, cooldown_ms < NEGATIVE_MS ? cooldown_ms : NEGATIVE_MS);
    return refuse(question->call, fault, STR_NULL);
}

// fault: what the keys in force say of the token; TOKEN_GOOD: there are none.
static enum auth_result want_keys(const struct question *question, enum token_fault fault)
{
    if (!question->provider->jwks)
        return fault ? refuse(question->call, fault, STR_NULL) : give_up(question->call);
    switch (jwks_want(question->provider->jwks)) {
    case JWKS_WAIT: return wait_for_keys(question);
    case JWKS_KNOWN:
        if (fault)
            return refuse_for_now(question, fault);
        break;
    case JWKS_FAILED: break;
    }
    return give_up(question->call);
}

static void stop_waiting(struct waiter *waiter)
{
    if (list_empty(&waiter->node))
        return;
    list_remove(&waiter->node);
    waiter->local->waiting_count--;
}

static void forget(struct auth_worker *worker, struct auth_call *call)
{
    (void)worker;
    if (call->state)
        stop_waiting(call->state);
    call->state = NULL;
}

// Who is woken may end others, and may wait again.
static void wake_all(struct auth_local *local)
{
    const struct auth_worker_needs *needs = &local->worker->needs;
    struct list woken;
    list_init(&woken);
    list_move_all(&local->waiting, &woken);
    while (!list_empty(&woken)) {
        struct waiter *waiter = container_of(woken.next, struct waiter, node);
        stop_waiting(waiter);
        needs->wake(needs->context, waiter->ticket);
    }
}

void auth_on_keys_fetched(struct jwks_listener *listener)
{
    struct auth_worker *worker = container_of(listener, struct auth_worker, keys_fetched);
    for (uint32_t id = 0; id < worker->local_count; id++)
        if (worker->locals[id])
            wake_all(worker->locals[id]);
}

// ---- the row ----

static enum auth_result verify_with(const struct question *question, struct token_verifier *verifier,
                                    const struct token *token)
{
    enum token_fault fault = token_verify(verifier, token, question->settings->algorithms);
    if (fault == TOKEN_GOOD)
        return judge(question, token);
    bool may_be_new = fault == TOKEN_BAD_SIGNATURE && !token->kid.n && question->provider->jwks;
    if (fault == TOKEN_UNKNOWN_KEY || may_be_new)
        return want_keys(question, fault);
    if (fault == TOKEN_BAD_SIGNATURE)
        keep_denial(question, fault);
    return refuse(question->call, fault, STR_NULL);
}

static enum auth_result verify(const struct question *question)
{
    struct token token;
    enum auth_result result;
    enum token_fault fault = token_parse(question->token, question->call->arena, &token);
    if (fault != TOKEN_GOOD)
        return refuse(question->call, fault, STR_NULL);
    do {
        struct token_verifier *verifier = verifier_of(question);
        result = verifier ? verify_with(question, verifier, &token) : want_keys(question, TOKEN_GOOD);
        // Keys that came while these were looked at may be the ones.
    } while (result != AUTH_ALLOW && question->local->keys_version != version_in_force(question->provider));
    return result;
}

static struct str find(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider;
    return auth_find_bearer(call->request);
}

static enum auth_result ask(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str token)
{
    uint64_t version = version_in_force(provider);
    const struct question question = {
        .worker = worker,
        .provider = provider,
        .settings = &provider->settings->jwt,
        .call = call,
        .local = auth_local_of(worker, provider),
        .token = token,
        .version = version,
        .key = key_of(version, token),
    };
    enum auth_result result;
    if (!look_up(&question, &result)) {
        result = verify(&question);
        if (result == AUTH_WAIT)
            return result;
        count(&question, COUNT_CACHE_MISS);
    }
    forget(worker, call);
    return result;
}

static void conceal(const struct auth_provider *provider, struct auth_call *call)
{
    if (!provider->settings->jwt.forward_token)
        headers_remove(&call->request->headers, HEADER_AUTHORIZATION);
}

static bool compile(struct auth_provider *provider, const struct auth_sources *sources, struct arena *arena,
                    struct err *err)
{
    const struct jwt_settings *settings = &provider->settings->jwt;
    (void)arena;
    provider->challenge = STR(AUTH_BEARER);
    if (settings->secret.n)
        return (provider->keys = token_keys_secret(settings->secret, err));
    if (sources->tls_slots) // else it is only looked at
        provider->jwks = jwks_open(provider->name, settings);
    return true;
}

static void fini(struct auth_provider *provider)
{
    token_keys_unref(provider->keys);
    if (provider->jwks)
        jwks_close(provider->jwks);
}

const struct auth_kind_row auth_jwt = {
    .name = "jwt",
    .find = find,
    .ask = ask,
    .conceal = conceal,
    .forget = forget,
    .compile = compile,
    .fini = fini,
};
