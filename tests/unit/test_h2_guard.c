// What a peer may do how often, and which frame counts as what.
#include "unit.h"

#include "http/h2.h"

static void test_bursts_and_rates(void **state)
{
    (void)state;
    static const struct {
        enum h2_event event;
        unsigned burst, per_s;
    } cases[] = {
        {H2_EVENT_RESET, H2_RESETS_BURST, H2_RESETS_PER_S},
        {H2_EVENT_PING, H2_PINGS_BURST, H2_PINGS_PER_S},
        {H2_EVENT_SETTINGS, H2_SETTINGS_BURST, H2_SETTINGS_PER_S},
        {H2_EVENT_PRIORITY, H2_PRIORITIES_BURST, H2_PRIORITIES_PER_S},
        {H2_EVENT_EMPTY, H2_EMPTIES_BURST, H2_EMPTIES_PER_S},
        {H2_EVENT_UPDATE, H2_UPDATES_BURST, H2_UPDATES_PER_S},
        {H2_EVENT_UNKNOWN, H2_UNKNOWNS_BURST, H2_UNKNOWNS_PER_S},
    };
    assert_int_equal(countof(cases), H2_EVENTS);
    for (size_t i = 0; i < countof(cases); i++) {
        struct h2_guard guard = {0};
        uint64_t now_us = 1000000000;
        for (unsigned n = 0; n < cases[i].burst; n++)
            assert_true(h2_guard_note(&guard, cases[i].event, now_us));
        assert_false(h2_guard_note(&guard, cases[i].event, now_us));
        // A second later as many as the rate allows, less the one too many.
        now_us += 1000000;
        for (unsigned n = 0; n + 1 < cases[i].per_s; n++)
            assert_true(h2_guard_note(&guard, cases[i].event, now_us));
        assert_false(h2_guard_note(&guard, cases[i].event, now_us));
        // After a long silence, as at first.
        now_us = UINT64_MAX / 2;
        for (unsigned n = 0; n < cases[i].burst; n++)
            assert_true(h2_guard_note(&guard, cases[i].event, now_us));
        assert_false(h2_guard_note(&guard, cases[i].event, now_us));
    }
}

// Who downloads says how much it has read, and how long the path is.
static void test_data_entitles_to_updates_and_a_ping(void **state)
{
    (void)state;
    struct h2_guard guard = {0};
    for (unsigned i = 0; i < 10 * H2_UPDATES_BURST; i++) {
        h2_guard_sent(&guard, 1024);
        assert_true(h2_guard_note(&guard, H2_EVENT_UPDATE, 7));
        assert_true(h2_guard_note(&guard, H2_EVENT_UPDATE, 7));
        assert_true(h2_guard_note(&guard, H2_EVENT_PING, 7));
    }
    h2_guard_sent(&guard, 1024); // one ping is free, the others are counted
    unsigned pings = 0, updates = 0;
    while (h2_guard_note(&guard, H2_EVENT_PING, 7))
        pings++;
    assert_int_equal(pings, 1 + H2_PINGS_BURST);
    for (unsigned i = 0; i < 1000; i++)
        h2_guard_sent(&guard, SIZE_MAX / 2); // no more than so much is remembered
    while (h2_guard_note(&guard, H2_EVENT_UPDATE, 7))
        updates++;
    assert_int_equal(updates, H2_ENTITLED_BYTES / H2_UPDATE_BYTES + H2_UPDATES_BURST);
}

static void test_a_steady_rate_goes_on_for_ever(void **state)
{
    (void)state;
    struct h2_guard guard = {0};
    uint64_t now_us = 5;
    for (unsigned n = 0; n < 100000; n++, now_us += 1000000 / H2_PINGS_PER_S)
        assert_true(h2_guard_note(&guard, H2_EVENT_PING, now_us));
    unsigned more = 0;
    while (h2_guard_note(&guard, H2_EVENT_PING, now_us)) // nothing has piled up
        more++;
    assert_int_equal(more, H2_PINGS_BURST);
}

static void test_a_clock_that_stands_still_or_goes_back(void **state)
{
    (void)state;
    struct h2_guard guard = {0};
    unsigned taken = 0;
    for (uint64_t now_us = 1000; h2_guard_note(&guard, H2_EVENT_RESET, now_us); now_us -= now_us > 0)
        taken++;
    assert_int_equal(taken, H2_RESETS_BURST);
}

