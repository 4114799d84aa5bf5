#include "token/sign.h"

#include "base/base64.h"
#include "token/keys.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>

enum { THUMBPRINT_BYTES = 32, KID_CHARS = 43, RSA_KEY_BITS = 2048 };

struct token_signer {
    EVP_PKEY *key;
    OSSL_LIB_CTX *library;
    EVP_MD_CTX *context;
    enum token_algorithm algorithm;
    const struct key_curve *curve; // of an EC key
    struct str kid;
    char kid_chars[KID_CHARS];
    char *public; // the members of RFC 7638 3.2, in their order: {"e":"…","kty":"RSA","n":"…"}
    size_t public_bytes;
};

// ---- a key ----

// Never asks the terminal for a passphrase.
static int no_passphrase(char *buffer, int size, int writing, void *data)
{
    (void)buffer, (void)size, (void)writing, (void)data;
    return -1;
}

static EVP_PKEY *read_pem(struct str pem, OSSL_LIB_CTX *library)
{
    if (pem.n > INT32_MAX)
        return NULL;
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey_ex(bio, NULL, no_passphrase, NULL, library, NULL) : NULL;
    BIO_free(bio);
    return key;
}

// Which algorithm a key signs with; false: none here.
static bool choose_algorithm(struct token_signer *signer)
{
    char group[32];
    size_t n = 0;
    if (EVP_PKEY_is_a(signer->key, "RSA")) {
        int bits = EVP_PKEY_get_bits(signer->key);
        signer->algorithm = ALGORITHM_RS256;
        return bits >= TOKEN_RSA_BITS && bits <= TOKEN_RSA_BITS_MAX;
    }
    if (EVP_PKEY_is_a(signer->key, "ED25519")) {
        signer->algorithm = ALGORITHM_EDDSA;
        return true;
    }
    if (!EVP_PKEY_is_a(signer->key, "EC") ||
        EVP_PKEY_get_group_name(signer->key, group, sizeof group, &n) != 1)
        return false;
    static const struct {
        const char *group, *name;
    } groups[] = {{"prime256v1", "P-256"}, {"secp384r1", "P-384"}, {"secp521r1", "P-521"}};
    for (size_t i = 0; i < countof(groups); i++)
        if (strcmp(group, groups[i].group) == 0)
            signer->curve = key_curve_of(str_of(groups[i].name));
    if (signer->curve)
        signer->algorithm = signer->curve->algorithm;
    return signer->curve;
}

// A number of the key in base64url, of n bytes; 0: as many as it has.
static bool put_number(struct buf *out, EVP_PKEY *key, const char *name, size_t n)
{
    enum { MAX = TOKEN_RSA_BITS_MAX / 8 };
    BIGNUM *number = NULL;
    uint8_t bytes[MAX];
    char text[MAX * 2];
    bool good = EVP_PKEY_get_bn_param(key, name, &number) == 1 && BN_num_bytes(number) <= MAX;
    if (good && !n)
        n = (size_t)BN_num_bytes(number);
    good = good && BN_bn2binpad(number, bytes, (int)n) == (int)n;
    if (good)
        buf_append(out, (struct str){text, base64url_encode(bytes, n, text)});
    BN_free(number);
    return good;
}

static bool put_ed25519(struct buf *out, EVP_PKEY *key)
{
    uint8_t bytes[32];
    char text[64];
    size_t n = sizeof bytes;
    if (EVP_PKEY_get_raw_public_key(key, bytes, &n) != 1)
        return false;
    buf_append(out, (struct str){text, base64url_encode(bytes, n, text)});
    return true;
}

static bool put_public(struct buf *out, const struct token_signer *signer)
{
    bool good;
    if (signer->curve) {
        buf_printf(out, "{\"crv\":\"%s\",\"kty\":\"EC\",\"x\":\"", signer->curve->openssl);
        good = put_number(out, signer->key, OSSL_PKEY_PARAM_EC_PUB_X, signer->curve->bytes);
        buf_append(out, STR("\",\"y\":\""));
        good = good && put_number(out, signer->key, OSSL_PKEY_PARAM_EC_PUB_Y, signer->curve->bytes);
    } else if (signer->algorithm == ALGORITHM_EDDSA) {
        buf_append(out, STR("{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\""));
        good = put_ed25519(out, signer->key);
    } else {
        buf_append(out, STR("{\"e\":\""));
        good = put_number(out, signer->key, OSSL_PKEY_PARAM_RSA_E, 0);
        buf_append(out, STR("\",\"kty\":\"RSA\",\"n\":\""));
        good = good && put_number(out, signer->key, OSSL_PKEY_PARAM_RSA_N, 0);
    }
    buf_append(out, STR("\"}"));
    return good;
}

static bool describe(struct token_signer *signer)
{
    struct buf public = {0};
    uint8_t hash[THUMBPRINT_BYTES];
    size_t n = 0;
    bool good = put_public(&public, signer);
    if (good) {
        struct str text = buf_str(&public);
        signer->public = str_dup(text);
        signer->public_bytes = text.n;
        good =
            EVP_Q_digest(signer->library, "SHA256", NULL, text.p, text.n, hash, &n) == 1 && n == sizeof hash;
    }
    if (good)
        signer->kid = (struct str){signer->kid_chars, base64url_encode(hash, sizeof hash, signer->kid_chars)};
    buf_free(&public);
    return good;
}

