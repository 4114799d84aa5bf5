#include "unit.h"

#include "exchange/steps.h"
#include "http/grpc.h"

// ---- which requests, which answers ----

static struct request_head request(struct arena *arena, enum http_method method, const char *type)
{
    struct request_head head = {.method = method};
    headers_add(&head.headers, arena, STR("Accept"), STR("*/*"));
    if (type)
        headers_add(&head.headers, arena, STR("Content-Type"), str_of(type));
    return head;
}

static void test_which_requests_are_grpc(void **state)
{
    (void)state;
    static const struct {
        enum http_method method;
        const char *type;
        bool grpc;
    } rows[] = {
        {METHOD_POST, "application/grpc", true},
        {METHOD_POST, "application/grpc+proto", true},
        {METHOD_POST, "application/grpc+json; charset=utf-8", true},
        {METHOD_POST, "application/grpc;x=y", true},
        {METHOD_POST, "application/grpc ; x=y", true},
        {METHOD_POST, "Application/GRPC+proto", true},
        {METHOD_POST, "application/grpc-web", false},
        {METHOD_POST, "application/grpc-web+proto", false},
        {METHOD_POST, "application/grpcx", false},
        {METHOD_POST, "application/grp", false},
        {METHOD_POST, "application/json", false},
        {METHOD_POST, "", false},
        {METHOD_POST, NULL, false},
        {METHOD_GET, "application/grpc", false},
        {METHOD_PUT, "application/grpc", false},
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        struct request_head head = request(&arena, rows[i].method, rows[i].type);
        if (grpc_is_request(&head) != rows[i].grpc)
            fail_msg("row %zu: %s", i, rows[i].type ? rows[i].type : "no type");
    }
    arena_reset(&arena);
}

static void test_which_answers_can_end_early(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        const char *type;
        enum framing framing;
        bool has_length, can;
    } rows[] = {
        {200, "application/grpc", FRAMING_CHUNKED, false, true},
        {200, "application/grpc+proto", FRAMING_CLOSE, false, true},
        {200, "application/grpc", FRAMING_LENGTH, true, false},  // the length was told
        {200, "application/grpc", FRAMING_CHUNKED, true, false}, // and here
        {200, "application/grpc", FRAMING_NONE, false, false},   // trailers-only: it has ended
        {200, "text/html", FRAMING_CHUNKED, false, false},
        {503, "application/grpc", FRAMING_CHUNKED, false, false},
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        struct response_head head = {
            .status = rows[i].status, .framing = rows[i].framing, .has_length = rows[i].has_length};
        headers_add(&head.headers, &arena, STR("content-type"), str_of(rows[i].type));
        if (grpc_can_end_early(&head) != rows[i].can)
            fail_msg("row %zu", i);
    }
    arena_reset(&arena);
}

// ---- grpc-timeout ----

static void test_timeouts_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t us;
    } rows[] = {
        {"1H", 3600000000},
        {"99999999H", 359999996400000000},
        {"2M", 120000000},
        {"3S", 3000000},
        {"250m", 250000},
        {"7u", 7},
        {"1999n", 1}, // rounded down
        {"1n", 0},
        {"0S", 0},
        {"00000001S", 1000000},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        uint64_t us = 12345;
        assert_true(grpc_timeout_parse(str_of(rows[i].text), &us));
        assert_int_equal(us, rows[i].us);
    }
}

static void test_malformed_timeouts_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",    "S",   "1",   "1s",   "1h",   "1U",  "1x",         "-1S",    "+1S",
        " 1S", "1 S", "1S ", "1.5S", "0x1S", "1SS", "100000000S", "1\xc3S", "S1",
    };
    for (size_t i = 0; i < countof(texts); i++) {
        uint64_t us;
        if (grpc_timeout_parse(str_of(texts[i]), &us))
            fail_msg("%s was read", texts[i]);
    }
}

static void test_timeouts_are_printed_in_eight_digits(void **state)
{
    (void)state;
    static const struct {
        uint64_t us;
        const char *text;
    } rows[] = {
        {1, "1u"},
        {99999999, "99999999u"},
        {100000999, "100000m"}, // what is below the unit is cut off
        {99999999999, "99999999m"},
        {100000000000, "100000S"},
        {99999999999999, "99999999S"},
        {100000000000000, "1666666M"},
        {6000000000000000, "1666666H"},
        {359999996400000000, "99999999H"},
        {UINT64_MAX, "99999999H"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        char text[GRPC_TIMEOUT_TEXT];
        struct str printed = grpc_timeout_print(rows[i].us, text);
        if (!str_eq(printed, str_of(rows[i].text)))
            fail_msg("%s became %.*s", rows[i].text, STR_ARG(printed));
        uint64_t again;
        assert_true(grpc_timeout_parse(printed, &again));
        assert_true(again <= rows[i].us);
    }
}

// ---- errors ----

static void test_statuses_of_http(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        enum grpc_status grpc;
    } rows[] = {
        {302, GRPC_UNKNOWN},           {400, GRPC_INTERNAL},           {401, GRPC_UNAUTHENTICATED},
        {403, GRPC_PERMISSION_DENIED}, {404, GRPC_UNIMPLEMENTED},      {413, GRPC_RESOURCE_EXHAUSTED},
        {418, GRPC_UNKNOWN},           {429, GRPC_RESOURCE_EXHAUSTED}, {431, GRPC_RESOURCE_EXHAUSTED},
        {500, GRPC_UNAVAILABLE},       {501, GRPC_UNIMPLEMENTED},      {503, GRPC_UNAVAILABLE},
        {504, GRPC_UNAVAILABLE},
    };
    for (size_t i = 0; i < countof(rows); i++)
        assert_int_equal(grpc_status_of_http(rows[i].status), rows[i].grpc);
}

