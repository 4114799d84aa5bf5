#include "upstream/shared_breaker.h"

#include "base/check.h"
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

// What the door says: closed, ask under the lock, or open until a time.
#define DOOR_CLOSED  UINT64_C(0)
#define DOOR_ASK     UINT64_C(1)
#define DOOR_OF_HAND UINT64_MAX // open until somebody lets go

enum { GOOD_BITS = 24, GOOD_MOST = (1 << GOOD_BITS) - 1 };

// Good results of one worker that the breaker may not have counted yet: a slice's number and how many.
// Written by its worker alone.
struct shard {
    _Alignas(CACHE_LINE) _Atomic(uint64_t) good; // slice << GOOD_BITS | count
    uint64_t taken;                              // under the lock: what of it has been counted
};

struct shared_breaker {
    // Read by all, seldom written.
    _Alignas(CACHE_LINE) _Atomic(uint64_t) door;
    _Atomic(uint32_t) epoch;
    _Atomic(uint64_t) slice_us;
    struct str upstream, endpoint;
    struct breaker_tally *tally;
    unsigned shard_count;
    struct shard *shards;

    _Alignas(CACHE_LINE) pthread_mutex_t lock;
    struct breaker core;
};

struct shared_breaker *shared_breaker_new(struct str upstream, struct str endpoint, unsigned workers,
                                          struct breaker_tally *tally)
{
    struct shared_breaker *breaker = aligned_alloc(CACHE_LINE, sizeof *breaker);
    struct shard *shards = aligned_alloc(CACHE_LINE, workers * sizeof *shards);
    check(breaker && shards && workers);
    *breaker = (struct shared_breaker){
        .upstream = upstream, .endpoint = endpoint, .tally = tally, .shards = shards, .shard_count = workers};
    for (unsigned i = 0; i < workers; i++)
        shards[i] = (struct shard){0};
    check(pthread_mutex_init(&breaker->lock, NULL) == 0);
    return breaker;
}

// ---- changes, for the log: written when the lock is no longer held ----

struct change {
    enum breaker_state to;
    enum breaker_reason reason;
    bool forced;
    uint64_t wait_us;
    struct breaker_slice sum;
};

struct changes {
    enum breaker_state state; // seen last
    enum breaker_force force;
    unsigned count;
    struct change v[2];               // by time, and by what was done
    uint64_t entered[BREAKER_STATES]; // before all of them
};

static void look_for_change(const struct shared_breaker *breaker, struct changes *changes, uint64_t now_us)
{
    const struct breaker *core = &breaker->core;
    if (core->state == changes->state && core->force == changes->force)
        return;
    changes->v[changes->count++] = (struct change){
        .to = core->state,
        .reason = core->reason,
        .forced = core->force != BREAKER_AUTOMATIC,
        .wait_us = breaker_wait_us(core, now_us),
        .sum = breaker_sum(core, now_us),
    };
    changes->state = core->state;
    changes->force = core->force;
}

static void tell(const struct shared_breaker *breaker, const struct changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++) {
        const struct change *change = &changes->v[i];
        enum log_level level = change->to == BREAKER_OPEN ? LOG_WARN : LOG_INFO;
        char more[128] = "";
        size_t n = 0;
        if (change->to == BREAKER_OPEN && !change->forced)
            n = (size_t)snprintf(more, sizeof more, " for %llu ms",
                                 (unsigned long long)change->wait_us / 1000);
        if (n && change->sum.calls) // probes are in no window
            snprintf(more + n, sizeof more - n, ", %u of %u requests failed, %u were slow",
                     change->sum.failed, change->sum.calls, change->sum.slow);
        log_line(level, "breaker", "upstream %.*s%s%.*s: %s (%s)%s", STR_ARG(breaker->upstream),
                 breaker->endpoint.n ? ": " : "", STR_ARG(breaker->endpoint), breaker_state_name(change->to),
                 breaker_reason_name(change->reason), more);
    }
}

// ---- under the lock ----

