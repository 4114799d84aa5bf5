// A streaming JSON writer (RFC 8259) into a heap buf: admin answers, schema, problem+json. Commas and nesting
// are kept by the writer; strings are escaped, invalid UTF-8 becomes U+FFFD, so the output is always valid
// JSON.
#pragma once

#include "base/buf.h"

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
