// The deny list of all gateways, kept in Redis (deny.h says how): what others revoke comes into force here,
// what is revoked here is told to them. A fleet's connections, one of them subscribed, on the control
// thread's loop.
//
//   revoked here ─▶ queue ─▶ ZADD, PUBLISH        stays in the queue until Redis has confirmed both
//   revoked there ─▶ message ─▶ deny_add
//   now and then ─▶ ZRANGEBYSCORE, page by page ─▶ deny_add
#pragma once

#include "auth/deny.h"
#include "redis/fleet.h"

enum {
    REDIS_DENY_QUEUE = 10000, // entries that Redis has not confirmed; more are refused
    REDIS_DENY_PAGE = 1000,   // read at once
};

struct redis_deny;

// Connects from the next turn on. NULL and *err: the settings make no sense.
struct redis_deny *redis_deny_new(const struct redis_access *access, struct err *err);
void redis_deny_free(struct redis_deny *deny); // NULL is harmless
// Whether both talk to the same servers in the same way.
bool redis_deny_is_same(const struct redis_deny *a, const struct redis_deny *b);
// What `from` has not told yet is told by `to`. from is freed.
void redis_deny_replace(struct redis_deny *to, struct redis_deny *from);
// Commands and subscription have their connections.
bool redis_deny_is_up(const struct redis_deny *deny);
// Tells the others of an entry, now or when Redis is back. False: too many wait for that.
must_check bool redis_deny_tell(struct redis_deny *deny, const struct deny_entry *entry);
