// Regular expressions (PCRE2) over whole values: paths, header values, query values. Private to this room.
#pragma once

#include "base/arena.h"
#include "base/err.h"

struct route_scratch;

// Backtracking is bounded, so that a request cannot hold a worker: 50,000 steps are about a millisecond, and
// an honest expression needs a few for each byte of a path of at most 8 KiB.
enum { REGEX_MATCH_LIMIT = 50000, REGEX_HEAP_KIB = 1024, REGEX_JIT_STACK_BYTES = 128 * 1024 };

struct route_regex {
    struct route_regex *next; // of the table, for route_regex_free_all
    struct str text;
    void *code; // pcre2_code
};

enum regex_result { REGEX_NO, REGEX_YES, REGEX_TOO_HARD };

enum { REGEX_WHY_BYTES = 160 };

// A pcre2_code, to be freed with route_regex_code_free; or NULL, and why (REGEX_WHY_BYTES of room) and where
// not.
void *route_regex_compile(struct str text, char *why, size_t *offset);
void route_regex_code_free(void *code);

// The record lives in arena, the code on the heap. NULL when text does not compile: *err says why and where
// in text.
struct route_regex *route_regex_new(struct str text, struct arena *arena, struct err *err);
void route_regex_free_all(struct route_regex *first);
// YES when the whole of subject matches.
enum regex_result route_regex_match(const struct route_regex *regex, struct str subject,
                                    struct route_scratch *scratch);
// n bytes that live until the next call: for a decoded subject.
char *route_scratch_room(struct route_scratch *scratch, size_t n);
