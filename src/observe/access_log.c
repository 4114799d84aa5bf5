#include "observe/access_log.h"

#include "observe/access_line.h"

enum { FLUSH_US = 200000 };

void access_log_init(struct access_log *log, struct access_writer *writer)
{
    *log = (struct access_log){.second = UINT64_MAX};
    if (writer && !access_writer_is_off(writer))
        log->writer = writer;
}

// wake false: the writer may wait for more of them; a later tick wakes it.
static void hand_over(struct access_log *log, uint64_t now_us, bool wake)
{
    access_writer_hand(log->writer, &log->lines, log->line_count, wake);
    log->line_count = 0;
    log->oldest_us = wake ? 0 : now_us;
}

void access_log_flush(struct access_log *log)
{
    if (log->writer && log->oldest_us)
        hand_over(log, 0, true);
}

void access_log_fini(struct access_log *log)
{
    access_log_flush(log);
    if (log->writer)
        access_writer_give_back(log->writer, &log->lines);
    log->writer = NULL;
}

void access_log_switch(struct access_log *log, struct access_writer *writer)
{
    if (writer == log->writer)
        return;
    access_log_fini(log);
    access_log_init(log, writer);
}

void access_log_tick(struct access_log *log, uint64_t now_us)
{
    if (log->oldest_us && now_us - log->oldest_us >= FLUSH_US)
        access_log_flush(log);
}

// Makes room for n bytes. False: out of memory.
static bool make_room(struct access_log *log, size_t n, uint64_t now_us)
{
    if (log->lines.base && buf_space(&log->lines) < n)
        hand_over(log, now_us, false);
    return log->lines.base || access_writer_take(log->writer, &log->lines);
}

void access_log_record(struct access_log *log, const struct access_format *format,
                       const struct access_record *record, uint64_t now_us)
{
    if (!log->writer)
        return;
    size_t bound = access_line_bound(format, record);
    if (unlikely(!log->lines.base || buf_space(&log->lines) < bound) && !make_room(log, bound, now_us)) {
        access_writer_count_dropped(log->writer, 1);
        return;
    }
    log->lines.end += (uint32_t)access_line_print(log, format, record, log->lines.base + log->lines.end);
    log->line_count++;
    if (!log->oldest_us)
        log->oldest_us = now_us ? now_us : 1;
}
