#include "unit_arena.h"

#include "auth/provider.h"

static const struct auth_provider corp = {.name = {"corp", 4}, .id = 7};

static const struct json_value *parsed(const char *text)
{
    const char *why = NULL;
    const struct json_value *value = json_parse(str_of(text), &arena, &why);
    if (!value)
        fail_msg("%s: %s", text, why);
    return value;
}

static void assert_str(struct str got, const char *expected)
{
    struct str want = str_of(expected);
    if (!str_eq(got, want))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(got), expected);
}

// ---- claims ----

static void test_claims_as_text(void **state)
{
    (void)state;
    const struct json_value *claims = parsed(
        "{\"tenant\":\"acme\",\"n\":12.50,\"yes\":true,\"no\":false,\"nothing\":null,\"empty\":\"\","
        "\"list\":[\"a\",2,true],\"none\":[],\"deep\":{\"er\":{\"most\":\"x\"}},\"mixed\":[\"a\",null],"
        "\"nested\":[[\"a\"]],\"https://x.example/id\":\"whole\",\"nul\":\"a\\u0000b\"}");
    static const struct {
        const char *path, *text; // NULL: none
    } rows[] = {
        {"tenant", "acme"}, {"n", "12.50"},    {"yes", "true"},       {"no", "false"},
        {"nothing", NULL},  {"empty", ""},     {"list", "a,2,true"},  {"none", ""},
        {"deep", NULL},     {"deep.er", NULL}, {"deep.er.most", "x"}, {"deep.er.most.more", NULL},
        {"mixed", NULL},    {"nested", NULL},  {"absent", NULL},      {"https://x.example/id", "whole"},
        {"tenant.x", NULL}, {"", NULL},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct str text = STR("untouched");
        bool found = identity_claim_text(claims, str_of(rows[i].path), &arena, &text);
        if (found != (rows[i].text != NULL))
            fail_msg("%s: %s", rows[i].path, found ? "is there" : "is not there");
        if (found)
            assert_str(text, rows[i].text);
    }
    struct str text;
    assert_true(identity_claim_text(claims, STR("nul"), &arena, &text));
    assert_true(str_eq(text, STR("a\0b")));
    assert_false(identity_claim_text(NULL, STR("tenant"), &arena, &text));
}

static void test_claims_as_lists(void **state)
{
    (void)state;
    const struct json_value *claims =
        parsed("{\"scope\":\" read  write \",\"roles\":[\"a b\",\"c\"],\"mixed\":[\"a\",1],\"n\":1,"
               "\"empty\":\"\",\"none\":[]}");
    static const struct {
        const char *path;
        int count; // -1: none
    } rows[] = {{"scope", 2}, {"roles", 2}, {"mixed", -1}, {"n", -1}, {"empty", 0}, {"none", 0}, {"x", -1}};
    struct str_list list;
    for (size_t i = 0; i < countof(rows); i++) {
        bool found = identity_claim_list(claims, str_of(rows[i].path), &arena, &list);
        assert_int_equal(found ? (int)list.count : -1, rows[i].count);
    }
    assert_true(identity_claim_list(claims, STR("scope"), &arena, &list));
    assert_str(list.v[0], "read");
    assert_str(list.v[1], "write");
    assert_true(identity_claim_list(claims, STR("roles"), &arena, &list));
    assert_str(list.v[0], "a b");
}

// ---- values ----

