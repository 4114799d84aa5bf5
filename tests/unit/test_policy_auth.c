// The policy between a route and its providers, which are rows of this file's own here: each says what the
// test tells it to.
#include "auth/provider.h"
#include "policy/policy.h"

#include "unit.h"

enum { PROVIDERS = 4, WORDS = 4 };

// What a provider says, one word a question; the last one for ever.
struct script {
    enum auth_result words[WORDS];
    uint32_t at;
    enum end_cause cause;
    const char *detail, *challenge;
    struct identity *identity;
    unsigned asked, concealed, forgotten;
};

struct bench {
    struct arena arena;
    struct script scripts[PROVIDERS];
    struct auth_provider providers[PROVIDERS];
    struct auth_provider *list[PROVIDERS];
    struct auth auth;
    struct metrics *metrics;
    struct auth_worker worker;
    uint32_t indices[PROVIDERS];
    struct str names[PROVIDERS];
    struct route_auth_settings settings;
    struct request_head request;
    struct policy_call call;
    struct identity identity;
};

static struct bench *current;

static struct script *script_of(const struct auth_provider *provider)
{
    return &current->scripts[provider - current->providers];
}

static struct str find(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider, (void)call;
    return STR("credentials");
}

static enum auth_result say(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials)
{
    (void)worker, (void)credentials;
    struct script *script = script_of(provider);
    enum auth_result word = script->words[script->at];
    script->at += script->at + 1 < WORDS && script->words[script->at + 1];
    script->asked++;
    call->detail = str_of(script->detail);
    call->challenge = str_of(script->challenge);
    call->cause = script->cause;
    call->state = word == AUTH_WAIT ? script : NULL;
    call->wait_us = 1500;
    if (word == AUTH_ALLOW)
        call->identity = identity_ref(script->identity);
    return word;
}

static void conceal(const struct auth_provider *provider, struct auth_call *call)
{
    (void)call;
    script_of(provider)->concealed++;
}

static void forget(struct auth_worker *worker, struct auth_call *call)
{
    (void)worker;
    struct script *script = call->state;
    script->forgotten++;
    call->state = NULL;
}

static const struct auth_kind_row kind = {
    .name = "script", .find = find, .ask = say, .conceal = conceal, .forget = forget};

// A provider for each first word given; any_of takes them all, the last of the configuration first.
static void open_bench(struct bench *b, uint32_t count)
{
    *b = (struct bench){.metrics = metrics_new()};
    current = b;
    arena_init(&b->arena, NULL);
    for (uint32_t i = 0; i < count; i++) {
        b->providers[i] = (struct auth_provider){.kind = &kind, .auth = &b->auth};
        b->list[i] = &b->providers[i];
        b->indices[i] = count - 1 - i;
        b->scripts[i].identity = &b->identity;
    }
    b->auth = (struct auth){.providers = b->list, .provider_count = count};
    b->worker.needs.metrics = b->metrics;
    b->identity = (struct identity){.references = 1, .expires = INT64_MAX};
    b->settings = (struct route_auth_settings){
        .any_of = {b->names, count}, .indices = b->indices, .roles_match = AUTH_MATCH_ANY};
    b->call = (struct policy_call){.settings = &b->settings,
                                   .request = &b->request,
                                   .arena = &b->arena,
                                   .auth = &b->worker,
                                   .providers = &b->auth,
                                   .ticket = {1, 7}};
}

static void close_bench(struct bench *b)
{
    assert_int_equal(b->identity.references, b->call.identity ? 2 : 1);
    arena_reset(&b->arena);
    metrics_free(b->metrics);
}

// The i-th that is asked.
static struct script *nth(struct bench *b, uint32_t i)
{
    return &b->scripts[b->indices[i]];
}

static void set_challenge(struct bench *b, uint32_t i, const char *challenge)
{
    b->providers[b->indices[i]].challenge = str_of(challenge);
}

static enum verdict ask(struct bench *b)
{
    enum verdict verdict = policy_auth.on_request(&b->call);
    b->call.again = verdict == WAIT;
    return verdict;
}

static void assert_text(struct str text, const char *expected)
{
    if (!str_eq(text, str_of(expected)))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(text), expected);
}

// All of WWW-Authenticate, "|" between them.
static void assert_challenges(struct bench *b, const char *expected)
{
    struct str out = STR("");
    const struct headers *headers = &b->call.answer.headers;
    for (uint32_t i = 0; i < headers->count; i++) {
        assert_text(headers->v[i].name, "WWW-Authenticate");
        out = arena_printf(&b->arena, "%.*s%s%.*s", STR_ARG(out), i ? "|" : "", STR_ARG(headers->v[i].value));
    }
    assert_text(out, expected);
}

