#include "auth/breaker.h"

static void set_state(struct auth_breaker *breaker, enum auth_breaker_state state)
{
    breaker->state = state;
    breaker->epoch++;
}

static void open_for(struct auth_breaker *breaker, uint64_t now_ms, double draw)
{
    uint64_t open_ms = AUTH_BREAKER_OPEN_MS;
    for (uint32_t i = 0; i < breaker->openings && open_ms < AUTH_BREAKER_OPEN_MAX_MS; i++)
        open_ms *= 2;
    if (open_ms > AUTH_BREAKER_OPEN_MAX_MS)
        open_ms = AUTH_BREAKER_OPEN_MAX_MS;
    double jitter = AUTH_BREAKER_JITTER_PERCENT / 100.0 * (2 * draw - 1);
    breaker->open_until_ms = now_ms + (uint64_t)((double)open_ms * (1 + jitter));
    breaker->openings++;
    set_state(breaker, AUTH_BREAKER_OPEN);
}

static void close_again(struct auth_breaker *breaker)
{
    for (unsigned i = 0; i < AUTH_BREAKER_WINDOW_S; i++)
        breaker->seconds[i] = (struct auth_breaker_second){0};
    breaker->in_a_row = breaker->openings = 0;
    set_state(breaker, AUTH_BREAKER_CLOSED);
}

static void count(struct auth_breaker *breaker, bool good, uint64_t now_ms)
{
    uint64_t at = now_ms / 1000;
    struct auth_breaker_second *second = &breaker->seconds[at % AUTH_BREAKER_WINDOW_S];
    if (second->at != at)
        *second = (struct auth_breaker_second){.at = at};
    second->answers++;
    second->failures += !good;
    breaker->in_a_row = good ? 0 : breaker->in_a_row + 1;
}

static bool is_too_much(const struct auth_breaker *breaker, uint64_t now_ms)
{
    uint64_t answers = 0, failures = 0;
    for (unsigned i = 0; i < AUTH_BREAKER_WINDOW_S; i++) {
        const struct auth_breaker_second *second = &breaker->seconds[i];
        if (second->at + AUTH_BREAKER_WINDOW_S > now_ms / 1000) {
            answers += second->answers;
            failures += second->failures;
        }
    }
    return breaker->in_a_row >= AUTH_BREAKER_IN_A_ROW ||
           (answers >= AUTH_BREAKER_MIN && failures * 100 >= answers * AUTH_BREAKER_PERCENT);
}

bool auth_breaker_admit(struct auth_breaker *breaker, uint64_t now_ms, uint32_t *epoch)
{
    if (breaker->state == AUTH_BREAKER_OPEN && now_ms >= breaker->open_until_ms)
        set_state(breaker, AUTH_BREAKER_PROBING);
    else if (breaker->state != AUTH_BREAKER_CLOSED)
        return false;
    *epoch = breaker->epoch;
    return true;
}

bool auth_breaker_note(struct auth_breaker *breaker, uint32_t epoch, bool good, uint64_t now_ms, double draw)
{
    if (epoch != breaker->epoch)
        return false;
    if (breaker->state == AUTH_BREAKER_PROBING) {
        if (good)
            close_again(breaker);
        else
            open_for(breaker, now_ms, draw);
        return true;
    }
    count(breaker, good, now_ms);
    if (good || !is_too_much(breaker, now_ms)) // an answer opens nothing
        return false;
    open_for(breaker, now_ms, draw);
    return true;
}

void auth_breaker_release(struct auth_breaker *breaker, uint32_t epoch)
{
    if (epoch != breaker->epoch || breaker->state != AUTH_BREAKER_PROBING)
        return;
    set_state(breaker, AUTH_BREAKER_OPEN); // its time is over already: whoever comes next probes
}
