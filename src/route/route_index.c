#include "route/route_index.h"

#include "base/check.h"

#include <stdlib.h>

enum { FIRST_SLOTS = 16 };

static void place(struct route_index *index, struct index_slot slot)
{
    uint32_t at = slot.hash & index->mask;
    while (index->slots[at].id)
        at = (at + 1) & index->mask;
    index->slots[at] = slot;
}

static void grow(struct route_index *index)
{
    struct route_index old = *index;
    check(old.mask < UINT32_MAX / 4);
    uint32_t size = old.mask ? (old.mask + 1) * 2 : FIRST_SLOTS;
    index->slots = calloc(size, sizeof *index->slots);
    check(index->slots);
    index->mask = size - 1;
    for (uint32_t i = 0; old.mask && i <= old.mask; i++)
        if (old.slots[i].id)
            place(index, old.slots[i]);
    free(old.slots);
}

void route_index_add(struct route_index *index, uint32_t hash, uint32_t id)
{
    check(id);
    if (index->mask == 0 || index->count * 2 > index->mask) // at most half full: probe runs stay short
        grow(index);
    place(index, (struct index_slot){hash, id});
    index->count++;
}

void route_index_seal(struct route_index *index, struct arena *arena)
{
    if (index->mask == 0)
        return;
    size_t bytes = sizeof *index->slots * ((size_t)index->mask + 1);
    struct index_slot *slots = arena_alloc(arena, bytes);
    memcpy(slots, index->slots, bytes);
    free(index->slots);
    index->slots = slots;
}

void route_index_fini(struct route_index *index)
{
    free(index->slots);
    *index = (struct route_index){0};
}
