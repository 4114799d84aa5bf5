// Servers of Redis that say what a test tells them to, in the thread of the loop, and a fleet that asks them.
#pragma once

#include "test_redis_ear.h"

#include "base/clock.h"
#include "observe/shard.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVERS = 8, PEERS = 16, WAIT_MS = 20000, SAID_MAX = 4096 };

struct bench;

struct peer {
    int fd; // -1: free
    size_t n;
    char data[16384];
};

struct server {
    struct bench *bench;
    int listener; // -1: stopped
    uint16_t port;
    struct peer peers[PEERS];
    unsigned accepted, commands; // that were no greeting and no subscription
    bool frozen;                 // accepts and reads nothing
    const char *refusal;         // of a HELLO with (or, of demands, without) AUTH; NULL: none
    bool demands;                // AUTH
    int subscribed;              // the peer's place; -1: none
    // What it answers to a command, as it goes over the wire; "" nothing.
    const char *(*answer)(struct server *server, const struct resp_value *argv, uint32_t argc);
    char last[256]; // command, words joined by spaces
    char said[SAID_MAX];
};

struct bench {
    struct loop loop;
    struct arena arena;
    struct metrics *metrics;
    struct redis_settings settings;
    struct addr addrs[SERVERS]; // of all servers
    struct redis_fleet *fleet;
    struct server servers[SERVERS];
    unsigned server_count;
    struct ear ear;
};

// ---- servers ----

static inline void server_stop(struct server *server)
{
    for (unsigned i = 0; i < PEERS; i++)
        if (server->peers[i].fd >= 0) {
            close(server->peers[i].fd);
            server->peers[i].fd = -1;
        }
    if (server->listener >= 0)
        close(server->listener);
    server->listener = -1;
    server->subscribed = -1;
}

// On the port it had, if it had one.
static inline void server_start(struct server *server)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int yes = 1;
    at.sin_port = htons(server->port);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server->listener, 16), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&at, &length), 0);
    server->port = ntohs(at.sin_port);
}

static inline void server_say(struct server *server, unsigned peer, const char *text)
{
    size_t n = strlen(text);
    if (n && server->peers[peer].fd >= 0)
        assert_int_equal(send(server->peers[peer].fd, text, n, MSG_NOSIGNAL), n);
}

__attribute__((format(printf, 2, 3))) static inline const char *said(struct server *server,
                                                                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(server->said, sizeof server->said, format, args);
    va_end(args);
    return server->said;
}

static inline void server_obey(struct server *server, unsigned peer, const struct resp_value *command)
{
    struct str name = command->items[0].text;
    size_t n = 0;
    if (str_eq(name, STR("HELLO"))) {
        bool has_auth = command->count > 2 && str_eq(command->items[2].text, STR("AUTH"));
        server_say(server, peer,
                   server->refusal && has_auth != server->demands ? server->refusal
                                                                  : "%1\r\n+proto\r\n:3\r\n");
        return;
    }
    if (str_eq(name, STR("SUBSCRIBE"))) {
        struct str channel = command->items[1].text;
        char text[256];
        snprintf(text, sizeof text, ">3\r\n+subscribe\r\n+%.*s\r\n:1\r\n", STR_ARG(channel));
        server_say(server, peer, text);
        server->subscribed = (int)peer;
        return;
    }
    for (uint32_t i = 0; i < command->count && n < sizeof server->last; i++)
        n += (size_t)snprintf(server->last + n, sizeof server->last - n, i ? " %.*s" : "%.*s",
                              STR_ARG(command->items[i].text));
    server->commands++;
    server_say(server, peer,
               server->answer ? server->answer(server, command->items, command->count) : "+OK\r\n");
}

static inline void server_read(struct server *server, unsigned at)
{
    struct peer *peer = &server->peers[at];
    ssize_t got = recv(peer->fd, peer->data + peer->n, sizeof peer->data - peer->n, 0);
    if (got == 0) {
        close(peer->fd);
        peer->fd = -1;
        return;
    }
    peer->n += got > 0 ? (size_t)got : 0;
    struct arena arena;
    struct resp_value command;
    size_t used;
    arena_init(&arena, NULL);
    while (peer->fd >= 0 && resp_parse((struct str){peer->data, peer->n}, sizeof peer->data, &arena, &command,
                                       &used) == RESP_VALUE) {
        server_obey(server, at, &command);
        peer->n -= used;
        memmove(peer->data, peer->data + used, peer->n);
    }
    arena_reset(&arena);
}