static struct token_signer *new_signer(EVP_PKEY *key, OSSL_LIB_CTX *library)
{
    struct token_signer *signer = calloc(1, sizeof *signer);
    if (!signer)
        return NULL;
    signer->key = key;
    signer->library = library;
    signer->context = EVP_MD_CTX_new();
    if (signer->context && choose_algorithm(signer) && describe(signer))
        return signer;
    signer->key = NULL;
    token_signer_free(signer);
    return NULL;
}

struct token_signer *token_signer_new(struct str pem, void *library, struct err *err)
{
    EVP_PKEY *key = read_pem(pem, library);
    struct token_signer *signer = key ? new_signer(key, library) : NULL;
    if (signer)
        return signer;
    err_set(err, ERR_INVALID, "", "%s",
            key ? "the private key is of no kind that signs tokens (RSA of 2048 to 8192 bits, P-256, P-384, "
                  "P-521, Ed25519)"
                : "it is no private key in PEM without a passphrase");
    EVP_PKEY_free(key);
    ERR_clear_error();
    return NULL;
}

void token_signer_free(struct token_signer *signer)
{
    if (!signer)
        return;
    EVP_MD_CTX_free(signer->context);
    EVP_PKEY_free(signer->key);
    free(signer->public);
    free(signer);
}

enum token_algorithm token_signer_algorithm(const struct token_signer *signer)
{
    return signer->algorithm;
}

struct str token_signer_kid(const struct token_signer *signer)
{
    return signer->kid;
}

void token_signer_jwk(const struct token_signer *signer, struct json *out)
{
    struct buf text = {0};
    buf_append(&text, (struct str){signer->public, signer->public_bytes - 1});
    buf_printf(&text, ",\"kid\":\"%.*s\",\"alg\":\"%s\",\"use\":\"sig\"}", STR_ARG(signer->kid),
               token_algorithm_name(signer->algorithm).p);
    json_raw(out, buf_str(&text));
    buf_free(&text);
}

bool token_key_generate(enum token_algorithm algorithm, void *library, struct buf *pem)
{
    EVP_PKEY *key = NULL;
    switch (algorithm) {
    case ALGORITHM_RS256: key = EVP_PKEY_Q_keygen(library, NULL, "RSA", (size_t)RSA_KEY_BITS); break;
    case ALGORITHM_ES256: key = EVP_PKEY_Q_keygen(library, NULL, "EC", "P-256"); break;
    case ALGORITHM_EDDSA: key = EVP_PKEY_Q_keygen(library, NULL, "ED25519"); break;
    default: return false;
    }
    BIO *bio = BIO_new(BIO_s_secmem());
    const char *text = NULL;
    bool good = key && bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1;
    long n = good ? BIO_get_mem_data(bio, &text) : 0;
    if (n > 0)
        buf_append(pem, (struct str){text, (size_t)n});
    BIO_free(bio);
    EVP_PKEY_free(key);
    if (n <= 0)
        ERR_clear_error();
    return n > 0;
}

// ---- a token ----

static const char *digest_name(enum token_algorithm algorithm)
{
    switch (algorithm) {
    case ALGORITHM_EDDSA: return NULL;
    case ALGORITHM_ES384: return "SHA384";
    case ALGORITHM_ES512: return "SHA512";
    default: return "SHA256";
    }
}

// RFC 7518 3.4: r and s, each of the curve's length.
static bool raw_from_der(const struct key_curve *curve, const uint8_t *der, size_t n, uint8_t *raw)
{
    ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)n);
    int bytes = (int)curve->bytes;
    bool good = signature && BN_bn2binpad(ECDSA_SIG_get0_r(signature), raw, bytes) == bytes &&
                BN_bn2binpad(ECDSA_SIG_get0_s(signature), raw + bytes, bytes) == bytes;
    ECDSA_SIG_free(signature);
    return good;
}

// raw has room for a signature of TOKEN_RSA_BITS_MAX bits. 0: OpenSSL failed.
static size_t sign_text(struct token_signer *signer, struct str text, uint8_t *raw)
{
    uint8_t out[TOKEN_RSA_BITS_MAX / 8];
    size_t n = sizeof out;
    if (EVP_MD_CTX_reset(signer->context) != 1 ||
        EVP_DigestSignInit_ex(signer->context, NULL, digest_name(signer->algorithm), signer->library, NULL,
                              signer->key, NULL) != 1 ||
        EVP_DigestSign(signer->context, out, &n, (const unsigned char *)text.p, text.n) != 1)
        return 0;
    if (signer->curve)
        return raw_from_der(signer->curve, out, n, raw) ? 2 * signer->curve->bytes : 0;
    memcpy(raw, out, n);
    return n;
}

struct str token_sign(struct token_signer *signer, struct str type, struct str claims, struct arena *arena)
{
    struct str header =
        arena_printf(arena, "{\"alg\":\"%s\",\"typ\":\"%.*s\",\"kid\":\"%.*s\"}",
                     token_algorithm_name(signer->algorithm).p, STR_ARG(type), STR_ARG(signer->kid));
    uint8_t raw[TOKEN_RSA_BITS_MAX / 8];
    char *text = arena_alloc(arena, base64url_encoded_bytes(header.n) + base64url_encoded_bytes(claims.n) +
                                        base64url_encoded_bytes(sizeof raw) + 2);
    char *at = text + base64url_encode((const uint8_t *)header.p, header.n, text);
    *at++ = '.';
    at += base64url_encode((const uint8_t *)claims.p, claims.n, at);
    size_t n = sign_text(signer, str_range(text, at), raw);
    if (!n) {
        ERR_clear_error();
        return STR_NULL;
    }
    *at++ = '.';
    at += base64url_encode(raw, n, at);
    return str_range(text, at);
}
