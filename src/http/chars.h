// The character classes of RFC 9110, 9112 and 3986: one bit each in one table, and the same sets as
// predicates on an int, from which both the table and the SIMD tables of h1_scan.c are made.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// clang-format off
#define IS_DIGIT(c) ((c) >= '0' && (c) <= '9')
#define IS_ALPHA(c) (((c) >= 'a' && (c) <= 'z') || ((c) >= 'A' && (c) <= 'Z'))
#define IS_HEX(c) (IS_DIGIT(c) || ((c) >= 'a' && (c) <= 'f') || ((c) >= 'A' && (c) <= 'F'))
// RFC 9110 5.6.2
#define IS_TOKEN(c)                                                                                          \
    (IS_ALPHA(c) || IS_DIGIT(c) || (c) == '!' || (c) == '#' || (c) == '$' || (c) == '%' || (c) == '&' ||     \
     (c) == '\'' || (c) == '*' || (c) == '+' || (c) == '-' || (c) == '.' || (c) == '^' || (c) == '_' ||      \
     (c) == '`' || (c) == '|' || (c) == '~')
// RFC 3986 2.3, 2.2, 3.3: "%" is never in these, an escape is checked as a whole.
#define IS_UNRESERVED(c)                                                                                     \
    (IS_ALPHA(c) || IS_DIGIT(c) || (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~')
#define IS_SUB_DELIM(c)                                                                                      \
    ((c) == '!' || (c) == '$' || (c) == '&' || (c) == '\'' || (c) == '(' || (c) == ')' || (c) == '*' ||      \
     (c) == '+' || (c) == ',' || (c) == ';' || (c) == '=')
#define IS_REG_NAME(c) (IS_UNRESERVED(c) || IS_SUB_DELIM(c))
#define IS_PATH(c) (IS_REG_NAME(c) || (c) == ':' || (c) == '@' || (c) == '/')
// A path made of these alone is canonical: nothing to decode, no dot segment.
#define IS_PLAIN_PATH(c) (IS_PATH(c) && (c) != '.')
// Beyond RFC 3986: what browsers leave as it is in a query (WHATWG URL, query percent-encode set). None of it means
// anything to a parser of requests.
#define IS_QUERY(c)                                                                                          \
    (IS_PATH(c) || (c) == '?' || (c) == '[' || (c) == ']' || (c) == '{' || (c) == '}' || (c) == '|' ||       \
     (c) == '^' || (c) == '`')
// RFC 9110 5.5: HTAB, SP, VCHAR, obs-text.
#define IS_VALUE(c) ((c) == '\t' || ((c) >= 0x20 && (c) != 0x7f))
// RFC 9110 5.6.4: inside a quoted string, without escapes.
#define IS_QUOTED_TEXT(c) (IS_VALUE(c) && (c) != '"' && (c) != '\\')
// clang-format on

enum char_class {
    CHAR_TOKEN = 1 << 0,
    CHAR_UNRESERVED = 1 << 1,
    CHAR_REG_NAME = 1 << 2,
    CHAR_PATH = 1 << 3,
    CHAR_PLAIN_PATH = 1 << 4,
    CHAR_QUERY = 1 << 5,
    CHAR_VALUE = 1 << 6,
    CHAR_QUOTED_TEXT = 1 << 7,
    CHAR_HEX = 1 << 8,
    CHAR_UPPER = 1 << 9,
};

extern const uint16_t char_classes[256];

static inline bool char_is(char c, unsigned classes)
{
    return (char_classes[(unsigned char)c] & classes) != 0;
}

// Of a character that is CHAR_HEX.
static inline unsigned hex_value(char c)
{
    unsigned u = (unsigned char)c;
    return u <= '9' ? u - '0' : (u | 0x20) - 'a' + 10;
}
