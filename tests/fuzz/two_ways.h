// Inputs whose first byte says in which of two ways the rest is read: each sees a copy of just the rest.
#pragma once

#include "exact_copy.h"

#include "base/arena.h"

static inline int read_in_two_ways(const uint8_t *data, size_t n, void (*even)(struct str, struct arena *),
                                   void (*odd)(struct str, struct arena *))
{
    struct arena arena;
    if (!n)
        return 0;
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data + 1, n - 1);
    (data[0] & 1 ? odd : even)((struct str){copy, n - 1}, &arena);
    arena_reset(&arena);
    free(copy);
    return 0;
}
