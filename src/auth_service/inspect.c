// What a token is, taking one back, and whether a request may pass: RFC 7662, RFC 7009, /authorize.
#include "auth_service/service.h"

#include "base/log.h"
#include "http/uri.h"

// By the family that it belongs to.
static bool is_denied(struct serve_client *c, struct str claims, int64_t now_s)
{
    const char *why;
    const struct json_value *object = claims.n ? json_parse(claims, &c->arena, &why) : NULL;
    const struct json_value *jti = json_get(object, STR("jti"));
    return !json_is_string(jti) || vault_is_denied(&service_of(c)->vault, jti->text, now_s);
}

// The claims of a good access token as a JSON object, n == 0: it is none.
static struct str good_claims(struct serve_client *c, struct str text)
{
    struct service *service = service_of(c);
    struct token token;
    struct token_facts facts;
    struct str missing;
    struct token_rules rules = {.issuer = service->config->settings.issuer};
    int64_t now_s = service_now_s();
    struct str opaque =
        text.n < VAULT_TOKEN_TEXT ? vault_find_opaque(&service->vault, text, now_s) : STR_NULL;
    if (opaque.n || !text.n)
        return is_denied(c, opaque, now_s) ? STR_NULL : opaque;
    if (token_parse(text, &c->arena, &token) != TOKEN_GOOD ||
        keyring_verify(&service->keys, &token) != TOKEN_GOOD ||
        token_judge(&token, &rules, now_s, &facts, &missing) != TOKEN_GOOD || !facts.jti.n ||
        vault_is_denied(&service->vault, facts.jti, now_s))
        return STR_NULL;
    return token.payload;
}

// How long a gateway may keep what it was told of a token: five minutes, if its own ttl says so, and not
// beyond the token's end. With no-store it would ask about each request, and let nobody in while this service
// restarts.
static struct serve_field freshness(struct serve_client *c, const struct json_value *claims)
{
    enum { MAX_AGE_S = 300 };
    int64_t expires, age_s = MAX_AGE_S, now_s = service_now_s();
    if (json_integer(json_get(claims, STR("exp")), &expires) && expires - now_s < age_s)
        age_s = expires > now_s ? expires - now_s : 0;
    return (struct serve_field){STR("Cache-Control"),
                                arena_printf(&c->arena, "max-age=%lld", (long long)age_s)};
}

// ---- /introspect ----

static void reply_token(struct serve_client *c, struct str body, const struct json_value *claims)
{
    const struct serve_field field = freshness(c, claims);
    serve_reply_with(c, &(struct serve_answer){.status = 200,
                                               .type = STR("application/json"),
                                               .body = body,
                                               .fields = &field,
                                               .field_count = 1});
}

static void reply_active(struct serve_client *c, struct str claims)
{
    const char *why;
    struct str members = str_skip(claims, 1); // ours: an object with members, and neither of these two
    struct str body =
        arena_printf(&c->arena, "{\"active\":true,\"token_type\":\"Bearer\",%.*s", STR_ARG(members));
    reply_token(c, body, json_parse(claims, &c->arena, &why));
}

static bool reply_family(struct serve_client *c, const struct client_settings *client, struct str text)
{
    bool is_current;
    const struct vault_entry *family =
        vault_find_family(&service_of(c)->vault, text, service_now_s(), &is_current);
    if (!family || !is_current || !str_eq(family->client, client->id))
        return false;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_bool(&json, "active", true);
    json_field_string(&json, "token_type", STR("refresh_token"));
    json_field_string(&json, "client_id", family->client);
    json_field_string(&json, "sub", family->subject);
    json_field_string(&json, "iss", service_of(c)->config->settings.issuer);
    if (family->scope.n)
        json_field_string(&json, "scope", family->scope);
    json_field_u64(&json, "exp", (uint64_t)family->expires);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
    return true;
}

static void introspect(struct serve_client *c, const struct client_settings *client, const struct form *form)
{
    struct str text = form_get(form, STR("token"));
    if (!text.n) {
        reply_oauth_error(c, 400, STR("invalid_request"), STR("token is missing"));
        return;
    }
    struct str claims = good_claims(c, text);
    if (claims.n)
        reply_active(c, claims);
    else if (!reply_family(c, client, text))
        reply_token(c, STR("{\"active\":false}\n"), NULL);
}

