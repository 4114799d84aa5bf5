// LD_PRELOADed into a program: its clocks show another time, as the file named by CLOCK says. The test maps
// the same file and changes it while the program runs (tests/wire/clocks.py).
#include "shared_page.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

// Shared with the test; int64_t each, by clock: CLOCK_REALTIME, CLOCK_MONOTONIC.
struct control {
    _Atomic int64_t ahead_us[2];
    _Atomic int64_t read[2]; // so many times
};

static struct control *control;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void map_control(void)
{
    control = map_shared_page("CLOCK", sizeof *control);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *t)
{
    if (!real_clock_gettime)
        real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(id, t);
    if (result || !control || (id != CLOCK_REALTIME && id != CLOCK_MONOTONIC))
        return result;
    atomic_fetch_add(&control->read[id], 1);
    int64_t us = (int64_t)t->tv_sec * 1000000 + t->tv_nsec / 1000 + control->ahead_us[id];
    *t = (struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    return 0;
}

__attribute__((visibility("default"))) time_t time(time_t *t)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t)
        *t = now.tv_sec;
    return now.tv_sec;
}
