// POST /token: what a client may have, and the tokens that say so (RFC 6749, RFC 9068).
#include "auth_service/service.h"

#include "base/clock.h"

struct issue {
    const struct client_settings *client;
    const struct user_settings *user; // NULL: for the client itself
    struct str scope, audience;       // audience n == 0: the client's, or tokens'
    struct vault_entry *family;       // of a refresh
    enum service_counter counter;
};

// Of the asked scopes those that are allowed; asked n == 0: all. *denied: one was not.
static struct str pick_scopes(struct serve_client *c, const struct issue *issue, struct str asked,
                              bool *denied)
{
    struct str scope = STR_NULL, word;
    *denied = false;
    if (!asked.n) {
        for (uint32_t i = 0; i < issue->client->scopes.count; i++) {
            word = issue->client->scopes.v[i];
            if (!issue->user || str_list_has(&issue->user->scopes, word))
                scope =
                    arena_printf(&c->arena, "%.*s%s%.*s", STR_ARG(scope), scope.n ? " " : "", STR_ARG(word));
        }
        return scope;
    }
    while (form_next_word(&asked, &word)) {
        if (!str_list_has(&issue->client->scopes, word) ||
            (issue->user && !str_list_has(&issue->user->scopes, word)))
            *denied = true;
        else if (!form_has_word(scope, word))
            scope = arena_printf(&c->arena, "%.*s%s%.*s", STR_ARG(scope), scope.n ? " " : "", STR_ARG(word));
    }
    return scope;
}

static void print_list(struct json *json, const char *name, const struct str_list *list)
{
    if (!list->count)
        return;
    json_key(json, str_of(name));
    json_array(json);
    for (uint32_t i = 0; i < list->count; i++)
        json_string(json, list->v[i]);
    json_array_end(json);
}

static void print_audience(struct json *json, const struct auth_service_settings *settings,
                           const struct issue *issue)
{
    const struct str_list *all =
        issue->client->audiences.count ? &issue->client->audiences : &settings->tokens.audiences;
    if (issue->audience.n)
        json_field_string(json, "aud", issue->audience);
    else if (all->count == 1)
        json_field_string(json, "aud", all->v[0]);
    else
        print_list(json, "aud", all);
}

static void print_claims(struct json *json, const struct str_map *claims, const struct str_map *others)
{
    for (uint32_t i = 0; i < claims->count; i++) {
        bool is_there = false;
        for (uint32_t j = 0; others && j < others->count; j++)
            is_there |= str_eq(others->v[j].name, claims->v[i].name);
        if (is_there)
            continue;
        json_key(json, claims->v[i].name);
        json_string(json, claims->v[i].value);
    }
}

static struct str claims_of(struct serve_client *c, const struct issue *issue, const char *jti, int64_t now_s,
                            int64_t expires)
{
    const struct auth_service_settings *settings = &service_of(c)->config->settings;
    struct buf text = {0};
    struct json json;
    json_init(&json, &text, false);
    json_object(&json);
    json_field_string(&json, "iss", settings->issuer);
    json_field_string(&json, "sub", issue->user ? issue->user->name : issue->client->id);
    json_field_string(&json, "client_id", issue->client->id);
    print_audience(&json, settings, issue);
    json_field_u64(&json, "iat", (uint64_t)now_s);
    json_field_u64(&json, "nbf", (uint64_t)now_s);
    json_field_u64(&json, "exp", (uint64_t)expires);
    json_field_string(&json, "jti", str_of(jti));
    if (issue->scope.n)
        json_field_string(&json, "scope", issue->scope);
    print_list(&json, "roles", issue->user ? &issue->user->roles : &issue->client->roles);
    if (issue->user)
        print_claims(&json, &issue->user->claims, NULL);
    print_claims(&json, &issue->client->claims, issue->user ? &issue->user->claims : NULL);
    json_object_end(&json);
    struct str claims = arena_copy(&c->arena, buf_str(&text));
    buf_free(&text);
    return claims;
}

