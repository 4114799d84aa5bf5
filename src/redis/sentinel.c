// The master that Sentinels watch over (redis.io/docs/reference/sentinel-clients).
//
//   a sentinel says where it is ─▶ candidate ─▶ ROLE says master ─▶ the master: commands go there
//        ▲                             │                               │
//        └────── another, later ◀──────┴── it is not, or is gone ◀─────┘ READONLY, or +switch-master
//
// The old master goes on being used until a new one has said that it is one.
#include "redis/fleet_private.h"
#include "redis/slots.h"

#include <stdlib.h>

struct sentinel_server {
    struct redis_fleet *fleet;
    struct redis *redis; // NULL: none
    struct addr addr;
    bool is_master; // it has said so since it was connected
};

struct sentinel {
    struct fleet_asker asker;
    struct str argv[3];
    struct fleet_question question;
    struct redis *listener; // to what the asked sentinel publishes
    struct sentinel_server servers[2], *master, *candidate;
};

static void drop_candidate(struct sentinel *sentinel)
{
    fleet_bury(sentinel->candidate->fleet, sentinel->candidate->redis);
    sentinel->candidate->redis = NULL;
    sentinel->candidate->is_master = false;
}

// ---- servers ----

static void become_master(struct sentinel_server *server)
{
    struct redis_fleet *fleet = server->fleet;
    struct sentinel *sentinel = fleet->sentinel;
    server->is_master = true;
    if (server == sentinel->candidate) {
        sentinel->candidate = sentinel->master;
        sentinel->master = server;
        drop_candidate(sentinel);
        server->redis->purpose = fleet->purpose;
        fleet_ended_well(fleet, "the master is", &server->addr);
    }
    asker_settle(&sentinel->asker);
    fleet_resubscribe(fleet);
    fleet_set_up(fleet, true, NULL);
}

// It is none, or says nothing.
static void lose(struct sentinel_server *server, const char *why)
{
    struct redis_fleet *fleet = server->fleet;
    struct sentinel *sentinel = fleet->sentinel;
    bool is_candidate = server == sentinel->candidate;
    server->is_master = false;
    fleet_warn(fleet, &server->addr, why);
    if (is_candidate)
        drop_candidate(sentinel);
    else
        fleet_set_up(fleet, false, why);
    if (!sentinel->asker.wanted)
        asker_ask_another(&sentinel->asker);
}

static void on_role(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct sentinel_server *server = context;
    if (failure == REDIS_DOWN) // on_down, if it is still asked for
        return;
    bool has_role = failure == REDIS_OK && reply->kind == RESP_ARRAY && reply->count &&
                    reply->items[0].kind == RESP_STRING;
    if (has_role && str_eq(reply->items[0].text, STR("master")))
        become_master(server);
    else
        lose(server, has_role ? "it is no master" : "it does not say its ROLE");
}

static void ask_role(struct sentinel_server *server)
{
    const struct str argv[] = {STR("ROLE")};
    redis_command(server->redis, argv, 1, FLEET_QUESTION_MS * 1000, server, on_role);
}

static void on_server_down(void *context, const char *why)
{
    lose(context, why);
}

// Scripts of older servers wrap the word in others.
static void on_server_error(void *context, struct str text)
{
    struct sentinel_server *server = context;
    static const struct str readonly = STR("READONLY You can't write");
    if (server->is_master && memmem(text.p, text.n, readonly.p, readonly.n))
        lose(server, "it is no master any more");
}

static void on_server_up(void *context)
{
    ask_role(context);
}

static const struct redis_events server_events = {
    .on_up = on_server_up, .on_down = on_server_down, .on_error = on_server_error};

static void try_candidate(struct sentinel *sentinel, const struct addr *addr)
{
    struct sentinel_server *candidate = sentinel->candidate;
    drop_candidate(sentinel);
    candidate->addr = *addr;
    candidate->redis = fleet_connect(
        candidate->fleet,
        &(struct fleet_peer){.addr = &candidate->addr, .events = &server_events, .context = candidate});
}

// ---- sentinels ----

