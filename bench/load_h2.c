// load_h2 --to ADDRESS [options]: an HTTP/2 load generator, closed loop: on each of N connections M streams
// are always open, the next one as soon as one has ended. With TLS (ALPN "h2" alone is offered) or by prior
// knowledge.
//
// The request is a GET of a browser's fields, or with --grpc a unary call: a message in DATA, and an answer
// that counts only with status 200, one whole message and grpc-status 0 in its trailers.
//
// --gate, and the line of JSON at the end, are those of load. One thread, edge-triggered epoll; what one recv
// has brought is followed by one send.

#include "h2_wire.h"
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

#define EVENTS          256
#define READ_BYTES      (64 * 1024)
#define FIELDS_MAX      16
#define MESSAGE_MAX     (16 * 1024)
#define CONNECTIONS_MAX 100000
#define STREAMS_MAX     1000
#define WINDOW          (1 << 20) /* for each stream, as browsers have it; for a connection 16 times that */
#define ALPN_H2         "h2"
#define GRACE_NS        (5 * NS_PER_S) /* what has no answer so long after the run's end is counted unanswered */

enum conn_state { CONN_CLOSED, CONN_OPENING, CONN_OPEN };

struct call {
    struct h2_call wire; /* first */
    uint64_t from_ns;
};

struct conn {
    struct link link;
    enum conn_state state;
    nghttp2_session *session;
    struct h2_rest rest;
    struct call *calls;
};

struct load {
    struct sockaddr_in to;
    size_t connections;
    size_t streams;
    double seconds;
    double warmup;
    uint64_t limit; /* requests, 0: by time */
    bool gate;
    bool over_tls;
    bool grpc;
    uint32_t message_bytes;
    const char *path;
    const char *host;

    SSL_CTX *tls;
    nghttp2_nv fields[FIELDS_MAX];
    size_t field_count;
    uint8_t message[GRPC_PREFIX + MESSAGE_MAX];

    int epoll;
    struct conn *conns;
    size_t open;
    size_t opening;
    size_t busy;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;

    bool sending;
    uint64_t sent;
    uint64_t start_ns;
    uint64_t stop_ns;
    struct counts counts;
    struct hist hist;
};

static uint8_t input[READ_BYTES];
static struct load load = {
    .connections = 16,
    .streams = 10,
    .seconds = 5,
    .message_bytes = 64,
    .host = "api.example.com",
};

/* --- requests --- */

static void request_make(struct load *l)
{
    const char *const grpc[][2] = {
        {":method", "POST"},
        {":scheme", l->over_tls ? "https" : "http"},
        {":path", l->path != NULL ? l->path : "/orders.v1.Orders/Get"},
        {":authority", l->host},
        {"te", "trailers"},
        {"content-type", "application/grpc"},
        {"user-agent", "grpc-c/37.0.0 (linux; chttp2)"},
        {"grpc-accept-encoding", "identity, deflate, gzip"},
        {"grpc-timeout", "10S"},
    };
    const char *const get[][2] = {
        {":method", "GET"},
        {":scheme", l->over_tls ? "https" : "http"},
        {":path", l->path != NULL ? l->path : "/api/v1/orders/1842?expand=items"},
        {":authority", l->host},
        {"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
        {"accept", "application/json, text/plain, */*"},
        {"accept-language", "en-GB,en;q=0.7,de;q=0.3"},
        {"accept-encoding", "gzip, deflate, br"},
        {"cookie", "session=8f14e45fceea167a5a36dedd4bea2543"},
    };
    const char *const(*from)[2] = l->grpc ? grpc : get;
    l->field_count = l->grpc ? sizeof grpc / sizeof *grpc : sizeof get / sizeof *get;
    for (size_t i = 0; i < l->field_count; i++)
        l->fields[i] = h2_field(from[i][0], from[i][1]);
    grpc_make(l->message, l->message_bytes);
}

static bool may_send(const struct load *l, uint64_t now)
{
    return l->sending && (l->limit > 0 ? l->sent < l->limit : now < l->stop_ns);
}

/* Begins a request; it leaves with the next flush. */
static void call_begin(struct load *l, struct conn *c, struct call *call, uint64_t now)
{
    *call = (struct call){.wire = {.busy = true, .body = {l->message, GRPC_PREFIX + l->message_bytes}},
                          .from_ns = now};
    nghttp2_data_provider data = {.source.ptr = &call->wire.body, .read_callback = h2_read_body};
    call->wire.stream =
        nghttp2_submit_request(c->session, NULL, l->fields, l->field_count, l->grpc ? &data : NULL, call);
    if (call->wire.stream < 0) { /* the server takes no more on this connection */
        call->wire.busy = false;
        return;
    }
    l->busy++;
    l->sent++;
}

/* --- what the session reports --- */

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
    struct load *l = &load;
    struct conn *c = user;
    struct h2_call *wire = h2_call_of(session, stream);
    if (wire == NULL)
        return 0;
    struct call *call = (struct call *)wire;
    const struct h2_answer *answer = &wire->answer;
    uint64_t now = clock_ns();
    wire->busy = false;
    l->busy--;
    if (error != NGHTTP2_NO_ERROR) {
        l->counts.broken++;
    } else {
        l->counts.requests++;
        hist_record(&l->hist, now - call->from_ns);
        l->counts.server_errors += answer->status >= 500;
        if (answer->status < 200 || answer->status > 299)
            l->counts.bad_status++;
        else if (l->grpc && !(answer->grpc_ok && grpc_is_whole(&answer->message)))
            l->counts.bad_message++;
    }
    if (may_send(l, now))
        call_begin(l, c, call, now);
    return 0;
}