static void test_values_are_safe(void **state)
{
    (void)state;
    static const struct {
        struct str value;
        const char *encoded;
    } rows[] = {
        {STR("plain-Value_1.2~"), "plain-Value_1.2~"},
        {STR("a\r\nX-Admin: 1"), "a%0D%0AX-Admin: 1"},
        {STR("a\0b"), "a%00b"},
        {STR("\t\x1f\x7f"), "%09%1F%7F"},
        {STR("Zo\xc3\xab"), "Zo%C3%AB"},
        {STR("\xff\x80"), "%FF%80"},
        {STR("100%"), "100%25"},
        {STR("%0d"), "%250d"},
        {STR(" a b "), "%20a b%20"},
        {STR(" "), "%20"},
        {STR("  "), "%20%20"},
        {STR("a,b\"\\"), "a,b\"\\"},
        {STR(""), ""},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct str encoded = identity_encode(rows[i].value, &arena);
        assert_str(encoded, rows[i].encoded);
        assert_true(header_value_valid(encoded));
        assert_true(str_eq(str_trim(encoded), encoded));
    }
    char all[256];
    for (unsigned c = 0; c < sizeof all; c++)
        all[c] = (char)c;
    struct str encoded = identity_encode((struct str){all, sizeof all}, &arena);
    for (size_t i = 0; i < encoded.n; i++)
        assert_in_range(encoded.p[i], ' ', '~');
}

// ---- identities ----

static const struct identity_header headers[] = {
    {.name = {"X-User-Id", 9}, .source = IDENTITY_SUBJECT},
    {.name = {"X-User-Roles", 12}, .source = IDENTITY_ROLES},
    {.name = {"X-User-Scopes", 13}, .source = IDENTITY_SCOPES},
    {.name = {"X-Consumer", 10}, .source = IDENTITY_CONSUMER},
    {.name = {"X-Provider", 10}, .source = IDENTITY_PROVIDER},
    {.name = {"X-Tenant", 8}, .source = IDENTITY_CLAIM, .claim = {"tenant", 6}},
    {.name = {"X-Groups", 8}, .source = IDENTITY_CLAIM, .claim = {"groups", 6}},
};
static const struct str claim_paths[] = {STR("tenant"), STR("groups"), STR("absent")};
static const struct auth snapshot = {
    .headers = headers,
    .header_count = countof(headers),
    .claims = claim_paths,
    .claim_count = countof(claim_paths),
};

static struct str header_of(const struct identity *identity, const char *name)
{
    struct str value = STR_NULL;
    unsigned found = 0;
    for (uint32_t i = 0; i < identity->header_count; i++)
        if (str_eq_fold(identity->headers[i].name, str_of(name))) {
            value = identity->headers[i].value;
            found++;
        }
    if (found > 1)
        fail_msg("%s is there %u times", name, found);
    return value;
}

static void test_what_upstreams_are_told(void **state)
{
    (void)state;
    struct str roles[] = {STR("gold"), STR("user,admin"), STR("a\nb")}, scopes[] = {STR("read")};
    const struct identity_facts facts = {
        .provider = &corp,
        .revocable = true,
        .subject = STR("zo\xc3\xab\r\n"),
        .jti = STR("id-1"),
        .issuer = STR("https://corp"),
        .roles = {roles, countof(roles)},
        .scopes = {scopes, countof(scopes)},
        .issued_at = 17,
        .expires = 99,
        .claims = parsed("{\"tenant\":\"a,b\",\"groups\":[\"x,y\",\"z\"]}"),
    };
    struct identity *identity = identity_new(&snapshot, &facts);
    assert_non_null(identity);
    arena_reset(&arena); // nothing of it is left there
    memset(roles, 0, sizeof roles);

    assert_str(header_of(identity, "X-User-Id"), "zo%C3%AB%0D%0A");
    assert_str(header_of(identity, "X-User-Roles"), "gold,user%2Cadmin,a%0Ab");
    assert_str(header_of(identity, "X-User-Scopes"), "read");
    assert_str(header_of(identity, "X-Provider"), "corp");
    assert_str(header_of(identity, "X-Tenant"), "a,b");
    assert_str(header_of(identity, "X-Groups"), "x%2Cy,z");
    assert_int_equal(identity->header_count, 6); // no consumer: no X-Consumer
    assert_int_equal(header_of(identity, "X-Consumer").n, 0);

    assert_str(identity->subject, "zo\xc3\xab\r\n");
    assert_str(identity->jti, "id-1");
    assert_str(identity->issuer, "https://corp");
    assert_int_equal(identity->roles.count, 3);
    assert_str(identity->roles.v[1], "user,admin");
    assert_str(identity->scopes.v[0], "read");
    assert_int_equal(identity->provider, 7);
    assert_true(identity->revocable);
    assert_int_equal(identity->issued_at, 17);
    assert_int_equal(identity->expires, 99);
    assert_int_equal(identity->claim_count, 2);
    assert_str(identity->claims[1].name, "groups");
    assert_str(identity->claims[1].value, "x,y,z");
    identity_unref(identity_ref(identity));
    identity_unref(identity);
}

