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

const char *config_suggest(struct config_decoder *decoder, struct str word, const struct str *names,
                           size_t count)
{
    enum { COMPARED = 48 };
    char word_lower[COMPARED], name_lower[COMPARED];
    struct str folded = lower(word, word_lower, COMPARED);
    const struct str *best = NULL;
    unsigned best_distance =
        (unsigned)(folded.n + 2) / 3 + 1; // a third of the word may be wrong, not more than 3
    if (best_distance > 4)
        best_distance = 4;
    if (config_is_full(decoder) || (count > 64 && decoder->suggestions++ >= CONFIG_SUGGESTIONS))
        return "";
    for (size_t i = 0; i < count; i++) {
        if (names[i].n + 4 < word.n || names[i].n > word.n + 4)
            continue;
        unsigned distance = str_distance(folded, lower(names[i], name_lower, COMPARED));
        if (distance < best_distance && distance < names[i].n) {
            best_distance = distance;
            best = &names[i];
        }
    }
    return best ? config_hint(decoder, "did you mean \"%.*s\"?", STR_ARG(*best)) : "";
}
