#include "token/keys.h"

#include "base/base64.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdlib.h>

enum {
    ED25519_BYTES = 32,
    RSA_EXPONENT_BYTES = 4, // more of it only makes a verification dear
};

#define ALGORITHMS_RSA                                                                               \
    (1U << ALGORITHM_RS256 | 1U << ALGORITHM_RS384 | 1U << ALGORITHM_RS512 | 1U << ALGORITHM_PS256 | \
     1U << ALGORITHM_PS384 | 1U << ALGORITHM_PS512)

// clang-format off
static const struct key_curve curves[] = {
    {{"P-256", 5}, "P-256", ALGORITHM_ES256, 32,
     {0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
      0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51}},
    {{"P-384", 5}, "P-384", ALGORITHM_ES384, 48,
     {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
      0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73}},
    {{"P-521", 5}, "P-521", ALGORITHM_ES512, 66,
     {0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
      0xff, 0xfa, 0x51, 0x86, 0x87, 0x83, 0xbf, 0x2f, 0x96, 0x6b, 0x7f, 0xcc, 0x01, 0x48, 0xf7, 0x09,
      0xa5, 0xd0, 0x3b, 0xb5, 0xc9, 0xb8, 0x89, 0x9c, 0x47, 0xae, 0xbb, 0x6f, 0xb7, 0x1e, 0x91, 0x38,
      0x64, 0x09}},
};
// clang-format on

const struct key_curve *key_curve_of(struct str name)
{
    for (size_t i = 0; i < countof(curves); i++)
        if (str_eq(curves[i].name, name))
            return &curves[i];
    return NULL;
}

// ---- OpenSSL's form ----

static bool push_rsa(OSSL_PARAM_BLD *build, const struct token_key *key, BIGNUM **n, BIGNUM **e)
{
    *n = BN_bin2bn((const unsigned char *)key->first.p, (int)key->first.n, NULL);
    *e = BN_bin2bn((const unsigned char *)key->second.p, (int)key->second.n, NULL);
    return *n && *e && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, *n) &&
           OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, *e);
}

// point has room for an uncompressed one (SEC 1, 2.3.3).
static bool push_ec(OSSL_PARAM_BLD *build, const struct token_key *key, uint8_t *point)
{
    point[0] = 4;
    memcpy(point + 1, key->first.p, key->first.n);
    memcpy(point + 1 + key->first.n, key->second.p, key->second.n);
    return OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, key->curve->openssl, 0) &&
           OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point,
                                            1 + key->first.n + key->second.n);
}

static EVP_PKEY *open_params(OSSL_PARAM *params, const char *type, OSSL_LIB_CTX *library)
{
    EVP_PKEY *opened = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(library, type, NULL);
    if (context && params && EVP_PKEY_fromdata_init(context) > 0 &&
        EVP_PKEY_fromdata(context, &opened, EVP_PKEY_PUBLIC_KEY, params) <= 0)
        opened = NULL;
    EVP_PKEY_CTX_free(context);
    return opened;
}

EVP_PKEY *key_open(const struct token_key *key, OSSL_LIB_CTX *library)
{
    EVP_PKEY *opened = NULL;
    if (key->kind == KEY_ED25519) {
        opened = EVP_PKEY_new_raw_public_key_ex(library, "ED25519", NULL, (const unsigned char *)key->first.p,
                                                key->first.n);
    } else {
        BIGNUM *n = NULL, *e = NULL;
        uint8_t point[1 + 2 * CURVE_BYTES_MAX];
        OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
        if (build && (key->kind == KEY_RSA ? push_rsa(build, key, &n, &e) : push_ec(build, key, point))) {
            OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
            opened = open_params(params, key->kind == KEY_RSA ? "RSA" : "EC", library);
            OSSL_PARAM_free(params);
        }
        OSSL_PARAM_BLD_free(build);
        BN_free(n);
        BN_free(e);
    }
    if (!opened)
        ERR_clear_error(); // what is left would be taken for a fault of this thread's next TLS connection
    return opened;
}

// ---- a JWK ----

// Why a key cannot be used; NULL: it can.
typedef const char *fault;

