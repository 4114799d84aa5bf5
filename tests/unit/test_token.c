// A token's way: parse, verify, judge.
#include "test_token_fixture.h"

#include "base/check.h"

static const struct {
    struct str header;
    enum token_fault want;
} headers[] = {
    {STR("{\"alg\":\"RS256\"}"), TOKEN_GOOD},
    {STR("{\"alg\":\"ES512\",\"kid\":\"a\",\"typ\":\"JWT\",\"cty\":\"x\",\"x5t\":\"y\",\"other\":[1]}"),
     TOKEN_GOOD},
    {STR("{\"al\\u0067\":\"HS256\"}"), TOKEN_GOOD},
    {STR("{\"alg\":\"none\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"None\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"rs256\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"RS256 \"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"RS256\\u0000\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"ES256K\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"RS1\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":[\"RS256\"]}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":null}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"ALG\":\"RS256\"}"), TOKEN_BAD_ALGORITHM},
    {STR("{}"), TOKEN_BAD_ALGORITHM},
    {STR("{\"alg\":\"RS256\",\"crit\":[\"exp\"],\"exp\":1}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"crit\":[]}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"crit\":null}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"cr\\u0069t\":[\"b64\"],\"b64\":false}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"b64\":true}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"jwk\":{\"kty\":\"oct\"}}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"jku\":\"https://x.example/\"}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"x5u\":\"https://x.example/\"}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"x5c\":[]}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"kid\":1}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"kid\":null}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"kid\":[\"a\"]}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"kid\":\"\"}"), TOKEN_BAD_HEADER},
    {STR("{\"alg\":\"RS256\",\"alg\":\"RS256\"}"), TOKEN_MALFORMED},
    {STR("{\"alg\":\"none\",\"\\u0061lg\":\"RS256\"}"), TOKEN_MALFORMED},
    {STR("[\"RS256\"]"), TOKEN_MALFORMED},
    {STR("\"RS256\""), TOKEN_MALFORMED},
    {STR("{\"alg\":\"RS256\"}x"), TOKEN_MALFORMED},
    {STR("{\"alg\":\"RS256\""), TOKEN_MALFORMED},
    {STR("\xef\xbb\xbf{\"alg\":\"RS256\"}"), TOKEN_MALFORMED},
    {STR(""), TOKEN_MALFORMED},
};

static void test_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(headers); i++) {
        struct arena arena;
        struct token token;
        arena_init(&arena, NULL);
        struct str text = joined(&arena, headers[i].header, STR("{}"), STR("signature"));
        enum token_fault got = token_parse(text, &arena, &token);
        if (got != headers[i].want)
            fail_msg("%s: %d", headers[i].header.p, (int)got);
        arena_reset(&arena);
    }
}

