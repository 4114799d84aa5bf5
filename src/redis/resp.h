// RESP2 and RESP3, without I/O (redis.io/docs/reference/protocol-spec). The server is no more trusted than
// any peer: every length, depth and count is bounded.
#pragma once

#include "base/arena.h"
#include "base/buf.h"

enum { RESP_DEPTH = 8, RESP_ITEMS = 1000000, RESP_LINE_BYTES = 64 * 1024 };

enum resp_kind {
    RESP_STRING, // simple, bulk, verbatim, big number
    RESP_ERROR,
    RESP_INTEGER, // booleans are 0 and 1
    RESP_DOUBLE,
    RESP_NULL,
    RESP_ARRAY, // sets and maps too: a map is key, value, key, value…
    RESP_PUSH,
};

struct resp_value {
    enum resp_kind kind;
    struct str text; // STRING, ERROR
    int64_t integer;
    double number;
    struct resp_value *items; // ARRAY, PUSH
    uint32_t count;
};

enum resp_result { RESP_VALUE, RESP_MORE, RESP_BAD };
// Parses one value from the beginning of data. RESP_VALUE: *used bytes were taken; strings point into data.
// RESP_MORE: the same data with more behind it must be given again. max: bytes a value may have.
enum resp_result resp_parse(struct str data, size_t max, struct arena *arena, struct resp_value *value,
                            size_t *used);
// Appends a command: an array of bulk strings.
void resp_command(struct buf *out, const struct str *argv, unsigned argc);
