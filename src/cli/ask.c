#include "cli/ask.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct asking {
    int fd;
    uint64_t until_us;
    const char *where;
    struct err *err;
};

static bool wait_for(struct asking *asking, short events)
{
    for (;;) {
        uint64_t now = clock_monotonic_us();
        uint64_t left_ms = now < asking->until_us ? (asking->until_us - now + 999) / 1000 : 0;
        struct pollfd entry = {.fd = asking->fd, .events = events};
        int n = poll(&entry, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
        if (n > 0)
            return true;
        if (n == 0) {
            err_set(asking->err, ERR_BUSY, asking->where, "no answer in time");
            return false;
        }
        if (errno != EINTR) {
            err_system(asking->err, asking->where, "poll");
            return false;
        }
    }
}

static bool connect_to(struct asking *asking, const struct addr *addr)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (connect(asking->fd, &addr->any, addr->length) != 0) {
        if (errno != EINPROGRESS) {
            err_system(asking->err, asking->where, "connect");
            return false;
        }
        if (!wait_for(asking, POLLOUT))
            return false;
        getsockopt(asking->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    errno = error;
    if (error)
        err_system(asking->err, asking->where, "connect");
    return error == 0;
}

static bool send_all(struct asking *asking, struct str text)
{
    while (text.n) {
        ssize_t n = send(asking->fd, text.p, text.n, MSG_NOSIGNAL);
        if (n > 0)
            text = str_skip(text, (size_t)n);
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            return err_system(asking->err, asking->where, "send") == ERR_OK;
        else if (!wait_for(asking, POLLOUT))
            return false;
    }
    return true;
}

static bool receive_all(struct asking *asking, struct buf *text)
{
    char part[16 * 1024];
    for (;;) {
        ssize_t n = recv(asking->fd, part, sizeof part, 0);
        if (n == 0)
            return true;
        if (n > 0 && buf_len(text) < ASK_BYTES)
            buf_append(text, (struct str){part, (size_t)n});
        else if (n > 0)
            return err_set(asking->err, ERR_LIMIT, asking->where, "the answer is too large") == ERR_OK;
        else if (errno != EAGAIN && errno != EINTR)
            return err_system(asking->err, asking->where, "recv") == ERR_OK;
        else if (!wait_for(asking, POLLIN))
            return false;
    }
}

// HTTP/1.0, so that the answer is neither chunked nor followed by another: its body ends with the connection.
static bool read_answer(struct asking *asking, struct ask_answer *answer)
{
    struct str text = buf_str(&answer->text);
    const char *end = text.n ? memmem(text.p, text.n, "\r\n\r\n", 4) : NULL;
    uint64_t status = 0;
    if (!end || text.n < 12 || memcmp(text.p, "HTTP/1.", 7) != 0 ||
        !str_to_u64((struct str){text.p + 9, 3}, 599, &status))
        return err_set(asking->err, ERR_INVALID, asking->where, "the answer is not HTTP") == ERR_OK;
    answer->status = (unsigned)status;
    answer->body = str_range(end + 4, text.p + text.n);
    return true;
}

bool ask(const struct addr *addr, const char *method, const char *path, struct str token, struct str body,
         uint64_t timeout_ms, struct ask_answer *answer, struct err *err)
{
    char where[ADDR_TEXT_MAX];
    addr_print(addr, where);
    struct asking asking = {.until_us = clock_monotonic_us() + timeout_ms * 1000, .where = where, .err = err};
    asking.fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *answer = (struct ask_answer){0};
    if (asking.fd < 0)
        return err_system(err, where, "socket") == ERR_OK;
    struct buf request = {0};
    buf_printf(&request, "%s %s HTTP/1.0\r\nHost: %s\r\n", method, path,
               addr->any.sa_family == AF_UNIX ? "localhost" : where);
    if (token.n)
        buf_printf(&request, "Authorization: Bearer %.*s\r\n", STR_ARG(token));
    if (body.n)
        buf_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body.n);
    buf_append(&request, STR("\r\n"));
    buf_append(&request, body);
    bool good = connect_to(&asking, addr) && send_all(&asking, buf_str(&request)) &&
                receive_all(&asking, &answer->text) && read_answer(&asking, answer);
    buf_free(&request);
    close(asking.fd);
    if (!good)
        buf_free(&answer->text);
    return good;
}
