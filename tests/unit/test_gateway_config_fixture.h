// A whole configuration file's text → settings and what is wrong with it.
#pragma once

#include "test_config_fixture.h"

#include "exchange/gateway_config.h"

static inline const char *load(struct fixture *fixture, const char *text, struct gateway_settings *settings)
{
    memset(settings, 0xee, sizeof *settings);
    bool is_valid =
        gateway_settings_load(STR("t"), str_of(text), &fixture->arena, settings, &fixture->report);
    const char *report = take_report(fixture);
    assert_int_equal(is_valid, !*report);
    return report;
}
