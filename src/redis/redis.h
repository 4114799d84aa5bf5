// An asynchronous Redis client on one loop: RESP2 and RESP3 (resp.h), pipelining, hard deadlines, reconnect
// with jitter, AUTH, TLS, publish/subscribe. It knows nothing of what is asked. Works with Valkey.
//
//   redis_command ─▶ gathered, sent once a turn ─▶ on_reply, or on_reply with a failure at the deadline
//
// A reply that comes after its deadline is dropped by its place in the line; the connection goes on.
#pragma once

#include "base/err.h"
#include "config/config.h"
#include "loop/loop.h"
#include "redis/resp.h"

enum {
    REDIS_PENDING = 65536,             // commands under way on one connection; more are refused at once
    REDIS_OUT_BYTES = 4 * 1024 * 1024, // gathered and not taken by the kernel
    REDIS_REPLY_BYTES = 64 * 1024 * 1024,
    REDIS_BACKOFF_MS = 100, // doubles, ±50 %, up to:
    REDIS_BACKOFF_MAX_MS = 1000,
    REDIS_CONNECT_MS = 1000, // connect, TLS, AUTH, HELLO
};

struct redis_settings { // sallyport.yaml: redis
    CONFIG_POSITION_FIELDS;
    struct str url;
    struct str username, password;
    int mode; // enum redis_mode
    struct str_list nodes;
    struct str master, ca;
    uint64_t deadline_us;
    struct str key_prefix;
};
enum redis_mode { REDIS_STANDALONE, REDIS_SENTINEL, REDIS_CLUSTER };
extern const struct config_object redis_object;

enum redis_failure {
    REDIS_OK,       // there is a reply; it may be an error of Redis's own (RESP_ERROR)
    REDIS_DOWN,     // not connected, or the connection broke: whether it was carried out is not known
    REDIS_DEADLINE, // no reply in time
    REDIS_FULL,     // too much is under way
};

struct redis; // one server's connection

struct redis_events {
    void (*on_up)(void *context); // connected and authenticated; NULL: nobody asks
    void (*on_down)(void *context, const char *why);
    // A message on a channel; spans are valid during the call.
    void (*on_message)(void *context, struct str channel, struct str payload);
};

struct redis_options {
    struct loop *loop;
    unsigned tls_slot;                     // of net/tls.h
    const struct redis_settings *settings; // must outlive the client
    const struct redis_events *events;
    void *context;
};

// Connects by itself, again and again. NULL and *err: the settings make no sense.
struct redis *redis_new(const struct redis_options *options, struct err *err);
void redis_free(struct redis *redis); // everything under way fails with REDIS_DOWN first
bool redis_is_up(const struct redis *redis);

// argv: copied. on_reply is called once, from the loop, never from inside; reply is valid during the call,
// NULL unless REDIS_OK. deadline_us 0: the settings'.
void redis_command(struct redis *redis, const struct str *argv, unsigned argc, uint64_t deadline_us,
                   void *context,
                   void (*on_reply)(void *context, enum redis_failure failure,
                                    const struct resp_value *reply));
// From now on, across reconnects. A client that subscribes takes no other commands with RESP2.
void redis_subscribe(struct redis *redis, struct str channel);
