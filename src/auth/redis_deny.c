#include "auth/redis_deny.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TICK_MS = 1000,
    DEADLINE_US = 1000000, // nobody waits on a request's path for these
    FLYING = 64,           // told at once
    QUIET_MS = 60000,      // between two log lines of one kind
};

struct unsent {
    struct list node;
    struct redis_deny *deny;
    unsigned open; // of the two commands, those that are not answered
    bool failed;   // one of them
    int64_t until;
    struct str member;
};

// Reads on from the last score that was seen, past those of that score which were.
struct reading {
    bool under_way, again;
    uint64_t next_ms; // when it begins at the latest
    int64_t score;
    uint64_t seen;
};

struct redis_deny {
    struct loop *loop;
    struct arena arena;
    struct redis_fleet *fleet;
    struct str key; // and channel
    struct list queue;
    unsigned queued, flying; // in all; of these, asked and not yet answered
    struct loop_timer timer;
    struct reading reading;
    uint64_t quiet_until_ms;
};

static int64_t now_s(void)
{
    return (int64_t)(clock_wall_us() / 1000000);
}

static bool may_log(struct redis_deny *deny)
{
    uint64_t now_ms = loop_now_ms(deny->loop);
    if (now_ms < deny->quiet_until_ms)
        return false;
    deny->quiet_until_ms = now_ms + QUIET_MS;
    return true;
}

static void log_error_reply(struct redis_deny *deny, const char *what, const struct resp_value *reply)
{
    if (reply && reply->kind == RESP_ERROR && may_log(deny))
        log_warn("revocation", "%s: Redis says: %.*s", what, STR_ARG(reply->text));
}

// ---- what others revoke ----

static void take(struct redis_deny *deny, struct str member, int64_t until)
{
    struct arena arena;
    struct deny_entry entry;
    arena_init(&arena, NULL);
    if (deny_parse(member, &arena, &entry)) {
        entry.until = until;
        if (deny_add(&entry, now_s()) == DENY_FULL && may_log(deny))
            log_error("revocation", "the deny list is full: tokens revoked elsewhere are not refused here");
    } else if (may_log(deny)) {
        log_warn("revocation", "an entry in Redis is none of ours: it is passed over");
    }
    arena_reset(&arena);
}

static void on_message(void *context, struct str channel, struct str payload)
{
    struct redis_deny *deny = context;
    size_t space = str_find(payload, ' ');
    uint64_t until;
    if (str_eq(channel, deny->key) && space < payload.n &&
        str_to_u64((struct str){payload.p, space}, INT64_MAX, &until))
        take(deny, str_skip(payload, space + 1), (int64_t)until);
}

// ---- the whole list ----

static void read_page(struct redis_deny *deny);

static void read_all(struct redis_deny *deny)
{
    struct reading *reading = &deny->reading;
    reading->next_ms = loop_now_ms(deny->loop) + DENY_RESYNC_MS;
    if (!redis_fleet_is_up(deny->fleet))
        return; // when it is up again
    if (reading->under_way) {
        reading->again = true;
        return;
    }
    *reading = (struct reading){.under_way = true, .next_ms = reading->next_ms, .score = now_s()};
    char score[24];
    const struct str argv[] = {
        STR("ZREMRANGEBYSCORE"),
        deny->key,
        STR("-inf"),
        {score, (size_t)snprintf(score, sizeof score, "%lld", (long long)reading->score)}};
    redis_fleet_command(deny->fleet, deny->key, argv, countof(argv), DEADLINE_US, NULL, NULL);
    read_page(deny);
}

// RESP3 gives a double, RESP2 text. What is no time of this age is past.
static int64_t score_of(const struct resp_value *value)
{
    uint64_t whole;
    if (value->kind == RESP_DOUBLE)
        return value->number >= 0 && value->number < 1e15 ? (int64_t)value->number : 0;
    return value->kind == RESP_STRING && str_to_u64(value->text, (uint64_t)1e15, &whole) ? (int64_t)whole : 0;
}

