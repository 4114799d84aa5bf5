#include "redis/redis_private.h"

#include <stdlib.h>

enum { OVERHEAD_BYTES = 32 }; // of an argument on the wire, at most

// ---- the line ----

static struct redis_call *take_call(struct redis *redis)
{
    struct list *node = list_pop_front(&redis->spare);
    struct redis_call *call = node ? container_of(node, struct redis_call, line) : malloc(sizeof *call);
    if (node)
        redis->spare_count--;
    if (!call)
        return NULL;
    *call = (struct redis_call){0};
    list_init(&call->line);
    list_init(&call->due);
    return call;
}

static void give_call(struct redis *redis, struct redis_call *call)
{
    list_remove(&call->line);
    list_remove(&call->due);
    if (redis->spare_count == REDIS_SPARE_CALLS) {
        free(call);
        return;
    }
    list_push_front(&redis->spare, &call->line);
    redis->spare_count++;
}

static struct redis_call *oldest(const struct redis *redis)
{
    return list_empty(&redis->line) ? NULL : container_of(redis->line.next, struct redis_call, line);
}

// Its deadline has not been yet.
static bool is_waiting(const struct redis_call *call)
{
    return call->due.next != &call->due;
}

static void count(const struct redis *redis, const struct redis_call *call, enum redis_result result)
{
    if (redis->metrics && call->kind == CALL_COMMAND)
        metrics_redis(redis->metrics, result, redis->loop->now_us - call->sent_us);
}

// The caller hears of it, once.
static void finish(struct redis *redis, struct redis_call *call, enum redis_failure failure,
                   const struct resp_value *reply)
{
    static const enum redis_result results[] = {
        [REDIS_OK] = REDIS_COMMAND_OK,
        [REDIS_DOWN] = REDIS_COMMAND_DOWN,
        [REDIS_DEADLINE] = REDIS_COMMAND_DEADLINE,
        [REDIS_FULL] = REDIS_COMMAND_FULL,
    };
    void (*on_reply)(void *, enum redis_failure, const struct resp_value *) = call->on_reply;
    call->on_reply = NULL;
    count(redis, call, reply && reply->kind == RESP_ERROR ? REDIS_COMMAND_ERROR : results[failure]);
    if (on_reply)
        on_reply(call->context, failure, reply);
}

// ---- deadlines ----

static uint64_t next_deadline(const struct redis *redis)
{
    const struct redis_call *first = oldest(redis);
    uint64_t next_us = first ? first->cut_us : 0;
    if (!list_empty(&redis->by_due)) {
        uint64_t due_us = container_of(redis->by_due.next, struct redis_call, due)->due_us;
        next_us = next_us && next_us < due_us ? next_us : due_us;
    }
    return next_us;
}

static void arm(struct redis *redis, uint64_t at_us)
{
    uint64_t now_us = redis->loop->now_us;
    redis->deadline_us = at_us;
    loop_timer_set(redis->loop, &redis->deadline, at_us > now_us ? (at_us - now_us + 999) / 1000 : 0);
}

static void on_deadline(struct loop_timer *timer)
{
    struct redis *redis = container_of(timer, struct redis, deadline);
    uint64_t now_us = redis->loop->now_us;
    redis->deadline_us = 0;
    while (!list_empty(&redis->by_due)) {
        struct redis_call *call = container_of(redis->by_due.next, struct redis_call, due);
        if (call->due_us > now_us)
            break;
        list_remove(&call->due); // it keeps its place in the line, for the reply that may still come
        finish(redis, call, REDIS_DEADLINE, NULL);
    }
    const struct redis_call *first = oldest(redis);
    struct str why = STR("no reply for long");
    if (first && first->cut_us <= now_us) {
        redis_drop(redis, why.p, why.n);
        return;
    }
    uint64_t next_us = next_deadline(redis);
    if (next_us && (!redis->deadline_us || next_us < redis->deadline_us))
        arm(redis, next_us);
}

