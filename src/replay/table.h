// The answers that this process keeps, for all its workers.
//
// Requests under way are kept until they end, or their time is over; answers until their time is over, or
// room is needed: then the one that was asked for longest ago goes, and who sends its request again is served
// as if for the first time.
#pragma once

#include "base/shared.h"
#include "replay/replay.h"

enum {
    REPLAY_ENTRIES = 65536,          // 136 bytes each
    REPLAY_BYTES = 64 * 1024 * 1024, // of answers
};

// name: of the request. print: what it is. until_us: when nobody waits for its end any more. REPLAY_NEW:
// *token is its holder's. REPLAY_ANSWER: the caller holds *answer, until shared_unref.
enum replay_state replay_table_claim(struct replay_hash name, struct replay_hash print, uint64_t now_us,
                                     uint64_t until_us, uint64_t *token, struct shared **answer);
// The holder's request has been answered; answer.n == 0: with what cannot be kept. Nothing happens when the
// time was over meanwhile.
void replay_table_keep(struct replay_hash name, uint64_t token, struct str answer, uint64_t until_us);
// It has not been carried out: the next one may.
void replay_table_drop(struct replay_hash name, uint64_t token);

// For tests, and for people.
struct replay_table_counts {
    uint32_t entries, running;
    uint64_t bytes;
};
struct replay_table_counts replay_table_counts(void);
