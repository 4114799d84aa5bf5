// One breaker for all workers: a lock round the pure struct, and what spares the lock.
//
//   admit   closed, or open and not due: one atomic load says so
//   note    good and closed: a count in the worker's own cache line
//   else    lock, take the workers' counts over, decide, unlock
//
// The counts of good results are taken over before every decision, so that each is made on all there is. A
// worker's count belongs to one slice of the window; with the next slice it hands it in itself.
#pragma once

#include "base/rand.h"
#include "base/str.h"
#include "upstream/breaker.h"

#include <stdatomic.h>

struct shared_breaker;

// How often breakers of one upstream have come to each state: the sum of their `entered`.
struct breaker_tally {
    _Atomic(uint64_t) entered[BREAKER_STATES];
};

// A closed one, for so many workers. The names are for the log, and borrowed for ever, as tally is; endpoint
// may be empty: of the upstream as a whole. Kept for the life of the process, since calls under way point to
// it.
struct shared_breaker *shared_breaker_new(struct str upstream, struct str endpoint, unsigned workers,
                                          struct breaker_tally *tally);
// A new configuration: the window's width. The state stays.
void shared_breaker_configure(struct shared_breaker *breaker, const struct breaker_rules *rules);
// Nothing is known of what it guards any more: it is as new, unless it is forced.
void shared_breaker_reset(struct shared_breaker *breaker);

// ---- from any worker's thread ----

// As breaker_admit. False: *wait_us is when to ask again, 0: not known.
bool shared_breaker_admit(struct shared_breaker *breaker, const struct breaker_rules *rules, uint64_t now_us,
                          struct rand *rand, struct breaker_pass *pass, uint64_t *wait_us);
// Whether it is open and not due: at the price of a load. *wait_us as above.
bool shared_breaker_is_open(const struct shared_breaker *breaker, uint64_t now_us, uint64_t *wait_us);
// As breaker_note. worker: below the number given to shared_breaker_new.
void shared_breaker_note(struct shared_breaker *breaker, const struct breaker_rules *rules, unsigned worker,
                         struct breaker_pass pass, enum breaker_result result, uint64_t now_us,
                         struct rand *rand);
// As breaker_note_slow.
void shared_breaker_note_slow(struct shared_breaker *breaker, const struct breaker_rules *rules,
                              struct breaker_pass *pass, uint64_t now_us, struct rand *rand);
// As breaker_pass_over.
void shared_breaker_pass_over(struct shared_breaker *breaker, const struct breaker_rules *rules,
                              struct breaker_pass *pass, uint64_t now_us);
// Whether what was admitted with this pass should ask again: the breaker has opened since.
bool shared_breaker_is_stale(const struct shared_breaker *breaker, struct breaker_pass pass);

// ---- for people, from the control thread ----

void shared_breaker_set_force(struct shared_breaker *breaker, enum breaker_force force, uint64_t now_us);
// What it is now.
struct breaker shared_breaker_look(struct shared_breaker *breaker, const struct breaker_rules *rules,
                                   uint64_t now_us);
