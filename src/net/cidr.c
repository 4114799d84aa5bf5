#include "net/addr.h"

enum { IP_BITS = 128, MAPPED_BITS = 96 };

// Do the first bits of a and b agree?
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0;
}

static bool host_bits_zero(const uint8_t *bytes, unsigned bits)
{
    for (unsigned i = bits; i < IP_BITS; i++)
        if (bytes[i / 8] >> (7 - i % 8) & 1)
            return false;
    return true;
}

bool cidr_parse(struct str text, struct cidr *cidr)
{
    size_t slash = str_find(text, '/');
    struct ip ip;
    if (!ip_parse((struct str){text.p, slash}, &ip))
        return false;
    // "::ffff:10.0.0.0/104" is IPv4 spelled as IPv6: its prefix counts all 128 bits.
    bool v4 = str_find((struct str){text.p, slash}, ':') == slash;
    uint64_t bits = v4 ? IP_BITS - MAPPED_BITS : IP_BITS;
    if (slash < text.n && !str_to_u64(str_skip(text, slash + 1), bits, &bits))
        return false;
    if (v4)
        bits += MAPPED_BITS;
    if (!host_bits_zero(ip.bytes, (unsigned)bits))
        return false;
    memcpy(cidr->bytes, ip.bytes, sizeof cidr->bytes);
    cidr->bits = (uint8_t)bits;
    return true;
}

bool cidr_set_has(const struct cidr_set *set, const struct ip *ip)
{
    // A unix peer is this machine: it is where 127.0.0.1 is.
    static const uint8_t local[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};
    const uint8_t *bytes = ip->family == 0 ? local : ip->bytes;
    for (uint32_t i = 0; i < set->count; i++)
        if (same_prefix(set->v[i].bytes, bytes, set->v[i].bits))
            return true;
    return false;
}
