#include "unit.h"

#include "base/check.h"
#include "base/rand.h"
#include "upstream/retry_budget.h"

#include <pthread.h>

// ---- at one time ----

static void test_in_flight(void **state)
{
    (void)state;
    static const struct {
        double budget;
        uint32_t active, allowed;
    } rows[] = {
        {0.2, 1, 3}, {0.2, 15, 3}, {0.2, 19, 3}, {0.2, 20, 4}, {0.2, 1000, 200}, {0.5, 10, 5}, {0, 1000, 0},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct retry_account account = {.earned = 1e9};
        uint32_t taken = 0;
        while (retry_account_take(&account, rows[i].budget, rows[i].active, 0, false, 1))
            taken++;
        assert_int_equal(taken, rows[i].allowed);
        assert_int_equal(account.in_flight, rows[i].allowed);
    }
}

static void test_one_request_has_one_place(void **state)
{
    (void)state;
    struct retry_account account = {0};
    assert_true(retry_account_take(&account, 0.2, 1, 1, false, 1));
    for (unsigned i = 1; i < RETRY_RESERVE; i++)
        assert_true(retry_account_take(&account, 0.2, 1, 1, true, 1));
    assert_false(retry_account_take(&account, 0.2, 1, 1, true, 1)); // it pays for each
    assert_int_equal(account.in_flight, 1);
}

// ---- over a span ----

// Every request fails at once, and wants a retry.
static uint32_t retries_of(struct retry_account *account, double budget, uint64_t *begun, uint32_t requests,
                           uint64_t gap_us, uint64_t *now_us)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < requests; i++, *now_us += gap_us) {
        ++*begun;
        if (!retry_account_take(account, budget, 1, *begun, false, *now_us))
            continue;
        taken++;
        account->in_flight--; // over before the next request comes
    }
    return taken;
}

static void test_a_failing_upstream_gets_a_fifth_more(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint64_t begun = 0, now_us = 1;
    assert_in_range(retries_of(&account, 0.2, &begun, 1000, 100, &now_us), 199, 201);
    assert_in_range(retries_of(&account, 0.2, &begun, 100000, 100, &now_us), 19999, 20010);
    assert_in_range(retries_of(&account, 0.05, &begun, 10000, 100, &now_us), 499, 502);
}

static void test_quiet_times_save_little(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint64_t begun = 10000000, now_us = UINT64_C(3600000000); // an hour without a failure
    uint32_t taken = retries_of(&account, 0.2, &begun, 1000, 100, &now_us);
    assert_in_range(taken, 199, 201);
}

static void test_a_reserve_for_who_is_asked_now_and_then(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint64_t begun = 0, now_us = 1;
    // one request a second: each may be tried again
    assert_int_equal(retries_of(&account, 0.2, &begun, 100, 1000000, &now_us), 100);
    // then many at once
    assert_in_range(retries_of(&account, 0.2, &begun, 1000, 100, &now_us), 190, 200);
}

// Two workers whose clocks are a turn apart take by turns: no time passes by that.
static void test_a_clock_that_is_behind_lends_nothing(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint32_t taken = 0;
    for (uint64_t i = 0; i < 100; i++)
        taken += retry_account_take(&account, 0.2, 1, 0, true, 1000000 + i % 2) != RETRY_REFUSED;
    assert_int_equal(taken, RETRY_RESERVE);
}

static void test_few_requests_are_all_tried_again(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint64_t begun = 0, now_us = 1;
    assert_int_equal(retries_of(&account, 0.2, &begun, 10, 100, &now_us), 10);
    assert_int_equal(retries_of(&account, 0.2, &begun, 40, 100, &now_us), 0);
    assert_int_equal(retries_of(&account, 0.2, &begun, 50, 100, &now_us), 10);
}

static void test_no_bound_and_nothing(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint64_t begun = 0, now_us = 1;
    assert_int_equal(retries_of(&account, 1.0, &begun, 1000, 1, &now_us), 1000);
    assert_int_equal(retries_of(&account, 0.0, &begun, 1000, 1, &now_us), 0);
}

// ---- what was not made ----

static void test_what_was_not_made_costs_nothing(void **state)
{
    (void)state;
    static const struct {
        double budget, earned, lent;
        enum retry_payment payment;
    } rows[] = {{0.2, 1, 0, RETRY_EARNED},
                {0.2, 0.9, 3, RETRY_LENT},
                {0.2, -9, 9, RETRY_LENT},
                {1, 0, 0, RETRY_FREE}};
    for (size_t i = 0; i < countof(rows); i++)
        for (unsigned was_more = 0; was_more < 2; was_more++) {
            struct retry_account account = {
                .earned = rows[i].earned, .lent = rows[i].lent, .in_flight = 2, .at_us = 1};
            for (unsigned n = 0; n < 100; n++) {
                enum retry_payment paid = retry_account_take(&account, rows[i].budget, 1, 0, was_more, 1);
                assert_int_equal(paid, rows[i].payment);
                retry_account_give_back(&account, paid, was_more);
            }
            assert_float_equal(account.earned, rows[i].earned, 1e-9);
            assert_float_equal(account.lent, rows[i].lent, 1e-9);
            assert_int_equal(account.in_flight, 2);
        }
}

