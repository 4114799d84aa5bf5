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
    const char *key; // Idempotency-Key
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
    {"reset, POST with a key", END_UPSTREAM_RESET, METHOD_POST, 1, .sent = true, .key = "k", .again = true},
    {"reset, POST with a key, whose body is lost", END_UPSTREAM_RESET, METHOD_POST, 1, .sent = true,
     .body_bytes = 9, .replay_lost = true, .key = "k", .again = false},
    {"reset, PATCH with a key", END_UPSTREAM_RESET, METHOD_PATCH, 1, .sent = true, .key = "k", .again = true},
    {"reset, POST with an empty key", END_UPSTREAM_RESET, METHOD_POST, 1, .sent = true, .key = "",
     .again = false},
    {"reset, another method with a key", END_UPSTREAM_RESET, METHOD_OTHER, 1, .sent = true, .key = "k",
     .again = false},
    {"a listed status, POST with a key", END_UPSTREAM_STATUS, METHOD_POST, 1, .sent = true,
     .response_begun = true, .key = "k", .again = true},
    {"refused stream for the second time", END_UPSTREAM_REFUSED_STREAM, METHOD_GET, 2, .sent = true,
     .again = false},
};

struct fixture {
    struct retry_settings retries;
    struct upstream_link link;
    struct retry_budget *budget;
    struct retry_share share;
    struct header key;
    struct worker worker;
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
    static uint32_t index; // of upstreams: each row has a budget of its own
    *f = (struct fixture){
        .retries = {.attempts = 1,
                    .retry_on = RETRY_CONNECT_FAILURE | RETRY_REFUSED_STREAM | RETRY_RESET_BEFORE_HEADERS,
                    .budget = 0.2,
                    .backoff_us = 1000},
        .link = {.verbs = row->sent ? &sent : &unsent},
        .budget = retry_budget_at(index++),
        .x = {.attempts = row->attempts,
              .stale_retried = row->stale_before,
              .body_bytes = row->body_bytes,
              .replay_lost = row->replay_lost,
              .reply = row->reply},
    };
    f->worker.loop.now_us = 1000000;
    rand_init(&f->worker.rand);
    f->x.worker = &f->worker;
    f->x.call = &f->x.first_call;
    f->x.retries = &f->retries;
    f->x.request.method = row->method;
    if (row->key) {
        f->key = (struct header){STR("Idempotency-Key"), str_of(row->key), HEADER_IDEMPOTENCY_KEY};
        f->x.request.headers = (struct headers){&f->key, 1, 1};
    }
    f->x.repeatable = http_request_repeatable(&f->x.request);
    f->x.call->link =
        row->cause == END_UPSTREAM_CONNECT_FAILED || row->cause == END_NO_ENDPOINT ? NULL : &f->link;
    f->x.call->reused = row->reused;
    f->x.call->response_begun = row->response_begun;
    retry_share_join(&f->share, f->budget);
    retry_place_enter(&f->x.retry_place, &f->share);
}

static void clean(struct fixture *f)
{
    retry_place_leave(&f->x.retry_place);
    retry_share_leave(&f->share);
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
        clean(&f);
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
    clean(&f);
    fill(&f, &rows[3]);
    f.retries.retry_on = RETRY_RESPONSE_TIMEOUT;
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_RESET));
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_TIMEOUT));
    f.x.retry_at_us = 0;
    f.x.reply = REPLY_HEAD; // it stopped within its answer
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_TIMEOUT));
    clean(&f);
    fill(&f, &rows[3]);
    f.retries.retry_on = RETRY_CONNECT_FAILURE;
    assert_false(exchange_may_retry(&f.x, END_UPSTREAM_RESET));
    f.x.call->reused = true; // a stale connection is our own mistake
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_RESET));
    clean(&f);
}

static void test_never_past_the_deadline(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f, &rows[0]);
    uint64_t now_us = f.worker.loop.now_us;
    for (unsigned i = 0; i < 1000; i++) {
        f.x.retry_at_us = 0;
        f.x.deadline_us = now_us + 500; // jitter: half of the back-off is the least there is
        assert_false(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED));
    }
    assert_false(f.x.retry_place.in_flight); // nothing was paid for it
    f.x.deadline_us = now_us + 1501;
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED));
    assert_in_range(f.x.retry_at_us, now_us + 500, now_us + 1500);
    clean(&f);
}

static void test_one_answer_for_each_attempt(void **state)
{
    (void)state;
    struct fixture f;
    fill(&f, &rows[0]);
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED));
    for (unsigned i = 0; i < 10; i++) // paid for once
        assert_true(exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED));
    f.retries.attempts = 10;
    unsigned more = 0;
    for (f.x.retry_at_us = 0; exchange_may_retry(&f.x, END_UPSTREAM_CONNECT_FAILED); f.x.retry_at_us = 0)
        more++;
    assert_int_equal(more, RETRY_RESERVE - 1);
    *f.x.call = (struct upstream_call){.link = &f.link, .reused = true};
    assert_true(exchange_may_retry(&f.x, END_UPSTREAM_RESET)); // stale: free
    clean(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_retry_on_is_heeded),
        cmocka_unit_test(test_never_past_the_deadline),
        cmocka_unit_test(test_one_answer_for_each_attempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
