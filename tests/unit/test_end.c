// The end-cause table: what the access log, metrics, breaker, retry and error answers agree on.
#include "observe/end.h"

#include "base/check.h"
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_every_row_is_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++) {
        const struct end_row *row = end_row((enum end_cause)i);
        assert_true(row->code.n > 0);
        for (size_t k = 0; k < row->code.n; k++)
            assert_true((row->code.p[k] >= 'a' && row->code.p[k] <= 'z') || row->code.p[k] == '_');
        if (i == END_OK)
            continue;
        assert_true(row->title.n > 0);
        assert_in_range(row->status, 400, 599);
        assert_in_range(row->grpc_status, GRPC_CANCELLED, GRPC_UNAUTHENTICATED);
    }
    assert_int_equal(end_row(END_OK)->grpc_status, GRPC_OK);
}

static void test_codes_differ(void **state)
{
    (void)state;
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++)
        for (unsigned k = 0; k < i; k++)
            assert_false(str_eq(end_rows[i].code, end_rows[k].code));
}

// Trying again is for upstream's faults only: what the client did wrong stays wrong.
static void test_retryable_is_against_the_upstream(void **state)
{
    (void)state;
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++)
        if (end_rows[i].retryable)
            assert_true(end_rows[i].against_upstream);
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++)
        if (end_rows[i].status && end_rows[i].status < 500)
            assert_false(end_rows[i].against_upstream);
}

// They stand in JSON as they are.
static void test_words_need_no_escape(void **state)
{
    (void)state;
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++) {
        const struct str words[] = {end_rows[i].code, end_rows[i].title, end_rows[i].detail};
        for (unsigned k = 0; k < countof(words); k++) {
            char escaped[JSON_ESCAPE_MAX * 256];
            assert_in_range(words[k].n, 0, 256);
            assert_true(str_eq(words[k], (struct str){escaped, json_escape(words[k], escaped)}));
        }
    }
}

// The pairs that users' scripts depend on.
static void test_promised_codes(void **state)
{
    (void)state;
    static const struct {
        const char *code;
        unsigned status;
    } promised[] = {
        {"bad_request", 400},
        {"ip_denied", 403},
        {"no_route", 404},
        {"method_not_allowed", 405},
        {"request_timeout", 408},
        {"body_too_large", 413},
        {"uri_too_long", 414},
        {"headers_too_large", 431},
        {"upstream_connect_failed", 502},
        {"upstream_reset", 502},
        {"upstream_bad_response", 502},
        {"overloaded", 503},
        {"no_endpoint", 503},
        {"draining", 503},
        {"upstream_timeout", 504},
        {"deadline_exceeded", 504},
    };
    for (size_t i = 0; i < countof(promised); i++) {
        bool found = false;
        for (unsigned k = 0; k < END_CAUSE_COUNT; k++)
            if (str_eq(end_rows[k].code, str_of(promised[i].code)))
                found = end_rows[k].status == promised[i].status;
        assert_true(found);
    }
}

// What gRPC clients may try again by themselves (UNAVAILABLE) has not been carried out for the client's own
// fault, and not where nobody knows how far it came.
static void test_grpc_clients_are_told_when_to_try_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < END_CAUSE_COUNT; i++) {
        const struct end_row *row = &end_rows[i];
        if (row->status && row->status < 500)
            assert_int_not_equal(row->grpc_status, GRPC_UNAVAILABLE);
        if (row->status == 504)
            assert_int_equal(row->grpc_status, GRPC_DEADLINE_EXCEEDED);
        if (row->status == 503)
            assert_int_equal(row->grpc_status, GRPC_UNAVAILABLE);
    }
    assert_true(str_eq(grpc_status_name(GRPC_UNAUTHENTICATED), STR("UNAUTHENTICATED")));
    assert_int_equal(grpc_status_name(GRPC_STATUS_COUNT).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_whole),
        cmocka_unit_test(test_codes_differ),
        cmocka_unit_test(test_retryable_is_against_the_upstream),
        cmocka_unit_test(test_words_need_no_escape),
        cmocka_unit_test(test_promised_codes),
        cmocka_unit_test(test_grpc_clients_are_told_when_to_try_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
