// The access log: one line a request, formatted by the worker into its own buffer, written by one writer
// thread, so that a slow or full output never holds a request up. What does not fit is dropped and counted.
//
//   worker: access_log_record ─▶ buffer (16 KiB) ── full, or 200 ms old ─▶ queue (bounded) ─▶ writer thread
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "observe/metrics.h"

// A compiled output and format; read-only after compile, in the snapshot.
struct access_format;
enum access_format_kind { ACCESS_JSON, ACCESS_COMBINED, ACCESS_TEMPLATE };
// template: "$client - $status …"; names are those of the JSON fields, plus $query, $user_agent, $referer,
// $time_local. NULL and *why (static, or in arena) when a $name is unknown.
const struct access_format *access_format_compile(enum access_format_kind kind, struct str template,
                                                  struct arena *arena, const char **why);

struct access_record {
    uint64_t wall_us; // when the request began
    struct str request_id, client, listener, host, method, path, query, protocol, route, upstream, endpoint;
    struct str consumer, subject, trace_id, user_agent, referer;
    unsigned status;
    enum end_cause cause;
    uint64_t bytes_in, bytes_out, duration_us, upstream_us;
    unsigned attempts;
};

// ---- the writer: one for the process ----

struct access_writer;
// output: "stdout", "stderr", "off" or a path (appended, created 0640). NULL and *err when it cannot be
// opened.
struct access_writer *access_writer_new(struct str output, struct err *err);
void access_writer_free(struct access_writer *writer);   // writes what is queued, at most for a second
void access_writer_reopen(struct access_writer *writer); // USR1
uint64_t access_writer_dropped(const struct access_writer *writer); // lines, any thread

// ---- a worker's side ----

struct access_log {
    struct access_writer *writer; // NULL: off
    struct buf lines;
    uint32_t line_count;
    uint64_t oldest_us; // when the first line in the buffer was put there
    uint64_t second;    // the timestamp's cached second and its text
    char second_text[24];
};

void access_log_init(struct access_log *log, struct access_writer *writer);
void access_log_fini(struct access_log *log); // flushes
// Formats and appends one line; hands the buffer over when it is full. At most 8 KiB a line: longer fields
// are cut.
void access_log_record(struct access_log *log, const struct access_format *format,
                       const struct access_record *record, uint64_t now_us);
// Hands the buffer over when its oldest line is older than 200 ms. Call at the end of each turn.
void access_log_tick(struct access_log *log, uint64_t now_us);
void access_log_flush(struct access_log *log);
// Another writer from now on (reload); flushes to the old one first.
void access_log_switch(struct access_log *log, struct access_writer *writer);
