// Tokens that say nothing by themselves: the Auth Service is asked about each (RFC 7662).
//
// Only `"active": true` lets a token through and only `"active": false` (or what it says of exp, iss and aud)
// refuses it. Any other answer is no decision: a service that fails must not look like a token that is bad.
#include "auth/question.h"

#include "base/base64.h"

// ---- asking ----

static bool is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '*';
}

// application/x-www-form-urlencoded (RFC 6749 B). out has room for three times as much. Returns its end.
static char *encode_form(struct str s, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (is_plain(c)) {
            *out++ = (char)c;
        } else if (c == ' ') {
            *out++ = '+';
        } else {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        }
    }
    return out;
}

static char *put(char *out, struct str s)
{
    return mempcpy(out, s.p, s.n);
}

// Who the gateway is to the service (RFC 6749 2.3.1).
static struct str basic_credentials(const struct introspection_settings *settings, struct arena *arena)
{
    const struct str scheme = STR("Basic ");
    char *plain = arena_alloc(arena, 3 * settings->client_id.n + 1 + 3 * settings->client_secret.n);
    char *end = encode_form(settings->client_id, plain);
    *end++ = ':';
    end = encode_form(settings->client_secret, end);
    size_t n = (size_t)(end - plain);
    char *value = arena_alloc(arena, scheme.n + (n + 2) / 3 * 4);
    end = put(value, scheme);
    end += base64_encode((const uint8_t *)plain, n, end);
    return str_range(value, end);
}

static void compose(const struct auth_provider *provider, const struct auth_call *call, struct str token,
                    struct arena *arena, struct fetch_request *request)
{
    const struct introspection_settings *settings = &provider->settings->introspection;
    const struct str before = STR("token="), after = STR("&token_type_hint=access_token");
    (void)call;
    struct headers *headers = arena_new(arena, struct headers);
    headers_add_as(headers, arena, HEADER_AUTHORIZATION, STR("Authorization"),
                   basic_credentials(settings, arena));
    headers_add(headers, arena, STR("Accept"), STR("application/json"));
    headers_add_as(headers, arena, HEADER_CONTENT_TYPE, STR("Content-Type"),
                   STR("application/x-www-form-urlencoded"));
    char *body = arena_alloc(arena, before.n + 3 * token.n + after.n);
    char *end = put(encode_form(token, put(body, before)), after);
    request->method = METHOD_POST;
    request->repeatable = true;
    request->target = settings->uri.target;
    request->authority = settings->uri.authority;
    request->headers = headers;
    request->body = str_range(body, end);
}

// ---- reading ----

struct answer {
    struct str subject, issuer, jti;
    int64_t expires, issued_at;
    const struct json_value *audience; // NULL: none
};

// Of a member that may be missing, but not be anything else.
static bool take_text(const struct json_value *claims, struct str name, struct str *text)
{
    const struct json_value *value = json_get(claims, name);
    if (!value || value->kind == JSON_NULL)
        return true;
    *text = value->text;
    return json_is_string(value);
}

static bool take_time(const struct json_value *claims, struct str name, int64_t *time)
{
    const struct json_value *value = json_get(claims, name);
    return !value || value->kind == JSON_NULL || json_integer(value, time);
}

static bool is_audience(const struct json_value *value)
{
    if (!value || json_is_string(value))
        return true;
    if (value->kind != JSON_ARRAY)
        return false;
    for (const struct json_value *each = value->first; each; each = each->next)
        if (!json_is_string(each))
            return false;
    return true;
}

static bool read_answer(const struct json_value *claims, struct answer *answer)
{
    struct str user = STR_NULL, client = STR_NULL;
    *answer = (struct answer){.expires = INT64_MAX, .issued_at = INT64_MIN};
    answer->audience = json_get(claims, STR("aud"));
    if (!take_text(claims, STR("sub"), &answer->subject) || !take_text(claims, STR("username"), &user) ||
        !take_text(claims, STR("client_id"), &client) || !take_text(claims, STR("iss"), &answer->issuer) ||
        !take_text(claims, STR("jti"), &answer->jti) || !take_time(claims, STR("exp"), &answer->expires) ||
        !take_time(claims, STR("iat"), &answer->issued_at) || !is_audience(answer->audience))
        return false;
    if (!answer->subject.n)
        answer->subject = user.n ? user : client;
    return true;
}

static bool is_meant(const struct str_list *audiences, const struct json_value *audience)
{
    if (!audiences->count)
        return true;
    if (json_is_string(audience))
        return str_list_has(audiences, audience->text);
    for (const struct json_value *each = audience ? audience->first : NULL; each; each = each->next)
        if (str_list_has(audiences, each->text))
            return true;
    return false;
}

