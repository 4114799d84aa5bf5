// A check's life, on the control thread's loop:
//
//   timer ──▶ running < 256? ──▶ probe: connect, ask, hear ──▶ verdict ──▶ timer, ±10 %
//                  └─▶ waiting, first come first served ──┘   └── deadline ──┘
#include "upstream/health.h"

#include "base/map.h"
#include "net/tls.h"
#include "upstream/health_probe.h"
#include "upstream/outlier.h"

#include <stdlib.h>

// One upstream's way of checking.
struct plan {
    struct probe_question question;
    uint64_t interval_ms;
    int64_t healthy, unhealthy;
    bool readmits; // ejected endpoints
};

struct watch {
    struct health *health;
    const struct plan *plan;
    struct endpoint *endpoint;
    struct str host; // of the target
    struct health_tally tally;
    struct loop_timer timer; // with a probe: its deadline; without: the next check
    struct probe *probe;     // NULL: none is running
    uint64_t began_us;       // the probe
    struct list waiting;     // for its turn
};

struct health {
    struct loop *loop;
    struct arena arena; // plans
    struct watch *watches;
    uint32_t count, running;
    struct list waiting;
    struct map by_endpoint; // pointer → watch
    struct plan **plans;
    uint32_t plan_count;
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
    if (success && plan->readmits)
        outlier_check_passed(endpoint, watch->began_us, watch->health->loop->now_us);
}

// ---- probes ----

static void run_next(struct health *health);

static void schedule(struct watch *watch)
{
    double jitter = 0.9 + 0.2 * rand_unit(&watch->health->rand);
    uint64_t after_ms = (uint64_t)((double)watch->plan->interval_ms * jitter);
    loop_timer_set(watch->health->loop, &watch->timer, after_ms > 0 ? after_ms : 1);
}

static void take_verdict(struct watch *watch, const struct probe_verdict *verdict)
{
    memcpy(watch->endpoint->last_check, verdict->words, sizeof verdict->words);
    if (verdict->result != PROBE_UNDECIDED)
        apply(watch, verdict->result == PROBE_GOOD);
    schedule(watch);
}

static void on_verdict(void *owner, const struct probe_verdict *verdict)
{
    struct watch *watch = owner;
    watch->probe = NULL;
    watch->health->running--;
    loop_timer_stop(watch->health->loop, &watch->timer);
    take_verdict(watch, verdict);
    run_next(watch->health);
}

static void start_probe(struct watch *watch)
{
    struct health *health = watch->health;
    struct endpoint *endpoint = watch->endpoint;
    struct probe_verdict verdict;
    watch->began_us = health->loop->now_us;
    watch->probe = probe_start(health->loop, &watch->plan->question, endpoint->name, watch->host,
                               &endpoint->addr, watch, on_verdict, &verdict);
    if (!watch->probe) {
        take_verdict(watch, &verdict);
        return;
    }
    health->running++;
    loop_timer_set(health->loop, &watch->timer, watch->plan->question.timeout_ms);
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
        probe_time_out(watch->probe);
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
    to->began_us = from->began_us;
    probe_hand_over(to->probe, &to->plan->question, to->host, to);
    to->health->running++;
    from->probe = NULL;
    from->health->running--;
}

static bool asks_the_same(const struct probe_question *a, const struct probe_question *b)
{
    return a->kind == b->kind && !a->tls == !b->tls && str_eq(a->path, b->path) &&
           str_eq(a->service, b->service);
}

// What the snapshot before knows of this endpoint: its tally, and when it is due. A probe that is out stays
// out, unless it asks the wrong question: however often there is a reload, a silent endpoint meets its
// deadline.
static void take_over(struct watch *watch, struct health *before)
{
    uint64_t now_ms = loop_now_ms(watch->health->loop), after_ms = 0;
    struct watch *old = before ? map_get(&before->by_endpoint, key_of(&watch->endpoint)) : NULL;
    if (old) {
        bool same = asks_the_same(&old->plan->question, &watch->plan->question);
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

static void add_watch(struct health *health, const struct plan *plan, const struct upstream_target *target,
                      struct health *before)
{
    struct endpoint *endpoint = target->endpoint;
    if (map_get(&health->by_endpoint, key_of(&endpoint)))
        return; // a target that is listed twice is one endpoint
    struct watch *watch = &health->watches[health->count++];
    *watch = (struct watch){.health = health, .plan = plan, .endpoint = endpoint};
    watch->host = arena_copy(&health->arena, target->host);
    list_init(&watch->waiting);
    loop_timer_init(&watch->timer, on_timer);
    map_put(&health->by_endpoint, key_of(&watch->endpoint), watch);
    take_over(watch, before);
}

static uint64_t whole_ms(uint64_t us)
{
    return us < 1000 ? 1 : us / 1000;
}

static const struct probe_kind *kind_of(const struct upstream_settings *settings)
{
    if (settings->health_check.has_grpc)
        return &probe_grpc;
    if (!settings->health_check.path.n)
        return NULL;
    return settings->protocol == UPSTREAM_H2 ? &probe_h2 : &probe_h1;
}

// A copy: the checks must not depend on when the settings' snapshot goes. NULL: there are none.
static const struct plan *plan_new(struct health *health, const struct upstream *upstream)
{
    const struct health_settings *settings = &upstream->settings->health_check;
    const struct probe_kind *kind = kind_of(upstream->settings);
    if (!kind)
        return NULL;
    struct plan *plan = arena_new(&health->arena, struct plan);
    struct status_range *ranges = arena_array(&health->arena, struct status_range, settings->statuses.count);
    if (settings->statuses.count)
        memcpy(ranges, settings->statuses.v, settings->statuses.count * sizeof *ranges);
    *plan = (struct plan){
        .question =
            {
                .kind = kind,
                .path = arena_copy(&health->arena, settings->path),
                .service = arena_copy(&health->arena, settings->grpc),
                .statuses = {ranges, settings->statuses.count},
                .timeout_ms = whole_ms(settings->timeout_us),
                .tls = upstream->tls ? tls_client_ref(upstream->tls[TLS_SLOT_CONTROL]) : NULL,
            },
        .interval_ms = whole_ms(settings->interval_us),
        .healthy = settings->healthy,
        .unhealthy = settings->unhealthy,
        .readmits = upstream->settings->outlier.check_readmits,
    };
    health->plans[health->plan_count++] = plan;
    return plan;
}

static void add_upstream(struct health *health, const struct upstream *upstream, struct health *before)
{
    const struct plan *plan = plan_new(health, upstream);
    for (uint32_t i = 0; i < upstream->target_count; i++) {
        struct endpoint *endpoint = upstream->targets[i].endpoint;
        if (plan)
            add_watch(health, plan, &upstream->targets[i], before);
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
    health->plans = calloc(count + 1, sizeof *health->plans);
    check(health->watches && health->plans);
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
            probe_drop(health->watches[i].probe);
        loop_timer_stop(health->loop, &health->watches[i].timer);
    }
    for (uint32_t i = 0; i < health->plan_count; i++)
        tls_client_unref(health->plans[i]->question.tls);
    free(health->plans);
    map_fini(&health->by_endpoint);
    arena_reset(&health->arena);
    free(health->watches);
    free(health);
}
