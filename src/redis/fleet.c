// A fleet's public face; the mode of one server; the connection that subscribes.
#include "redis/fleet_private.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

struct failed {
    struct list node;
    enum redis_failure failure;
    void *context;
    void (*on_reply)(void *context, enum redis_failure failure, const struct resp_value *reply);
};

// ---- what the modes share ----

void fleet_set_up(struct redis_fleet *fleet, bool up, const char *why)
{
    if (up == fleet->up)
        return;
    fleet->up = up;
    if (up && fleet->events->on_up)
        fleet->events->on_up(fleet->context);
    else if (!up && fleet->events->on_down)
        fleet->events->on_down(fleet->context, why);
}

static void on_tidy(struct loop_late *late)
{
    struct redis_fleet *fleet = container_of(late, struct redis_fleet, tidy);
    struct list *node;
    while ((node = list_pop_front(&fleet->graves)))
        redis_free(container_of(node, struct redis, grave));
}

void fleet_bury(struct redis_fleet *fleet, struct redis *redis)
{
    static const struct redis_events nobody = {0};
    if (!redis)
        return;
    redis->events = &nobody;
    list_push_back(&fleet->graves, &redis->grave);
    loop_late(fleet->loop, &fleet->tidy);
}

struct redis *fleet_connect(struct redis_fleet *fleet, const struct fleet_peer *peer)
{
    struct redis_settings settings = fleet->settings;
    char text[ADDR_TEXT_MAX];
    struct err err;
    if (peer->addr)
        settings.url.address = (struct str){text, addr_print(peer->addr, text)};
    if (peer->is_source)
        settings.url.database = 0;
    if (peer->bare)
        settings.username = settings.password = STR_NULL;
    struct redis *redis =
        redis_new(&(struct redis_options){.loop = fleet->loop,
                                          .tls = fleet->tls,
                                          .settings = &settings,
                                          .addrs = peer->addr ? peer->addr : fleet->addrs,
                                          .addr_count = peer->addr ? 1 : fleet->addr_count,
                                          .metrics = peer->is_source ? NULL : fleet->metrics,
                                          .purpose = peer->purpose,
                                          .events = peer->events,
                                          .context = peer->context},
                  &err);
    check(redis); // there are an address and trust
    return redis;
}

static void on_report(struct loop_late *late)
{
    struct redis_fleet *fleet = container_of(late, struct redis_fleet, report);
    struct list now, *node;
    list_init(&now);
    list_move_all(&fleet->failed, &now);
    while ((node = list_pop_front(&now))) {
        struct failed *failed = container_of(node, struct failed, node);
        if (failed->on_reply)
            failed->on_reply(failed->context, failed->failure, NULL);
        free(failed);
    }
}

void fleet_fail(struct redis_fleet *fleet, enum redis_failure failure, void *context,
                void (*on_reply)(void *context, enum redis_failure failure, const struct resp_value *reply))
{
    static const enum redis_result results[] = {[REDIS_DOWN] = REDIS_COMMAND_DOWN,
                                                [REDIS_DEADLINE] = REDIS_COMMAND_DEADLINE,
                                                [REDIS_FULL] = REDIS_COMMAND_FULL};
    struct failed *failed = malloc(sizeof *failed);
    check(failed);
    *failed = (struct failed){.failure = failure, .context = context, .on_reply = on_reply};
    list_push_back(&fleet->failed, &failed->node);
    loop_late(fleet->loop, &fleet->report);
    if (fleet->metrics)
        metrics_redis(fleet->metrics, results[failure], 0);
}

uint64_t fleet_jitter(struct redis_fleet *fleet, uint64_t base_ms)
{
    return base_ms / 2 + rand_below(&fleet->rand, (uint32_t)base_ms + 1);
}

