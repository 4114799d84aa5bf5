// Lines: JSON by hand-laid code, everything else by a compiled template. No printf: a line is a few dozen
// short copies, and a field is looked at once, eight bytes at a time, while it is copied.
#include "observe/access_line.h"

#include "base/digits.h"
#include "base/json.h"

// ---- compiling ----

static const struct str field_names[FIELD_COUNT] = {[FIELD_LITERAL] = {"", 0},
#define X(id, name) [id] = {name, sizeof(name) - 1},
                                                    ACCESS_FIELDS(X)
#undef X
};

// Apache's combined, without the query: `client - consumer [time] "method path protocol" status bytes
// "referer" "agent"`.
#define COMBINED                                                                                     \
    "$client - $consumer [$time_local] \"$method $path $protocol\" $status $bytes_out \"$referer\" " \
    "\"$user_agent\""

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || c == '_';
}

static enum access_field field_of(struct str name)
{
    for (unsigned i = FIELD_LITERAL + 1; i < FIELD_COUNT; i++)
        if (str_eq(field_names[i], name))
            return (enum access_field)i;
    return FIELD_LITERAL;
}

// Takes the next piece off *rest. A dollar without a name is itself. False: a name that is none.
static bool next_piece(struct str *rest, struct access_piece *piece, struct str *name)
{
    size_t n = 0;
    *name = STR("");
    while (n < rest->n && !(rest->p[n] == '$' && n + 1 < rest->n && is_name_char(rest->p[n + 1])))
        n++;
    *piece = (struct access_piece){FIELD_LITERAL, {rest->p, n}};
    if (!n) {
        for (n = 1; n < rest->n && is_name_char(rest->p[n]);)
            n++;
        *name = (struct str){rest->p + 1, n - 1};
        *piece = (struct access_piece){field_of(*name), STR("")};
        if (piece->field == FIELD_LITERAL)
            return false;
    }
    *rest = str_skip(*rest, n);
    return true;
}

static bool compile_template(struct access_format *format, struct str text, struct arena *arena,
                             const char **why)
{
    struct access_piece *pieces = arena_array(arena, struct access_piece, ACCESS_PIECES);
    size_t literal_bytes = 0;
    for (struct str name; text.n; format->count++) {
        if (format->count == ACCESS_PIECES) {
            *why = "more than 64 fields and texts between them";
            return false;
        }
        struct access_piece *piece = &pieces[format->count];
        if (!next_piece(&text, piece, &name)) {
            *why = arena_printf(arena, "there is no field $%.*s", STR_ARG(name)).p;
            return false;
        }
        piece->literal = arena_copy(arena, piece->literal);
        literal_bytes += piece->literal.n;
    }
    if (literal_bytes > ACCESS_LITERAL_BYTES) {
        *why = "more than 2048 bytes of text between the fields";
        return false;
    }
    format->pieces = pieces;
    format->fixed_bytes = literal_bytes + format->count * ACCESS_NUMBER_MAX + ACCESS_NUMBER_MAX;
    return true;
}

const struct access_format *access_format_compile(enum access_format_kind kind, struct str template,
                                                  struct arena *arena, const char **why)
{
    struct access_format *format = arena_new(arena, struct access_format);
    format->kind = kind;
    format->fixed_bytes = ACCESS_JSON_FIXED;
    if (kind == ACCESS_JSON)
        return format;
    if (kind == ACCESS_COMBINED)
        template = STR(COMBINED);
    return compile_template(format, template, arena, why) ? format : NULL;
}

// ---- copying ----

// Where the line is being written. `end` keeps the format's fixed_bytes for what must not be cut.
struct line {
    char *at, *end;
};

// Half of what is left: however long one hostile field is, those behind it get their share.
static inline size_t line_room(const struct line *line)
{
    return line->end > line->at ? (size_t)(line->end - line->at) / 2 : 0;
}

// Length of the longest piece of s, at most n bytes, that does not end inside a UTF-8 sequence.
static size_t whole_characters(struct str s, size_t n)
{
    if (n >= s.n)
        return s.n;
    for (size_t back = 0; back < 4 && back < n; back++)
        if (((unsigned char)s.p[n - back] & 0xc0) != 0x80)
            return n - back;
    return n; // not UTF-8 anyway
}

// The Apache way: \" \\ and \xHH.
static size_t escape_text(struct str s, char *out)
{
    static const char hex[] = "0123456789abcdef";
    char *at = out;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (c < 0x20 || c >= 0x7f) {
            *at++ = '\\';
            *at++ = 'x';
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        } else {
            *at++ = (char)c;
        }
    }
    return (size_t)(at - out);
}

// Escapes as much of s as surely fits.
static __attribute__((noinline)) void put_escaped(struct line *line, struct str s,
                                                  size_t (*escape)(struct str s, char *out))
{
    size_t room = line_room(line);
    while (s.n) {
        size_t n = whole_characters(s, room / ACCESS_ESCAPE_MAX < 64 ? room / ACCESS_ESCAPE_MAX : 64);
        if (n == 0)
            return;
        size_t written = escape((struct str){s.p, n}, line->at);
        line->at += written;
        room -= written;
        s = str_skip(s, n);
    }
}

