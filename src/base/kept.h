// Things that are kept for the life of the process, by a dense index: what others hold a pointer to stays
// where it is. One thread.
#pragma once

#include <stdint.h>

struct kept { // zero it
    void **v;
    uint32_t count;
};

// Where the thing of that index is: NULL until the caller has put one there. Until the next call.
void **kept_at(struct kept *kept, uint32_t index);
