#include "unit.h"

#include "base/rand.h"
#include "limit/bucket.h"

enum { SECOND = 1000000 };
#define MINUTE (60 * UINT64_C(1000000))
#define DAY    (86400 * UINT64_C(1000000))

static struct bucket made(uint64_t tokens, uint64_t period_us, uint64_t burst)
{
    struct bucket bucket;
    assert_true(bucket_compile(&bucket, tokens, period_us, burst, false));
    return bucket;
}

// Takes if it may.
static bool take(const struct bucket *bucket, uint64_t *state, uint64_t now_us, uint64_t cost)
{
    if (bucket_wait_us(bucket, *state, now_us, cost))
        return false;
    *state = bucket_charge(bucket, *state, now_us, cost);
    return true;
}

static void test_a_burst_then_the_rate(void **unused)
{
    (void)unused;
    struct bucket bucket = made(10, SECOND, 20);
    uint64_t state = 0, now = 5000 * (uint64_t)SECOND;
    assert_int_equal(bucket_remaining(&bucket, state, now), 20);
    assert_true(bucket_is_full(state, now));
    for (int i = 0; i < 20; i++)
        assert_true(take(&bucket, &state, now, 1));
    assert_false(take(&bucket, &state, now, 1));
    assert_false(bucket_is_full(state, now));
    assert_int_equal(bucket_remaining(&bucket, state, now), 0);
    assert_int_equal(bucket_wait_us(&bucket, state, now, 1), 100000);
    assert_int_equal(bucket_wait_us(&bucket, state, now, 20), 2000000);
    assert_int_equal(bucket_wait_us(&bucket, state, now, 21), BUCKET_NEVER);
    assert_int_equal(bucket_full_us(&bucket, state, now), 2000000);
    assert_false(take(&bucket, &state, now + 99999, 1));
    assert_true(take(&bucket, &state, now + 100000, 1));
    assert_int_equal(bucket_full_us(&bucket, state, now + 100000), 2000000);
    assert_true(bucket_is_full(state, now + 2100000));
    assert_int_equal(bucket_remaining(&bucket, state, now + DAY), 20); // and never more
}

// A limit of another server's rounds 3/s to 333334 µs: after a day it has lost a token, or admitted one too
// many.
static void test_rates_that_do_not_divide_never_drift(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t tokens, period_us;
    } rates[] = {{3, SECOND}, {7, MINUTE}, {999, SECOND}, {32749, SECOND}, {1000, SECOND}, {1000000, SECOND}};
    for (size_t i = 0; i < countof(rates); i++) {
        struct bucket bucket = made(rates[i].tokens, rates[i].period_us, 1);
        uint64_t state = 0, now = DAY, admitted = 0;
        while (admitted < 100000) { // as soon as ever it may
            now += bucket_wait_us(&bucket, state, now, 1);
            assert_true(take(&bucket, &state, now, 1));
            admitted++;
        }
        // Whole microseconds, each waited for in full: the sum would be late by up to a microsecond a token.
        struct bucket wide = made(rates[i].tokens, rates[i].period_us, 100000);
        uint64_t filling = DAY, full = bucket_charge(&wide, 0, filling, 100000);
        unsigned __int128 exact = (unsigned __int128)100000 * rates[i].period_us;
        uint64_t expected = (uint64_t)((exact + rates[i].tokens - 1) / rates[i].tokens);
        assert_int_equal(bucket_full_us(&wide, full, filling), expected);
        for (int n = 0; n < 100000; n++)
            full = bucket_give(&wide, full, 1);
        assert_int_equal(full, filling << BUCKET_PART_BITS); // one by one, and nothing is left over
    }
}

// Rational numbers without rounding: tokens × period, refilled by tokens each microsecond.
struct reference {
    unsigned __int128 level, period_us, tokens, burst;
    uint64_t at_us;
};

static bool reference_take(struct reference *r, uint64_t now_us, uint64_t cost)
{
    r->level += (unsigned __int128)(now_us - r->at_us) * r->tokens;
    if (r->level > r->burst * r->period_us)
        r->level = r->burst * r->period_us;
    r->at_us = now_us;
    if (r->level < cost * r->period_us)
        return false;
    r->level -= cost * r->period_us;
    return true;
}

static void test_the_same_decisions_as_rational_numbers(void **unused)
{
    (void)unused;
    static const uint64_t periods[] = {SECOND, MINUTE, 60 * MINUTE, DAY};
    struct rand rand;
    rand_init_seed(&rand, 20240501);
    for (int round = 0; round < 3000; round++) {
        uint64_t period = periods[rand_below(&rand, 4)];
        uint64_t tokens = 1 + rand_below(&rand, rand_below(&rand, 2) ? 20 : 32768);
        uint64_t burst = 1 + rand_below(&rand, rand_below(&rand, 2) ? 5 : 1000);
        struct bucket bucket;
        if (!bucket_compile(&bucket, tokens, period, burst, false))
            continue; // takes longer than a year to fill
        uint64_t now = 1 + rand_below(&rand, 1000000000), state = 0;
        struct reference reference = {(unsigned __int128)burst * period, period, tokens, burst, now};
        uint64_t usual = period / tokens + 1;
        for (int i = 0; i < 300; i++) {
            uint64_t cost = rand_below(&rand, 8) ? 1 : rand_below(&rand, (uint32_t)burst + 2);
            uint64_t wait = bucket_wait_us(&bucket, state, now, cost);
            bool could = reference_take(&reference, now, cost);
            if (could != !wait)
                fail_msg("%llu/%llu burst %llu cost %llu: %s", (unsigned long long)tokens,
                         (unsigned long long)period, (unsigned long long)burst, (unsigned long long)cost,
                         could ? "refused" : "let in");
            if (could)
                state = bucket_charge(&bucket, state, now, cost);
            assert_int_equal(bucket_remaining(&bucket, state, now), reference.level / period);
            if (wait && wait != BUCKET_NEVER && rand_below(&rand, 2)) { // to the very microsecond
                struct reference early = reference;
                assert_false(reference_take(&early, now + wait - 1, cost));
                assert_true(reference_take(&early, now + wait, cost));
                now += wait - rand_below(&rand, 2);
            } else {
                now += rand_below(&rand, (uint32_t)(usual > 2000000000 ? 2000000000 : 2 * usual));
            }
        }
    }
}

