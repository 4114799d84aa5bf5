// Bytes that are lent to whoever sends them: they stay where they are, as they are, until they are given
// back. So a body that many ask for is nobody's to copy.
#pragma once

#include "base/str.h"

struct lender { // who has lent them
    void (*take_back)(struct lender *lender);
};

struct lent { // zero: nothing is lent
    struct str span;
    struct lender *lender; // NULL: the span is nobody's to give back
};

static inline void lent_give_back(struct lent *lent)
{
    struct lender *lender = lent->lender;
    *lent = (struct lent){0};
    if (lender)
        lender->take_back(lender);
}
