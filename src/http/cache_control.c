#include "http/cache_control.h"

#include "http/date.h"

enum { DELTA_MAX = 0x7fffffff }; // more is as much (RFC 9111 1.2.2)

static bool is_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

static uint64_t delta_of(struct str text)
{
    uint64_t seconds;
    if (!is_digits(text))
        return 0;
    return str_to_u64(text, DELTA_MAX, &seconds) ? seconds : DELTA_MAX;
}

// The length of what comes before the next comma that is not in quotes. False: a quote is left open.
static bool element_length(struct str text, size_t *n)
{
    bool is_quoted = false;
    for (*n = 0; *n < text.n; ++*n) {
        char c = text.p[*n];
        if (c == ',' && !is_quoted)
            return true;
        if (c == '\\' && is_quoted && *n + 1 < text.n)
            ++*n;
        else if (c == '"')
            is_quoted = !is_quoted;
    }
    return !is_quoted;
}

static struct str unquoted(struct str s)
{
    bool is_quoted = s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"';
    return is_quoted ? (struct str){s.p + 1, s.n - 2} : s;
}

static const struct {
    struct str name;
    size_t at;
} flags[] =
    {
#define FLAG(name, field)                                               \
    {                                                                   \
        {name, sizeof(name) - 1}, offsetof(struct cache_control, field) \
    }
        FLAG("no-store", no_store),
        FLAG("no-cache", no_cache),
        FLAG("private", is_private),
        FLAG("public", is_public),
        FLAG("must-revalidate", must_revalidate),
        FLAG("proxy-revalidate", must_revalidate),
},
  times[] = {
      FLAG("max-age", max_age_s),
      FLAG("s-maxage", s_maxage_s),
      FLAG("stale-if-error", stale_if_error_s),
#undef FLAG
};

static void note(struct cache_control *said, struct str name, struct str argument)
{
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (str_eq_fold(name, flags[i].name))
            *(bool *)((char *)said + flags[i].at) = true;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        if (!str_eq_fold(name, times[i].name))
            continue;
        uint64_t *seconds = (uint64_t *)(void *)((char *)said + times[i].at), delta = delta_of(argument);
        *seconds = delta < *seconds ? delta : *seconds;
    }
}

static void read_line(struct cache_control *said, struct str line)
{
    while (line.n) {
        size_t n;
        if (!element_length(line, &n)) {
            said->no_store = true;
            return;
        }
        struct str element = str_trim((struct str){line.p, n});
        size_t equals = str_find(element, '=');
        struct str argument = str_skip(element, equals < element.n ? equals + 1 : equals);
        note(said, str_trim((struct str){element.p, equals}), unquoted(str_trim(argument)));
        line = str_skip(line, n < line.n ? n + 1 : n);
    }
}

struct cache_control http_cache_control(const struct headers *headers)
{
    struct cache_control said = {
        .max_age_s = CACHE_UNSAID, .s_maxage_s = CACHE_UNSAID, .stale_if_error_s = CACHE_UNSAID};
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->v[i].id != HEADER_GONE && str_eq_fold(headers->v[i].name, STR("Cache-Control")))
            read_line(&said, headers->v[i].value);
    return said;
}

uint64_t http_age_s(const struct headers *headers)
{
    const struct header *age = headers_find_name(headers, STR("Age"));
    return age ? delta_of(str_trim((struct str){age->value.p, str_find(age->value, ',')})) : 0;
}

static int64_t date_of(const struct headers *headers, int64_t now_s)
{
    int64_t unix_s;
    return http_date_read(headers_value(headers, HEADER_DATE), now_s, &unix_s) ? unix_s : now_s;
}

static uint64_t seconds_between(int64_t from_s, int64_t to_s)
{
    uint64_t seconds = to_s > from_s ? (uint64_t)(to_s - from_s) : 0;
    return seconds < DELTA_MAX ? seconds : DELTA_MAX;
}

uint64_t http_apparent_age_s(const struct headers *headers, int64_t now_s)
{
    return seconds_between(date_of(headers, now_s), now_s);
}

// Of several the smallest, as of directives; for what is no date ("0") nothing (5.3).
static uint64_t expires_s(const struct headers *headers, int64_t now_s)
{
    uint64_t least = CACHE_UNSAID;
    int64_t date_s = date_of(headers, now_s), unix_s;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        if (header->id == HEADER_GONE || !str_eq_fold(header->name, STR("Expires")))
            continue;
        bool is_date = http_date_read(header->value, now_s, &unix_s);
        uint64_t seconds = is_date ? seconds_between(date_s, unix_s) : 0;
        least = seconds < least ? seconds : least;
    }
    return least;
}

uint64_t http_fresh_s(const struct headers *headers, const struct cache_control *said, int64_t now_s)
{
    if (said->s_maxage_s != CACHE_UNSAID)
        return said->s_maxage_s;
    return said->max_age_s != CACHE_UNSAID ? said->max_age_s : expires_s(headers, now_s);
}
