#include "base/time_zone.h"

#include "base/calendar.h"
#include "base/file.h"

#include <dirent.h>
#include <string.h>

enum {
    HEADER_BYTES = 44,
    TYPE_BYTES = 6,
    TYPES = 256,
    HOUR_S = 3600,
    OFFSET_MAX_S = 26 * HOUR_S, // RFC 8536 3.2
    DIRECTORY_DEPTH = 3,        // America/Argentina/Ushuaia
};

// ---- numbers in a file ----

static uint64_t read_be(const char *p, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | (uint8_t)p[i];
    return value;
}

struct counts { // in the order of the header
    uint32_t isut, isstd, leap, time, type, character;
};

static bool read_header(struct str file, struct counts *counts)
{
    if (file.n < HEADER_BYTES || memcmp(file.p, "TZif", 4) != 0 || (uint8_t)file.p[4] < '2')
        return false;
    uint32_t *v[] = {&counts->isut, &counts->isstd, &counts->leap,
                     &counts->time, &counts->type,  &counts->character};
    for (unsigned i = 0; i < countof(v); i++) {
        *v[i] = (uint32_t)read_be(file.p + 20 + 4 * i, 4);
        if (*v[i] > TIME_ZONE_CHANGES)
            return false;
    }
    return true;
}

static size_t block_bytes(const struct counts *counts, size_t time_bytes)
{
    return counts->time * (time_bytes + 1) + counts->type * TYPE_BYTES + counts->character +
           counts->leap * (time_bytes + 4) + counts->isstd + counts->isut;
}

// ---- the table while it is made ----

struct table {
    struct time_zone_change *v;
    uint32_t count;
    int32_t first_offset_s;
    int64_t until_s; // the last change in the file, of whatever
};

static void add(struct table *table, int64_t at_s, int32_t offset_s)
{
    if (table->count && table->v[table->count - 1].at_s == at_s) // summer that ends when it begins again
        table->count--;
    int32_t before = table->count ? table->v[table->count - 1].offset_s : table->first_offset_s;
    if (offset_s != before) // other changes are of the name, or of what counts as summer
        table->v[table->count++] = (struct time_zone_change){at_s, offset_s};
}

static bool read_changes(const char *block, const struct counts *counts, struct table *table)
{
    const char *times = block, *indices = times + 8 * (size_t)counts->time, *types = indices + counts->time;
    table->until_s = INT64_MIN;
    for (uint32_t i = 0; i < counts->type; i++) {
        int32_t offset_s = (int32_t)read_be(types + TYPE_BYTES * i, 4);
        if (offset_s < -OFFSET_MAX_S || offset_s > OFFSET_MAX_S)
            return false;
    }
    table->first_offset_s = (int32_t)read_be(types, 4);
    for (uint32_t i = 0; i < counts->time; i++) {
        int64_t at_s = (int64_t)read_be(times + 8 * i, 8);
        uint8_t type = (uint8_t)indices[i];
        if (type >= counts->type || (i && at_s <= table->until_s))
            return false;
        add(table, at_s, (int32_t)read_be(types + TYPE_BYTES * type, 4));
        table->until_s = at_s;
    }
    return true;
}

// ---- the rule behind the last change: CET-1CEST,M3.5.0,M10.5.0/3 ----

struct rule_date {
    enum { DAY_WITHOUT_LEAP, DAY_FROM_ZERO, DAY_OF_WEEK } kind; // J1 to J365, 0 to 365, Mmonth.week.day
    uint64_t month, week, day;
    int32_t time_s;
};

struct rule {
    int32_t standard_s, summer_s; // east of UTC
    bool has_summer;
    struct rule_date begin, end; // of summer, by the clock before it
};

static bool take(struct str *rest, char c)
{
    if (!rest->n || rest->p[0] != c)
        return false;
    *rest = str_skip(*rest, 1);
    return true;
}

static bool take_number(struct str *rest, uint64_t least, uint64_t most, uint64_t *value)
{
    size_t n = 0;
    while (n < rest->n && rest->p[n] >= '0' && rest->p[n] <= '9')
        n++;
    if (!str_to_u64((struct str){rest->p, n}, most, value) || *value < least)
        return false;
    *rest = str_skip(*rest, n);
    return true;
}

static bool take_name(struct str *rest)
{
    size_t n = 0;
    if (take(rest, '<')) {
        n = str_find(*rest, '>');
        *rest = str_skip(*rest, n);
        return take(rest, '>');
    }
    while (n < rest->n && ((rest->p[n] | 32) >= 'a' && (rest->p[n] | 32) <= 'z'))
        n++;
    *rest = str_skip(*rest, n);
    return n >= 3;
}

