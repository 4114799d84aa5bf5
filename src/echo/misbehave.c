// ?misbehave=NAME[=VALUE] on any path, or the same without "?" in a field X-Echo. Further parameters say
// when:
//
//   key=K      count by this name (default: the request target); /_control/count?of=K tells
//   times=N    only the first N requests of that key
//   ratio=R    only that share of requests, drawn from --seed's sequence
//   reused=1   only when the connection has served a request before
//
// A request that asks for nothing is struck by the outage of that moment, if there is one (outage.c).
#include "echo/echo.h"

#include <stdio.h>

#define OK_HEAD   "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
#define RAW(text) .raw = {text, sizeof(text) - 1}

// ---- silence and broken connections

static enum misbehaved act_hang(struct client *c, uint64_t value)
{
    (void)value;
    answer_then(c, THEN_HANG);
    return INSTEAD;
}

static enum misbehaved act_deaf(struct client *c, uint64_t value)
{
    c->deaf = true;
    return act_hang(c, value);
}

static enum misbehaved act_no_answer(struct client *c, uint64_t value)
{
    (void)value;
    client_close(client_connection(c));
    return INSTEAD;
}

static enum misbehaved act_reset(struct client *c, uint64_t value)
{
    (void)value;
    client_reset(c);
    return INSTEAD;
}

static enum misbehaved act_refuse_stream(struct client *c, uint64_t value)
{
    if (!c->stream)
        return act_reset(c, value);
    h2_reset_stream(c, NGHTTP2_REFUSED_STREAM);
    return INSTEAD;
}

static enum misbehaved act_refuse(struct client *c, uint64_t value)
{
    struct outage_settings settings = {.schedule = {.kinds = 1, .for_ms = value ? value : 1}};
    check(misbehave_parse(STR("refuse"), &settings.kinds[0].row, &settings.kinds[0].value));
    outage_begin(c->echo, &settings);
    return act_reset(c, value);
}

// Announces total bytes, sends half of them, then the row's end.
static enum produced produce_half(struct client *c)
{
    struct str piece = answer_filler(c->sent, c->total / 2 - c->sent);
    answer_span(c, piece);
    c->sent += piece.n;
    if (c->sent < c->total / 2)
        return PRODUCE_MORE;
    answer_then(c, c->misbehaviour->then);
    return PRODUCE_ENDED;
}

static enum misbehaved act_half(struct client *c, uint64_t value)
{
    c->total = value;
    answer_head(c, 200, STR("text/plain"), FRAMING_LENGTH, value);
    answer_produce(c, produce_half);
    return INSTEAD;
}

static enum misbehaved act_half_chunked(struct client *c, uint64_t value)
{
    c->total = value;
    answer_head(c, 200, STR("text/plain"), FRAMING_CHUNKED, 0);
    answer_produce(c, produce_half);
    return INSTEAD;
}

// ---- slowness

static void serve_late(struct client *c)
{
    c->answer = ANSWER_NONE;
    client_serve(c);
    client_run(c);
}

static enum misbehaved act_slow_head(struct client *c, uint64_t value)
{
    c->answer = ANSWER_GOING;
    client_wait(c, value < ECHO_DELAY_MAX_MS ? value : ECHO_DELAY_MAX_MS, serve_late);
    return INSTEAD;
}

static enum misbehaved act_slow_body(struct client *c, uint64_t value)
{
    c->pace_ms = value ? value : 1;
    return AND_GO_ON;
}

static enum produced produce_byte(struct client *c)
{
    answer_raw(c, (struct str){c->text.p, 1});
    c->text = str_skip(c->text, 1);
    if (!c->text.n) {
        answer_then(c, THEN_KEEP);
        return PRODUCE_ENDED;
    }
    client_wait(c, c->delay_ms, client_run);
    return PRODUCE_WAITS;
}

static enum misbehaved act_trickle(struct client *c, uint64_t value)
{
    c->text = STR(OK_HEAD "Content-Length: 3\r\n\r\nok\n");
    c->delay_ms = value;
    answer_produce(c, produce_byte);
    return INSTEAD;
}

// ---- too much

static enum produced produce_1xx(struct client *c)
{
    if (c->sent++ < c->total) {
        answer_raw(c, STR("HTTP/1.1 102 Processing\r\n\r\n"));
        return PRODUCE_MORE;
    }
    c->answer = ANSWER_NONE;
    c->produce = NULL;
    c->sent = 0;
    client_serve(c);
    // The service may have put its own producer in place, which this return value must not end.
    return c->produce ? PRODUCE_MORE : PRODUCE_ENDED;
}

