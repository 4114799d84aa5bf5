// Names and their ids, lists of fields, and what is removed between hops.
#include "base/arena.h"
#include "base/buf.h"
#include "base/check.h"
#include "http/message.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct str known[HEADER_ID_COUNT] = {
#define X(id, name) [id] = {name, sizeof(name) - 1},
    HEADER_NAMES(X)
#undef X
};

static void test_every_name_has_its_id(void **state)
{
    (void)state;
    for (unsigned id = 1; id < HEADER_ID_COUNT; id++) {
        char mixed[64];
        for (size_t i = 0; i < known[id].n; i++)
            mixed[i] = (char)(i % 2 ? toupper(known[id].p[i]) : known[id].p[i]);
        assert_int_equal(header_id_of(known[id]), id);
        assert_int_equal(header_id_of((struct str){mixed, known[id].n}), id);
        assert_true(str_eq(header_name((enum header_id)id), known[id]));
    }
}

// Any one byte changed, dropped or added makes another name.
static void test_no_other_name_has_an_id(void **state)
{
    (void)state;
    for (unsigned id = 1; id < HEADER_ID_COUNT; id++) {
        size_t n = known[id].n;
        for (size_t at = 0; at < n; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                char *name = malloc(n); // of the exact size, for ASan
                memcpy(name, known[id].p, n);
                name[at] = (char)byte;
                struct str changed = {name, n};
                bool same = str_eq_fold(changed, known[id]);
                enum header_id got = header_id_of(changed);
                if (same ? got != id : got != HEADER_OTHER && !str_eq_fold(changed, known[got]))
                    fail_msg("'%.*s' got %d", STR_ARG(changed), got);
                free(name);
            }
        }
        char longer[64];
        memcpy(longer, known[id].p, n);
        longer[n] = 's';
        assert_int_equal(header_id_of((struct str){longer, n + 1}), HEADER_OTHER);
        enum header_id shorter = header_id_of((struct str){longer, n - 1});
        assert_true(shorter == HEADER_OTHER || known[shorter].n == n - 1);
    }
    assert_int_equal(header_id_of(STR("")), HEADER_OTHER);
    assert_int_equal(header_id_of(STR("a")), HEADER_OTHER);
    char giant[70000];
    memset(giant, 'x', sizeof giant);
    assert_int_equal(header_id_of((struct str){giant, sizeof giant}), HEADER_OTHER);
    memcpy(giant, "host", 4);
    assert_int_equal(header_id_of((struct str){giant, 256 + 4}), HEADER_OTHER); // a length modulo 256
}

static void test_grammar(void **state)
{
    (void)state;
    assert_true(header_name_valid(STR("x")));
    assert_true(header_name_valid(STR("!#$%&'*+-.^_`|~09azAZ")));
    assert_false(header_name_valid(STR("")));
    assert_true(header_value_valid(STR("")));
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[] = {'a', (char)byte, 'b'};
        bool token = isalnum((int)byte) || (byte && strchr("!#$%&'*+-.^_`|~", (int)byte));
        bool value = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
        assert_int_equal(header_name_valid((struct str){text, 3}), token && byte < 0x80);
        assert_int_equal(header_value_valid((struct str){text, 3}), value);
        for (size_t n = 1; n < 40; n++) // by words and vectors, and what is left of the last one
            for (size_t at = 0; at < n; at++) {
                char longer[40];
                memset(longer, at % 2 ? '\xff' : ' ', sizeof longer);
                longer[at] = (char)byte;
                assert_int_equal(header_value_valid((struct str){longer, n}), value);
            }
    }
}

struct fixture {
    struct arena arena;
    struct headers headers;
};

// "name: value" lines, comma-free names.
static void open_with(struct fixture *f, const char *const *lines)
{
    *f = (struct fixture){0};
    arena_init(&f->arena, NULL);
    for (; *lines; lines++) {
        const char *colon = strchr(*lines, ':');
        headers_add(&f->headers, &f->arena, str_range(*lines, colon), str_trim(str_of(colon + 1)));
    }
}

