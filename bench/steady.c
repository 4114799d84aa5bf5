// steady --to ADDRESS [options]: clients that come evenly, wait so long and no longer, and never try again.
//
// The i-th request is due at start + i / rate, whatever became of those before: it takes a kept-alive
// connection that is free, or opens one. It has succeeded when a whole 2xx answer has come within its time,
// which runs from when it was due. What became of each one is kept, and printed by slots of time at the end,
// so that an outage is seen when it was and by how many. load.c measures how fast a server is; this, how
// often it is there.
//
// {"event":"ready"} is printed, a line on standard input starts the run. One thread, edge-triggered epoll.

#include "answer.h"
#include "hist.h"
#include "result.h"
#include "sock.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS      256
#define READ_BYTES  (64 * 1024)
#define REQUEST_MAX 1024
#define CONNECTIONS 8192
#define LATE_NS     (20 * NS_PER_MS) /* sent so long after it was due: this machine had no time for it */
#define NOBODY      UINT32_MAX

enum outcome { PENDING, OK, OTHER_STATUS, ERROR_STATUS, REFUSED, BROKEN, TIMED_OUT, OUTCOMES };
static const char *const outcome_names[OUTCOMES] = {"pending", "ok",     "other_status", "error_status",
                                                    "refused", "broken", "timed_out"};

struct request {
    uint32_t conn;       /* while pending */
    uint32_t latency_us; /* from when it was due */
    uint8_t outcome;
    bool late;
};

enum state { CLOSED, CONNECTING, FREE, BUSY };

struct conn {
    int fd;
    enum state state;
    bool in_open; /* its place is in that stack, perhaps from before it was closed and opened again */
    size_t request;
    struct answer answer;
};

struct steady {
    struct sockaddr_in to;
    uint64_t rate, slot_ms, timeout_ns;
    double seconds;
    const char *path;
    char text[REQUEST_MAX];
    size_t text_size;

    int epoll;
    uint64_t start_ns;
    struct request *requests;
    size_t total, sent, oldest; /* before oldest, none is pending */
    struct conn *conns;
    uint32_t *closed, *open; /* stacks: of places, of free connections (some were closed meanwhile) */
    size_t closed_count, open_count;
};

static char bytes[READ_BYTES];

static uint64_t due_ns(const struct steady *s, size_t request)
{
    return s->start_ns + request * NS_PER_S / s->rate;
}

/* --- the end of a request --- */

static void conn_close(struct steady *s, struct conn *c)
{
    close(c->fd);
    answer_reset(&c->answer);
    c->state = CLOSED;
    s->closed[s->closed_count++] = (uint32_t)(c - s->conns);
}

static void request_end(struct steady *s, size_t number, enum outcome outcome)
{
    struct request *r = &s->requests[number];
    r->outcome = (uint8_t)outcome;
    r->latency_us = (uint32_t)((clock_ns() - due_ns(s, number)) / NS_PER_US);
    r->conn = NOBODY;
}

static void conn_fail(struct steady *s, struct conn *c, enum outcome outcome)
{
    if (c->state != FREE)
        request_end(s, c->request, outcome);
    conn_close(s, c);
}

static void on_answer(struct steady *s, struct conn *c)
{
    int status = c->answer.status;
    request_end(s, c->request,
                status >= 500                   ? ERROR_STATUS
                : status >= 200 && status < 300 ? OK
                                                : OTHER_STATUS);
    if (!c->answer.keep) {
        conn_close(s, c);
        return;
    }
    c->state = FREE;
    if (!c->in_open)
        s->open[s->open_count++] = (uint32_t)(c - s->conns);
    c->in_open = true;
}

/* --- sending --- */

static void conn_send(struct steady *s, struct conn *c)
{
    c->state = BUSY;
    if (send(c->fd, s->text, s->text_size, MSG_NOSIGNAL) != (ssize_t)s->text_size)
        conn_fail(s, c, BROKEN);
}

static struct conn *take_free(struct steady *s)
{
    while (s->open_count > 0) {
        struct conn *c = &s->conns[s->open[--s->open_count]];
        c->in_open = false;
        if (c->state == FREE)
            return c;
    }
    return NULL;
}

