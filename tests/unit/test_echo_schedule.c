// When sallyport-echo is out: the bursts of a schedule.
#include "unit.h"

#include "echo/schedule.h"

static void test_the_same_seed_gives_the_same_bursts(void **state)
{
    (void)state;
    struct schedule_settings settings = {
        .shape = SCHEDULE_RANDOM, .share = 0.1, .mean_ms = 500, .seed = 9, .kinds = 4};
    struct schedule a, b, other;
    schedule_init(&a, &settings);
    schedule_init(&b, &settings);
    settings.seed = 10;
    schedule_init(&other, &settings);
    unsigned differ = 0;
    for (unsigned i = 0; i < 1000; i++) {
        struct burst x, y, z;
        assert_true(schedule_next(&a, &x) && schedule_next(&b, &y) && schedule_next(&other, &z));
        assert_true(x.from_ms == y.from_ms && x.until_ms == y.until_ms && x.kind == y.kind);
        differ += x.from_ms != z.from_ms;
    }
    assert_true(differ > 990);
}

// A long run has the share, the mean length and the kinds that were asked for; bursts are in order and apart.
static void test_share_and_mean(void **state)
{
    (void)state;
    static const struct {
        double share;
        uint64_t mean_ms;
    } rows[] = {{0.005, 2000}, {0.005, 40}, {0.5, 1000}, {0.9, 300}};
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        struct schedule_settings settings = {.shape = SCHEDULE_RANDOM,
                                             .share = rows[row].share,
                                             .mean_ms = rows[row].mean_ms,
                                             .seed = 3,
                                             .kinds = 5};
        struct schedule schedule;
        struct burst burst;
        uint64_t out_ms = 0, before_ms = 0;
        unsigned kinds[5] = {0}, bursts = 20000, shorter = 0;
        schedule_init(&schedule, &settings);
        for (unsigned i = 0; i < bursts; i++) {
            assert_true(schedule_next(&schedule, &burst));
            assert_true(burst.from_ms > before_ms && burst.until_ms > burst.from_ms);
            uint64_t length = burst.until_ms - burst.from_ms;
            out_ms += length;
            before_ms = burst.until_ms;
            shorter += length < rows[row].mean_ms;
            kinds[burst.kind]++;
        }
        double share = (double)out_ms / (double)before_ms, mean = (double)out_ms / bursts;
        assert_true(share > rows[row].share * 0.96 && share < rows[row].share * 1.04);
        assert_true(mean > (double)rows[row].mean_ms * 0.97 && mean < (double)rows[row].mean_ms * 1.03);
        double below_mean = (double)shorter / bursts; // 1 - 1/e of an exponential distribution
        assert_true(below_mean > 0.61 && below_mean < 0.65);
        for (unsigned i = 0; i < 5; i++)
            assert_true(kinds[i] > bursts / 5 * 9 / 10 && kinds[i] < bursts / 5 * 11 / 10);
    }
}

static void test_flapping(void **state)
{
    (void)state;
    struct schedule_settings settings = {
        .shape = SCHEDULE_REGULAR, .every_ms = 100, .down_ms = 30, .kinds = 1, .for_ms = 250};
    struct schedule schedule;
    struct burst burst;
    schedule_init(&schedule, &settings);
    for (uint64_t i = 0; i < 2; i++) {
        assert_true(schedule_next(&schedule, &burst));
        assert_int_equal(burst.from_ms, i * 100 + 70);
        assert_int_equal(burst.until_ms, i * 100 + 100);
    }
    assert_false(schedule_next(&schedule, &burst)); // would begin at 270
    assert_false(schedule_next(&schedule, &burst));
}

static void test_until_told_otherwise_or_for_a_time(void **state)
{
    (void)state;
    struct schedule_settings settings = {.shape = SCHEDULE_ALWAYS, .kinds = 1};
    struct schedule schedule;
    struct burst burst;
    schedule_init(&schedule, &settings);
    assert_true(schedule_next(&schedule, &burst));
    assert_true(burst.from_ms == 0 && burst.until_ms == SCHEDULE_FOR_EVER);
    assert_false(schedule_next(&schedule, &burst));
    settings.for_ms = 700;
    schedule_init(&schedule, &settings);
    assert_true(schedule_next(&schedule, &burst));
    assert_true(burst.from_ms == 0 && burst.until_ms == 700);
    assert_false(schedule_next(&schedule, &burst));
}

// A burst that the end of the schedule cuts is cut.
static void test_the_last_burst_ends_with_the_schedule(void **state)
{
    (void)state;
    struct schedule_settings settings = {
        .shape = SCHEDULE_REGULAR, .every_ms = 100, .down_ms = 100, .kinds = 1, .for_ms = 150};
    struct schedule schedule;
    struct burst burst;
    schedule_init(&schedule, &settings);
    assert_true(schedule_next(&schedule, &burst) && schedule_next(&schedule, &burst));
    assert_int_equal(burst.until_ms, 150);
}

// Of a share near nothing there is none to be seen, and the sums stay in order.
static void test_a_share_near_nothing(void **state)
{
    (void)state;
    struct schedule_settings settings = {
        .shape = SCHEDULE_RANDOM, .share = 1e-300, .mean_ms = 1000, .seed = 1, .kinds = 1};
    struct schedule schedule;
    struct burst burst;
    uint64_t before_ms = 0;
    schedule_init(&schedule, &settings);
    for (unsigned i = 0; i < 100000; i++) {
        assert_true(schedule_next(&schedule, &burst));
        assert_true(burst.from_ms >= before_ms + 1000000 && burst.until_ms > burst.from_ms);
        before_ms = burst.until_ms;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_seed_gives_the_same_bursts),
        cmocka_unit_test(test_share_and_mean),
        cmocka_unit_test(test_flapping),
        cmocka_unit_test(test_until_told_otherwise_or_for_a_time),
        cmocka_unit_test(test_the_last_burst_ends_with_the_schedule),
        cmocka_unit_test(test_a_share_near_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
