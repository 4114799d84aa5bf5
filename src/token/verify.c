#include "token/keys.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>

enum {
    WITHOUT_KID_TRIES = 4,
    // SEQUENCE of two INTEGERs, each with a zero in front when its first bit is set (X.690 8.3)
    DER_BYTES = 3 + 2 * (2 + 1 + CURVE_BYTES_MAX),
};

enum digest { SHA256, SHA384, SHA512, DIGEST_COUNT };

static const char *const digest_names[] = {"SHA256", "SHA384", "SHA512"};

// A key made ready: contexts are made at the first token of their algorithm, and kept.
struct prepared {
    const struct token_key *key;
    EVP_PKEY *opened;                        // not of a SECRET
    EVP_PKEY_CTX *contexts[ALGORITHM_COUNT]; // RSA, EC
    EVP_MAC_CTX *macs[DIGEST_COUNT];         // SECRET: keyed, to be copied
};

struct token_verifier {
    struct token_keys *keys;
    OSSL_LIB_CTX *library;
    EVP_MD *digests[DIGEST_COUNT];
    EVP_MAC *hmac;
    // Two: DigestVerifyInit leaves its key in a context, and a hash cannot begin there any more.
    EVP_MD_CTX *hashing, *eddsa;
    uint32_t count;
    struct prepared prepared[];
};

static enum digest digest_of(enum token_algorithm algorithm)
{
    switch (algorithm) {
    case ALGORITHM_RS384:
    case ALGORITHM_PS384:
    case ALGORITHM_ES384:
    case ALGORITHM_HS384: return SHA384;
    case ALGORITHM_RS512:
    case ALGORITHM_PS512:
    case ALGORITHM_ES512:
    case ALGORITHM_HS512: return SHA512;
    default: return SHA256;
    }
}

// ---- making ready ----

static bool fetch_algorithms(struct token_verifier *verifier)
{
    for (unsigned i = 0; i < DIGEST_COUNT; i++) {
        verifier->digests[i] = EVP_MD_fetch(verifier->library, digest_names[i], NULL);
        if (!verifier->digests[i])
            return false;
    }
    verifier->hmac = EVP_MAC_fetch(verifier->library, "HMAC", NULL);
    verifier->hashing = EVP_MD_CTX_new();
    verifier->eddsa = EVP_MD_CTX_new();
    return verifier->hmac && verifier->hashing && verifier->eddsa;
}

struct token_verifier *token_verifier_new(struct token_keys *keys, void *library)
{
    struct token_verifier *verifier =
        calloc(1, sizeof *verifier + keys->count * sizeof verifier->prepared[0]);
    if (!verifier)
        return NULL;
    verifier->keys = token_keys_ref(keys);
    verifier->library = library;
    verifier->count = keys->count;
    bool good = fetch_algorithms(verifier);
    for (uint32_t i = 0; good && i < keys->count; i++) {
        struct prepared *prepared = &verifier->prepared[i];
        prepared->key = &keys->keys[i];
        if (prepared->key->kind != KEY_SECRET) {
            prepared->opened = key_open(prepared->key, library);
            good = prepared->opened;
        }
    }
    if (good)
        return verifier;
    ERR_clear_error();
    token_verifier_free(verifier);
    return NULL;
}

void token_verifier_free(struct token_verifier *verifier)
{
    if (!verifier)
        return;
    for (uint32_t i = 0; i < verifier->count; i++) {
        struct prepared *prepared = &verifier->prepared[i];
        for (unsigned a = 0; a < ALGORITHM_COUNT; a++)
            EVP_PKEY_CTX_free(prepared->contexts[a]);
        for (unsigned d = 0; d < DIGEST_COUNT; d++)
            EVP_MAC_CTX_free(prepared->macs[d]);
        EVP_PKEY_free(prepared->opened);
    }
    for (unsigned i = 0; i < DIGEST_COUNT; i++)
        EVP_MD_free(verifier->digests[i]);
    EVP_MAC_free(verifier->hmac);
    EVP_MD_CTX_free(verifier->hashing);
    EVP_MD_CTX_free(verifier->eddsa);
    token_keys_unref(verifier->keys);
    free(verifier);
}