static void test_structure(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        enum token_fault want;
    } cases[] = {
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AA"), TOKEN_GOOD},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30."), TOKEN_GOOD}, // no signature verifies it
        {STR("eyJhbGciOiJSUzI1NiJ9..AA"), TOKEN_GOOD},  // not a JWT, but a JWS
        {STR(""), TOKEN_MALFORMED},
        {STR("."), TOKEN_MALFORMED},
        {STR(".."), TOKEN_MALFORMED},
        {STR("..."), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AA."), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AA.AA"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AA.AA.AA"), TOKEN_MALFORMED},
        {STR(".eyJhbGciOiJSUzI1NiJ9.e30.AA"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AB"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e31.AA"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.A"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30=.AA"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AA=="), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.A/A"), TOKEN_MALFORMED},
        {STR(" eyJhbGciOiJSUzI1NiJ9.e30.AA"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30.AA\n"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9. e30.AA"), TOKEN_MALFORMED},
        {STR("eyJhbGciOiJSUzI1NiJ9.e30\0.AA"), TOKEN_MALFORMED},
        {STR("{\"payload\":\"e30\",\"protected\":\"eyJhbGciOiJSUzI1NiJ9\",\"signature\":\"AA\"}"),
         TOKEN_MALFORMED},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct arena arena;
        struct token token;
        arena_init(&arena, NULL);
        if (token_parse(cases[i].text, &arena, &token) != cases[i].want)
            fail_msg("%s", cases[i].text.p);
        arena_reset(&arena);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    static char text[TOKEN_BYTES + 2];
    struct arena arena;
    struct token token;
    arena_init(&arena, NULL);
    struct str head = STR("eyJhbGciOiJSUzI1NiJ9.e30.");
    memset(text, 'A', sizeof text);
    memcpy(text, head.p, head.n);
    size_t n = TOKEN_BYTES;
    while ((n - head.n) % 4 == 1)
        n--;
    assert_int_equal(token_parse((struct str){text, n}, &arena, &token), TOKEN_GOOD);
    assert_int_equal(token_parse((struct str){text, TOKEN_BYTES + 1}, &arena, &token), TOKEN_TOO_LONG);

    char kid[TOKEN_KID_BYTES + 1];
    memset(kid, 'k', sizeof kid);
    struct str h = arena_printf(&arena, "{\"alg\":\"RS256\",\"kid\":\"%.*s\"}", TOKEN_KID_BYTES, kid);
    assert_int_equal(token_parse(joined(&arena, h, STR("{}"), STR("")), &arena, &token), TOKEN_GOOD);
    assert_int_equal(token.kid.n, TOKEN_KID_BYTES);
    h = arena_printf(&arena, "{\"alg\":\"RS256\",\"kid\":\"%.*s\"}", TOKEN_KID_BYTES + 1, kid);
    assert_int_equal(token_parse(joined(&arena, h, STR("{}"), STR("")), &arena, &token), TOKEN_BAD_HEADER);
    arena_reset(&arena);
}

// ---- signatures ----

static const enum token_algorithm generated[] = {ALGORITHM_RS256, ALGORITHM_ES256, ALGORITHM_EDDSA};

struct world {
    struct arena arena;
    struct token_signer *signers[countof(generated)];
    struct token_keys *keys;
    struct token_verifier *verifier;
};

static void open_world(struct world *world)
{
    struct err err;
    arena_init(&world->arena, NULL);
    for (size_t i = 0; i < countof(generated); i++)
        world->signers[i] = signer_of(generated[i]);
    struct buf set = set_of(world->signers, countof(generated));
    world->keys = token_keys_parse(buf_str(&set), &err);
    assert_non_null(world->keys);
    world->verifier = token_verifier_new(world->keys, NULL);
    assert_non_null(world->verifier);
    buf_free(&set);
}

static void close_world(struct world *world)
{
    for (size_t i = 0; i < countof(generated); i++)
        token_signer_free(world->signers[i]);
    token_verifier_free(world->verifier);
    token_keys_unref(world->keys);
    arena_reset(&world->arena);
}

static enum token_fault verify(struct world *world, struct str text, unsigned algorithms)
{
    struct token token;
    enum token_fault fault = token_parse(text, &world->arena, &token);
    return fault == TOKEN_GOOD ? token_verify(world->verifier, &token, algorithms) : fault;
}

static void test_signed(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    for (size_t i = 0; i < countof(generated); i++) {
        for (unsigned again = 0; again < 50; again++) {
            struct str claims = arena_printf(&world.arena, "{\"sub\":\"%u\"}", again);
            struct str text = token_sign(world.signers[i], STR("at+jwt"), claims, &world.arena);
            struct token token;
            assert_int_equal(token_parse(text, &world.arena, &token), TOKEN_GOOD);
            assert_true(str_eq(token.kid, token_signer_kid(world.signers[i])));
            assert_true(str_eq(token.payload, claims));
            assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL), TOKEN_GOOD);
            assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL & ~(1U << generated[i])),
                             TOKEN_BAD_ALGORITHM);
        }
    }
    close_world(&world);
}

