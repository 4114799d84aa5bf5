// Parameters of a query string: "name=value&name&…", looked up where they stand.
#pragma once

#include "base/arena.h"

// The raw value of the first parameter of that name; false when there is none. "name" alone has an empty
// value.
bool query_get(struct str query, struct str name, struct str *value);
// The same for all of them: *rest is the query at first; false at the end.
bool query_next(struct str *rest, struct str name, struct str *value);
// A number, or fallback when there is none or it is above max.
uint64_t query_u64(struct str query, struct str name, uint64_t fallback, uint64_t max);
// 0 to 1, or fallback when there is none; below 0 when it is no such share.
double query_share(struct str query, struct str name, double fallback);
// Percent escapes and "+" decoded, into arena when there are any.
struct str query_decode(struct str value, struct arena *arena);
