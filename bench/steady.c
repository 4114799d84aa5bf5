// steady --to ADDRESS [options]: clients that come evenly, wait so long and no longer, and never try again.
//
// The i-th request is due at start + i / rate, whatever became of those before. It has succeeded when a whole
// 2xx answer has come within its time, which runs from when it was due; a gRPC call, when its message and
// grpc-status 0 have. What became of each one is kept, and printed by slots of time at the end, so that an
// outage is seen when it was and by how many. load.c measures how fast a server is; this, how often it is
// there. How requests are sent is in steady_h1.c and steady_h2.c.
//
// {"event":"ready"} is printed, a line on standard input starts the run. One thread, edge-triggered epoll.

#include "steady.h"
#include "hist.h"
#include "result.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>

#define EVENTS  256
#define LATE_NS (20 * NS_PER_MS) /* sent so long after it was due: this machine had no time for it */

static const char *const outcome_names[OUTCOMES] = {"pending", "ok",     "other_status", "error_status",
                                                    "refused", "broken", "timed_out"};

static uint64_t due_ns(const struct steady *s, size_t request)
{
    return s->start_ns + request * NS_PER_S / s->rate;
}

/* --- what wires ask for --- */

void request_end(struct steady *s, size_t number, enum outcome outcome)
{
    struct request *r = &s->requests[number];
    r->outcome = (uint8_t)outcome;
    r->latency_us = (uint32_t)((clock_ns() - due_ns(s, number)) / NS_PER_US);
    r->place = NOWHERE;
}

enum outcome outcome_of(unsigned status)
{
    return status >= 500 ? ERROR_STATUS : status >= 200 && status < 300 ? OK : OTHER_STATUS;
}

void *steady_alloc(size_t count, size_t size)
{
    void *made = calloc(count, size);
    if (made == NULL)
        die("memory");
    return made;
}

void steady_watch(struct steady *s, int fd, void *place)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = place};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        die("epoll_ctl");
}

/* --- the run --- */

static void turn(struct steady *s, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec t = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int n = epoll_pwait2(s->epoll, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR)
        die("epoll_pwait2");
    for (int i = 0; i < n; i++)
        s->wire->on_event(s, events[i].data.ptr, events[i].events);
}

/* They are due in order, so they are out of time in order. */
static void give_up(struct steady *s)
{
    uint64_t now = clock_ns();
    for (; s->oldest < s->sent; s->oldest++) {
        if (s->requests[s->oldest].outcome != PENDING)
            continue;
        if (now < due_ns(s, s->oldest) + s->timeout_ns)
            return;
        s->wire->give_up(s, s->oldest);
    }
}

static void begin(struct steady *s)
{
    size_t number = s->sent++;
    s->requests[number].late = clock_ns() > due_ns(s, number) + LATE_NS;
    s->wire->begin(s, number);
}

static void run(struct steady *s)
{
    s->start_ns = clock_ns();
    while (s->oldest < s->total) {
        uint64_t now = clock_ns();
        while (s->sent < s->total && due_ns(s, s->sent) <= now)
            begin(s);
        give_up(s);
        now = clock_ns();
        uint64_t next = s->sent < s->total ? due_ns(s, s->sent) : now + NS_PER_MS;
        turn(s, next > now ? next - now : 0);
    }
}

/* --- what became of them --- */

struct slot {
    unsigned count[OUTCOMES];
    uint32_t most_us; /* of those that succeeded */
};

static void print_slots(const struct steady *s)
{
    size_t count = (size_t)(s->seconds * 1000 / (double)s->slot_ms) + 1;
    struct slot *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        die("memory");
    for (size_t i = 0; i < s->total; i++) {
        const struct request *r = &s->requests[i];
        struct slot *slot = &slots[(due_ns(s, i) - s->start_ns) / (s->slot_ms * NS_PER_MS)];
        slot->count[r->outcome]++;
        if (r->outcome == OK && r->latency_us > slot->most_us)
            slot->most_us = r->latency_us;
    }
    printf("\"slots\":[");
    for (size_t i = 0; i < count; i++) {
        printf("%s[", i > 0 ? "," : "");
        for (unsigned k = OK; k < OUTCOMES; k++)
            printf("%u,", slots[i].count[k]);
        printf("%u]", slots[i].most_us);
    }
    printf("]");
    free(slots);
}

