// Where a decoder stands, and how it says what is wrong.
#include "config/decoder.h"

#include <stdarg.h>
#include <stdio.h>

struct arena *config_arena(struct config_decoder *decoder)
{
    return decoder->arena;
}

void config_enter(struct config_decoder *decoder, struct str key)
{
    check(decoder->depth < CONFIG_STEPS && key.p);
    decoder->steps[decoder->depth++] = (struct config_step){.key = key};
}

void config_enter_index(struct config_decoder *decoder, uint32_t index)
{
    check(decoder->depth < CONFIG_STEPS);
    decoder->steps[decoder->depth++] = (struct config_step){.index = index};
}

void config_leave(struct config_decoder *decoder)
{
    check(decoder->depth > 0);
    decoder->depth--;
}

static void print_path(const struct config_decoder *decoder, struct str last, struct buf *out)
{
    for (unsigned i = 0; i < decoder->depth; i++) {
        const struct config_step *step = &decoder->steps[i];
        if (step->key.p)
            buf_printf(out, "%s%.*s", i ? "." : "", STR_ARG(step->key));
        else
            buf_printf(out, "[%u]", step->index);
    }
    if (last.n)
        buf_printf(out, "%s%.*s", decoder->depth ? "." : "", STR_ARG(last));
}

struct place {
    unsigned line, column;
    struct str last; // a further step of the path
};

__attribute__((format(printf, 4, 0))) static void fail(struct config_decoder *decoder, struct place place,
                                                       const char *hint, const char *format, va_list args)
{
    struct buf path = {0};
    char what[512];
    if (config_is_full(decoder)) {
        decoder->report->count++;
        return;
    }
    print_path(decoder, place.last, &path);
    vsnprintf(what, sizeof what, format, args);
    config_report_add(decoder->report, &(struct config_error){.file = decoder->file,
                                                              .line = place.line,
                                                              .column = place.column,
                                                              .path = config_text_of(&path),
                                                              .what = str_of(what),
                                                              .hint = str_of(hint)});
    buf_free(&path);
}

void config_fail(struct config_decoder *decoder, const struct config_node *node, const char *hint,
                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(decoder, (struct place){node->line, node->column, STR_NULL}, hint, format, args);
    va_end(args);
}

void config_fail_key(struct config_decoder *decoder, const struct config_node *node, const char *hint,
                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(decoder, (struct place){node->key_line, node->key_column, STR_NULL}, hint, format, args);
    va_end(args);
}

void config_fail_at(struct config_decoder *decoder, const struct config_node *map, struct str key,
                    const char *hint, const char *format, ...)
{
    const struct config_node *child = config_get(map, key);
    va_list args;
    va_start(args, format);
    fail(decoder, (struct place){child ? child->line : map->line, child ? child->column : map->column, key},
         hint, format, args);
    va_end(args);
}

// "the number 5", "the string \"x\"", "a list".
static const char *describe(struct config_decoder *decoder, const struct config_node *node)
{
    enum { SHOWN = 60 };
    if (node->kind == CONFIG_NULL)
        return "null";
    if (node->kind == CONFIG_LIST)
        return "a list";
    if (node->kind == CONFIG_MAP)
        return "a map";
    enum config_plain plain = node->quoted ? CONFIG_PLAIN_STRING : config_plain_of(node->text);
    int shown = node->text.n > SHOWN ? SHOWN : (int)node->text.n;
    if (plain == CONFIG_PLAIN_BOOL)
        return config_hint(decoder, "%.*s", shown, node->text.p);
    if (plain == CONFIG_PLAIN_INT || plain == CONFIG_PLAIN_FLOAT)
        return config_hint(decoder, "the number %.*s", shown, node->text.p);
    return config_hint(decoder, "\"%.*s%s\"", shown, node->text.p, node->text.n > SHOWN ? "…" : "");
}

void config_fail_type(struct config_decoder *decoder, const struct config_node *node, const char *hint,
                      const char *expected)
{
    if (node->bad)
        return;
    if (node->kind == CONFIG_NULL && (!hint || !*hint))
        hint = "give it a value, or remove the key";
    config_fail(decoder, node, hint, "expected %s, got %s", expected, describe(decoder, node));
}

const char *config_hint(struct config_decoder *decoder, const char *format, ...)
{
    char text[512];
    va_list args;
    if (config_is_full(decoder))
        return "";
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return arena_copy(decoder->report->arena, str_of(text)).p;
}

static struct str lower(struct str s, char *out, size_t max)
{
    size_t n = s.n < max ? s.n : max;
    for (size_t i = 0; i < n; i++)
        out[i] = ascii_lower(s.p[i]);
    return (struct str){out, n};
}

// The nearest name so far. A third of the word may be wrong, but not more than three characters.
struct nearest {
    char folded[48];
    struct str word;
    const struct str *best;
    unsigned distance; // of the best; at first: one more than may be
};

static void start_search(struct nearest *nearest, struct str word)
{
    *nearest = (struct nearest){0};
    nearest->word = lower(word, nearest->folded, sizeof nearest->folded);
    nearest->distance = (unsigned)(nearest->word.n + 2) / 3 + 1;
    if (nearest->distance > 4)
        nearest->distance = 4;
}

static void try_name(struct nearest *nearest, const struct str *name)
{
    char folded[sizeof nearest->folded];
    if (name->n + 4 < nearest->word.n || name->n > nearest->word.n + 4)
        return;
    unsigned distance = str_distance(nearest->word, lower(*name, folded, sizeof folded));
    if (distance < nearest->distance && distance < name->n) {
        nearest->distance = distance;
        nearest->best = name;
    }
}

static const char *end_search(struct config_decoder *decoder, const struct nearest *nearest)
{
    return nearest->best ? config_hint(decoder, "did you mean \"%.*s\"?", STR_ARG(*nearest->best)) : "";
}

// Searching long lists of names again and again would be quadratic.
static bool is_worth_it(struct config_decoder *decoder, size_t count)
{
    return !config_is_full(decoder) && (count <= 64 || decoder->suggestions++ < CONFIG_SUGGESTIONS);
}

const char *config_suggest(struct config_decoder *decoder, struct str word, const struct str *names,
                           size_t count)
{
    struct nearest nearest;
    if (!is_worth_it(decoder, count))
        return "";
    start_search(&nearest, word);
    for (size_t i = 0; i < count; i++)
        try_name(&nearest, &names[i]);
    return end_search(decoder, &nearest);
}

const char *config_suggest_key(struct config_decoder *decoder, struct str word, const struct config_node *map)
{
    struct nearest nearest;
    if (!map || map->kind != CONFIG_MAP || !is_worth_it(decoder, map->count))
        return "";
    start_search(&nearest, word);
    for (const struct config_node *child = map->first; child; child = child->next)
        try_name(&nearest, &child->key);
    return end_search(decoder, &nearest);
}
