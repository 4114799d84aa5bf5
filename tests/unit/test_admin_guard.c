// Who may use the admin API.
#include "unit.h"

#include "admin/room.h"

struct row {
    const char *token, *peer, *headers;
    const char *want; // the problem's code, "": allowed
};

static const struct row rows[] = {
    // Without a token: from this machine, by a name of this machine, and not for another site's page.
    {"", "127.0.0.1:5000", "Host: localhost:9901", ""},
    {"", "127.0.0.1:5000", "Host: LocalHost", ""},
    {"", "127.0.0.1:5000", "Host: 127.0.0.1:9901", ""},
    {"", "127.9.9.9:5000", "Host: 127.1.2.3", ""},
    {"", "[::1]:5000", "Host: [::1]:9901", ""},
    {"", "[::ffff:127.0.0.1]:5000", "Host: [::ffff:127.0.0.1]", ""},
    {"", "10.0.0.1:5000", "Host: localhost", "ip_denied"},
    {"", "192.168.1.1:5000", "Host: 127.0.0.1", "ip_denied"},
    {"", "[2001:db8::1]:5000", "Host: localhost", "ip_denied"},
    {"", "[::ffff:10.0.0.1]:5000", "Host: localhost", "ip_denied"},
    {"", "127.0.0.1:5000", "Host: evil.example", "host_denied"},
    {"", "127.0.0.1:5000", "Host: localhost.evil.example", "host_denied"},
    {"", "127.0.0.1:5000", "Host: 127.0.0.1.evil.example", "host_denied"},
    {"", "127.0.0.1:5000", "Host: 10.0.0.1", "host_denied"},
    {"", "127.0.0.1:5000", "Host: 0.0.0.0", "host_denied"},
    {"", "127.0.0.1:5000", "Host: [::]", "host_denied"},
    {"", "unix:/run/x", "Host: anything", ""},
    {"", "unix:/run/x", "Host: anything\r\nOrigin: http://evil.example", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost:9901\r\nOrigin: http://localhost:9901", ""},
    {"", "127.0.0.1:5000", "Host: localhost:9901\r\nOrigin: http://localhost:8080", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost:9901\r\nOrigin: https://localhost:9901", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost\r\nOrigin: http://evil.example", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost\r\nOrigin: null", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost\r\nOrigin:", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost\r\nSec-Fetch-Site: cross-site", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost\r\nSec-Fetch-Site: same-site", "origin_denied"},
    {"", "127.0.0.1:5000", "Host: localhost\r\nSec-Fetch-Site: same-origin", ""},
    {"", "127.0.0.1:5000", "Host: localhost\r\nSec-Fetch-Site: none", ""},
    {"", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer x", ""},
    // With one: the token, from anywhere, and nothing else.
    {"secret", "10.0.0.1:5000", "Host: gw.example\r\nAuthorization: Bearer secret", ""},
    {"secret", "10.0.0.1:5000", "Host: gw.example\r\nAuthorization: bearer secret", ""},
    {"secret", "10.0.0.1:5000", "Host: gw.example\r\nAuthorization: Bearer  secret", ""},
    {"secret", "127.0.0.1:5000", "Host: localhost", "no_credentials"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Basic secret", "no_credentials"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer", "no_credentials"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: secret", "no_credentials"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer Secret", "invalid_token"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer secre", "invalid_token"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer secretsecret", "invalid_token"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer secret\"", "invalid_token"},
    {"secret", "127.0.0.1:5000", "Host: localhost\r\nAuthorization: Bearer xecret", "invalid_token"},
};

static const char *judge(const struct row *row, struct serve_problem *problem)
{
    static const struct h1_limits limits = {8192, 2048, 100, false};
    char text[512];
    struct arena arena;
    struct h1_parse parse = {0};
    struct request_head request;
    struct addr peer;
    arena_init(&arena, NULL);
    int n = snprintf(text, sizeof text, "POST /api/v1/reload HTTP/1.1\r\n%s\r\n\r\n", row->headers);
    if (h1_parse_request(&parse, text, (size_t)n, &limits, H1_UNDERSCORES_DROP, &arena, &request) != H1_DONE)
        fail_msg("%s: %s", row->headers, parse.why);
    assert_true(addr_parse(str_of(row->peer), &peer));
    bool allowed = admin_guard(str_of(row->token), &peer, &request, problem);
    arena_reset(&arena);
    return allowed ? "" : problem->code.p;
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(rows); i++) {
        struct serve_problem problem = {0};
        const char *got = judge(&rows[i], &problem);
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%s, %s: got \"%s\", want \"%s\"", rows[i].peer, rows[i].headers, got, rows[i].want);
        bool challenged = problem.authenticate.n > 0;
        assert_int_equal(challenged, problem.status == 401); // RFC 9110 11.6.1
    }
}

static void test_fault_causes(void **state)
{
    (void)state;
    static const unsigned statuses[] = {[H1_BAD_REQUEST] = 400,
                                        [H1_URI_TOO_LONG] = 414,
                                        [H1_HEAD_TOO_LARGE] = 431,
                                        [H1_NOT_IMPLEMENTED] = 501,
                                        [H1_VERSION] = 505};
    for (unsigned fault = H1_BAD_REQUEST; fault <= H1_VERSION; fault++)
        assert_int_equal(end_row(h1_fault_cause((enum h1_fault)fault))->status, statuses[fault]);
}

static void test_accept(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        bool openmetrics;
    } cases[] = {
        {"", false},
        {"*/*", false},
        {"text/plain", false},
        {"application/openmetrics-text", true},
        {"Application/OpenMetrics-Text; version=1.0.0", true},
        {"text/plain;q=0.5, application/openmetrics-text;q=0.6", true},
        {"text/plain;q=0.6, application/openmetrics-text;q=0.5", false},
        {"application/openmetrics-text;q=0", false},
        {"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
         "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
         true}, // Prometheus
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct arena arena;
        struct headers headers = {0};
        arena_init(&arena, NULL);
        headers_add(&headers, &arena, STR("Accept"), str_of(cases[i].accept));
        if (serve_accepts_openmetrics(&headers) != cases[i].openmetrics)
            fail_msg("Accept: %s", cases[i].accept);
        arena_reset(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_fault_causes),
        cmocka_unit_test(test_accept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
