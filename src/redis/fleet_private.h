// Inside the redis room: what the modes of a fleet share.
//
//   fleet.c      the public face; one server; the connection that subscribes
//   asker.c      one question, to one source after the other, until one answers
//   sentinel.c   asks sentinels for the master, and the master whether it is one
//   cluster.c    asks nodes for the map of slots (slots.h); follows MOVED and ASK
#pragma once

#include "redis/fleet.h"
#include "redis/redis_private.h"

enum {
    FLEET_QUESTION_MS = 500, // a sentinel's or a node's answer about the fleet
    FLEET_AGAIN_MS = 100,    // after all sources have been asked in vain; doubles, ±50 %, up to:
    FLEET_AGAIN_MAX_MS = 400,
};

// What differs from mode to mode.
struct fleet_verbs {
    void (*start)(struct redis_fleet *fleet);
    void (*stop)(struct redis_fleet *fleet); // everything under way fails with REDIS_DOWN
    void (*command)(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                    uint64_t deadline_us, void *context,
                    void (*on_reply)(void *context, enum redis_failure failure,
                                     const struct resp_value *reply));
    // Where to subscribe. False: nowhere at the moment. NULL: at the url's server.
    bool (*where)(struct redis_fleet *fleet, struct addr *addr);
};

struct redis_fleet {
    struct loop *loop;
    struct arena arena;
    struct redis_settings settings;
    struct addr *addrs;
    unsigned addr_count;
    struct tls_client *tls; // of all its connections; NULL: plain
    struct metrics *metrics;
    const char *purpose, *subscriber_purpose;
    const struct redis_fleet_events *events;
    void *context;
    struct rand rand;

    const struct fleet_verbs *verbs;
    bool up, stopping;
    struct redis *server;      // standalone
    struct sentinel *sentinel; // in mode sentinel
    struct cluster *cluster;   // in mode cluster

    struct redis *subscriber;
    struct addr subscribed_at;
    struct redis_channel *channels;

    struct list failed; // struct failed, told of before the turn ends
    struct loop_late report;
    // Clients must not be freed from within their callbacks: they are when the turn ends.
    struct list graves;
    struct loop_late tidy;

    char logged[REDIS_WHY_BYTES];
    uint64_t logged_us;
};

// ---- fleet.c ----

struct fleet_peer {
    const struct addr *addr;
    const char *purpose; // NULL: it logs nothing
    const struct redis_events *events;
    void *context;
    bool is_source; // asked about the fleet: no database, not counted
    bool bare;      // without user and password
};
// A client of one of its servers.
struct redis *fleet_connect(struct redis_fleet *fleet, const struct fleet_peer *peer);
// Freed before the turn ends; its events are heard no more. NULL is harmless.
void fleet_bury(struct redis_fleet *fleet, struct redis *redis);
// Tells of the change, if it is one. why: when it is not up.
void fleet_set_up(struct redis_fleet *fleet, bool up, const char *why);
// Before the turn ends, so never from inside.
void fleet_fail(struct redis_fleet *fleet, enum redis_failure failure, void *context,
                void (*on_reply)(void *context, enum redis_failure failure, const struct resp_value *reply));
// Where to subscribe may be another place now.
void fleet_resubscribe(struct redis_fleet *fleet);
// The same words at most once a minute.
void fleet_warn(struct redis_fleet *fleet, const struct addr *addr, const char *why);
void fleet_ended_well(struct redis_fleet *fleet, const char *what, const struct addr *addr); // logged, too
// base_ms, ±50 %
uint64_t fleet_jitter(struct redis_fleet *fleet, uint64_t base_ms);

// ---- asker.c ----

struct fleet_question {
    const struct str *argv;
    unsigned argc;
    // The i-th source, i counting up for ever.
    struct addr (*source)(const struct redis_fleet *fleet, unsigned i);
    // How many make a round, after which it waits.
    unsigned (*count)(const struct redis_fleet *fleet);
    // An answer of what is no error. False: it is of no use, *why says why; the next one is asked.
    bool (*take)(struct redis_fleet *fleet, const struct addr *from, const struct resp_value *reply,
                 const char **why);
    bool stays; // connected between the questions
    // stays: the source is connected, or (NULL) is not any more.
    void (*on_source)(struct redis_fleet *fleet, const struct addr *addr);
};

struct fleet_asker {
    struct redis_fleet *fleet;
    const struct fleet_question *question;
    struct redis *redis;
    struct addr at;
    unsigned source, failures; // failures: since the last answer
    bool wanted, sent, bare;
    uint64_t again_ms;
    struct loop_timer timer;
};

void asker_init(struct fleet_asker *asker, struct redis_fleet *fleet, const struct fleet_question *question);
void asker_ask(struct fleet_asker *asker); // now, or when it is connected
// The answer was right, but of no help: another source, a little later.
void asker_ask_another(struct fleet_asker *asker);
void asker_settle(struct fleet_asker *asker); // all is well: it is patient no more, should it be asked again
void asker_fini(struct fleet_asker *asker);

// ---- the modes ----

extern const struct fleet_verbs sentinel_mode, cluster_mode;