// The reserve has let it off already: it is not more than full.
static void test_what_comes_back_late_is_no_gain(void **state)
{
    (void)state;
    struct retry_account account = {0};
    uint64_t begun = 0, now_us = 1;
    enum retry_payment paid = retry_account_take(&account, 0.2, 1, 0, false, now_us);
    assert_int_equal(paid, RETRY_LENT);
    now_us += 60000000;
    assert_true(retry_account_take(&account, 0.2, 1, 0, true, now_us));
    retry_account_give_back(&account, paid, false);
    now_us += 60000000;
    assert_in_range(retries_of(&account, 0.2, &begun, 1000, 100, &now_us), 198, 201);
}

// Random requests, of which any may want a retry at any time, and some do not make it: in every span the
// promise holds.
static void test_every_span(void **state)
{
    (void)state;
    enum { EVENTS = 3000, MOST = 200 };
    static struct {
        uint64_t begun, at_us;
        uint32_t active, taken;
    } seen[EVENTS];
    struct rand rand;
    rand_init(&rand);
    for (unsigned round = 0; round < 5; round++) {
        struct retry_account account = {0};
        uint64_t begun = 0, now_us = 1;
        uint32_t active = 0, taken = 0;
        for (unsigned i = 0; i < EVENTS; i++) {
            now_us += rand_below(&rand, 20000);
            uint32_t change = (uint32_t)rand_below(&rand, 10);
            if (rand_below(&rand, 2) && active + change < MOST) {
                active += change;
                begun += change;
            } else {
                active -= change < active ? change : active;
            }
            enum retry_payment paid =
                active ? retry_account_take(&account, 0.2, active, begun, false, now_us) : RETRY_REFUSED;
            if (paid && rand_below(&rand, 3) == 0)
                retry_account_give_back(&account, paid, false);
            else
                taken += paid != RETRY_REFUSED;
            account.in_flight = (uint32_t)rand_below(&rand, account.in_flight + 1);
            seen[i].begun = begun;
            seen[i].at_us = now_us;
            seen[i].active = active;
            seen[i].taken = taken;
        }
        for (unsigned i = 0; i < EVENTS; i++)
            for (unsigned k = i + 1; k < EVENTS; k++) {
                double under_way = seen[i].active + (double)(seen[k].begun - seen[i].begun);
                double seconds = (double)(seen[k].at_us - seen[i].at_us) / 1e6;
                double most = 1 + RETRY_RESERVE + seconds + 0.2 * under_way;
                assert_true(seen[k].taken - seen[i].taken <= most + 1e-6);
            }
    }
}

// ---- over all workers ----

static void test_workers_share_it(void **state)
{
    (void)state;
    struct retry_budget *budget = retry_budget_at(0);
    assert_ptr_equal(retry_budget_at(0), budget);
    struct retry_share shares[4] = {0};
    struct retry_place places[40] = {0};
    for (unsigned i = 0; i < countof(shares); i++)
        retry_share_join(&shares[i], budget);
    for (unsigned i = 0; i < countof(places); i++)
        retry_place_enter(&places[i], &shares[i % countof(shares)]);
    unsigned taken = 0;
    for (unsigned i = 0; i < countof(places); i++)
        taken += retry_place_take(&places[i], 0.2, 1);
    assert_int_equal(taken, 8); // a fifth of all 40, not three for each worker
    for (unsigned i = 0; i < countof(places); i++)
        retry_place_leave(&places[i]);
    retry_place_leave(&places[0]); // harmless
    for (unsigned i = 0; i < countof(shares); i++)
        assert_int_equal(shares[i].active, 0);
    retry_place_enter(&places[0], &shares[0]);
    assert_true(retry_place_take(&places[0], 0.2, 1)); // the places are free again
    retry_place_leave(&places[0]);
    for (unsigned i = 0; i < countof(shares); i++)
        retry_share_leave(&shares[i]);
}

