// How many workers `workers: auto` means.
#pragma once

#include "base/check.h"
#include "base/str.h"

// CPUs this process may use: its affinity, capped by the cgroup's quota (v2 cpu.max, v1 cfs_quota), rounded
// up.
unsigned cpus_usable(void);
// "200000 100000" → 2; "max 100000" → 0: no quota. Rounded up.
unsigned cpus_of_quota(struct str cpu_max);
