// Formatting one line; for the files of the access log only.
#pragma once

#include "observe/access_log.h"

enum {
    ACCESS_LINE_BYTES = 8192,    // no line is longer, its line feed included
    ACCESS_ESCAPE_MAX = 6,       // bytes a byte of a field takes at most: \u00XX
    ACCESS_LITERAL_BYTES = 2048, // of a template, all literals together
    ACCESS_PIECES = 64,          // of a template
    ACCESS_NUMBER_MAX = 32,      // a number, a time, a code, and what put_u64 writes too many
    ACCESS_JSON_FIXED = 640,     // keys, quotes, numbers and code of a JSON line
};

// X(id, name)
#define ACCESS_FIELDS(X)                \
    X(FIELD_TS, "ts")                   \
    X(FIELD_REQUEST_ID, "request_id")   \
    X(FIELD_CLIENT, "client")           \
    X(FIELD_LISTENER, "listener")       \
    X(FIELD_HOST, "host")               \
    X(FIELD_METHOD, "method")           \
    X(FIELD_PATH, "path")               \
    X(FIELD_PROTOCOL, "protocol")       \
    X(FIELD_ROUTE, "route")             \
    X(FIELD_UPSTREAM, "upstream")       \
    X(FIELD_ENDPOINT, "endpoint")       \
    X(FIELD_STATUS, "status")           \
    X(FIELD_CODE, "code")               \
    X(FIELD_BYTES_IN, "bytes_in")       \
    X(FIELD_BYTES_OUT, "bytes_out")     \
    X(FIELD_DURATION_MS, "duration_ms") \
    X(FIELD_UPSTREAM_MS, "upstream_ms") \
    X(FIELD_ATTEMPTS, "attempts")       \
    X(FIELD_CONSUMER, "consumer")       \
    X(FIELD_SUBJECT, "subject")         \
    X(FIELD_TRACE_ID, "trace_id")       \
    X(FIELD_QUERY, "query")             \
    X(FIELD_USER_AGENT, "user_agent")   \
    X(FIELD_REFERER, "referer")         \
    X(FIELD_TIME_LOCAL, "time_local")

enum access_field {
    FIELD_LITERAL, // a piece of the template's own text
#define X(id, name) id,
    ACCESS_FIELDS(X)
#undef X
        FIELD_COUNT,
};

struct access_piece {
    enum access_field field;
    struct str literal;
};

struct access_format {
    enum access_format_kind kind;
    const struct access_piece *pieces; // not for JSON
    uint32_t count;
    size_t fixed_bytes; // all but the string fields, at most
};

// The most bytes this record's line can take, at most ACCESS_LINE_BYTES.
size_t access_line_bound(const struct access_format *format, const struct access_record *record);
// Writes the line with its line feed at out, which has room for the bound; returns its length. log: the
// clock's cache.
size_t access_line_print(struct access_log *log, const struct access_format *format,
                         const struct access_record *record, char *out);

// ---- the writer's side of a hand-over ----

// Takes lines (line_count of them) and leaves an empty buffer, or no memory, in their place. What does not
// fit into the queue is dropped and counted. wake: do not wait for more before writing.
void access_writer_hand(struct access_writer *writer, struct buf *lines, uint32_t line_count, bool wake);
// Frees the memory of a buffer that is not handed over any more.
void access_writer_give_back(struct access_writer *writer, struct buf *lines);
// An empty buffer of BUF_BLOCK bytes; false: no memory, count the line as dropped.
must_check bool access_writer_take(struct access_writer *writer, struct buf *lines);
void access_writer_count_dropped(struct access_writer *writer, uint64_t lines);
// Output "off": nothing is written, and nothing need be formatted.
bool access_writer_is_off(const struct access_writer *writer);
