// A client connection, whichever protocol it speaks: private to the room. About 400 bytes while it is idle.
//
//   greeting (accept.c)   PROXY header ─▶ TLS handshake ─▶ which protocol: by ALPN, or by the first bytes
//                                                             │
//                              ┌──────────────────────────────┴─────┐
//                              ▼                                    ▼
//   HTTP/1 (h1.c, h1_reply.c)                            HTTP/2 (h2.h)
//   IDLE ──first byte──▶ HEAD ──complete──▶ EXCHANGE ──finished──▶ IDLE
//    │                    │ refused             │ body left over ──▶ DRAIN ─▶ IDLE
//    └── closed, idle_us  └── 4xx, then LINGER  └── close ──▶ LINGER ─▶ closed
#pragma once

#include "exchange/exchange.h"
#include "front/front.h"
#include "http/body.h"
#include "net/listener.h"
#include "net/tls.h"

// One listener of the snapshot in this worker; outlives its snapshot while connections use it.
struct front_listener {
    struct list node;
    struct listener net;
    struct front *front;
    struct gateway *gateway; // a reference: what settings points into
    const struct gateway_listener *settings;
    struct h1_limits limits;
    struct quota_share connections;
    int fd;
    bool accepting;
};

struct front {
    struct worker *worker;
    struct list listeners, clients;
    uint32_t client_count;
    nghttp2_session_callbacks *h2_callbacks; // made when they are first needed
    nghttp2_option *h2_options;
    struct list spare_streams; // of HTTP/2, kept for the next requests
    uint32_t spare_stream_count;
    bool draining;
    uint64_t failure_said_us;   // when a failed handshake was logged last
    uint32_t failures_not_said; // since then
    struct loop_hook turn_end;
    uint64_t relieved_us; // when those who hold what is short were looked at last
};

struct client;

// What a protocol does with its connection: one row for each, and one for what comes before.
struct client_protocol {
    struct conn_events events;
    void (*on_timer)(struct loop_timer *timer); // of client->timer
    // The worker drains: closes the connection when it is idle, or soon.
    void (*drain)(struct client *c);
    // Closes the connection at once; its exchanges end as client_gone.
    void (*abort)(struct client *c);
    // The connection closes: gives back what the protocol holds. NULL: nothing.
    void (*on_close)(struct client *c);
};

enum greeting_stage {
    GREETING_PROXY,   // the PROXY header is awaited
    GREETING_TLS,     // the handshake
    GREETING_PREFACE, // the first bytes tell HTTP/2 from HTTP/1
};

enum client_state {
    CLIENT_IDLE,     // between requests; holds no buffer and no exchange
    CLIENT_HEAD,     // a head has begun
    CLIENT_EXCHANGE, // a request is being served
    CLIENT_DRAIN,    // the answer is out, the rest of a short body is read and dropped
    CLIENT_LINGER,   // closing: our side is shut, what still comes is read and dropped (RFC 9112 9.6)
    CLIENT_CLOSED,
};

struct h1_client {
    struct exchange *x;
    struct h1_parse parse;
    struct body_reader body;
    uint32_t dropped_bytes; // DRAIN, LINGER
    uint8_t state;
    bool running;      // h1_run is on the stack
    bool body_wanted;  // the exchange takes the request body
    bool continue_due; // 100 Continue is to be said before the body is read
    bool chunked_reply, tunnel;
};

struct client {
    struct conn conn;
    struct list node;
    struct front *front;
    struct front_listener *listener;
    const struct client_protocol *protocol;
    const struct tls_server *tls_server; // whose certificates it was shown; the connection keeps it alive
    struct buf in;
    struct out out;
    struct loop_timer timer;
    uint64_t since_us; // when the state, or the last progress in it, began
    struct ip peer;
    bool active;       // as the metrics count it
    bool served;       // has had a request: idle_us applies, before it header_us
    bool close_after;  // this connection serves no other request
    bool cut;          // what is unsent cannot be completed: reset
    bool shutdown_due; // half-close as soon as the output is gone
    union {
        uint8_t stage; // of the greeting
        struct h1_client h1;
        struct h2_client *h2;
    };
};

// ---- client.c: what all protocols share ----

static inline struct worker *client_worker(const struct client *c)
{
    return c->front->worker;
}

static inline struct buf_pool *client_buffers(const struct client *c)
{
    return &c->front->worker->buffers;
}

static inline const struct listener_settings *client_settings(const struct client *c)
{
    return c->listener->settings->settings;
}

// How long a client may go on holding what it does nothing with. It is less while the gateway is short of it.
static inline uint64_t client_patience_us(const struct client *c, uint64_t us, enum overload_resource held)
{
    bool pressed = client_worker(c)->overload.is_pressed[held];
    return unlikely(pressed) && us > OVERLOAD_PATIENCE_US ? OVERLOAD_PATIENCE_US : us;
}

// The connection serves no other request: the worker drains, or descriptors are short.
static inline bool client_is_last_request(const struct client *c)
{
    return c->front->draining || unlikely(client_worker(c)->overload.is_pressed[OVERLOAD_DESCRIPTORS]);
}

// From now on this protocol hears the connection's events and its timer.
void client_speak(struct client *c, const struct client_protocol *protocol);
// The metrics count it as active or idle.
void client_set_active(struct client *c, bool active);
// An exchange for one more of its requests. NULL: memory is out.
struct exchange *client_exchange(struct client *c, const struct client_verbs *verbs, void *context);

enum receive { RECEIVED, RECEIVE_NOTHING, RECEIVE_END };
// Reads what is there into c->in, which holds at most max bytes.
enum receive client_receive(struct client *c, size_t max);
void client_give_back_empty_buffer(struct client *c);
// Half-closes now, or when the output is gone.
void client_shutdown(struct client *c);
// c lives until the end of the turn.
void client_close(struct client *c);
void client_on_free(struct conn *conn); // every protocol's events.on_free

// ---- accept.c ----

// Takes over fd and the place in listener->connections that was taken for it.
void client_accept(struct front_listener *listener, int fd, const struct addr *peer);

// ---- h1.c ----

// c->in may hold bytes already.
void h1_start(struct client *c);
// Answers what is no request of HTTP/1 in its words, then closes.
void h1_refuse(struct client *c, enum end_cause cause, struct str why);
void h1_run(struct client *c);
void h1_set_state(struct client *c, enum client_state state);
// Starts or moves the deadline of the state the client is in.
void h1_arm(struct client *c);

// ---- h1_reply.c ----

extern const struct client_verbs h1_verbs;

// ---- h2.c ----

// c->in may hold the connection preface, or its start.
void h2_start(struct client *c);
// What the HTTP/2 connections of a worker share.
void h2_shared_free(struct front *front);