// ---- who decides ----

static void test_order(void **state)
{
    (void)state;
    static const struct {
        enum auth_result words[3];
        bool optional;
        enum verdict verdict;
        enum end_cause cause;
        unsigned asked; // how many of the three
    } rows[] = {
        {{AUTH_ALLOW, AUTH_DENY, AUTH_DENY}, false, PASS, END_OK, 1},
        {{AUTH_NONE, AUTH_ALLOW, AUTH_DENY}, false, PASS, END_OK, 2},
        {{AUTH_DENY, AUTH_UNAVAILABLE, AUTH_ALLOW}, false, PASS, END_OK, 3},
        {{AUTH_NONE, AUTH_NONE, AUTH_NONE}, false, FAIL, END_NO_CREDENTIALS, 3},
        {{AUTH_NONE, AUTH_NONE, AUTH_NONE}, true, PASS, END_OK, 3},
        // Bad credentials are refused on an optional route too; the first denial is told.
        {{AUTH_NONE, AUTH_DENY, AUTH_NONE}, true, FAIL, END_EXPIRED_TOKEN, 3},
        {{AUTH_NONE, AUTH_DENY, AUTH_DENY}, false, FAIL, END_EXPIRED_TOKEN, 3},
        {{AUTH_DENY, AUTH_DENY, AUTH_NONE}, false, FAIL, END_INVALID_TOKEN, 3},
        // Who cannot say might have allowed.
        {{AUTH_DENY, AUTH_UNAVAILABLE, AUTH_NONE}, false, FAIL, END_AUTH_UNAVAILABLE, 3},
        {{AUTH_UNAVAILABLE, AUTH_NONE, AUTH_NONE}, true, FAIL, END_AUTH_UNAVAILABLE, 3},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct bench b;
        open_bench(&b, 3);
        b.settings.optional = rows[i].optional;
        for (uint32_t k = 0; k < 3; k++) {
            nth(&b, k)->words[0] = rows[i].words[k];
            nth(&b, k)->cause = k ? END_EXPIRED_TOKEN : END_INVALID_TOKEN;
        }
        assert_int_equal(ask(&b), rows[i].verdict);
        assert_int_equal(b.call.cause, rows[i].cause);
        for (uint32_t k = 0; k < 3; k++)
            assert_int_equal(nth(&b, k)->asked, k < rows[i].asked);
        bool anonymous = rows[i].cause || rows[i].optional;
        assert_ptr_equal(b.call.identity, anonymous ? NULL : &b.identity);
        // What nobody is told is in the cause's row.
        assert_null(b.call.state);
        assert_int_equal(b.call.answer.status, 0);
        close_bench(&b);
    }
}

static void test_details(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 3);
    nth(&b, 0)->words[0] = AUTH_DENY, nth(&b, 0)->detail = "first";
    nth(&b, 0)->cause = END_DENIED_BY_AUTH_SERVICE;
    nth(&b, 1)->words[0] = AUTH_DENY, nth(&b, 1)->detail = "second";
    nth(&b, 2)->words[0] = AUTH_NONE, nth(&b, 2)->detail = "third";
    set_challenge(&b, 1, "Bearer realm=\"r\"");
    assert_int_equal(ask(&b), FAIL);
    assert_text(b.call.detail, "first");
    assert_challenges(&b, ""); // 403
    close_bench(&b);
    open_bench(&b, 2);
    nth(&b, 0)->words[0] = AUTH_DENY, nth(&b, 0)->detail = "first";
    nth(&b, 1)->words[0] = AUTH_UNAVAILABLE, nth(&b, 1)->detail = "second";
    assert_int_equal(ask(&b), FAIL);
    assert_text(b.call.detail, "second");
    close_bench(&b);
}

// ---- 401 ----

static void test_challenges_without_credentials(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 4);
    set_challenge(&b, 0, "Bearer realm=\"a\"");
    set_challenge(&b, 1, "bearer realm=\"b\""); // the same scheme
    set_challenge(&b, 2, "ApiKey realm=\"c\"");
    nth(&b, 3)->challenge = "Basic realm=\"the service's own\""; // comes first
    assert_int_equal(ask(&b), FAIL);
    assert_int_equal(b.call.cause, END_NO_CREDENTIALS);
    assert_challenges(&b, "Basic realm=\"the service's own\"|Bearer realm=\"a\"|ApiKey realm=\"c\"");
    close_bench(&b);
}