// What one token leaves behind, good or not, must not be seen by the next one of any other algorithm.
static void test_one_after_another(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    struct str texts[countof(generated)];
    for (size_t i = 0; i < countof(generated); i++)
        texts[i] = token_sign(world.signers[i], STR("JWT"), STR("{}"), &world.arena);
    for (size_t first = 0; first < countof(generated); first++)
        for (size_t next = 0; next < countof(generated); next++) {
            struct token bad;
            assert_int_equal(token_parse(texts[first], &world.arena, &bad), TOKEN_GOOD);
            assert_int_equal(token_verify(world.verifier, &bad, ALGORITHMS_ALL), TOKEN_GOOD);
            assert_int_equal(verify(&world, texts[next], ALGORITHMS_ALL), TOKEN_GOOD);
            ((char *)bad.signature.p)[3] ^= 1;
            assert_int_equal(token_verify(world.verifier, &bad, ALGORITHMS_ALL), TOKEN_BAD_SIGNATURE);
            assert_int_equal(verify(&world, texts[next], ALGORITHMS_ALL), TOKEN_GOOD);
        }
    close_world(&world);
}

// Any bit of the signature or of what is signed.
static void test_every_bit_counts(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    for (size_t i = 0; i < countof(generated); i++) {
        struct token token;
        struct str text =
            token_sign(world.signers[i], STR("JWT"), STR("{\"sub\":\"somebody\"}"), &world.arena);
        assert_int_equal(token_parse(text, &world.arena, &token), TOKEN_GOOD);
        struct str *spans[] = {&token.signature, &token.signing_input};
        for (size_t s = 0; s < countof(spans); s++)
            for (size_t bit = 0; bit < spans[s]->n * 8; bit += 3) {
                char *p = (char *)spans[s]->p;
                p[bit / 8] = (char)(p[bit / 8] ^ 1 << bit % 8);
                assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL), TOKEN_BAD_SIGNATURE);
                p[bit / 8] = (char)(p[bit / 8] ^ 1 << bit % 8);
            }
        assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL), TOKEN_GOOD);
    }
    close_world(&world);
}

// Cut, lengthened, of another form.
static void test_signature_lengths(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    for (size_t i = 0; i < countof(generated); i++) {
        struct token token;
        struct str text = token_sign(world.signers[i], STR("JWT"), STR("{}"), &world.arena);
        assert_int_equal(token_parse(text, &world.arena, &token), TOKEN_GOOD);
        struct str good = token.signature;
        char *longer = arena_zalloc(&world.arena, good.n + 64);
        memcpy(longer + 32, good.p, good.n);
        for (size_t n = 0; n <= good.n + 32; n++) {
            token.signature = (struct str){longer + 32, n};
            assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL),
                             n == good.n ? TOKEN_GOOD : TOKEN_BAD_SIGNATURE);
        }
        for (size_t before = 1; before <= 32; before++) {
            token.signature = (struct str){longer + 32 - before, good.n + before};
            assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL), TOKEN_BAD_SIGNATURE);
        }
    }
    close_world(&world);
}

static void test_ecdsa_ranges(void **state)
{
    (void)state;
    static const uint8_t order[32] = {0xff, 0xff, 0xff, 0xff, 0,    0,    0,    0,    0xff, 0xff, 0xff,
                                      0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
                                      0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
    static const uint8_t zero[32] = {0};
    uint8_t most[32], signature[64];
    const uint8_t *bad[] = {order, zero, most};
    struct world world;
    struct token token;
    open_world(&world);
    memset(most, 0xff, sizeof most);
    struct str text = token_sign(world.signers[1], STR("JWT"), STR("{}"), &world.arena);
    assert_int_equal(token_parse(text, &world.arena, &token), TOKEN_GOOD);
    struct str good = token.signature;
    token.signature = (struct str){(const char *)signature, sizeof signature};
    for (size_t i = 0; i < countof(bad); i++)
        for (size_t half = 0; half < 3; half++) {
            memcpy(signature, good.p, sizeof signature);
            if (half != 1)
                memcpy(signature, bad[i], 32);
            if (half != 0)
                memcpy(signature + 32, bad[i], 32);
            assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL), TOKEN_BAD_SIGNATURE);
        }
    close_world(&world);
}

