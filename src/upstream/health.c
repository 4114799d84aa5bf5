// A check's life, on the control thread's loop:
//
//   timer ──▶ running < 256? ──▶ probe: connect, send, read a head ──▶ verdict ──▶ timer, ±10 %
//                  └─▶ waiting, first come first served ──┘   └── deadline ──┘
//
// The probe is apart from the check: its connection outlives the verdict by one turn.
#include "upstream/health.h"

#include "base/arena.h"
#include "base/map.h"
#include "http/h1_parse.h"
#include "net/conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

// One upstream's way of checking.
struct plan {
    struct str path;
    uint64_t interval_ms, timeout_ms;
    int64_t healthy, unhealthy;
    struct status_set statuses;
};

struct watch {
    struct health *health;
    const struct plan *plan;
    struct endpoint *endpoint;
    struct health_tally tally;
    struct loop_timer timer; // with a probe: its deadline; without: the next check
    struct probe *probe;     // NULL: none is running
    struct list waiting;     // for its turn
    uint64_t begun_us;
};

// One connection, one question.
struct probe {
    struct conn conn;
    struct watch *watch; // NULL: the verdict is in, or nobody wants it any more
    struct buf request;
    struct arena arena;
    struct h1_parse parse;
    size_t received;
    char head[HEALTH_HEAD_BYTES];
};

struct health {
    struct loop *loop;
    struct arena arena; // plans
    struct watch *watches;
    uint32_t count, running;
    struct list waiting;
    struct map by_endpoint; // pointer → watch
    struct rand rand;
};

// ---- the decision ----

enum health_change health_judge(struct health_tally *tally, bool up, bool success, int64_t healthy,
                                int64_t unhealthy)
{
    uint32_t *row = success ? &tally->successes : &tally->failures;
    *(success ? &tally->failures : &tally->successes) = 0;
    if (*row < UINT32_MAX)
        ++*row;
    if (success)
        return !up && *row >= healthy ? HEALTH_UP : HEALTH_SAME;
    return up && *row >= unhealthy ? HEALTH_DOWN : HEALTH_SAME;
}

static void set_up(struct endpoint *endpoint, bool up, uint64_t now_us)
{
    if (up)
        atomic_store_explicit(&endpoint->up_since_us, now_us, memory_order_relaxed);
    atomic_store_explicit(&endpoint->up, up, memory_order_relaxed);
}

static bool is_up(const struct endpoint *endpoint)
{
    return atomic_load_explicit(&endpoint->up, memory_order_relaxed);
}

static void apply(struct watch *watch, bool success)
{
    struct endpoint *endpoint = watch->endpoint;
    const struct plan *plan = watch->plan;
    atomic_fetch_add_explicit(&endpoint->checks, 1, memory_order_relaxed);
    if (!success)
        atomic_fetch_add_explicit(&endpoint->check_failures, 1, memory_order_relaxed);
    switch (health_judge(&watch->tally, is_up(endpoint), success, plan->healthy, plan->unhealthy)) {
    case HEALTH_UP:
        set_up(endpoint, true, watch->health->loop->now_us);
        log_info("health", "upstream %.*s: %.*s is up: %s", STR_ARG(endpoint->upstream_name),
                 STR_ARG(endpoint->name), endpoint->last_check);
        break;
    case HEALTH_DOWN:
        set_up(endpoint, false, 0);
        log_warn("health", "upstream %.*s: %.*s is down: %s", STR_ARG(endpoint->upstream_name),
                 STR_ARG(endpoint->name), endpoint->last_check);
        break;
    case HEALTH_SAME: break;
    }
}

// ---- a probe's end ----

static void on_free(struct conn *conn)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    arena_reset(&probe->arena);
    buf_free(&probe->request);
    free(probe);
}

static void run_next(struct health *health);

static void schedule(struct watch *watch)
{
    double jitter = 0.9 + 0.2 * rand_unit(&watch->health->rand);
    uint64_t after_ms = (uint64_t)((double)watch->plan->interval_ms * jitter);
    loop_timer_set(watch->health->loop, &watch->timer, after_ms > 0 ? after_ms : 1);
}

// Closes the probe; the check waits for its next time.
static void end_probe(struct watch *watch)
{
    struct probe *probe = watch->probe;
    watch->probe = NULL;
    watch->health->running--;
    probe->watch = NULL;
    conn_close(&probe->conn);
    loop_timer_stop(watch->health->loop, &watch->timer);
}

static void finish(struct watch *watch, bool success)
{
    end_probe(watch);
    apply(watch, success);
    schedule(watch);
    run_next(watch->health);
}

#define say(watch, ...) \
    ((void)snprintf((watch)->endpoint->last_check, sizeof(watch)->endpoint->last_check, __VA_ARGS__))

