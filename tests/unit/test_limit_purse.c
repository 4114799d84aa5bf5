// Purses: how many tokens they hold, that none is spent twice however many threads contend, and that none
// gets lost but by what makes them void.
#include "unit.h"

#include "base/rand.h"
#include "limit/purse.h"

#include <pthread.h>
#include <stdatomic.h>

enum { MS = 1000, SECOND = 1000000 };

static const struct hash128 key = {.lo = 7, .hi = 9};

// ---- how many ----

static void test_demand(void **state)
{
    (void)state;
    struct purse_pace pace = {.began_us = SECOND};
    assert_int_equal(purse_demand(&pace, 0, SECOND), 0);
    assert_int_equal(purse_demand(&pace, 40, SECOND + 10 * MS), 40); // in 10 ms, and not 400 in 100
    assert_int_equal(purse_demand(&pace, 60, SECOND + 99 * MS), 60);
    assert_int_equal(purse_demand(&pace, 100, SECOND + 200 * MS), 50); // begins anew
    assert_int_equal(purse_demand(&pace, 120, SECOND + 210 * MS), 50); // of the time before
    assert_int_equal(purse_demand(&pace, 160, SECOND + 250 * MS), 60);
    assert_int_equal(purse_demand(&pace, 160, SECOND + 900 * MS), 8);
    assert_int_equal(purse_demand(&pace, 161, 2 * SECOND), 1);
    assert_int_equal(purse_demand(&pace, 162, 3 * SECOND), 0); // now and then is none
    // The count begins again; the clocks of threads differ.
    pace = (struct purse_pace){.began_us = SECOND, .spent = (1 << PURSE_SPENT_BITS) - 10};
    assert_int_equal(purse_demand(&pace, 15, SECOND + 10 * MS), 25);
    assert_int_equal(purse_demand(&pace, 15, SECOND - 10 * MS), 25);
}

static void test_batches(void **state)
{
    (void)state;
    assert_int_equal(purse_most(1000, 1, 1), 500);
    assert_int_equal(purse_most(1000, 4, 1), 125);
    assert_int_equal(purse_most(1, 2, 1), 1);
    assert_int_equal(purse_most(20, 2, 10), 10);
    assert_int_equal(purse_most(UINT64_C(1) << 40, 1, 1), PURSE_TOKENS_MAX);

    assert_int_equal(purse_batch(0, 0, 100, 1), 0);
    assert_int_equal(purse_batch(7, 0, 100, 1), 7);
    assert_int_equal(purse_batch(700, 30, 100, 1), 70);
    assert_int_equal(purse_batch(700, 100, 100, 1), 0);
    assert_int_equal(purse_batch(700, 120, 100, 1), 0); // given back by those who had spent them
    assert_int_equal(purse_batch(1, 0, 10, 5), 5);      // one request's
    assert_int_equal(purse_batch(1, 3, 5, 5), 2);       // with what is there it does for one
    assert_int_equal(purse_batch(9, 0, 4, 5), 0);

    uint32_t extras[PURSE_EXTRAS];
    assert_int_equal(purse_extras(0, 0, 1, extras), 0);
    assert_int_equal(purse_extras(3, 0, 1, extras), 2);
    assert_int_equal(extras[0] * 10 + extras[1], 31);
    assert_int_equal(purse_extras(80, 0, 1, extras), PURSE_EXTRAS);
    assert_int_equal(extras[PURSE_EXTRAS - 1], 10);
    assert_int_equal(purse_extras(80, 0, 30, extras), 2); // less would be of no use
    assert_int_equal(purse_extras(80, 15, 30, extras), 3);

    assert_int_equal(purse_low_water(80, 1), 20);
    assert_int_equal(purse_low_water(2, 1), 1);
    assert_int_equal(purse_low_water(8, 5), 5);
    assert_int_equal(purse_low_water(8, UINT64_C(1) << 40), PURSE_TOKENS_MAX);
}

