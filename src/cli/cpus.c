#include "cli/cpus.h"

#include "cli/cgroup.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

unsigned cpus_of_quota(struct str cpu_max)
{
    struct str text = str_trim(cpu_max);
    size_t space = str_find(text, ' ');
    uint64_t quota, period;
    if (space == text.n || !str_to_u64((struct str){text.p, space}, UINT32_MAX, &quota) ||
        !str_to_u64(str_trim(str_skip(text, space)), UINT32_MAX, &period) || quota == 0 || period == 0)
        return 0;
    return (unsigned)((quota + period - 1) / period);
}

static unsigned smaller(unsigned a, unsigned b)
{
    return b && (!a || b < a) ? b : a;
}

static void look(struct str line, void *context)
{
    unsigned *least = context;
    *least = smaller(*least, cpus_of_quota(line));
}

static unsigned quota_v1(void)
{
    char quota[32], period[32], both[80];
    cgroup_first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota, sizeof quota);
    cgroup_first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, sizeof period);
    snprintf(both, sizeof both, "%s %s", quota, period); // "-1 …": none
    return cpus_of_quota(str_of(both));
}

unsigned cpus_usable(void)
{
    cpu_set_t set;
    unsigned count = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        count = (unsigned)CPU_COUNT(&set);
    else if (sysconf(_SC_NPROCESSORS_ONLN) > 0) // more CPUs than a cpu_set_t holds
        count = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    unsigned quota = 0;
    if (!cgroup_each("cpu.max", look, &quota))
        quota = quota_v1();
    count = smaller(count, quota);
    return count ? count : 1;
}
