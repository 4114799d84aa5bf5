// A streaming JSON writer (RFC 8259) into a heap buf: admin answers, schema, problem+json. Commas and nesting
// are kept by the writer; strings are escaped, invalid UTF-8 becomes U+FFFD, so the output is always valid
// JSON.
#pragma once

#include "base/buf.h"
#include "base/swar.h"

#include <stdbool.h>

enum { JSON_DEPTH = 32 };

struct json {
    struct buf *out;
    unsigned depth;
    bool has_item[JSON_DEPTH]; // at this depth something was written
    bool after_key;
    bool pretty; // two-space indent
};

void json_init(struct json *json, struct buf *out, bool pretty);
void json_object(struct json *json);
void json_object_end(struct json *json);
void json_array(struct json *json);
void json_array_end(struct json *json);
void json_key(struct json *json, struct str key);
void json_string(struct json *json, struct str value);
void json_u64(struct json *json, uint64_t value);
void json_i64(struct json *json, int64_t value);
// Shortest of %.15g / %.17g; not finite: null.
void json_double(struct json *json, double value);
void json_bool(struct json *json, bool value);
void json_null(struct json *json);
// Text that is JSON already.
void json_raw(struct json *json, struct str text);

// Key and value at once, with a literal key.
#define json_field_string(json, key, value) (json_key((json), STR(key)), json_string((json), (value)))
#define json_field_u64(json, key, value)    (json_key((json), STR(key)), json_u64((json), (value)))
#define json_field_bool(json, key, value)   (json_key((json), STR(key)), json_bool((json), (value)))
#define json_field_double(json, key, value) (json_key((json), STR(key)), json_double((json), (value)))

// Writes s escaped, without the quotes, into out, which has room for JSON_ESCAPE_MAX * s.n bytes; returns the
// length.
enum { JSON_ESCAPE_MAX = 6 };
size_t json_escape(struct str s, char *out);

// Copies a vector; returns -1 where a byte is special, as json_special_bytes finds it, but exactly.
static inline swar_vector json_copy_vector(char *out, const char *from)
{
    swar_vector v = swar_load_vector(from);
    memcpy(out, &v, sizeof v);
    return (v < 0x20) | (v == '"') | (v == '\\') | (v == 0x7f); // beyond ASCII is negative
}

// High bits set where a byte is a control, a quote, a backslash, DEL or beyond ASCII (and perhaps in bytes
// above a true hit, which only costs the slow way).
static inline uint64_t json_special_bytes(uint64_t v)
{
    uint64_t quote = v ^ SWAR_EACH('"'), backslash = v ^ SWAR_EACH('\\');
    uint64_t below =
        (v - SWAR_EACH(0x20)) | (quote - SWAR_EACH(1)) | (backslash - SWAR_EACH(1)) | (v + SWAR_EACH(1));
    return (below | v) & SWAR_EACH(0x80);
}

// Copies s to out; false when some byte needs an escape (what was copied is then worth nothing). Reads and
// writes nothing beyond s.n bytes: the last word overlaps the one before.
static inline bool json_copy_plain(char *out, struct str s)
{
    if (s.n >= SWAR_VECTOR) {
        size_t last = s.n - SWAR_VECTOR;
        swar_vector special = json_copy_vector(out + last, s.p + last);
        for (size_t i = 0; i < last; i += SWAR_VECTOR)
            special |= json_copy_vector(out + i, s.p + i);
        return swar_is_zero(special);
    }
    if (s.n >= 8) {
        uint64_t first = swar_load8(s.p), last = swar_load8(s.p + s.n - 8);
        memcpy(out, &first, 8);
        memcpy(out + s.n - 8, &last, 8);
        return !(json_special_bytes(first) | json_special_bytes(last));
    }
    if (s.n >= 4) {
        uint32_t first = swar_load4(s.p), last = swar_load4(s.p + s.n - 4);
        memcpy(out, &first, 4);
        memcpy(out + s.n - 4, &last, 4);
        return !json_special_bytes(first | (uint64_t)last << 32);
    }
    uint64_t v = SWAR_EACH('x');
    for (size_t i = 0; i < s.n; i++) {
        out[i] = s.p[i];
        v = v << 8 | (unsigned char)s.p[i];
    }
    return !json_special_bytes(v);
}