static void test_what_one_worker_gives_back_another_may_take(void **state)
{
    (void)state;
    struct retry_share shares[2] = {0};
    struct retry_place first = {0}, second = {0}, third = {0}, other = {0};
    for (unsigned i = 0; i < countof(shares); i++)
        retry_share_join(&shares[i], retry_budget_at(6));
    retry_place_give_back(&first); // harmless
    retry_place_enter(&first, &shares[0]);
    retry_place_enter(&second, &shares[0]);
    retry_place_enter(&third, &shares[0]);
    retry_place_enter(&other, &shares[1]);
    assert_true(retry_place_take(&first, 0.2, 1) && retry_place_take(&second, 0.2, 1));
    assert_true(retry_place_take(&third, 0.2, 1));
    assert_false(retry_place_take(&other, 0.2, 1)); // three at a time
    retry_place_give_back(&other);                  // it has paid nothing
    assert_false(retry_place_take(&other, 0.2, 1));
    retry_place_give_back(&first);
    retry_place_give_back(&first); // once
    assert_false(first.in_flight);
    assert_true(retry_place_take(&other, 0.2, 1));
    assert_false(retry_place_take(&first, 0.2, 1));
    assert_true(retry_place_take(&other, 0.2, 1)); // a second one of the same request
    retry_place_give_back(&other);
    assert_true(other.in_flight);
    retry_place_leave(&other);
    retry_place_leave(&second);
    retry_place_leave(&third);
    retry_place_leave(&first);
    for (unsigned i = 0; i < countof(shares); i++)
        retry_share_leave(&shares[i]);
}

static void test_a_worker_that_leaves_takes_its_count_along(void **state)
{
    (void)state;
    struct retry_budget *budget = retry_budget_at(5);
    struct retry_share first = {0}, second = {0};
    struct retry_place place = {0};
    retry_share_join(&first, budget);
    retry_share_join(&first, budget);
    for (unsigned i = 0; i < 100; i++) {
        retry_place_enter(&place, &first);
        (void)retry_place_take(&place, 0.2, 1);
        retry_place_leave(&place);
    }
    retry_share_leave(&first);
    retry_share_join(&second, budget);
    unsigned taken = 0;
    for (unsigned i = 0; i < 100; i++) {
        retry_place_enter(&place, &second);
        taken += retry_place_take(&place, 0.2, 1);
        retry_place_leave(&place);
    }
    assert_in_range(taken, 19, 21);
    retry_share_leave(&second);
}

static void test_a_request_changes_over(void **state)
{
    (void)state;
    struct retry_share from = {0}, to = {0};
    retry_share_join(&from, retry_budget_at(1));
    retry_share_join(&to, retry_budget_at(2));
    struct retry_place place = {0};
    retry_place_enter(&place, &from);
    assert_true(retry_place_take(&place, 0.2, 1));
    retry_place_enter(&place, &to);
    assert_int_equal(from.active, 0);
    assert_int_equal(to.active, 1);
    assert_false(place.in_flight);
    retry_place_enter(&place, &to); // stays
    assert_int_equal(to.begun, 1);
    retry_place_leave(&place);
    retry_share_leave(&from);
    retry_share_leave(&to);
}

enum { ROUNDS = 20000, THREADS = 4 };
static struct retry_budget *contended;
static atomic_uint granted;

static void *fail_all_the_time(void *unused)
{
    (void)unused;
    struct retry_share share = {0};
    retry_share_join(&share, contended);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct retry_place place = {0};
        retry_place_enter(&place, &share);
        if (retry_place_take(&place, 0.2, 1)) {
            if (i % 2)
                retry_place_give_back(&place);
            else
                atomic_fetch_add(&granted, 1);
        }
        retry_place_leave(&place);
    }
    retry_share_leave(&share);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    contended = retry_budget_at(3);
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fail_all_the_time, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(granted, ROUNDS * THREADS / 6, ROUNDS * THREADS / 5 + RETRY_RESERVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_one_request_has_one_place),
        cmocka_unit_test(test_a_failing_upstream_gets_a_fifth_more),
        cmocka_unit_test(test_quiet_times_save_little),
        cmocka_unit_test(test_a_reserve_for_who_is_asked_now_and_then),
        cmocka_unit_test(test_a_clock_that_is_behind_lends_nothing),
        cmocka_unit_test(test_few_requests_are_all_tried_again),
        cmocka_unit_test(test_no_bound_and_nothing),
        cmocka_unit_test(test_what_was_not_made_costs_nothing),
        cmocka_unit_test(test_what_comes_back_late_is_no_gain),
        cmocka_unit_test(test_every_span),
        cmocka_unit_test(test_workers_share_it),
        cmocka_unit_test(test_what_one_worker_gives_back_another_may_take),
        cmocka_unit_test(test_a_worker_that_leaves_takes_its_count_along),
        cmocka_unit_test(test_a_request_changes_over),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
