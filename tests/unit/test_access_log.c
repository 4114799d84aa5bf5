// Where lines of the access log go: outputs are real pipes, sockets and files.
#include "test_access_fixture.h"

#include "base/clock.h"
#include "observe/access_line.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/sallyport-log-XXXXXX";

// ---- outputs ----

static struct access_writer *open_writer(const char *output)
{
    struct err err;
    struct access_writer *writer = access_writer_new(str_of(output), &err);
    if (!writer)
        fail_msg("%s: %s", err.where, err.what);
    return writer;
}

static void record_many(struct access_log *log, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        access_log_record(log, json, &usual, 1000 + i);
}

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

// Lines of a file, each of them JSON when whole is asked for; -1: there is no file.
static long count_file_lines(const char *path, bool whole)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return -1;
    static char line[ACCESS_LINE_BYTES + 2];
    long lines = 0;
    for (; fgets(line, sizeof line, file); lines++)
        if (whole)
            json_decref(parse(line));
    fclose(file);
    return lines;
}

static void wait_for_lines(const char *path, long lines)
{
    for (uint64_t end = clock_monotonic_us() + 10000000; count_file_lines(path, false) < lines;) {
        assert_true(clock_monotonic_us() < end);
        poll(NULL, 0, 1);
    }
}

static void test_file_gets_every_line(void **state)
{
    (void)state;
    const char *path = path_of("every");
    struct access_writer *writer = open_writer(path);
    struct access_log log;
    access_log_init(&log, writer);
    unsigned count = 0;
    for (; count < 3000; count += 30) { // fewer at once than the queue holds
        record_many(&log, 30);
        access_log_flush(&log);
        wait_for_lines(path, count + 30);
    }
    access_log_fini(&log);
    assert_int_equal(access_writer_dropped(writer), 0);
    access_writer_free(writer);
    assert_int_equal(count_file_lines(path, true), count);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777 & ~0640u, 0);
    writer = open_writer(path); // appends
    access_log_init(&log, writer);
    record_many(&log, 1);
    access_log_fini(&log);
    access_writer_free(writer);
    assert_int_equal(count_file_lines(path, true), count + 1);
}

static void test_tick_hands_over_when_old(void **state)
{
    (void)state;
    const char *path = path_of("tick");
    struct access_writer *writer = open_writer(path);
    struct access_log log;
    access_log_init(&log, writer);
    access_log_tick(&log, 5000000);
    access_log_record(&log, json, &usual, 1000000);
    access_log_record(&log, json, &usual, 1150000);
    access_log_tick(&log, 1199999);
    assert_int_equal(log.line_count, 2);
    access_log_tick(&log, 1200000);
    assert_int_equal(log.line_count, 0);
    wait_for_lines(path, 2);
    // A full buffer that is handed over without waking the writer is woken for by a later tick, with nothing
    // new to say.
    unsigned before = log.line_count, lines = 2;
    do {
        before = log.line_count;
        access_log_record(&log, json, &usual, 2000000);
        lines++;
    } while (log.line_count > before);
    access_log_tick(&log, 2300000);
    wait_for_lines(path, lines);
    access_log_fini(&log);
    access_writer_free(writer);
}

static void test_off_and_errors(void **state)
{
    (void)state;
    struct access_log log;
    struct access_writer *writer = open_writer("off");
    access_log_init(&log, writer);
    assert_null(log.writer);
    record_many(&log, 10);
    access_log_tick(&log, 1000000000);
    access_log_fini(&log);
    assert_int_equal(access_writer_dropped(writer), 0);
    access_writer_reopen(writer);
    access_writer_free(writer);
    access_writer_free(NULL);
    access_log_init(&log, NULL);
    record_many(&log, 10);
    access_log_fini(&log);
    struct err err;
    assert_null(access_writer_new(STR("/nonexistent/directory/log"), &err));
    assert_int_equal(err.code, ERR_SYSTEM);
    assert_non_null(strstr(err.what, "No such file"));
}

static void test_reopen_follows_a_rename(void **state)
{
    (void)state;
    char path[128], old[140];
    snprintf(path, sizeof path, "%s", path_of("rotated"));
    snprintf(old, sizeof old, "%s.1", path);
    struct access_writer *writer = open_writer(path);
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 5);
    access_log_flush(&log);
    wait_for_lines(path, 5);
    assert_int_equal(rename(path, old), 0);
    access_writer_reopen(writer);
    wait_for_lines(path, 0); // it is there
    record_many(&log, 3);
    access_log_fini(&log);
    access_writer_free(writer);
    assert_int_equal(count_file_lines(old, true), 5);
    assert_int_equal(count_file_lines(path, true), 3);
}

