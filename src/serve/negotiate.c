#include "serve/serve.h"

// "q=0.5" among a media range's parameters, in thousandths; 1000 when there is none (RFC 9110 12.4.2).
static unsigned quality_of(struct str parameters)
{
    while (parameters.n) {
        struct str parameter = {parameters.p, str_find(parameters, ';')};
        parameters = str_skip(parameters, parameter.n < parameters.n ? parameter.n + 1 : parameter.n);
        parameter = str_trim(parameter);
        if (parameter.n < 3 || ascii_lower(parameter.p[0]) != 'q' || parameter.p[1] != '=')
            continue;
        unsigned quality = 0, unit = 1000;
        for (size_t i = 2; i < parameter.n && unit; i++) {
            if (parameter.p[i] == '.')
                continue;
            quality += (unsigned)(parameter.p[i] - '0') % 10 * unit;
            unit /= 10;
        }
        return quality;
    }
    return 1000;
}

bool serve_accepts_openmetrics(const struct headers *headers)
{
    unsigned openmetrics = 0, text = 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->v[i].id == HEADER_GONE || !str_eq_fold(headers->v[i].name, STR("Accept")))
            continue;
        struct str rest = headers->v[i].value, range;
        while (str_next_token(&rest, &range)) {
            struct str type = {range.p, str_find(range, ';')};
            unsigned quality = quality_of(str_skip(range, type.n));
            type = str_trim(type);
            if (str_eq_fold(type, STR("application/openmetrics-text")) && quality > openmetrics)
                openmetrics = quality;
            if (str_eq_fold(type, STR("text/plain")) && quality > text)
                text = quality;
        }
    }
    return openmetrics > 0 && openmetrics >= text;
}

struct str serve_metrics_type(bool openmetrics)
{
    return openmetrics ? STR("application/openmetrics-text; version=1.0.0; charset=utf-8")
                       : STR("text/plain; version=0.0.4; charset=utf-8");
}
