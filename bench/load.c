/*
 * load --to ADDRESS [options]: an HTTP/1.1 load generator that fits on a fraction of one core.
 *
 *   closed loop (default)   each connection sends its next request as soon as the last is answered: finds the
 * most a server can do; its latencies say only how long the queue is open loop (--rate R)    R requests a
 * second are due at even distances, whatever the server does; a latency is counted from the moment the
 * request was due, so a stall is seen by every request that fell due in it (no coordinated omission) idle
 * (--idle N)         N connections make one request each and are then held until standard input ends
 *
 * With --gate the connections are opened and warmed up first, then {"event":"ready"} is printed and a line on
 * standard input starts the measured run; the connections stay open after the result is printed, until
 * standard input ends. So whoever measures the server from outside sees nothing but the run between these two
 * lines.
 *
 * One line of JSON for each event. One thread, edge-triggered epoll, one recv and one send a request.
 */

#include "answer.h"
#include "hist.h"
#include "sock.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS          256
#define READ_BYTES      (64 * 1024)
#define REQUEST_MAX     4096
#define CONNECTIONS_MAX 200000
#define SPREAD_DIGITS   5
#define SPREAD_MAX      100000
#define GRACE_NS        (5 * NS_PER_S) /* what has no answer so long after the run's end is counted unanswered */
#define OPENING_AT_ONCE 64

enum conn_state { CONN_CLOSED, CONN_OPENING, CONN_FREE, CONN_BUSY };

struct conn {
    int fd;
    enum conn_state state;
    bool readable;
    bool ending;
    bool in_ring;
    uint64_t from_ns; /* when the request was sent (closed loop) or due (open loop) */
    struct answer answer;
};

struct counts {
    uint64_t requests; /* answered, with any status */
    uint64_t bytes;
    uint64_t bad_status; /* not 2xx */
    uint64_t broken;     /* connection ended or made no sense before the answer was whole */
    uint64_t connect_failed;
    uint64_t unanswered;
    uint64_t reconnects; /* the server closed between requests */
};

struct load {
    struct sockaddr_in to;
    size_t connections;
    double seconds;
    double warmup;
    uint64_t limit; /* requests, 0: by time */
    uint64_t rate;  /* 0: closed loop */
    size_t idle;
    size_t at_once; /* idle: requests under way at one time */
    bool gate;
    uint32_t spread;
    const char *path;
    const char *host;
    const char *extra[16];
    size_t extra_count;

    char request[REQUEST_MAX];
    size_t request_size;
    char *request_digits; /* where the number of --spread goes */
    uint32_t random;

    int epoll;
    struct conn *conns;
    size_t *free_ring; /* open loop: free connections, longest free first */
    size_t free_at;
    size_t free_count;
    size_t busy;
    size_t opening;
    size_t alive;

    bool sending; /* closed loop: a free connection sends at once */
    uint64_t sent;
    uint64_t start_ns;
    uint64_t stop_ns;
    struct counts counts;
    struct hist hist;
};

static char bytes[READ_BYTES];

/* --- the request
 * --------------------------------------------------------------------------------------------- */

static void request_make(struct load *l)
{
    int n = snprintf(l->request, sizeof l->request,
                     "GET %s HTTP/1.1\r\n"
                     "Host: %s\r\n"
                     "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
                     "Accept: application/json, text/plain, */*\r\n"
                     "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
                     "Accept-Encoding: gzip, deflate, br\r\n"
                     "Cookie: session=8f14e45fceea167a5a36dedd4bea2543\r\n",
                     l->path, l->host);
    for (size_t i = 0; i < l->extra_count && n > 0 && (size_t)n < sizeof l->request; i++)
        n += snprintf(l->request + n, sizeof l->request - (size_t)n, "%s\r\n", l->extra[i]);
    if (n > 0 && (size_t)n < sizeof l->request)
        n += snprintf(l->request + n, sizeof l->request - (size_t)n, "\r\n");
    if (n <= 0 || (size_t)n >= sizeof l->request)
        die("the request is longer than %d bytes", REQUEST_MAX);
    l->request_size = (size_t)n;
    if (l->spread == 0)
        return;
    char *at = strchr(l->request, '@');
    if (at == NULL || l->request_size + SPREAD_DIGITS > sizeof l->request)
        die("--spread needs an @ in --path, where the number goes");
    memmove(at + SPREAD_DIGITS, at + 1, l->request_size - (size_t)(at + 1 - l->request));
    l->request_size += SPREAD_DIGITS - 1;
    l->request_digits = at;
}