static struct str access_token(struct serve_client *c, const struct issue *issue, struct str claims,
                               int64_t expires)
{
    struct service *service = service_of(c);
    const struct auth_service_settings *settings = &service->config->settings;
    if (issue->client->token_format == TOKEN_FORMAT_OPAQUE) {
        char token[VAULT_TOKEN_TEXT];
        bool good = vault_add_opaque(&service->vault, claims, expires, token);
        service_changed(service);
        return good ? arena_copy(&c->arena, str_of(token)) : STR_NULL;
    }
    int bit = issue->client->algorithm ? issue->client->algorithm : settings->tokens.algorithm;
    struct token_signer *signer =
        keyring_signer(&service->keys, auth_algorithm_of((enum auth_algorithm)bit), clock_wall_us() / 1000);
    return signer ? token_sign(signer, STR("at+jwt"), claims, &c->arena) : STR_NULL;
}

// The refresh token; n == 0: none is due. *family is where it belongs.
static struct str refresh_token(struct serve_client *c, struct issue *issue, int64_t now_s)
{
    struct service *service = service_of(c);
    uint64_t own_us = issue->client->refresh_us;
    uint64_t us = own_us ? own_us : service->config->settings.tokens.refresh_us;
    int64_t expires = now_s + (int64_t)(us / 1000000);
    char token[VAULT_TOKEN_TEXT];
    if (!(issue->client->grants & GRANT_REFRESH_TOKEN))
        return STR_NULL;
    if (issue->family) {
        vault_renew(&service->vault, issue->family, expires, token);
    } else {
        issue->family = vault_begin_family(
            &service->vault,
            &(struct vault_grant){.client = issue->client->id,
                                  .subject = issue->user ? issue->user->name : issue->client->id,
                                  .scope = issue->scope,
                                  .audience = issue->audience,
                                  .is_user = issue->user != NULL,
                                  .expires = expires},
            token);
        if (!issue->family)
            return STR_NULL;
    }
    service_changed(service);
    return arena_copy(&c->arena, str_of(token));
}

static void give(struct serve_client *c, struct issue *issue)
{
    struct service *service = service_of(c);
    uint64_t own_us = issue->client->access_us;
    uint64_t us = own_us ? own_us : service->config->settings.tokens.access_us;
    int64_t now_s = service_now_s(), life_s = (int64_t)(us / 1000000);
    char jti[VAULT_JTI];
    vault_new_jti(jti);
    struct str claims = claims_of(c, issue, jti, now_s, now_s + life_s);
    struct str access = access_token(c, issue, claims, now_s + life_s);
    if (!access.n) {
        reply_retry(c, 503, STR("temporarily_unavailable"), 5);
        return;
    }
    struct str refresh = refresh_token(c, issue, now_s);
    if (issue->family)
        vault_note_access(&service->vault, issue->family, str_of(jti), now_s + life_s);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "access_token", access);
    json_field_string(&json, "token_type", STR("Bearer"));
    json_field_u64(&json, "expires_in", (uint64_t)life_s);
    if (refresh.n)
        json_field_string(&json, "refresh_token", refresh);
    if (issue->scope.n)
        json_field_string(&json, "scope", issue->scope);
    json_object_end(&json);
    service->counts[issue->counter]++;
    serve_reply_json(c, 200, &body);
}

// Empty: none by name.
static bool may_have_audience(struct serve_client *c, const struct client_settings *client,
                              struct str audience)
{
    const struct str_list *all =
        client->audiences.count ? &client->audiences : &service_of(c)->config->settings.tokens.audiences;
    if (!audience.n || str_list_has(all, audience))
        return true;
    reply_oauth_error(c, 400, STR("invalid_target"), STR("the client may not have tokens for this audience"));
    return false;
}

// The audience asked for, by one of two names (RFC 8707).
static bool take_audience(struct serve_client *c, struct issue *issue, const struct form *form)
{
    struct str asked = form_get(form, STR("audience"));
    issue->audience = asked.n ? asked : form_get(form, STR("resource"));
    return may_have_audience(c, issue->client, issue->audience);
}

