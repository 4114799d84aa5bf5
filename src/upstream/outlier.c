#include "upstream/outlier.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

// Ejections are decided one at a time, so that two workers cannot eject one endpoint too many. Held for a
// look at the endpoints of one upstream, once for a row of failures; never while the log is written.
static pthread_mutex_t deciding = PTHREAD_MUTEX_INITIALIZER;

enum { WORDS = 128 }; // why, for the log

#define load(field) atomic_load_explicit(&(field), memory_order_relaxed)

static bool is_up(const struct endpoint *endpoint)
{
    return load(endpoint->up);
}

static struct ejector_share share_of(const struct upstream *upstream, uint64_t now_us)
{
    struct ejector_share share = {0};
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        const struct endpoint *endpoint = upstream->targets[i].endpoint;
        bool out = ejector_is_out(&endpoint->ejector, now_us);
        if (!upstream->targets[i].weight)
            continue;
        share.endpoints++;
        share.ejected += out;
        share.available += !out && is_up(endpoint);
    }
    return share;
}

// ---- decisions ----

struct finding { // against an endpoint
    enum ejection_reason reason;
    struct str why;
    uint64_t bad_since_us;
};

// The log is to say that an endpoint is back. The lock.
static bool take_announcement(struct endpoint *endpoint)
{
    return atomic_exchange_explicit(&endpoint->ejector.announced, false, memory_order_relaxed);
}

static void say_back(const struct endpoint *endpoint, uint64_t since_us, uint64_t now_us, const char *why)
{
    log_info("upstream", "%.*s: %.*s is no longer ejected after %llu ms: %s",
             STR_ARG(endpoint->upstream_name), STR_ARG(endpoint->name),
             (unsigned long long)(clock_elapsed_us(since_us, now_us) / 1000), why);
}

static void say_out(const struct endpoint *endpoint, uint64_t until_us, uint64_t now_us, struct str why)
{
    log_warn("upstream", "%.*s: %.*s is ejected for %llu ms: %.*s", STR_ARG(endpoint->upstream_name),
             STR_ARG(endpoint->name), (unsigned long long)((until_us - now_us) / 1000), STR_ARG(why));
}

static bool may_eject(const struct upstream *upstream, uint64_t now_us)
{
    struct ejector_share share = share_of(upstream, now_us);
    return ejector_may_eject(&upstream->settings->outlier, upstream->settings->panic_threshold, &share);
}

static void eject(const struct upstream *upstream, struct endpoint *endpoint, const struct finding *finding,
                  uint64_t now_us, struct rand *rand, struct metrics *metrics)
{
    struct ejector *ejector = &endpoint->ejector;
    bool ejected = false, was_out = false;
    pthread_mutex_lock(&deciding);
    uint64_t before_us = load(ejector->ejected_us);
    // Another worker may have been first, or checks have taken it out already.
    if (!ejector_is_out(ejector, now_us) && is_up(endpoint)) {
        was_out = take_announcement(endpoint);
        ejected = may_eject(upstream, now_us);
        if (ejected)
            ejector_eject(ejector, &upstream->settings->outlier, finding->reason, finding->bad_since_us,
                          now_us, rand_unit(rand));
        else
            ejector_refuse(ejector);
    }
    uint64_t until_us = load(ejector->until_us);
    pthread_mutex_unlock(&deciding);
    if (was_out)
        say_back(endpoint, before_us, now_us, "its time was over");
    if (!ejected)
        return;
    metrics_ejection(metrics, endpoint->metric_id, finding->reason);
    say_out(endpoint, until_us, now_us, finding->why);
}

// Says that it is back, when it is and the log does not say so yet. A worker may have ejected it again since
// somebody looked.
static void announce_return(struct endpoint *endpoint, uint64_t now_us, const char *why)
{
    pthread_mutex_lock(&deciding);
    uint64_t since_us = load(endpoint->ejector.ejected_us);
    bool is_back = !ejector_is_out(&endpoint->ejector, now_us) && take_announcement(endpoint);
    pthread_mutex_unlock(&deciding);
    if (is_back)
        say_back(endpoint, since_us, now_us, why);
}

