// Of which answers a copy is kept, for how long and for whom; and what one may answer (RFC 9111).
#include "unit_arena.h"

#include "exchange/stale.h"

enum { SECOND = 1000000, STALE = 3600, NOW_S = 784111777 }; // Sun, 06 Nov 1994 08:49:37 GMT
#define IN_30_S      "Sun, 06 Nov 1994 08:50:07 GMT"
#define IN_60_S      "Sunday, 06-Nov-94 08:50:37 GMT"
#define A_MINUTE_AGO "Sun Nov  6 08:48:37 1994"

struct field {
    const char *name, *value;
};

static struct headers headers_of(const struct field *fields)
{
    struct headers headers = {0};
    for (; fields->name; fields++)
        headers_add(&headers, &arena, str_of(fields->name), str_of(fields->value));
    return headers;
}

struct row {
    const char *what;
    struct field request[3], response[4];
    unsigned status; // 0: 200
    bool is_personal;
    uint64_t age_s;
    uint64_t good_s; // 0: not kept
    bool is_public;
};

#define SAYS(value)                \
    {                              \
        {                          \
            "Cache-Control", value \
        }                          \
    }

static const struct row rows[] = {
    {.what = "nothing said", .good_s = STALE},
    {.what = "old already", .age_s = 100, .good_s = STALE},
    {.what = "another status: 203", .status = 203},
    {.what = "another status: 204", .status = 204},
    {.what = "another status: 206", .status = 206},
    {.what = "another status: 301", .status = 301},
    {.what = "another status: 404", .status = 404},
    {.what = "a failure", .status = 500, .response = SAYS("public, max-age=60")},
    {.what = "3, no-store in the response", .response = SAYS("no-store")},
    {.what = "no-store after public",
     .response = {{"Cache-Control", "public"}, {"Cache-Control", "no-store"}}},
    {.what = "3, no-store in the request", .request = SAYS("no-store"), .response = SAYS("public")},
    {.what = "no-cache in the request: may be kept", .request = SAYS("no-cache"), .good_s = STALE},
    {.what = "3, private", .response = SAYS("private")},
    {.what = "private fields", .response = SAYS("private=\"x\", public")},
    {.what = "4, no-cache", .response = SAYS("no-cache, public, max-age=60")},
    {.what = "no-cache fields", .response = SAYS("no-cache=\"x\"")},
    {.what = "Set-Cookie", .response = {{"Set-Cookie", "a=b"}, {"Cache-Control", "public"}}},
    {.what = "Vary: *", .response = {{"Vary", "*"}}},
    {.what = "Vary with *", .response = {{"Vary", "Accept"}, {"Vary", "Origin, *"}}},
    {.what = "Vary", .response = {{"Vary", "Accept"}}, .good_s = STALE},
    {.what = "a piece was asked for", .request = {{"Range", "bytes=0-1"}}},
    {.what = "a condition", .request = {{"If-None-Match", "\"x\""}}, .good_s = STALE},

    {.what = "max-age alone: stale is allowed", .response = SAYS("max-age=60"), .good_s = STALE},
    {.what = "4.2.4, must-revalidate alone", .response = SAYS("must-revalidate")},
    {.what = "must-revalidate: while it is fresh",
     .response = SAYS("must-revalidate, max-age=60"),
     .good_s = 60},
    {.what = "proxy-revalidate", .response = SAYS("proxy-revalidate, max-age=60"), .good_s = 60},
    {.what = "and old", .response = SAYS("must-revalidate, max-age=60"), .age_s = 20, .good_s = 40},
    {.what = "and too old", .response = SAYS("must-revalidate, max-age=60"), .age_s = 60},
    {.what = "longer fresh than copies are good",
     .response = SAYS("must-revalidate, max-age=9999"),
     .good_s = STALE},
    {.what = "5.2.2.10, s-maxage", .response = SAYS("s-maxage=30"), .good_s = 30, .is_public = true},
    {.what = "s-maxage before max-age",
     .response = SAYS("max-age=99, s-maxage=30"),
     .good_s = 30,
     .is_public = true},
    {.what = "s-maxage of nothing", .response = SAYS("s-maxage=0, max-age=60")},
    {.what = "s-maxage that is no number", .response = SAYS("s-maxage=soon, public")},
    {.what = "s-maxage, stale-if-error",
     .response = SAYS("s-maxage=30, stale-if-error=99"),
     .good_s = 30,
     .is_public = true},
    {.what = "5.3, Expires",
     .response = {{"Cache-Control", "must-revalidate"}, {"Expires", IN_30_S}},
     .good_s = 30},
    {.what = "Expires, from Date on",
     .response = {{"Cache-Control", "must-revalidate"}, {"Expires", IN_60_S}, {"Date", IN_30_S}},
     .good_s = 30},
    {.what = "Expires, and old",
     .response = {{"Cache-Control", "must-revalidate"}, {"Expires", IN_30_S}},
     .age_s = 20,
     .good_s = 10},
    {.what = "Expires, and over",
     .response = {{"Cache-Control", "must-revalidate"}, {"Expires", A_MINUTE_AGO}}},
    {.what = "Expires that is no date", .response = {{"Cache-Control", "must-revalidate"}, {"Expires", "0"}}},
    {.what = "two of them",
     .response = {{"Cache-Control", "must-revalidate"}, {"Expires", IN_60_S}, {"Expires", IN_30_S}},
     .good_s = 30},
    {.what = "max-age before Expires",
     .response = {{"Cache-Control", "must-revalidate, max-age=9"}, {"Expires", IN_30_S}},
     .good_s = 9},
    {.what = "s-maxage before Expires",
     .response = {{"Cache-Control", "s-maxage=9"}, {"Expires", IN_30_S}},
     .good_s = 9,
     .is_public = true},
    {.what = "Expires alone: stale is allowed", .response = {{"Expires", "0"}}, .good_s = STALE},
    {.what = "Expires, stale-if-error",
     .response = {{"Cache-Control", "stale-if-error=50"}, {"Expires", IN_30_S}},
     .good_s = 80},
    {.what = "RFC 5861", .response = SAYS("stale-if-error=50"), .good_s = 50},
    {.what = "after it was fresh",
     .response = SAYS("max-age=10, stale-if-error=50"),
     .age_s = 5,
     .good_s = 55},
    {.what = "not at all", .response = SAYS("max-age=10, stale-if-error=0"), .age_s = 10},
    {.what = "longer than copies are good", .response = SAYS("stale-if-error=86400"), .good_s = STALE},
    {.what = "must-revalidate wins", .response = SAYS("must-revalidate, stale-if-error=50")},

    {.what = "3.5, personal", .is_personal = true},
    {.what = "personal, max-age", .is_personal = true, .response = SAYS("max-age=60")},
    {.what = "personal, must-revalidate",
     .is_personal = true,
     .response = SAYS("must-revalidate, max-age=60")},
    {.what = "personal, public",
     .is_personal = true,
     .response = SAYS("public"),
     .good_s = STALE,
     .is_public = true},
    {.what = "personal, s-maxage",
     .is_personal = true,
     .response = SAYS("s-maxage=9"),
     .good_s = 9,
     .is_public = true},
    {.what = "personal, public and private", .is_personal = true, .response = SAYS("public, private")},
    {.what = "public", .response = SAYS("public"), .good_s = STALE, .is_public = true},
};