static void expect(struct fixture *f, const char *want)
{
    struct buf out = {0};
    for (uint32_t i = 0; i < f->headers.count; i++) {
        const struct header *h = &f->headers.v[i];
        if (h->id != HEADER_GONE)
            buf_printf(&out, "%.*s=%.*s|", STR_ARG(h->name), STR_ARG(h->value));
    }
    buf_append(&out, (struct str){"", 1});
    assert_string_equal(out.base, want);
    buf_free(&out);
    arena_reset(&f->arena);
}

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_find(void **state)
{
    (void)state;
    struct fixture f;
    open_with(&f, LINES("Host: a", "X-Y: b", "x-y: c", "Date: d"));
    assert_true(str_eq(headers_find(&f.headers, HEADER_HOST)->value, STR("a")));
    assert_null(headers_find(&f.headers, HEADER_VIA));
    assert_true(str_eq(headers_find_name(&f.headers, STR("X-y"))->value, STR("b")));
    assert_true(str_eq(headers_find_name(&f.headers, STR("DATE"))->value, STR("d")));
    assert_null(headers_find_name(&f.headers, STR("X-")));
    assert_null(headers_find_name(&f.headers, STR("")));
    headers_find_name(&f.headers, STR("X-Y"))->id = HEADER_GONE;
    assert_true(str_eq(headers_find_name(&f.headers, STR("X-Y"))->value, STR("c")));
    assert_int_equal(headers_remove(&f.headers, HEADER_HOST), 1);
    assert_null(headers_find(&f.headers, HEADER_HOST));
    assert_null(headers_find_name(&f.headers, STR("host")));
    assert_int_equal(headers_remove(&f.headers, HEADER_HOST), 0);
    expect(&f, "x-y=c|Date=d|");
}

static void test_add_remove_set(void **state)
{
    (void)state;
    struct fixture f;
    open_with(&f, LINES("A: 1", "Via: x", "a: 2"));
    assert_int_equal(headers_remove_name(&f.headers, STR("A")), 2);
    assert_int_equal(headers_remove_name(&f.headers, STR("VIA")), 1);
    headers_set(&f.headers, &f.arena, STR("B"), STR("1"));
    headers_set(&f.headers, &f.arena, STR("b"), STR("2"));
    headers_add_id(&f.headers, &f.arena, HEADER_X_REQUEST_ID, STR("r"));
    headers_add(&f.headers, &f.arena, STR("X-REQUEST-ID"), STR("s"));
    assert_int_equal(f.headers.v[f.headers.count - 1].id, HEADER_X_REQUEST_ID);
    expect(&f, "b=2|x-request-id=r|X-REQUEST-ID=s|");
}

static void test_growth(void **state)
{
    (void)state;
    struct fixture f = {0};
    arena_init(&f.arena, NULL);
    for (unsigned i = 0; i < 1000; i++)
        headers_add(&f.headers, &f.arena, STR("n"), arena_printf(&f.arena, "%u", i));
    assert_int_equal(f.headers.count, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t value;
        assert_true(str_to_u64(f.headers.v[i].value, 1000, &value));
        assert_int_equal(value, i);
    }
    arena_reset(&f.arena);
}

static void test_lists(void **state)
{
    (void)state;
    struct fixture f;
    open_with(&f, LINES("Connection: a, Upgrade ,b", "connection: CLOSE", "TE: trailers"));
    assert_true(headers_list_has(&f.headers, HEADER_CONNECTION, STR("upgrade")));
    assert_true(headers_list_has(&f.headers, HEADER_CONNECTION, STR("close")));
    assert_true(headers_list_has(&f.headers, HEADER_CONNECTION, STR("b")));
    assert_false(headers_list_has(&f.headers, HEADER_CONNECTION, STR("up")));
    assert_false(headers_list_has(&f.headers, HEADER_CONNECTION, STR("trailers")));
    assert_true(headers_list_has(&f.headers, HEADER_TE, STR("trailers")));
    assert_false(headers_list_has(&f.headers, HEADER_UPGRADE, STR("x")));
    arena_reset(&f.arena);
}

