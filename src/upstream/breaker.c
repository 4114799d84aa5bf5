#include "upstream/breaker.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/share.h"

#include <string.h>

// ---- the window ----

static void clear_window(struct breaker *breaker)
{
    memset(breaker->slices, 0, sizeof breaker->slices);
    breaker->windows++;
    breaker->bad_in_a_row = 0;
}

void breaker_set_window(struct breaker *breaker, uint64_t window_us)
{
    uint64_t slice_us = window_us / BREAKER_SLICES ? window_us / BREAKER_SLICES : 1;
    if (slice_us == breaker->slice_us)
        return;
    breaker->slice_us = slice_us;
    clear_window(breaker);
}

// NULL: it is long past.
static struct breaker_slice *slice_at(struct breaker *breaker, uint64_t number)
{
    struct breaker_slice *slice = &breaker->slices[number % BREAKER_SLICES];
    if (slice->at > number)
        return NULL;
    if (slice->at < number)
        *slice = (struct breaker_slice){.at = number};
    return slice;
}

void breaker_count_good(struct breaker *breaker, uint64_t slice, uint32_t n)
{
    struct breaker_slice *at = n ? slice_at(breaker, slice) : NULL;
    if (at)
        at->calls += n;
    if (n)
        breaker->bad_in_a_row = 0;
}

static void count_bad(struct breaker *breaker, enum breaker_result result, uint64_t now_us)
{
    struct breaker_slice *slice = slice_at(breaker, now_us / breaker->slice_us);
    if (!slice)
        return;
    slice->calls++;
    slice->failed += result == BREAKER_FAILED;
    slice->slow += result == BREAKER_SLOW;
}

// A late one will count as failed instead. What has slid out of the window is gone already.
static void uncount_late(struct breaker *breaker, struct breaker_pass pass)
{
    uint64_t number = pass.late_us / breaker->slice_us;
    struct breaker_slice *slice = &breaker->slices[number % BREAKER_SLICES];
    if (pass.windows != breaker->windows || slice->at != number)
        return;
    check(slice->calls > 0 && slice->slow > 0);
    slice->calls--;
    slice->slow--;
}

static void lengthen_row(struct breaker *breaker, uint64_t now_us)
{
    if (!breaker->bad_in_a_row++)
        breaker->bad_since_us = now_us;
}

struct breaker_slice breaker_sum(const struct breaker *breaker, uint64_t now_us)
{
    struct breaker_slice sum = {.at = breaker->slice_us ? now_us / breaker->slice_us : 0};
    for (unsigned i = 0; i < BREAKER_SLICES; i++) {
        const struct breaker_slice *slice = &breaker->slices[i];
        if (slice->at + BREAKER_SLICES <= sum.at)
            continue;
        sum.calls += slice->calls;
        sum.failed += slice->failed;
        sum.slow += slice->slow;
    }
    return sum;
}

// ---- changes of state ----

static void enter(struct breaker *breaker, enum breaker_state state, enum breaker_reason reason,
                  uint64_t now_us)
{
    breaker->entered[state] += breaker->state != state; // it may be open when it is forced open
    breaker->state = state;
    breaker->reason = reason;
    breaker->since_us = now_us;
}

static void enter_anew(struct breaker *breaker, enum breaker_state state, enum breaker_reason reason,
                       uint64_t now_us)
{
    enter(breaker, state, reason, now_us);
    breaker->epoch++;
    breaker->probes_good = breaker->probes_slow = breaker->probes_late = 0;
    if (state != BREAKER_OPEN) // there it shows what opened it
        clear_window(breaker);
}

static void open_for(struct breaker *breaker, const struct breaker_rules *rules, enum breaker_reason reason,
                     uint64_t now_us, double draw)
{
    uint64_t open_us = rules->open_us;
    for (unsigned i = 0; i < breaker->openings && open_us < rules->max_open_us; i++)
        open_us *= 2;
    if (open_us > rules->max_open_us)
        open_us = rules->max_open_us;
    breaker->until_us = now_us + (uint64_t)((double)open_us * (1 - BREAKER_JITTER * draw));
    breaker->openings++;
    enter_anew(breaker, BREAKER_OPEN, reason, now_us);
}

static bool has_enough_probes(const struct breaker *breaker, const struct breaker_rules *rules)
{
    return breaker->probes_good + breaker->probes_slow >= rules->half_open_requests;
}

