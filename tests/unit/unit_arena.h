// An arena for all tests of a group: cmocka_run_group_tests(tests, arena_begin, arena_end).
#pragma once

#include "unit.h"

#include "base/arena.h"

static struct arena arena;

static int arena_begin(void **state)
{
    (void)state;
    arena_init(&arena, NULL);
    return 0;
}

static int arena_end(void **state)
{
    (void)state;
    arena_reset(&arena);
    return 0;
}
