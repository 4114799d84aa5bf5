// The records of TLS 1.3 (RFC 8446 5) on a server's connection, once OpenSSL has shaken hands.
//
// OpenSSL 3.0 keeps 14 KiB for a connection, most of it what only the handshake needed. All that is needed
// afterwards are two secrets and two counters: so the handshake's objects are freed when it is complete, and
// the record layer here takes over with the traffic secrets. Ciphers are OpenSSL's still; a slot has one
// context for each of them, which is given another key when another connection speaks.
//
//   recv    socket ─► inbox (the slot's) ─► opened, straight into the caller's memory where it fits
//           rest    what is left over: opened bytes the caller had no room for, a part of a record
//   send    spans ─► sealed into outbox (the slot's), up to four records ─► one send
//           pending what the kernel had no room for; `retry` bytes of it are still the caller's to offer
#include "net/tls_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    RECORD_CHANGE_CIPHER = 20,
    RECORD_ALERT = 21,
    RECORD_HANDSHAKE = 22,
    RECORD_DATA = 23,
    MESSAGE_KEY_UPDATE = 24,
    HEADER = 5,
    TAG = 16,
    SEALED_MAX = TLS_RECORD + 256, // of a record's body (RFC 8446 5.2)
    WHOLE_MAX = HEADER + SEALED_MAX,
    INBOX = 2 * WHOLE_MAX, // a part of a record, and what one recv adds
    BATCH = 4,             // records sealed for one send
    OUTBOX = (BATCH + 1) * (HEADER + TLS_RECORD + 1 + TAG),
    EMPTY_MAX = 32,   // records without data in a row
    UPDATES_MAX = 64, // key updates in a row
};

// A key for AES-GCM is good for 2^24.5 full records (RFC 8446 5.5).
static const uint64_t SEALED_WITH_ONE_KEY = 1ull << 23;

struct direction {
    uint64_t key_id; // tells the slot's context whether it holds this key
    uint64_t sequence;
    uint8_t secret[TLS_SECRET_MAX], key[32], iv[12];
};

struct tls_records {
    struct tls_slot *slot;
    struct direction in, out;
    uint8_t *rest; // NULL: nothing is left over
    uint32_t plain_at, plain_n, sealed_at, sealed_n;
    uint8_t *pending; // NULL: the kernel has taken all
    uint32_t pending_at, pending_n, retry;
    enum tls_suite suite;
    uint8_t message[HEADER], message_n; // a key update that came in pieces
    uint8_t empties, updates;
    bool ended;      // close_notify came
    bool update_due; // a key update leaves before the next data
    bool said_goodbye;
};

// ---- keys (RFC 8446 7.1 to 7.3) ----

static const struct suite {
    uint32_t id;
    const char *cipher;
    uint8_t key_n, secret_n, block_n; // block: of the hash
} suites[TLS_SUITES] = {
    [TLS_SUITE_AES128] = {TLS1_3_CK_AES_128_GCM_SHA256, "AES-128-GCM", 16, 32, 64},
    [TLS_SUITE_AES256] = {TLS1_3_CK_AES_256_GCM_SHA384, "AES-256-GCM", 32, 48, 128},
    [TLS_SUITE_CHACHA20] = {TLS1_3_CK_CHACHA20_POLY1305_SHA256, "ChaCha20-Poly1305", 32, 32, 64},
};

bool tls_records_setup(struct tls_slot *slot)
{
    for (size_t i = 0; i < TLS_SUITES; i++) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(slot->library, suites[i].cipher, NULL);
        bool good = cipher;
        for (int sealing = 0; good && sealing < 2; sealing++) {
            EVP_CIPHER_CTX *context = slot->aead[i][sealing].context = EVP_CIPHER_CTX_new();
            good = context && EVP_CipherInit_ex2(context, cipher, NULL, NULL, sealing, NULL);
        }
        EVP_CIPHER_free(cipher);
        if (!good)
            return false;
    }
    slot->sha384 = EVP_MD_fetch(slot->library, "SHA384", NULL);
    slot->hash = EVP_MD_CTX_new();
    slot->inbox = malloc(INBOX);
    slot->outbox = malloc(OUTBOX);
    return slot->sha384 && slot->hash && slot->inbox && slot->outbox;
}

