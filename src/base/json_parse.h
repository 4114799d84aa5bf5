// A strict JSON parser (RFC 8259) that makes a tree in an arena: for what peers and clients send (tokens, key
// sets, answers of an Auth Service, bodies of the admin API). Refused: anything but one value with white
// space around it, invalid UTF-8, lone surrogates, duplicate members, more depth, more values or longer text
// than the bounds say.
//
// Our own, and not jansson: a cold token's budget is a few microseconds, and this one asks no heap.
#pragma once

#include "base/arena.h"

enum { JSON_PARSE_DEPTH = 16, JSON_PARSE_VALUES = 10000, JSON_PARSE_BYTES = 16 * 1024 * 1024 };

enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json_value {
    enum json_kind kind;
    uint32_t count;                        // of elements or members
    struct str text;                       // STRING: decoded, may hold NUL; others: as written
    struct str key;                        // of a member: decoded
    const struct json_value *first, *next; // children, siblings
};

// NULL and *why (static) when it is not one JSON text within the bounds. Strings without escapes point into
// text, which must outlive the tree.
const struct json_value *json_parse(struct str text, struct arena *arena, const char **why);
// The member of an object (any other kind has none), or NULL.
const struct json_value *json_get(const struct json_value *object, struct str key);
// A dotted path ("realm_access.roles"). A member whose name is the whole path goes first
// ("https://x.example/roles"). NULL: none.
const struct json_value *json_get_path(const struct json_value *object, struct str path);
// A number that is a whole one, or has a fraction that is dropped (RFC 7519 2, NumericDate), within ±2^53.
// False: no such number.
bool json_integer(const struct json_value *value, int64_t *integer);
static inline bool json_is_string(const struct json_value *value)
{
    return value && value->kind == JSON_STRING;
}
