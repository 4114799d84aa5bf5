/*
 * origin LISTEN [BYTES [FIELD]...]: an upstream that costs as little as it can.
 *
 * Answers every request with 200 and a body of BYTES bytes (128 unless told), or of N bytes for the path
 * /bytes/N. FIELDs ("X-User-Id: user-1") stand in the place of some usual ones: an Auth Service that says
 * yes. HTTP/1.1 with keep-alive and pipelining, one thread, edge-triggered epoll: one recv and one send a
 * request. It is honest about framing, so that a proxy's mistake shows: a request body with Content-Length is
 * read and dropped, a head it cannot read is answered 400, a chunked request body 411, and the connection is
 * closed after both.
 */

#include "sock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     256
#define READ_BYTES (64 * 1024)
#define HEAD_MAX   (32 * 1024) /* a longer request head is answered 400 */
#define BATCH_MAX  (64 * 1024) /* answers to pipelined requests gathered for one send */
#define SMALL_MAX  (16 * 1024) /* bodies up to this size go into the batch; longer ones are streamed */
#define HEAD_ROOM  2048        /* for the head of an answer */
#define BODY_MAX   (1ULL << 40)

struct client {
    int fd;
    bool readable;
    bool writable;
    bool ending;  /* the peer has sent its FIN: read on to the end */
    bool closing; /* close once everything is sent */
    bool closed;
    uint64_t skip;      /* bytes of a request body still to come */
    uint64_t body_left; /* bytes of a long answer still to send */
    char *out;          /* what a full socket refused */
    size_t out_at;
    size_t out_size;
    char *in; /* a request not yet whole, or not yet answered */
    size_t in_size;
    struct client *next_closed;
};

struct request {
    bool keep;
    bool chunked;
    bool head;       /* HEAD: no body in the answer */
    uint64_t length; /* Content-Length */
    uint64_t answer; /* bytes asked for */
};

static char input[HEAD_MAX + READ_BYTES];
static char batch[BATCH_MAX];
static size_t batch_size;
static char filler[READ_BYTES];
static uint64_t default_bytes = 128;
static char fields[1024] = "Cache-Control: private, max-age=0, must-revalidate\r\n"
                           "ETag: \"5f2b-1c9e0a7d\"\r\n"
                           "Vary: Accept-Encoding\r\n";
static char usual[SMALL_MAX + HEAD_ROOM]; /* the answer to a plain request, made once a second for its Date */
static size_t usual_size;
static time_t usual_made;
static struct client *closed_clients;

static const char bad_request[] =
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
static const char length_required[] =
    "HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

static void client_close(struct client *c)
{
    if (c->closed)
        return;
    c->closed = true;
    c->next_closed = closed_clients;
    closed_clients = c;
    close(c->fd);
}

static void free_closed_clients(void)
{
    while (closed_clients != NULL) {
        struct client *c = closed_clients;
        closed_clients = c->next_closed;
        free(c->out);
        free(c->in);
        free(c);
    }
}

static size_t write_head(char *to, size_t room, uint64_t length, bool keep)
{
    char date[64];
    struct tm t;
    time_t now = time(NULL);
    gmtime_r(&now, &t);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &t);
    int n = snprintf(to, room,
                     "HTTP/1.1 200 OK\r\n"
                     "Server: origin\r\n"
                     "Date: %s\r\n"
                     "Content-Type: application/json; charset=utf-8\r\n"
                     "Content-Length: %llu\r\n"
                     "%s%s\r\n",
                     date, (unsigned long long)length, fields, keep ? "" : "Connection: close\r\n");
    return n > 0 ? (size_t)n : 0;
}

static void make_usual(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec == usual_made)
        return;
    usual_made = now.tv_sec;
    usual_size = write_head(usual, HEAD_ROOM, default_bytes, true);
    if (default_bytes <= SMALL_MAX) {
        memcpy(usual + usual_size, filler, default_bytes);
        usual_size += default_bytes;
    }
}

