#include "unit.h"

#include "replay/table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { TTL = 1000 };

static struct replay_hash hash_of(const char *text)
{
    struct str part = str_of(text);
    return replay_hash(&part, 1);
}

static struct replay_hash hash_of_number(unsigned number)
{
    struct str part = {(const char *)&number, sizeof number};
    return replay_hash(&part, 1);
}

// ---- hashes ----

static void test_where_parts_end_counts(void **state)
{
    (void)state;
    const struct str one[] = {STR("ab"), STR("c")}, other[] = {STR("a"), STR("bc")},
                     more[] = {STR("ab"), STR("c"), STR_NULL};
    struct replay_hash a = replay_hash(one, 2), b = replay_hash(other, 2), c = replay_hash(more, 3),
                       d = replay_hash(one, 2);
    assert_memory_equal(&a, &d, sizeof a);
    assert_memory_not_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a, &c, sizeof a);
}

// ---- answers ----

static struct replay_answer sample(struct arena *arena)
{
    struct replay_answer answer = {.status = 201, .body = STR("the body\0with a NUL")};
    headers_add(&answer.headers, arena, STR("Content-Type"), STR("text/plain"));
    headers_add(&answer.headers, arena, STR("X-Gone"), STR("x"));
    headers_add(&answer.headers, arena, STR("X-Empty"), STR_NULL);
    headers_remove_name(&answer.headers, STR("X-Gone"));
    return answer;
}

static void test_an_answer_there_and_back(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct replay_answer answer = sample(&arena), back;
    size_t n = replay_answer_bytes(&answer);
    char *span = malloc(n);
    replay_answer_write(&answer, span);
    assert_true(replay_answer_read((struct str){span, n}, &arena, &back));
    assert_int_equal(back.status, 201);
    assert_int_equal(back.headers.count, 2);
    assert_true(str_eq(headers_value(&back.headers, HEADER_CONTENT_TYPE), STR("text/plain")));
    assert_true(headers_find_name(&back.headers, STR("x-empty")));
    assert_true(str_eq(back.body, answer.body));
    free(span);
    arena_reset(&arena);
}

static void test_what_is_no_answer(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct replay_answer answer = sample(&arena), back;
    size_t n = replay_answer_bytes(&answer), head = n - answer.body.n;
    char *span = malloc(n);
    replay_answer_write(&answer, span);
    for (size_t cut = 0; cut < head; cut++) { // in memory of its own: a sanitizer sees what is read beyond it
        char *piece = malloc(cut ? cut : 1);
        memcpy(piece, span, cut);
        assert_false(replay_answer_read((struct str){piece, cut}, &arena, &back));
        free(piece);
    }
    for (size_t at = 0; at < head; at++)
        for (unsigned value = 0; value < 256; value += 5) {
            char *piece = malloc(n);
            memcpy(piece, span, n);
            piece[at] = (char)value;
            if (replay_answer_read((struct str){piece, n}, &arena, &back))
                assert_in_range(back.status, 200, 599);
            free(piece);
        }
    free(span);
    arena_reset(&arena);
}

// ---- the table ----

struct asked {
    enum replay_state state;
    uint64_t token;
    struct str answer;
};

static struct asked ask(const char *name, const char *print, uint64_t now_us, struct arena *arena)
{
    struct asked asked = {0};
    asked.state = replay_table_claim(hash_of(name), hash_of(print), now_us, now_us + TTL, arena, &asked.token,
                                     &asked.answer);
    return asked;
}

static void test_a_life(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct asked first = ask("a", "1", 1, &arena);
    assert_int_equal(first.state, REPLAY_NEW);
    assert_int_equal(ask("a", "1", 2, &arena).state, REPLAY_RUNNING);
    assert_int_equal(ask("a", "2", 2, &arena).state, REPLAY_OTHER);
    replay_table_keep(hash_of("a"), first.token, STR("answer"), 10000);
    struct asked again = ask("a", "1", 3, &arena);
    assert_int_equal(again.state, REPLAY_ANSWER);
    assert_true(str_eq(again.answer, STR("answer")));
    assert_int_equal(ask("a", "2", 3, &arena).state, REPLAY_OTHER);
    replay_table_drop(hash_of("a"), first.token); // too late for that
    assert_int_equal(ask("a", "1", 9999, &arena).state, REPLAY_ANSWER);
    struct asked later = ask("a", "2", 10000, &arena); // its time is over
    assert_int_equal(later.state, REPLAY_NEW);
    replay_table_drop(hash_of("a"), later.token);
    assert_int_equal(replay_table_counts().entries, 0);
    assert_int_equal(replay_table_counts().bytes, 0);
    arena_reset(&arena);
}

static void test_what_cannot_be_kept(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct asked first = ask("long", "1", 1, &arena);
    replay_table_keep(hash_of("long"), first.token, STR_NULL, 100);
    assert_int_equal(ask("long", "1", 2, &arena).state, REPLAY_LOST);
    struct asked next = ask("long", "1", 100, &arena);
    assert_int_equal(next.state, REPLAY_NEW);
    replay_table_drop(hash_of("long"), next.token);
    arena_reset(&arena);
}

