// The one thread that writes access logs.
//
//   workers ──hand──▶ queue[64] ──take a batch──▶ write(2)
//      ▲                                            │
//      └──────────── spare buffers ◀────────────────┘
//
// Workers hold the lock for a few stores, once a buffer. The thread holds it only to take and give buffers,
// never in a system call. The output is asked whether it has room before each write, so that a stalled reader
// holds up neither a stop nor a reopen: what a blocking pipe is given in one go is at most what poll(2) has
// promised (PIPE_BUF).
#include "observe/access_line.h"
#include "observe/access_log.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    QUEUE_BUFFERS = 64, // a second of log at 2,000 requests/s while the output stalls
    QUEUE_WAKE = 16, // buffers: below, the thread is left asleep until a worker's tick, for a wake-up costs
                     // the workers' core two switches
    BATCH = 16,      // buffers a write
    SPARES = 24,     // buffers kept for the workers
    POLL_MS = 100,   // how soon a stalled write notices a stop or a reopen
    STOP_US = 1000000,
};

// How a descriptor is written to without ever waiting in the kernel.
enum sink {
    SINK_PLAIN,  // regular files, /dev/null: they do not wait for a reader
    SINK_PIPED,  // blocking pipes and terminals: PIPE_BUF at a time, after poll
    SINK_SOCKET, // MSG_DONTWAIT, then poll
};

struct queued {
    struct buf lines;
    uint32_t line_count;
};

struct access_writer {
    pthread_t thread;
    bool off;
    char *path; // NULL: a descriptor that is not ours to reopen
    const char *name;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct queued queue[QUEUE_BUFFERS];
    unsigned first, count;
    struct buf spares[SPARES];
    unsigned spare_count;
    bool asleep;
    bool hurry;                   // somebody's lines are old enough
    atomic_bool reopen, stopping; // also looked at while an output stalls
    uint64_t stop_us;             // give up then; set before stopping

    _Atomic(uint64_t) dropped;

    // The thread's own:
    int fd;
    enum sink sink;
    bool owns_fd;
    bool torn;    // the output's last line is incomplete
    bool failing; // said so in the process log
};

// ---- the queue ----

void access_writer_count_dropped(struct access_writer *writer, uint64_t lines)
{
    atomic_fetch_add_explicit(&writer->dropped, lines, memory_order_relaxed);
}

uint64_t access_writer_dropped(const struct access_writer *writer)
{
    return atomic_load_explicit(&writer->dropped, memory_order_relaxed);
}

bool access_writer_is_off(const struct access_writer *writer)
{
    return writer->off;
}

// With the lock held.
static struct buf take_spare(struct access_writer *writer)
{
    return writer->spare_count ? writer->spares[--writer->spare_count] : (struct buf){0};
}

// With the lock held. False: there are enough, free it.
static bool keep_spare(struct access_writer *writer, struct buf *lines)
{
    if (!lines->base || writer->spare_count == SPARES)
        return false;
    lines->start = lines->end = 0;
    writer->spares[writer->spare_count++] = *lines;
    *lines = (struct buf){0};
    return true;
}

// With the lock held.
static bool is_due(const struct access_writer *writer)
{
    return writer->count >= QUEUE_WAKE || (writer->hurry && writer->count);
}

void access_writer_hand(struct access_writer *writer, struct buf *lines, uint32_t line_count, bool wake)
{
    bool full = false, signal = false;
    pthread_mutex_lock(&writer->lock);
    if (line_count && writer->count < QUEUE_BUFFERS) {
        writer->queue[(writer->first + writer->count++) % QUEUE_BUFFERS] =
            (struct queued){*lines, line_count};
        *lines = take_spare(writer);
    } else {
        full = line_count > 0;
    }
    writer->hurry = writer->hurry || (wake && writer->count);
    if (writer->asleep && is_due(writer)) {
        writer->asleep = false;
        signal = true;
    }
    pthread_mutex_unlock(&writer->lock);
    if (signal) // not before: the thread would wake only to wait for the lock
        pthread_cond_signal(&writer->wake);
    if (full) {
        access_writer_count_dropped(writer, line_count);
        lines->start = lines->end = 0;
    }
}

bool access_writer_take(struct access_writer *writer, struct buf *lines)
{
    pthread_mutex_lock(&writer->lock);
    *lines = take_spare(writer);
    pthread_mutex_unlock(&writer->lock);
    if (!lines->base) {
        *lines = (struct buf){.base = malloc(BUF_BLOCK), .cap = BUF_BLOCK};
        if (!lines->base)
            *lines = (struct buf){0};
    }
    return lines->base;
}

void access_writer_give_back(struct access_writer *writer, struct buf *lines)
{
    pthread_mutex_lock(&writer->lock);
    bool kept = keep_spare(writer, lines);
    pthread_mutex_unlock(&writer->lock);
    if (!kept)
        buf_free(lines);
}

