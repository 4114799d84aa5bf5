#include "net/addr.h"

#include "base/check.h"

#include <arpa/inet.h>
#include <stdio.h>

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

static struct addr addr_v4(struct in_addr ip, uint16_t port)
{
    struct addr addr = {.length = sizeof addr.v4};
    addr.v4.sin_family = AF_INET;
    addr.v4.sin_addr = ip;
    addr.v4.sin_port = htons(port);
    return addr;
}

static struct addr addr_v6(struct in6_addr ip, uint16_t port)
{
    struct addr addr = {.length = sizeof addr.v6};
    addr.v6.sin6_family = AF_INET6;
    addr.v6.sin6_addr = ip;
    addr.v6.sin6_port = htons(port);
    return addr;
}

// inet_pton wants a C string: text without NUL bytes, copied.
static bool parse_number(int family, struct str text, void *ip)
{
    char copy[INET6_ADDRSTRLEN];
    if (text.n >= sizeof copy || str_find(text, 0) < text.n)
        return false;
    if (text.n)
        memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    return inet_pton(family, copy, ip) == 1;
}

static bool parse_unix(struct str path, struct addr *addr)
{
    *addr = (struct addr){.length = sizeof addr->local};
    if (!path.n || path.n >= sizeof addr->local.sun_path || str_find(path, 0) < path.n)
        return false;
    addr->local.sun_family = AF_UNIX;
    memcpy(addr->local.sun_path, path.p, path.n);
    return true;
}

bool addr_parse(struct str text, struct addr *addr)
{
    if (str_starts(text, STR("unix:")))
        return parse_unix(str_skip(text, 5), addr);
    size_t colon = text.n;
    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    uint64_t port;
    if (colon == 0 || !str_to_u64(str_skip(text, colon), UINT16_MAX, &port))
        return false;
    struct str host = {text.p, colon - 1};
    struct in_addr v4 = {INADDR_ANY};
    struct in6_addr v6;
    if (!host.n || parse_number(AF_INET, host, &v4)) {
        *addr = addr_v4(v4, (uint16_t)port);
        return true;
    }
    if (host.n < 2 || host.p[0] != '[' || host.p[host.n - 1] != ']' ||
        !parse_number(AF_INET6, (struct str){host.p + 1, host.n - 2}, &v6))
        return false;
    *addr = addr_v6(v6, (uint16_t)port);
    return true;
}

size_t addr_print(const struct addr *addr, char *out)
{
    char host[INET6_ADDRSTRLEN] = "";
    int n = 0;
    if (addr->length == 0) {
        out[0] = 0;
        return 0;
    }
    switch (addr->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &addr->v4.sin_addr, host, sizeof host);
        n = snprintf(out, ADDR_TEXT_MAX, "%s:%u", host, ntohs(addr->v4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &addr->v6.sin6_addr, host, sizeof host);
        n = snprintf(out, ADDR_TEXT_MAX, "[%s]:%u", host, ntohs(addr->v6.sin6_port));
        break;
    default: // the peer of an accepted unix socket has no path
        n = snprintf(out, ADDR_TEXT_MAX, "unix:%.*s",
                     (int)strnlen(addr->local.sun_path, sizeof addr->local.sun_path), addr->local.sun_path);
        break;
    }
    check(n > 0 && n < ADDR_TEXT_MAX);
    return (size_t)n;
}

bool addr_eq(const struct addr *a, const struct addr *b)
{
    if (a->length == 0 || b->length == 0)
        return a->length == b->length;
    if (a->any.sa_family != b->any.sa_family)
        return false;
    switch (a->any.sa_family) {
    case AF_INET: return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    case AF_INET6:
        return a->v6.sin6_port == b->v6.sin6_port &&
               memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
    default: return strncmp(a->local.sun_path, b->local.sun_path, sizeof a->local.sun_path) == 0;
    }
}

bool addr_is_loopback(const struct addr *addr)
{
    if (addr->length == 0)
        return false;
    struct ip ip = ip_of(addr);
    if (ip.family == 0)
        return true;
    if (memcmp(ip.bytes, v4_mapped, sizeof v4_mapped) == 0)
        return ip.bytes[12] == 127;
    return memcmp(ip.bytes, &in6addr_loopback, sizeof ip.bytes) == 0;
}

struct ip ip_of(const struct addr *addr)
{
    struct ip ip = {0};
    if (addr->length == 0)
        return ip;
    if (addr->any.sa_family == AF_INET) {
        memcpy(ip.bytes, v4_mapped, sizeof v4_mapped);
        memcpy(ip.bytes + 12, &addr->v4.sin_addr, 4);
        ip.port = ntohs(addr->v4.sin_port);
        ip.family = AF_INET;
    } else if (addr->any.sa_family == AF_INET6) {
        memcpy(ip.bytes, &addr->v6.sin6_addr, sizeof ip.bytes);
        ip.port = ntohs(addr->v6.sin6_port);
        // A dual-stack socket shows IPv4 peers as mapped addresses: they are IPv4 to everyone else.
        ip.family = memcmp(ip.bytes, v4_mapped, sizeof v4_mapped) == 0 ? AF_INET : AF_INET6;
    }
    return ip;
}

// Once or twice a request, so not by inet_ntop, which goes through printf.
static size_t v4_print(const uint8_t *bytes, char *out)
{
    size_t n = 0;
    for (unsigned i = 0; i < 4; i++) {
        if (i)
            out[n++] = '.';
        n += u64_print(bytes[i], out + n);
    }
    return n;
}

size_t ip_print(const struct ip *ip, char *out)
{
    char text[INET6_ADDRSTRLEN] = "unix";
    if (ip->family == AF_INET)
        return v4_print(ip->bytes + 12, out);
    if (ip->family == AF_INET6)
        inet_ntop(AF_INET6, ip->bytes, text, sizeof text);
    size_t n = strlen(text);
    memcpy(out, text, n);
    return n;
}

bool ip_parse(struct str text, struct ip *ip)
{
    struct in_addr v4;
    struct in6_addr v6;
    struct addr addr;
    if (parse_number(AF_INET, text, &v4))
        addr = addr_v4(v4, 0);
    else if (parse_number(AF_INET6, text, &v6))
        addr = addr_v6(v6, 0);
    else
        return false;
    *ip = ip_of(&addr);
    return true;
}
