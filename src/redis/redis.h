// An asynchronous Redis client on one loop: RESP2 and RESP3 (resp.h), pipelining, hard deadlines, reconnect
// with jitter, AUTH, TLS, publish/subscribe. It knows nothing of what is asked. Works with Valkey.
//
//   redis_command ─▶ gathered, sent once a turn ─▶ on_reply, or on_reply with a failure at the deadline
//
// A reply that comes after its deadline is dropped by its place in the line; the connection goes on. When the
// oldest one is overdue by far (REDIS_CUT_MS), nobody is there any more: the connection is cut and made anew.
//
// This is one server's connection. What knows several of them (Sentinel, Cluster: MOVED and ASK are errors
// like any other here) is fleet.h.
#pragma once

#include "base/err.h"
#include "config/config.h"
#include "loop/loop.h"
#include "net/addr.h"
#include "redis/resp.h"

enum {
    REDIS_PENDING = 65536,             // commands under way on one connection; more are refused at once
    REDIS_OUT_BYTES = 4 * 1024 * 1024, // gathered and not taken by the kernel
    REDIS_REPLY_BYTES = 64 * 1024 * 1024,
    REDIS_BACKOFF_MS = 100, // doubles, ±50 %, up to:
    // So that it is found again within a second: the last SYN into the void, and the longest pause after it.
    REDIS_BACKOFF_MAX_MS = 400,
    REDIS_REACH_MS = 400,    // for its system to answer
    REDIS_CONNECT_MS = 1000, // then TLS, HELLO or AUTH, SELECT, SUBSCRIBE
    REDIS_CUT_MS = 1000,     // past a command's deadline, or nine times the settings' when that is longer
    REDIS_PING_MS = 5000,    // without a word from the server: it is asked for one
    REDIS_ADDRS = 8,         // of one name
    REDIS_SEEDS = 64,        // of the url, or of all nodes
};

struct redis_url { // redis[s]://[[user]:password@]host[:port][/database]
    struct str text;
    bool tls;
    struct str address; // host:port
    struct str host;    // an IPv6 address without brackets
    struct str username, password;
    unsigned database;
};

struct redis_settings { // sallyport.yaml: redis
    CONFIG_POSITION_FIELDS;
    struct redis_url url;
    struct str username, password; // n == 0: those of the url
    int mode;                      // enum redis_mode
    struct str_list nodes;
    struct str master, ca;
    uint64_t deadline_us;
    struct str key_prefix;
};
enum redis_mode { REDIS_STANDALONE, REDIS_SENTINEL, REDIS_CLUSTER };
extern const struct config_object redis_object;

// False: *why says why not (static).
bool redis_url_parse(struct str text, struct arena *arena, struct redis_url *url, const char **why);

enum redis_failure {
    REDIS_OK,       // there is a reply; it may be an error of Redis's own (RESP_ERROR)
    REDIS_DOWN,     // not connected, or the connection broke: whether it was carried out is not known
    REDIS_DEADLINE, // no reply in time
    REDIS_FULL,     // too much is under way
};

struct metrics;
struct tls_client;
struct redis; // one server's connection

struct redis_events { // each may be NULL: nobody asks. redis_free must not be called from within them
    void (*on_up)(void *context); // connected, authenticated, subscribed
    // It was up and is not any more, or one more try has failed.
    void (*on_down)(void *context, const char *why);
    // A message on a channel; spans are valid during the call.
    void (*on_message)(void *context, struct str channel, struct str payload);
    // An error of Redis's own, before the command's on_reply hears of it.
    void (*on_error)(void *context, struct str text);
};

struct redis_options {
    struct loop *loop;
    unsigned tls_slot;                     // of net/tls.h
    struct tls_client *tls;                // to be shared with others; NULL: one is made of the settings
    const struct redis_settings *settings; // copied
    // What the url's host means, tried in turn; count 0: it is a numeric address. This room looks up no name.
    const struct addr *addrs;
    unsigned addr_count;
    struct metrics *metrics; // of the loop's thread; NULL: nothing is counted
    const char *purpose;     // what the log calls it, static; NULL: it logs nothing
    const struct redis_events *events;
    void *context;
};

// Connects by itself from the next turn on, again and again. NULL and *err: the settings make no sense.
struct redis *redis_new(const struct redis_options *options, struct err *err);
void redis_free(struct redis *redis); // everything under way fails with REDIS_DOWN first; NULL is harmless
bool redis_is_up(const struct redis *redis);

// argv: copied. on_reply is called once, from the loop, never from inside; reply is valid during the call,
// NULL unless REDIS_OK. deadline_us 0: the settings'.
void redis_command(struct redis *redis, const struct str *argv, unsigned argc, uint64_t deadline_us,
                   void *context,
                   void (*on_reply)(void *context, enum redis_failure failure,
                                    const struct resp_value *reply));
// From now on, across reconnects; the client is not up before the server has confirmed it. A client that
// subscribes takes no other commands with RESP2 (they fail with REDIS_DOWN).
void redis_subscribe(struct redis *redis, struct str channel);
