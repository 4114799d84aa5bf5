// Addresses: IPv4, IPv6 and unix sockets, and sets of networks.
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <netinet/in.h>
#include <sys/un.h>

struct addr {
    socklen_t length; // of the sockaddr in use; 0: none
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    };
};

// What a connection remembers of its peer: 20 bytes, IPv4 as ::ffff:a.b.c.d; family 0: a unix socket.
struct ip {
    uint8_t bytes[16];
    uint16_t port; // host order
    uint16_t family;
};

enum { ADDR_TEXT_MAX = 128, IP_TEXT_MAX = 46 };

// "1.2.3.4:80", "[::1]:80", "unix:/path", ":80" (any address). Numeric only. False when malformed.
must_check bool addr_parse(struct str text, struct addr *addr);
// The same form back; returns the length, out has ADDR_TEXT_MAX bytes, NUL-terminated.
size_t addr_print(const struct addr *addr, char *out);
bool addr_eq(const struct addr *a, const struct addr *b);
bool addr_is_loopback(const struct addr *addr); // unix sockets count
struct ip ip_of(const struct addr *addr);
// "1.2.3.4" or "2001:db8::1" (RFC 5952); "unix" for family 0. Out has IP_TEXT_MAX bytes; returns the length;
// no NUL.
size_t ip_print(const struct ip *ip, char *out);
must_check bool ip_parse(struct str text, struct ip *ip);

// A network: an address and how many of its 128 bits count (IPv4 prefixes are stored + 96).
struct cidr {
    uint8_t bytes[16];
    uint8_t bits;
};

struct cidr_set {
    const struct cidr *v;
    uint32_t count;
};

// "10.0.0.0/8", "2001:db8::/32", or a single address. Host bits must be zero. False when malformed.
must_check bool cidr_parse(struct str text, struct cidr *cidr);
// A unix peer (family 0) matches only 127.0.0.1/32-and-wider sets that hold loopback.
bool cidr_set_has(const struct cidr_set *set, const struct ip *ip);
