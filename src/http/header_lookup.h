// The name table behind header_id_of, inline for the parsers of this room.
//
// An open-addressing hash: with the present names each sits in its own slot, one that will not takes the
// next. It is filled before main() from HEADER_NAMES, so a new name is one table row.
#pragma once

#include "base/swar.h"
#include "http/header.h"

enum { HEADER_NAME_MAX = 32, HEADER_SLOTS = 256 };

struct header_slot {
    uint8_t length; // 0: free
    uint8_t id;
};

struct header_entry {
    char name[HEADER_NAME_MAX];
    char fold[HEADER_NAME_MAX]; // 0x20 where name has a letter
};

extern struct header_slot header_slots[HEADER_SLOTS];
extern struct header_entry header_entries[HEADER_ID_COUNT];

// Of the length and the first and last four bytes (of short names all), letters folded.
static inline unsigned header_hash(const char *p, size_t n)
{
    uint32_t first = 0, last;
    if (__builtin_expect(n >= 4, 1)) {
        first = swar_load4(p);
        last = swar_load4(p + n - 4);
    } else {
        for (size_t i = 0; i < n; i++)
            first = first << 8 | (unsigned char)p[i];
        last = first;
    }
    // The factors were searched for; any others are right too, only slower.
    uint32_t mixed =
        (first | 0x20202020) * 0x7fb71709u + (last | 0x20202020) * 0xf29b22bbu + (uint32_t)n * 0x7020bb27u;
    return mixed >> 24;
}

// Compares n (2 to 32) bytes of p, folded when any_case, by overlapping words: no byte beyond p[n) is read.
static inline bool header_entry_eq(const struct header_entry *entry, const char *p, size_t n, bool any_case)
{
    const char *name = entry->name, *fold = entry->fold;
    if (n < 8) {
        char differ = 0;
        for (size_t i = 0; i < n; i++)
            differ |= (char)((any_case ? p[i] | fold[i] : p[i]) ^ name[i]);
        return differ == 0;
    }
    size_t last = n - 8;
    uint64_t differ =
        (swar_load8(p + last) | (any_case ? swar_load8(fold + last) : 0)) ^ swar_load8(name + last);
    for (size_t i = 0; i < last; i += 8)
        differ |= (swar_load8(p + i) | (any_case ? swar_load8(fold + i) : 0)) ^ swar_load8(name + i);
    return differ == 0;
}

static inline enum header_id header_lookup_as(const char *p, size_t n, bool any_case)
{
    for (unsigned i = header_hash(p, n);; i = (i + 1) & (HEADER_SLOTS - 1)) {
        struct header_slot slot = header_slots[i];
        if (slot.length == 0)
            return HEADER_OTHER;
        if (slot.length == n && header_entry_eq(&header_entries[slot.id], p, n, any_case))
            return (enum header_id)slot.id;
    }
}

// n > 0.
static inline enum header_id header_lookup(const char *p, size_t n)
{
    return header_lookup_as(p, n, true);
}

// The same for names that must be in lower case (RFC 9113 8.2): HEADER_OTHER for "Host".
static inline enum header_id header_lookup_lower(const char *p, size_t n)
{
    return header_lookup_as(p, n, false);
}
