#include "shake.h"

#include "shake_keys.h"
#include "sock.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define RECORD_MAX       (RECORD_HEADER + 16384 + 256)
#define HELLO_MAX        1024 /* without the ticket */
#define TICKET_MAX       4096 /* a longer one is not kept */
#define TRANSCRIPT_MAX   (32 * 1024)
#define MESSAGE_HEADER   4
#define SEND_MAX         8192
#define CHECK_EVERY      8 /* signatures; the Finished message alone already shows that the keys agree */
#define MS_PER_S         1000
#define RANDOM_AT        (MESSAGE_HEADER + 2)
#define SESSION_ID_AT    (RANDOM_AT + 32 + 1)
#define EXTENSIONS_AT    (SESSION_ID_AT + 32 + 2 + 2 + 2) /* where their length is */
#define RECORD_CHANGE    20
#define RECORD_ALERT     21
#define RECORD_HANDSHAKE 22
#define RECORD_DATA      23

enum message {
    SERVER_HELLO = 2,
    NEW_SESSION_TICKET = 4,
    ENCRYPTED_EXTENSIONS = 8,
    CERTIFICATE = 11,
    CERTIFICATE_VERIFY = 15,
    FINISHED = 20,
};

enum extension { EXTENSION_PRE_SHARED_KEY = 41, EXTENSION_SUPPORTED_VERSIONS = 43, EXTENSION_KEY_SHARE = 51 };

struct ticket {
    size_t size; /* 0: none */
    uint8_t bytes[TICKET_MAX];
    uint8_t key[HASH_BYTES];
    uint32_t age_add;
    uint64_t came_ns;
};

struct shake {
    bool hello_sent;
    bool open; /* the handshake is over */
    bool ended;
    bool offered; /* the ticket */
    bool resumed;
    int expected; /* the next message */

    uint8_t transcript[TRANSCRIPT_MAX]; /* all handshake messages so far; then those after the handshake */
    size_t transcript_size;             /* taken in */
    size_t transcript_got;              /* and the begin of one that is not whole */
    size_t certificate_at, certificate_size;

    uint8_t secret[HASH_BYTES]; /* the schedule's present stage */
    uint8_t client_secret[HASH_BYTES];
    uint8_t server_secret[HASH_BYTES];
    uint8_t resumption[HASH_BYTES];
    struct traffic sending, receiving;
    bool is_protected;

    uint8_t in[2 * RECORD_MAX];
    size_t in_at, in_size;
    uint8_t *data; /* application data of a record, not yet read */
    size_t data_size;

    struct ticket ticket;
};

static uint8_t hello[HELLO_MAX];
static size_t hello_size;
static bool keep_tickets;
static unsigned until_check;
static const uint8_t zeros[HASH_BYTES];

/* --- ClientHello --- */

static void put(const void *data, size_t size)
{
    if (hello_size + size > sizeof hello)
        die("the ClientHello is too long");
    memcpy(hello + hello_size, data, size);
    hello_size += size;
}

static void put16(size_t n)
{
    const uint8_t two[] = {(uint8_t)(n >> 8), (uint8_t)n};
    put(two, 2);
}

static void set16(uint8_t *at, size_t n)
{
    at[0] = (uint8_t)(n >> 8);
    at[1] = (uint8_t)n;
}

static size_t get16(const uint8_t *at)
{
    return (size_t)at[0] << 8 | at[1];
}

static size_t get24(const uint8_t *at)
{
    return (size_t)at[0] << 16 | get16(at + 1);
}

