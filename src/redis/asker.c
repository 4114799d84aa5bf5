// One question about the fleet, to one source after the other, until one answers.
//
//   idle ─▶ connecting to a source ─▶ asked ─▶ answered: idle again, connected still when it stays
//                    ▲                   │
//                    └── the next one ◀──┘ no answer, or one of no use; after a round of them: a little later
#include "redis/fleet_private.h"

#include <stdio.h>

static void go_on(struct fleet_asker *asker, const char *why);

static void leave(struct fleet_asker *asker)
{
    fleet_bury(asker->fleet, asker->redis);
    asker->redis = NULL;
    asker->sent = false;
    if (asker->question->on_source)
        asker->question->on_source(asker->fleet, NULL);
}

static void on_answer(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct fleet_asker *asker = context;
    const char *why = "no answer in time";
    char error[REDIS_WHY_BYTES];
    if (!asker->sent || failure == REDIS_DOWN) // of a source it has left; on_down tells of the others
        return;
    asker->sent = asker->wanted = false;
    bool good = failure == REDIS_OK;
    if (good && reply->kind == RESP_ERROR) {
        snprintf(error, sizeof error, "%.*s", STR_ARG(reply->text));
        why = error;
        good = false;
    } else if (good) {
        good = asker->question->take(asker->fleet, &asker->at, reply, &why);
    }
    if (!good) {
        asker->wanted = true;
        go_on(asker, why);
        return;
    }
    asker->failures = 0;
    if (asker->redis && !asker->question->stays) {
        leave(asker);
        asker->source++; // another one next time
    }
}

static void send_question(struct fleet_asker *asker)
{
    if (asker->sent)
        return;
    asker->sent = true;
    redis_command(asker->redis, asker->question->argv, asker->question->argc, FLEET_QUESTION_MS * 1000, asker,
                  on_answer);
}

static void on_up(void *context)
{
    struct fleet_asker *asker = context;
    if (asker->question->on_source)
        asker->question->on_source(asker->fleet, &asker->at);
    if (asker->wanted)
        send_question(asker);
}

static bool is_about_passwords(const char *why)
{
    static const char *const beginnings[] = {"WRONGPASS", "NOAUTH", "ERR AUTH", "ERR Client sent AUTH"};
    for (size_t i = 0; i < countof(beginnings); i++)
        if (strncmp(why, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return false;
}

// Sentinels often have no password where the servers do.
static void on_down(void *context, const char *why)
{
    struct fleet_asker *asker = context;
    if (asker->question->stays && is_about_passwords(why))
        asker->bare = !asker->bare;
    go_on(asker, why);
}

static const struct redis_events source_events = {.on_up = on_up, .on_down = on_down};

static void connect_now(struct fleet_asker *asker)
{
    asker->at = asker->question->source(asker->fleet, asker->source);
    asker->redis = fleet_connect(asker->fleet, &(struct fleet_peer){.addr = &asker->at,
                                                                    .events = &source_events,
                                                                    .context = asker,
                                                                    .is_source = true,
                                                                    .bare = asker->bare});
}

static void wait_a_little(struct fleet_asker *asker)
{
    loop_timer_set(asker->fleet->loop, &asker->timer, fleet_jitter(asker->fleet, asker->again_ms));
    asker->again_ms = asker->again_ms * 2 < FLEET_AGAIN_MAX_MS ? asker->again_ms * 2 : FLEET_AGAIN_MAX_MS;
}

// To the next source.
static void go_on(struct fleet_asker *asker, const char *why)
{
    fleet_warn(asker->fleet, &asker->at, why);
    leave(asker);
    asker->source++;
    if (++asker->failures % asker->question->count(asker->fleet) == 0)
        wait_a_little(asker);
    else
        loop_timer_set(asker->fleet->loop, &asker->timer, 0);
}

static void on_timer(struct loop_timer *timer)
{
    struct fleet_asker *asker = container_of(timer, struct fleet_asker, timer);
    if (!asker->redis && (asker->wanted || asker->question->stays))
        connect_now(asker);
}

void asker_init(struct fleet_asker *asker, struct redis_fleet *fleet, const struct fleet_question *question)
{
    *asker = (struct fleet_asker){.fleet = fleet, .question = question, .again_ms = FLEET_AGAIN_MS};
    loop_timer_init(&asker->timer, on_timer);
    asker->source = rand_below(&fleet->rand, 1024); // gateways do not all ask the same one
}

void asker_ask(struct fleet_asker *asker)
{
    asker->wanted = true;
    if (asker->redis && redis_is_up(asker->redis))
        send_question(asker);
    else if (!asker->redis && !asker->timer.due_ms)
        connect_now(asker);
}

void asker_ask_another(struct fleet_asker *asker)
{
    asker->wanted = true;
    leave(asker);
    asker->source++;
    wait_a_little(asker);
}

void asker_settle(struct fleet_asker *asker)
{
    asker->again_ms = FLEET_AGAIN_MS;
}

void asker_fini(struct fleet_asker *asker)
{
    loop_timer_stop(asker->fleet->loop, &asker->timer);
    redis_free(asker->redis);
    asker->redis = NULL;
}