static void test_what_is_kept(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(rows); i++) {
        const struct row *row = &rows[i];
        const struct request_head request = {.method = METHOD_GET, .headers = headers_of(row->request)};
        const struct response_head head = {.status = row->status ? row->status : 200,
                                           .headers = headers_of(row->response)};
        const struct stale_asked asked = {&request, false, row->is_personal};
        struct stale_verdict verdict =
            stale_judge(&asked, &head, row->age_s * SECOND, NOW_S, (uint64_t)STALE * SECOND);
        if (verdict.good_us != row->good_s * SECOND ||
            (verdict.good_us && verdict.is_public != row->is_public))
            fail_msg("%s: %llu s, %s", row->what, (unsigned long long)verdict.good_us / SECOND,
                     verdict.is_public ? "public" : "not public");
    }
}

static const struct request_head plain = {.method = METHOD_GET};

static void test_requests_without_copies(void **state)
{
    (void)state;
    const struct {
        struct request_head request;
        bool is_grpc, is_kept, is_answered;
    } asked_rows[] = {
        {.request = {.method = METHOD_GET}, .is_kept = true, .is_answered = true},
        {.request = {.method = METHOD_HEAD}, .is_answered = true},
        {.request = {.method = METHOD_OPTIONS}},
        {.request = {.method = METHOD_POST}},
        {.request = {.method = METHOD_OTHER}},
        {.request = {.method = METHOD_GET}, .is_grpc = true},
        {.request = {.method = METHOD_GET, .framing = FRAMING_LENGTH, .content_length = 3}},
        {.request = {.method = METHOD_GET, .framing = FRAMING_CHUNKED}},
        {.request = {.method = METHOD_GET, .upgrade = STR("websocket")}},
        {.request = {.method = METHOD_GET, .extended_connect = true}},
    };
    const struct response_head head = {.status = 200};
    for (size_t i = 0; i < countof(asked_rows); i++) {
        const struct stale_asked asked = {&asked_rows[i].request, asked_rows[i].is_grpc, false};
        assert_int_equal(stale_judge(&asked, &head, 0, NOW_S, SECOND).good_us > 0, asked_rows[i].is_kept);
        assert_int_equal(stale_may_answer(&asked), asked_rows[i].is_answered);
    }
}