static void test_challenges_of_a_denial(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 3);
    set_challenge(&b, 0, "Bearer realm=\"a\"");
    set_challenge(&b, 1, "ApiKey realm=\"b\"");
    nth(&b, 1)->words[0] = AUTH_DENY;
    nth(&b, 1)->cause = END_INVALID_KEY;
    nth(&b, 2)->words[0] = AUTH_DENY;
    nth(&b, 2)->cause = END_INVALID_TOKEN;
    nth(&b, 2)->challenge = "Bearer error=\"second\"";
    assert_int_equal(ask(&b), FAIL);
    assert_int_equal(b.call.cause, END_INVALID_KEY);
    assert_challenges(&b, "ApiKey realm=\"b\"|Bearer realm=\"a\"");
    close_bench(&b);
    open_bench(&b, 1);
    set_challenge(&b, 0, "Bearer realm=\"a\"");
    nth(&b, 0)->words[0] = AUTH_DENY;
    nth(&b, 0)->cause = END_INVALID_TOKEN;
    nth(&b, 0)->challenge = "Bearer realm=\"a\", error=\"invalid_token\"";
    assert_int_equal(ask(&b), FAIL);
    assert_challenges(&b, "Bearer realm=\"a\", error=\"invalid_token\"");
    close_bench(&b);
}

// ---- waiting ----

static void test_waits_and_goes_on(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 3);
    nth(&b, 0)->words[0] = AUTH_DENY, nth(&b, 0)->cause = END_INVALID_TOKEN;
    nth(&b, 1)->words[0] = AUTH_WAIT, nth(&b, 1)->words[1] = AUTH_WAIT;
    nth(&b, 1)->words[2] = AUTH_UNAVAILABLE;
    nth(&b, 2)->words[0] = AUTH_WAIT, nth(&b, 2)->words[1] = AUTH_ALLOW;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(&b), WAIT);
        assert_int_equal(b.call.wait_ms, 2); // never shorter than asked
        assert_non_null(b.call.state);
        assert_null(b.call.identity);
    }
    assert_int_equal(ask(&b), PASS);
    assert_ptr_equal(b.call.identity, &b.identity);
    assert_int_equal(nth(&b, 0)->asked, 1);
    assert_int_equal(nth(&b, 1)->asked, 3);
    assert_int_equal(nth(&b, 2)->asked, 2);
    close_bench(&b);
}

static void test_what_was_found_before_a_wait_counts_after_it(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 3);
    nth(&b, 0)->words[0] = AUTH_DENY, nth(&b, 0)->cause = END_REVOKED_TOKEN, nth(&b, 0)->detail = "first";
    nth(&b, 1)->challenge = "Basic realm=\"own\"";
    nth(&b, 2)->words[0] = AUTH_WAIT, nth(&b, 2)->words[1] = AUTH_DENY;
    nth(&b, 2)->cause = END_EXPIRED_TOKEN;
    assert_int_equal(ask(&b), WAIT);
    assert_int_equal(ask(&b), FAIL);
    assert_int_equal(b.call.cause, END_REVOKED_TOKEN);
    assert_text(b.call.detail, "first");
    assert_challenges(&b, "Basic realm=\"own\"");
    close_bench(&b);
}

static void test_forgets(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 2);
    nth(&b, 0)->words[0] = AUTH_NONE;
    nth(&b, 1)->words[0] = AUTH_WAIT;
    assert_int_equal(ask(&b), WAIT);
    policy_auth.on_forget(&b.call);
    assert_int_equal(nth(&b, 0)->forgotten, 0);
    assert_int_equal(nth(&b, 1)->forgotten, 1);
    close_bench(&b);
}

// ---- what goes upstream ----

static void test_conceals_all_credentials(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 3);
    nth(&b, 0)->words[0] = AUTH_DENY;
    nth(&b, 1)->words[0] = AUTH_ALLOW;
    assert_int_equal(ask(&b), PASS);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(nth(&b, i)->concealed, 0); // limits may go by them
    assert_int_equal(policy_conceal.on_request(&b.call), PASS);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(nth(&b, i)->concealed, 1);
    close_bench(&b);
}

static void test_conceals_nothing_of_nobody(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1);
    b.settings.optional = true; // another scheme's credentials may be the service's own
    assert_int_equal(ask(&b), PASS);
    assert_int_equal(policy_conceal.on_request(&b.call), PASS);
    assert_int_equal(nth(&b, 0)->concealed, 0);
    close_bench(&b);
}

// ---- require ----

static struct str_list list_of(struct arena *arena, const char *words)
{
    struct str_list list = {.v = arena_array(arena, struct str, strlen(words) + 1)};
    for (struct str rest = str_of(words), word; str_next_token(&rest, &word);)
        list.v[list.count++] = word;
    return list;
}