// S + L is the same scalar (RFC 8032 5.1.7, 8.4).
static void test_eddsa_is_not_malleable(void **state)
{
    (void)state;
    static const uint8_t l[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,       0xd6,
                                  0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, [31] = 0x10};
    struct world world;
    struct token token;
    open_world(&world);
    struct str text = token_sign(world.signers[2], STR("JWT"), STR("{}"), &world.arena);
    assert_int_equal(token_parse(text, &world.arena, &token), TOKEN_GOOD);
    uint8_t *s = (uint8_t *)token.signature.p + 32;
    unsigned carry = 0;
    for (size_t i = 0; i < 32; i++) {
        carry += (unsigned)s[i] + l[i];
        s[i] = (uint8_t)carry;
        carry >>= 8;
    }
    assert_int_equal(token_verify(world.verifier, &token, ALGORITHMS_ALL), TOKEN_BAD_SIGNATURE);
    close_world(&world);
}

static void test_which_key(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    // signed by the RSA key, and says so of another
    static const struct str other_kid = STR("{\"alg\":\"RS256\",\"kid\":\"nobody\"}");
    assert_int_equal(verify(&world, joined(&world.arena, other_kid, STR("{}"), STR("x")), ALGORITHMS_ALL),
                     TOKEN_UNKNOWN_KEY);
    // the kid of the EC key, the algorithm of the RSA key
    struct str header = arena_printf(&world.arena, "{\"alg\":\"RS256\",\"kid\":\"%.*s\"}",
                                     STR_ARG(token_signer_kid(world.signers[1])));
    assert_int_equal(verify(&world, joined(&world.arena, header, STR("{}"), STR("x")), ALGORITHMS_ALL),
                     TOKEN_BAD_ALGORITHM);
    // the key says alg RS256
    header = arena_printf(&world.arena, "{\"alg\":\"PS256\",\"kid\":\"%.*s\"}",
                          STR_ARG(token_signer_kid(world.signers[0])));
    assert_int_equal(verify(&world, joined(&world.arena, header, STR("{}"), STR("x")), ALGORITHMS_ALL),
                     TOKEN_BAD_ALGORITHM);
    // no kid: whatever fits; nothing does
    assert_int_equal(
        verify(&world, joined(&world.arena, STR("{\"alg\":\"RS256\"}"), STR("{}"), STR("x")), ALGORITHMS_ALL),
        TOKEN_BAD_SIGNATURE);
    assert_int_equal(
        verify(&world, joined(&world.arena, STR("{\"alg\":\"ES384\"}"), STR("{}"), STR("x")), ALGORITHMS_ALL),
        TOKEN_UNKNOWN_KEY);
    assert_int_equal(
        verify(&world, joined(&world.arena, STR("{\"alg\":\"HS256\"}"), STR("{}"), STR("x")), ALGORITHMS_ALL),
        TOKEN_UNKNOWN_KEY);
    close_world(&world);
}

// RFC 7515 A.1: the key bears no kid.
static const struct str hs256_jwk = STR("{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_"
                                        "T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}");
static const struct str hs256_token =
    STR("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");

static void test_secrets(void **state)
{
    (void)state;
    struct err err;
    struct world world = {0};
    arena_init(&world.arena, NULL);
    assert_null(token_keys_parse(hs256_jwk, &err));
    world.keys = token_keys_parse_private(hs256_jwk, &err);
    assert_non_null(world.keys);
    world.verifier = token_verifier_new(world.keys, NULL);
    for (unsigned again = 0; again < 3; again++)
        assert_int_equal(verify(&world, hs256_token, ALGORITHMS_HS), TOKEN_GOOD);
    assert_int_equal(verify(&world, hs256_token, ALGORITHMS_ALL & ~ALGORITHMS_HS), TOKEN_BAD_ALGORITHM);
    struct str cut = {hs256_token.p, hs256_token.n - 43};
    assert_int_equal(verify(&world, cut, ALGORITHMS_HS), TOKEN_BAD_SIGNATURE);
    cut.n = hs256_token.n - 43 + 22; // "dBjftJeZ4CVP-mB92K27ug": sixteen bytes of it
    struct str half = arena_printf(&world.arena, "%.*sg", (int)cut.n - 1, cut.p);
    assert_int_equal(verify(&world, half, ALGORITHMS_HS), TOKEN_BAD_SIGNATURE);
    // a kid, and a key that bears none
    struct str named = joined(&world.arena, STR("{\"alg\":\"HS256\",\"kid\":\"x\"}"), STR("{}"), STR("x"));
    assert_int_equal(verify(&world, named, ALGORITHMS_HS), TOKEN_UNKNOWN_KEY);
    token_verifier_free(world.verifier);
    token_keys_unref(world.keys);
    arena_reset(&world.arena);
}

