#include "replay/replay.h"

#include "http/body.h"

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
// Numbers have four bytes, the high one first. An answer with trailers has WITH_TRAILERS in its status, their
// count behind that of the fields, and themselves behind the fields. A gateway that does not know of trailers
// takes that for no answer (REPLAY_LOST) rather than a wrong one, and reads all others.

enum { NUMBER = 4, FIELD_MIN = 2 * NUMBER, WITH_TRAILERS = 1 << 16 };

static size_t fields_bytes(const struct headers *fields, uint32_t *count)
{
    size_t n = 0;
    *count = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        if (fields->v[i].id == HEADER_GONE)
            continue;
        n += FIELD_MIN + fields->v[i].name.n + fields->v[i].value.n;
        ++*count;
    }
    return n;
}

size_t replay_answer_bytes(const struct replay_answer *answer)
{
    uint32_t headers, trailers;
    size_t n = fields_bytes(&answer->headers, &headers) + fields_bytes(&answer->trailers, &trailers);
    return n + (trailers ? 3 : 2) * (size_t)NUMBER + answer->body.n;
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

static char *put_fields(char *at, const struct headers *fields)
{
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct header *field = &fields->v[i];
        if (field->id == HEADER_GONE)
            continue;
        at = put_number(put_number(at, field->name.n), field->value.n);
        at = put(put(at, field->name), field->value);
    }
    return at;
}

void replay_answer_write(const struct replay_answer *answer, char *out)
{
    uint32_t headers, trailers;
    fields_bytes(&answer->headers, &headers);
    fields_bytes(&answer->trailers, &trailers);
    out = put_number(out, answer->status | (trailers ? WITH_TRAILERS : 0));
    out = put_number(out, headers);
    if (trailers)
        out = put_number(out, trailers);
    put(put_fields(put_fields(out, &answer->headers), &answer->trailers), answer->body);
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

static bool take_field(struct str *rest, struct arena *arena, struct headers *fields)
{
    uint32_t name_bytes, value_bytes;
    struct str name, value;
    if (!take_number(rest, &name_bytes) || !take_number(rest, &value_bytes) ||
        !take(rest, name_bytes, &name) || !take(rest, value_bytes, &value) || !header_name_valid(name) ||
        !header_value_valid(value))
        return false;
    headers_add(fields, arena, name, value);
    return true;
}

static bool take_fields(struct str *rest, uint32_t count, struct arena *arena, struct headers *fields)
{
    if (count > rest->n / FIELD_MIN)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!take_field(rest, arena, fields))
            return false;
    return true;
}

// As from an upstream: none that means something to framing or routing.
static bool take_trailers(struct str *rest, uint32_t count, struct arena *arena, struct headers *trailers)
{
    if (!take_fields(rest, count, arena, trailers))
        return false;
    for (uint32_t i = 0; i < trailers->count; i++)
        if (body_forbids_trailer(trailers->v[i].name))
            return false;
    return true;
}

bool replay_answer_read(struct str span, struct arena *arena, struct replay_answer *answer)
{
    uint32_t status, headers, trailers = 0;
    *answer = (struct replay_answer){0};
    if (!take_number(&span, &status) || !take_number(&span, &headers))
        return false;
    if ((status & WITH_TRAILERS) && (!take_number(&span, &trailers) || !trailers))
        return false;
    answer->status = status & ~(uint32_t)WITH_TRAILERS;
    if (answer->status < 200 || answer->status > 599 ||
        !take_fields(&span, headers, arena, &answer->headers) ||
        !take_trailers(&span, trailers, arena, &answer->trailers))
        return false;
    answer->body = span;
    return true;
}
