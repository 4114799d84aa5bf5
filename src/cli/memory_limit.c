#include "cli/memory_limit.h"

#include "cli/cgroup.h"

#include <unistd.h>

uint64_t memory_of_group(struct str memory_max)
{
    uint64_t bytes; // "max" is no number
    return str_to_u64(str_trim(memory_max), UINT64_MAX, &bytes) ? bytes : 0;
}

static void look(struct str line, void *context)
{
    uint64_t *least = context, bytes = memory_of_group(line);
    if (bytes && bytes < *least)
        *least = bytes;
}

uint64_t memory_limit(void)
{
    uint64_t least = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (!cgroup_each("memory.max", look, &least)) {
        char line[64];
        look(cgroup_first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes", line, sizeof line), &least);
    }
    return least;
}
