// Revocation: tokens that are refused although they are valid. One list for the process; workers look a token
// up once, and again only when the list has changed since (deny_version).
//
//   by jti:               refused until the token would have expired anyhow
//   by sub, issued before: every token of the subject that was issued up to that time
//
// With Redis (redis_deny.h) the list of all gateways is the sorted set PREFIXdeny: the member is the entry as
// JSON (deny_print), the score when it can be forgotten. Who revokes adds a member and publishes on the
// channel PREFIXdeny, in one transaction: the score, a space, the member. A gateway subscribes, and reads the
// whole set every DENY_RESYNC_MS and after each reconnect; while Redis is down the last copy stays in force.
// An entry is never taken back: it ends by itself.
//
// The list keeps no text: an entry is found by a SipHash of its names under a key that only this process
// knows (base/siphash.h).
#pragma once

#include "base/arena.h"
#include "base/err.h"

enum {
    DENY_ENTRIES = 1000000,
    DENY_RESYNC_MS = 30000,
    DENY_TEXT_BYTES = 1024,   // of an entry's names together
    DENY_KEPT_S = 30 * 86400, // of an entry that does not say until when
    DENY_LEEWAY_S = 3600,     // past a token's exp, since it is good a little longer (leeway)
};

struct deny_entry {
    struct str issuer; // n == 0: of any issuer
    struct str jti;    // exactly one of jti and subject
    struct str subject;
    int64_t before; // subject: tokens issued at this time or earlier; Unix seconds
    int64_t until;  // when the entry can be forgotten; Unix seconds
};

enum deny_result { DENY_ADDED, DENY_KNOWN, DENY_PAST, DENY_FULL, DENY_BAD };

// Any thread, as all of these. DENY_KNOWN: it is there already, for as long. DENY_PAST: until is over.
// DENY_FULL: it is not in force. DENY_BAD: too long, or not exactly one of jti and subject.
must_check enum deny_result deny_add(const struct deny_entry *entry, int64_t now_s);
// issued_at INT64_MIN: not said, and so before any time.
bool deny_has(struct str issuer, struct str jti, struct str subject, int64_t issued_at, int64_t now_s);
// Changes with each entry that is new, never 0. Take it before asking deny_has: as long as it is the same,
// the answer is.
uint64_t deny_version(void);
uint32_t deny_count(void);
// Forgets what is past; now and then.
void deny_sweep(int64_t now_s);
// {"iss":…,"jti":…} or {"iss":…,"sub":…,"before":…}, always the same text for the same entry; and back.
// False: not an entry. until is not part of it.
struct str deny_print(const struct deny_entry *entry, struct arena *arena);
bool deny_parse(struct str text, struct arena *arena, struct deny_entry *entry);