// Members and scores: pairs of them (RESP3), or in turn (RESP2).
static bool entry_at(const struct resp_value *page, uint32_t i, struct str *member, int64_t *score)
{
    const struct resp_value *pair = &page->items[i];
    bool nested = page->items[0].kind == RESP_ARRAY;
    if (nested && (pair->kind != RESP_ARRAY || pair->count != 2))
        return false;
    pair = nested ? pair->items : &page->items[2 * i];
    *member = pair[0].text;
    *score = score_of(&pair[1]);
    return true;
}

static uint32_t count_entries(const struct resp_value *page)
{
    bool nested = page->count && page->items[0].kind == RESP_ARRAY;
    return nested ? page->count : page->count / 2;
}

static void take_page(struct redis_deny *deny, const struct resp_value *page)
{
    struct reading *reading = &deny->reading;
    for (uint32_t i = 0; i < count_entries(page); i++) {
        struct str member;
        int64_t score;
        if (!entry_at(page, i, &member, &score))
            continue;
        take(deny, member, score);
        reading->seen = score == reading->score ? reading->seen + 1 : 1;
        reading->score = score;
    }
}

static void on_page(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct redis_deny *deny = context;
    struct reading *reading = &deny->reading;
    if (failure == REDIS_OK && reply->kind == RESP_ARRAY) {
        take_page(deny, reply);
        if (count_entries(reply) >= REDIS_DENY_PAGE) {
            read_page(deny);
            return;
        }
    } else {
        log_error_reply(deny, "reading the deny list", reply);
        if (failure != REDIS_OK) // soon again; when the connection is gone, once it is back
            reading->next_ms = loop_now_ms(deny->loop) + TICK_MS;
    }
    bool again = reading->again && failure == REDIS_OK;
    reading->under_way = reading->again = false;
    if (again)
        read_all(deny);
}

static void read_page(struct redis_deny *deny)
{
    char score[24], offset[24], limit[24];
    const struct str argv[] = {
        STR("ZRANGEBYSCORE"),
        deny->key,
        {score, (size_t)snprintf(score, sizeof score, "%lld", (long long)deny->reading.score)},
        STR("+inf"),
        STR("WITHSCORES"),
        STR("LIMIT"),
        {offset, u64_print(deny->reading.seen, offset)},
        {limit, u64_print(REDIS_DENY_PAGE, limit)},
    };
    redis_fleet_command(deny->fleet, deny->key, argv, countof(argv), DEADLINE_US, deny, on_page);
}

// ---- what is revoked here ----

static void drop_unsent(struct unsent *unsent)
{
    unsent->deny->queued--;
    list_remove(&unsent->node);
    free(unsent);
}

static void tell_more(struct redis_deny *deny);

// What may or may not have been carried out is told again: it does no harm twice.
static void on_told(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct unsent *unsent = context;
    struct redis_deny *deny = unsent->deny;
    log_error_reply(deny, "telling others of a revocation", reply);
    unsent->failed = unsent->failed || failure != REDIS_OK || reply->kind == RESP_ERROR;
    if (--unsent->open)
        return;
    deny->flying--;
    if (unsent->failed) {
        list_push_front(&deny->queue, &unsent->node); // at the next tick
        return;
    }
    drop_unsent(unsent);
    tell_more(deny);
}

// In the list first: who subscribes between the two reads it there.
static void tell(struct redis_deny *deny, struct unsent *unsent)
{
    struct arena arena;
    char score[24];
    arena_init(&arena, NULL);
    struct str until = {score, u64_print((uint64_t)unsent->until, score)};
    struct str message = arena_printf(&arena, "%.*s %.*s", STR_ARG(until), STR_ARG(unsent->member));
    const struct str add[] = {STR("ZADD"), deny->key, until, unsent->member};
    const struct str publish[] = {STR("PUBLISH"), deny->key, message};
    unsent->open = 2;
    unsent->failed = false;
    redis_fleet_command(deny->fleet, deny->key, add, countof(add), DEADLINE_US, unsent, on_told);
    redis_fleet_command(deny->fleet, deny->key, publish, countof(publish), DEADLINE_US, unsent, on_told);
    arena_reset(&arena);
}