void tls_records_teardown(struct tls_slot *slot)
{
    for (size_t i = 0; i < TLS_SUITES; i++) {
        EVP_CIPHER_CTX_free(slot->aead[i][0].context);
        EVP_CIPHER_CTX_free(slot->aead[i][1].context);
    }
    EVP_MD_free(slot->sha384);
    EVP_MD_CTX_free(slot->hash);
    free(slot->inbox);
    free(slot->outbox);
}

// One of the two hashes of HMAC (RFC 2104). key is not longer than a block.
static bool hash_keyed(struct tls_slot *slot, const struct suite *suite, const uint8_t *key, uint8_t pad,
                       const void *data, size_t n, uint8_t out[TLS_SECRET_MAX])
{
    uint8_t block[128];
    memset(block, pad, suite->block_n);
    for (size_t i = 0; i < suite->secret_n; i++)
        block[i] ^= key[i];
    const EVP_MD *hash = suite->secret_n == 48 ? slot->sha384 : slot->sha256;
    bool good = EVP_DigestInit_ex2(slot->hash, hash, NULL) &&
                EVP_DigestUpdate(slot->hash, block, suite->block_n) &&
                EVP_DigestUpdate(slot->hash, data, n) && EVP_DigestFinal_ex(slot->hash, out, NULL);
    OPENSSL_cleanse(block, sizeof block);
    return good;
}

// HKDF-Expand-Label with an empty context, for no more than one hash of output.
static bool expand(struct tls_slot *slot, const struct suite *suite, const uint8_t *secret, struct str label,
                   uint8_t *out, size_t n)
{
    static const char prefix[] = "tls13 ";
    uint8_t info[64], inner[TLS_SECRET_MAX], outer[TLS_SECRET_MAX];
    size_t at = 0;
    info[at++] = (uint8_t)(n >> 8);
    info[at++] = (uint8_t)n;
    info[at++] = (uint8_t)(sizeof prefix - 1 + label.n);
    memcpy(info + at, prefix, sizeof prefix - 1);
    at += sizeof prefix - 1;
    memcpy(info + at, label.p, label.n);
    at += label.n;
    info[at++] = 0; // no context
    info[at++] = 1; // the first block
    bool good = hash_keyed(slot, suite, secret, 0x36, info, at, inner) &&
                hash_keyed(slot, suite, secret, 0x5c, inner, suite->secret_n, outer);
    memcpy(out, outer, n);
    OPENSSL_cleanse(inner, sizeof inner);
    OPENSSL_cleanse(outer, sizeof outer);
    return good;
}

// secret may be the direction's own.
static bool set_secret(struct tls_records *records, struct direction *direction, const uint8_t *secret)
{
    const struct suite *suite = &suites[records->suite];
    struct tls_slot *slot = records->slot;
    memmove(direction->secret, secret, suite->secret_n);
    direction->sequence = 0;
    direction->key_id = ++slot->last_key_id;
    return expand(slot, suite, secret, STR("key"), direction->key, suite->key_n) &&
           expand(slot, suite, secret, STR("iv"), direction->iv, sizeof direction->iv);
}

static bool next_secret(struct tls_records *records, struct direction *direction)
{
    const struct suite *suite = &suites[records->suite];
    uint8_t next[TLS_SECRET_MAX];
    bool good = expand(records->slot, suite, direction->secret, STR("traffic upd"), next, suite->secret_n) &&
                set_secret(records, direction, next);
    OPENSSL_cleanse(next, sizeof next);
    return good;
}

// The slot's context, ready for the direction's next record. NULL: OpenSSL failed.
static EVP_CIPHER_CTX *prepare(struct tls_records *records, struct direction *direction, int sealing)
{
    struct tls_aead *aead = &records->slot->aead[records->suite][sealing];
    uint8_t nonce[sizeof direction->iv];
    memcpy(nonce, direction->iv, sizeof nonce);
    for (size_t i = 0; i < 8; i++)
        nonce[sizeof nonce - 1 - i] ^= (uint8_t)(direction->sequence >> 8 * i);
    direction->sequence++;
    const uint8_t *key = aead->key_id == direction->key_id ? NULL : direction->key;
    aead->key_id = direction->key_id;
    if (EVP_CipherInit_ex2(aead->context, NULL, key, nonce, sealing, NULL))
        return aead->context;
    aead->key_id = 0;
    return NULL;
}

