// sallyport-echo itself: the input is what a connection sends, HTTP/1 or HTTP/2, to a control door when the
// first byte is odd. Whatever paths and misbehaviour it asks for, nothing is left when the connection is
// gone.
#include "exact_copy.h"

#include "echo/echo.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { TURNS = 6, INPUT_BYTES = 32 * 1024 }; // as much as a socket holds

static void drain(int fd)
{
    static char sink[256 * 1024];
    while (recv(fd, sink, sizeof sink, MSG_DONTWAIT) > 0)
        ;
}

static void converse(struct echo *echo, int fd, struct str input, size_t piece)
{
    while (input.n) {
        size_t part = input.n < piece ? input.n : piece;
        if (send(fd, input.p, part, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)part)
            break;
        input = str_skip(input, part);
        loop_turn(&echo->loop, 0);
        drain(fd);
    }
    shutdown(fd, SHUT_WR);
    for (unsigned turn = 0; turn < TURNS && echo->open; turn++) {
        loop_turn(&echo->loop, 0);
        drain(fd);
    }
}

static void end(struct echo *echo, int fd)
{
    close(fd);
    list_each (&echo->clients, node)
        client_close(container_of(node, struct client, node));
    loop_turn(&echo->loop, 0);
    loop_turn(&echo->loop, 0);
    check(!echo->open && !echo->load.in_flight && list_empty(&echo->clients));
    // As at first, but for its counters: to begin anew takes longer than most conversations.
    outage_end(echo);
    echo->outage.settings = (struct outage_settings){0};
    echo->healthy = true;
    echo_forget_keys(echo);
    rand_init_seed(&echo->rand, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct echo echo;
    static bool is_ready;
    struct err err = {0};
    int ends[2];
    if (n < 1 || n > INPUT_BYTES)
        return 0;
    if (!is_ready)
        check(echo_init(&echo, STR("echo"), &err));
    is_ready = true;
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    client_accept(&echo, ends[0], data[0] & 1);
    size_t piece = data[0] & 2 ? 7 + (data[0] >> 2) * (size_t)16 : INPUT_BYTES;
    converse(&echo, ends[1], (struct str){(const char *)data + 1, n - 1}, piece);
    end(&echo, ends[1]);
    return 0;
}