static inline void server_turn(struct server *server)
{
    int fd;
    if (server->listener < 0 || server->frozen)
        return;
    while ((fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        unsigned i = 0;
        while (i < PEERS && server->peers[i].fd >= 0)
            i++;
        assert_true(i < PEERS);
        server->peers[i].fd = fd;
        server->peers[i].n = 0;
        server->accepted++;
    }
    for (unsigned i = 0; i < PEERS; i++)
        if (server->listener >= 0 && server->peers[i].fd >= 0)
            server_read(server, i);
}

// ---- the bench ----

static inline struct bench *bench_new(unsigned servers)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct err err;
    assert_non_null(bench);
    assert_int_equal(loop_init(&bench->loop, &err), ERR_OK);
    arena_init(&bench->arena, NULL);
    bench->metrics = metrics_new();
    bench->settings.deadline_us = 5000000; // the machine may be busy
    bench->server_count = servers;
    for (unsigned i = 0; i < servers; i++) {
        struct server *server = &bench->servers[i];
        *server = (struct server){.bench = bench, .listener = -1, .subscribed = -1};
        for (unsigned j = 0; j < PEERS; j++)
            server->peers[j].fd = -1;
        server_start(server);
        struct str text = arena_printf(&bench->arena, "127.0.0.1:%u", server->port);
        assert_true(addr_parse(text, &bench->addrs[i]));
    }
    bench->settings.url.host = STR("127.0.0.1");
    bench->settings.url.address = arena_printf(&bench->arena, "127.0.0.1:%u", bench->servers[0].port);
    return bench;
}

// The first so many servers are the addresses it is given.
static inline void start(struct bench *bench, unsigned seeds)
{
    static const struct redis_fleet_events events = {
        .on_up = on_up, .on_down = on_down, .on_subscribed = on_subscribed, .on_message = on_message};
    struct err err;
    bench->fleet = redis_fleet_new(&(struct redis_fleet_options){.access = {.loop = &bench->loop,
                                                                            .settings = &bench->settings,
                                                                            .addrs = bench->addrs,
                                                                            .addr_count = seeds,
                                                                            .metrics = bench->metrics},
                                                                 .events = &events,
                                                                 .context = &bench->ear},
                                   &err);
    assert_non_null(bench->fleet);
}

static inline void bench_free(struct bench *bench)
{
    redis_fleet_free(bench->fleet);
    loop_turn(&bench->loop, 0);
    for (unsigned i = 0; i < bench->server_count; i++)
        server_stop(&bench->servers[i]);
    loop_fini(&bench->loop);
    arena_reset(&bench->arena);
    metrics_free(bench->metrics);
    free(bench);
}

static inline void turn(struct bench *bench)
{
    loop_turn(&bench->loop, 1);
    for (unsigned i = 0; i < bench->server_count; i++)
        server_turn(&bench->servers[i]);
}

#define until(bench, condition)                                             \
    do {                                                                    \
        uint64_t end_us = clock_monotonic_us() + WAIT_MS * 1000;            \
        while (!(condition)) {                                              \
            turn(bench);                                                    \
            if (clock_monotonic_us() > end_us)                              \
                fail_msg("in vain: %s (%s)", #condition, (bench)->ear.why); \
        }                                                                   \
    } while (0)

static inline void turn_for(struct bench *bench, unsigned ms)
{
    uint64_t end_us = clock_monotonic_us() + ms * UINT64_C(1000);
    while (bench->loop.now_us < end_us) // what is due by then is done
        turn(bench);
}

static inline void ask(struct bench *bench, const char *word, const char *key, uint64_t deadline_us)
{
    struct str argv[] = {str_of(word), str_of(key)};
    redis_fleet_command(bench->fleet, argv[1], argv, 2, deadline_us, &bench->ear, on_reply);
}

static inline void assert_heard(struct bench *bench, unsigned i, enum redis_failure failure, const char *text)
{
    until(bench, bench->ear.replies > i);
    assert_int_equal(bench->ear.heard[i].failure, failure);
    assert_string_equal(bench->ear.heard[i].text, text);
}
