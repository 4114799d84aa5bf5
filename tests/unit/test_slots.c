// Slots of keys, maps and hints of nodes, honest and not.
#include "unit.h"

#include "redis/slots.h"

static const char *why;

static void test_slots_of_keys(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        unsigned slot;
    } cases[] = {
        {"123456789", 0x31c3}, // the specification's check value
        {"", 0},
        {"foo", 12182},
        {"somekey", 11058},
        {"foo{hash_tag}", 2515},
        {"bar{hash_tag}", 2515},
        {"hash_tag", 2515},
        {"{user1000}.following", 3443},
        {"user1000", 3443},
        {"foo{bar}{zap}", 5061}, // the first one
        {"bar", 5061},
    };
    for (size_t i = 0; i < countof(cases); i++)
        assert_int_equal(redis_slot_of(str_of(cases[i].key)), cases[i].slot);
    // Nothing in it, or not closed: the whole key.
    assert_int_equal(redis_slot_of(STR("foo{}{bar}")), 8363);
    assert_int_not_equal(redis_slot_of(STR("a{b")), redis_slot_of(STR("b")));
    assert_int_equal(redis_slot_of(STR("foo{{bar}}zap")), redis_slot_of(STR("{bar")));
}

static bool read_map(struct slot_map *map, const char *text)
{
    static struct arena arena; // names point into text, which is static
    struct resp_value value;
    struct addr asked;
    size_t used;
    arena_init(&arena, NULL);
    assert_true(addr_parse(STR("10.9.9.9:7000"), &asked));
    assert_int_equal(resp_parse(str_of(text), 1 << 20, &arena, &value, &used), RESP_VALUE);
    assert_int_equal(used, strlen(text));
    bool good = slot_map_read(map, &value, &asked, &why);
    arena_reset(&arena);
    return good;
}

static const char *owner_of(const struct slot_map *map, unsigned slot)
{
    static char text[ADDR_TEXT_MAX];
    if (!map->owners[slot])
        return "";
    addr_print(&map->nodes[map->owners[slot] - 1].addr, text);
    return text;
}

static void test_a_map(void **state)
{
    (void)state;
    static struct slot_map map;
    assert_true(read_map(&map,
                         "*3\r\n"
                         "*4\r\n:0\r\n:5460\r\n*3\r\n$8\r\n10.0.0.1\r\n:6379\r\n$2\r\nid\r\n"
                         "*3\r\n$8\r\n10.0.0.2\r\n:6379\r\n$2\r\nid\r\n"
                         "*3\r\n:5461\r\n:10922\r\n*4\r\n$0\r\n\r\n:6380\r\n$2\r\nid\r\n*0\r\n"
                         "*3\r\n:10923\r\n:16383\r\n*3\r\n$11\r\n2001:db8::1\r\n:6381\r\n$2\r\nid\r\n"));
    assert_int_equal(map.count, 3);
    assert_int_equal(map.covered, REDIS_SLOTS);
    assert_string_equal(owner_of(&map, 0), "10.0.0.1:6379");
    assert_string_equal(owner_of(&map, 5460), "10.0.0.1:6379");
    assert_string_equal(owner_of(&map, 5461), "10.9.9.9:6380"); // the asked one's host
    assert_string_equal(owner_of(&map, 16383), "[2001:db8::1]:6381");
}

static void test_names_in_a_map(void **state)
{
    (void)state;
    static struct slot_map map;
    // A name with its address beside it (RESP3 map), one without, an unknown one, and none.
    assert_true(read_map(&map, "*4\r\n"
                               "*3\r\n:0\r\n:0\r\n*4\r\n+redis-1\r\n:1\r\n+id\r\n%1\r\n+ip\r\n+10.0.0.1\r\n"
                               "*3\r\n:1\r\n:1\r\n*4\r\n+redis-2\r\n:1\r\n+id\r\n*0\r\n"
                               "*3\r\n:2\r\n:2\r\n*4\r\n+?\r\n:1\r\n+id\r\n*2\r\n+ip\r\n+10.0.0.3\r\n"
                               "*3\r\n:3\r\n:3\r\n*4\r\n_\r\n:1\r\n+id\r\n*2\r\n+ip\r\n+10.0.0.4\r\n"));
    assert_string_equal(owner_of(&map, 0), "10.0.0.1:1");
    assert_true(str_eq(map.nodes[map.owners[0] - 1].name, STR("redis-1")));
    assert_string_equal(owner_of(&map, 1), "");
    assert_string_equal(owner_of(&map, 2), "10.0.0.3:1");
    assert_int_equal(map.nodes[map.owners[2] - 1].name.n, 0);
    assert_string_equal(owner_of(&map, 3), "10.9.9.9:1");
    assert_int_equal(map.covered, 3);
}

