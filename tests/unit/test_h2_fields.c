// Heads of HTTP/2 that leave: which fields, in which order, spelled how.
#include "unit.h"

#include "base/buf.h"
#include "http/h2.h"

enum { NV_MAX = 32 };

static struct headers some_headers(struct arena *arena)
{
    struct headers headers = {0};
    headers_add(&headers, arena, STR("Content-Type"), STR("text/plain"));
    headers_add(&headers, arena, STR("X-Own"), STR("A"));
    headers_add(&headers, arena, STR("lower"), STR_NULL);
    headers_add(&headers, arena, STR("Host"), STR("h:1"));
    headers_add(&headers, arena, STR("Content-Length"), STR("77"));
    headers_add(&headers, arena, STR("Connection"), STR("close"));
    headers_add(&headers, arena, STR("Transfer-Encoding"), STR("chunked"));
    headers_add(&headers, arena, STR("Upgrade"), STR("websocket"));
    headers_add(&headers, arena, STR("TE"), STR("trailers"));
    headers_add(&headers, arena, STR("Gone"), STR("x"));
    headers_add(&headers, arena, STR("X-Request-Id"), STR("1"));
    headers_remove_name(&headers, STR("gone"));
    return headers;
}

static void assert_fields(const nghttp2_nv *nv, size_t count, const char *want)
{
    struct buf out = {0};
    for (size_t i = 0; i < count; i++) {
        assert_true(nv[i].flags & NGHTTP2_NV_FLAG_NO_COPY_NAME &&
                    nv[i].flags & NGHTTP2_NV_FLAG_NO_COPY_VALUE);
        assert_non_null(nv[i].value);
        buf_printf(&out, "%.*s: %.*s%s\n", (int)nv[i].namelen, (const char *)nv[i].name, (int)nv[i].valuelen,
                   (const char *)nv[i].value, nv[i].flags & NGHTTP2_NV_FLAG_NO_INDEX ? " (not kept)" : "");
    }
    buf_append(&out, (struct str){"", 1});
    assert_string_equal(out.base, want);
    buf_free(&out);
}

static void test_responses(void **state)
{
    (void)state;
    struct arena arena;
    nghttp2_nv nv[NV_MAX];
    arena_init(&arena, NULL);
    struct response_head head = {.status = 404, .headers = some_headers(&arena), .content_length = 12};
    assert_true(h2_fields_max(&head.headers) <= NV_MAX);
    assert_fields(nv, h2_response_fields(&head, FRAMING_LENGTH, &arena, nv),
                  ":status: 404\ncontent-type: text/plain\nx-own: A\nlower: \nx-request-id: 1 (not kept)\n"
                  "content-length: 12\n");
    assert_fields(nv, h2_response_fields(&head, FRAMING_CHUNKED, &arena, nv),
                  ":status: 404\ncontent-type: text/plain\nx-own: A\nlower: \nx-request-id: 1 (not kept)\n");
    arena_reset(&arena);
}

static void test_requests(void **state)
{
    (void)state;
    struct arena arena;
    nghttp2_nv nv[NV_MAX];
    arena_init(&arena, NULL);
    struct request_head head = {.method = METHOD_PUT,
                                .method_name = STR("PUT"),
                                .headers = some_headers(&arena),
                                .content_length = 3};
    assert_fields(nv, h2_request_fields(&head, STR("http"), STR("/x?y"), FRAMING_LENGTH, true, &arena, nv),
                  ":method: PUT\n:scheme: http\n:authority: h:1\n:path: /x?y\ncontent-type: text/plain\n"
                  "x-own: A\nlower: \nx-request-id: 1 (not kept)\ncontent-length: 3\nte: trailers\n");
    struct request_head bare = {.method = METHOD_GET};
    assert_fields(nv, h2_request_fields(&bare, STR("https"), STR("/"), FRAMING_NONE, false, &arena, nv),
                  ":method: GET\n:scheme: https\n:path: /\n");
    arena_reset(&arena);
}

static void test_trailers(void **state)
{
    (void)state;
    struct arena arena;
    nghttp2_nv nv[NV_MAX];
    arena_init(&arena, NULL);
    struct headers trailers = {0};
    headers_add(&trailers, &arena, STR("Grpc-Status"), STR("0"));
    headers_add(&trailers, &arena, STR("Trailer"), STR("x"));
    assert_fields(nv, h2_trailer_fields(&trailers, &arena, nv), "grpc-status: 0\n");
    arena_reset(&arena);
}

static bool is_taken(struct str name)
{
    struct arena arena;
    struct h2_fields fields;
    arena_init(&arena, NULL);
    h2_fields_init(&fields, &arena, 1024, 10);
    assert_true(h2_field(&fields, name, STR("v")));
    bool taken = !fields.fault;
    assert_int_equal(fields.has_underscore, taken && str_find(name, '_') < name.n);
    arena_reset(&arena);
    return taken;
}

// Names that arrive: every byte at every place of short ones and long ones.
static void test_names(void **state)
{
    (void)state;
    assert_false(is_taken(STR("")));
    for (size_t n = 1; n < 36; n++)
        for (size_t at = 0; at < n; at++)
            for (unsigned byte = 0; byte < 256; byte++) {
                char text[36];
                memset(text, n % 2 ? 'a' : 'z', n);
                text[at] = (char)byte;
                struct str name = {text, n};
                bool token = header_name_valid(name) && !(byte >= 'A' && byte <= 'Z');
                assert_int_equal(is_taken(name), token);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
