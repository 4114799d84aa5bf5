#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#define EVENTS        256
#define READ_BYTES    (64 * 1024)
#define SPREAD_DIGITS 5
#define AUTHORIZATION "Authorization: Bearer "

static char bytes[READ_BYTES];

/* --- the request --- */

static void request_spread(struct load *l)
{
    char *at = strchr(l->request, '@');
    if (at == NULL || l->request_size + SPREAD_DIGITS > sizeof l->request)
        die("--spread needs an @ in --path, where the number goes");
    memmove(at + SPREAD_DIGITS, at + 1, l->request_size - (size_t)(at + 1 - l->request));
    l->request_size += SPREAD_DIGITS - 1;
    l->request_digits = at;
}

/* The file, cut into lines of one length. */
void tokens_read(struct load *l)
{
    struct tokens *tokens = &l->token;
    FILE *file = fopen(l->tokens, "r");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        die("%s cannot be read", l->tokens);
    size_t all = (size_t)ftell(file);
    rewind(file);
    tokens->text = malloc(all + 1);
    if (tokens->text == NULL || fread(tokens->text, 1, all, file) != all)
        die("%s cannot be read", l->tokens);
    fclose(file);
    tokens->text[all] = 0;
    tokens->size = strcspn(tokens->text, "\n");
    if (tokens->size == 0 || all % (tokens->size + 1) != 0)
        die("the lines of %s are not of one length", l->tokens);
    tokens->count = all / (tokens->size + 1);
}

void request_make(struct load *l)
{
    int n = snprintf(l->request, sizeof l->request,
                     "GET %s HTTP/1.1\r\n"
                     "Host: %s\r\n"
                     "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
                     "Accept: application/json, text/plain, */*\r\n"
                     "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
                     "Accept-Encoding: gzip, deflate, br\r\n"
                     "Cookie: session=8f14e45fceea167a5a36dedd4bea2543\r\n",
                     l->path, l->host);
    for (size_t i = 0; i < l->extra_count && n > 0 && (size_t)n < sizeof l->request; i++)
        n += snprintf(l->request + n, sizeof l->request - (size_t)n, "%s\r\n", l->extra[i]);
    if (l->tokens != NULL && n > 0 && (size_t)n < sizeof l->request)
        n += snprintf(l->request + n, sizeof l->request - (size_t)n, AUTHORIZATION "%.*s\r\n",
                      (int)l->token.size, l->token.text);
    if (n > 0 && (size_t)n < sizeof l->request)
        n += snprintf(l->request + n, sizeof l->request - (size_t)n, "\r\n");
    if (n <= 0 || (size_t)n >= sizeof l->request)
        die("the request is longer than %d bytes", REQUEST_MAX);
    l->request_size = (size_t)n;
    if (l->spread > 0)
        request_spread(l);
    if (l->tokens != NULL)
        l->request_token = strstr(l->request, AUTHORIZATION) + sizeof AUTHORIZATION - 1;
}

/* By a xorshift generator: no order that a cache could learn. */
static uint32_t random_below(struct load *l, uint32_t end)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 17;
    l->random ^= l->random << 5;
    return (uint32_t)(((uint64_t)l->random * end) >> 32);
}

static void request_sign(struct load *l)
{
    struct tokens *tokens = &l->token;
    size_t at = l->in_order ? tokens->next++ % tokens->count : random_below(l, (uint32_t)tokens->count);
    memcpy(l->request_token, tokens->text + at * (tokens->size + 1), tokens->size);
}

/* A number below the spread, five digits. */
static void request_renumber(struct load *l)
{
    uint32_t n = random_below(l, l->spread);
    for (size_t i = SPREAD_DIGITS; i-- > 0; n /= 10)
        l->request_digits[i] = (char)('0' + n % 10);
}

/* --- connections --- */

void conn_open(struct load *l, struct conn *c)
{
    if (!link_open(&c->link, &l->to, l->tls, l->host)) {
        l->counts.connect_failed++;
        return;
    }
    c->state = CONN_OPENING;
    c->readable = false;
    c->ending = false;
    if (l->shakes != SHAKES_NONE) {
        c->from_ns = clock_ns();
        l->sent++;
    }
    l->opening++;
    l->alive++;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->link.fd, &e) != 0)
        die("epoll_ctl");
}

void conn_close(struct load *l, struct conn *c)
{
    if (c->state == CONN_OPENING)
        l->opening--;
    if (c->state == CONN_BUSY)
        l->busy--;
    link_close(&c->link, c->state == CONN_FREE);
    answer_reset(&c->answer);
    c->readable = false;
    c->state = CONN_CLOSED;
    l->alive--;
}

static void ring_push(struct load *l, struct conn *c)
{
    if (c->in_ring)
        return; /* closed and opened again while it waited for its turn */
    size_t at = (l->free_at + l->free_count) % l->connections;
    l->free_ring[at] = (size_t)(c - l->conns);
    c->in_ring = true;
    l->free_count++;
}

/* Those closed meanwhile are passed over. */
struct conn *ring_pop(struct load *l)
{
    while (l->free_count > 0) {
        struct conn *c = &l->conns[l->free_ring[l->free_at]];
        l->free_at = (l->free_at + 1) % l->connections;
        l->free_count--;
        c->in_ring = false;
        if (c->state == CONN_FREE)
            return c;
    }
    return NULL;
}

