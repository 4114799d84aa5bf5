#ifndef BENCH_SHAKE_KEYS_H
#define BENCH_SHAKE_KEYS_H

/*
 * The cryptography that shake.c needs: TLS 1.3's key schedule over SHA-256 (RFC 8446 7.1), records sealed
 * with AES-128-GCM (5.2), X25519, ECDSA. One thread; everything is fetched once by keys_setup.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_BYTES    32
#define SHARE_BYTES   32
#define RECORD_HEADER 5
#define RECORD_EXTRA  (RECORD_HEADER + 1 + 16) /* header, inner type, tag */

void keys_setup(void);

/* Our X25519 public key: one for all connections, which spares this side work and the server none. */
const uint8_t *keys_share(void);
/* The shared secret; false: the peer's share is none. */
bool keys_agree(uint8_t secret[SHARE_BYTES], const uint8_t peer[SHARE_BYTES]);

void hash(uint8_t out[HASH_BYTES], const void *data, size_t size);
/* HMAC, which is also HKDF-Extract(salt = key, data). */
void hmac(uint8_t out[HASH_BYTES], const uint8_t key[HASH_BYTES], const void *data, size_t size);
void expand_label(uint8_t *out, size_t out_size, const uint8_t secret[HASH_BYTES], const char *label,
                  const void *context, size_t context_size);
/* The MAC of a Finished message or a binder: over the transcript's hash, by a secret. */
void finished_mac(uint8_t out[HASH_BYTES], const uint8_t secret[HASH_BYTES],
                  const uint8_t transcript[HASH_BYTES]);

struct traffic { /* one direction's protection */
    uint8_t key[16];
    uint8_t iv[12];
    uint64_t records;
};

void traffic_init(struct traffic *t, const uint8_t secret[HASH_BYTES]);
/* Writes a record of size + RECORD_EXTRA bytes. */
void traffic_seal(struct traffic *t, uint8_t *out, uint8_t type, const void *data, size_t size);
/* Opens a whole record in place: *data and *size become its content. The content's type, or -1 when it is
 * forged. */
int traffic_open(struct traffic *t, uint8_t *record, size_t record_size, uint8_t **data, size_t *size);

/* Whether the key of a certificate (DER) signed the data with ecdsa_secp256r1_sha256. */
bool signature_check(const uint8_t *certificate, size_t certificate_size, const void *data, size_t size,
                     const uint8_t *signature, size_t signature_size);

#endif
