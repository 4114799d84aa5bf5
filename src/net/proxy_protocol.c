#include "net/proxy_protocol.h"

#include "base/check.h"

#include <arpa/inet.h>

enum {
    V1_MAX = 107, // with CRLF (proxy-protocol.txt 2.1)
    V2_FIXED = 16,
    V2_INET = 12, // addresses and ports
    V2_INET6 = 36,
    V2_UNIX = 216,
};

static const uint8_t v2_signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                         0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

// ---- version 1: "PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n"

// The next field up to one SP (or the end), which is skipped.
static struct str next_field(struct str *rest)
{
    size_t space = str_find(*rest, ' ');
    struct str field = {rest->p, space};
    *rest = str_skip(*rest, space < rest->n ? space + 1 : space);
    return field;
}

static bool parse_port(struct str text, uint64_t *port)
{
    // No leading zeros in the text form.
    return str_to_u64(text, UINT16_MAX, port) && (text.n == 1 || text.p[0] != '0');
}

static enum proxy_result parse_v1_line(struct str line, struct ip *source)
{
    if (!str_starts(line, STR("PROXY ")))
        return PROXY_BAD;
    line = str_skip(line, 6);
    struct str protocol = next_field(&line);
    if (str_eq(protocol, STR("UNKNOWN")))
        return PROXY_DONE; // the rest of the line is to be ignored
    bool v4 = str_eq(protocol, STR("TCP4"));
    if (!v4 && !str_eq(protocol, STR("TCP6")))
        return PROXY_BAD;
    struct str from = next_field(&line), to = next_field(&line), from_port = next_field(&line);
    struct ip ip, ignored;
    uint64_t port, to_port;
    if (!ip_parse(from, &ip) || !ip_parse(to, &ignored) || !parse_port(from_port, &port) ||
        !parse_port(line, &to_port))
        return PROXY_BAD;
    // The spelling must be that of the protocol: ip_parse also takes the other.
    if ((str_find(from, ':') == from.n) != v4 || (str_find(to, ':') == to.n) != v4)
        return PROXY_BAD;
    ip.port = (uint16_t)port;
    *source = ip;
    return PROXY_DONE;
}

static enum proxy_result parse_v1(const char *data, size_t n, size_t *consumed, struct ip *source)
{
    struct str seen = {data, n < V1_MAX ? n : V1_MAX};
    size_t cr = str_find(seen, '\r'), lf = str_find(seen, '\n');
    if (lf < cr || cr >= V1_MAX - 1)
        return PROXY_BAD;
    if (cr + 1 >= n)
        return PROXY_MORE;
    if (data[cr + 1] != '\n')
        return PROXY_BAD;
    enum proxy_result result = parse_v1_line((struct str){data, cr}, source);
    if (result == PROXY_DONE)
        *consumed = cr + 2;
    return result;
}

// ---- version 2: signature, version and command, family and protocol, length, addresses, TLVs

static struct ip v2_address(int family, const uint8_t *address, const uint8_t *port)
{
    struct addr addr = {.length = sizeof addr.v4};
    addr.any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        memcpy(&addr.v4.sin_addr, address, 4);
        memcpy(&addr.v4.sin_port, port, 2);
    } else {
        addr.length = sizeof addr.v6;
        memcpy(&addr.v6.sin6_addr, address, 16);
        memcpy(&addr.v6.sin6_port, port, 2);
    }
    return ip_of(&addr);
}

// TLVs mean nothing here, but they must fill the rest exactly.
static bool tlvs_valid(const uint8_t *p, size_t n)
{
    while (n) {
        if (n < 3)
            return false;
        size_t length = 3 + ((size_t)p[1] << 8 | p[2]);
        if (length > n)
            return false;
        p += length;
        n -= length;
    }
    return true;
}

// The body of a PROXY command: family and transport, then n bytes at p.
static enum proxy_result parse_v2_proxy(uint8_t family, const uint8_t *p, size_t n, struct ip *source)
{
    size_t addresses = 0;
    switch (family) {
    case 0x00: return PROXY_DONE; // unspecified: the bytes are to be ignored
    case 0x11: addresses = V2_INET; break;
    case 0x21: addresses = V2_INET6; break;
    case 0x31: addresses = V2_UNIX; break;
    default: return PROXY_BAD; // no datagrams come over a stream
    }
    if (n < addresses || !tlvs_valid(p + addresses, n - addresses))
        return PROXY_BAD;
    if (addresses == V2_INET)
        *source = v2_address(AF_INET, p, p + 8);
    else if (addresses == V2_INET6)
        *source = v2_address(AF_INET6, p, p + 32);
    // A unix socket of the proxy's machine is no "unix" peer of ours: the proxy stays the source.
    return PROXY_DONE;
}

static enum proxy_result parse_v2(const uint8_t *p, size_t n, size_t *consumed, struct ip *source)
{
    size_t compared = n < sizeof v2_signature ? n : sizeof v2_signature;
    if (memcmp(p, v2_signature, compared) != 0)
        return PROXY_BAD;
    if (n > 12 && p[12] != 0x20 && p[12] != 0x21) // version 2; LOCAL or PROXY
        return PROXY_BAD;
    if (n < V2_FIXED)
        return PROXY_MORE;
    size_t length = (size_t)p[14] << 8 | p[15];
    if (V2_FIXED + length > PROXY_HEADER_MAX)
        return PROXY_BAD;
    if (n < V2_FIXED + length)
        return PROXY_MORE;
    enum proxy_result result = PROXY_DONE;
    if (p[12] == 0x21)
        result = parse_v2_proxy(p[13], p + V2_FIXED, length, source);
    if (result == PROXY_DONE)
        *consumed = V2_FIXED + length;
    return result;
}

enum proxy_result proxy_protocol_parse(const char *data, size_t n, size_t *consumed, struct ip *source)
{
    static const char v1_start[] = "PROXY ";
    if (n == 0)
        return PROXY_MORE;
    if ((uint8_t)data[0] == v2_signature[0])
        return parse_v2((const uint8_t *)data, n, consumed, source);
    size_t compared = n < sizeof v1_start - 1 ? n : sizeof v1_start - 1;
    if (memcmp(data, v1_start, compared) != 0)
        return PROXY_BAD;
    return parse_v1(data, n, consumed, source);
}