static bool get_bytes(const struct json_value *jwk, struct str name, struct arena *arena, struct str *bytes)
{
    const struct json_value *value = json_get(jwk, name);
    if (!json_is_string(value) || !value->text.n)
        return false;
    uint8_t *out = arena_alloc(arena, base64url_decoded_max(value->text.n));
    bytes->p = (const char *)out;
    return base64url_decode(value->text, out, &bytes->n);
}

// A number (RFC 7518 2, Base64urlUInt). Leading zeros should not be there, but are (RFC 7518 6.3.1.1).
static bool get_number(const struct json_value *jwk, struct str name, struct arena *arena, struct str *number)
{
    if (!get_bytes(jwk, name, arena, number))
        return false;
    while (number->n && !number->p[0])
        *number = str_skip(*number, 1);
    return number->n;
}

static bool is_odd(struct str number)
{
    return number.p[number.n - 1] & 1;
}

static fault read_rsa(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    if (!get_number(jwk, STR("n"), arena, &key->first) || !get_number(jwk, STR("e"), arena, &key->second))
        return "an RSA key without n or e in base64url";
    size_t bits = key->first.n * 8 - ((size_t)__builtin_clz((unsigned char)key->first.p[0]) - 24);
    if (bits < TOKEN_RSA_BITS || bits > TOKEN_RSA_BITS_MAX)
        return "an RSA key of less than 2048 or more than 8192 bits";
    if (!is_odd(key->first))
        return "an RSA key with an even modulus";
    bool is_one = key->second.n == 1 && key->second.p[0] == 1;
    if (key->second.n > RSA_EXPONENT_BYTES || !is_odd(key->second) || is_one)
        return "an RSA key with an exponent that is even, 1 or longer than 32 bits";
    key->kind = KEY_RSA;
    key->algorithms = ALGORITHMS_RSA;
    return NULL;
}

static fault read_ec(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    const struct json_value *name = json_get(jwk, STR("crv"));
    key->curve = json_is_string(name) ? key_curve_of(name->text) : NULL;
    if (!key->curve)
        return "an EC key of an unknown curve";
    if (!get_bytes(jwk, STR("x"), arena, &key->first) || !get_bytes(jwk, STR("y"), arena, &key->second) ||
        key->first.n != key->curve->bytes || key->second.n != key->curve->bytes)
        return "an EC key without x and y of the curve's length in base64url";
    key->kind = KEY_EC;
    key->algorithms = 1U << key->curve->algorithm;
    EVP_PKEY *opened = key_open(key, NULL);
    EVP_PKEY_free(opened);
    return opened ? NULL : "an EC key whose point is not on its curve";
}

// Points whose order divides eight (RFC 7748 7, little-endian y): for them some signatures are valid for
// anything.
static bool has_small_order(struct str x)
{
    // clang-format off
    static const uint8_t small[][ED25519_BYTES] = {
        {0}, {1},
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
         0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
         0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
    };
    // clang-format on
    uint8_t y[ED25519_BYTES];
    memcpy(y, x.p, sizeof y);
    y[ED25519_BYTES - 1] &= 0x7f; // the sign of x
    for (size_t i = 0; i < countof(small); i++)
        if (memcmp(y, small[i], sizeof y) == 0)
            return true;
    // p - 1 and what is no y: p and p + 1 would be other spellings of 0 and 1.
    for (size_t i = 1; i < ED25519_BYTES - 1; i++)
        if (y[i] != 0xff)
            return false;
    return y[0] >= 0xec && y[ED25519_BYTES - 1] == 0x7f;
}

static fault read_okp(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    const struct json_value *name = json_get(jwk, STR("crv"));
    if (!json_is_string(name) || !str_eq(name->text, STR("Ed25519")))
        return "an OKP key of an unknown curve";
    if (!get_bytes(jwk, STR("x"), arena, &key->first) || key->first.n != ED25519_BYTES)
        return "an Ed25519 key without x of 32 bytes in base64url";
    if (has_small_order(key->first))
        return "an Ed25519 key of small order";
    key->kind = KEY_ED25519;
    key->algorithms = 1U << ALGORITHM_EDDSA;
    return NULL;
}

// A key as long as the hash, or longer (RFC 7518 3.2).
static fault set_secret(struct str secret, struct token_key *key)
{
    key->kind = KEY_SECRET;
    key->first = secret;
    key->algorithms = secret.n >= 64   ? ALGORITHMS_HS
                      : secret.n >= 48 ? 1U << ALGORITHM_HS256 | 1U << ALGORITHM_HS384
                      : secret.n >= 32 ? 1U << ALGORITHM_HS256
                                       : 0;
    return key->algorithms ? NULL : "a secret of less than 32 bytes";
}