// ---- claims ----

enum { NOW = 1700000000 };

struct claims_case {
    struct str claims;
    enum token_fault want;
    const char *missing; // NULL: not looked at
};

static void expect(const struct claims_case *cases, size_t count, struct str header,
                   const struct token_rules *rules)
{
    for (size_t i = 0; i < count; i++) {
        struct arena arena;
        struct token token;
        struct token_facts facts;
        struct str missing;
        arena_init(&arena, NULL);
        struct str text = joined(&arena, header, cases[i].claims, STR(""));
        assert_int_equal(token_parse(text, &arena, &token), TOKEN_GOOD);
        enum token_fault got = token_judge(&token, rules, NOW, &facts, &missing);
        if (got != cases[i].want)
            fail_msg("%s: %s", cases[i].claims.p, token_fault_words(got).p);
        if (cases[i].missing && !str_eq(missing, str_of(cases[i].missing)))
            fail_msg("%s: missing %.*s", cases[i].claims.p, STR_ARG(missing));
        arena_reset(&arena);
    }
}

static const struct str plain_header = STR("{\"alg\":\"RS256\"}");

static void test_times(void **state)
{
    (void)state;
    static const struct claims_case without_leeway[] = {
        {STR("{}"), TOKEN_GOOD, ""},
        {STR("{\"exp\":1700000001}"), TOKEN_GOOD},
        {STR("{\"exp\":1700000000.5}"), TOKEN_EXPIRED}, // the fraction is dropped
        {STR("{\"exp\":1700000000}"), TOKEN_EXPIRED},
        {STR("{\"exp\":0}"), TOKEN_EXPIRED},
        {STR("{\"exp\":-1}"), TOKEN_EXPIRED},
        {STR("{\"exp\":1.7000000010e9}"), TOKEN_GOOD},
        {STR("{\"exp\":9007199254740992}"), TOKEN_GOOD},
        {STR("{\"exp\":9007199254740994}"), TOKEN_BAD_CLAIM},
        {STR("{\"exp\":1e400}"), TOKEN_BAD_CLAIM},
        {STR("{\"exp\":\"1700000001\"}"), TOKEN_BAD_CLAIM},
        {STR("{\"exp\":null}"), TOKEN_BAD_CLAIM},
        {STR("{\"exp\":true}"), TOKEN_BAD_CLAIM},
        {STR("{\"exp\":[1700000001]}"), TOKEN_BAD_CLAIM},
        {STR("{\"nbf\":1700000000}"), TOKEN_GOOD},
        {STR("{\"nbf\":1700000001}"), TOKEN_NOT_YET},
        {STR("{\"nbf\":\"0\"}"), TOKEN_BAD_CLAIM},
        {STR("{\"iat\":1700000100}"), TOKEN_GOOD}, // says when, not from when
        {STR("{\"iat\":{}}"), TOKEN_BAD_CLAIM},
    };
    static const struct claims_case with_leeway[] = {
        {STR("{\"exp\":1699999991}"), TOKEN_GOOD},
        {STR("{\"exp\":1699999990}"), TOKEN_EXPIRED},
        {STR("{\"nbf\":1700000010}"), TOKEN_GOOD},
        {STR("{\"nbf\":1700000011}"), TOKEN_NOT_YET},
    };
    static const struct claims_case with_endless[] = {
        {STR("{\"exp\":1}"), TOKEN_EXPIRED}, // bounded
        {STR("{\"nbf\":1800000000}"), TOKEN_GOOD},
        {STR("{\"exp\":-9007199254740992,\"nbf\":9007199254740992}"), TOKEN_EXPIRED},
    };
    struct token_rules rules = {0};
    expect(without_leeway, countof(without_leeway), plain_header, &rules);
    rules.leeway_s = 10;
    expect(with_leeway, countof(with_leeway), plain_header, &rules);
    rules.leeway_s = UINT64_MAX;
    expect(with_endless, countof(with_endless), plain_header, &rules);
}

