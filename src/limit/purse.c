#include "limit/purse.h"

#include "base/check.h"
#include "limit/sets.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    PLACES = 8,                // of a set: their tags are one line
    SAME_WINDOW_US = 30000000, // ends that are closer are of one: the shortest is a minute
    NO_WINDOW = 0,             // ends_us: none has this end, and it is over
};

// ---- how many ----

uint32_t purse_demand(struct purse_pace *pace, uint32_t spent, uint64_t now_us)
{
    uint64_t elapsed_us = now_us > pace->began_us ? now_us - pace->began_us : 0;
    uint64_t used = purse_word_spent(spent - pace->spent);
    if (elapsed_us < PURSE_DEMAND_US)
        return used > pace->last ? (uint32_t)used : pace->last;
    *pace = (struct purse_pace){
        .began_us = now_us, .spent = spent, .last = (uint32_t)(used * PURSE_DEMAND_US / elapsed_us)};
    return pace->last;
}

uint32_t purse_most(uint64_t burst, uint32_t gateways, uint64_t cost)
{
    uint64_t most = burst / 2 / gateways;
    if (most < cost)
        most = cost;
    return most < PURSE_TOKENS_MAX ? (uint32_t)most : PURSE_TOKENS_MAX;
}

uint32_t purse_batch(uint32_t demand, uint32_t tokens, uint32_t most, uint64_t cost)
{
    if (!demand || tokens >= most)
        return 0;
    uint64_t batch = demand > cost ? demand : cost;
    if (batch > most - tokens)
        batch = most - tokens;
    return tokens + batch >= cost ? (uint32_t)batch : 0;
}

uint32_t purse_extras(uint32_t batch, uint32_t tokens, uint64_t cost, uint32_t extras[PURSE_EXTRAS])
{
    uint32_t count = 0;
    for (; batch && count < PURSE_EXTRAS && tokens + (uint64_t)batch >= cost; batch /= 2)
        extras[count++] = batch;
    return count;
}

uint32_t purse_low_water(uint32_t batch, uint64_t cost)
{
    uint64_t low = batch / PURSE_LOW_PART;
    if (low < cost)
        low = cost;
    return low < PURSE_TOKENS_MAX ? (uint32_t)low : PURSE_TOKENS_MAX;
}

// ---- the word ----

#define ONE_TOKEN      ((uint64_t)1 << PURSE_SPENT_BITS)
#define ONE_GENERATION (PURSE_WORD_BUSY << 1)

static uint64_t with_spent(uint64_t word, uint32_t spent)
{
    return (word & ~(ONE_TOKEN - 1)) | purse_word_spent(spent);
}

bool purse_word_spend(uint64_t word, uint64_t cost, uint64_t *next)
{
    if (purse_word_tokens(word) < cost)
        return false;
    *next = with_spent(word - cost * ONE_TOKEN, purse_word_spent(word) + (uint32_t)cost);
    return true;
}

bool purse_word_add(uint64_t word, uint32_t tokens, uint32_t most, bool is_back, uint64_t *next)
{
    if ((uint64_t)purse_word_tokens(word) + tokens > most)
        return false;
    *next = (word + tokens * ONE_TOKEN) | PURSE_WORD_HELD;
    if (is_back)
        *next = with_spent(*next, purse_word_spent(word) - tokens);
    return true;
}

uint64_t purse_word_count(uint64_t word, uint64_t cost)
{
    return with_spent(word, purse_word_spent(word) + (uint32_t)cost);
}

uint64_t purse_word_void(uint64_t word)
{
    return (word & ~(PURSE_TOKENS_MAX * ONE_TOKEN)) + ONE_GENERATION;
}

// ---- the table ----

struct purse {
    _Alignas(CACHE_LINE) _Atomic uint64_t word;
    // Written by whoever buys.
    _Atomic uint64_t ends_us, told;
    _Atomic uint32_t low;
    struct purse_pace pace;
};
_Static_assert(sizeof(struct purse) == CACHE_LINE, "a purse is one line");

struct set {
    _Atomic uint64_t tags[PLACES]; // 0: nobody has had the place yet
    struct purse purses[PLACES];
};

struct purses {
    struct set *sets;
    uint64_t count;
    atomic_uint lock; // held by who adds a key: that is on the way to Redis, and rare
};

struct purses *purses_new(size_t places)
{
    struct purses *purses = calloc(1, sizeof *purses);
    check(purses);
    purses->count = places / PLACES ? places / PLACES : 1;
    purses->sets = sets_map(purses->count * sizeof(struct set));
    check(purses->sets);
    return purses;
}

void purses_free(struct purses *purses)
{
    munmap(purses->sets, purses->count * sizeof(struct set));
    free(purses);
}

static struct purses *shared;
static pthread_once_t shared_once = PTHREAD_ONCE_INIT;

static void make_shared(void)
{
    shared = purses_new(PURSE_PLACES);
}

struct purses *purses_shared(void)
{
    pthread_once(&shared_once, make_shared);
    return shared;
}