// Words against plain numbers.
static void test_words(void **state)
{
    (void)state;
    struct rand rand;
    uint64_t word = 0, next;
    uint32_t tokens = 0, spent = 0, generation = 0;
    bool is_held = false;
    rand_init_seed(&rand, 3);
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t n = rand_below(&rand, rand_below(&rand, 2) ? 100 : PURSE_TOKENS_MAX);
        bool is_back = rand_below(&rand, 2);
        switch (rand_below(&rand, 4)) {
        case 0:
            assert_int_equal(purse_word_spend(word, n, &next), n <= tokens);
            if (n > tokens)
                break;
            word = next;
            tokens -= n;
            spent += n;
            break;
        case 1:
            assert_int_equal(purse_word_add(word, n, PURSE_TOKENS_MAX, is_back, &next),
                             tokens + n <= PURSE_TOKENS_MAX);
            if (tokens + n > PURSE_TOKENS_MAX)
                break;
            word = next;
            tokens += n;
            spent -= is_back ? n : 0;
            is_held = true;
            break;
        case 2:
            word = purse_word_count(word, n);
            spent += n;
            break;
        case 3:
            if (rand_below(&rand, 10))
                break;
            word = purse_word_void(word);
            tokens = 0;
            generation++;
        }
        assert_int_equal(purse_word_tokens(word), tokens);
        assert_int_equal(purse_word_spent(word), spent & ((1 << PURSE_SPENT_BITS) - 1));
        assert_int_equal(purse_word_generation(word), generation & 0x7fff);
        assert_int_equal(!!(word & PURSE_WORD_HELD), is_held);
        assert_false(word & PURSE_WORD_BUSY);
    }
    assert_false(purse_word_spend(word, UINT64_MAX, &next));
}

// ---- the table ----

static enum purse_put buy(struct purses *purses, struct hash128 of, uint32_t tokens, uint64_t ends_us,
                          struct purse **purse)
{
    struct purchase purchase;
    purse_begin(purses, of, SECOND, 1, &purchase);
    assert_non_null(purchase.purse);
    *purse = purchase.purse;
    return purse_end(&purchase, tokens, 0, ends_us);
}

static uint32_t tokens_of(struct purses *purses, struct hash128 of, uint64_t now_us)
{
    struct purse_view view = {0};
    purse_look(purses, of, now_us, &view);
    return view.tokens;
}

static void test_buying_and_spending(void **state)
{
    (void)state;
    struct purses *purses = purses_new(8);
    struct purse_view view;
    struct purchase first, second;
    struct purse *purse;
    assert_false(purse_look(purses, key, SECOND, &view));
    assert_false(purse_spend(purses, key, SECOND, 1, &view));
    purse_begin(purses, key, SECOND, 5, &first);
    assert_non_null(first.purse);
    assert_int_equal(first.demand, 0);
    purse_begin(purses, key, SECOND, 5, &second);
    assert_null(second.purse); // one at a time
    assert_int_equal(purse_end(&first, 0, 0, PURSE_NO_END), PURSE_REFUSED);
    purse_begin(purses, key, SECOND, 5, &second);
    assert_int_equal(second.demand, 10);
    assert_int_equal(purse_end(&second, 20, 5, PURSE_NO_END), PURSE_PUT_HOLD);
    assert_true(purse_spend(purses, key, SECOND, 17, &view));
    assert_int_equal(view.tokens, 3);
    assert_int_equal(view.low, 5);
    assert_false(purse_spend(purses, key, SECOND, 4, &view));
    assert_int_equal(purse_give(purses, key, 17, 20, PURSE_NO_END, &purse), PURSE_PUT);
    assert_int_equal(purse_give(purses, key, 1, 20, PURSE_NO_END, &purse), PURSE_REFUSED); // it is full
    purse_begin(purses, key, SECOND, 0, &second);
    assert_int_equal(second.demand, 15); // what came back was not used
    assert_int_equal(second.tokens, 20);
    assert_int_equal(purse_end(&second, 0, 0, PURSE_NO_END), PURSE_REFUSED);
    purses_free(purses);
}