static bool is_pss(enum token_algorithm algorithm)
{
    return algorithm == ALGORITHM_PS256 || algorithm == ALGORITHM_PS384 || algorithm == ALGORITHM_PS512;
}

static EVP_PKEY_CTX *new_context(const struct token_verifier *verifier, EVP_PKEY *opened,
                                 enum token_algorithm algorithm, bool rsa)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(verifier->library, opened, NULL);
    const EVP_MD *digest = verifier->digests[digest_of(algorithm)];
    bool good = context && EVP_PKEY_verify_init(context) > 0;
    if (good && rsa)
        good = EVP_PKEY_CTX_set_rsa_padding(context, is_pss(algorithm) ? RSA_PKCS1_PSS_PADDING
                                                                       : RSA_PKCS1_PADDING) > 0;
    good = good && EVP_PKEY_CTX_set_signature_md(context, digest) > 0;
    if (good && is_pss(algorithm)) // RFC 7518 3.5: as long as the hash, and the same hash in MGF1
        good = EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) > 0 &&
               EVP_PKEY_CTX_set_rsa_mgf1_md(context, digest) > 0;
    if (good)
        return context;
    EVP_PKEY_CTX_free(context);
    return NULL;
}

// ---- one signature ----

// Over the hash of what was signed.
static bool verify_hash(struct token_verifier *verifier, struct prepared *prepared, const struct token *token,
                        struct str signature)
{
    EVP_PKEY_CTX **context = &prepared->contexts[token->algorithm];
    if (!*context)
        *context = new_context(verifier, prepared->opened, token->algorithm, prepared->key->kind == KEY_RSA);
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    return *context &&
           EVP_DigestInit_ex2(verifier->hashing, verifier->digests[digest_of(token->algorithm)], NULL) == 1 &&
           EVP_DigestUpdate(verifier->hashing, token->signing_input.p, token->signing_input.n) == 1 &&
           EVP_DigestFinal_ex(verifier->hashing, hash, &n) == 1 &&
           EVP_PKEY_verify(*context, (const unsigned char *)signature.p, signature.n, hash, n) == 1;
}

static bool verify_rsa(struct token_verifier *verifier, struct prepared *prepared, const struct token *token)
{
    return token->signature.n == prepared->key->first.n && // RFC 8017 8.1.2, 8.2.2
           verify_hash(verifier, prepared, token, token->signature);
}

// r or s: big-endian, of the order's length, in [1, n-1] (FIPS 186-5 6.4.2).
static bool in_range(const uint8_t *number, const struct key_curve *curve)
{
    uint8_t any = 0;
    for (size_t i = 0; i < curve->bytes; i++)
        any |= number[i];
    return any && memcmp(number, curve->order, curve->bytes) < 0;
}

static uint8_t *put_der_integer(uint8_t *at, const uint8_t *number, size_t n)
{
    while (n > 1 && !number[0])
        number++, n--;
    bool zero = number[0] & 0x80;
    *at++ = 0x02;
    *at++ = (uint8_t)(n + zero);
    if (zero)
        *at++ = 0;
    memcpy(at, number, n);
    return at + n;
}

// RFC 7518 3.4: r and s, one after the other; OpenSSL wants them in DER.
static bool verify_ec(struct token_verifier *verifier, struct prepared *prepared, const struct token *token)
{
    const struct key_curve *curve = prepared->key->curve;
    const uint8_t *r = (const uint8_t *)token->signature.p, *s = r + curve->bytes;
    if (token->signature.n != 2 * curve->bytes || !in_range(r, curve) || !in_range(s, curve))
        return false;
    uint8_t der[DER_BYTES], *begin = der + 3; // the head is known last: two bytes or three
    size_t n = (size_t)(put_der_integer(put_der_integer(begin, r, curve->bytes), s, curve->bytes) - begin);
    *--begin = (uint8_t)n;
    if (n >= 0x80)
        *--begin = 0x81;
    *--begin = 0x30;
    n = (size_t)(der + 3 - begin) + n;
    return verify_hash(verifier, prepared, token, (struct str){(const char *)begin, n});
}

