// What an attempt's end says of its upstream.
#include "upstream/outcome.h"

#include "base/check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static enum outcome_verdict verdict_of(struct attempt_end end)
{
    return outcome_of(&end).verdict;
}

static unsigned grpc_status_as_http(unsigned grpc_status)
{
    struct attempt_end end = {.status = 200, .grpc_ended = true, .grpc_status = grpc_status};
    return outcome_of(&end).status;
}

static void test_an_answer_says_its_status(void **state)
{
    (void)state;
    static const unsigned statuses[] = {101, 200, 304, 404, 429, 500, 503};
    for (size_t i = 0; i < countof(statuses); i++) {
        struct upstream_outcome outcome = outcome_of(&(struct attempt_end){.status = statuses[i]});
        assert_int_equal(outcome.verdict, OUTCOME_ANSWER);
        assert_int_equal(outcome.status, statuses[i]);
        outcome = outcome_of(&(struct attempt_end){.cause = END_UPSTREAM_STATUS, .status = statuses[i]});
        assert_int_equal(outcome.verdict, OUTCOME_ANSWER);
        assert_int_equal(outcome.status, statuses[i]);
    }
}

// Every row of the table: only what counts against the upstream fails it, before the head and after it.
static void test_causes(void **state)
{
    (void)state;
    for (unsigned i = END_OK + 1; i < END_CAUSE_COUNT; i++) {
        enum end_cause cause = (enum end_cause)i;
        if (cause == END_UPSTREAM_STATUS)
            continue;
        bool against = end_row(cause)->against_upstream;
        assert_int_equal(verdict_of((struct attempt_end){.cause = cause}),
                         against ? OUTCOME_FAILURE : OUTCOME_NONE);
        assert_int_equal(verdict_of((struct attempt_end){.cause = cause, .status = 200}),
                         against ? OUTCOME_FAILURE : OUTCOME_ANSWER);
        struct attempt_end end = {.cause = cause};
        assert_int_equal(outcome_of(&end).connect_failed, cause == END_UPSTREAM_CONNECT_FAILED);
    }
}

static void test_clients_and_own_limits_fail_nobody(void **state)
{
    (void)state;
    static const enum end_cause causes[] = {END_CLIENT_GONE,     END_CLIENT_SLOW,    END_OVERLOADED,
                                            END_NO_ENDPOINT,     END_RATE_LIMITED,   END_QUOTA_EXCEEDED,
                                            END_REQUEST_TIMEOUT, END_BODY_TOO_LARGE, END_DRAINING};
    for (size_t i = 0; i < countof(causes); i++)
        assert_int_equal(verdict_of((struct attempt_end){.cause = causes[i]}), OUTCOME_NONE);
}

static void test_excuses(void **state)
{
    (void)state;
    assert_int_equal(verdict_of((struct attempt_end){.cause = END_DEADLINE_EXCEEDED}), OUTCOME_FAILURE);
    assert_int_equal(verdict_of((struct attempt_end){.cause = END_DEADLINE_EXCEEDED, .excused = true}),
                     OUTCOME_NONE);
    assert_int_equal(verdict_of((struct attempt_end){.cause = END_UPSTREAM_RESET, .stale = true}),
                     OUTCOME_NONE);
}

static void test_grpc_statuses(void **state)
{
    (void)state;
    assert_int_equal(grpc_status_as_http(GRPC_OK), 200);
    assert_int_equal(grpc_status_as_http(GRPC_UNAVAILABLE), 503);
    assert_int_equal(grpc_status_as_http(GRPC_INTERNAL), 500);
    assert_int_equal(grpc_status_as_http(GRPC_UNKNOWN), 500);
    assert_int_equal(grpc_status_as_http(GRPC_DATA_LOSS), 500);
    assert_int_equal(grpc_status_as_http(GRPC_DEADLINE_EXCEEDED), 504);
    assert_int_equal(grpc_status_as_http(GRPC_STATUS_COUNT), 500);
    assert_int_equal(grpc_status_as_http(~0U), 500);
    for (unsigned status = 0; status < GRPC_STATUS_COUNT; status++)
        assert_in_range(grpc_status_as_http(status), 200, 599);
    // What callers bring about.
    static const unsigned callers[] = {
        GRPC_CANCELLED,         GRPC_INVALID_ARGUMENT,   GRPC_NOT_FOUND,           GRPC_ALREADY_EXISTS,
        GRPC_PERMISSION_DENIED, GRPC_RESOURCE_EXHAUSTED, GRPC_FAILED_PRECONDITION, GRPC_ABORTED,
        GRPC_OUT_OF_RANGE,      GRPC_UNIMPLEMENTED,      GRPC_UNAUTHENTICATED};
    for (size_t i = 0; i < countof(callers); i++)
        assert_in_range(grpc_status_as_http(callers[i]), 400, 499);
    // A failure of HTTP below gRPC stays one.
    struct attempt_end end = {.status = 502, .grpc_ended = true, .grpc_status = GRPC_OK};
    assert_int_equal(outcome_of(&end).status, 502);
}

static void test_deadline_of_the_client_in_grpc(void **state)
{
    (void)state;
    struct attempt_end end = {.status = 200, .grpc_ended = true, .grpc_status = GRPC_DEADLINE_EXCEEDED};
    assert_int_equal(verdict_of(end), OUTCOME_ANSWER);
    end.client_deadline = true;
    assert_int_equal(verdict_of(end), OUTCOME_NONE);
    end.grpc_status = GRPC_UNAVAILABLE;
    assert_int_equal(verdict_of(end), OUTCOME_ANSWER);
}

static void test_what_a_hedge_has_outrun(void **state)
{
    (void)state;
    struct attempt_end end = {.cause = END_OK, .outrun = true};
    assert_int_equal(verdict_of(end), OUTCOME_OUTRUN);
    end.stale = true;
    assert_int_equal(verdict_of(end), OUTCOME_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_says_its_status),
        cmocka_unit_test(test_causes),
        cmocka_unit_test(test_clients_and_own_limits_fail_nobody),
        cmocka_unit_test(test_excuses),
        cmocka_unit_test(test_grpc_statuses),
        cmocka_unit_test(test_deadline_of_the_client_in_grpc),
        cmocka_unit_test(test_what_a_hedge_has_outrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