// [+-]h[:m[:s]], up to a week.
static bool take_time(struct str *rest, int32_t *time_s)
{
    bool is_negative = take(rest, '-');
    uint64_t hours, minutes = 0, seconds = 0;
    if (!is_negative)
        take(rest, '+');
    if (!take_number(rest, 0, 167, &hours) || (take(rest, ':') && !take_number(rest, 0, 59, &minutes)) ||
        (take(rest, ':') && !take_number(rest, 0, 59, &seconds)))
        return false;
    int32_t sum_s = (int32_t)(hours * HOUR_S + minutes * 60 + seconds);
    *time_s = is_negative ? -sum_s : sum_s;
    return true;
}

// As POSIX writes it: west of UTC is positive.
static bool take_offset(struct str *rest, int32_t *offset_s)
{
    if (!take_time(rest, offset_s) || *offset_s < -OFFSET_MAX_S || *offset_s > OFFSET_MAX_S)
        return false;
    *offset_s = -*offset_s;
    return true;
}

static bool take_date(struct str *rest, struct rule_date *date)
{
    date->time_s = 2 * HOUR_S;
    date->kind = take(rest, 'M') ? DAY_OF_WEEK : take(rest, 'J') ? DAY_WITHOUT_LEAP : DAY_FROM_ZERO;
    bool good = date->kind == DAY_OF_WEEK
                    ? take_number(rest, 1, 12, &date->month) && take(rest, '.') &&
                          take_number(rest, 1, 5, &date->week) && take(rest, '.') &&
                          take_number(rest, 0, 6, &date->day)
                    : take_number(rest, date->kind == DAY_WITHOUT_LEAP, 365, &date->day);
    return good && (!take(rest, '/') || take_time(rest, &date->time_s));
}

static bool parse_rule(struct str text, struct rule *rule)
{
    if (!take_name(&text) || !take_offset(&text, &rule->standard_s))
        return false;
    if (!text.n)
        return true;
    rule->has_summer = true;
    rule->summer_s = rule->standard_s + HOUR_S;
    if (!take_name(&text) || (text.n && text.p[0] != ',' && !take_offset(&text, &rule->summer_s)))
        return false;
    return take(&text, ',') && take_date(&text, &rule->begin) && take(&text, ',') &&
           take_date(&text, &rule->end) && !text.n;
}

static bool is_leap(int64_t year)
{
    return calendar_days(year, 3) - calendar_days(year, 2) == 29;
}

// By the local clock, as Unix seconds of UTC would be.
static int64_t date_in(const struct rule_date *date, int64_t year)
{
    int64_t day = calendar_days(year, 1) + (int64_t)date->day;
    if (date->kind == DAY_WITHOUT_LEAP) {
        day += is_leap(year) && date->day >= 60 ? 0 : -1;
    } else if (date->kind == DAY_OF_WEEK) {
        int64_t month = (int64_t)date->month, first = calendar_days(year, month);
        int64_t next = calendar_days(year + month / 12, month % 12 + 1);
        int64_t weekday = (first + 4) - calendar_floor(first + 4, 7); // 1970 began with a Thursday
        int64_t wanted = (int64_t)date->day - weekday;
        day = first + (wanted < 0 ? wanted + 7 : wanted) + 7 * ((int64_t)date->week - 1);
        if (day >= next) // week 5: the last one
            day -= 7;
    }
    return day * CALENDAR_DAY_S + date->time_s;
}

static void add_by_rule(struct table *table, const struct rule *rule, int64_t year)
{
    int64_t begin_s = date_in(&rule->begin, year) - rule->standard_s;
    int64_t end_s = date_in(&rule->end, year) - rule->summer_s;
    struct time_zone_change two[] = {{begin_s, rule->summer_s}, {end_s, rule->standard_s}};
    unsigned first = end_s < begin_s;
    for (unsigned i = 0; i < 2; i++) {
        const struct time_zone_change *change = &two[first ^ i];
        if (change->at_s < table->until_s)
            continue;
        table->until_s = change->at_s;
        add(table, change->at_s, change->offset_s);
    }
}

static void add_years(struct table *table, const struct rule *rule)
{
    int64_t year = 1970, month;
    if (table->until_s > 0)
        calendar_month(calendar_floor(table->until_s, CALENDAR_DAY_S) / CALENDAR_DAY_S, &year, &month);
    for (year--; year <= TIME_ZONE_LAST_YEAR; year++) // there it may be the year before still
        add_by_rule(table, rule, year);
}

