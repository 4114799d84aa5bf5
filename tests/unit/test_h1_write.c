// Heads and chunk framing as they leave, within the announced bounds.
#include "base/arena.h"
#include "base/buf.h"
#include "base/check.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
    struct arena arena;
    struct request_head request;
    struct response_head response;
    struct buf out;
};

static void expect_out(struct fixture *f, const char *want)
{
    struct str got = buf_str(&f->out);
    if (!str_eq(got, str_of(want)))
        fail_msg("got '%.*s', want '%s'", STR_ARG(got), want);
    buf_free(&f->out);
    f->out = (struct buf){0};
}

static void reserve(struct fixture *f, size_t size)
{
    f->out = (struct buf){.base = malloc(size), .cap = (uint32_t)size}; // exactly: ASan sees any more
    assert_non_null(f->out.base);
}

static void open_request(struct fixture *f, const char *text)
{
    struct h1_parse parse = {0};
    struct h1_limits limits = {32768, 8192, 100};
    *f = (struct fixture){0};
    arena_init(&f->arena, NULL);
    assert_int_equal(
        h1_parse_request(&parse, text, strlen(text), &limits, H1_UNDERSCORES_DROP, &f->arena, &f->request),
        H1_DONE);
}

static void write_request(struct fixture *f, struct str target, enum framing framing, bool upgrade)
{
    reserve(f, h1_request_size(&f->request, target));
    h1_write_request(&f->out, &f->request, target, framing, upgrade);
}

static void test_request(void **state)
{
    (void)state;
    struct fixture f;
    open_request(&f, "GET /a HTTP/1.0\r\nHost:h\r\nA: b\r\nB:  c\r\nC_d: e\r\nX: y\r\nZ:\r\n\r\n");
    write_request(&f, STR("/new?q"), FRAMING_NONE, false);
    expect_out(&f, "GET /new?q HTTP/1.1\r\nHost: h\r\nA: b\r\nB: c\r\nX: y\r\nZ: \r\n\r\n");
    arena_reset(&f.arena);
}

// Runs of untouched fields are copied whole; what was removed or changed splits them.
static void test_changed_fields(void **state)
{
    (void)state;
    struct fixture f;
    open_request(&f, "GET /a HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\r\n");
    headers_remove_name(&f.request.headers, STR("b"));
    headers_find_name(&f.request.headers, STR("d"))->value = STR("new");
    headers_add(&f.request.headers, &f.arena, STR("F"), STR(""));
    headers_add(&f.request.headers, &f.arena, STR("G"), STR_NULL);
    headers_add_id(&f.request.headers, &f.arena, HEADER_VIA, STR("1.1 sallyport"));
    write_request(&f, f.request.target, FRAMING_NONE, false);
    expect_out(&f, "GET /a HTTP/1.1\r\nHost: h\r\nA: 1\r\nC: 3\r\nD: new\r\nE: 5\r\nF: \r\nG: \r\n"
                   "via: 1.1 sallyport\r\n\r\n");
    headers_remove(&f.request.headers, HEADER_HOST);
    headers_remove_name(&f.request.headers, STR("E"));
    headers_remove_name(&f.request.headers, STR("F"));
    headers_remove_name(&f.request.headers, STR("G"));
    headers_remove(&f.request.headers, HEADER_VIA);
    write_request(&f, f.request.target, FRAMING_NONE, false);
    expect_out(&f, "GET /a HTTP/1.1\r\nA: 1\r\nC: 3\r\nD: new\r\n\r\n");
    arena_reset(&f.arena);
}

