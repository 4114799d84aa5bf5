// The slots of a Redis Cluster, without I/O: which one a key is in, who serves them, where an error points
// (redis.io/docs/reference/cluster-spec). What nodes say is no more trusted than any peer's word.
#pragma once

#include "net/addr.h"
#include "redis/resp.h"

enum { REDIS_SLOTS = 16384, SLOT_NODES = 1000, SLOT_NAME_MAX = 255 };

// CRC16 (XMODEM) of what stands in the first {…}, when that is not empty, else of all of it.
unsigned redis_slot_of(struct str key);

struct slot_node {
    struct addr addr;
    struct str
        name; // that the node goes by in MOVED and ASK, when it is no address; spans point into the reply
};

struct slot_map {
    uint16_t owners[REDIS_SLOTS]; // place in nodes + 1; 0: nobody, or a host that nobody knows
    struct slot_node nodes[SLOT_NODES];
    unsigned count, covered; // nodes; slots that have an owner
};

// An address out of what a node says: IPv4, IPv6 without brackets or with. An empty host is that of asked.
// False: a name, or "?".
bool slot_addr(struct str host, uint64_t port, const struct addr *asked, struct addr *addr);

// The reply to CLUSTER SLOTS, RESP2 or RESP3, from the node asked. False: it is no map; *why (static).
must_check bool slot_map_read(struct slot_map *map, const struct resp_value *reply, const struct addr *asked,
                              const char **why);

enum slot_verdict { SLOT_OTHER, SLOT_MOVED, SLOT_ASK, SLOT_TRY_AGAIN, SLOT_DOWN };

struct slot_hint {
    unsigned slot;
    struct addr addr; // length 0: it has only a name
    struct str name;  // the host as it stands there
    uint16_t port;
};

// What an error of Redis's means here. MOVED and ASK: *hint is filled; one that makes no sense is OTHER.
enum slot_verdict slot_verdict_of(struct str error, const struct addr *asked, struct slot_hint *hint);
