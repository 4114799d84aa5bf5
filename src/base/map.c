#include "base/map.h"

#include "base/check.h"
#include "base/rand.h"

#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

static uint64_t hash_seed;
static pthread_once_t hash_seed_once = PTHREAD_ONCE_INIT;

static void draw_hash_seed(void)
{
    rand_secret(&hash_seed, sizeof hash_seed);
}

static uint64_t hash_of(struct str key)
{
    return XXH3_64bits_withSeed(key.p, key.n, hash_seed);
}

void map_fini(struct map *map)
{
    free(map->entries);
    *map = (struct map){0};
}

static struct map_entry *place_of(const struct map *map, struct str key, uint64_t hash)
{
    for (size_t i = hash & (map->capacity - 1);; i = (i + 1) & (map->capacity - 1)) {
        struct map_entry *entry = &map->entries[i];
        if (!entry->value || (entry->hash == hash && str_eq(entry->key, key)))
            return entry;
    }
}

void *map_get(const struct map *map, struct str key)
{
    return map->count ? place_of(map, key, hash_of(key))->value : NULL;
}

static void grow(struct map *map)
{
    struct map old = *map;
    map->capacity = old.capacity ? old.capacity * 2 : 16;
    map->entries = calloc(map->capacity, sizeof *map->entries);
    check(map->entries);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.entries[i].value)
            *place_of(map, old.entries[i].key, old.entries[i].hash) = old.entries[i];
    free(old.entries);
}

void *map_put(struct map *map, struct str key, void *value)
{
    check(value);
    pthread_once(&hash_seed_once, draw_hash_seed);
    if (map->count * 2 >= map->capacity)
        grow(map);
    uint64_t hash = hash_of(key);
    struct map_entry *entry = place_of(map, key, hash);
    void *before = entry->value;
    if (!before)
        map->count++;
    *entry = (struct map_entry){key, hash, value};
    return before;
}

bool map_next(const struct map *map, size_t *at, struct map_entry **entry)
{
    for (; *at < map->capacity; ++*at)
        if (map->entries[*at].value) {
            *entry = &map->entries[(*at)++];
            return true;
        }
    return false;
}
