#include "base/log.h"

#include "base/clock.h"

#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

static enum log_level threshold = LOG_INFO;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static atomic_ullong dropped;
static unsigned long long told; // how many of them the log itself has told of; under turn

void log_set_level(enum log_level level)
{
    threshold = level;
}

static size_t print_prefix(char *line, size_t size, enum log_level level, const char *room)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    uint64_t now_us = clock_wall_us();
    time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t n = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int more =
        snprintf(line + n, size - n, ".%03uZ %s %s: ", (unsigned)(now_us / 1000 % 1000), names[level], room);
    return n + (size_t)more;
}

__attribute__((format(printf, 4, 0))) static size_t print_line(char line[LINE_MAX_BYTES],
                                                               enum log_level level, const char *room,
                                                               const char *format, va_list args)
{
    size_t n = print_prefix(line, LINE_MAX_BYTES, level, room);
    int more = vsnprintf(line + n, LINE_MAX_BYTES - n, format, args);
    size_t end = more < 0 ? n : n + (size_t)more;
    if (end > LINE_MAX_BYTES - 1)
        end = LINE_MAX_BYTES - 1;
    for (size_t i = n; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[end++] = '\n';
    return end;
}

// A pipe that has room has it for a whole line (PIPE_BUF), so that the write does not wait for its reader
// either.
static bool put(const char *line, size_t n)
{
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && write(STDERR_FILENO, line, n) >= 0;
}

static void tell_dropped(void)
{
    unsigned long long untold = atomic_load(&dropped) - told;
    if (!untold)
        return;
    char line[LINE_MAX_BYTES];
    size_t n = print_prefix(line, sizeof line, LOG_WARN, "log");
    n += (size_t)snprintf(line + n, sizeof line - n, "%llu lines dropped: stderr had no room\n", untold);
    if (put(line, n))
        told += untold;
}

void log_line(enum log_level level, const char *room, const char *format, ...)
{
    if (level < threshold)
        return;
    char line[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    size_t n = print_line(line, level, room, format, args);
    va_end(args);
    pthread_mutex_lock(&turn);
    tell_dropped();
    if (!put(line, n))
        atomic_fetch_add(&dropped, 1);
    pthread_mutex_unlock(&turn);
}

unsigned long long log_dropped(void)
{
    return atomic_load(&dropped);
}