void shake_setup(const char *name, const char *alpn, bool tickets)
{
    keys_setup();
    keep_tickets = tickets;
    static const uint8_t head[] = {1, 0, 0, 0, 3, 3};
    static const uint8_t suite[] = {0, 2, 0x13, 0x01, 1, 0};
    static const uint8_t fixed[] = {
        0,  10, 0, 4,  0, 2,  0, 29,    /* supported_groups: x25519 */
        0,  13, 0, 4,  0, 2,  4, 3,     /* signature_algorithms: ecdsa_secp256r1_sha256 */
        0,  43, 0, 3,  2, 3,  4,        /* supported_versions: 1.3 */
        0,  45, 0, 2,  1, 1,            /* psk_key_exchange_modes: psk_dhe_ke */
        0,  51, 0, 38, 0, 36, 0, 29, 0, /* key_share: x25519, … */
        32,
    };
    size_t name_size = strlen(name), alpn_size = strlen(alpn);
    put(head, sizeof head);
    put(zeros, 32); /* random */
    put("\x20", 1);
    put(zeros, 32); /* legacy_session_id */
    put(suite, sizeof suite);
    put16(0); /* of the extensions */
    put16(0); /* server_name */
    put16(name_size + 5);
    put16(name_size + 3);
    put("", 1);
    put16(name_size);
    put(name, name_size);
    put16(16); /* application_layer_protocol_negotiation */
    put16(alpn_size + 3);
    put16(alpn_size + 1);
    put(&(uint8_t){(uint8_t)alpn_size}, 1);
    put(alpn, alpn_size);
    put(fixed, sizeof fixed);
    put(keys_share(), SHARE_BYTES);
}

/* Appends pre_shared_key, which must be the last: identity, age, and a binder over all before it (RFC
 * 8446 4.2.11). */
static size_t offer_ticket(const struct ticket *t, uint8_t *message, size_t size)
{
    uint64_t age_ms = (clock_ns() - t->came_ns) / NS_PER_MS;
    uint32_t age = (uint32_t)age_ms + t->age_add;
    size_t identity = 2 + t->size + 4;
    uint8_t *p = message + size;
    set16(p, EXTENSION_PRE_SHARED_KEY);
    set16(p + 2, 2 + identity + 2 + 1 + HASH_BYTES);
    set16(p + 4, identity);
    set16(p + 6, t->size);
    memcpy(p + 8, t->bytes, t->size);
    p += 8 + t->size;
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(age >> (24 - 8 * i));
    set16(p + 4, 1 + HASH_BYTES);
    p[6] = HASH_BYTES;
    size_t whole = (size_t)(p + 7 + HASH_BYTES - message);
    set16(message + 2, whole - MESSAGE_HEADER);
    set16(message + EXTENSIONS_AT, whole - EXTENSIONS_AT - 2);

    uint8_t early[HASH_BYTES], binder_key[HASH_BYTES], empty[HASH_BYTES], so_far[HASH_BYTES];
    hmac(early, zeros, t->key, HASH_BYTES);
    hash(empty, "", 0);
    expand_label(binder_key, HASH_BYTES, early, "res binder", empty, HASH_BYTES);
    hash(so_far, message, (size_t)(p + 4 - message));
    finished_mac(p + 7, binder_key, so_far);
    return whole;
}

static bool send_hello(struct shake *s, int fd)
{
    uint8_t *message = s->transcript;
    size_t size = hello_size;
    memcpy(message, hello, size);
    if (RAND_bytes(message + RANDOM_AT, 32) != 1 || RAND_bytes(message + SESSION_ID_AT, 32) != 1)
        return false;
    set16(message + 2, size - MESSAGE_HEADER);
    set16(message + EXTENSIONS_AT, size - EXTENSIONS_AT - 2);
    s->offered = keep_tickets && s->ticket.size > 0;
    if (s->offered)
        size = offer_ticket(&s->ticket, message, size);
    s->transcript_size = s->transcript_got = size;
    s->expected = SERVER_HELLO;
    s->hello_sent = true;
    uint8_t record[RECORD_HEADER + HELLO_MAX + TICKET_MAX + 64] = {RECORD_HANDSHAKE, 3, 1};
    set16(record + 3, size);
    memcpy(record + RECORD_HEADER, message, size);
    return send(fd, record, RECORD_HEADER + size, MSG_NOSIGNAL) == (ssize_t)(RECORD_HEADER + size);
}

/* --- the server's messages --- */

static void transcript_hash(const struct shake *s, uint8_t out[HASH_BYTES])
{
    hash(out, s->transcript, s->transcript_size);
}

/* The schedule's next stage: what comes in is mixed with the present secret. */
static void next_stage(struct shake *s, const uint8_t *input)
{
    uint8_t empty[HASH_BYTES], salt[HASH_BYTES];
    hash(empty, "", 0);
    expand_label(salt, HASH_BYTES, s->secret, "derived", empty, HASH_BYTES);
    hmac(s->secret, salt, input, HASH_BYTES);
}

