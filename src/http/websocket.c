#include "http/websocket.h"

#include "base/check.h"
#include "base/rand.h"

#include <openssl/evp.h>

enum { KEY_BYTES = 16, SHA1_BYTES = 20 };

static void encode(const uint8_t *data, int n, char *out, size_t length)
{
    uint8_t text[WEBSOCKET_ACCEPT_LENGTH + 1]; // and a NUL
    check(length < sizeof text && EVP_EncodeBlock(text, data, n) == (int)length);
    memcpy(out, text, length);
}

void websocket_new_key(char out[WEBSOCKET_KEY_LENGTH])
{
    uint8_t key[KEY_BYTES];
    rand_secret(key, sizeof key);
    encode(key, sizeof key, out, WEBSOCKET_KEY_LENGTH);
}

void websocket_accept(struct str key, char out[WEBSOCKET_ACCEPT_LENGTH])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 1.3
    char text[WEBSOCKET_KEY_LENGTH + sizeof guid - 1];
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t n = 0;
    check(key.n == WEBSOCKET_KEY_LENGTH);
    memcpy(text, key.p, key.n);
    memcpy(text + key.n, guid, sizeof guid - 1);
    check(EVP_Q_digest(NULL, "SHA1", NULL, text, sizeof text, digest, &n) == 1 && n == SHA1_BYTES);
    encode(digest, SHA1_BYTES, out, WEBSOCKET_ACCEPT_LENGTH);
}