#define put(line, literal) \
    (memcpy((line)->at, (literal), sizeof(literal) - 1), (void)((line)->at += sizeof(literal) - 1))

// ---- numbers and times ----

static inline void put_u64(struct line *line, uint64_t value)
{
    line->at += u64_print(value, line->at);
}

static inline void put_thousandths(struct line *line, uint64_t value)
{
    line->at[0] = (char)('0' + value / 100);
    decimal_pair(line->at + 1, value % 100);
    line->at += 3;
}

// Microseconds as milliseconds with three digits.
static inline void put_ms(struct line *line, uint64_t us)
{
    put_u64(line, us / 1000);
    *line->at++ = '.';
    put_thousandths(line, us % 1000);
}

struct date {
    uint64_t year;
    unsigned month, day; // from 1
};

// The Gregorian date of a day since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms", for
// days >= 0).
static struct date date_of(uint64_t day)
{
    uint64_t z = day + 719468, era = z / 146097, of_era = z % 146097;
    uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t shifted_month = (5 * of_year + 2) / 153; // 0: March
    unsigned day_of_month = (unsigned)(of_year - (153 * shifted_month + 2) / 5 + 1);
    unsigned month = (unsigned)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
    return (struct date){year_of_era + era * 400 + (month <= 2), month, day_of_month};
}

static void put_clock(char *out, uint64_t second_of_day)
{
    decimal_pair(out, second_of_day / 3600);
    out[2] = ':';
    decimal_pair(out + 3, second_of_day / 60 % 60);
    out[5] = ':';
    decimal_pair(out + 6, second_of_day % 60);
}

// "2026-11-24T12:00:00" into the log's cache.
static __attribute__((noinline)) void print_second(struct access_log *log, uint64_t second)
{
    struct date date = date_of(second / 86400);
    char *text = log->second_text;
    log->second = second;
    decimal_pair(text, date.year / 100 % 100);
    decimal_pair(text + 2, date.year % 100);
    text[4] = '-';
    decimal_pair(text + 5, date.month);
    text[7] = '-';
    decimal_pair(text + 8, date.day);
    text[10] = 'T';
    put_clock(text + 11, second % 86400);
}

static inline void put_ts(struct line *line, struct access_log *log, uint64_t wall_us)
{
    uint64_t second = wall_us / 1000000;
    if (unlikely(second != log->second))
        print_second(log, second);
    memcpy(line->at, log->second_text, 19);
    line->at[19] = '.';
    line->at += 20;
    put_thousandths(line, wall_us / 1000 % 1000);
    *line->at++ = 'Z';
}

// "24/Nov/2026:12:00:00 +0000"
static void put_time_local(struct line *line, uint64_t wall_us)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t second = wall_us / 1000000;
    struct date date = date_of(second / 86400);
    decimal_pair(line->at, date.day);
    line->at[2] = '/';
    memcpy(line->at + 3, months + ((size_t)date.month - 1) * 3, 3);
    line->at[6] = '/';
    decimal_pair(line->at + 7, date.year / 100 % 100);
    decimal_pair(line->at + 9, date.year % 100);
    line->at[11] = ':';
    put_clock(line->at + 12, second % 86400);
    memcpy(line->at + 20, " +0000", 6);
    line->at += 26;
}

// ---- JSON ----

// A string, or null when it is empty.
static inline void put_json(struct line *line, struct str s)
{
    if (!s.n) {
        put(line, "null");
        return;
    }
    *line->at++ = '"';
    if (likely(s.n <= line_room(line) && json_copy_plain(line->at, s)))
        line->at += s.n;
    else
        put_escaped(line, s, json_escape);
    *line->at++ = '"';
}

// Never cut, never in want of an escape.
static inline void put_code(struct line *line, enum end_cause cause)
{
    struct str code = end_row(cause)->code;
    *line->at++ = '"';
    memcpy(line->at, code.p, code.n);
    line->at += code.n;
    *line->at++ = '"';
}

