#include "observe/process_stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

uint64_t process_open_fds(void)
{
    struct stat status;
    if (stat("/proc/self/fd", &status) == 0 && status.st_size > 0) // Linux 6.2: how many there are
        return (uint64_t)status.st_size;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    uint64_t count = 0;
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; // the directory itself
}

uint64_t process_max_fds(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

// Kept open: it is needed most when there is no descriptor for it.
uint64_t process_resident_bytes(void)
{
    static int fd = -1;
    char text[128];
    if (fd < 0)
        fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, text, sizeof text - 1, 0) : 0;
    unsigned long long pages = 0;
    if (n <= 0)
        return 0;
    text[n] = 0;
    if (sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

bool process_stats_read(struct process_stats *stats)
{
    if (!read_stat(stats))
        return false;
    stats->open_fds = process_open_fds();
    stats->max_fds = process_max_fds();
    return true;
}
