// A client's connection: made, greeted, read, written, given up, made anew.
#include "redis/redis_private.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    READ_BYTES = 4096,        // the least room that is worth a read
    TURN_BYTES = 1024 * 1024, // read at once: then others have their turn
    PING_DEADLINE_MS = 1000,
};

static void retry_later(struct redis *redis);

// ---- the log ----

static bool may_log(struct redis *redis)
{
    uint64_t now_us = redis->loop->now_us;
    if (!redis->lines || now_us - redis->lines_since_us > REDIS_LOG_MS * 1000) {
        redis->lines_since_us = now_us;
        redis->lines = 0;
    }
    return redis->purpose && ++redis->lines <= REDIS_LOG_LINES;
}

// A server that is down for a day fills no disk: the same reason is told once a minute.
static void log_down(struct redis *redis)
{
    uint64_t now_us = redis->loop->now_us;
    bool same = redis->said_down && strcmp(redis->logged, redis->why) == 0;
    if ((same && now_us - redis->logged_us < REDIS_LOG_MS * 1000) || !may_log(redis))
        return;
    memcpy(redis->logged, redis->why, sizeof redis->logged);
    redis->logged_us = now_us;
    redis->said_down = true;
    log_warn("redis", "%s: %.*s: %s", redis->purpose, STR_ARG(redis->settings.url.address), redis->why);
}

static void log_up(struct redis *redis)
{
    if (may_log(redis))
        log_info("redis", "%s: connected to %.*s", redis->purpose, STR_ARG(redis->settings.url.address));
    redis->said_down = false;
}

bool redis_say_why(struct redis *redis, struct str why)
{
    size_t n = why.n < sizeof redis->why - 1 ? why.n : sizeof redis->why - 1;
    memmove(redis->why, why.p, n);
    redis->why[n] = 0;
    return false;
}

// ---- giving up ----

static void close_link(struct redis *redis)
{
    if (redis->link) {
        redis->link->redis = NULL;
        conn_close(&redis->link->conn);
    }
    redis->link = NULL;
    redis->broken = false;
    loop_timer_stop(redis->loop, &redis->timer);
    loop_late_cancel(&redis->flush);
    loop_late_cancel(&redis->more);
    buf_release(&redis->in, &redis->pool);
    buf_release(&redis->out, &redis->pool);
    redis->walk = (struct resp_walk){0};
}

void redis_drop(struct redis *redis, const char *why, size_t n)
{
    redis_say_why(redis, (struct str){why, n});
    close_link(redis);
    bool was_good =
        redis->state == REDIS_UP && redis->loop->now_us - redis->up_us > REDIS_BACKOFF_MAX_MS * 1000;
    redis->state = REDIS_WAITING;
    if (was_good)
        redis->backoff_ms = REDIS_BACKOFF_MS;
    retry_later(redis);
    log_down(redis);
    redis_fail_all(redis);
    if (redis->events->on_down)
        redis->events->on_down(redis->context, redis->why);
}

static void drop_for(struct redis *redis, const char *why)
{
    redis_drop(redis, why, strlen(why));
}

static void drop_errno(struct redis *redis, const char *what, int error)
{
    char why[REDIS_WHY_BYTES];
    snprintf(why, sizeof why, "%s: %s", what, strerror(error));
    drop_for(redis, why);
}

// ---- writing ----

static void write_more(struct redis *redis)
{
    struct conn *conn = &redis->link->conn;
    while (buf_len(&redis->out) && conn->writable) {
        struct str data = buf_str(&redis->out);
        ssize_t n = conn_sendv(conn, &(struct iovec){(void *)(uintptr_t)data.p, data.n}, 1);
        if (n == CONN_AGAIN)
            return;
        if (n < 0) {
            drop_errno(redis, "sending", conn->error);
            return;
        }
        buf_consume(&redis->out, (size_t)n);
    }
    if (!buf_len(&redis->out))
        buf_release(&redis->out, &redis->pool);
}

static void on_flush(struct loop_late *late)
{
    struct redis *redis = container_of(late, struct redis, flush);
    // Other late work may have commands, too: it comes first, so that a turn's leave in one write.
    redis->has_yielded = !redis->has_yielded;
    if (redis->has_yielded) {
        loop_late(redis->loop, late);
        return;
    }
    if (redis->broken)
        drop_for(redis, "too much is under way to subscribe");
    else if (redis->link && redis->state >= REDIS_GREETING)
        write_more(redis);
}

// ---- greeting ----

