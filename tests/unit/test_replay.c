#include "unit.h"

#include "replay/table.h"
#include "replay/value.h"

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

static struct str span_of(const struct replay_answer *answer, struct arena *arena)
{
    size_t n = replay_answer_bytes(answer);
    char *span = arena_alloc(arena, n);
    replay_answer_write(answer, span);
    return (struct str){span, n};
}

static void test_an_answer_with_trailers(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct replay_answer answer = sample(&arena), back;
    size_t without = replay_answer_bytes(&answer);
    headers_add(&answer.trailers, &arena, STR("X-Gone"), STR("x"));
    headers_remove_name(&answer.trailers, STR("X-Gone"));
    assert_int_equal(replay_answer_bytes(&answer), without);
    headers_add(&answer.trailers, &arena, STR("X-Checksum"), STR("c0ffee"));
    assert_true(replay_answer_read(span_of(&answer, &arena), &arena, &back));
    assert_int_equal(back.status, 201);
    assert_int_equal(back.headers.count, 2);
    assert_int_equal(back.trailers.count, 1);
    assert_true(str_eq(headers_find_name(&back.trailers, STR("X-Checksum"))->value, STR("c0ffee")));
    assert_true(str_eq(back.body, answer.body));
    headers_add(&answer.trailers, &arena, STR("Content-Length"), STR("1")); // as nobody would have kept it
    assert_false(replay_answer_read(span_of(&answer, &arena), &arena, &back));
    arena_reset(&arena);
}

