#include "replay/replay.h"

#include <endian.h>
#include <openssl/evp.h>
#include <pthread.h>

// ---- hashes ----

static EVP_MD *sha256;

static void fetch(void) // once: a fetch for each use takes locks that all threads share
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    check(sha256);
}

struct replay_hash replay_hash(const struct str *parts, unsigned count)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fetch);
    struct replay_hash hash;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    check(context && EVP_DigestInit_ex2(context, sha256, NULL) == 1);
    for (unsigned i = 0; i < count; i++) {
        uint64_t n = htobe64(parts[i].n);
        check(EVP_DigestUpdate(context, &n, sizeof n) == 1);
        check(EVP_DigestUpdate(context, parts[i].p, parts[i].n) == 1);
    }
    check(EVP_DigestFinal_ex(context, hash.bytes, NULL) == 1);
    EVP_MD_CTX_free(context);
    return hash;
}

// ---- an answer as one span ----
//
//   status, count of fields; for each: length of its name, length of its value, both of them; the body
//
// Numbers have four bytes, the high one first.

enum { NUMBER = 4, FIELD_MIN = 2 * NUMBER };

size_t replay_answer_bytes(const struct replay_answer *answer)
{
    size_t n = 2 * NUMBER + answer->body.n;
    for (uint32_t i = 0; i < answer->headers.count; i++)
        if (answer->headers.v[i].id != HEADER_GONE)
            n += FIELD_MIN + answer->headers.v[i].name.n + answer->headers.v[i].value.n;
    return n;
}

static char *put_number(char *at, size_t value)
{
    uint32_t number = htobe32((uint32_t)value);
    return mempcpy(at, &number, sizeof number);
}

static char *put(char *at, struct str s)
{
    return s.n ? mempcpy(at, s.p, s.n) : at;
}

void replay_answer_write(const struct replay_answer *answer, char *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < answer->headers.count; i++)
        count += answer->headers.v[i].id != HEADER_GONE;
    out = put_number(put_number(out, answer->status), count);
    for (uint32_t i = 0; i < answer->headers.count; i++) {
        const struct header *header = &answer->headers.v[i];
        if (header->id == HEADER_GONE)
            continue;
        out = put_number(put_number(out, header->name.n), header->value.n);
        out = put(put(out, header->name), header->value);
    }
    put(out, answer->body);
}

static bool take_number(struct str *rest, uint32_t *number)
{
    if (rest->n < NUMBER)
        return false;
    memcpy(number, rest->p, NUMBER);
    *number = be32toh(*number);
    *rest = str_skip(*rest, NUMBER);
    return true;
}

static bool take(struct str *rest, size_t n, struct str *s)
{
    if (rest->n < n)
        return false;
    *s = (struct str){rest->p, n};
    *rest = str_skip(*rest, n);
    return true;
}

static bool take_field(struct str *rest, struct arena *arena, struct headers *headers)
{
    uint32_t name_bytes, value_bytes;
    struct str name, value;
    if (!take_number(rest, &name_bytes) || !take_number(rest, &value_bytes) ||
        !take(rest, name_bytes, &name) || !take(rest, value_bytes, &value) || !header_name_valid(name) ||
        !header_value_valid(value))
        return false;
    headers_add(headers, arena, name, value);
    return true;
}

bool replay_answer_read(struct str span, struct arena *arena, struct replay_answer *answer)
{
    uint32_t status, count;
    *answer = (struct replay_answer){0};
    if (!take_number(&span, &status) || !take_number(&span, &count) || status < 200 || status > 599 ||
        count > span.n / FIELD_MIN)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!take_field(&span, arena, &answer->headers))
            return false;
    answer->status = status;
    answer->body = span;
    return true;
}
