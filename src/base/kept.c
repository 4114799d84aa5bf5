#include "base/kept.h"

#include "base/check.h"

#include <stdlib.h>

void **kept_at(struct kept *kept, uint32_t index)
{
    if (index >= kept->count) {
        kept->v = realloc(kept->v, ((size_t)index + 1) * sizeof(void *));
        check(kept->v);
        while (kept->count <= index)
            kept->v[kept->count++] = NULL;
    }
    return &kept->v[index];
}
