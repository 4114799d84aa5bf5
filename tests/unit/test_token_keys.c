// Which keys a set gives, and which sets are refused.
#include "test_token_fixture.h"

#include "base/check.h"

// RFC 7517 A.1, without kid, use and alg.
#define EC_X "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
#define EC_Y "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
#define EC   "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\""
#define RSA_N                                                                                     \
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_"     \
    "BJECPebWKRXjBZCiFV4n3oknjhMstn"                                                              \
    "64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_"                                  \
    "FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn"                                  \
    "1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-" \
    "kEgU8awapJzKnqDKgw"
#define RSA "\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\""
// RFC 8037 A.2
#define ED  "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""
#define OCT                                                                 \
    "\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-" \
    "1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\""

static uint32_t count_of(struct str json, bool secrets)
{
    struct err err = {0};
    struct token_keys *keys = secrets ? token_keys_parse_private(json, &err) : token_keys_parse(json, &err);
    if (!keys) {
        assert_true(err.code != ERR_OK && err.what[0]);
        return 0;
    }
    uint32_t count = token_keys_count(keys);
    assert_true(count);
    token_keys_unref(keys);
    return count;
}

static void test_sets(void **state)
{
    (void)state;
    static const struct {
        struct str json;
        uint32_t count; // 0: refused
    } cases[] = {
        {STR("{" EC "}"), 1},
        {STR("{\"keys\":[{" EC "}]}"), 1},
        {STR("{\"keys\":[{" EC "},{" RSA "},{" ED "}],\"other\":1}"), 3},
        {STR("{\"keys\":[{" EC ",\"kid\":\"1\"},{" RSA ",\"kid\":\"1\"}]}"), 2}, // of two kinds
        {STR("{\"keys\":[{" EC ",\"kid\":\"1\"},{" EC ",\"kid\":\"1\"}]}"), 0},
        {STR("{\"keys\":[{" EC "},{" EC "}]}"), 2},
        // some that are passed over
        {STR("{\"keys\":[{" EC ",\"use\":\"enc\",\"kid\":\"1\"},{" EC ",\"use\":\"sig\",\"kid\":\"1\"}]}"),
         1},
        {STR("{\"keys\":[{\"kty\":\"new\"},1,null,[],{},"
             "{" ED "}]}"),
         1},
        {STR("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"},{" EC
             "}]}"),
         1},
        // refused
        {STR(""), 0},
        {STR("{}"), 0},
        {STR("[]"), 0},
        {STR("[{" EC "}]"), 0},
        {STR("{\"keys\":[]}"), 0},
        {STR("{\"keys\":{}}"), 0},
        {STR("{\"keys\":{\"a\":{" EC "}}}"), 0},
        {STR("{\"keys\":null}"), 0},
        {STR("{\"keys\":[{" EC "}],\"keys\":[]}"), 0},
        {STR("{\"keys\":[{" EC "}]} x"), 0},
        {STR("<html>"), 0},
        {STR("{\"keys\":[{" EC "},{" OCT "}]}"), 0},
        {STR("{\"keys\":[{" EC "},{\"kty\":\"oct\"}]}"), 0},
        {STR("{\"keys\":[{" EC ",\"d\":\"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE\"}]}"), 0},
    };
    for (size_t i = 0; i < countof(cases); i++)
        if (count_of(cases[i].json, false) != cases[i].count)
            fail_msg("%s: %u", cases[i].json.p, count_of(cases[i].json, false));
    assert_int_equal(count_of(STR("{\"keys\":[{" EC "},{" OCT "}]}"), true), 2);
}

