// The loops of h1_parse.c that look at every byte: SSE2 on every x86-64, AVX2 where the processor has it,
// plain C elsewhere. All give the same answers; tests compare them.
#pragma once

#include "http/header.h"

enum h1_scanned {
    SCAN_MORE, // clean so far, no end of head
    SCAN_END,  // *at: length up to and with the CRLF CRLF
    SCAN_BAD,  // *at: offset of the first byte that makes a bare CR, a bare LF or is a forbidden control
};

struct h1_fields {
    // In: whole lines from at to stop; limit is the end of readable memory (the further away the faster,
    // never before stop). Every CR in there is followed by LF.
    const char *at, *stop, *limit;
    struct header *v; // filled from count up to capacity
    uint32_t count, capacity;
    uint32_t lines, lines_max; // fields seen, those dropped included
    bool drop_underscores, reject_underscores;
    // Out: bit i for header id i: seen, and seen again.
    uint64_t seen, repeated;
    const char *why; // H1_FIELDS_BAD
};

enum h1_fields_result { H1_FIELDS_DONE, H1_FIELDS_FULL, H1_FIELDS_BAD, H1_FIELDS_TOO_MANY };

static inline uint64_t header_bit(enum header_id id)
{
    return (uint64_t)(id < 64) << (id & 63);
}

struct h1_scanner {
    const char *name;
    bool (*usable)(void);
    // data starts at the start of a line.
    enum h1_scanned (*head)(const char *data, size_t n, size_t *at);
    // Parses field lines (RFC 9112 5) until stop, or until v is full (call again with more capacity).
    enum h1_fields_result (*fields)(struct h1_fields *fields);
    // The first byte in [p, limit) that is not in the class, or limit.
    const char *(*plain_path)(const char *p, const char *limit);
    const char *(*query)(const char *p, const char *limit);
};

// All of this build, the best last; ends with a NULL name.
extern const struct h1_scanner h1_scanners[];
// The best that this processor can run; chosen before main().
extern struct h1_scanner h1_scan;