static bool send_greeting(struct redis *redis)
{
    const struct redis_settings *settings = &redis->settings;
    struct str user = settings->username, argv[8], *arg = argv;
    char database[24];
    switch (redis->greeting) {
    case GREET_HELLO:
        *arg++ = STR("HELLO");
        *arg++ = STR("3");
        if (settings->password.n) {
            *arg++ = STR("AUTH");
            *arg++ = user.n ? user : STR("default");
            *arg++ = settings->password;
        }
        *arg++ = STR("SETNAME");
        *arg++ = STR("sallyport");
        break;
    case GREET_AUTH:
        *arg++ = STR("AUTH");
        if (user.n)
            *arg++ = user;
        *arg++ = settings->password;
        break;
    case GREET_NAME:
        *arg++ = STR("CLIENT");
        *arg++ = STR("SETNAME");
        *arg++ = STR("sallyport");
        break;
    case GREET_SELECT:
        *arg++ = STR("SELECT");
        *arg++ = (struct str){database, u64_print(settings->url.database, database)};
        break;
    case GREETED: return true;
    }
    resp_command(&redis->out, argv, (unsigned)(arg - argv));
    loop_late(redis->loop, &redis->flush);
    return true;
}

static bool subscribe_all(struct redis *redis)
{
    redis->state = REDIS_SUBSCRIBING;
    for (const struct redis_channel *channel = redis->channels; channel; channel = channel->next) {
        const struct str argv[] = {STR("SUBSCRIBE"), channel->name};
        if (!redis_send(redis, CALL_SUBSCRIBE, argv, 2, REDIS_CONNECT_MS * 1000))
            return redis_say_why(redis, STR("too many channels"));
    }
    if (!redis->channels)
        redis_become_up(redis);
    return true;
}

// HELLO is of Redis 6; older ones, and some proxies, do not know it, or not its third version.
static bool is_old(struct str error)
{
    return str_starts(error, STR("ERR unknown command")) || str_starts(error, STR("NOPROTO")) ||
           str_starts(error, STR("ERR unknown or unsupported command"));
}

bool redis_greet(struct redis *redis, const struct resp_value *value)
{
    bool is_error = value->kind == RESP_ERROR, has_password = redis->settings.password.n;
    enum redis_greeting after_name = redis->settings.url.database ? GREET_SELECT : GREETED;
    if (redis->greeting == GREET_HELLO && is_error && is_old(value->text)) {
        redis->resp2 = true;
        redis->greeting = has_password ? GREET_AUTH : GREET_NAME;
        return send_greeting(redis);
    }
    if (is_error && redis->greeting != GREET_NAME) // a name is not worth a connection
        return redis_say_why(redis, value->text);
    redis->greeting = redis->greeting == GREET_AUTH     ? GREET_NAME
                      : redis->greeting == GREET_SELECT ? GREETED
                                                        : after_name;
    return redis->greeting == GREETED ? subscribe_all(redis) : send_greeting(redis);
}

static void greet(struct redis *redis)
{
    redis->state = REDIS_GREETING;
    redis->greeting = GREET_HELLO;
    redis->resp2 = false;
    send_greeting(redis);
}

void redis_become_up(struct redis *redis)
{
    redis->state = REDIS_UP;
    redis->up_us = redis->heard_us = redis->loop->now_us;
    loop_timer_set(redis->loop, &redis->timer, REDIS_PING_MS);
    log_up(redis);
    if (redis->events->on_up)
        redis->events->on_up(redis->context);
}

// ---- reading ----

// False: the connection is gone.
static bool take_values(struct redis *redis)
{
    while (buf_len(&redis->in) && buf_len(&redis->in) >= redis->walk.needed) {
        struct redis_link *link = redis->link;
        struct resp_value value;
        size_t used;
        enum resp_result result =
            resp_continue(&redis->walk, buf_str(&redis->in), REDIS_REPLY_BYTES, &redis->arena, &value, &used);
        if (result == RESP_MORE)
            return true;
        redis->walk = (struct resp_walk){0};
        if (result == RESP_BAD) {
            drop_for(redis, "it does not speak RESP, or too much of it");
            return false;
        }
        bool good = redis_take(redis, &value);
        arena_reset(&redis->arena);
        if (!good)
            drop_for(redis, redis->why);
        if (redis->link != link)
            return false;
        buf_consume(&redis->in, used);
    }
    return true;
}

static void read_more(struct redis *redis)
{
    struct conn *conn = &redis->link->conn;
    size_t got = 0;
    while (conn->readable && got < TURN_BYTES) {
        if (!buf_reserve(&redis->in, &redis->pool, READ_BYTES, REDIS_REPLY_BYTES + 2 * READ_BYTES)) {
            drop_for(redis, "out of memory");
            return;
        }
        ssize_t n = conn_recv(conn, redis->in.base + redis->in.end, buf_space(&redis->in));
        if (n == CONN_AGAIN)
            break;
        if (n == 0)
            drop_for(redis, "the server has closed the connection");
        else if (n < 0)
            drop_errno(redis, "receiving", conn->error);
        if (n <= 0)
            return;
        redis->in.end += (uint32_t)n;
        got += (size_t)n;
        if (!take_values(redis))
            return;
    }
    if (!buf_len(&redis->in))
        buf_release(&redis->in, &redis->pool);
    if (conn->readable && got >= TURN_BYTES)
        loop_late(redis->loop, &redis->more);
}

