// The life of an HTTP/2 client connection: bytes in, streams noted and settled, frames out, deadlines,
// goodbye.
#include "front/h2.h"

#include <stdlib.h>

static const uint32_t GOAWAY_BYTES = 17;

void h2_wake(struct h2_client *h2)
{
    loop_late(h2->client->conn.loop, &h2->late);
}

// ---- goodbye ----

// Says why, when nghttp2 can no longer be asked to: a whole frame (RFC 9113 6.8), for c->out ends with one.
static void put_goaway(struct h2_client *h2, uint32_t error)
{
    struct client *c = h2->client;
    uint32_t last = (uint32_t)nghttp2_session_get_last_proc_stream_id(h2->session);
    uint8_t frame[17] = {0, 0, 8, NGHTTP2_GOAWAY};
    for (unsigned i = 0; i < 4; i++) {
        frame[9 + i] = (uint8_t)(last >> (24 - 8 * i));
        frame[13 + i] = (uint8_t)(error >> (24 - 8 * i));
    }
    if (out_reserve(&c->out, client_buffers(c), GOAWAY_BYTES))
        buf_put(&c->out.buf, (struct str){(const char *)frame, GOAWAY_BYTES});
}

// Every stream ends; what is in c->out still goes out, then nothing more is said or heard.
static void linger(struct h2_client *h2)
{
    struct client *c = h2->client;
    if (h2->lingering || c->conn.closed)
        return;
    h2->lingering = true;
    h2_end_streams(h2, END_CLIENT_GONE);
    out_flush(&c->out, &c->conn, client_buffers(c));
    if (c->out.broken || c->conn.hung_up) {
        client_close(c);
        return;
    }
    client_shutdown(c);
    buf_release(&c->in, client_buffers(c));
    c->since_us = c->conn.loop->now_us;
    h2_arm_in(h2, LINGER_MS * 1000);
}

static void give_up(struct h2_client *h2, uint32_t error)
{
    if (h2->lingering)
        return;
    if (error == NGHTTP2_ENHANCE_YOUR_CALM)
        metrics_count(client_worker(h2->client)->metrics, COUNT_H2_FLOODS, 1);
    put_goaway(h2, error);
    h2->failure = error;
    linger(h2);
}

// The connection is no more, or is to be no more.
static void cut(struct h2_client *h2, enum end_cause cause)
{
    struct client *c = h2->client;
    if (c->conn.closed)
        return;
    h2->lingering = true; // nothing is sent any more
    h2_end_streams(h2, cause);
    client_close(c);
}

// ---- out ----

static void read_frames(struct h2_client *h2);

static void run_late(struct loop_late *late)
{
    struct h2_client *h2 = container_of(late, struct h2_client, late);
    struct client *c = h2->client;
    if (h2->unread && !c->conn.closed && !h2->lingering)
        read_frames(h2);
    if (c->conn.closed || h2->lingering)
        return;
    h2_settle(h2);
    h2_resume_data(h2);
    h2_serialise(h2);
    h2_settle(h2); // streams that are over now
    out_flush(&c->out, &c->conn, client_buffers(c));
    if (c->out.broken)
        cut(h2, END_CLIENT_GONE);
    else if (h2->failure)
        give_up(h2, h2->failure);
    else if (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session))
        linger(h2); // GOAWAY has been said, and no stream is left
    else if (!list_empty(&h2->due) || (!c->out.blocked && !list_empty(&h2->late_streams)))
        h2_wake(h2);
    if (c->out.blocked && !c->conn.closed)
        h2_arm_in(h2, client_settings(c)->timeouts.write_us);
}

// ---- in ----

static uint32_t goaway_code(ssize_t error)
{
    switch (error) {
    case NGHTTP2_ERR_NOMEM: return NGHTTP2_INTERNAL_ERROR;
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC: return NGHTTP2_PROTOCOL_ERROR;
    default: return NGHTTP2_ENHANCE_YOUR_CALM; // one of nghttp2's bounds
    }
}

