#include "cli/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

struct str cgroup_first_line(const char *path, char *line, size_t size)
{
    line[0] = '\0';
    FILE *file = fopen(path, "re");
    if (!file)
        return str_of(line);
    if (fgets(line, (int)size, file))
        line[strcspn(line, "\n")] = '\0';
    fclose(file);
    return str_of(line);
}

bool cgroup_each(const char *file, void (*look)(struct str line, void *context), void *context)
{
    char own[PATH_MAX - 64];
    cgroup_first_line("/proc/self/cgroup", own, sizeof own);
    if (strncmp(own, "0::/", 4) != 0)
        return false;
    char *group = own + 3;
    for (;;) {
        char path[PATH_MAX], line[64];
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, file);
        look(cgroup_first_line(path, line, sizeof line), context);
        char *slash = strrchr(group, '/');
        if (!slash)
            return true;
        *slash = '\0';
    }
}