// ---- failure ----

static void fail_with(struct conn *conn, const char *why, int error)
{
    struct tls *tls = conn->tls;
    tls->failed = true;
    tls->failure = why;
    conn->error = error;
    ERR_clear_error();
}

static void say(struct conn *conn, uint8_t type, const void *data, size_t n);

static void refuse(struct conn *conn, uint8_t alert, const char *why)
{
    say(conn, RECORD_ALERT, (const uint8_t[]){SSL3_AL_FATAL, alert}, 2);
    fail_with(conn, why, EPROTO);
}

// ---- opening ----

// What has not been looked at: in the inbox, or left over.
struct sealed {
    uint8_t *at;
    size_t n;
    bool in_inbox;
};

static struct sealed left_over(const struct tls_records *records)
{
    return records->rest ? (struct sealed){records->rest + records->sealed_at, records->sealed_n, false}
                         : (struct sealed){0};
}

static size_t body_length(const uint8_t *header)
{
    return (size_t)header[3] << 8 | header[4];
}

static bool is_whole(const struct sealed *sealed)
{
    return sealed->n >= HEADER && sealed->n >= HEADER + body_length(sealed->at);
}

// out may be the body itself. Returns the length without padding, *type: what is inside. -1: not genuine.
static ssize_t open_record(struct tls_records *records, const uint8_t *header, uint8_t *body, size_t n,
                           uint8_t *out, uint8_t *type)
{
    int part, last;
    EVP_CIPHER_CTX *context = prepare(records, &records->in, 0);
    if (!context || !EVP_DecryptUpdate(context, NULL, &part, header, HEADER) ||
        !EVP_DecryptUpdate(context, out, &part, body, (int)(n - TAG)) ||
        !EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, body + n - TAG) ||
        EVP_DecryptFinal_ex(context, out + part, &last) <= 0)
        return -1;
    size_t length = n - TAG;
    while (length && !out[length - 1])
        length--;
    *type = length ? out[length - 1] : 0;
    return length ? (ssize_t)length - 1 : 0;
}

static void take_alert(struct conn *conn, const uint8_t *alert, size_t n)
{
    struct tls_records *records = conn->tls->records;
    if (n != 2)
        refuse(conn, SSL_AD_DECODE_ERROR, "an alert of a wrong length");
    else if (alert[1] == SSL_AD_CLOSE_NOTIFY)
        records->ended = conn->peer_closed = true;
    else if (alert[1] != SSL_AD_USER_CANCELLED)
        fail_with(conn, SSL_alert_desc_string_long(alert[1]), EPROTO);
    else if (++records->empties > EMPTY_MAX)
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "too many records without data");
}

// A key update is the one message that may follow (RFC 8446 4.6.3); it ends its record.
static void take_message(struct conn *conn, const uint8_t *data, size_t n)
{
    struct tls_records *records = conn->tls->records;
    static const uint8_t expected[] = {MESSAGE_KEY_UPDATE, 0, 0, 1};
    if (!n || n > sizeof records->message - records->message_n) {
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "an unexpected message");
        return;
    }
    memcpy(records->message + records->message_n, data, n);
    records->message_n = (uint8_t)(records->message_n + n);
    size_t known = records->message_n < sizeof expected ? records->message_n : sizeof expected;
    if (memcmp(records->message, expected, known) != 0)
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "an unexpected message");
    if (conn->tls->failed || records->message_n < sizeof records->message)
        return;
    uint8_t request = records->message[sizeof expected];
    records->message_n = 0;
    if (request > 1)
        refuse(conn, SSL_AD_ILLEGAL_PARAMETER, "a bad key update");
    else if (++records->updates > UPDATES_MAX)
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "too many key updates");
    else if (!next_secret(records, &records->in))
        refuse(conn, SSL_AD_INTERNAL_ERROR, "a key could not be made");
    else
        records->update_due |= request;
}