void fleet_warn(struct redis_fleet *fleet, const struct addr *addr, const char *why)
{
    char text[ADDR_TEXT_MAX], line[sizeof fleet->logged];
    uint64_t now_us = fleet->loop->now_us;
    addr_print(addr, text);
    snprintf(line, sizeof line, "%.60s: %s", text, why);
    bool same = fleet->logged_us && strcmp(line, fleet->logged) == 0;
    // Two that take turns are two lines a minute at most: the first of a minute, and the next ten seconds on.
    uint64_t quiet_us = (same ? REDIS_LOG_MS : REDIS_LOG_MS / REDIS_LOG_LINES) * 1000;
    if (!fleet->purpose || (fleet->logged_us && now_us - fleet->logged_us < quiet_us))
        return;
    memcpy(fleet->logged, line, sizeof line);
    fleet->logged_us = now_us;
    log_warn("redis", "%s: %s", fleet->purpose, line);
}

void fleet_ended_well(struct redis_fleet *fleet, const char *what, const struct addr *addr)
{
    char text[ADDR_TEXT_MAX];
    addr_print(addr, text);
    if (fleet->purpose)
        log_info("redis", "%s: %s %s", fleet->purpose, what, text);
}

// ---- one server ----

static void on_server_up(void *context)
{
    fleet_set_up(context, true, NULL);
}

static void on_server_down(void *context, const char *why)
{
    fleet_set_up(context, false, why);
}

static const struct redis_events server_events = {.on_up = on_server_up, .on_down = on_server_down};

static void standalone_start(struct redis_fleet *fleet)
{
    fleet->server = fleet_connect(
        fleet, &(struct fleet_peer){.purpose = fleet->purpose, .events = &server_events, .context = fleet});
}

static void standalone_stop(struct redis_fleet *fleet)
{
    redis_free(fleet->server);
}

static void standalone_command(struct redis_fleet *fleet, struct str key, const struct str *argv,
                               unsigned argc, uint64_t deadline_us, void *context,
                               void (*on_reply)(void *context, enum redis_failure failure,
                                                const struct resp_value *reply))
{
    (void)key;
    redis_command(fleet->server, argv, argc, deadline_us, context, on_reply);
}

static const struct fleet_verbs standalone = {
    .start = standalone_start, .stop = standalone_stop, .command = standalone_command};

// ---- subscriptions ----

static void on_subscribed(void *context)
{
    struct redis_fleet *fleet = context;
    if (fleet->events->on_subscribed)
        fleet->events->on_subscribed(fleet->context);
}

static void on_message(void *context, struct str channel, struct str payload)
{
    struct redis_fleet *fleet = context;
    if (fleet->events->on_message)
        fleet->events->on_message(fleet->context, channel, payload);
}

static void on_unsubscribed(void *context, const char *why)
{
    (void)why;
    fleet_resubscribe(context); // somewhere else, perhaps
}

static const struct redis_events subscriber_events = {
    .on_up = on_subscribed, .on_down = on_unsubscribed, .on_message = on_message};

void fleet_resubscribe(struct redis_fleet *fleet)
{
    struct fleet_peer peer = {
        .purpose = fleet->subscriber_purpose, .events = &subscriber_events, .context = fleet};
    struct addr addr = {0};
    if (!fleet->channels || fleet->stopping)
        return;
    if (fleet->verbs->where) {
        if (!fleet->verbs->where(fleet, &addr))
            return;
        peer.addr = &addr;
    }
    if (fleet->subscriber && (!peer.addr || addr_eq(&addr, &fleet->subscribed_at)))
        return; // it tries again by itself
    fleet_bury(fleet, fleet->subscriber);
    fleet->subscriber = fleet_connect(fleet, &peer);
    fleet->subscribed_at = addr;
    for (const struct redis_channel *channel = fleet->channels; channel; channel = channel->next)
        redis_subscribe(fleet->subscriber, channel->name);
}

void redis_fleet_subscribe(struct redis_fleet *fleet, struct str name)
{
    struct redis_channel *channel = arena_new(&fleet->arena, struct redis_channel);
    channel->name = arena_copy(&fleet->arena, name);
    channel->next = fleet->channels;
    fleet->channels = channel;
    if (fleet->subscriber)
        redis_subscribe(fleet->subscriber, name);
    else
        fleet_resubscribe(fleet);
}

bool redis_fleet_is_subscribed(const struct redis_fleet *fleet)
{
    return fleet->subscriber && redis_is_up(fleet->subscriber);
}

// ---- life ----

static const struct fleet_verbs *const modes[] = {
    [REDIS_STANDALONE] = &standalone, [REDIS_SENTINEL] = &sentinel_mode, [REDIS_CLUSTER] = &cluster_mode};

