#include "auth_service/scrypt.h"

#include "base/base64.h"
#include "base/rand.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>

// Takes what stands before the next colon, or the rest.
static struct str take(struct str *rest)
{
    struct str part = {rest->p, str_find(*rest, ':')};
    *rest = part.n < rest->n ? str_skip(*rest, part.n + 1) : (struct str){rest->p + rest->n, 0};
    return part;
}

static bool take_bytes(struct str *rest, uint8_t out[SCRYPT_BYTES], size_t *n, size_t least)
{
    struct str part = take(rest);
    uint8_t bytes[SCRYPT_BYTES + 4];
    if (base64url_decoded_max(part.n) > sizeof bytes || !base64url_decode(part, bytes, n) ||
        *n > SCRYPT_BYTES || *n < least)
        return false;
    memcpy(out, bytes, *n);
    return true;
}

bool scrypt_parse(struct str text, struct scrypt_hash *out, const char **why)
{
    struct str rest = text;
    *out = (struct scrypt_hash){0};
    *why = "expected scrypt:N:r:p:SALT:HASH";
    if (!str_eq(take(&rest), STR("scrypt")) || !str_to_u64(take(&rest), SCRYPT_N_MAX, &out->n) ||
        !str_to_u64(take(&rest), SCRYPT_R_MAX, &out->r) || !str_to_u64(take(&rest), SCRYPT_P_MAX, &out->p) ||
        !take_bytes(&rest, out->salt, &out->salt_bytes, 8) ||
        !take_bytes(&rest, out->hash, &out->hash_bytes, 16) || rest.n || str_ends(text, STR(":")))
        return false;
    *why = "its cost is out of bounds";
    return out->n >= SCRYPT_N_MIN && (out->n & (out->n - 1)) == 0 && out->r && out->p &&
           128 * out->n * out->r <= SCRYPT_MEMORY;
}

static bool derive(const struct scrypt_hash *hash, struct str secret, uint8_t out[SCRYPT_BYTES])
{
    uint64_t memory = 128 * hash->r * (hash->n + hash->p + 2) + (1 << 20);
    return EVP_PBE_scrypt(secret.n ? secret.p : "", secret.n, hash->salt, hash->salt_bytes, hash->n, hash->r,
                          hash->p, memory, out, hash->hash_bytes) == 1;
}

bool scrypt_make(struct str secret, char out[SCRYPT_TEXT])
{
    struct scrypt_hash hash = {
        .n = SCRYPT_N, .r = SCRYPT_R, .p = SCRYPT_P, .salt_bytes = SCRYPT_SALT, .hash_bytes = SCRYPT_HASH};
    rand_secret(hash.salt, SCRYPT_SALT);
    if (!derive(&hash, secret, hash.hash))
        return false;
    char salt[SCRYPT_BYTES * 2], bytes[SCRYPT_BYTES * 2];
    size_t salt_n = base64url_encode(hash.salt, SCRYPT_SALT, salt);
    size_t bytes_n = base64url_encode(hash.hash, SCRYPT_HASH, bytes);
    snprintf(out, SCRYPT_TEXT, "scrypt:%d:%d:%d:%.*s:%.*s", SCRYPT_N, SCRYPT_R, SCRYPT_P, (int)salt_n, salt,
             (int)bytes_n, bytes);
    return true;
}

bool scrypt_matches(const struct scrypt_hash *expected, struct str secret)
{
    uint8_t got[SCRYPT_BYTES];
    bool match = derive(expected, secret, got) &&
                 CRYPTO_memcmp(got, expected->hash, expected->hash_bytes) == 0 && expected != scrypt_nobody();
    OPENSSL_cleanse(got, sizeof got);
    return match;
}

const struct scrypt_hash *scrypt_nobody(void)
{
    static const struct scrypt_hash nobody = {
        .n = SCRYPT_N, .r = SCRYPT_R, .p = SCRYPT_P, .salt_bytes = SCRYPT_SALT, .hash_bytes = SCRYPT_HASH};
    return &nobody;
}
