// How many requests of each key are under way: the counts behind in_flight, one for all workers of the
// process, exact however many threads contend.
//
//   slots[hash of the key] ─▶ first place of a key ─▶ first place of the next key in this slot ─▶ …
//                                 │ ▲  count
//                                 ▼ │
//                               the key's other places, in a ring
//
// A request's place is memory of its own (its exchange's arena), so the table allocates nothing, cannot be
// full, and forgets a key with its last request. When the first place leaves, the next one of its ring takes
// over the count. Each slot has a lock, which is held for a handful of loads and stores.
#pragma once

#include "base/list.h"
#include "base/siphash.h"

#include <stdint.h>

enum { FLIGHT_SLOTS = 65536 }; // 1 MiB, of which untouched pages are not used

struct flight_place {
    struct hash128 key;
    struct list ring;              // the key's places
    struct flight_place *next_key; // these two in its first place only
    uint32_t count;
};

// ---- any thread ----

// Takes a place unless the key has `most` already. *place is the caller's, and stays where it is until
// flight_leave. False: not taken.
bool flight_enter(struct flight_place *place, struct hash128 key, uint32_t most);
// Once for each place taken; any thread.
void flight_leave(struct flight_place *place);
// Places taken now.
uint32_t flight_count(struct hash128 key);
