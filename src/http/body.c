#include "http/body.h"

#include "base/arena.h"
#include "base/check.h"
#include "http/chars.h"

// Where the chunk decoder stands (RFC 9112 7.1): what the next byte may be.
enum {
    SIZE_FIRST, // a hex digit
    SIZE,       // a hex digit, white space, ";" or CR
    // chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
    EXT_SEMICOLON,  // white space or ";": white space was seen
    EXT_NAME_FIRST, // white space or the name
    EXT_NAME,
    EXT_EQUALS,      // white space, "=" or ";": white space was seen behind a name
    EXT_VALUE_FIRST, // white space, a quote or a token
    EXT_TOKEN,
    EXT_QUOTED,
    EXT_QUOTED_PAIR, // the byte behind a backslash
    EXT_QUOTED_END,  // behind the closing quote
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST, // a name, or the CR of the last line
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    FAULTED, // for ever
};

enum { SIZE_DIGITS = 16 };

void body_reader_init(struct body_reader *reader, enum framing framing, uint64_t content_length)
{
    *reader = (struct body_reader){.framing = framing, .state = SIZE_FIRST};
    if (framing == FRAMING_LENGTH)
        reader->remaining = content_length;
    reader->done = framing == FRAMING_NONE || (framing == FRAMING_LENGTH && content_length == 0);
}

// ---- the chunk line

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

// One step in a chunk extension. False: a fault.
static bool step_extension(struct body_reader *reader, char c)
{
    uint8_t state = reader->state;
    // The states that another element, or the end of the line, may follow.
    bool complete = state == EXT_NAME || state == EXT_TOKEN || state == EXT_QUOTED_END || state == EXT_EQUALS;
    if (c == ';' && (complete || state == EXT_SEMICOLON)) {
        reader->state = EXT_NAME_FIRST;
        return true;
    }
    // White space may end neither line nor element (it is only allowed before ";" and around "=").
    if (c == '\r' && complete && state != EXT_EQUALS) {
        reader->state = SIZE_LF;
        return true;
    }
    switch (state) {
    case EXT_SEMICOLON: return is_blank(c);
    case EXT_NAME_FIRST:
        if (is_blank(c))
            return true;
        reader->state = EXT_NAME;
        return char_is(c, CHAR_TOKEN);
    case EXT_NAME:
    case EXT_EQUALS:
        if (c == '=')
            reader->state = EXT_VALUE_FIRST;
        else if (is_blank(c))
            reader->state = EXT_EQUALS;
        else
            return state == EXT_NAME && char_is(c, CHAR_TOKEN);
        return true;
    case EXT_VALUE_FIRST:
        if (is_blank(c))
            return true;
        reader->state = c == '"' ? EXT_QUOTED : EXT_TOKEN;
        return c == '"' || char_is(c, CHAR_TOKEN);
    case EXT_TOKEN:
        if (is_blank(c))
            reader->state = EXT_SEMICOLON;
        return is_blank(c) || char_is(c, CHAR_TOKEN);
    case EXT_QUOTED:
        if (c == '"')
            reader->state = EXT_QUOTED_END;
        else if (c == '\\')
            reader->state = EXT_QUOTED_PAIR;
        else
            return char_is(c, CHAR_QUOTED_TEXT);
        return true;
    case EXT_QUOTED_PAIR: reader->state = EXT_QUOTED; return char_is(c, CHAR_VALUE);
    default: // EXT_QUOTED_END
        reader->state = EXT_SEMICOLON;
        return is_blank(c);
    }
}

static bool step_size(struct body_reader *reader, char c)
{
    if (char_is(c, CHAR_HEX)) {
        if (reader->digits == SIZE_DIGITS)
            return false;
        reader->remaining = reader->remaining << 4 | hex_value(c);
        reader->digits++;
        reader->state = SIZE;
        return true;
    }
    if (reader->state == SIZE_FIRST || reader->remaining > INT64_MAX)
        return false;
    if (c == '\r')
        reader->state = SIZE_LF;
    else if (c == ';')
        reader->state = EXT_NAME_FIRST;
    else if (is_blank(c))
        reader->state = EXT_SEMICOLON;
    else
        return false;
    return true;
}

// ---- trailers

static bool step_trailer(struct body_reader *reader, char c)
{
    switch (reader->state) {
    case FAULTED: return false;
    case TRAILER_FIRST:
        if (c == '\r') {
            reader->state = LAST_LF;
            return true;
        }
        reader->state = TRAILER_NAME;
        return char_is(c, CHAR_TOKEN) && ++reader->trailer_fields <= TRAILER_FIELDS;
    case TRAILER_NAME:
        if (c == ':')
            reader->state = TRAILER_VALUE;
        return c == ':' || char_is(c, CHAR_TOKEN);
    case TRAILER_VALUE:
        if (c == '\r')
            reader->state = TRAILER_LF;
        return c == '\r' || char_is(c, CHAR_VALUE);
    case TRAILER_LF: reader->state = TRAILER_FIRST; return c == '\n';
    default: // LAST_LF
        reader->done = c == '\n';
        return reader->done;
    }
}

bool body_forbids_trailer(struct str name)
{
    static const struct str forbidden[] = {
#define X(name) {name, sizeof(name) - 1}
        X("accept"),
        X("accept-charset"),
        X("accept-encoding"),
        X("accept-language"),
        X("age"),
        X("cache-control"),
        X("content-disposition"),
        X("content-encoding"),
        X("content-language"),
        X("content-location"),
        X("content-range"),
        X("cookie2"),
        X("expires"),
        X("if-match"),
        X("if-modified-since"),
        X("if-none-match"),
        X("if-range"),
        X("if-unmodified-since"),
        X("max-forwards"),
        X("origin"),
        X("pragma"),
        X("range"),
        X("set-cookie"),
        X("set-cookie2"),
        X("vary"),
        X("warning"),
        X("www-authenticate"),
        X("x-api-key"),
#undef X
    };
    if (header_id_of(name) != HEADER_OTHER || memchr(name.p, '_', name.n))
        return true;
    for (size_t i = 0; i < countof(forbidden); i++)
        if (str_eq_fold(name, forbidden[i]))
            return true;
    return false;
}

