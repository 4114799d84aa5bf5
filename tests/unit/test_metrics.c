// Counting, copying, merging and printing. What is printed is read back by promtool where it is installed,
// and by a small reader of its own that knows what OpenMetrics wants beyond that.
#include "observe/metrics.h"

#include "http/message.h"
#include "observe/shard.h"

#include <pthread.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

static const struct metrics_process process = {.worker_restarts = 3,
                                               .reloads_ok = 2,
                                               .reloads_failed = 1,
                                               .last_reload_ok = true,
                                               .start_seconds = 1.5e9};

static uint32_t id(enum name_kind kind, const char *name)
{
    return metric_name_id(kind, str_of(name));
}

// The page as a C string; free it.
static char *print(const struct metrics *metrics, bool openmetrics)
{
    struct buf out = {0};
    metrics_print(metrics, &process, NULL, 0, openmetrics, &out);
    buf_append(&out, (struct str){"", 1});
    return out.base;
}

static void assert_line(const char *page, const char *line)
{
    size_t n = strlen(line);
    for (const char *at = page; (at = strstr(at, line)); at++)
        if ((at == page || at[-1] == '\n') && at[n] == '\n')
            return;
    fail_msg("no line %s", line);
}

static void count_one(struct metrics *metrics, uint32_t route, unsigned status, uint64_t us)
{
    struct metric_request request = {.listener = id(NAME_LISTENER, "http"),
                                     .route = route,
                                     .method = METHOD_GET,
                                     .status = status,
                                     .cause = END_OK,
                                     .duration_us = us,
                                     .bytes_in = 10,
                                     .bytes_out = 100};
    metrics_request(metrics, &request);
}

// ---- names ----

static void test_names_keep_their_ids(void **state)
{
    (void)state;
    uint32_t a = id(NAME_ROUTE, "names-a"), b = id(NAME_ROUTE, "names-b");
    assert_int_not_equal(a, b);
    assert_int_equal(a, id(NAME_ROUTE, "names-a"));
    assert_true(str_eq(metric_name(NAME_ROUTE, b), STR("names-b")));
    assert_int_equal(metric_name(NAME_ROUTE, UINT32_MAX).n, 0);
    assert_true(metric_name_count(NAME_ROUTE) > b);
    const char *before = metric_name(NAME_ROUTE, a).p;
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "names-%d", i);
        id(NAME_ROUTE, name);
    }
    assert_ptr_equal(before, metric_name(NAME_ROUTE, a).p);
}

static void *name_many(void *argument)
{
    uint64_t *sum = argument;
    for (int i = 0; i < 2000; i++) {
        char name[32];
        snprintf(name, sizeof name, "shared-%d", i);
        uint32_t got = id(NAME_UPSTREAM, name);
        *sum += got;
        if (!str_eq(metric_name(NAME_UPSTREAM, got), str_of(name)))
            *sum = 0;
    }
    return NULL;
}

static void test_names_from_many_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    uint64_t sums[4] = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, name_many, &sums[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 1; i < 4; i++)
        assert_int_equal(sums[i], sums[0]);
    assert_true(sums[0] > 0);
}

// The label's values are this room's own, since it may not include http/; here they are compared.
static void test_method_names_are_those_of_http(void **state)
{
    (void)state;
    assert_true(str_eq(metric_method_name(METHOD_OTHER), STR("OTHER")));
#define X(method, name) assert_true(str_eq(metric_method_name(method), STR(name)));
    HTTP_METHODS(X)
#undef X
    assert_true(str_eq(metric_method_name(METHOD_COUNT), STR("OTHER")));
}

// ---- counting ----

