// Password hashes: one of RFC 7914, our own, and what is no hash.
#include "unit.h"

#include "auth_service/scrypt.h"
#include "base/check.h"

#define SALT  "TmFDbC0xMjM" // "NaCl-123"
#define KNOWN "vX9ZHWog-sy7edkzw4OLn86YplPPo8VElqMjA_G_IMo"
#define HASH  "AAAAAAAAAAAAAAAAAAAAAA"

// The second vector of RFC 7914 12 but for its salt, which is too short for us: by Python's hashlib.
static void test_known(void **state)
{
    (void)state;
    struct scrypt_hash hash;
    const char *why;
    assert_true(scrypt_parse(STR("scrypt:1024:8:16:" SALT ":" KNOWN), &hash, &why));
    assert_true(scrypt_matches(&hash, STR("password")));
    assert_false(scrypt_matches(&hash, STR("Password")));
    assert_false(scrypt_matches(&hash, STR_NULL));
}

static void test_made(void **state)
{
    (void)state;
    char text[SCRYPT_TEXT], again[SCRYPT_TEXT];
    struct scrypt_hash hash;
    const char *why;
    assert_true(scrypt_make(STR("s"), text) && scrypt_make(STR("s"), again));
    assert_string_not_equal(text, again);
    assert_true(scrypt_parse(str_of(text), &hash, &why));
    assert_true(scrypt_matches(&hash, STR("s")));
    assert_false(scrypt_matches(&hash, STR("t")));
    assert_false(scrypt_matches(scrypt_nobody(), STR("s")));
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "scrypt",
        "bcrypt:1024:8:1:" SALT ":" HASH,
        "scrypt:1024:8:1:" SALT,
        "scrypt:1024:8:1:" SALT ":" HASH ":",
        "scrypt:1024:8:1:" SALT ":" HASH ":x",
        "scrypt:1000:8:1:" SALT ":" HASH,
        "scrypt:512:8:1:" SALT ":" HASH,
        "scrypt:2097152:8:1:" SALT ":" HASH,
        "scrypt:1048576:32:1:" SALT ":" HASH,
        "scrypt:1024:0:1:" SALT ":" HASH,
        "scrypt:1024:8:0:" SALT ":" HASH,
        "scrypt:1024:8:17:" SALT ":" HASH,
        "scrypt:1024:8:1:AAAA:" HASH,
        "scrypt:1024:8:1:" SALT ":AAAA",
        "scrypt:1024:8:1:" SALT ":" HASH "=",
        "scrypt:1024:8:1:" SALT ":" HASH HASH HASH HASH HASH,
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct scrypt_hash hash;
        const char *why;
        if (scrypt_parse(str_of(cases[i]), &hash, &why))
            fail_msg("%s", cases[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_made),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