static void test_request_framing(void **state)
{
    (void)state;
    struct fixture f;
    open_request(&f, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775807\r\n\r\n");
    headers_remove(&f.request.headers, HEADER_CONTENT_LENGTH);
    write_request(&f, STR("/"), FRAMING_LENGTH, false);
    expect_out(&f, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775807\r\n\r\n");
    write_request(&f, STR("/"), FRAMING_CHUNKED, false);
    expect_out(&f, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    f.request.content_length = 0;
    write_request(&f, STR("/"), FRAMING_LENGTH, false);
    expect_out(&f, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    arena_reset(&f.arena);
}

static void test_upgrade(void **state)
{
    (void)state;
    struct fixture f;
    open_request(&f, "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    headers_remove_hop_by_hop(&f.request.headers);
    write_request(&f, STR("/"), FRAMING_NONE, true);
    expect_out(&f, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    arena_reset(&f.arena);
}

// A head that no parser made: the method is named by its number.
static void test_own_request(void **state)
{
    (void)state;
    struct fixture f = {.request = {.method = METHOD_HEAD}};
    arena_init(&f.arena, NULL);
    headers_add_id(&f.request.headers, &f.arena, HEADER_HOST, STR("h"));
    write_request(&f, STR("/healthz"), FRAMING_NONE, false);
    expect_out(&f, "HEAD /healthz HTTP/1.1\r\nhost: h\r\n\r\n");
    arena_reset(&f.arena);
}

static void write_response(struct fixture *f, enum framing framing, struct str connection)
{
    reserve(f, h1_response_size(&f->response));
    h1_write_response(&f->out, &f->response, framing, connection);
}

static void test_response(void **state)
{
    (void)state;
    struct fixture f = {.response = {.status = 200, .reason = STR("OK"), .content_length = 12}};
    arena_init(&f.arena, NULL);
    write_response(&f, FRAMING_NONE, STR_NULL);
    expect_out(&f, "HTTP/1.1 200 OK\r\n\r\n");
    headers_add(&f.response.headers, &f.arena, STR("A"), STR("b"));
    write_response(&f, FRAMING_LENGTH, STR("keep-alive"));
    expect_out(&f, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\n");
    write_response(&f, FRAMING_CHUNKED, STR("close"));
    expect_out(&f, "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    write_response(&f, FRAMING_CLOSE, STR("close"));
    expect_out(&f, "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n");
    f.response.reason = STR("Fine");
    write_response(&f, FRAMING_NONE, STR_NULL);
    expect_out(&f, "HTTP/1.1 200 Fine\r\nA: b\r\n\r\n");
    f.response.status = 503;
    f.response.reason = STR_NULL;
    write_response(&f, FRAMING_NONE, STR_NULL);
    expect_out(&f, "HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n");
    f.response.status = 299;
    write_response(&f, FRAMING_NONE, STR_NULL);
    expect_out(&f, "HTTP/1.1 299 \r\nA: b\r\n\r\n");
    arena_reset(&f.arena);
}

static void test_chunk_heads(void **state)
{
    (void)state;
    static const struct {
        uint64_t size;
        const char *want;
    } cases[] = {
        {0, "0\r\n"},
        {1, "1\r\n"},
        {15, "f\r\n"},
        {16, "10\r\n"},
        {255, "ff\r\n"},
        {256, "100\r\n"},
        {0xdeadbeef, "deadbeef\r\n"},
        {UINT64_C(1) << 60, "1000000000000000\r\n"},
        {UINT64_MAX, "ffffffffffffffff\r\n"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char out[CHUNK_HEAD_MAX];
        size_t n = h1_write_chunk_head(cases[i].size, out);
        assert_true(str_eq((struct str){out, n}, str_of(cases[i].want)));
    }
}

static void test_last_chunk(void **state)
{
    (void)state;
    struct fixture f = {0};
    struct headers trailers = {0};
    arena_init(&f.arena, NULL);
    reserve(&f, h1_trailers_size(&trailers));
    h1_write_last_chunk(&f.out, &trailers);
    expect_out(&f, "0\r\n\r\n");
    headers_add(&trailers, &f.arena, STR("A"), STR("b"));
    headers_add(&trailers, &f.arena, STR("C"), STR("d"));
    trailers.v[0].id = HEADER_GONE;
    reserve(&f, h1_trailers_size(&trailers));
    h1_write_last_chunk(&f.out, &trailers);
    expect_out(&f, "0\r\nC: d\r\n\r\n");
    arena_reset(&f.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),         cmocka_unit_test(test_changed_fields),
        cmocka_unit_test(test_request_framing), cmocka_unit_test(test_upgrade),
        cmocka_unit_test(test_own_request),     cmocka_unit_test(test_response),
        cmocka_unit_test(test_chunk_heads),     cmocka_unit_test(test_last_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
