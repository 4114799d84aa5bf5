// How many logins may fail: a token bucket (GCRA: the theoretical arrival time of the next failure) for each
// of three keys: a name from an address, an address, a name. An attempt is charged before it is looked at, so
// that many at once are no way round, and given back when it succeeds. Pure but for its table, which has a
// fixed size: the entry that matters least makes room.
#pragma once

#include "base/siphash.h"
#include "net/addr.h"

enum { LOGIN_BUCKETS = 16384, LOGIN_WAYS = 4, LOGIN_KEYS = 3 };

struct login_limit {
    uint64_t per_us;
    uint64_t counts[LOGIN_KEYS]; // of a name from an address, of an address, of a name
    struct login_entry {
        uint64_t key;
        uint64_t arrival_us; // monotonic
    } * entries;
};

struct login_charge { // one attempt's
    uint64_t keys[LOGIN_KEYS];
};

void login_limit_init(struct login_limit *limit);
void login_limit_fini(struct login_limit *limit);
// An attempt to log in as name from an address. False: *retry_us says when the next may be made; nothing is
// charged.
bool login_limit_take(struct login_limit *limit, struct str name, const struct ip *address, uint64_t now_us,
                      struct login_charge *charge, uint64_t *retry_us);
// Of a refusal: whether what failed from this address, or for the name from there, would be enough for it.
// Else strangers brought it about, who know the name.
bool login_limit_is_own(struct login_limit *limit, const struct login_charge *charge, uint64_t now_us);
// It did not fail.
void login_limit_give(struct login_limit *limit, const struct login_charge *charge);