// Whether the header may be read on. False: the connection has failed.
static bool check_header(struct conn *conn, const uint8_t *header)
{
    size_t n = body_length(header);
    if (header[0] != RECORD_DATA)
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "a record that is not encrypted");
    else if (n > SEALED_MAX)
        refuse(conn, SSL_AD_RECORD_OVERFLOW, "a record is too long");
    else if (n <= TAG)
        refuse(conn, SSL_AD_BAD_RECORD_MAC, "a record is too short");
    return !conn->tls->failed;
}

// Opens one whole record. Returns how much of it went to data; what did not fit is left as plain in *plain.
static size_t take_record(struct conn *conn, struct sealed *sealed, uint8_t *data, size_t room,
                          struct sealed *plain)
{
    struct tls_records *records = conn->tls->records;
    uint8_t *header = sealed->at, *body = header + HEADER, type = 0;
    size_t n = body_length(header);
    bool direct = room >= n - TAG;
    uint8_t *out = direct ? data : body;
    ssize_t length = open_record(records, header, body, n, out, &type);
    sealed->at += HEADER + n;
    sealed->n -= HEADER + n;
    if (length < 0)
        refuse(conn, SSL_AD_BAD_RECORD_MAC, "a record is not genuine");
    else if (length > TLS_RECORD)
        refuse(conn, SSL_AD_RECORD_OVERFLOW, "a record is too long");
    else if (type == RECORD_HANDSHAKE)
        take_message(conn, out, (size_t)length);
    else if (records->message_n || (type != RECORD_DATA && type != RECORD_ALERT))
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "an unexpected record");
    else if (type == RECORD_ALERT)
        take_alert(conn, out, (size_t)length);
    else if (!length && ++records->empties > EMPTY_MAX)
        refuse(conn, SSL_AD_UNEXPECTED_MESSAGE, "too many records without data");
    if (conn->tls->failed || type != RECORD_DATA || !length)
        return 0;
    records->empties = records->updates = 0;
    size_t taken = (size_t)length < room ? (size_t)length : room;
    if (!direct && taken)
        memcpy(data, out, taken);
    *plain = (struct sealed){out + taken, (size_t)length - taken, false};
    return taken;
}

// ---- receiving ----

static void free_rest(struct tls_records *records)
{
    free(records->rest);
    records->rest = NULL;
    records->plain_n = records->sealed_n = 0;
}

// Remembers what is left over: where it lies, or in a copy when that is the inbox.
static void keep_rest(struct conn *conn, const struct sealed *plain, const struct sealed *sealed)
{
    struct tls_records *records = conn->tls->records;
    size_t n = plain->n + sealed->n;
    uint8_t *rest = NULL;
    if (!n || conn->tls->failed || records->ended) {
        free_rest(records); // after the end nothing counts
        return;
    }
    if (sealed->in_inbox) {
        rest = malloc(n);
        if (rest && plain->n)
            memcpy(rest, plain->at, plain->n);
        if (rest && sealed->n)
            memcpy(rest + plain->n, sealed->at, sealed->n);
        free_rest(records);
        records->rest = rest;
        if (!rest) {
            fail_with(conn, "memory is out", ENOMEM);
            return;
        }
    }
    records->plain_at = plain->n && !rest ? (uint32_t)(plain->at - records->rest) : 0;
    records->plain_n = (uint32_t)plain->n;
    records->sealed_at = (uint32_t)(rest ? plain->n : (size_t)(sealed->at - records->rest));
    records->sealed_n = (uint32_t)sealed->n;
}

// Adds what the socket has. False: nothing came.
static bool fill_inbox(struct conn *conn, struct sealed *sealed)
{
    struct tls *tls = conn->tls;
    uint8_t *inbox = tls->records->slot->inbox;
    if (!tls->socket_readable)
        return false;
    if (sealed->n)
        memmove(inbox, sealed->at, sealed->n); // a part of a record
    sealed->at = inbox;
    sealed->in_inbox = true;
    ssize_t got = tls_socket_recv(conn, inbox + sealed->n, WHOLE_MAX);
    if (got > 0) {
        sealed->n += (size_t)got;
        return true;
    }
    if (got == 0) {
        tls->end_of_socket = true;
        fail_with(conn, "the peer closed without close_notify", ECONNRESET);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        tls->socket_readable = false;
    } else {
        fail_with(conn, strerrordesc_np(errno), errno);
    }
    return false;
}

