// Body framing: what the decoder passes, where it ends, what it refuses; the same however the bytes are
// split.
#include "base/arena.h"
#include "base/buf.h"
#include "base/check.h"
#include "http/body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { OUTCOME_MAX = 4096 };

// Reads input in parts of `step` bytes from copies of the exact size. The outcome: body bytes, then "done",
// "bad" or "more", how many bytes are left behind a message that is done, and the trailers.
static void read_in_parts(enum framing framing, uint64_t length, struct str input, size_t first, size_t step,
                          bool keep_trailers, char *outcome)
{
    struct body_reader reader;
    struct arena arena;
    struct headers trailers = {0};
    struct buf out = {0};
    enum body_result result = BODY_MORE;
    size_t at = 0, n = first < input.n ? first : input.n;
    arena_init(&arena, NULL);
    body_reader_init(&reader, framing, length);
    for (bool last = false; !last; n = input.n - n > step ? n + step : input.n) {
        last = n == input.n;
        char *copy = malloc(n - at + 1), *p = copy;
        memcpy(copy, input.p + at, n - at);
        for (size_t rest = n - at, consumed;; rest -= consumed, p += consumed, at += consumed) {
            struct str span;
            result = body_read(&reader, p, rest, &consumed, &span, keep_trailers ? &trailers : NULL,
                               keep_trailers ? &arena : NULL);
            assert_true(consumed <= rest);
            assert_int_equal(result == BODY_SPAN, span.n > 0);
            assert_true(result != BODY_SPAN || (span.p >= p && span.p + span.n == p + consumed));
            assert_true(result != BODY_MORE || consumed == rest);
            buf_append(&out, span);
            if (result != BODY_SPAN) {
                at += consumed;
                break;
            }
        }
        free(copy);
        if (result != BODY_MORE)
            break;
    }
    static const char *const names[] = {[BODY_MORE] = "more", [BODY_DONE] = "done", [BODY_BAD] = "bad"};
    assert_int_equal(reader.done, result == BODY_DONE);
    buf_printf(&out, " %s", names[result]);
    if (result == BODY_DONE && at < input.n)
        buf_printf(&out, " +%zu", input.n - at);
    for (uint32_t i = 0; i < trailers.count; i++)
        buf_printf(&out, "|%.*s:%.*s", STR_ARG(trailers.v[i].name), STR_ARG(trailers.v[i].value));
    buf_append(&out, (struct str){"", 1});
    snprintf(outcome, OUTCOME_MAX, "%s", out.base);
    buf_free(&out);
    arena_reset(&arena);
}

static void expect_body(enum framing framing, uint64_t length, struct str input, const char *want)
{
    char got[OUTCOME_MAX], plain[OUTCOME_MAX];
    for (size_t first = 0; first <= input.n; first++) {
        read_in_parts(framing, length, input, first, input.n + 1, true, got);
        if (strcmp(got, want) != 0)
            fail_msg("'%.*s' split at %zu: got '%s', want '%s'", STR_ARG(input), first, got, want);
    }
    for (size_t step = 1; step < 5; step++) {
        read_in_parts(framing, length, input, step, step, true, got);
        if (strcmp(got, want) != 0)
            fail_msg("'%.*s' by %zu: got '%s', want '%s'", STR_ARG(input), step, got, want);
        // Without a place for trailers the rest is the same.
        read_in_parts(framing, length, input, step, step, false, plain);
        size_t n = strcspn(want, "|");
        if (strlen(plain) != n || strncmp(plain, want, n) != 0)
            fail_msg("'%.*s' without trailers: got '%s', want '%s'", STR_ARG(input), plain, want);
    }
}

struct chunked_case {
    struct str input;
    const char *want;
};

#define CASE(text, want)               \
    {                                  \
        {text, sizeof(text) - 1}, want \
    }

static void expect_chunked(const struct chunked_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect_body(FRAMING_CHUNKED, 0, cases[i].input, cases[i].want);
}

#define EXPECT(cases) expect_chunked(cases, countof(cases))

static void test_no_body(void **state)
{
    (void)state;
    expect_body(FRAMING_NONE, 0, STR(""), " done");
    expect_body(FRAMING_NONE, 0, STR("GET /"), " done +5");
    expect_body(FRAMING_LENGTH, 0, STR("GET /"), " done +5");
}

static void test_length(void **state)
{
    (void)state;
    expect_body(FRAMING_LENGTH, 5, STR("hello"), "hello done");
    expect_body(FRAMING_LENGTH, 5, STR("helloGET /"), "hello done +5");
    expect_body(FRAMING_LENGTH, 5, STR("hell"), "hell more");
    expect_body(FRAMING_LENGTH, INT64_MAX, STR("hell"), "hell more");
}

