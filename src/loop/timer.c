// A single-level hashed wheel (Varghese and Lauck 1987, scheme 6): a slot for each millisecond modulo
// LOOP_SLOTS. A timer whose deadline moved later stays in its slot and is put where it belongs when the slot
// comes up.
#include "loop/wheel.h"

#include <stdlib.h>

bool wheel_init(struct loop *loop)
{
    loop->slots = malloc(LOOP_SLOTS * sizeof *loop->slots);
    if (!loop->slots)
        return false;
    for (unsigned i = 0; i < LOOP_SLOTS; i++)
        list_init(&loop->slots[i]);
    loop->wheel_ms = loop_now_ms(loop);
    return true;
}

static void mark(struct loop *loop, uint32_t slot)
{
    loop->occupied[slot / 64] |= UINT64_C(1) << (slot % 64);
}

static void unmark(struct loop *loop, uint32_t slot)
{
    loop->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

static void place(struct loop *loop, struct loop_timer *timer)
{
    // A slot that has been passed already would wait a whole round.
    uint64_t at_ms = timer->due_ms > loop->wheel_ms ? timer->due_ms : loop->wheel_ms + 1;
    timer->slot = (uint32_t)(at_ms % LOOP_SLOTS);
    list_push_back(&loop->slots[timer->slot], &timer->node);
    mark(loop, timer->slot);
}

void loop_timer_init(struct loop_timer *timer, void (*on_fire)(struct loop_timer *timer))
{
    *timer = (struct loop_timer){.on_fire = on_fire};
    list_init(&timer->node);
}

static void unplace(struct loop *loop, struct loop_timer *timer)
{
    list_remove(&timer->node);
    if (list_empty(&loop->slots[timer->slot]))
        unmark(loop, timer->slot);
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t after_ms)
{
    uint64_t due_ms =
        loop_now_ms(loop) + after_ms + 1; // never early: now is somewhere within its millisecond
    if (timer->due_ms && due_ms >= timer->due_ms) {
        timer->due_ms = due_ms;
        return;
    }
    if (timer->due_ms)
        unplace(loop, timer);
    timer->due_ms = due_ms;
    place(loop, timer);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    if (!timer->due_ms)
        return;
    unplace(loop, timer);
    timer->due_ms = 0;
}

uint64_t wheel_wait_ms(const struct loop *loop, uint64_t max_ms)
{
    uint64_t now_ms = loop_now_ms(loop);
    for (uint64_t wait = 0; wait < max_ms;) {
        uint64_t at = (loop->wheel_ms + 1 + wait) % LOOP_SLOTS;
        uint64_t word = loop->occupied[at / 64] >> (at % 64);
        if (word) {
            uint64_t due_ms = loop->wheel_ms + 1 + wait + (uint64_t)__builtin_ctzll(word);
            uint64_t until = due_ms > now_ms ? due_ms - now_ms : 0;
            return until < max_ms ? until : max_ms;
        }
        wait += 64 - at % 64;
    }
    return max_ms;
}

static void run_slot(struct loop *loop, uint32_t slot)
{
    struct list due;
    list_init(&due);
    list_move_all(&loop->slots[slot], &due);
    unmark(loop, slot);
    struct list *node;
    while ((node = list_pop_front(&due))) {
        struct loop_timer *timer = container_of(node, struct loop_timer, node);
        if (timer->due_ms > loop->wheel_ms) { // a later round, or moved meanwhile
            place(loop, timer);
            continue;
        }
        timer->due_ms = 0;
        timer->on_fire(timer);
    }
}

void wheel_advance(struct loop *loop)
{
    uint64_t now_ms = loop_now_ms(loop);
    if (now_ms > loop->wheel_ms + LOOP_SLOTS) // after a long stop one round sees every slot
        loop->wheel_ms = now_ms - LOOP_SLOTS;
    while (loop->wheel_ms < now_ms) {
        uint64_t next = loop->wheel_ms + 1;
        uint32_t slot = (uint32_t)(next % LOOP_SLOTS);
        if (slot % 64 == 0 && !loop->occupied[slot / 64] && next + 63 <= now_ms) {
            loop->wheel_ms = next + 63;
            continue;
        }
        loop->wheel_ms = next;
        if (!list_empty(&loop->slots[slot]))
            run_slot(loop, slot);
    }
}