// Opens records until data, the end or a failure is there, or nothing more has come. Returns how much went to
// data.
static size_t pull(struct conn *conn, uint8_t *data, size_t room)
{
    struct tls *tls = conn->tls;
    struct tls_records *records = tls->records;
    struct sealed sealed = left_over(records), plain = {0};
    size_t total = 0;
    while (!tls->failed && !records->ended && !plain.n && (total < room || !room)) {
        if (sealed.n >= HEADER && !check_header(conn, sealed.at))
            break;
        if (is_whole(&sealed))
            total += take_record(conn, &sealed, data + total, room - total, &plain);
        else if (total || !fill_inbox(conn, &sealed))
            break;
    }
    keep_rest(conn, &plain, &sealed);
    return total;
}

static bool is_anything_left(const struct conn *conn)
{
    const struct tls *tls = conn->tls;
    const struct tls_records *records = tls->records;
    const struct sealed sealed = left_over(records);
    return tls->failed || records->ended || records->plain_n || tls->socket_readable || is_whole(&sealed);
}

static size_t take_plain(struct tls_records *records, uint8_t *data, size_t room)
{
    size_t n = records->plain_n < room ? records->plain_n : room;
    memcpy(data, records->rest + records->plain_at, n);
    records->plain_at += (uint32_t)n;
    records->plain_n -= (uint32_t)n;
    if (!records->plain_n && !records->sealed_n)
        free_rest(records);
    return n;
}

static ssize_t records_recv(struct conn *conn, void *data, size_t n)
{
    struct tls *tls = conn->tls;
    struct tls_records *records = tls->records;
    if (tls->failed)
        return CONN_FAILED;
    size_t total = records->plain_n ? take_plain(records, data, n) : 0;
    if (total < n && !records->ended && (!total || records->sealed_n))
        total += pull(conn, (uint8_t *)data + total, n - total);
    conn->readable = is_anything_left(conn);
    if (total)
        return (ssize_t)total;
    return tls->failed ? CONN_FAILED : records->ended ? 0 : CONN_AGAIN;
}

// ---- sealing ----

static bool seal(struct tls_records *records, uint8_t type, struct tls_spans *spans, size_t n, uint8_t *out)
{
    size_t body = n + 1 + TAG;
    const uint8_t header[HEADER] = {RECORD_DATA, 3, 3, (uint8_t)(body >> 8), (uint8_t)body};
    int part;
    EVP_CIPHER_CTX *context = prepare(records, &records->out, 1);
    memcpy(out, header, HEADER);
    if (!context || !EVP_EncryptUpdate(context, NULL, &part, header, HEADER))
        return false;
    uint8_t *at = out + HEADER;
    for (size_t left = n; left;) {
        size_t here = spans->iov->iov_len - spans->at;
        if (here > left)
            here = left;
        const uint8_t *from = (const uint8_t *)spans->iov->iov_base + spans->at;
        if (!EVP_EncryptUpdate(context, at, &part, from, (int)here))
            return false;
        at += part;
        left -= here;
        tls_spans_skip(spans, here);
    }
    return EVP_EncryptUpdate(context, at, &part, &type, 1) &&
           EVP_EncryptFinal_ex(context, at + part, &part) > 0 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, at + 1);
}

static size_t sealed_size(size_t n)
{
    return HEADER + n + 1 + TAG;
}

static void fail_send(struct conn *conn, int error)
{
    conn->tls->send_failed = true;
    conn->error = error;
    if (!conn->tls->failure)
        conn->tls->failure = strerrordesc_np(error);
    ERR_clear_error();
}