// What identity_headers says counts; what an Auth Service has encoded stays encoded once.
static void test_copied_headers(void **state)
{
    (void)state;
    struct headers copied = {0};
    headers_add(&copied, &arena, STR("x-user-id"), STR("other"));
    headers_add(&copied, &arena, STR("X-Consumer"), STR("acme"));
    headers_add(&copied, &arena, STR("X-Name"), STR("Zo%C3%AB \xc3\xab\t."));
    headers_add(&copied, &arena, STR("X-Twice"), STR("1"));
    headers_add(&copied, &arena, STR("X-Twice"), STR("2"));
    headers_add(&copied, &arena, STR("X-Empty"), STR(""));
    headers_add(&copied, &arena, STR("X-Gone"), STR("1"));
    headers_remove_name(&copied, STR("X-Gone"));
    const struct identity_facts facts = {.provider = &corp, .subject = STR("me"), .copied = &copied};
    struct identity *identity = identity_new(&snapshot, &facts);
    assert_non_null(identity);
    assert_str(header_of(identity, "X-User-Id"), "me");
    assert_str(header_of(identity, "X-Consumer"), "acme");
    assert_str(header_of(identity, "X-Name"), "Zo%C3%AB %C3%AB%09.");
    assert_int_equal(identity->header_count, 6); // X-User-Id, X-Provider and those four
    assert_str(identity->headers[5].value, "2");
    identity_unref(identity);
}

static void test_bounds(void **state)
{
    (void)state;
    static char text[IDENTITY_BYTES + 1];
    memset(text, 'x', sizeof text);
    struct identity_facts facts = {.provider = &corp, .jti = {text, 0}};
    size_t fits = 0;
    for (size_t n = 0; n <= sizeof text; n++) {
        facts.jti.n = n;
        struct identity *identity = identity_new(&snapshot, &facts);
        if (identity) {
            assert_in_range(identity->bytes, n, IDENTITY_BYTES);
            assert_int_equal(fits, n); // no gap
            fits = n + 1;
        }
        identity_unref(identity);
    }
    assert_in_range(fits, IDENTITY_BYTES - 1024, IDENTITY_BYTES);

    // Three bytes for each in a header: the bound is about what is kept.
    memset(text, '\n', sizeof text);
    facts = (struct identity_facts){.provider = &corp, .subject = {text, IDENTITY_BYTES / 3}};
    assert_null(identity_new(&snapshot, &facts));
    facts.subject.n = IDENTITY_BYTES / 5;
    struct identity *identity = identity_new(&snapshot, &facts);
    assert_non_null(identity);
    identity_unref(identity);

    static struct str many[IDENTITY_BYTES / sizeof(struct str)];
    facts = (struct identity_facts){.provider = &corp, .roles = {many, countof(many)}};
    assert_null(identity_new(&snapshot, &facts));
    identity_unref(NULL);
}

static void test_nothing_is_known(void **state)
{
    (void)state;
    const struct auth bare = {0};
    const struct identity_facts facts = {.provider = &corp};
    struct identity *identity = identity_new(&bare, &facts);
    assert_non_null(identity);
    assert_int_equal(identity->header_count + identity->claim_count + identity->roles.count, 0);
    assert_int_equal(identity->subject.n, 0);
    identity_unref(identity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_claims_as_text, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_claims_as_lists, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_values_are_safe, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_what_upstreams_are_told, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_copied_headers, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_bounds, arena_begin, arena_end),
        cmocka_unit_test_setup_teardown(test_nothing_is_known, arena_begin, arena_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
