// The list of mistakes and its two printed forms.
#include "config/config.h"

void config_report_add(struct config_report *report, const struct config_error *error)
{
    if (++report->count > CONFIG_ERRORS)
        return;
    struct config_error *copy = arena_new(report->arena, struct config_error);
    *copy = (struct config_error){
        .file = arena_copy(report->arena, error->file),
        .line = error->line,
        .column = error->column,
        .path = arena_copy(report->arena, error->path),
        .what = arena_copy(report->arena, error->what),
        .hint = arena_copy(report->arena, error->hint),
    };
    if (report->last)
        report->last->next = copy;
    else
        report->first = copy;
    report->last = copy;
}

static bool is_before(const struct config_error *a, const struct config_error *b)
{
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

// Merges two sorted chains; of equals, those of a come first.
static struct config_error *merge(struct config_error *a, struct config_error *b)
{
    struct config_error *first = NULL, **end = &first;
    while (a && b) {
        struct config_error **from = is_before(b, a) ? &b : &a;
        *end = *from;
        end = &(*from)->next;
        *from = *end;
    }
    *end = a ? a : b;
    return first;
}

static struct config_error *sort(struct config_error *first)
{
    if (!first || !first->next)
        return first;
    struct config_error *middle = first;
    for (struct config_error *end = first->next; end && end->next; end = end->next->next)
        middle = middle->next;
    struct config_error *second = middle->next;
    middle->next = NULL;
    return merge(sort(first), sort(second));
}

void config_report_sort(struct config_report *report)
{
    report->first = sort(report->first);
    report->last = report->first;
    while (report->last && report->last->next)
        report->last = report->last->next;
}

static void append_line(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\n')
            buf_append(out, STR("\\n"));
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_append(out, (struct str){s.p + i, 1});
    }
}

void config_report_print(const struct config_report *report, struct buf *out)
{
    for (const struct config_error *error = report->first; error; error = error->next) {
        append_line(out, error->file);
        if (error->line)
            buf_printf(out, ":%u:%u", error->line, error->column);
        buf_append(out, STR(": "));
        if (error->path.n) {
            append_line(out, error->path);
            buf_append(out, STR(": "));
        }
        append_line(out, error->what);
        if (error->hint.n) {
            buf_append(out, STR(" ("));
            append_line(out, error->hint);
            buf_append(out, STR(")"));
        }
        buf_append(out, STR("\n"));
    }
    if (report->count > CONFIG_ERRORS) {
        append_line(out, report->first->file);
        buf_printf(out, ": %u more mistakes are not shown\n", report->count - CONFIG_ERRORS);
    }
}

void config_report_json(const struct config_report *report, struct json *out)
{
    json_array(out);
    for (const struct config_error *error = report->first; error; error = error->next) {
        json_object(out);
        json_field_string(out, "file", error->file);
        json_field_u64(out, "line", error->line);
        json_field_u64(out, "column", error->column);
        json_field_string(out, "path", error->path);
        json_field_string(out, "what", error->what);
        json_field_string(out, "hint", error->hint);
        json_object_end(out);
    }
    json_array_end(out);
}
