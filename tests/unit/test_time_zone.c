// Every zone of the system against the libc's reading of it.
#include "unit.h"

#include "base/file.h"
#include "base/rand.h"
#include "base/time_zone.h"

#include <stdlib.h>
#include <time.h>

enum { SAMPLES = 400, DAY_S = 86400 };

static int64_t unix_s(const char *text) // "2024-02-29 23:59:59"
{
    struct tm utc = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &utc));
    return timegm(&utc);
}

static int64_t libc_offset(int64_t at_s)
{
    struct tm local;
    time_t at = at_s;
    assert_non_null(localtime_r(&at, &local));
    return local.tm_gmtoff;
}

static struct time_zone zone_of(const char *name, struct arena *arena)
{
    struct time_zone zone;
    const char *why;
    assert_true(time_zone_load(str_of(name), arena, &zone, &why));
    setenv("TZ", name, 1);
    tzset();
    return zone;
}

static void test_every_zone_as_the_libc_has_it(void **unused)
{
    (void)unused;
    struct arena arena;
    struct rand rand;
    const struct str *names;
    int64_t from = unix_s("1900-01-01 00:00:00"), to = unix_s("2100-06-01 00:00:00");
    uint32_t read = 0;
    rand_init_seed(&rand, 7);
    arena_init(&arena, NULL);
    uint32_t count = time_zone_names(&arena, &names);
    for (uint32_t i = 0; i < count; i++) {
        struct time_zone zone;
        const char *why;
        if (!time_zone_load(names[i], &arena, &zone, &why))
            continue; // leapseconds
        read++;
        setenv("TZ", names[i].p, 1);
        tzset();
        for (int j = 0; j < SAMPLES; j++) {
            int64_t at_s = from + (int64_t)(rand_u64(&rand) % (uint64_t)(to - from));
            assert_int_equal(time_zone_offset(&zone, at_s), libc_offset(at_s));
        }
        for (uint32_t j = 0; j < zone.count; j++)
            for (int64_t at_s = zone.v[j].at_s - 1; zone.v[j].at_s > from && at_s <= zone.v[j].at_s; at_s++)
                assert_int_equal(time_zone_offset(&zone, at_s), libc_offset(at_s));
    }
    assert_true(read > 300);
    arena_reset(&arena);
}

static void test_when_clocks_first_show_it(void **unused)
{
    (void)unused;
    static const struct {
        const char *zone, *local, *utc;
    } rows[] = {
        {"Europe/Berlin", "2026-03-29 00:00:00", "2026-03-28 23:00:00"},
        {"Europe/Berlin", "2026-03-29 02:30:00", "2026-03-29 01:00:00"}, // skipped: at 3:00
        {"Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25 00:30:00"}, // twice: the first one
        {"Europe/Berlin", "2026-10-26 00:00:00", "2026-10-25 23:00:00"},
        {"Australia/Sydney", "2026-04-05 00:00:00", "2026-04-04 13:00:00"},
        {"Australia/Sydney", "2026-04-06 00:00:00", "2026-04-05 14:00:00"},
        {"America/Sao_Paulo", "2018-11-04 00:00:00", "2018-11-04 03:00:00"}, // a day that begins at 1:00
        {"America/Sao_Paulo", "2018-02-18 00:00:00", "2018-02-18 03:00:00"}, // after Saturday's second 23:00
        {"Pacific/Apia", "2011-12-30 00:00:00", "2011-12-30 10:00:00"},      // a day that never was
        {"Pacific/Apia", "2011-12-31 00:00:00", "2011-12-30 10:00:00"},
        {"America/St_Johns", "2010-11-07 00:00:00", "2010-11-07 02:30:00"}, // 0:01 to 23:01 of the day before
        {"Asia/Kolkata", "2026-01-01 00:00:00", "2025-12-31 18:30:00"},
        {"Europe/Berlin", "2080-07-01 00:00:00", "2080-06-30 22:00:00"}, // by the rule
    };
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        struct time_zone zone = zone_of(rows[i].zone, &arena);
        assert_int_equal(time_zone_reach(&zone, unix_s(rows[i].local)), unix_s(rows[i].utc));
    }
    arena_reset(&arena);
}

// At that time the clock shows it or later, and never before.
static void test_first_is_first(void **unused)
{
    (void)unused;
    static const char *const zones[] = {"Europe/Berlin",   "America/Sao_Paulo", "Pacific/Apia",
                                        "Asia/Gaza",       "Africa/Casablanca", "Australia/Lord_Howe",
                                        "America/St_Johns"};
    struct arena arena;
    struct rand rand;
    arena_init(&arena, NULL);
    rand_init_seed(&rand, 8);
    for (size_t i = 0; i < countof(zones); i++) {
        struct time_zone zone = zone_of(zones[i], &arena);
        for (int j = 0; j < 2000; j++) {
            const struct time_zone_change *near = &zone.v[rand_below(&rand, zone.count)];
            int64_t local_s = near->at_s + near->offset_s + (int64_t)rand_below(&rand, 4 * DAY_S) - 2 * DAY_S;
            int64_t at_s = time_zone_reach(&zone, local_s);
            assert_true(at_s + time_zone_offset(&zone, at_s) >= local_s);
            for (int64_t before = at_s - 1; before > at_s - 3 * DAY_S; before -= 1 + rand_below(&rand, 20000))
                assert_true(before + time_zone_offset(&zone, before) < local_s);
        }
    }
    arena_reset(&arena);
}

