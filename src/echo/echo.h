// sallyport-echo: a service that answers with what it received, as JSON, and misbehaves on request.
//
//   server.c     listeners, shared state, turns
//   client.c     a connection: head → body → answer, pipelined, both directions at once
//   h2.c         HTTP/2: a connection that carries streams, each a client of its own
//   service.c    what the paths do: one row each
//   misbehave.c  ?misbehave=NAME[=VALUE]: one row each, before or instead of the path's service
//   outage.c     the same without being asked: bursts of misbehaviour on a schedule
//   schedule.c   when the bursts are (pure)
//   load.c       what was received, in flight and by time (pure)
//   control.c    /_control/…: health, outages, load, counters
//   answer.c     the writer of answers
//   websocket.c  /ws after its 101
//
// A request's life:
//
//   read head ─▶ misbehave (AT_HEAD)? ─▶ service.begin ─▶ service.body… ─▶ misbehave (AT_END)? ─▶ service.end
//                                                                              answer: at once, or by
//                                                                              c->produce
#pragma once

#include "base/json.h"
#include "base/map.h"
#include "base/rand.h"
#include "echo/load.h"
#include "echo/query.h"
#include "echo/schedule.h"
#include "echo/sha1.h"
#include "http/body.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"
#include "net/listener.h"
#include "net/out.h"

#include <nghttp2/nghttp2.h>

enum {
    ECHO_HEAD_BYTES = 256 * 1024, // of a request, generous: it shows what a gateway let through
    ECHO_HEADERS = 4096,          // fields of a request
    ECHO_BODY_SHOWN = 64 * 1024,  // of a request body in the JSON
    ECHO_LISTENERS = 8,
    ECHO_KEYS = 65536, // counted by ?key=, the rest is not
    ECHO_DELAY_MAX_MS = 3600 * 1000,
    ECHO_SPANS_A_TURN = 64, // of one client's answer, before others get their turn
    OUTAGE_KINDS = 16,      // of misbehaviour in one outage
    OUTAGE_PATH_BYTES = 256,
};

struct client;

// What a part of an answer that is made as the client takes it has done.
enum produced {
    PRODUCE_MORE,  // call again when there is room
    PRODUCE_WAITS, // a timer or the peer goes on
    PRODUCE_ENDED, // the answer is complete
};

// One row: what a path does. Any hook may be NULL.
struct service {
    struct str path; // a trailing "*" stands for anything
    const char *about;
    void (*begin)(struct client *c); // the head is there
    void (*body)(struct client *c,
                 struct str span); // part of the request body, while there is room for output
    void (*end)(struct client *c); // the request is complete: answer
    void (*tunnel)(struct client *c, char *data, size_t n, size_t *consumed); // bytes after a 101
};

#define SERVICE_PATH(text) .path = {text, sizeof(text) - 1}

// One row: a way to misbehave.
enum misbehave_at { AT_HEAD, AT_END };
enum misbehaved {
    INSTEAD, // of the service: it is not called (any more)
    AND_GO_ON,
};
enum afterwards { THEN_KEEP, THEN_CLOSE, THEN_RESET, THEN_HANG };
struct misbehaviour {
    const char *name, *about;
    enum misbehave_at at;
    enum misbehaved (*act)(struct client *c, uint64_t value); // NULL: sends raw
    uint64_t value;                                           // when none is given
    struct str raw;
    enum afterwards then;
    bool refuses; // in an outage: nobody is let in, instead of act
};

// ---- outages

struct outage_kind {
    const struct misbehaviour *row;
    uint64_t value;
};

struct outage_settings {
    struct schedule_settings schedule;
    struct outage_kind kinds[OUTAGE_KINDS]; // schedule.kinds of them
    double ratio;                           // of the requests during a burst
    char path[OUTAGE_PATH_BYTES];           // they begin with
    size_t path_bytes;
};

struct outage {
    struct outage_settings settings;
    struct schedule schedule;
    struct burst burst; // the present or the next one
    bool more;          // there is one
    bool out;           // it is the present one
    uint64_t bursts;    // begun
    uint64_t began_us;
    struct rand rand; // of the ratio
    struct loop_timer timer;
};

struct counters {
    uint64_t connections, requests, bad_requests, misbehaved, health_checks, body_bytes, upgrades;
};