// The section has passed the grammar: cut it into fields.
static void add_trailers(struct str text, struct headers *trailers, struct arena *arena)
{
    while (text.n) {
        struct str line = {text.p, str_find(text, '\r')};
        text = str_skip(text, line.n + 2);
        if (!line.n)
            return;
        struct str name = {line.p, str_find(line, ':')};
        if (!body_forbids_trailer(name))
            headers_add(trailers, arena, name, str_trim(str_skip(line, name.n + 1)));
    }
}

// Keeps data[0..n), the section's next bytes. trailer_bytes bounds what is ever kept.
static void keep_trailer_text(struct body_reader *reader, const char *data, size_t n, struct arena *arena)
{
    size_t kept = reader->trailer_bytes - n;
    if (reader->trailer_bytes > reader->trailer_capacity) {
        uint32_t capacity = reader->trailer_capacity ? reader->trailer_capacity : 256;
        while (capacity < reader->trailer_bytes)
            capacity *= 2;
        char *text = arena_alloc(arena, capacity);
        if (kept)
            memcpy(text, reader->trailer_text, kept);
        reader->trailer_text = text;
        reader->trailer_capacity = capacity;
    }
    memcpy(reader->trailer_text + kept, data, n);
}

static enum body_result read_trailers(struct body_reader *reader, const char *data, size_t n,
                                      size_t *consumed, struct headers *trailers, struct arena *arena)
{
    size_t i = 0;
    while (i < n && !reader->done) {
        if (reader->trailer_bytes++ == TRAILER_BYTES || !step_trailer(reader, data[i++])) {
            *consumed += i;
            reader->state = FAULTED;
            return BODY_BAD;
        }
    }
    *consumed += i;
    if (!trailers) {
        reader->trailer_text = NULL; // a text with a hole is none
        reader->trailer_capacity = 0;
    } else if (i && (i == reader->trailer_bytes || reader->trailer_text)) {
        keep_trailer_text(reader, data, i, arena);
        if (reader->done)
            add_trailers((struct str){reader->trailer_text, reader->trailer_bytes}, trailers, arena);
    }
    return reader->done ? BODY_DONE : BODY_MORE;
}

// ---- the body

// One framing byte outside trailers. False: a fault.
static bool step_framing(struct body_reader *reader, char c)
{
    switch (reader->state) {
    case SIZE_FIRST:
    case SIZE: return step_size(reader, c);
    case SIZE_LF: reader->state = reader->remaining ? DATA : TRAILER_FIRST; return c == '\n';
    case DATA_CR: reader->state = DATA_LF; return c == '\r';
    case DATA_LF:
        reader->state = SIZE_FIRST;
        reader->digits = 0;
        return c == '\n';
    default: return ++reader->extension_bytes <= CHUNK_EXTENSION_BYTES && step_extension(reader, c);
    }
}

// Framing far beyond the body it frames is an attack on the reader's CPU.
static bool overhead_in_bounds(const struct body_reader *reader)
{
    return reader->overhead_bytes <= CHUNK_EXTENSION_BYTES ||
           (reader->overhead_bytes - CHUNK_EXTENSION_BYTES) / CHUNK_OVERHEAD_RATIO <= reader->body_bytes;
}

static enum body_result take_span(struct body_reader *reader, const char *data, size_t n, size_t *consumed,
                                  struct str *span)
{
    if (n > reader->remaining)
        n = (size_t)reader->remaining;
    *span = (struct str){data, n};
    *consumed += n;
    reader->remaining -= n;
    reader->body_bytes += n;
    return BODY_SPAN;
}

static enum body_result read_chunked(struct body_reader *reader, const char *data, size_t n, size_t *consumed,
                                     struct str *span, struct headers *trailers, struct arena *arena)
{
    size_t i = 0;
    while (i < n && reader->state != DATA && reader->state < TRAILER_FIRST) {
        reader->overhead_bytes++;
        if (!step_framing(reader, data[i++]) || !overhead_in_bounds(reader)) {
            *consumed = i;
            reader->state = FAULTED;
            return BODY_BAD;
        }
    }
    *consumed = i;
    if (reader->state >= TRAILER_FIRST)
        return read_trailers(reader, data + i, n - i, consumed, trailers, arena);
    if (i == n)
        return BODY_MORE;
    take_span(reader, data + i, n - i, consumed, span);
    if (reader->remaining == 0)
        reader->state = DATA_CR;
    return BODY_SPAN;
}

enum body_result body_read(struct body_reader *reader, const char *data, size_t n, size_t *consumed,
                           struct str *span, struct headers *trailers, struct arena *arena)
{
    *consumed = 0;
    *span = STR_NULL;
    if (reader->done)
        return BODY_DONE;
    if (n == 0)
        return BODY_MORE;
    switch (reader->framing) {
    case FRAMING_LENGTH:
        take_span(reader, data, n, consumed, span);
        reader->done = reader->remaining == 0;
        return BODY_SPAN;
    case FRAMING_CHUNKED: return read_chunked(reader, data, n, consumed, span, trailers, arena);
    default:
        reader->remaining = n; // no end is known: as much as there is
        return take_span(reader, data, n, consumed, span);
    }
}