static void test_requests_by_label(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    uint32_t route = id(NAME_ROUTE, "by-label");
    for (int i = 0; i < 7; i++)
        count_one(metrics, route, 200, 1000);
    for (int i = 0; i < 5; i++)
        count_one(metrics, route, i % 2 ? 404 : 503, 1000);
    count_one(metrics, UINT32_MAX, 404, 1000);
    count_one(metrics, route, 0, 1000);
    count_one(metrics, route, 999, 1000);
    char *page = print(metrics, false);
    assert_line(
        page,
        "sallyport_http_requests_total{listener=\"http\",route=\"by-label\",method=\"GET\",code=\"200\"} 7");
    assert_line(
        page,
        "sallyport_http_requests_total{listener=\"http\",route=\"by-label\",method=\"GET\",code=\"404\"} 2");
    assert_line(
        page,
        "sallyport_http_requests_total{listener=\"http\",route=\"by-label\",method=\"GET\",code=\"503\"} 3");
    assert_line(
        page,
        "sallyport_http_requests_total{listener=\"http\",route=\"by-label\",method=\"GET\",code=\"none\"} 2");
    assert_line(page,
                "sallyport_http_requests_total{listener=\"http\",route=\"\",method=\"GET\",code=\"404\"} 1");
    assert_line(page, "sallyport_http_request_bytes_total{route=\"by-label\"} 140");
    assert_line(page, "sallyport_http_response_bytes_total{route=\"by-label\"} 1400");
    assert_line(page, "sallyport_ends_total{cause=\"ok\"} 15");
    assert_line(page, "sallyport_ends_total{cause=\"no_endpoint\"} 0");
    free(page);
    metrics_free(metrics);
}

// Every status and method there is: the table grows many times and loses none.
static void test_many_series_of_one_route(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    uint32_t route = id(NAME_ROUTE, "many-series");
    metrics_reserve(metrics);
    for (int round = 1; round <= 2; round++)
        for (unsigned status = 100; status < 600; status++)
            for (unsigned method = 0; method < METHOD_COUNT; method++)
                for (unsigned n = 0; n < 1 + status % 2; n++)
                    metrics_request(metrics, &(struct metric_request){.route = route,
                                                                      .method = method,
                                                                      .status = status,
                                                                      .duration_us = status});
    const struct metric_table *table = &metrics->routes[route + 1]->requests;
    assert_int_equal(table->count, 500 * METHOD_COUNT);
    uint64_t total = 0, in_histograms = 0;
    for (uint32_t i = 0; i < table->capacity; i++) {
        if (!table->series[i].key)
            continue;
        assert_int_equal(table->series[i].count, 2 * (1 + metric_key_status(table->series[i].key) % 2));
        total += table->series[i].count;
    }
    for (unsigned class = 1; class < METRIC_CLASSES; class ++)
        for (unsigned i = 0; i <= METRIC_BUCKETS; i++)
            in_histograms += metric_table_duration(table, class)->counts[i];
    assert_int_equal(total, 1500 * METHOD_COUNT);
    assert_int_equal(in_histograms, total);
    metrics_free(metrics);
}

static void test_bucket_bounds_are_inclusive(void **state)
{
    (void)state;
    static const struct {
        uint64_t us;
        unsigned bucket;
    } cases[] = {{0, 0},        {1, 0},        {5000, 0},      {5001, 1},      {10000, 1},
                 {10001, 2},    {25000, 2},    {50000, 3},     {75000, 4},     {100000, 5},
                 {250000, 6},   {500000, 7},   {750000, 8},    {1000000, 9},   {2500000, 10},
                 {5000000, 11}, {7500000, 12}, {10000000, 13}, {10000001, 14}, {UINT32_MAX, 14}};
    uint32_t route = id(NAME_ROUTE, "buckets");
    for (size_t i = 0; i < countof(cases); i++) {
        struct metrics *metrics = metrics_new();
        count_one(metrics, route, 200, cases[i].us);
        const struct metric_histogram *histogram =
            metric_table_duration(&metrics->routes[route + 1]->requests, 2);
        for (unsigned k = 0; k <= METRIC_BUCKETS; k++)
            assert_int_equal(histogram->counts[k], k == cases[i].bucket);
        assert_int_equal(histogram->sum_us, cases[i].us);
        metrics_free(metrics);
    }
}

