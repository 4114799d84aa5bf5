// Redis as a whole, however many servers it is: one, a master that Sentinels watch over, or the masters of a
// Cluster. The same verb for all; who is asked follows from the key.
//
//   standalone   the url's server
//   sentinel     redis.nodes are asked in turn for the master of the name redis.master, and that server for
//                its ROLE; again when it is lost or answers READONLY, and when +switch-master is published
//   cluster      redis.nodes are asked in turn for CLUSTER SLOTS; the slot is CRC16 of the key's hash tag
//                (what stands in {…}, else all of it), modulo 16384. MOVED is followed and makes the map be
//                read again, at most once a second; ASK is followed once with ASKING; CLUSTERDOWN and more
//                than five redirections are REDIS_DOWN. TRYAGAIN is the asker's to deal with: while a slot
//                moves, a command with several keys may be refused that would be obeyed for each alone
//
// With TLS every certificate, of servers and sentinels, must be of the url's host; user and password are the
// same for all (sentinels that have none are asked without).
//
// Redirections count against the one deadline of the command. One loop, one thread.
#pragma once

#include "redis/redis.h"

struct redis_fleet;

struct redis_fleet_events { // each may be NULL. redis_fleet_free must not be called from within them
    // Commands have somewhere to go: the server, the master, every slot's master.
    void (*on_up)(void *context);
    void (*on_down)(void *context, const char *why); // it was up
    // redis_fleet_subscribe: everything is subscribed, again after each loss; what was published meanwhile
    // has been missed.
    void (*on_subscribed)(void *context);
    void (*on_message)(void *context, struct str channel, struct str payload);
};

// Who asks, and whom: what every user of a fleet is given.
struct redis_access {
    struct loop *loop;
    unsigned tls_slot;
    const struct redis_settings *settings; // copied
    // What the url's host (standalone) and the names of redis.nodes mean, in their order; this room looks up
    // no name (discovery/lookup_redis.h).
    const struct addr *addrs;
    unsigned addr_count;
    struct metrics *metrics;
};

struct redis_fleet_options {
    struct redis_access access;
    const char *purpose;
    const struct redis_fleet_events *events;
    void *context;
};

// NULL and *err: the settings make no sense.
struct redis_fleet *redis_fleet_new(const struct redis_fleet_options *options, struct err *err);
void redis_fleet_free(struct redis_fleet *fleet); // everything under way fails with REDIS_DOWN first
bool redis_fleet_is_up(const struct redis_fleet *fleet);
// Whether both were made of the same settings, addresses and trust.
bool redis_fleet_is_same(const struct redis_fleet *a, const struct redis_fleet *b);
// key: one that the command touches; all it touches have the same hash tag. As redis_command otherwise: argv
// is copied, on_reply is called once, from the loop, never from inside; a reply may be an error of Redis's
// own, but never MOVED or ASK.
void redis_fleet_command(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                         uint64_t deadline_us, void *context,
                         void (*on_reply)(void *context, enum redis_failure failure,
                                          const struct resp_value *reply));
// From now on, by a connection of its own: to the server, the master, or any node of the Cluster (what is
// published reaches them all).
void redis_fleet_subscribe(struct redis_fleet *fleet, struct str channel);
bool redis_fleet_is_subscribed(const struct redis_fleet *fleet);