// What is given, else the addresses that the settings spell out.
static void set_addrs(struct redis_fleet *fleet, const struct redis_fleet_options *options)
{
    const struct redis_settings *settings = &fleet->settings;
    bool is_one = settings->mode == REDIS_STANDALONE;
    unsigned count = is_one ? 1 : settings->nodes.count;
    const struct str *texts = is_one ? &settings->url.address : settings->nodes.v;
    if (options->access.addr_count)
        count = options->access.addr_count;
    fleet->addrs = arena_array(&fleet->arena, struct addr, count);
    if (options->access.addr_count) {
        memcpy(fleet->addrs, options->access.addrs, count * sizeof *fleet->addrs);
        fleet->addr_count = count;
        return;
    }
    for (unsigned i = 0; i < count; i++)
        if (addr_parse(texts[i], &fleet->addrs[fleet->addr_count]))
            fleet->addr_count++;
}

static bool start(struct redis_fleet *fleet, const struct redis_fleet_options *options, struct err *err)
{
    bool is_one = fleet->settings.mode == REDIS_STANDALONE;
    if (!fleet->addr_count) {
        err_set(err, ERR_INVALID, is_one ? "redis.url" : "redis.nodes", "no address");
        return false;
    }
    fleet->tls = redis_trust(&fleet->settings, options->access.tls_slot, err);
    if (fleet->settings.url.tls && !fleet->tls)
        return false;
    fleet->verbs = modes[fleet->settings.mode];
    fleet->verbs->start(fleet);
    return true;
}

struct redis_fleet *redis_fleet_new(const struct redis_fleet_options *options, struct err *err)
{
    struct redis_fleet *fleet = calloc(1, sizeof *fleet);
    check(fleet);
    fleet->loop = options->access.loop;
    fleet->metrics = options->access.metrics;
    fleet->events = options->events;
    fleet->context = options->context;
    arena_init(&fleet->arena, NULL);
    rand_init(&fleet->rand);
    list_init(&fleet->graves);
    list_init(&fleet->failed);
    loop_late_init(&fleet->tidy, on_tidy);
    loop_late_init(&fleet->report, on_report);
    redis_settings_copy(&fleet->settings, options->access.settings, &fleet->arena);
    set_addrs(fleet, options);
    if (options->purpose) {
        fleet->purpose = options->purpose;
        fleet->subscriber_purpose = arena_printf(&fleet->arena, "%s, subscribed", options->purpose).p;
    }
    if (start(fleet, options, err))
        return fleet;
    redis_fleet_free(fleet);
    return NULL;
}

void redis_fleet_free(struct redis_fleet *fleet)
{
    if (!fleet)
        return;
    fleet->stopping = true;
    redis_free(fleet->subscriber);
    if (fleet->verbs)
        fleet->verbs->stop(fleet);
    on_tidy(&fleet->tidy);
    while (!list_empty(&fleet->failed)) // asked for by who has just heard of a failure
        on_report(&fleet->report);
    loop_late_cancel(&fleet->tidy);
    loop_late_cancel(&fleet->report);
    tls_client_unref(fleet->tls);
    redis_settings_wipe(&fleet->settings);
    arena_reset(&fleet->arena);
    free(fleet);
}

bool redis_fleet_is_up(const struct redis_fleet *fleet)
{
    return fleet->up;
}

bool redis_fleet_is_same(const struct redis_fleet *a, const struct redis_fleet *b)
{
    bool same = redis_settings_same(&a->settings, &b->settings) && a->addr_count == b->addr_count &&
                tls_client_same(a->tls, b->tls);
    for (unsigned i = 0; same && i < a->addr_count; i++)
        same = addr_eq(&a->addrs[i], &b->addrs[i]);
    return same;
}

void redis_fleet_command(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                         uint64_t deadline_us, void *context,
                         void (*on_reply)(void *context, enum redis_failure failure,
                                          const struct resp_value *reply))
{
    if (fleet->stopping)
        fleet_fail(fleet, REDIS_DOWN, context, on_reply);
    else
        fleet->verbs->command(fleet, key, argv, argc, deadline_us, context, on_reply);
}
