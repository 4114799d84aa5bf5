// config/examples: what they say of an Auth Service's tokens, held against tokens as it makes them.
// Signatures aside.
#include "test_config_fixture.h"

#include "auth/provider.h"
#include "exchange/gateway_config.h"

#include <stdio.h>
#include <stdlib.h>

enum { NOW = 1790000000 };

static const struct jwt_settings *load(struct fixture *fixture, const char *name)
{
    static struct gateway_settings settings;
    static char text[65536];
    struct str path = arena_printf(&fixture->arena, "config/examples/%s.yaml", name);
    FILE *file = fopen(path.p, "r");
    if (!file) // run by hand, in the build's folder
        file = fopen(arena_printf(&fixture->arena, "../%s", path.p).p, "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof text, file);
    fclose(file);
    setenv("GATEWAY_SECRET", "gateway-secret", 1);
    if (!gateway_settings_load(path, (struct str){text, n}, &fixture->arena, &settings, &fixture->report))
        fail_msg("%s", take_report(fixture));
    const struct auth_settings *providers = settings.auth.v;
    assert_int_equal(providers[0].kind, AUTH_JWT);
    return &providers[0].jwt;
}

// What a jwt provider makes of claims whose signature is good.
static enum token_fault judge(const struct jwt_settings *settings, struct fixture *fixture,
                              const char *header, const char *claims, struct token *token)
{
    const char *why;
    struct token_facts facts;
    struct str missing;
    *token = (struct token){
        .header = json_parse(str_of(header), &fixture->arena, &why),
        .claims = json_parse(str_of(claims), &fixture->arena, &why),
    };
    assert_non_null(token->header);
    assert_non_null(token->claims);
    const struct token_rules rules = auth_jwt_rules(settings);
    return token_judge(token, &rules, NOW, &facts, &missing);
}

static const char *list(const struct token *token, struct str path, struct fixture *fixture)
{
    struct str_list list = {0};
    struct str text = STR("");
    (void)identity_claim_list(token->claims, path, &fixture->arena, &list);
    for (uint32_t i = 0; i < list.count; i++)
        text = arena_printf(&fixture->arena, "%s%s%.*s", text.p, i ? "," : "", STR_ARG(list.v[i]));
    return text.p;
}

static const struct example {
    const char *name, *header, *claims;
    enum token_fault fault;
    const char *roles, *scopes, *consumer;
} examples[] = {
    {"keycloak", "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"a\"}",
     "{\"exp\":1790000300,\"iat\":1790000000,\"jti\":\"onrtac:1\",\"iss\":\"https://id.example.com/realms/"
     "shop\","
     "\"aud\":[\"orders-api\",\"account\"],\"sub\":\"7c1f2b1e-1\",\"typ\":\"Bearer\",\"azp\":\"web\","
     "\"realm_access\":{\"roles\":[\"offline_access\",\"shop-admin\"]},"
     "\"resource_access\":{\"account\":{\"roles\":[\"view-profile\"]}},\"scope\":\"openid email profile\","
     "\"preferred_username\":\"ann\"}",
     TOKEN_GOOD, "offline_access,shop-admin", "openid,email,profile", "web"},
    // An ID token: for the client that asked.
    {"keycloak", "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"a\"}",
     "{\"exp\":1790000300,\"iat\":1790000000,\"iss\":\"https://id.example.com/realms/shop\",\"aud\":\"web\","
     "\"sub\":\"7c1f2b1e-1\",\"typ\":\"ID\",\"azp\":\"web\"}",
     TOKEN_BAD_AUDIENCE, NULL, NULL, NULL},
    // Without the audience mapper.
    {"keycloak", "{\"alg\":\"RS256\",\"typ\":\"JWT\"}",
     "{\"exp\":1790000300,\"iss\":\"https://id.example.com/realms/shop\",\"aud\":\"account\"}",
     TOKEN_BAD_AUDIENCE, NULL, NULL, NULL},
    {"keycloak", "{\"alg\":\"RS256\",\"typ\":\"JWT\"}",
     "{\"exp\":1790000300,\"iss\":\"https://id.example.com/realms/other\",\"aud\":\"orders-api\"}",
     TOKEN_BAD_ISSUER, NULL, NULL, NULL},
    {"auth0", "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"a\"}",
     "{\"https://orders.example.com/roles\":[\"admin\",\"buyer\"],\"https://orders.example.com/"
     "tenant\":\"acme\","
     "\"iss\":\"https://example.eu.auth0.com/\",\"sub\":\"auth0|5f7c8e\","
     "\"aud\":[\"https://orders.example.com\",\"https://example.eu.auth0.com/userinfo\"],\"iat\":1790000000,"
     "\"exp\":1790086400,\"azp\":\"cLiEnT\",\"scope\":\"openid read:orders\","
     "\"permissions\":[\"read:orders\",\"write:orders\"]}",
     TOKEN_GOOD, "admin,buyer", "read:orders,write:orders", "cLiEnT"},
    // RFC 9068, which Auth0 makes when the API asks for that dialect.
    {"auth0", "{\"alg\":\"RS256\",\"typ\":\"at+jwt\"}",
     "{\"iss\":\"https://example.eu.auth0.com/\",\"aud\":\"https://orders.example.com\",\"exp\":1790086400,"
     "\"client_id\":\"c\",\"permissions\":[]}",
     TOKEN_GOOD, "", "", ""},
    // The issuer without its slash is another one.
    {"auth0", "{\"alg\":\"RS256\",\"typ\":\"JWT\"}",
     "{\"iss\":\"https://example.eu.auth0.com\",\"aud\":\"https://orders.example.com\",\"exp\":1790086400}",
     TOKEN_BAD_ISSUER, NULL, NULL, NULL},
    {"cognito", "{\"alg\":\"RS256\",\"kid\":\"a\"}",
     "{\"sub\":\"aaaa-bbbb\",\"cognito:groups\":[\"admins\"],"
     "\"iss\":\"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example00\",\"version\":2,"
     "\"client_id\":\"1example\",\"origin_jti\":\"o\",\"token_use\":\"access\",\"scope\":\"orders/read "
     "orders/write\","
     "\"auth_time\":1790000000,\"exp\":1790003600,\"iat\":1790000000,\"jti\":\"j\",\"username\":\"ann\"}",
     TOKEN_GOOD, "admins", "orders/read,orders/write", "1example"},
    // An ID token.
    {"cognito", "{\"alg\":\"RS256\",\"kid\":\"a\"}",
     "{\"sub\":\"aaaa-bbbb\",\"aud\":\"1example\",\"cognito:groups\":[\"admins\"],"
     "\"iss\":\"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example00\",\"token_use\":\"id\","
     "\"exp\":1790003600,\"iat\":1790000000,\"cognito:username\":\"ann\",\"email\":\"ann@example.com\"}",
     TOKEN_MISSING_CLAIM, NULL, NULL, NULL},
    {"sallyport-auth", "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"a\"}",
     "{\"iss\":\"http://127.0.0.1:9400\",\"sub\":\"shop\",\"client_id\":\"shop\",\"aud\":\"orders-api\","
     "\"exp\":1790000600,\"iat\":1790000000,\"nbf\":1790000000,\"jti\":\"j\","
     "\"scope\":\"orders:read orders:write\",\"roles\":[\"gold\"],\"tenant\":\"acme\"}",
     TOKEN_GOOD, "gold", "orders:read,orders:write", "shop"},
};

static void test_tokens_as_they_are_made(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < countof(examples); i++) {
        const struct example *example = &examples[i];
        const struct jwt_settings *settings = load(fixture, example->name);
        struct token token;
        struct str consumer = STR("");
        enum token_fault fault = judge(settings, fixture, example->header, example->claims, &token);
        if (fault != example->fault)
            fail_msg("%s, row %zu: %.*s", example->name, i, STR_ARG(token_fault_words(fault)));
        if (fault != TOKEN_GOOD)
            continue;
        (void)identity_claim_text(token.claims, settings->consumer_claim, &fixture->arena, &consumer);
        assert_string_equal(list(&token, settings->roles_claim, fixture), example->roles);
        assert_string_equal(list(&token, settings->scopes_claim, fixture), example->scopes);
        assert_true(str_eq(consumer, str_of(example->consumer)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens_as_they_are_made, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