// The good results that workers have counted by themselves.
static void take_over(struct shared_breaker *breaker, uint64_t now_us)
{
    uint64_t newest = breaker->core.slice_us ? now_us / breaker->core.slice_us : 0;
    for (unsigned i = 0; i < breaker->shard_count; i++) {
        struct shard *shard = &breaker->shards[i];
        uint64_t good = atomic_load_explicit(&shard->good, memory_order_relaxed);
        uint64_t slice = good >> GOOD_BITS;
        bool same_slice = slice == shard->taken >> GOOD_BITS;
        uint64_t before = same_slice ? shard->taken & GOOD_MOST : 0, n = (good & GOOD_MOST) - before;
        shard->taken = good;
        // The window may have become another one meanwhile: none begins in the future.
        breaker_count_good(&breaker->core, slice < newest ? slice : newest, (uint32_t)n);
    }
}

static void lock(struct shared_breaker *breaker, const struct breaker_rules *rules, uint64_t now_us,
                 struct changes *changes)
{
    pthread_mutex_lock(&breaker->lock);
    take_over(breaker, now_us);
    *changes = (struct changes){.state = breaker->core.state, .force = breaker->core.force};
    memcpy(changes->entered, breaker->core.entered, sizeof changes->entered);
    if (!rules)
        return;
    breaker_tick(&breaker->core, rules, now_us);
    look_for_change(breaker, changes, now_us);
}

static void add_to_tally(const struct shared_breaker *breaker, const struct changes *changes)
{
    for (unsigned i = 0; i < BREAKER_STATES; i++) {
        uint64_t times = breaker->core.entered[i] - changes->entered[i];
        if (times)
            atomic_fetch_add_explicit(&breaker->tally->entered[i], times, memory_order_relaxed);
    }
}

static uint64_t door_of(const struct breaker *core)
{
    if (core->state == BREAKER_CLOSED)
        return DOOR_CLOSED;
    if (core->state != BREAKER_OPEN)
        return DOOR_ASK;
    return core->force == BREAKER_FORCED_OPEN ? DOOR_OF_HAND : core->until_us;
}

static void unlock(struct shared_breaker *breaker, uint64_t now_us, struct changes *changes)
{
    uint64_t door = door_of(&breaker->core);
    look_for_change(breaker, changes, now_us);
    add_to_tally(breaker, changes);
    if (door != atomic_load_explicit(&breaker->door, memory_order_relaxed))
        atomic_store_explicit(&breaker->door, door, memory_order_relaxed);
    if (breaker->core.epoch != atomic_load_explicit(&breaker->epoch, memory_order_relaxed))
        atomic_store_explicit(&breaker->epoch, breaker->core.epoch, memory_order_relaxed);
    pthread_mutex_unlock(&breaker->lock);
    tell(breaker, changes);
}

// ---- for workers ----

bool shared_breaker_is_open(const struct shared_breaker *breaker, uint64_t now_us, uint64_t *wait_us)
{
    uint64_t door = atomic_load_explicit(&breaker->door, memory_order_relaxed);
    *wait_us = door != DOOR_OF_HAND && door > now_us ? door - now_us : 0;
    return door > now_us;
}

bool shared_breaker_is_stale(const struct shared_breaker *breaker, struct breaker_pass pass)
{
    return atomic_load_explicit(&breaker->epoch, memory_order_relaxed) != pass.epoch;
}

bool shared_breaker_admit(struct shared_breaker *breaker, const struct breaker_rules *rules, uint64_t now_us,
                          struct rand *rand, struct breaker_pass *pass, uint64_t *wait_us)
{
    *wait_us = 0;
    if (likely(atomic_load_explicit(&breaker->door, memory_order_relaxed) == DOOR_CLOSED)) {
        *pass = (struct breaker_pass){.epoch = atomic_load_explicit(&breaker->epoch, memory_order_relaxed)};
        return true;
    }
    if (shared_breaker_is_open(breaker, now_us, wait_us))
        return false;
    struct changes changes;
    lock(breaker, rules, now_us, &changes);
    bool admitted = breaker_admit(&breaker->core, rules, now_us, rand_unit(rand), pass);
    *wait_us = breaker_wait_us(&breaker->core, now_us);
    unlock(breaker, now_us, &changes);
    return admitted;
}

// In the worker's own line. False: that belongs to another slice, or is full.
static bool count_good_here(struct shard *shard, uint64_t slice)
{
    uint64_t good = atomic_load_explicit(&shard->good, memory_order_relaxed);
    if (good >> GOOD_BITS != slice || (good & GOOD_MOST) == GOOD_MOST)
        return false;
    atomic_store_explicit(&shard->good, good + 1, memory_order_relaxed);
    return true;
}

