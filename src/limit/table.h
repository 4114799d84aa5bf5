// The buckets of all limits and all who are limited: one table for all workers. A decision about a key that
// is there takes no lock: it finds the key's place and moves one 64-bit number by compare-and-swap, so that a
// limit is exact however many threads contend. A new key takes the lock of its set for a moment.
//
//   LIMIT_TABLE_BYTES:  ┌──── set, 512 bytes ──────────────────────┐ ┌────
//                       │ lock, used │ 31 tags │ 31 states │ spare │ │ …
//                       └──────────────────────────────────────────┘ └────
//
// A key is a SipHash under a key that only this process knows: half of it chooses the set, the other half is
// the tag; the text behind it is not kept. Nothing is ever removed. A new key in a set that has no room takes
// the place of the bucket that is full for the longest time, which nobody can tell from a new one. When none
// is full the one goes that will be full first: the least is lost, and it is counted. With a million live
// keys that does not happen (31 places for 8.1 keys: below 1 in 10,000 tables).
//
// Memory that no key has touched is not used.
#pragma once

#include "base/siphash.h"
#include "limit/rule.h"

#include <stddef.h>

enum {
    LIMIT_KEYS = 1000000,                 // live at once, of all limits together, without loss
    LIMIT_TABLE_BYTES = 60 * 1024 * 1024, // with room for so many
};

struct limit_table;

// bytes is rounded down to whole sets, at least one. NULL: memory is out.
struct limit_table *limit_table_new(size_t bytes);
void limit_table_free(struct limit_table *table);
// The process's own, of LIMIT_TABLE_BYTES, made at first use. Aborts when memory is out.
struct limit_table *limit_table_shared(void);

// ---- any thread ----

// Takes so many tokens from the key's bucket if they are there: 0; else nothing, and how many microseconds
// until they would be (rule_wait_us). *state: the bucket's afterwards.
uint64_t limit_table_take(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                          uint64_t now_us, uint64_t cost, uint64_t *state);
// Takes them, there or not (rule_charge). Returns the state afterwards.
uint64_t limit_table_charge(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                            uint64_t now_us, uint64_t cost);
// Gives back what was taken. Returns the state afterwards; 0, which is full, when the key is forgotten.
uint64_t limit_table_give(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                          uint64_t cost);
// What limit_table_take would say, without taking anything.
uint64_t limit_table_look(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                          uint64_t now_us, uint64_t cost, uint64_t *state);
// Looks only. False: the key is not known, and so its bucket is full.
bool limit_table_find(const struct limit_table *table, struct hash128 key, uint64_t *state);
// The state is this, whatever it was.
void limit_table_put(struct limit_table *table, struct hash128 key, uint64_t now_us, uint64_t state);
// The bucket (of no quota) is at least as empty as that.
void limit_table_drain(struct limit_table *table, struct hash128 key, uint64_t now_us, uint64_t state);
// Makes the bucket full. False: the key is not known.
bool limit_table_reset(struct limit_table *table, struct hash128 key);

struct limit_table_stats {
    uint64_t places, used; // used: that hold a key, full buckets too
    uint64_t forgotten;    // keys that had to go while not full, since the beginning
    uint64_t bytes;        // of the table's address space
};
void limit_table_stats(const struct limit_table *table, struct limit_table_stats *stats);
