// Who calls: the providers of a route's any_of are asked in turn, in the order of the file. The first that
// knows the caller decides, and the caller must then have what `require` names.
//
//   nobody knows the caller:  one could not say     503: never 401, never let in
//                             one said no           its denial, on an optional route too
//                             no credentials        401, or on without an identity
#include "policy/policy.h"

// One exchange's way through the providers; in its arena, kept by call->state while it waits.
struct asking {
    struct auth_call call;
    uint32_t next;                                // of any_of
    const struct auth_provider *denier, *unheard; // the first to say no, the first without an answer
    enum end_cause cause;                         // the denier's
    struct str detail, challenge, unheard_detail;
    struct str own_challenges[]; // of each of any_of: what a service wants to hear from who says nothing
};

static const struct auth_provider *provider_at(const struct policy_call *call, uint32_t i)
{
    const struct route_auth_settings *settings = call->settings;
    return call->providers->providers[settings->indices[i]];
}

static struct asking *begin(const struct policy_call *call)
{
    const struct route_auth_settings *settings = call->settings;
    struct asking *asking =
        arena_zalloc(call->arena, sizeof *asking + settings->any_of.count * sizeof(struct str));
    asking->call = (struct auth_call){
        .request = call->request,
        .tls = call->tls,
        .client = call->client,
        .scheme = call->scheme,
        .request_id = call->request_id,
        .arena = call->arena,
        .now_s = call->now_s,
        .ticket = call->ticket,
    };
    return asking;
}

// ---- 401 and 503 ----

static struct str scheme_of(struct str challenge)
{
    return (struct str){challenge.p, str_find(challenge, ' ')};
}

// One of each scheme is enough: what a client does about it depends on that (RFC 9110 11.3).
static void add_challenge(struct policy_call *call, struct str challenge)
{
    struct headers *headers = &call->answer.headers;
    if (!challenge.n)
        return;
    for (uint32_t i = 0; i < headers->count; i++)
        if (str_eq_fold(scheme_of(headers->v[i].value), scheme_of(challenge)))
            return;
    headers_add(headers, call->arena, STR("WWW-Authenticate"), challenge);
}

static void add_challenges(struct policy_call *call, const struct asking *asking)
{
    const struct route_auth_settings *settings = call->settings;
    if (asking->denier) {
        add_challenge(call, asking->challenge);
        add_challenge(call, auth_challenge(asking->denier));
    }
    for (uint32_t i = 0; i < settings->any_of.count; i++)
        add_challenge(call, asking->own_challenges[i]);
    for (uint32_t i = 0; i < settings->any_of.count; i++)
        add_challenge(call, auth_challenge(provider_at(call, i)));
}

static enum verdict refuse(struct policy_call *call, enum end_cause cause, struct str detail)
{
    call->cause = cause;
    call->detail = detail;
    return FAIL;
}

static enum verdict nobody_knows(struct policy_call *call, const struct asking *asking)
{
    const struct route_auth_settings *settings = call->settings;
    if (asking->unheard)
        return refuse(call, END_AUTH_UNAVAILABLE, asking->unheard_detail);
    if (!asking->denier && settings->optional)
        return PASS;
    enum end_cause cause = asking->denier ? asking->cause : END_NO_CREDENTIALS;
    if (end_row(cause)->status == 401)
        add_challenges(call, asking);
    return refuse(call, cause, asking->detail);
}

// ---- what a caller must have ----

// What is missing, in words; n == 0: nothing is.
static struct str missing(const struct str_list *wanted, enum auth_match match, const struct str_list *held,
                          const char *kind, struct arena *arena)
{
    uint32_t absent = 0, first = 0;
    for (uint32_t i = wanted->count; i-- > 0;)
        if (!str_list_has(held, wanted->v[i])) {
            absent++;
            first = i;
        }
    if (!absent || (match == AUTH_MATCH_ANY && absent < wanted->count))
        return STR_NULL;
    if (match == AUTH_MATCH_ANY && wanted->count > 1)
        return arena_printf(arena, "one of the %ss %.*s is needed", kind,
                            STR_ARG(str_list_join(wanted, STR(", "), arena)));
    return arena_printf(arena, "the %s %.*s is missing", kind, STR_ARG(wanted->v[first]));
}

