// What a late answer carries back to whoever waits for it: a place and which use of it. The owner of the
// places compares the generation, so that an answer that comes too late finds nobody (exchange_resume).
#pragma once

#include <stdint.h>

struct ticket {
    uint32_t slot;
    uint32_t generation; // 0: nobody
};