static void test_histogram_lines(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    uint32_t route = id(NAME_ROUTE, "lines");
    count_one(metrics, route, 200, 3000);
    count_one(metrics, route, 204, 30000);
    count_one(metrics, route, 200, 70000000);
    char *text = print(metrics, false), *open = print(metrics, true);
#define LINE(rest) "sallyport_http_request_duration_seconds_" rest
    assert_line(text, LINE("bucket{route=\"lines\",code_class=\"2xx\",le=\"0.005\"} 1"));
    assert_line(text, LINE("bucket{route=\"lines\",code_class=\"2xx\",le=\"0.025\"} 1"));
    assert_line(text, LINE("bucket{route=\"lines\",code_class=\"2xx\",le=\"0.05\"} 2"));
    assert_line(text, LINE("bucket{route=\"lines\",code_class=\"2xx\",le=\"1\"} 2"));
    assert_line(open, LINE("bucket{route=\"lines\",code_class=\"2xx\",le=\"1.0\"} 2"));
    assert_line(text, LINE("bucket{route=\"lines\",code_class=\"2xx\",le=\"+Inf\"} 3"));
    assert_line(text, LINE("count{route=\"lines\",code_class=\"2xx\"} 3"));
    assert_line(text, LINE("sum{route=\"lines\",code_class=\"2xx\"} 70.033000"));
#undef LINE
    free(text);
    free(open);
    metrics_free(metrics);
}

static void test_redis_commands(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(), *total = metrics_new();
    metrics_redis(metrics, REDIS_COMMAND_OK, 100);
    metrics_redis(metrics, REDIS_COMMAND_ERROR, 101);
    metrics_redis(metrics, REDIS_COMMAND_OK, 9000000);
    metrics_redis(metrics, REDIS_COMMAND_DEADLINE, 5000); // none came: no duration
    metrics_merge(total, metrics);
    metrics_merge(total, metrics);
    char *page = print(total, false), *open = print(total, true);
    assert_line(page, "sallyport_redis_commands_total{result=\"ok\"} 4");
    assert_line(page, "sallyport_redis_commands_total{result=\"error\"} 2");
    assert_line(page, "sallyport_redis_commands_total{result=\"deadline\"} 2");
    assert_line(page, "sallyport_redis_commands_total{result=\"full\"} 0");
    assert_line(page, "sallyport_redis_command_duration_seconds_bucket{le=\"0.0001\"} 2");
    assert_line(page, "sallyport_redis_command_duration_seconds_bucket{le=\"0.00025\"} 4");
    assert_line(page, "sallyport_redis_command_duration_seconds_bucket{le=\"1\"} 4");
    assert_line(page, "sallyport_redis_command_duration_seconds_bucket{le=\"+Inf\"} 6");
    assert_line(page, "sallyport_redis_command_duration_seconds_sum 18.000402");
    assert_line(page, "sallyport_redis_command_duration_seconds_count 6");
    assert_line(open, "sallyport_redis_command_duration_seconds_bucket{le=\"1.0\"} 4");
    free(page);
    free(open);
    metrics_free(metrics);
    metrics_free(total);
}

static void test_idempotency(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(), *total = metrics_new();
    metrics_idempotency(metrics, IDEMPOTENCY_NEW);
    metrics_idempotency(metrics, IDEMPOTENCY_REPLAYED);
    metrics_idempotency(metrics, IDEMPOTENCY_REPLAYED);
    metrics_merge(total, metrics);
    metrics_merge(total, metrics);
    char *page = print(total, false);
    assert_line(page, "sallyport_idempotency_total{result=\"new\"} 2");
    assert_line(page, "sallyport_idempotency_total{result=\"replayed\"} 4");
    assert_line(page, "sallyport_idempotency_total{result=\"lost\"} 0");
    free(page);
    metrics_free(metrics);
    metrics_free(total);
}

