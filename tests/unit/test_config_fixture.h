// What the tests of the configuration share: an arena, a report, and its text.
#pragma once

#include "unit.h"

#include "config/config.h"

struct fixture {
    struct arena arena;
    struct config_report report;
    struct buf text;
};

static inline int set_up(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    arena_init(&fixture.arena, NULL);
    fixture.report.arena = &fixture.arena;
    *state = &fixture;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *fixture = *state;
    buf_free(&fixture->text);
    arena_reset(&fixture->arena);
    return 0;
}

// Everything reported so far, printed; the report is empty afterwards.
static inline const char *take_report(struct fixture *fixture)
{
    buf_free(&fixture->text);
    buf_append(&fixture->text, STR(""));
    config_report_sort(&fixture->report);
    config_report_print(&fixture->report, &fixture->text);
    fixture->report = (struct config_report){.arena = &fixture->arena};
    fixture->text.base[fixture->text.end] = 0; // buf_append leaves room for it
    return fixture->text.base;
}
