// When a service is out: bursts on a time line that settings and a seed decide. Pure: no clock, no I/O.
#pragma once

#include "base/rand.h"

#include <stdbool.h>

enum schedule_shape {
    SCHEDULE_ALWAYS,  // one burst, from the start on
    SCHEDULE_REGULAR, // up for every_ms - down_ms, down for down_ms, and so on
    SCHEDULE_RANDOM,  // lengths up and down are exponentially distributed: an alternating renewal process
};

struct schedule_settings {
    enum schedule_shape shape;
    uint64_t every_ms, down_ms; // REGULAR: 0 < down_ms <= every_ms
    double share;               // RANDOM: of the time, in the long run; 0 < share < 1
    uint64_t mean_ms;           // RANDOM: of a burst; at least 1
    uint64_t seed;              // decides lengths and kinds
    unsigned kinds;             // each burst is of one of so many, drawn evenly; at least 1
    uint64_t for_ms;            // no burst begins or lasts past this; 0: no end
};

struct burst {
    uint64_t from_ms, until_ms; // since the schedule's start; until_ms SCHEDULE_FOR_EVER: no end
    unsigned kind;
};

#define SCHEDULE_FOR_EVER UINT64_MAX

struct schedule {
    struct schedule_settings settings;
    struct rand rand;
    uint64_t at_ms; // the end of the burst before
};

// The same settings always give the same bursts.
void schedule_init(struct schedule *schedule, const struct schedule_settings *settings);
// The next burst, behind the one before; false: none follows.
bool schedule_next(struct schedule *schedule, struct burst *burst);