// A state ends when its time is over, not when somebody looks.
void breaker_tick(struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us)
{
    if (breaker->probes && now_us >= breaker->probes_until_us) {
        breaker->probes = breaker->probes_late = 0;
        breaker->forgotten++;
    }
    if (breaker->force != BREAKER_AUTOMATIC)
        return;
    if (breaker->state == BREAKER_OPEN && now_us >= breaker->until_us)
        enter_anew(breaker, BREAKER_HALF_OPEN, BREAKER_TIME_OVER, breaker->until_us);
    if (breaker->state == BREAKER_HALF_OPEN && has_enough_probes(breaker, rules)) // fewer are asked for now
        enter_anew(breaker, BREAKER_RAMPING, BREAKER_PROBES_GOOD, now_us);
    if (breaker->state == BREAKER_RAMPING && clock_elapsed_us(breaker->since_us, now_us) >= rules->ramp_us)
        enter(breaker, BREAKER_CLOSED, BREAKER_TIME_OVER, breaker->since_us + rules->ramp_us);
    if (breaker->state == BREAKER_CLOSED && clock_elapsed_us(breaker->since_us, now_us) >= rules->max_open_us)
        breaker->openings = 0;
}

void breaker_set_force(struct breaker *breaker, enum breaker_force force, uint64_t now_us)
{
    static const enum breaker_state states[] = {
        [BREAKER_FORCED_OPEN] = BREAKER_OPEN,
        [BREAKER_FORCED_CLOSED] = BREAKER_CLOSED,
    };
    enum breaker_force before = breaker->force;
    if (force == before)
        return;
    breaker->force = force;
    breaker->openings = 0;
    if (force != BREAKER_AUTOMATIC)
        enter_anew(breaker, states[force], BREAKER_BY_HAND, now_us);
    else if (before == BREAKER_FORCED_OPEN)
        enter_anew(breaker, BREAKER_HALF_OPEN, BREAKER_HANDS_OFF, now_us);
    else // it is closed already
        breaker->reason = BREAKER_HANDS_OFF;
}

// ---- who may go ----

static bool take_probe(struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us)
{
    uint64_t under_way = breaker->probes - breaker->probes_late; // a late one has its result
    if (under_way + breaker->probes_good + breaker->probes_slow >= rules->half_open_requests)
        return false;
    breaker->probes++;
    breaker->probes_until_us = now_us + rules->probe_us;
    return true;
}

static double ramp_share(const struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us)
{
    double share = (double)clock_elapsed_us(breaker->since_us, now_us) / (double)rules->ramp_us;
    return share > BREAKER_RAMP_SHARE ? share : BREAKER_RAMP_SHARE;
}

bool breaker_admit(struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us, double draw,
                   struct breaker_pass *pass)
{
    breaker_tick(breaker, rules, now_us);
    bool admitted = false;
    switch (breaker->state) {
    case BREAKER_CLOSED: admitted = true; break;
    case BREAKER_OPEN: break;
    case BREAKER_HALF_OPEN: admitted = take_probe(breaker, rules, now_us); break;
    case BREAKER_RAMPING: admitted = draw < ramp_share(breaker, rules, now_us); break;
    case BREAKER_STATES: check(false);
    }
    *pass = (struct breaker_pass){breaker->epoch, breaker->forgotten,
                                  admitted && breaker->state == BREAKER_HALF_OPEN};
    return admitted;
}

// ---- how it went ----

static void note_probe(struct breaker *breaker, const struct breaker_rules *rules, enum breaker_result result,
                       uint64_t now_us, double draw)
{
    breaker->probes_good += result == BREAKER_GOOD;
    breaker->probes_slow += result == BREAKER_SLOW;
    if (result == BREAKER_FAILED)
        open_for(breaker, rules, BREAKER_PROBE_FAILED, now_us, draw);
    else if (breaker->probes_slow &&
             share_is_reached(breaker->probes_slow, rules->slow_ratio, rules->half_open_requests))
        open_for(breaker, rules, BREAKER_PROBES_SLOW, now_us, draw);
    else if (has_enough_probes(breaker, rules))
        enter_anew(breaker, BREAKER_RAMPING, BREAKER_PROBES_GOOD, now_us);
}