static void test_single_keys(void **state)
{
    (void)state;
    static const struct {
        struct str json;
        bool good;
    } cases[] = {
        {STR("{" EC
             ",\"alg\":\"ES256\",\"use\":\"sig\",\"key_ops\":[\"verify\"],\"kid\":\"x\",\"x5c\":[\"y\"]}"),
         true},
        {STR("{" EC ",\"key_ops\":[\"sign\",\"verify\"]}"), true},
        {STR("{" EC ",\"alg\":\"ES384\"}"), false},
        {STR("{" EC ",\"alg\":\"es256\"}"), false},
        {STR("{" EC ",\"alg\":\"HS256\"}"), false},
        {STR("{" EC ",\"alg\":\"none\"}"), false},
        {STR("{" EC ",\"alg\":\"ECDH-ES\"}"), false},
        {STR("{" EC ",\"alg\":null}"), false},
        {STR("{" EC ",\"alg\":[\"ES256\"]}"), false},
        {STR("{" EC ",\"use\":\"enc\"}"), false},
        {STR("{" EC ",\"use\":\"SIG\"}"), false},
        {STR("{" EC ",\"use\":[\"sig\"]}"), false},
        {STR("{" EC ",\"use\":null}"), false},
        {STR("{" EC ",\"key_ops\":[\"sign\"]}"), false},
        {STR("{" EC ",\"key_ops\":[]}"), false},
        {STR("{" EC ",\"key_ops\":\"verify\"}"), false},
        {STR("{" EC ",\"key_ops\":[\"verify\",\"verify\"]}"), false},
        {STR("{" EC ",\"key_ops\":[\"verify\",1]}"), false},
        {STR("{" EC ",\"key_ops\":{\"verify\":\"verify\"}}"), false},
        {STR("{" EC ",\"use\":\"enc\",\"key_ops\":[\"verify\"]}"), false},
        {STR("{" EC ",\"kid\":1}"), false},
        {STR("{" EC ",\"kid\":null}"), false},
        {STR("{\"kty\":\"ec\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"), false},
        {STR("{\"kty\":\"EC\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"), false},
        {STR("{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"), false},
        {STR("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\"}"), false},
        {STR("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_X "\"}"),
         false}, // not on the curve
        {STR("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA" EC_X "\",\"y\":\"" EC_Y "\"}"), false},
        {STR("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"y\":"
             "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}"),
         false},
        {STR("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "=\",\"y\":\"" EC_Y "\"}"), false},
        {STR("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":1,\"y\":\"" EC_Y "\"}"), false},
        {STR("{" RSA ",\"alg\":\"PS512\"}"), true},
        {STR("{" RSA ",\"alg\":\"RSA-OAEP\"}"), false},
        {STR("{\"kty\":\"RSA\",\"n\":\"AA" RSA_N "\",\"e\":\"AQAB\"}"), false},    // not canonical any more
        {STR("{\"kty\":\"RSA\",\"n\":\"AAAA" RSA_N "\",\"e\":\"AAEAAQ\"}"), true}, // zeros in front
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Aw\"}"), true},
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}"), false},      // 1
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AA\"}"), false},      // 0
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAA\"}"), false},    // even
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAAAAE\"}"), false}, // 2^32 + 1
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"\"}"), false},
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\"}"), false},
        {STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":65537}"), false},
        {STR("{\"kty\":\"RSA\",\"e\":\"AQAB\"}"), false},
        {STR("{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}"), false},
        {STR("{" ED "}"), true},
        {STR("{" ED ",\"alg\":\"EdDSA\"}"), true},
        {STR("{" ED ",\"alg\":\"ES256\"}"), false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}"),
         false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUQ\"}"),
         false},
        // of small order
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}"),
         false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA\"}"),
         false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}"),
         false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"7P________________________________________38\"}"),
         false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU\"}"),
         false},
        {STR("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o\"}"),
         false},
        {STR("{" OCT "}"), true},
        {STR("{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr8\"}"), true},
        {STR("{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr8\",\"alg\":\"HS384\"}"),
         false},
        {STR("{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLg\"}"), false},
        {STR("{\"kty\":\"oct\",\"k\":\"\"}"), false},
        {STR("{\"kty\":\"oct\"}"), false},
        {STR("{" OCT ",\"alg\":\"RS256\"}"), false},
        {STR("{\"kty\":[\"EC\"]}"), false},
    };
    for (size_t i = 0; i < countof(cases); i++)
        if (count_of(cases[i].json, true) != cases[i].good)
            fail_msg("%s", cases[i].json.p);
}

static bool takes_rsa_of(size_t bytes)
{
    struct arena arena;
    arena_init(&arena, NULL);
    char *n = arena_alloc(&arena, bytes);
    memset(n, 0xff, bytes);
    struct str text = encoded(&arena, (struct str){n, bytes});
    uint32_t count = count_of(
        arena_printf(&arena, "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"AQAB\"}", STR_ARG(text)), false);
    arena_reset(&arena);
    return count;
}