// By deadline; nearly always the last one.
static void insert_due(struct redis *redis, struct redis_call *call)
{
    struct list *at = redis->by_due.prev;
    while (at != &redis->by_due && container_of(at, struct redis_call, due)->due_us > call->due_us)
        at = at->prev;
    list_insert_after(at, &call->due);
    if (!redis->deadline_us || call->due_us < redis->deadline_us)
        arm(redis, call->due_us);
}

// ---- asking ----

struct redis_call *redis_send(struct redis *redis, enum redis_call_kind kind, const struct str *argv,
                              unsigned argc, uint64_t deadline_us)
{
    size_t size = OVERHEAD_BYTES;
    for (unsigned i = 0; i < argc; i++)
        size += argv[i].n + OVERHEAD_BYTES;
    if (redis->under_way >= REDIS_PENDING || size > REDIS_OUT_BYTES ||
        buf_len(&redis->out) > REDIS_OUT_BYTES - size ||
        !buf_reserve(&redis->out, &redis->pool, size, 2 * REDIS_OUT_BYTES))
        return NULL;
    struct redis_call *call = take_call(redis);
    if (!call)
        return NULL;
    uint64_t now_us = redis->loop->now_us, patience_us = 9 * redis->settings.deadline_us;
    if (patience_us < REDIS_CUT_MS * 1000)
        patience_us = REDIS_CUT_MS * 1000;
    call->kind = kind;
    call->sent_us = now_us;
    call->due_us = now_us + deadline_us;
    call->cut_us = call->due_us + patience_us;
    list_push_back(&redis->line, &call->line);
    insert_due(redis, call);
    redis->under_way++;
    resp_command(&redis->out, argv, argc);
    loop_late(redis->loop, &redis->flush);
    return call;
}

static void on_report(struct loop_late *late)
{
    struct redis *redis = container_of(late, struct redis, report);
    struct list now, *node;
    list_init(&now);
    list_move_all(&redis->failed, &now);
    while ((node = list_pop_front(&now))) {
        struct redis_call *call = container_of(node, struct redis_call, line);
        finish(redis, call, call->failure, NULL);
        give_call(redis, call);
    }
}

// Reported before the turn ends, so never from inside.
static struct redis_call *fail_late(struct redis *redis, enum redis_failure failure)
{
    struct redis_call *call = take_call(redis);
    check(call);
    call->failure = failure;
    call->sent_us = redis->loop->now_us;
    list_push_back(&redis->failed, &call->line);
    loop_late(redis->loop, &redis->report);
    return call;
}

void redis_command(struct redis *redis, const struct str *argv, unsigned argc, uint64_t deadline_us,
                   void *context,
                   void (*on_reply)(void *context, enum redis_failure failure,
                                    const struct resp_value *reply))
{
    struct redis_call *call;
    if (!deadline_us)
        deadline_us = redis->settings.deadline_us;
    if (redis->state != REDIS_UP || (redis->resp2 && redis->channels))
        call = fail_late(redis, REDIS_DOWN);
    else if (!(call = redis_send(redis, CALL_COMMAND, argv, argc, deadline_us)))
        call = fail_late(redis, REDIS_FULL);
    call->context = context;
    call->on_reply = on_reply;
}

void redis_subscribe(struct redis *redis, struct str name)
{
    struct redis_channel **last = &redis->channels,
                         *channel = arena_new(&redis->settings_arena, struct redis_channel);
    channel->name = arena_copy(&redis->settings_arena, name);
    while (*last)
        last = &(*last)->next;
    *last = channel;
    const struct str argv[] = {STR("SUBSCRIBE"), channel->name};
    if (redis->state >= REDIS_SUBSCRIBING &&
        !redis_send(redis, CALL_SUBSCRIBE, argv, 2, REDIS_CONNECT_MS * 1000)) {
        redis->broken = true; // no room: begin again, with all channels
        loop_late(redis->loop, &redis->flush);
    }
}

// ---- answers ----

