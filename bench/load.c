// load --to ADDRESS [options]: an HTTP/1.1 load generator that fits on a fraction of one core.
//
//   closed loop    default: each connection sends its next request as soon as the last is answered: finds the
//                  most a server can do; its latencies say only how long the queue is
//   open loop      --rate R: R requests a second are due at even distances, whatever the server does; a
//                  latency is counted from the moment the request was due, so a stall is seen by every
//                  request that fell due in it (no coordinated omission)
//                  --phases: until standard input ends; each line there begins a phase, and each phase has
//                  its own result, of what was answered in it
//   idle           --idle N: N connections make one request each and are then held until standard input ends
//   handshakes     --handshakes KIND: closed loop; each request has a connection of its own: TCP, TLS,
//   request,
//                  answer, close_notify, close. Resumed: by the last ticket that came in the same place
//
// With --gate the connections are opened and warmed up first, then {"event":"ready"} is printed and a line on
// standard input starts the measured run; the connections stay open after the result is printed, until
// standard input ends. So whoever measures the server from outside sees nothing but the run between these two
// lines.
//
// One line of JSON for each event. One thread, edge-triggered epoll, one recv and one send a request.

#include "load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define GRACE_NS        (5 * NS_PER_S) /* what has no answer so long after the run's end is counted unanswered */
#define OPENING_AT_ONCE 64
#define OPENING_NS      (30 * NS_PER_S) /* connections that are not open by then never will be */

/* Opens all connections, not too many at once, and waits until each is open or refused; dies when some are
 * neither. */
static void open_all(struct load *l)
{
    size_t next = 0;
    uint64_t end = clock_ns() + OPENING_NS;
    while ((next < l->connections || l->opening > 0) && clock_ns() < end) {
        while (next < l->connections && l->opening < OPENING_AT_ONCE)
            conn_open(l, &l->conns[next++]);
        if (l->opening > 0)
            turn(l, NS_PER_S);
    }
    errno = 0;
    if (l->opening > 0)
        die("%zu connections to the server are still being opened", l->opening);
    if (l->alive == 0)
        die("no connection to the server could be opened");
}

/* --- a run --- */

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
    for (size_t i = 0; l->busy + l->opening > 0 && i < l->connections; i++) {
        struct conn *c = &l->conns[i];
        bool shaking = c->state == CONN_OPENING && l->shakes != SHAKES_NONE;
        if (c->state != CONN_BUSY && !shaking)
            continue;
        l->counts.unanswered++;
        hist_record(&l->hist, now - c->from_ns);
        conn_close(l, c);
        if (l->shakes == SHAKES_NONE)
            conn_open(l, c);
    }
}

static void run_closed(struct load *l, double seconds)
{
    run_begin(l, seconds);
    for (size_t i = 0; i < l->connections; i++) {
        struct conn *c = &l->conns[i];
        if (!may_send(l, l->start_ns))
            break;
        if (c->state == CONN_FREE) {
            l->sent++;
            conn_send(l, c, clock_ns());
        } else if (c->state == CONN_CLOSED && l->shakes != SHAKES_NONE) {
            conn_open(l, c);
        }
    }
    while (l->alive > 0 && may_send(l, clock_ns()))
        turn(l, 10 * NS_PER_MS);
    if (l->limit == 0 || l->alive == 0)
        l->stop_ns = clock_ns();
    drain(l);
    if (l->limit > 0 && l->alive > 0)
        l->stop_ns = clock_ns();
}

/* Sends what is due and has a free connection, and waits for the next one. The i-th request is due at
 * start + i / rate; when no connection is free it waits, and its clock runs. */
static void send_due(struct load *l, uint64_t total)
{
    uint64_t due = l->start_ns + l->sent * NS_PER_S / l->rate;
    uint64_t now = clock_ns();
    struct conn *c;
    while (l->sent < total && due <= now && (c = ring_pop(l)) != NULL) {
        l->sent++;
        conn_send(l, c, due);
        due = l->start_ns + l->sent * NS_PER_S / l->rate;
    }
    now = clock_ns();
    turn(l, due > now ? due - now : (l->free_count == 0 ? 10 * NS_PER_MS : 0));
}

/* To the end of a run of so many requests. What cannot be sent in time counts as unanswered. */
static void run_out(struct load *l, uint64_t total)
{
    uint64_t end = l->start_ns + total * NS_PER_S / l->rate + GRACE_NS;
    while (l->sent < total && clock_ns() < end)
        send_due(l, total);
    uint64_t now = clock_ns();
    for (uint64_t next = l->sent; next < total; next++) {
        l->counts.unanswered++;
        hist_record(&l->hist, now - (l->start_ns + next * NS_PER_S / l->rate));
    }
    drain(l);
}

static void run_open(struct load *l, double seconds)
{
    run_begin(l, seconds);
    run_out(l, (uint64_t)(seconds * (double)l->rate));
}

