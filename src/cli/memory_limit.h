// How much memory the process may have.
#pragma once

#include "base/str.h"

// A control group's memory.max, in bytes; 0: none, or not a number.
uint64_t memory_of_group(struct str memory_max);
// The tightest of the process's control groups and what the machine has, in bytes.
uint64_t memory_limit(void);