bool may_send(const struct load *l, uint64_t now)
{
    return l->sending && (l->limit > 0 ? l->sent < l->limit : now < l->stop_ns);
}

/* The next one in this place, which in a run of handshakes is the run's next request. */
static void conn_reopen(struct load *l, struct conn *c)
{
    if (l->shakes == SHAKES_NONE || may_send(l, clock_ns()))
        conn_open(l, c);
}

static void conn_broken(struct load *l, struct conn *c)
{
    bool was_free = c->state == CONN_FREE;
    bool was_opening = c->state == CONN_OPENING;
    conn_close(l, c);
    if (was_opening) {
        l->counts.connect_failed++;
        return; /* not tried again: a server that refuses would be asked for ever */
    }
    if (was_free)
        l->counts.reconnects++;
    else
        l->counts.broken++;
    conn_reopen(l, c);
}

void conn_send(struct load *l, struct conn *c, uint64_t from_ns)
{
    if (l->spread > 0)
        request_renumber(l);
    if (l->request_token != NULL)
        request_sign(l);
    c->state = CONN_BUSY;
    c->from_ns = from_ns;
    l->busy++;
    ssize_t n = link_send(&c->link, l->request, l->request_size);
    if (n != (ssize_t)l->request_size)
        conn_broken(l, c);
}

static void conn_freed(struct load *l, struct conn *c, uint64_t now)
{
    c->state = CONN_FREE;
    if (l->rate > 0)
        ring_push(l, c);
    else if (may_send(l, now)) {
        l->sent++;
        conn_send(l, c, now);
    }
}

static void on_answer(struct load *l, struct conn *c)
{
    uint64_t now = clock_ns();
    l->counts.requests++;
    if (c->answer.status < 200 || c->answer.status > 299)
        l->counts.bad_status++;
    if (c->answer.status == 429)
        l->counts.too_many++;
    if (c->answer.status >= 500)
        l->counts.server_errors++;
    hist_record(&l->hist, now > c->from_ns ? now - c->from_ns : 0);
    l->busy--;
    c->state = CONN_FREE;
    if (l->shakes != SHAKES_NONE) {
        conn_close(l, c);
        conn_reopen(l, c);
    } else if (!c->answer.keep) {
        l->counts.reconnects++;
        conn_close(l, c);
        conn_open(l, c);
    } else {
        conn_freed(l, c, now);
    }
}

static void conn_read(struct load *l, struct conn *c)
{
    while (c->readable) {
        ssize_t n = link_recv(&c->link, bytes, sizeof bytes);
        if (n < 0 && errno == EAGAIN) {
            c->readable = false;
            return;
        }
        if (n <= 0 || c->state != CONN_BUSY) {
            conn_broken(l, c);
            return;
        }
        l->counts.bytes += (uint64_t)n;
        size_t used = 0;
        enum answer_step step = answer_take(&c->answer, bytes, (size_t)n, &used);
        if (step == ANSWER_BAD || (step == ANSWER_DONE && used != (size_t)n)) {
            conn_broken(l, c); /* bytes after the answer nobody asked for are an error too */
            return;
        }
        if (!c->ending && link_is_dry(&c->link, (size_t)n, sizeof bytes, step == ANSWER_DONE))
            c->readable = false;
        if (step == ANSWER_DONE)
            on_answer(l, c);
    }
}

static void on_shaken(struct load *l, struct conn *c)
{
    l->opening--;
    if (l->over_tls) {
        bool resumed = link_resumed(&c->link);
        l->counts.handshakes++;
        l->counts.resumed += resumed;
        if (l->shakes != SHAKES_NONE && !l->collecting && resumed != (l->shakes == SHAKES_RESUMED))
            l->counts.wrong_handshakes++;
    }
    if (l->shakes != SHAKES_NONE)
        conn_send(l, c, c->from_ns); /* counted when the connection was begun */
    else
        conn_freed(l, c, clock_ns());
}

static void conn_shake(struct load *l, struct conn *c)
{
    switch (link_shake(&c->link)) {
    case LINK_MORE: return;
    case LINK_DONE: on_shaken(l, c); return;
    case LINK_FAILED: conn_broken(l, c); return;
    }
}

static void on_event(struct load *l, struct conn *c, uint32_t events)
{
    if (c->state == CONN_CLOSED)
        return;
    if ((events & EPOLLIN) != 0)
        c->readable = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        c->readable = true;
        c->ending = true;
    }
    if (c->state == CONN_OPENING && (events & (EPOLLERR | EPOLLHUP)) == 0) {
        conn_shake(l, c);
        if (c->state == CONN_OPENING || c->state == CONN_CLOSED)
            return; /* not there yet, or another one begun in its place */
    }
    if (c->readable)
        conn_read(l, c);
}

void turn(struct load *l, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec t = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int n = epoll_pwait2(l->epoll, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR)
        die("epoll_pwait2");
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL)
            l->told = true;
        else
            on_event(l, events[i].data.ptr, events[i].events);
    }
}
