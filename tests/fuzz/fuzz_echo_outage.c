// Outages of sallyport-echo: what /_control/outage is asked for. Whatever is taken has a schedule whose
// bursts follow one another and are of the kinds that were named, and is told in JSON.
#include "exact_copy.h"

#include "base/json_parse.h"
#include "echo/echo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { BURSTS = 50 };

static void check_settings(const struct outage_settings *settings)
{
    const struct schedule_settings *schedule = &settings->schedule;
    check(schedule->kinds >= 1 && schedule->kinds <= OUTAGE_KINDS);
    for (unsigned i = 0; i < schedule->kinds; i++)
        check(settings->kinds[i].row && settings->kinds[i].row->name);
    check(settings->ratio >= 0 && settings->ratio <= 1);
    check(settings->path_bytes <= sizeof settings->path);
    if (schedule->shape == SCHEDULE_REGULAR)
        check(schedule->down_ms > 0 && schedule->down_ms <= schedule->every_ms);
    if (schedule->shape == SCHEDULE_RANDOM)
        check(schedule->share > 0 && schedule->share < 1 && schedule->mean_ms > 0);
}

static void check_bursts(const struct schedule_settings *settings)
{
    struct schedule schedule;
    struct burst burst;
    uint64_t end_ms = 0;
    schedule_init(&schedule, settings);
    for (unsigned i = 0; i < BURSTS && schedule_next(&schedule, &burst); i++) {
        check(burst.from_ms >= end_ms && burst.until_ms > burst.from_ms && burst.kind < settings->kinds);
        check(!settings->for_ms || burst.until_ms <= settings->for_ms);
        end_ms = burst.until_ms;
    }
}

static void check_told(struct echo *echo)
{
    struct arena arena;
    struct json json;
    const char *why = NULL;
    arena_init(&arena, NULL);
    echo->json.start = echo->json.end = 0;
    json_init(&json, &echo->json, false);
    outage_describe(echo, &json, BURSTS);
    const struct json_value *told = json_parse(buf_str(&echo->json), &arena, &why);
    check(told && told->kind == JSON_OBJECT && json_get(told, STR("bursts")));
    arena_reset(&arena);
}

static void check_strikes(struct echo *echo, const struct outage_settings *settings)
{
    const struct misbehaviour *row = NULL;
    uint64_t value;
    struct str prefix = {settings->path, settings->path_bytes};
    outage_begin(echo, settings);
    if (outage_strikes(echo, prefix, &row, &value))
        check(row && !row->refuses && echo->outage.out);
    if (prefix.n)
        check(!outage_strikes(echo, (struct str){prefix.p, prefix.n - 1}, &row, &value));
    check_told(echo);
    outage_end(echo);
    check(!echo->refusing && !echo->outage.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct echo echo;
    static bool is_ready;
    struct outage_settings settings;
    struct err err = {0};
    if (!is_ready)
        check(echo_init(&echo, STR("echo"), &err));
    is_ready = true;
    char *copy = exact_copy((const char *)data, n);
    const char *why = outage_parse((struct str){copy, n}, &settings);
    free(copy); // it holds no part of the text
    if (why) {
        check(why[0]);
        return 0;
    }
    check_settings(&settings);
    check_bursts(&settings.schedule);
    check_strikes(&echo, &settings);
    return 0;
}
