#include "unit.h"

#include "base/block_pool.h"

#include <stdint.h>
#include <string.h>

static void test_blocks_are_taken_again(void **state)
{
    (void)state;
    struct block_pool pool = {0};
    void *a = block_alloc(&pool, 40), *b = block_alloc(&pool, 64);
    assert_true(a != b && (uintptr_t)a % _Alignof(max_align_t) == 0);
    memset(a, 1, 64); // a whole step
    block_free(&pool, a);
    if (pool.kept_bytes) { // not with AddressSanitizer
        assert_int_equal(pool.kept_bytes, 64);
        assert_ptr_equal(block_alloc(&pool, 33), a);
        assert_int_equal(pool.kept_bytes, 0);
        block_free(&pool, a);
    }
    block_free(&pool, b);
    block_free(&pool, NULL);
    block_pool_fini(&pool);
    assert_int_equal(pool.kept_bytes, 0);
}

static void test_what_is_kept_is_bounded(void **state)
{
    (void)state;
    enum { COUNT = BLOCK_KEPT_BYTES / BLOCK_MAX + 10 };
    static void *blocks[COUNT];
    struct block_pool pool = {0};
    for (size_t i = 0; i < COUNT; i++)
        assert_non_null(blocks[i] = block_alloc(&pool, BLOCK_MAX));
    for (size_t i = 0; i < COUNT; i++)
        block_free(&pool, blocks[i]);
    assert_true(pool.kept_bytes <= BLOCK_KEPT_BYTES);
    size_t kept = pool.kept_bytes;
    void *large = block_alloc(&pool, BLOCK_MAX + 1);
    block_free(&pool, large);
    assert_int_equal(pool.kept_bytes, kept);
    block_pool_fini(&pool);
}

static void test_what_is_zeroed_and_moved(void **state)
{
    (void)state;
    static const char zeros[200];
    struct block_pool pool = {0};
    char *p = block_alloc(&pool, sizeof zeros);
    memset(p, 'x', sizeof zeros);
    block_free(&pool, p);
    p = block_calloc(&pool, 2, sizeof zeros / 2);
    assert_memory_equal(p, zeros, sizeof zeros);
    for (size_t size = sizeof zeros; size < 5 * BLOCK_MAX; size += 100) {
        memset(p, (int)size, size - 100);
        char *moved = block_realloc(&pool, p, size);
        assert_non_null(moved);
        for (size_t i = 0; i < size - 100; i++)
            assert_int_equal(moved[i], (char)size);
        p = moved;
    }
    memcpy(p, "less", 4);
    p = block_realloc(&pool, p, 4);
    assert_memory_equal(p, "less", 4);
    block_free(&pool, p);
    p = block_realloc(&pool, NULL, 10);
    assert_non_null(p);
    block_free(&pool, p);
    block_pool_fini(&pool);
}

static void test_sizes_that_nobody_has(void **state)
{
    (void)state;
    struct block_pool pool = {0};
    assert_null(block_alloc(&pool, SIZE_MAX));
    assert_null(block_calloc(&pool, SIZE_MAX / 2, 3));
    void *none = block_alloc(&pool, 0);
    assert_non_null(none);
    assert_null(block_realloc(&pool, none, SIZE_MAX - 8));
    block_free(&pool, none);
    block_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_taken_again),
        cmocka_unit_test(test_what_is_kept_is_bounded),
        cmocka_unit_test(test_what_is_zeroed_and_moved),
        cmocka_unit_test(test_sizes_that_nobody_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