static void derive(struct shake *s, uint8_t out[HASH_BYTES], const char *label,
                   const uint8_t transcript[HASH_BYTES])
{
    expand_label(out, HASH_BYTES, s->secret, label, transcript, HASH_BYTES);
}

/* Finds what was chosen among the extensions; false when it is not what was offered. */
static bool read_choices(struct shake *s, const uint8_t *p, const uint8_t *end, const uint8_t **share)
{
    bool version = false;
    *share = NULL;
    while (end - p >= 4) {
        size_t type = get16(p), size = get16(p + 2);
        p += 4;
        if ((size_t)(end - p) < size)
            return false;
        if (type == EXTENSION_SUPPORTED_VERSIONS && size == 2)
            version = get16(p) == 0x0304;
        else if (type == EXTENSION_KEY_SHARE && size == 4 + SHARE_BYTES && get16(p) == 29)
            *share = p + 4;
        else if (type == EXTENSION_PRE_SHARED_KEY && size == 2 && get16(p) == 0)
            s->resumed = s->offered;
        p += size;
    }
    return p == end && version && *share != NULL;
}

static bool on_server_hello(struct shake *s, const uint8_t *body, size_t size)
{
    const uint8_t *share;
    uint8_t agreed[SHARE_BYTES], transcript[HASH_BYTES];
    if (size < 2 + 32 + 1 + 32 + 2 + 1 + 2 || body[34] != 32 || get16(body + 67) != 0x1301 || body[69] != 0 ||
        get16(body + 70) != size - 72 || !read_choices(s, body + 72, body + size, &share) ||
        !keys_agree(agreed, share))
        return false;
    hmac(s->secret, zeros, s->resumed ? s->ticket.key : zeros, HASH_BYTES);
    next_stage(s, agreed);
    transcript_hash(s, transcript);
    derive(s, s->client_secret, "c hs traffic", transcript);
    derive(s, s->server_secret, "s hs traffic", transcript);
    traffic_init(&s->receiving, s->server_secret);
    traffic_init(&s->sending, s->client_secret);
    s->is_protected = true;
    s->expected = ENCRYPTED_EXTENSIONS;
    return true;
}

static bool on_certificate(struct shake *s, const uint8_t *body, size_t size)
{
    if (size < 7 || body[0] != 0 || get24(body + 1) != size - 4 || get24(body + 4) > size - 7)
        return false;
    s->certificate_at = (size_t)(body + 7 - s->transcript);
    s->certificate_size = get24(body + 4);
    s->expected = CERTIFICATE_VERIFY;
    return true;
}

/* The transcript that is signed ends before this message. */
static bool on_certificate_verify(struct shake *s, const uint8_t *body, size_t size)
{
    static const char words[] = "TLS 1.3, server CertificateVerify"; /* with its 0 */
    if (size < 4 || get16(body) != 0x0403 || get16(body + 2) != size - 4)
        return false;
    s->expected = FINISHED;
    if (until_check-- > 0)
        return true;
    until_check = CHECK_EVERY - 1;
    uint8_t signed_bytes[64 + sizeof words + HASH_BYTES];
    memset(signed_bytes, ' ', 64);
    memcpy(signed_bytes + 64, words, sizeof words);
    hash(signed_bytes + 64 + sizeof words, s->transcript, (size_t)(body - MESSAGE_HEADER - s->transcript));
    return signature_check(s->transcript + s->certificate_at, s->certificate_size, signed_bytes,
                           sizeof signed_bytes, body + 4, size - 4);
}

