// Clocks. Durations and deadlines are uint64_t microseconds of CLOCK_MONOTONIC, or milliseconds where a name
// ends in _ms; wall-clock time is for logs and for dates only.
#pragma once

#include <stdint.h>

uint64_t clock_monotonic_us(void);
uint64_t clock_wall_us(void);
