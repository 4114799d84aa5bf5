// What a route asks of a request besides host and path: methods, headers, query parameters.
#include "http/query.h"
#include "route/route_table.h"

static bool compile_values(const struct value_matches *matches, bool headers, struct regex_source *source,
                           struct value_condition *out, struct err *err)
{
    for (uint32_t i = 0; i < matches->count; i++) {
        const struct value_match *match = &matches->v[i];
        out[i] = (struct value_condition){.kind = match->kind, .name = match->name, .text = match->text};
        if (headers)
            out[i].id = header_id_of(match->name);
        if (match->kind == VALUE_REGEX && !(out[i].regex = source->compile(source, match->text, err)))
            return false;
    }
    return true;
}

static void compile_methods(const struct str_list *methods, struct arena *arena,
                            struct route_conditions *conditions, struct candidate *candidate)
{
    if (!methods->count) {
        candidate->methods = UINT32_MAX;
        return;
    }
    struct str *others = NULL;
    for (uint32_t i = 0; i < methods->count; i++) {
        enum http_method method = http_method_of(methods->v[i]);
        candidate->methods |= 1u << method;
        if (method != METHOD_OTHER)
            continue;
        if (!others)
            conditions->methods = others = arena_array(arena, struct str, methods->count);
        others[conditions->method_count++] = methods->v[i];
    }
}

bool route_conditions_compile(const struct match_settings *match, struct arena *arena,
                              struct regex_source *source, struct candidate *candidate, struct err *err)
{
    struct route_conditions all = {.header_count = match->headers.count, .query_count = match->query.count};
    compile_methods(&match->methods, arena, &all, candidate);
    uint32_t count = all.header_count + all.query_count;
    if (count) {
        struct value_condition *v = arena_array(arena, struct value_condition, count);
        if (!compile_values(&match->headers, true, source, v, err) ||
            !compile_values(&match->query, false, source, v + all.header_count, err))
            return false;
        all.v = v;
    }
    if (!count && !all.method_count)
        return true;
    struct route_conditions *conditions = arena_new(arena, struct route_conditions);
    *conditions = all;
    candidate->conditions = conditions;
    return true;
}

struct subject {
    const struct request_head *request;
    struct route_scratch *scratch;
    bool *too_hard;
};

static bool regex_fits(const struct value_condition *condition, struct str value,
                       const struct subject *subject)
{
    enum regex_result result = route_regex_match(condition->regex, value, subject->scratch);
    if (result == REGEX_TOO_HARD)
        *subject->too_hard = true;
    return result == REGEX_YES;
}

// Any line of that name will do.
static bool header_fits(const struct value_condition *condition, const struct subject *subject)
{
    const struct headers *headers = &subject->request->headers;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        if (header->id != condition->id ||
            (header->id == HEADER_OTHER && !str_eq_fold(header->name, condition->name)))
            continue;
        if (condition->kind == VALUE_PRESENT ||
            (condition->kind == VALUE_EXACT ? str_eq(header->value, condition->text)
                                            : regex_fits(condition, header->value, subject)))
            return true;
    }
    return false;
}

// The value, still encoded, of the first parameter of that name.
static bool find_parameter(struct str query, struct str name, struct str *value)
{
    struct query_parameter parameter;
    while (query_next(&query, &parameter))
        if (parameter.whole.n && query_text_eq(parameter.name, name)) {
            *value = parameter.value;
            return true;
        }
    return false;
}

static bool parameter_fits(const struct value_condition *condition, const struct subject *subject)
{
    struct str value;
    if (!find_parameter(subject->request->query, condition->name, &value))
        return false;
    switch (condition->kind) {
    case VALUE_PRESENT: return true;
    case VALUE_EXACT: return query_text_eq(value, condition->text);
    case VALUE_REGEX:
        value = query_decode(value, route_scratch_room(subject->scratch, value.n));
        return regex_fits(condition, value, subject);
    }
    return false;
}

bool route_conditions_fit(const struct route_conditions *conditions, const struct request_head *request,
                          struct route_scratch *scratch, bool *too_hard)
{
    struct subject subject = {request, scratch, too_hard};
    const struct value_condition *v = conditions->v;
    for (uint32_t i = 0; i < conditions->header_count; i++)
        if (!header_fits(&v[i], &subject))
            return false;
    v += conditions->header_count;
    for (uint32_t i = 0; i < conditions->query_count; i++)
        if (!parameter_fits(&v[i], &subject))
            return false;
    return true;
}