/* Sends, and keeps what the socket refuses; false when the connection is gone. */
static bool send_or_keep(struct client *c, const char *data, size_t size)
{
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return false;
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == size)
        return true;
    c->writable = false;
    c->out = malloc(size - sent);
    if (c->out == NULL)
        return false;
    memcpy(c->out, data + sent, size - sent);
    c->out_at = 0;
    c->out_size = size - sent;
    return true;
}

static bool flush_batch(struct client *c)
{
    size_t size = batch_size;
    batch_size = 0;
    return size == 0 || send_or_keep(c, batch, size);
}

/* Sends what is owed: kept bytes first, then the rest of a long body. */
static bool send_owed(struct client *c)
{
    while (c->writable && c->out_size > 0) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_size - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return false;
        c->writable = n >= 0;
        c->out_at += n > 0 ? (size_t)n : 0;
        if (c->out_at == c->out_size) {
            free(c->out);
            c->out = NULL;
            c->out_size = 0;
        }
    }
    while (c->writable && c->body_left > 0) {
        size_t size = c->body_left < sizeof filler ? (size_t)c->body_left : sizeof filler;
        ssize_t n = send(c->fd, filler, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return false;
        c->writable = n >= 0;
        c->body_left -= n > 0 ? (uint64_t)n : 0;
    }
    return true;
}

static bool owes(const struct client *c)
{
    return c->out_size > 0 || c->body_left > 0;
}

static bool starts_with(const char *line, const char *end, const char *word, size_t size)
{
    return (size_t)(end - line) >= size && strncasecmp(line, word, size) == 0;
}

/* Reads one whole head; false when it makes no sense. */
static bool read_head(const char *p, const char *end, struct request *r)
{
    const char *line_end = memchr(p, '\r', (size_t)(end - p));
    if (line_end == NULL || line_end - p < 14 || memcmp(line_end - 9, " HTTP/1.", 8) != 0)
        return false;
    *r = (struct request){.keep = line_end[-1] == '1', .answer = default_bytes};
    r->head = memcmp(p, "HEAD ", 5) == 0;
    const char *path = memchr(p, ' ', (size_t)(line_end - p));
    if (path != NULL && line_end - path > 17 && memcmp(path + 1, "/bytes/", 7) == 0)
        r->answer = strtoull(path + 8, NULL, 10) % (BODY_MAX + 1);
    for (p = line_end + 2; p < end; p = line_end + 2) {
        line_end = memchr(p, '\r', (size_t)(end - p));
        if (line_end == NULL || line_end[1] != '\n')
            return false;
        if (line_end == p)
            return true;
        char first = (char)(*p | 0x20);
        if (first != 'c' && first != 't')
            continue;
        if (starts_with(p, line_end, "content-length:", 15))
            r->length = strtoull(p + 15, NULL, 10);
        else if (starts_with(p, line_end, "transfer-encoding:", 18))
            r->chunked = true;
        else if (starts_with(p, line_end, "connection: close", 17))
            r->keep = false;
        else if (starts_with(p, line_end, "connection: keep-alive", 22))
            r->keep = true;
    }
    return true;
}

static bool answer(struct client *c, const struct request *r)
{
    bool small = r->answer <= SMALL_MAX;
    if (batch_size > sizeof batch - sizeof usual && !flush_batch(c))
        return false;
    if (small && r->keep && !r->head && r->answer == default_bytes) {
        memcpy(batch + batch_size, usual, usual_size);
        batch_size += usual_size;
        return true;
    }
    batch_size += write_head(batch + batch_size, HEAD_ROOM, r->answer, r->keep);
    c->closing = !r->keep;
    if (small && !r->head) {
        memcpy(batch + batch_size, filler, (size_t)r->answer);
        batch_size += (size_t)r->answer;
    } else if (!r->head) {
        c->body_left = r->answer;
        return flush_batch(c) && send_owed(c);
    }
    return true;
}