// An address it listens on.
struct door {
    struct listener listener;
    int fd;       // the listening socket: the listener lets go of it while the door is closed
    bool control; // serves /_control/ alone, and is open in every outage
    bool closed;
};

struct echo {
    struct loop loop;
    struct door doors[ECHO_LISTENERS];
    unsigned door_count;
    struct buf_pool buffers;
    struct arena_spares spares;
    struct rand rand;
    struct str name;
    struct list clients;
    struct list again; // clients with more to do next turn
    struct loop_task again_task;
    bool again_posted;
    bool healthy;
    struct outage outage;
    bool refusing;
    struct load load;
    unsigned open;
    struct counters counters;
    struct map keys; // ?key= → struct key_count
    struct buf json; // scratch for one answer's body
    uint64_t date_second;
    char date[32];
    size_t date_length;
};

struct key_count {
    uint64_t requests, misbehaved;
};

enum request_state { REQUEST_HEAD, REQUEST_BODY, REQUEST_DONE, REQUEST_TUNNEL };
enum answer_state { ANSWER_NONE, ANSWER_GOING, ANSWER_DONE };

struct websocket {
    uint64_t left; // payload bytes of the frame still to come
    unsigned char mask[4];
    unsigned at; // offset in the mask
    unsigned char opcode;
    bool in_frame, in_message;
    unsigned char control[125]; // the payload of a control frame
    unsigned control_length;
};

struct client {
    struct conn conn;
    struct echo *echo;
    struct list node, again;
    struct buf in;
    struct out out;
    struct loop_timer timer;
    void (*on_timer)(struct client *c);
    uint64_t id;
    uint64_t served; // requests whose head was read on this connection
    bool control;    // came in by a control door
    struct h2 *h2;   // it speaks HTTP/2; NULL: HTTP/1
    int32_t stream;  // of HTTP/2: this is one of its requests, without a connection; 0: it is a connection
    bool eof;
    bool ends_silently; // close after this answer without having said so
    uint64_t ends_after_ms;

    // The request.
    enum request_state state;
    struct arena arena;
    struct h1_parse parse;
    struct request_head request;
    struct headers trailers;
    struct body_reader reader;
    struct buf body_text; // the first ECHO_BODY_SHOWN bytes
    uint64_t body_bytes;
    bool hash;
    struct sha1 sha1;
    struct str wishes; // the value of X-Echo, or else the query
    bool counted;      // in echo->load
    const struct service *service;
    const struct misbehaviour *misbehaviour;
    uint64_t misbehave_value;
    bool postponed; // the service has not begun: its time comes at the request's end
    bool deaf;      // reads nothing more of this request
    bool no_100;

    // The answer.
    enum answer_state answer;
    enum produced (*produce)(struct client *c);
    bool waiting; // for the timer, or for ever
    bool keep;
    bool head_only;       // HEAD, 204, 304: no body bytes
    enum framing framing; // of the answer
    unsigned status;      // instead of 200, 0: none
    uint64_t pace_ms;     // between the pieces of a body
    uint64_t total, sent; // of a body that is produced
    uint64_t chunk, delay_ms;
    struct str text; // what is produced from
    struct websocket ws;
    // HTTP/2
    bool head_sent;
    bool head_is_all;             // and ends the stream
    uint32_t unread;              // bytes of the body whose window is not open again
    struct headers *end_trailers; // that end the answer; NULL: none
};

// ---- server.c

must_check bool echo_init(struct echo *echo, struct str name, struct err *err);
must_check bool echo_listen(struct echo *echo, const struct addr *addr, bool control, struct err *err);
// Whether it lets nobody in: connections are reset, new ones refused, as if the process had died. The ports
// stay its own. Control doors are not touched.
void echo_refuse(struct echo *echo, bool refuse);
void echo_fini(struct echo *echo);
// The client runs again in the next turn.
void echo_run_again(struct echo *echo, struct client *c);
struct str echo_date(struct echo *echo);
// NULL when there are too many.
struct key_count *echo_key(struct echo *echo, struct str key);
void echo_forget_keys(struct echo *echo);

// ---- client.c

void client_accept(struct echo *echo, int fd, bool control);
void client_run(struct client *c);
void client_close(struct client *c);
void client_reset(struct client *c); // with a RST, or RST_STREAM
// on_timer is called that much later; the answer waits meanwhile.
void client_wait(struct client *c, uint64_t ms, void (*on_timer)(struct client *c));
// What the service does at the request's end.
void client_serve(struct client *c);

