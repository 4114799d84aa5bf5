#include "replay/shelf.h"

#include "base/siphash.h"

// What points at the item of this name; at NULL when there is none.
static struct shelf_item **place_of(struct shelf *shelf, struct replay_hash name)
{
    struct str text = {(const char *)name.bytes, sizeof name.bytes};
    uint64_t hash = siphash128(siphash_process_key(), 0, text).lo;
    struct shelf_item **at = &shelf->buckets[hash % SHELF_BUCKETS];
    while (*at && memcmp(&(*at)->name, &name, sizeof name) != 0)
        at = &(*at)->next;
    return at;
}

struct shelf_item *shelf_find(struct shelf *shelf, struct replay_hash name)
{
    return *place_of(shelf, name);
}

static struct shelf_item *oldest_of(struct list *recent)
{
    return list_empty(recent) ? NULL : container_of(recent->prev, struct shelf_item, recent);
}

bool shelf_make_room(struct shelf *shelf, uint32_t items, uint64_t bytes)
{
    while (shelf->count + items > shelf->most || shelf->bytes + bytes > shelf->most_bytes) {
        struct shelf_item *oldest = oldest_of(&shelf->plain);
        if (!oldest)
            oldest = oldest_of(&shelf->preferred);
        if (!oldest)
            return false;
        shelf_remove(shelf, oldest);
    }
    return true;
}

void shelf_add(struct shelf *shelf, struct shelf_item *item)
{
    struct shelf_item **at = place_of(shelf, item->name);
    check(!*at);
    *at = item;
    item->next = NULL;
    list_init(&item->recent);
    shelf->count++;
    shelf->bytes += item->bytes;
}

void shelf_hold(struct shelf_item *item)
{
    list_remove(&item->recent);
}

void shelf_use(struct shelf *shelf, struct shelf_item *item)
{
    list_remove(&item->recent);
    list_push_front(item->is_preferred ? &shelf->preferred : &shelf->plain, &item->recent);
}

static void set_preferred(struct shelf *shelf, struct shelf_item *item, bool is_preferred)
{
    if (item->is_preferred == is_preferred)
        return;
    item->is_preferred = is_preferred;
    shelf->preferred_count += is_preferred ? 1 : UINT32_MAX;
    shelf->preferred_bytes += is_preferred ? item->bytes : -(uint64_t)item->bytes;
}

static bool has_too_many_preferred(const struct shelf *shelf)
{
    return shelf->preferred_count > shelf->most - shelf->most / 4 ||
           shelf->preferred_bytes > shelf->most_bytes - shelf->most_bytes / 4;
}

static void settle_preferred(struct shelf *shelf)
{
    struct shelf_item *oldest;
    while (has_too_many_preferred(shelf) && (oldest = oldest_of(&shelf->preferred))) {
        set_preferred(shelf, oldest, false);
        shelf_use(shelf, oldest);
    }
}

void shelf_prefer(struct shelf *shelf, struct shelf_item *item)
{
    set_preferred(shelf, item, true);
    shelf_use(shelf, item);
    settle_preferred(shelf);
}

void shelf_weigh(struct shelf *shelf, struct shelf_item *item, size_t bytes)
{
    bool is_preferred = item->is_preferred;
    set_preferred(shelf, item, false);
    shelf->bytes += bytes;
    shelf->bytes -= item->bytes;
    item->bytes = bytes;
    set_preferred(shelf, item, is_preferred);
    settle_preferred(shelf);
}

void shelf_remove(struct shelf *shelf, struct shelf_item *item)
{
    set_preferred(shelf, item, false);
    *place_of(shelf, item->name) = item->next;
    list_remove(&item->recent);
    shelf->count--;
    shelf->bytes -= item->bytes;
    shelf->free(item);
}