static void refuse(struct question_finding *finding, enum end_cause cause, struct str detail)
{
    finding->decided = true;
    finding->cause = cause;
    finding->detail = detail;
}

static struct identity *make_identity(const struct auth_provider *provider, const struct json_value *claims,
                                      const struct answer *answer, struct arena *arena)
{
    const struct introspection_settings *settings = &provider->settings->introspection;
    struct identity_facts facts = {
        .provider = provider,
        .revocable = settings->revocation,
        .subject = answer->subject,
        .issuer = answer->issuer,
        .jti = answer->jti,
        .issued_at = answer->issued_at,
        .expires = answer->expires,
        .claims = claims,
    };
    // Which may be missing.
    if (settings->roles_claim.n)
        (void)identity_claim_list(claims, settings->roles_claim, arena, &facts.roles);
    if (settings->scopes_claim.n)
        (void)identity_claim_list(claims, settings->scopes_claim, arena, &facts.scopes);
    if (settings->consumer_claim.n)
        (void)identity_claim_text(claims, settings->consumer_claim, arena, &facts.consumer);
    return identity_new(provider->auth, &facts);
}

static void judge_active(const struct auth_provider *provider, const struct json_value *claims, int64_t now_s,
                         struct arena *arena, struct question_finding *finding)
{
    const struct introspection_settings *settings = &provider->settings->introspection;
    struct answer answer;
    if (!read_answer(claims, &answer)) {
        finding->why = "a member of the answer is of the wrong type";
    } else if (answer.expires <= now_s) {
        refuse(finding, END_EXPIRED_TOKEN, STR_NULL);
    } else if (settings->issuer.n && answer.issuer.n && !str_eq(answer.issuer, settings->issuer)) {
        refuse(finding, END_INVALID_TOKEN, STR("the token is of another issuer"));
    } else if (!is_meant(&settings->audiences, answer.audience)) {
        refuse(finding, END_INVALID_TOKEN, STR("the token is meant for another audience"));
    } else if (!(finding->identity = make_identity(provider, claims, &answer, arena))) {
        refuse(finding, END_INVALID_TOKEN, STR("the token says too much"));
    } else {
        finding->decided = true;
        finding->expires = answer.expires;
    }
}

static void judge(const struct auth_provider *provider, const struct fetch_answer *answer, int64_t now_s,
                  struct arena *arena, struct question_finding *finding)
{
    if (answer->status == 401 || answer->status == 403) {
        finding->why = "it refuses the gateway: look at client_id and client_secret";
        return;
    }
    if (answer->status != 200) {
        finding->why = "its status is not 200";
        return;
    }
    const struct json_value *claims = json_parse(answer->body, arena, &finding->why);
    if (!claims)
        return;
    const struct json_value *active = json_get(claims, STR("active"));
    if (!active || (active->kind != JSON_TRUE && active->kind != JSON_FALSE))
        finding->why = "the answer does not say whether the token is active";
    else if (active->kind == JSON_FALSE)
        refuse(finding, END_INVALID_TOKEN, STR("the token is not active"));
    else
        judge_active(provider, claims, now_s, arena, finding);
}

static const struct question_kind question = {.compose = compose, .judge = judge};

// ---- the row ----

static bool compile(struct auth_provider *provider, const struct auth_sources *sources, struct arena *arena,
                    struct err *err)
{
    (void)sources, (void)arena, (void)err;
    provider->challenge = STR(AUTH_BEARER);
    return true;
}

static struct str find(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider;
    return auth_find_bearer(call->request);
}

static enum auth_result ask(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str token)
{
    const struct introspection_settings *settings = &provider->settings->introspection;
    if (call->state)
        return question_again(worker, provider, call);
    if (token.n > TOKEN_BYTES)
        return auth_deny(call, END_INVALID_TOKEN, STR("the token is too long"), "invalid_token");
    struct hash128 key = siphash128(siphash_process_key(), provider->fingerprint, token);
    const struct question_asked asked = {
        .kind = &question,
        .cache = &settings->cache,
        .timeout_us = settings->timeout_us,
        .credentials = token,
        .key = key,
        .same = key,
    };
    return question_ask(worker, provider, call, &asked);
}

static void conceal(const struct auth_provider *provider, struct auth_call *call)
{
    if (!provider->settings->introspection.forward_token)
        headers_remove(&call->request->headers, HEADER_AUTHORIZATION);
}

const struct auth_kind_row auth_introspection = {
    .name = "introspection",
    .find = find,
    .ask = ask,
    .conceal = conceal,
    .forget = question_forget,
    .compile = compile,
};
