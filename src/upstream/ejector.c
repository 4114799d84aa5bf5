#include "upstream/ejector.h"

#include "base/share.h"

#include <math.h>

#define load(field)         atomic_load_explicit(&(field), memory_order_relaxed)
#define store(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

static void reset_row(struct ejector *ejector)
{
    store(ejector->failures, 0);
    store(ejector->connect_failures, 0);
}

static void count(struct ejector *ejector, bool good)
{
    atomic_fetch_add_explicit(&ejector->window, UINT64_C(1) << 32 | good, memory_order_relaxed);
}

static bool reaches(uint32_t failures, int64_t limit)
{
    return limit && failures >= limit;
}

bool ejector_note(struct ejector *ejector, const struct outlier_settings *settings,
                  enum ejector_result result, bool rated, uint64_t began_us, uint64_t now_us,
                  enum ejection_reason *reason)
{
    if (began_us < load(ejector->until_us))
        return false;
    if (rated)
        count(ejector, result == EJECTOR_GOOD);
    if (result == EJECTOR_GOOD) {
        if (load(ejector->failures)) // the usual case writes nothing
            reset_row(ejector);
        return false;
    }
    if (result == EJECTOR_BAD_TOO)
        return false;
    uint32_t failures = atomic_fetch_add_explicit(&ejector->failures, 1, memory_order_relaxed) + 1;
    uint32_t connects = 0;
    if (failures == 1)
        store(ejector->row_began_us, now_us);
    if (result == EJECTOR_CONNECT_FAILED)
        connects = atomic_fetch_add_explicit(&ejector->connect_failures, 1, memory_order_relaxed) + 1;
    else
        store(ejector->connect_failures, 0);
    *reason = reaches(connects, settings->connect_failures) ? EJECTED_CONNECT_FAILURES
                                                            : EJECTED_CONSECUTIVE_FAILURES;
    return reaches(connects, settings->connect_failures) || reaches(failures, settings->consecutive_failures);
}

bool ejector_may_eject(const struct outlier_settings *settings, double panic_threshold,
                       const struct ejector_share *share)
{
    uint32_t all = share->endpoints;
    if (settings->max_ejected <= 0 || share->available < 2)
        return false;
    return (share->ejected == 0 || share_is_kept(share->ejected + 1, settings->max_ejected, all)) &&
           share_is_reached(share->available - 1, panic_threshold, all);
}

// How often the time out is to be counted, this time included: one less for every `ejection` of good service.
// More than make up max_ejection are not kept, since each would have to be made good.
static uint32_t times_now(const struct ejector *ejector, const struct outlier_settings *settings,
                          uint64_t bad_since_us)
{
    uint64_t back_us = load(ejector->until_us), times = load(ejector->times);
    uint64_t good = bad_since_us > back_us ? (bad_since_us - back_us) / settings->ejection_us : 0;
    uint64_t most = (settings->max_ejection_us + settings->ejection_us - 1) / settings->ejection_us;
    times = times > good ? times - good + 1 : 1;
    return (uint32_t)(times < most ? times : most);
}

void ejector_eject(struct ejector *ejector, const struct outlier_settings *settings,
                   enum ejection_reason reason, uint64_t bad_since_us, uint64_t now_us, double draw)
{
    uint32_t times = times_now(ejector, settings, bad_since_us);
    uint64_t out_us = settings->ejection_us * times;
    if (out_us > settings->max_ejection_us)
        out_us = settings->max_ejection_us;
    out_us -= (uint64_t)((double)out_us * EJECTION_JITTER * draw);
    store(ejector->times, times);
    store(ejector->refused, 0);
    store(ejector->window, 0);
    reset_row(ejector);
    store(ejector->reason, reason);
    store(ejector->ejected_us, now_us);
    store(ejector->announced, true);
    store(ejector->until_us, now_us + out_us);
}

void ejector_refuse(struct ejector *ejector)
{
    reset_row(ejector);
    store(ejector->refused, load(ejector->refused) + 1);
}

void ejector_readmit(struct ejector *ejector, uint64_t now_us)
{
    if (ejector_is_out(ejector, now_us))
        store(ejector->until_us, now_us);
}

void ejector_forget(struct ejector *ejector)
{
    store(ejector->until_us, 0);
    store(ejector->window, 0);
    store(ejector->times, 0);
    store(ejector->refused, 0);
    reset_row(ejector);
    store(ejector->announced, false);
}

// ---- success rates ----

struct ejector_tally ejector_take_tally(struct ejector *ejector)
{
    uint64_t window = atomic_exchange_explicit(&ejector->window, 0, memory_order_relaxed);
    return (struct ejector_tally){(uint32_t)(window >> 32), (uint32_t)window};
}

static bool is_rated(const struct ejector_tally *tally, const struct success_rate_settings *settings)
{
    return tally->requests >= settings->min_requests;
}

static double rate_of(const struct ejector_tally *tally)
{
    return (double)tally->good / tally->requests;
}

double ejector_rate_bound(const struct ejector_tally *tallies, uint32_t count,
                          const struct success_rate_settings *settings)
{
    uint32_t rated = 0;
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < count; i++)
        if (is_rated(&tallies[i], settings)) {
            sum += rate_of(&tallies[i]);
            rated++;
        }
    if (!rated || rated < settings->min_endpoints)
        return 0;
    double mean = sum / rated;
    for (uint32_t i = 0; i < count; i++)
        if (is_rated(&tallies[i], settings)) {
            double off = rate_of(&tallies[i]) - mean;
            squares += off * off;
        }
    return mean - fmax(settings->deviations * sqrt(squares / rated), settings->min_gap);
}

bool ejector_is_below(const struct ejector_tally *tally, double bound,
                      const struct success_rate_settings *settings)
{
    return is_rated(tally, settings) && rate_of(tally) < bound;
}