static fault read_oct(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    struct str secret;
    if (!get_bytes(jwk, STR("k"), arena, &secret))
        return "an oct key without k in base64url";
    return set_secret(secret, key);
}

static fault read_material(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    const struct json_value *kty = json_get(jwk, STR("kty"));
    if (!json_is_string(kty))
        return "a key without kty";
    if (str_eq(kty->text, STR("RSA")))
        return read_rsa(jwk, arena, key);
    if (str_eq(kty->text, STR("EC")))
        return read_ec(jwk, arena, key);
    if (str_eq(kty->text, STR("OKP")))
        return read_okp(jwk, arena, key);
    return str_eq(kty->text, STR("oct")) ? read_oct(jwk, arena, key) : "a key of an unknown kty";
}

// "use" is sig, "key_ops" names verify (RFC 7517 4.2, 4.3).
static fault judge_use(const struct json_value *jwk)
{
    const struct json_value *use = json_get(jwk, STR("use")), *ops = json_get(jwk, STR("key_ops"));
    if (use && (!json_is_string(use) || !str_eq(use->text, STR("sig"))))
        return "a key whose use is not sig";
    if (!ops)
        return NULL;
    unsigned verifies = 0;
    for (const struct json_value *op = ops->first; op; op = op->next) {
        if (!json_is_string(op))
            return "a key whose key_ops are no strings";
        verifies += str_eq(op->text, STR("verify"));
    }
    return ops->kind == JSON_ARRAY && verifies == 1 ? NULL : "a key whose key_ops do not include verify";
}

// "alg" binds a key to one algorithm (RFC 7517 4.4).
static fault judge_algorithm(const struct json_value *jwk, struct token_key *key)
{
    const struct json_value *alg = json_get(jwk, STR("alg"));
    if (!alg)
        return NULL;
    unsigned named = 0;
    for (unsigned i = 0; i < ALGORITHM_COUNT && json_is_string(alg); i++)
        if (str_eq(alg->text, token_algorithm_name(i)))
            named = 1U << i;
    key->algorithms &= named;
    return key->algorithms ? NULL : "a key whose alg does not fit it";
}

static fault read_kid(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    const struct json_value *kid = json_get(jwk, STR("kid"));
    if (!kid)
        return NULL;
    if (!json_is_string(kid) || kid->text.n > TOKEN_KID_BYTES)
        return "a key whose kid is no string of at most 256 bytes";
    key->kid = arena_copy(arena, kid->text);
    return NULL;
}

static fault read_key(const struct json_value *jwk, struct arena *arena, struct token_key *key)
{
    fault why = read_material(jwk, arena, key);
    if (!why)
        why = judge_use(jwk);
    if (!why)
        why = judge_algorithm(jwk, key);
    return why ? why : read_kid(jwk, arena, key);
}

// What nobody publishes on purpose (RFC 7517 9.2, RFC 7518 6.2.2, 6.3.2, 6.4).
static bool is_private(const struct json_value *jwk)
{
    const struct json_value *kty = json_get(jwk, STR("kty"));
    return json_get(jwk, STR("d")) || json_get(jwk, STR("k")) ||
           (json_is_string(kty) && str_eq(kty->text, STR("oct")));
}

// ---- sets ----

static void wipe_arena(struct arena *arena)
{
    for (struct arena_block *block = arena->blocks; block; block = block->next)
        OPENSSL_cleanse(block->data, block->size);
    arena_reset(arena);
}

static struct token_keys *new_keys(uint32_t room, struct err *err)
{
    struct token_keys *keys = calloc(1, sizeof *keys + room * sizeof keys->keys[0]);
    if (!keys) {
        err_set(err, ERR_MEMORY, "", "memory is out");
        return NULL;
    }
    keys->references = 1;
    arena_init(&keys->arena, NULL);
    return keys;
}

static bool repeats_kid(const struct token_keys *keys, const struct token_key *key)
{
    for (uint32_t i = 0; i < keys->count && key->kid.n; i++)
        if (keys->keys[i].kind == key->kind && str_eq(keys->keys[i].kid, key->kid))
            return true;
    return false;
}