void handle_introspect(struct serve_client *c)
{
    authenticate_client(c, introspect);
}

// ---- /revoke ----

// RFC 7009 2.1: a client's own tokens only; what is none is no error (2.2).
static bool revoke_access(struct serve_client *c, const struct client_settings *client, struct str text)
{
    struct service *service = service_of(c);
    struct str claims = good_claims(c, text);
    const char *why;
    const struct json_value *object = claims.n ? json_parse(claims, &c->arena, &why) : NULL;
    const struct json_value *owner = json_get(object, STR("client_id")), *jti = json_get(object, STR("jti"));
    int64_t expires;
    if (!json_is_string(owner) || !str_eq(owner->text, client->id) || !json_is_string(jti) ||
        !json_integer(json_get(object, STR("exp")), &expires))
        return true;
    if (!vault_deny(&service->vault, jti->text, expires))
        return false;
    if (text.n < VAULT_TOKEN_TEXT)
        vault_revoke_opaque(&service->vault, text);
    service->counts[COUNT_REVOKED]++;
    service_changed(service);
    return true;
}

static void revoke(struct serve_client *c, const struct client_settings *client, const struct form *form)
{
    struct service *service = service_of(c);
    struct str text = form_get(form, STR("token"));
    bool is_current;
    if (!text.n) {
        reply_oauth_error(c, 400, STR("invalid_request"), STR("token is missing"));
        return;
    }
    struct vault_entry *family = vault_find_family(&service->vault, text, service_now_s(), &is_current);
    if (family && str_eq(family->client, client->id)) {
        vault_end_family(&service->vault, family, service_now_s());
        service->counts[COUNT_REVOKED]++;
        service_changed(service);
    } else if (!revoke_access(c, client, text)) {
        reply_retry(c, 503, STR("temporarily_unavailable"), 60);
        return;
    }
    serve_reply(c, 200, STR_NULL, STR_NULL);
}

void handle_revoke(struct serve_client *c)
{
    authenticate_client(c, revoke);
}

// ---- /authorize ----

struct asked { // the request that a gateway asks about
    struct str method, path;
    const struct json_value *claims;
};

static bool fits(const struct rule_settings *rule, const struct asked *asked)
{
    struct str path = asked->path;
    bool is_root = str_eq(rule->path, STR("/"));
    bool is_inside =
        is_root || (str_starts(path, rule->path) && (path.n == rule->path.n || path.p[rule->path.n] == '/' ||
                                                     str_ends(rule->path, STR("/"))));
    // Who may not GET may not know by HEAD what there is: without a rule that fits, anybody may.
    struct str method = str_eq(asked->method, STR("HEAD")) ? STR("GET") : asked->method;
    bool is_method = !rule->methods.count;
    for (uint32_t i = 0; i < rule->methods.count; i++)
        is_method |= str_eq(rule->methods.v[i], asked->method) || str_eq(rule->methods.v[i], method);
    return is_inside && is_method;
}

static bool has_role(const struct json_value *claims, struct str role)
{
    const struct json_value *roles = json_get(claims, STR("roles"));
    for (const struct json_value *each = roles ? roles->first : NULL; each; each = each->next)
        if (str_eq(each->text, role))
            return true;
    return false;
}

static struct str scope_of(const struct json_value *claims)
{
    const struct json_value *scope = json_get(claims, STR("scope"));
    return json_is_string(scope) ? scope->text : STR_NULL;
}

// NULL: it may pass; else what it lacks.
static const char *lacks(const struct auth_service_settings *settings, const struct asked *asked,
                         struct str *scope)
{
    const struct rule_settings *rules = settings->rules.v, *rule = NULL;
    for (uint32_t i = 0; i < settings->rules.count && !rule; i++)
        if (fits(&rules[i], asked))
            rule = &rules[i];
    *scope = STR_NULL;
    for (uint32_t i = 0; rule && i < rule->scopes.count; i++)
        if (!form_has_word(scope_of(asked->claims), rule->scopes.v[i])) {
            *scope = rule->scopes.v[i];
            return "insufficient_scope";
        }
    bool is_in = !rule || !rule->roles.count;
    for (uint32_t i = 0; rule && i < rule->roles.count; i++)
        is_in |= has_role(asked->claims, rule->roles.v[i]);
    return is_in ? NULL : "insufficient_role";
}

