// A string-keyed hash table for configuration time and for compiled, read-only tables. Open addressing, XXH3
// with a seed drawn at start. Keys are borrowed: they must outlive the map.
#pragma once

#include "base/str.h"

struct map_entry {
    struct str key;
    uint64_t hash;
    void *value; // NULL: the place is empty
};

struct map {
    struct map_entry *entries;
    size_t capacity, count; // capacity is 0 or a power of two
};

void map_fini(struct map *map);
// The value, or NULL.
void *map_get(const struct map *map, struct str key);
// value is not NULL. Returns the value that stood there before, or NULL.
void *map_put(struct map *map, struct str key, void *value);

// for (size_t i = 0; map_next(&map, &i, &entry);)
bool map_next(const struct map *map, size_t *at, struct map_entry **entry);
