// Stateless session tickets (RFC 5077, RFC 8446 4.6.1): AES-256-CBC and HMAC-SHA256 under keys that every
// worker derives from the process's secret for each epoch of wall time. Nothing is stored and nothing is
// told.
#include "net/tls_private.h"

#include "base/clock.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

enum {
    EPOCH_S = TLS_TICKET_HOURS * 3600,
    NAME_SHARED = 8 /* bytes of a key's name; the others are its epoch */
};

static uint64_t epoch_now(void)
{
    return clock_wall_us() / 1000000 / EPOCH_S;
}

static void epoch_bytes(uint64_t epoch, uint8_t out[8])
{
    for (int i = 7; i >= 0; i--, epoch >>= 8)
        out[i] = (uint8_t)epoch;
}

// HKDF-SHA256 (RFC 5869) of the secret for one purpose.
static bool derive(struct tls_slot *slot, const void *info, size_t info_n, uint8_t *out, size_t n)
{
    uint8_t secret[TLS_SECRET_BYTES];
    tls_secret_copy(secret);
    EVP_KDF *hkdf = EVP_KDF_fetch(slot->library, "HKDF", NULL);
    EVP_KDF_CTX *context = hkdf ? EVP_KDF_CTX_new(hkdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret, sizeof secret),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, info_n),
        OSSL_PARAM_construct_end(),
    };
    bool good = context && EVP_KDF_derive(context, out, n, params) > 0;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(hkdf);
    OPENSSL_cleanse(secret, sizeof secret);
    return good;
}

static const struct tls_ticket_key *key_of(struct tls_slot *slot, uint64_t epoch)
{
    struct tls_ticket_key *key = &slot->keys[epoch % countof(slot->keys)];
    if (key->epoch == epoch && epoch)
        return key;
    static const char shared[] = "sallyport ticket names", each[] = "sallyport ticket key ";
    uint8_t info[sizeof each - 1 + 8], out[sizeof key->cipher + sizeof key->mac];
    memcpy(info, each, sizeof each - 1);
    epoch_bytes(epoch, info + sizeof each - 1);
    if (!derive(slot, shared, sizeof shared - 1, key->name, NAME_SHARED) ||
        !derive(slot, info, sizeof info, out, sizeof out)) {
        key->epoch = 0;
        return NULL;
    }
    epoch_bytes(epoch, key->name + NAME_SHARED);
    memcpy(key->cipher, out, sizeof key->cipher);
    memcpy(key->mac, out + sizeof key->cipher, sizeof key->mac);
    OPENSSL_cleanse(out, sizeof out);
    key->epoch = epoch;
    return key;
}

// The key a ticket names; NULL: not ours, or too old.
static const struct tls_ticket_key *key_named(struct tls_slot *slot, const uint8_t name[16], uint64_t now)
{
    uint64_t epoch = 0;
    for (int i = NAME_SHARED; i < 16; i++)
        epoch = epoch << 8 | name[i];
    // One epoch ahead: another process's clock may have turned a moment before.
    if (epoch > now + 1 || epoch + TLS_TICKET_KEPT < now)
        return NULL;
    const struct tls_ticket_key *key = key_of(slot, epoch);
    return key && memcmp(key->name, name, sizeof key->name) == 0 ? key : NULL;
}

static struct tls_slot *slot_of(SSL *ssl)
{
    return tls_conn_of(ssl)->tls->server->slot;
}

static bool set_mac(EVP_MAC_CTX *mac, const struct tls_ticket_key *key)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params);
}

// SSL_CTX_set_tlsext_ticket_key_evp_cb(3). 0: no ticket is made, or this one is not taken.
static int on_ticket_key(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
                         EVP_MAC_CTX *mac, int sealing)
{
    struct tls_slot *slot = slot_of(ssl);
    uint64_t now = epoch_now();
    if (!sealing) {
        const struct tls_ticket_key *key = key_named(slot, name, now);
        if (!key || !EVP_DecryptInit_ex2(cipher, slot->ticket_cipher, key->cipher, iv, NULL) ||
            !set_mac(mac, key))
            return 0;
        // 2: and make a new one. A TLS 1.3 client uses a ticket once (RFC 8446 C.4).
        return key->epoch == now && SSL_version(ssl) != TLS1_3_VERSION ? 1 : 2;
    }
    const struct tls_ticket_key *key = key_of(slot, now);
    if (!key ||
        RAND_bytes_ex(slot->library, iv, (size_t)EVP_CIPHER_get_iv_length(slot->ticket_cipher), 0) <= 0 ||
        !EVP_EncryptInit_ex2(cipher, slot->ticket_cipher, key->cipher, iv, NULL) || !set_mac(mac, key))
        return 0;
    memcpy(name, key->name, sizeof key->name);
    return 1;
}

// A session stands for the client's certificate: it does not outlive it, however often it is renewed.
static bool is_identity_valid(const SSL_SESSION *session)
{
    X509 *certificate = SSL_SESSION_get0_peer((SSL_SESSION *)(uintptr_t)session);
    return !certificate || X509_cmp_time(X509_get0_notAfter(certificate), NULL) > 0;
}

static SSL_TICKET_RETURN on_ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t n,
                                          SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl;
    (void)name;
    (void)n;
    (void)arg;
    switch (status) {
    case SSL_TICKET_SUCCESS:
    case SSL_TICKET_SUCCESS_RENEW:
        if (!is_identity_valid(session))
            return SSL_TICKET_RETURN_IGNORE_RENEW;
        return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
    case SSL_TICKET_EMPTY:
    case SSL_TICKET_NO_DECRYPT: return SSL_TICKET_RETURN_IGNORE_RENEW;
    default: return SSL_TICKET_RETURN_ABORT;
    }
}

static int on_ticket_made(SSL *ssl, void *arg)
{
    (void)ssl;
    (void)arg;
    return 1;
}

void tls_tickets_setup(SSL_CTX *context)
{
    // What the client is told is what the keys allow, whenever in its epoch the ticket was sealed.
    SSL_CTX_set_timeout(context, (long)TLS_TICKET_KEPT * EPOCH_S);
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket_key);
    SSL_CTX_set_session_ticket_cb(context, on_ticket_made, on_ticket_opened, NULL);
}
