// A client connection speaking HTTP/1: private to the room. About 400 bytes while it is idle.
//
//   PROXY ─▶ IDLE ──first byte──▶ HEAD ──complete──▶ EXCHANGE ──finished──▶ IDLE
//              │                    │ refused             │ body left over ──▶ DRAIN ─▶ IDLE
//              └── closed, idle_us  └── 4xx, then LINGER  └── close ──▶ LINGER ─▶ closed
#pragma once

#include "exchange/exchange.h"
#include "front/front.h"
#include "http/body.h"
#include "net/listener.h"

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
    bool draining;
};

enum client_state {
    CLIENT_PROXY,    // the PROXY header is awaited
    CLIENT_IDLE,     // between requests; holds no buffer and no exchange
    CLIENT_HEAD,     // a head has begun
    CLIENT_EXCHANGE, // a request is being served
    CLIENT_DRAIN,    // the answer is out, the rest of a short body is read and dropped
    CLIENT_LINGER,   // closing: our side is shut, what still comes is read and dropped (RFC 9112 9.6)
    CLIENT_CLOSED,
};

struct h1_client {
    struct conn conn;
    struct list node;
    struct front *front;
    struct front_listener *listener;
    struct exchange *x;
    struct buf in;
    struct out out;
    struct loop_timer timer;
    uint64_t since_us; // when the state, or the last progress in it, began
    struct h1_parse parse;
    struct body_reader body;
    struct ip peer;
    uint32_t dropped_bytes; // DRAIN, LINGER
    uint8_t state;
    bool running;      // h1_run is on the stack
    bool body_wanted;  // the exchange takes the request body
    bool continue_due; // 100 Continue is to be said before the body is read
    bool close_after;  // this connection serves no other request
    bool cut;          // the response cannot be completed: reset
    bool shutdown_due; // half-close as soon as the output is gone
    bool chunked_reply, tunnel;
    bool served; // has had a request: idle_us applies, before it header_us
};

// ---- h1.c ----

// Takes over fd and the place in listener->connections that was taken for it.
void h1_accept(struct front_listener *listener, int fd, const struct addr *peer);
void h1_run(struct h1_client *c);
void h1_close(struct h1_client *c);
void h1_set_state(struct h1_client *c, enum client_state state);
// Half-closes now, or when the output is gone.
void h1_shutdown(struct h1_client *c);
// Starts or moves the deadline of the state the client is in.
void h1_arm(struct h1_client *c);
// Drain: closes it when it is idle, or soon.
void h1_drain(struct h1_client *c);

// ---- h1_reply.c ----

extern const struct client_verbs h1_verbs;
