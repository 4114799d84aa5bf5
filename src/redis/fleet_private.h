// Inside the redis room: what the modes of a fleet share.
//
//   fleet.c   the public face; one server; the connection that subscribes
#pragma once

#include "redis/fleet.h"
#include "redis/redis_private.h"

// What differs from mode to mode.
struct fleet_verbs {
    bool (*start)(struct redis_fleet *fleet, struct err *err);
    void (*stop)(struct redis_fleet *fleet); // everything under way fails with REDIS_DOWN
    void (*command)(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                    uint64_t deadline_us, void *context,
                    void (*on_reply)(void *context, enum redis_failure failure,
                                     const struct resp_value *reply));
};

struct redis_fleet {
    struct loop *loop;
    struct arena arena;
    struct redis_settings settings;
    struct addr *addrs;
    unsigned addr_count;
    struct tls_client *tls; // of all its connections; NULL: plain
    struct metrics *metrics;
    const char *purpose;
    const struct redis_fleet_events *events;
    void *context;

    const struct fleet_verbs *verbs;
    bool up;
    struct redis *server; // standalone

    struct redis *subscriber; // made with the first channel

    // Clients must not be freed from within their callbacks: they are when the turn ends.
    struct list graves;
    struct loop_late tidy;
};

// Tells of the change, if it is one. why: when it is not up.
void fleet_set_up(struct redis_fleet *fleet, bool up, const char *why);
// Freed before the turn ends; its events are heard no more. NULL is harmless.
void fleet_bury(struct redis_fleet *fleet, struct redis *redis);