static void test_maps_that_are_none(void **state)
{
    (void)state;
    static struct slot_map map;
    static const char *const bad[] = {
        "*0\r\n",
        ":1\r\n",
        "_\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n+10.0.0.1\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n+10.0.0.1\r\n:1\r\n",
        "*1\r\n*3\r\n:2\r\n:1\r\n*2\r\n+10.0.0.1\r\n:1\r\n",
        "*1\r\n*3\r\n+0\r\n:1\r\n*2\r\n+10.0.0.1\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n+10.0.0.1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n+10.0.0.1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n+10.0.0.1\r\n:65536\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n+10.0.0.1\r\n:0\r\n", // nobody's address is known
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n+nowhere\r\n:1\r\n",  //
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:7\r\n:1\r\n",        //
        "*1\r\n*3\r\n:0\r\n:1\r\n*4\r\n+?\r\n:1\r\n+id\r\n*2\r\n+ip\r\n+x\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*4\r\n+?\r\n:1\r\n+id\r\n*1\r\n+ip\r\n",
    };
    for (size_t i = 0; i < countof(bad); i++)
        if (read_map(&map, bad[i]))
            fail_msg("taken: %s", bad[i]);
}

static void test_more_nodes_than_there_may_be(void **state)
{
    (void)state;
    static struct slot_map map;
    static char text[256 * 1024];
    size_t n = (size_t)snprintf(text, sizeof text, "*1500\r\n");
    for (unsigned i = 0; i < 1500; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "*3\r\n:%u\r\n:%u\r\n*2\r\n+10.0.0.1\r\n:%u\r\n", i,
                              i, i + 1);
    assert_true(read_map(&map, text));
    assert_int_equal(map.count, SLOT_NODES);
    assert_int_equal(map.covered, SLOT_NODES); // the others' slots are nobody's
    n = (size_t)snprintf(text, sizeof text,
                         "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$300\r\n%0300d\r\n:1\r\n+id\r\n", 7);
    snprintf(text + n, sizeof text - n, "*2\r\n+ip\r\n+10.0.0.1\r\n");
    assert_true(read_map(&map, text)); // the name is too long to keep
    assert_int_equal(map.nodes[0].name.n, 0);
}

static void test_hints(void **state)
{
    (void)state;
    static const struct {
        const char *error;
        enum slot_verdict verdict;
        unsigned slot;
        const char *target; // "" a name
    } cases[] = {
        {"MOVED 3999 127.0.0.1:6381", SLOT_MOVED, 3999, "127.0.0.1:6381"},
        {"ASK 0 2001:db8::7:6381", SLOT_ASK, 0, "[2001:db8::7]:6381"},
        {"ASK 0 [2001:db8::7]:6381", SLOT_ASK, 0, "[2001:db8::7]:6381"},
        {"MOVED 16383 :6381", SLOT_MOVED, 16383, "10.9.9.9:6381"},
        {"MOVED 1 redis-2:6381", SLOT_MOVED, 1, ""},
        {"MOVED 1 ?:6381", SLOT_MOVED, 1, ""},
        {"TRYAGAIN Multiple keys request during rehashing of slot", SLOT_TRY_AGAIN, 0, NULL},
        {"CLUSTERDOWN Hash slot not served", SLOT_DOWN, 0, NULL},
        {"CLUSTERDOWN", SLOT_DOWN, 0, NULL},
        {"MOVED 16384 127.0.0.1:6381", SLOT_OTHER, 0, NULL},
        {"MOVED -1 127.0.0.1:6381", SLOT_OTHER, 0, NULL},
        {"MOVED 1 127.0.0.1:0", SLOT_OTHER, 0, NULL},
        {"MOVED 1 127.0.0.1:65536", SLOT_OTHER, 0, NULL},
        {"MOVED 1 127.0.0.1", SLOT_OTHER, 0, NULL},
        {"MOVED 1", SLOT_OTHER, 0, NULL},
        {"MOVED 1 ", SLOT_OTHER, 0, NULL},
        {"MOVED", SLOT_OTHER, 0, NULL},
        {"MOVEDX 1 127.0.0.1:1", SLOT_OTHER, 0, NULL},
        {"ERR MOVED 1 127.0.0.1:1", SLOT_OTHER, 0, NULL},
        {"", SLOT_OTHER, 0, NULL},
        {" ", SLOT_OTHER, 0, NULL},
    };
    struct addr asked;
    assert_true(addr_parse(STR("10.9.9.9:7000"), &asked));
    for (size_t i = 0; i < countof(cases); i++) {
        struct slot_hint hint;
        char text[ADDR_TEXT_MAX] = "";
        if (slot_verdict_of(str_of(cases[i].error), &asked, &hint) != cases[i].verdict)
            fail_msg("%s", cases[i].error);
        if (!cases[i].target)
            continue;
        if (hint.addr.length)
            addr_print(&hint.addr, text);
        assert_string_equal(text, cases[i].target);
        assert_int_equal(hint.slot, cases[i].slot);
        assert_int_equal(hint.port, 6381);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_of_keys),
        cmocka_unit_test(test_a_map),
        cmocka_unit_test(test_names_in_a_map),
        cmocka_unit_test(test_maps_that_are_none),
        cmocka_unit_test(test_more_nodes_than_there_may_be),
        cmocka_unit_test(test_hints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