// How many of n bytes the kernel took; the failure, if any, is noted.
static size_t transmit(struct conn *conn, const uint8_t *data, size_t n)
{
    ssize_t sent;
    do
        sent = send(conn->source.fd, data, n, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        fail_send(conn, errno);
    if (sent < 0 || (size_t)sent < n)
        conn->writable = false;
    return sent < 0 ? 0 : (size_t)sent;
}

static void keep_pending(struct conn *conn, const uint8_t *data, size_t n)
{
    struct tls_records *records = conn->tls->records;
    records->pending = malloc(n);
    if (!records->pending) {
        fail_send(conn, ENOMEM);
        return;
    }
    memcpy(records->pending, data, n);
    records->pending_at = 0;
    records->pending_n = (uint32_t)n;
}

// True: the kernel has taken all that was sealed.
static bool flush_pending(struct conn *conn)
{
    struct tls_records *records = conn->tls->records;
    if (records->pending && conn->writable) {
        size_t sent = transmit(conn, records->pending + records->pending_at, records->pending_n);
        records->pending_at += (uint32_t)sent;
        records->pending_n -= (uint32_t)sent;
        if (!records->pending_n) {
            free(records->pending);
            records->pending = NULL;
        }
    }
    return !records->pending;
}

// A short record of our own: an alert or a key update. Nothing of it is said when the kernel is full already.
static void say(struct conn *conn, uint8_t type, const void *data, size_t n)
{
    struct tls *tls = conn->tls;
    struct tls_records *records = tls->records;
    struct iovec iov = {(void *)(uintptr_t)data, n};
    struct tls_spans spans = {&iov, 1, 0};
    uint8_t out[64];
    if (tls->failed || tls->send_failed || conn->hung_up || !flush_pending(conn) || !conn->writable)
        return;
    check(sealed_size(n) <= sizeof out);
    if (!seal(records, type, &spans, n, out)) {
        fail_send(conn, EPROTO);
        return;
    }
    size_t sent = transmit(conn, out, sealed_size(n));
    if (sent < sealed_size(n) && !tls->send_failed)
        keep_pending(conn, out + sent, sealed_size(n) - sent);
}

// Our answer to a key update, or a key that has sealed enough: the new one follows its announcement.
static bool seal_update(struct tls_records *records, uint8_t *out, size_t *n)
{
    struct iovec iov = {(uint8_t[]){MESSAGE_KEY_UPDATE, 0, 0, 1, 0}, 5};
    struct tls_spans spans = {&iov, 1, 0};
    records->update_due = false;
    *n = sealed_size(5);
    return seal(records, RECORD_HANDSHAKE, &spans, 5, out) && next_secret(records, &records->out);
}

struct batch {
    size_t n;                         // bytes in the outbox
    size_t ends[BATCH], plain[BATCH]; // of each record: its end there, its data
    unsigned count;
};

// Seals up to BATCH records of what is left of the spans.
static bool seal_batch(struct tls_records *records, struct tls_spans *spans, struct batch *batch)
{
    uint8_t *outbox = records->slot->outbox;
    *batch = (struct batch){0};
    if ((records->update_due || records->out.sequence >= SEALED_WITH_ONE_KEY) &&
        !seal_update(records, outbox, &batch->n))
        return false;
    while (spans->count && batch->count < BATCH) {
        size_t n = tls_spans_length(spans, TLS_RECORD);
        if (!seal(records, RECORD_DATA, spans, n, outbox + batch->n))
            return false;
        batch->n += sealed_size(n);
        batch->ends[batch->count] = batch->n;
        batch->plain[batch->count++] = n;
    }
    return true;
}

// Sends a batch; returns the data of those records that have gone as a whole. The others are pending, and
// their data is still the caller's, who offers it again.
static size_t send_batch(struct conn *conn, const struct batch *batch)
{
    struct tls_records *records = conn->tls->records;
    const uint8_t *outbox = records->slot->outbox;
    size_t sent = transmit(conn, outbox, batch->n), taken = 0;
    if (conn->tls->send_failed)
        return 0;
    for (unsigned i = 0; i < batch->count; i++)
        if (sent >= batch->ends[i])
            taken += batch->plain[i];
        else
            records->retry += (uint32_t)batch->plain[i];
    if (sent < batch->n)
        keep_pending(conn, outbox + sent, batch->n - sent);
    return taken;
}

static ssize_t records_sendv(struct conn *conn, const struct iovec *iov, int count)
{
    struct tls *tls = conn->tls;
    struct tls_records *records = tls->records;
    struct tls_spans spans = {iov, count, 0};
    if (tls->failed || tls->send_failed)
        return CONN_FAILED;
    size_t total = 0;
    tls_spans_skip(&spans, 0);
    bool nothing = !spans.count;
    if (!flush_pending(conn))
        return tls->send_failed ? CONN_FAILED : CONN_AGAIN;
    if (records->retry) {
        check(tls_spans_length(&spans, records->retry) ==
              records->retry); // what was not taken is offered again
        total = records->retry;
        tls_spans_skip(&spans, total);
        records->retry = 0;
    }
    while (spans.count && conn->writable && !tls->send_failed) {
        struct batch batch;
        if (seal_batch(records, &spans, &batch))
            total += send_batch(conn, &batch);
        else
            fail_send(conn, EPROTO);
    }
    if (total || nothing)
        return (ssize_t)total;
    return tls->send_failed ? CONN_FAILED : CONN_AGAIN;
}

// ---- the rest of the transport ----

static void say_goodbye(struct conn *conn)
{
    struct tls_records *records = conn->tls->records;
    if (records->said_goodbye || !flush_pending(conn) || !conn->writable)
        return;
    records->said_goodbye = true;
    say(conn, RECORD_ALERT, (const uint8_t[]){SSL3_AL_WARNING, SSL_AD_CLOSE_NOTIFY}, 2);
}

static void records_shutdown_send(struct conn *conn)
{
    struct tls *tls = conn->tls;
    say_goodbye(conn);
    tls->shutdown_due =
        !tls->send_failed && !conn->hung_up && (!tls->records->said_goodbye || tls->records->pending);
    if (!tls->shutdown_due)
        shutdown(conn->source.fd, SHUT_WR);
}

static bool records_is_stale(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (!tls->failed && !tls->records->ended && !tls->records->plain_n) {
        tls->socket_readable = true; // asks the kernel, without waiting for its edge
        pull(conn, NULL, 0);
    }
    return conn->readable = is_anything_left(conn);
}

static bool records_on_event(struct conn *conn)
{
    struct tls *tls = conn->tls;
    tls->socket_readable |= conn->readable;
    if (conn->writable)
        flush_pending(conn);
    if (tls->shutdown_due && conn->writable)
        records_shutdown_send(conn);
    conn->readable = is_anything_left(conn);
    return true;
}

static void records_on_close(struct conn *conn)
{
    if (!conn->hung_up && !conn->tls->records->retry)
        say_goodbye(conn);
}

static const struct transport transport_records = {
    .name = "tls",
    .recv = records_recv,
    .sendv = records_sendv,
    .shutdown_send = records_shutdown_send,
    .is_stale = records_is_stale,
    .on_event = records_on_event,
    .on_close = records_on_close,
    .on_free = tls_on_free,
};

// ---- taking over ----

static bool find_suite(const SSL *ssl, enum tls_suite *suite)
{
    uint32_t id = (uint32_t)SSL_CIPHER_get_id(SSL_get_current_cipher(ssl));
    for (size_t i = 0; i < TLS_SUITES; i++)
        if (suites[i].id == id) {
            *suite = (enum tls_suite)i;
            return true;
        }
    return false;
}

bool tls_records_begin(struct conn *conn, struct tls_slot *slot, const struct tls_secrets *secrets,
                       const uint8_t *early, size_t early_n)
{
    struct tls *tls = conn->tls;
    enum tls_suite suite;
    if (SSL_version(tls->ssl) != TLS1_3_VERSION || !find_suite(tls->ssl, &suite) ||
        secrets->client_n != suites[suite].secret_n || secrets->server_n != suites[suite].secret_n)
        return false;
    struct tls_records *records = calloc(1, sizeof *records);
    if (!records)
        return false;
    records->slot = slot;
    records->suite = suite;
    tls->records = records;
    bool good = set_secret(records, &records->in, secrets->client) &&
                set_secret(records, &records->out, secrets->server);
    records->out.sequence = secrets->sealed;
    if (early_n) {
        const struct sealed none = {0}, sealed = {(uint8_t *)(uintptr_t)early, early_n, true};
        keep_rest(conn, &none, &sealed);
        good = good && records->rest;
    }
    if (!good) {
        tls->failed = false;
        tls_records_free(records);
        tls->records = NULL;
        return false;
    }
    conn->transport = &transport_records;
    conn->readable = is_anything_left(conn);
    return true;
}

void tls_records_free(struct tls_records *records)
{
    if (!records)
        return;
    free(records->rest);
    free(records->pending);
    OPENSSL_cleanse(records, sizeof *records);
    free(records);
}