static void fail(struct watch *watch, const char *what, const char *why)
{
    say(watch, "%s: %s", what, why);
    finish(watch, false);
}

static void judge_status(struct watch *watch, unsigned status)
{
    uint64_t took_us = watch->health->loop->now_us - watch->begun_us;
    bool success = status_set_has(&watch->plan->statuses, status);
    say(watch, "status %u after %llu ms", status, (unsigned long long)(took_us / 1000));
    finish(watch, success);
}

// ---- asking and hearing ----

// False: the probe is over.
static bool send_request(struct probe *probe)
{
    while (buf_len(&probe->request)) {
        struct iovec iov = {probe->request.base + probe->request.start, buf_len(&probe->request)};
        ssize_t n = conn_sendv(&probe->conn, &iov, 1);
        if (n == CONN_AGAIN)
            return true;
        if (n < 0) {
            fail(probe->watch, "send", strerror(probe->conn.error));
            return false;
        }
        buf_consume(&probe->request, (size_t)n);
    }
    return true;
}

// Interim responses are passed over (RFC 9110 15.2). False: the probe is over.
static bool parse_head(struct probe *probe)
{
    static const struct h1_limits limits = {
        .head_bytes = HEALTH_HEAD_BYTES, .uri_bytes = 0, .headers = HEALTH_HEAD_FIELDS};
    for (;;) {
        struct response_head head;
        enum h1_result result = h1_parse_response(&probe->parse, probe->head, probe->received, &limits,
                                                  METHOD_GET, &probe->arena, &head);
        if (result == H1_FAULT) {
            fail(probe->watch, "bad response", probe->parse.why);
            return false;
        }
        if (result == H1_MORE)
            return true;
        if (head.status >= 200 || head.status == 101) {
            judge_status(probe->watch, head.status);
            return false;
        }
        probe->received -= probe->parse.consumed;
        memmove(probe->head, probe->head + probe->parse.consumed, probe->received);
        probe->parse = (struct h1_parse){0};
    }
}

static void receive(struct probe *probe)
{
    while (probe->conn.readable) {
        size_t room = sizeof probe->head - probe->received;
        if (!room) {
            fail(probe->watch, "bad response", "its head is too large");
            return;
        }
        ssize_t n = conn_recv(&probe->conn, probe->head + probe->received, room);
        if (n == CONN_AGAIN)
            return;
        if (n <= 0) {
            fail(probe->watch, "receive", n ? strerror(probe->conn.error) : "closed without an answer");
            return;
        }
        probe->received += (size_t)n;
        if (!parse_head(probe))
            return;
    }
}

static void on_ready(struct conn *conn)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    if (probe->watch && send_request(probe))
        receive(probe);
}

static void on_connected(struct conn *conn, int error)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    if (!probe->watch)
        return;
    if (error)
        fail(probe->watch, "connect", strerror(error));
    else
        send_request(probe);
}

static const struct conn_events probe_events = {
    .on_ready = on_ready, .on_connected = on_connected, .on_free = on_free};

// ---- starting ----

// This machine's want of something says nothing about the endpoint.
static bool is_own_failure(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
           error == EADDRNOTAVAIL;
}

static void print_request(const struct watch *watch, struct buf *out)
{
    struct str host = watch->endpoint->name;
    if (str_starts(host, STR("unix:")))
        host = STR("localhost");
    buf_printf(out,
               "GET %.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: sallyport-health\r\nAccept: */*\r\n"
               "Connection: close\r\n\r\n",
               STR_ARG(watch->plan->path), STR_ARG(host));
}

static void start_probe(struct watch *watch)
{
    struct health *health = watch->health;
    struct probe *probe = malloc(sizeof *probe);
    if (!probe) {
        schedule(watch);
        return;
    }
    memset(probe, 0, offsetof(struct probe, head));
    if (!conn_connect(&probe->conn, health->loop, &watch->endpoint->addr, &probe_events)) {
        int error = probe->conn.error;
        free(probe);
        say(watch, "connect: %s", strerror(error));
        if (!is_own_failure(error))
            apply(watch, false);
        schedule(watch);
        return;
    }
    arena_init(&probe->arena, NULL);
    print_request(watch, &probe->request);
    probe->watch = watch;
    watch->probe = probe;
    watch->begun_us = health->loop->now_us;
    health->running++;
    loop_timer_set(health->loop, &watch->timer, watch->plan->timeout_ms);
}

static void run_next(struct health *health)
{
    while (health->running < HEALTH_AT_ONCE && !list_empty(&health->waiting))
        start_probe(container_of(list_pop_front(&health->waiting), struct watch, waiting));
}

