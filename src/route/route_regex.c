#include "route/route_regex.h"

#include "base/check.h"
#include "route/route.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

struct route_scratch {
    pcre2_match_context *context;
    pcre2_match_data *data;
    pcre2_jit_stack *stack;
    char *room;
    size_t room_bytes;
};

void *route_regex_compile(struct str text, char *why, size_t *offset)
{
    // Paths and values are bytes, so no UTF; anchored by option and not by wrapping, which "a)|(b" would
    // escape from.
    uint32_t options = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP |
                       PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY;
    int code;
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)(text.n ? text.p : ""), text.n, options, &code, offset, NULL);
    if (!compiled)
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, REGEX_WHY_BYTES);
    return compiled;
}

void route_regex_code_free(void *code)
{
    pcre2_code_free(code);
}

struct route_regex *route_regex_new(struct str text, struct arena *arena, struct err *err)
{
    char why[REGEX_WHY_BYTES];
    size_t offset;
    pcre2_code *code = route_regex_compile(text, why, &offset);
    if (!code) {
        err_set(err, ERR_INVALID, NULL, "%s at offset %zu", why, offset);
        return NULL;
    }
    // Without executable memory (a hardened service) there is no JIT; the interpreter gives the same answers.
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    struct route_regex *regex = arena_new(arena, struct route_regex);
    *regex = (struct route_regex){.text = text, .code = code};
    return regex;
}

void route_regex_free_all(struct route_regex *first)
{
    for (struct route_regex *regex = first; regex; regex = regex->next)
        pcre2_code_free(regex->code);
}

struct route_scratch *route_scratch_new(void)
{
    struct route_scratch *scratch = calloc(1, sizeof *scratch);
    check(scratch);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->data = pcre2_match_data_create(1, NULL); // captures are not read
    scratch->stack = pcre2_jit_stack_create(32 * 1024, REGEX_JIT_STACK_BYTES, NULL);
    check(scratch->context && scratch->data);
    pcre2_set_match_limit(scratch->context, REGEX_MATCH_LIMIT);
    pcre2_set_heap_limit(scratch->context, REGEX_HEAP_KIB);
    if (scratch->stack)
        pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    return scratch;
}

void route_scratch_free(struct route_scratch *scratch)
{
    if (!scratch)
        return;
    pcre2_jit_stack_free(scratch->stack);
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->context);
    free(scratch->room);
    free(scratch);
}

char *route_scratch_room(struct route_scratch *scratch, size_t n)
{
    if (n > scratch->room_bytes || !scratch->room) {
        free(scratch->room);
        scratch->room_bytes = n + 256;
        scratch->room = malloc(scratch->room_bytes);
        check(scratch->room);
    }
    return scratch->room;
}

enum regex_result route_regex_match(const struct route_regex *regex, struct str subject,
                                    struct route_scratch *scratch)
{
    check(scratch);
    int result = pcre2_match(regex->code, (PCRE2_SPTR)(subject.n ? subject.p : ""), subject.n, 0, 0,
                             scratch->data, scratch->context);
    if (result >= 0)
        return REGEX_YES;
    return result == PCRE2_ERROR_NOMATCH ? REGEX_NO : REGEX_TOO_HARD;
}
