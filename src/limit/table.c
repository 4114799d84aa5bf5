#include "limit/table.h"

#include "limit/sets.h"

#include <pthread.h>
#include <stdlib.h>

enum { PLACES = 31 };

// A place whose key is being replaced. No bucket's state: it is full in seventeen years.
#define CHANGING UINT64_MAX

struct set {
    atomic_uint lock; // held by who adds a key
    atomic_uint used; // places that hold one, from the first on: it only grows
    _Atomic uint64_t tags[PLACES];
    _Atomic uint64_t states[PLACES];
    uint64_t spare;
};
_Static_assert(sizeof(struct set) == 512, "tags and states are four lines each");

struct limit_table {
    struct set *sets;
    uint64_t count;
    _Atomic uint64_t used, forgotten; // written when a key is new
};

struct limit_table *limit_table_new(size_t bytes)
{
    struct limit_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->count = bytes / sizeof(struct set) ? bytes / sizeof(struct set) : 1;
    table->sets = sets_map(table->count * sizeof(struct set));
    if (!table->sets) {
        free(table);
        return NULL;
    }
    return table;
}

void limit_table_free(struct limit_table *table)
{
    munmap(table->sets, table->count * sizeof(struct set));
    free(table);
}

static struct limit_table *shared;
static pthread_once_t shared_once = PTHREAD_ONCE_INIT;

static void make_shared(void)
{
    shared = limit_table_new(LIMIT_TABLE_BYTES);
    check(shared);
}

struct limit_table *limit_table_shared(void)
{
    pthread_once(&shared_once, make_shared);
    return shared;
}

// ---- finding a key ----

static struct set *set_of(const struct limit_table *table, struct hash128 key)
{
    return &table->sets[sets_index(key, table->count)];
}

// The place, or -1.
static int find(struct set *set, uint64_t tag)
{
    unsigned used = atomic_load_explicit(&set->used, memory_order_acquire);
    for (unsigned i = 0; i < used; i++)
        if (atomic_load_explicit(&set->tags[i], memory_order_acquire) == tag)
            return (int)i;
    return -1;
}

// The bucket at a place that held this key a moment ago. False: it has been given to another one since.
static bool load(struct set *set, int place, uint64_t tag, uint64_t *state)
{
    *state = atomic_load_explicit(&set->states[place], memory_order_acquire);
    return *state != CHANGING && atomic_load_explicit(&set->tags[place], memory_order_acquire) == tag;
}

// ---- adding one ----

// The place to give away: the state that is the earliest is that of the bucket that is full for the longest
// time, or of the one that will be full first.
static unsigned choose_victim(struct set *set)
{
    unsigned victim = 0;
    uint64_t least = CHANGING;
    for (unsigned i = 0; i < PLACES; i++) {
        uint64_t state = atomic_load_explicit(&set->states[i], memory_order_relaxed);
        if (state < least) {
            least = state;
            victim = i;
        }
    }
    return victim;
}

// Under the lock. Who finds the old tag and charges the old state meanwhile either comes before the exchange
// below, and another victim is chosen, or fails.
static unsigned make_room(struct limit_table *table, struct set *set, uint64_t now_us)
{
    for (;;) {
        unsigned victim = choose_victim(set);
        uint64_t state = atomic_load_explicit(&set->states[victim], memory_order_relaxed);
        if (!atomic_compare_exchange_strong(&set->states[victim], &state, CHANGING))
            continue;
        if (!bucket_is_full(state, now_us))
            atomic_fetch_add_explicit(&table->forgotten, 1, memory_order_relaxed);
        return victim;
    }
}

static int add(struct limit_table *table, struct set *set, uint64_t tag, uint64_t now_us)
{
    sets_lock(&set->lock);
    int place = find(set, tag);
    if (place < 0) {
        unsigned used = atomic_load_explicit(&set->used, memory_order_relaxed);
        place = (int)(used < PLACES ? used : make_room(table, set, now_us));
        atomic_store_explicit(&set->tags[place], tag, memory_order_release);
        atomic_store_explicit(&set->states[place], rule_new_state(now_us), memory_order_release);
        if (used < PLACES) {
            atomic_store_explicit(&set->used, used + 1, memory_order_release);
            atomic_fetch_add_explicit(&table->used, 1, memory_order_relaxed);
        }
    }
    sets_unlock(&set->lock);
    return place;
}

// ---- what can be asked ----

struct move {
    const struct limit_rule *rule;
    uint64_t now_us, cost, wait_us;
    uint64_t state; // change_put, change_drain: the new one
};