/* A number below the spread, five digits, by a xorshift generator: no order a cache could learn. */
static void request_renumber(struct load *l)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 17;
    l->random ^= l->random << 5;
    uint32_t n = (uint32_t)(((uint64_t)l->random * l->spread) >> 32);
    for (size_t i = SPREAD_DIGITS; i-- > 0; n /= 10)
        l->request_digits[i] = (char)('0' + n % 10);
}

/* --- connections
 * --------------------------------------------------------------------------------------------- */

static void conn_open(struct load *l, struct conn *c)
{
    c->fd = sock_connect(&l->to);
    if (c->fd < 0) {
        l->counts.connect_failed++;
        return;
    }
    c->state = CONN_OPENING;
    c->readable = false;
    c->ending = false;
    l->opening++;
    l->alive++;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
        die("epoll_ctl");
}

static void conn_close(struct load *l, struct conn *c)
{
    if (c->state == CONN_OPENING)
        l->opening--;
    if (c->state == CONN_BUSY)
        l->busy--;
    close(c->fd);
    answer_reset(&c->answer);
    c->fd = -1;
    c->readable = false;
    c->state = CONN_CLOSED;
    l->alive--;
}

static void ring_push(struct load *l, struct conn *c)
{
    if (c->in_ring)
        return; /* closed and opened again while it waited for its turn */
    size_t at = (l->free_at + l->free_count) % l->connections;
    l->free_ring[at] = (size_t)(c - l->conns);
    c->in_ring = true;
    l->free_count++;
}

/* The connection that has been free longest; NULL when none is. Those closed meanwhile are passed over. */
static struct conn *ring_pop(struct load *l)
{
    while (l->free_count > 0) {
        struct conn *c = &l->conns[l->free_ring[l->free_at]];
        l->free_at = (l->free_at + 1) % l->connections;
        l->free_count--;
        c->in_ring = false;
        if (c->state == CONN_FREE)
            return c;
    }
    return NULL;
}

static void conn_broken(struct load *l, struct conn *c)
{
    bool was_free = c->state == CONN_FREE;
    bool was_opening = c->state == CONN_OPENING;
    conn_close(l, c);
    if (was_opening) {
        l->counts.connect_failed++;
        return; /* not tried again: a server that refuses would be asked for ever */
    }
    if (was_free)
        l->counts.reconnects++;
    else
        l->counts.broken++;
    conn_open(l, c);
}

static void conn_send(struct load *l, struct conn *c, uint64_t from_ns)
{
    if (l->spread > 0)
        request_renumber(l);
    c->state = CONN_BUSY;
    c->from_ns = from_ns;
    l->busy++;
    l->sent++;
    ssize_t n = send(c->fd, l->request, l->request_size, MSG_NOSIGNAL);
    if (n != (ssize_t)l->request_size)
        conn_broken(l, c);
}

static bool may_send(const struct load *l, uint64_t now)
{
    return l->sending && (l->limit > 0 ? l->sent < l->limit : now < l->stop_ns);
}

static void conn_freed(struct load *l, struct conn *c, uint64_t now)
{
    c->state = CONN_FREE;
    if (l->rate > 0)
        ring_push(l, c);
    else if (may_send(l, now))
        conn_send(l, c, now);
}

static void on_answer(struct load *l, struct conn *c)
{
    uint64_t now = clock_ns();
    l->counts.requests++;
    if (c->answer.status < 200 || c->answer.status > 299)
        l->counts.bad_status++;
    hist_record(&l->hist, now > c->from_ns ? now - c->from_ns : 0);
    l->busy--;
    c->state = CONN_FREE;
    if (!c->answer.keep) {
        l->counts.reconnects++;
        conn_close(l, c);
        conn_open(l, c);
        return;
    }
    conn_freed(l, c, now);
}

static void conn_read(struct load *l, struct conn *c)
{
    while (c->readable) {
        ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN) {
            c->readable = false;
            return;
        }
        if (n <= 0 || c->state != CONN_BUSY) {
            conn_broken(l, c);
            return;
        }
        if ((size_t)n < sizeof bytes && !c->ending)
            c->readable = false;
        l->counts.bytes += (uint64_t)n;
        size_t used = 0;
        enum answer_step step = answer_take(&c->answer, bytes, (size_t)n, &used);
        if (step == ANSWER_BAD || (step == ANSWER_DONE && used != (size_t)n)) {
            conn_broken(l, c); /* bytes after the answer nobody asked for are an error too */
            return;
        }
        if (step == ANSWER_DONE)
            on_answer(l, c);
    }
}

