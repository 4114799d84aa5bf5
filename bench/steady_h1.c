// HTTP/1.1 for steady: a request takes a kept-alive connection that is free, or opens one.

#include "answer.h"
#include "steady.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES  (64 * 1024)
#define CONNECTIONS 8192

enum state { CLOSED, CONNECTING, FREE, BUSY };

struct conn {
    int fd;
    enum state state;
    bool in_open; /* its place is in that stack, perhaps from before it was closed and opened again */
    size_t request;
    struct answer answer;
};

static struct {
    char text[REQUEST_MAX];
    size_t text_size;
    struct conn *conns;
    uint32_t *closed, *open; /* stacks: of places, of free connections (some were closed meanwhile) */
    size_t closed_count, open_count;
} pool;

static char bytes[READ_BYTES];

static void conn_close(struct conn *c)
{
    close(c->fd);
    answer_reset(&c->answer);
    c->state = CLOSED;
    pool.closed[pool.closed_count++] = (uint32_t)(c - pool.conns);
}

static void conn_fail(struct steady *s, struct conn *c, enum outcome outcome)
{
    if (c->state != FREE)
        request_end(s, c->request, outcome);
    conn_close(c);
}

static void on_answer(struct steady *s, struct conn *c)
{
    request_end(s, c->request, outcome_of((unsigned)c->answer.status));
    if (!c->answer.keep) {
        conn_close(c);
        return;
    }
    c->state = FREE;
    if (!c->in_open)
        pool.open[pool.open_count++] = (uint32_t)(c - pool.conns);
    c->in_open = true;
}

/* --- sending --- */

static void conn_send(struct steady *s, struct conn *c)
{
    c->state = BUSY;
    if (send(c->fd, pool.text, pool.text_size, MSG_NOSIGNAL) != (ssize_t)pool.text_size)
        conn_fail(s, c, BROKEN);
}

static struct conn *take_free(void)
{
    while (pool.open_count > 0) {
        struct conn *c = &pool.conns[pool.open[--pool.open_count]];
        c->in_open = false;
        if (c->state == FREE)
            return c;
    }
    return NULL;
}

static void h1_begin(struct steady *s, size_t number)
{
    struct conn *c = take_free();
    bool connected = c != NULL;
    if (c == NULL) {
        if (pool.closed_count == 0)
            die("more than %d connections at a time", CONNECTIONS);
        c = &pool.conns[pool.closed[--pool.closed_count]];
        *c = (struct conn){.fd = sock_connect(&s->to), .state = CONNECTING, .in_open = c->in_open};
    }
    c->request = number;
    s->requests[number].place = (uint32_t)(c - pool.conns);
    if (c->fd < 0) {
        request_end(s, number, REFUSED);
        pool.closed[pool.closed_count++] = (uint32_t)(c - pool.conns);
        c->state = CLOSED;
    } else if (connected) {
        conn_send(s, c);
    } else {
        steady_watch(s, c->fd, c);
    }
}

static void h1_give_up(struct steady *s, size_t number)
{
    conn_fail(s, &pool.conns[s->requests[number].place], TIMED_OUT);
}

/* --- receiving --- */

static void conn_read(struct steady *s, struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || c->state != BUSY) {
            conn_fail(s, c, BROKEN);
            return;
        }
        size_t used = 0;
        enum answer_step step = answer_take(&c->answer, bytes, (size_t)n, &used);
        if (step == ANSWER_BAD || (step == ANSWER_DONE && used != (size_t)n)) {
            conn_fail(s, c, BROKEN);
            return;
        }
        if (step == ANSWER_DONE)
            on_answer(s, c);
        if (c->state == CLOSED)
            return;
    }
}

static void h1_on_event(struct steady *s, void *place, uint32_t events)
{
    struct conn *c = place;
    if (c->state == CLOSED)
        return;
    if (c->state == CONNECTING) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            conn_fail(s, c, REFUSED);
            return;
        }
        if (events & EPOLLOUT)
            conn_send(s, c);
    }
    if ((c->state == BUSY || c->state == FREE) && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn_read(s, c);
}

static void h1_setup(struct steady *s)
{
    int n = snprintf(pool.text, sizeof pool.text,
                     "GET %s HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: steady\r\nAccept: */*\r\n\r\n",
                     s->path);
    if (n <= 0 || (size_t)n >= sizeof pool.text)
        die("--path is too long");
    pool.text_size = (size_t)n;
    if (sock_raise_limit() < CONNECTIONS + 16)
        die("%d connections are more than the limit on open files allows", CONNECTIONS);
    pool.conns = steady_alloc(CONNECTIONS, sizeof *pool.conns);
    pool.closed = steady_alloc(CONNECTIONS, sizeof *pool.closed);
    pool.open = steady_alloc(CONNECTIONS, sizeof *pool.open);
    for (uint32_t i = CONNECTIONS; i-- > 0;)
        pool.closed[pool.closed_count++] = i;
}

const struct wire wire_h1 = {h1_setup, h1_begin, h1_give_up, h1_on_event};