// ---- opening ----

static enum sink sink_of(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return SINK_PIPED;
    if (S_ISSOCK(status.st_mode))
        return SINK_SOCKET;
    return S_ISREG(status.st_mode) || (S_ISCHR(status.st_mode) && !isatty(fd)) ? SINK_PLAIN : SINK_PIPED;
}

// O_NONBLOCK: a FIFO without a reader is refused instead of waited for. -1 and errno.
static int open_path(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

static void use_fd(struct access_writer *writer, int fd, bool owned)
{
    if (writer->owns_fd)
        close(writer->fd);
    writer->fd = fd;
    writer->owns_fd = owned;
    writer->sink = sink_of(fd);
    writer->torn = false;
}

static void reopen(struct access_writer *writer)
{
    atomic_store(&writer->reopen, false);
    if (!writer->path)
        return;
    int fd = open_path(writer->path);
    if (fd < 0) {
        log_error("observe", "access log: cannot reopen %s, keeping the old file: %s", writer->path,
                  strerror(errno));
        return;
    }
    use_fd(writer, fd, true);
    log_info("observe", "access log: reopened %s", writer->path);
}

// ---- writing ----

static bool out_of_time(const struct access_writer *writer)
{
    return atomic_load(&writer->stopping) && clock_monotonic_us() >= writer->stop_us;
}

// Waits until there is room. False: reopen or stop come first; ask again.
static bool wait_room(struct access_writer *writer)
{
    struct pollfd poll_fd = {.fd = writer->fd, .events = POLLOUT};
    while (!out_of_time(writer) && !atomic_load(&writer->reopen))
        if (poll(&poll_fd, 1, POLL_MS) != 0)
            return true; // room, or an error that the write will name
    return false;
}

// Shortens iov to at most max bytes; returns how many items are left, and what was cut off the last in *cut.
static int shorten(struct iovec *iov, int count, size_t max, size_t *cut)
{
    *cut = 0;
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len >= max) {
            *cut = iov[i].iov_len - max;
            iov[i].iov_len = max;
            return i + 1;
        }
        max -= iov[i].iov_len;
    }
    return count;
}