static void on_event(struct load *l, struct conn *c, uint32_t events)
{
    if (c->state == CONN_CLOSED)
        return;
    if (c->state == CONN_OPENING && (events & (EPOLLERR | EPOLLHUP)) == 0 && (events & EPOLLOUT) != 0) {
        l->opening--;
        conn_freed(l, c, clock_ns());
    }
    if ((events & EPOLLIN) != 0)
        c->readable = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        c->readable = true;
        c->ending = true;
    }
    if (c->readable)
        conn_read(l, c);
}

static void turn(struct load *l, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec t = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int n = epoll_pwait2(l->epoll, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR)
        die("epoll_pwait2");
    for (int i = 0; i < n; i++)
        on_event(l, events[i].data.ptr, events[i].events);
}

/* Opens all connections, not too many at once, and waits until each is open or refused. */
static void open_all(struct load *l)
{
    size_t next = 0;
    while (next < l->connections || l->opening > 0) {
        while (next < l->connections && l->opening < OPENING_AT_ONCE)
            conn_open(l, &l->conns[next++]);
        if (l->opening > 0)
            turn(l, NS_PER_S);
    }
    if (l->alive == 0)
        die("no connection to the server could be opened");
}

/* --- a run
 * --------------------------------------------------------------------------------------------------- */

static void run_begin(struct load *l, double seconds)
{
    l->counts = (struct counts){0};
    hist_clear(&l->hist);
    l->sent = 0;
    l->start_ns = clock_ns();
    l->stop_ns = l->start_ns + (uint64_t)(seconds * (double)NS_PER_S);
    l->sending = true;
}

/* Waits for what is under way; what does not come counts as unanswered, with the time waited so far. */
static void drain(struct load *l)
{
    l->sending = false;
    uint64_t end = clock_ns() + GRACE_NS;
    while ((l->busy > 0 || l->opening > 0) && clock_ns() < end)
        turn(l, 10 * NS_PER_MS);
    uint64_t now = clock_ns();
    for (size_t i = 0; l->busy > 0 && i < l->connections; i++) {
        struct conn *c = &l->conns[i];
        if (c->state != CONN_BUSY)
            continue;
        l->counts.unanswered++;
        hist_record(&l->hist, now - c->from_ns);
        conn_close(l, c);
        conn_open(l, c);
    }
}

static void run_closed(struct load *l, double seconds)
{
    run_begin(l, seconds);
    for (size_t i = 0; i < l->connections; i++)
        if (l->conns[i].state == CONN_FREE && may_send(l, l->start_ns))
            conn_send(l, &l->conns[i], clock_ns());
    while (l->alive > 0 && may_send(l, clock_ns()))
        turn(l, 10 * NS_PER_MS);
    if (l->limit == 0 || l->alive == 0)
        l->stop_ns = clock_ns();
    drain(l);
    if (l->limit > 0 && l->alive > 0)
        l->stop_ns = clock_ns();
}

/* The i-th request is due at start + i / rate. When no connection is free it waits, and its clock runs. */
static void run_open(struct load *l, double seconds)
{
    run_begin(l, seconds);
    uint64_t total = (uint64_t)(seconds * (double)l->rate);
    uint64_t next = 0;
    while (next < total && clock_ns() < l->stop_ns + GRACE_NS) {
        uint64_t due = l->start_ns + next * NS_PER_S / l->rate;
        uint64_t now = clock_ns();
        struct conn *c;
        while (next < total && due <= now && (c = ring_pop(l)) != NULL) {
            conn_send(l, c, due);
            next++;
            due = l->start_ns + next * NS_PER_S / l->rate;
        }
        now = clock_ns();
        turn(l, due > now ? due - now : (l->free_count == 0 ? 10 * NS_PER_MS : 0));
    }
    uint64_t now = clock_ns();
    for (; next < total; next++) {
        l->counts.unanswered++;
        hist_record(&l->hist, now - (l->start_ns + next * NS_PER_S / l->rate));
    }
    drain(l);
}

static void run(struct load *l, double seconds)
{
    if (l->rate > 0)
        run_open(l, seconds);
    else
        run_closed(l, seconds);
}

/* --- results
 * ------------------------------------------------------------------------------------------------- */