static void test_upstreams_and_gauges(void **state)
{
    (void)state;
    uint32_t listener = id(NAME_LISTENER, "gauges"), upstream = id(NAME_UPSTREAM, "gauges");
    struct metrics *metrics = metrics_new();
    metrics_upstream(metrics, upstream, 200, 20000);
    metrics_upstream(metrics, upstream, 200, 20000);
    metrics_upstream(metrics, upstream, 0, 1);
    metrics_retry(metrics, upstream, RETRIED_RESET);
    metrics_stale_answer(metrics, upstream);
    metrics_stale_answer(metrics, upstream);
    metrics_upstream_connections(metrics, upstream, CONNECTIONS_ACTIVE, 1);
    metrics_upstream_connections(metrics, upstream, CONNECTIONS_ACTIVE, -1);
    metrics_upstream_connections(metrics, upstream, CONNECTIONS_IDLE, 1);
    metrics_connections(metrics, listener, CONNECTIONS_IDLE, -1); // one worker's share may be below zero
    metrics_hedge(metrics, upstream, HEDGE_WON);
    metrics_count(metrics, COUNT_ACCEPTED, 42);
    char *page = print(metrics, false);
    assert_line(page, "sallyport_upstream_requests_total{upstream=\"gauges\",code=\"200\"} 2");
    assert_line(page, "sallyport_upstream_requests_total{upstream=\"gauges\",code=\"none\"} 1");
    assert_line(page, "sallyport_upstream_request_duration_seconds_count{upstream=\"gauges\"} 3");
    assert_line(page,
                "sallyport_upstream_request_duration_seconds_bucket{upstream=\"gauges\",le=\"0.01\"} 1");
    assert_line(page, "sallyport_upstream_retries_total{upstream=\"gauges\",reason=\"reset\"} 1");
    assert_line(page, "sallyport_stale_answers_total{upstream=\"gauges\"} 2");
    assert_line(page, "sallyport_upstream_retries_total{upstream=\"gauges\",reason=\"status\"} 0");
    assert_line(page, "sallyport_upstream_hedges_total{upstream=\"gauges\",result=\"won\"} 1");
    assert_line(page, "sallyport_upstream_hedges_total{upstream=\"gauges\",result=\"failed\"} 0");
    assert_line(page, "sallyport_upstream_connections{upstream=\"gauges\",state=\"active\"} 0");
    assert_line(page, "sallyport_upstream_connections{upstream=\"gauges\",state=\"idle\"} 1");
    assert_line(page, "sallyport_connections{listener=\"gauges\",state=\"idle\"} -1");
    assert_line(page, "sallyport_accepted_connections_total 42");
    assert_line(page, "sallyport_config_reloads_total{result=\"failure\"} 1");
    assert_line(page, "sallyport_worker_restarts_total 3");
    free(page);
    metrics_free(metrics);
}

// A worker that has not reserved yet, and an id that nobody handed out.
static void test_ids_beyond_the_arrays(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    uint32_t route = id(NAME_ROUTE, "late-route"), upstream = id(NAME_UPSTREAM, "late-upstream"),
             listener = id(NAME_LISTENER, "late-listener");
    count_one(metrics, route, 200, 1);
    metrics_upstream(metrics, upstream, 200, 1);
    metrics_connections(metrics, listener, CONNECTIONS_ACTIVE, 1);
    count_one(metrics, UINT32_MAX - 1, 200, 1);
    metrics_upstream(metrics, UINT32_MAX, 200, 1);
    metrics_retry(metrics, UINT32_MAX, RETRIED_STATUS);
    metrics_stale_answer(metrics, UINT32_MAX);
    metrics_connections(metrics, UINT32_MAX, CONNECTIONS_ACTIVE, 1);
    metrics_upstream_connections(metrics, UINT32_MAX, CONNECTIONS_ACTIVE, 1);
    char *page = print(metrics, false);
    assert_line(page, "sallyport_http_request_bytes_total{route=\"late-route\"} 10");
    assert_line(page, "sallyport_upstream_requests_total{upstream=\"late-upstream\",code=\"200\"} 1");
    assert_line(page, "sallyport_connections{listener=\"late-listener\",state=\"active\"} 1");
    free(page);
    metrics_free(metrics);
}

