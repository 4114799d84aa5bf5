/*
 * What the signature of a token costs by itself: verifies the first RS256 token of a file over and over, with
 * OpenSSL alone, and prints the microseconds of CPU time each took. The floor under a token that was never
 * seen before.
 *
 * usage: verify PUBLIC_KEY.pem TOKENS SECONDS
 */
#include "sock.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOKEN_MAX 4096
#define SIGNATURE 256 /* RSA of 2048 bits */
#define BATCH     100

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* base64url, which EVP knows only in its other alphabet and with padding. */
static void decode_signature(const char *text, unsigned char signature[SIGNATURE])
{
    char padded[SIGNATURE * 2] = "";
    unsigned char bytes[SIGNATURE * 2];
    size_t n = strcspn(text, "\n");
    if (n != (SIGNATURE * 8 + 5) / 6)
        die("the token's signature is not of RSA with 2048 bits");
    for (size_t i = 0; i < n; i++)
        padded[i] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
    while (n % 4 != 0)
        padded[n++] = '=';
    if (EVP_DecodeBlock(bytes, (const unsigned char *)padded, (int)n) < SIGNATURE)
        die("the token's signature is not base64url");
    memcpy(signature, bytes, SIGNATURE);
}

int main(int argc, char **argv)
{
    char token[TOKEN_MAX];
    unsigned char signature[SIGNATURE];
    if (argc != 4) {
        fputs("usage: verify PUBLIC_KEY.pem TOKENS SECONDS\n", stderr);
        return 2;
    }
    FILE *file = fopen(argv[1], "r");
    EVP_PKEY *key = file ? PEM_read_PUBKEY(file, NULL, NULL, NULL) : NULL;
    FILE *tokens = fopen(argv[2], "r");
    if (key == NULL || tokens == NULL || fgets(token, sizeof token, tokens) == NULL)
        die("%s or %s cannot be read", argv[1], argv[2]);
    fclose(file);
    fclose(tokens);
    char *dot = strrchr(token, '.');
    if (dot == NULL)
        die("the first line of %s is no token", argv[2]);
    decode_signature(dot + 1, signature);

    /* The algorithm fetched once and the context made ready once, as whoever wants it fast would. */
    EVP_MD *digest = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_MD_CTX *ready = EVP_MD_CTX_new(), *context = EVP_MD_CTX_new();
    if (EVP_DigestVerifyInit(ready, NULL, digest, NULL, key) != 1)
        die("OpenSSL refuses the key");
    double seconds = strtod(argv[3], NULL), began = cpu_seconds(), now = began;
    unsigned long count = 0;
    while (now - began < seconds) {
        for (unsigned i = 0; i < BATCH; i++, count++)
            if (EVP_MD_CTX_copy_ex(context, ready) != 1 ||
                EVP_DigestVerify(context, signature, sizeof signature, (const unsigned char *)token,
                                 (size_t)(dot - token)) != 1)
                die("the signature is not valid");
        now = cpu_seconds();
    }
    printf("%.3f\n", (now - began) * 1e6 / (double)count);
    EVP_MD_CTX_free(context);
    EVP_MD_CTX_free(ready);
    EVP_MD_free(digest);
    EVP_PKEY_free(key);
    return 0;
}