static void test_messages_are_encoded(void **state)
{
    (void)state;
    static const struct {
        const char *message, *encoded;
    } rows[] = {
        {"", ""},
        {"the service cannot be reached", "the service cannot be reached"},
        {"100% ~", "100%25 ~"},
        {"a\r\nb\t\x7f", "a%0D%0Ab%09%7F"},
        {"gr\xc3\xbc\xc3\x9f", "gr%C3%BC%C3%9F"},
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        struct str encoded = grpc_message_encode(&arena, str_of(rows[i].message));
        if (!str_eq(encoded, str_of(rows[i].encoded)))
            fail_msg("%s became %.*s", rows[i].message, STR_ARG(encoded));
    }
    arena_reset(&arena);
}

static void test_long_messages_are_cut_between_characters(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    char message[GRPC_MESSAGE_BYTES + 10];
    memset(message, 'a', sizeof message);
    memcpy(message + GRPC_MESSAGE_BYTES - 1, "\xe2\x82\xac", 3); // half of it within
    struct str encoded = grpc_message_encode(&arena, (struct str){message, sizeof message});
    assert_int_equal(encoded.n, GRPC_MESSAGE_BYTES - 1);
    memset(message, '\xbf', sizeof message); // no UTF-8 at all
    encoded = grpc_message_encode(&arena, (struct str){message, sizeof message});
    assert_int_equal(encoded.n, 0);
    arena_reset(&arena);
}

// ---- the end of an answer that has begun ----

struct heard {
    bool aborted, ended;
    char status[4], message[80];
};

static struct heard *heard_by(struct exchange *x)
{
    return x->client_context;
}

static void hear_abort(struct exchange *x)
{
    heard_by(x)->aborted = true;
}

static void copy(char *out, size_t size, const struct headers *trailers, struct str name)
{
    const struct header *header = headers_find_name(trailers, name);
    assert_non_null(header);
    assert_true(header->value.n < size);
    memcpy(out, header->value.p, header->value.n);
    out[header->value.n] = '\0';
}

static void hear_end(struct exchange *x, const struct headers *trailers)
{
    struct heard *heard = heard_by(x);
    heard->ended = true;
    copy(heard->status, sizeof heard->status, trailers, STR("grpc-status"));
    copy(heard->message, sizeof heard->message, trailers, STR("grpc-message"));
}

static const struct client_verbs verbs = {.abort = hear_abort, .send_end = hear_end};

static void end_begun(struct heard *heard, bool grpc_trailers, enum end_cause cause, struct str detail)
{
    struct exchange x = {.client = &verbs,
                         .client_context = heard,
                         .reply = REPLY_HEAD,
                         .grpc = true,
                         .grpc_trailers = grpc_trailers};
    arena_init(&x.arena, NULL);
    exchange_end(&x, cause, detail);
    assert_int_equal(x.step, STEP_FINISH);
    assert_int_equal(x.cause, cause);
    assert_int_equal(x.reply, grpc_trailers ? REPLY_ENDED : REPLY_CUT);
    arena_reset(&x.arena);
}

static void test_a_begun_answer_ends_with_a_status(void **state)
{
    (void)state;
    struct heard heard = {0};
    end_begun(&heard, true, END_DEADLINE_EXCEEDED, STR_NULL);
    assert_true(heard.ended && !heard.aborted);
    assert_string_equal(heard.status, "4");
    assert_string_equal(heard.message, "the time for this request is over");
    heard = (struct heard){0};
    end_begun(&heard, true, END_UPSTREAM_TRUNCATED, STR("50%"));
    assert_string_equal(heard.status, "14");
    assert_string_equal(heard.message, "50%25");
}

static void test_else_it_is_cut(void **state)
{
    (void)state;
    struct heard heard = {0};
    end_begun(&heard, false, END_UPSTREAM_TRUNCATED, STR_NULL);
    assert_true(heard.aborted && !heard.ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_requests_are_grpc),
        cmocka_unit_test(test_which_answers_can_end_early),
        cmocka_unit_test(test_timeouts_are_read),
        cmocka_unit_test(test_malformed_timeouts_are_refused),
        cmocka_unit_test(test_timeouts_are_printed_in_eight_digits),
        cmocka_unit_test(test_statuses_of_http),
        cmocka_unit_test(test_messages_are_encoded),
        cmocka_unit_test(test_long_messages_are_cut_between_characters),
        cmocka_unit_test(test_a_begun_answer_ends_with_a_status),
        cmocka_unit_test(test_else_it_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
