// The trie by itself: segments are cut and hashed alike wherever they stand, and equal hashes are not taken
// for equal segments.
#include "route/route_trie.h"

#include "base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct trie_segment segment_of(const char *text)
{
    return trie_segment_at(text, text + strlen(text));
}

// Exactly as many bytes as the segment may be read: the sanitizer watches the heap's end.
static void test_segments(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 40; n++) {
        char *alone = malloc(n + 1), *inside = malloc(n + 1 + 20);
        for (size_t i = 0; i < n; i++)
            alone[i] = inside[i] = (char)('a' + i % 26);
        struct trie_segment end = trie_segment_at(alone, alone + n);
        assert_int_equal(end.n, n);
        for (size_t after = 0; after < 20; after++) {
            inside[n] = '/';
            memset(inside + n + 1, after % 2 ? '/' : 'z', after);
            struct trie_segment middle = trie_segment_at(inside, inside + n + 1 + after);
            assert_int_equal(middle.n, n);
            assert_true(middle.hash == end.hash && middle.head == end.head);
        }
        free(alone);
        free(inside);
    }
}

// Bytes next to '/' and with the high bit set are where a word-at-a-time search goes wrong.
static void test_slash_among_its_neighbours(void **state)
{
    (void)state;
    char text[24];
    for (unsigned before = 0; before < 256; before++)
        for (size_t at = 0; at < 16; at++) {
            memset(text, before == '/' ? '.' : (char)before, sizeof text);
            text[at] = '/';
            text[at + 1] = '.';
            assert_int_equal(trie_segment_at(text, text + sizeof text).n, at);
        }
}

static void test_children(void **state)
{
    (void)state;
    static const char *const names[] = {"",
                                        "a",
                                        "b",
                                        "exactly8",
                                        "exactly8-and",
                                        "exactly8-or",
                                        "exactly9x",
                                        "sixteen-bytes-xx",
                                        "sixteen-bytes-xxy"};
    struct trie trie = {0};
    struct arena arena;
    arena_init(&arena, NULL);
    uint32_t root = trie_root(&trie), other = trie_root(&trie), ids[countof(names)];
    for (size_t i = 0; i < countof(names); i++) {
        struct trie_segment segment = segment_of(names[i]);
        assert_int_equal(trie_child(&trie, root, &segment), 0);
        ids[i] = trie_add_child(&trie, root, &segment);
        assert_int_equal(trie_add_child(&trie, root, &segment), ids[i]);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(ids[i], ids[j]);
    }
    uint32_t variable = trie_add_variable(&trie, root);
    assert_int_equal(trie_add_variable(&trie, root), variable);
    trie_seal(&trie, &arena);
    for (size_t i = 0; i < countof(names); i++) {
        struct trie_segment segment = segment_of(names[i]);
        assert_int_equal(trie_child(&trie, root, &segment), ids[i]);
        assert_int_equal(trie_child(&trie, other, &segment), 0);
    }
    assert_true(trie.nodes[root].has_children);
    assert_false(trie.nodes[other].has_children);
    arena_reset(&arena);
}

// ---- collisions, found by trying ----

enum { TRIES = 400000 }; // about 18 pairs of equal 32-bit hashes are to be expected

struct hashed {
    uint32_t hash, number;
};

static int compare_hashed(const void *left, const void *right)
{
    const struct hashed *a = left, *b = right;
    return a->hash < b->hash ? -1 : a->hash > b->hash;
}

// Two numbers with the same hash.
static void find_pair(struct hashed *all, uint32_t *first, uint32_t *second)
{
    qsort(all, TRIES, sizeof *all, compare_hashed);
    for (uint32_t i = 1; i < TRIES; i++)
        if (all[i].hash == all[i - 1].hash) {
            *first = all[i - 1].number;
            *second = all[i].number;
            return;
        }
    fail_msg("no collision among %d", TRIES);
}

static void test_colliding_segments(void **state)
{
    (void)state;
    static const char *const forms[] = {"", "longer-than-eight-"};
    struct hashed *all = calloc(TRIES, sizeof *all);
    for (size_t form = 0; form < countof(forms); form++) {
        char text[2][40];
        uint32_t pair[2];
        struct trie trie = {0};
        uint32_t root = trie_root(&trie);
        for (uint32_t i = 0; i < TRIES; i++) {
            snprintf(text[0], sizeof text[0], "%s%u", forms[form], i);
            all[i] = (struct hashed){trie_edge_hash(root, segment_of(text[0]).hash), i};
        }
        find_pair(all, &pair[0], &pair[1]);
        for (int i = 0; i < 2; i++)
            snprintf(text[i], sizeof text[i], "%s%u", forms[form], pair[i]);
        struct trie_segment one = segment_of(text[0]), two = segment_of(text[1]);
        uint32_t child = trie_add_child(&trie, root, &one);
        assert_int_equal(trie_child(&trie, root, &two), 0);
        uint32_t second = trie_add_child(&trie, root, &two);
        assert_int_not_equal(second, child);
        assert_int_equal(trie_child(&trie, root, &one), child);
        assert_int_equal(trie_child(&trie, root, &two), second);
        trie_fini(&trie);
    }
    free(all);
}

static void test_colliding_parents(void **state)
{
    (void)state;
    struct hashed *all = calloc(TRIES, sizeof *all);
    struct trie_segment segment = segment_of("orders");
    struct trie trie = {0};
    uint32_t pair[2];
    for (uint32_t i = 0; i < TRIES; i++) {
        uint32_t root = trie_root(&trie);
        all[i] = (struct hashed){trie_edge_hash(root, segment.hash), root};
    }
    find_pair(all, &pair[0], &pair[1]);
    uint32_t child = trie_add_child(&trie, pair[0], &segment);
    assert_int_equal(trie_child(&trie, pair[0], &segment), child);
    assert_int_equal(trie_child(&trie, pair[1], &segment), 0);
    trie_fini(&trie);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments),          cmocka_unit_test(test_slash_among_its_neighbours),
        cmocka_unit_test(test_children),          cmocka_unit_test(test_colliding_segments),
        cmocka_unit_test(test_colliding_parents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