static void test_require(void **state)
{
    (void)state;
    static const struct {
        const char *scopes, *roles;
        enum auth_match scopes_match, roles_match;
        const char *has_scopes, *has_roles;
        enum end_cause cause;
        const char *detail, *challenge;
    } rows[] = {
        {"", "", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "", "", END_OK, "", ""},
        {"", "", AUTH_MATCH_ANY, AUTH_MATCH_ALL, "", "", END_OK, "", ""},
        {"a,b", "", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "b,c,a", "", END_OK, "", ""},
        {"a,b,c", "x", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "a", "", END_INSUFFICIENT_SCOPE,
         "the scope b is missing", "Bearer error=\"insufficient_scope\", scope=\"a b c\""},
        {"a", "", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "aa,A", "a", END_INSUFFICIENT_SCOPE,
         "the scope a is missing", "Bearer error=\"insufficient_scope\", scope=\"a\""},
        {"a,b", "", AUTH_MATCH_ANY, AUTH_MATCH_ANY, "b", "", END_OK, "", ""},
        {"a,b", "", AUTH_MATCH_ANY, AUTH_MATCH_ANY, "c", "", END_INSUFFICIENT_SCOPE,
         "one of the scopes a, b is needed", "Bearer error=\"insufficient_scope\", scope=\"a b\""},
        {"a", "x,y", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "a", "y", END_OK, "", ""},
        {"a", "x,y", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "a", "z", END_INSUFFICIENT_ROLE,
         "one of the roles x, y is needed", ""},
        {"", "x", AUTH_MATCH_ALL, AUTH_MATCH_ANY, "x", "", END_INSUFFICIENT_ROLE, "the role x is missing",
         ""},
        {"", "x,y", AUTH_MATCH_ALL, AUTH_MATCH_ALL, "", "x", END_INSUFFICIENT_ROLE, "the role y is missing",
         ""},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct bench b;
        open_bench(&b, 2);
        b.settings.scopes = list_of(&b.arena, rows[i].scopes);
        b.settings.roles = list_of(&b.arena, rows[i].roles);
        b.settings.scopes_match = (int)rows[i].scopes_match;
        b.settings.roles_match = (int)rows[i].roles_match;
        b.identity.scopes = list_of(&b.arena, rows[i].has_scopes);
        b.identity.roles = list_of(&b.arena, rows[i].has_roles);
        b.providers[b.indices[0]].challenge = STR("Bearer realm=\"x\"");
        nth(&b, 0)->words[0] = AUTH_ALLOW;
        assert_int_equal(ask(&b), rows[i].cause ? FAIL : PASS);
        assert_int_equal(b.call.cause, rows[i].cause);
        assert_text(b.call.detail, rows[i].detail);
        assert_challenges(&b, rows[i].challenge);
        assert_int_equal(nth(&b, 1)->asked, 0);         // the first who knows the caller decides
        assert_ptr_equal(b.call.identity, &b.identity); // for the access log, also when it is refused
        close_bench(&b);
    }
}

// Who came with an API key is told nothing of bearers' tokens.
static void test_scopes_are_a_bearers(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 2);
    b.settings.scopes = list_of(&b.arena, "a");
    b.providers[b.indices[0]].challenge = STR("ApiKey realm=\"x\"");
    b.providers[b.indices[1]].challenge = STR("Bearer realm=\"x\"");
    nth(&b, 0)->words[0] = AUTH_ALLOW;
    assert_int_equal(ask(&b), FAIL);
    assert_int_equal(b.call.cause, END_INSUFFICIENT_SCOPE);
    assert_challenges(&b, "");
    close_bench(&b);
}

static void test_require_asks_nothing_of_nobody(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1);
    b.settings.optional = true;
    b.settings.scopes = list_of(&b.arena, "a");
    assert_int_equal(ask(&b), PASS);
    assert_null(b.call.identity);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_details),
        cmocka_unit_test(test_challenges_without_credentials),
        cmocka_unit_test(test_challenges_of_a_denial),
        cmocka_unit_test(test_waits_and_goes_on),
        cmocka_unit_test(test_what_was_found_before_a_wait_counts_after_it),
        cmocka_unit_test(test_forgets),
        cmocka_unit_test(test_conceals_all_credentials),
        cmocka_unit_test(test_conceals_nothing_of_nobody),
        cmocka_unit_test(test_require),
        cmocka_unit_test(test_scopes_are_a_bearers),
        cmocka_unit_test(test_require_asks_nothing_of_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
