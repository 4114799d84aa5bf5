#include "exchange/overload.h"

#include "base/log.h"

#include <limits.h>
#include <stdatomic.h>

#define PRESSURE_MAX 3.0
// A level is left when pressure is this far below it.
#define LEVEL_MARGIN 0.25

// ---- decisions ----

double overload_pressure_of(double use, double soft, double hard)
{
    if (use <= soft)
        return 0;
    return use >= hard ? PRESSURE_MAX : PRESSURE_MAX * (use - soft) / (hard - soft);
}

static unsigned level_at(double pressure)
{
    return (unsigned)((pressure > 0) + (pressure > 1) + (pressure > 2));
}

bool overload_follow(struct overload_gauge *gauge, double pressure, uint64_t now_us)
{
    double fallen = (double)(now_us - gauge->at_us) / OVERLOAD_FALL_US;
    double least = gauge->pressure > fallen ? gauge->pressure - fallen : 0;
    unsigned before = gauge->level;
    gauge->pressure = pressure > least ? pressure : least;
    gauge->at_us = now_us;
    unsigned level = level_at(gauge->pressure);
    if (level > before || level_at(gauge->pressure + LEVEL_MARGIN) < before || gauge->pressure <= 0)
        gauge->level = level;
    return gauge->level != before;
}

bool overload_sheds(struct overload_meter *meter, double pressure, enum priority priority)
{
    double share = pressure - (double)priority;
    if (priority == PRIORITY_CRITICAL || share <= 0)
        return false;
    meter->owed[priority] += share < 1 ? share : 1;
    if (meter->owed[priority] < 1)
        return false;
    meter->owed[priority] -= 1;
    return true;
}

bool overload_note_lag(struct overload_lag *lag, uint64_t lag_us, uint64_t now_us, uint64_t *standing_us)
{
    if (lag_us > lag->worst_us)
        lag->worst_us = lag_us;
    if (now_us < lag->since_us + OVERLOAD_SAMPLE_US)
        return false;
    lag->windows[lag->next] = lag->worst_us;
    lag->next = (lag->next + 1) % OVERLOAD_LAG_WINDOWS;
    lag->worst_us = 0;
    lag->since_us = now_us;
    *standing_us = UINT64_MAX;
    for (unsigned i = 0; i < OVERLOAD_LAG_WINDOWS; i++)
        if (lag->windows[i] < *standing_us)
            *standing_us = lag->windows[i];
    return true;
}

// ---- what all threads read ----

enum { MILLI = 1000 };

static struct {
    atomic_uint shared[OVERLOAD_RESOURCES]; // thousandths of pressure; of descriptors and memory
    atomic_uint loops[OVERLOAD_WORKERS];    // the same, by worker
    atomic_int client_descriptors;          // 0: not known yet
} published;

static void publish(atomic_uint *at, double pressure)
{
    atomic_store_explicit(at, (unsigned)(pressure * MILLI), memory_order_relaxed);
}

static double read_pressure(atomic_uint *at)
{
    return (double)atomic_load_explicit(at, memory_order_relaxed) / MILLI;
}

int overload_client_descriptors(void)
{
    int most = atomic_load_explicit(&published.client_descriptors, memory_order_relaxed);
    return most ? most : INT_MAX;
}

void overload_read(double pressure[OVERLOAD_RESOURCES])
{
    for (unsigned i = 0; i < OVERLOAD_RESOURCES; i++)
        pressure[i] = read_pressure(&published.shared[i]);
    for (unsigned i = 0; i < OVERLOAD_WORKERS; i++) {
        double loop = read_pressure(&published.loops[i]);
        if (loop > pressure[OVERLOAD_LOOP])
            pressure[OVERLOAD_LOOP] = loop;
    }
}

// ---- the control thread ----

static const char *consequence(unsigned level)
{
    static const char *const words[] = {
        "nobody is turned away for it any more", "requests of low priority are turned away",
        "requests of normal priority are turned away", "requests of high priority are turned away"};
    return words[level];
}

// One that all workers share.
static void sample(enum overload_resource resource, const struct overload_settings *settings,
                   const struct overload_bounds *bounds, uint64_t used, uint64_t most, uint64_t now_us)
{
    static struct overload_gauge gauges[OVERLOAD_RESOURCES];
    static const char *const names[] = {
#define X(id, name) name,
        OVERLOAD_RESOURCE_NAMES(X)
#undef X
    };
    double share = most ? (double)used / (double)most : 0;
    double pressure = settings->enabled ? overload_pressure_of(share, bounds->soft, bounds->hard) : 0;
    if (overload_follow(&gauges[resource], pressure, now_us))
        log_line(gauges[resource].level ? LOG_WARN : LOG_INFO, "overload", "%s: %.1f %% in use: %s",
                 names[resource], 100 * share, consequence(gauges[resource].level));
    publish(&published.shared[resource], gauges[resource].pressure);
}

// At least so many are left, however few there are.
static int client_descriptors(const struct overload_settings *settings, uint64_t most)
{
    enum { HEADROOM = 16 };
    if (!settings->enabled || most <= 2 * HEADROOM || most > INT_MAX)
        return INT_MAX;
    double share = settings->descriptors.hard * (double)most;
    return (uint64_t)share < most - HEADROOM ? (int)share : (int)most - HEADROOM;
}

void overload_sample(const struct overload_settings *settings, const struct overload_use *use,
                     uint64_t now_us)
{
    sample(OVERLOAD_DESCRIPTORS, settings, &settings->descriptors, use->descriptors, use->max_descriptors,
           now_us);
    sample(OVERLOAD_MEMORY, settings, &settings->memory, use->memory, use->max_memory, now_us);
    atomic_store_explicit(&published.client_descriptors, client_descriptors(settings, use->max_descriptors),
                          memory_order_relaxed);
}

// ---- a worker ----

static void follow_loop(struct overload *overload, uint64_t standing_us, uint64_t now_us)
{
    const struct overload_settings *settings = overload->settings;
    double pressure = settings->enabled
                          ? overload_pressure_of((double)standing_us, (double)settings->loop_lag.soft_us,
                                                 (double)settings->loop_lag.hard_us)
                          : 0;
    if (overload_follow(&overload->loop, pressure, now_us))
        log_line(overload->loop.level ? LOG_WARN : LOG_INFO, "overload",
                 "worker %u: its loop is %.1f ms late: %s", overload->slot, (double)standing_us / 1000,
                 consequence(overload->loop.level));
    publish(&published.loops[overload->slot], overload->loop.pressure);
}

bool overload_lacks_memory(const struct overload *overload, enum priority priority)
{
    return overload->memory_pressure >= (double)priority + 1;
}

void overload_turn(struct overload *overload, const struct loop *loop)
{
    uint64_t standing_us;
    if (!overload_note_lag(&overload->lag, loop->lag_us, loop->now_us, &standing_us))
        return;
    follow_loop(overload, standing_us, loop->now_us);
    overload->pressure = 0;
    for (unsigned i = 0; i < OVERLOAD_RESOURCES; i++) {
        double pressure = i == OVERLOAD_LOOP ? overload->loop.pressure : read_pressure(&published.shared[i]);
        overload->is_pressed[i] = pressure > 0;
        if (i == OVERLOAD_MEMORY)
            overload->memory_pressure = pressure;
        if (pressure > overload->pressure)
            overload->pressure = pressure;
    }
}
