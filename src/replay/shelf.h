// A bounded table of things by hash. When room is needed, what was used longest ago goes.
//
// Things can be preferred: while they have no more than three quarters of the room, they go when nothing else
// is left. So who asks for many things once drives out only what is like them (segmented LRU; Karedla, Love,
// Wherry 1994).
//
// Not locked. Room is counted in bytes, as its owner counts them.
#pragma once

#include "base/list.h"
#include "replay/replay.h"

enum { SHELF_BUCKETS = 16384 };

struct shelf_item { // the first member of what is kept; zero it, and give it its name
    struct replay_hash name;
    struct shelf_item *next; // in its bucket
    struct list recent;      // the one that was used last comes first. In no list: it is held
    size_t bytes;
    bool is_preferred;
};

struct shelf {
    uint32_t most;
    uint64_t most_bytes;
    void (*free)(struct shelf_item *item); // with all that it has
    struct list plain, preferred;
    uint32_t count, preferred_count;
    uint64_t bytes, preferred_bytes;
    struct shelf_item *buckets[SHELF_BUCKETS];
};

// For one that lives as long as the process.
#define SHELF_INIT(shelf_, most_, most_bytes_, free_)                  \
    {                                                                  \
        .most = (most_), .most_bytes = (most_bytes_), .free = (free_), \
        .plain = {&(shelf_).plain, &(shelf_).plain},                   \
        .preferred = {&(shelf_).preferred, &(shelf_).preferred},       \
    }

// NULL: it is not there.
struct shelf_item *shelf_find(struct shelf *shelf, struct replay_hash name);
// For so many more; what goes is freed. False: what is held leaves no room.
bool shelf_make_room(struct shelf *shelf, uint32_t items, uint64_t bytes);
// One that is not there yet, and for which there is room. It is held: it does not go until shelf_use.
void shelf_add(struct shelf *shelf, struct shelf_item *item);
void shelf_hold(struct shelf_item *item);
void shelf_use(struct shelf *shelf, struct shelf_item *item);
void shelf_prefer(struct shelf *shelf, struct shelf_item *item);
// It has so many bytes now.
void shelf_weigh(struct shelf *shelf, struct shelf_item *item, size_t bytes);
// Frees it.
void shelf_remove(struct shelf *shelf, struct shelf_item *item);
