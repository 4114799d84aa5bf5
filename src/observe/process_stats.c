#include "observe/process_stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

// proc(5), /proc/self/stat. The command in parentheses may hold anything, so fields are counted behind the
// last one.
static bool read_stat(struct process_stats *stats)
{
    char text[1024];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    const char *fields = strrchr(text, ')');
    unsigned long long user, system, threads, virtual_bytes, resident_pages;
    if (!fields || sscanf(fields + 1,
                          " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %llu %*d "
                          "%*u %llu %llu",
                          &user, &system, &threads, &virtual_bytes, &resident_pages) != 5)
        return false;
    stats->cpu_seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    stats->threads = threads;
    stats->virtual_bytes = virtual_bytes;
    stats->resident_bytes = resident_pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static uint64_t count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    uint64_t count = 0;
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; // the directory itself
}

bool process_stats_read(struct process_stats *stats)
{
    struct rlimit limit = {0};
    if (!read_stat(stats))
        return false;
    stats->open_fds = count_open_fds();
    stats->max_fds = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
    return true;
}