/* Answers with our own Finished; from then on both sides speak with the application's keys. */
static bool on_finished(struct shake *s, int fd, const uint8_t *body, size_t size)
{
    uint8_t transcript[HASH_BYTES], expected[HASH_BYTES];
    hash(transcript, s->transcript, (size_t)(body - MESSAGE_HEADER - s->transcript));
    finished_mac(expected, s->server_secret, transcript);
    if (size != HASH_BYTES || memcmp(body, expected, HASH_BYTES) != 0)
        return false;
    next_stage(s, zeros);
    transcript_hash(s, transcript);
    uint8_t finished[MESSAGE_HEADER + HASH_BYTES] = {FINISHED, 0, 0, HASH_BYTES};
    finished_mac(finished + MESSAGE_HEADER, s->client_secret, transcript);
    uint8_t flight[6 + RECORD_EXTRA + sizeof finished] = {RECORD_CHANGE, 3, 3, 0, 1, 1};
    traffic_seal(&s->sending, flight + 6, RECORD_HANDSHAKE, finished, sizeof finished);

    derive(s, s->client_secret, "c ap traffic", transcript);
    derive(s, s->server_secret, "s ap traffic", transcript);
    traffic_init(&s->sending, s->client_secret);
    traffic_init(&s->receiving, s->server_secret);
    if (keep_tickets) {
        memcpy(s->transcript + s->transcript_size, finished, sizeof finished);
        s->transcript_size += sizeof finished;
        transcript_hash(s, transcript);
        derive(s, s->resumption, "res master", transcript);
    }
    s->transcript_size = s->transcript_got = 0;
    s->open = true;
    return send(fd, flight, sizeof flight, MSG_NOSIGNAL) == sizeof flight;
}

static void on_ticket(struct shake *s, const uint8_t *body, size_t size)
{
    if (!keep_tickets || size < 9 || 9 + (size_t)body[8] + 2 > size)
        return;
    size_t nonce_size = body[8];
    const uint8_t *p = body + 9 + nonce_size;
    size_t ticket_size = get16(p);
    if (ticket_size == 0 || ticket_size > TICKET_MAX || (size_t)(body + size - p) < 2 + ticket_size + 2)
        return;
    s->ticket.size = ticket_size;
    memcpy(s->ticket.bytes, p + 2, ticket_size);
    expand_label(s->ticket.key, HASH_BYTES, s->resumption, "resumption", body + 9, nonce_size);
    s->ticket.age_add = (uint32_t)(get16(body + 4) << 16 | get16(body + 6));
    s->ticket.came_ns = clock_ns();
}

static bool on_message(struct shake *s, int fd, int type, const uint8_t *body, size_t size)
{
    if (s->open) {
        if (type == NEW_SESSION_TICKET)
            on_ticket(s, body, size);
        s->transcript_size = 0;
        return type == NEW_SESSION_TICKET; /* no server under test changes its keys */
    }
    if (type != s->expected)
        return false;
    switch (type) {
    case SERVER_HELLO: return on_server_hello(s, body, size);
    case ENCRYPTED_EXTENSIONS: s->expected = s->resumed ? FINISHED : CERTIFICATE; return true;
    case CERTIFICATE: return on_certificate(s, body, size);
    case CERTIFICATE_VERIFY: return on_certificate_verify(s, body, size);
    case FINISHED: return on_finished(s, fd, body, size);
    default: return false;
    }
}

/* Bytes of messages, which may begin and end anywhere in records. */
static bool on_messages(struct shake *s, int fd, const uint8_t *data, size_t size)
{
    if (size > sizeof s->transcript - s->transcript_got - 2 * HASH_BYTES)
        return false;
    memcpy(s->transcript + s->transcript_got, data, size);
    s->transcript_got += size;
    for (;;) {
        const uint8_t *message = s->transcript + s->transcript_size;
        size_t left = s->transcript_got - s->transcript_size;
        if (left < MESSAGE_HEADER || left - MESSAGE_HEADER < get24(message + 1))
            return true;
        size_t whole = MESSAGE_HEADER + get24(message + 1);
        bool was_open = s->open;
        s->transcript_size += whole;
        if (!on_message(s, fd, message[0], message + MESSAGE_HEADER, whole - MESSAGE_HEADER))
            return false;
        if (s->open && !was_open)
            return left == whole; /* with the keys changed, nothing may follow in the same record */
        if (s->open) {
            memmove(s->transcript, message + whole, left - whole);
            s->transcript_got = left - whole;
        }
    }
}

/* --- records --- */

static bool on_record(struct shake *s, int fd, uint8_t *record, size_t size)
{
    int type = record[0];
    uint8_t *data = record + RECORD_HEADER;
    size_t data_size = size - RECORD_HEADER;
    if (type == RECORD_CHANGE)
        return !s->open;
    if (s->is_protected)
        type = type == RECORD_DATA ? traffic_open(&s->receiving, record, size, &data, &data_size) : -1;
    switch (type) {
    case RECORD_HANDSHAKE: return on_messages(s, fd, data, data_size);
    case RECORD_ALERT:
        s->ended = data_size == 2 && data[1] == 0; /* close_notify */
        return s->ended;
    case RECORD_DATA:
        s->data = data;
        s->data_size = data_size;
        return s->open && s->is_protected;
    default: return false;
    }
}

