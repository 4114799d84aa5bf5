// What a token costs: the bare verification by OpenSSL, each step of ours, a token that was never seen (cold)
// and one that was (warm). CPU nanoseconds, the best of some rounds.
//
//   build/bench/tokens [TOKENS]
#include "auth/provider.h"
#include "net/tls.h"
#include "token/keys.h"
#include "token/sign.h"

#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 7, TOKENS = 1000, NOW_S = 1800000000 };

struct bench {
    struct token_signer *signer;
    struct token_keys *keys;
    struct str *tokens;
    uint32_t count;
    struct arena texts, arena; // of the tokens; of one request
    struct loop loop;
    struct metrics *metrics;
    struct auth auth;
    struct auth_settings settings;
    struct auth_provider provider;
    struct str audience, required;
};

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void *library(void)
{
    return tls_library(1);
}

// ---- making ----

static void make_tokens(struct bench *bench)
{
    arena_init(&bench->texts, NULL);
    bench->tokens = arena_array(&bench->texts, struct str, bench->count);
    for (uint32_t i = 0; i < bench->count; i++) {
        struct str claims = arena_printf(
            &bench->texts,
            "{\"iss\":\"https://"
            "auth.example.com\",\"sub\":\"248289761001-%u\",\"aud\":[\"orders-api\",\"account\"],"
            "\"exp\":%d,\"iat\":%d,\"jti\":\"3f2b1c9e-7d1a-4c55-9d0e-%012u\",\"client_id\":\"web\","
            "\"scope\":\"openid profile orders.read "
            "orders.write\",\"roles\":[\"gold\",\"user\"],\"tenant\":\"acme\"}",
            i, NOW_S + 3600, NOW_S, i);
        bench->tokens[i] = token_sign(bench->signer, STR("at+jwt"), claims, &bench->texts);
        check(bench->tokens[i].n);
    }
}

static void make_keys(struct bench *bench, enum token_algorithm algorithm)
{
    struct buf pem = {0}, text = {0};
    struct json json;
    struct err err;
    check(token_key_generate(algorithm, NULL, &pem));
    bench->signer = token_signer_new(buf_str(&pem), NULL, &err);
    check(bench->signer);
    json_init(&json, &text, false);
    token_signer_jwk(bench->signer, &json);
    bench->keys = token_keys_parse(buf_str(&text), &err);
    check(bench->keys);
    buf_free(&pem);
    buf_free(&text);
}

static void make_provider(struct bench *bench)
{
    static const struct identity_header headers[] = {
        {{"X-User-Id", 9}, HEADER_OTHER, IDENTITY_SUBJECT, {NULL, 0}},
        {{"X-User-Roles", 12}, HEADER_OTHER, IDENTITY_ROLES, {NULL, 0}},
        {{"X-User-Scopes", 13}, HEADER_OTHER, IDENTITY_SCOPES, {NULL, 0}},
    };
    bench->audience = STR("orders-api");
    bench->required = STR("exp");
    bench->auth.headers = headers;
    bench->auth.header_count = countof(headers);
    bench->settings.jwt = (struct jwt_settings){
        .issuer = STR("https://auth.example.com"),
        .audiences = {&bench->audience, 1},
        .algorithms = ALGORITHMS_ALL & ~ALGORITHMS_HS,
        .leeway_us = 30000000,
        .required_claims = {&bench->required, 1},
        .roles_claim = STR("roles"),
        .scopes_claim = STR("scope"),
        .revocation = true,
    };
    bench->provider = (struct auth_provider){
        .kind = &auth_jwt,
        .settings = &bench->settings,
        .auth = &bench->auth,
        .name = STR("bench"),
        .id = metric_name_id(NAME_PROVIDER, STR("bench")),
        .fingerprint = 1,
        .keys = bench->keys,
    };
}

// ---- what is measured: all tokens once; CPU ns of each ----

// OpenSSL alone: the hash of what was signed and the verification of it, contexts made before.
static double bare(struct bench *bench)
{
    const struct token_key *key = &bench->keys->keys[0];
    EVP_PKEY *opened = key_open(key, library());
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(library(), opened, NULL);
    EVP_MD *digest = EVP_MD_fetch(library(), "SHA256", NULL);
    EVP_MD_CTX *hashing = EVP_MD_CTX_new();
    check(EVP_PKEY_verify_init(context) > 0 && EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) > 0 &&
          EVP_PKEY_CTX_set_signature_md(context, digest) > 0);
    struct token *parsed = calloc(bench->count, sizeof *parsed);
    for (uint32_t i = 0; i < bench->count; i++)
        check(token_parse(bench->tokens[i], &bench->arena, &parsed[i]) == TOKEN_GOOD);
    uint64_t began = cpu_ns();
    for (uint32_t i = 0; i < bench->count; i++) {
        const struct token *token = &parsed[i];
        uint8_t hash[EVP_MAX_MD_SIZE];
        unsigned n;
        EVP_DigestInit_ex2(hashing, digest, NULL);
        EVP_DigestUpdate(hashing, token->signing_input.p, token->signing_input.n);
        EVP_DigestFinal_ex(hashing, hash, &n);
        check(EVP_PKEY_verify(context, (const unsigned char *)token->signature.p, token->signature.n, hash,
                              n) == 1);
    }
    uint64_t ended = cpu_ns();
    arena_reset(&bench->arena);
    free(parsed);
    EVP_MD_CTX_free(hashing);
    EVP_MD_free(digest);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(opened);
    return (double)(ended - began) / bench->count;
}

