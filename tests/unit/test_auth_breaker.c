#include "unit.h"

#include "auth/breaker.h"

// Asks and hears; the state afterwards.
static enum auth_breaker_state go(struct auth_breaker *breaker, bool good, uint64_t now_ms)
{
    uint32_t epoch;
    assert_true(auth_breaker_admit(breaker, now_ms, &epoch));
    auth_breaker_note(breaker, epoch, good, now_ms, 0.5);
    return breaker->state;
}

static bool admits(struct auth_breaker *breaker, uint64_t now_ms)
{
    uint32_t epoch;
    return auth_breaker_admit(breaker, now_ms, &epoch);
}

static void open_it(struct auth_breaker *breaker, uint64_t now_ms)
{
    for (unsigned i = 0; i < AUTH_BREAKER_IN_A_ROW; i++)
        assert_int_equal(breaker->state, AUTH_BREAKER_CLOSED), go(breaker, false, now_ms);
    assert_int_equal(breaker->state, AUTH_BREAKER_OPEN);
}

static void test_failures_in_a_row(void **state)
{
    (void)state;
    struct auth_breaker breaker = {0};
    for (unsigned round = 0; round < 2; round++) { // an answer between them begins the row anew
        for (unsigned i = 1; i < AUTH_BREAKER_IN_A_ROW; i++)
            assert_int_equal(go(&breaker, false, 20000 * round + i), AUTH_BREAKER_CLOSED);
        assert_int_equal(go(&breaker, true, 20000 * round + 10), AUTH_BREAKER_CLOSED);
    }
    open_it(&breaker, 50000);
    assert_false(admits(&breaker, 50000));
}

// Patterns of answers ('+') and failures ('-') 100 ms apart, and after which of them it is open.
static void test_the_ratio_in_a_window(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        int opens_at; // -1: never
    } rows[] = {
        {"+-+-+-+-+-", 9},        {"-+-+-+-+-+", -1},
        {"-+-+-+-+-+-", 10},      {"++++++++++++--------", 16},
        {"+++-+++-+++-+++-", -1}, {"--++--++--++---", 9},
        {"++++++++++----+", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct auth_breaker breaker = {0};
        int opened = -1;
        for (int k = 0; rows[i].pattern[k] && opened < 0; k++)
            if (go(&breaker, rows[i].pattern[k] == '+', 100000 + 100 * (uint64_t)k) == AUTH_BREAKER_OPEN)
                opened = k;
        if (opened != rows[i].opens_at)
            fail_msg("%s: opens at %d, not at %d", rows[i].pattern, opened, rows[i].opens_at);
    }
}

static void test_the_window_moves(void **state)
{
    (void)state;
    struct auth_breaker breaker = {0};
    for (uint64_t s = 0; s < 100; s += 3) // a failure and an answer every three seconds: too few at any time
        assert_int_equal((go(&breaker, false, 1000 * s), go(&breaker, true, 1000 * s)), AUTH_BREAKER_CLOSED);
}

static void test_one_probe_at_a_time(void **state)
{
    (void)state;
    struct auth_breaker breaker = {0};
    uint32_t probe;
    open_it(&breaker, 1000);
    assert_false(admits(&breaker, 1999));
    assert_true(auth_breaker_admit(&breaker, 2000, &probe));
    assert_int_equal(breaker.state, AUTH_BREAKER_PROBING);
    assert_false(admits(&breaker, 2000));
    assert_false(admits(&breaker, 100000));
    auth_breaker_release(&breaker, probe); // it was never sent: the next one probes
    assert_true(auth_breaker_admit(&breaker, 2001, &probe));
    assert_true(auth_breaker_note(&breaker, probe, true, 2002, 0.5));
    assert_int_equal(breaker.state, AUTH_BREAKER_CLOSED);
    for (unsigned i = 1; i < AUTH_BREAKER_IN_A_ROW; i++) // nothing of before is remembered
        assert_int_equal(go(&breaker, false, 2003), AUTH_BREAKER_CLOSED);
}

static void test_it_doubles(void **state)
{
    (void)state;
    struct auth_breaker breaker = {0};
    static const uint64_t open_ms[] = {1000, 2000, 4000, 5000, 5000, 5000};
    uint64_t now_ms = 5000;
    open_it(&breaker, now_ms);
    for (size_t i = 0; i < sizeof open_ms / sizeof *open_ms; i++) {
        assert_false(admits(&breaker, now_ms + open_ms[i] - 1));
        now_ms += open_ms[i];
        assert_int_equal(go(&breaker, false, now_ms), AUTH_BREAKER_OPEN);
    }
    assert_int_equal(go(&breaker, true, now_ms + 5000), AUTH_BREAKER_CLOSED);
    open_it(&breaker, now_ms + 5001); // and begins again with the shortest time
    assert_true(admits(&breaker, now_ms + 6001));
}

static void test_the_draw(void **state)
{
    (void)state;
    static const struct {
        double draw;
        uint64_t open_ms;
    } rows[] = {{0.0, 800}, {0.5, 1000}, {0.999999, 1199}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct auth_breaker breaker = {.in_a_row = AUTH_BREAKER_IN_A_ROW - 1};
        uint32_t epoch;
        assert_true(auth_breaker_admit(&breaker, 0, &epoch));
        assert_true(auth_breaker_note(&breaker, epoch, false, 0, rows[i].draw));
        assert_int_equal(breaker.open_until_ms, rows[i].open_ms);
    }
}

static void test_what_was_asked_before_it_opened(void **state)
{
    (void)state;
    struct auth_breaker breaker = {0};
    uint32_t late, other, probe;
    assert_true(auth_breaker_admit(&breaker, 0, &late));
    assert_true(auth_breaker_admit(&breaker, 0, &other));
    open_it(&breaker, 1000);
    assert_false(auth_breaker_note(&breaker, late, true, 1500, 0.5)); // neither closes it
    assert_true(auth_breaker_admit(&breaker, 2000, &probe));
    assert_false(auth_breaker_note(&breaker, other, false, 2000, 0.5)); // nor fails the probe
    auth_breaker_release(&breaker, other);
    assert_int_equal(breaker.state, AUTH_BREAKER_PROBING);
    assert_true(auth_breaker_note(&breaker, probe, true, 2001, 0.5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failures_in_a_row),
        cmocka_unit_test(test_the_ratio_in_a_window),
        cmocka_unit_test(test_the_window_moves),
        cmocka_unit_test(test_one_probe_at_a_time),
        cmocka_unit_test(test_it_doubles),
        cmocka_unit_test(test_the_draw),
        cmocka_unit_test(test_what_was_asked_before_it_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