// Whether the bad result that was just counted is one too many. BREAKER_BEGAN: no.
static enum breaker_reason judge(const struct breaker *breaker, const struct breaker_rules *rules,
                                 uint64_t now_us)
{
    struct breaker_slice sum = breaker_sum(breaker, now_us);
    uint64_t enough = rules->min_requests;
    if (breaker->state == BREAKER_RAMPING && enough > BREAKER_RAMP_REQUESTS)
        enough = BREAKER_RAMP_REQUESTS;
    if (sum.calls < enough)
        return BREAKER_BEGAN;
    if (sum.failed && share_is_reached(sum.failed, rules->failure_ratio, sum.calls))
        return BREAKER_FAILURES;
    if (sum.slow && share_is_reached(sum.slow, rules->slow_ratio, sum.calls))
        return BREAKER_SLOWNESS;
    if (breaker->bad_in_a_row >= enough &&
        clock_elapsed_us(breaker->bad_since_us, now_us) >= breaker->slice_us)
        return BREAKER_NOTHING_GOOD;
    return BREAKER_BEGAN;
}

static void judge_now(struct breaker *breaker, const struct breaker_rules *rules, uint64_t now_us,
                      double draw)
{
    enum breaker_reason reason = judge(breaker, rules, now_us);
    if (reason != BREAKER_BEGAN && breaker->force == BREAKER_AUTOMATIC)
        open_for(breaker, rules, reason, now_us, draw);
}

static void note_call(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass pass,
                      enum breaker_result result, uint64_t now_us, double draw)
{
    if (result == BREAKER_GOOD) {
        breaker_count_good(breaker, now_us / breaker->slice_us, 1);
        return;
    }
    if (pass.late)
        uncount_late(breaker, pass); // it has its place in the row
    else
        lengthen_row(breaker, now_us);
    count_bad(breaker, result, now_us);
    judge_now(breaker, rules, now_us, draw);
}

static bool is_known_probe(const struct breaker *breaker, struct breaker_pass pass)
{
    return pass.probe && pass.forgotten == breaker->forgotten;
}

static void give_probe_back(struct breaker *breaker, struct breaker_pass pass)
{
    check(breaker->probes > 0);
    breaker->probes--;
    if (!pass.late || pass.epoch != breaker->epoch)
        return;
    check(breaker->probes_late > 0);
    breaker->probes_late--;
}

void breaker_note(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass pass,
                  enum breaker_result result, uint64_t now_us, double draw)
{
    breaker_tick(breaker, rules, now_us);
    if (is_known_probe(breaker, pass))
        give_probe_back(breaker, pass);
    result = breaker_adds(pass, result);
    if (pass.epoch != breaker->epoch)
        return;
    if (result == BREAKER_SLOW && !rules->judges_slow)
        result = BREAKER_GOOD;
    if (breaker->state == BREAKER_HALF_OPEN)
        note_probe(breaker, rules, result, now_us, draw);
    else if (result != BREAKER_NEUTRAL && breaker->state != BREAKER_OPEN)
        note_call(breaker, rules, pass, result, now_us, draw);
}

void breaker_pass_over(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass *pass,
                       uint64_t now_us)
{
    breaker_tick(breaker, rules, now_us);
    if (is_known_probe(breaker, *pass))
        give_probe_back(breaker, *pass);
    pass->forgotten = breaker->forgotten - 1; // by the breaker; it stays a probe
}

void breaker_note_slow(struct breaker *breaker, const struct breaker_rules *rules, struct breaker_pass *pass,
                       uint64_t now_us, double draw)
{
    breaker_tick(breaker, rules, now_us);
    if (pass->epoch != breaker->epoch || breaker->state == BREAKER_OPEN || !rules->judges_slow)
        return;
    if (pass->late) {
        if (breaker->state != BREAKER_HALF_OPEN)
            judge_now(breaker, rules, now_us, draw);
        return;
    }
    if (breaker->state == BREAKER_HALF_OPEN) {
        breaker->probes_late += is_known_probe(breaker, *pass);
        note_probe(breaker, rules, BREAKER_SLOW, now_us, draw);
    } else {
        note_call(breaker, rules, *pass, BREAKER_SLOW, now_us, draw);
    }
    pass->late = true;
    pass->late_us = now_us;
    pass->windows = breaker->windows;
}

// ---- what it looks like ----

uint64_t breaker_wait_us(const struct breaker *breaker, uint64_t now_us)
{
    if (breaker->force != BREAKER_AUTOMATIC || breaker->state != BREAKER_OPEN)
        return 0;
    return clock_elapsed_us(now_us, breaker->until_us);
}

const char *breaker_state_name(enum breaker_state state)
{
    static const char *const names[] = {
#define X(id, word) word,
        BREAKER_STATE_NAMES(X)
#undef X
    };
    return names[state];
}

const char *breaker_reason_name(enum breaker_reason reason)
{
    static const char *const names[] = {
#define X(id, word) word,
        BREAKER_REASONS(X)
#undef X
    };
    return names[reason];
}
