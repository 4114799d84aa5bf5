#include "shake_keys.h"

#include "sock.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

static EVP_MD *sha256;
static EVP_MD_CTX *digest;
static EVP_MAC_CTX *mac;
static EVP_CIPHER *gcm;
static EVP_CIPHER_CTX *sealing;
static EVP_CIPHER_CTX *opening;
static EVP_PKEY_CTX *agreement;
static uint8_t share[SHARE_BYTES];

/* The certificate that was seen last: servers under test show one and the same. */
static uint8_t *known;
static size_t known_size;
static EVP_PKEY *known_key;

static void must(bool done)
{
    if (!done)
        die("the handshakes' cryptography failed");
}

void keys_setup(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    digest = EVP_MD_CTX_new();
    EVP_MAC *algorithm = EVP_MAC_fetch(NULL, "HMAC", NULL);
    mac = EVP_MAC_CTX_new(algorithm);
    char name[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                                     OSSL_PARAM_construct_end()};
    must(sha256 != NULL && digest != NULL && mac != NULL && EVP_MAC_CTX_set_params(mac, parameters) == 1);
    EVP_MAC_free(algorithm);

    gcm = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
    sealing = EVP_CIPHER_CTX_new();
    opening = EVP_CIPHER_CTX_new();
    must(gcm != NULL && sealing != NULL && opening != NULL);
    must(EVP_EncryptInit_ex2(sealing, gcm, NULL, NULL, NULL) == 1);
    must(EVP_DecryptInit_ex2(opening, gcm, NULL, NULL, NULL) == 1);

    EVP_PKEY *own = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    size_t size = sizeof share;
    must(own != NULL && EVP_PKEY_get_raw_public_key(own, share, &size) == 1 && size == sizeof share);
    agreement = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    must(agreement != NULL && EVP_PKEY_derive_init(agreement) == 1);
    EVP_PKEY_free(own);
}

const uint8_t *keys_share(void)
{
    return share;
}

bool keys_agree(uint8_t secret[SHARE_BYTES], const uint8_t peer[SHARE_BYTES])
{
    EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, peer, SHARE_BYTES);
    size_t size = SHARE_BYTES;
    bool agreed = theirs != NULL && EVP_PKEY_derive_set_peer_ex(agreement, theirs, 0) == 1 &&
                  EVP_PKEY_derive(agreement, secret, &size) == 1 && size == SHARE_BYTES;
    EVP_PKEY_free(theirs);
    return agreed;
}

void hash(uint8_t out[HASH_BYTES], const void *data, size_t size)
{
    must(EVP_DigestInit_ex2(digest, sha256, NULL) == 1 && EVP_DigestUpdate(digest, data, size) == 1 &&
         EVP_DigestFinal_ex(digest, out, NULL) == 1);
}

void hmac(uint8_t out[HASH_BYTES], const uint8_t key[HASH_BYTES], const void *data, size_t size)
{
    size_t made = 0;
    must(EVP_MAC_init(mac, key, HASH_BYTES, NULL) == 1 && EVP_MAC_update(mac, data, size) == 1 &&
         EVP_MAC_final(mac, out, &made, HASH_BYTES) == 1 && made == HASH_BYTES);
}

void expand_label(uint8_t *out, size_t out_size, const uint8_t secret[HASH_BYTES], const char *label,
                  const void *context, size_t context_size)
{
    uint8_t info[3 + 6 + 12 + 1 + 255 + 1];
    size_t label_size = strlen(label);
    must(out_size <= HASH_BYTES && label_size <= 12 && context_size <= 255);
    size_t n = 0;
    info[n++] = 0;
    info[n++] = (uint8_t)out_size;
    info[n++] = (uint8_t)(6 + label_size);
    memcpy(info + n, "tls13 ", 6);
    memcpy(info + n + 6, label, label_size);
    n += 6 + label_size;
    info[n++] = (uint8_t)context_size;
    if (context_size > 0)
        memcpy(info + n, context, context_size);
    n += context_size;
    info[n++] = 1; /* HKDF-Expand's counter: one block is enough for all of TLS 1.3 with SHA-256 */
    uint8_t block[HASH_BYTES];
    hmac(block, secret, info, n);
    memcpy(out, block, out_size);
}

