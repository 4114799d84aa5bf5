#include "unit.h"

#include "exchange/steps.h"
#include "http/header.h"
#include "upstream/link.h"

// One decision: what the exchange has been through, how the attempt ended, and whether there is another.
struct row {
    const char *name;
    enum end_cause cause;
    enum http_method method;
    unsigned attempts; // made, this one included
    bool reused, response_begun, stale_before;
    bool sent; // something of the request has reached the kernel
    uint64_t body_bytes;
    bool replay_lost;
    enum reply_state reply;
    bool again;
};

static const struct row rows[] = {
    {"refused, GET", END_UPSTREAM_CONNECT_FAILED, METHOD_GET, 1, .again = true},
    {"refused, POST: nothing was sent", END_UPSTREAM_CONNECT_FAILED, METHOD_POST, 1, .again = true},
    {"refused for the second time", END_UPSTREAM_CONNECT_FAILED, METHOD_GET, 2, .again = false},
    {"reset, GET", END_UPSTREAM_RESET, METHOD_GET, 1, .sent = true, .again = true},
    {"reset, POST", END_UPSTREAM_RESET, METHOD_POST, 1, .sent = true, .again = false},
    {"reset before anything was sent, POST", END_UPSTREAM_RESET, METHOD_POST, 1, .again = true},
    {"reset, PUT with its body kept", END_UPSTREAM_RESET, METHOD_PUT, 1, .sent = true, .body_bytes = 9,
     .again = true},
    {"reset, PUT whose body is lost", END_UPSTREAM_RESET, METHOD_PUT, 1, .sent = true, .body_bytes = 9,
     .replay_lost = true, .again = false},
    {"stale, GET", END_UPSTREAM_RESET, METHOD_GET, 1, .reused = true, .sent = true, .again = true},
    {"stale when attempts are used up", END_UPSTREAM_RESET, METHOD_GET, 2, .reused = true, .sent = true,
     .again = true},
    {"stale, then reset: the stale one does not count", END_UPSTREAM_RESET, METHOD_GET, 2,
     .stale_before = true, .sent = true, .again = true},
    {"stale, then reset twice", END_UPSTREAM_RESET, METHOD_GET, 3, .stale_before = true, .sent = true,
     .again = false},
    {"stale, POST", END_UPSTREAM_RESET, METHOD_POST, 1, .reused = true, .sent = true, .again = false},
    {"reused, but the response had begun", END_UPSTREAM_RESET, METHOD_GET, 2, .reused = true,
     .response_begun = true, .sent = true, .again = false},
    {"the answer has begun", END_UPSTREAM_RESET, METHOD_GET, 1, .sent = true, .reply = REPLY_HEAD,
     .again = false},
    {"garbage", END_UPSTREAM_BAD_RESPONSE, METHOD_GET, 1, .sent = true, .again = false},
    {"timeout", END_UPSTREAM_TIMEOUT, METHOD_GET, 1, .sent = true, .again = false},
    {"no endpoint", END_NO_ENDPOINT, METHOD_GET, 1, .again = false},
    {"a listed status, GET", END_UPSTREAM_STATUS, METHOD_GET, 1, .sent = true, .response_begun = true,
     .again = true},
    {"a listed status, POST", END_UPSTREAM_STATUS, METHOD_POST, 1, .sent = true, .response_begun = true,
     .again = false},
    {"refused stream, GET", END_UPSTREAM_REFUSED_STREAM, METHOD_GET, 1, .sent = true, .again = true},
    {"refused stream, POST: nothing was processed", END_UPSTREAM_REFUSED_STREAM, METHOD_POST, 1, .sent = true,
     .again = true},
    {"refused stream, POST with its body kept", END_UPSTREAM_REFUSED_STREAM, METHOD_POST, 1, .sent = true,
     .body_bytes = 9, .again = true},
    {"refused stream, POST whose body is lost", END_UPSTREAM_REFUSED_STREAM, METHOD_POST, 1, .sent = true,
     .body_bytes = 9, .replay_lost = true, .again = false},
    {"refused stream for the second time", END_UPSTREAM_REFUSED_STREAM, METHOD_GET, 2, .sent = true,
     .again = false},
};

struct fixture {
    struct retry_settings retries;
    struct upstream_local local;
    struct upstream_link link;
    struct exchange x;
};

static bool is_unsent(const struct upstream_link *link)
{
    (void)link;
    return true;
}

static bool is_sent(const struct upstream_link *link)
{
    (void)link;
    return false;
}

static const struct link_verbs unsent = {.is_unsent = is_unsent}, sent = {.is_unsent = is_sent};

static void fill(struct fixture *f, const struct row *row)
{
    *f = (struct fixture){
        .retries = {.attempts = 1,
                    .retry_on = RETRY_CONNECT_FAILURE | RETRY_REFUSED_STREAM | RETRY_RESET_BEFORE_HEADERS,
                    .budget = 0.2},
        .local = {.calls = 1},
        .link = {.verbs = row->sent ? &sent : &unsent},
        .x = {.attempts = row->attempts,
              .stale_retried = row->stale_before,
              .body_bytes = row->body_bytes,
              .replay_lost = row->replay_lost,
              .reply = row->reply},
    };
    f->x.retries = &f->retries;
    f->x.request.method = row->method;
    f->x.call.local = &f->local;
    f->x.call.link =
        row->cause == END_UPSTREAM_CONNECT_FAILED || row->cause == END_NO_ENDPOINT ? NULL : &f->link;
    f->x.call.reused = row->reused;
    f->x.call.response_begun = row->response_begun;
}

static void test_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(rows); i++) {
        struct fixture f;
        fill(&f, &rows[i]);
        bool again = exchange_may_retry(&f.x, rows[i].cause);
        if (again != rows[i].again)
            fail_msg("%s: %s", rows[i].name, again ? "tried again" : "not tried again");
    }
}

static void test_retry_on_is_heeded(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f, &rows[0]);
    f.retries.retry_on = RETRY_RESET_BEFORE_HEADERS;
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED));
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_REFUSED_STREAM));
    fill(&f, &rows[3]);
    f.retries.retry_on = RETRY_CONNECT_FAILURE;
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_RESET));
    f.x.call.reused = true; // a stale connection is our own mistake
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_RESET));
}

static void test_budget(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f, &rows[0]);
    f.local.calls = 10;
    f.local.retrying = 3;
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED)); // 4 of 10 is more than a fifth
    assert_int_equal(f.local.retrying, 3);
    f.local.calls = 20;
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED));
    assert_int_equal(f.local.retrying, 4);
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED)); // the place is held
    assert_int_equal(f.local.retrying, 4);
    fill(&f, &rows[8]);
    f.local.calls = 10;
    f.local.retrying = 3;
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_RESET)); // stale: takes none
    assert_int_equal(f.local.retrying, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_retry_on_is_heeded),
        cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
