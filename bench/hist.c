#include "hist.h"

#include <string.h>

#define CELLS_PER_POWER (1U << HIST_CELL_BITS)

/* Values below 128 have a cell each; above, the power of two picks the row and the next 7 bits the cell in
 * it. */
static size_t cell_of(uint64_t value)
{
    if (value < CELLS_PER_POWER)
        return (size_t)value;
    unsigned power = 63U - (unsigned)__builtin_clzll(value);
    unsigned shift = power - HIST_CELL_BITS;
    size_t row = (size_t)shift + 1;
    return (row << HIST_CELL_BITS) + (size_t)((value >> shift) & (CELLS_PER_POWER - 1));
}

static uint64_t cell_top(size_t cell)
{
    if (cell < CELLS_PER_POWER)
        return cell;
    size_t shift = (cell >> HIST_CELL_BITS) - 1;
    uint64_t base = CELLS_PER_POWER + (cell & (CELLS_PER_POWER - 1));
    return ((base + 1) << shift) - 1;
}

void hist_clear(struct hist *h)
{
    memset(h, 0, sizeof *h);
}

void hist_record(struct hist *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->cells[cell_of(value)]++;
}

uint64_t hist_quantile(const struct hist *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->count + 0.5);
    uint64_t seen = 0;
    if (wanted == 0)
        wanted = 1;
    for (size_t i = 0; i < HIST_CELLS; i++) {
        seen += h->cells[i];
        if (seen >= wanted) {
            uint64_t top = cell_top(i);
            return top < h->max ? top : h->max;
        }
    }
    return h->max;
}

double hist_mean(const struct hist *h)
{
    return h->count > 0 ? (double)h->sum / (double)h->count : 0.0;
}
