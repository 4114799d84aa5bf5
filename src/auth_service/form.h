// What clients send: form bodies and Basic credentials. Pure.
#pragma once

#include "base/arena.h"

enum { FORM_FIELDS = 32 };

struct form {
    struct form_field {
        struct str name, value;
    } v[FORM_FIELDS];
    unsigned count;
};

// application/x-www-form-urlencoded (RFC 6749 appendix B). A parameter without a value counts as left out
// (3.1); one that comes twice, a bad escape, NUL and too many parameters are refused (3.2): false and *why.
bool form_parse(struct str text, struct arena *arena, struct form *form, const char **why);
struct str form_get(const struct form *form, struct str name); // n == 0: there is none
// Authorization: Basic, its two parts form-encoded (RFC 6749 2.3.1, RFC 7617). False: it is not that.
bool form_basic(struct str authorization, struct arena *arena, struct str *id, struct str *secret);
// The token of Authorization: Bearer (RFC 6750 2.1); n == 0: there is none.
struct str form_bearer(struct str authorization);
// Takes the next word of a space-separated list (scope). False at the end.
bool form_next_word(struct str *rest, struct str *word);
bool form_has_word(struct str list, struct str word);
// RFC 6749 3.3, 1 to 128 bytes, and no comma, since lists in headers have those between them.
bool form_is_word(struct str word);