static bool refuse(struct client *c, const char *words, size_t size)
{
    c->closing = true;
    return flush_batch(c) && (c->out_size > 0 || send_or_keep(c, words, size));
}

/* Answers the whole requests among the bytes; sets *used to how many bytes that took. */
static bool answer_all(struct client *c, const char *p, size_t size, size_t *used)
{
    const char *start = p;
    const char *end = p + size;
    while (p < end && !owes(c) && !c->closing) {
        if (c->skip > 0) {
            size_t n = c->skip < (uint64_t)(end - p) ? (size_t)c->skip : (size_t)(end - p);
            c->skip -= n;
            p += n;
            continue;
        }
        struct request r;
        const char *stop = memmem(p, (size_t)(end - p), "\r\n\r\n", 4);
        if (stop == NULL && end - p <= HEAD_MAX)
            break;
        if (stop == NULL || !read_head(p, stop + 4, &r)) {
            p = end;
            if (!refuse(c, bad_request, sizeof bad_request - 1))
                return false;
            break;
        }
        if (r.chunked) {
            p = end;
            if (!refuse(c, length_required, sizeof length_required - 1))
                return false;
            break;
        }
        p = stop + 4;
        c->skip = r.length;
        if (!answer(c, &r))
            return false;
    }
    *used = (size_t)(p - start);
    return flush_batch(c);
}

/* One read, or what is left of an earlier one: answered as far as it goes, the rest kept. */
static bool serve(struct client *c, size_t size)
{
    size_t used = 0;
    if (!answer_all(c, input, size, &used))
        return false;
    if (used < size) {
        c->in = malloc(size - used);
        if (c->in == NULL)
            return false;
        memcpy(c->in, input + used, size - used);
        c->in_size = size - used;
    }
    return true;
}

/* Moves kept input back to the front of the shared buffer. */
static size_t take_kept(struct client *c)
{
    size_t size = c->in_size;
    if (size > 0) {
        memcpy(input, c->in, size);
        free(c->in);
        c->in = NULL;
        c->in_size = 0;
    }
    return size;
}

/* False: close. */
static bool progress(struct client *c)
{
    if (owes(c)) {
        if (!send_owed(c))
            return false;
        if (owes(c))
            return true;
        size_t kept = take_kept(c);
        if (kept > 0 && !serve(c, kept))
            return false;
    }
    while (c->readable && !owes(c) && !c->closing) {
        size_t kept = take_kept(c);
        ssize_t n = recv(c->fd, input + kept, READ_BYTES, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return false;
        if (n < READ_BYTES && !c->ending)
            c->readable = false;
        if (n < 0)
            c->readable = false;
        if (!serve(c, kept + (n > 0 ? (size_t)n : 0)))
            return false;
    }
    return !c->closing || owes(c);
}

static void on_event(struct client *c, uint32_t events)
{
    if (c->closed)
        return;
    if ((events & EPOLLOUT) != 0)
        c->writable = true;
    if ((events & EPOLLIN) != 0)
        c->readable = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        c->readable = true;
        c->ending = true;
    }
    if (!progress(c))
        client_close(c);
}

static void on_accept(int epoll, int fd)
{
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL)
        die("memory");
    c->fd = fd;
    c->writable = true;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        client_close(c);
}

static void take_fields(char **argv)
{
    size_t n = 0;
    for (; *argv != NULL && n < sizeof fields; argv++)
        n += (size_t)snprintf(fields + n, sizeof fields - n, "%s\r\n", *argv);
    if (n >= sizeof fields)
        die("fields are longer than %zu bytes", sizeof fields);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: origin LISTEN [BYTES [FIELD]...]    (LISTEN as 127.0.0.1:8080)\n");
        return 2;
    }
    if (argc > 2)
        default_bytes = parse_number("BYTES", argv[2], BODY_MAX);
    if (argc > 3)
        take_fields(argv + 3);
    signal(SIGPIPE, SIG_IGN);
    sock_raise_limit();
    memset(filler, 'x', sizeof filler);
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
        make_usual();
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
