#include "upstream/health_probe.h"

#include "net/tls.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

// ---- the end ----

void probe_drop(struct probe *probe)
{
    probe->owner = NULL;
    conn_close(&probe->conn);
}

static void on_free(struct conn *conn)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    if (probe->stage == PROBE_ASKING && probe->kind->fini)
        probe->kind->fini(probe);
    arena_reset(&probe->arena);
    buf_free(&probe->out);
    free(probe);
}

void probe_say(struct probe *probe, enum probe_result result, const char *format, ...)
{
    if (probe_is_over(probe))
        return;
    struct probe_verdict verdict = {.result = result};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(verdict.words, sizeof verdict.words, format, args);
    va_end(args);
    void *owner = probe->owner;
    probe_drop(probe);
    probe->on_verdict(owner, &verdict);
}

void probe_fail(struct probe *probe, const char *what, const char *why)
{
    probe_say(probe, PROBE_BAD, "%s: %s", what, why);
}

unsigned long long probe_took_ms(const struct probe *probe)
{
    return (probe->conn.loop->now_us - probe->begun_us) / 1000;
}

void probe_judge_status(struct probe *probe, unsigned status)
{
    bool good = status_set_has(&probe->question->statuses, status);
    probe_say(probe, good ? PROBE_GOOD : PROBE_BAD, "status %u after %llu ms", status, probe_took_ms(probe));
}

void probe_time_out(struct probe *probe)
{
    static const char *const awaited[] = {
        [PROBE_CONNECTING] = "connection", [PROBE_SECURING] = "TLS handshake", [PROBE_ASKING] = "answer"};
    probe_say(probe, PROBE_BAD, "timeout: no %s within %llu ms", awaited[probe->stage],
              (unsigned long long)probe->question->timeout_ms);
}

void probe_hand_over(struct probe *probe, const struct probe_question *question, struct str host, void *owner)
{
    probe->question = question;
    probe->host = host;
    probe->owner = owner;
}

// ---- asking and hearing ----

static const char *why_failed(const struct conn *conn)
{
    const char *why = conn->tls ? tls_failure(conn) : "";
    return why[0] ? why : strerror(conn->error);
}

static void send_question(struct probe *probe)
{
    for (;;) {
        if (!buf_len(&probe->out))
            probe->kind->ask(probe);
        if (probe_is_over(probe) || !buf_len(&probe->out))
            return;
        struct iovec iov = {probe->out.base + probe->out.start, buf_len(&probe->out)};
        ssize_t n = conn_sendv(&probe->conn, &iov, 1);
        if (n == CONN_AGAIN)
            return;
        if (n < 0) {
            probe_fail(probe, "send", why_failed(&probe->conn));
            return;
        }
        buf_consume(&probe->out, (size_t)n);
    }
}

// Answers what it hears, where the protocol wants that, at each piece. How much an endpoint may say is
// bounded, so that none can keep the thread busy until its deadline.
static void receive(struct probe *probe)
{
    while (!probe_is_over(probe) && probe->conn.readable) {
        size_t room = sizeof probe->data - probe->received;
        if (!room || probe->heard > HEALTH_ANSWER_BYTES) {
            probe_fail(probe, "bad response", room ? "too much of it" : "its head is too large");
            return;
        }
        ssize_t n = conn_recv(&probe->conn, probe->data + probe->received, room);
        if (n == CONN_AGAIN)
            return;
        if (n <= 0) {
            probe_fail(probe, "receive", n ? why_failed(&probe->conn) : "closed without an answer");
            return;
        }
        probe->received += (size_t)n;
        probe->heard += (size_t)n;
        probe->kind->hear(probe);
        if (!probe_is_over(probe))
            send_question(probe);
    }
}

static void begin_asking(struct probe *probe)
{
    probe->stage = PROBE_ASKING;
    if (probe->kind->begin(probe))
        send_question(probe);
    else
        probe_say(probe, PROBE_UNDECIDED, "ask: %s", strerror(ENOMEM));
}

static void on_ready(struct conn *conn)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    if (probe->stage != PROBE_ASKING)
        return;
    send_question(probe);
    receive(probe);
}

// ---- the connection ----

struct str probe_authority(const struct probe *probe)
{
    return str_starts(probe->name, STR("unix:")) ? STR("localhost") : probe->name;
}

// Each time a full handshake: a session that is resumed would not show that a certificate has expired.
static void on_connected(struct conn *conn, int error)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    if (error) {
        probe_fail(probe, "connect", strerror(error));
    } else if (!probe->question->tls) {
        begin_asking(probe);
    } else {
        probe->stage = PROBE_SECURING;
        if (!tls_connect(conn, probe->question->tls, probe->host, NULL))
            probe_say(probe, PROBE_UNDECIDED, "tls: %s", strerror(ENOMEM));
    }
}

static void on_secured(struct conn *conn, enum secured secured)
{
    struct probe *probe = container_of(conn, struct probe, conn);
    if (secured == SECURED)
        begin_asking(probe);
    else
        probe_fail(probe, "tls", tls_failure(conn));
}

static const struct conn_events probe_events = {
    .on_ready = on_ready, .on_connected = on_connected, .on_secured = on_secured, .on_free = on_free};

// This machine's want of something says nothing about the endpoint.
static bool is_own_failure(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
           error == EADDRNOTAVAIL;
}

static struct probe *give_up(struct probe_verdict *verdict, int error)
{
    verdict->result = is_own_failure(error) ? PROBE_UNDECIDED : PROBE_BAD;
    (void)snprintf(verdict->words, sizeof verdict->words, "connect: %s", strerror(error));
    return NULL;
}

struct probe *probe_start(struct loop *loop, const struct probe_question *question, struct str name,
                          struct str host, const struct addr *addr, void *owner,
                          void (*on_verdict)(void *owner, const struct probe_verdict *verdict),
                          struct probe_verdict *verdict)
{
    struct probe *probe = malloc(sizeof *probe);
    if (!probe)
        return give_up(verdict, ENOMEM);
    memset(probe, 0, offsetof(struct probe, data));
    if (!conn_connect(&probe->conn, loop, addr, &probe_events)) {
        int error = probe->conn.error;
        free(probe);
        return give_up(verdict, error);
    }
    probe->kind = question->kind;
    probe->question = question;
    probe->name = name;
    probe->host = host;
    probe->owner = owner;
    probe->on_verdict = on_verdict;
    probe->begun_us = loop->now_us;
    arena_init(&probe->arena, NULL);
    return probe;
}
