// The greeting: from an accepted socket to a protocol. One deadline, timeouts.header from accept, is for all
// of it; no byte of it is answered but the TLS handshake's.
#include "front/client.h"

#include "http/h2.h"
#include "net/proxy_protocol.h"

#include <stdlib.h>
#include <unistd.h>

static const struct client_protocol greeting;

static bool speaks(const struct client *c, unsigned protocol)
{
    return client_settings(c)->protocols & protocol;
}

// ---- TLS ----

static void begin_tls(struct client *c, struct tls_server *server)
{
    c->stage = GREETING_TLS;
    c->tls_server = server;
    bool begun = tls_accept(&c->conn, server, buf_str(&c->in));
    buf_release(&c->in, client_buffers(c));
    if (!begun)
        client_close(c);
}

// Scanners make thousands of these: one line a second tells enough.
static void log_failure(struct client *c)
{
    enum { SAY_EVERY_US = 1000000 };
    struct front *front = c->front;
    uint64_t now_us = c->conn.loop->now_us;
    if (front->failure_said_us && now_us < front->failure_said_us + SAY_EVERY_US) {
        front->failures_not_said++;
        return;
    }
    char peer[IP_TEXT_MAX];
    const char *why = tls_failure(&c->conn);
    log_info("front", "listener %.*s: TLS handshake with %.*s failed: %s (%u more since the last such line)",
             STR_ARG(c->listener->settings->name), (int)ip_print(&c->peer, peer), peer,
             why ? why : "the client has gone", front->failures_not_said);
    front->failure_said_us = now_us;
    front->failures_not_said = 0;
}

static void on_secured(struct conn *conn, enum secured secured)
{
    struct client *c = container_of(conn, struct client, conn);
    struct metrics *metrics = client_worker(c)->metrics;
    if (secured != SECURED) {
        metrics_count(metrics, COUNT_TLS_FAILURES, 1);
        c->tls_server = NULL;
        if (secured == SECURE_PLAIN_HTTP) {
            h1_refuse(c, END_BAD_REQUEST, STR("plain HTTP was sent to the HTTPS port"));
        } else {
            log_failure(c);
            client_close(c);
        }
        return;
    }
    const struct tls_facts *facts = tls_facts(conn);
    metrics_count(metrics, COUNT_TLS_HANDSHAKES, 1);
    if (facts->resumed)
        metrics_count(metrics, COUNT_TLS_RESUMED, 1);
    // on_ready follows.
    // Without ALPN a client speaks HTTP/1.1, unless there is only HTTP/2: then its first bytes must say so.
    if (facts->alpn == TLS_ALPN_H2)
        h2_start(c);
    else if (speaks(c, PROTOCOL_HTTP1))
        h1_start(c);
    else
        c->stage = GREETING_PREFACE;
}

// ---- the stages; each returns true when there may be more to do at once ----

static bool wait_for_more(struct client *c)
{
    switch (client_receive(c, BUF_BLOCK)) {
    case RECEIVED: return true;
    case RECEIVE_NOTHING: client_give_back_empty_buffer(c); return false;
    case RECEIVE_END: client_close(c); return false;
    }
    return false;
}

// RFC 9113 3.3: prior knowledge shows in the first 24 bytes, and nowhere else.
static bool run_preface(struct client *c)
{
    struct str said = buf_str(&c->in);
    size_t n = said.n < NGHTTP2_CLIENT_MAGIC_LEN ? said.n : NGHTTP2_CLIENT_MAGIC_LEN;
    bool may_be_h2 = n == 0 || memcmp(said.p, NGHTTP2_CLIENT_MAGIC, n) == 0;
    if (may_be_h2 && n < NGHTTP2_CLIENT_MAGIC_LEN)
        return wait_for_more(c);
    if (may_be_h2) {
        h2_start(c);
    } else if (speaks(c, PROTOCOL_HTTP1)) {
        h1_start(c);
        h1_run(c);
    } else {
        h1_refuse(c, END_VERSION, STR("only HTTP/2 is spoken here"));
    }
    return false;
}