static void readmit(struct endpoint *endpoint, uint64_t now_us, const char *why)
{
    pthread_mutex_lock(&deciding);
    ejector_readmit(&endpoint->ejector, now_us);
    pthread_mutex_unlock(&deciding);
    announce_return(endpoint, now_us, why);
}

// ---- what is told of endpoints ----

static bool rates(const struct upstream *upstream)
{
    const struct outlier_settings *settings = &upstream->settings->outlier;
    return settings->max_ejected > 0 && settings->success_rate.deviations > 0 &&
           upstream->target_count >= settings->success_rate.min_endpoints;
}

static enum ejector_result result_of(const struct upstream_outcome *outcome)
{
    if (outcome->is_shared)
        return EJECTOR_BAD_TOO;
    if (outcome->verdict == OUTCOME_FAILURE)
        return outcome->connect_failed ? EJECTOR_CONNECT_FAILED : EJECTOR_BAD;
    if (outcome->verdict == OUTCOME_OUTRUN)
        return EJECTOR_BAD;
    return outcome->status >= 500 && outcome->status != 501 ? EJECTOR_BAD : EJECTOR_GOOD;
}

static struct str words_of(const struct upstream_outcome *outcome, uint32_t row, char *out, size_t size)
{
    struct str code = end_row(outcome->cause)->code;
    const char *last = outcome->verdict == OUTCOME_FAILURE ? code.p : "slower than a hedge";
    int n = outcome->verdict == OUTCOME_ANSWER
                ? snprintf(out, size, "%u failures in a row, the last one: status %u", row, outcome->status)
                : snprintf(out, size, "%u failures in a row, the last one: %s", row, last);
    return (struct str){out, (size_t)n};
}

void outlier_note(const struct upstream *upstream, const struct upstream_outcome *outcome, uint64_t began_us,
                  uint64_t now_us, struct rand *rand, struct metrics *metrics)
{
    const struct outlier_settings *settings = &upstream->settings->outlier;
    enum ejection_reason reason;
    if (outcome->verdict == OUTCOME_NONE || settings->max_ejected <= 0 || upstream->target_count < 2)
        return;
    struct ejector *ejector = &outcome->endpoint->ejector;
    bool rated = rates(upstream) && outcome->verdict != OUTCOME_OUTRUN; // an answer might have been good
    if (!ejector_note(ejector, settings, result_of(outcome), rated, began_us, now_us, &reason))
        return;
    char words[WORDS];
    struct finding finding = {
        .reason = reason,
        .why = words_of(outcome, load(ejector->failures), words, sizeof words),
        .bad_since_us = load(ejector->row_began_us),
    };
    eject(upstream, outcome->endpoint, &finding, now_us, rand, metrics);
}

void outlier_check_passed(struct endpoint *endpoint, uint64_t began_us, uint64_t now_us)
{
    // What began before the ejection has not seen what it was ejected for.
    if (ejector_is_out(&endpoint->ejector, now_us) && began_us >= load(endpoint->ejector.ejected_us))
        readmit(endpoint, now_us, "a check was good");
}

void outlier_rate(const struct upstream *upstream, uint64_t since_us, uint64_t now_us, struct rand *rand,
                  struct metrics *metrics)
{
    const struct success_rate_settings *settings = &upstream->settings->outlier.success_rate;
    if (!rates(upstream))
        return;
    struct ejector_tally *tallies = calloc(upstream->target_count, sizeof *tallies);
    check(tallies);
    for (uint32_t i = 0; i < upstream->target_count; i++)
        tallies[i] = ejector_take_tally(&upstream->targets[i].endpoint->ejector);
    double bound = ejector_rate_bound(tallies, upstream->target_count, settings);
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        if (!ejector_is_below(&tallies[i], bound, settings))
            continue;
        char words[WORDS];
        int n = snprintf(words, sizeof words, "%u of %u answers were good, less than %.1f %%",
                         tallies[i].good, tallies[i].requests, bound * 100);
        struct finding finding = {EJECTED_SUCCESS_RATE, {words, (size_t)n}, since_us};
        eject(upstream, upstream->targets[i].endpoint, &finding, now_us, rand, metrics);
    }
    free(tallies);
}