// The stream takes the DATA that nghttp2 stopped at, from where it lies.
static void take_chunk(struct h2_client *h2)
{
    struct h2_stream *s = h2->chunk_stream;
    struct str chunk = h2->chunk;
    h2->chunk_stream = NULL;
    if (s)
        h2_take_data(s, chunk);
}

// False: the connection is over.
static bool feed(struct h2_client *h2)
{
    struct client *c = h2->client;
    struct str data = buf_str(&c->in);
    if (!h2_frames_follow(&h2->frames, (const uint8_t *)data.p, data.n)) {
        give_up(h2, NGHTTP2_ENHANCE_YOUR_CALM);
        return false;
    }
    do {
        h2->paused = false;
        ssize_t n = nghttp2_session_mem_recv(h2->session, (const uint8_t *)data.p, data.n);
        if (n < 0) {
            give_up(h2, h2->failure ? h2->failure : goaway_code(n));
            return false;
        }
        data = str_skip(data, (size_t)n);
        take_chunk(h2);
    } while (data.n || h2->paused);
    buf_consume(&c->in, buf_len(&c->in));
    h2_settle(h2);
    return !c->conn.closed && !h2->lingering;
}

// RFC 9113 9.3.2 is one more reason to bound it: a header block that never ends keeps all other streams out.
static void note_partial(struct h2_client *h2)
{
    uint64_t now_us = h2->client->conn.loop->now_us;
    if (!h2_frames_partial(&h2->frames)) {
        h2->partial_us = 0;
    } else if (!h2->partial_us || h2->partial_begun != h2->frames.begun) {
        h2->partial_us = now_us;
        h2->partial_begun = h2->frames.begun;
        h2_arm_in(h2, client_settings(h2->client)->timeouts.header_us);
    }
}

// Our side is shut; reading on keeps the kernel from resetting what the client has not read yet.
static void drop_input(struct h2_client *h2)
{
    struct client *c = h2->client;
    enum receive got;
    while (!c->shutdown_due && (got = client_receive(c, BUF_BLOCK)) != RECEIVE_NOTHING) {
        h2->dropped_bytes += (uint32_t)buf_len(&c->in);
        buf_consume(&c->in, buf_len(&c->in));
        if (got == RECEIVE_END || h2->dropped_bytes >= LINGER_BYTES) {
            client_close(c);
            return;
        }
    }
    client_give_back_empty_buffer(c);
}

// Frames that cost more than they weigh (header blocks) can come faster than they are dealt with: without an
// end to a turn, nobody else is heard meanwhile, and nothing is said that would be counted (h2_guard).
static bool is_turn_over(struct h2_client *h2)
{
    uint64_t turn = h2->client->conn.loop->turns;
    if (h2->turn != turn) {
        h2->turn = turn;
        h2->turn_bytes = 0;
    }
    return h2->turn_bytes >= H2_TURN_BYTES;
}

static void read_frames(struct h2_client *h2)
{
    struct client *c = h2->client;
    h2->unread = false;
    // Who does not read answers is not listened to.
    while (!c->out.blocked) {
        if (is_turn_over(h2)) {
            h2->unread = true;
            h2_wake(h2);
            break;
        }
        if (!buf_len(&c->in)) {
            enum receive got = client_receive(c, BUF_BLOCK);
            if (got == RECEIVE_END) {
                cut(h2, END_CLIENT_GONE);
                return;
            }
            if (got == RECEIVE_NOTHING)
                break;
        }
        h2->turn_bytes += (uint32_t)buf_len(&c->in);
        if (!feed(h2))
            return;
    }
    client_give_back_empty_buffer(c);
    note_partial(h2);
}

static void on_ready(struct conn *conn)
{
    struct client *c = container_of(conn, struct client, conn);
    struct h2_client *h2 = c->h2;
    if (c->out.blocked && conn->writable) {
        c->since_us = conn->loop->now_us;
        out_flush(&c->out, conn, client_buffers(c));
        if (c->shutdown_due)
            client_shutdown(c);
    }
    if (c->out.broken || conn->hung_up) {
        cut(h2, END_CLIENT_GONE);
        return;
    }
    if (h2->lingering) {
        drop_input(h2);
        return;
    }
    h2_wake(h2);
    read_frames(h2);
}