static void test_hop_by_hop(void **state)
{
    (void)state;
    struct fixture f;
    open_with(&f, LINES("Connection: keep-alive, X-Mine ,x-other", "Keep-Alive: 5", "Proxy-Connection: a",
                        "Proxy-Authenticate: a", "Proxy-Authorization: a", "TE: trailers", "Trailer: a",
                        "Transfer-Encoding: chunked", "Upgrade: a", "HTTP2-Settings: a", "x-MINE: 1",
                        "X-Other: 2", "X-Other: 3", "Accept: */*", "Content-Length: 5"));
    headers_remove_hop_by_hop(&f.headers);
    expect(&f, "Accept=*/*|Content-Length=5|");
    // A named field that the table knows goes as well.
    open_with(&f, LINES("connection: Cookie", "Cookie: a", "Connection: Date", "Date: d", "A: b"));
    headers_remove_hop_by_hop(&f.headers);
    expect(&f, "A=b|");
}

static void test_connection_cannot_strip_ours(void **state)
{
    (void)state;
    struct fixture f;
    open_with(
        &f, LINES("Connection: close, host, Content-Length, X-Forwarded-For, x-real-ip, via, X-Request-Id, "
                  "forwarded, X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port, traceparent, tracestate",
                  "Host: h", "Content-Length: 1", "X-Forwarded-For: a", "X-Real-IP: a", "Via: a",
                  "X-Request-Id: a", "Forwarded: a", "X-Forwarded-Proto: a", "X-Forwarded-Host: a",
                  "X-Forwarded-Port: a", "traceparent: a", "tracestate: a"));
    headers_remove_hop_by_hop(&f.headers);
    expect(&f, "Host=h|Content-Length=1|X-Forwarded-For=a|X-Real-IP=a|Via=a|X-Request-Id=a|Forwarded=a|"
               "X-Forwarded-Proto=a|X-Forwarded-Host=a|X-Forwarded-Port=a|traceparent=a|tracestate=a|");
}

static void test_methods(void **state)
{
    (void)state;
    assert_int_equal(http_method_of(STR("GET")), METHOD_GET);
    assert_int_equal(http_method_of(STR("CONNECT")), METHOD_CONNECT);
    assert_int_equal(http_method_of(STR("get")), METHOD_OTHER);
    assert_int_equal(http_method_of(STR("GETS")), METHOD_OTHER);
    assert_int_equal(http_method_of(STR("")), METHOD_OTHER);
    for (unsigned i = 1; i < METHOD_COUNT; i++)
        assert_int_equal(http_method_of(http_method_name((enum http_method)i)), i);
    assert_true(str_eq(http_method_name(METHOD_OTHER), STR("OTHER")));
    static const bool safe[METHOD_COUNT] = {
        [METHOD_GET] = true, [METHOD_HEAD] = true, [METHOD_OPTIONS] = true, [METHOD_TRACE] = true};
    for (unsigned i = 0; i < METHOD_COUNT; i++) {
        bool idempotent = safe[i] || i == METHOD_PUT || i == METHOD_DELETE;
        assert_int_equal(http_method_safe((enum http_method)i), safe[i]);
        assert_int_equal(http_method_idempotent((enum http_method)i), idempotent);
    }
}

static void test_reasons(void **state)
{
    (void)state;
    assert_true(str_eq(http_reason(200), STR("OK")));
    assert_true(str_eq(http_reason(431), STR("Request Header Fields Too Large")));
    assert_int_equal(http_reason(299).n, 0);
    assert_int_equal(http_reason(0).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_has_its_id),
        cmocka_unit_test(test_no_other_name_has_an_id),
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_add_remove_set),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_hop_by_hop),
        cmocka_unit_test(test_connection_cannot_strip_ours),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_reasons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