// ---- files ----

bool time_zone_parse(struct str file, struct arena *arena, struct time_zone *zone)
{
    struct counts counts;
    if (!read_header(file, &counts) || file.n - HEADER_BYTES < block_bytes(&counts, 4))
        return false;
    file = str_skip(file, HEADER_BYTES + block_bytes(&counts, 4)); // the second one has 64-bit times
    if (!read_header(file, &counts) || file.n - HEADER_BYTES < block_bytes(&counts, 8))
        return false;
    if (!counts.type || counts.type > TYPES || counts.leap)
        return false;
    struct table table = {
        .v = arena_array(arena, struct time_zone_change, counts.time + 2 * (TIME_ZONE_LAST_YEAR - 1970 + 2))};
    if (!read_changes(file.p + HEADER_BYTES, &counts, &table))
        return false;
    struct str footer = str_skip(file, HEADER_BYTES + block_bytes(&counts, 8));
    struct rule rule = {0};
    size_t footer_bytes = take(&footer, '\n') ? str_find(footer, '\n') : footer.n;
    if (footer_bytes == footer.n) // no line
        return false;
    footer.n = footer_bytes;
    if (footer.n && !parse_rule(footer, &rule))
        return false;
    if (rule.has_summer)
        add_years(&table, &rule);
    *zone = (struct time_zone){table.first_offset_s, table.v, table.count};
    return true;
}

static bool is_name(struct str name)
{
    bool after_slash = true;
    if (name.n > TIME_ZONE_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool is_letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        if (!is_letter && (after_slash || !strchr("0123456789+-_/", c) || !c))
            return false;
        after_slash = c == '/';
    }
    return !after_slash;
}

bool time_zone_load(struct str name, struct arena *arena, struct time_zone *zone, const char **why)
{
    *why = "no such time zone";
    if (!is_name(name))
        return false;
    const char *what;
    struct str path = arena_printf(arena, TIME_ZONE_DIRECTORY "/%.*s", STR_ARG(name));
    struct str file = file_load(path, TIME_ZONE_FILE_MAX, arena, &what);
    if (!file.p)
        return false;
    *why = "its file in " TIME_ZONE_DIRECTORY " is not a time zone's";
    return time_zone_parse(file, arena, zone);
}

// ---- names, for suggestions ----

static void list_names(struct arena *arena, struct str prefix, unsigned depth, struct str *names,
                       uint32_t *count)
{
    struct str path = arena_printf(arena, TIME_ZONE_DIRECTORY "/%.*s", STR_ARG(prefix));
    DIR *directory = opendir(path.p);
    if (!directory)
        return;
    for (struct dirent *entry; *count < TIME_ZONE_NAMES && (entry = readdir(directory));) {
        struct str name = arena_printf(arena, "%.*s%s", STR_ARG(prefix), entry->d_name);
        if (!is_name(name) || str_eq(name, STR("posix")) || str_eq(name, STR("right"))) // all of it again
            continue;
        if (entry->d_type != DT_DIR)
            names[(*count)++] = name;
        else if (depth < DIRECTORY_DEPTH)
            list_names(arena, arena_printf(arena, "%.*s/", STR_ARG(name)), depth + 1, names, count);
    }
    closedir(directory);
}

uint32_t time_zone_names(struct arena *arena, const struct str **names)
{
    struct str *v = arena_array(arena, struct str, TIME_ZONE_NAMES);
    uint32_t count = 0;
    list_names(arena, STR_NULL, 1, v, &count);
    *names = v;
    return count;
}

// ---- what can be asked ----

// How many changes there have been.
static uint32_t changes_until(const struct time_zone *zone, int64_t at_s)
{
    uint32_t from = 0, to = zone->count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (zone->v[middle].at_s <= at_s)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static int32_t offset_after(const struct time_zone *zone, uint32_t changes)
{
    return changes ? zone->v[changes - 1].offset_s : zone->first_offset_s;
}

int32_t time_zone_offset(const struct time_zone *zone, int64_t at_s)
{
    return offset_after(zone, changes_until(zone, at_s));
}

int64_t time_zone_reach(const struct time_zone *zone, int64_t local_s)
{
    for (uint32_t i = changes_until(zone, local_s - OFFSET_MAX_S);; i++) {
        int64_t at_s = local_s - offset_after(zone, i);
        if (i && at_s < zone->v[i - 1].at_s)
            at_s = zone->v[i - 1].at_s;
        if (i == zone->count || at_s < zone->v[i].at_s)
            return at_s;
    }
}