static void on_timer(struct loop_timer *timer)
{
    struct watch *watch = container_of(timer, struct watch, timer);
    if (watch->probe) {
        char why[48];
        snprintf(why, sizeof why, "no answer within %llu ms", (unsigned long long)watch->plan->timeout_ms);
        fail(watch, "timeout", why);
        return;
    }
    list_push_back(&watch->health->waiting, &watch->waiting);
    run_next(watch->health);
}

// ---- a snapshot's checks ----

static struct str key_of(struct endpoint *const *endpoint)
{
    return (struct str){(const char *)endpoint, sizeof *endpoint};
}

static void move_probe(struct watch *from, struct watch *to)
{
    to->probe = from->probe;
    to->begun_us = from->begun_us;
    to->probe->watch = to;
    to->health->running++;
    from->probe = NULL;
    from->health->running--;
}

// What the snapshot before knows of this endpoint: its tally, and when it is due. A probe that is out stays
// out, unless it asks the wrong question: however often there is a reload, a silent endpoint meets its
// deadline.
static void take_over(struct watch *watch, struct health *before)
{
    uint64_t now_ms = loop_now_ms(watch->health->loop), after_ms = 0;
    struct watch *old = before ? map_get(&before->by_endpoint, key_of(&watch->endpoint)) : NULL;
    if (old) {
        bool same = str_eq(old->plan->path, watch->plan->path);
        watch->tally = old->tally;
        if (old->timer.due_ms > now_ms && (!old->probe || same))
            after_ms = old->timer.due_ms - now_ms;
        if (!old->probe && after_ms > watch->plan->interval_ms)
            after_ms = watch->plan->interval_ms;
        if (old->probe && same)
            move_probe(old, watch);
    }
    loop_timer_set(watch->health->loop, &watch->timer, after_ms);
}

static void add_watch(struct health *health, const struct plan *plan, struct endpoint *endpoint,
                      struct health *before)
{
    if (map_get(&health->by_endpoint, key_of(&endpoint)))
        return; // a target that is listed twice is one endpoint
    struct watch *watch = &health->watches[health->count++];
    *watch = (struct watch){.health = health, .plan = plan, .endpoint = endpoint};
    list_init(&watch->waiting);
    loop_timer_init(&watch->timer, on_timer);
    map_put(&health->by_endpoint, key_of(&watch->endpoint), watch);
    take_over(watch, before);
}

static uint64_t whole_ms(uint64_t us)
{
    return us < 1000 ? 1 : us / 1000;
}

// A copy: the checks must not depend on when the settings' snapshot goes.
static struct plan *plan_new(struct health *health, const struct health_settings *settings)
{
    struct plan *plan = arena_new(&health->arena, struct plan);
    struct status_range *ranges = arena_array(&health->arena, struct status_range, settings->statuses.count);
    if (settings->statuses.count)
        memcpy(ranges, settings->statuses.v, settings->statuses.count * sizeof *ranges);
    *plan = (struct plan){
        .path = arena_copy(&health->arena, settings->path),
        .interval_ms = whole_ms(settings->interval_us),
        .timeout_ms = whole_ms(settings->timeout_us),
        .healthy = settings->healthy,
        .unhealthy = settings->unhealthy,
        .statuses = {ranges, settings->statuses.count},
    };
    return plan;
}

static void add_upstream(struct health *health, const struct upstream *upstream, struct health *before)
{
    bool checked = upstream->settings->health_check.path.n > 0;
    const struct plan *plan = checked ? plan_new(health, &upstream->settings->health_check) : NULL;
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        struct endpoint *endpoint = upstream->targets[i].endpoint;
        if (checked)
            add_watch(health, plan, endpoint, before);
        else if (!is_up(endpoint)) // the checks that brought it down are gone, and with them their opinion
            set_up(endpoint, true, health->loop->now_us);
    }
}

struct health *health_start(struct loop *loop, struct upstream *const *upstreams, uint32_t count,
                            struct health *before)
{
    struct health *health = calloc(1, sizeof *health);
    check(health);
    health->loop = loop;
    arena_init(&health->arena, NULL);
    list_init(&health->waiting);
    rand_init(&health->rand);
    size_t targets = 0;
    for (uint32_t i = 0; i < count; i++)
        targets += upstreams[i]->target_count;
    health->watches = calloc(targets + 1, sizeof *health->watches);
    check(health->watches);
    for (uint32_t i = 0; i < count; i++)
        add_upstream(health, upstreams[i], before);
    health_stop(before);
    return health;
}

void health_stop(struct health *health)
{
    if (!health)
        return;
    for (uint32_t i = 0; i < health->count; i++) {
        if (health->watches[i].probe)
            end_probe(&health->watches[i]);
        loop_timer_stop(health->loop, &health->watches[i].timer);
    }
    map_fini(&health->by_endpoint);
    arena_reset(&health->arena);
    free(health->watches);
    free(health);
}