static void test_unused_routes_cost_a_pointer(void **state)
{
    (void)state;
    for (int i = 0; i < 10000; i++) {
        char name[32];
        snprintf(name, sizeof name, "idle-route-%d", i);
        id(NAME_ROUTE, name);
    }
    struct metrics *metrics = metrics_new();
    assert_true(metrics->route_count > 10000);
    assert_int_equal(metrics->bytes, 0);
    metrics_free(metrics);
}

// ---- collecting ----

static struct metrics *some_shard(unsigned seed)
{
    struct metrics *metrics = metrics_new();
    for (unsigned i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "merged-%u", (i * 7 + seed) % 20);
        count_one(metrics, id(NAME_ROUTE, name), 200 + (i * seed) % 5 * 50, i * 997);
        metrics_upstream(metrics, id(NAME_UPSTREAM, name), 200 + i % 3, i * 499);
        metrics_retry(metrics, id(NAME_UPSTREAM, name), RETRIED_STATUS);
        metrics_stale_answer(metrics, id(NAME_UPSTREAM, name));
        metrics_connections(metrics, id(NAME_LISTENER, name), CONNECTIONS_ACTIVE, i % 3 ? 1 : -1);
    }
    return metrics;
}

// Series come out in the order of their tables, which depends on history: compare the lines, sorted.
static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void assert_same_lines(char *left, char *right)
{
    static char *lines[2][20000];
    size_t counts[2] = {0};
    char *pages[2] = {left, right};
    for (int side = 0; side < 2; side++) {
        for (char *line = pages[side], *end; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            if (strncmp(line, "process_", 8) != 0)
                lines[side][counts[side]++] = line;
            assert_true(counts[side] < 20000);
        }
        qsort(lines[side], counts[side], sizeof(char *), by_text);
    }
    assert_int_equal(counts[0], counts[1]);
    for (size_t i = 0; i < counts[0]; i++)
        assert_string_equal(lines[0][i], lines[1][i]);
}

static void test_copy_is_deep_and_equal(void **state)
{
    (void)state;
    struct metrics *original = some_shard(1), *copy = metrics_copy(original);
    char *left = print(original, false), *right = print(copy, false);
    assert_same_lines(left, right);
    free(left);
    left = print(copy, false);
    free(right);
    for (int i = 0; i < 100; i++)
        count_one(original, id(NAME_ROUTE, "merged-3"), 418, 5);
    right = print(copy, false);
    assert_same_lines(left, right);
    free(left);
    free(right);
    metrics_free(original);
    metrics_free(copy);
}

static void test_merge_adds(void **state)
{
    (void)state;
    struct metrics *a = some_shard(1), *b = some_shard(2), *c = some_shard(3);
    struct metrics *left = metrics_copy(a), *right = metrics_new();
    metrics_merge(left, b);
    metrics_merge(left, c);
    metrics_merge(right, c);
    metrics_merge(right, b);
    metrics_merge(right, a);
    char *left_page = print(left, true), *right_page = print(right, true);
    assert_line(left_page, "sallyport_ends_total{cause=\"ok\"} 600");
    assert_same_lines(left_page, right_page);
    free(left_page);
    free(right_page);
    struct metrics *all[] = {a, b, c, left, right};
    for (size_t i = 0; i < countof(all); i++)
        metrics_free(all[i]);
    metrics_free(NULL);
}

// ---- printing ----

static void test_hostile_labels(void **state)
{
    (void)state;
    char long_name[200];
    memset(long_name, 0, sizeof long_name);
    for (int i = 0; i < 60; i++)
        memcpy(long_name + i * 3 + 1, "\xe2\x82\xac", 3); // shifted, so that pieces would cut a character
    long_name[0] = '-';
    struct metrics *metrics = metrics_new();
    count_one(metrics, id(NAME_ROUTE, "a\"b\\c\nd} 1"), 200, 1);
    count_one(metrics, id(NAME_ROUTE, "bad \xff\xc0\xaf utf8 \xc3\xa4"), 200, 1);
    count_one(metrics, id(NAME_ROUTE, long_name), 200, 1);
    char *page = print(metrics, false), line[300];
    assert_line(page, "sallyport_http_request_bytes_total{route=\"a\\\"b\\\\c\\nd} 1\"} 10");
    assert_line(page, "sallyport_http_request_bytes_total{route=\"bad \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
                      "utf8 \xc3\xa4\"} 10");
    snprintf(line, sizeof line, "sallyport_http_request_bytes_total{route=\"%s\"} 10", long_name);
    assert_line(page, line);
    free(page);
    metrics_free(metrics);
}