static void make_callbacks(struct load *l)
{
    l->callbacks = h2_client_callbacks(on_stream_close);
    if (l->callbacks == NULL || nghttp2_option_new(&l->option) != 0)
        die("memory");
    nghttp2_option_set_no_closed_streams(l->option, 1);
}

/* --- connections --- */

static void conn_open(struct load *l, struct conn *c)
{
    if (!link_open(&c->link, &l->to, l->tls, l->host)) {
        l->counts.connect_failed++;
        return;
    }
    c->state = CONN_OPENING;
    l->opening++;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->link.fd, &e) != 0)
        die("epoll_ctl");
}

static void conn_close(struct load *l, struct conn *c)
{
    if (c->state == CONN_OPENING)
        l->opening--;
    else
        l->open--;
    c->state = CONN_CLOSED;
    nghttp2_session_del(c->session);
    c->session = NULL;
    h2_rest_reset(&c->rest);
    link_close(&c->link, false);
}

static void conn_broken(struct load *l, struct conn *c)
{
    bool was_opening = c->state == CONN_OPENING;
    size_t lost = 0;
    for (size_t i = 0; i < l->streams; i++) {
        lost += c->calls[i].wire.busy;
        c->calls[i].wire.busy = false;
    }
    l->busy -= lost;
    l->counts.broken += lost;
    conn_close(l, c);
    if (was_opening) {
        l->counts.connect_failed++;
        return; /* not tried again: a server that refuses would be asked for ever */
    }
    l->counts.reconnects++;
    conn_open(l, c);
}

/* All streams of a connection that are free begin a request. */
static void conn_fill(struct load *l, struct conn *c)
{
    uint64_t now = clock_ns();
    for (size_t i = 0; i < l->streams && may_send(l, now); i++)
        if (!c->calls[i].wire.busy)
            call_begin(l, c, &c->calls[i], now);
}

static void on_shaken(struct load *l, struct conn *c)
{
    if (!link_agreed(&c->link, ALPN_H2)) {
        conn_broken(l, c);
        return;
    }
    l->counts.handshakes += l->tls != NULL;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    if (nghttp2_session_client_new2(&c->session, l->callbacks, c, l->option) != 0 ||
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 3) != 0 ||
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 16 * WINDOW) != 0)
        die("memory");
    c->state = CONN_OPEN;
    l->opening--;
    l->open++;
    conn_fill(l, c);
}

static void conn_flush(struct load *l, struct conn *c)
{
    bool over = nghttp2_session_want_read(c->session) == 0 && nghttp2_session_want_write(c->session) == 0;
    if (over || !h2_flush(c->session, &c->link, &c->rest))
        conn_broken(l, c);
}

static void conn_read(struct load *l, struct conn *c, bool ending)
{
    for (;;) {
        ssize_t n = link_recv(&c->link, input, sizeof input);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || nghttp2_session_mem_recv(c->session, input, (size_t)n) != n) {
            conn_broken(l, c);
            return;
        }
        l->counts.bytes += (uint64_t)n;
        if (!ending && link_is_dry(&c->link, (size_t)n, sizeof input, false))
            return;
    }
}