// RFC 6750 3.1: what a bearer's token lacks. Scopes hold neither quotes nor backslashes (RFC 6749 3.3).
static void add_wanted_scopes(struct policy_call *call, const struct auth_provider *provider)
{
    const struct route_auth_settings *settings = call->settings;
    if (str_eq_fold(scheme_of(auth_challenge(provider)), STR("Bearer")))
        headers_add(&call->answer.headers, call->arena, STR("WWW-Authenticate"),
                    arena_printf(call->arena, "Bearer error=\"insufficient_scope\", scope=\"%.*s\"",
                                 STR_ARG(str_list_join(&settings->scopes, STR(" "), call->arena))));
}

// provider: that knows the caller.
static enum verdict require(struct policy_call *call, const struct auth_provider *provider)
{
    const struct route_auth_settings *settings = call->settings;
    const struct identity *identity = call->identity;
    struct str detail = missing(&settings->scopes, (enum auth_match)settings->scopes_match, &identity->scopes,
                                "scope", call->arena);
    if (detail.n) {
        add_wanted_scopes(call, provider);
        return refuse(call, END_INSUFFICIENT_SCOPE, detail);
    }
    detail = missing(&settings->roles, (enum auth_match)settings->roles_match, &identity->roles, "role",
                     call->arena);
    return detail.n ? refuse(call, END_INSUFFICIENT_ROLE, detail) : PASS;
}

// ---- the way ----

static void note_denial(struct asking *asking, const struct auth_provider *provider)
{
    if (asking->denier)
        return;
    asking->denier = provider;
    asking->cause = asking->call.cause;
    asking->detail = asking->call.detail;
    asking->challenge = asking->call.challenge;
}

static void note_silence(struct asking *asking, const struct auth_provider *provider)
{
    if (asking->unheard)
        return;
    asking->unheard = provider;
    asking->unheard_detail = asking->call.detail;
}

static enum verdict authenticate(struct policy_call *call)
{
    const struct route_auth_settings *settings = call->settings;
    struct asking *asking = call->again ? call->state : begin(call);
    struct auth_call *question = &asking->call;
    question->now_us = call->now_us;
    for (; asking->next < settings->any_of.count; asking->next++) {
        const struct auth_provider *provider = provider_at(call, asking->next);
        switch (auth_ask(call->auth, provider, question)) {
        case AUTH_NONE: asking->own_challenges[asking->next] = question->challenge; break;
        case AUTH_ALLOW: call->identity = question->identity; return require(call, provider);
        case AUTH_DENY: note_denial(asking, provider); break;
        case AUTH_WAIT:
            call->state = asking;
            call->wait_ms = (question->wait_us + 999) / 1000;
            return WAIT;
        case AUTH_UNAVAILABLE:
        case AUTH_RESULTS: note_silence(asking, provider); break;
        }
    }
    return nobody_knows(call, asking);
}

static void forget(struct policy_call *call)
{
    struct asking *asking = call->state;
    auth_forget(call->auth, &asking->call);
}

const struct policy policy_auth = {.name = "auth", .on_request = authenticate, .on_forget = forget};

// ---- what goes no further ----

// The credentials of the providers that were not needed are not for services either.
static enum verdict conceal(struct policy_call *call)
{
    const struct route_auth_settings *settings = call->settings;
    struct auth_call known = {.request = call->request, .arena = call->arena};
    for (uint32_t i = 0; call->identity && i < settings->any_of.count; i++)
        auth_conceal(provider_at(call, i), &known);
    return PASS;
}

const struct policy policy_conceal = {.name = "conceal", .on_request = conceal};
