#include "unit.h"

#include "base/clock.h"
#include "base/rand.h"
#include "loop/loop.h"
#include "loop/wheel.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct alarm {
    struct loop_timer timer;
    struct loop *loop;
    uint64_t due_ms, fired_ms;
    unsigned count;
};

static void on_alarm(struct loop_timer *timer)
{
    struct alarm *alarm = container_of(timer, struct alarm, timer);
    alarm->fired_ms = loop_now_ms(alarm->loop);
    alarm->count++;
}

static void start(struct loop *loop)
{
    struct err err;
    assert_int_equal(loop_init(loop, &err), ERR_OK);
}

// Time by hand: the wheel only reads loop->now_us.
static void advance_to(struct loop *loop, uint64_t ms)
{
    loop->now_us = ms * 1000;
    wheel_advance(loop);
}

static void test_timers_fire_once_and_never_early(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    struct loop loop;
    start(&loop);
    struct rand rand;
    rand_init_seed(&rand, 1);
    struct alarm *alarms = calloc(COUNT, sizeof *alarms);
    uint64_t begin_ms = loop_now_ms(&loop);
    for (int i = 0; i < COUNT; i++) {
        uint64_t after_ms = rand_below(&rand, 3 * LOOP_SLOTS);
        alarms[i] = (struct alarm){.loop = &loop, .due_ms = begin_ms + after_ms};
        loop_timer_init(&alarms[i].timer, on_alarm);
        loop_timer_set(&loop, &alarms[i].timer, after_ms);
    }
    for (uint64_t ms = begin_ms; ms < begin_ms + 4 * LOOP_SLOTS; ms += 1 + rand_below(&rand, 7)) {
        uint64_t wait = wheel_wait_ms(&loop, 10 * LOOP_SLOTS);
        advance_to(&loop, ms);
        for (int i = 0; i < COUNT; i++) // the wheel never sleeps past a deadline
            if (!alarms[i].count)
                assert_true(alarms[i].due_ms + 1 >= ms);
        assert_true(wait <= 10 * LOOP_SLOTS);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(alarms[i].count, 1);
        assert_true(alarms[i].fired_ms >= alarms[i].due_ms);
        assert_true(alarms[i].fired_ms <= alarms[i].due_ms + 8);
    }
    free(alarms);
    loop_fini(&loop);
}

static void test_timers_move_and_stop(void **state)
{
    (void)state;
    struct loop loop;
    start(&loop);
    uint64_t now_ms = loop_now_ms(&loop);
    struct alarm later = {.loop = &loop}, earlier = {.loop = &loop}, stopped = {.loop = &loop};
    loop_timer_init(&later.timer, on_alarm);
    loop_timer_init(&earlier.timer, on_alarm);
    loop_timer_init(&stopped.timer, on_alarm);
    loop_timer_set(&loop, &later.timer, 10);
    loop_timer_set(&loop, &later.timer, 50);
    loop_timer_set(&loop, &earlier.timer, 50);
    loop_timer_set(&loop, &earlier.timer, 10);
    loop_timer_set(&loop, &stopped.timer, 10);
    loop_timer_stop(&loop, &stopped.timer);
    loop_timer_stop(&loop, &stopped.timer);
    advance_to(&loop, now_ms + 12);
    assert_int_equal(earlier.count, 1);
    assert_int_equal(later.count, 0);
    advance_to(&loop, now_ms + 52);
    assert_int_equal(later.count, 1);
    assert_int_equal(stopped.count, 0);
    loop_fini(&loop);
}

static void test_wait_is_until_the_next_timer(void **state)
{
    (void)state;
    struct loop loop;
    start(&loop);
    assert_int_equal(wheel_wait_ms(&loop, 100), 100);
    struct alarm alarm = {.loop = &loop};
    loop_timer_init(&alarm.timer, on_alarm);
    loop_timer_set(&loop, &alarm.timer, 30);
    uint64_t wait = wheel_wait_ms(&loop, 100);
    assert_true(wait >= 30 && wait <= 32);
    loop_timer_stop(&loop, &alarm.timer);
    assert_int_equal(wheel_wait_ms(&loop, 100), 100);
    loop_fini(&loop);
}

struct job {
    struct loop_task task;
    int number;
};

static int job_order[4], jobs_run;

static void run_job(struct loop_task *task)
{
    job_order[jobs_run++ % 4] = container_of(task, struct job, task)->number;
}

static void test_posted_tasks_run_in_order(void **state)
{
    (void)state;
    struct loop loop;
    start(&loop);
    jobs_run = 0;
    struct job jobs[4], deferred = {{.run = run_job}, 9};
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct job){{.run = run_job}, i};
        loop_post(&loop, &jobs[i].task);
    }
    loop_defer(&loop, &deferred.task);
    loop_turn(&loop, 1000);
    assert_int_equal(jobs_run, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(job_order[i], i);
    assert_int_equal(job_order[3], 9); // the deferred ones are last
    loop_fini(&loop);
}

