#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

static enum log_level threshold = LOG_INFO;

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

void log_line(enum log_level level, const char *room, const char *format, ...)
{
    if (level < threshold)
        return;
    char line[LINE_MAX_BYTES + 1];
    size_t n = print_prefix(line, LINE_MAX_BYTES, level, room);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + n, LINE_MAX_BYTES - n, format, args);
    va_end(args);
    size_t end = more < 0 ? n : n + (size_t)more;
    if (end > LINE_MAX_BYTES - 1)
        end = LINE_MAX_BYTES - 1;
    for (size_t i = n; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[end++] = '\n';
    if (write(STDERR_FILENO, line, end) < 0)
        return; // nowhere left to say it
}