// The count so far is taken over: begins another one. Under the lock.
static void begin_count(struct shard *shard, uint64_t slice)
{
    shard->taken = slice << GOOD_BITS;
    atomic_store_explicit(&shard->good, shard->taken + 1, memory_order_relaxed);
}

void shared_breaker_note(struct shared_breaker *breaker, const struct breaker_rules *rules, unsigned worker,
                         struct breaker_pass pass, enum breaker_result result, uint64_t now_us,
                         struct rand *rand)
{
    check(worker < breaker->shard_count);
    struct shard *shard = &breaker->shards[worker];
    result = breaker_adds(pass, result);
    bool closed = atomic_load_explicit(&breaker->door, memory_order_relaxed) == DOOR_CLOSED &&
                  !shared_breaker_is_stale(breaker, pass) && !pass.probe;
    if (closed && result == BREAKER_NEUTRAL)
        return;
    uint64_t slice_us = atomic_load_explicit(&breaker->slice_us, memory_order_relaxed);
    bool is_good = closed && result == BREAKER_GOOD && slice_us;
    if (is_good && count_good_here(shard, now_us / slice_us))
        return;
    struct changes changes;
    lock(breaker, rules, now_us, &changes);
    if (is_good && breaker->core.state == BREAKER_CLOSED)
        begin_count(shard, now_us / slice_us);
    else
        breaker_note(&breaker->core, rules, pass, result, now_us, rand_unit(rand));
    unlock(breaker, now_us, &changes);
}

void shared_breaker_note_slow(struct shared_breaker *breaker, const struct breaker_rules *rules,
                              struct breaker_pass *pass, uint64_t now_us, struct rand *rand)
{
    if (shared_breaker_is_stale(breaker, *pass))
        return;
    struct changes changes;
    lock(breaker, rules, now_us, &changes);
    breaker_note_slow(&breaker->core, rules, pass, now_us, rand_unit(rand));
    unlock(breaker, now_us, &changes);
}

void shared_breaker_pass_over(struct shared_breaker *breaker, const struct breaker_rules *rules,
                              struct breaker_pass *pass, uint64_t now_us)
{
    struct changes changes;
    lock(breaker, rules, now_us, &changes);
    breaker_pass_over(&breaker->core, rules, pass, now_us);
    unlock(breaker, now_us, &changes);
}

// ---- for the control thread ----

void shared_breaker_configure(struct shared_breaker *breaker, const struct breaker_rules *rules)
{
    pthread_mutex_lock(&breaker->lock);
    breaker_set_window(&breaker->core, rules->window_us);
    atomic_store_explicit(&breaker->slice_us, breaker->core.slice_us, memory_order_relaxed);
    pthread_mutex_unlock(&breaker->lock);
}

void shared_breaker_reset(struct shared_breaker *breaker)
{
    struct changes changes;
    lock(breaker, NULL, 0, &changes);
    struct breaker fresh = {.epoch = breaker->core.epoch + 1,
                            .forgotten = breaker->core.forgotten + 1,
                            .slice_us = breaker->core.slice_us};
    memcpy(fresh.entered, breaker->core.entered, sizeof fresh.entered);
    if (breaker->core.force != BREAKER_AUTOMATIC) {
        fresh.force = breaker->core.force;
        fresh.state = breaker->core.state;
        fresh.reason = breaker->core.reason;
        fresh.since_us = breaker->core.since_us;
    }
    fresh.entered[fresh.state] += fresh.state != breaker->core.state;
    breaker->core = fresh;
    unlock(breaker, 0, &changes);
}

void shared_breaker_set_force(struct shared_breaker *breaker, enum breaker_force force, uint64_t now_us)
{
    struct changes changes;
    lock(breaker, NULL, now_us, &changes);
    breaker_set_force(&breaker->core, force, now_us);
    unlock(breaker, now_us, &changes);
}

struct breaker shared_breaker_look(struct shared_breaker *breaker, const struct breaker_rules *rules,
                                   uint64_t now_us)
{
    struct changes changes;
    lock(breaker, rules, now_us, &changes);
    struct breaker core = breaker->core;
    unlock(breaker, now_us, &changes);
    return core;
}
