// An outage: the service misbehaves by itself for a time, on a schedule, whatever requests ask for. Its text
// is that of a query string:
//
//   misbehave=NAME[=VALUE],…   what it does; each burst is one of them ("refuse": at the listening socket)
//   share=R&mean_ms=N          out for that share of the time, in bursts of that mean length, by the seed
//   every_ms=N&down_ms=N       flapping: out for the last down_ms of every every_ms
//                              neither: out at once, until told otherwise
//   seed=N                     of lengths, kinds and ratio (default 1)
//   for_ms=N                   then it is over
//   ratio=R                    of the requests during a burst; the others are served
//   path=PREFIX                only requests of these paths (not "refuse")
#include "echo/echo.h"

// ---- the text

static bool parse_kinds(struct str text, struct outage_settings *settings)
{
    while (text.n) {
        struct str one = {text.p, str_find(text, ',')};
        text = str_skip(text, one.n < text.n ? one.n + 1 : one.n);
        if (settings->schedule.kinds == OUTAGE_KINDS)
            return false;
        struct outage_kind *kind = &settings->kinds[settings->schedule.kinds++];
        if (!misbehave_parse(one, &kind->row, &kind->value))
            return false;
    }
    return settings->schedule.kinds > 0;
}

static const char *parse_schedule(struct str text, struct schedule_settings *schedule)
{
    schedule->every_ms = query_u64(text, STR("every_ms"), 0, ECHO_DELAY_MAX_MS);
    schedule->down_ms = query_u64(text, STR("down_ms"), schedule->every_ms / 2, ECHO_DELAY_MAX_MS);
    schedule->share = query_share(text, STR("share"), 0);
    schedule->mean_ms = query_u64(text, STR("mean_ms"), 2000, ECHO_DELAY_MAX_MS);
    schedule->seed = query_u64(text, STR("seed"), 1, UINT64_MAX);
    schedule->for_ms = query_u64(text, STR("for_ms"), 0, UINT64_MAX / 2000);
    if (schedule->every_ms) {
        schedule->shape = SCHEDULE_REGULAR;
        if (schedule->share != 0)
            return "share and every_ms: either\n";
        if (!schedule->down_ms || schedule->down_ms > schedule->every_ms)
            return "down_ms: 1 to every_ms\n";
    } else if (schedule->share != 0) {
        schedule->shape = SCHEDULE_RANDOM;
        if (!(schedule->share > 0 && schedule->share < 1) || !schedule->mean_ms)
            return "share: more than 0 and less than 1; mean_ms: 1 and up\n";
    }
    return NULL;
}

const char *outage_parse(struct str text, struct outage_settings *settings)
{
    struct str kinds, path = STR("/");
    *settings = (struct outage_settings){0};
    if (!query_get(text, STR("misbehave"), &kinds) || !parse_kinds(kinds, settings))
        return "misbehave=NAME[=VALUE],…: no such misbehaviour, see /_control/help\n";
    settings->ratio = query_share(text, STR("ratio"), 1);
    if (settings->ratio < 0)
        return "ratio: 0 to 1\n";
    query_get(text, STR("path"), &path);
    if (path.n > sizeof settings->path)
        return "path: too long\n";
    memcpy(settings->path, path.p, path.n);
    settings->path_bytes = path.n;
    return parse_schedule(text, &settings->schedule);
}

// ---- bursts

static uint64_t since_begin_ms(const struct echo *echo)
{
    return (echo->loop.now_us - echo->outage.began_us) / 1000;
}

static const struct outage_kind *kind_now(const struct outage *outage)
{
    return outage->out ? &outage->settings.kinds[outage->burst.kind] : NULL;
}

static void enter(struct echo *echo, bool out)
{
    struct outage *outage = &echo->outage;
    outage->out = out;
    const struct outage_kind *kind = kind_now(outage);
    echo_refuse(echo, kind && kind->row->refuses);
}

