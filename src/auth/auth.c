// One question to one provider: what all kinds have in common.
#include "auth/deny.h"
#include "auth/provider.h"

const struct str auth_garbled = {"garbled", 7};

// ---- asking ----

// WAIT is no answer yet: the one that follows is counted.
static void count(const struct auth_worker *worker, const struct auth_provider *provider,
                  enum auth_result result)
{
    static const enum provider_counter counters[AUTH_RESULTS] = {
        [AUTH_NONE] = COUNT_AUTH_NONE,
        [AUTH_ALLOW] = COUNT_AUTH_ALLOW,
        [AUTH_DENY] = COUNT_AUTH_DENY,
        [AUTH_UNAVAILABLE] = COUNT_AUTH_ERROR,
    };
    if (result != AUTH_WAIT)
        metrics_provider(worker->needs.metrics, provider->id, counters[result]);
}

enum auth_result auth_ask(struct auth_worker *worker, const struct auth_provider *provider,
                          struct auth_call *call)
{
    call->identity = NULL;
    call->cause = END_OK;
    call->detail = call->challenge = STR_NULL;
    call->wait_us = 0;
    enum auth_result result = AUTH_NONE;
    struct str credentials = provider->kind->find(provider, call);
    if (credentials.p == auth_garbled.p)
        result = auth_deny(call, END_INVALID_TOKEN, STR("the Authorization field is malformed, or repeated"),
                           "invalid_token");
    else if (credentials.n)
        result = provider->kind->ask(worker, provider, call, credentials);
    call->waits_for = result == AUTH_WAIT ? provider : NULL;
    count(worker, provider, result);
    return result;
}

void auth_conceal(const struct auth_provider *provider, struct auth_call *call)
{
    if (provider->kind->conceal)
        provider->kind->conceal(provider, call);
}

// ---- bearer tokens ----

// Sixteen bytes at once: every byte of every request's token is looked at.
typedef uint8_t chunk __attribute__((vector_size(16)));

// Which of them no token holds (RFC 6750 2.1): all but letters, digits and - . _ ~ + /
static chunk misfits(chunk c)
{
    chunk letter = (c | 0x20) - 'a', digit = c - '-'; // - . / and the digits follow each other
    return ~((letter < 26) | (digit <= '9' - '-') | (c == '_') | (c == '~') | (c == '+'));
}

// b64token: padding at the end only.
static bool is_b64token(struct str text)
{
    while (text.n && text.p[text.n - 1] == '=')
        text.n--;
    chunk bad = {0}, c;
    size_t at = 0;
    for (; at + sizeof c <= text.n; at += sizeof c) {
        memcpy(&c, text.p + at, sizeof c);
        bad |= misfits(c);
    }
    memset(&c, 'a', sizeof c);
    memcpy(&c, text.p + at, text.n - at);
    bad |= misfits(c);
    uint64_t halves[2];
    memcpy(halves, &bad, sizeof halves);
    return text.n && !(halves[0] | halves[1]);
}

static struct str read_bearer(struct str value)
{
    size_t space = str_find(value, ' ');
    struct str scheme = {value.p, space};
    if (!str_eq_fold(scheme, STR("Bearer")))
        return header_name_valid(scheme) ? STR_NULL : auth_garbled; // a scheme is a token (RFC 9110 11.1)
    struct str token = str_skip(value, space);
    while (token.n && token.p[0] == ' ')
        token = str_skip(token, 1);
    return is_b64token(token) ? token : auth_garbled;
}

struct str auth_find_bearer(const struct request_head *request)
{
    const struct header *only = NULL;
    for (uint32_t i = 0; i < request->headers.count; i++) {
        const struct header *header = &request->headers.v[i];
        if (header->id != HEADER_AUTHORIZATION)
            continue;
        if (only)
            return auth_garbled;
        only = header;
    }
    return only ? read_bearer(only->value) : STR_NULL;
}

// ---- refusing ----

// error_description takes printable ASCII without '"' and '\' (RFC 6750 3).
static struct str describe(struct str text, struct arena *arena)
{
    char *out = arena_alloc(arena, text.n);
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        out[i] = c < ' ' || c > '~' ? '?' : c == '"' || c == '\\' ? '\'' : c;
    }
    return (struct str){out, text.n};
}

enum auth_result auth_deny(struct auth_call *call, enum end_cause cause, struct str detail, const char *error)
{
    call->cause = cause;
    call->detail = detail.n ? detail : end_row(cause)->detail;
    if (error)
        call->challenge = arena_printf(call->arena, AUTH_BEARER ", error=\"%s\", error_description=\"%.*s\"",
                                       error, STR_ARG(describe(call->detail, call->arena)));
    return AUTH_DENY;
}

struct str auth_challenge(const struct auth_provider *provider)
{
    return provider->challenge;
}

// ---- what was good before ----

bool auth_is_revoked(struct identity *identity, int64_t now_s)
{
    if (!identity->revocable)
        return false;
    uint64_t version = deny_version();
    if (identity->deny_version == version)
        return false;
    if (deny_has(identity->issuer, identity->jti, identity->subject, identity->issued_at, now_s))
        return true;
    identity->deny_version = version;
    return false;
}

bool auth_still_good(struct identity *identity, int64_t now_s, enum end_cause *cause)
{
    if (now_s >= identity->expires)
        *cause = END_EXPIRED_TOKEN;
    else if (auth_is_revoked(identity, now_s))
        *cause = END_REVOKED_TOKEN;
    else
        return true;
    return false;
}
