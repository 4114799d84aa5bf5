// Sockets that tests' own servers listen on.
#pragma once

#include "unit.h"

#include "net/addr.h"

#include <arpa/inet.h>
#include <sys/socket.h>

// A listening socket at a port that was free, or one that is only bound, so that connecting to it is refused.
static inline struct addr bind_loopback(int *fd, bool listens)
{
    struct addr addr = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
                        .length = sizeof addr.v4};
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*fd, &addr.any, addr.length), 0);
    if (listens)
        assert_int_equal(listen(*fd, 256), 0);
    assert_int_equal(getsockname(*fd, &addr.any, &addr.length), 0);
    return addr;
}