// ---- deadlines ----

void h2_arm_in(struct h2_client *h2, uint64_t us)
{
    struct client *c = h2->client;
    uint64_t due_ms = loop_now_ms(c->conn.loop) + us / 1000 + 1;
    // loop_timer_set would move a sooner deadline.
    if (!c->timer.due_ms || due_ms < c->timer.due_ms)
        loop_timer_set(c->conn.loop, &c->timer, us / 1000);
}

struct watch {
    uint64_t now_us, next_us; // when to look again; UINT64_MAX: not until something happens
};

// Whether what has lasted since then is over its time. since_us 0: it does not last.
static bool is_late(struct watch *watch, uint64_t since_us, uint64_t patience_us)
{
    if (!since_us || !patience_us)
        return false;
    uint64_t due_us = since_us + patience_us;
    if (due_us <= watch->now_us)
        return true;
    if (due_us < watch->next_us)
        watch->next_us = due_us;
    return false;
}

static bool waits_for_body(const struct h2_stream *s)
{
    return s->x && s->body_wanted && !s->tunnel && !s->ended && !buf_len(&s->held);
}

static void watch_stream(struct h2_stream *s, struct watch *watch)
{
    const struct listener_settings *settings = client_settings(s->h2->client);
    if (waits_for_body(s) && is_late(watch, s->since_us, settings->timeouts.body_us)) {
        s->body_wanted = false;
        exchange_body_fail(s->x, END_REQUEST_TIMEOUT, STR("the request body did not arrive in time"));
    } else if (is_late(watch, s->stalled_us,
                       client_patience_us(s->h2->client, settings->timeouts.write_us, OVERLOAD_MEMORY))) {
        h2_reset(s, NGHTTP2_CANCEL);
        if (s->x)
            exchange_client_gone(s->x, END_CLIENT_SLOW);
    } else if (is_late(watch, s->over_us, LINGER_MS * 1000)) {
        h2_reset(s, NGHTTP2_NO_ERROR);
    }
}

static bool watch_connection(struct h2_client *h2, struct watch *watch)
{
    struct client *c = h2->client;
    const struct listener_settings *settings = client_settings(c);
    if (c->out.blocked &&
        is_late(watch, c->since_us, client_patience_us(c, settings->timeouts.write_us, OVERLOAD_MEMORY))) {
        c->cut = true;
        cut(h2, END_CLIENT_SLOW);
        return false;
    }
    if (is_late(watch, h2->partial_us, settings->timeouts.header_us)) {
        give_up(h2, NGHTTP2_PROTOCOL_ERROR);
        return false;
    }
    if (is_late(watch, h2->goaway_us, DRAIN_IDLE_MS * 1000)) {
        h2->goaway_us = 0;
        // RFC 9113 6.8: what was under way when the first was said has arrived by now.
        if (nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
                                  nghttp2_session_get_last_proc_stream_id(h2->session), NGHTTP2_NO_ERROR,
                                  NULL, 0) != 0)
            give_up(h2, NGHTTP2_NO_ERROR);
        h2_wake(h2);
    }
    uint64_t idle_us = c->served ? client_patience_us(c, settings->timeouts.idle_us, OVERLOAD_DESCRIPTORS)
                                 : settings->timeouts.header_us;
    if (!h2->stream_count && is_late(watch, h2->idle_us, idle_us)) {
        give_up(h2, NGHTTP2_NO_ERROR);
        return false;
    }
    return true;
}

// Answers that a slow client still takes have the time of all that is sent; a peer at fault has not.
static void watch_linger(struct h2_client *h2, struct watch *watch)
{
    struct client *c = h2->client;
    bool sends = !out_empty(&c->out) && !h2->failure;
    if (is_late(watch, c->since_us, sends ? client_settings(c)->timeouts.write_us : LINGER_MS * 1000))
        client_close(c);
    else
        h2_arm_in(h2, watch->next_us - watch->now_us);
}

