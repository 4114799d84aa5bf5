// What redis_store.c and lease.c share: a worker's side of limits in Redis, and its questions.
#pragma once

#include "limit/purse.h"
#include "limit/redis_store.h"
#include "redis/keeper.h"

// Redis is in trouble, for this worker: it is not asked, but by probes.
struct limit_trouble {
    bool is_there;
    unsigned in_a_row;
    uint64_t second; // which; answers and failures are its own
    unsigned answers, failures;
    struct loop_timer probe;
    struct arena arena; // of the key
    struct str
        key; // that is probed: where the last question failed, so that in a Cluster the same node is tried
};

// The purses that this worker holds (lease.c).
struct lease {
    struct purses *purses;
    struct limit_table *table;
    const struct limit *limits; // of the snapshot that is in force
    uint32_t limit_count;
    uint64_t version;     // of what was asked: grows with every snapshot
    bool is_draining;     // nothing is bought any more
    unsigned under_way;   // tokens on their way back
    struct list holdings; // of struct holding
    struct loop_timer sweep;
};

struct limit_worker {
    struct limit_worker_needs needs;
    struct redis_keeper redis; // its fleet NULL: no limit is there
    struct str prefix;
    bool is_cluster;
    struct arena arena; // of the texts
    struct limit_seed seed;
    struct arena_spares spares;
    struct limit_trouble trouble;
    struct lease lease;
    uint64_t quiet_until_ms;
};

// What is bought with a query of a question.
struct limit_bargain {
    struct purchase purchase; // purchase.purse == NULL: nothing
    struct hash128 key;       // of the bucket
    struct hash128 purse_key;
    uint64_t cost; // of one request
};

// A command under way.
struct limit_question {
    struct limit_worker *worker;
    struct redis_fleet *fleet;   // that is asked
    struct limit_asking *asking; // NULL: nobody waits
    bool is_probe, is_return, is_spelled_out;
    uint64_t asked_us; // not later than it was
    uint64_t due_us;
    uint64_t lease_version;
    struct limit_query *queries;
    struct limit_bargain *bargains; // one for each query; NULL: nothing is bought
    uint32_t count, capacity;
    struct str *argv;
    unsigned argc;
    struct arena arena; // of all of it, the question too
};

static inline uint64_t limit_now(const struct limit_worker *worker)
{
    return worker->needs.loop->now_us;
}

// Freed when it is answered, or by limit_question_free when it has not been sent. capacity: queries.
struct limit_question *limit_question_new(struct limit_worker *worker, uint32_t capacity);
void limit_question_free(struct limit_question *question);
void limit_question_add(struct limit_question *question, const struct limit_use *use, uint64_t cost);
void limit_question_send(struct limit_question *question, enum limit_verb verb, int64_t now_s);
// Whether Redis can be asked at all.
bool limit_can_ask(const struct limit_worker *worker);
// Whether what was taken by this rule may be on its way back to Redis: tokens of a quota must not arrive
// there in the next window.
bool limit_may_return(const struct limit_worker *worker, const struct limit_rule *rule);
// A quota's window is the one in which Redis is. False: it is over.
bool limit_is_current(struct limit_use *use, uint64_t now_us);

// ---- lease.c ----

void lease_init(struct limit_worker *worker);
// A new snapshot is in force: what is held goes back, as long as that before is still there.
void lease_update(struct limit_worker *worker, const struct limits *limits);
// Everything that is held goes back; waits until Redis has it, or a command's deadline is over.
void lease_fini(struct limit_worker *worker);
// Takes a use's cost from the purse, if it is there, and buys ahead of need.
bool lease_spend(struct limit_worker *worker, const struct limit_asking *asking, struct limit_use *use,
                 uint64_t now_us);
// The last query of the question is that of a use of which the purse is short: buys with it.
void lease_buy(struct limit_question *question, const struct limit_use *use, uint64_t now_us);
// What has become of it. told: of each query, or NULL.
void lease_hear(struct limit_question *question, const struct limit_told *told);
// Gives back what was taken of a lease: to the purse, or to Redis.
void lease_give(struct limit_worker *worker, struct limit_use *use, uint64_t tokens);
// Takes more, if the purse has it.
bool lease_spend_more(struct limit_worker *worker, struct limit_use *use, uint64_t tokens, uint64_t now_us);
// Redis has said this of it. use->state is what clients are told of: what is there and what is in the purse.
void lease_tell(struct limit_worker *worker, struct limit_use *use, uint64_t told, uint64_t now_us);
