// RESP: one value after another. The first byte says in which pieces they come; whatever is taken is the same
// in one piece, lies within what was given and within the bounds.
#include "h1_input.h"

#include "redis/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint32_t check_value(const struct resp_value *value, struct str data, unsigned depth)
{
    uint32_t items = 1;
    check(depth <= RESP_DEPTH);
    check(value->kind <= RESP_PUSH && (value->kind != RESP_PUSH || depth == 0));
    if (value->text.n)
        check(value->text.p >= data.p && value->text.p + value->text.n <= data.p + data.n);
    check(value->count == 0 || value->kind == RESP_ARRAY || value->kind == RESP_PUSH);
    for (uint32_t i = 0; i < value->count; i++)
        items += check_value(&value->items[i], data, depth + 1);
    check(items <= RESP_ITEMS);
    return items;
}

static void check_same(const struct resp_value *a, const struct resp_value *b)
{
    check(a->kind == b->kind && a->integer == b->integer && a->count == b->count && str_eq(a->text, b->text));
    check(memcmp(&a->number, &b->number, sizeof a->number) == 0 || a->number != a->number);
    for (uint32_t i = 0; i < a->count; i++)
        check_same(&a->items[i], &b->items[i]);
}

// The value at the beginning of data, which comes `piece` bytes at a time. 0: none.
static size_t run(struct str data, size_t piece, size_t max)
{
    struct arena arena;
    struct resp_walk walk = {0};
    struct resp_value whole, value;
    size_t used = 0, used_in_pieces = 0, given = 0;
    arena_init(&arena, NULL);
    enum resp_result in_one = resp_parse(data, max, &arena, &whole, &used), result = RESP_MORE;
    while (result == RESP_MORE && given < data.n) {
        given = data.n - given > piece ? given + piece : data.n;
        char *copy = exact_copy(data.p, given);
        size_t needed = walk.needed;
        result = resp_continue(&walk, (struct str){copy, given}, max, &arena, &value, &used_in_pieces);
        check(result != RESP_MORE || walk.needed > given);
        check(given >= needed || result == RESP_MORE); // it was of no use, as was said
        if (result == RESP_VALUE) {
            check(in_one == RESP_VALUE && used == used_in_pieces && used <= given && used <= max);
            check_value(&value, (struct str){copy, given}, 0);
            check_same(&whole, &value);
        }
        free(copy);
    }
    check(data.n == 0 || result == in_one);
    arena_reset(&arena);
    return in_one == RESP_VALUE ? used : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    struct str rest = {(const char *)data + 2, n - 2};
    size_t piece = (data[0] & 31) + 1, max = data[0] & 128 ? data[1] : 1 << 20;
    while (rest.n) {
        size_t used = run(rest, piece, max);
        if (!used)
            break;
        rest = str_skip(rest, used);
    }
    return 0;
}