static void test_types_of_claims(void **state)
{
    (void)state;
    static const struct claims_case cases[] = {
        {STR("{\"iss\":\"a\",\"sub\":\"b\",\"jti\":\"c\",\"aud\":\"d\"}"), TOKEN_GOOD},
        {STR("{\"aud\":[\"d\",\"e\"]}"), TOKEN_GOOD},
        {STR("{\"aud\":[]}"), TOKEN_GOOD},
        {STR("{\"aud\":[\"d\",1]}"), TOKEN_BAD_CLAIM},
        {STR("{\"aud\":[[\"d\"]]}"), TOKEN_BAD_CLAIM},
        {STR("{\"aud\":{\"d\":\"e\"}}"), TOKEN_BAD_CLAIM},
        {STR("{\"aud\":null}"), TOKEN_BAD_CLAIM},
        {STR("{\"aud\":1}"), TOKEN_BAD_CLAIM},
        {STR("{\"iss\":1}"), TOKEN_BAD_CLAIM},
        {STR("{\"iss\":[\"a\"]}"), TOKEN_BAD_CLAIM},
        {STR("{\"sub\":null}"), TOKEN_BAD_CLAIM},
        {STR("{\"sub\":17}"), TOKEN_BAD_CLAIM},
        {STR("{\"jti\":false}"), TOKEN_BAD_CLAIM},
        {STR("[]"), TOKEN_MALFORMED},
        {STR("\"{}\""), TOKEN_MALFORMED},
        {STR("null"), TOKEN_MALFORMED},
        {STR(""), TOKEN_MALFORMED},
        {STR("{\"sub\":\"a\",\"sub\":\"b\"}"), TOKEN_MALFORMED},
        {STR("{\"sub\":\"a\",\"s\\u0075b\":\"b\"}"), TOKEN_MALFORMED},
        {STR("{\"sub\":\"\xff\"}"), TOKEN_MALFORMED},
        {STR("{} "), TOKEN_GOOD},
        {STR("{}\0"), TOKEN_MALFORMED},
    };
    expect(cases, countof(cases), plain_header, &(struct token_rules){0});
}

static void test_parties(void **state)
{
    (void)state;
    static const struct str audiences[] = {{"api", 3}, {"web", 3}};
    static const struct str required[] = {{"sub", 3}, {"realm.roles", 11}};
    static const struct token_rules rules = {.issuer = STR("https://issuer"),
                                             .audiences = audiences,
                                             .audience_count = 2,
                                             .required = required,
                                             .required_count = 2};
#define GOOD_REST ",\"sub\":\"s\",\"realm\":{\"roles\":[]}}"
    static const struct claims_case cases[] = {
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api\"" GOOD_REST), TOKEN_GOOD, ""},
        {STR("{\"iss\":\"https://issuer\",\"aud\":[\"x\",\"web\"]" GOOD_REST), TOKEN_GOOD},
        {STR("{\"aud\":\"api\"" GOOD_REST), TOKEN_MISSING_CLAIM, "iss"},
        {STR("{\"iss\":\"https://issuer/\",\"aud\":\"api\"" GOOD_REST), TOKEN_BAD_ISSUER},
        {STR("{\"iss\":\"https://issue\",\"aud\":\"api\"" GOOD_REST), TOKEN_BAD_ISSUER},
        {STR("{\"iss\":\"HTTPS://issuer\",\"aud\":\"api\"" GOOD_REST), TOKEN_BAD_ISSUER},
        {STR("{\"iss\":\"https://issuer\\u0000\",\"aud\":\"api\"" GOOD_REST), TOKEN_BAD_ISSUER},
        {STR("{\"iss\":\"\",\"aud\":\"api\"" GOOD_REST), TOKEN_BAD_ISSUER},
        {STR("{\"iss\":\"https://issuer\"" GOOD_REST), TOKEN_MISSING_CLAIM, "aud"},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"apis\"" GOOD_REST), TOKEN_BAD_AUDIENCE},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api\\u0000\"" GOOD_REST), TOKEN_BAD_AUDIENCE},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api web\"" GOOD_REST), TOKEN_BAD_AUDIENCE},
        {STR("{\"iss\":\"https://issuer\",\"aud\":[]" GOOD_REST), TOKEN_BAD_AUDIENCE},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api\",\"realm\":{\"roles\":[]}}"), TOKEN_MISSING_CLAIM,
         "sub"},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api\",\"sub\":\"s\"}"), TOKEN_MISSING_CLAIM,
         "realm.roles"},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api\",\"sub\":\"s\",\"realm\":{\"roles\":null}}"),
         TOKEN_MISSING_CLAIM, "realm.roles"},
        {STR("{\"iss\":\"https://issuer\",\"aud\":\"api\",\"sub\":\"s\",\"realm.roles\":1}"), TOKEN_GOOD, ""},
    };
    expect(cases, countof(cases), plain_header, &rules);
}