// Why an endpoint may not stay ejected, whatever its time; NULL: nothing.
static const char *amnesty(const struct upstream *upstream, uint64_t now_us)
{
    if (upstream->settings->outlier.max_ejected <= 0)
        return "outliers are no longer ejected";
    struct ejector_share share = share_of(upstream, now_us);
    return share.available == 0 && share.ejected ? "no other is left" : NULL;
}

void outlier_settle(const struct upstream *upstream, uint64_t now_us)
{
    const char *why = amnesty(upstream, now_us);
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        struct endpoint *endpoint = upstream->targets[i].endpoint;
        bool out = ejector_is_out(&endpoint->ejector, now_us);
        if (out && why)
            readmit(endpoint, now_us, why);
        else if (!out && load(endpoint->ejector.announced))
            announce_return(endpoint, now_us, "its time is over");
    }
}

// ---- the control thread's part ----

struct outliers {
    struct loop *loop;
    struct upstream *const *upstreams;
    uint32_t count;
    struct metrics *metrics;
    struct loop_timer timer;
    uint64_t *rated_us; // when success rates were last compared: by upstream->index
    uint32_t rated_count;
    struct rand rand;
};

static void sweep(struct outliers *outliers, const struct upstream *upstream, uint64_t now_us)
{
    uint64_t *rated_us = &outliers->rated_us[upstream->index];
    outlier_settle(upstream, now_us);
    if (now_us - *rated_us < upstream->settings->outlier.success_rate.interval_us)
        return;
    outlier_rate(upstream, *rated_us, now_us, &outliers->rand, outliers->metrics);
    *rated_us = now_us;
}

static void on_timer(struct loop_timer *timer)
{
    struct outliers *outliers = container_of(timer, struct outliers, timer);
    for (uint32_t i = 0; i < outliers->count; i++)
        sweep(outliers, outliers->upstreams[i], outliers->loop->now_us);
    loop_timer_set(outliers->loop, &outliers->timer, OUTLIER_SWEEP_MS);
}

static uint64_t rated_before(const struct outliers *before, uint32_t index, uint64_t now_us)
{
    bool known = before && index < before->rated_count && before->rated_us[index];
    return known ? before->rated_us[index] : now_us;
}

// However often there is a reload.
static uint64_t next_sweep_ms(const struct outliers *before, uint64_t now_ms)
{
    if (!before)
        return OUTLIER_SWEEP_MS;
    return before->timer.due_ms > now_ms ? before->timer.due_ms - now_ms : 0;
}

struct outliers *outliers_start(struct loop *loop, struct upstream *const *upstreams, uint32_t count,
                                struct metrics *metrics, struct outliers *before)
{
    struct outliers *outliers = calloc(1, sizeof *outliers);
    check(outliers);
    outliers->loop = loop;
    outliers->upstreams = upstreams;
    outliers->count = count;
    outliers->metrics = metrics;
    rand_init(&outliers->rand);
    for (uint32_t i = 0; i < count; i++)
        if (upstreams[i]->index >= outliers->rated_count)
            outliers->rated_count = upstreams[i]->index + 1;
    outliers->rated_us = calloc(outliers->rated_count + 1, sizeof *outliers->rated_us);
    check(outliers->rated_us);
    for (uint32_t i = 0; i < count; i++)
        outliers->rated_us[upstreams[i]->index] = rated_before(before, upstreams[i]->index, loop->now_us);
    loop_timer_init(&outliers->timer, on_timer);
    loop_timer_set(loop, &outliers->timer, next_sweep_ms(before, loop_now_ms(loop)));
    outliers_stop(before);
    return outliers;
}

void outliers_stop(struct outliers *outliers)
{
    if (!outliers)
        return;
    loop_timer_stop(outliers->loop, &outliers->timer);
    free(outliers->rated_us);
    free(outliers);
}
