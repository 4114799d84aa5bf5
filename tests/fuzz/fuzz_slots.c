// What nodes of a Cluster say: an error (the first byte is even), or the reply to CLUSTER SLOTS. Places lie
// within the map, addresses are addresses, names lie within the text.
#include "h1_input.h"

#include "redis/slots.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool lies_in(struct str part, struct str whole)
{
    return !part.n || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static void check_error(struct str text, const struct addr *asked)
{
    struct slot_hint hint;
    enum slot_verdict verdict = slot_verdict_of(text, asked, &hint);
    if (verdict != SLOT_MOVED && verdict != SLOT_ASK)
        return;
    check(hint.slot < REDIS_SLOTS && hint.port && lies_in(hint.name, text));
    check(!hint.addr.length || ip_of(&hint.addr).port == hint.port);
}

static void check_map(struct str text, const struct addr *asked)
{
    static struct slot_map map;
    struct arena arena;
    struct resp_value value;
    const char *why = NULL;
    size_t used;
    unsigned covered = 0;
    arena_init(&arena, NULL);
    if (resp_parse(text, 1 << 20, &arena, &value, &used) == RESP_VALUE) {
        bool good = slot_map_read(&map, &value, asked, &why);
        check(why && map.count <= SLOT_NODES);
        for (unsigned i = 0; i < REDIS_SLOTS; i++) {
            check(map.owners[i] <= map.count);
            covered += map.owners[i] != 0;
        }
        for (unsigned i = 0; i < map.count; i++)
            check(map.nodes[i].addr.length && lies_in(map.nodes[i].name, text) &&
                  map.nodes[i].name.n <= SLOT_NAME_MAX);
        check(covered == map.covered && (!good || covered));
    }
    arena_reset(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct addr asked;
    check(addr_parse(n && data[0] & 2 ? STR("[::1]:7000") : STR("10.0.0.1:7000"), &asked));
    if (!n)
        return 0;
    char *copy = exact_copy((const char *)data + 1, n - 1);
    struct str text = {copy, n - 1};
    check(redis_slot_of(text) < REDIS_SLOTS);
    if (data[0] & 1)
        check_map(text, &asked);
    else
        check_error(text, &asked);
    free(copy);
    return 0;
}
