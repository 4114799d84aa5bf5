// Families, opaque tokens and revocations, and the file they outlive a restart in.
#include "unit.h"

#include "auth_service/vault.h"

#include <stdlib.h>
#include <unistd.h>

enum { NOW = 1000000 };

static struct vault vault;
static char directory[] = "/tmp/sallyport-vault-XXXXXX";
static struct err err;
static unsigned told;

static const struct vault_grant grant = {.client = STR("shop"),
                                         .subject = STR("ada"),
                                         .scope = STR("a b"),
                                         .audience = STR("api"),
                                         .is_user = true,
                                         .expires = NOW + 100};

static int open_vault(void **state)
{
    (void)state;
    if (!vault_open(&vault, str_of(directory), NOW, &err))
        fail_msg("%s: %s", err.where, err.what);
    return 0;
}

static int close_vault(void **state)
{
    (void)state;
    unlink(vault.path);
    vault_close(&vault);
    return 0;
}

static void reopen(int64_t now_s)
{
    assert_true(vault_save(&vault, NOW, &err));
    vault_close(&vault);
    assert_true(vault_open(&vault, str_of(directory), now_s, &err));
}

static void test_rotation(void **state)
{
    (void)state;
    char first[VAULT_TOKEN_TEXT], second[VAULT_TOKEN_TEXT];
    bool is_current;
    struct vault_entry *family = vault_begin_family(&vault, &grant, first);
    assert_ptr_equal(vault_find_family(&vault, str_of(first), NOW, &is_current), family);
    assert_true(is_current);
    vault_renew(&vault, family, NOW + 200, second);
    assert_ptr_equal(vault_find_family(&vault, str_of(first), NOW, &is_current), family);
    assert_false(is_current);
    assert_ptr_equal(vault_find_family(&vault, str_of(second), NOW, &is_current), family);
    assert_true(is_current);
    assert_null(vault_find_family(&vault, str_of(second), NOW + 200, &is_current));
    assert_null(vault_find_family(&vault, STR("AAAA"), NOW, &is_current));
    assert_null(vault_find_family(&vault, STR_NULL, NOW, &is_current));
}

static void test_end_of_a_family(void **state)
{
    (void)state;
    char token[VAULT_TOKEN_TEXT], jti[VAULT_JTI];
    bool is_current;
    struct vault_entry *family = vault_begin_family(&vault, &grant, token);
    for (int i = 0; i < VAULT_RECENT + 3; i++) {
        vault_new_jti(jti);
        vault_note_access(&vault, family, str_of(jti), NOW + 50);
    }
    vault_end_family(&vault, family, NOW);
    assert_null(vault_find_family(&vault, str_of(token), NOW, &is_current));
    assert_int_equal(vault.counts[VAULT_DENIED], VAULT_RECENT);
    assert_true(vault_is_denied(&vault, str_of(jti), NOW));
    assert_false(vault_is_denied(&vault, str_of(jti), NOW + 50));
}

static void test_oldest_makes_room(void **state)
{
    (void)state;
    char first[VAULT_TOKEN_TEXT], token[VAULT_TOKEN_TEXT], other[VAULT_TOKEN_TEXT];
    bool is_current;
    struct vault_grant others = grant;
    others.client = STR("other");
    vault_begin_family(&vault, &others, other);
    vault_begin_family(&vault, &grant, first);
    for (int i = 0; i < VAULT_FAMILIES_OF_CLIENT; i++)
        vault_begin_family(&vault, &grant, token);
    assert_int_equal(vault.counts[VAULT_FAMILY], VAULT_FAMILIES_OF_CLIENT + 1);
    assert_null(vault_find_family(&vault, str_of(first), NOW, &is_current));
    assert_non_null(vault_find_family(&vault, str_of(token), NOW, &is_current));
    assert_non_null(vault_find_family(&vault, str_of(other), NOW, &is_current)); // nobody else's
}

