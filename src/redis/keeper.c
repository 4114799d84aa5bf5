#include "redis/keeper.h"

#include "base/log.h"

static void end_retirement(struct redis_keeper *keeper)
{
    struct redis_fleet *retired = keeper->retired;
    keeper->retired = NULL;
    redis_fleet_free(retired);
    loop_timer_stop(keeper->loop, &keeper->retirement);
}

static void on_retirement(struct loop_timer *timer)
{
    end_retirement(container_of(timer, struct redis_keeper, retirement));
}

static void replace(struct redis_keeper *keeper, struct redis_fleet *fleet)
{
    end_retirement(keeper);
    keeper->retired = keeper->fleet;
    if (keeper->retired)
        loop_timer_set(keeper->loop, &keeper->retirement, 2 * keeper->deadline_us / 1000 + 1);
    keeper->fleet = fleet;
}

void redis_keeper_init(struct redis_keeper *keeper, struct loop *loop)
{
    *keeper = (struct redis_keeper){.loop = loop};
    loop_timer_init(&keeper->retirement, on_retirement);
}

void redis_keeper_fini(struct redis_keeper *keeper)
{
    replace(keeper, NULL);
    end_retirement(keeper);
}

bool redis_keeper_update(struct redis_keeper *keeper, const struct redis_fleet_options *options)
{
    const struct redis_settings *settings = options->access.settings;
    struct redis_fleet *fleet = NULL;
    struct err err = {0};
    if (settings)
        fleet = redis_fleet_new(options, &err);
    if (settings && !fleet)
        log_error("redis", "%s: %s: there is no Redis for %s", err.where, err.what, options->purpose);
    if (fleet && keeper->fleet && redis_fleet_is_same(fleet, keeper->fleet)) {
        redis_fleet_free(fleet);
        return false;
    }
    if (!fleet && !keeper->fleet)
        return false;
    replace(keeper, fleet);
    if (fleet)
        keeper->deadline_us = settings->deadline_us;
    return true;
}