/* Of each request that succeeded, in the order in which they were due: several runs can be told as one. */
static void print_each(const struct steady *s)
{
    const char *comma = "";
    printf(",\"each_us\":[");
    for (size_t i = 0; i < s->total; i++) {
        if (s->requests[i].outcome == OK) {
            printf("%s%u", comma, s->requests[i].latency_us);
            comma = ",";
        }
    }
    printf("]");
}

static void print_result(const struct steady *s)
{
    static struct hist hist; /* of those that succeeded */
    uint64_t counts[OUTCOMES] = {0}, late = 0;
    for (size_t i = 0; i < s->total; i++) {
        counts[s->requests[i].outcome]++;
        late += s->requests[i].late;
        if (s->requests[i].outcome == OK)
            hist_record(&hist, s->requests[i].latency_us * NS_PER_US);
    }
    printf("{\"event\":\"result\",\"requests\":%zu,\"rate\":%llu,\"seconds\":%.3f,\"sent_late\":%llu,"
           "\"own_cpu_seconds\":%.3f,\"slot_ms\":%llu,",
           s->total, (unsigned long long)s->rate, s->seconds, (unsigned long long)late, own_cpu_seconds(),
           (unsigned long long)s->slot_ms);
    for (unsigned k = OK; k < OUTCOMES; k++)
        printf("\"%s\":%llu,", outcome_names[k], (unsigned long long)counts[k]);
    printf("\"latency_us\":{\"p50\":%llu,\"p99\":%llu,\"p999\":%llu,\"max\":%llu},",
           (unsigned long long)(hist_quantile(&hist, 0.5) / NS_PER_US),
           (unsigned long long)(hist_quantile(&hist, 0.99) / NS_PER_US),
           (unsigned long long)(hist_quantile(&hist, 0.999) / NS_PER_US),
           (unsigned long long)(hist.max / NS_PER_US));
    print_slots(s);
    if (s->each)
        print_each(s);
    puts("}");
    fflush(stdout);
}

static void options_read(struct steady *s, int argc, char **argv)
{
    enum { TO = 1, RATE, SECONDS, TIMEOUT, SLOT, PATH, H2, GRPC, EACH };
    static const struct option names[] = {
        {"to", 1, NULL, TO},           {"rate", 1, NULL, RATE},
        {"seconds", 1, NULL, SECONDS}, {"timeout", 1, NULL, TIMEOUT},
        {"slot", 1, NULL, SLOT},       {"path", 1, NULL, PATH},
        {"h2", 0, NULL, H2},           {"grpc", 0, NULL, GRPC},
        {"each", 0, NULL, EACH},       {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case TO: s->to = sock_address(optarg); break;
        case RATE: s->rate = parse_number("--rate", optarg, 1000000); break;
        case SECONDS: s->seconds = parse_seconds("--seconds", optarg); break;
        case TIMEOUT: s->timeout_ns = parse_number("--timeout", optarg, 600000) * NS_PER_MS; break;
        case SLOT: s->slot_ms = parse_number("--slot", optarg, 60000); break;
        case PATH: s->path = optarg; break;
        case H2: s->wire = &wire_h2; break;
        case GRPC: s->wire = &wire_grpc; break;
        case EACH: s->each = true; break;
        default: s->rate = 0;
        }
    }
    if (optind != argc || s->to.sin_port == 0 || s->rate == 0 || s->slot_ms == 0) {
        fputs("usage: steady --to ADDRESS [--rate PER_SECOND] [--seconds S] [--timeout MS] [--slot MS] "
              "[--path P] [--h2 | --grpc] [--each]\n",
              stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct steady s = {.rate = 1000,
                              .seconds = 10,
                              .timeout_ns = NS_PER_S,
                              .slot_ms = 100,
                              .path = "/api/v1/orders/1842",
                              .wire = &wire_h1};
    options_read(&s, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s.epoll < 0)
        die("epoll");
    s.total = (size_t)(s.seconds * (double)s.rate);
    s.requests = steady_alloc(s.total + 1, sizeof *s.requests);
    s.wire->setup(&s);
    gate_wait();
    run(&s);
    print_result(&s);
    return 0;
}