static void test_opaque(void **state)
{
    (void)state;
    char token[VAULT_TOKEN_TEXT];
    assert_true(vault_add_opaque(&vault, STR("{\"sub\":\"x\"}"), NOW + 10, token));
    assert_true(str_eq(vault_find_opaque(&vault, str_of(token), NOW), STR("{\"sub\":\"x\"}")));
    assert_int_equal(vault_find_opaque(&vault, str_of(token), NOW + 10).n, 0);
    assert_true(vault_revoke_opaque(&vault, str_of(token)));
    assert_false(vault_revoke_opaque(&vault, str_of(token)));
    assert_int_equal(vault_find_opaque(&vault, str_of(token), NOW).n, 0);
}

static void on_deny(struct vault *of, struct str jti, int64_t expires)
{
    assert_ptr_equal(of, &vault);
    assert_true(str_eq(jti, STR("gone")));
    assert_int_equal(expires, NOW + 30);
    told++;
}

static void test_restart(void **state)
{
    (void)state;
    char token[VAULT_TOKEN_TEXT], opaque[VAULT_TOKEN_TEXT];
    bool is_current;
    struct vault_entry *family = vault_begin_family(&vault, &grant, token);
    vault_note_access(&vault, family, STR("recent"), NOW + 20);
    assert_true(vault_add_opaque(&vault, STR("{\"a\":\"\\u00e4\"}"), NOW + 20, opaque));
    assert_true(vault_deny(&vault, STR("gone"), NOW + 30));
    assert_true(vault_deny(&vault, STR("past"), NOW));
    reopen(NOW + 1);
    family = vault_find_family(&vault, str_of(token), NOW + 1, &is_current);
    assert_true(family && is_current && family->is_user && str_eq(family->client, grant.client) &&
                str_eq(family->subject, grant.subject) && str_eq(family->scope, grant.scope) &&
                str_eq(family->audience, grant.audience) && family->expires == grant.expires);
    assert_true(str_eq(vault_find_opaque(&vault, str_of(opaque), NOW), STR("{\"a\":\"\\u00e4\"}")));
    assert_true(vault_is_denied(&vault, STR("gone"), NOW));
    assert_int_equal(vault.counts[VAULT_DENIED], 1);
    told = 0;
    vault.on_deny = on_deny;
    vault_tell(&vault, NOW);
    vault.on_deny = NULL;
    assert_int_equal(told, 1);
    vault_end_family(&vault, family, NOW);
    assert_true(vault_is_denied(&vault, STR("recent"), NOW));
}

static void test_sweep(void **state)
{
    (void)state;
    char token[VAULT_TOKEN_TEXT];
    vault_begin_family(&vault, &grant, token);
    assert_true(vault_deny(&vault, STR("x"), NOW + 1));
    for (int i = 0; i < 64; i++)
        vault_sweep(&vault, NOW + 1);
    assert_int_equal(vault.counts[VAULT_DENIED], 0);
    assert_int_equal(vault.counts[VAULT_FAMILY], 1);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "x\n",
        "{\"sallyport_auth_state\":2}\n",
        "{\"sallyport_auth_state\":1}\nx\n",
        "{\"sallyport_auth_state\":1}\n{\"kind\":\"family\",\"expires\":2000000}\n",
        "{\"sallyport_auth_state\":1}\n{\"kind\":\"denied\",\"key\":\"AA\",\"expires\":2000000}\n",
    };
    for (size_t i = 0; i < countof(texts); i++) {
        FILE *file = fopen(vault.path, "w");
        assert_true(file && fputs(texts[i], file) >= 0 && fclose(file) == 0);
        vault_close(&vault);
        if (vault_open(&vault, str_of(directory), NOW, &err))
            fail_msg("%s", texts[i]);
        assert_int_equal(err.code, ERR_INVALID);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_vault, close_vault)
    const struct CMUnitTest tests[] = {
        TEST(test_rotation), TEST(test_end_of_a_family), TEST(test_oldest_makes_room), TEST(test_opaque),
        TEST(test_restart),  TEST(test_sweep),           TEST(test_bad_files),
    };
    if (!mkdtemp(directory))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return failed;
}