static void test_what_becomes_void(void **state)
{
    (void)state;
    struct purses *purses = purses_new(8);
    struct purchase purchase;
    struct purse *purse;
    assert_int_equal(buy(purses, key, 10, PURSE_NO_END, &purse), PURSE_PUT_HOLD);
    purse_begin(purses, key, SECOND, 1, &purchase);
    purse_void(purses, key);
    assert_int_equal(tokens_of(purses, key, SECOND), 0);
    assert_int_equal(purse_end(&purchase, 30, 0, PURSE_NO_END), PURSE_REFUSED); // of the bucket before
    assert_int_equal(tokens_of(purses, key, SECOND), 0);
    assert_int_equal(buy(purses, key, 10, PURSE_NO_END, &purse), PURSE_PUT); // held all the time
    purses_free(purses);
}

static void test_windows(void **state)
{
    (void)state;
    enum { END_US = 60 * SECOND };
    struct purses *purses = purses_new(8);
    struct purse *purse;
    struct purse_view view;
    assert_int_equal(buy(purses, key, 10, END_US, &purse), PURSE_PUT_HOLD);
    assert_int_equal(buy(purses, key, 10, END_US - 1000, &purse), PURSE_PUT); // told again
    assert_int_equal(purse_ends_us(purse), END_US - 1000);
    assert_int_equal(tokens_of(purses, key, END_US - 1000 - PURSE_EDGE_US - 1), 20);
    assert_int_equal(tokens_of(purses, key, END_US - 1000 - PURSE_EDGE_US), 0);
    assert_false(purse_spend(purses, key, END_US, 1, &view));
    assert_int_equal(purse_give(purses, key, 1, 50, END_US + 60 * SECOND, &purse), PURSE_REFUSED);
    assert_int_equal(buy(purses, key, 3, END_US + 60 * SECOND, &purse), PURSE_PUT); // the next window
    assert_int_equal(tokens_of(purses, key, END_US), 3);
    assert_int_equal(purse_give(purses, key, 1, 50, END_US, &purse), PURSE_REFUSED); // of the one before
    purses_free(purses);
}

static void test_letting_go(void **state)
{
    (void)state;
    struct purses *purses = purses_new(8);
    struct purse *purse;
    struct purse_view view;
    struct purchase purchase;
    uint64_t seen = 0;
    uint32_t tokens = 0;
    buy(purses, key, 10, PURSE_NO_END, &purse);
    assert_false(purse_release(purse, false, &seen, &tokens)); // the first look
    assert_true(purse_spend(purses, key, SECOND, 1, &view));
    assert_false(purse_release(purse, false, &seen, &tokens));
    purse_begin(purses, key, SECOND, 0, &purchase);
    assert_false(purse_release(purse, false, &seen, &tokens));
    assert_false(purse_release(purse, false, &seen, &tokens)); // somebody is buying
    purse_end(&purchase, 0, 0, PURSE_NO_END);
    assert_false(purse_release(purse, false, &seen, &tokens));
    assert_true(purse_release(purse, false, &seen, &tokens));
    assert_int_equal(tokens, 9);
    assert_int_equal(tokens_of(purses, key, SECOND), 0);
    // Who buys meanwhile is the next to hold it.
    purse_begin(purses, key, SECOND, 0, &purchase);
    assert_int_equal(purse_end(&purchase, 4, 0, PURSE_NO_END), PURSE_PUT_HOLD);
    purse_begin(purses, key, SECOND, 0, &purchase);
    assert_true(purse_release(purse, true, &seen, &tokens)); // at once
    assert_int_equal(tokens, 4);
    assert_int_equal(purse_end(&purchase, 4, 0, PURSE_NO_END), PURSE_PUT_HOLD);
    purses_free(purses);
}

