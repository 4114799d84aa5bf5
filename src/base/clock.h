// Clocks. Durations and deadlines are uint64_t microseconds of CLOCK_MONOTONIC, or milliseconds where a name
// ends in _ms; wall-clock time is for logs and for dates only.
#pragma once

#include <stdint.h>

uint64_t clock_monotonic_us(void);
uint64_t clock_wall_us(void);

// From one time to a later one; 0 when it is not later. Each thread reads its clock once a turn, so that what
// another one has written may lie ahead of it.
static inline uint64_t clock_elapsed_us(uint64_t since_us, uint64_t now_us)
{
    return now_us > since_us ? now_us - since_us : 0;
}
