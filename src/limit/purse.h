// Purses: tokens that this process has taken from a bucket or quota in Redis and not spent yet (sync:
// leased). All workers spend from one purse by compare-and-swap on one word, so that a decision asks nobody.
//
//   word:  generation │ is busy │ is held │ tokens │ spent
//
// spent counts for ever, modulo its bits: two looks at it say what the key has used meanwhile, and from that
// follows how many tokens are bought at once (purse_demand, purse_batch). One question is under way for a
// purse: busy; who asks it may write what is beside the word. While there are tokens some worker holds the
// purse: it gives them back when nobody spends them (lease.h). The generation changes when what is in the
// purse becomes void: a spender that was looking meanwhile fails, and tokens on their way are dropped.
//
// A table of its own, and not another limit_table: that one forgets the state that is the oldest, here
// something is lost with it. This table gives a place to another key when there is nothing in it, and nothing
// on its way; where there is no place the key has no purse, and is decided about in Redis as if it were
// exact. A key is a hash that nobody outside can choose (table.h).
#pragma once

#include "base/siphash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PURSE_SPENT_BITS = 24,
    PURSE_TOKEN_BITS = 23,
    PURSE_TOKENS_MAX = (1 << PURSE_TOKEN_BITS) - 1,
    PURSE_DEMAND_US = 100000, // a batch is what is used in this time
    PURSE_LOW_PART = 4,       // when this part of a batch is left, the next one is asked for
    PURSE_EXTRAS = 4,         // a batch and its halves: the first that Redis can spare is taken
    PURSE_EDGE_US = 50000,    // a quota's tokens are not spent in this time before its window ends:
                              // clocks of threads, read once a turn, may be so far apart
    PURSE_PLACES = 32768,     // 2.5 MiB, of which untouched pages are not used
};
#define PURSE_NO_END UINT64_MAX // of a bucket, which has no window

// ---- pure: how many ----

// What is known of how fast a key spends. spent: the word's count when this was begun.
struct purse_pace {
    uint64_t began_us;
    uint32_t spent, last; // last: tokens in PURSE_DEMAND_US, before that
};
// Tokens used in about the last PURSE_DEMAND_US; never more than were, whatever the time. Begins anew when
// that is over.
uint32_t purse_demand(struct purse_pace *pace, uint32_t spent, uint64_t now_us);
// The most that a purse may hold: half of this gateway's share of the burst (or the quota), at least one
// cost.
uint32_t purse_most(uint64_t burst, uint32_t gateways, uint64_t cost);
// What to buy beside what is there already: 0 when nobody has used any lately, or when it would not do for
// one request.
uint32_t purse_batch(uint32_t demand, uint32_t tokens, uint32_t most, uint64_t cost);
// The batch, its half, and so on, while they do for one request. Returns how many.
uint32_t purse_extras(uint32_t batch, uint32_t tokens, uint64_t cost, uint32_t extras[PURSE_EXTRAS]);
// With fewer tokens than this it is time to buy.
uint32_t purse_low_water(uint32_t batch, uint64_t cost);

// ---- pure: the word ----

static inline uint32_t purse_word_spent(uint64_t word)
{
    return word & ((1u << PURSE_SPENT_BITS) - 1);
}
static inline uint32_t purse_word_tokens(uint64_t word)
{
    return word >> PURSE_SPENT_BITS & PURSE_TOKENS_MAX;
}
#define PURSE_WORD_HELD ((uint64_t)1 << (PURSE_SPENT_BITS + PURSE_TOKEN_BITS))
#define PURSE_WORD_BUSY (PURSE_WORD_HELD << 1)
static inline uint32_t purse_word_generation(uint64_t word)
{
    return (uint32_t)(word >> (PURSE_SPENT_BITS + PURSE_TOKEN_BITS + 2));
}
// False: there are not so many.
bool purse_word_spend(uint64_t word, uint64_t cost, uint64_t *next);
// Puts tokens in; of those that were spent before (is_back) they are spent no longer. False: there is no
// room.
bool purse_word_add(uint64_t word, uint32_t tokens, uint32_t most, bool is_back, uint64_t *next);
// Counts as spent what was taken elsewhere.
uint64_t purse_word_count(uint64_t word, uint64_t cost);
// Nothing is in it, and those who look at it fail. busy and held stay.
uint64_t purse_word_void(uint64_t word);

// ---- the table ----

struct purse;
struct purses;

// places is rounded down to whole sets, at least one. Aborts when memory is out.
struct purses *purses_new(size_t places);
void purses_free(struct purses *purses);
// The process's own, of PURSE_PLACES, made at first use.
struct purses *purses_shared(void);

// ---- any thread ----

// What a purse looks like.
struct purse_view {
    uint32_t tokens;
    uint32_t low; // when there are fewer it is time to buy
    bool is_busy;
    uint64_t told; // the state of the bucket in Redis, as last heard (table.h)
    uint64_t ends_us;
};
// False: there is no purse.
bool purse_look(struct purses *purses, struct hash128 key, uint64_t now_us, struct purse_view *view);
// Spends so many, if they are there. *view: afterwards; untouched when there is no purse.
bool purse_spend(struct purses *purses, struct hash128 key, uint64_t now_us, uint64_t cost,
                 struct purse_view *view);
// What came of putting tokens into a purse.
enum purse_put {
    PURSE_REFUSED,  // they are not in it
    PURSE_PUT,      // they are, and a worker holds it
    PURSE_PUT_HOLD, // they are, and the caller is to hold it from now on: see purse_release
};
// Gives back what was spent. ends_us: of the window, or PURSE_NO_END. *purse: which.
enum purse_put purse_give(struct purses *purses, struct hash128 key, uint32_t tokens, uint32_t most,
                          uint64_t ends_us, struct purse **purse);
// What is in it is void: the bucket has been made full.
void purse_void(struct purses *purses, struct hash128 key);

// ---- buying ----

// Under way: from purse_begin to purse_end.
struct purchase {
    struct purse *purse; // NULL: nothing is bought
    uint32_t generation;
    uint32_t demand, tokens; // as the purse was
};
// Redis is asked for so many anyway, and they count as used. purchase->purse is NULL when somebody else is
// buying, or there is no place; else nobody else is until purse_end.
void purse_begin(struct purses *purses, struct hash128 key, uint64_t now_us, uint64_t cost,
                 struct purchase *purchase);
// tokens: what was bought; 0: nothing. low: of purse_low_water. PURSE_REFUSED: they have become void
// meanwhile.
enum purse_put purse_end(const struct purchase *purchase, uint32_t tokens, uint32_t low, uint64_t ends_us);
// What Redis has said of it.
void purse_tell(struct purses *purses, struct hash128 key, uint64_t told);

// ---- holding ----

// Whoever holds a purse looks at it from time to time. *seen: how it was when last looked at; 0 at first.
// True: it has not changed since (or always is: at once, or its window has ended), nobody is buying, and it
// is not held any more; *tokens were in it.
bool purse_release(struct purse *purse, bool at_once, uint64_t *seen, uint32_t *tokens);
uint64_t purse_ends_us(const struct purse *purse);