// OpenSSL refuses S >= L and what is no point (RFC 8032 5.1.7).
static bool verify_ed25519(struct token_verifier *verifier, struct prepared *prepared,
                           const struct token *token)
{
    return EVP_MD_CTX_reset(verifier->eddsa) == 1 &&
           EVP_DigestVerifyInit_ex(verifier->eddsa, NULL, NULL, verifier->library, NULL, prepared->opened,
                                   NULL) == 1 &&
           EVP_DigestVerify(verifier->eddsa, (const unsigned char *)token->signature.p, token->signature.n,
                            (const unsigned char *)token->signing_input.p, token->signing_input.n) == 1;
}

static EVP_MAC_CTX *new_mac(const struct token_verifier *verifier, struct str secret, enum digest digest)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)digest_names[digest], 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC_CTX *mac = EVP_MAC_CTX_new(verifier->hmac);
    if (mac && EVP_MAC_init(mac, (const unsigned char *)secret.p, secret.n, params) == 1)
        return mac;
    EVP_MAC_CTX_free(mac);
    return NULL;
}

static bool verify_hmac(struct token_verifier *verifier, struct prepared *prepared, const struct token *token)
{
    enum digest digest = digest_of(token->algorithm);
    EVP_MAC_CTX **keyed = &prepared->macs[digest];
    if (!*keyed)
        *keyed = new_mac(verifier, prepared->key->first, digest);
    EVP_MAC_CTX *mac = *keyed ? EVP_MAC_CTX_dup(*keyed) : NULL;
    uint8_t want[EVP_MAX_MD_SIZE];
    size_t n = 0;
    bool good =
        mac &&
        EVP_MAC_update(mac, (const unsigned char *)token->signing_input.p, token->signing_input.n) == 1 &&
        EVP_MAC_final(mac, want, &n, sizeof want) == 1 && n && token->signature.n == n &&
        CRYPTO_memcmp(token->signature.p, want, n) == 0;
    EVP_MAC_CTX_free(mac);
    OPENSSL_cleanse(want, sizeof want);
    return good;
}

static bool verify_with(struct token_verifier *verifier, struct prepared *prepared, const struct token *token)
{
    bool good = false;
    switch (prepared->key->kind) {
    case KEY_RSA: good = verify_rsa(verifier, prepared, token); break;
    case KEY_EC: good = verify_ec(verifier, prepared, token); break;
    case KEY_ED25519: good = verify_ed25519(verifier, prepared, token); break;
    case KEY_SECRET: good = verify_hmac(verifier, prepared, token); break;
    }
    if (!good)
        ERR_clear_error(); // this thread's TLS connections look at the same list
    return good;
}

// ---- which key ----

// Which keys are tried: those of one kid (STR_NULL: those that bear none), or any.
struct choice {
    struct str kid;
    bool any;
    unsigned known, fitting; // keys of the kid; of these, keys for the token's algorithm
};

static bool try_keys(struct token_verifier *verifier, const struct token *token, struct choice *choice)
{
    for (uint32_t i = 0; i < verifier->count; i++) {
        struct prepared *prepared = &verifier->prepared[i];
        if (!choice->any && !str_eq(prepared->key->kid, choice->kid))
            continue;
        choice->known++;
        if (!(prepared->key->algorithms & 1U << token->algorithm))
            continue;
        if (choice->fitting++ == WITHOUT_KID_TRIES)
            return false;
        if (verify_with(verifier, prepared, token))
            return true;
    }
    return false;
}

enum token_fault token_verify(struct token_verifier *verifier, const struct token *token, unsigned algorithms)
{
    if (!(algorithms & 1U << token->algorithm))
        return TOKEN_BAD_ALGORITHM;
    struct choice choice = {.kid = token->kid, .any = !token->kid.n};
    if (try_keys(verifier, token, &choice))
        return TOKEN_GOOD;
    if (choice.fitting)
        return TOKEN_BAD_SIGNATURE;
    if (choice.any)
        return TOKEN_UNKNOWN_KEY;
    if (choice.known)
        return TOKEN_BAD_ALGORITHM;
    // Keys that bear no kid may be anyone's.
    choice = (struct choice){.kid = STR_NULL};
    return try_keys(verifier, token, &choice) ? TOKEN_GOOD : TOKEN_UNKNOWN_KEY;
}
