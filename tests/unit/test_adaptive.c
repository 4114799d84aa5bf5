// The controller before a simulated service: Poisson arrivals, c servers, exponential times (M/M/c), whatever
// is beyond the limit refused.
#include "unit.h"

#include "base/check.h"
#include "base/rand.h"
#include "upstream/adaptive.h"

#include <math.h>
#include <stdlib.h>

enum { SEED = 42, MOST = 1000, SECOND_US = 1000000, INSIDE = 4096, PENDING = 256 };

struct service {
    struct adaptive adaptive;
    struct rand rand;
    unsigned servers;
    double time_us;  // a request takes, on average, when it does not wait
    double arrivals; // a second
    uint64_t now_us, told_us;
    double arrival_us;
    // What is inside: the first `servers` are served, the rest wait in order.
    struct {
        double arrived_us, ends_us; // 0: waits
    } inside[INSIDE];
    unsigned count;
    double pending[PENDING]; // since when, the oldest first
    unsigned pending_count;
    struct adaptive_batch batch;
    // Since the last look.
    uint64_t served, refused, sum_us;
};

static double exponential(struct service *s, double mean)
{
    return -log(1 - rand_unit(&s->rand)) * mean;
}

static struct service *service_new(unsigned servers, double time_us, double load)
{
    struct service *s = calloc(1, sizeof *s);
    assert_non_null(s);
    rand_init_seed(&s->rand, SEED);
    s->servers = servers;
    s->time_us = time_us;
    s->now_us = SECOND_US;
    s->arrivals = load * servers / time_us * 1e6;
    s->arrival_us = (double)s->now_us;
    return s;
}

static void set_load(struct service *s, double load)
{
    s->arrivals = load * s->servers / s->time_us * 1e6;
}

static void start_next(struct service *s, double now_us)
{
    unsigned served = 0;
    for (unsigned i = 0; i < s->count && served < s->servers; i++, served++)
        if (s->inside[i].ends_us == 0)
            s->inside[i].ends_us = now_us + exponential(s, s->time_us);
}

static void drop_pending(struct service *s)
{
    memmove(&s->pending[0], &s->pending[1], --s->pending_count * sizeof s->pending[0]);
}

static void enter(struct service *s, double now_us)
{
    s->inside[s->count].arrived_us = now_us;
    s->inside[s->count++].ends_us = 0;
    if (s->count > s->batch.peak)
        s->batch.peak = s->count;
    start_next(s, now_us);
}

static void serve_pending(struct service *s, double now_us)
{
    for (; s->pending_count && s->pending[0] < now_us - SECOND_US; s->refused++)
        drop_pending(s);
    for (; s->pending_count && s->count < adaptive_limit(&s->adaptive, MOST); drop_pending(s))
        enter(s, now_us);
}

static void arrive(struct service *s)
{
    double now_us = s->arrival_us;
    serve_pending(s, now_us);
    s->arrival_us += exponential(s, 1e6 / s->arrivals);
    if (!s->pending_count && s->count < adaptive_limit(&s->adaptive, MOST)) {
        enter(s, now_us);
        return;
    }
    s->batch.bound = true;
    if (s->pending_count == PENDING)
        s->refused++;
    else
        s->pending[s->pending_count++] = now_us;
}

static void leave(struct service *s, unsigned i)
{
    double now_us = s->inside[i].ends_us, took_us = now_us - s->inside[i].arrived_us;
    s->served++;
    s->sum_us += (uint64_t)took_us;
    s->batch.samples++;
    s->batch.sum_us += (uint64_t)took_us;
    memmove(&s->inside[i], &s->inside[i + 1], (--s->count - i) * sizeof s->inside[0]);
    start_next(s, now_us);
    serve_pending(s, now_us);
}

static unsigned next_end(const struct service *s)
{
    unsigned next = s->count;
    for (unsigned i = 0, served = 0; i < s->count && served < s->servers; i++) {
        if (s->inside[i].ends_us == 0)
            continue;
        served++;
        if (next == s->count || s->inside[i].ends_us < s->inside[next].ends_us)
            next = i;
    }
    return next;
}

static void run(struct service *s, double seconds)
{
    double until_us = (double)s->now_us + seconds * 1e6;
    s->served = s->refused = s->sum_us = 0;
    for (;;) {
        unsigned next = next_end(s);
        bool ends = next < s->count && s->inside[next].ends_us < s->arrival_us;
        double now_us = ends ? s->inside[next].ends_us : s->arrival_us;
        if (now_us >= until_us)
            break;
        if (ends)
            leave(s, next);
        else
            arrive(s);
        s->now_us = (uint64_t)now_us;
        if (s->now_us < s->told_us + ADAPTIVE_TELL_US)
            continue;
        s->told_us = s->now_us;
        adaptive_note(&s->adaptive, &s->batch, MOST, s->now_us);
        s->batch = (struct adaptive_batch){.peak = s->count};
    }
    s->now_us = (uint64_t)until_us;
}

static double refused_share(const struct service *s)
{
    return (double)s->refused / (double)(s->refused + s->served);
}

static double mean_us(const struct service *s)
{
    return (double)s->sum_us / (double)s->served;
}

// Of what its servers can do at most.
static double busy_share(const struct service *s, double seconds)
{
    return (double)s->served / seconds * s->time_us / 1e6 / s->servers;
}

