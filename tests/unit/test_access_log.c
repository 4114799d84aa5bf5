// Lines and where they go. JSON lines are read back by jansson; outputs are real pipes, sockets and files.
#include "observe/access_log.h"

#include "base/clock.h"
#include "observe/access_line.h"

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct arena arena;
static const struct access_format *json;
static char directory[] = "/tmp/sallyport-log-XXXXXX";

static const struct access_record usual = {
    .wall_us = 1795521600123456, // 2026-11-24T12:00:00.123456Z
    .request_id = STR("01890a5d-ac96-774b-bcce-b302099a8057"),
    .client = STR("192.0.2.7"),
    .listener = STR("http"),
    .host = STR("api.example.com"),
    .method = STR("GET"),
    .path = STR("/orders/17"),
    .query = STR("token=secret"),
    .protocol = STR("HTTP/1.1"),
    .route = STR("orders"),
    .upstream = STR("orders"),
    .endpoint = STR("127.0.0.1:9101"),
    .trace_id = STR("4bf92f3577b34da6a3ce929d0e0e4736"),
    .user_agent = STR("curl/8.0 \"x\""),
    .referer = STR("https://example.com/"),
    .status = 200,
    .cause = END_OK,
    .bytes_in = 0,
    .bytes_out = 12345678901,
    .duration_us = 1234567,
    .upstream_us = 1005,
    .attempts = 1,
};

static const struct access_format *compile(enum access_format_kind kind, const char *template)
{
    const char *why = NULL;
    const struct access_format *format = access_format_compile(kind, str_of(template), &arena, &why);
    if (!format)
        fail_msg("%s", why);
    return format;
}

// The line of one record, without its line feed, valid until the next call.
static const char *line_of(const struct access_format *format, const struct access_record *record)
{
    static char line[ACCESS_LINE_BYTES + 64];
    struct access_log log = {.second = UINT64_MAX};
    size_t bound = access_line_bound(format, record);
    assert_true(bound <= ACCESS_LINE_BYTES);
    memset(line, 0x55, sizeof line);
    size_t n = access_line_print(&log, format, record, line);
    assert_true(n <= bound);
    for (size_t i = bound; i < sizeof line; i++)
        assert_int_equal(line[i], 0x55);
    assert_int_equal(line[n - 1], '\n');
    assert_null(memchr(line, '\n', n - 1));
    line[n - 1] = 0;
    return line;
}

static json_t *parse(const char *line)
{
    json_error_t error;
    json_t *value = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        fail_msg("%s: %s", error.text, line);
    return value;
}

static void assert_text(const json_t *object, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    assert_string_equal(text, value);
}

// ---- lines ----

static void test_json_line(void **state)
{
    (void)state;
    assert_string_equal(
        line_of(json, &usual),
        "{\"ts\":\"2026-11-24T12:00:00.123Z\",\"request_id\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
        "\"client\":\"192.0.2.7\",\"listener\":\"http\",\"host\":\"api.example.com\",\"method\":\"GET\","
        "\"path\":\"/orders/17\",\"protocol\":\"HTTP/1.1\",\"route\":\"orders\",\"upstream\":\"orders\","
        "\"endpoint\":\"127.0.0.1:9101\",\"status\":200,\"code\":\"ok\",\"bytes_in\":0,"
        "\"bytes_out\":12345678901,\"duration_ms\":1234.567,\"upstream_ms\":1.005,\"attempts\":1,"
        "\"consumer\":null,\"subject\":null,\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}");
}

static void test_json_of_an_empty_record(void **state)
{
    (void)state;
    struct access_record record = {.cause = END_CLIENT_GONE};
    json_t *line = parse(line_of(json, &record));
    assert_int_equal(json_object_size(line), 21);
    assert_text(line, "ts", "1970-01-01T00:00:00.000Z");
    assert_text(line, "code", "client_gone");
    assert_true(json_is_null(json_object_get(line, "route")));
    assert_true(json_is_null(json_object_get(line, "upstream_ms")));
    assert_int_equal(json_integer_value(json_object_get(line, "status")), 0);
    json_decref(line);
}

static void test_numbers(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, 123456789, UINT64_MAX};
    const struct access_format *format = compile(ACCESS_TEMPLATE, "$bytes_in $duration_ms");
    for (size_t i = 0; i < countof(values); i++) {
        struct access_record record = {.bytes_in = values[i], .duration_us = values[i]};
        char expected[80];
        snprintf(expected, sizeof expected, "%llu %llu.%03llu", (unsigned long long)values[i],
                 (unsigned long long)(values[i] / 1000), (unsigned long long)(values[i] % 1000));
        assert_string_equal(line_of(format, &record), expected);
    }
}