static void test_names(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"",          "Europe/Berlino", "europe/berlin", "../zoneinfo/UTC",
                                      "/UTC",      "Europe/",        "Europe",        "Europe//Berlin",
                                      "tzdata.zi", "zone1970.tab",   "a\nb"};
    struct arena arena;
    struct time_zone zone;
    const char *why;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(bad); i++)
        assert_false(time_zone_load(str_of(bad[i]), &arena, &zone, &why));
    assert_false(time_zone_load((struct str){"UTC\0x", 5}, &arena, &zone, &why));
    assert_true(time_zone_load(STR("UTC"), &arena, &zone, &why));
    assert_int_equal(zone.count + (uint32_t)zone.first_offset_s, 0);
    arena_reset(&arena);
}

// ---- files that are not what they should be ----

static void put_be(char *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(value >> (24 - 8 * i));
}

// Without a change of its own, one type of no offset, and this footer.
static bool parse_footer(const char *footer, struct arena *arena, struct time_zone *zone)
{
    char file[512] = {0};
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        memcpy(file + n, "TZif2", 5);
        put_be(file + n + 36, 1); // types
        put_be(file + n + 40, 4); // characters of names
        n += 44 + 6 + 4;
    }
    n += (size_t)snprintf(file + n, sizeof file - n, "\n%s\n", footer);
    return time_zone_parse((struct str){file, n}, arena, zone);
}

static void test_footers(void **unused)
{
    (void)unused;
    static const char *const good[] = {"",
                                       "UTC0",
                                       "<-03>3",
                                       "CET-1CEST,M3.5.0,M10.5.0/3",
                                       "A1BC0",
                                       "EST5EDT4,0/0,J365/23",
                                       "EET-2EEST,M3.4.4/50,M10.4.4/50",
                                       "IST-1GMT0,M10.5.0,M3.5.0/1",
                                       "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
                                       "XXX3:30:15YYY,J60,365/167:59:59"};
    static const char *const bad[] = {"UT0",
                                      "UTC",
                                      "UTC0x",
                                      "<03",
                                      "CET-1CEST",
                                      "CET-1CEST,M3.5.0",
                                      "CET-1CEST,M13.5.0,M10.5.0",
                                      "CET-1CEST,M3.6.0,M10.5.0",
                                      "CET-1CEST,M3.5.7,M10.5.0",
                                      "CET-1CEST,J0,M10.5.0",
                                      "CET-1CEST,366,M10.5.0",
                                      "CET-1CEST,M3.5.0/168,M10.5.0",
                                      "CET-27",
                                      "CET-1:60",
                                      "CET-1CEST,M3.5.0,M10.5.0,",
                                      "CET99999999999999999999"};
    struct arena arena;
    struct time_zone zone;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < countof(good); i++)
        assert_int_equal(parse_footer(good[i], &arena, &zone), strcmp(good[i], "A1BC0") != 0);
    for (size_t i = 0; i < countof(bad); i++)
        if (parse_footer(bad[i], &arena, &zone))
            fail_msg("%s", bad[i]);
    assert_true(parse_footer("XXX3EDT4,0/0,J365/23", &arena, &zone)); // summer all the year (RFC 8536 3.3.1)
    assert_int_equal(time_zone_offset(&zone, unix_s("2026-01-01 03:00:00")), -4 * 3600);
    assert_int_equal(time_zone_offset(&zone, unix_s("2026-12-31 23:00:00")), -4 * 3600);
    assert_int_equal(time_zone_offset(&zone, unix_s("2026-07-01 00:00:00")), -4 * 3600);
    arena_reset(&arena);
}

static void test_damaged_files(void **unused)
{
    (void)unused;
    struct arena arena, other;
    struct time_zone zone;
    struct rand rand;
    const char *what;
    rand_init_seed(&rand, 9);
    arena_init(&arena, NULL);
    arena_init(&other, NULL);
    struct str file = file_load(STR(TIME_ZONE_DIRECTORY "/Asia/Gaza"), TIME_ZONE_FILE_MAX, &arena, &what);
    assert_true(file.n > 500);
    for (size_t n = 0; n < file.n; n++) { // each in memory of its own size, so that a sanitizer sees the end
        char *cut = malloc(n + 1);
        memcpy(cut, file.p, n);
        if (time_zone_parse((struct str){cut, n}, &other, &zone))
            assert_true(n + 1 >= file.n); // all but the last line's end
        free(cut);
        arena_reset(&other);
    }
    char *damaged = malloc(file.n);
    for (int i = 0; i < 20000; i++) {
        memcpy(damaged, file.p, file.n);
        for (uint32_t j = 0; j <= rand_below(&rand, 3); j++)
            damaged[rand_below(&rand, rand_below(&rand, 2) ? 100 : (uint32_t)file.n)] =
                (char)rand_below(&rand, 256);
        if (time_zone_parse((struct str){damaged, file.n}, &other, &zone))
            time_zone_reach(&zone, (int64_t)rand_u64(&rand) / 4);
        arena_reset(&other);
    }
    free(damaged);
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_zone_as_the_libc_has_it),
        cmocka_unit_test(test_when_clocks_first_show_it),
        cmocka_unit_test(test_first_is_first),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_footers),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