static void on_timer(struct loop_timer *timer)
{
    struct client *c = container_of(timer, struct client, timer);
    struct h2_client *h2 = c->h2;
    struct watch watch = {c->conn.loop->now_us, UINT64_MAX};
    if (h2->lingering) {
        watch_linger(h2, &watch);
        return;
    }
    if (!watch_connection(h2, &watch))
        return;
    list_each (&h2->streams, node) // none is freed before it is settled
        watch_stream(container_of(node, struct h2_stream, node), &watch);
    h2_wake(h2);
    if (watch.next_us != UINT64_MAX)
        h2_arm_in(h2, watch.next_us - watch.now_us);
}

// ---- the worker ends ----

static void drain(struct client *c)
{
    struct h2_client *h2 = c->h2;
    if (h2->draining || h2->lingering)
        return;
    h2->draining = true;
    h2->goaway_us = c->conn.loop->now_us;
    if (nghttp2_submit_shutdown_notice(h2->session) != 0)
        give_up(h2, NGHTTP2_INTERNAL_ERROR);
    h2_arm_in(h2, DRAIN_IDLE_MS * 1000);
    h2_wake(h2);
}

static void abort_client(struct client *c)
{
    c->cut = true;
    cut(c->h2, END_CLIENT_GONE);
}

// ---- open and close ----

static void on_close(struct client *c)
{
    struct h2_client *h2 = c->h2;
    check(!h2->stream_count);
    loop_late_cancel(&h2->late);
}

static void on_free(struct conn *conn)
{
    struct h2_client *h2 = container_of(conn, struct client, conn)->h2;
    nghttp2_session_del(h2->session); // not sooner: one of its calls may be on the stack when c closes
    free(h2);
    client_on_free(conn);
}

static const struct client_protocol h2_protocol = {
    .events = {.on_ready = on_ready, .on_free = on_free},
    .on_timer = on_timer,
    .drain = drain,
    .abort = abort_client,
    .on_close = on_close,
};

static nghttp2_session *open_session(struct front *front, struct h2_client *h2)
{
    nghttp2_session *session;
    if (!front->h2_callbacks)
        front->h2_callbacks = h2_callbacks_new();
    if (!front->h2_options)
        front->h2_options = h2_options();
    nghttp2_mem memory = h2_memory(&front->worker->blocks);
    if (!front->h2_callbacks || !front->h2_options ||
        nghttp2_session_server_new3(&session, front->h2_callbacks, h2, front->h2_options, &memory) != 0)
        return NULL;
    uint32_t header_bytes = h2->client->listener->limits.head_bytes;
    if (h2_submit_settings(session, false, header_bytes) == 0)
        return session;
    nghttp2_session_del(session);
    return NULL;
}

void h2_start(struct client *c)
{
    struct h2_client *h2 = calloc(1, sizeof *h2);
    if (h2)
        h2->client = c;
    if (!h2 || !(h2->session = open_session(c->front, h2))) {
        free(h2);
        client_close(c);
        return;
    }
    list_init(&h2->streams);
    list_init(&h2->due);
    list_init(&h2->late_streams);
    loop_late_init(&h2->late, run_late);
    h2->idle_us = c->since_us = c->conn.loop->now_us;
    h2->frames.left = NGHTTP2_CLIENT_MAGIC_LEN; // as if it were the payload of a frame
    c->h2 = h2;
    client_speak(c, &h2_protocol);
    h2_arm_in(h2, client_settings(c)->timeouts.header_us);
    h2_wake(h2);
    if (c->front->draining)
        drain(c);
    if (!c->conn.closed && buf_len(&c->in))
        read_frames(h2);
}

void h2_shared_free(struct front *front)
{
    struct list *node;
    while ((node = list_pop_front(&front->spare_streams)))
        free(container_of(node, struct h2_stream, node));
    nghttp2_session_callbacks_del(front->h2_callbacks);
    nghttp2_option_del(front->h2_options);
}
