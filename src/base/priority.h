// How much requests matter when not all of them can be served: names rather than numbers, since numbers only
// mean something beside other numbers, and whoever adds a route picks a higher one.
#pragma once

#define PRIORITY_NAMES(X)        \
    X(PRIORITY_LOW, "low")       \
    X(PRIORITY_NORMAL, "normal") \
    X(PRIORITY_HIGH, "high")     \
    X(PRIORITY_CRITICAL, "critical") /* never turned away */

enum priority {
#define X(id, ...) id,
    PRIORITY_NAMES(X)
#undef X
        PRIORITIES,
};