static void test_very_high_odd_rates_are_a_little_low(void **unused)
{
    (void)unused;
    struct bucket bucket = made(999983, SECOND, 999983); // a prime
    uint64_t full = bucket_charge(&bucket, 0, DAY, 999983);
    uint64_t us = bucket_full_us(&bucket, full, DAY);
    assert_in_range(us, 1000000, 1000031);
}

static void test_bounds(void **unused)
{
    (void)unused;
    struct bucket bucket;
    assert_false(bucket_compile(&bucket, 0, SECOND, 1, false));
    assert_false(bucket_compile(&bucket, 1, 0, 1, false));
    assert_false(bucket_compile(&bucket, 1, SECOND, 0, false));
    assert_false(bucket_compile(&bucket, 1000001, SECOND, 1, false));
    assert_false(bucket_compile(&bucket, 1, DAY + 1, 1, false));
    assert_true(bucket_compile(&bucket, 1, DAY, 366, false));
    assert_false(bucket_compile(&bucket, 1, DAY, 367, false));
    assert_false(bucket_compile(&bucket, 1, DAY, UINT64_MAX, false));
    assert_true(bucket_compile(&bucket, 32749, SECOND, UINT64_C(1000000000000), true));
    uint64_t now = 17 * 365 * DAY / 2,
             state = bucket_charge(&bucket, 0, now, UINT64_MAX); // nothing overflows
    assert_int_equal(bucket_remaining(&bucket, state, now), 0);
    assert_int_equal(bucket_remaining(&bucket, state, now + 2 * BUCKET_SPAN_MAX_US), 1000000000000);
}

static void test_debts_are_bounded_and_paid(void **unused)
{
    (void)unused;
    struct bucket bucket;
    assert_true(bucket_compile(&bucket, 10, SECOND, 20, true));
    uint64_t now = DAY, state = bucket_charge(&bucket, 0, now, 25);
    assert_int_equal(bucket_remaining(&bucket, state, now), 0);
    assert_int_equal(bucket_wait_us(&bucket, state, now, 1), 600000);
    state = bucket_charge(&bucket, state, now, 1000);
    assert_int_equal(bucket_wait_us(&bucket, state, now, 1), 2100000); // one burst is owed, no more
    struct bucket strict = made(10, SECOND, 20);
    state = bucket_charge(&strict, 0, now, 1000);
    assert_int_equal(bucket_wait_us(&strict, state, now, 1), 100000);
}

static void test_what_is_given_back_was_never_taken(void **unused)
{
    (void)unused;
    struct bucket bucket = made(7, SECOND, 9);
    uint64_t now = DAY, state = bucket_charge(&bucket, 0, now, 3);
    uint64_t after = bucket_charge(&bucket, state, now + 5, 4);
    assert_int_equal(bucket_give(&bucket, after, 4), state);
    assert_int_equal(bucket_give(&bucket, 0, 4), 0);
}

static void test_another_rate_goes_on_with_the_same_time(void **unused)
{
    (void)unused;
    uint64_t now = DAY, state = 0;
    struct bucket slow = made(10, SECOND, 20), fast = made(1000, SECOND, 2000), odd = made(7, SECOND, 14);
    state = bucket_charge(&slow, state, now, 10); // half of it
    assert_int_equal(bucket_remaining(&fast, state, now), 1000);
    assert_int_equal(bucket_remaining(&odd, state, now), 7);
    state = bucket_charge(&odd, state, now, 1); // leaves six sevenths of a microsecond
    assert_int_equal(bucket_remaining(&slow, state, now), 8);
    assert_int_equal(bucket_remaining(&odd, state, now), 6);
    // From one an hour to a thousand a second: an empty bucket is empty, not locked for hours.
    struct bucket hourly = made(1, 60 * MINUTE, 10);
    state = bucket_charge(&hourly, 0, now, 10);
    uint64_t settled = bucket_settle(&fast, state, now);
    assert_int_equal(bucket_remaining(&fast, settled, now), 0);
    assert_int_equal(bucket_full_us(&fast, settled, now), 2000000);
    assert_int_equal(bucket_settle(&hourly, state, now), state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_then_the_rate),
        cmocka_unit_test(test_rates_that_do_not_divide_never_drift),
        cmocka_unit_test(test_the_same_decisions_as_rational_numbers),
        cmocka_unit_test(test_very_high_odd_rates_are_a_little_low),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_debts_are_bounded_and_paid),
        cmocka_unit_test(test_what_is_given_back_was_never_taken),
        cmocka_unit_test(test_another_rate_goes_on_with_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