static void test_what_a_copy_may_answer(void **state)
{
    (void)state;
    const struct {
        struct field fields[3];
        bool may;
    } field_rows[] = {
        {{{NULL}}, true},
        {SAYS("no-cache"), false},
        {SAYS("max-age=0"), true}, // advice (5.2.1)
        {SAYS("no-store"), true},  // it was kept before (5.2.1.5)
        {SAYS("only-if-cached"), true},
        {{{"Pragma", "no-cache"}}, false},
        {{{"Pragma", "x, No-Cache"}}, false},
        {{{"Pragma", "no-cache-at-all"}}, true},
        {{{"Pragma", "no-cache"}, {"Cache-Control", "max-stale"}}, true},
        {{{"Range", "bytes=0-1"}}, false},
        {{{"If-Match", "\"x\""}}, false},
        {{{"If-Unmodified-Since", "Sat, 29 Oct 1994 19:43:31 GMT"}}, false},
        {{{"If-None-Match", "\"x\""}}, true},
    };
    for (size_t i = 0; i < countof(field_rows); i++) {
        struct request_head request = plain;
        request.headers = headers_of(field_rows[i].fields);
        const struct stale_asked asked = {&request, false, false};
        assert_int_equal(stale_may_answer(&asked), field_rows[i].may);
    }
}

static void test_what_takes_copies_away(void **state)
{
    (void)state;
    const struct {
        enum http_method method;
        unsigned status;
        bool is_changed;
    } change_rows[] = {
        {METHOD_GET, 200, false},  {METHOD_GET, 304, false},     {METHOD_GET, 401, false},
        {METHOD_GET, 404, true},   {METHOD_GET, 410, true},      {METHOD_GET, 500, false},
        {METHOD_HEAD, 404, false}, {METHOD_OPTIONS, 404, false}, {METHOD_POST, 201, true},
        {METHOD_PUT, 204, true},   {METHOD_DELETE, 200, true},   {METHOD_PATCH, 303, true},
        {METHOD_OTHER, 207, true}, {METHOD_POST, 409, false},    {METHOD_DELETE, 404, false},
        {METHOD_POST, 503, false}, {METHOD_GET, 101, false},
    };
    for (size_t i = 0; i < countof(change_rows); i++) {
        const struct request_head request = {.method = change_rows[i].method};
        const struct response_head head = {.status = change_rows[i].status};
        const struct stale_asked asked = {&request, false, false};
        assert_int_equal(stale_is_changed(&asked, &head), change_rows[i].is_changed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_kept),
        cmocka_unit_test(test_requests_without_copies),
        cmocka_unit_test(test_what_a_copy_may_answer),
        cmocka_unit_test(test_what_takes_copies_away),
    };
    return cmocka_run_group_tests(tests, arena_begin, arena_end);
}