static double us(uint64_t ns)
{
    return (double)ns / (double)NS_PER_US;
}

static uint64_t errors(const struct counts *c)
{
    return c->bad_status + c->broken + c->connect_failed + c->unanswered;
}

static double own_cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void print_result(const struct load *l, const char *event, double cpu_seconds)
{
    const struct counts *c = &l->counts;
    const struct hist *h = &l->hist;
    double seconds = (double)(l->stop_ns - l->start_ns) / (double)NS_PER_S;
    printf("{\"event\":\"%s\",\"loop\":\"%s\",\"connections\":%zu,\"rate\":%llu,\"seconds\":%.6f,"
           "\"requests\":%llu,"
           "\"rps\":%.1f,\"bytes\":%llu,\"errors\":%llu,\"bad_status\":%llu,\"broken\":%llu,\"connect_"
           "failed\":%llu,"
           "\"unanswered\":%llu,\"reconnects\":%llu,\"own_cpu_seconds\":%.6f,",
           event, l->rate > 0 ? "open" : "closed", l->connections, (unsigned long long)l->rate, seconds,
           (unsigned long long)c->requests, seconds > 0 ? (double)c->requests / seconds : 0.0,
           (unsigned long long)c->bytes, (unsigned long long)errors(c), (unsigned long long)c->bad_status,
           (unsigned long long)c->broken, (unsigned long long)c->connect_failed,
           (unsigned long long)c->unanswered, (unsigned long long)c->reconnects, cpu_seconds);
    printf(
        "\"latency_us\":{\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}}\n",
        hist_mean(h) / 1e3, us(hist_quantile(h, 0.5)), us(hist_quantile(h, 0.9)), us(hist_quantile(h, 0.99)),
        us(hist_quantile(h, 0.999)), us(h->max));
    fflush(stdout);
}

/* Waits for a line (or the end) on standard input. */
static void wait_for_line(void)
{
    char c = 0;
    ssize_t n;
    do
        n = read(STDIN_FILENO, &c, 1);
    while ((n < 0 && errno == EINTR) || (n == 1 && c != '\n'));
}

static void wait_for_end(void)
{
    char c[256];
    ssize_t n;
    do
        n = read(STDIN_FILENO, c, sizeof c);
    while (n > 0 || (n < 0 && errno == EINTR));
}

/* --- idle
 * ---------------------------------------------------------------------------------------------------- */

/*
 * Connections are opened in turn, each makes its request, and no more than at_once are between opening and
 * answer: a server's buffers for work in progress then do not count as the cost of an idle connection.
 */
static void run_idle(struct load *l)
{
    run_begin(l, 0);
    l->limit = l->connections;
    uint64_t end = l->start_ns + 60 * NS_PER_S;
    for (size_t next = 0; (next < l->connections || l->opening + l->busy > 0) && clock_ns() < end;) {
        while (next < l->connections && l->opening + l->busy < l->at_once)
            conn_open(l, &l->conns[next++]); /* once open, conn_freed sends its request */
        turn(l, NS_PER_S);
    }
    l->sending = false;
    l->stop_ns = clock_ns();
    l->counts.unanswered += l->busy + l->opening;
}

/* How many of the held connections the server has closed. */
static size_t closed_meanwhile(struct load *l)
{
    size_t gone = 0;
    for (size_t i = 0; i < l->connections; i++) {
        char c;
        if (l->conns[i].state == CONN_CLOSED || recv(l->conns[i].fd, &c, 1, MSG_PEEK) == 0)
            gone++;
    }
    return gone;
}

/* --- options
 * ------------------------------------------------------------------------------------------------- */

static double parse_seconds(const char *option, const char *text)
{
    char *end = NULL;
    double d = strtod(text, &end);
    if (end == text || *end != '\0' || !(d >= 0.0 && d <= 86400.0))
        die("%s: '%s' is not a number of seconds", option, text);
    return d;
}

static void usage(void)
{
    fputs("usage: load --to ADDRESS [options]\n"
          "  --connections N   kept-alive connections (64)\n"
          "  --seconds S       length of the measured run (5)\n"
          "  --requests N      closed loop: this many requests instead of a time\n"
          "  --warmup S        unmeasured run before it (0)\n"
          "  --rate R          open loop at R requests a second\n"
          "  --idle N          N connections, one request each, held until standard input ends\n"
          "  --at-once N       idle: connections between opening and answer (8)\n"
          "  --gate            wait for a line on standard input before the run, for its end after it\n"
          "  --path P          path and query (/api/v1/orders/1842?expand=items)\n"
          "  --spread N        the @ in the path becomes a five-digit number below N, another for each "
          "request\n"
          "  --host H          Host field (api.example.com)\n"
          "  --header 'N: V'   a further field, up to 16 times\n",
          stderr);
    exit(2);
}