// For h2.c, which has no connection for each request:
struct client *client_new(struct echo *echo); // NULL: memory is out
void client_begin_request(struct client *c);  // its head is in c->request
void client_note_body(struct client *c, struct str span);
void client_end_request(struct client *c);
bool client_step_answer(struct client *c); // true when something moved
bool client_receive(struct client *c);     // into c->in; true when there is more, or the end
void client_stop(struct client *c);        // timers
void client_forget(struct client *c);      // what it holds, but for what is to be sent

// ---- h2.c

// Whether the connection begins as HTTP/2 does; *partial: more bytes will tell.
bool h2_preface(const struct client *c, bool *partial);
void h2_begin(struct client *carrier);
void h2_end(struct client *carrier);
void h2_run(struct client *carrier);
void h2_stream_run(struct client *s);
void h2_flush(struct h2 *h2);
void h2_reset_stream(struct client *s, uint32_t error);
void h2_answer_head(struct client *s, const struct response_head *head, enum framing framing);
void h2_answer_bytes(struct client *s, struct str bytes);
void h2_answer_end(struct client *s, const struct headers *trailers);
// The one it came by: a stream's carrier, or itself.
struct client *client_connection(struct client *c);

// ---- answer.c

// The head; length counts with FRAMING_LENGTH only. CHUNKED becomes CLOSE for HTTP/1.0.
void answer_head(struct client *c, unsigned status, struct str type, enum framing framing, uint64_t length);
// With further fields; framing fields are the writer's.
void answer_head_with(struct client *c, unsigned status, struct str type, struct headers *more,
                      enum framing framing, uint64_t length);
void answer_informational(struct client *c, unsigned status, const struct headers *headers);
void answer_span(struct client *c, struct str span);
void answer_end(struct client *c, const struct headers *trailers);
// Head, body and end; status 200 may become what ?misbehave=status= asks for.
void answer_text(struct client *c, unsigned status, struct str type, struct str body);
void answer_json(struct client *c, unsigned status); // echo->json is the body
// gRPC: the call's end; when no head has been sent, in a head alone (Trailers-Only).
void answer_grpc(struct client *c, unsigned grpc_status);
// Bytes as they are; nothing is added.
void answer_raw(struct client *c, struct str bytes);
// Goes on by produce from now on.
void answer_produce(struct client *c, enum produced (*produce)(struct client *c));
// What follows the last byte.
void answer_then(struct client *c, enum afterwards then);
// Endless text with a period of ANSWER_PERIOD: the piece at this offset, at most n bytes.
enum { ANSWER_PERIOD = 26 };
struct str answer_filler(uint64_t offset, uint64_t n);

// ---- outage.c

// Why not, or NULL.
const char *outage_parse(struct str text, struct outage_settings *settings);
void outage_init(struct echo *echo);
// In place of any other one.
void outage_begin(struct echo *echo, const struct outage_settings *settings);
void outage_end(struct echo *echo);
// Whether a request of this path is struck at this moment, and by what.
bool outage_strikes(struct echo *echo, struct str path, const struct misbehaviour **row, uint64_t *value);
// What goes on, and the first so many bursts of its schedule.
void outage_describe(struct echo *echo, struct json *json, uint64_t bursts);

// ---- service.c, control.c, misbehave.c, websocket.c

const struct service *service_find(const struct client *c);
// A health check, by HTTP or gRPC.
bool is_health_path(struct str path);
void json_begin(struct client *c, struct json *json); // into echo->json, for answer_json
bool is_control_path(struct str path);
extern const struct service control_services[];
extern const size_t control_service_count;
void services_list(struct json *json);
void describe_request(struct client *c, struct json *json);
// NAME[=VALUE]; false: no such row.
bool misbehave_parse(struct str text, const struct misbehaviour **row, uint64_t *value);
// Notes which row this request asks for or an outage has for it; false when it names none that exists
// (answered).
bool misbehave_find(struct client *c);
enum misbehaved misbehave_now(struct client *c);
void misbehave_list(struct json *json);
void websocket_begin(struct client *c);
void websocket_tunnel(struct client *c, char *data, size_t n, size_t *consumed);
