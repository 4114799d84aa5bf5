// A fleet's public face; the mode of one server; the connection that subscribes.
#include "redis/fleet_private.h"

#include <stdlib.h>

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

static struct redis *connect_to_url(struct redis_fleet *fleet, const char *purpose,
                                    const struct redis_events *events, struct err *err)
{
    return redis_new(&(struct redis_options){.loop = fleet->loop,
                                             .tls = fleet->tls,
                                             .settings = &fleet->settings,
                                             .addrs = fleet->addrs,
                                             .addr_count = fleet->addr_count,
                                             .metrics = fleet->metrics,
                                             .purpose = purpose,
                                             .events = events,
                                             .context = fleet},
                     err);
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

static bool standalone_start(struct redis_fleet *fleet, struct err *err)
{
    fleet->server = connect_to_url(fleet, fleet->purpose, &server_events, err);
    return fleet->server;
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

static const struct redis_events subscriber_events = {.on_up = on_subscribed, .on_message = on_message};

static const char *subscriber_purpose(struct redis_fleet *fleet)
{
    return fleet->purpose ? arena_printf(&fleet->arena, "%s, subscribed", fleet->purpose).p : NULL;
}

void redis_fleet_subscribe(struct redis_fleet *fleet, struct str channel)
{
    if (!fleet->subscriber) {
        struct err err;
        fleet->subscriber = connect_to_url(fleet, subscriber_purpose(fleet), &subscriber_events, &err);
        check(fleet->subscriber); // the server's client was made of the same
    }
    redis_subscribe(fleet->subscriber, channel);
}

bool redis_fleet_is_subscribed(const struct redis_fleet *fleet)
{
    return fleet->subscriber && redis_is_up(fleet->subscriber);
}

// ---- life ----

static const struct fleet_verbs *const modes[] = {[REDIS_STANDALONE] = &standalone};

static bool start(struct redis_fleet *fleet, const struct redis_fleet_options *options, struct err *err)
{
    unsigned mode = (unsigned)options->settings->mode;
    fleet->tls = redis_trust(&fleet->settings, options->tls_slot, err);
    if (fleet->settings.url.tls && !fleet->tls)
        return false;
    if (mode >= countof(modes)) {
        err_set(err, ERR_INVALID, "redis.mode", "not offered");
        return false;
    }
    fleet->verbs = modes[mode];
    return fleet->verbs->start(fleet, err);
}

struct redis_fleet *redis_fleet_new(const struct redis_fleet_options *options, struct err *err)
{
    struct redis_fleet *fleet = calloc(1, sizeof *fleet);
    check(fleet);
    fleet->loop = options->loop;
    fleet->metrics = options->metrics;
    fleet->purpose = options->purpose;
    fleet->events = options->events;
    fleet->context = options->context;
    arena_init(&fleet->arena, NULL);
    list_init(&fleet->graves);
    loop_late_init(&fleet->tidy, on_tidy);
    redis_settings_copy(&fleet->settings, options->settings, &fleet->arena);
    fleet->addr_count = options->addr_count;
    fleet->addrs = arena_array(&fleet->arena, struct addr, fleet->addr_count);
    if (fleet->addr_count)
        memcpy(fleet->addrs, options->addrs, fleet->addr_count * sizeof *fleet->addrs);
    if (start(fleet, options, err))
        return fleet;
    redis_fleet_free(fleet);
    return NULL;
}

void redis_fleet_free(struct redis_fleet *fleet)
{
    if (!fleet)
        return;
    redis_free(fleet->subscriber);
    if (fleet->verbs)
        fleet->verbs->stop(fleet);
    on_tidy(&fleet->tidy);
    loop_late_cancel(&fleet->tidy);
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
    fleet->verbs->command(fleet, key, argv, argc, deadline_us, context, on_reply);
}