static void give_new(struct serve_client *c, struct issue *issue, const struct form *form)
{
    bool denied;
    if (!take_audience(c, issue, form))
        return;
    issue->scope = pick_scopes(c, issue, form_get(form, STR("scope")), &denied);
    if (denied)
        reply_oauth_error(c, 400, STR("invalid_scope"), STR("a scope is unknown or not allowed"));
    else
        give(c, issue);
}

static void by_client(struct serve_client *c, const struct client_settings *client, const struct form *form)
{
    struct issue issue = {.client = client, .counter = COUNT_CLIENT_CREDENTIALS};
    give_new(c, &issue, form);
}

static void on_user(struct serve_client *c, const struct client_settings *client,
                    const struct user_settings *user, const struct form *form)
{
    struct issue issue = {.client = client, .user = user, .counter = COUNT_PASSWORD};
    give_new(c, &issue, form);
}

static void by_password(struct serve_client *c, const struct client_settings *client, const struct form *form)
{
    if (form_get(form, STR("username")).n && form_get(form, STR("password")).n)
        authenticate_user(c, client, form, on_user);
    else
        reply_oauth_error(c, 400, STR("invalid_request"), STR("username and password are needed"));
}

static void by_refresh(struct serve_client *c, const struct client_settings *client, const struct form *form)
{
    struct service *service = service_of(c);
    struct issue issue = {.client = client, .counter = COUNT_REFRESH_TOKEN};
    struct str token = form_get(form, STR("refresh_token")), asked = form_get(form, STR("scope")), word;
    int64_t now_s = service_now_s();
    bool is_current, denied;
    struct vault_entry *family = vault_find_family(&service->vault, token, now_s, &is_current);
    if (!family || !str_eq(family->client, client->id)) {
        reply_oauth_error(c, 400, STR("invalid_grant"), STR("the refresh token is not valid"));
        return;
    }
    if (family->is_user)
        issue.user = map_get(&service->config->users, family->subject);
    if (!is_current || (family->is_user && !issue.user)) {
        service->counts[COUNT_REUSED]++;
        vault_end_family(&service->vault, family, now_s);
        service_changed(service);
        reply_oauth_error(c, 400, STR("invalid_grant"), STR("the refresh token is not valid any more"));
        return;
    }
    for (struct str rest = asked; form_next_word(&rest, &word);)
        if (!form_has_word(family->scope, word)) {
            reply_oauth_error(c, 400, STR("invalid_scope"), STR("more than what was granted at first"));
            return;
        }
    if (!may_have_audience(c, client, family->audience)) // any more
        return;
    issue.family = family;
    issue.audience = arena_copy(&c->arena, family->audience);
    struct str want = asked.n ? asked : family->scope;
    if (want.n) // what has been taken away since is left out
        issue.scope = pick_scopes(c, &issue, want, &denied);
    give(c, &issue);
}

static void on_client(struct serve_client *c, const struct client_settings *client, const struct form *form)
{
    static const struct {
        struct str name;
        enum auth_grant grant;
        void (*give)(struct serve_client *c, const struct client_settings *client, const struct form *form);
    } grants[] = {
        {STR("client_credentials"), GRANT_CLIENT_CREDENTIALS, by_client},
        {STR("refresh_token"), GRANT_REFRESH_TOKEN, by_refresh},
        {STR("password"), GRANT_PASSWORD, by_password},
    };
    struct str type = form_get(form, STR("grant_type"));
    for (size_t i = 0; i < countof(grants); i++) {
        if (!str_eq(grants[i].name, type))
            continue;
        if (client->grants & grants[i].grant)
            grants[i].give(c, client, form);
        else
            reply_oauth_error(c, 400, STR("unauthorized_client"), STR("the client may not use this grant"));
        return;
    }
    if (type.n)
        reply_oauth_error(c, 400, STR("unsupported_grant_type"), STR("this grant is not offered"));
    else
        reply_oauth_error(c, 400, STR("invalid_request"), STR("grant_type is missing"));
}

void handle_token(struct serve_client *c)
{
    authenticate_client(c, on_client);
}
