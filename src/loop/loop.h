// One event loop for each worker: descriptors, timers, work from other threads, and what must wait for the
// end of a turn. Nothing in it is shared but loop_post and loop_stop, which any thread may call.
//
//   loop_turn   wait for events  →  run descriptors  →  run timers  →  run posted tasks  →  late work  →
//               turn hooks  →  free list
#pragma once

#include "base/err.h"
#include "base/list.h"

#include <stddef.h>

#include <stdatomic.h>
#include <stdint.h>

struct loop;

// A descriptor the loop watches. Embedded in its owner; on_event gets the EPOLL* bits.
struct loop_source {
    int fd;
    void (*on_event)(struct loop_source *source, uint32_t events);
};

// A deadline. Moving it later costs nothing: the wheel looks again when the old place comes up.
struct loop_timer {
    struct list node;
    uint64_t due_ms; // 0: not armed
    uint32_t slot;
    void (*on_fire)(struct loop_timer *timer);
};

// Work for a loop, from any thread or from itself. Embedded in its owner, in one queue at a time.
struct loop_task {
    struct loop_task *next;
    void (*run)(struct loop_task *task);
};

// Something to do once before the turn ends, however often it was asked for: a flush.
struct loop_late {
    struct list node;
    void (*run)(struct loop_late *late);
};

// Called at the end of every turn in which something happened (and at least once a LOOP_IDLE_MS).
struct loop_hook {
    struct list node;
    void (*on_turn_end)(struct loop_hook *hook);
};

enum {
    LOOP_EVENTS = 256,  // taken from the kernel at once
    LOOP_SLOTS = 4096,  // of the timer wheel, 1 ms each; later deadlines go round again
    LOOP_IDLE_MS = 100, // the longest wait
    LOOP_LATE_ROUNDS =
        8, // late work that asks for more of it: the rest is the next turn's, which does not wait
};

struct loop {
    int epoll_fd, wake_fd;
    uint64_t now_us; // CLOCK_MONOTONIC, read once a turn
    uint64_t wheel_ms;
    struct list *slots;
    uint64_t occupied[LOOP_SLOTS / 64];
    struct list hooks, late;
    struct loop_task *deferred; // run after the callbacks of this turn: frees
    _Atomic(struct loop_task *) posted;
    struct loop_task *running; // of those, what this turn has taken and not run yet, in order
    atomic_bool woken;
    atomic_bool stopping;
    uint64_t turns, busy_us, longest_turn_us; // how long turns take, without the wait
    uint64_t lag_us; // how late the loop is now: the last turn, or what an event waits when more are ready
                     // than one turn takes
    uint64_t probe_sent_us; // when the event that measures this was made ready; 0: it is not
    struct loop_source wake, probe;
};

must_check enum err_code loop_init(struct loop *loop, struct err *err);
void loop_fini(struct loop *loop);
// Turns until loop_stop.
void loop_run(struct loop *loop);
// One turn; waits at most wait_ms. For tests and loop_run.
void loop_turn(struct loop *loop, uint64_t wait_ms);
void loop_stop(struct loop *loop); // any thread

static inline uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_us / 1000;
}

// events: EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET …, registered once. ERR_SYSTEM when the kernel refuses.
must_check enum err_code loop_add(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_modify(struct loop *loop, struct loop_source *source, uint32_t events);
// The owner must outlive the turn (loop_defer its free): events already taken may still name it, and are
// dropped because fd is set to -1 here. Does not close the descriptor.
void loop_remove(struct loop *loop, struct loop_source *source);

void loop_timer_init(struct loop_timer *timer, void (*on_fire)(struct loop_timer *timer));
// Fires once, after_ms from now or up to a millisecond later. Re-arming replaces the deadline.
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t after_ms);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer);

// Runs in the loop's thread at its next turn, in order of posting. Any thread.
void loop_post(struct loop *loop, struct loop_task *task);
// Takes back what was posted and has not run; harmless when it was not. The loop's thread only, and nobody
// posts the task at the same moment.
void loop_withdraw(struct loop *loop, struct loop_task *task);
// Runs at the end of the current turn. The loop's thread only.
void loop_defer(struct loop *loop, struct loop_task *task);
// Runs before this turn ends (from late work itself: in this turn or the next). Asked for again while it
// waits: once. loop_late_cancel is harmless when it does not wait.
void loop_late_init(struct loop_late *late, void (*run)(struct loop_late *late));
void loop_late(struct loop *loop, struct loop_late *late);
void loop_late_cancel(struct loop_late *late);
void loop_hook_add(struct loop *loop, struct loop_hook *hook);
