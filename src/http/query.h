// The parameters of a query, form-encoded (WHATWG URL 5.1): NAME=VALUE between "&"; "+" is a space, and an
// escape that is none stands for itself.
#pragma once

#include "base/str.h"

struct arena;

struct query_parameter { // as encoded
    struct str whole, name, value;
};

// Takes the next parameter, which may be empty; false at the end.
bool query_next(struct str *rest, struct query_parameter *parameter);
// Whether encoded is an encoding of text.
bool query_text_eq(struct str encoded, struct str text);
// out has room for encoded.n.
struct str query_decode(struct str encoded, char *out);
// Without the parameters of this name, however they are encoded; with another value when `value` is not
// empty. query itself when there is none.
struct str query_replace(struct str query, struct str name, struct str value, struct arena *arena);