void finished_mac(uint8_t out[HASH_BYTES], const uint8_t secret[HASH_BYTES],
                  const uint8_t transcript[HASH_BYTES])
{
    uint8_t key[HASH_BYTES];
    expand_label(key, sizeof key, secret, "finished", NULL, 0);
    hmac(out, key, transcript, HASH_BYTES);
}

/* --- records --- */

void traffic_init(struct traffic *t, const uint8_t secret[HASH_BYTES])
{
    expand_label(t->key, sizeof t->key, secret, "key", NULL, 0);
    expand_label(t->iv, sizeof t->iv, secret, "iv", NULL, 0);
    t->records = 0;
}

static void next_nonce(struct traffic *t, uint8_t nonce[12])
{
    memcpy(nonce, t->iv, 12);
    for (unsigned i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(t->records >> (8 * i));
    t->records++;
}

void traffic_seal(struct traffic *t, uint8_t *out, uint8_t type, const void *data, size_t size)
{
    uint8_t nonce[12];
    next_nonce(t, nonce);
    size_t sealed = size + 1 + 16;
    out[0] = 23;
    out[1] = 3;
    out[2] = 3;
    out[3] = (uint8_t)(sealed >> 8);
    out[4] = (uint8_t)sealed;
    uint8_t *body = out + RECORD_HEADER;
    int n = 0;
    must(EVP_EncryptInit_ex2(sealing, NULL, t->key, nonce, NULL) == 1 &&
         EVP_EncryptUpdate(sealing, NULL, &n, out, RECORD_HEADER) == 1 &&
         EVP_EncryptUpdate(sealing, body, &n, data, (int)size) == 1 &&
         EVP_EncryptUpdate(sealing, body + size, &n, &type, 1) == 1 &&
         EVP_EncryptFinal_ex(sealing, body + size + 1, &n) == 1 &&
         EVP_CIPHER_CTX_ctrl(sealing, EVP_CTRL_AEAD_GET_TAG, 16, body + size + 1) == 1);
}

int traffic_open(struct traffic *t, uint8_t *record, size_t record_size, uint8_t **data, size_t *size)
{
    if (record_size < RECORD_EXTRA)
        return -1;
    uint8_t nonce[12];
    next_nonce(t, nonce);
    uint8_t *body = record + RECORD_HEADER;
    size_t n = record_size - RECORD_HEADER - 16;
    int made = 0;
    if (EVP_DecryptInit_ex2(opening, NULL, t->key, nonce, NULL) != 1 ||
        EVP_DecryptUpdate(opening, NULL, &made, record, RECORD_HEADER) != 1 ||
        EVP_DecryptUpdate(opening, body, &made, body, (int)n) != 1 ||
        EVP_CIPHER_CTX_ctrl(opening, EVP_CTRL_AEAD_SET_TAG, 16, body + n) != 1 ||
        EVP_DecryptFinal_ex(opening, body + n, &made) != 1)
        return -1;
    while (n > 0 && body[n - 1] == 0)
        n--; /* padding */
    if (n == 0)
        return -1;
    *data = body;
    *size = n - 1;
    return body[n - 1];
}

/* --- signatures --- */

static bool learn(const uint8_t *certificate, size_t size)
{
    const uint8_t *at = certificate;
    X509 *x509 = d2i_X509(NULL, &at, (long)size);
    EVP_PKEY *key = x509 != NULL ? X509_get_pubkey(x509) : NULL;
    X509_free(x509);
    uint8_t *copy = malloc(size);
    if (key == NULL || copy == NULL) {
        EVP_PKEY_free(key);
        free(copy);
        return false;
    }
    memcpy(copy, certificate, size);
    EVP_PKEY_free(known_key);
    free(known);
    known = copy;
    known_size = size;
    known_key = key;
    return true;
}

bool signature_check(const uint8_t *certificate, size_t certificate_size, const void *data, size_t size,
                     const uint8_t *signature, size_t signature_size)
{
    bool same = known_size == certificate_size && memcmp(known, certificate, known_size) == 0;
    if (!same && !learn(certificate, certificate_size))
        return false;
    EVP_MD_CTX *check = EVP_MD_CTX_new();
    bool good = check != NULL &&
                EVP_DigestVerifyInit_ex(check, NULL, "SHA256", NULL, NULL, known_key, NULL) == 1 &&
                EVP_DigestVerify(check, signature, signature_size, data, size) == 1;
    EVP_MD_CTX_free(check);
    return good;
}
