// What the process has in use, for overload (exchange/overload.h): read by the control thread, so that no
// worker waits for the kernel.
#include "cli/process.h"

#include "base/clock.h"
#include "cli/memory_limit.h"
#include "observe/process_stats.h"

enum {
    LIMIT_EVERY_US = 10000000, // control groups may be given more or less
    COST_SHARE = 100,          // counting descriptors takes so small a part of the time at most
};

// Old kernels count them one by one.
static void count_descriptors(struct overload_watch *watch, uint64_t now_us)
{
    if (now_us < watch->count_us)
        return;
    uint64_t began_us = clock_monotonic_us();
    watch->use.descriptors = process_open_fds();
    watch->use.max_descriptors = process_max_fds();
    if (!watch->use.descriptors) // none is left to look with
        watch->use.descriptors = watch->use.max_descriptors;
    watch->count_us = now_us + (clock_monotonic_us() - began_us) * COST_SHARE;
}

static void look_up_limit(struct overload_watch *watch, uint64_t configured, uint64_t now_us)
{
    if (configured) {
        watch->use.max_memory = configured;
    } else if (now_us >= watch->limit_us) {
        watch->use.max_memory = memory_limit();
        watch->limit_us = now_us + LIMIT_EVERY_US;
    }
}

void process_watch_overload(struct process *process)
{
    struct overload_watch *watch = &process->overload;
    const struct overload_settings *settings = &process->host.gateway->settings.overload;
    uint64_t now_us = process->loop.now_us;
    if (now_us < watch->next_us)
        return;
    watch->next_us = now_us + OVERLOAD_SAMPLE_US;
    count_descriptors(watch, now_us);
    look_up_limit(watch, settings->memory_limit, now_us);
    watch->use.memory = process_resident_bytes();
    overload_sample(settings, &watch->use, now_us);
}