static void options_read(struct load *l, int argc, char **argv)
{
    enum {
        TO = 1,
        CONNECTIONS,
        SECONDS,
        REQUESTS,
        WARMUP,
        RATE,
        IDLE,
        AT_ONCE,
        GATE,
        PATH,
        SPREAD,
        HOST,
        HEADER
    };
    static const struct option names[] = {
        {"to", 1, NULL, TO},
        {"connections", 1, NULL, CONNECTIONS},
        {"seconds", 1, NULL, SECONDS},
        {"warmup", 1, NULL, WARMUP},
        {"requests", 1, NULL, REQUESTS},
        {"rate", 1, NULL, RATE},
        {"idle", 1, NULL, IDLE},
        {"at-once", 1, NULL, AT_ONCE},
        {"gate", 0, NULL, GATE},
        {"path", 1, NULL, PATH},
        {"spread", 1, NULL, SPREAD},
        {"host", 1, NULL, HOST},
        {"header", 1, NULL, HEADER},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case TO: l->to = sock_address(optarg); break;
        case CONNECTIONS: l->connections = parse_number("--connections", optarg, CONNECTIONS_MAX); break;
        case SECONDS: l->seconds = parse_seconds("--seconds", optarg); break;
        case WARMUP: l->warmup = parse_seconds("--warmup", optarg); break;
        case REQUESTS: l->limit = parse_number("--requests", optarg, UINT64_MAX); break;
        case RATE: l->rate = parse_number("--rate", optarg, 10000000); break;
        case IDLE: l->idle = parse_number("--idle", optarg, CONNECTIONS_MAX); break;
        case AT_ONCE: l->at_once = parse_number("--at-once", optarg, CONNECTIONS_MAX); break;
        case GATE: l->gate = true; break;
        case PATH: l->path = optarg; break;
        case SPREAD: l->spread = (uint32_t)parse_number("--spread", optarg, SPREAD_MAX); break;
        case HOST: l->host = optarg; break;
        case HEADER:
            if (l->extra_count == sizeof l->extra / sizeof *l->extra)
                usage();
            l->extra[l->extra_count++] = optarg;
            break;
        default: usage();
        }
    }
    if (l->idle > 0)
        l->connections = l->idle;
    bool twice = l->rate > 0 && (l->idle > 0 || l->limit > 0);
    if (optind != argc || l->to.sin_port == 0 || l->connections == 0 || l->at_once == 0 || twice)
        usage();
}

int main(int argc, char **argv)
{
    static struct load l = {
        .connections = 64,
        .seconds = 5,
        .at_once = 8,
        .path = "/api/v1/orders/1842?expand=items",
        .host = "api.example.com",
        .random = 2463534242U,
    };
    options_read(&l, argc, argv);
    request_make(&l);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (sock_raise_limit() < l.connections + 16)
        die("%zu connections are more than the limit on open files allows", l.connections);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.conns = calloc(l.connections, sizeof *l.conns);
    if (l.rate > 0)
        l.free_ring = calloc(l.connections, sizeof *l.free_ring);
    if (l.epoll < 0 || l.conns == NULL || (l.rate > 0 && l.free_ring == NULL))
        die("epoll or memory");

    if (l.idle > 0) {
        run_idle(&l);
        print_result(&l, "idle", own_cpu_seconds());
        wait_for_end();
        printf("{\"event\":\"end\",\"closed_by_server\":%zu}\n", closed_meanwhile(&l));
        return errors(&l.counts) > 0 ? 1 : 0;
    }
    open_all(&l);
    if (l.warmup > 0) {
        uint64_t limit = l.limit;
        l.limit = 0;
        run(&l, l.warmup);
        l.limit = limit;
    }
    if (l.gate) {
        puts("{\"event\":\"ready\"}");
        fflush(stdout);
        wait_for_line();
    }
    double cpu = own_cpu_seconds();
    run(&l, l.seconds);
    print_result(&l, "result", own_cpu_seconds() - cpu);
    if (l.gate)
        wait_for_end();
    return errors(&l.counts) > 0 ? 1 : 0;
}