// A set of eight: a purse that is in use is never given away, an idle one is.
static void test_full_sets(void **state)
{
    (void)state;
    struct purses *purses = purses_new(8);
    struct purse *held[8], *other;
    struct purchase purchase;
    uint64_t seen = 0;
    uint32_t tokens;
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(buy(purses, (struct hash128){.lo = i + 1}, i + 1, PURSE_NO_END, &held[i]),
                         PURSE_PUT_HOLD);
        purse_tell(purses, (struct hash128){.lo = i + 1}, 100 + i);
    }
    purse_begin(purses, (struct hash128){.lo = 100}, SECOND, 1, &purchase);
    assert_null(purchase.purse);
    assert_true(purse_release(held[5], true, &seen, &tokens));
    assert_true(purse_release(held[3], true, &seen, &tokens));
    assert_int_equal(buy(purses, (struct hash128){.lo = 101}, 50, PURSE_NO_END, &other), PURSE_PUT_HOLD);
    assert_ptr_equal(other, held[3]); // for which nothing was heard for the longest time
    struct purse_view view;
    assert_false(purse_look(purses, (struct hash128){.lo = 4}, SECOND, &view));
    assert_true(purse_look(purses, (struct hash128){.lo = 6}, SECOND, &view));
    for (unsigned i = 0; i < 8; i++)
        if (i != 3 && i != 5)
            assert_int_equal(tokens_of(purses, (struct hash128){.lo = i + 1}, SECOND), i + 1);
    purses_free(purses);
}

// ---- many threads ----

enum { THREADS = 4, ROUNDS = 60000, KEYS = 24 /* for 16 places */ };

struct account {
    atomic_llong bought, spent, back;
};
static struct purses *contended;
static struct account accounts[KEYS];

struct trader { // a thread; it holds one purse
    struct rand rand;
    struct purse *held;
    struct account *account;
};

static void let_go(struct trader *trader)
{
    uint64_t seen;
    uint32_t tokens;
    if (trader->held && purse_release(trader->held, true, &seen, &tokens))
        atomic_fetch_add(&trader->account->back, tokens);
    trader->held = NULL;
}

static enum purse_put spend_or_buy(struct rand *rand, struct hash128 of, struct account *account,
                                   struct purse **purse)
{
    struct purse_view view;
    struct purchase purchase;
    enum purse_put put = PURSE_REFUSED;
    uint32_t cost = 1 + rand_below(rand, 3), tokens = rand_below(rand, 20);
    if (!purse_spend(contended, of, SECOND, cost, &view)) {
        purse_begin(contended, of, SECOND, cost, &purchase);
        *purse = purchase.purse;
        if (*purse)
            put = purse_end(&purchase, tokens, 2, PURSE_NO_END);
        if (put != PURSE_REFUSED)
            atomic_fetch_add(&account->bought, tokens);
    } else if (rand_below(rand, 4)) {
        atomic_fetch_add(&account->spent, cost);
    } else {
        put = purse_give(contended, of, cost, PURSE_TOKENS_MAX, PURSE_NO_END, purse);
        if (put == PURSE_REFUSED)
            atomic_fetch_add(&account->back, cost);
    }
    return put;
}

static void *run(void *context)
{
    struct trader trader = {0};
    rand_init_seed(&trader.rand, (uint64_t)(uintptr_t)context);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned k = rand_below(&trader.rand, KEYS);
        struct hash128 of = {.lo = k + 1, .hi = (uint64_t)k << 60};
        struct purse *purse;
        if (spend_or_buy(&trader.rand, of, &accounts[k], &purse) != PURSE_PUT_HOLD)
            continue;
        let_go(&trader);
        trader.held = purse;
        trader.account = &accounts[k];
    }
    let_go(&trader);
    return NULL;
}

// What was bought has been spent, or went back, or is there.
static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    contended = purses_new(16);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned k = 0; k < KEYS; k++) {
        struct account *account = &accounts[k];
        long long left = tokens_of(contended, (struct hash128){.lo = k + 1, .hi = (uint64_t)k << 60}, SECOND);
        assert_true(account->spent > 0);
        assert_int_equal(account->bought, account->spent + account->back + left);
    }
    purses_free(contended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demand),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_buying_and_spending),
        cmocka_unit_test(test_what_becomes_void),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_letting_go),
        cmocka_unit_test(test_full_sets),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