// One system call. -1 and errno: EAGAIN when there is no room.
static ssize_t write_some(struct access_writer *writer, struct iovec *iov, int count)
{
    if (writer->sink == SINK_SOCKET) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
        return sendmsg(writer->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (writer->sink == SINK_PLAIN)
        return writev(writer->fd, iov, count);
    struct pollfd poll_fd = {.fd = writer->fd, .events = POLLOUT};
    if (poll(&poll_fd, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    size_t cut;
    int few = shorten(iov, count, PIPE_BUF, &cut);
    ssize_t n = writev(writer->fd, iov, few);
    iov[few - 1].iov_len += cut;
    return n;
}

// Skips n written bytes.
static void advance(struct iovec **iov, int *count, size_t n)
{
    while (*count && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        ++*iov;
        --*count;
    }
    if (*count) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

static uint64_t count_lines(const struct iovec *iov, int count)
{
    uint64_t lines = 0;
    for (int i = 0; i < count; i++)
        for (size_t at = 0; at < iov[i].iov_len; at++)
            lines += ((const char *)iov[i].iov_base)[at] == '\n';
    return lines;
}

static void say_failing(struct access_writer *writer, const char *why)
{
    if (!writer->failing)
        log_error("observe", "access log: cannot write to %s, dropping lines: %s", writer->name, why);
    writer->failing = true;
}

static void say_writing(struct access_writer *writer)
{
    if (writer->failing)
        log_info("observe", "access log: writing to %s again, %llu lines dropped so far", writer->name,
                 (unsigned long long)access_writer_dropped(writer));
    writer->failing = false;
}

// Writes all of it; returns the lines that could not be written: the output failed, or the time to stop has
// come.
static uint64_t write_all(struct access_writer *writer, struct iovec *iov, int count)
{
    while (count) {
        ssize_t n = write_some(writer, iov, count);
        if (n >= 0) {
            const struct iovec *last = iov;
            size_t left = (size_t)n;
            say_writing(writer);
            while (left > last->iov_len)
                left -= (last++)->iov_len;
            if (left)
                writer->torn = ((const char *)last->iov_base)[left - 1] != '\n';
            advance(&iov, &count, (size_t)n);
        } else if (errno == EAGAIN) {
            if (wait_room(writer))
                continue;
            if (out_of_time(writer))
                return count_lines(iov, count);
            reopen(writer);
        } else if (errno != EINTR) {
            say_failing(writer, strerror(errno));
            return count_lines(iov, count);
        }
    }
    return 0;
}

static void write_batch(struct access_writer *writer, const struct queued *batch, unsigned count)
{
    static char line_feed[] = "\n";
    struct iovec iov[BATCH + 1];
    int n = 0;
    if (writer->torn) // finish the line that a failure cut, so that the next one is whole
        iov[n++] = (struct iovec){line_feed, 1};
    uint64_t lines = 0;
    for (unsigned i = 0; i < count; i++) {
        iov[n++] = (struct iovec){batch[i].lines.base + batch[i].lines.start, buf_len(&batch[i].lines)};
        lines += batch[i].line_count;
    }
    uint64_t lost = count ? write_all(writer, iov, n) : 0;
    access_writer_count_dropped(writer,
                                lost < lines ? lost : lines); // the torn line was counted when it tore
}

// ---- the thread ----

// Takes up to BATCH buffers; waits for them, or for something else to do. False: nothing is left and it is
// time to stop.
static bool take_batch(struct access_writer *writer, struct queued *batch, unsigned *taken)
{
    *taken = 0;
    pthread_mutex_lock(&writer->lock);
    while (!is_due(writer) && !atomic_load(&writer->stopping) && !atomic_load(&writer->reopen)) {
        writer->asleep = true;
        pthread_cond_wait(&writer->wake, &writer->lock);
    }
    writer->asleep = false;
    // Asked here, with the lock held: what was handed over before the stop must not be left behind.
    bool more = writer->count || !atomic_load(&writer->stopping);
    for (; *taken < BATCH && writer->count; ++*taken, writer->count--) {
        batch[*taken] = writer->queue[writer->first];
        writer->first = (writer->first + 1) % QUEUE_BUFFERS;
    }
    writer->hurry = writer->hurry && writer->count;
    pthread_mutex_unlock(&writer->lock);
    return more;
}

static void give_batch(struct access_writer *writer, struct queued *batch, unsigned count)
{
    pthread_mutex_lock(&writer->lock);
    for (unsigned i = 0; i < count; i++)
        keep_spare(writer, &batch[i].lines);
    pthread_mutex_unlock(&writer->lock);
    for (unsigned i = 0; i < count; i++)
        buf_free(&batch[i].lines);
}

static void *run(void *argument)
{
    struct access_writer *writer = argument;
    struct queued batch[BATCH];
    unsigned count;
    while (take_batch(writer, batch, &count)) {
        if (atomic_load(&writer->reopen))
            reopen(writer);
        write_batch(writer, batch, count);
        give_batch(writer, batch, count);
    }
    return NULL;
}

// All signals blocked, so that main's handlers run in main's threads and a closed pipe is EPIPE, not SIGPIPE.
static int start_thread(struct access_writer *writer)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&writer->thread, NULL, run, writer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

// ---- life ----

static bool open_output(struct access_writer *writer, struct str output, struct err *err)
{
    if (str_eq(output, STR("stdout")) || str_eq(output, STR("stderr"))) {
        use_fd(writer, str_eq(output, STR("stdout")) ? STDOUT_FILENO : STDERR_FILENO, false);
        writer->name = writer->fd == STDOUT_FILENO ? "stdout" : "stderr";
        return true;
    }
    writer->name = writer->path = str_dup(output);
    int fd = open_path(writer->path);
    if (fd < 0) {
        err_system(err, writer->path, "cannot open the access log");
        return false;
    }
    use_fd(writer, fd, true);
    return true;
}

struct access_writer *access_writer_new(struct str output, struct err *err)
{
    struct access_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        err_set(err, ERR_MEMORY, "access log", "out of memory");
        return NULL;
    }
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->wake, NULL);
    writer->fd = -1;
    writer->off = str_eq(output, STR("off"));
    if (writer->off)
        return writer;
    if (!open_output(writer, output, err))
        goto fail;
    errno = start_thread(writer);
    if (errno) {
        err_system(err, "access log", "cannot start the writer thread");
        goto fail;
    }
    return writer;
fail:
    writer->off = true; // there is no thread to stop
    access_writer_free(writer);
    return NULL;
}

void access_writer_reopen(struct access_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    atomic_store(&writer->reopen, true);
    pthread_cond_signal(&writer->wake);
    pthread_mutex_unlock(&writer->lock);
}

void access_writer_free(struct access_writer *writer)
{
    if (!writer)
        return;
    if (!writer->off) {
        pthread_mutex_lock(&writer->lock);
        writer->stop_us = clock_monotonic_us() + STOP_US;
        atomic_store(&writer->stopping, true);
        pthread_cond_signal(&writer->wake);
        pthread_mutex_unlock(&writer->lock);
        pthread_join(writer->thread, NULL);
    }
    for (unsigned i = 0; i < writer->spare_count; i++)
        buf_free(&writer->spares[i]);
    if (writer->owns_fd)
        close(writer->fd);
    pthread_mutex_destroy(&writer->lock);
    pthread_cond_destroy(&writer->wake);
    free(writer->path);
    free(writer);
}
