// Redis as a whole, however many servers it is: one, a master that Sentinels watch over, or the masters of a
// Cluster. The same verb for all; who is asked follows from the key.
//
//   standalone   the url's server
//   sentinel     redis.nodes are asked for the master of the name redis.master (SENTINEL
//   GET-MASTER-ADDR-BY-NAME,
//                then ROLE of the server itself); +switch-master tells of another one
//   cluster      redis.nodes are asked for CLUSTER SLOTS (or SHARDS); the slot is CRC16 of the key's hash tag
//                (what stands in {…}, else all of it), modulo 16384. MOVED is followed and makes the map be
//                read again, ASK is followed once with ASKING, TRYAGAIN and CLUSTERDOWN are failures
//
// Redirections count against the one deadline of the command. One loop, one thread.
#pragma once

#include "redis/redis.h"

struct redis_fleet;

struct redis_fleet_events { // each may be NULL
    void (*on_up)(
        void *context); // commands have somewhere to go: the server, the master, every slot's master
    void (*on_down)(void *context, const char *why);
};

struct redis_fleet_options {
    struct loop *loop;
    unsigned tls_slot;
    const struct redis_settings *settings; // copied
    // What the url's host (standalone) and the names of redis.nodes mean, in their order; this room looks up
    // no name.
    const struct addr *addrs;
    unsigned addr_count;
    struct metrics *metrics;
    const char *purpose;
    const struct redis_fleet_events *events;
    void *context;
};

// NULL and *err: the settings make no sense.
struct redis_fleet *redis_fleet_new(const struct redis_fleet_options *options, struct err *err);
void redis_fleet_free(struct redis_fleet *fleet); // everything under way fails with REDIS_DOWN first
bool redis_fleet_is_up(const struct redis_fleet *fleet);
// key: one that the command touches; all it touches have the same hash tag. As redis_command otherwise: argv
// is copied, on_reply is called once, from the loop, never from inside; a reply may be an error of Redis's
// own, but never MOVED or ASK.
void redis_fleet_command(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                         uint64_t deadline_us, void *context,
                         void (*on_reply)(void *context, enum redis_failure failure,
                                          const struct resp_value *reply));