static void answer(struct redis *redis, const struct resp_value *value)
{
    struct redis_call *call = oldest(redis);
    bool waits = is_waiting(call);
    list_remove(&call->line);
    list_remove(&call->due);
    redis->under_way--;
    if (value->kind == RESP_ERROR && redis->events->on_error)
        redis->events->on_error(redis->context, value->text);
    if (waits)
        finish(redis, call, REDIS_OK, value);
    give_call(redis, call);
}

// Whether it comes by itself, and is no reply to a command.
static bool is_push(const struct redis *redis, const struct resp_value *value)
{
    bool array_is_one = redis->resp2 && redis->channels && redis->state >= REDIS_SUBSCRIBING;
    return value->kind == RESP_PUSH || (array_is_one && value->kind == RESP_ARRAY);
}

static bool take_subscribed(struct redis *redis, const struct resp_value *value)
{
    const struct redis_call *first = oldest(redis);
    if (!first || first->kind != CALL_SUBSCRIBE)
        return redis_say_why(redis, STR("a subscription that nobody asked for"));
    answer(redis, value);
    if (redis->state == REDIS_SUBSCRIBING && !oldest(redis))
        redis_become_up(redis);
    return true;
}

static bool take_push(struct redis *redis, const struct resp_value *value)
{
    const struct resp_value *items = value->items;
    const struct redis_call *first = oldest(redis);
    if (!value->count || items[0].kind != RESP_STRING)
        return redis_say_why(redis, STR("a message without a kind"));
    if (str_eq(items[0].text, STR("subscribe")))
        return take_subscribed(redis, value);
    if (redis->resp2 && str_eq(items[0].text, STR("pong")) && first && first->kind == CALL_PING)
        answer(redis, value);
    if (str_eq(items[0].text, STR("message")) && value->count == 3 && items[1].kind == RESP_STRING &&
        items[2].kind == RESP_STRING && redis->events->on_message)
        redis->events->on_message(redis->context, items[1].text, items[2].text);
    return true;
}

bool redis_take(struct redis *redis, const struct resp_value *value)
{
    redis->heard_us = redis->loop->now_us;
    if (is_push(redis, value))
        return take_push(redis, value);
    if (redis->state == REDIS_GREETING)
        return redis_greet(redis, value);
    const struct redis_call *first = oldest(redis);
    if (!first)
        return redis_say_why(redis, STR("a reply that nobody asked for"));
    if (first->kind == CALL_SUBSCRIBE) // else it would be a push
        return redis_say_why(redis,
                             value->kind == RESP_ERROR ? value->text : STR("SUBSCRIBE was not understood"));
    answer(redis, value);
    return true;
}

void redis_fail_all(struct redis *redis)
{
    struct list lost, *node;
    list_init(&lost);
    list_move_all(&redis->line, &lost);
    redis->under_way = 0;
    while ((node = list_pop_front(&lost))) {
        struct redis_call *call = container_of(node, struct redis_call, line);
        bool waits = is_waiting(call);
        list_remove(&call->due);
        if (waits)
            finish(redis, call, REDIS_DOWN, NULL);
        give_call(redis, call);
    }
    loop_timer_stop(redis->loop, &redis->deadline);
    redis->deadline_us = 0;
}

// ---- life ----

static struct str copy(struct arena *arena, struct str text)
{
    return text.n ? arena_copy(arena, text) : STR_NULL;
}

void redis_settings_copy(struct redis_settings *to, const struct redis_settings *from, struct arena *arena)
{
    struct str *nodes = arena_array(arena, struct str, from->nodes.count);
    *to = *from;
    to->url.text = copy(arena, from->url.text);
    to->url.address = copy(arena, from->url.address);
    to->url.host = copy(arena, from->url.host);
    to->username = copy(arena, from->username.n ? from->username : from->url.username);
    to->password = copy(arena, from->password.n ? from->password : from->url.password);
    to->url.username = to->url.password = STR_NULL;
    to->ca = copy(arena, from->ca);
    to->key_prefix = copy(arena, from->key_prefix);
    to->master = copy(arena, from->master);
    for (unsigned i = 0; i < from->nodes.count; i++)
        nodes[i] = copy(arena, from->nodes.v[i]);
    to->nodes.v = nodes;
}

