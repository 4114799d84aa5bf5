// What the kernel says about this process, for the process_* metrics.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct process_stats {
    double cpu_seconds; // user and system
    uint64_t virtual_bytes, resident_bytes;
    uint64_t open_fds, max_fds;
    uint64_t threads;
};

// False when /proc cannot be read (no descriptor left, not mounted): then there is nothing to show.
bool process_stats_read(struct process_stats *stats);

// By themselves, often and for little; 0: not known.
uint64_t process_open_fds(void);
uint64_t process_max_fds(void);
uint64_t process_resident_bytes(void); // one thread only
