#include "http/date.h"

#include <time.h>

struct str http_date_print(int64_t unix_s, char text[static HTTP_DATE_BYTES])
{
    time_t seconds = (time_t)unix_s;
    struct tm utc;
    gmtime_r(&seconds, &utc);
    return (struct str){text, strftime(text, HTTP_DATE_BYTES, "%a, %d %b %Y %H:%M:%S GMT", &utc)};
}

// ---- reading ----
//
// A form is read by its letters:
//
//   a A  day's name, short or long      b  month's name      d  day      D  day, a space for its first zero
//   Y y  year of four or two digits     t  08:49:37          any other: itself

static const struct str days[] = {STR("Sunday"),   STR("Monday"), STR("Tuesday"), STR("Wednesday"),
                                  STR("Thursday"), STR("Friday"), STR("Saturday")},
                        months[] = {STR("Jan"), STR("Feb"), STR("Mar"), STR("Apr"), STR("May"), STR("Jun"),
                                    STR("Jul"), STR("Aug"), STR("Sep"), STR("Oct"), STR("Nov"), STR("Dec")};
static const char *const forms[] = {
    "a, d b Y t GMT", // IMF-fixdate
    "A, d-b-y t GMT", // RFC 850
    "a b D t Y",      // asctime
};

static bool take_text(struct str *rest, struct str text)
{
    if (rest->n < text.n || !str_eq_fold((struct str){rest->p, text.n}, text))
        return false;
    *rest = str_skip(*rest, text.n);
    return true;
}

// most: of each name's letters.
static bool take_name(struct str *rest, const struct str *names, int count, size_t most, int *which)
{
    for (*which = 0; *which < count; ++*which) {
        struct str name = names[*which];
        if (take_text(rest, (struct str){name.p, name.n < most ? name.n : most}))
            return true;
    }
    return false;
}

static bool take_digits(struct str *rest, unsigned count, int *number)
{
    *number = 0;
    if (rest->n < count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (rest->p[i] < '0' || rest->p[i] > '9')
            return false;
        *number = *number * 10 + (rest->p[i] - '0');
    }
    *rest = str_skip(*rest, count);
    return true;
}

static bool take_day(struct str *rest, int *day)
{
    return take_text(rest, STR(" ")) ? take_digits(rest, 1, day) : take_digits(rest, 2, day);
}

static bool take_time(struct str *rest, struct tm *tm)
{
    return take_digits(rest, 2, &tm->tm_hour) && take_text(rest, STR(":")) &&
           take_digits(rest, 2, &tm->tm_min) && take_text(rest, STR(":")) &&
           take_digits(rest, 2, &tm->tm_sec);
}

static bool take_year(struct str *rest, struct tm *tm)
{
    bool is_read = take_digits(rest, 4, &tm->tm_year);
    tm->tm_year -= 1900;
    return is_read;
}

// The last one with these digits that is not more than 50 years ahead.
static bool take_short_year(struct str *rest, int64_t now_s, struct tm *tm)
{
    enum { AHEAD = 50 };
    time_t seconds = (time_t)now_s;
    struct tm now;
    int digits;
    gmtime_r(&seconds, &now);
    if (!take_digits(rest, 2, &digits))
        return false;
    int most = now.tm_year + AHEAD; // since 1900, which ends in 00
    tm->tm_year = most - (most - digits) % 100;
    return true;
}

static bool take_part(struct str *rest, char letter, int64_t now_s, struct tm *tm)
{
    int day;
    switch (letter) {
    case 'a': return take_name(rest, days, countof(days), 3, &day);
    case 'A': return take_name(rest, days, countof(days), SIZE_MAX, &day);
    case 'b': return take_name(rest, months, countof(months), SIZE_MAX, &tm->tm_mon);
    case 'd': return take_digits(rest, 2, &tm->tm_mday);
    case 'D': return take_day(rest, &tm->tm_mday);
    case 'Y': return take_year(rest, tm);
    case 'y': return take_short_year(rest, now_s, tm);
    case 't': return take_time(rest, tm);
    default: return take_text(rest, (struct str){&letter, 1});
    }
}

static bool read_form(struct str text, const char *form, int64_t now_s, struct tm *tm)
{
    *tm = (struct tm){0};
    for (; *form; form++)
        if (!take_part(&text, *form, now_s, tm))
            return false;
    return !text.n;
}

// A leap second is the first of the next minute. What timegm puts right was no date.
static bool to_seconds(struct tm *tm, int64_t *unix_s)
{
    int day = tm->tm_mday, month = tm->tm_mon;
    if (day == 0 || tm->tm_hour > 23 || tm->tm_min > 59 || tm->tm_sec > 60)
        return false;
    int leap = tm->tm_sec == 60;
    tm->tm_sec -= leap;
    *unix_s = timegm(tm) + leap;
    return tm->tm_mday == day && tm->tm_mon == month;
}

bool http_date_read(struct str text, int64_t now_s, int64_t *unix_s)
{
    struct tm tm;
    for (unsigned i = 0; i < countof(forms); i++)
        if (read_form(text, forms[i], now_s, &tm))
            return to_seconds(&tm, unix_s);
    return false;
}