static void test_frames(void **state)
{
    (void)state;
    static const struct {
        nghttp2_frame_hd frame;
        enum h2_event want;
    } cases[] = {
        {{.type = NGHTTP2_DATA, .length = 1}, H2_EVENTS},
        {{.type = NGHTTP2_DATA}, H2_EVENT_EMPTY},
        {{.type = NGHTTP2_DATA, .flags = NGHTTP2_FLAG_END_STREAM}, H2_EVENTS},
        {{.type = NGHTTP2_HEADERS, .length = 1}, H2_EVENTS},
        {{.type = NGHTTP2_HEADERS}, H2_EVENT_EMPTY},
        {{.type = NGHTTP2_CONTINUATION}, H2_EVENT_EMPTY},
        {{.type = NGHTTP2_CONTINUATION, .length = 5}, H2_EVENTS},
        {{.type = NGHTTP2_PRIORITY, .length = 5}, H2_EVENT_PRIORITY},
        {{.type = 0x10, .length = 5}, H2_EVENT_PRIORITY},
        {{.type = NGHTTP2_RST_STREAM, .length = 4}, H2_EVENT_RESET},
        {{.type = NGHTTP2_SETTINGS}, H2_EVENT_SETTINGS},
        {{.type = NGHTTP2_SETTINGS, .flags = NGHTTP2_FLAG_ACK}, H2_EVENTS},
        {{.type = NGHTTP2_PING, .length = 8}, H2_EVENT_PING},
        {{.type = NGHTTP2_GOAWAY, .length = 8}, H2_EVENTS},
        {{.type = NGHTTP2_WINDOW_UPDATE, .length = 4}, H2_EVENT_UPDATE},
        {{.type = 0x0b, .length = 4}, H2_EVENT_UNKNOWN},
        {{.type = 0xff}, H2_EVENT_UNKNOWN},
    };
    for (size_t i = 0; i < countof(cases); i++)
        assert_int_equal(h2_event_of(&cases[i].frame), cases[i].want);
}

#define FRAME(length, type, flags) 0, 0, length, type, flags, 0, 0, 0, 1
enum { OPEN = 0, ENDS = NGHTTP2_FLAG_END_HEADERS };

// Whatever the pieces, where the frames stand is the same.
static void test_frames_are_followed(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {FRAME(2, NGHTTP2_HEADERS, OPEN),
                                    1,
                                    1,
                                    FRAME(0, NGHTTP2_CONTINUATION, OPEN),
                                    FRAME(1, NGHTTP2_CONTINUATION, ENDS),
                                    1,
                                    FRAME(3, NGHTTP2_DATA, OPEN),
                                    1,
                                    1,
                                    1,
                                    FRAME(2, NGHTTP2_PING, OPEN),
                                    1,
                                    1};
    // A letter for each byte: is something partial behind it?
    static const char want[] = "ppppppppppp"
                               "ppppppppp"
                               "ppppppppp."
                               "pppppppp...."
                               "ppppppppp"
                               "p.";
    assert_int_equal(sizeof want - 1, sizeof bytes);
    for (size_t step = 1; step <= sizeof bytes; step++) {
        struct h2_frames frames = {0};
        for (size_t at = 0; at < sizeof bytes; at += step) {
            size_t n = sizeof bytes - at < step ? sizeof bytes - at : step;
            assert_true(h2_frames_follow(&frames, bytes + at, n));
            assert_int_equal(h2_frames_partial(&frames), want[at + n - 1] == 'p');
        }
    }
}

static void test_continuations_are_counted(void **state)
{
    (void)state;
    static const uint8_t start[] = {FRAME(0, NGHTTP2_HEADERS, OPEN)};
    static const uint8_t more[] = {FRAME(0, NGHTTP2_CONTINUATION, OPEN)};
    struct h2_frames frames = {0};
    for (int block = 0; block < 2; block++) {
        assert_true(h2_frames_follow(&frames, start, sizeof start));
        for (int i = 0; i < H2_CONTINUATIONS; i++)
            assert_true(h2_frames_follow(&frames, more, sizeof more));
    }
    assert_false(h2_frames_follow(&frames, more, sizeof more));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bursts_and_rates),
        cmocka_unit_test(test_data_entitles_to_updates_and_a_ping),
        cmocka_unit_test(test_a_steady_rate_goes_on_for_ever),
        cmocka_unit_test(test_a_clock_that_stands_still_or_goes_back),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_frames_are_followed),
        cmocka_unit_test(test_continuations_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
