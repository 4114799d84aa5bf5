#include "redis/slots.h"

#include <stdio.h>

// ---- keys ----

// CRC-16/XMODEM, four bits at a time.
static uint16_t crc16(struct str text)
{
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
                                       0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    uint16_t crc = 0;
    for (size_t i = 0; i < text.n; i++) {
        uint8_t byte = (uint8_t)text.p[i];
        crc = (uint16_t)(crc << 4) ^ table[crc >> 12 ^ byte >> 4];
        crc = (uint16_t)(crc << 4) ^ table[(crc >> 12 ^ byte) & 15];
    }
    return crc;
}

unsigned redis_slot_of(struct str key)
{
    size_t open = str_find(key, '{');
    if (open < key.n) {
        struct str rest = str_skip(key, open + 1);
        size_t close = str_find(rest, '}');
        if (close && close < rest.n)
            key = (struct str){rest.p, close};
    }
    return crc16(key) % REDIS_SLOTS;
}

// ---- hosts ----

bool slot_addr(struct str host, uint64_t port, const struct addr *asked, struct addr *addr)
{
    char text[ADDR_TEXT_MAX];
    struct ip ip;
    if (!port || port > UINT16_MAX)
        return false;
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (struct str){host.p + 1, host.n - 2};
    if (host.n && !ip_parse(host, &ip))
        return false;
    if (!host.n) {
        ip = ip_of(asked);
        host = (struct str){text, ip_print(&ip, text)};
    }
    char whole[ADDR_TEXT_MAX];
    bool is_v6 = memchr(host.p, ':', host.n);
    int n = snprintf(whole, sizeof whole, is_v6 ? "[%.*s]:%u" : "%.*s:%u", STR_ARG(host), (unsigned)port);
    return n > 0 && n < (int)sizeof whole && addr_parse((struct str){whole, (size_t)n}, addr);
}

// ---- the map ----

static bool in_range(const struct resp_value *value, int64_t least, int64_t most)
{
    return value->kind == RESP_INTEGER && value->integer >= least && value->integer <= most;
}

// Of a node's further facts: name, value, name, value…
static struct str fact(const struct resp_value *node, struct str name)
{
    if (node->count < 4 || node->items[3].kind != RESP_ARRAY)
        return STR_NULL;
    const struct resp_value *facts = &node->items[3];
    for (uint32_t i = 0; i + 1 < facts->count; i += 2)
        if (facts->items[i].kind == RESP_STRING && facts->items[i + 1].kind == RESP_STRING &&
            str_eq(facts->items[i].text, name))
            return facts->items[i + 1].text;
    return STR_NULL;
}

// host (a string; null like an empty one), port, id, facts. False: it is none.
static bool read_node(const struct resp_value *value, const struct addr *asked, struct slot_node *node)
{
    *node = (struct slot_node){0};
    if (value->kind != RESP_ARRAY || value->count < 2 ||
        (value->items[0].kind != RESP_STRING && value->items[0].kind != RESP_NULL) ||
        !in_range(&value->items[1], 0, UINT16_MAX))
        return false;
    struct str host = value->items[0].kind == RESP_STRING ? value->items[0].text : STR_NULL;
    uint64_t port = (uint64_t)value->items[1].integer;
    if (slot_addr(host, port, asked, &node->addr))
        return true;
    struct str ip = fact(value, STR("ip"));
    node->addr.length = 0;
    if (ip.n && !slot_addr(ip, port, asked, &node->addr))
        node->addr.length = 0;
    if (host.n <= SLOT_NAME_MAX && !str_eq(host, STR("?")))
        node->name = host;
    return true;
}

// Its place + 1; 0: its host is unknown, or there are too many.
static uint16_t place_of(struct slot_map *map, const struct slot_node *node, unsigned last)
{
    if (!node->addr.length)
        return 0;
    if (last && addr_eq(&map->nodes[last - 1].addr, &node->addr))
        return (uint16_t)last;
    for (unsigned i = 0; i < map->count; i++)
        if (addr_eq(&map->nodes[i].addr, &node->addr))
            return (uint16_t)(i + 1);
    if (map->count == SLOT_NODES)
        return 0;
    map->nodes[map->count++] = *node;
    return (uint16_t)map->count;
}

bool slot_map_read(struct slot_map *map, const struct resp_value *reply, const struct addr *asked,
                   const char **why)
{
    unsigned last = 0;
    memset(map->owners, 0, sizeof map->owners);
    map->count = map->covered = 0;
    *why = "CLUSTER SLOTS gave no map";
    if (reply->kind != RESP_ARRAY || reply->count > REDIS_SLOTS)
        return false;
    for (uint32_t i = 0; i < reply->count; i++) {
        const struct resp_value *range = &reply->items[i];
        struct slot_node node;
        if (range->kind != RESP_ARRAY || range->count < 3 ||
            !in_range(&range->items[0], 0, REDIS_SLOTS - 1) ||
            !in_range(&range->items[1], range->items[0].integer, REDIS_SLOTS - 1) ||
            !read_node(&range->items[2], asked, &node))
            return false;
        last = place_of(map, &node, last);
        for (int64_t slot = range->items[0].integer; last && slot <= range->items[1].integer; slot++) {
            map->covered += !map->owners[slot];
            map->owners[slot] = (uint16_t)last;
        }
    }
    *why = "no slot has a master with a known address";
    return map->covered;
}

// ---- errors ----

static bool next_word(struct str *rest, struct str *word)
{
    size_t n = str_find(*rest, ' ');
    *word = (struct str){rest->p, n};
    *rest = str_skip(*rest, n < rest->n ? n + 1 : n);
    return n;
}

// "MOVED 3999 127.0.0.1:6381"; the port stands behind the last colon.
static bool read_hint(struct str rest, const struct addr *asked, struct slot_hint *hint)
{
    struct str slot_text, target;
    uint64_t slot, port;
    *hint = (struct slot_hint){0};
    if (!next_word(&rest, &slot_text) || !next_word(&rest, &target) ||
        !str_to_u64(slot_text, REDIS_SLOTS - 1, &slot))
        return false;
    size_t colon = target.n;
    while (colon && target.p[colon - 1] != ':')
        colon--;
    if (!colon || !str_to_u64(str_skip(target, colon), UINT16_MAX, &port) || !port)
        return false;
    hint->slot = (unsigned)slot;
    hint->port = (uint16_t)port;
    hint->name = (struct str){target.p, colon - 1};
    if (!slot_addr(hint->name, port, asked, &hint->addr))
        hint->addr.length = 0;
    return true;
}

enum slot_verdict slot_verdict_of(struct str error, const struct addr *asked, struct slot_hint *hint)
{
    struct str rest = error, code;
    if (!next_word(&rest, &code))
        return SLOT_OTHER;
    if (str_eq(code, STR("MOVED")))
        return read_hint(rest, asked, hint) ? SLOT_MOVED : SLOT_OTHER;
    if (str_eq(code, STR("ASK")))
        return read_hint(rest, asked, hint) ? SLOT_ASK : SLOT_OTHER;
    return str_eq(code, STR("TRYAGAIN"))      ? SLOT_TRY_AGAIN
           : str_eq(code, STR("CLUSTERDOWN")) ? SLOT_DOWN
                                              : SLOT_OTHER;
}
