// A small strict JSON reader (RFC 8259) for request bodies: the caller asks for what it expects, in order,
// and skips the rest. Every function does nothing once something was wrong; why then says what.
#pragma once

#include "base/arena.h"

enum { JSON_READ_DEPTH = 16 };

struct json_reader {
    struct str rest;
    struct arena *arena; // for strings with escapes
    const char *why;     // NULL: all is well
    unsigned depth;
    bool begun; // the object or array just entered had no member yet
};

// The first byte of the next value ('{', '[', '"', 't', …), 0 at the end or after a mistake.
char json_read_peek(struct json_reader *reader);
struct str json_read_string(struct json_reader *reader);
// After json_read_enter('{' or '['), one call for each member: true when there is one, whose value is read
// next; false behind the last one (the closing bracket is taken) or after a mistake.
void json_read_enter(struct json_reader *reader, char bracket);
bool json_read_member(struct json_reader *reader, struct str *key);
bool json_read_item(struct json_reader *reader);
void json_read_skip(struct json_reader *reader);
// Nothing but white space is left; else a mistake.
bool json_read_end(struct json_reader *reader);
