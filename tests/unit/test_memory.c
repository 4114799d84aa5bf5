// Arenas, buffers, maps and the JSON writer.
#include "unit.h"

#include "base/arena.h"
#include "base/json.h"
#include "base/map.h"

#include <stdlib.h>

static void test_arena_reuses_spare_blocks(void **state)
{
    (void)state;
    struct arena_spares spares = {.max = 1};
    struct arena arena;
    arena_init(&arena, &spares);
    void *first = arena_alloc(&arena, 100);
    char *big = arena_alloc(&arena, 3 * ARENA_BLOCK); // a block of its own
    memset(big, 1, 3 * ARENA_BLOCK);
    char *next = arena_alloc(&arena, 100);
    assert_int_equal((uintptr_t)next % 16, 0);
    assert_true(next == (char *)first + 112); // still in the first block
    arena_reset(&arena);
    assert_int_equal(spares.count, 1);
    assert_ptr_equal(arena_alloc(&arena, 10), first);
    assert_int_equal(spares.count, 0);
    struct str text = arena_printf(&arena, "%d-%s", 7, "x");
    assert_true(str_eq(text, STR("7-x")));
    assert_int_equal(text.p[text.n], 0);
    for (int i = 0; i < 1000; i++)
        memset(arena_alloc(&arena, 999), i, 999);
    arena_reset(&arena);
    assert_int_equal(spares.count, 1);
    arena_spares_fini(&spares);
}

static void test_buf_grows_to_its_bound(void **state)
{
    (void)state;
    struct buf_pool pool = {.max = 2};
    struct buf buf = {0};
    assert_true(buf_reserve(&buf, &pool, 10, 1 << 20));
    assert_int_equal(buf.cap, BUF_BLOCK);
    char *block = buf.base;
    buf_put(&buf, STR("0123456789"));
    buf_consume(&buf, 4);
    assert_true(buf_reserve(&buf, &pool, BUF_BLOCK - 6, 1 << 20)); // moves to the front
    assert_ptr_equal(buf.base, block);
    assert_true(str_eq(buf_str(&buf), STR("456789")));
    assert_true(buf_reserve(&buf, &pool, BUF_BLOCK, 1 << 20)); // grows
    assert_true(str_eq(buf_str(&buf), STR("456789")));
    assert_int_equal(pool.count, 1);
    assert_false(buf_reserve(&buf, &pool, 1 << 20, 1 << 20));
    assert_true(str_eq(buf_str(&buf), STR("456789")));
    buf_release(&buf, &pool);
    assert_int_equal(pool.count, 1); // the grown one went back to the heap
    assert_true(buf_acquire(&buf, &pool));
    assert_ptr_equal(buf.base, block);
    buf_release(&buf, &pool);
    buf_pool_fini(&pool);
}

static void test_map_finds_all(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    struct map map = {0};
    char(*keys)[16] = malloc(COUNT * sizeof *keys);
    assert_null(map_get(&map, STR("x")));
    for (int i = 0; i < COUNT; i++) {
        snprintf(keys[i], 16, "key-%d", i);
        assert_null(map_put(&map, str_of(keys[i]), keys[i]));
    }
    assert_int_equal(map.count, COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_ptr_equal(map_get(&map, str_of(keys[i])), keys[i]);
    assert_null(map_get(&map, STR("key-5000")));
    assert_ptr_equal(map_put(&map, str_of(keys[7]), keys[8]), keys[7]);
    size_t at = 0, seen = 0;
    struct map_entry *entry;
    while (map_next(&map, &at, &entry))
        seen++;
    assert_int_equal(seen, COUNT);
    map_fini(&map);
    free(keys);
}

static void test_json_is_always_valid(void **state)
{
    (void)state;
    struct buf out = {0};
    struct json json;
    json_init(&json, &out, false);
    json_object(&json);
    json_field_string(&json, "a\"b", STR("x\n\x01\xc3\xa9\xff\xed\xa0\x80"));
    json_key(&json, STR("list"));
    json_array(&json);
    json_u64(&json, 18446744073709551615u);
    json_i64(&json, -3);
    json_double(&json, 0.1);
    json_double(&json, 1.0 / 0.0);
    json_bool(&json, true);
    json_null(&json);
    json_array(&json);
    json_array_end(&json);
    json_array_end(&json);
    json_object_end(&json);
    assert_true(str_eq(buf_str(&out),
                       STR("{\"a\\\"b\":\"x\\n\\u0001\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                           "\xef\xbf\xbd\",\"list\":[18446744073709551615,-3,0.1,null,true,null,[]]}")));
    buf_free(&out);
}

static void test_json_keeps_characters_whole(void **state)
{
    (void)state;
    char text[1001];
    for (size_t i = 0; i < 1000; i += 2)
        memcpy(text + i + 1, "\xc3\xa9", 2);
    text[0] = 'a'; // pieces of 256 bytes now end within a character
    struct buf out = {0};
    struct json json;
    json_init(&json, &out, false);
    json_string(&json, (struct str){text, 1001});
    assert_int_equal(buf_len(&out), 1003);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_reuses_spare_blocks),
        cmocka_unit_test(test_buf_grows_to_its_bound),
        cmocka_unit_test(test_map_finds_all),
        cmocka_unit_test(test_json_is_always_valid),
        cmocka_unit_test(test_json_keeps_characters_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