static double parsing(struct bench *bench)
{
    struct token token;
    uint64_t began = cpu_ns();
    for (uint32_t i = 0; i < bench->count; i++) {
        check(token_parse(bench->tokens[i], &bench->arena, &token) == TOKEN_GOOD);
        arena_reset(&bench->arena);
    }
    return (double)(cpu_ns() - began) / bench->count;
}

static double verifying(struct bench *bench)
{
    struct token_verifier *verifier = token_verifier_new(bench->keys, library());
    struct token token;
    check(token_parse(bench->tokens[0], &bench->arena, &token) == TOKEN_GOOD);
    check(token_verify(verifier, &token, ALGORITHMS_ALL) == TOKEN_GOOD);
    uint64_t began = cpu_ns();
    for (uint32_t i = 0; i < bench->count; i++)
        check(token_verify(verifier, &token, ALGORITHMS_ALL) == TOKEN_GOOD);
    uint64_t ended = cpu_ns();
    arena_reset(&bench->arena);
    token_verifier_free(verifier);
    return (double)(ended - began) / bench->count;
}

static void ask(struct bench *bench, struct auth_worker *worker, struct str token)
{
    char value[2048];
    struct header header = {STR("Authorization"), {value, 7 + token.n}, HEADER_AUTHORIZATION};
    struct request_head request = {.headers = {.v = &header, .count = 1, .capacity = 1}};
    struct auth_call call = {.request = &request, .arena = &bench->arena, .now_s = NOW_S};
    check(token.n <= sizeof value - 7);
    memcpy(mempcpy(value, "Bearer ", 7), token.p, token.n);
    check(auth_ask(worker, &bench->provider, &call) == AUTH_ALLOW);
    identity_unref(call.identity);
}

// Cold and then warm, the same tokens by the same worker.
static void asking(struct bench *bench, double *cold, double *warm, double *hot)
{
    const struct auth_worker_needs needs = {.loop = &bench->loop, .metrics = bench->metrics, .tls_slot = 1};
    struct auth_worker *worker = auth_worker_new(&needs);
    check(worker);
    ask(bench, worker, bench->tokens[0]);
    arena_reset(&bench->arena);
    uint64_t began = cpu_ns();
    for (uint32_t i = 1; i < bench->count; i++) {
        ask(bench, worker, bench->tokens[i]);
        arena_reset(&bench->arena);
    }
    *cold = (double)(cpu_ns() - began) / (bench->count - 1);
    began = cpu_ns();
    for (uint32_t i = 0; i < bench->count; i++)
        ask(bench, worker, bench->tokens[i]);
    *warm = (double)(cpu_ns() - began) / bench->count;
    began = cpu_ns();
    for (uint32_t i = 0; i < bench->count; i++)
        ask(bench, worker, bench->tokens[0]);
    *hot = (double)(cpu_ns() - began) / bench->count;
    auth_worker_free(worker);
}

static double least(double a, double b)
{
    return a && a < b ? a : b;
}

int main(int argc, char **argv)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct err err;
    double of_openssl = 0, parse = 0, verify = 0, cold = 0, warm = 0, hot = 0;
    static struct arena_spares spares = {.max = 8};
    bench->count = argc > 1 ? (uint32_t)atoi(argv[1]) : TOKENS;
    check(bench->count > 1);
    arena_init(&bench->arena, &spares);
    check(loop_init(&bench->loop, &err) == ERR_OK);
    bench->metrics = metrics_new();
    make_keys(bench, ALGORITHM_RS256);
    make_tokens(bench);
    make_provider(bench);
    metrics_reserve(bench->metrics);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double c, w, h;
        of_openssl = least(of_openssl, bare(bench));
        parse = least(parse, parsing(bench));
        verify = least(verify, verifying(bench));
        asking(bench, &c, &w, &h);
        cold = least(cold, c);
        warm = least(warm, w);
        hot = least(hot, h);
    }
    printf("RS256, %zu bytes, %u tokens; CPU ns each\n", bench->tokens[0].n, bench->count);
    printf("OpenSSL alone        %8.0f\n", of_openssl);
    printf("token_parse          %8.0f\n", parse);
    printf("token_verify         %8.0f\n", verify);
    printf("cold: auth_ask       %8.0f   %.0f above OpenSSL alone\n", cold, cold - of_openssl);
    printf("warm: auth_ask       %8.0f\n", warm);
    printf("warm, always one     %8.0f\n", hot);
    return 0;
}