static void show(const struct service *s, const char *when, double seconds)
{
    print_message("%-28s limit %4u base %6.2f ms latency %7.2f ms busy %4.2f refused %5.3f\n", when,
                  adaptive_limit(&s->adaptive, MOST), s->adaptive.base_us / 1000, mean_us(s) / 1000,
                  busy_share(s, seconds), refused_share(s));
}

static void test_an_overloaded_service_is_kept_near_its_knee(void **state)
{
    (void)state;
    static const unsigned servers[] = {4, 10, 100};
    for (size_t i = 0; i < countof(servers); i++) {
        struct service *s = service_new(servers[i], 10000, 0.6);
        run(s, 10);
        show(s, "quiet", 10);
        assert_true(s->refused == 0);
        set_load(s, 2);
        run(s, 5);
        run(s, 60);
        show(s, "twice its capacity", 60);
        uint32_t limit = adaptive_limit(&s->adaptive, MOST);
        assert_true(limit >= servers[i] && limit <= 4 * servers[i]);
        assert_true(busy_share(s, 60) > 0.93);
        assert_true(mean_us(s) < 3 * s->time_us);
        run(s, servers[i] < 100 ? 200 : 10);
        show(s, "later", servers[i] < 100 ? 200 : 10);
        assert_true(adaptive_limit(&s->adaptive, MOST) <= 4 * servers[i]);
        set_load(s, 0.6);
        run(s, 5);
        run(s, 60);
        show(s, "quiet again", 60);
        assert_true(refused_share(s) < 0.001);
        free(s);
    }
}

static void test_overload_from_the_start(void **state)
{
    (void)state;
    struct service *s = service_new(10, 10000, 3);
    run(s, 60);
    show(s, "a minute", 60);
    set_load(s, 0.5);
    run(s, 10);
    set_load(s, 3);
    run(s, 10);
    run(s, 60);
    show(s, "after a pause", 60);
    assert_true(adaptive_limit(&s->adaptive, MOST) <= 40);
    free(s);
}

static void test_nobody_is_refused_below_capacity(void **state)
{
    (void)state;
    static const double loads[] = {0.05, 0.5, 0.8, 0.9};
    for (size_t i = 0; i < countof(loads); i++) {
        struct service *s = service_new(10, 10000, loads[i]);
        run(s, 300);
        show(s, "below capacity", 300);
        assert_true(s->refused == 0);
        free(s);
    }
}

static void test_it_follows_a_service_that_loses_servers_and_gets_them_back(void **state)
{
    (void)state;
    struct service *s = service_new(20, 20000, 0.7);
    double arrivals = s->arrivals;
    run(s, 10);
    s->servers = 4;
    run(s, 10); // what was let in at first is served
    run(s, 30);
    show(s, "a fifth of its servers", 30);
    assert_true(mean_us(s) < 4 * s->time_us);
    assert_true(busy_share(s, 30) > 0.9);
    s->servers = 20;
    assert_true(s->arrivals == arrivals);
    run(s, 5);
    run(s, 30);
    show(s, "all of them", 30);
    assert_true(refused_share(s) < 0.005);
    free(s);
}

// What costs others requests: those that measure without a queue by cutting concurrency, or never measure
// again.
static void test_a_service_that_gets_slower_is_not_starved(void **state)
{
    (void)state;
    struct service *s = service_new(100, 10000, 0.3);
    run(s, 20);
    s->time_us = 25000; // the same arrivals: 0.75 of what it can do
    run(s, 5);
    show(s, "at first", 5);
    assert_true(refused_share(s) < 0.02);
    run(s, 30);
    show(s, "2.5 times slower", 30);
    assert_true(s->refused == 0);
    s->time_us = 10000;
    run(s, 20);
    show(s, "as before", 20);
    assert_true(s->refused == 0);
    set_load(s, 2);
    run(s, 5);
    run(s, 30);
    show(s, "overloaded", 30);
    assert_true(adaptive_limit(&s->adaptive, MOST) < 300);
    assert_true(busy_share(s, 30) > 0.93);
    free(s);
}

static void test_bounds(void **state)
{
    (void)state;
    struct adaptive adaptive = {0};
    assert_int_equal(adaptive_limit(&adaptive, 7), 7);
    struct adaptive_batch fast = {.samples = 200, .sum_us = 200 * 1000, .peak = 2};
    uint64_t now_us = SECOND_US;
    for (unsigned i = 0; i < 10; i++)
        adaptive_note(&adaptive, &fast, 50, now_us += 100000);
    assert_int_equal(adaptive_limit(&adaptive, 50), 50);
    struct adaptive_batch slow = {
        .samples = 200, .sum_us = UINT64_C(200) * 10 * SECOND_US, .peak = 50, .bound = true};
    uint32_t least = 50;
    for (unsigned i = 0; i < 100; i++) {
        adaptive_note(&adaptive, &slow, 50, now_us += 100000);
        uint32_t limit = adaptive_limit(&adaptive, 50);
        least = limit < least ? limit : least;
        assert_true(limit >= ADAPTIVE_LEAST && limit <= 50);
    }
    assert_true(least < 10);
    adaptive_note(&adaptive, &slow, 2, now_us += 100000); // a new configuration allows less than the least
    assert_true(adaptive_limit(&adaptive, 2) <= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_overloaded_service_is_kept_near_its_knee),
        cmocka_unit_test(test_overload_from_the_start),
        cmocka_unit_test(test_nobody_is_refused_below_capacity),
        cmocka_unit_test(test_it_follows_a_service_that_loses_servers_and_gets_them_back),
        cmocka_unit_test(test_a_service_that_gets_slower_is_not_starved),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