bool redis_settings_same(const struct redis_settings *a, const struct redis_settings *b)
{
    bool same = str_eq(a->url.address, b->url.address) && a->url.tls == b->url.tls &&
                a->url.database == b->url.database && str_eq(a->username, b->username) &&
                str_eq(a->password, b->password) && a->deadline_us == b->deadline_us &&
                str_eq(a->key_prefix, b->key_prefix) && a->mode == b->mode && str_eq(a->master, b->master) &&
                a->nodes.count == b->nodes.count;
    for (unsigned i = 0; same && i < a->nodes.count; i++)
        same = str_eq(a->nodes.v[i], b->nodes.v[i]);
    return same;
}

void redis_settings_wipe(struct redis_settings *settings)
{
    if (settings->password.n)
        explicit_bzero((void *)(uintptr_t)settings->password.p, settings->password.n);
}

static bool set_addrs(struct redis *redis, const struct redis_options *options, struct err *err)
{
    unsigned count = options->addr_count < REDIS_ADDRS ? options->addr_count : REDIS_ADDRS;
    if (count)
        memcpy(redis->addrs, options->addrs, count * sizeof *redis->addrs);
    else if (addr_parse(redis->settings.url.address, &redis->addrs[0]))
        count = 1;
    redis->addr_count = count;
    if (!count)
        err_set(err, ERR_INVALID, "redis.url", "\"%.*s\" is no address",
                STR_ARG(redis->settings.url.address));
    return count;
}

struct tls_client *redis_trust(const struct redis_settings *settings, unsigned tls_slot, struct err *err)
{
    if (!settings->url.tls)
        return NULL;
    struct tls_client_options options = {
        .ca = settings->ca.n ? settings->ca : STR("system"),
        .verify = true,
    };
    return tls_client_new(tls_slot, &options, err);
}

static bool set_tls(struct redis *redis, const struct redis_options *options, struct err *err)
{
    redis->tls =
        options->tls ? tls_client_ref(options->tls) : redis_trust(&redis->settings, options->tls_slot, err);
    return redis->tls || !redis->settings.url.tls;
}

struct redis *redis_new(const struct redis_options *options, struct err *err)
{
    struct redis *redis = calloc(1, sizeof *redis);
    check(redis);
    redis->loop = options->loop;
    redis->metrics = options->metrics;
    redis->events = options->events;
    redis->context = options->context;
    redis->purpose = options->purpose;
    redis->pool.max = 2;
    redis->spares.max = 4;
    arena_init(&redis->settings_arena, NULL);
    arena_init(&redis->arena, &redis->spares);
    list_init(&redis->line);
    list_init(&redis->by_due);
    list_init(&redis->failed);
    list_init(&redis->spare);
    list_init(&redis->grave);
    loop_timer_init(&redis->deadline, on_deadline);
    loop_late_init(&redis->report, on_report);
    redis_connection_init(redis);
    redis_settings_copy(&redis->settings, options->settings, &redis->settings_arena);
    if (set_addrs(redis, options, err) && set_tls(redis, options, err))
        return redis;
    redis_free(redis);
    return NULL;
}

static void free_calls(struct list *calls)
{
    struct list *node;
    while ((node = list_pop_front(calls)))
        free(container_of(node, struct redis_call, line));
}

void redis_free(struct redis *redis)
{
    if (!redis)
        return;
    redis_connection_fini(redis);
    redis_fail_all(redis);
    on_report(&redis->report);
    while (!list_empty(&redis->failed)) // asked for by who has just heard of a failure
        on_report(&redis->report);
    loop_late_cancel(&redis->report);
    free_calls(&redis->spare);
    arena_reset(&redis->arena);
    arena_spares_fini(&redis->spares);
    buf_pool_fini(&redis->pool);
    tls_client_unref(redis->tls);
    redis_settings_wipe(&redis->settings);
    arena_reset(&redis->settings_arena);
    free(redis);
}

bool redis_is_up(const struct redis *redis)
{
    return redis->state == REDIS_UP;
}