// The keys from jwk on, its siblings too.
static bool read_keys(struct token_keys *keys, const struct json_value *jwk, bool secrets, struct err *err)
{
    fault first = NULL;
    for (; jwk; jwk = jwk->next) {
        struct token_key key = {0};
        if (!secrets && is_private(jwk)) {
            err_set(err, ERR_INVALID, "", "the key set holds a private or symmetric key");
            return false;
        }
        fault why = read_key(jwk, &keys->arena, &key);
        if (why) {
            first = first ? first : why;
            continue;
        }
        if (repeats_kid(keys, &key)) {
            err_set(err, ERR_INVALID, "", "two keys of one kind have the same kid");
            return false;
        }
        keys->keys[keys->count++] = key;
    }
    if (!keys->count)
        err_set(err, ERR_INVALID, "", "the key set holds no key that verifies tokens%s%s%s",
                first ? " (the first: " : "", first ? first : "", first ? ")" : "");
    return keys->count;
}

static struct token_keys *read_set(const struct json_value *root, bool secrets, struct err *err)
{
    const struct json_value *set = json_get(root, STR("keys"));
    bool alone = !set && json_get(root, STR("kty"));
    if (!alone && (!set || set->kind != JSON_ARRAY)) {
        err_set(err, ERR_INVALID, "", "it is neither a JWK Set nor a JWK");
        return NULL;
    }
    uint32_t room = alone ? 1 : set->count;
    if (room > TOKEN_KEYS) {
        err_set(err, ERR_LIMIT, "", "the key set holds more than %d keys", TOKEN_KEYS);
        return NULL;
    }
    struct token_keys *keys = new_keys(room, err);
    if (keys && !read_keys(keys, alone ? root : set->first, secrets, err)) {
        token_keys_unref(keys);
        keys = NULL;
    }
    return keys;
}

static struct token_keys *parse_keys(struct str json, bool secrets, struct err *err)
{
    if (json.n > TOKEN_KEYS_BYTES) {
        err_set(err, ERR_LIMIT, "", "the key set is longer than %d KiB", TOKEN_KEYS_BYTES / 1024);
        return NULL;
    }
    struct arena arena;
    const char *why = NULL;
    arena_init(&arena, NULL);
    const struct json_value *root = json_parse(json, &arena, &why);
    struct token_keys *keys = NULL;
    if (root)
        keys = read_set(root, secrets, err);
    else
        err_set(err, ERR_INVALID, "", "the key set is not JSON: %s", why);
    wipe_arena(&arena);
    return keys;
}

struct token_keys *token_keys_parse(struct str json, struct err *err)
{
    return parse_keys(json, false, err);
}

struct token_keys *token_keys_parse_private(struct str json, struct err *err)
{
    return parse_keys(json, true, err);
}

struct token_keys *token_keys_secret(struct str secret, struct err *err)
{
    struct token_keys *keys = new_keys(1, err);
    if (!keys)
        return NULL;
    fault why = set_secret(arena_copy(&keys->arena, secret), &keys->keys[0]);
    keys->count = 1;
    if (!why)
        return keys;
    err_set(err, ERR_INVALID, "", "%s", why);
    token_keys_unref(keys);
    return NULL;
}

struct token_keys *token_keys_ref(struct token_keys *keys)
{
    keys->references++;
    return keys;
}

void token_keys_unref(struct token_keys *keys)
{
    if (!keys || --keys->references)
        return;
    wipe_arena(&keys->arena);
    free(keys);
}

uint32_t token_keys_count(const struct token_keys *keys)
{
    return keys->count;
}

static bool holds(const struct token_keys *keys, const struct token_key *key)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct token_key *other = &keys->keys[i];
        if (other->kind == key->kind && other->algorithms == key->algorithms && other->curve == key->curve &&
            str_eq(other->kid, key->kid) && str_eq(other->first, key->first) &&
            str_eq(other->second, key->second))
            return true;
    }
    return false;
}

bool token_keys_same(const struct token_keys *a, const struct token_keys *b)
{
    bool same = a->count == b->count;
    for (uint32_t i = 0; same && i < a->count; i++)
        same = holds(b, &a->keys[i]) && holds(a, &b->keys[i]);
    return same;
}
