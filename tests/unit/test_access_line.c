// Lines of the access log: what each format prints of a record, whatever is in it.
#include "test_access_fixture.h"

#include "observe/access_line.h"

#include <stdlib.h>
#include <time.h>

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

static void assert_text(const json_t *object, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    assert_string_equal(text, value);
}

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

static int setup(void **state)
{
    (void)state;
    formats_init();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_reset(&arena);
    return 0;
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
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
