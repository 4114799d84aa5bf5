// Whose request is whose, and what became of it: in this process (table.h), or in Redis for all gateways. A
// worker's side.
//
//   replay_claim ─▶ the table has it ────────────────────────────────────────▶ REPLAY_ANSWER, _RUNNING …
//        └─▶ it is new here ─▶ Redis is asked ─▶ REPLAY_WAIT … wake ─▶ replay_claim ─▶ REPLAY_NEW, _ANSWER …
//                                   └─ it is in trouble, or says nothing in time ─▶ on_redis_down
//   replay_keep, replay_drop ─▶ in both; nobody waits for these
//
// So the table knows all that this process has done, and goes on by itself when Redis is gone.
//
// In Redis a request is one key, PREFIXidempotency:NAME, NAME in hexadecimal; value.h says what stands there.
#pragma once

#include "base/rand.h"
#include "base/shared.h"
#include "base/ticket.h"
#include "redis/keeper.h"
#include "replay/value.h"

enum replay_where { REPLAY_AUTO, REPLAY_REDIS, REPLAY_LOCAL };
enum replay_down { REPLAY_DOWN_LOCAL, REPLAY_DOWN_DENY };

struct replay_question;

// One request's. It stays where it is from the first replay_claim to replay_keep, replay_drop or
// replay_forget.
struct replay_asking { // fill in the first part, zero the rest
    struct replay_hash name, print;
    int where;           // enum replay_where; auto is Redis where there is one
    int on_redis_down;   // enum replay_down
    uint64_t until_us;   // when other gateways do not wait for its end any more
    struct arena *arena; // for what is told to Redis
    struct ticket ticket;
    // Its own:
    struct shared *answer;              // REPLAY_ANSWER: held, until replay_take_answer or replay_forget
    uint64_t token;                     // in the table
    bool is_in_redis;                   // claimed there, or perhaps
    char running[REPLAY_RUNNING_BYTES]; // its value there
    struct replay_question *question;   // under way
    bool is_told;                       // what came of it
    enum replay_state told;
};

struct replay_store;

struct replay_store_needs {
    struct loop *loop;
    unsigned tls_slot;
    struct metrics *metrics;
    struct rand *rand;
    void *context;
    void (*wake)(void *context, struct ticket ticket);
};

struct replay_store *replay_store_new(const struct replay_store_needs *needs);
void replay_store_free(struct replay_store *store);
// A new snapshot. settings NULL: no route has need of Redis. addrs as in struct redis_access.
void replay_store_update(struct replay_store *store, const struct redis_settings *settings,
                         const struct addr *addrs, unsigned addr_count);

// Again after REPLAY_WAIT, when the ticket is redeemed. REPLAY_NEW: replay_keep or replay_drop must follow.
enum replay_state replay_claim(struct replay_store *store, struct replay_asking *asking, uint64_t now_us);
// answer.n == 0: it cannot be kept. ttl_us: how long it is good.
void replay_keep(struct replay_store *store, struct replay_asking *asking, struct str answer, uint64_t now_us,
                 uint64_t ttl_us);
void replay_drop(struct replay_store *store, struct replay_asking *asking);
// REPLAY_ANSWER: it is the caller's from now on.
struct shared *replay_take_answer(struct replay_asking *asking);
// It is gone while it waits.
void replay_forget(struct replay_asking *asking);
