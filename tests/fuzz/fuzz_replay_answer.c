// Answers kept in Redis: as somebody else wrote them there (the first byte is even), or as the gateway itself
// does. Whatever is taken lies within the span, can be sent, and is the same span when it is written again.
#include "h1_input.h"
#include "two_ways.h"

#include "http/body.h"
#include "replay/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool lies_in(struct str part, struct str whole)
{
    return !part.n || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static void check_fields(const struct headers *fields, struct str span)
{
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct header *field = &fields->v[i];
        check(header_name_valid(field->name) && header_value_valid(field->value));
        check(field->id == header_id_of(field->name));
        check(lies_in(field->name, span) && lies_in(field->value, span));
    }
}

static void check_read(struct str span, struct arena *arena)
{
    struct replay_answer answer;
    if (!replay_answer_read(span, arena, &answer))
        return;
    check(answer.status >= 200 && answer.status <= 599 && lies_in(answer.body, span));
    check_fields(&answer.headers, span);
    check_fields(&answer.trailers, span);
    for (uint32_t i = 0; i < answer.trailers.count; i++)
        check(!body_forbids_trailer(answer.trailers.v[i].name));
    check(replay_answer_bytes(&answer) == span.n);
    char *again = malloc(span.n);
    check(again);
    replay_answer_write(&answer, again);
    check(memcmp(again, span.p, span.n) == 0);
    free(again);
}

// ---- an answer made of the input: "name:value\n" and so on, with a "+" before it a trailer, an empty line,
// the body ----

static void add_line(struct replay_answer *answer, struct arena *arena, struct str line)
{
    bool is_trailer = line.p[0] == '+';
    struct headers *fields = is_trailer ? &answer->trailers : &answer->headers;
    line = str_skip(line, is_trailer);
    size_t colon = str_find(line, ':');
    struct str name = {line.p, colon}, value = str_skip(line, colon < line.n ? colon + 1 : colon);
    if (!header_name_valid(name) || !header_value_valid(value) || (is_trailer && body_forbids_trailer(name)))
        return;
    headers_add(fields, arena, name, value);
    if (value.n && value.p[0] == '!')
        fields->v[fields->count - 1].id = HEADER_GONE;
}

static struct str take_line(struct str *text)
{
    struct str line = {text->p, str_find(*text, '\n')};
    *text = str_skip(*text, line.n < text->n ? line.n + 1 : line.n);
    return line;
}

static void check_written(struct str text, struct arena *arena)
{
    struct replay_answer answer = {.status = 200 + (text.n ? (unsigned char)text.p[0] : 0)}, back;
    for (struct str line; text.n && (line = take_line(&text)).n;)
        add_line(&answer, arena, line);
    answer.body = text;
    size_t n = replay_answer_bytes(&answer);
    char *span = malloc(n);
    check(span);
    replay_answer_write(&answer, span);
    check(replay_answer_read((struct str){span, n}, arena, &back));
    check(back.status == answer.status && str_eq(back.body, answer.body));
    check_same_headers(&answer.headers, &back.headers);
    check_same_headers(&answer.trailers, &back.trailers);
    for (size_t cut = 0; cut < n - answer.body.n; cut += 1 + cut / 4) {
        char *piece = exact_copy(span, cut);
        check(!replay_answer_read((struct str){piece, cut}, arena, &back));
        free(piece);
    }
    free(span);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    return read_in_two_ways(data, n, check_read, check_written);
}