static void test_reopen_that_fails_keeps_the_file(void **state)
{
    (void)state;
    char path[128], away[140];
    snprintf(path, sizeof path, "%s", path_of("sub"));
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s", path_of("sub/log"));
    snprintf(away, sizeof away, "%s", path_of("sub-log"));
    struct access_writer *writer = open_writer(path);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(rmdir(path_of("sub")), 0);
    access_writer_reopen(writer);
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 4);
    access_log_fini(&log);
    access_writer_free(writer);
    assert_int_equal(count_file_lines(away, true), 4);
}

static void test_switch_flushes_to_the_old_writer(void **state)
{
    (void)state;
    char first_path[128], second_path[128];
    snprintf(first_path, sizeof first_path, "%s", path_of("first"));
    snprintf(second_path, sizeof second_path, "%s", path_of("second"));
    struct access_writer *first = open_writer(first_path), *second = open_writer(second_path);
    struct access_log log;
    access_log_init(&log, first);
    record_many(&log, 2);
    access_log_switch(&log, first);
    record_many(&log, 2);
    access_log_switch(&log, second);
    record_many(&log, 3);
    access_log_switch(&log, NULL);
    record_many(&log, 9);
    access_log_fini(&log);
    access_writer_free(first);
    access_writer_free(second);
    assert_int_equal(count_file_lines(first_path, true), 4);
    assert_int_equal(count_file_lines(second_path, true), 3);
}

static void test_full_disk_drops_and_counts(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) != 0)
        skip();
    struct access_writer *writer = open_writer("/dev/full");
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 1000);
    access_log_fini(&log);
    access_writer_free(writer);
    writer = open_writer("/dev/full");
    access_log_init(&log, writer);
    record_many(&log, 1);
    access_log_flush(&log);
    for (uint64_t end = clock_monotonic_us() + 10000000; access_writer_dropped(writer) < 1;) {
        assert_true(clock_monotonic_us() < end);
        poll(NULL, 0, 1);
    }
    record_many(&log, 2);
    access_log_flush(&log);
    while (access_writer_dropped(writer) < 3)
        poll(NULL, 0, 1);
    access_log_fini(&log);
    access_writer_free(writer);
}

// The writer's output is this descriptor while the test's stderr rests.
static struct access_writer *open_writer_on(int fd, int *saved)
{
    *saved = dup(STDERR_FILENO);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
    return open_writer("stderr");
}

static void restore_stderr(int saved)
{
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    close(saved);
}

// Everything that can be read now, or within wait_ms; counts line feeds.
static unsigned long drain(int fd, int wait_ms, unsigned long want)
{
    unsigned long lines = 0;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    static char bytes[65536];
    while (lines < want && poll(&poll_fd, 1, wait_ms) == 1) {
        ssize_t n = read(fd, bytes, sizeof bytes);
        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++)
            lines += bytes[i] == '\n';
    }
    return lines;
}

// Nobody reads: the workers never wait, the queue fills, the rest is dropped and counted; then all arrives
// that was not.
static void stalled_reader(int write_fd, int read_fd)
{
    enum { LINES = 20000 };
    int saved;
    struct access_writer *writer = open_writer_on(write_fd, &saved);
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, LINES);
    access_log_flush(&log);
    uint64_t dropped = access_writer_dropped(writer);
    assert_true(dropped > 0);
    assert_true(dropped < LINES);
    access_writer_reopen(writer); // in the middle of it; a descriptor that was given stays as it is
    assert_int_equal(drain(read_fd, 10000, LINES - dropped), LINES - dropped);
    record_many(&log, 10); // and it goes on
    access_log_flush(&log);
    assert_int_equal(drain(read_fd, 10000, 10), 10);
    assert_int_equal(access_writer_dropped(writer), dropped);
    access_log_fini(&log);
    access_writer_free(writer);
    restore_stderr(saved);
    close(read_fd);
}

static void test_stalled_blocking_pipe(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    stalled_reader(ends[1], ends[0]);
}

static void test_stalled_nonblocking_pipe(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    stalled_reader(ends[1], ends[0]);
}

static void test_stalled_socket(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    stalled_reader(ends[1], ends[0]);
}

// A stop does not wait for a reader that never comes, and owns up to what it lost.
static void test_free_gives_up_after_a_second(void **state)
{
    (void)state;
    int ends[2], saved;
    assert_int_equal(pipe(ends), 0);
    struct access_writer *writer = open_writer_on(ends[1], &saved);
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 5000);
    access_log_fini(&log);
    uint64_t begin = clock_monotonic_us();
    access_writer_free(writer);
    assert_in_range(clock_monotonic_us() - begin, 500000, 10000000);
    restore_stderr(saved);
    close(ends[0]);
}