// Where the schedule is now, and when to look again.
static void follow(struct echo *echo)
{
    struct outage *outage = &echo->outage;
    uint64_t now_ms = since_begin_ms(echo);
    while (outage->more && outage->burst.until_ms <= now_ms) {
        if (!outage->out) // too short for anybody to see
            outage->bursts++;
        enter(echo, false);
        outage->more = schedule_next(&outage->schedule, &outage->burst);
    }
    if (!outage->more)
        return;
    bool begun = outage->burst.from_ms <= now_ms;
    if (begun && !outage->out) {
        outage->bursts++;
        enter(echo, true);
    }
    uint64_t next_ms = begun ? outage->burst.until_ms : outage->burst.from_ms;
    if (next_ms != SCHEDULE_FOR_EVER)
        loop_timer_set(&echo->loop, &outage->timer, next_ms - now_ms);
}

static void on_timer(struct loop_timer *timer)
{
    follow(container_of(timer, struct echo, outage.timer));
}

void outage_init(struct echo *echo)
{
    loop_timer_init(&echo->outage.timer, on_timer);
}

void outage_begin(struct echo *echo, const struct outage_settings *settings)
{
    struct outage *outage = &echo->outage;
    outage_end(echo);
    outage->settings = *settings;
    outage->began_us = echo->loop.now_us;
    outage->bursts = 0;
    rand_init_seed(&outage->rand, settings->schedule.seed);
    schedule_init(&outage->schedule, &settings->schedule);
    outage->more = schedule_next(&outage->schedule, &outage->burst);
    follow(echo);
}

void outage_end(struct echo *echo)
{
    loop_timer_stop(&echo->loop, &echo->outage.timer);
    echo->outage.more = false;
    enter(echo, false);
}

bool outage_strikes(struct echo *echo, struct str path, const struct misbehaviour **row, uint64_t *value)
{
    struct outage *outage = &echo->outage;
    const struct outage_kind *kind = kind_now(outage);
    struct str prefix = {outage->settings.path, outage->settings.path_bytes};
    if (!kind || kind->row->refuses || !str_starts(path, prefix))
        return false;
    if (outage->settings.ratio < 1 && rand_unit(&outage->rand) >= outage->settings.ratio)
        return false;
    *row = kind->row;
    *value = kind->value;
    return true;
}

// ---- told

static void describe_burst(struct json *json, const struct outage_kind *kind, const struct burst *burst)
{
    json_object(json);
    json_field_string(json, "misbehave", str_of(kind->row->name));
    json_field_u64(json, "value", kind->value);
    json_field_u64(json, "from_ms", burst->from_ms);
    json_key(json, STR("until_ms"));
    if (burst->until_ms == SCHEDULE_FOR_EVER)
        json_null(json);
    else
        json_u64(json, burst->until_ms);
    json_object_end(json);
}

static void describe_bursts(struct json *json, const struct outage_settings *settings, uint64_t most)
{
    struct schedule schedule;
    struct burst burst;
    schedule_init(&schedule, &settings->schedule);
    for (uint64_t i = 0; i < most && schedule_next(&schedule, &burst); i++)
        describe_burst(json, &settings->kinds[burst.kind], &burst);
}

void outage_describe(struct echo *echo, struct json *json, uint64_t bursts)
{
    const struct outage *outage = &echo->outage;
    const struct outage_kind *kind = kind_now(outage);
    bool any = outage->settings.schedule.kinds > 0; // there was one
    json_object(json);
    json_field_bool(json, "more", outage->more);
    json_key(json, STR("misbehaves"));
    if (kind)
        json_string(json, str_of(kind->row->name));
    else
        json_null(json);
    json_field_u64(json, "since_ms", any ? since_begin_ms(echo) : 0);
    json_field_u64(json, "bursts_begun", outage->bursts);
    json_key(json, STR("bursts"));
    json_array(json);
    if (any)
        describe_bursts(json, &outage->settings, bursts);
    json_array_end(json);
    json_object_end(json);
}
