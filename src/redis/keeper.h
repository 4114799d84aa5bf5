// Holds a fleet across reloads: the same one for as long as the settings ask for the same. One that is
// replaced is asked nothing more, and has twice its deadline to answer what it has been asked.
#pragma once

#include "loop/loop.h"
#include "redis/fleet.h"

struct redis_keeper {
    struct redis_fleet *fleet; // to be asked; NULL: none
    uint64_t deadline_us;      // of its settings
    // Its own:
    struct loop *loop;
    struct redis_fleet *retired;
    struct loop_timer retirement;
};

void redis_keeper_init(struct redis_keeper *keeper, struct loop *loop);
// Everything under way fails first; by then there is no fleet to be asked.
void redis_keeper_fini(struct redis_keeper *keeper);
// A new snapshot. options->access.settings NULL: no fleet is wanted. Settings that make no sense are logged:
// there is none then. True: it is another one than before, or none any more. Not from within a fleet's
// events.
bool redis_keeper_update(struct redis_keeper *keeper, const struct redis_fleet_options *options);