static enum misbehaved act_1xx_flood(struct client *c, uint64_t value)
{
    c->total = value;
    answer_produce(c, produce_1xx);
    return INSTEAD;
}

static enum produced produce_huge_head(struct client *c)
{
    struct str piece = answer_filler(c->sent, c->total - c->sent);
    answer_raw(c, piece);
    c->sent += piece.n;
    if (c->sent < c->total)
        return PRODUCE_MORE;
    answer_raw(c, STR("\r\nContent-Length: 0\r\n\r\n"));
    answer_then(c, THEN_KEEP);
    return PRODUCE_ENDED;
}

static enum misbehaved act_huge_head(struct client *c, uint64_t value)
{
    c->total = value;
    answer_raw(c, STR(OK_HEAD "X-Huge: "));
    answer_produce(c, produce_huge_head);
    return INSTEAD;
}

static enum produced produce_fields(struct client *c)
{
    char line[64];
    int n = snprintf(line, sizeof line, "X-Field-%llu: 1\r\n", (unsigned long long)c->sent++);
    answer_raw(c, (struct str){line, (size_t)n});
    if (c->sent < c->total)
        return PRODUCE_MORE;
    answer_raw(c, STR("Content-Length: 0\r\n\r\n"));
    answer_then(c, THEN_KEEP);
    return PRODUCE_ENDED;
}

static enum misbehaved act_many_fields(struct client *c, uint64_t value)
{
    c->total = value;
    answer_raw(c, STR(OK_HEAD));
    answer_produce(c, produce_fields);
    return INSTEAD;
}

// ---- answers out of turn

static enum misbehaved act_status(struct client *c, uint64_t value)
{
    c->status = value >= 200 && value <= 599 ? (unsigned)value : 500;
    return AND_GO_ON;
}

static enum misbehaved act_grpc_status(struct client *c, uint64_t value)
{
    answer_grpc(c, (unsigned)(value < 1000 ? value : 2));
    return INSTEAD;
}

static enum misbehaved act_early(struct client *c, uint64_t value)
{
    c->no_100 = true;
    act_status(c, value);
    answer_text(c, c->status, STR("text/plain"), STR("before the body\n"));
    return INSTEAD;
}

static enum misbehaved act_reject(struct client *c, uint64_t value)
{
    c->keep = false;
    return act_early(c, value);
}

static enum misbehaved act_no_continue(struct client *c, uint64_t value)
{
    (void)value;
    c->no_100 = true;
    return AND_GO_ON;
}

static enum misbehaved act_close_after(struct client *c, uint64_t value)
{
    c->ends_silently = true;
    c->ends_after_ms = value;
    return AND_GO_ON;
}

// ---- the table