// Whether there is another state to be put in place.
static bool change_take(struct move *move, uint64_t state, uint64_t *next)
{
    uint64_t settled = rule_settle(move->rule, state, move->now_us);
    move->wait_us = rule_wait_us(move->rule, settled, move->now_us, move->cost);
    *next = move->wait_us ? settled : rule_charge(move->rule, settled, move->now_us, move->cost);
    return *next != state;
}

static bool change_nothing(struct move *move, uint64_t state, uint64_t *next)
{
    *next = rule_settle(move->rule, state, move->now_us);
    move->wait_us = rule_wait_us(move->rule, *next, move->now_us, move->cost);
    return *next != state;
}

static bool change_charge(struct move *move, uint64_t state, uint64_t *next)
{
    *next = rule_charge(move->rule, rule_settle(move->rule, state, move->now_us), move->now_us, move->cost);
    return *next != state;
}

static bool change_put(struct move *move, uint64_t state, uint64_t *next)
{
    *next = move->state;
    return *next != state;
}

static bool change_drain(struct move *move, uint64_t state, uint64_t *next)
{
    *next = move->state;
    return *next > state;
}

// Asks change until its answer could be put in place. Returns the state afterwards.
static inline __attribute__((always_inline)) uint64_t
move_state(struct limit_table *table, struct hash128 key, struct move *move,
           bool (*change)(struct move *move, uint64_t state, uint64_t *next))
{
    struct set *set = set_of(table, key);
    uint64_t tag = sets_tag(key), state, next;
    for (;;) {
        int place = find(set, tag);
        if (unlikely(place < 0))
            place = add(table, set, tag, move->now_us);
        if (!load(set, place, tag, &state))
            continue;
        if (!change(move, state, &next))
            return state;
        // The tag is looked at again: a state is seldom the same for two keys, but it can be. Then one token
        // of a stranger is gone, and nobody was let in for it.
        if (atomic_compare_exchange_strong_explicit(&set->states[place], &state, next, memory_order_acq_rel,
                                                    memory_order_acquire) &&
            likely(atomic_load_explicit(&set->tags[place], memory_order_acquire) == tag))
            return next;
    }
}

uint64_t limit_table_take(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                          uint64_t now_us, uint64_t cost, uint64_t *state)
{
    struct move move = {.rule = rule, .now_us = now_us, .cost = cost};
    *state = move_state(table, key, &move, change_take);
    return move.wait_us;
}

uint64_t limit_table_look(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                          uint64_t now_us, uint64_t cost, uint64_t *state)
{
    struct move move = {.rule = rule, .now_us = now_us, .cost = cost};
    *state = move_state(table, key, &move, change_nothing);
    return move.wait_us;
}

uint64_t limit_table_charge(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                            uint64_t now_us, uint64_t cost)
{
    struct move move = {.rule = rule, .now_us = now_us, .cost = cost};
    return move_state(table, key, &move, change_charge);
}

void limit_table_put(struct limit_table *table, struct hash128 key, uint64_t now_us, uint64_t state)
{
    struct move move = {.now_us = now_us, .state = state};
    move_state(table, key, &move, change_put);
}

void limit_table_drain(struct limit_table *table, struct hash128 key, uint64_t now_us, uint64_t state)
{
    struct move move = {.now_us = now_us, .state = state};
    move_state(table, key, &move, change_drain);
}

uint64_t limit_table_give(struct limit_table *table, struct hash128 key, const struct limit_rule *rule,
                          uint64_t cost)
{
    struct set *set = set_of(table, key);
    uint64_t tag = sets_tag(key), state, next = 0;
    int place;
    do {
        place = find(set, tag);
        if (place < 0)
            return 0;
        if (load(set, place, tag, &state))
            next = rule_give(rule, state, cost);
    } while (state == CHANGING || !atomic_compare_exchange_strong(&set->states[place], &state, next));
    return next;
}

bool limit_table_find(const struct limit_table *table, struct hash128 key, uint64_t *state)
{
    struct set *set = set_of(table, key);
    uint64_t tag = sets_tag(key);
    for (;;) {
        int place = find(set, tag);
        if (place < 0)
            return false;
        if (load(set, place, tag, state))
            return true;
    }
}

bool limit_table_reset(struct limit_table *table, struct hash128 key)
{
    struct set *set = set_of(table, key);
    uint64_t tag = sets_tag(key), state;
    int place;
    do {
        place = find(set, tag);
        if (place < 0)
            return false;
    } while (!load(set, place, tag, &state) ||
             !atomic_compare_exchange_strong(&set->states[place], &state, 0));
    return true;
}

void limit_table_stats(const struct limit_table *table, struct limit_table_stats *stats)
{
    *stats = (struct limit_table_stats){
        .places = table->count * PLACES,
        .used = atomic_load(&table->used),
        .forgotten = atomic_load(&table->forgotten),
        .bytes = table->count * sizeof(struct set),
    };
}
