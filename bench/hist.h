#ifndef BENCH_HIST_H
#define BENCH_HIST_H

/*
 * A histogram of nanoseconds in the manner of HdrHistogram: each power of two is cut into 128 equal cells, so
 * a value read back is at most 0.8 % above the one recorded, from 1 ns to hours, in a fixed 57 KiB.
 */

#include <stddef.h>
#include <stdint.h>

#define HIST_CELL_BITS 7
#define HIST_CELLS     ((64 - HIST_CELL_BITS + 1) << HIST_CELL_BITS)

struct hist {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t cells[HIST_CELLS];
};

void hist_clear(struct hist *h);
void hist_record(struct hist *h, uint64_t value);

/* The upper edge of the cell that holds the value below which `share` (0 to 1) of all lie; 0 when empty. */
uint64_t hist_quantile(const struct hist *h, double share);

double hist_mean(const struct hist *h);

#endif
