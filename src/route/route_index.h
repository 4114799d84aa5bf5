// An open-addressing hash of ids, for tables that are compiled once and then only read. The owner compares
// keys: a slot keeps 32 bits of the hash, so nearly every miss is decided without a look at the key. Private
// to this room.
#pragma once

#include "base/arena.h"

struct index_slot {
    uint32_t hash, id; // id 0: free
};

struct route_index {
    struct index_slot *slots; // heap while it grows, an arena's once sealed
    uint32_t mask, count;     // mask 0: empty, no slots
};

// id > 0; the caller knows that its key is not there yet.
void route_index_add(struct route_index *index, uint32_t hash, uint32_t id);
// Moves the slots into the arena; nothing may be added afterwards.
void route_index_seal(struct route_index *index, struct arena *arena);
// Drops one that was not sealed.
void route_index_fini(struct route_index *index);

// for (uint32_t at = 0, id; (id = route_index_next(index, hash, &at));) compare(id)
static inline uint32_t route_index_next(const struct route_index *index, uint32_t hash, uint32_t *at)
{
    if (index->mask == 0)
        return 0;
    for (;;) {
        struct index_slot slot = index->slots[(hash + *at) & index->mask];
        ++*at;
        if (slot.id == 0 || slot.hash == hash)
            return slot.id;
    }
}
