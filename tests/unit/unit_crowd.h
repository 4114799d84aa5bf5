// Threads that go in and out of the same place, each with a loop of its own: how many were inside at once.
#pragma once

#include "unit.h"

#include "loop/loop.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

struct crowd_member {
    pthread_t thread;
    struct loop loop;
};

static atomic_uint crowd_inside, crowd_most;

static void crowd_pass(void)
{
    unsigned now = atomic_fetch_add(&crowd_inside, 1) + 1;
    for (unsigned before = atomic_load(&crowd_most); now > before;)
        if (atomic_compare_exchange_weak(&crowd_most, &before, now))
            break;
    sched_yield();
    atomic_fetch_sub(&crowd_inside, 1);
}

// Each member runs run(member) in its thread, until all are done: at most so many were inside.
static void crowd_run(struct crowd_member *const *members, unsigned count, void *(*run)(void *),
                      unsigned limit)
{
    struct err err;
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(loop_init(&members[i]->loop, &err), ERR_OK);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pthread_create(&members[i]->thread, NULL, run, members[i]), 0);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pthread_join(members[i]->thread, NULL), 0);
    assert_in_range(atomic_load(&crowd_most), 1, limit);
    for (unsigned i = 0; i < count; i++)
        loop_fini(&members[i]->loop);
}
