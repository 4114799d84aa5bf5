#include "limit/flight.h"

#include "base/check.h"
#include "limit/sets.h"

struct slot {
    atomic_uint lock;
    struct flight_place *first;
};
static struct slot slots[FLIGHT_SLOTS];

static struct slot *lock_slot(struct hash128 key)
{
    struct slot *slot = &slots[key.hi % FLIGHT_SLOTS];
    sets_lock(&slot->lock);
    return slot;
}

// What points at the key's first place; at NULL when it has none.
static struct flight_place **find(struct slot *slot, struct hash128 key)
{
    struct flight_place **at = &slot->first;
    while (*at && ((*at)->key.lo != key.lo || (*at)->key.hi != key.hi))
        at = &(*at)->next_key;
    return at;
}

bool flight_enter(struct flight_place *place, struct hash128 key, uint32_t most)
{
    struct slot *slot = lock_slot(key);
    struct flight_place **at = find(slot, key), *first = *at;
    bool has_room = (first ? first->count : 0) < most;
    if (has_room) {
        *place = (struct flight_place){.key = key};
        list_init(&place->ring);
        if (!first)
            first = *at = place;
        else
            list_push_back(&first->ring, &place->ring);
        first->count++;
    }
    sets_unlock(&slot->lock);
    return has_room;
}

void flight_leave(struct flight_place *place)
{
    struct slot *slot = lock_slot(place->key);
    struct flight_place **at = find(slot, place->key), *first = *at;
    check(first && first->count);
    first->count--;
    if (place == first && list_empty(&place->ring)) {
        *at = first->next_key;
    } else if (place == first) {
        struct flight_place *heir = container_of(place->ring.next, struct flight_place, ring);
        heir->count = first->count;
        heir->next_key = first->next_key;
        *at = heir;
    }
    list_remove(&place->ring);
    sets_unlock(&slot->lock);
}

uint32_t flight_count(struct hash128 key)
{
    struct slot *slot = lock_slot(key);
    const struct flight_place *first = *find(slot, key);
    uint32_t count = first ? first->count : 0;
    sets_unlock(&slot->lock);
    return count;
}