static void test_endpoints_of_one_name_are_one_series(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    uint32_t host = metric_name_id(NAME_ENDPOINT, STR("shop\0host:80")),
             other = metric_name_id(NAME_ENDPOINT, STR("shop\0"
                                                       "10.0.0.1:80"));
    struct metrics_endpoint endpoints[] = {{host, false, true}, {other, false, false}, {host, true, false}};
    struct buf out = {0};
    metrics_ejection(metrics, host, EJECTED_SUCCESS_RATE);
    metrics_ejection(metrics, host, EJECTED_SUCCESS_RATE);
    metrics_print(metrics, &process, endpoints, countof(endpoints), false, &out);
    buf_append(&out, (struct str){"", 1});
    assert_line(out.base, "sallyport_upstream_endpoint_up{upstream=\"shop\",endpoint=\"host:80\"} 1");
    assert_line(out.base, "sallyport_upstream_endpoint_up{upstream=\"shop\",endpoint=\"10.0.0.1:80\"} 0");
    assert_null(strstr(out.base, "sallyport_upstream_endpoint_up{upstream=\"shop\",endpoint=\"host:80\"} 0"));
    assert_line(out.base, "sallyport_upstream_endpoint_ejected{upstream=\"shop\",endpoint=\"host:80\"} 1");
    assert_line(out.base,
                "sallyport_upstream_endpoint_ejected{upstream=\"shop\",endpoint=\"10.0.0.1:80\"} 0");
    assert_line(out.base, "sallyport_upstream_ejections_total{upstream=\"shop\",endpoint=\"host:80\","
                          "reason=\"success_rate\"} 2");
    assert_line(out.base, "sallyport_upstream_ejections_total{upstream=\"shop\",endpoint=\"host:80\","
                          "reason=\"connect_failures\"} 0");
    buf_free(&out);
    metrics_free(metrics);
}

static void test_certificates_of_one_name_are_one_series(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    const struct metrics_certificate certificates[] = {
        {STR("www.example"), 1900000000}, {STR("*.a\"b"), -5},
        {STR("www.example"), 1800000000}, {STR("www.example.b"), 7},
        {STR("www.example"), 2000000000},
    };
    struct metrics_process with = process;
    with.certificates = certificates;
    with.certificate_count = countof(certificates);
    struct buf out = {0};
    metrics_print(metrics, &with, NULL, 0, false, &out);
    buf_append(&out, (struct str){"", 1});
#define EXPIRY "sallyport_tls_certificate_expiry_timestamp_seconds"
    assert_line(out.base, EXPIRY "{name=\"www.example\"} 1800000000");
    assert_line(out.base, EXPIRY "{name=\"*.a\\\"b\"} -5");
    assert_line(out.base, EXPIRY "{name=\"www.example.b\"} 7");
    unsigned lines = 0;
    for (const char *at = out.base; (at = strstr(at, "\n" EXPIRY "{")); at++)
        lines++;
    assert_int_equal(lines, 3);
    buf_free(&out);
    metrics_free(metrics);
}

static void test_process_lines(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new();
    char *page = print(metrics, false);
    static const char *const names[] = {"process_cpu_seconds_total ",
                                        "process_resident_memory_bytes ",
                                        "process_virtual_memory_bytes ",
                                        "process_open_fds ",
                                        "process_max_fds ",
                                        "process_threads "};
    for (size_t i = 0; i < countof(names); i++) {
        char at_line_start[64];
        snprintf(at_line_start, sizeof at_line_start, "\n%s", names[i]);
        const char *line = strstr(page, at_line_start);
        assert_non_null(line);
        double value = strtod(line + strlen(at_line_start), NULL);
        assert_true(i == 0 ? value >= 0 : value >= 1);
    }
    assert_line(page, "process_start_time_seconds 1500000000.000");
    free(page);
    metrics_free(metrics);
}

