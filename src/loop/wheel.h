// The timer wheel behind loop_timer_*: private to the room.
#pragma once

#include "loop/loop.h"

bool wheel_init(struct loop *loop);
// How long epoll may wait: until the next occupied slot, at most max_ms.
uint64_t wheel_wait_ms(const struct loop *loop, uint64_t max_ms);
// Fires what is due by loop->now_us.
void wheel_advance(struct loop *loop);
