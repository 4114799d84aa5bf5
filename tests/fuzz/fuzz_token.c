// A token's way: parse, verify, judge. The first byte says what the rest is: a token, or a header and claims,
// one line each, that are made one and signed with a secret. What is taken is spelled in one way only.
#include "exact_copy.h"

#include "base/base64.h"
#include "token/token.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define SECRET "a secret of sixty-four bytes, as long as the longest hash has it"

static struct token_verifier *with_secret, *with_public;

// Those of RFC 7515 A.3 and RFC 8037 A.2.
static const char public_keys[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"},"
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    struct err err;
    struct token_keys *secret = token_keys_secret(STR(SECRET), &err);
    struct token_keys *keys = token_keys_parse(STR(public_keys), &err);
    check(secret && keys);
    with_secret = token_verifier_new(secret, NULL);
    with_public = token_verifier_new(keys, NULL);
    check(with_secret && with_public);
    return 0;
}

static struct str encode(struct arena *arena, struct str bytes)
{
    char *out = arena_alloc(arena, base64url_encoded_bytes(bytes.n) + 1);
    return (struct str){out, base64url_encode((const uint8_t *)bytes.p, bytes.n, out)};
}

static struct str sign(struct arena *arena, struct str text)
{
    size_t line = str_find(text, '\n');
    struct str header = encode(arena, (struct str){text.p, line});
    struct str claims = encode(arena, str_skip(text, line < text.n ? line + 1 : line));
    struct str input = arena_printf(arena, "%.*s.%.*s", STR_ARG(header), STR_ARG(claims));
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    check(HMAC(EVP_sha256(), SECRET, sizeof SECRET - 1, (const uint8_t *)input.p, input.n, mac, &n));
    struct str signature = encode(arena, (struct str){(const char *)mac, n});
    return arena_printf(arena, "%.*s.%.*s", STR_ARG(input), STR_ARG(signature));
}

static void check_token(struct str text, const struct token *token, struct arena *arena)
{
    check(text.n <= TOKEN_BYTES && token->algorithm < ALGORITHM_COUNT && token->kid.n <= TOKEN_KID_BYTES);
    check(token->header->kind == JSON_OBJECT && (!token->claims || token->claims->kind == JSON_OBJECT));
    check(token->signing_input.p == text.p && token->signing_input.n < text.n);
    struct str rest = str_skip(text, str_find(text, '.') + 1);
    check(str_starts(rest, encode(arena, token->payload)));
    check(str_eq(str_skip(text, token->signing_input.n + 1), encode(arena, token->signature)));
}

static void judge(const struct token *token)
{
    static const struct str names[] = {{"a", 1}, {"realm.roles", 11}};
    static const struct token_rules rules[] = {
        {0},
        {.issuer = {"a", 1}, .audiences = names, .audience_count = 2, .leeway_s = 30},
        {.required = names, .required_count = 2, .leeway_s = UINT64_MAX},
    };
    static const int64_t times[] = {0, 1800000000, INT64_C(1) << 53};
    for (size_t i = 0; i < countof(rules); i++)
        for (size_t j = 0; j < countof(times); j++) {
            struct token_facts facts;
            struct str missing;
            enum token_fault fault = token_judge(token, &rules[i], times[j], &facts, &missing);
            check(fault < TOKEN_FAULT_COUNT && (fault == TOKEN_GOOD) == (token_fault_words(fault).n == 0));
            check(fault != TOKEN_MISSING_CLAIM || missing.n);
            if (fault != TOKEN_GOOD)
                continue;
            check(token->claims && (facts.expires == INT64_MAX || i == 2 || facts.expires + 30 > times[j]));
            check(i != 1 || str_eq(facts.issuer, STR("a")));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!n)
        return 0;
    struct arena arena;
    struct token token;
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data + 1, n - 1);
    struct str text = {copy, n - 1};
    bool ours = data[0] & 1;
    if (ours)
        text = sign(&arena, text);
    enum token_fault fault = token_parse(text, &arena, &token);
    if (fault == TOKEN_GOOD) {
        check_token(text, &token, &arena);
        fault = token_verify(with_secret, &token, ALGORITHMS_ALL);
        check(!ours || (fault == TOKEN_GOOD) == (token.algorithm == ALGORITHM_HS256));
        check(fault == TOKEN_GOOD || fault == TOKEN_BAD_ALGORITHM || fault == TOKEN_UNKNOWN_KEY ||
              fault == TOKEN_BAD_SIGNATURE);
        check(token_verify(with_secret, &token, 0) == TOKEN_BAD_ALGORITHM);
        check(!ours || token_verify(with_public, &token, ALGORITHMS_ALL) != TOKEN_GOOD);
        (void)!token_verify(with_public, &token, ALGORITHMS_ALL);
        judge(&token);
    } else {
        check(fault < TOKEN_FAULT_COUNT);
    }
    arena_reset(&arena);
    free(copy);
    return 0;
}
