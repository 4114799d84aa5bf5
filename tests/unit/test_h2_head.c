// Header blocks of HTTP/2: which are heads, which are refused as HTTP/1 refuses them, which are malformed.
#include "test_h2_fixture.h"

#define START(method, path) ":method: " method "\n:scheme: https\n:authority: h\n:path: " path "\n"
#define GET                 START("GET", "/")
#define POST                START("POST", "/")
#define SAME                "GET / 1.1 host=h none keep"

static void test_good_requests(void **state)
{
    (void)state;
    static const struct h1_case cases[] = {
        CASE(GET, SAME "|host:h"),
        CASE(":path: /a/b?c=d&e\n:authority: Api.Example.COM:8080\n:scheme: http\n:method: GET\n",
             "GET /a/b?c=d&e 1.1 host=api.example.com(Api.Example.COM:8080) none keep"
             "|host:Api.Example.COM:8080"),
        CASE(START("PURGE", "/x?"), "PURGE /x? 1.1 host=h none keep|host:h"),
        CASE(START("GET", "/a%2db/./c/../d?%41"), "GET /a-b/d?%41 1.1 host=h none keep|host:h"),
        CASE(START("OPTIONS", "*"), "OPTIONS * 1.1 host=h none keep|host:h"),
        CASE(GET "a: b\na: c\nb: d  e\nempty: \n", SAME "|a:b|a:c|b:d  e|empty:|host:h"),
        CASE(GET "te: trailers\nhttp2-settings: x\n", SAME "|te:trailers|http2-settings:x|host:h"),
        CASE(GET "v: \x80\xff\tx\n", SAME "|v:\x80\xff\tx|host:h"),
        CASE(":method: GET\n:scheme: HTTPS\n:path: /\nhost: h:1\n",
             "GET / 1.1 host=h(h:1) none keep|host:h:1"),
        CASE(GET "host: H\n", SAME "|host:h"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
}

static void test_bodies(void **state)
{
    (void)state;
    static const struct h1_case open[] = {
        CASE(POST, "POST / 1.1 host=h chunked keep|host:h"),
        CASE(POST "content-length: 7\n", "POST / 1.1 host=h length=7 keep|content-length:7|host:h"),
        CASE(POST "content-length: 0\n", "POST / 1.1 host=h length=0 keep|content-length:0|host:h"),
        CASE(POST "expect: 100-continue\n",
             "POST / 1.1 host=h chunked keep expect|expect:100-continue|host:h"),
        CASE(POST "content-length: 0\nexpect: 100-continue\n",
             "POST / 1.1 host=h length=0 keep|content-length:0|expect:100-continue|host:h"),
        CASE(POST "content-length: 1\ncontent-length: 1\n", "malformed repeated Content-Length"),
        CASE(POST "content-length: 1, 1\n", "malformed malformed Content-Length"),
        CASE(POST "content-length: +1\n", "malformed malformed Content-Length"),
        CASE(POST "content-length: \n", "malformed malformed Content-Length"),
        CASE(POST "content-length: 0x1\n", "malformed malformed Content-Length"),
        CASE(POST "content-length: 9223372036854775808\n", "malformed malformed Content-Length"),
        CASE(POST "content-length: 9223372036854775807\n",
             "POST / 1.1 host=h length=9223372036854775807 keep|content-length:9223372036854775807|host:h"),
    };
    static const struct h1_case ended[] = {
        CASE(POST "content-length: 0\n", "POST / 1.1 host=h length=0 keep|content-length:0|host:h"),
        CASE(POST "content-length: 1\n", "malformed Content-Length without a body"),
        CASE(POST "expect: 100-continue\n", "POST / 1.1 host=h none keep|expect:100-continue|host:h"),
    };
    EXPECT_BLOCKS(&h2_body_way, open);
    EXPECT_BLOCKS(&h2_request_way, ended);
}

static void test_cookie_crumbs(void **state)
{
    (void)state;
    static const struct h1_case cases[] = {
        CASE(GET "cookie: a=1; b=2\n", SAME "|cookie:a=1; b=2|host:h"),
        CASE(GET "cookie: a=1\nx: y\ncookie: b=2\ncookie: \ncookie: c=3\n",
             SAME "|cookie:a=1; b=2; c=3|x:y|host:h"),
        CASE(GET "cookie: \ncookie: a=1\ncookie: \n", SAME "|cookie:a=1|host:h"),
        CASE(GET "cookie: \ncookie: \n", SAME "|cookie:|host:h"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
}

static void test_authority_and_host(void **state)
{
    (void)state;
#define NO_HOST ":method: GET\n:scheme: https\n:path: /\n"
    static const struct h1_case cases[] = {
        CASE(NO_HOST, "malformed no :authority"),
        CASE(NO_HOST ":authority: \n", "malformed empty :authority"),
        CASE(NO_HOST ":authority: \nhost: h\n", "malformed empty :authority"),
        CASE(NO_HOST "host: \n", "400 malformed Host"),
        CASE(NO_HOST "host: a\nhost: a\n", "malformed more than one Host"),
        CASE(NO_HOST ":authority: a\nhost: b\n", "malformed :authority and Host differ"),
        CASE(NO_HOST ":authority: a\nhost: a:443\n", "malformed :authority and Host differ"),
        CASE(NO_HOST ":authority: u@h\n", "400 malformed Host"),
        CASE(NO_HOST ":authority: h/x\n", "400 malformed Host"),
        CASE(NO_HOST ":authority: a b\n", "400 malformed Host"),
        CASE(NO_HOST ":authority: h:99999\n", "400 malformed Host"),
        CASE(NO_HOST ":authority: [2001:DB8::1]:80\n",
             "GET / 1.1 host=[2001:db8::1]([2001:DB8::1]:80) none keep|host:[2001:DB8::1]:80"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
}

static void test_pseudo_fields(void **state)
{
    (void)state;
    static const struct h1_case cases[] = {
        CASE("", "malformed no :method"),
        CASE(":method: GET\n:path: /\n:authority: h\n", "malformed no :scheme"),
        CASE(":method: GET\n:scheme: https\n:authority: h\n", "malformed no :path"),
        CASE(":scheme: https\n:path: /\n:authority: h\n", "malformed no :method"),
        CASE(":method: \n:scheme: https\n:path: /\n:authority: h\n", "malformed no :method"),
        CASE(":method: GET\n:scheme: \n:path: /\n:authority: h\n", "malformed no :scheme"),
        CASE(START("GET", ""), "malformed no :path"),
        CASE(GET ":path: /\n", "malformed repeated pseudo-field"),
        CASE(GET ":method: GET\n", "malformed repeated pseudo-field"),
        CASE(GET ":authority: h\n", "malformed repeated pseudo-field"),
        CASE(GET ":other: x\n", "malformed unknown pseudo-field"),
        CASE(GET ":: x\n", "malformed unknown pseudo-field"),
        CASE(GET ":Path: x\n", "malformed unknown pseudo-field"),
        CASE(GET ":status: 200\n", "malformed :status in a request"),
        CASE(":method: GET\nx: y\n:path: /\n", "malformed pseudo-field behind other fields"),
        CASE(GET ":protocol: websocket\n", "malformed :protocol without CONNECT"),
        CASE(START("G T", "/"), "malformed malformed :method"),
        CASE(START("GET", "x"), "malformed malformed :path"),
        CASE(START("GET", "*"), "malformed malformed :path"),
        CASE(START("GET", "http://h/"), "malformed malformed :path"),
        CASE(":method: GET\n:scheme: ftp\n:path: /\n:authority: h\n",
             "400 :scheme is neither http nor https"),
        CASE(":method: GET\n:scheme:  https\n:path: /\n:authority: h\n",
             "malformed malformed value of a pseudo-field"),
        CASE(START("METHODSTHATAREMUCHTOOLONGFORANYONE", "/"), "501 unknown method"),
        // RFC 9113 8.5
        CASE(":method: CONNECT\n:authority: h:443\n", "501 CONNECT is not supported"),
        CASE(":method: CONNECT\n:authority: h\n:path: /\n", "malformed CONNECT with :scheme or :path"),
        CASE(":method: CONNECT\n:authority: h\n:scheme: https\n", "malformed CONNECT with :scheme or :path"),
        CASE(":method: CONNECT\nhost: h\n", "malformed CONNECT without :authority"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
}

static void test_targets(void **state)
{
    (void)state;
    static const struct h1_case cases[] = {
        CASE(START("GET", "/a b"), "400 character not allowed in the request target"),
        CASE(START("GET", "/ HTTP/1.1"), "400 character not allowed in the request target"),
        CASE(START("GET", "/?a b"), "400 character not allowed in the request target"),
        CASE(START("GET", "/#x"), "400 fragment in the request target"),
        CASE(START("GET", "/?q#x"), "400 fragment in the request target"),
        CASE(START("GET", "/\\x"), "400 character not allowed in the request target"),
        CASE(START("GET", "/%2fx"), "400 encoded slash or backslash in the path"),
        CASE(START("GET", "/.."), "400 path climbs above the root"),
        CASE(START("GET", "/?%4"), "400 character not allowed in the request target"),
        CASE(START("GET", "/?%"), "400 character not allowed in the request target"),
        CASE(START("GET", "//a"), "GET //a 1.1 host=h none keep|host:h"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
    struct h2_way merging = h2_request_way;
    merging.limits.merge_slashes = true;
    static const struct h1_case merged[] = {
        CASE(START("GET", "//a///b"), "GET /a/b 1.1 host=h none keep|host:h"),
    };
    EXPECT_BLOCKS(&merging, merged);
}

static void test_connection_specific_fields(void **state)
{
    (void)state;
    static const struct h1_case cases[] = {
        CASE(GET "connection: close\n", "malformed connection-specific field"),
        CASE(GET "proxy-connection: x\n", "malformed connection-specific field"),
        CASE(GET "keep-alive: x\n", "malformed connection-specific field"),
        CASE(GET "transfer-encoding: chunked\n", "malformed connection-specific field"),
        CASE(GET "upgrade: h2c\n", "malformed connection-specific field"),
        CASE(GET "te: gzip\n", "malformed connection-specific field"),
        CASE(GET "te: trailers, gzip\n", "malformed connection-specific field"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
    EXPECT_BLOCKS(&h2_response_way, cases);
}

// Every byte in a name and in a value, against the words of RFC 9113 8.2.1 and RFC 9110 5.1 and 5.5.
static void test_every_byte(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        char name[] = "a?b", value[] = "x?y", edge[] = "?";
        name[1] = value[1] = edge[0] = (char)c;
        bool name_good =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
        bool value_good = c == '\t' || (c >= ' ' && c != 0x7f);
        struct {
            struct str name, value;
            bool good;
        } const tries[] = {
            {{name, 3}, STR("v"), name_good},
            {STR("n"), {value, 3}, value_good},
            {STR("n"), {edge, 1}, value_good && c != ' ' && c != '\t'},
            {STR(":path"), {value, 3}, value_good},
            {{edge, 1}, STR("v"), name_good && c != ':'},
        };
        for (size_t i = 0; i < countof(tries); i++) {
            struct arena arena;
            struct h2_fields fields;
            arena_init(&arena, NULL);
            h2_fields_init(&fields, &arena, 1000, 10);
            assert_true(h2_field(&fields, tries[i].name, tries[i].value));
            if ((fields.fault == H1_OK) != tries[i].good)
                fail_msg("byte %02x, try %zu: %s", (unsigned)c, i, fields.why ? fields.why : "taken");
            if (tries[i].name.p[0] != ':') {
                h2_fields_init(&fields, &arena, 1000, 10);
                assert_true(h2_trailer_field(&fields, tries[i].name, tries[i].value));
                assert_true((fields.fault == H1_OK) == tries[i].good);
            }
            arena_reset(&arena);
        }
    }
}

static void test_names_of_the_table_in_capitals(void **state)
{
    (void)state;
    static const struct h1_case cases[] = {
        CASE(GET "Te: trailers\n", "malformed malformed field name"),
        CASE(GET "cookiE: a=b\n", "malformed malformed field name"),
        CASE(GET "user-Agent: x\n", "malformed malformed field name"),
        CASE(GET "accept-encodinG: gzip\n", "malformed malformed field name"),
    };
    EXPECT_BLOCKS(&h2_request_way, cases);
}

static void test_underscores(void **state)
{
    (void)state;
    static const struct h1_case dropped[] = {CASE(GET "a_b: x\nc: d\n_: y\n", SAME "|c:d|host:h")};
    static const struct h1_case rejected[] = {CASE(GET "a_b: x\n", "400 underscore in a header name"),
                                              CASE(GET "c: d_e\n", SAME "|c:d_e|host:h")};
    static const struct h1_case allowed[] = {CASE(GET "a_b: x\n", SAME "|a_b:x|host:h")};
    struct h2_way way = h2_request_way;
    EXPECT_BLOCKS(&way, dropped);
    way.underscores = H1_UNDERSCORES_REJECT;
    EXPECT_BLOCKS(&way, rejected);
    way.underscores = H1_UNDERSCORES_ALLOW;
    EXPECT_BLOCKS(&way, allowed);
}

static void test_extended_connect(void **state)
{
    (void)state;
#define CONNECT START("CONNECT", "/chat?x")
    static const struct h1_case cases[] = {
        CASE(CONNECT ":protocol: websocket\n", "GET /chat?x 1.1 host=h none keep upgrade=websocket|host:h"),
        CASE(CONNECT ":protocol: websocket\nsec-websocket-version: 13\n",
             "GET /chat?x 1.1 host=h none keep upgrade=websocket|sec-websocket-version:13|host:h"),
        CASE(CONNECT ":protocol: connect-udp\n", "501 this :protocol is not supported"),
        CASE(CONNECT ":protocol: \n", "501 this :protocol is not supported"),
        CASE(CONNECT ":protocol: websocket\ncontent-length: 3\n", "malformed Content-Length with CONNECT"),
        CASE(":method: CONNECT\n:protocol: websocket\n:authority: h\n", "malformed no :scheme"),
    };
    EXPECT_BLOCKS(&h2_body_way, cases);
}

static void test_limits(void **state)
{
    (void)state;
    static const struct h1_case small[] = {
        CASE(GET "a: 1\nb: 2\nc: 3\n", SAME "|a:1|b:2|c:3|host:h"),
        CASE(GET "a: 1\nb: 2\nc: 3\nd: 4\n", "431 too many header fields"),
        CASE(GET "cookie: 1\ncookie: 2\ncookie: 3\ncookie: 4\n", "431 too many header fields"),
        CASE(GET "a: 0123456789012345678901234567890123456789012345678901234567890123456789\n",
             "431 head too large"),
        CASE(START("GET", "/4567890123456789"), "GET /4567890123456789 1.1 host=h none keep|host:h"),
        CASE(START("GET", "/45678901234567890"), "414 request target too long"),
        CASE(START("GET", "/45678901234567890123456789012345678901234567890123456789012345678901234567890"),
             "414 request target too long"),
    };
    struct h2_way way = h2_request_way;
    way.limits = (struct h1_limits){.head_bytes = 80, .uri_bytes = 17, .headers = 3};
    EXPECT_BLOCKS(&way, small);
}

static void test_bombs_end_the_connection(void **state)
{
    (void)state;
    struct arena arena;
    struct h2_fields fields;
    unsigned taken = 0;
    arena_init(&arena, NULL);
    h2_fields_init(&fields, &arena, 1000, 10);
    while (h2_field(&fields, STR("a"), STR("")))
        taken++;
    assert_int_equal(taken, H2_BLOCK_FIELDS);
    assert_int_equal(fields.headers.count, 10);
    assert_int_equal(fields.fault, H1_HEAD_TOO_LARGE);

    static char large[4096 - 33];
    memset(large, 'x', sizeof large);
    h2_fields_init(&fields, &arena, 1000, 10);
    taken = 0;
    while (h2_trailer_field(&fields, STR("a"), (struct str){large, sizeof large}))
        taken++;
    assert_int_equal(taken, H2_BLOCK_BYTES / 4096);
    assert_int_equal(fields.headers.count, 0);
    arena_reset(&arena);
}

static void test_responses(void **state)
{
    (void)state;
    static const struct h1_case open[] = {
        CASE(":status: 200\nserver: x\n", "200 '' 1.1 chunked keep|server:x"),
        CASE(":status: 200\ncontent-length: 5\n", "200 '' 1.1 length=5 keep|content-length:5"),
        CASE(":status: 204\ncontent-length: 5\n", "204 '' 1.1 none keep"),
        CASE(":status: 103\nlink: x\ncontent-length: 5\n", "103 '' 1.1 none keep|link:x"),
        CASE(":status: 304\ncontent-length: 5\n", "304 '' 1.1 none announced=5 keep|content-length:5"),
        CASE(":status: 101\n", "malformed 101 in HTTP/2"),
        CASE("server: x\n", "malformed no :status"),
        CASE(":status: 99\n", "malformed malformed :status"),
        CASE(":status: 600\n", "malformed malformed :status"),
        CASE(":status: 2000\n", "malformed malformed :status"),
        CASE(":status: 20x\n", "malformed malformed :status"),
        CASE(":status: 200\n:status: 200\n", "malformed repeated pseudo-field"),
        CASE(":status: 200\n:path: /\n", "malformed pseudo-field of a request in a response"),
        CASE("x: y\n:status: 200\n", "malformed pseudo-field behind other fields"),
        CASE(":status: 200\ncontent-length: 5\ncontent-length: 5\n", "malformed repeated Content-Length"),
        CASE(":status: 200\ncontent-length: x\n", "malformed malformed Content-Length"),
    };
    static const struct h1_case ended[] = {
        CASE(":status: 200\n", "200 '' 1.1 none keep"),
        CASE(":status: 200\ncontent-length: 0\n", "200 '' 1.1 none announced=0 keep|content-length:0"),
        CASE(":status: 200\ncontent-length: 5\n", "malformed Content-Length without a body"),
        CASE(":status: 100\n", "malformed an interim response that ends the stream"),
        CASE(":status: 304\ncontent-length: 5\n", "304 '' 1.1 none announced=5 keep|content-length:5"),
    };
    static const struct h1_case to_head[] = {
        CASE(":status: 200\ncontent-length: 5\n", "200 '' 1.1 none announced=5 keep|content-length:5"),
    };
    struct h2_way way = h2_response_way;
    EXPECT_BLOCKS(&way, open);
    way.end_stream = true;
    EXPECT_BLOCKS(&way, ended);
    way.method = METHOD_HEAD;
    EXPECT_BLOCKS(&way, to_head);
}

static void test_trailers(void **state)
{
    (void)state;
    struct arena arena;
    struct h2_fields fields;
    struct buf out = {0};
    arena_init(&arena, NULL);
    h2_fields_init(&fields, &arena, 1000, 10);
    feed_fields(&fields, STR("grpc-status: 0\ncontent-length: 3\nhost: x\na_b: x\ncookie: a\nx-sum: 7\n"),
                true);
    assert_int_equal(fields.fault, H1_OK);
    print_headers(&out, &fields.headers);
    assert_int_equal(out.end, strlen("|grpc-status:0|x-sum:7"));
    assert_memory_equal(out.base, "|grpc-status:0|x-sum:7", out.end);
    buf_free(&out);

    static const char *const bad[] = {":path: /\n", "X: y\n", "connection: x\n", "a: \x01\n"};
    for (size_t i = 0; i < countof(bad); i++) {
        h2_fields_init(&fields, &arena, 1000, 10);
        feed_fields(&fields, str_of(bad[i]), true);
        assert_int_equal(fields.fault, H1_BAD_REQUEST);
    }
    arena_reset(&arena);
}

// Fields lie in memory as HTTP/1 sends them, so that what the gateway writes for an upstream is one copy.
static void test_fields_lie_as_in_http1(void **state)
{
    (void)state;
    struct arena arena;
    struct h2_fields fields;
    arena_init(&arena, NULL);
    h2_fields_init(&fields, &arena, 1000, 10);
    feed_fields(&fields, STR(GET "a: b\nc: \n"), false);
    const struct header *v = fields.headers.v;
    assert_memory_equal(v[0].name.p, "a: b\r\nc: \r\n", 11);
    assert_ptr_equal(v[1].value.p, v[0].name.p + 9);
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_requests),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_cookie_crumbs),
        cmocka_unit_test(test_authority_and_host),
        cmocka_unit_test(test_pseudo_fields),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_connection_specific_fields),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_names_of_the_table_in_capitals),
        cmocka_unit_test(test_underscores),
        cmocka_unit_test(test_extended_connect),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_bombs_end_the_connection),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_fields_lie_as_in_http1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