static size_t print_json(struct access_log *log, const struct access_record *record, char *out)
{
    struct line line = {out, out + ACCESS_LINE_BYTES - ACCESS_JSON_FIXED}, *l = &line;
    put(l, "{\"ts\":\"");
    put_ts(l, log, record->wall_us);
    put(l, "\",\"request_id\":");
    put_json(l, record->request_id);
    put(l, ",\"client\":");
    put_json(l, record->client);
    put(l, ",\"listener\":");
    put_json(l, record->listener);
    put(l, ",\"host\":");
    put_json(l, record->host);
    put(l, ",\"method\":");
    put_json(l, record->method);
    put(l, ",\"path\":");
    put_json(l, record->path);
    put(l, ",\"protocol\":");
    put_json(l, record->protocol);
    put(l, ",\"route\":");
    put_json(l, record->route);
    put(l, ",\"upstream\":");
    put_json(l, record->upstream);
    put(l, ",\"endpoint\":");
    put_json(l, record->endpoint);
    put(l, ",\"status\":");
    put_u64(l, record->status);
    put(l, ",\"code\":");
    put_code(l, record->cause);
    put(l, ",\"bytes_in\":");
    put_u64(l, record->bytes_in);
    put(l, ",\"bytes_out\":");
    put_u64(l, record->bytes_out);
    put(l, ",\"duration_ms\":");
    put_ms(l, record->duration_us);
    put(l, ",\"upstream_ms\":");
    if (record->attempts)
        put_ms(l, record->upstream_us);
    else
        put(l, "null");
    put(l, ",\"attempts\":");
    put_u64(l, record->attempts);
    put(l, ",\"consumer\":");
    put_json(l, record->consumer);
    put(l, ",\"subject\":");
    put_json(l, record->subject);
    put(l, ",\"trace_id\":");
    put_json(l, record->trace_id);
    put(l, "}\n");
    return (size_t)(line.at - out);
}

// ---- templates ----

static struct str record_string(const struct access_record *record, enum access_field field)
{
    switch (field) {
    case FIELD_REQUEST_ID: return record->request_id;
    case FIELD_CLIENT: return record->client;
    case FIELD_LISTENER: return record->listener;
    case FIELD_HOST: return record->host;
    case FIELD_METHOD: return record->method;
    case FIELD_PATH: return record->path;
    case FIELD_PROTOCOL: return record->protocol;
    case FIELD_ROUTE: return record->route;
    case FIELD_UPSTREAM: return record->upstream;
    case FIELD_ENDPOINT: return record->endpoint;
    case FIELD_CODE: return end_row(record->cause)->code;
    case FIELD_CONSUMER: return record->consumer;
    case FIELD_SUBJECT: return record->subject;
    case FIELD_TRACE_ID: return record->trace_id;
    case FIELD_QUERY: return record->query;
    case FIELD_USER_AGENT: return record->user_agent;
    case FIELD_REFERER: return record->referer;
    default: return STR("");
    }
}

static void put_text(struct line *line, struct str s)
{
    if (!s.n)
        put(line, "-");
    else if (s.n <= line_room(line) && json_copy_plain(line->at, s))
        line->at += s.n;
    else
        put_escaped(line, s, escape_text);
}

static void put_piece(struct line *line, struct access_log *log, const struct access_record *record,
                      const struct access_piece *piece)
{
    switch (piece->field) {
    case FIELD_LITERAL:
        memcpy(line->at, piece->literal.p, piece->literal.n);
        line->at += piece->literal.n;
        break;
    case FIELD_TS: put_ts(line, log, record->wall_us); break;
    case FIELD_TIME_LOCAL: put_time_local(line, record->wall_us); break;
    case FIELD_STATUS: put_u64(line, record->status); break;
    case FIELD_BYTES_IN: put_u64(line, record->bytes_in); break;
    case FIELD_BYTES_OUT: put_u64(line, record->bytes_out); break;
    case FIELD_DURATION_MS: put_ms(line, record->duration_us); break;
    case FIELD_ATTEMPTS: put_u64(line, record->attempts); break;
    case FIELD_UPSTREAM_MS:
        if (record->attempts)
            put_ms(line, record->upstream_us);
        else
            put(line, "-");
        break;
    default: put_text(line, record_string(record, piece->field)); break;
    }
}

static size_t print_template(struct access_log *log, const struct access_format *format,
                             const struct access_record *record, char *out)
{
    struct line line = {out, out + ACCESS_LINE_BYTES - format->fixed_bytes};
    for (uint32_t i = 0; i < format->count; i++)
        put_piece(&line, log, record, &format->pieces[i]);
    *line.at++ = '\n';
    return (size_t)(line.at - out);
}

// ---- both ----

size_t access_line_bound(const struct access_format *format, const struct access_record *record)
{
    size_t strings = 0;
    if (likely(format->kind == ACCESS_JSON))
        strings = record->request_id.n + record->client.n + record->listener.n + record->host.n +
                  record->method.n + record->path.n + record->protocol.n + record->route.n +
                  record->upstream.n + record->endpoint.n + record->consumer.n + record->subject.n +
                  record->trace_id.n;
    else
        for (uint32_t i = 0; i < format->count; i++)
            strings += record_string(record, format->pieces[i].field).n;
    size_t bound = format->fixed_bytes + strings * ACCESS_ESCAPE_MAX;
    return bound < ACCESS_LINE_BYTES ? bound : ACCESS_LINE_BYTES;
}

size_t access_line_print(struct access_log *log, const struct access_format *format,
                         const struct access_record *record, char *out)
{
    if (likely(format->kind == ACCESS_JSON))
        return print_json(log, record, out);
    return print_template(log, format, record, out);
}
