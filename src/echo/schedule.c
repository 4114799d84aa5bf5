#include "echo/schedule.h"

#include <math.h>

void schedule_init(struct schedule *schedule, const struct schedule_settings *settings)
{
    *schedule = (struct schedule){.settings = *settings};
    rand_init_seed(&schedule->rand, settings->seed);
}

#define DRAWN_MAX_MS 1e12 // 30 years: a share near nothing asks for more than a number holds

// At least 1 ms, so that time goes on.
static uint64_t draw_ms(struct rand *rand, double mean_ms)
{
    double ms = -log1p(-rand_unit(rand)) * mean_ms;
    return ms < 1 ? 1 : ms < DRAWN_MAX_MS ? (uint64_t)(ms + 0.5) : (uint64_t)DRAWN_MAX_MS;
}

static bool next_of_shape(struct schedule *schedule, struct burst *burst)
{
    const struct schedule_settings *settings = &schedule->settings;
    uint64_t at = schedule->at_ms;
    switch (settings->shape) {
    case SCHEDULE_ALWAYS: *burst = (struct burst){.until_ms = SCHEDULE_FOR_EVER}; return at == 0;
    case SCHEDULE_REGULAR:
        burst->until_ms = at + settings->every_ms;
        burst->from_ms = burst->until_ms - settings->down_ms;
        return true;
    case SCHEDULE_RANDOM: {
        double mean = (double)settings->mean_ms;
        burst->from_ms = at + draw_ms(&schedule->rand, mean * (1 - settings->share) / settings->share);
        burst->until_ms = burst->from_ms + draw_ms(&schedule->rand, mean);
        return true;
    }
    }
    return false;
}

bool schedule_next(struct schedule *schedule, struct burst *burst)
{
    uint64_t end = schedule->settings.for_ms;
    if (!next_of_shape(schedule, burst) || (end && burst->from_ms >= end))
        return false;
    schedule->at_ms = burst->until_ms;
    burst->kind = rand_below(&schedule->rand, schedule->settings.kinds);
    if (end && burst->until_ms > end)
        burst->until_ms = end;
    return true;
}
