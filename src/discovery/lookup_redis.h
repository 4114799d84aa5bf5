// What the names of Redis's servers mean, looked up as other targets are.
#pragma once

#include "redis/redis.h"

// Of the url, or of redis.nodes in their order; of several nodes, one that is known will do: it tells of the
// others, and those that are not known are logged. How many there are; 0 and *err: none.
must_check unsigned lookup_redis(const struct redis_settings *settings, struct addr addrs[REDIS_SEEDS],
                                 struct err *err);
