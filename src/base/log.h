// The process log: one line an event on stderr, for operators. Not the access log (observe/access_log.h).
#pragma once

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

// Lines below the level are dropped. Set once at start.
void log_set_level(enum log_level level);
// "2026-11-24T12:00:00.123Z warn room: message". At most 1 KiB a line; control bytes are escaped, so hostile
// text cannot forge a line. Thread-safe: one write() each. Never waits for who reads stderr: a line for which
// there is no room is dropped, and the next one that there is room for stands behind one that says how many
// were.
void log_line(enum log_level level, const char *room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Lines that could not be written. Any thread.
unsigned long long log_dropped(void);

#define log_debug(room, ...) log_line(LOG_DEBUG, room, __VA_ARGS__)
#define log_info(room, ...)  log_line(LOG_INFO, room, __VA_ARGS__)
#define log_warn(room, ...)  log_line(LOG_WARN, room, __VA_ARGS__)
#define log_error(room, ...) log_line(LOG_ERROR, room, __VA_ARGS__)