// Where a key's purse is, and how it was when it was there: a word that is the same since says that the place
// has not changed hands.
struct found {
    struct purse *purse; // NULL: there is none
    uint64_t word;
};

static struct set *set_of(const struct purses *purses, struct hash128 key)
{
    return &purses->sets[sets_index(key, purses->count)];
}

static struct found find(const struct purses *purses, struct hash128 key)
{
    struct set *set = set_of(purses, key);
    uint64_t tag = sets_tag(key);
    for (unsigned i = 0; i < PLACES; i++) {
        if (atomic_load_explicit(&set->tags[i], memory_order_acquire) != tag)
            continue;
        struct purse *purse = &set->purses[i];
        uint64_t word = atomic_load_explicit(&purse->word, memory_order_acquire);
        if (likely(atomic_load_explicit(&set->tags[i], memory_order_acquire) == tag))
            return (struct found){purse, word};
    }
    return (struct found){0};
}

static bool swap(struct found *found, uint64_t next)
{
    if (!atomic_compare_exchange_strong_explicit(&found->purse->word, &found->word, next,
                                                 memory_order_acq_rel, memory_order_acquire))
        return false;
    found->word = next;
    return true;
}

static bool is_over(const struct purse *purse, uint64_t now_us)
{
    uint64_t ends_us = atomic_load_explicit(&purse->ends_us, memory_order_acquire);
    return unlikely(ends_us != PURSE_NO_END && now_us + PURSE_EDGE_US >= ends_us);
}

static void show(const struct found *found, uint64_t now_us, struct purse_view *view)
{
    const struct purse *purse = found->purse;
    view->tokens = is_over(purse, now_us) ? 0 : purse_word_tokens(found->word);
    view->low = atomic_load_explicit(&purse->low, memory_order_relaxed);
    view->is_busy = found->word & PURSE_WORD_BUSY;
    view->told = atomic_load_explicit(&purse->told, memory_order_relaxed);
    view->ends_us = atomic_load_explicit(&purse->ends_us, memory_order_relaxed);
}

bool purse_look(struct purses *purses, struct hash128 key, uint64_t now_us, struct purse_view *view)
{
    struct found found = find(purses, key);
    if (found.purse)
        show(&found, now_us, view);
    return found.purse;
}

bool purse_spend(struct purses *purses, struct hash128 key, uint64_t now_us, uint64_t cost,
                 struct purse_view *view)
{
    for (;;) {
        struct found found = find(purses, key);
        uint64_t next;
        if (!found.purse)
            return false;
        bool is_there = !is_over(found.purse, now_us) && purse_word_spend(found.word, cost, &next);
        if (is_there && !swap(&found, next))
            continue;
        show(&found, now_us, view);
        return is_there;
    }
}

// ---- a place for a key ----

static bool is_idle(uint64_t word)
{
    return !(word & (PURSE_WORD_BUSY | PURSE_WORD_HELD));
}

// The place that is free, or whose idle purse nobody has bought for the longest time. -1: there is none.
static int choose(struct set *set)
{
    int oldest = -1;
    uint64_t oldest_told = 0;
    for (int i = 0; i < PLACES; i++) {
        uint64_t told = atomic_load_explicit(&set->purses[i].told, memory_order_relaxed);
        if (is_idle(atomic_load(&set->purses[i].word)) && (oldest < 0 || told < oldest_told)) {
            oldest = i;
            oldest_told = told;
        }
    }
    return oldest;
}

// Makes it busy. The tag goes first: whoever has found the old one and its word before finds another word,
// and whoever comes later finds no purse.
static bool claim(struct set *set, int place)
{
    struct purse *purse = &set->purses[place];
    uint64_t tag = atomic_exchange(&set->tags[place], 0), word = atomic_load(&purse->word);
    while (is_idle(word))
        if (atomic_compare_exchange_strong(&purse->word, &word, purse_word_void(word) | PURSE_WORD_BUSY))
            return true;
    atomic_store(&set->tags[place], tag); // somebody was quicker
    return false;
}

// *is_new: the purse is the caller's to buy for.
static struct found add(struct purses *purses, struct hash128 key, uint64_t now_us, bool *is_new)
{
    struct set *set = set_of(purses, key);
    sets_lock(&purses->lock);
    struct found found = find(purses, key);
    int place = found.purse ? -1 : choose(set);
    *is_new = place >= 0 && claim(set, place);
    if (*is_new) {
        struct purse *purse = &set->purses[place];
        atomic_store_explicit(&purse->ends_us, PURSE_NO_END, memory_order_relaxed);
        atomic_store_explicit(&purse->told, 0, memory_order_relaxed);
        atomic_store_explicit(&purse->low, 0, memory_order_relaxed);
        found = (struct found){purse, atomic_load(&purse->word)};
        purse->pace = (struct purse_pace){.began_us = now_us, .spent = purse_word_spent(found.word)};
        atomic_store_explicit(&set->tags[place], sets_tag(key), memory_order_release);
    }
    sets_unlock(&purses->lock);
    return found;
}

