// Inside the redis room: a client and its connection.
//
//   redis.c        commands: the line of those under way, deadlines, replies
//   connection.c   idle ─▶ connecting ─▶ securing ─▶ greeting ─▶ subscribing ─▶ up ─▶ idle
#pragma once

#include "base/rand.h"
#include "net/tls.h"
#include "observe/metrics.h"
#include "redis/redis.h"

enum redis_state {
    REDIS_WAITING, // for the next try
    REDIS_CONNECTING,
    REDIS_SECURING,
    REDIS_GREETING,
    REDIS_SUBSCRIBING,
    REDIS_UP,
};

// What is asked one after the other, before anything else may be.
enum redis_greeting { GREET_HELLO, GREET_AUTH, GREET_NAME, GREET_SELECT, GREETED };

enum { REDIS_WHY_BYTES = 200, REDIS_LOG_LINES = 10, REDIS_LOG_MS = 60000, REDIS_SPARE_CALLS = 1024 };

// A socket and its memory, which outlives the client by the rest of a turn.
struct redis_link {
    struct conn conn;
    struct redis *redis; // NULL: given up
};

enum redis_call_kind { CALL_COMMAND, CALL_PING, CALL_SUBSCRIBE };

struct redis_call {
    struct list line; // of its client: in the order sent; or those that failed at once; or spares
    struct list due;  // by deadline, until there is a reply or it is over; in none afterwards
    enum redis_call_kind kind;
    enum redis_failure failure;       // of those that failed at once
    uint64_t sent_us, due_us, cut_us; // cut_us: no reply until then, and the connection is cut
    void *context;
    void (*on_reply)(void *context, enum redis_failure failure, const struct resp_value *reply);
};

struct redis_channel {
    struct redis_channel *next;
    struct str name;
};

struct redis {
    struct loop *loop;
    struct arena settings_arena;
    struct redis_settings settings;
    struct addr addrs[REDIS_ADDRS];
    unsigned addr_count, tries;
    struct tls_client *tls; // NULL: plain
    struct metrics *metrics;
    const struct redis_events *events;
    void *context;
    struct rand rand;

    enum redis_state state;
    enum redis_greeting greeting;
    bool resp2;  // the server knows no HELLO
    bool broken; // to be dropped before the turn ends
    struct redis_link *link;
    struct loop_timer timer; // next try, REDIS_REACH_MS, REDIS_CONNECT_MS, or the next ping: by state
    uint64_t up_us, heard_us, backoff_ms;

    // Bytes.
    struct buf_pool pool;
    struct buf in, out;
    struct resp_walk walk;
    struct arena_spares spares;
    struct arena arena; // of the value at hand
    struct loop_late flush, more;
    bool has_yielded; // flush has let other late work go first

    // Commands.
    struct list line, by_due, failed, spare;
    uint32_t under_way, spare_count;
    struct loop_timer deadline;
    uint64_t deadline_us; // when it fires at the latest; 0: not armed
    struct loop_late report;
    struct redis_channel *channels;

    // The log.
    const char *purpose;
    char why[REDIS_WHY_BYTES], logged[REDIS_WHY_BYTES];
    uint64_t logged_us, lines_since_us;
    unsigned lines;
    bool said_down;

    struct list grave; // of a fleet that frees it before the turn ends
};

// ---- redis.c ----

// A copy all of whose text is in the arena; username and password are those that count.
void redis_settings_copy(struct redis_settings *to, const struct redis_settings *from, struct arena *arena);
bool redis_settings_same(const struct redis_settings *a, const struct redis_settings *b);
void redis_settings_wipe(struct redis_settings *settings); // the password
// NULL and no error: the settings ask for none.
struct tls_client *redis_trust(const struct redis_settings *settings, unsigned tls_slot, struct err *err);

// Puts a command into the output and in the line. NULL: too much is under way, or memory is out.
struct redis_call *redis_send(struct redis *redis, enum redis_call_kind kind, const struct str *argv,
                              unsigned argc, uint64_t deadline_us);
// A value has come. False: it makes no sense here, redis->why says why.
bool redis_take(struct redis *redis, const struct resp_value *value);
// Everything under way fails: the connection is gone.
void redis_fail_all(struct redis *redis);

// ---- connection.c ----

void redis_connection_init(struct redis *redis);
// Gives the connection up and tries again later. why is copied.
void redis_drop(struct redis *redis, const char *why, size_t n);
void redis_connection_fini(struct redis *redis);
// A value that is part of the greeting; false: as above.
bool redis_greet(struct redis *redis, const struct resp_value *value);
// Every channel is subscribed.
void redis_become_up(struct redis *redis);
bool redis_say_why(struct redis *redis, struct str why); // false, always
