#include "base/json_parse.h"

#include "base/siphash.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define JSON_INTEGER_MAX (1ULL << 53)

struct parser {
    const char *at, *end;
    struct arena *arena;
    const char *why; // NULL: all is well
    unsigned depth;
    uint32_t values;
};

static bool parse_value(struct parser *parser, struct json_value *value);

static bool fail(struct parser *parser, const char *why)
{
    parser->why = why;
    return false;
}

static void skip_space(struct parser *parser)
{
    while (parser->at < parser->end &&
           (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\r' || *parser->at == '\t'))
        parser->at++;
}

// Skips white space; the next byte, 0 at the end.
static char peek(struct parser *parser)
{
    skip_space(parser);
    return parser->at < parser->end ? *parser->at : 0;
}

static bool take(struct parser *parser, char c, const char *why)
{
    if (peek(parser) != c)
        return fail(parser, why);
    parser->at++;
    return true;
}

// ---- strings ----

// The first byte that is not plain: a quote, a backslash, a control or no ASCII.
static const char *skip_plain(const char *p, const char *end)
{
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        // Signed: bytes from 0x80 are below 0x20 as well.
        __m128i stop = _mm_or_si128(_mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20)),
                                    _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                                 _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'))));
        int mask = _mm_movemask_epi8(stop);
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

static bool read_hex4(const char *p, const char *end, uint32_t *unit)
{
    if (end - p < 4)
        return false;
    *unit = 0;
    for (unsigned i = 0; i < 4; i++) {
        char c = ascii_lower(p[i]);
        if (c >= '0' && c <= '9')
            *unit = *unit << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            *unit = *unit << 4 | (uint32_t)(c - 'a' + 10);
        else
            return false;
    }
    return true;
}

static char *put_utf8(char *at, uint32_t point)
{
    if (point < 0x80) {
        *at++ = (char)point;
        return at;
    }
    unsigned more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    *at++ = (char)(0xff00u >> (more + 1) | point >> 6 * more);
    while (more--)
        *at++ = (char)(0x80 | (point >> 6 * more & 0x3f));
    return at;
}

// What follows "\u": one unit, or a pair of surrogates (RFC 8259 7). Returns where it ends, or NULL.
static const char *read_escape_u(const char *p, const char *end, char **out)
{
    uint32_t high, low;
    if (!read_hex4(p, end, &high) || (high >= 0xdc00 && high < 0xe000))
        return NULL;
    p += 4;
    if (high < 0xd800 || high >= 0xe000) {
        *out = put_utf8(*out, high);
        return p;
    }
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !read_hex4(p + 2, end, &low) || low < 0xdc00 ||
        low >= 0xe000)
        return NULL;
    *out = put_utf8(*out, 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
    return p + 6;
}

// p is behind the backslash.
static const char *read_escape(const char *p, const char *end, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (p == end)
        return NULL;
    if (*p == 'u')
        return read_escape_u(p + 1, end, out);
    const char *known = memchr(from, *p, sizeof from - 1);
    if (!known)
        return NULL;
    *(*out)++ = to[known - from];
    return p + 1;
}

// at is behind the quote. The first pass finds the end and whether there is anything to decode; decoding
// shortens.
static bool parse_string(struct parser *parser, struct str *text)
{
    const char *begin = parser->at, *p = begin;
    bool escaped = false;
    for (;;) {
        p = skip_plain(p, parser->end);
        if (p == parser->end)
            return fail(parser, "a string without an end");
        if (*p == '"')
            break;
        if (*p == '\\') {
            escaped = true;
            p += 1 + (parser->end - p > 1); // what is escaped is no end
            continue;
        }
        if ((unsigned char)*p < 0x20)
            return fail(parser, "a string with a bad escape or a control character");
        size_t n = str_utf8_length(str_range(p, parser->end));
        if (!n)
            return fail(parser, "a string that is not UTF-8");
        p += n;
    }
    parser->at = p + 1;
    *text = str_range(begin, p);
    if (!escaped)
        return true;

    char *out = arena_alloc(parser->arena, text->n), *to = out;
    const char *from = begin;
    while (from) {
        const char *escape = memchr(from, '\\', (size_t)(p - from));
        size_t n = (size_t)((escape ? escape : p) - from);
        memcpy(to, from, n);
        to += n;
        if (!escape)
            break;
        from = read_escape(escape + 1, p, &to);
    }
    *text = str_range(out, to);
    return from ? true : fail(parser, "a string with a bad escape or a control character");
}

// ---- numbers ----

static bool is_digit(const struct parser *parser)
{
    return parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9';
}

static bool skip_digits(struct parser *parser)
{
    if (!is_digit(parser))
        return false;
    while (is_digit(parser))
        parser->at++;
    return true;
}

static bool skip_char(struct parser *parser, char c)
{
    if (parser->at == parser->end || *parser->at != c)
        return false;
    parser->at++;
    return true;
}

// RFC 8259 6.
static bool parse_number(struct parser *parser, struct str *text)
{
    const char *begin = parser->at;
    skip_char(parser, '-');
    bool good = skip_char(parser, '0') || skip_digits(parser);
    if (good && skip_char(parser, '.'))
        good = skip_digits(parser);
    if (good && (skip_char(parser, 'e') || skip_char(parser, 'E'))) {
        if (!skip_char(parser, '+'))
            skip_char(parser, '-');
        good = skip_digits(parser);
    }
    *text = str_range(begin, parser->at);
    return good ? true : fail(parser, "a malformed number");
}

// ---- objects and arrays ----

static struct json_value *new_value(struct parser *parser)
{
    if (++parser->values > JSON_PARSE_VALUES) {
        fail(parser, "too many values");
        return NULL;
    }
    return arena_new(parser->arena, struct json_value);
}

static bool repeats_by_pairs(const struct json_value *object)
{
    for (const struct json_value *a = object->first; a; a = a->next)
        for (const struct json_value *b = object->first; b != a; b = b->next)
            if (str_eq(a->key, b->key))
                return true;
    return false;
}

// A table of the members, found by a hash that whoever wrote the text cannot aim at.
static bool repeats_by_table(const struct json_value *object, struct arena *arena)
{
    size_t capacity = 64;
    while (capacity < (size_t)object->count * 2)
        capacity *= 2;
    const struct json_value **table = arena_array(arena, const struct json_value *, capacity);
    const struct siphash_key *key = siphash_process_key();
    for (const struct json_value *member = object->first; member; member = member->next) {
        size_t i = (size_t)siphash128(key, 0, member->key).lo & (capacity - 1);
        for (; table[i]; i = (i + 1) & (capacity - 1))
            if (str_eq(table[i]->key, member->key))
                return true;
        table[i] = member;
    }
    return false;
}

static bool has_duplicate(const struct json_value *object, struct arena *arena)
{
    enum { FEW = 16 };
    return object->count <= FEW ? repeats_by_pairs(object) : repeats_by_table(object, arena);
}

static bool parse_member(struct parser *parser, struct json_value *member)
{
    return take(parser, '"', "expected a string") && parse_string(parser, &member->key) &&
           take(parser, ':', "expected a colon") && parse_value(parser, member);
}

// at is behind the bracket.
static bool parse_children(struct parser *parser, struct json_value *parent, char end)
{
    if (++parser->depth > JSON_PARSE_DEPTH)
        return fail(parser, "nested too deeply");
    const struct json_value **link = &parent->first;
    const char *begin = parser->at - 1;
    bool more = peek(parser) != end;
    while (more) {
        struct json_value *child = new_value(parser);
        if (!child || !(end == '}' ? parse_member(parser, child) : parse_value(parser, child)))
            return false;
        *link = child;
        link = &child->next;
        parent->count++;
        more = peek(parser) == ',';
        parser->at += more;
    }
    if (!take(parser, end, "expected a comma or the end of an object or array"))
        return false;
    parser->depth--;
    parent->text = str_range(begin, parser->at);
    return end == '}' && has_duplicate(parent, parser->arena) ? fail(parser, "a member is there twice")
                                                              : true;
}

static bool parse_word(struct parser *parser, struct str word, struct str *text)
{
    if (!str_starts(str_range(parser->at, parser->end), word))
        return fail(parser, "expected a value");
    *text = str_range(parser->at, parser->at + word.n);
    parser->at += word.n;
    return true;
}

static bool parse_value(struct parser *parser, struct json_value *value)
{
    char c = peek(parser);
    switch (c) {
    case '"': value->kind = JSON_STRING; return parser->at++, parse_string(parser, &value->text);
    case '{': value->kind = JSON_OBJECT; return parser->at++, parse_children(parser, value, '}');
    case '[': value->kind = JSON_ARRAY; return parser->at++, parse_children(parser, value, ']');
    case 't': value->kind = JSON_TRUE; return parse_word(parser, STR("true"), &value->text);
    case 'f': value->kind = JSON_FALSE; return parse_word(parser, STR("false"), &value->text);
    case 'n': value->kind = JSON_NULL; return parse_word(parser, STR("null"), &value->text);
    default: break;
    }
    if (c != '-' && (c < '0' || c > '9'))
        return fail(parser, "expected a value");
    value->kind = JSON_NUMBER;
    return parse_number(parser, &value->text);
}

const struct json_value *json_parse(struct str text, struct arena *arena, const char **why)
{
    if (text.n > JSON_PARSE_BYTES) {
        *why = "too long";
        return NULL;
    }
    if (!text.n)
        text.p = "";
    struct parser parser = {.at = text.p, .end = text.p + text.n, .arena = arena};
    struct json_value *value = new_value(&parser);
    if (parse_value(&parser, value)) {
        skip_space(&parser);
        if (parser.at == parser.end)
            return value;
        parser.why = "something follows the value";
    }
    *why = parser.why;
    return NULL;
}

// ---- looking at a tree ----

const struct json_value *json_get(const struct json_value *object, struct str key)
{
    if (!object || object->kind != JSON_OBJECT)
        return NULL;
    for (const struct json_value *member = object->first; member; member = member->next)
        if (str_eq(member->key, key))
            return member;
    return NULL;
}

const struct json_value *json_get_path(const struct json_value *object, struct str path)
{
    const struct json_value *value = json_get(object, path);
    for (size_t dot; !value && (dot = str_find(path, '.')) < path.n;) {
        object = json_get(object, (struct str){path.p, dot});
        path = str_skip(path, dot + 1);
        value = json_get(object, path);
    }
    return value;
}

// The exponent of a number, bounded: no text is long enough to make up for more.
static int64_t exponent_of(struct str text)
{
    enum { ENOUGH = 2 * JSON_PARSE_BYTES };
    bool negative = text.n && text.p[0] == '-';
    if (text.n && (text.p[0] == '-' || text.p[0] == '+'))
        text = str_skip(text, 1);
    int64_t exponent = 0;
    for (size_t i = 0; i < text.n && exponent < ENOUGH; i++)
        exponent = exponent * 10 + (text.p[i] - '0');
    return negative ? -exponent : exponent;
}

bool json_integer(const struct json_value *value, int64_t *integer)
{
    if (!value || value->kind != JSON_NUMBER)
        return false;
    struct str digits = value->text;
    bool negative = digits.p[0] == '-';
    if (negative)
        digits = str_skip(digits, 1);
    size_t e = 0;
    while (e < digits.n && (digits.p[e] | 0x20) != 'e')
        e++;
    int64_t places = e < digits.n ? exponent_of(str_skip(digits, e + 1)) : 0;
    digits.n = e;
    size_t whole = str_find(digits, '.');
    places += (int64_t)whole; // so many digits stand before the point, zeros behind the last one

    uint64_t result = 0;
    for (size_t i = 0; i < digits.n && places > 0; i++) {
        if (i == whole)
            continue;
        result = result * 10 + (uint64_t)(digits.p[i] - '0');
        places--;
        if (result > JSON_INTEGER_MAX)
            return false;
    }
    for (; places > 0 && result; places--) {
        result *= 10;
        if (result > JSON_INTEGER_MAX)
            return false;
    }
    *integer = negative ? -(int64_t)result : (int64_t)result;
    return true;
}