static void test_times_by_the_library(void **state)
{
    (void)state;
    const struct access_format *format = compile(ACCESS_TEMPLATE, "$ts $time_local");
    for (uint64_t second = 0; second < 8000000000; second += 8640000 - 7777) { // to the year 2223
        struct access_record record = {.wall_us = second * 1000000 + 7000};
        time_t time = (time_t)second;
        struct tm utc;
        char expected[80];
        gmtime_r(&time, &utc);
        strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S.007Z %d/%b/%Y:%H:%M:%S +0000", &utc);
        assert_string_equal(line_of(format, &record), expected);
    }
}

static void test_the_second_is_cached_and_changes(void **state)
{
    (void)state;
    struct access_log log = {.second = UINT64_MAX};
    const struct access_format *format = compile(ACCESS_TEMPLATE, "$ts");
    static const struct {
        uint64_t us;
        const char *line;
    } cases[] = {{1000000, "1970-01-01T00:00:01.000Z\n"},
                 {1999999, "1970-01-01T00:00:01.999Z\n"},
                 {2000000, "1970-01-01T00:00:02.000Z\n"},
                 {1500000, "1970-01-01T00:00:01.500Z\n"}};
    for (size_t i = 0; i < countof(cases); i++) {
        char line[64] = "";
        access_line_print(&log, format, &(struct access_record){.wall_us = cases[i].us}, line);
        assert_string_equal(line, cases[i].line);
    }
}

// Each length and each byte value at each place: the fast copy and the slow way must agree on what is
// special.
static void test_every_byte_at_every_place(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 20; n++) {
        for (size_t place = 0; place < n; place++) {
            for (unsigned c = 1; c < 0x80; c++) {
                char path[21];
                memset(path, 'a', n);
                path[place] = (char)c;
                path[n] = 0;
                char *exact = malloc(n); // so that a read beyond it is seen
                memcpy(exact, path, n);
                struct access_record record = {.path = {exact, n}};
                json_t *line = parse(line_of(json, &record));
                assert_text(line, "path", path);
                json_decref(line);
                free(exact);
            }
        }
    }
}

