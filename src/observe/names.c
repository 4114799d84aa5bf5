// The names behind metric ids. Nothing is ever forgotten: the set is bounded by what configurations have
// named, and a series that vanished and came back goes on where it was.
#include "base/check.h"
#include "base/map.h"
#include "observe/metrics.h"

#include <pthread.h>
#include <stdlib.h>

struct name_table {
    struct map ids; // name → id + 1
    struct str *names;
    uint32_t count, capacity;
};

static struct name_table tables[NAME_KINDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t add_name(struct name_table *table, struct str name)
{
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 16;
        table->names = realloc(table->names, table->capacity * sizeof *table->names);
        check(table->names);
    }
    struct str copy = {str_dup(name), name.n};
    table->names[table->count] = copy;
    map_put(&table->ids, copy, (void *)((uintptr_t)table->count + 1));
    return table->count++;
}

uint32_t metric_name_id(enum name_kind kind, struct str name)
{
    struct name_table *table = &tables[kind];
    pthread_mutex_lock(&lock);
    uintptr_t found = (uintptr_t)map_get(&table->ids, name);
    uint32_t id = found ? (uint32_t)(found - 1) : add_name(table, name);
    pthread_mutex_unlock(&lock);
    return id;
}

struct str metric_name(enum name_kind kind, uint32_t id)
{
    struct name_table *table = &tables[kind];
    pthread_mutex_lock(&lock);
    struct str name = id < table->count ? table->names[id] : STR("");
    pthread_mutex_unlock(&lock);
    return name;
}

uint32_t metric_name_count(enum name_kind kind)
{
    pthread_mutex_lock(&lock);
    uint32_t count = tables[kind].count;
    pthread_mutex_unlock(&lock);
    return count;
}
