#include "config/config.h"

bool str_list_has(const struct str_list *list, struct str text)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (str_eq(list->v[i], text))
            return true;
    return false;
}

struct str str_list_join(const struct str_list *list, struct str separator, struct arena *arena)
{
    size_t n = 0;
    for (uint32_t i = 0; i < list->count; i++)
        n += list->v[i].n + (i ? separator.n : 0);
    char *text = arena_alloc(arena, n + 1), *at = text;
    for (uint32_t i = 0; i < list->count; i++) {
        at = mempcpy(at, separator.p, i ? separator.n : 0);
        at = mempcpy(at, list->v[i].p, list->v[i].n);
    }
    return str_range(text, at);
}
