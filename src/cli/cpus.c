#include "cli/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
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

// The first line of a file, without its newline; "" when there is none.
static void first_line(const char *path, char *line, size_t size)
{
    line[0] = '\0';
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fgets(line, (int)size, file))
        line[strcspn(line, "\n")] = '\0';
    fclose(file);
}

static unsigned smaller(unsigned a, unsigned b)
{
    return b && (!a || b < a) ? b : a;
}

// The tightest of the group's own quota and its parents'.
static unsigned quota_v2(char *group)
{
    unsigned least = 0;
    for (;;) {
        char path[PATH_MAX], line[64];
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        first_line(path, line, sizeof line);
        least = smaller(least, cpus_of_quota(str_of(line)));
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

static unsigned quota_v1(void)
{
    char quota[32], period[32], both[80];
    first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota, sizeof quota);
    first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, sizeof period);
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
    char line[PATH_MAX - 64];
    first_line("/proc/self/cgroup", line, sizeof line);
    unsigned quota = strncmp(line, "0::/", 4) == 0 ? quota_v2(line + 3) : quota_v1();
    count = smaller(count, quota);
    return count ? count : 1;
}