static void test_who_is_late_changes_nothing(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct asked first = ask("late", "1", 1, &arena), second = ask("late", "1", 1 + TTL, &arena);
    assert_int_equal(second.state, REPLAY_NEW);
    replay_table_keep(hash_of("late"), first.token, STR("old"), 10000);
    replay_table_drop(hash_of("late"), first.token);
    assert_int_equal(ask("late", "1", 2 + TTL, &arena).state, REPLAY_RUNNING);
    replay_table_keep(hash_of("late"), second.token, STR("new"), 10000);
    assert_true(str_eq(ask("late", "1", 2 + TTL, &arena).answer, STR("new")));
    struct asked over = ask("late", "1", 10000, &arena);
    replay_table_drop(hash_of("late"), over.token);
    arena_reset(&arena);
}

static enum replay_state keep_number(unsigned number, struct str answer, struct arena *arena)
{
    uint64_t token;
    struct str kept;
    struct replay_hash name = hash_of_number(number);
    enum replay_state state = replay_table_claim(name, name, 1, 2, arena, &token, &kept);
    if (state == REPLAY_NEW)
        replay_table_keep(name, token, answer, UINT64_MAX);
    return state;
}

static void test_the_oldest_make_room(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    enum { SIZE = 1024 * 1024, FIT = REPLAY_BYTES / SIZE };
    char *bytes = calloc(1, SIZE);
    struct str answer = {bytes, SIZE};
    for (unsigned i = 0; i < FIT; i++)
        assert_int_equal(keep_number(i, answer, &arena), REPLAY_NEW);
    assert_int_equal(keep_number(0, answer, &arena), REPLAY_ANSWER); // asked for just now
    assert_int_equal(keep_number(FIT, answer, &arena), REPLAY_NEW);
    assert_int_equal(replay_table_counts().bytes, REPLAY_BYTES);
    assert_int_equal(keep_number(0, answer, &arena), REPLAY_ANSWER);
    assert_int_equal(keep_number(1, answer, &arena), REPLAY_NEW); // it was the oldest
    for (unsigned i = 0; i < REPLAY_ENTRIES + 10; i++)
        assert_int_equal(keep_number(1000 + i, STR_NULL, &arena), REPLAY_NEW);
    assert_int_equal(replay_table_counts().entries, REPLAY_ENTRIES);
    assert_int_equal(replay_table_counts().bytes, 0);
    free(bytes);
    arena_reset(&arena);
}

static void test_those_under_way_stay(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    uint64_t *tokens = calloc(REPLAY_ENTRIES, sizeof *tokens);
    struct str kept;
    for (unsigned i = 0; i < REPLAY_ENTRIES; i++) {
        struct replay_hash name = hash_of_number(2000000 + i);
        assert_int_equal(replay_table_claim(name, name, 1, UINT64_MAX, &arena, &tokens[i], &kept),
                         REPLAY_NEW);
    }
    assert_int_equal(replay_table_counts().running, REPLAY_ENTRIES);
    assert_int_equal(ask("more", "1", 1, &arena).state, REPLAY_FULL);
    for (unsigned i = 0; i < REPLAY_ENTRIES; i++)
        replay_table_drop(hash_of_number(2000000 + i), tokens[i]);
    assert_int_equal(replay_table_counts().entries, 0);
    free(tokens);
    arena_reset(&arena);
}

enum { THREADS = 4, ROUNDS = 2000, NAMES = 7 };
static atomic_uint holders[NAMES];
static atomic_uint carried_out;

static void *ask_all_the_time(void *unused)
{
    (void)unused;
    struct arena arena;
    arena_init(&arena, NULL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned number = 5000000 + i % NAMES;
        struct replay_hash name = hash_of_number(number);
        uint64_t token;
        struct str kept;
        if (replay_table_claim(name, name, 1, UINT64_MAX, &arena, &token, &kept) != REPLAY_NEW)
            continue;
        check(atomic_fetch_add(&holders[i % NAMES], 1) == 0); // nobody else
        atomic_fetch_add(&carried_out, 1);
        atomic_fetch_sub(&holders[i % NAMES], 1);
        if (i % 3)
            replay_table_drop(name, token);
        else
            replay_table_keep(name, token, STR("answer"), 1); // over at once
        arena_reset(&arena);
    }
    arena_reset(&arena);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all_the_time, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(carried_out >= ROUNDS);
    assert_int_equal(replay_table_counts().running, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_parts_end_counts),
        cmocka_unit_test(test_an_answer_there_and_back),
        cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_a_life),
        cmocka_unit_test(test_what_cannot_be_kept),
        cmocka_unit_test(test_who_is_late_changes_nothing),
        cmocka_unit_test(test_the_oldest_make_room),
        cmocka_unit_test(test_those_under_way_stay),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