static void feed(int fd, const char *page)
{
    for (size_t left = strlen(page); left;) {
        ssize_t n = write(fd, page, left);
        assert_true(n > 0);
        page += n;
        left -= (size_t)n;
    }
}

// promtool check metrics: 0, or 127 when there is none. Its remarks go to stdout.
static int promtool(const char *page)
{
    int in[2], status;
    pid_t pid;
    char *arguments[] = {"promtool", "check", "metrics", NULL};
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe(in), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_addclose(&actions, in[1]);
    int error = posix_spawnp(&pid, "promtool", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    if (error) {
        close(in[1]);
        return 127;
    }
    feed(in[1], page);
    close(in[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_promtool_is_content(void **state)
{
    (void)state;
    struct metrics *metrics = some_shard(5);
    count_one(metrics, id(NAME_ROUTE, "a\"b\\c\nd} 1"), 200, 1);
    char *page = print(metrics, false);
    int result = promtool(page);
    free(page);
    metrics_free(metrics);
    if (result == 127)
        skip();
    assert_int_equal(result, 0);
}

// OpenMetrics 1.0: a family's samples stand together behind its TYPE, a counter's TYPE has no _total but its
// samples do, nothing follows # EOF.
static void test_openmetrics_shape(void **state)
{
    (void)state;
    struct metrics *metrics = some_shard(6);
    char *page = print(metrics, true), family[128] = "", type[32] = "";
    static char seen[64][128];
    size_t families = 0;
    bool end = false;
    for (char *line = page, *next; *line; line = next) {
        next = strchr(line, '\n');
        assert_non_null(next);
        *next++ = 0;
        assert_false(end);
        if (strcmp(line, "# EOF") == 0) {
            end = true;
        } else if (sscanf(line, "# TYPE %127s %31s", family, type) == 2) {
            for (size_t i = 0; i < families; i++)
                assert_string_not_equal(seen[i], family);
            assert_true(families < countof(seen));
            snprintf(seen[families++], sizeof seen[0], "%s", family);
            assert_null(strstr(family, "_total"));
        } else if (line[0] != '#') {
            size_t n = strlen(family);
            assert_memory_equal(line, family, n);
            const char *suffix = line + n;
            if (strcmp(type, "counter") == 0)
                assert_memory_equal(suffix, "_total", 6);
            else if (strcmp(type, "gauge") == 0)
                assert_true(*suffix == '{' || *suffix == ' ');
            else
                assert_true(strncmp(suffix, "_bucket{", 8) == 0 || strncmp(suffix, "_sum", 4) == 0 ||
                            strncmp(suffix, "_count", 6) == 0);
        }
    }
    assert_true(end);
    assert_true(families > 15);
    free(page);
    metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_keep_their_ids),
        cmocka_unit_test(test_names_from_many_threads),
        cmocka_unit_test(test_method_names_are_those_of_http),
        cmocka_unit_test(test_requests_by_label),
        cmocka_unit_test(test_many_series_of_one_route),
        cmocka_unit_test(test_bucket_bounds_are_inclusive),
        cmocka_unit_test(test_histogram_lines),
        cmocka_unit_test(test_redis_commands),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_upstreams_and_gauges),
        cmocka_unit_test(test_ids_beyond_the_arrays),
        cmocka_unit_test(test_unused_routes_cost_a_pointer),
        cmocka_unit_test(test_copy_is_deep_and_equal),
        cmocka_unit_test(test_merge_adds),
        cmocka_unit_test(test_hostile_labels),
        cmocka_unit_test(test_endpoints_of_one_name_are_one_series),
        cmocka_unit_test(test_certificates_of_one_name_are_one_series),
        cmocka_unit_test(test_process_lines),
        cmocka_unit_test(test_promtool_is_content),
        cmocka_unit_test(test_openmetrics_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