static void test_length_is_done_with_its_last_span(void **state)
{
    (void)state;
    struct body_reader reader;
    struct str span;
    size_t consumed;
    body_reader_init(&reader, FRAMING_LENGTH, 3);
    assert_int_equal(body_read(&reader, "abcd", 4, &consumed, &span, NULL, NULL), BODY_SPAN);
    assert_int_equal(consumed, 3);
    assert_true(reader.done);
    assert_int_equal(reader.body_bytes, 3);
}

static void test_until_close(void **state)
{
    (void)state;
    expect_body(FRAMING_CLOSE, 0, STR("anything\r\n0\r\n\r\n"), "anything\r\n0\r\n\r\n more");
    expect_body(FRAMING_TUNNEL, 0, STR("\x81\x05hello"), "\x81\x05hello more");
    expect_body(FRAMING_CLOSE, 0, STR(""), " more");
}

static void test_chunks(void **state)
{
    (void)state;
    static const struct chunked_case cases[] = {
        CASE("0\r\n\r\n", " done"),
        CASE("0\r\n\r\nGET /", " done +5"),
        CASE("5\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("3\r\nabc\r\n1\r\nd\r\n00A\r\n0123456789\r\n000\r\n\r\n", "abcd0123456789 done"),
        CASE("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789 done"),
        CASE("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("5\r\nhe\r\no\r\n0\r\n\r\n", "he\r\no done"),
        CASE("5\r\nhel", "hel more"),
        CASE("5\r\nhello\r\n0\r\n\r", "hello more"),
        CASE("5\r\nhello\r\n", "hello more"),
        CASE("7fffffffffffffff\r\nhello", "hello more"),
    };
    EXPECT(cases);
}

static void test_bad_sizes(void **state)
{
    (void)state;
    static const struct chunked_case cases[] = {
        CASE("\r\n", " bad"),
        CASE(";a\r\n", " bad"),
        CASE("x\r\n", " bad"),
        CASE("0x5\r\nhello", " bad"), // CVE-2023-47627
        CASE("+5\r\nhello", " bad"),
        CASE("-5\r\nhello", " bad"),
        CASE(" 5\r\nhello", " bad"),
        CASE("\t5\r\nhello", " bad"),
        CASE("5 \r\nhello", " bad"),
        CASE("5\t\r\nhello", " bad"),
        CASE("5_0\r\nhello", " bad"),
        CASE("5g\r\nhello", " bad"),
        CASE("5.\r\nhello", " bad"),
        CASE("5,\r\nhello", " bad"),
        CASE("\"5\"\r\nhello", " bad"),
        CASE("5\0\r\nhello", " bad"),
        CASE("\xef\xbc\x95\r\nhello", " bad"),
        CASE("8000000000000000\r\nhello", " bad"),
        CASE("ffffffffffffffff\r\nhello", " bad"),
        CASE("10000000000000005\r\nhello", " bad"), // 5 modulo 2^64
        CASE("00000000000000005\r\nhello", " bad"), // 17 digits
        CASE("fffffffffffffffff\r\nhello", " bad"),
    };
    EXPECT(cases);
}

static void test_bad_line_ends(void **state)
{
    (void)state;
    static const struct chunked_case cases[] = {
        CASE("5\nhello\r\n0\r\n\r\n", " bad"),
        CASE("5\rhello\r\n0\r\n\r\n", " bad"),
        CASE("5\r\r\nhello\r\n0\r\n\r\n", " bad"),
        CASE("5\r\nhello0\r\n\r\n", "hello bad"),
        CASE("5\r\nhelloX\r\n0\r\n\r\n", "hello bad"), // TERM.SPILL
        CASE("5\r\nhello\n0\r\n\r\n", "hello bad"),
        CASE("5\r\nhello\r0\r\n\r\n", "hello bad"),
        CASE("5\r\nhello\r\n\r\n0\r\n\r\n", "hello bad"),
        CASE("0\n\n", " bad"),
        CASE("0\r\n\n", " bad"),
        CASE("0\r\n\rX", " bad"),
        CASE("5;\nhello", " bad"), // TERM.EXT
        CASE("5;a\nhello", " bad"),
        CASE("5;a\rhello", " bad"),
        CASE("5;a=b\n\r\nhello", " bad"),
        CASE("2;\n\r\nxx\r\n0\r\n\r\n", " bad"),
    };
    EXPECT(cases);
}

static void test_extensions(void **state)
{
    (void)state;
    static const struct chunked_case cases[] = {
        CASE("5;a\r\nhello\r\n0;b\r\n\r\n", "hello done"),
        CASE("5;a=b\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("5;a=b;c;d=\"e\"\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("5 ; a = b ;\tc\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("5;a=\"\"\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("5;a=\"b \\\" ; \\\\ \xff\" ;c\r\nhello\r\n0\r\n\r\n", "hello done"),
        CASE("5;a=\"0\\\r\n\r\n", " bad"),
        CASE("5;a=\"\r\nhello", " bad"),
        CASE("5;a=\"\n\"\r\nhello", " bad"),
        CASE("5;a=\"\0\"\r\nhello", " bad"),
        CASE("5;a=\"\x7f\"\r\nhello", " bad"),
        CASE("5;a=\"b\"c\r\nhello", " bad"),
        CASE("5;\r\nhello", " bad"),
        CASE("5;;a\r\nhello", " bad"),
        CASE("5;a;\r\nhello", " bad"),
        CASE("5;=b\r\nhello", " bad"),
        CASE("5;a=\r\nhello", " bad"),
        CASE("5;a=;b\r\nhello", " bad"),
        CASE("5;a==b\r\nhello", " bad"),
        CASE("5;a b\r\nhello", " bad"),
        CASE("5;a=b c\r\nhello", " bad"),
        CASE("5;a \r\nhello", " bad"),
        CASE("5;a=b \r\nhello", " bad"),
        CASE("5;a=\"b\" \r\nhello", " bad"),
        CASE("5;\xc3\r\nhello", " bad"),
        CASE("5;a\0\r\nhello", " bad"),
        CASE("5;a(\r\nhello", " bad"),
        CASE("5 a\r\nhello", " bad"),
    };
    EXPECT(cases);
}

static void test_trailers(void **state)
{
    (void)state;
    static const struct chunked_case cases[] = {
        CASE("0\r\nA: b\r\n\r\n", " done|A:b"),
        CASE("1\r\nx\r\n0\r\nA: b\r\nX-Check:\t c d \r\nE:\r\n\r\nrest", "x done +4|A:b|X-Check:c d|E:"),
        CASE("0\r\nA: b\r\n", " more"),
        CASE("0\r\nA: b", " more"),
        CASE("0\r\nA : b\r\n\r\n", " bad"),
        CASE("0\r\n A: b\r\n\r\n", " bad"),
        CASE("0\r\nA: b\r\n c\r\n\r\n", " bad"),
        CASE("0\r\n: b\r\n\r\n", " bad"),
        CASE("0\r\nA\r\n\r\n", " bad"),
        CASE("0\r\nA: b\n\r\n", " bad"),
        CASE("0\r\nA: b\rc\r\n\r\n", " bad"),
        CASE("0\r\nA: b\0\r\n\r\n", " bad"),
        CASE("0\r\nA(: b\r\n\r\n", " bad"),
        CASE("0\r\n\xc3: b\r\n\r\n", " bad"),
        CASE("0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", " bad"),
        // What would mean something in a head means nothing here.
        CASE(
            "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHOST: x\r\nOk: 1\r\nAuthorization: x\r\n"
            "Cookie: a\r\nSet-Cookie: a\r\nConnection: close\r\nX-Forwarded-For: 1.2.3.4\r\nX_User: a\r\n"
            "Content-Type: a\r\nContent-Encoding: a\r\nX-Request-Id: a\r\nContent_Length: 7\r\nTE: x\r\n\r\n",
            " done|Ok:1"),
    };
    EXPECT(cases);
}

static struct str repeat(struct buf *out, const char *start, const char *part, unsigned times,
                         const char *end)
{
    buf_append(out, str_of(start));
    for (unsigned i = 0; i < times; i++)
        buf_append(out, str_of(part));
    buf_append(out, str_of(end));
    return buf_str(out);
}

static void expect_repeated(const char *start, const char *part, unsigned times, const char *end,
                            const char *want)
{
    struct buf text = {0};
    char got[OUTCOME_MAX];
    struct str input = repeat(&text, start, part, times, end);
    size_t steps[] = {1, 7, 1000, input.n};
    for (size_t i = 0; i < countof(steps); i++) {
        read_in_parts(FRAMING_CHUNKED, 0, input, steps[i], steps[i], true, got);
        if (strcmp(got, want) != 0)
            fail_msg("%u times '%s' by %zu: got '%s', want '%s'", times, part, steps[i], got, want);
    }
    buf_free(&text);
}

static void test_limits(void **state)
{
    (void)state;
    expect_repeated("1;", "a", CHUNK_EXTENSION_BYTES - 1, "\r\nx\r\n0\r\n\r\n", "x done");
    expect_repeated("1;", "a", CHUNK_EXTENSION_BYTES, "\r\nx\r\n0\r\n\r\n", " bad");
    expect_repeated("1;", "a", 1000000, "", " bad");
    expect_repeated("1;a=\"", " ", 1000000, "", " bad");
    // 20 bytes of framing for each of the body
    expect_repeated("", "0000000000000001\r\nx\r\n", 10, "0\r\n\r\n", "xxxxxxxxxx done");
    char want[OUTCOME_MAX];
    struct buf text = {0};
    repeat(&text, "", "0000000000000001\r\nx\r\n", 100000, "0\r\n\r\n");
    read_in_parts(FRAMING_CHUNKED, 0, buf_str(&text), 4096, 4096, true, want);
    assert_true(strlen(want) < OUTCOME_MAX);
    assert_int_equal(want[0], 'x');
    assert_string_equal(want + strlen(want) - 4, " bad");
    buf_free(&text);
    // one byte a chunk is wasteful but honest: 5 bytes of framing
    struct body_reader reader;
    body_reader_init(&reader, FRAMING_CHUNKED, 0);
    for (unsigned i = 0; i < 100000; i++) {
        struct str span;
        size_t consumed;
        assert_int_equal(body_read(&reader, "1\r\nx", 4, &consumed, &span, NULL, NULL), BODY_SPAN);
        assert_int_equal(body_read(&reader, "\r\n", 2, &consumed, &span, NULL, NULL), BODY_MORE);
    }
    assert_int_equal(reader.body_bytes, 100000);
    assert_int_equal(reader.overhead_bytes, 500000);
}

static void test_trailer_limits(void **state)
{
    (void)state;
    expect_repeated("0\r\n", "Host: b\r\n", TRAILER_FIELDS, "\r\n", " done");
    expect_repeated("0\r\n", "Host: b\r\n", TRAILER_FIELDS + 1, "\r\n", " bad");
    expect_repeated("0\r\nHost: ", "b", TRAILER_BYTES - 10, "\r\n\r\n", " done");
    expect_repeated("0\r\nHost: ", "b", TRAILER_BYTES - 9, "\r\n\r\n", " bad");
    expect_repeated("0\r\nHost: ", "b", 1000000, "", " bad");
}

// A caller that stops asking for trailers gets none, not half of them.
static void test_trailers_asked_for_in_part(void **state)
{
    (void)state;
    static const char *const asked[] = {"011", "101", "110", "001", "100", "000", "111"};
    static const char *const parts[] = {"0\r\nA: b\r\nC", ": d\r\nE: f", "\r\nG: h\r\n\r\n"};
    for (size_t i = 0; i < countof(asked); i++) {
        struct body_reader reader;
        struct arena arena;
        struct headers trailers = {0};
        struct str span;
        size_t consumed;
        arena_init(&arena, NULL);
        body_reader_init(&reader, FRAMING_CHUNKED, 0);
        for (size_t part = 0; part < countof(parts); part++) {
            bool ask = asked[i][part] == '1';
            enum body_result want = part + 1 == countof(parts) ? BODY_DONE : BODY_MORE;
            assert_int_equal(body_read(&reader, parts[part], strlen(parts[part]), &consumed, &span,
                                       ask ? &trailers : NULL, ask ? &arena : NULL),
                             want);
        }
        assert_int_equal(trailers.count, strcmp(asked[i], "111") == 0 ? 4 : 0);
        arena_reset(&arena);
    }
}

static void test_bad_is_for_ever(void **state)
{
    (void)state;
    static const struct str inputs[] = {STR("x"), STR("5\n"), STR("0\r\n :")};
    for (size_t i = 0; i < countof(inputs); i++) {
        struct body_reader reader;
        struct str span;
        size_t consumed;
        body_reader_init(&reader, FRAMING_CHUNKED, 0);
        assert_int_equal(body_read(&reader, inputs[i].p, inputs[i].n, &consumed, &span, NULL, NULL),
                         BODY_BAD);
        assert_int_equal(body_read(&reader, "0\r\n\r\n", 5, &consumed, &span, NULL, NULL), BODY_BAD);
        assert_int_equal(body_read(&reader, "\r\n", 2, &consumed, &span, NULL, NULL), BODY_BAD);
        assert_false(reader.done);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_body),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_length_is_done_with_its_last_span),
        cmocka_unit_test(test_until_close),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_bad_sizes),
        cmocka_unit_test(test_bad_line_ends),
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_trailer_limits),
        cmocka_unit_test(test_trailers_asked_for_in_part),
        cmocka_unit_test(test_bad_is_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
