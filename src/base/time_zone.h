// Time zones of the system's database (tzdata), read from their TZif files (RFC 8536) into a table: no global
// state, no setenv, so that each configuration may have its own. Clock changes after the last one of a file
// are made from its rule (RFC 8536 3.3.1, POSIX TZ) until TIME_ZONE_LAST_YEAR.
#pragma once

#include "base/arena.h"

#define TIME_ZONE_DIRECTORY "/usr/share/zoneinfo"

enum {
    TIME_ZONE_NAME_MAX = 64,        // bytes
    TIME_ZONE_FILE_MAX = 64 * 1024, // bytes; the largest today have 4 KiB
    TIME_ZONE_CHANGES = 4096,       // in a file
    TIME_ZONE_NAMES = 2000,
    TIME_ZONE_LAST_YEAR = 2100,
};

struct time_zone_change {
    int64_t at_s;     // Unix seconds
    int32_t offset_s; // east of UTC, from then on
};

struct time_zone {
    int32_t first_offset_s; // before the first change
    const struct time_zone_change *v;
    uint32_t count;
};

// By its name, such as Europe/Berlin. False: *why (static). What it points to is in the arena.
must_check bool time_zone_load(struct str name, struct arena *arena, struct time_zone *zone,
                               const char **why);
// The content of a TZif file, version 2 or later, without leap seconds. False: it is not.
must_check bool time_zone_parse(struct str file, struct arena *arena, struct time_zone *zone);
// The names there are, at most TIME_ZONE_NAMES, in no order.
uint32_t time_zone_names(struct arena *arena, const struct str **names);

// Seconds east of UTC at that time.
int32_t time_zone_offset(const struct time_zone *zone, int64_t at_s);
// When clocks there first show this or later. local_s: what they show, as Unix seconds of UTC would be.
int64_t time_zone_reach(const struct time_zone *zone, int64_t local_s);