static void refuse(struct serve_client *c, unsigned status, const char *code, struct str challenge)
{
    serve_reply_problem(c, &(struct serve_problem){.status = status,
                                                   .code = str_of(code),
                                                   .detail = STR("the request may not pass"),
                                                   .authenticate = challenge});
}

// A token that is bad stays so: whoever sends it again and again need not be asked about each time. With
// rules nothing is kept (handle_authorize).
static void refuse_token(struct serve_client *c)
{
    bool has_rules = service_of(c)->config->settings.rules.count;
    serve_reply_problem(
        c, &(struct serve_problem){.status = 401,
                                   .code = STR("invalid_token"),
                                   .detail = STR("the request may not pass"),
                                   .authenticate = STR("Bearer realm=\"sallyport\", error=\"invalid_token\""),
                                   .cache = has_rules ? STR_NULL : STR("max-age=5")});
}

static struct str join_roles(struct serve_client *c, const struct json_value *claims)
{
    const struct json_value *roles = json_get(claims, STR("roles"));
    struct str joined = STR_NULL;
    for (const struct json_value *each = roles ? roles->first : NULL; each; each = each->next)
        joined =
            arena_printf(&c->arena, "%.*s%s%.*s", STR_ARG(joined), joined.n ? "," : "", STR_ARG(each->text));
    return joined;
}

static struct str join_scopes(struct serve_client *c, const struct json_value *claims)
{
    struct str rest = scope_of(claims), word, joined = STR_NULL;
    while (form_next_word(&rest, &word))
        joined = arena_printf(&c->arena, "%.*s%s%.*s", STR_ARG(joined), joined.n ? "," : "", STR_ARG(word));
    return joined;
}

// The path of X-Forwarded-Uri in the form that rules are written in.
static bool take_path(struct serve_client *c, struct str *path)
{
    struct str uri = headers_value(&c->request.headers, HEADER_X_FORWARDED_URI);
    const char *why;
    uri.n = str_find(uri, '?');
    if (!uri.n)
        uri = STR("/");
    return uri.p[0] == '/' && uri_normalise_path(uri, false, &c->arena, path, &why) == URI_OK;
}

void handle_authorize(struct serve_client *c)
{
    const struct auth_service_settings *settings = &service_of(c)->config->settings;
    struct str text = form_bearer(headers_value(&c->request.headers, HEADER_AUTHORIZATION)), scope;
    struct asked asked = {.method = headers_value(&c->request.headers, HEADER_X_FORWARDED_METHOD)};
    const char *why;
    if (!text.n) {
        refuse(c, 401, "no_credentials", STR("Bearer realm=\"sallyport\""));
        return;
    }
    struct str claims = good_claims(c, text);
    asked.claims = claims.n ? json_parse(claims, &c->arena, &why) : NULL;
    const struct json_value *subject = json_get(asked.claims, STR("sub"));
    if (!json_is_string(subject)) {
        refuse_token(c);
        return;
    }
    const struct json_value *client = json_get(asked.claims, STR("client_id"));
    c->subject = subject->text;
    c->consumer = json_is_string(client) ? client->text : STR_NULL;
    const char *lack = take_path(c, &asked.path) ? lacks(settings, &asked, &scope) : "denied_by_auth_service";
    if (lack && str_eq(str_of(lack), STR("insufficient_scope"))) {
        refuse(c, 403, lack,
               arena_printf(&c->arena,
                            "Bearer realm=\"sallyport\", error=\"insufficient_scope\", scope=\"%.*s\"",
                            STR_ARG(scope)));
    } else if (lack) {
        refuse(c, 403, lack, STR_NULL);
    } else {
        struct serve_field fields[4] = {{STR("X-User-Id"), subject->text}};
        struct str roles = join_roles(c, asked.claims), scopes = join_scopes(c, asked.claims);
        unsigned count = 1;
        if (roles.n)
            fields[count++] = (struct serve_field){STR("X-User-Roles"), roles};
        if (scopes.n)
            fields[count++] = (struct serve_field){STR("X-User-Scopes"), scopes};
        // With rules the answer depends on more than the token: nothing to keep by that alone.
        if (!settings->rules.count)
            fields[count++] = freshness(c, asked.claims);
        serve_reply_with(c, &(struct serve_answer){.status = 200, .fields = fields, .field_count = count});
    }
}