static void tell_more(struct redis_deny *deny)
{
    while (redis_fleet_is_up(deny->fleet) && deny->flying < FLYING && !list_empty(&deny->queue)) {
        struct unsent *unsent = container_of(list_pop_front(&deny->queue), struct unsent, node);
        if (unsent->until <= now_s()) {
            drop_unsent(unsent);
            continue;
        }
        deny->flying++;
        tell(deny, unsent);
    }
}

bool redis_deny_tell(struct redis_deny *deny, const struct deny_entry *entry)
{
    if (deny->queued >= REDIS_DENY_QUEUE)
        return false;
    struct arena arena;
    arena_init(&arena, NULL);
    struct str member = deny_print(entry, &arena);
    struct unsent *unsent = calloc(1, sizeof *unsent + member.n);
    check(unsent);
    memcpy(unsent + 1, member.p, member.n);
    *unsent =
        (struct unsent){.deny = deny, .until = entry->until, .member = {(char *)(unsent + 1), member.n}};
    arena_reset(&arena);
    list_init(&unsent->node);
    list_push_back(&deny->queue, &unsent->node);
    deny->queued++;
    tell_more(deny);
    return true;
}

// ---- life ----

static void on_up(void *context)
{
    struct redis_deny *deny = context;
    tell_more(deny);
    read_all(deny);
}

// What was published meanwhile has been missed.
static void on_subscribed(void *context)
{
    read_all(context);
}

static void on_tick(struct loop_timer *timer)
{
    struct redis_deny *deny = container_of(timer, struct redis_deny, timer);
    tell_more(deny);
    if (loop_now_ms(deny->loop) >= deny->reading.next_ms && !deny->reading.under_way)
        read_all(deny);
    loop_timer_set(deny->loop, timer, TICK_MS);
}

static const struct redis_fleet_events fleet_events = {
    .on_up = on_up, .on_subscribed = on_subscribed, .on_message = on_message};

struct redis_deny *redis_deny_new(const struct redis_access *access, struct err *err)
{
    struct redis_deny *deny = calloc(1, sizeof *deny);
    check(deny);
    deny->loop = access->loop;
    arena_init(&deny->arena, NULL);
    list_init(&deny->queue);
    loop_timer_init(&deny->timer, on_tick);
    deny->key = arena_printf(&deny->arena, "%.*sdeny", STR_ARG(access->settings->key_prefix));
    deny->fleet = redis_fleet_new(
        &(struct redis_fleet_options){
            .access = *access, .purpose = "revocation", .events = &fleet_events, .context = deny},
        err);
    if (!deny->fleet) {
        redis_deny_free(deny);
        return NULL;
    }
    redis_fleet_subscribe(deny->fleet, deny->key);
    loop_timer_set(deny->loop, &deny->timer, TICK_MS);
    return deny;
}

// Everything that was asked is in the queue again.
static void disconnect(struct redis_deny *deny)
{
    loop_timer_stop(deny->loop, &deny->timer);
    redis_fleet_free(deny->fleet);
    deny->fleet = NULL;
}

void redis_deny_free(struct redis_deny *deny)
{
    if (!deny)
        return;
    disconnect(deny);
    if (deny->queued)
        log_warn("revocation", "%u revocations have not been told to other gateways", deny->queued);
    while (!list_empty(&deny->queue))
        drop_unsent(container_of(deny->queue.next, struct unsent, node));
    arena_reset(&deny->arena);
    free(deny);
}

void redis_deny_replace(struct redis_deny *to, struct redis_deny *from)
{
    disconnect(from);
    list_each (&from->queue, node)
        container_of(node, struct unsent, node)->deny = to;
    list_move_all(&from->queue, &to->queue);
    to->queued += from->queued;
    from->queued = 0;
    redis_deny_free(from);
}

bool redis_deny_is_same(const struct redis_deny *a, const struct redis_deny *b)
{
    return redis_fleet_is_same(a->fleet, b->fleet);
}

bool redis_deny_is_up(const struct redis_deny *deny)
{
    return redis_fleet_is_up(deny->fleet) && redis_fleet_is_subscribed(deny->fleet);
}