// On a plain connection.
static void choose_protocol(struct client *c)
{
    if (speaks(c, PROTOCOL_H2))
        c->stage = GREETING_PREFACE;
    else
        h1_start(c);
}

static bool run_proxy(struct client *c)
{
    struct str data = buf_str(&c->in);
    size_t consumed = 0;
    switch (proxy_protocol_parse(data.p, data.n, &consumed, &c->peer)) {
    case PROXY_DONE: break;
    case PROXY_BAD:
        client_close(c);
        return false; // who cannot say who it is gets no answer
                      // (proxy-protocol.txt 2)
    case PROXY_MORE: return wait_for_more(c);
    }
    buf_consume(&c->in, consumed);
    struct tls_server **tls = c->listener->settings->tls;
    if (tls)
        begin_tls(c, tls[client_worker(c)->slot]);
    else
        choose_protocol(c);
    if (!c->conn.closed && c->protocol != &greeting)
        c->protocol->events.on_ready(&c->conn); // with what has been read already
    return c->protocol == &greeting && !c->conn.closed;
}

static void on_ready(struct conn *conn)
{
    struct client *c = container_of(conn, struct client, conn);
    for (bool more = true; more;) {
        switch ((enum greeting_stage)c->stage) {
        case GREETING_PROXY: more = run_proxy(c); break;
        case GREETING_TLS: more = false; break;
        case GREETING_PREFACE: more = run_preface(c); break;
        }
    }
}

// ---- open and close ----

static uint64_t patience_us(const struct client *c)
{
    return c->front->draining ? DRAIN_IDLE_MS * 1000 : client_settings(c)->timeouts.header_us;
}

static void on_timer(struct loop_timer *timer)
{
    struct client *c = container_of(timer, struct client, timer);
    uint64_t due_us = c->since_us + patience_us(c), now_us = c->conn.loop->now_us;
    if (now_us < due_us) {
        loop_timer_set(c->conn.loop, timer, (due_us - now_us) / 1000);
        return;
    }
    if (c->stage == GREETING_TLS)
        metrics_count(client_worker(c)->metrics, COUNT_TLS_FAILURES, 1);
    client_close(c);
}

static void drain(struct client *c)
{
    c->close_after = true;
    loop_timer_set(c->conn.loop, &c->timer, DRAIN_IDLE_MS);
}

static const struct client_protocol greeting = {
    .events = {.on_ready = on_ready, .on_secured = on_secured, .on_free = client_on_free},
    .on_timer = on_timer,
    .drain = drain,
    .abort = client_close,
};

void client_accept(struct front_listener *listener, int fd, const struct addr *peer)
{
    struct worker *worker = listener->front->worker;
    struct client *c = calloc(1, sizeof *c);
    if (!c || !conn_open(&c->conn, &worker->loop, fd, &greeting.events)) {
        if (!c)
            close(fd);
        free(c);
        quota_give(&listener->connections);
        return;
    }
    c->front = listener->front;
    c->listener = listener;
    c->peer = ip_of(peer);
    loop_timer_init(&c->timer, on_timer);
    client_speak(c, &greeting);
    list_push_back(&c->front->clients, &c->node);
    c->front->client_count++;
    c->since_us = worker->loop.now_us;
    metrics_connections(worker->metrics, listener->settings->metric_id, CONNECTIONS_IDLE, +1);

    const struct listener_settings *settings = client_settings(c);
    if (settings->proxy_protocol && cidr_set_has(&settings->trusted_proxies, &c->peer)) {
        c->stage = GREETING_PROXY;
    } else if (listener->settings->tls) {
        begin_tls(c, listener->settings->tls[worker->slot]);
    } else {
        choose_protocol(c);
    }
    if (!c->conn.closed && c->protocol == &greeting)
        loop_timer_set(c->conn.loop, &c->timer, patience_us(c) / 1000);
}