static void run(struct load *l, double seconds)
{
    if (l->rate > 0)
        run_open(l, seconds);
    else
        run_closed(l, seconds);
}

/* --- idle --- */

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
        struct conn *c = &l->conns[i];
        char byte;
        if (c->state == CONN_CLOSED || link_recv(&c->link, &byte, 1) >= 0 || errno != EAGAIN)
            gone++;
    }
    return gone;
}

/* --- the whole --- */

static void print(const struct load *l, const char *event, const char *phase, uint64_t ns, double cpu_seconds)
{
    struct result r = {
        .event = event,
        .phase = phase,
        .loop = l->rate > 0 ? "open" : "closed",
        .connections = l->connections,
        .streams = 1,
        .rate = l->rate,
        .ns = ns,
        .cpu_seconds = cpu_seconds,
        .counts = &l->counts,
        .hist = &l->hist,
    };
    result_print(&r);
}

/* --- phases --- */

/* What was answered since the last one. */
static void end_phase(struct load *l, const char *phase, uint64_t *began_ns, double *cpu_seconds)
{
    uint64_t now = clock_ns();
    double cpu = own_cpu_seconds();
    print(l, "phase", phase, now - *began_ns, cpu - *cpu_seconds);
    *began_ns = now;
    *cpu_seconds = cpu;
    l->counts = (struct counts){0};
    hist_clear(&l->hist);
}

static void run_phases(struct load *l)
{
    char phase[PHASE_MAX], next[PHASE_MAX] = "";
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e) != 0)
        die("standard input is no pipe");
    puts("{\"event\":\"ready\"}");
    fflush(stdout);
    if (!phase_read(phase))
        return;
    run_begin(l, 0);
    uint64_t began_ns = l->start_ns;
    double cpu_seconds = own_cpu_seconds();
    for (bool ended = false; !ended;) {
        l->told = false;
        while (!l->told)
            send_due(l, UINT64_MAX);
        ended = !phase_read(next);
        if (ended)
            run_out(l, (clock_ns() - l->start_ns) * l->rate / NS_PER_S);
        end_phase(l, phase, &began_ns, &cpu_seconds);
        memcpy(phase, next, sizeof phase);
    }
}

static void run_by_time(struct load *l, double seconds)
{
    uint64_t limit = l->limit;
    l->limit = 0;
    run(l, seconds);
    l->limit = limit;
}

/* One full handshake in each place, for its tickets. */
static void collect_sessions(struct load *l)
{
    uint64_t limit = l->limit;
    l->collecting = true;
    l->limit = l->connections;
    run_closed(l, 0);
    l->limit = limit;
    l->collecting = false;
    errno = 0;
    if (errors(&l->counts) > 0)
        die("%llu errors while sessions were made that are to be resumed",
            (unsigned long long)errors(&l->counts));
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
    if (l.tokens != NULL)
        tokens_read(&l);
    request_make(&l);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (sock_raise_limit() < l.connections + 16)
        die("%zu connections are more than the limit on open files allows", l.connections);
    if (l.shakes != SHAKES_NONE)
        shake_setup(l.host, ALPN_HTTP1, l.shakes == SHAKES_RESUMED);
    else if (l.over_tls)
        l.tls = link_tls_new(ALPN_HTTP1, l.idle > 0);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.conns = calloc(l.connections, sizeof *l.conns);
    if (l.rate > 0)
        l.free_ring = calloc(l.connections, sizeof *l.free_ring);
    if (l.epoll < 0 || l.conns == NULL || (l.rate > 0 && l.free_ring == NULL))
        die("epoll or memory");
    for (size_t i = 0; l.shakes != SHAKES_NONE && i < l.connections; i++)
        l.conns[i].link.shake = shake_new();

    if (l.idle > 0) {
        run_idle(&l);
        print(&l, "idle", NULL, l.stop_ns - l.start_ns, own_cpu_seconds());
        wait_for_end();
        printf("{\"event\":\"end\",\"closed_by_server\":%zu}\n", closed_meanwhile(&l));
        return errors(&l.counts) > 0 ? 1 : 0;
    }
    if (l.shakes == SHAKES_NONE)
        open_all(&l);
    if (l.shakes == SHAKES_RESUMED)
        collect_sessions(&l);
    if (l.warmup > 0)
        run_by_time(&l, l.warmup);
    if (l.phased) {
        run_phases(&l);
        return 0;
    }
    if (l.gate)
        gate_wait();
    double cpu = own_cpu_seconds();
    run(&l, l.seconds);
    print(&l, "result", NULL, l.stop_ns - l.start_ns, own_cpu_seconds() - cpu);
    if (l.gate)
        wait_for_end();
    return errors(&l.counts) > 0 ? 1 : 0;
}
