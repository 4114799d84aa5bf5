#include "upstream/adaptive.h"

#include <math.h>
#include <string.h>

// So much more than base is no queue worth speaking of.
#define TOLERANCE       1.5
// Of a window in base, when it is quicker; and when it is slower, within the tolerance.
#define GAIN_DOWN       0.2
#define GAIN_UP         0.05
// Of a window in the throughput.
#define GAIN_THROUGHPUT 0.3
// A test raises the limit so much, and finds that there was no queue when the throughput rises by half of it.
#define TEST_RAISE      1.5
#define TEST_PROOF      1.25
// When concurrency has fallen so far, throughput that has not fallen further than this shows a queue.
#define JUDGE_AT        0.5
#define JUDGE_PROOF     0.75

static double clamp(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

static double bounded(double limit, double most)
{
    return clamp(limit, most < ADAPTIVE_LEAST ? most : ADAPTIVE_LEAST, most);
}

uint32_t adaptive_limit(const struct adaptive *adaptive, uint32_t most)
{
    if (adaptive->limit <= 0 || adaptive->limit >= most)
        return most;
    return adaptive->limit > 1 ? (uint32_t)adaptive->limit : 1;
}

// ---- a window ----

struct measure {
    double latency_us, throughput; // requests a second
    double concurrency;            // the mean, by Little's law
    double elapsed_us;
    uint32_t peak;
    bool bound, slow;
};

static bool is_over(const struct adaptive *adaptive, uint64_t now_us)
{
    uint32_t samples = adaptive->window.samples;
    uint64_t elapsed_us = now_us - adaptive->began_us;
    uint32_t wanted = adaptive->test == ADAPTIVE_TESTING ? ADAPTIVE_TEST_SAMPLES : ADAPTIVE_SAMPLES;
    return (samples >= wanted && elapsed_us >= ADAPTIVE_WINDOW_US) ||
           (samples >= ADAPTIVE_FEW && elapsed_us >= ADAPTIVE_WAIT_US && adaptive->test != ADAPTIVE_TESTING);
}

static struct measure measure(const struct adaptive *adaptive, uint64_t now_us)
{
    const struct adaptive_batch *window = &adaptive->window;
    struct measure m = {
        .latency_us = (double)window->sum_us / window->samples,
        .elapsed_us = (double)(now_us - adaptive->began_us),
        .peak = window->peak,
        .bound = window->bound,
    };
    m.throughput = window->samples / m.elapsed_us * 1e6;
    m.concurrency = m.throughput * m.latency_us / 1e6;
    m.slow = adaptive->base_us > 0 && m.latency_us > TOLERANCE * adaptive->base_us;
    return m;
}

static void learn_base(struct adaptive *adaptive, const struct measure *m)
{
    double gain = m->latency_us < adaptive->base_us ? GAIN_DOWN
                  : !m->slow && !m->bound           ? GAIN_UP
                  : !m->bound                       ? clamp(m->elapsed_us / ADAPTIVE_DRIFT_US, 0, 1)
                                                    : 0;
    if (adaptive->base_us <= 0)
        gain = 1;
    adaptive->base_us += gain * (m->latency_us - adaptive->base_us);
}

static void move_limit(struct adaptive *adaptive, const struct measure *m, double most)
{
    double limit = adaptive->limit, used = m->peak + sqrt(m->peak);
    bool was_slow = adaptive->shortage.smoothed > 0;
    if (m->slow && !m->bound && used < limit)
        limit = used;                      // what is above it has no effect
    if (m->slow && (m->bound || was_slow)) // once may be chance
        limit = limit * clamp(TOLERANCE * adaptive->base_us / m->latency_us, 0.5, 1) + sqrt(limit);
    if (m->bound && !m->slow)
        limit += sqrt(limit);
    adaptive->limit = bounded(m->bound || limit < adaptive->limit ? limit : adaptive->limit, most);
}

// ---- is the queue ours? ----

static void end_shortage(struct adaptive *adaptive)
{
    memset(&adaptive->shortage, 0, sizeof adaptive->shortage);
    adaptive->test_us = 0;
}

// It was not: requests take that long by themselves.
static void accept_latency(struct adaptive *adaptive, const struct measure *m, double limit)
{
    adaptive->base_us = m->latency_us;
    adaptive->limit = limit;
    end_shortage(adaptive);
}

// What the falling limit has done to the throughput: once a shortage.
static void judge(struct adaptive *adaptive, const struct measure *m, double most)
{
    double highest = adaptive->shortage.concurrency;
    if (adaptive->shortage.judged || m->concurrency > JUDGE_AT * highest)
        return;
    adaptive->shortage.judged = true;
    double now = (adaptive->shortage.last + m->throughput) / 2;
    if (now <= JUDGE_PROOF * adaptive->shortage.throughput)
        accept_latency(adaptive, m, bounded(TOLERANCE * highest + sqrt(highest), most));
}

static void start_test_when_due(struct adaptive *adaptive, double most, uint64_t now_us)
{
    if (!adaptive->test_us) {
        adaptive->patience_us = ADAPTIVE_TEST_US;
        adaptive->test_us = now_us + adaptive->patience_us;
    }
    if (now_us < adaptive->test_us || adaptive->limit >= most)
        return;
    adaptive->test = ADAPTIVE_SETTLING;
    adaptive->untested = adaptive->limit;
    adaptive->limit = bounded(adaptive->limit * TEST_RAISE + 1, most);
}

static void end_test(struct adaptive *adaptive, const struct measure *m, uint64_t now_us)
{
    adaptive->test = ADAPTIVE_NO_TEST;
    if (!m->bound || m->throughput >= TEST_PROOF * adaptive->shortage.smoothed) {
        accept_latency(adaptive, m, adaptive->limit);
        return;
    }
    adaptive->limit = adaptive->untested;
    adaptive->patience_us *= 2;
    if (adaptive->patience_us > ADAPTIVE_TEST_MAX_US)
        adaptive->patience_us = ADAPTIVE_TEST_MAX_US;
    adaptive->test_us = now_us + adaptive->patience_us;
}

static void follow_shortage(struct adaptive *adaptive, const struct measure *m, double most, uint64_t now_us)
{
    if (!m->slow) {
        end_shortage(adaptive);
        return;
    }
    double *smoothed = &adaptive->shortage.smoothed;
    *smoothed += (*smoothed > 0 ? GAIN_THROUGHPUT : 1) * (m->throughput - *smoothed);
    if (m->concurrency > adaptive->shortage.concurrency) {
        adaptive->shortage.concurrency = m->concurrency;
        adaptive->shortage.throughput = m->throughput;
    }
    if (m->bound)
        judge(adaptive, m, most);
    adaptive->shortage.last = m->throughput;
    if (m->bound && adaptive->shortage.smoothed > 0)
        start_test_when_due(adaptive, most, now_us);
}

static void end_window(struct adaptive *adaptive, double most, uint64_t now_us)
{
    struct measure m = measure(adaptive, now_us);
    switch (adaptive->test) {
    case ADAPTIVE_SETTLING: adaptive->test = ADAPTIVE_TESTING; return; // what was under way is over
    case ADAPTIVE_TESTING: end_test(adaptive, &m, now_us); return;
    case ADAPTIVE_NO_TEST: break;
    }
    learn_base(adaptive, &m);
    move_limit(adaptive, &m, most);
    follow_shortage(adaptive, &m, most, now_us);
}

void adaptive_note(struct adaptive *adaptive, const struct adaptive_batch *batch, uint32_t most,
                   uint64_t now_us)
{
    struct adaptive_batch *window = &adaptive->window;
    if (now_us < adaptive->began_us) // another worker's clock was ahead: they are read once a turn
        now_us = adaptive->began_us;
    if (adaptive->limit <= 0) {
        adaptive->limit = most;
        adaptive->began_us = now_us;
    }
    if (adaptive->limit > most)
        adaptive->limit = most;
    window->samples += batch->samples;
    window->sum_us += batch->sum_us;
    window->bound |= batch->bound;
    if (batch->peak > window->peak)
        window->peak = batch->peak;
    if (!is_over(adaptive, now_us))
        return;
    end_window(adaptive, most, now_us);
    *window = (struct adaptive_batch){0};
    adaptive->began_us = now_us;
}