/* Handles one record; SHAKE_MORE: it has not come whole yet. */
static enum shake_step take_record(struct shake *s, int fd)
{
    size_t left = s->in_size - s->in_at;
    uint8_t *record = s->in + s->in_at;
    if (left < RECORD_HEADER)
        return SHAKE_MORE;
    size_t size = RECORD_HEADER + get16(record + 3);
    if (size > RECORD_MAX)
        return SHAKE_FAILED;
    if (left < size)
        return SHAKE_MORE;
    s->in_at += size;
    return on_record(s, fd, record, size) ? SHAKE_DONE : SHAKE_FAILED;
}

/* The bytes received, 0 at the end, or -1 with errno. */
static ssize_t fill(struct shake *s, int fd)
{
    if (s->in_at == s->in_size)
        s->in_at = s->in_size = 0;
    if (s->in_at > RECORD_MAX) {
        memmove(s->in, s->in + s->in_at, s->in_size - s->in_at);
        s->in_size -= s->in_at;
        s->in_at = 0;
    }
    ssize_t n = recv(fd, s->in + s->in_size, sizeof s->in - s->in_size, 0);
    if (n > 0)
        s->in_size += (size_t)n;
    return n;
}

/* --- the outside --- */

struct shake *shake_new(void)
{
    struct shake *s = calloc(1, sizeof *s);
    if (s == NULL)
        die("memory");
    return s;
}

void shake_begin(struct shake *s)
{
    s->hello_sent = s->open = s->ended = s->offered = s->resumed = s->is_protected = false;
    s->in_at = s->in_size = s->data_size = 0;
}

enum shake_step shake_go_on(struct shake *s, int fd)
{
    if (!s->hello_sent)
        return send_hello(s, fd) ? SHAKE_MORE : SHAKE_FAILED;
    while (!s->open) {
        enum shake_step step = take_record(s, fd);
        if (step == SHAKE_FAILED || s->ended)
            return SHAKE_FAILED;
        if (step == SHAKE_DONE)
            continue;
        ssize_t n = fill(s, fd);
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? SHAKE_MORE : SHAKE_FAILED;
    }
    return SHAKE_DONE;
}

bool shake_resumed(const struct shake *s)
{
    return s->resumed;
}

ssize_t shake_recv(struct shake *s, int fd, void *to, size_t size)
{
    while (s->data_size == 0 && !s->ended) {
        enum shake_step step = take_record(s, fd);
        if (step == SHAKE_FAILED) {
            errno = EPROTO;
            return -1;
        }
        if (step == SHAKE_DONE)
            continue;
        ssize_t n = fill(s, fd);
        if (n <= 0)
            return n;
    }
    size_t n = s->data_size < size ? s->data_size : size;
    if (n > 0)
        memcpy(to, s->data, n);
    s->data += n;
    s->data_size -= n;
    return (ssize_t)n;
}

static ssize_t send_record(struct shake *s, int fd, uint8_t type, const void *data, size_t size)
{
    uint8_t record[SEND_MAX + RECORD_EXTRA];
    if (size > SEND_MAX) {
        errno = EMSGSIZE;
        return -1;
    }
    traffic_seal(&s->sending, record, type, data, size);
    ssize_t whole = (ssize_t)(size + RECORD_EXTRA);
    return send(fd, record, (size_t)whole, MSG_NOSIGNAL) == whole ? (ssize_t)size : -1;
}

ssize_t shake_send(struct shake *s, int fd, const void *data, size_t size)
{
    return send_record(s, fd, RECORD_DATA, data, size);
}

bool shake_is_dry(const struct shake *s)
{
    return s->data_size == 0 && s->in_at == s->in_size;
}

void shake_goodbye(struct shake *s, int fd)
{
    static const uint8_t close_notify[] = {1, 0};
    if (s->open && send_record(s, fd, RECORD_ALERT, close_notify, sizeof close_notify) < 0)
        s->ended = true; /* gone already */
}
