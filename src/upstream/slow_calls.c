#include "upstream/slow_calls.h"

#include "upstream/link.h"

static struct upstream_call *first(struct list *list)
{
    return list_empty(list) ? NULL : container_of(list->next, struct upstream_call, unanswered);
}

static uint64_t slow_at_us(const struct slow_calls *calls, const struct upstream_call *call)
{
    return call->asked_us + calls->slow_us + 1;
}

static uint64_t again_at_us(const struct slow_calls *calls, const struct upstream_call *call)
{
    return call->pass.late_us + calls->slice_us;
}

// False: it has been answered, or nobody asks how it goes.
static bool note_slow(struct upstream_call *call)
{
    const struct upstream_worker_needs *needs = &call->local->worker->needs;
    if (call->head_us || !call->breaker)
        return false;
    shared_breaker_note_slow(call->breaker, &call->upstream->settings->circuit_breaker.rules, &call->pass,
                             needs->loop->now_us, needs->rand);
    return call->pass.late;
}

// By the first that is due of each list.
static void arm(struct slow_calls *calls)
{
    uint64_t now_us = calls->loop->now_us, due_us = UINT64_MAX;
    const struct upstream_call *asked = first(&calls->asked), *late = first(&calls->late);
    if (asked)
        due_us = slow_at_us(calls, asked);
    if (late && again_at_us(calls, late) < due_us)
        due_us = again_at_us(calls, late);
    if (due_us == UINT64_MAX)
        return;
    uint64_t after_ms = due_us > now_us ? (due_us - now_us) / 1000 + 1 : 0;
    loop_timer_set(calls->loop, &calls->timer, after_ms > SLOW_CALLS_TICK_MS ? after_ms : SLOW_CALLS_TICK_MS);
}

static void on_timer(struct loop_timer *timer)
{
    struct slow_calls *calls = container_of(timer, struct slow_calls, timer);
    uint64_t now_us = calls->loop->now_us;
    struct upstream_call *call;
    while ((call = first(&calls->late)) && again_at_us(calls, call) <= now_us) {
        list_remove(&call->unanswered);
        note_slow(call);
    }
    while ((call = first(&calls->asked)) && slow_at_us(calls, call) <= now_us) {
        list_remove(&call->unanswered);
        if (calls->slow_us && note_slow(call))
            list_push_back(&calls->late, &call->unanswered);
    }
    arm(calls);
}

void slow_calls_init(struct slow_calls *calls, struct loop *loop)
{
    *calls = (struct slow_calls){.loop = loop};
    list_init(&calls->asked);
    list_init(&calls->late);
    loop_timer_init(&calls->timer, on_timer);
}

void slow_calls_configure(struct slow_calls *calls, const struct breaker_settings *settings)
{
    calls->slow_us = settings->enabled ? settings->slow_call_us : 0;
    calls->slice_us = settings->rules.window_us / BREAKER_SLICES;
    arm(calls);
}

void slow_calls_fini(struct slow_calls *calls)
{
    loop_timer_stop(calls->loop, &calls->timer);
}

void slow_calls_watch(struct slow_calls *calls, struct upstream_call *call)
{
    if (likely(!calls->slow_us))
        return;
    check(list_empty(&call->unanswered));
    list_push_back(&calls->asked, &call->unanswered);
    if (!calls->timer.due_ms || slow_at_us(calls, call) / 1000 + SLOW_CALLS_TICK_MS < calls->timer.due_ms)
        arm(calls);
}