// The reader is gone: EPIPE, and no SIGPIPE although nobody ignores it here.
static void closed_reader(int write_fd, int read_fd)
{
    int saved;
    close(read_fd);
    struct access_writer *writer = open_writer_on(write_fd, &saved);
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 20);
    access_log_flush(&log);
    uint64_t end = clock_monotonic_us() + 10000000;
    while (access_writer_dropped(writer) < 20 && clock_monotonic_us() < end)
        poll(NULL, 0, 1);
    uint64_t dropped = access_writer_dropped(writer);
    access_log_fini(&log);
    access_writer_free(writer);
    restore_stderr(saved);
    assert_int_equal(dropped, 20);
}

static void test_closed_reader(void **state)
{
    (void)state;
    int ends[2];
    // What the writer says in the process log goes to the same closed pipe, from a thread with SIGPIPE
    // blocked.
    assert_int_equal(pipe(ends), 0);
    closed_reader(ends[1], ends[0]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    closed_reader(ends[1], ends[0]);
}

static void test_closed_descriptor(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    struct access_writer *writer = open_writer("stderr");
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 20);
    access_log_flush(&log);
    uint64_t end = clock_monotonic_us() + 10000000;
    while (access_writer_dropped(writer) < 20 && clock_monotonic_us() < end)
        poll(NULL, 0, 1);
    uint64_t dropped = access_writer_dropped(writer);
    access_log_fini(&log);
    access_writer_free(writer);
    restore_stderr(saved);
    assert_int_equal(dropped, 20);
}

// A failure in the middle of a line, here because the reader goes, does not spoil the line behind it.
static void test_torn_line_is_finished(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s", path_of("fifo"));
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    struct access_writer *writer = open_writer(path);
    struct access_log log;
    access_log_init(&log, writer);
    record_many(&log, 600); // more than the FIFO holds, so that its last line is cut
    access_log_flush(&log);
    static char bytes[1 << 20];
    size_t n = 0;
    struct pollfd poll_fd = {.fd = reader, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    ssize_t got = read(reader, bytes, 1000);
    assert_true(got > 0);
    close(reader); // EPIPE for what is left
    reader = open(path, O_RDONLY | O_NONBLOCK);
    uint64_t end = clock_monotonic_us() + 10000000;
    while (clock_monotonic_us() < end) {
        record_many(&log, 1);
        access_log_flush(&log);
        if (poll(&poll_fd, 1, 100) == 1 && (got = read(reader, bytes + n, sizeof bytes - n)) > 0)
            n += (size_t)got;
        if (n > 400 && bytes[n - 1] == '\n')
            break;
    }
    close(reader);
    bytes[n - 1] = 0;
    const char *last = strrchr(bytes, '\n');
    json_decref(parse(last ? last + 1 : bytes));
    access_log_fini(&log);
    access_writer_free(writer);
}

// ---- many workers ----

enum { WORKERS = 4, LINES_EACH = 5000 };

static void *work(void *argument)
{
    struct access_log log;
    access_log_init(&log, argument);
    for (unsigned i = 0; i < LINES_EACH; i++) {
        access_log_record(&log, json, &usual, 1000 + i);
        if (i % 100 == 0)
            access_log_tick(&log, 1000000000);
    }
    access_log_fini(&log);
    return NULL;
}

static void test_many_workers_lose_nothing_uncounted(void **state)
{
    (void)state;
    const char *path = path_of("workers");
    struct access_writer *writer = open_writer(path);
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, writer), 0);
    for (int i = 0; i < 5; i++)
        access_writer_reopen(writer);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    uint64_t dropped = access_writer_dropped(writer);
    access_writer_free(writer);
    assert_int_equal(count_file_lines(path, true) + (long)dropped, WORKERS * LINES_EACH);
}

static int setup(void **state)
{
    (void)state;
    formats_init();
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"every", "tick",   "rotated", "rotated.1", "sub-log",
                                        "first", "second", "fifo",    "workers"};
    for (size_t i = 0; i < countof(names); i++)
        unlink(path_of(names[i]));
    arena_reset(&arena);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_gets_every_line),
        cmocka_unit_test(test_tick_hands_over_when_old),
        cmocka_unit_test(test_off_and_errors),
        cmocka_unit_test(test_reopen_follows_a_rename),
        cmocka_unit_test(test_reopen_that_fails_keeps_the_file),
        cmocka_unit_test(test_switch_flushes_to_the_old_writer),
        cmocka_unit_test(test_full_disk_drops_and_counts),
        cmocka_unit_test(test_stalled_blocking_pipe),
        cmocka_unit_test(test_stalled_nonblocking_pipe),
        cmocka_unit_test(test_stalled_socket),
        cmocka_unit_test(test_free_gives_up_after_a_second),
        cmocka_unit_test(test_closed_reader),
        cmocka_unit_test(test_closed_descriptor),
        cmocka_unit_test(test_torn_line_is_finished),
        cmocka_unit_test(test_many_workers_lose_nothing_uncounted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