static void test_hostile_values(void **state)
{
    (void)state;
    struct access_record record = usual;
    record.path = STR("/a\"b\\c\nd\te\x01\x7f");
    record.host = STR("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    record.method = STR("\xff\xfe\xc0\x80\xed\xa0\x80");
    record.request_id = STR("\",\"status\":500,\"x\":\"");
    record.client = (struct str){"a\0b", 3};
    const char *text = line_of(json, &record);
    for (const char *at = text; *at; at++)
        assert_true((unsigned char)*at >= 0x20);
    assert_non_null(strstr(text, "\"client\":\"a\\u0000b\""));
    record.client = STR("c");
    json_t *line = parse(line_of(json, &record));
    assert_int_equal(json_object_size(line), 21);
    assert_text(line, "path", "/a\"b\\c\nd\te\x01\x7f");
    assert_text(line, "host", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_text(line, "request_id", "\",\"status\":500,\"x\":\"");
    assert_int_equal(json_integer_value(json_object_get(line, "status")), 200);
    json_decref(line);
}

static struct str repeat(const char *piece, size_t times)
{
    size_t n = strlen(piece);
    char *text = arena_alloc(&arena, n * times + 1);
    for (size_t i = 0; i < times; i++)
        memcpy(text + i * n, piece, n);
    return (struct str){text, n * times};
}

// Whatever is too long is cut, what comes behind it is not lost, and the line stays JSON.
static void test_long_fields_are_cut(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", "\x01", "\"", "\xe2\x82\xac", "\xff", "a\xf0\x9f\x98\x80"};
    for (size_t i = 0; i < countof(pieces); i++) {
        for (size_t times = 1; times < 40000; times = times * 3 / 2 + 1) {
            struct access_record record = usual;
            record.path = repeat(pieces[i], times);
            record.host = record.path;
            json_t *line = parse(line_of(json, &record));
            assert_text(line, "route", "orders");
            assert_text(line, "trace_id", "4bf92f3577b34da6a3ce929d0e0e4736");
            const char *path = json_string_value(json_object_get(line, "path"));
            assert_true(strlen(path) >= (times > 500 ? 150 : 1));
            json_decref(line);
            arena_reset(&arena);
            json = compile(ACCESS_JSON, "");
        }
    }
    // A long path that is plain is kept whole as far as it fits.
    struct access_record record = usual;
    record.path = repeat("a", 3000);
    json_t *line = parse(line_of(json, &record));
    assert_int_equal(json_string_length(json_object_get(line, "path")), 3000);
    json_decref(line);
}

static void test_all_fields_huge(void **state)
{
    (void)state;
    struct str huge = repeat("\x02", 9000);
    struct access_record record = {.status = UINT32_MAX,
                                   .cause = END_UPSTREAM_BAD_RESPONSE,
                                   .attempts = UINT32_MAX,
                                   .bytes_in = INT64_MAX,
                                   .bytes_out = INT64_MAX,
                                   .duration_us = INT64_MAX,
                                   .upstream_us = INT64_MAX};
    record.request_id = record.client = record.listener = record.host = record.method = record.path = huge;
    record.query = record.protocol = record.route = record.upstream = record.endpoint = huge;
    record.consumer = record.subject = record.trace_id = record.user_agent = record.referer = huge;
    json_t *line = parse(line_of(json, &record));
    assert_text(line, "code", "upstream_bad_response");
    json_decref(line);
    line_of(compile(ACCESS_COMBINED, ""), &record);
}

static void test_combined(void **state)
{
    (void)state;
    const struct access_format *format = compile(ACCESS_COMBINED, "");
    assert_string_equal(line_of(format, &usual),
                        "192.0.2.7 - - [24/Nov/2026:12:00:00 +0000] \"GET /orders/17 HTTP/1.1\" 200 "
                        "12345678901 \"https://example.com/\" \"curl/8.0 \\\"x\\\"\"");
    struct access_record record = usual;
    record.consumer = STR("acme \n\xff");
    record.referer = record.user_agent = STR("");
    assert_string_equal(line_of(format, &record),
                        "192.0.2.7 - acme \\x0a\\xff [24/Nov/2026:12:00:00 +0000] \"GET /orders/17 "
                        "HTTP/1.1\" 200 12345678901 \"-\" \"-\"");
}

static void test_template(void **state)
{
    (void)state;
    struct access_record record = usual;
    record.subject = STR("u1");
    assert_string_equal(
        line_of(compile(ACCESS_TEMPLATE, "$$ $5 $client$status a=$query&$subject! $"), &record),
        "$$ $5 192.0.2.7200 a=token=secret&u1! $");
    assert_string_equal(
        line_of(compile(ACCESS_TEMPLATE,
                        "$request_id $listener $host $method $path $protocol $route $upstream "
                        "$endpoint $code $bytes_out $upstream_ms $attempts $consumer $trace_id"),
                &usual),
        "01890a5d-ac96-774b-bcce-b302099a8057 http api.example.com GET /orders/17 HTTP/1.1 "
        "orders orders 127.0.0.1:9101 ok 12345678901 1.005 1 - "
        "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_string_equal(line_of(compile(ACCESS_TEMPLATE, ""), &usual), "");
    record.attempts = 0;
    assert_string_equal(line_of(compile(ACCESS_TEMPLATE, "$upstream_ms"), &record), "-");
}

static void test_bad_templates(void **state)
{
    (void)state;
    const char *why = NULL;
    assert_null(access_format_compile(ACCESS_TEMPLATE, STR("$client $authorization"), &arena, &why));
    assert_string_equal(why, "there is no field $authorization");
    assert_null(access_format_compile(ACCESS_TEMPLATE, repeat("$client ", 40), &arena, &why));
    assert_non_null(strstr(why, "64"));
    assert_null(access_format_compile(ACCESS_TEMPLATE, repeat("x", 2049), &arena, &why));
    assert_non_null(strstr(why, "2048"));
}

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
    arena_init(&arena, NULL);
    json = compile(ACCESS_JSON, "");
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
        cmocka_unit_test(test_json_line),
        cmocka_unit_test(test_json_of_an_empty_record),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_times_by_the_library),
        cmocka_unit_test(test_the_second_is_cached_and_changes),
        cmocka_unit_test(test_every_byte_at_every_place),
        cmocka_unit_test(test_hostile_values),
        cmocka_unit_test(test_long_fields_are_cut),
        cmocka_unit_test(test_all_fields_huge),
        cmocka_unit_test(test_combined),
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_bad_templates),
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
