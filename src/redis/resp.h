// RESP2 and RESP3, without I/O (redis.io/docs/reference/protocol-spec). The server is no more trusted than
// any peer: every length, depth and count is bounded. Streamed strings and aggregates (`$?`, `*?`), which no
// server sends, are refused.
//
// A value is first walked over and only built when it is there in whole: what comes in a thousand pieces is
// looked at once, and an array whose head announces a million items costs nothing until they have come.
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

// How far a value that is not yet there in whole has been walked over. Zero it for each value.
struct resp_walk {
    size_t at;                     // the next item
    size_t looked;                 // so many bytes of its line have no end of line
    size_t needed;                 // RESP_MORE: it is of no use to ask again before there are so many bytes
    uint32_t items;                // seen, attributes too
    unsigned depth;                // of what is open
    bool begun;                    // an item has been seen
    uint64_t left[RESP_DEPTH + 1]; // items that what is open lacks
};

// Parses one value from the beginning of data. RESP_VALUE: *used bytes were taken; strings point into data,
// arrays are in arena. RESP_MORE: the same data with more behind it must be given again, with the same walk.
// RESP_BAD: it is no RESP, or beyond a bound. max: bytes a value may have, its attributes included.
enum resp_result resp_continue(struct resp_walk *walk, struct str data, size_t max, struct arena *arena,
                               struct resp_value *value, size_t *used);
// The same from the beginning.
enum resp_result resp_parse(struct str data, size_t max, struct arena *arena, struct resp_value *value,
                            size_t *used);
// Appends a command: an array of bulk strings.
void resp_command(struct buf *out, const struct str *argv, unsigned argc);
