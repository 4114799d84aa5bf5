// What clients may not say is removed in every spelling, and nothing else is.
#include "auth/auth.h"

#include "unit.h"

struct bench {
    struct arena arena;
    struct auth auth;
    struct headers headers;
};

static void open_bench(struct bench *b, const char *const *names, uint32_t count)
{
    *b = (struct bench){0};
    arena_init(&b->arena, NULL);
    struct str *list = arena_array(&b->arena, struct str, count + 1);
    for (uint32_t i = 0; i < count; i++)
        list[i] = str_of(names[i]);
    b->auth.guarded = auth_guarded_new(list, count, &b->arena);
}

static bool survives(struct bench *b, const char *name)
{
    b->headers.count = 0;
    headers_add(&b->headers, &b->arena, STR("Host"), STR("a.example"));
    headers_add(&b->headers, &b->arena, str_of(name), STR("forged"));
    auth_strip(&b->auth, &b->headers);
    assert_int_not_equal(b->headers.v[0].id, HEADER_GONE);
    return b->headers.v[1].id != HEADER_GONE;
}

static const char long_name[] = "X-Identity-Of-Whoever-Calls-This-Service-Through-The-Gateway-Of-Ours";

static void test_spellings(void **state)
{
    (void)state;
    static const char *const guarded[] = {"X-User-Id", "X-User-Roles", "X_Consumer",         "Tenant-",
                                          "x-1",       long_name,      "Authorization-Info", ""};
    static const struct {
        const char *name;
        bool survives;
    } rows[] = {
        {"X-User-Id", false},
        {"x-user-id", false},
        {"X-USER-ID", false},
        {"X_User_Id", false},
        {"x_user-id", false},
        {"X-User_ID", false},
        {"x.user.id", false},
        {"x-user~id", false},
        {"X-User-Roles", false},
        {"x_user_roles", false},
        {"X-Consumer", false},
        {"x_consumer", false},
        {"Tenant_", false},
        {"tenant.", false},
        {"tenant-", false},
        {"X_1", false},
        {long_name, false},
        {"authorization_info", false},
        // Alike, and others.
        {"X-User-Ids", true},
        {"X-User-I", true},
        {"XX-User-Id", true},
        {"-X-User-Id", true},
        {"XUser-Id", true},
        {"X-User-Ie", true},
        {"Y-User-Id", true},
        {"Tenant", true},
        {"tenants", true},
        {"x-2", true},
        {"X-", true},
        {"-", true},
        {"Authorization", true},
        {"authorization-inf", true},
    };
    struct bench b;
    open_bench(&b, guarded, countof(guarded));
    for (size_t i = 0; i < countof(rows); i++)
        if (survives(&b, rows[i].name) != rows[i].survives)
            fail_msg("%s: %s", rows[i].name, rows[i].survives ? "removed" : "kept");
    arena_reset(&b.arena);
}

// Names of the same length modulo the table's must not hide each other.
static void test_lengths(void **state)
{
    (void)state;
    char name[201];
    for (size_t n = 1; n <= 200; n++) {
        memset(name, 'a', n);
        name[n] = 0;
        const char *const guarded[] = {name};
        struct bench b;
        open_bench(&b, guarded, 1);
        assert_false(survives(&b, name));
        name[n - 1] = 'A';
        assert_false(survives(&b, name));
        name[n - 1] = 'b';
        assert_true(survives(&b, name));
        arena_reset(&b.arena);
    }
}

static void test_nothing(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, NULL, 0);
    assert_null(b.auth.guarded);
    assert_true(survives(&b, "X-User-Id"));
    struct headers none = {0};
    auth_strip(&b.auth, &none);
    arena_reset(&b.arena);
}

// All of them, wherever they are.
static void test_many(void **state)
{
    (void)state;
    static const char *const guarded[] = {"X-User-Id"};
    struct bench b;
    open_bench(&b, guarded, 1);
    for (int i = 0; i < 100; i++)
        headers_add(&b.headers, &b.arena, i % 3 ? STR("X-User-Id") : STR("Accept"), STR("1"));
    auth_strip(&b.auth, &b.headers);
    for (uint32_t i = 0; i < b.headers.count; i++)
        assert_int_equal(b.headers.v[i].id == HEADER_GONE, i % 3 != 0);
    arena_reset(&b.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