static void on_event(struct load *l, struct conn *c, uint32_t events)
{
    if (c->state == CONN_CLOSED)
        return;
    bool shaken = c->state == CONN_OPENING;
    if (shaken) {
        enum link_step step = (events & (EPOLLERR | EPOLLHUP)) != 0 ? LINK_FAILED : link_shake(&c->link);
        if (step == LINK_DONE)
            on_shaken(l, c);
        else if (step == LINK_FAILED)
            conn_broken(l, c);
        if (c->state != CONN_OPEN)
            return;
    }
    bool ending = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if ((events & EPOLLIN) != 0 || ending ||
        shaken) /* what came with the handshake may have been read with it */
        conn_read(l, c, ending);
    if (c->state == CONN_OPEN)
        conn_flush(l, c);
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

static void open_all(struct load *l)
{
    for (size_t i = 0; i < l->connections; i++)
        conn_open(l, &l->conns[i]);
    uint64_t end = clock_ns() + GRACE_NS;
    while (l->opening > 0 && clock_ns() < end)
        turn(l, 10 * NS_PER_MS);
    errno = 0;
    if (l->open == 0)
        die("no HTTP/2 connection to the server could be opened");
}

/* --- a run --- */

static void run(struct load *l, double seconds, uint64_t limit)
{
    l->counts = (struct counts){0};
    hist_clear(&l->hist);
    l->sent = 0;
    l->limit = limit;
    l->start_ns = clock_ns();
    l->stop_ns = l->start_ns + (uint64_t)(seconds * (double)NS_PER_S);
    l->sending = true;
    for (size_t i = 0; i < l->connections; i++) {
        struct conn *c = &l->conns[i];
        if (c->state == CONN_OPEN) {
            conn_fill(l, c);
            conn_flush(l, c);
        }
    }
    while (l->open + l->opening > 0 && may_send(l, clock_ns()))
        turn(l, 10 * NS_PER_MS);
    if (limit == 0)
        l->stop_ns = clock_ns();
    l->sending = false;
    uint64_t end = clock_ns() + GRACE_NS;
    while (l->busy + l->opening > 0 && clock_ns() < end)
        turn(l, 10 * NS_PER_MS);
    if (limit > 0)
        l->stop_ns = clock_ns();
    l->counts.unanswered += l->busy;
}

static void usage(void)
{
    fputs("usage: load_h2 --to ADDRESS [options]\n"
          "  --connections N   connections (16)\n"
          "  --streams N       requests under way on each (10)\n"
          "  --seconds S       length of the measured run (5)\n"
          "  --requests N      this many requests instead of a time\n"
          "  --warmup S        unmeasured run before it (0)\n"
          "  --gate            wait for a line on standard input before the run, for its end after it\n"
          "  --tls             TLS 1.3 with X25519 and AES-128-GCM\n"
          "  --grpc            unary gRPC calls instead of GET\n"
          "  --message N       bytes of a call's message (64)\n"
          "  --path P          path and query\n"
          "  --host H          :authority (api.example.com)\n",
          stderr);
    exit(2);
}

static void options_read(struct load *l, int argc, char **argv)
{
    enum { TO = 1, CONNECTIONS, STREAMS, SECONDS, REQUESTS, WARMUP, GATE, TLS, GRPC, MESSAGE, PATH, HOST };
    static const struct option names[] = {
        {"to", 1, NULL, TO},
        {"connections", 1, NULL, CONNECTIONS},
        {"streams", 1, NULL, STREAMS},
        {"seconds", 1, NULL, SECONDS},
        {"warmup", 1, NULL, WARMUP},
        {"requests", 1, NULL, REQUESTS},
        {"gate", 0, NULL, GATE},
        {"tls", 0, NULL, TLS},
        {"grpc", 0, NULL, GRPC},
        {"message", 1, NULL, MESSAGE},
        {"path", 1, NULL, PATH},
        {"host", 1, NULL, HOST},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case TO: l->to = sock_address(optarg); break;
        case CONNECTIONS: l->connections = parse_number("--connections", optarg, CONNECTIONS_MAX); break;
        case STREAMS: l->streams = parse_number("--streams", optarg, STREAMS_MAX); break;
        case SECONDS: l->seconds = parse_seconds("--seconds", optarg); break;
        case WARMUP: l->warmup = parse_seconds("--warmup", optarg); break;
        case REQUESTS: l->limit = parse_number("--requests", optarg, UINT64_MAX); break;
        case GATE: l->gate = true; break;
        case TLS: l->over_tls = true; break;
        case GRPC: l->grpc = true; break;
        case MESSAGE: l->message_bytes = (uint32_t)parse_number("--message", optarg, MESSAGE_MAX); break;
        case PATH: l->path = optarg; break;
        case HOST: l->host = optarg; break;
        default: usage();
        }
    }
    if (optind != argc || l->to.sin_port == 0 || l->connections == 0 || l->streams == 0)
        usage();
}

int main(int argc, char **argv)
{
    struct load *l = &load;
    options_read(l, argc, argv);
    request_make(l);
    make_callbacks(l);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (sock_raise_limit() < l->connections + 16)
        die("%zu connections are more than the limit on open files allows", l->connections);
    if (l->over_tls)
        l->tls = link_tls_new(ALPN_H2, false);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->conns = calloc(l->connections, sizeof *l->conns);
    struct call *calls = calloc(l->connections * l->streams, sizeof *calls);
    if (l->epoll < 0 || l->conns == NULL || calls == NULL)
        die("epoll or memory");
    for (size_t i = 0; i < l->connections; i++)
        l->conns[i].calls = calls + i * l->streams;
    open_all(l);
    uint64_t limit = l->limit;
    if (l->warmup > 0)
        run(l, l->warmup, 0);
    if (l->gate)
        gate_wait();
    double cpu = own_cpu_seconds();
    run(l, l->seconds, limit);
    struct result r = {
        .event = "result",
        .loop = "closed",
        .connections = l->connections,
        .streams = l->streams,
        .ns = l->stop_ns - l->start_ns,
        .cpu_seconds = own_cpu_seconds() - cpu,
        .counts = &l->counts,
        .hist = &l->hist,
    };
    result_print(&r);
    if (l->gate)
        wait_for_end();
    return errors(&l->counts) > 0 ? 1 : 0;
}