static void test_types_of_tokens(void **state)
{
    (void)state;
    static const struct {
        struct str header;
        enum token_fault want;
    } cases[] = {
        {STR("{\"alg\":\"RS256\",\"typ\":\"JWT\"}"), TOKEN_GOOD},
        {STR("{\"alg\":\"RS256\",\"typ\":\"jwt\"}"), TOKEN_GOOD},
        {STR("{\"alg\":\"RS256\",\"typ\":\"at+jwt\"}"), TOKEN_GOOD},
        {STR("{\"alg\":\"RS256\",\"typ\":\"application/at+JWT\"}"), TOKEN_GOOD},
        {STR("{\"alg\":\"RS256\",\"typ\":\"Application/jwt\"}"), TOKEN_GOOD},
        {STR("{\"alg\":\"RS256\",\"typ\":\"logout+jwt\"}"), TOKEN_BAD_HEADER},
        {STR("{\"alg\":\"RS256\",\"typ\":\"dpop+jwt\"}"), TOKEN_BAD_HEADER},
        {STR("{\"alg\":\"RS256\",\"typ\":\"application/\"}"), TOKEN_BAD_HEADER},
        {STR("{\"alg\":\"RS256\",\"typ\":\"\"}"), TOKEN_BAD_HEADER},
        {STR("{\"alg\":\"RS256\",\"typ\":\"JWT\\u0000\"}"), TOKEN_BAD_HEADER},
        {STR("{\"alg\":\"RS256\",\"typ\":[\"JWT\"]}"), TOKEN_BAD_HEADER},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct claims_case claims = {STR("{}"), cases[i].want, NULL};
        expect(&claims, 1, cases[i].header, &(struct token_rules){0});
    }
}

static void test_facts(void **state)
{
    (void)state;
    struct arena arena;
    struct token token;
    struct token_facts facts;
    struct str missing;
    arena_init(&arena, NULL);
    struct str claims = STR("{\"sub\":\"s\",\"jti\":\"j\",\"iss\":\"i\",\"exp\":1700000009.9,\"iat\":5}");
    assert_int_equal(token_parse(joined(&arena, plain_header, claims, STR("")), &arena, &token), TOKEN_GOOD);
    assert_int_equal(token_judge(&token, &(struct token_rules){.leeway_s = 9}, NOW, &facts, &missing),
                     TOKEN_GOOD);
    assert_true(str_eq(facts.subject, STR("s")) && str_eq(facts.jti, STR("j")) &&
                str_eq(facts.issuer, STR("i")));
    assert_int_equal(facts.expires, 1700000009);
    assert_int_equal(facts.issued_at, 5);
    assert_int_equal(token_parse(joined(&arena, plain_header, STR("{}"), STR("")), &arena, &token),
                     TOKEN_GOOD);
    assert_int_equal(token_judge(&token, &(struct token_rules){0}, NOW, &facts, &missing), TOKEN_GOOD);
    assert_true(facts.expires == INT64_MAX && facts.issued_at == INT64_MIN && !facts.subject.n);
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_structure),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_signed),
        cmocka_unit_test(test_one_after_another),
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_signature_lengths),
        cmocka_unit_test(test_ecdsa_ranges),
        cmocka_unit_test(test_eddsa_is_not_malleable),
        cmocka_unit_test(test_which_key),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_types_of_claims),
        cmocka_unit_test(test_parties),
        cmocka_unit_test(test_types_of_tokens),
        cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