static void request_begin(struct steady *s)
{
    size_t number = s->sent++;
    struct request *r = &s->requests[number];
    struct conn *c = take_free(s);
    bool connected = c != NULL;
    r->late = clock_ns() > due_ns(s, number) + LATE_NS;
    if (c == NULL) {
        if (s->closed_count == 0)
            die("more than %d connections at a time", CONNECTIONS);
        c = &s->conns[s->closed[--s->closed_count]];
        *c = (struct conn){.fd = sock_connect(&s->to), .state = CONNECTING, .in_open = c->in_open};
    }
    c->request = number;
    r->conn = (uint32_t)(c - s->conns);
    if (c->fd < 0) {
        request_end(s, number, REFUSED);
        s->closed[s->closed_count++] = (uint32_t)(c - s->conns);
        c->state = CLOSED;
    } else if (connected) {
        conn_send(s, c);
    } else {
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
            die("epoll_ctl");
    }
}

/* --- receiving --- */

static void conn_read(struct steady *s, struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || c->state != BUSY) {
            conn_fail(s, c, BROKEN);
            return;
        }
        size_t used = 0;
        enum answer_step step = answer_take(&c->answer, bytes, (size_t)n, &used);
        if (step == ANSWER_BAD || (step == ANSWER_DONE && used != (size_t)n)) {
            conn_fail(s, c, BROKEN);
            return;
        }
        if (step == ANSWER_DONE)
            on_answer(s, c);
        if (c->state == CLOSED)
            return;
    }
}

static void on_event(struct steady *s, struct conn *c, uint32_t events)
{
    if (c->state == CLOSED)
        return;
    if (c->state == CONNECTING) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            conn_fail(s, c, REFUSED);
            return;
        }
        if (events & EPOLLOUT)
            conn_send(s, c);
    }
    if ((c->state == BUSY || c->state == FREE) && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn_read(s, c);
}

static void turn(struct steady *s, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec t = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int n = epoll_pwait2(s->epoll, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR)
        die("epoll_pwait2");
    for (int i = 0; i < n; i++)
        on_event(s, events[i].data.ptr, events[i].events);
}

/* --- the run --- */

/* They are due in order, so they are out of time in order. */
static void give_up(struct steady *s)
{
    uint64_t now = clock_ns();
    for (; s->oldest < s->sent; s->oldest++) {
        if (s->requests[s->oldest].outcome != PENDING)
            continue;
        if (now < due_ns(s, s->oldest) + s->timeout_ns)
            return;
        conn_fail(s, &s->conns[s->requests[s->oldest].conn], TIMED_OUT);
    }
}

static void run(struct steady *s)
{
    s->start_ns = clock_ns();
    while (s->oldest < s->total) {
        uint64_t now = clock_ns();
        while (s->sent < s->total && due_ns(s, s->sent) <= now)
            request_begin(s);
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
    puts("}");
    fflush(stdout);
}

static void options_read(struct steady *s, int argc, char **argv)
{
    enum { TO = 1, RATE, SECONDS, TIMEOUT, SLOT, PATH };
    static const struct option names[] = {
        {"to", 1, NULL, TO},
        {"rate", 1, NULL, RATE},
        {"seconds", 1, NULL, SECONDS},
        {"timeout", 1, NULL, TIMEOUT},
        {"slot", 1, NULL, SLOT},
        {"path", 1, NULL, PATH},
        {NULL, 0, NULL, 0},
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
        default: s->rate = 0;
        }
    }
    if (optind != argc || s->to.sin_port == 0 || s->rate == 0 || s->slot_ms == 0) {
        fputs("usage: steady --to ADDRESS [--rate PER_SECOND] [--seconds S] [--timeout MS] [--slot MS] "
              "[--path P]\n",
              stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct steady s = {
        .rate = 1000, .seconds = 10, .timeout_ns = NS_PER_S, .slot_ms = 100, .path = "/api/v1/orders/1842"};
    options_read(&s, argc, argv);
    int n = snprintf(s.text, sizeof s.text,
                     "GET %s HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: steady\r\nAccept: */*\r\n\r\n",
                     s.path);
    if (n <= 0 || (size_t)n >= sizeof s.text)
        die("--path is too long");
    s.text_size = (size_t)n;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (sock_raise_limit() < CONNECTIONS + 16)
        die("%d connections are more than the limit on open files allows", CONNECTIONS);
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    s.total = (size_t)(s.seconds * (double)s.rate);
    s.requests = calloc(s.total + 1, sizeof *s.requests);
    s.conns = calloc(CONNECTIONS, sizeof *s.conns);
    s.closed = calloc(CONNECTIONS, sizeof *s.closed);
    s.open = calloc(CONNECTIONS, sizeof *s.open);
    if (s.epoll < 0 || s.requests == NULL || s.conns == NULL || s.closed == NULL || s.open == NULL)
        die("epoll or memory");
    for (uint32_t i = CONNECTIONS; i-- > 0;)
        s.closed[s.closed_count++] = i;
    gate_wait();
    run(&s);
    print_result(&s);
    return 0;
}