static bool take_address(struct redis_fleet *fleet, const struct addr *from, const struct resp_value *reply,
                         const char **why)
{
    struct sentinel *sentinel = fleet->sentinel;
    struct sentinel_server *master = sentinel->master;
    const struct resp_value *items = reply->items;
    uint64_t port;
    struct addr addr;
    *why = "the sentinel knows no master of this name";
    if (reply->kind != RESP_ARRAY || reply->count != 2 || items[0].kind != RESP_STRING ||
        items[1].kind != RESP_STRING || !str_to_u64(items[1].text, UINT16_MAX, &port))
        return false;
    *why = "the sentinel gives a name where an address is needed";
    if (!items[0].text.n || !slot_addr(items[0].text, port, from, &addr))
        return false;
    if (!master->redis || !addr_eq(&addr, &master->addr)) {
        if (!sentinel->candidate->redis || !addr_eq(&addr, &sentinel->candidate->addr))
            try_candidate(sentinel, &addr);
        return true;
    }
    drop_candidate(sentinel);
    if (!redis_is_up(master->redis))
        asker_ask_another(&sentinel->asker);
    else if (!master->is_master)
        ask_role(master);
    return true;
}

// "mymaster 10.0.0.1 6379 10.0.0.2 6379": what is new is asked for, and tried.
static void on_switch(void *context, struct str channel, struct str payload)
{
    struct redis_fleet *fleet = context;
    (void)channel;
    if (str_eq((struct str){payload.p, str_find(payload, ' ')}, fleet->settings.master))
        asker_ask(&fleet->sentinel->asker);
}

// What was published before has been missed.
static void on_listening(void *context)
{
    struct redis_fleet *fleet = context;
    asker_ask(&fleet->sentinel->asker);
}

static const struct redis_events listener_events = {.on_up = on_listening, .on_message = on_switch};

static void on_source(struct redis_fleet *fleet, const struct addr *addr)
{
    struct sentinel *sentinel = fleet->sentinel;
    fleet_bury(fleet, sentinel->listener);
    sentinel->listener = NULL;
    if (!addr)
        return;
    sentinel->listener = fleet_connect(fleet, &(struct fleet_peer){.addr = addr,
                                                                   .events = &listener_events,
                                                                   .context = fleet,
                                                                   .is_source = true,
                                                                   .bare = sentinel->asker.bare});
    redis_subscribe(sentinel->listener, STR("+switch-master"));
}

static struct addr nth_sentinel(const struct redis_fleet *fleet, unsigned i)
{
    return fleet->addrs[i % fleet->addr_count];
}

static unsigned count_sentinels(const struct redis_fleet *fleet)
{
    return fleet->addr_count;
}

// ---- the mode ----

static void sentinel_start(struct redis_fleet *fleet)
{
    struct sentinel *sentinel = calloc(1, sizeof *sentinel);
    check(sentinel);
    fleet->sentinel = sentinel;
    sentinel->servers[0].fleet = sentinel->servers[1].fleet = fleet;
    sentinel->master = &sentinel->servers[0];
    sentinel->candidate = &sentinel->servers[1];
    sentinel->argv[0] = STR("SENTINEL");
    sentinel->argv[1] = STR("GET-MASTER-ADDR-BY-NAME");
    sentinel->argv[2] = fleet->settings.master;
    sentinel->question = (struct fleet_question){.argv = sentinel->argv,
                                                 .argc = 3,
                                                 .source = nth_sentinel,
                                                 .count = count_sentinels,
                                                 .take = take_address,
                                                 .stays = true,
                                                 .on_source = on_source};
    asker_init(&sentinel->asker, fleet, &sentinel->question);
    asker_ask(&sentinel->asker);
}

static void sentinel_stop(struct redis_fleet *fleet)
{
    struct sentinel *sentinel = fleet->sentinel;
    asker_fini(&sentinel->asker);
    redis_free(sentinel->listener);
    redis_free(sentinel->candidate->redis);
    redis_free(sentinel->master->redis);
    free(sentinel);
    fleet->sentinel = NULL;
}

static void sentinel_command(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                             uint64_t deadline_us, void *context,
                             void (*on_reply)(void *context, enum redis_failure failure,
                                              const struct resp_value *reply))
{
    const struct sentinel_server *master = fleet->sentinel->master;
    (void)key;
    if (master->is_master)
        redis_command(master->redis, argv, argc, deadline_us, context, on_reply);
    else
        fleet_fail(fleet, REDIS_DOWN, context, on_reply);
}

static bool sentinel_where(struct redis_fleet *fleet, struct addr *addr)
{
    const struct sentinel_server *master = fleet->sentinel->master;
    *addr = master->addr;
    return master->is_master;
}

const struct fleet_verbs sentinel_mode = {
    .start = sentinel_start, .stop = sentinel_stop, .command = sentinel_command, .where = sentinel_where};
