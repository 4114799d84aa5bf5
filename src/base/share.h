// Counts beside the shares that configurations name. A share in decimals is seldom exact in binary: 0.56 × 25
// is a little more than 14. What is exactly the share counts as that.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SHARE_ROUNDING 1e-12 // of the product

static inline bool share_is_reached(uint64_t part, double share, uint64_t whole)
{
    return (double)part >= share * (double)whole * (1 - SHARE_ROUNDING);
}

// part is no more than that.
static inline bool share_is_kept(uint64_t part, double share, uint64_t whole)
{
    return (double)part <= share * (double)whole * (1 + SHARE_ROUNDING);
}