// Takes back the job behind it, from within a turn.
static struct loop *withdrawing_from;
static struct job *withdrawn;

static void run_withdraw(struct loop_task *task)
{
    run_job(task);
    loop_withdraw(withdrawing_from, &withdrawn->task);
}

static void test_withdrawn_tasks_do_not_run(void **state)
{
    (void)state;
    struct loop loop;
    start(&loop);
    for (int gone = 0; gone < 3; gone++) {
        struct job jobs[3];
        jobs_run = 0;
        for (int i = 0; i < 3; i++)
            jobs[i] = (struct job){{.run = run_job}, i};
        loop_withdraw(&loop, &jobs[0].task); // not posted
        for (int i = 0; i < 3; i++)
            loop_post(&loop, &jobs[i].task);
        loop_withdraw(&loop, &jobs[gone].task);
        loop_turn(&loop, 1000);
        assert_int_equal(jobs_run, 2);
        assert_int_equal(job_order[0], gone == 0);
        assert_int_equal(job_order[1], gone == 2 ? 1 : 2);
    }
    struct job first = {{.run = run_withdraw}, 5}, second = {{.run = run_job}, 6},
               third = {{.run = run_job}, 7};
    jobs_run = 0;
    withdrawing_from = &loop;
    withdrawn = &second;
    loop_post(&loop, &first.task);
    loop_post(&loop, &second.task);
    loop_post(&loop, &third.task);
    loop_turn(&loop, 1000);
    assert_int_equal(jobs_run, 2);
    assert_int_equal(job_order[1], 7);
    loop_fini(&loop);
}

enum { POSTS = 20000, POSTERS = 4 };

struct poster {
    struct loop *loop;
    struct job *jobs;
};

static atomic_uint handled;

static void count_job(struct loop_task *task)
{
    (void)task;
    atomic_fetch_add(&handled, 1);
}

static void *post_many(void *arg)
{
    struct poster *poster = arg;
    for (int i = 0; i < POSTS; i++) {
        poster->jobs[i].task.run = count_job;
        loop_post(poster->loop, &poster->jobs[i].task);
    }
    return NULL;
}

static void test_posts_from_threads_are_not_lost(void **state)
{
    (void)state;
    struct loop loop;
    start(&loop);
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){&loop, calloc(POSTS, sizeof(struct job))};
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, &posters[i]), 0);
    }
    uint64_t deadline_us = clock_monotonic_us() + 60 * 1000000;
    while (atomic_load(&handled) < POSTS * POSTERS && clock_monotonic_us() < deadline_us)
        loop_turn(&loop, 1000);
    assert_int_equal(atomic_load(&handled), POSTS * POSTERS);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        free(posters[i].jobs);
    }
    loop_fini(&loop);
}

struct busy_source {
    struct loop_source source;
    bool is_quiet;
};

static void on_busy(struct loop_source *source, uint32_t events)
{
    (void)events;
    if (!container_of(source, struct busy_source, source)->is_quiet)
        usleep(20);
}

// A turn in which the machine stood still was late, too.
static void turn_until_in_time(struct loop *loop, uint64_t most_us)
{
    for (unsigned i = 0; i < 2 || (loop->lag_us >= most_us && i < 100); i++)
        loop_turn(loop, 0);
    assert_true(loop->lag_us < most_us);
}

static void test_lag_is_how_long_what_is_ready_waits(void **state)
{
    (void)state;
    enum { SOURCES = LOOP_EVENTS * 3 }; // ready all the time: three turns, until each has been heard
    static struct busy_source all[SOURCES];
    struct loop loop;
    struct err err;
    assert_int_equal(loop_init(&loop, &err), ERR_OK);
    turn_until_in_time(&loop, 20000);
    for (unsigned i = 0; i < SOURCES; i++) {
        all[i] = (struct busy_source){.source = {.fd = eventfd(1, EFD_NONBLOCK), .on_event = on_busy}};
        assert_true(all[i].source.fd >= 0);
        assert_int_equal(loop_add(&loop, &all[i].source, EPOLLIN), ERR_OK);
    }
    for (unsigned i = 0; i < 10; i++)
        loop_turn(&loop, 0);
    assert_true(loop.lag_us >= 3 * LOOP_EVENTS * 20);
    for (unsigned i = 0; i < SOURCES; i++) {
        all[i].is_quiet = true;
        int fd = all[i].source.fd;
        loop_remove(&loop, &all[i].source);
        close(fd);
    }
    turn_until_in_time(&loop, 3 * LOOP_EVENTS * 20);
    loop_fini(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_once_and_never_early),
        cmocka_unit_test(test_timers_move_and_stop),
        cmocka_unit_test(test_wait_is_until_the_next_timer),
        cmocka_unit_test(test_posted_tasks_run_in_order),
        cmocka_unit_test(test_withdrawn_tasks_do_not_run),
        cmocka_unit_test(test_posts_from_threads_are_not_lost),
        cmocka_unit_test(test_lag_is_how_long_what_is_ready_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