// clang-format off
static const struct misbehaviour rows[] = {
    {"refuse", "resets every connection and lets nobody in for MS, as if it had died", AT_HEAD, act_refuse, 1000, .refuses = true},
    {"hang", "reads the request, never answers", AT_END, act_hang},
    {"deaf", "reads no further than the head, never answers", AT_HEAD, act_deaf},
    {"no_answer", "closes without a byte", AT_END, act_no_answer},
    {"close_early", "closes as soon as the head is read", AT_HEAD, act_no_answer},
    {"refuse_stream", "HTTP/2: RST_STREAM with REFUSED_STREAM", AT_HEAD, act_refuse_stream},
    {"reset", "resets without a byte", AT_END, act_reset},
    {"reset_early", "resets as soon as the head is read", AT_HEAD, act_reset},
    {"reset_body", "announces N bytes, sends half, resets", AT_END, act_half, 1000, .then = THEN_RESET},
    {"truncate", "announces N bytes, sends half, closes", AT_END, act_half, 1000, .then = THEN_CLOSE},
    {"stall_body", "announces N bytes, sends half, then nothing", AT_END, act_half, 1000, .then = THEN_HANG},
    {"truncate_chunked", "N/2 bytes in chunks, closes without the last one", AT_END, act_half_chunked, 1000, .then = THEN_CLOSE},
    {"reset_chunked", "N/2 bytes in chunks, then resets", AT_END, act_half_chunked, 1000, .then = THEN_RESET},
    {"stall_chunked", "N/2 bytes in chunks, then nothing", AT_END, act_half_chunked, 1000, .then = THEN_HANG},
    {"close_after", "answers as if to keep alive, closes after MS", AT_HEAD, act_close_after, 0},

    {"slow_head", "answers after MS", AT_END, act_slow_head, 1000},
    {"slow_body", "the body in ten pieces, MS between them", AT_HEAD, act_slow_body, 100},
    {"trickle", "head and body byte by byte, MS between them", AT_END, act_trickle, 10},

    {"flood_1xx", "N 102 answers before the real one", AT_END, act_1xx_flood, 1000},
    {"huge_head", "a field of N bytes", AT_END, act_huge_head, 1024 * 1024},
    {"many_fields", "N fields", AT_END, act_many_fields, 10000},

    {"status", "the path's answer with status NNN", AT_HEAD, act_status, 500},
    {"grpc_status", "gRPC: the call ends with status N, without a message", AT_END, act_grpc_status, 14},
    {"early", "answers NNN before the body, then reads it", AT_HEAD, act_early, 200},
    {"reject", "answers NNN before the body, with Connection: close", AT_HEAD, act_reject, 413},
    {"no_continue", "sends no 100 Continue", AT_HEAD, act_no_continue},

    {"garbage", "bytes that are no HTTP", AT_END, RAW("\x16\x03\x01 this is not HTTP\r\n\r\n\xff\xfe"), .then = THEN_CLOSE},
    {"empty_line", "an empty line before the head", AT_END, RAW("\r\n" OK_HEAD "Content-Length: 2\r\n\r\nok")},
    {"http09", "a body without a head", AT_END, RAW("<html>hello</html>\r\n"), .then = THEN_CLOSE},
    {"half_head", "half a head, closes", AT_END, RAW("HTTP/1.1 200 OK\r\nContent-Le"), .then = THEN_CLOSE},
    {"half_head_reset", "half a head, resets", AT_END, RAW("HTTP/1.1 200 OK\r\nContent-Le"), .then = THEN_RESET},
    {"stall_head", "half a head, then nothing", AT_END, RAW("HTTP/1.1 200 OK\r\nContent-Le"), .then = THEN_HANG},
    {"two_lengths", "two Content-Length that differ", AT_END, RAW(OK_HEAD "Content-Length: 2\r\nContent-Length: 7\r\n\r\nok")},
    {"list_length", "Content-Length: 2, 7", AT_END, RAW(OK_HEAD "Content-Length: 2, 7\r\n\r\nok")},
    {"signed_length", "Content-Length: +2", AT_END, RAW(OK_HEAD "Content-Length: +2\r\n\r\nok")},
    {"negative_length", "Content-Length: -2", AT_END, RAW(OK_HEAD "Content-Length: -2\r\n\r\nok")},
    {"overflow_length", "Content-Length: 2^64 + 2", AT_END, RAW(OK_HEAD "Content-Length: 18446744073709551618\r\n\r\nok")},
    {"length_and_chunked", "Content-Length with Transfer-Encoding", AT_END, RAW(OK_HEAD "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")},
    {"unknown_coding", "Transfer-Encoding: gzip, chunked", AT_END, RAW(OK_HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")},
    {"chunked_twice", "Transfer-Encoding: chunked, chunked", AT_END, RAW(OK_HEAD "Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")},
    {"chunked_http10", "Transfer-Encoding in HTTP/1.0", AT_END, RAW("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), .then = THEN_CLOSE},
    {"bad_chunk", "a chunk size that is no number", AT_END, RAW(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\nno\r\n0\r\n\r\n")},
    {"long_chunk", "more bytes than the chunk announced", AT_END, RAW(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n")},
    {"bare_lf_chunk", "chunk lines ended by LF alone", AT_END, RAW(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n")},
    {"extra_bytes", "more bytes than announced", AT_END, RAW(OK_HEAD "Content-Length: 5\r\n\r\nhello, and more than that")},
    {"second_answer", "another answer behind the first", AT_END, RAW(OK_HEAD "Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")},
    {"unasked_101", "switches protocols by itself", AT_END, RAW("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"), .then = THEN_HANG},
    {"bad_status", "status 99", AT_END, RAW("HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n")},
    {"status_1000", "a status of four digits", AT_END, RAW("HTTP/1.1 1000 Odd\r\nContent-Length: 0\r\n\r\n")},
    {"bad_version", "HTTP/3.7", AT_END, RAW("HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n")},
    {"bare_lf", "lines ended by LF alone", AT_END, RAW("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")},
    {"bare_cr", "a CR within a value", AT_END, RAW(OK_HEAD "X-Odd: a\rb\r\nContent-Length: 2\r\n\r\nok")},
    {"nul", "a NUL within a value", AT_END, RAW(OK_HEAD "X-Odd: a\0b\r\nContent-Length: 2\r\n\r\nok")},
    {"obs_fold", "a value that goes on in the next line", AT_END, RAW(OK_HEAD "X-Odd: a\r\n b\r\nContent-Length: 2\r\n\r\nok")},
    {"space_colon", "white space before the colon", AT_END, RAW(OK_HEAD "Content-Length : 2\r\n\r\nok")},
    {"empty_name", "a field without a name", AT_END, RAW(OK_HEAD ": odd\r\nContent-Length: 2\r\n\r\nok")},
    {"no_colon", "a line without a colon", AT_END, RAW(OK_HEAD "oddity\r\nContent-Length: 2\r\n\r\nok")},
    {"until_close", "no length: the body ends with the connection", AT_END, RAW(OK_HEAD "\r\nuntil the end\n"), .then = THEN_CLOSE},
    {"until_reset", "no length: the body ends with a reset", AT_END, RAW(OK_HEAD "\r\nuntil the end\n"), .then = THEN_RESET},
    {"http10", "an HTTP/1.0 answer", AT_END, RAW("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), .then = THEN_CLOSE},
};
// clang-format on

static enum misbehaved act_raw(struct client *c, uint64_t value)
{
    (void)value;
    answer_raw(c, c->misbehaviour->raw);
    answer_then(c, c->misbehaviour->then);
    return INSTEAD;
}

static const struct misbehaviour *find_row(struct str name)
{
    for (size_t i = 0; i < countof(rows); i++)
        if (str_eq(name, str_of(rows[i].name)))
            return &rows[i];
    return NULL;
}

static bool conditions_hold(struct client *c, const struct key_count *key)
{
    struct str query = c->wishes;
    if (query_u64(query, STR("reused"), 0, 1) && c->served < 2)
        return false;
    if (key && key->misbehaved >= query_u64(query, STR("times"), UINT64_MAX, UINT64_MAX))
        return false;
    double ratio = query_share(query, STR("ratio"), 1);
    return ratio >= 1 || rand_unit(&c->echo->rand) < ratio;
}

static struct key_count *count_key(struct client *c)
{
    struct str key, times;
    bool named = query_get(c->wishes, STR("key"), &key);
    if (!named && !query_get(c->wishes, STR("times"), &times))
        return NULL;
    struct key_count *count = echo_key(c->echo, named ? key : c->request.target);
    if (count)
        count->requests++;
    return count;
}

bool misbehave_parse(struct str text, const struct misbehaviour **row, uint64_t *value)
{
    struct str name = {text.p, str_find(text, '=')};
    *row = find_row(name);
    if (!*row)
        return false;
    *value = (*row)->value;
    if (name.n < text.n)
        str_to_u64(str_skip(text, name.n + 1), INT64_MAX, value);
    return true;
}

static void note_misbehaviour(struct client *c, const struct misbehaviour *row, uint64_t value)
{
    c->misbehaviour = row;
    c->misbehave_value = value;
    c->echo->counters.misbehaved++;
    if (c->counted)
        load_misbehaved(&c->echo->load, c->echo->loop.now_us);
}

bool misbehave_find(struct client *c)
{
    struct key_count *key = count_key(c);
    struct str wanted;
    const struct misbehaviour *row;
    uint64_t value;
    if (!query_get(c->wishes, STR("misbehave"), &wanted)) {
        if (outage_strikes(c->echo, c->request.path, &row, &value))
            note_misbehaviour(c, row, value);
        return true;
    }
    if (!misbehave_parse(wanted, &row, &value)) {
        answer_text(c, 400, STR("text/plain"), STR("no such misbehaviour: see /_control/help\n"));
        return false;
    }
    if (!conditions_hold(c, key))
        return true;
    if (key)
        key->misbehaved++;
    note_misbehaviour(c, row, value);
    return true;
}

enum misbehaved misbehave_now(struct client *c)
{
    const struct misbehaviour *row = c->misbehaviour;
    return row->act ? row->act(c, c->misbehave_value) : act_raw(c, 0);
}

void misbehave_list(struct json *json)
{
    json_object(json);
    for (size_t i = 0; i < countof(rows); i++) {
        json_key(json, str_of(rows[i].name));
        json_string(json, str_of(rows[i].about));
    }
    json_object_end(json);
}
