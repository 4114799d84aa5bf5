// A str is a borrowed span of bytes: pointer and length, not NUL-terminated, never owned.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_NULL     ((struct str){NULL, 0})
// For printf("%.*s", STR_ARG(s)).
#define STR_ARG(s)   (int)(s).n, (s).p

static inline struct str str_of(const char *cstring)
{
    return (struct str){cstring, cstring ? strlen(cstring) : 0};
}

static inline struct str str_range(const char *from, const char *to)
{
    return (struct str){from, (size_t)(to - from)};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline struct str str_skip(struct str s, size_t n)
{
    return (struct str){s.p + n, s.n - n};
}

static inline char ascii_lower(char c)
{
    return (c >= 'A' && c <= 'Z') ? (char)(c | 0x20) : c;
}

// ASCII case folding only: HTTP names, tokens and host names.
bool str_eq_fold(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
// Orders by bytes, a shorter prefix first.
int str_compare(struct str a, struct str b);
// Offset of the first c, or s.n when there is none.
size_t str_find(struct str s, char c);
// Removes SP and HTAB at both ends (RFC 9110 5.6.3 OWS).
struct str str_trim(struct str s);

// Takes the next element of a comma-separated list (RFC 9110 5.6.1) from *rest, trimmed; empty elements are
// skipped. Quoted strings are not looked into: use it for lists of tokens only. False at the end.
bool str_next_token(struct str *rest, struct str *token);

// Decimal digits only, all of s, no sign; false when empty, not a number or above max.
bool str_to_u64(struct str s, uint64_t max, uint64_t *value);

// Length of the valid UTF-8 sequence (RFC 3629) that s, which is not empty, begins with; 0: none.
size_t str_utf8_length(struct str s);

// Writes value in decimal into out, returns the length (at most 20); no NUL.
size_t u64_print(uint64_t value, char *out);

// A copy on the heap with a NUL behind it; free() it. Aborts when memory is out: for configuration time only.
char *str_dup(struct str s);

// Edit distance (Damerau–Levenshtein, restricted) for "did you mean"; at most 64 bytes of each are looked at.
unsigned str_distance(struct str a, struct str b);
