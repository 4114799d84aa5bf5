// A copy of exactly so many bytes, so that ASan sees every read beyond the end.
#pragma once

#include "base/check.h"
#include "base/str.h"

#include <stdlib.h>

static inline char *exact_copy(const char *data, size_t n)
{
    char *copy = malloc(n ? n : 1);
    check(copy);
    if (n)
        memcpy(copy, data, n);
    return copy;
}
