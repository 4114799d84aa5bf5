// origin_h2 LISTEN [BYTES]: an HTTP/2 upstream without TLS (prior knowledge) that costs as little as it can.
//
// Answers a POST as a gRPC server does a unary call: HEADERS, one message of BYTES bytes (128 unless told) in
// DATA, grpc-status in trailers; 0 when the request's own message was whole, else 13 (INTERNAL). Everything
// else is answered with 200 and BYTES bytes. One thread, edge-triggered epoll; what one recv has brought is
// answered with one send.

#include "h2_wire.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS      256
#define READ_BYTES  (64 * 1024)
#define BODY_MAX    (64 * 1024)
#define STREAMS_MAX 256
#define WINDOW      (1 << 20)

struct call {
    struct client *client;
    struct call *prev, *next;
    bool is_grpc;
    struct grpc_message message; /* the request's */
    size_t sent;
};

struct client {
    struct link link;
    nghttp2_session *session;
    struct h2_rest rest;
    struct call *calls; /* under way */
    bool closed;
    struct client *next_closed;
};

static uint8_t input[READ_BYTES];
static uint8_t body[GRPC_PREFIX + BODY_MAX]; /* with the prefix, which plain answers leave out */
static size_t body_size = 128;
static char length[24];
static char date[64];
static time_t date_made;
static struct client *closed_clients;
static nghttp2_session_callbacks *callbacks;
static nghttp2_option *option;

static void make_date(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec == date_made)
        return;
    date_made = now.tv_sec;
    struct tm t;
    gmtime_r(&date_made, &t);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &t);
}

/* --- answers --- */

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *unused)
{
    (void)unused;
    struct call *call = source->ptr;
    const uint8_t *from = call->is_grpc ? body : body + GRPC_PREFIX;
    size_t size = body_size + (call->is_grpc ? GRPC_PREFIX : 0);
    size_t n = size - call->sent < room ? size - call->sent : room;
    memcpy(to, from + call->sent, n);
    call->sent += n;
    if (call->sent < size)
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (call->is_grpc) {
        nghttp2_nv trailers[] = {h2_field("grpc-status", grpc_is_whole(&call->message) ? "0" : "13"),
                                 h2_field("grpc-message", "")};
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (nghttp2_submit_trailer(session, stream, trailers, 2) != 0)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return (ssize_t)n;
}

static int answer(struct client *c, int32_t stream, struct call *call)
{
    nghttp2_data_provider data = {.source.ptr = call, .read_callback = read_body};
    if (call->is_grpc) {
        nghttp2_nv head[] = {h2_field(":status", "200"), h2_field("content-type", "application/grpc"),
                             h2_field("grpc-accept-encoding", "identity, deflate, gzip")};
        return nghttp2_submit_response(c->session, stream, head, 3, &data);
    }
    nghttp2_nv head[] = {
        h2_field(":status", "200"),
        h2_field("server", "origin"),
        h2_field("date", date),
        h2_field("content-type", "application/json; charset=utf-8"),
        h2_field("content-length", length),
        h2_field("cache-control", "private, max-age=0, must-revalidate"),
        h2_field("etag", "\"5f2b-1c9e0a7d\""),
        h2_field("vary", "Accept-Encoding"),
    };
    head[2].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME; /* the next second's is written over it */
    return nghttp2_submit_response(c->session, stream, head, sizeof head / sizeof *head, &data);
}

/* --- what the session reports --- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct client *c = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    call->client = c;
    call->next = c->calls;
    if (c->calls != NULL)
        c->calls->prev = call;
    c->calls = call;
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags, void *user)
{
    (void)flags;
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call != NULL && name_size == 7 && memcmp(name, ":method", 7) == 0)
        call->is_grpc = value_size == 4 && memcmp(value, "POST", 4) == 0;
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size,
                   void *user)
{
    (void)flags;
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (call != NULL)
        grpc_take(&call->message, data, size);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    return call != NULL ? answer(user, frame->hd.stream_id, call) : 0;
}

static void call_free(struct call *call)
{
    if (call->prev != NULL)
        call->prev->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next != NULL)
        call->next->prev = call->prev;
    free(call);
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
    (void)error;
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (call != NULL)
        call_free(call);
    return 0;
}

static void make_callbacks(void)
{
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        die("memory");
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_set_no_closed_streams(option, 1);
}

/* --- connections --- */

static void client_close(struct client *c)
{
    if (c->closed)
        return;
    c->closed = true;
    c->next_closed = closed_clients;
    closed_clients = c;
    nghttp2_session_del(c->session);
    while (c->calls != NULL)
        call_free(c->calls);
    h2_rest_reset(&c->rest);
    link_close(&c->link, false);
}

static void free_closed_clients(void)
{
    while (closed_clients != NULL) {
        struct client *c = closed_clients;
        closed_clients = c->next_closed;
        free(c);
    }
}

/* Reads to the end of what has come; false: close. */
static bool read_all(struct client *c, bool ending)
{
    for (;;) {
        ssize_t n = link_recv(&c->link, input, sizeof input);
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0 || nghttp2_session_mem_recv(c->session, input, (size_t)n) != n)
            return false;
        if ((size_t)n < sizeof input && !ending)
            return true;
        if (!h2_flush(c->session, &c->link, &c->rest))
            return false;
    }
}

static void on_event(struct client *c, uint32_t events)
{
    if (c->closed)
        return;
    bool ending = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (((events & EPOLLIN) != 0 || ending) && !read_all(c, ending)) {
        client_close(c);
        return;
    }
    if (!h2_flush(c->session, &c->link, &c->rest) ||
        (nghttp2_session_want_read(c->session) == 0 && nghttp2_session_want_write(c->session) == 0))
        client_close(c);
}

static void on_accept(int epoll, int fd)
{
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL)
        die("memory");
    c->link.fd = fd;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    if (nghttp2_session_server_new2(&c->session, callbacks, c, option) != 0 ||
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2) != 0 ||
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, WINDOW) != 0)
        die("memory");
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        client_close(c);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: origin_h2 LISTEN [BYTES]    (LISTEN as 127.0.0.1:8080)\n");
        return 2;
    }
    if (argc == 3)
        body_size = parse_number("BYTES", argv[2], BODY_MAX);
    signal(SIGPIPE, SIG_IGN);
    sock_raise_limit();
    grpc_make(body, (uint32_t)body_size);
    snprintf(length, sizeof length, "%zu", body_size);
    make_callbacks();
    struct sockaddr_in own = sock_address(argv[1]);
    int listener = sock_listen(&own);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepting) != 0)
        die("epoll");
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        make_date();
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL) {
                on_event(events[i].data.ptr, events[i].events);
                continue;
            }
            int fd;
            while ((fd = sock_accept(listener)) >= 0)
                on_accept(epoll, fd);
        }
        free_closed_clients();
    }
}
