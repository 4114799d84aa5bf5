// The proleptic Gregorian calendar in days since 1970 (years from March; Hinnant 2013).
#pragma once

#include <stdint.h>

enum { CALENDAR_DAY_S = 86400 };

// The largest multiple of step that is not above the value, also below zero.
static inline int64_t calendar_floor(int64_t value, int64_t step)
{
    int64_t rest = value % step;
    return value - (rest < 0 ? rest + step : rest);
}

// The first of a month, 1 to 12.
static inline int64_t calendar_days(int64_t year, int64_t month)
{
    year -= month <= 2;
    int64_t era = calendar_floor(year, 400) / 400, year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

// The month of a day.
static inline void calendar_month(int64_t days, int64_t *year, int64_t *month)
{
    days += 719468;
    int64_t era = calendar_floor(days, 146097) / 146097, day = days - era * 146097;
    int64_t year_of_era = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = year_of_era + era * 400 + (*month <= 2);
}