// Gateways of an older version share the Redis: what they wrote is read, and what they cannot read, an answer
// with trailers, has a status that is none to them.
static void test_answers_of_an_older_gateway(void **state)
{
    (void)state;
    static const char older[] = "\0\0\0\xc9\0\0\0\1\0\0\0\1\0\0\0\2Ab2the body";
    struct str span = {older, sizeof older - 1};
    struct arena arena;
    struct replay_answer answer;
    arena_init(&arena, NULL);
    assert_true(replay_answer_read(span, &arena, &answer));
    assert_true(answer.status == 201 && answer.headers.count == 1 && answer.trailers.count == 0);
    assert_true(str_eq(answer.body, STR("the body")));
    assert_true(str_eq(span_of(&answer, &arena), span));
    headers_add(&answer.trailers, &arena, STR("X"), STR("y"));
    assert_int_equal(span_of(&answer, &arena).p[1], 1); // 65737
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

// ---- what stands in Redis ----

static enum replay_state read_text(struct str text, struct replay_hash print, struct str *answer)
{
    struct resp_value reply = {.kind = RESP_STRING, .text = text};
    return replay_value_read(&reply, &print, answer);
}

static void test_what_stands_in_redis(void **state)
{
    (void)state;
    struct replay_hash print = hash_of("p");
    char text[REPLAY_RUNNING_BYTES] = "d";
    struct str head = {text, REPLAY_VALUE_HEAD_BYTES}, whole = {text, sizeof text}, answer = STR_NULL;
    struct resp_value nothing = {.kind = RESP_NULL}, fault = {.kind = RESP_ERROR, .text = whole};
    memcpy(text + 1, &print, sizeof print);
    assert_int_equal(replay_value_read(&nothing, &print, &answer), REPLAY_NEW);
    assert_int_equal(replay_value_read(&fault, &print, &answer), REPLAY_UNAVAILABLE);
    assert_int_equal(read_text(whole, hash_of("q"), &answer), REPLAY_OTHER);
    assert_int_equal(read_text(head, print, &answer), REPLAY_LOST); // carried out, and nothing kept
    for (size_t n = 0; n < head.n; n++)
        assert_int_equal(read_text((struct str){text, n}, print, &answer), REPLAY_LOST);
    assert_int_equal(answer.n, 0);
    assert_int_equal(read_text(whole, print, &answer), REPLAY_ANSWER);
    assert_true(answer.p == text + head.n && answer.n == REPLAY_TOKEN_BYTES);
    text[0] = 'r';
    assert_int_equal(read_text(whole, print, &answer), REPLAY_RUNNING);
    text[0] = 'x';
    assert_int_equal(read_text(whole, print, &answer), REPLAY_LOST);
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
    struct shared *answer = NULL;
    asked.state =
        replay_table_claim(hash_of(name), hash_of(print), now_us, now_us + TTL, &asked.token, &answer);
    if (answer)
        asked.answer = arena_copy(arena, shared_str(answer));
    shared_unref(answer);
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

static enum replay_state keep_number(unsigned number, struct str answer)
{
    uint64_t token;
    struct shared *kept = NULL;
    struct replay_hash name = hash_of_number(number);
    enum replay_state state = replay_table_claim(name, name, 1, 2, &token, &kept);
    if (state == REPLAY_NEW)
        replay_table_keep(name, token, answer, UINT64_MAX);
    shared_unref(kept);
    return state;
}

static void test_who_has_an_answer_keeps_it(void **state)
{
    (void)state;
    struct replay_hash name = hash_of("held");
    uint64_t token;
    struct shared *first = NULL, *second = NULL;
    assert_int_equal(replay_table_claim(name, name, 1, 2, &token, &first), REPLAY_NEW);
    replay_table_keep(name, token, STR("answer"), 10);
    assert_int_equal(replay_table_claim(name, name, 9, 10, &token, &first), REPLAY_ANSWER);
    assert_int_equal(replay_table_claim(name, name, 9, 10, &token, &second), REPLAY_ANSWER);
    assert_ptr_equal(first, second); // nothing is copied
    shared_unref(second);
    assert_int_equal(replay_table_claim(name, name, 10, 11, &token, &second), REPLAY_NEW);
    replay_table_drop(name, token);
    assert_int_equal(replay_table_counts().entries, 0);
    assert_true(str_eq(shared_str(first), STR("answer")));
    shared_unref(first);
}

static void test_the_oldest_make_room(void **state)
{
    (void)state;
    enum { SIZE = 1024 * 1024, FIT = REPLAY_BYTES / SIZE };
    char *bytes = calloc(1, SIZE);
    struct str answer = {bytes, SIZE};
    for (unsigned i = 0; i < FIT; i++)
        assert_int_equal(keep_number(i, answer), REPLAY_NEW);
    assert_int_equal(keep_number(0, answer), REPLAY_ANSWER); // asked for just now
    assert_int_equal(keep_number(FIT, answer), REPLAY_NEW);
    assert_int_equal(replay_table_counts().bytes, REPLAY_BYTES);
    assert_int_equal(keep_number(0, answer), REPLAY_ANSWER);
    assert_int_equal(keep_number(1, answer), REPLAY_NEW); // it was the oldest
    for (unsigned i = 0; i < REPLAY_ENTRIES + 10; i++)
        assert_int_equal(keep_number(1000 + i, STR_NULL), REPLAY_NEW);
    assert_int_equal(replay_table_counts().entries, REPLAY_ENTRIES);
    assert_int_equal(replay_table_counts().bytes, 0);
    free(bytes);
}

static void test_those_under_way_stay(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    uint64_t *tokens = calloc(REPLAY_ENTRIES, sizeof *tokens);
    struct shared *kept;
    for (unsigned i = 0; i < REPLAY_ENTRIES; i++) {
        struct replay_hash name = hash_of_number(2000000 + i);
        assert_int_equal(replay_table_claim(name, name, 1, UINT64_MAX, &tokens[i], &kept), REPLAY_NEW);
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
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned number = 5000000 + i % NAMES;
        struct replay_hash name = hash_of_number(number);
        uint64_t token;
        struct shared *kept = NULL;
        if (replay_table_claim(name, name, 1, UINT64_MAX, &token, &kept) != REPLAY_NEW) {
            shared_unref(kept);
            continue;
        }
        check(atomic_fetch_add(&holders[i % NAMES], 1) == 0); // nobody else
        atomic_fetch_add(&carried_out, 1);
        atomic_fetch_sub(&holders[i % NAMES], 1);
        if (i % 3)
            replay_table_drop(name, token);
        else
            replay_table_keep(name, token, STR("answer"), 1); // over at once
    }
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
        cmocka_unit_test(test_an_answer_with_trailers),
        cmocka_unit_test(test_answers_of_an_older_gateway),
        cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_what_stands_in_redis),
        cmocka_unit_test(test_a_life),
        cmocka_unit_test(test_what_cannot_be_kept),
        cmocka_unit_test(test_who_is_late_changes_nothing),
        cmocka_unit_test(test_who_has_an_answer_keeps_it),
        cmocka_unit_test(test_the_oldest_make_room),
        cmocka_unit_test(test_those_under_way_stay),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
