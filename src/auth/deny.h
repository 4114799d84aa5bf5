// Revocation: tokens that are refused although they are valid. One list for the process; workers look a token
// up once, and again only when the list has changed since (deny_version).
//
//   by jti:               refused until the token would have expired anyhow
//   by sub, issued before: every token of the subject that was issued up to that time
//
// With Redis (redis_deny.c) the list of all gateways is the sorted set PREFIXdeny: the member is the entry as
// JSON, the score when it can be forgotten. Who revokes adds a member and publishes it on the channel
// PREFIXdeny. A gateway subscribes, and reads the whole set every DENY_RESYNC_MS and after each reconnect;
// while Redis is down the last copy stays in force.
#pragma once

#include "base/arena.h"
#include "base/err.h"

enum { DENY_ENTRIES = 1000000, DENY_RESYNC_MS = 30000, DENY_TEXT_BYTES = 1024, DENY_KEPT_S = 30 * 86400 };

struct deny_entry {
    struct str issuer; // n == 0: of any issuer
    struct str jti;    // exactly one of jti and subject
    struct str subject;
    int64_t before; // subject: tokens issued at this time or earlier; Unix seconds
    int64_t until;  // when the entry can be forgotten; Unix seconds
};

// Any thread. False: the list is full, or an entry is too long.
must_check bool deny_add(const struct deny_entry *entry);
bool deny_has(struct str issuer, struct str jti, struct str subject, int64_t issued_at, int64_t now_s);
uint64_t deny_version(void); // changes with each entry
uint32_t deny_count(void);
// Forgets what is past; now and then.
void deny_sweep(int64_t now_s);
// {"iss":…,"jti":…} or {"iss":…,"sub":…,"before":…}, always the same text for the same entry; and back.
// False: not an entry. until is not part of it.
struct str deny_print(const struct deny_entry *entry, struct arena *arena);
bool deny_parse(struct str text, struct arena *arena, struct deny_entry *entry);