static void on_more(struct loop_late *late)
{
    struct redis *redis = container_of(late, struct redis, more);
    if (redis->link && redis->state >= REDIS_GREETING)
        read_more(redis);
}

// ---- events ----

static void on_ready(struct conn *conn)
{
    struct redis_link *link = container_of(conn, struct redis_link, conn);
    struct redis *redis = link->redis;
    if (!redis || redis->state < REDIS_GREETING)
        return;
    if (conn->readable)
        read_more(redis);
    if (link->redis && conn->writable && buf_len(&redis->out))
        loop_late(redis->loop, &redis->flush); // what comes later in this turn leaves with it
}

static void on_secured(struct conn *conn, enum secured secured)
{
    struct redis *redis = container_of(conn, struct redis_link, conn)->redis;
    if (!redis)
        return;
    if (secured == SECURED)
        greet(redis);
    else
        drop_for(redis, tls_failure(conn));
}

static void on_connected(struct conn *conn, int error)
{
    struct redis *redis = container_of(conn, struct redis_link, conn)->redis;
    if (!redis)
        return;
    if (error) {
        drop_errno(redis, "connecting", error);
        return;
    }
    loop_timer_set(redis->loop, &redis->timer, REDIS_CONNECT_MS);
    if (!redis->tls) {
        greet(redis);
    } else {
        redis->state = REDIS_SECURING;
        if (!tls_connect(conn, redis->tls, redis->settings.url.host, NULL))
            drop_for(redis, "out of memory");
    }
}

static void on_free(struct conn *conn)
{
    free(container_of(conn, struct redis_link, conn));
}

static const struct conn_events events = {
    .on_ready = on_ready,
    .on_connected = on_connected,
    .on_secured = on_secured,
    .on_free = on_free,
};

static void connect_now(struct redis *redis)
{
    struct redis_link *link = calloc(1, sizeof *link);
    if (!link) {
        drop_for(redis, "out of memory");
        return;
    }
    const struct addr *addr = &redis->addrs[redis->tries++ % redis->addr_count];
    if (!conn_connect(&link->conn, redis->loop, addr, &events)) {
        drop_errno(redis, "connecting", link->conn.error);
        free(link);
        return;
    }
    link->redis = redis;
    redis->link = link;
    redis->state = REDIS_CONNECTING;
    loop_timer_set(redis->loop, &redis->timer, REDIS_REACH_MS);
}

// ---- time ----

static void retry_later(struct redis *redis)
{
    uint64_t ms = redis->backoff_ms;
    loop_timer_set(redis->loop, &redis->timer, ms / 2 + rand_below(&redis->rand, (uint32_t)ms + 1));
    redis->backoff_ms = ms * 2 < REDIS_BACKOFF_MAX_MS ? ms * 2 : REDIS_BACKOFF_MAX_MS;
}

// A peer that went without a word is found out by the deadline of this.
static void ping_when_silent(struct redis *redis)
{
    const struct str argv[] = {STR("PING")};
    if (list_empty(&redis->line) && redis->loop->now_us - redis->heard_us >= REDIS_PING_MS * 1000 / 2)
        redis_send(redis, CALL_PING, argv, 1, PING_DEADLINE_MS * 1000);
    loop_timer_set(redis->loop, &redis->timer, REDIS_PING_MS);
}

static void on_timer(struct loop_timer *timer)
{
    static const char *const late[] = {
        [REDIS_CONNECTING] = "connecting: no answer in time",
        [REDIS_SECURING] = "TLS: no answer in time",
        [REDIS_GREETING] = "no answer to HELLO or AUTH in time",
        [REDIS_SUBSCRIBING] = "no answer to SUBSCRIBE in time",
    };
    struct redis *redis = container_of(timer, struct redis, timer);
    switch (redis->state) {
    case REDIS_WAITING: connect_now(redis); break;
    case REDIS_UP: ping_when_silent(redis); break;
    default: drop_for(redis, late[redis->state]); break;
    }
}

void redis_connection_init(struct redis *redis)
{
    rand_init(&redis->rand);
    redis->state = REDIS_WAITING;
    redis->backoff_ms = REDIS_BACKOFF_MS;
    loop_timer_init(&redis->timer, on_timer);
    loop_late_init(&redis->flush, on_flush);
    loop_late_init(&redis->more, on_more);
    loop_timer_set(redis->loop, &redis->timer, 0);
}

void redis_connection_fini(struct redis *redis)
{
    close_link(redis);
    redis->state = REDIS_WAITING;
}
