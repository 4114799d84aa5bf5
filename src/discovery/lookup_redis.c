#include "discovery/lookup_redis.h"

#include "base/log.h"
#include "discovery/lookup.h"

// How many addresses there are afterwards.
static unsigned look_up_one(struct str text, struct addr addrs[REDIS_SEEDS], unsigned count, struct err *err)
{
    struct addr found[LOOKUP_MAX];
    unsigned more, room = REDIS_SEEDS - count;
    if (lookup_target(text, found, &more, err) != ERR_OK)
        return count;
    more = more < REDIS_ADDRS ? more : REDIS_ADDRS;
    more = more < room ? more : room;
    memcpy(addrs + count, found, more * sizeof *found);
    return count + more;
}

unsigned lookup_redis(const struct redis_settings *settings, struct addr addrs[REDIS_SEEDS], struct err *err)
{
    unsigned count = 0;
    if (settings->mode == REDIS_STANDALONE)
        return look_up_one(settings->url.address, addrs, 0, err);
    for (uint32_t i = 0; i < settings->nodes.count && count < REDIS_SEEDS; i++) {
        unsigned before = count;
        count = look_up_one(settings->nodes.v[i], addrs, count, err);
        if (count == before)
            log_warn("redis", "redis.nodes: %s: %s", err->where, err->what);
    }
    return count;
}
