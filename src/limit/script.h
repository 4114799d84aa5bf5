// The script by which Redis decides about all buckets and quotas of a request at once, its arguments and its
// answer. Pure: what is sent and received is somebody else's.
//
// It does what bucket.c and window.c do, by Redis's own clock, so that gateways need not agree on the time.
// Lua counts in doubles, which hold 53 bits: an amount there is a pair of whole microseconds and parts of one
// (bucket.h), and what would have to be multiplied or divided comes as an argument. So nothing is rounded.
//
//   of a bucket   "MICROSECONDS PARTS"   the time at which it is full; the key is gone by then
//   of a quota    "SECONDS TOKENS"       the end of its window, and what is gone; the key is gone by then
//
// What it answers is relative to Redis's time: it does not matter by how much clocks differ.
#pragma once

#include "base/arena.h"
#include "limit/rule.h"
#include "redis/resp.h"

enum limit_verb {
    LIMIT_TAKE,   // all of them, when none refuses that may
    LIMIT_CHARGE, // whether they are there or not
    LIMIT_GIVE,   // back
    LIMIT_LOOK,   // nothing is changed
    LIMIT_LEASE,  // as LIMIT_TAKE, and of each key that is charged the first extra that can be spared
};

enum { LIMIT_EXTRAS = 4 }; // of one key

// What is asked of one key.
struct limit_query {
    struct str key;
    struct limit_rule rule;
    uint64_t cost;
    bool is_shadow; // refuses nobody
    // LIMIT_LEASE: what is wanted beside the cost, the most first. It is taken when as much is left for
    // others.
    uint32_t extra_count;
    uint32_t extras[LIMIT_EXTRAS];
};

// What Redis says of one.
struct limit_told {
    struct limit_rule rule; // of a quota: the window in which it is by Redis's clock
    uint64_t state;         // afterwards, by the clock of this process
    uint64_t wait_us;       // 0: it had enough
    uint32_t extra;         // that was taken beside the cost
};

enum {
    LIMIT_SCRIPT_ARGUMENTS = 11 + 2 * LIMIT_EXTRAS, // of one key, itself included
    LIMIT_SCRIPT_HEAD = 4,                          // before the first key
};

// EVALSHA with its arguments, argv in arena. now_s: Unix seconds, for the calendar's months.
unsigned limit_script_command(enum limit_verb verb, const struct limit_query *queries, uint32_t count,
                              int64_t now_s, struct arena *arena, struct str **argv);
// The same command where the script is not known yet: argv[0] and argv[1] are replaced.
void limit_script_spell_out(struct str *argv);
bool limit_script_is_missing(const struct resp_value *reply);
// A Cluster moves the keys' slot at the moment: each key has to be asked about by itself.
bool limit_script_is_torn(const struct resp_value *reply);
// False: it is no answer to that. now_us: when it was asked, or earlier: what is counted from there is never
// late. *passes: nobody refuses. told: count of them.
bool limit_script_read(const struct resp_value *reply, const struct limit_query *queries, uint32_t count,
                       uint64_t now_us, bool *passes, struct limit_told *told);
// Its text, for tests.
struct str limit_script_text(void);