static void test_sizes(void **state)
{
    (void)state;
    assert_false(takes_rsa_of(128));
    assert_false(takes_rsa_of(255));
    assert_true(takes_rsa_of(256));
    assert_true(takes_rsa_of(1024));
    assert_false(takes_rsa_of(1025));

    for (unsigned count = TOKEN_KEYS; count <= TOKEN_KEYS + 1; count++) {
        struct buf text = {0};
        buf_append(&text, STR("{\"keys\":["));
        for (unsigned i = 0; i < count; i++)
            buf_printf(&text, "%s{" ED ",\"kid\":\"%u\"}", i ? "," : "", i);
        buf_append(&text, STR("]}"));
        assert_int_equal(count_of(buf_str(&text), false), count > TOKEN_KEYS ? 0 : count);
        buf_free(&text);
    }

    struct buf text = {0};
    struct err err;
    buf_printf(&text, "{" ED "%*s}", TOKEN_KEYS_BYTES, "");
    assert_null(token_keys_parse(buf_str(&text), &err));
    assert_int_equal(err.code, ERR_LIMIT);
    buf_free(&text);
}

static void test_secret(void **state)
{
    (void)state;
    struct err err;
    char secret[64];
    memset(secret, 's', sizeof secret);
    assert_null(token_keys_secret((struct str){secret, 31}, &err));
    assert_int_equal(err.code, ERR_INVALID);
    for (size_t n = 32; n <= sizeof secret; n += 16) {
        struct token_keys *keys = token_keys_secret((struct str){secret, n}, &err);
        struct token_verifier *verifier = token_verifier_new(keys, NULL);
        struct token token = {.signature = STR("x")};
        for (unsigned a = ALGORITHM_HS256; a <= ALGORITHM_HS512; a++) {
            token.algorithm = a;
            bool fits = n >= 32 + 16 * (a - ALGORITHM_HS256);
            assert_int_equal(token_verify(verifier, &token, ALGORITHMS_ALL),
                             fits ? TOKEN_BAD_SIGNATURE : TOKEN_UNKNOWN_KEY);
        }
        token_verifier_free(verifier);
        token_keys_unref(keys);
    }
}

static void test_same(void **state)
{
    (void)state;
    static const struct {
        struct str a, b;
        bool same;
    } cases[] = {
        {STR("{" EC "}"), STR("{\"keys\":[{" EC ",\"use\":\"sig\"}]}"), true},
        {STR("{\"keys\":[{" EC "},{" ED "}]}"), STR("{\"keys\":[{" ED "},{" EC "}]}"), true},
        {STR("{\"keys\":[{" EC "},{" ED "}]}"), STR("{\"keys\":[{" ED "}]}"), false},
        {STR("{\"keys\":[{" EC "},{" EC "}]}"), STR("{\"keys\":[{" ED "},{" EC "}]}"), false},
        {STR("{" EC ",\"kid\":\"1\"}"), STR("{" EC ",\"kid\":\"2\"}"), false},
        {STR("{" RSA ",\"alg\":\"RS256\"}"), STR("{" RSA "}"), false},
        {STR("{" RSA "}"), STR("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Aw\"}"), false},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct token_keys *a = token_keys_parse(cases[i].a, NULL), *b = token_keys_parse(cases[i].b, NULL);
        assert_true(a && b);
        if (token_keys_same(a, b) != cases[i].same || token_keys_same(b, a) != cases[i].same)
            fail_msg("%s", cases[i].a.p);
        assert_true(token_keys_same(a, a));
        token_keys_unref(token_keys_ref(a));
        token_keys_unref(a);
        token_keys_unref(b);
    }
}

static void test_pem(void **state)
{
    (void)state;
    static const struct str bad[] = {
        STR(""),
        STR("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        STR("-----BEGIN PUBLIC "
            "KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC "
            "KEY-----\n"),
        // X25519
        STR("-----BEGIN PRIVATE "
            "KEY-----\nMC4CAQAwBQYDK2VuBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE "
            "KEY-----\n"),
    };
    for (size_t i = 0; i < countof(bad); i++) {
        struct err err = {0};
        assert_null(token_signer_new(bad[i], NULL, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
    struct buf pem = {0};
    assert_false(token_key_generate(ALGORITHM_HS256, NULL, &pem));

    // RFC 8037 A.1 and A.3: the thumbprint
    struct err err;
    struct token_signer *signer =
        token_signer_new(STR("-----BEGIN PRIVATE "
                             "KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/"
                             "VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"),
                         NULL, &err);
    assert_non_null(signer);
    assert_true(str_eq(token_signer_kid(signer), STR("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")));
    struct json json;
    json_init(&json, &pem, false);
    token_signer_jwk(signer, &json);
    assert_true(str_eq(
        buf_str(&pem),
        STR("{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\","
            "\"kid\":\"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k\",\"alg\":\"EdDSA\",\"use\":\"sig\"}")));
    buf_free(&pem);
    token_signer_free(signer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),   cmocka_unit_test(test_single_keys), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_secret), cmocka_unit_test(test_same),        cmocka_unit_test(test_pem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