// ---- buying ----

static void begin(struct found *found, uint64_t now_us, struct purchase *purchase)
{
    purchase->purse = found->purse;
    purchase->generation = purse_word_generation(found->word);
    purchase->demand = purse_demand(&found->purse->pace, purse_word_spent(found->word), now_us);
    purchase->tokens = is_over(found->purse, now_us) ? 0 : purse_word_tokens(found->word);
}

void purse_begin(struct purses *purses, struct hash128 key, uint64_t now_us, uint64_t cost,
                 struct purchase *purchase)
{
    struct found found;
    bool is_new = false, is_ours;
    uint64_t before;
    *purchase = (struct purchase){0};
    do {
        found = find(purses, key);
        if (!found.purse)
            found = add(purses, key, now_us, &is_new);
        if (!found.purse)
            return;
        before = found.word;
        is_ours = is_new || !(before & PURSE_WORD_BUSY);
    } while (!swap(&found, purse_word_count(before, cost) | PURSE_WORD_BUSY));
    if (!is_ours)
        return;
    found.word = before; // what this request uses is not yet demand
    begin(&found, now_us, purchase);
}

static bool is_same_window(uint64_t a_us, uint64_t b_us)
{
    return a_us > b_us ? a_us - b_us < SAME_WINDOW_US : b_us - a_us < SAME_WINDOW_US;
}

// What is there is another window's: void. False: it has become so meanwhile. Between the windows it is in
// none, so that tokens of the one before that somebody gives back just now are not taken for the next one's.
static bool enter_window(struct purse *purse, uint32_t *generation, uint64_t ends_us)
{
    struct found found = {purse, atomic_load(&purse->word)};
    bool is_ours;
    atomic_store(&purse->ends_us, NO_WINDOW);
    do
        is_ours = purse_word_generation(found.word) == *generation;
    while (is_ours && !swap(&found, purse_word_void(found.word)));
    if (is_ours)
        *generation = purse_word_generation(found.word);
    atomic_store(&purse->ends_us, ends_us);
    return is_ours;
}

enum purse_put purse_end(const struct purchase *purchase, uint32_t tokens, uint32_t low, uint64_t ends_us)
{
    struct purse *purse = purchase->purse;
    uint32_t generation = purchase->generation;
    uint64_t known_us = atomic_load(&purse->ends_us), next, before;
    if (tokens && !is_same_window(known_us, ends_us)) {
        if (!enter_window(purse, &generation, ends_us))
            tokens = 0;
    } else if (tokens && ends_us < known_us) { // never later than Redis says
        atomic_store(&purse->ends_us, ends_us);
    }
    if (tokens)
        atomic_store_explicit(&purse->low, low, memory_order_relaxed);
    struct found found = {purse, atomic_load(&purse->word)};
    bool is_put;
    do {
        before = next = found.word;
        is_put = tokens && purse_word_generation(before) == generation &&
                 purse_word_add(before, tokens, PURSE_TOKENS_MAX, false, &next);
    } while (!swap(&found, next & ~PURSE_WORD_BUSY));
    return !is_put ? PURSE_REFUSED : before & PURSE_WORD_HELD ? PURSE_PUT : PURSE_PUT_HOLD;
}

void purse_tell(struct purses *purses, struct hash128 key, uint64_t told)
{
    struct found found = find(purses, key);
    if (found.purse)
        atomic_store_explicit(&found.purse->told, told, memory_order_relaxed);
}

// ---- giving back ----

enum purse_put purse_give(struct purses *purses, struct hash128 key, uint32_t tokens, uint32_t most,
                          uint64_t ends_us, struct purse **purse)
{
    struct found found;
    uint64_t before, next;
    do {
        found = find(purses, key);
        before = found.word;
        if (!found.purse || !is_same_window(atomic_load(&found.purse->ends_us), ends_us) ||
            !purse_word_add(before, tokens, most, true, &next))
            return PURSE_REFUSED;
    } while (!swap(&found, next));
    *purse = found.purse;
    return before & PURSE_WORD_HELD ? PURSE_PUT : PURSE_PUT_HOLD;
}

void purse_void(struct purses *purses, struct hash128 key)
{
    struct found found;
    do {
        found = find(purses, key);
    } while (found.purse && !swap(&found, purse_word_void(found.word)));
}

bool purse_release(struct purse *purse, bool at_once, uint64_t *seen, uint32_t *tokens)
{
    struct found found = {purse, atomic_load(&purse->word)};
    uint64_t next;
    do {
        bool is_idle = found.word == *seen && !(found.word & PURSE_WORD_BUSY);
        *seen = found.word;
        if (!at_once && !is_idle)
            return false;
        *tokens = purse_word_tokens(found.word);
        next = (found.word - *tokens * ONE_TOKEN) & ~PURSE_WORD_HELD;
    } while (!swap(&found, next));
    return true;
}

uint64_t purse_ends_us(const struct purse *purse)
{
    return atomic_load(&purse->ends_us);
}
