#include "redis/resp.h"

#include <math.h>
#include <stdlib.h>

enum {
    NUMBER_BYTES = 64,   // of a double as text
    ITEM_BYTES = 3,      // "_\r\n": the shortest there is
    VERBATIM_PREFIX = 4, // "txt:"
};

// One item: a scalar, or the head of an aggregate.
struct item {
    char type;
    struct str text; // the line behind the type, or a blob
    int64_t number;  // of ':' and of lengths; -1: null (RESP2)
    size_t end;      // behind it
};

// ---- lines ----

// [+-]digits, all of text.
static bool to_integer(struct str text, int64_t *number)
{
    bool negative = text.n && text.p[0] == '-';
    uint64_t value;
    if (text.n && (text.p[0] == '-' || text.p[0] == '+'))
        text = str_skip(text, 1);
    if (!str_to_u64(text, (uint64_t)INT64_MAX + negative, &value))
        return false;
    *number = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

// Digits, or -1 when null is allowed. No '+', no leading zeros: lengths have one spelling.
static bool to_length(struct str text, bool nullable, int64_t *length)
{
    if (nullable && str_eq(text, STR("-1"))) {
        *length = -1;
        return true;
    }
    return to_integer(text, length) && text.p[0] >= '0' && text.p[0] <= '9' &&
           (text.n == 1 || text.p[0] != '0');
}

static bool to_double(struct str text, double *number)
{
    char copy[NUMBER_BYTES];
    if (str_eq(text, STR("inf")) || str_eq(text, STR("+inf")) || str_eq(text, STR("-inf"))) {
        *number = text.p[0] == '-' ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    if (str_eq(text, STR("nan")) || str_eq(text, STR("-nan"))) {
        *number = (double)NAN;
        return true;
    }
    if (!text.n || text.n >= sizeof copy)
        return false;
    for (size_t i = 0; i < text.n; i++) // no hexadecimal, no words
        if (!strchr("0123456789+-.eE", text.p[i]))
            return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    char *end;
    *number = strtod(copy, &end);
    return *end == 0;
}

static bool is_big_number(struct str text)
{
    size_t i = text.n && (text.p[0] == '-' || text.p[0] == '+');
    if (i == text.n)
        return false;
    for (; i < text.n; i++)
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
    return true;
}

// The line at `at`, without its end. *looked: bytes that are known to hold no '\n'.
static enum resp_result read_line(struct str data, size_t at, size_t *looked, struct str *line)
{
    struct str rest = str_skip(data, at);
    const char *end = rest.n > *looked ? memchr(rest.p + *looked, '\n', rest.n - *looked) : NULL;
    size_t n = end ? (size_t)(end - rest.p) : rest.n;
    if (n > RESP_LINE_BYTES)
        return RESP_BAD;
    if (!end) {
        *looked = rest.n;
        return RESP_MORE;
    }
    if (n < 2 || rest.p[n - 1] != '\r' || memchr(rest.p, '\r', n - 1))
        return RESP_BAD;
    *line = (struct str){rest.p, n - 1};
    *looked = 0;
    return RESP_VALUE;
}

// ---- items ----

static bool is_blob(char type)
{
    return type == '$' || type == '!' || type == '=';
}

static bool is_aggregate(char type)
{
    return type == '*' || type == '~' || type == '%' || type == '>' || type == '|';
}

// The blob behind a line that ends at `at`. item->number: its length.
static enum resp_result read_blob(struct str data, size_t at, size_t max, struct item *item, size_t *needed)
{
    size_t n = (size_t)item->number;
    if (n > max || at + n + 2 > max || (item->type == '=' && n < VERBATIM_PREFIX))
        return RESP_BAD;
    item->end = at + n + 2;
    if (data.n < item->end) {
        *needed = item->end;
        return RESP_MORE;
    }
    item->text = (struct str){data.p + at, n};
    if (data.p[at + n] != '\r' || data.p[at + n + 1] != '\n')
        return RESP_BAD;
    if (item->type != '=')
        return RESP_VALUE;
    if (item->text.p[VERBATIM_PREFIX - 1] != ':')
        return RESP_BAD;
    item->text = str_skip(item->text, VERBATIM_PREFIX);
    return RESP_VALUE;
}

static bool read_scalar(struct item *item)
{
    double ignored;
    switch (item->type) {
    case '+':
    case '-': return true;
    case ':': return to_integer(item->text, &item->number);
    case '_': return item->text.n == 0;
    case '#':
        item->number = str_eq(item->text, STR("t"));
        return item->number || str_eq(item->text, STR("f"));
    case ',': return to_double(item->text, &ignored);
    case '(': return is_big_number(item->text);
    default: return false;
    }
}

static enum resp_result read_item(struct resp_walk *walk, struct str data, size_t max, struct item *item)
{
    struct str line;
    enum resp_result result = read_line(data, walk->at, &walk->looked, &line);
    walk->needed = data.n + 1;
    if (result != RESP_VALUE)
        return result;
    *item = (struct item){.type = line.p[0], .text = str_skip(line, 1), .end = walk->at + line.n + 2};
    bool nullable = item->type == '$' || item->type == '*';
    if (is_blob(item->type) || is_aggregate(item->type)) {
        if (!to_length(item->text, nullable, &item->number))
            return RESP_BAD;
        if (is_blob(item->type) && item->number >= 0)
            return read_blob(data, item->end, max, item, &walk->needed);
        return RESP_VALUE;
    }
    return read_scalar(item) ? RESP_VALUE : RESP_BAD;
}

// ---- walking ----

static uint64_t count_of(const struct item *item)
{
    if (!is_aggregate(item->type) || item->number < 0)
        return 0;
    bool is_map = item->type == '%' || item->type == '|';
    return (uint64_t)item->number * (is_map ? 2 : 1); // to_length: at most 2^63 - 1
}

// Steps over an item. An attribute (`|`) is no item of what holds it: it stands before one.
static bool step(struct resp_walk *walk, const struct item *item, size_t max)
{
    uint64_t count = count_of(item);
    if (item->type == '>' && (walk->begun || count == 0)) // only by itself, and it has a kind
        return false;
    if (++walk->items > RESP_ITEMS || count > RESP_ITEMS || item->end > max)
        return false;
    walk->begun = true;
    walk->at = item->end;
    if (item->type != '|')
        walk->left[walk->depth]--;
    if (count) {
        if (walk->depth == RESP_DEPTH)
            return false;
        walk->left[++walk->depth] = count;
    }
    while (walk->depth && walk->left[walk->depth] == 0)
        walk->depth--;
    uint64_t missing = 0;
    for (unsigned i = 0; i <= walk->depth; i++)
        missing += walk->left[i];
    return missing <= RESP_ITEMS && walk->at + missing * ITEM_BYTES <= max;
}

static bool is_whole(const struct resp_walk *walk)
{
    return walk->begun && walk->depth == 0 && walk->left[0] == 0;
}

// ---- building, of what has been walked over ----

static size_t build(struct str data, size_t at, struct arena *arena, struct resp_value *value);

static size_t build_items(struct str data, size_t at, uint32_t count, struct arena *arena,
                          struct resp_value *items)
{
    for (uint32_t i = 0; i < count; i++)
        at = build(data, at, arena, &items[i]);
    return at;
}

static void set_value(const struct item *item, struct resp_value *value)
{
    switch (item->type) {
    case '-':
    case '!': *value = (struct resp_value){.kind = RESP_ERROR, .text = item->text}; break;
    case ':':
    case '#': *value = (struct resp_value){.kind = RESP_INTEGER, .integer = item->number}; break;
    case ',':
        *value = (struct resp_value){.kind = RESP_DOUBLE};
        check(to_double(item->text, &value->number));
        break;
    case '_': *value = (struct resp_value){.kind = RESP_NULL}; break;
    case '>': *value = (struct resp_value){.kind = RESP_PUSH}; break;
    case '*':
    case '~':
    case '%': *value = (struct resp_value){.kind = RESP_ARRAY}; break;
    default: *value = (struct resp_value){.kind = RESP_STRING, .text = item->text}; break;
    }
    if (item->number < 0 && (item->type == '$' || item->type == '*'))
        *value = (struct resp_value){.kind = RESP_NULL};
}

// Recursion is as deep as RESP_DEPTH. Returns where the value ends.
static size_t build(struct str data, size_t at, struct arena *arena, struct resp_value *value)
{
    struct resp_walk walk = {.at = at};
    struct item item;
    struct resp_value attribute;
    check(read_item(&walk, data, data.n, &item) == RESP_VALUE);
    while (item.type == '|') { // skipped
        walk.at = item.end;
        for (uint64_t i = 0; i < count_of(&item); i++)
            walk.at = build(data, walk.at, arena, &attribute);
        check(read_item(&walk, data, data.n, &item) == RESP_VALUE);
    }
    set_value(&item, value);
    value->count = (uint32_t)count_of(&item);
    if (!value->count)
        return item.end;
    value->items = arena_array(arena, struct resp_value, value->count);
    return build_items(data, item.end, value->count, arena, value->items);
}

// ---- the two together ----

enum resp_result resp_continue(struct resp_walk *walk, struct str data, size_t max, struct arena *arena,
                               struct resp_value *value, size_t *used)
{
    if (!walk->begun && !walk->depth)
        walk->left[0] = 1;
    while (!is_whole(walk)) {
        struct item item;
        enum resp_result result = read_item(walk, data, max, &item);
        if (result == RESP_MORE && data.n >= max)
            return RESP_BAD;
        if (result != RESP_VALUE)
            return result;
        if (!step(walk, &item, max))
            return RESP_BAD;
    }
    *used = walk->at;
    check(build((struct str){data.p, walk->at}, 0, arena, value) == walk->at);
    return RESP_VALUE;
}

enum resp_result resp_parse(struct str data, size_t max, struct arena *arena, struct resp_value *value,
                            size_t *used)
{
    struct resp_walk walk = {0};
    return resp_continue(&walk, data, max, arena, value, used);
}

// By hand: a command has a dozen of these, and printf would be most of what it costs.
static void append_head(struct buf *out, char kind, uint64_t number)
{
    char line[24] = {kind};
    size_t n = 1 + u64_print(number, line + 1);
    line[n++] = '\r';
    line[n++] = '\n';
    buf_append(out, (struct str){line, n});
}

void resp_command(struct buf *out, const struct str *argv, unsigned argc)
{
    append_head(out, '*', argc);
    for (unsigned i = 0; i < argc; i++) {
        append_head(out, '$', argv[i].n);
        buf_append(out, argv[i]);
        buf_append(out, STR("\r\n"));
    }
}
