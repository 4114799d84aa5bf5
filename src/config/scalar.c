// What scalars mean by themselves: YAML 1.2 types, durations, sizes.
#include "config/config.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t skip_digits(struct str s, size_t at)
{
    while (at < s.n && is_digit(s.p[at]))
        at++;
    return at;
}

// 0o17 and 0xff: whole numbers to YAML 1.2. No key takes them, but they are no strings either.
static bool is_based_int(struct str s)
{
    if (s.n < 3 || s.p[0] != '0' || (s.p[1] != 'x' && s.p[1] != 'o'))
        return false;
    for (size_t i = 2; i < s.n; i++) {
        char c = ascii_lower(s.p[i]);
        if (s.p[1] == 'o' ? c < '0' || c > '7' : !is_digit(c) && (c < 'a' || c > 'f'))
            return false;
    }
    return true;
}

static bool is_infinite(struct str s)
{
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = str_skip(s, 1);
    return str_eq(s, STR(".inf")) || str_eq(s, STR(".Inf")) || str_eq(s, STR(".INF")) ||
           str_eq(s, STR(".nan")) || str_eq(s, STR(".NaN")) || str_eq(s, STR(".NAN"));
}

// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?   (YAML 1.2.2, 10.3.2)
static enum config_plain number_of(struct str s)
{
    size_t at = s.n && (s.p[0] == '-' || s.p[0] == '+') ? 1 : 0;
    size_t whole_end = skip_digits(s, at), digits = whole_end - at;
    if (digits && whole_end == s.n)
        return CONFIG_PLAIN_INT;
    at = whole_end;
    if (at < s.n && s.p[at] == '.') {
        size_t end = skip_digits(s, at + 1);
        digits += end - at - 1;
        at = end;
    }
    if (!digits)
        return CONFIG_PLAIN_STRING;
    if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
        at++;
        if (at < s.n && (s.p[at] == '-' || s.p[at] == '+'))
            at++;
        size_t end = skip_digits(s, at);
        if (end == at)
            return CONFIG_PLAIN_STRING;
        at = end;
    }
    return at == s.n ? CONFIG_PLAIN_FLOAT : CONFIG_PLAIN_STRING;
}

enum config_plain config_plain_of(struct str s)
{
    if (s.n == 0 || str_eq(s, STR("~")) || str_eq(s, STR("null")))
        return CONFIG_PLAIN_NULL;
    char c = s.p[0];
    if (!is_digit(c) && c != '-' && c != '+' && c != '.')
        return str_eq(s, STR("true")) || str_eq(s, STR("false")) ? CONFIG_PLAIN_BOOL : CONFIG_PLAIN_STRING;
    if (is_based_int(s))
        return CONFIG_PLAIN_INT;
    return is_infinite(s) ? CONFIG_PLAIN_FLOAT : number_of(s);
}

// ---- durations ----

static const struct unit {
    const char *name;
    uint64_t factor;
} duration_units[] = {
    {"d", 86400000000}, {"h", 3600000000}, {"m", 60000000}, {"s", 1000000}, {"ms", 1000}, {"us", 1},
};

enum { DURATION_DIGITS = 18 };
static const uint64_t duration_max = UINT64_C(10) * 365 * 86400000000;

static size_t unit_length(struct str s)
{
    size_t n = 0;
    while (n < s.n && !is_digit(s.p[n]))
        n++;
    return n;
}

bool config_duration(struct str text, uint64_t *us)
{
    uint64_t sum = 0;
    size_t next_unit = 0; // each unit at most once, the larger first
    if (!text.n)
        return false;
    while (text.n) {
        uint64_t count;
        size_t digits = skip_digits(text, 0);
        if (digits > DURATION_DIGITS || !str_to_u64((struct str){text.p, digits}, UINT64_MAX, &count))
            return false;
        text = str_skip(text, digits);
        struct str unit = {text.p, unit_length(text)};
        while (next_unit < countof(duration_units) && !str_eq(unit, str_of(duration_units[next_unit].name)))
            next_unit++;
        if (next_unit == countof(duration_units) || count > duration_max / duration_units[next_unit].factor)
            return false;
        sum += count * duration_units[next_unit++].factor;
        if (sum > duration_max)
            return false;
        text = str_skip(text, unit.n);
    }
    *us = sum;
    return true;
}

struct config_node *config_new_duration(struct arena *arena, uint64_t us)
{
    char text[96];
    size_t n = 0;
    for (size_t i = 0; i < countof(duration_units) && us; i++) {
        // Days only when they are whole: "36h" reads better than "1d12h".
        if (us < duration_units[i].factor || (i == 0 && us % duration_units[i].factor))
            continue;
        n += u64_print(us / duration_units[i].factor, text + n);
        us %= duration_units[i].factor;
        for (const char *c = duration_units[i].name; *c; c++)
            text[n++] = *c;
    }
    return config_new_plain(arena, n ? (struct str){text, n} : STR("0s"));
}

// ---- sizes ----

static const struct unit size_units[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}};

bool config_size(struct str text, uint64_t *bytes)
{
    uint64_t count;
    size_t digits = skip_digits(text, 0);
    if (!str_to_u64((struct str){text.p, digits}, INT64_MAX, &count))
        return false;
    struct str name = str_skip(text, digits);
    for (size_t i = 0; i < countof(size_units); i++)
        if (str_eq(name, str_of(size_units[i].name))) {
            *bytes = count * size_units[i].factor;
            return count <= INT64_MAX / size_units[i].factor;
        }
    return false;
}

struct config_node *config_new_size(struct arena *arena, uint64_t bytes)
{
    size_t i = 0;
    while (bytes == 0 ? size_units[i].factor > 1 : bytes % size_units[i].factor != 0)
        i++;
    return config_new_plain(arena,
                            arena_printf(arena, "%llu%s", (unsigned long long)(bytes / size_units[i].factor),
                                         size_units[i].name));
}
